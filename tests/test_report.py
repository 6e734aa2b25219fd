"""The page shows the numbers of the JSON files, and the README the stand-in's."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from undertone import evaluation, latency, report
from undertone.errors import Problem
from undertone.labels import LabelSpace

SPACE = LabelSpace.of("c", ["a", "b"])


def table(rows: int = 60) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, rows)
    gold = np.where(np.arange(rows) % 3 == 0, 1 - label, np.nan)  # gold says the contrary
    return pd.DataFrame(
        {
            "id": [f"{at:03d}" for at in range(rows)],
            "group": ["" if at % 5 else "x" for at in range(rows)],
            "part": np.resize(["train", "validation", "test"], rows),
            "label.a": label == 0,
            "label.b": label == 1,
            "gold.a": np.where(np.isnan(gold), np.nan, gold == 0),
            "gold.b": np.where(np.isnan(gold), np.nan, gold == 1),
        }
    ).astype({f"{reference}.{label}": float for reference in ("label", "gold") for label in "ab"})


def scores(rows: pd.DataFrame, *, right: float) -> pd.DataFrame:
    a = np.where(rows["label.a"] == 1, right, 1 - right)
    return pd.DataFrame({"id": rows["id"], "a": a, "b": 1 - a})


def evaluated() -> dict:
    rows = table()
    judges = {
        "good": (SPACE, scores(rows[::-1], right=0.9)),  # another order of rows
        "bad": (SPACE, scores(rows, right=0.1)),
    }
    return evaluation.evaluate_all(rows, judges, SPACE, draws=100, seed=0)


def test_labels_and_gold_are_never_mixed() -> None:
    rows = table()
    rows.loc[rows["part"] == "test", ["gold.a", "gold.b"]] = [[0.0, 1.0]]
    judges = {"good": (SPACE, scores(rows, right=0.9))}
    found = evaluation.evaluate_all(rows, judges, SPACE, draws=100, seed=0)
    assert found["test"]["label"]["good"]["overall"]["accuracy"]["value"] == 1
    share = (rows[rows["part"] == "test"]["label.b"] == 1).mean()
    assert found["test"]["gold"]["good"]["overall"]["accuracy"]["value"] == pytest.approx(share)
    assert found["test"]["gold"]["good"]["n"] == 20


def test_a_candidate_is_chosen_on_validation_alone() -> None:
    found = evaluated()
    chosen = evaluation.select(found, ["bad"], "macro_f1")
    assert (chosen["champion"], chosen["encoder"]) == ("good", "bad")
    found["test"]["label"]["bad"]["overall"]["macro_f1"]["value"] = 2.0
    assert evaluation.select(found, ["bad"], "macro_f1") == chosen
    with pytest.raises(Problem, match="no candidate can be exported"):
        evaluation.select(found, [], "macro_f1")


def test_a_candidate_without_a_score_for_every_row_is_refused() -> None:
    rows = table()
    judges = {"short": (SPACE, scores(rows[:-1], right=0.9))}
    with pytest.raises(Problem, match=r"scores of short: 1 of 20 rows have no score"):
        evaluation.evaluate_all(rows, judges, SPACE, draws=100, seed=0)


def test_rows_below_the_majority_are_marked() -> None:
    latencies = {"rows": [{"model": "good", "tokens": 12, "batch": 1, "p50_ms": 1.23}]}
    chosen = {"champion": "good", "encoder": "good", "metric": "macro_f1"}
    board = report.leaderboard(evaluated(), latencies, chosen).splitlines()
    assert board[2].startswith("| **good** | champion, encoder | 1.000 | 1.000 [1.000, 1.000]")
    assert board[2].endswith("| 1.2 |")
    assert [line for line in board if "(below majority)" in line] == [
        line for line in board if line.startswith("| bad |")
    ]


def test_teachers_are_compared_with_people_only_and_stand_last_on_the_board() -> None:
    rows = table()
    rows.loc[rows["part"] == "test", ["gold.a", "gold.b"]] = [[0.0, 1.0]]
    rows["silver.a"], rows["silver.b"] = rows["gold.b"].fillna(0.5), rows["gold.a"].fillna(0.5)
    judges = {"good": (SPACE, scores(rows, right=0.9))}
    found = evaluation.evaluate_all(rows, judges, SPACE, draws=100, seed=0)
    assert "teachers" not in found["test"]["label"]
    assert found["test"]["gold"]["teachers"]["overall"]["accuracy"]["value"] == 0
    chosen = {"champion": "good", "encoder": "good", "metric": "macro_f1"}
    board = report.leaderboard(
        found, {"rows": [{"model": "x", "tokens": 1, "batch": 1, "p50_ms": 1}]}, chosen
    )
    assert board.splitlines()[-1] == "| teachers |  |  |  |  | 0.000 [0.000, 0.000] |  |"


def test_voters_are_shown_with_outcomes_agreement_and_what_people_think_of_them() -> None:
    figure = {"value": 0.5, "low": 0.4, "high": 0.6}
    nothing = {"value": None, "low": None, "high": None}
    overall = {"accuracy": figure, "macro_f1": figure}
    voter = {
        "voter": "v",
        "model": "m",
        "prompt": "p",
        "definitions": False,
        "prompt_sha256": "abcdef0123",
        "rows": 9,
    }
    pair = {"between": ["v", "ann"], "n": 3, "raw": figure, "kappa": nothing, "alpha": figure}
    fused = {
        "method": "dawid_skene",
        "many": False,
        "teachers": {"v": {"accuracy": nothing}},
        "gold": {"v": {"overall": overall, "n": 3}, "silver": {"overall": overall, "n": 3}},
        "agreement": {"alpha": figure, "pairs": [pair]},
    }
    one, other = {"overall": overall, "n": 7}, {"overall": overall, "n": 3}
    learnt = {"test": {"label": {"bert": one}, "gold": {"teachers": other, "bert": other}}}
    collected = {"voters": {"v": {"ok": 8, "out_of_schema": 1}}, "unknown_ids": 2}
    page = "\n".join(report._silver({"voters": [voter]}, collected, fused, learnt, "bert"))
    assert "| v | m | p without definitions | `abcdef01` | 9 | 8 | 1 |" in page
    assert "| v |  | 0.500 [0.400, 0.600] | 0.500 [0.400, 0.600] | 3 |" in page
    assert "| v and ann | 3 | 0.500 [0.400, 0.600] |  | 0.500 [0.400, 0.600] |" in page
    assert "bert agrees with its teachers in 0.500 [0.400, 0.600] of 7 comments" in page
    assert "People agree with the teachers in 0.500 [0.400, 0.600] of 3" in page
    assert "unknown ids: 2" in page


def with_a_silent_candidate(*, many: bool = False) -> dict:
    """What comes out where the better candidate gives no valid answer to every fifth text."""
    space = LabelSpace.of("c", ["a", "b"], many=many)
    rows = table(300)
    rows[["gold.a", "gold.b"]] = rows[["label.a", "label.b"]].to_numpy()
    silent = scores(rows, right=0.9)
    silent.loc[rows.index % 5 == 0, ["a", "b"]] = np.nan
    judges = {"silent": (space, silent), "bad": (space, scores(rows, right=0.1))}
    return evaluation.evaluate_all(rows, judges, space, draws=100, seed=0)


LATENCIES = {"rows": [{"model": "bad", "tokens": 12, "batch": 1, "p50_ms": 1.0}]}


def test_an_invalid_answer_is_wrong_and_the_valid_ones_are_counted() -> None:
    found = with_a_silent_candidate()["test"]["label"]
    assert found["silent"]["valid"]["n"] == 80
    assert found["silent"]["overall"]["accuracy"]["value"] == 0.8
    assert found["silent"]["valid_accuracy"]["value"] == 1
    for name in ("majority", "bad"):
        assert found[name]["valid"]["n"] == found[name]["n"] == 100


def test_the_board_shows_valid_answers_where_some_are_missing() -> None:
    found = with_a_silent_candidate()
    chosen = {"champion": "silent", "encoder": "bad", "metric": "macro_f1"}
    board, said = report.leaderboard(found, LATENCIES, chosen).split("\n\n")
    assert said == report.UNANSWERED
    head, _, *lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in board.splitlines()]
    assert {len(line) for line in lines} == {len(head)}
    shown = {line[0]: dict(zip(head, line, strict=True)) for line in lines}
    accuracy = found["test"]["label"]["silent"]["overall"]["accuracy"]
    assert (
        shown["**silent**"]["accuracy, test"] == f"0.800 [{accuracy['low']:.3f}, {accuracy['high']:.3f}]"
    )
    assert shown["**silent**"]["valid answers, test"] == "80 (80.0%)"
    assert shown["**silent**"]["their accuracy"] == "1.000 [1.000, 1.000]"
    assert shown["majority"]["valid answers, test"] == "100 (100.0%)"


def test_the_board_says_nothing_of_valid_answers_where_all_are() -> None:
    found = with_a_silent_candidate()
    for part in found.values():
        for candidates in part.values():
            del candidates["silent"]
    chosen = {"champion": "bad", "encoder": "bad", "metric": "macro_f1"}
    assert "valid answers" not in report.leaderboard(found, LATENCIES, chosen)


def test_teachers_stand_in_the_column_of_gold_also_beside_valid_answers() -> None:
    found = with_a_silent_candidate()
    found["test"]["gold"]["teachers"] = found["test"]["gold"]["majority"]
    chosen = {"champion": "silent", "encoder": "bad", "metric": "macro_f1"}
    board = report.leaderboard(found, LATENCIES, chosen).split("\n\n")[0].splitlines()
    head, last = ([cell.strip() for cell in board[at].split("|")[1:-1]] for at in (0, -1))
    assert [cell for cell in last if cell] == [
        "teachers",
        last[next(at for at, name in enumerate(head) if "gold" in name)],
    ]
    assert len(last) == len(head)


def test_the_page_shows_which_labels_got_no_valid_answer() -> None:
    one = with_a_silent_candidate()["test"]["label"]
    of, confusion = (section.splitlines() for section in report._by_label(one, "silent", "x")[1::2])
    assert of[0] == "| label | rows | precision | recall | F1 |"
    assert confusion[0] == "|  | a | b | no valid answer |"
    for label, line in zip("ab", confusion[2:], strict=True):
        counts = [int(cell) for cell in line.split("|")[2:-1]]
        assert sum(counts) == one["silent"]["labels"][label]["support"]
        assert counts[-1] > 0
    assert "no valid answer" not in "".join(report._by_label(one, "bad", "x"))
    many = with_a_silent_candidate(many=True)["test"]["label"]
    sections = report._by_label(many, "silent", "x")
    assert len(sections) == 2
    assert sections[1].startswith("| label | rows | no valid answer | precision | recall | F1 |")
    a = table(300)["label.a"].astype(int)
    assert f"| a | {a[2::3].sum()} | {a[5::15].sum()} | 1.000" in sections[1]


def test_the_summary_has_the_share_of_valid_answers_only_of_those_who_gave_invalid_ones() -> None:
    found = with_a_silent_candidate()
    told = evaluation.summary(found)
    assert told["silent"]["test_valid"] == 0.8
    assert {name for name in told["silent"] if name.endswith("valid")} == {
        *("validation_valid", "test_valid", "validation_gold_valid", "test_gold_valid"),
    }
    assert not [name for one in ("bad", "majority") for name in told[one] if "valid" in name.split("_")]
    assert evaluation.told(found).startswith("macro-F1 on 100 test rows: majority 0.3")
    f1 = found["test"]["label"]["silent"]["overall"]["macro_f1"]
    assert f"silent {f1['value']:.3f} [{f1['low']:.3f}, {f1['high']:.3f}]" in evaluation.told(found)


def test_a_missed_latency_target_is_said() -> None:
    rows = [
        {"model": "m", "tokens": length, "batch": 1, "p50_ms": 1.0, "p95_ms": p95}
        for length, p95 in ((12, 2.0), (128, 9.0))
    ]
    assert latency.verdict(rows, "m", None) is None
    assert latency.verdict(rows, "m", 10.0) == {"p95_ms": 10.0, "slowest_p95_ms": 9.0, "passed": True}
    missed = latency.verdict(rows, "m", 5.0)
    assert missed is not None
    assert not missed["passed"]
    assert latency.told(rows, "m", missed).endswith("target MISSED")


def test_texts_of_a_length_have_that_length_and_differ() -> None:
    texts = latency.texts_of(12, 10, lambda text: len(text.split()))
    assert {len(text.split()) for text in texts} == {12}
    assert len(set(texts)) == 10


def test_every_runner_is_measured_at_every_length_and_batch() -> None:
    seen: list[int] = []
    rows = latency.measure(
        {"one": lambda texts: seen.append(len(texts)), "two": lambda _: None},
        {3: ["a b c"] * 4, 5: ["a b c d e"] * 4},
        batches=[1, 8],
        repeats=5,
    )
    found = {(row["model"], row["tokens"], row["batch"]) for row in rows}
    assert len(rows) == len(found) == 8
    assert set(seen) == {1, 8}
    assert all(row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"] for row in rows)


def test_the_readme_shows_the_standins_leaderboard() -> None:
    folder = Path("reports/standin")
    board = report.leaderboard(
        *(
            json.loads((folder / f"{name}.json").read_text("utf-8"))
            for name in ("evaluation", "latency", "selection")
        )
    )
    readme = Path("README.md").read_text("utf-8")
    assert board in readme, "run `make docs`"
    assert report.embed(readme, board) == readme
