"""What a candidate learns from: weights, origins, and nothing that validation or test could know."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from stages.compose import main as stage
from undertone import tables
from undertone.augmentation import compose
from undertone.corpus import held, split
from undertone.errors import Problem
from undertone.files import md5, read_json, write_json
from undertone.labels import LabelSpace
from undertone.params import Clean, Mix, read_params

SPACE = LabelSpace.of("c", ["a", "b"])
ALIKE = Clean(similarity=0.8, shingle=5)
OWN = Mix(gold=1.0, silver=1.0, table=1.0)
WIDE = Mix(gold=1.0, silver=1.0, table=1.0, generated=0.5, pseudo=0.25)


def rows() -> pd.DataFrame:
    """Four training rows, one validation, one test, as voters labelled them; people labelled r1 and r4,
    and say the contrary."""
    table = pd.DataFrame(
        {
            "id": [f"r{at}" for at in range(6)],
            "text": [f"{word * 9} stood here" for word in "one two three four five six".split()],
            "group": ["x", "", "y", "", "z", "w"],
            "repeat": range(6),
            "part": ["train"] * 4 + ["validation", "test"],
        }
    )
    voted = np.array([1, 1, 0, 0, 1, 0], dtype=float)
    for prefix in ("silver", "label"):
        table[f"{prefix}.a"], table[f"{prefix}.b"] = voted, 1 - voted
    by_hand = np.where(table["id"].isin(["r1", "r4"]), 1 - voted, np.nan)
    table["gold.a"], table["gold.b"] = by_hand, 1 - by_hand
    return table


def added(text: str = "nobody has ever said such a thing", **changed: Any) -> pd.DataFrame:
    return pd.DataFrame({"id": ["n0"], "text": [text], "label.a": [1.0], "label.b": [0.0], **changed})


def composed(mix: Mix, **more: pd.DataFrame) -> pd.DataFrame:
    return compose.compose(rows(), SPACE, mix, ALIKE, added=more).set_index("id")


def test_without_additions_it_is_the_split_with_peoples_labels_where_there_are_any() -> None:
    found, before = composed(OWN), rows().set_index("id")
    assert found["weight"].eq(1).all()
    assert found["origin"].tolist() == ["silver", "gold", "silver", "silver", "silver", "silver"]
    changed = found.index[found["label.a"] != before["label.a"]]
    assert changed.tolist() == ["r1"]  # and not r4: validation stays as it was
    pd.testing.assert_frame_equal(found[["text", "part", "group"]], before[["text", "part", "group"]])


def test_gold_that_weighs_nothing_leaves_its_rows_as_the_voters_labelled_them() -> None:
    found = composed(Mix(silver=1.0))
    assert set(found["origin"]) == {"silver"}
    assert found["label.a"].tolist() == rows()["label.a"].tolist()


def test_what_weighs_nothing_is_gone_from_training_alone() -> None:
    found = composed(Mix(gold=2.0))
    assert found.index.tolist() == ["r1", "r4", "r5"]
    assert found["weight"].tolist() == [2, 1, 1]
    with pytest.raises(Problem, match="no row is left to learn from: those of the training part are"):
        composed(Mix(table=1.0))


def test_labels_that_came_with_the_table_are_told_from_voters() -> None:
    table = rows().drop(columns=["silver.a", "silver.b"])
    found = compose.compose(table, SPACE, OWN, ALIKE, added={})
    assert found["origin"].tolist() == ["table", "gold", "table", "table", "table", "table"]


def test_added_rows_stand_behind_the_split_with_weight_origin_and_parents() -> None:
    generated = added(parent="r0; r2")
    pseudo = added("another thing that nobody said", id=["r9"], confidence=[0.9])
    found = composed(WIDE, generated=generated, pseudo=pseudo)
    assert found.index[-2:].tolist() == ["n0", "r9"]
    assert found.loc[["n0", "r9"], "weight"].tolist() == [0.5, 0.25]
    assert found.loc[["n0", "r9"], "origin"].tolist() == ["generated", "pseudo"]
    assert found.loc[["n0", "r9"], "parent"].tolist() == ["r0; r2", ""]
    assert found["repeat"].is_unique
    assert found.loc[["n0", "r9"], "part"].eq("train").all()
    assert compose.told(found) == {
        "gold": {"rows": 1, "weight": 1.0},
        "silver": {"rows": 3, "weight": 3.0},
        "generated": {"rows": 1, "weight": 0.5},
        "pseudo": {"rows": 1, "weight": 0.25},
    }


def test_a_mix_that_gives_additions_no_weight_does_not_see_them() -> None:
    with_them = composed(OWN, generated=added(parent="r5"), pseudo=added(id=["r0"]))
    pd.testing.assert_frame_equal(with_them, composed(OWN))


@pytest.mark.parametrize(
    ("generated", "told"),
    [
        (added(parent="r4"), "were made from a row that is no training row"),
        (added(parent="r0;r5"), "were made from a row that is no training row"),
        (added(parent="gone"), "were made from a row that is no training row"),
        (added(f"{'FIVE' * 9} stood here!", parent="r0"), "repeat a row of validation or test"),
        (added(f"{'six' * 9} stood here.", parent="r0"), "repeat a row of validation or test"),
        (added(id=["r0"], parent="r1"), "have an id that the split has"),
        (added(**{"label.b": [1.0]}), "have no label of the codebook, or not one alone"),
        (added(**{"label.a": [np.nan]}), "have no label of the codebook, or not one alone"),
    ],
)
def test_what_knows_of_validation_or_test_is_refused(generated: pd.DataFrame, told: str) -> None:
    with pytest.raises(Problem) as caught:
        composed(WIDE, generated=generated)
    assert f"1 of 1 rows {told}" in str(caught.value)
    assert "stood" not in str(caught.value)


def test_a_row_made_from_an_added_row_of_a_training_row_is_learnt_from() -> None:
    both = pd.concat([added(parent="r0"), added("what comes of that", id=["n1"], parent="n0")])
    assert composed(WIDE, generated=both.reset_index(drop=True)).index[-2:].tolist() == ["n0", "n1"]


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(Problem) as caught:
        composed(WIDE, pseudo=added(id=["r5"], text=rows()["text"][5]))
    assert len(str(caught.value).splitlines()) == 2


def test_what_repeats_or_shares_an_author_with_a_held_row_is_not_free() -> None:
    table = rows()
    assert held.free(table, table, ALIKE).tolist() == [True] * 4 + [False] * 2
    author = table.assign(group=["Z ", "", "y", "", "z", "w"])
    assert held.free(author, table, ALIKE).tolist() == [False] + [True] * 3 + [False] * 2
    repeat = table.assign(repeat=[0, 5, 2, 3, 4, 5])
    assert not held.free(repeat, table, ALIKE)[1]
    alike = table.assign(text=[*table["text"][:3], f"{'six' * 9} stood here..", *table["text"][4:]])
    assert not held.free(alike, table, ALIKE)[3]
    by_word = table.assign(part=[*["train"] * 3, "test", "", ""])  # the table's own, not the split's
    assert not held.free(by_word, table, ALIKE)[3]


def test_parents_are_named_where_there_is_such_a_column() -> None:
    assert split.named(rows()).eq("").all()
    assert split.named(added(parent=[None])).tolist() == [""]


def test_doubted_labels_weigh_less_unless_they_are_peoples() -> None:
    table = pd.concat([rows()] * 8, ignore_index=True)
    table["id"] = [f"r{at}" for at in range(len(table))]
    table["label.a"] = (table.index % 2).astype(float)
    table["label.b"] = 1 - table["label.a"]
    table[["gold.a", "gold.b"]] = np.nan
    table.loc[1, ["gold.a", "gold.b"]] = [0.0, 1.0]
    before = compose.compose(table, SPACE, OWN, ALIKE, added={})
    train = before[before["part"] == "train"]
    a = np.where(train["label.a"] == 1, 0.9, 0.1)
    a[[1, 4]] = 1 - a[[1, 4]]  # r1, which people labelled, and r6
    a[1] = 0.95
    scores = np.column_stack([a, 1 - a])
    dropped = compose.doubted(before, SPACE, scores, "drop")
    assert set(before["id"]) - set(dropped["id"]) == {"r6"}
    weighed = compose.doubted(before, SPACE, scores, "weigh").set_index("id")["weight"]
    assert 0 < weighed["r6"] < 0.2
    assert weighed.drop("r6").eq(1).all()


def staged(
    folder: Path,
    mix: Mix,
    rows: pd.DataFrame,
    *added: pd.DataFrame,
    people: pd.DataFrame | None = None,
) -> Path:
    """What the stage writes for a candidate on `mix`; `added`: generated and pseudo rows; `people`: rows
    outside the split that people labelled."""
    SPACE.save(folder / "space.json")
    write_json(folder / "mix.json", {"name": "some", "weights": mix.model_dump()})
    given = (rows, rows[:0] if people is None else people, *added)
    for name, table in zip(("split", "people", "generated", "pseudo"), given, strict=True):
        tables.write(table, folder / f"{name}.parquet")
    everything = rows if people is None else pd.concat([rows.assign(part=""), people])
    tables.write(everything, folder / "clean.parquet")
    told = stage(
        read_params(),
        mix=folder / "mix.json",
        labels=folder / "space.json",
        comments=folder / "clean.parquet",
        split=folder / "split.parquet",
        people=folder / "people.parquet",
        generated=folder / "generated.parquet",
        pseudo=folder / "pseudo.parquet",
        out=folder / "out.parquet",
        counts=folder / "counts.json",
    )
    assert told.startswith("mix some: ")
    return folder / "out.parquet"


def test_what_a_mix_does_not_use_changes_no_byte_of_what_is_learnt_from(tmp_path: Path) -> None:
    none = added(parent="").iloc[:0]
    alone = md5(staged(tmp_path, OWN, rows(), none, none))
    pseudo = added("another thing that nobody said", id=["r9"], parent="")
    assert md5(staged(tmp_path, OWN, rows(), added(parent="r0"), pseudo)) == alone
    assert md5(staged(tmp_path, WIDE, rows(), none, none)) == alone
    assert md5(staged(tmp_path, WIDE, rows(), added(parent="r0"), pseudo)) != alone
    assert read_json(tmp_path / "counts.json") == {
        "name": "some",
        "weights": WIDE.model_dump(),
        "rows": compose.told(tables.read(tmp_path / "out.parquet")),
    }


def test_what_people_labelled_and_nobody_else_is_learnt_from_where_gold_weighs(tmp_path: Path) -> None:
    none = added(parent="").iloc[:0]
    people = pd.DataFrame({"id": [f"n{at}" for at in range(5)], "part": ""})
    people["text"] = [f"{word * 7} was found" for word in "seven eight nine ten eleven".split()]
    people["group"] = ["", "z", "", "", "x"]  # z wrote r4, which is validation
    people["repeat"] = [6, 7, 5, 8, 0]  # 5 is that of r5, which is test
    people["gold.a"], people["gold.b"] = [1.0, 1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0, 1.0]
    found = tables.read(staged(tmp_path, OWN, rows(), none, none, people=people)).set_index("id")
    new = found.loc[~found.index.isin(rows()["id"])]
    assert new.index.tolist() == ["n0", "n4"]  # n3 has two labels
    assert new[["label.a", "label.b"]].to_numpy().tolist() == [[1, 0], [0, 1]]
    assert set(new["origin"]) == {"gold"}
    assert new["group"].tolist() == ["", "x"]
    assert found.loc["n4", "repeat"] == found.loc["r0", "repeat"]
    off = tables.read(staged(tmp_path, Mix(silver=1.0), rows(), none, none, people=people))
    assert not set(off["id"]) & set(people["id"])


def test_the_stage_drops_labels_that_models_which_have_not_seen_them_doubt(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    words = {True: "warm kind fair good".split(), False: "cold harsh grim bad".split()}
    truth = np.arange(120) % 2 == 0
    said = [f"{' '.join(rng.choice(words[bool(one)], 5))} {at} " for at, one in enumerate(truth)]
    wrong = np.arange(120) % 30 == 7
    table = pd.DataFrame({"id": [f"r{at}" for at in range(120)], "text": said, "group": ""})
    table["repeat"] = np.arange(120)
    table["part"] = ["train"] * 100 + ["validation"] * 10 + ["test"] * 10
    table["label.a"] = (truth != wrong).astype(float)
    table["label.b"] = 1 - table["label.a"]
    none = added(parent="").iloc[:0]
    found = tables.read(staged(tmp_path, Mix(table=1.0, noise="drop"), table, none, none))
    gone = set(table["id"]) - set(found["id"])
    planted = {"r7", "r37", "r67", "r97"}
    assert len(gone & planted) >= 3
    assert len(gone - planted) <= 2
