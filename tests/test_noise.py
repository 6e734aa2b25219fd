"""Likely label errors: planted ones are found, one label a text or many; and what they then weigh."""

import numpy as np
import pytest

from undertone.annotation import noise
from undertone.errors import Problem
from undertone.labels import Flags, LabelSpace, Scores

ONE = LabelSpace.of("test", ("a", "b", "c"))
MANY = LabelSpace.of("test", ("a", "b", "c"), many=True)


def judged(space: LabelSpace, rng: np.random.Generator, rows: int = 300) -> tuple[Flags, Scores]:
    """What is true of so many rows, and a good judge's scores."""
    truth = np.eye(3, dtype=bool)[rng.integers(3, size=rows)]
    if space.many:
        truth |= rng.random(truth.shape) < 0.2
    scores = np.where(truth, rng.uniform(0.4, 1, truth.shape), rng.uniform(0, 0.5, truth.shape))
    return truth, scores if space.many else scores / scores.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("space", [ONE, MANY], ids=["one", "many"])
def test_most_planted_errors_are_found_and_most_that_is_found_was_planted(space: LabelSpace) -> None:
    rng = np.random.default_rng(1)
    truth, scores = judged(space, rng)
    planted = rng.permutation(300) < 45
    given = truth.copy()
    given[planted] = np.roll(truth[planted], 1, axis=1)
    planted &= (given != truth).any(axis=1)
    wrong, agreement = noise.quality(given, scores, space)
    assert (wrong & planted).sum() / planted.sum() > 0.8  # by chance 0.15
    assert (wrong & planted).sum() / wrong.sum() > 0.7
    assert agreement[planted].max() < np.median(agreement[~planted])
    assert ((agreement >= 0) & (agreement <= 1)).all()
    again = noise.quality(given, scores, space)
    assert (again[0] == wrong).all()
    assert (again[1] == agreement).all()


def test_of_many_labels_a_missing_one_is_an_error_too() -> None:
    truth, scores = judged(MANY, np.random.default_rng(2))
    given = truth.copy()
    rows = np.flatnonzero(truth[:, 0] & (scores[:, 0] > 0.8))[:10]
    given[rows, 0] = False
    wrong, _ = noise.quality(given, scores, MANY)
    assert len(rows) == 10
    assert wrong[rows].all()


@pytest.mark.parametrize("space", [ONE, MANY], ids=["one", "many"])
def test_rows_without_an_answer_are_never_wrong_and_change_nothing_for_others(space: LabelSpace) -> None:
    rng = np.random.default_rng(3)
    truth, scores = judged(space, rng)
    given = np.roll(truth, 1, axis=0)  # most are wrong
    silent = rng.random(300) < 0.3
    holed = np.where(silent[:, None], np.nan, scores)
    wrong, agreement = noise.quality(given, holed, space)
    assert wrong.any()
    assert not wrong[silent].any()
    assert np.isnan(agreement[silent]).all()
    alone, own = noise.quality(given[~silent], scores[~silent], space)
    assert (wrong[~silent] == alone).all()
    assert (agreement[~silent] == own).all()


def test_a_row_that_needs_a_label_and_has_none_is_never_wrong() -> None:
    truth, scores = judged(ONE, np.random.default_rng(4))
    truth[:5] = False
    wrong, agreement = noise.quality(truth, scores, ONE)
    assert not wrong[:5].any()
    assert np.isnan(agreement).sum() == 5


@pytest.mark.parametrize("space", [ONE, MANY], ids=["one", "many"])
def test_a_label_that_no_row_has_is_no_reason_to_doubt_others(space: LabelSpace) -> None:
    truth, scores = judged(space, np.random.default_rng(5))
    kept = truth[:, :2].any(axis=1)
    truth[:, 2] = False
    wrong, agreement = noise.quality(truth[kept], scores[kept], space)
    assert not np.isnan(agreement).any()
    assert wrong.mean() < 0.1


@pytest.mark.parametrize("space", [ONE, MANY], ids=["one", "many"])
@pytest.mark.parametrize("rows", [0, 1, 5])
def test_where_all_rows_are_labelled_alike_none_is_wrong(space: LabelSpace, rows: int) -> None:
    truth = np.tile([True, False, False], (rows, 1))
    scores = np.tile([0.2, 0.7, 0.1], (rows, 1))
    wrong, agreement = noise.quality(truth, scores, space)
    assert wrong.tolist() == [False] * rows
    assert agreement.shape == (rows,)


def test_scores_of_another_space_are_refused() -> None:
    with pytest.raises(Problem, match="shape"):
        noise.quality(np.ones((2, 2), dtype=bool), np.full((2, 2), 0.5), ONE)


@pytest.mark.parametrize("space", [ONE, MANY], ids=["one", "many"])
def test_dropped_rows_weigh_nothing_weighed_ones_less_and_without_a_remedy_all_weigh_one(
    space: LabelSpace,
) -> None:
    truth, scores = judged(space, np.random.default_rng(6))
    given = truth.copy()
    given[:40] = np.roll(truth[:40], 1, axis=1)
    scores[290:] = np.nan
    wrong, _ = noise.quality(given, scores, space)
    assert noise.cleaned(given, scores, space, "none").tolist() == [1.0] * 300
    dropped = noise.cleaned(given, scores, space, "drop")
    assert wrong.any()
    assert (dropped == ~wrong).all()
    weighed = noise.cleaned(given, scores, space, "weigh")
    assert (weighed[290:] == 1).all()
    assert ((weighed >= 0) & (weighed <= 1)).all()
    assert weighed[:290][wrong[:290]].max() < 1
    if not space.many:
        agrees = given.argmax(axis=1) == scores.argmax(axis=1)
        assert (weighed[:290] == 1).tolist() == agrees[:290].tolist()


def test_a_row_weighs_as_near_as_its_label_comes_to_the_best() -> None:
    truth = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=bool)
    scores = np.array([[0.6, 0.3, 0.1], [0.6, 0.3, 0.1], [0.6, 0.3, 0.1]])
    assert noise.cleaned(truth, scores, ONE, "weigh") == pytest.approx([1, 1 / 2, 1 / 6])
    # of many: the second label is missing there, at 0.2 against 0.8; all else fits
    both = np.array([[1, 0, 0]], dtype=bool)
    assert noise.cleaned(both, np.array([[0.9, 0.8, 0.1]]), MANY, "weigh") == pytest.approx([1 / 4])


def test_no_label_loses_its_last_row() -> None:
    truth = np.zeros((120, 3), dtype=bool)
    truth[:60, 0] = truth[60:, 1] = True
    scores = np.where(truth, 0.95, 0.05)
    truth[:3] = [False, True, True]  # the only rows of the third label, wrong in the other two
    scores[:3, 2] = [0.4, 0.9, 0.6]
    wrong, _ = noise.quality(truth, scores, MANY)
    assert wrong.tolist() == [True] * 3 + [False] * 117
    kept = noise.cleaned(truth, scores, MANY, "drop")
    assert kept.tolist() == [0.0, 1.0, 0.0] + [1.0] * 117
