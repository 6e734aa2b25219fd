"""Train, validation and test."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from stages import split as stage
from undertone import tables
from undertone.corpus import certificate, clean, split
from undertone.corpus.ledger import Ledger
from undertone.errors import Problem
from undertone.labels import LabelSpace
from undertone.params import Clean, Folds, Split, read_params

ONE = LabelSpace.of("mood", ["calm", "angry"])
MANY = LabelSpace.of("moods", ["joy", "fear", "anger"], many=True)
ALIKE = Clean(similarity=0.8, shingle=5)
DATA = Path(__file__).parents[2] / "shared" / "data"


def how(**changes: object) -> Split:
    plain: dict[str, object] = {
        "seed": 1, "validation": 0.2, "test": 0.2, "order": "random", "min_support": 3,
        "rare": "refuse", "merge_into": "other", "train_rows": None, "folds": None,
    }  # fmt: skip
    return Split.model_validate(plain | changes)


def cut(table: pd.DataFrame, space: LabelSpace, settings: Split) -> tuple[pd.DataFrame, Ledger]:
    return split.split(table, space, settings, ALIKE)


def proof_of(table: pd.DataFrame, space: LabelSpace = ONE, **changes: object) -> dict[str, Any]:
    return certificate.certificate(table, space, how(**changes), ALIKE, rare={}, into=None)


def comments(labels: list[str | None], **columns: list[object]) -> pd.DataFrame:
    """A cleaned table with one label a text: by itself each row has no author and no repeat."""
    size = len(labels)
    table = pd.DataFrame(
        {"id": [f"{row:05}" for row in range(size)], "text": [f"text {row}" for row in range(size)]}
        | {"group": [None] * size, "part": [None] * size, "repeat": range(size)}
        | columns
    )
    for label in ONE.labels:
        flags = [None if given is None else int(given == label) for given in labels]
        table[f"label.{label}"] = pd.array(flags, dtype="Int8")
    return table


def marked(flags: list[tuple[int, ...]]) -> pd.DataFrame:
    """A cleaned table with many labels a text."""
    table = comments([None] * len(flags)).drop(columns=[f"label.{label}" for label in ONE.labels])
    for column, label in enumerate(MANY.labels):
        table[f"label.{label}"] = pd.array([row[column] for row in flags], dtype="Int8")
    return table


def parts_of(table: pd.DataFrame) -> dict[str, str]:
    return dict(zip(table["id"], table["part"], strict=True))


def test_one_label_keeps_its_proportion_in_every_part() -> None:
    table, _ = cut(comments(["calm"] * 80 + ["angry"] * 20), ONE, how())
    counts = pd.crosstab(table["part"], table["label.angry"].astype(int))
    assert counts.loc["train"].tolist() == [48, 12]
    assert counts.loc["validation"].tolist() == [16, 4]
    assert counts.loc["test"].tolist() == [16, 4]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_many_labels_keep_their_proportions_in_every_part(seed: int) -> None:
    rng = np.random.default_rng(seed)
    drawn = rng.random((300, 3)) < [0.5, 0.1, 0.05]
    drawn[:6] = np.eye(3, dtype=bool)[[0, 0, 1, 1, 2, 2]]
    table, _ = cut(marked([tuple(row) for row in drawn.astype(int)]), MANY, how())
    for name, share in (("train", 0.6), ("validation", 0.2), ("test", 0.2)):
        part = table[table["part"] == name]
        assert len(part) == pytest.approx(300 * share, abs=9)
        for label in MANY.labels:
            total = int(table[f"label.{label}"].sum())
            assert part[f"label.{label}"].sum() == pytest.approx(total * share, abs=3)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(12, 60), st.integers(30, 150))
def test_no_author_and_no_repeat_is_on_two_sides(seed: int, authors: int, texts: int) -> None:
    rng = np.random.default_rng(seed)
    wrote = [None if who == 0 else f"author {who}" for who in rng.integers(authors, size=150)]
    table = comments(
        ["angry" if hit else "calm" for hit in rng.random(150) < 0.4],
        group=wrote,
        repeat=rng.integers(texts, size=150).tolist(),
    )
    try:
        result, ledger = cut(table, ONE, how())
    except Problem:  # repeats may take a label's last rows from a part
        reject()
    assert result.groupby("group")["part"].nunique().max() == 1
    assert result.groupby("repeat")["part"].nunique().max() == 1
    assert set(result["part"]) == set(tables.PARTS)
    proof = proof_of(result)
    assert set(proof["shared_groups"].values()) == {0}
    assert set(proof["shared_repeats"].values()) == {0}
    assert ledger.rows_out == len(result)


def test_no_row_is_lost_where_authors_and_repeats_make_small_units() -> None:
    table = comments(
        ["calm", "angry"] * 30,
        group=[f"author {row // 3}" for row in range(60)],
        repeat=[row if row % 20 else 0 for row in range(60)],
    )
    result, ledger = cut(table, ONE, how())
    assert ledger == Ledger("split", 60, 60, {})
    assert result["id"].tolist() == table["id"].tolist()


def test_what_everybody_says_ties_no_authors_together_but_is_on_one_side() -> None:
    # Every author also says the same thing: tied by it, all of them would be one unit.
    table = comments(
        ["calm", "angry", "calm"] * 20,
        group=[f"author {row // 3}" for row in range(60)],
        repeat=[0 if row % 3 == 2 else row + 1 for row in range(60)],
    )
    result, ledger = cut(table, ONE, how())
    assert result.groupby("group")["part"].nunique().max() == 1
    assert set(result.loc[result["repeat"] == 0, "part"]) == {"test"}
    assert ledger.dropped["repeats a test row"] + (result["repeat"] == 0).sum() == 20


def test_rows_without_an_author_are_not_taken_for_one_author() -> None:
    table = comments(["calm", "angry"] * 10, group=[None, ""] * 10)
    assert len(np.unique(split.units(table))) == 20


def test_authors_are_tied_by_what_they_repeat_of_each_other() -> None:
    table = comments(["calm"] * 5, group=["a", "a", "b", "b", None], repeat=[0, 1, 1, 2, 2])
    assert split.units(table).tolist() == [0] * 5
    assert split.units(table, across_authors=False).tolist() == [0, 0, 1, 1, 2]


def test_the_order_of_the_rows_decides_nothing() -> None:
    table = comments(["calm", "calm", "angry"] * 20, group=[f"a{row % 25}" for row in range(60)])
    shuffled = table.sample(frac=1, random_state=3)
    settled = how(train_rows=20)
    assert parts_of(cut(table, ONE, settled)[0]) == parts_of(cut(shuffled, ONE, settled)[0])


def test_another_seed_makes_another_split() -> None:
    table = comments(["calm", "angry"] * 30)
    one, other = (cut(table, ONE, how(seed=seed))[0] for seed in (1, 2))
    assert parts_of(one) != parts_of(other)


def test_rows_without_a_label_are_dropped_and_counted() -> None:
    table = comments(["calm", "angry"] * 10 + [None] * 3)
    result, ledger = cut(table, ONE, how())
    assert ledger == Ledger("split", 23, 20, {"unlabelled": 3})
    assert "00020" not in set(result["id"])


def test_a_row_with_none_of_many_labels_is_labelled() -> None:
    flags = [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 0)] * 10
    result, ledger = cut(marked(flags), MANY, how())
    assert ledger.dropped == {}
    none = result[result[[f"label.{label}" for label in MANY.labels]].sum(axis=1) == 0]
    assert none["part"].value_counts().to_dict() == {"train": 6, "validation": 2, "test": 2}


def official() -> pd.DataFrame:
    return comments(
        ["calm", "angry"] * 15,
        part=["train"] * 18 + ["validation"] * 6 + ["test"] * 6,
        group=["author 1" if row in (0, 29) else None for row in range(30)],
    )


def test_an_official_split_stays_as_it_is() -> None:
    table = official()
    result, ledger = cut(table, ONE, how())
    assert ledger.dropped == {}
    assert parts_of(result) == parts_of(table)


def test_authors_shared_in_an_official_split_are_counted() -> None:
    proof = proof_of(official())
    assert proof["shared_groups"] == {
        "train and validation": 0, "train and test": 1, "validation and test": 0,
    }  # fmt: skip


def test_repeats_leave_the_earlier_part_of_an_official_split_and_never_the_test() -> None:
    table = official()
    # One text in all three parts; one in train and validation; one in train and test.
    for row, repeat in ((0, 100), (18, 100), (24, 100), (1, 101), (19, 101), (2, 102), (25, 102)):
        table.loc[row, "repeat"] = repeat
    result, ledger = cut(table, ONE, how())
    assert ledger.dropped == {"repeats a test row": 3, "repeats a validation row": 1}
    assert set(table["id"]) - set(result["id"]) == {"00000", "00018", "00001", "00002"}


def test_an_official_split_without_validation_gets_one_from_its_training_part() -> None:
    table = comments(["calm", "angry"] * 20, part=["train"] * 32 + ["test"] * 8)
    result, _ = cut(table, ONE, how())
    assert result["part"].value_counts().to_dict() == {"train": 24, "validation": 8, "test": 8}
    assert (result.set_index("id").loc[table["id"][32:], "part"] == "test").all()


def test_an_official_split_with_gaps_is_refused() -> None:
    table = official()
    table.loc[[3, 4], "part"] = None
    with pytest.raises(Problem, match="2 of 30 labelled rows name no part"):
        cut(table, ONE, how())


def test_an_official_split_that_lacks_a_label_in_its_test_part_is_refused() -> None:
    table = official()
    table.loc[24:, "label.angry"], table.loc[24:, "label.calm"] = 0, 1
    with pytest.raises(Problem, match="the test part holds no row of 'angry'"):
        cut(table, ONE, how())


def test_an_official_validation_part_that_lacks_a_label_may_be_drawn_anew() -> None:
    table = official()
    missing = table["part"] == "validation"
    table.loc[missing, "label.angry"], table.loc[missing, "label.calm"] = 0, 1
    with pytest.raises(
        Problem, match=r"validation part holds no row of 'angry'.* list its values under `train`"
    ):
        cut(table, ONE, how())
    table.loc[missing, "part"] = "train"
    parts, _ = cut(table, ONE, how())
    assert tables.judged(parts[parts["part"] == "validation"], "label", ONE).any(axis=0).all()


def test_an_official_split_whose_training_rows_all_repeat_the_test_is_refused() -> None:
    table = comments(["calm", "angry"] * 6, part=["train"] * 6 + ["test"] * 6, repeat=[*range(6)] * 2)
    with pytest.raises(Problem, match="the train part holds no row of 'calm'"):
        cut(table, ONE, how())


def test_rows_of_one_class_only_are_refused() -> None:
    with pytest.raises(Problem, match="all 20 labelled rows are 'calm'"):
        cut(comments(["calm"] * 20), ONE, how())


def test_a_table_without_any_label_is_refused() -> None:
    with pytest.raises(Problem, match="no row has a label"):
        cut(comments([None] * 20), ONE, how())


def test_a_label_that_two_authors_use_is_refused() -> None:
    table = comments(["calm"] * 40 + ["angry"] * 6, group=[None] * 40 + ["a", "a", "a", "b", "b", "b"])
    with pytest.raises(Problem, match=r"too few authors .*: angry \(2\)"):
        cut(table, ONE, how())


def test_a_label_that_three_authors_use_is_in_every_part() -> None:
    table = comments(
        ["calm"] * 40 + ["angry"] * 8, group=[None] * 40 + ["a"] * 3 + ["b"] * 3 + ["c"] * 2
    )
    result, _ = cut(table, ONE, how())
    assert set(result.loc[result["label.angry"] == 1, "part"]) == set(tables.PARTS)


def test_an_author_of_most_rows_is_refused_and_not_named() -> None:
    table = comments(
        ["calm", "angry"] * 20, group=["secret name"] * 32 + [f"a{row}" for row in range(8)]
    )
    with pytest.raises(Problem, match="holds 32 of 40 rows, more than the training part's 60%") as told:
        cut(table, ONE, how())
    assert "secret" not in str(told.value)


def test_a_training_part_cut_short_keeps_its_proportions() -> None:
    table = comments(["calm"] * 160 + ["angry"] * 40)
    whole, _ = cut(table, ONE, how())
    result, ledger = cut(table, ONE, how(train_rows=30))
    train = result[result["part"] == "train"]
    assert len(train) == 30
    assert train["label.angry"].sum() == 6
    assert ledger.dropped == {"beyond split.train_rows": 90}
    one, other = (proof_of(each) for each in (whole, result))
    assert one["test_digest"] == other["test_digest"]


def test_more_training_rows_than_there_are_changes_nothing() -> None:
    table = comments(["calm", "angry"] * 20)
    _, ledger = cut(table, ONE, how(train_rows=1000))
    assert ledger.dropped == {}


def test_training_rows_that_leave_out_a_label_are_refused() -> None:
    with pytest.raises(Problem, match=r"no row of 'angry'.*Raise split\.train_rows"):
        cut(comments(["calm"] * 190 + ["angry"] * 10), ONE, how(train_rows=2))


def test_the_certificate_counts_the_parts_and_is_json() -> None:
    table, _ = cut(comments(["calm", "angry"] * 10), ONE, how(seed=7))
    proof = proof_of(table, seed=7)
    assert json.loads(json.dumps(proof)) == proof
    assert proof["rows"] == {"train": 12, "validation": 4, "test": 4}
    assert proof["labels"]["test"] == {"calm": 2, "angry": 2}
    assert proof["units"] == 20
    assert proof["rules"]["split"]["seed"] == 7


def test_the_test_digest_is_of_sorted_ids_and_texts() -> None:
    table = comments(["calm", "angry"], part=["test", "test"]).iloc[::-1]
    pairs = [["00000", "text 0"], ["00001", "text 1"]]
    expected = hashlib.sha256(json.dumps(pairs).encode()).hexdigest()
    assert proof_of(table)["test_digest"] == expected


def test_the_stage_writes_the_same_bytes_twice(tmp_path: Path) -> None:
    tables.write(comments(["calm", "angry"] * 20), tmp_path / "in.parquet")
    LabelSpace.of("mood", ["calm", "angry"]).save(tmp_path / "labels.json")
    written = []
    for name in ("one", "two"):
        outs = [tmp_path / f"{name}.{kind}" for kind in ("parquet", "space", "certificate", "ledger")]
        counts = stage.main(
            read_params().model_copy(update={"split": how()}),
            labels=tmp_path / "labels.json", comments=tmp_path / "in.parquet",
            out=outs[0], space=outs[1], certificate=outs[2], ledger=outs[3],
        )  # fmt: skip
        assert counts == "40 rows → 24 / 8 / 8; rarest label 'calm' 12 / 4 / 4"
        written.append([out.read_bytes() for out in outs])
    assert written[0] == written[1]
    assert Ledger.load(tmp_path / "one.ledger").rows_out == 40


def test_goemotions_loses_the_training_rows_that_stand_in_its_test_part() -> None:
    source = DATA / "goemotions_en.csv"
    if not source.is_file():
        pytest.skip(f"no {source.name} beside the repository")
    raw = pd.read_csv(source, dtype=str)
    labels = [column for column in raw.columns if column not in ("id", "text", "split")]
    space = LabelSpace.of("goemotions", labels, many=True)
    table = raw[["id", "text"]].assign(
        group=None, part=raw["split"].replace({"val": "validation"}),
        **{f"label.{label}": raw[label].astype("Int8") for label in labels},
    )  # fmt: skip
    cleaned, _ = clean.clean(table, ALIKE, None, seed=1)
    result, ledger = cut(cleaned, space, how())
    texts = {name: set(cleaned.loc[cleaned["part"] == name, "text"]) for name in tables.PARTS}
    left = {name: set(result.loc[result["part"] == name, "text"]) for name in tables.PARTS}
    assert cleaned.query("part == 'test'")["text"].isin(texts["train"]).sum() == 37
    assert left["test"] == texts["test"]
    assert not left["test"] & (left["train"] | left["validation"])
    assert not left["validation"] & left["train"]
    assert (result["part"] == "test").sum() == 5_427
    assert not split.nearest(result, result["part"].to_numpy(dtype=object), ALIKE, floor=0.8).any()
    # More than the exact ones: the source repeats short remarks with other punctuation.
    again = cleaned.query("part == 'train'")["text"].isin(texts["test"]).sum()
    assert again < ledger.dropped["repeats a test row"] < 600


def test_one_author_in_two_spellings_is_one_author() -> None:
    table = pd.DataFrame({"group": ["Ann", "ann ", "ＡＮＮ", "Bo", ""], "repeat": range(5)})
    numbers = split.units(table).tolist()
    assert numbers[0] == numbers[1] == numbers[2]
    assert len(set(numbers)) == 3


def timed(labels: list[str | None], **columns: list[object]) -> pd.DataFrame:
    """A row a day."""
    days = pd.date_range("2024-01-01", periods=len(labels)).strftime("%Y-%m-%d").tolist()
    return comments(labels, **({"time": days} | columns))


def test_by_time_the_latest_rows_are_the_test_part() -> None:
    table = timed(["calm", "angry"] * 20).sample(frac=1, random_state=1)
    result, ledger = cut(table, ONE, how(order="time"))
    assert ledger.dropped == {}
    by_day = result.sort_values("time")["part"].tolist()
    assert by_day == ["train"] * 24 + ["validation"] * 8 + ["test"] * 8


def test_by_time_rows_of_one_time_are_in_one_part() -> None:
    days = [f"2024-01-{1 + row // 7:02}" for row in range(42)]
    result, _ = cut(timed(["calm", "angry"] * 21, time=days), ONE, how(order="time"))
    assert result.groupby("time")["part"].nunique().max() == 1
    assert set(result["part"]) == set(tables.PARTS)


def test_by_time_what_a_later_author_wrote_before_goes_and_the_test_stays_whole() -> None:
    wrote: list[object] = [None] * 40
    wrote[0] = wrote[1] = wrote[26] = wrote[39] = "Ann"
    wrote[2] = wrote[27] = "Bo"
    result, ledger = cut(timed(["calm", "angry"] * 20, group=wrote), ONE, how(order="time"))
    assert ledger.dropped == {"its author wrote a test row": 3, "its author wrote a validation row": 1}
    assert result.groupby("group")["part"].nunique().max() == 1
    assert (result["part"] == "test").sum() == 8


def test_by_time_repeats_stay_with_the_latest() -> None:
    again = [0 if row in (3, 38) else row for row in range(40)]
    result, ledger = cut(timed(["calm", "angry"] * 20, repeat=again), ONE, how(order="time"))
    assert ledger.dropped == {"repeats a test row": 2}  # rows 0 and 3
    assert result.set_index("id").loc["00038", "part"] == "test"


@pytest.mark.parametrize("time", [None, "", "yesterday", "03/04/2024"])
def test_a_row_without_a_readable_time_is_refused_and_not_shown(time: str | None) -> None:
    table = timed(["calm", "angry"] * 20)
    table.loc[[4, 9], "time"] = time
    with pytest.raises(Problem, match="2 of 40 labelled rows have no time") as told:
        cut(table, ONE, how(order="time"))
    assert "yesterday" not in str(told.value)


def test_by_time_an_official_split_is_refused() -> None:
    with pytest.raises(Problem, match=r"split\.order is time, but the table comes with an official"):
        cut(official(), ONE, how(order="time"))


def test_too_few_times_for_three_parts_are_refused() -> None:
    table = timed(["calm", "angry"] * 20, time=["2024-01-01"] * 20 + ["2024-01-02"] * 20)
    with pytest.raises(Problem, match="40 labelled rows have 2 different times"):
        cut(table, ONE, how(order="time"))


def test_a_near_repeat_that_cleaning_did_not_number_is_on_one_side() -> None:
    # `repeat` is given as if every text stood alone
    long = "the quick brown fox jumps over the lazy dog while seven wizards brew a potion at dawn"
    alike = [
        f"{long} {chr(ord('a') + row % 26)}" if row % 4 == 0 else f"text {row}" for row in range(60)
    ]
    result, ledger = cut(comments(["calm", "angry", "angry"] * 20, text=alike), ONE, how())
    assert ledger.dropped["repeats a test row"] > 0
    assert result.loc[result["text"].str.startswith("the quick"), "part"].nunique() == 1


def offspring(**parents: str) -> pd.DataFrame:
    """Forty real rows, and a synthetic one for each id: its parents' ids."""
    table = comments(["calm", "angry"] * (20 + len(parents)))
    made = [None] * 40 + list(parents.values()) + [None] * len(parents)
    table = table.assign(parent=made).iloc[: 40 + len(parents)].copy()
    table.loc[40:, "id"] = list(parents)
    return table


def test_a_synthetic_row_follows_its_parents_into_training_or_nowhere() -> None:
    real, _ = cut(comments(["calm", "angry"] * 20), ONE, how())
    of = {name: real.loc[real["part"] == name, "id"].tolist() for name in tables.PARTS}
    table = offspring(
        ok=of["train"][0], tested=of["test"][0], validated=of["validation"][0], unknown="nobody",
        child="ok", grandchild="child", of_tested="tested", circle="circle",
    )  # fmt: skip
    result, ledger = cut(table, ONE, how())
    assert parts_of(result[~split.synthetic(result)]) == parts_of(real)
    found = set(result.loc[split.synthetic(result), "id"])
    assert found == {"ok", "child", "grandchild"}
    assert set(result.loc[split.synthetic(result), "part"]) == {"train"}
    assert ledger.dropped == {"made from a row outside the training part": 5}


def test_the_parents_of_one_synthetic_row_are_on_one_side() -> None:
    pairs = {f"new{at}": f"{at:05}; {at + 1:05}" for at in range(0, 30, 2)}
    result, ledger = cut(offspring(**pairs), ONE, how())
    part = parts_of(result)
    for pair in pairs.values():
        assert len({part[one.strip()] for one in pair.split(";")}) == 1
    held_out = sum(part[pair.partition(";")[0]] != "train" for pair in pairs.values())
    assert ledger.dropped["made from a row outside the training part"] == held_out > 0


def test_a_synthetic_row_like_a_test_row_goes() -> None:
    real, _ = cut(comments(["calm", "angry"] * 20), ONE, how())
    train, test = (real.loc[real["part"] == name].iloc[0] for name in ("train", "test"))
    table = offspring(copy=train["id"])
    table.loc[40, "text"] = test["text"] + "!"
    result, ledger = cut(table, ONE, how())
    assert "copy" not in set(result["id"])
    assert ledger.dropped == {"repeats a test row": 1}


def test_a_synthetic_row_is_train_whatever_part_it_comes_with() -> None:
    table = pd.concat([official(), offspring(new="00002").iloc[40:].assign(part="test")])
    table["parent"] = table["parent"].astype("object")
    table["repeat"] = range(len(table))
    result, _ = cut(table.reset_index(drop=True), ONE, how())
    assert parts_of(result)["new"] == "train"
    assert (result["part"] == "test").sum() == 6


def tiny(seed: int) -> tuple[pd.DataFrame, LabelSpace]:
    """113 rows of seven labels, the rarest eight times; authors wrote about two each."""
    space = LabelSpace.of("seven", [f"label_{at}" for at in range(7)])
    counts = [30, 24, 18, 14, 10, 9, 8]
    rng = np.random.default_rng(seed)
    which = rng.permutation(np.repeat(np.arange(7), counts))
    table = comments([None] * 113, group=[f"a{who}" for who in rng.integers(70, size=113)])
    marks = pd.DataFrame(np.eye(7, dtype=int)[which], columns=[f"label.{one}" for one in space.labels])
    return pd.concat([table.drop(columns=["label.calm", "label.angry"]), marks], axis=1), space


@pytest.mark.parametrize("seed", range(5))
def test_113_rows_of_seven_labels_make_five_folds_of_whole_authors(seed: int) -> None:
    table, space = tiny(seed)
    found = split.folds(table, space, Folds(k=5, repeats=3), ALIKE, seed=seed)
    assert found.shape == (113, 15)
    for repeat in (1, 2, 3):
        own = found[[f"fold.{repeat}.{fold}" for fold in range(1, 6)]]
        for part, times in (("train", 3), ("validation", 1), ("test", 1)):
            assert ((own == part).sum(axis=1) == times).all()
        for column in own:
            by_author = pd.DataFrame({"group": table["group"], "part": own[column]})
            assert by_author.groupby("group")["part"].nunique().max() == 1
            marks = table[[f"label.{label}" for label in space.labels]]
            in_test = marks[own[column] == "test"].sum()
            assert (in_test > 0).all()
            assert (in_test - marks.sum() / 5).abs().max() <= 3
    assert not found["fold.1.1"].equals(found["fold.2.1"])


def test_folds_are_the_same_whatever_the_order_of_the_rows() -> None:
    table, space = tiny(0)
    shuffled = table.sample(frac=1, random_state=2)
    one, other = (
        split.folds(each, space, Folds(k=5, repeats=1), ALIKE, seed=3).set_index(each["id"])
        for each in (table, shuffled)
    )
    assert one.equals(other.loc[one.index])


def test_folds_of_many_labels_keep_their_proportions() -> None:
    rng = np.random.default_rng(0)
    drawn = (rng.random((150, 3)) < [0.5, 0.2, 0.1]).astype(int)
    table = marked([tuple(row) for row in drawn])
    found = split.folds(table, MANY, Folds(k=5, repeats=2), ALIKE, seed=0)
    for column in found:
        assert np.abs(drawn[found[column] == "test"].sum(axis=0) - drawn.sum(axis=0) / 5).max() <= 2


def test_a_label_of_fewer_authors_than_folds_is_refused() -> None:
    table = comments(["calm"] * 40 + ["angry"] * 8, group=[None] * 40 + ["a", "b"] * 4)
    with pytest.raises(Problem, match=r"each of 5 folds: angry \(2\)"):
        split.folds(table, ONE, Folds(k=5, repeats=1), ALIKE, seed=0)


def test_a_row_like_one_of_a_later_part_sits_that_fold_out_but_is_tested() -> None:
    long = "the quick brown fox jumps over the lazy dog while seven wizards brew a potion at dawn"
    texts = [f"text {row}" for row in range(38)] + [f"{long} a", f"{long} b"]
    found = split.folds(
        comments(["calm", "angry"] * 20, text=texts), ONE, Folds(k=5, repeats=4), ALIKE, seed=0
    )
    assert ((found == "test").sum(axis=1) == 4).all()
    twins = found.iloc[-2:]
    for column in found:
        parts = set(twins[column]) - {""}
        assert len(parts) == 1
    assert (twins == "").any(axis=None)


def test_a_synthetic_row_trains_in_the_folds_that_its_parent_trains() -> None:
    table = offspring(new="00003").reset_index(drop=True)
    found = split.folds(table, ONE, Folds(k=4, repeats=1), ALIKE, seed=0)
    parent, child = found.iloc[3], found.iloc[40]
    assert (child == parent.where(parent == "train", "")).all()
