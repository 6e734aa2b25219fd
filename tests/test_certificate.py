"""The split's certificate, and what it finds when the data change afterwards."""

import json
from collections.abc import Callable

import pandas as pd
import pytest

from undertone.corpus import certificate, split
from undertone.errors import Problem
from undertone.labels import LabelSpace
from undertone.params import Clean, Folds, Split

SPACE = LabelSpace.of("mood", ["calm", "angry"])
ALIKE = Clean(similarity=0.8, shingle=5)
WORDS = "river stone lamp green paper window seven cloud table winter apple music".split()


def how(**changes: object) -> Split:
    plain: dict[str, object] = {
        "seed": 1, "validation": 0.2, "test": 0.2, "order": "random", "min_support": 3,
        "rare": "refuse", "merge_into": "other", "train_rows": None, "folds": None,
    }  # fmt: skip
    return Split.model_validate(plain | changes)


def cleaned() -> pd.DataFrame:
    """Sixty long comments of thirty authors, a day apart, no two alike."""
    texts = [
        " ".join(WORDS[(row * step + step * step) % 12] + str(row * step % 17) for step in range(1, 10))
        for row in range(60)
    ]
    return pd.DataFrame(
        {
            "id": [f"{row:05}" for row in range(60)], "text": texts,
            "group": [f"author {row // 2}" for row in range(60)],
            "time": pd.date_range("2024-01-01", periods=60).strftime("%Y-%m-%d"),
            "part": None, "repeat": range(60), "parent": None,
            "label.calm": [1, 0] * 30, "label.angry": [0, 1] * 30,
        }
    )  # fmt: skip


def made(**changes: object) -> tuple[pd.DataFrame, dict[str, object]]:
    """A split table, and its certificate as read from a file."""
    settings = how(**changes)
    table, _ = split.split(cleaned(), SPACE, settings, ALIKE)
    if settings.folds:
        columns = split.folds(table, SPACE, settings.folds, ALIKE, seed=1)
        table = pd.concat([table, columns], axis=1)
    proof = certificate.certificate(table, SPACE, settings, ALIKE, rare={}, into=None)
    return table, json.loads(json.dumps(proof))


SETTINGS = [{}, {"order": "time"}, {"folds": {"k": 4, "repeats": 2}}, {"train_rows": 20}]


@pytest.mark.parametrize("changes", SETTINGS)
def test_what_was_split_holds_whatever_the_order_of_the_rows(changes: dict[str, object]) -> None:
    table, proof = made(**changes)
    assert certificate.verify(table, SPACE, proof) == []
    assert certificate.verify(table.sample(frac=1, random_state=0), SPACE, proof) == []


def test_a_certificate_holds_no_text_and_no_id() -> None:
    table, proof = made(folds=Folds(k=4, repeats=1).model_dump(), train_rows=None)
    written = json.dumps(proof)
    for column in ("id", "text", "group"):
        assert not [value for value in table[column] if value in written]


def row_of(table: pd.DataFrame, part: str, at: int = 0) -> int:
    return int(table.index[table["part"] == part][at])


def planted(table: pd.DataFrame) -> None:
    """A test row becomes a training row with one letter changed and another end."""
    text = table.loc[row_of(table, "train"), "text"]
    table.loc[row_of(table, "test"), "text"] = text.upper().replace("E", "3", 1) + " !!!"


def left_out(table: pd.DataFrame) -> None:
    table.drop(index=row_of(table, "train"), inplace=True)


def edited(table: pd.DataFrame) -> None:
    table.loc[row_of(table, "validation"), "text"] += " indeed"


def renamed(table: pd.DataFrame) -> None:
    table.loc[row_of(table, "test"), "id"] = "another"


def swapped(table: pd.DataFrame) -> None:
    """Two training rows exchange their labels, so that every count stays."""
    one = table.index[(table["part"] == "train") & (table["label.calm"] == 1)][0]
    other = table.index[(table["part"] == "train") & (table["label.calm"] == 0)][0]
    for column in ("label.calm", "label.angry"):
        table.loc[[one, other], column] = table.loc[[other, one], column].to_numpy()


def moved(table: pd.DataFrame) -> None:
    table.loc[row_of(table, "train"), "part"] = "test"


def partless(table: pd.DataFrame) -> None:
    table.loc[row_of(table, "train"), "part"] = None


def unlabelled(table: pd.DataFrame) -> None:
    table.loc[row_of(table, "test"), ["label.calm", "label.angry"]] = None


def shared(table: pd.DataFrame) -> None:
    table.loc[row_of(table, "test"), "group"] = table.loc[row_of(table, "train"), "group"].upper()


def born(table: pd.DataFrame) -> None:
    table.loc[row_of(table, "train"), "parent"] = table.loc[row_of(table, "test"), "id"]


def held_out(table: pd.DataFrame) -> None:
    table.loc[row_of(table, "test"), "parent"] = table.loc[row_of(table, "train"), "id"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (planted, "alike_rows.train and test: 1 rows are like a text on the other side"),
        (left_out, "rows.train: 36 in the certificate, 35 in the table"),
        (edited, "validation_digest: ids or texts of the validation part are others"),
        (renamed, "test_digest: ids or texts of the test part are others"),
        (swapped, "label_digest: labels or parts of rows are others"),
        (moved, "rows.test: 12 in the certificate, 13 in the table"),
        (partless, "in_no_part: 1 rows are in no part"),
        (unlabelled, "unlabelled: 1 rows have no label"),
        (shared, "shared_groups.train and test: 0 in the certificate, 1 in the table"),
        (born, "parents_elsewhere: 1 rows were made from a row that is no training row"),
        (held_out, "synthetic_held_out: 1 rows made from others are validation or test"),
    ],
)
def test_a_change_after_the_split_is_found(change: Callable[[pd.DataFrame], None], told: str) -> None:
    table, proof = made()
    table["parent"] = table["parent"].astype("object")
    table[["label.calm", "label.angry"]] = table[["label.calm", "label.angry"]].astype("Float64")
    change(table)
    lines = certificate.verify(table, SPACE, proof)
    assert [line for line in lines if line.startswith(told)], lines
    assert not [value for value in table["id"] if value in " ".join(lines)]


def test_a_row_that_is_added_is_found() -> None:
    table, proof = made()
    more = table.iloc[:1].assign(id="more", text="something wholly different", group="someone")
    lines = certificate.verify(pd.concat([table, more], ignore_index=True), SPACE, proof)
    assert [line for line in lines if line.startswith(f"rows.{more['part'].iloc[0]}: ")]


def test_a_planted_near_repeat_is_found_even_if_the_certificate_is_made_anew() -> None:
    table, _ = made()
    planted(table)
    proof = certificate.certificate(table, SPACE, how(), ALIKE, rare={}, into=None)
    assert proof["alike_rows"]["train and test"] == 1
    assert 0.8 <= proof["largest_similarity"]["train and test"] < 1
    assert certificate.verify(table, SPACE, proof) == [
        "alike_rows.train and test: 1 rows are like a text on the other side"
    ]


def test_the_largest_similarity_below_a_repeat_is_told() -> None:
    table, _ = made()
    train, test = row_of(table, "train"), row_of(table, "test")
    table.loc[train, "text"] = "abcdefghijklmnopqrstuvwxyz"
    table.loc[test, "text"] = "abcdefghijklmnopqrstuvw123"  # 19 of 25 shingles in common
    proof = certificate.figures(table, SPACE, how(), ALIKE)
    assert proof["largest_similarity"]["train and test"] == pytest.approx(19 / 25, abs=1e-6)
    assert proof["alike_rows"]["train and test"] == 0
    assert proof["similarity_floor"] == 0.64


def test_a_row_moved_against_time_is_found() -> None:
    table, proof = made(order="time")
    assert proof["days"] == {
        "train": ["2024-01-01", "2024-02-05"],
        "validation": ["2024-02-06", "2024-02-17"],
        "test": ["2024-02-18", "2024-02-29"],
    }
    table.loc[row_of(table, "train"), "time"] = "2024-03-01"
    lines = certificate.verify(table, SPACE, proof)
    assert "not_before.train and test: 1 rows are no older than the later part's first" in lines


def test_a_fold_that_tears_an_author_is_found() -> None:
    table, proof = made(folds={"k": 4, "repeats": 1})
    table.loc[0, "fold.1.1"] = "train" if table.loc[0, "fold.1.1"] == "test" else "test"
    lines = certificate.verify(table, SPACE, proof)
    assert "folds_shared: 1 authors or like texts on two sides of a fold" in lines
    assert "fold_digest: folds of rows are others than in the certificate" in lines


def test_an_edited_certificate_is_found() -> None:
    table, proof = made()
    proof["units"] = 7
    assert certificate.verify(table, SPACE, proof) == ["units: 7 in the certificate, 30 in the table"]


def test_something_else_is_no_certificate() -> None:
    table, _ = made()
    with pytest.raises(Problem, match="not a split's certificate"):
        certificate.verify(table, SPACE, {"rows": {}})
    with pytest.raises(Problem, match=r"certificate: rules\.clean"):
        certificate.verify(table, SPACE, {"rules": {"split": how().model_dump(), "clean": {}}})


def test_a_certificate_is_told_on_one_line() -> None:
    table, proof = made()
    assert certificate.told(proof) == (
        "36 / 12 / 12 rows in 30 units; authors in two parts: 0; no two texts across parts are 0.512 "
        "alike, a repeat would be from 0.8"
    )
    planted(table)
    found = {**proof, **certificate.figures(table, SPACE, how(), ALIKE)}
    assert "alike (train and test), a repeat would be from 0.8" in certificate.told(found)
