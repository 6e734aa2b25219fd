"""Agreement equals published and scikit-learn's figures, and is null where nothing defines it."""

import json
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from undertone.annotation import agreement
from undertone.annotation.fuse import Votes
from undertone.errors import Problem
from undertone.labels import LabelSpace

ABC = LabelSpace.of("tiny", ["a", "b", "c"])
MANY = LabelSpace.of("tiny", ["a", "b", "c"], many=True)
NULL = {"value": None, "low": None, "high": None}


def agreed(
    votes: Votes, space: LabelSpace, *, groups: np.ndarray | None = None, draws: int = 100
) -> Any:
    found = agreement.agreement(
        votes,
        [f"v{at}" for at in range(len(votes))],
        space,
        groups=np.arange(votes.shape[1]) if groups is None else groups,
        draws=draws,
        rng=np.random.default_rng(0),
    )
    return json.loads(json.dumps(found, allow_nan=False))


def one_hot(answers: np.ndarray, labels: int) -> Votes:
    """Answers [voters, n], -1 where there is none, as votes."""
    votes: Votes = np.eye(labels)[answers]
    votes[answers < 0] = np.nan
    return votes


def cast(*voters: str) -> Votes:
    """One string a voter, one label a row; `.` where there is none."""
    return one_hot(np.array([["abc".find(said) for said in row] for row in voters]), 3)


def noisy(seed: int, rows: int, voters: int = 3, labels: int = 4) -> np.ndarray:
    """Answers [voters, rows] that agree more or less, some missing."""
    rng = np.random.default_rng(seed)
    truth, other = rng.integers(0, labels, rows), rng.integers(0, labels, (voters, rows))
    answers = np.where(rng.random((voters, rows)) < 0.6, truth, other)
    return np.where(rng.random((voters, rows)) < 0.1, -1, answers)


def test_alpha_is_that_of_krippendorffs_example() -> None:
    """Four observers, twelve units, five values (Krippendorff 2011, section C): 0.743."""
    rows = ["12332141 2...", "12332241 25.3", ".3332342 251.", "12332441 251."]
    answers = np.array([[int(x) - 1 if x != "." else -1 for x in row.replace(" ", "")] for row in rows])
    space = LabelSpace.of("five", list("abcde"))
    found = agreed(one_hot(answers, 5), space)
    assert found["alpha"]["value"] == pytest.approx(0.743, abs=5e-4)
    assert found["n"] == {"v0": 9, "v1": 11, "v2": 10, "v3": 11}


def test_alpha_is_what_counting_every_pair_of_answers_gives() -> None:
    answers = noisy(3, 40)
    units = [column[column >= 0] for column in answers.T if (column >= 0).sum() > 1]
    values = np.concatenate(units)
    inside = sum(
        2 * sum(one != other for one, other in combinations(unit, 2)) / (len(unit) - 1) for unit in units
    )
    across = 2 * sum(one != other for one, other in combinations(values, 2)) / (len(values) - 1)
    found = agreed(one_hot(answers, 4), LabelSpace.of("four", list("abcd")))
    assert found["alpha"]["value"] == pytest.approx(1 - inside / across, abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_kappa_is_scikit_learns_on_the_rows_that_both_answered(seed: int) -> None:
    answers = noisy(seed, 200)
    found = agreed(one_hot(answers, 4), LabelSpace.of("four", list("abcd")))
    assert [pair["between"] for pair in found["pairs"]] == [["v0", "v1"], ["v0", "v2"], ["v1", "v2"]]
    for pair, (one, other) in zip(found["pairs"], combinations(answers, 2), strict=True):
        both = (one >= 0) & (other >= 0)
        kappa = cohen_kappa_score(one[both], other[both])
        assert pair["kappa"]["value"] == pytest.approx(kappa, abs=1e-6)
        assert pair["raw"]["value"] == pytest.approx((one == other)[both].mean(), abs=1e-6)
        assert pair["n"] == both.sum()


def test_many_labels_are_judged_one_by_one_and_raw_means_the_same_set() -> None:
    rng = np.random.default_rng(0)
    one = rng.random((300, 3)) < (0.5, 0.3, 0.1)
    other = one ^ (rng.random((300, 3)) < 0.15)
    found = agreed(np.array([one, other], dtype=np.float64), MANY)
    pair = found["pairs"][0]
    kappas = [cohen_kappa_score(one[:, at], other[:, at]) for at in range(3)]
    for label, kappa in zip("abc", kappas, strict=True):
        assert pair["labels"][label]["kappa"]["value"] == pytest.approx(kappa, abs=1e-6)
        assert found["labels"][label]["alpha"] == pair["labels"][label]["alpha"]
    assert pair["kappa"]["value"] == pytest.approx(np.mean(kappas), abs=1e-6)
    assert pair["raw"]["value"] == pytest.approx((one == other).all(axis=1).mean(), abs=1e-6)
    assert pair["kappa"]["low"] < pair["kappa"]["value"] < pair["kappa"]["high"]


def test_no_row_in_common_is_null() -> None:
    found = agreed(cast("ab..", "..ab", "abc."), ABC)
    first, second, _ = found["pairs"]
    assert first == {"between": ["v0", "v1"], "n": 0, "raw": NULL, "kappa": NULL, "alpha": NULL}
    assert (second["n"], second["raw"]["value"]) == (2, 1.0)


def test_one_answer_throughout_leaves_kappa_and_alpha_null_but_not_raw() -> None:
    found = agreed(cast("aaa", "aaa"), ABC)
    pair = found["pairs"][0]
    assert pair["raw"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert (pair["kappa"], pair["alpha"], found["alpha"]) == (NULL, NULL, NULL)


def test_one_annotator_who_never_varies_agrees_as_by_chance() -> None:
    assert agreed(cast("aaaa", "abca"), ABC)["pairs"][0]["kappa"]["value"] == 0


def test_a_label_that_nobody_gave_is_no_part_of_the_mean() -> None:
    votes = np.array([[[1, 0, 0], [0, 1, 0], [1, 1, 0]], [[1, 0, 0], [0, 1, 0], [0, 1, 0]]], dtype=float)
    pair = agreed(votes, MANY)["pairs"][0]
    assert pair["labels"]["c"]["kappa"] == NULL
    known = [pair["labels"][label]["kappa"]["value"] for label in "ab"]
    assert pair["kappa"]["value"] == pytest.approx(np.mean(known), abs=1e-6)


@pytest.mark.parametrize("space", [ABC, MANY])
def test_no_answers_and_no_rows_and_one_annotator_are_null(space: LabelSpace) -> None:
    for votes in (np.full((2, 3, 3), np.nan), np.zeros((2, 0, 3))):
        found = agreed(votes, space)
        assert (found["alpha"], found["pairs"][0]["raw"], found["n"]) == (NULL, NULL, {"v0": 0, "v1": 0})
    alone = agreed(cast("abc"), space)
    assert (alone["alpha"], alone["pairs"]) == (NULL, [])
    assert agreement.told(alone) == "α undefined among 1 annotators; no pair has a κ"


def test_rows_of_one_author_are_drawn_together() -> None:
    answers = np.repeat(noisy(1, 60), 20, axis=1)
    space = LabelSpace.of("four", list("abcd"))
    widths = []
    for groups in (np.arange(1200), np.repeat(np.arange(60), 20)):
        kappa = agreed(one_hot(answers, 4), space, groups=groups)["pairs"][0]["kappa"]
        widths.append(kappa["high"] - kappa["low"])
    assert widths[1] > 2 * widths[0]


def test_intervals_cover_the_agreement_about_as_often_as_they_say() -> None:
    """Both are right 4 times of 5 and else say another of two: κ is that of a large sample."""
    space = LabelSpace.of("two", ["a", "b"])
    covered = []
    for seed in range(120):
        rng = np.random.default_rng(seed)
        truth = rng.integers(0, 2, 250)
        answers = np.where(rng.random((2, 250)) < 0.8, truth, 1 - truth)
        pair = agreed(one_hot(answers, 2), space, draws=200)["pairs"][0]
        for name, expected in (("kappa", 0.36), ("raw", 0.68)):
            covered.append(pair[name]["low"] <= expected <= pair[name]["high"])
    assert 0.9 <= np.mean(covered) <= 0.99


def test_the_log_line_has_the_range_of_the_kappas() -> None:
    line = agreement.told(agreed(cast("abcabc", "abcabc", "abcaba"), ABC))
    assert line == "α 0.84 among 3 annotators; κ of 3 pairs 0.75 to 1.00"


def test_votes_outside_zero_and_one_are_refused() -> None:
    votes = cast("ab", "bc")
    votes[0, 1] = 0.5
    with pytest.raises(Problem, match="row 1 of voter 'v0'"):
        agreed(votes, ABC)
