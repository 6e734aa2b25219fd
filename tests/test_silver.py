"""Silver labels: fused from votes, traced to their teachers, merged by scheme, compared with people."""

import numpy as np
import pandas as pd
import pytest

from undertone import params
from undertone.codebook import Codebook
from undertone.errors import Problem
from undertone.labels import LabelSpace
from undertone.voters import silver

BOOK = Codebook.model_validate(
    {
        "name": "tiny",
        "title": "t",
        "language": "en",
        "labels": [{"id": one, "name": one, "definition": one} for one in ("for_", "against", "other")],
        "merges": {
            "stance": {"Stance": ["for_", "against"], "None": {"id": "none", "labels": ["other"]}}
        },
        "questions": {
            "tone": {
                "title": "t",
                "labels": [{"id": one, "name": one, "definition": one} for one in ("rude", "calm")],
            }
        },
    }
)
SETTINGS = params.Fuse(method="majority", tie="none", min_votes=1, weights={})


def comments(rows: int = 6) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "id": [f"c{row}" for row in range(rows)],
            "text": [f"text {row}" for row in range(rows)],
            "group": "",
            "repeat": range(rows),
        }
    )


def votes(given: dict[str, dict[str, str]], space: LabelSpace = BOOK.space) -> pd.DataFrame:
    """voter → comment → label, or an outcome that is no answer."""
    rows = []
    for month, (voter, answers) in enumerate(reversed(given.items()), start=1):
        for at, (id_, said) in enumerate(answers.items()):
            ok = said in space.labels
            flags = {label: float(label == said) if ok else np.nan for label in space.labels}
            day = f"2025-{month:02d}-{at + 1:02d}" if ok else ""
            outcome = "ok" if ok else said
            rows.append({"id": id_, "voter": voter, "outcome": outcome, "answered": day, **flags})
    return pd.DataFrame(rows)


GIVEN = {
    "a": {"c0": "for_", "c1": "for_", "c2": "against", "c3": "other", "c4": "missing", "c5": "refused"},
    "b": {
        "c0": "for_",
        "c1": "against",
        "c2": "against",
        "c3": "missing",
        "c4": "other",
        "c5": "missing",
    },
    "c": {
        "c0": "other",
        "c1": "other",
        "c2": "against",
        "c3": "other",
        "c4": "other",
        "c5": "unparsable",
    },
}
HASHES = {"a": "hash-a", "b": "hash-b", "c": "hash-c"}


def fused(table: pd.DataFrame, scheme: str | None = None, **changed: object) -> silver.Silver:
    settings = SETTINGS.model_copy(update=changed)
    return silver.fused(votes(GIVEN), table, HASHES, BOOK, scheme, settings, draws=100, seed=0)


def test_every_comment_is_labelled_or_counted() -> None:
    found = fused(comments())
    assert found.table["id"].tolist() == ["c0", "c2", "c3", "c4"]  # c1 ties, c5 has no valid answer
    assert (found.ledger.rows_in, found.ledger.rows_out) == (5, 4)
    assert found.ledger.dropped == {"tie": 1}
    few = fused(comments(), min_votes=3)
    assert few.table["id"].tolist() == ["c0", "c2"]
    assert few.ledger.dropped == {"too few votes": 2, "tie": 1}


def test_each_silver_label_carries_its_teachers_prompts_and_day() -> None:
    table = fused(comments()).table.set_index("id")
    assert table.loc["c0", ["teachers", "prompts"]].tolist() == ["a;b;c", "hash-a;hash-b;hash-c"]
    assert table.loc["c4", ["teachers", "prompts"]].tolist() == ["b;c", "hash-b;hash-c"]
    assert table.loc["c3", ["teachers", "answered"]].tolist() == [
        "a;c",
        "2025-03-04",
    ]  # c: January


def test_teachers_are_compared_with_people_on_rows_that_both_judged() -> None:
    table = comments()
    for label in BOOK.space.labels:
        table[f"gold.{label}"] = np.nan
    for row, label in ((0, "for_"), (1, "for_"), (2, "other"), (5, "other")):
        table.loc[row, [f"gold.{one}" for one in BOOK.space.labels]] = [
            float(one == label) for one in BOOK.space.labels
        ]
    told = fused(table).told
    found = {name: (one["n"], one["overall"]["accuracy"]["value"]) for name, one in told["gold"].items()}
    # c1 ties, so that silver says nothing of it; of c5 nobody does
    assert found["silver"] == (2, 0.5)
    assert found["a"] == (3, pytest.approx(2 / 3, abs=1e-6))
    assert found["c"] == (3, 0)
    assert told["people"] == ["gold"]
    between = {tuple(pair["between"]) for pair in told["agreement"]["pairs"]}
    assert {("a", "b"), ("a", "gold"), ("c", "gold")} <= between


def test_annotators_stand_beside_the_voters() -> None:
    table = comments()
    for name in ("ann", "ben"):
        for label in BOOK.space.labels:
            table[f"annotator.{name}.{label}"] = float(label == "other")
    assert fused(table).told["people"] == ["ann", "ben"]


def test_without_voters_the_table_is_empty_and_every_row_goes_on() -> None:
    nobody = pd.DataFrame(
        {one: [] for one in ("id", "voter", "outcome", "answered", *BOOK.space.labels)}
    )
    found = silver.fused(nobody, comments(), {}, BOOK, None, SETTINGS, draws=100, seed=0)
    assert len(found.table) == 0
    assert (found.ledger.rows_in, found.ledger.rows_out) == (6, 6)
    assert "came with the table" in silver.line(found.told)


def test_labels_are_what_the_scores_decide_and_gold_stays_gold() -> None:
    table = comments()
    for label in BOOK.space.labels:
        table[f"gold.{label}"] = float(label == "other")
    given = fused(table).table
    labelled, ledger = silver.labelled(table, given, BOOK, None)
    assert (ledger.rows_in, ledger.rows_out) == (4, 4)
    assert labelled["id"].tolist() == ["c0", "c2", "c3", "c4"]
    assert labelled[["label.for_", "label.against", "label.other"]].to_numpy().tolist() == [
        [1, 0, 0],
        [0, 1, 0],
        [0, 0, 1],
        [0, 0, 1],
    ]
    assert labelled["gold.other"].tolist() == [1, 1, 1, 1]
    assert labelled["silver.for_"].round(3).tolist() == [0.667, 0, 0, 0]
    assert labelled["teachers"].tolist() == ["a;b;c", "a;b;c", "a;c", "b;c"]


def test_votes_are_merged_before_they_are_fused_and_gold_moves_along() -> None:
    table = comments()
    for label in BOOK.space.labels:
        table[f"gold.{label}"] = [float(label == "against")] * 5 + [np.nan]
    found = fused(table, "stance")
    assert found.ledger.dropped == {}  # c1's voters differ, but two of them within one group
    assert found.told["gold"]["silver"]["n"] == 5
    assert found.told["gold"]["silver"]["overall"]["accuracy"]["value"] == pytest.approx(0.6)
    labelled, _ = silver.labelled(table, found.table, BOOK, "stance")
    assert labelled["id"].tolist() == ["c0", "c1", "c2", "c3", "c4"]
    assert labelled["label.stance"].tolist() == [1, 1, 1, 0, 0]
    assert labelled["silver.stance"].round(2).tolist() == [0.67, 0.67, 1, 0, 0]
    assert labelled["gold.stance"].tolist() == [1, 1, 1, 1, 1]
    assert not [column for column in labelled if column.endswith((".for_", ".against"))]


def test_a_voter_called_like_a_column_of_people_is_refused() -> None:
    table = comments()
    for label in BOOK.space.labels:
        table[f"annotator.b.{label}"] = float(label == "other")
    with pytest.raises(Problem, match="'b' is both a voter and a column"):
        fused(table)


def test_the_tables_own_labels_are_merged_too_and_unlabelled_rows_stay() -> None:
    table = comments(3)
    for label in BOOK.space.labels:
        table[f"label.{label}"] = [float(label == "for_"), float(label == "other"), np.nan]
    plain, ledger = silver.labelled(table, None, BOOK, None)
    pd.testing.assert_frame_equal(plain, table)
    assert (ledger.rows_in, ledger.rows_out) == (3, 3)
    merged, _ = silver.labelled(table, None, BOOK, "stance")
    assert merged[["label.stance", "label.none"]].iloc[:2].to_numpy().tolist() == [[1, 0], [0, 1]]
    assert merged["label.stance"].isna().tolist() == [False, False, True]


def test_a_question_has_labels_of_its_own() -> None:
    assert BOOK.asked("tone").space.labels == BOOK.learnt("tone").space.labels == ("rude", "calm")
    assert BOOK.asked("stance").space.labels == ("for_", "against", "other")
