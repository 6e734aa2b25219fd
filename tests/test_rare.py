"""Labels with too few rows."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stages import split as stage
from undertone import files, tables
from undertone.corpus import rare
from undertone.corpus.ledger import Ledger
from undertone.errors import Problem
from undertone.labels import LabelSpace
from undertone.params import Split, read_params

ONE = LabelSpace.of("mood", ["calm", "angry", "sad", "shy"], ["Calm", "Angry", "Sad", "Shy"])
MANY = LabelSpace.of("moods", ["joy", "fear", "anger"], many=True)


def how(**changes: object) -> Split:
    plain: dict[str, object] = {
        "seed": 1, "validation": 0.2, "test": 0.2, "order": "random", "min_support": 3,
        "rare": "refuse", "merge_into": "other", "train_rows": None, "folds": None,
    }  # fmt: skip
    return Split.model_validate(plain | changes)


def comments(labels: list[str | None], prefix: str = "label") -> pd.DataFrame:
    size = len(labels)
    table = pd.DataFrame(
        {
            "id": [f"{row:05}" for row in range(size)],
            "text": [f"text {row}" for row in range(size)],
            "group": None, "part": None, "repeat": range(size),
        }
    )  # fmt: skip
    return table.assign(**marks(labels, prefix))


def marks(labels: list[str | None], prefix: str) -> dict[str, object]:
    return {
        f"{prefix}.{one}": pd.array(
            [None if given is None else int(given == one) for given in labels], dtype="Int8"
        )
        for one in ONE.labels
    }


LABELS: list[str | None] = ["calm"] * 6 + ["angry"] * 5 + ["sad"] * 2 + ["shy"] * 2 + [None]


def test_labels_with_rows_enough_stay_as_they_are() -> None:
    table = comments(LABELS)
    found = rare.settled(table, ONE, how(min_support=2))
    assert found.table.equals(table)
    assert (found.space, found.rare, found.dropped, found.told()) == (ONE, {}, {}, "")


def test_a_label_with_too_few_rows_is_refused_with_its_count_and_the_remedy() -> None:
    with pytest.raises(Problem, match=r"'sad' 2, 'shy' 2\. Merge or drop them .* split.min_support"):
        rare.settled(comments(LABELS), ONE, how())


def test_synthetic_rows_make_no_label_less_rare() -> None:
    table = comments(LABELS).assign(parent=[None] * 12 + ["00001"] + [None] * 3)
    with pytest.raises(Problem, match="'sad' 1"):
        rare.settled(table, ONE, how(min_support=2))


def test_dropped_the_rows_of_a_rare_label_go_and_are_counted() -> None:
    found = rare.settled(comments(LABELS), ONE, how(rare="drop"))
    assert found.space == LabelSpace.of("mood", ["calm", "angry"], ["Calm", "Angry"])
    assert len(found.table) == 12  # with the row that has no label at all
    assert tables.judged(found.table, "label", found.space)[:11].sum(axis=0).tolist() == [6, 5]
    assert "label.sad" not in found.table
    assert found.dropped == {"its label 'sad' is too rare": 2, "its label 'shy' is too rare": 2}
    assert found.told() == "; too rare and dropped: 'sad' (2), 'shy' (2)"


def test_a_row_whose_gold_label_is_dropped_has_no_gold() -> None:
    table = comments(LABELS).assign(**marks(["sad", "calm", *[None] * 14], "gold"))
    found = rare.settled(table, ONE, how(rare="drop"))
    gold = tables.judged(found.table, "gold", found.space)
    assert np.isnan(gold[0]).all()
    assert gold[1].tolist() == [1, 0]


def test_merged_the_rows_of_rare_labels_have_the_new_label() -> None:
    table = comments(LABELS).assign(**marks(["sad", "calm", "shy", *[None] * 13], "gold"))
    silver = np.tile([0.1, 0.2, 0.3, 0.4], (16, 1))
    table = table.assign(**{f"silver.{one}": silver[:, at] for at, one in enumerate(ONE.labels)})
    found = rare.settled(table, ONE, how(rare="merge"))
    assert found.space.labels == ("calm", "angry", "other")
    label = tables.judged(found.table, "label", found.space)
    assert np.nansum(label, axis=0).tolist() == [6, 5, 4]
    assert np.isnan(label[15]).all()
    assert tables.judged(found.table, "gold", found.space)[:3].tolist() == [
        [0, 0, 1],
        [1, 0, 0],
        [0, 0, 1],
    ]
    assert found.table["silver.other"].iloc[0] == pytest.approx(0.7)
    assert found.dropped == {}
    assert (found.rare, found.into) == ({"sad": 2, "shy": 2}, "other")
    assert "merged into 'other'" in found.told()


def test_merged_into_a_label_that_is_there_keeps_its_place() -> None:
    found = rare.settled(comments(LABELS), ONE, how(rare="merge", merge_into="angry"))
    assert found.space == LabelSpace.of("mood", ["calm", "angry"], ["Calm", "Angry"])
    assert np.nansum(tables.judged(found.table, "label", found.space), axis=0).tolist() == [6, 9]


def test_merged_labels_that_stay_rare_are_refused() -> None:
    with pytest.raises(Problem, match="are 4 of the labelled rows as 'other'"):
        rare.settled(comments(LABELS), ONE, how(rare="merge", min_support=5))


def test_too_few_labels_left_are_refused() -> None:
    with pytest.raises(Problem, match="1 of 4 labels have 6 labelled rows"):
        rare.settled(comments(LABELS), ONE, how(rare="drop", min_support=6))


def many() -> pd.DataFrame:
    flags = [(1, 0, 0)] * 5 + [(1, 1, 0)] * 4 + [(1, 0, 1), (0, 0, 1)]
    table = comments([None] * len(flags)).drop(columns=[f"label.{one}" for one in ONE.labels])
    return table.assign(
        **{f"label.{one}": [row[at] for row in flags] for at, one in enumerate(MANY.labels)}
    )


def test_of_many_labels_only_the_rare_one_leaves() -> None:
    found = rare.settled(many(), MANY, how(rare="drop"))
    assert found.space.labels == ("joy", "fear")
    assert len(found.table) == 11
    assert tables.judged(found.table, "label", found.space)[-2:].tolist() == [[1, 0], [0, 0]]
    assert (found.rare, found.dropped) == ({"anger": 2}, {})


def test_of_many_labels_a_merged_row_has_the_label_once() -> None:
    found = rare.settled(many(), MANY, how(rare="merge", merge_into="joy"))
    assert found.space.labels == ("joy", "fear")
    assert found.table["label.joy"].tolist() == [1] * 11


@pytest.mark.parametrize(("way", "rows_out"), [("drop", 40), ("merge", 46)])
def test_the_stage_tells_it_in_its_ledger_its_certificate_and_its_log(
    tmp_path: Path, way: str, rows_out: int
) -> None:
    labels: list[str | None] = ["calm", "angry"] * 20 + ["sad"] * 3 + ["shy"] * 3
    tables.write(comments(labels), tmp_path / "in.parquet")
    ONE.save(tmp_path / "labels.json")
    told = stage.main(
        read_params().model_copy(update={"split": how(min_support=4, rare=way)}),
        labels=tmp_path / "labels.json", comments=tmp_path / "in.parquet",
        out=tmp_path / "out.parquet", space=tmp_path / "space.json",
        certificate=tmp_path / "split.json", ledger=tmp_path / "ledger.json",
    )  # fmt: skip
    assert "'sad' (3), 'shy' (3)" in told
    proof = files.read_json(tmp_path / "split.json")
    assert proof["rare"]["labels"] == {"sad": 3, "shy": 3}
    assert proof["rules"]["split"]["rare"] == way
    ledger = Ledger.load(tmp_path / "ledger.json")
    assert (ledger.rows_in, ledger.rows_out) == (46, rows_out)
    space = LabelSpace.load(tmp_path / "space.json")
    assert not {"sad", "shy"} & set(space.labels)
    assert not np.isnan(tables.judged(tables.read(tmp_path / "out.parquet"), "label", space)).any()
