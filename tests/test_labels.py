"""One label or many is decided in one place."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, softmax

from undertone import tables
from undertone.errors import Problem
from undertone.labels import LabelSpace, activated, answered

ONE = LabelSpace.of("c", ["a", "b", "c"])
MANY = LabelSpace.of("c", ["a", "b", "c"], many=True)
NONE = [np.nan] * 3  # the scores of a text without a valid answer


def test_one_label_is_the_highest_and_the_first_on_a_tie() -> None:
    decided = ONE.decide(np.array([[0.2, 0.5, 0.3], [0.4, 0.4, 0.2]]))
    np.testing.assert_array_equal(decided, [[0, 1, 0], [1, 0, 0]])


def test_many_labels_are_those_that_reach_their_threshold() -> None:
    decided = MANY.decide(np.array([[0.5, 0.49, 0.9], [0.1, 0.1, 0.1]]))
    np.testing.assert_array_equal(decided, [[1, 0, 1], [0, 0, 0]])


@pytest.mark.parametrize(
    "scores", [[[0.1, 0.2]], [[0.1, 0.2, 1.1]], [[0.1, np.nan, 0.2]], [[-0.1, 0.5, 0.5]]]
)
def test_scores_of_another_shape_or_range_are_refused(scores: list[list[float]]) -> None:
    with pytest.raises(Problem, match="codebook c"):
        ONE.decide(np.array(scores))


@pytest.mark.parametrize("space", [ONE, MANY])
def test_a_text_without_a_valid_answer_has_no_label(space: LabelSpace) -> None:
    decided = space.decide(np.array([NONE, [0.1, 0.7, 0.2], NONE]))
    np.testing.assert_array_equal(decided, [[0, 0, 0], [0, 1, 0], [0, 0, 0]])
    assert not space.decide(np.array([NONE])).any()
    assert answered(np.array([NONE, [0.1, 0.7, 0.2]])).tolist() == [False, True]


def test_half_an_answer_is_refused_with_its_row() -> None:
    scores = np.array([NONE, [0.1, 0.7, 0.2], [0.5, np.nan, np.nan]])
    with pytest.raises(Problem, match="row 2 has a score outside"):
        MANY.decide(scores)


def test_a_threshold_is_put_where_f1_is_best() -> None:
    scores = np.array([[0.1, 0.9, 0.2], [0.3, 0.8, 0.2], [0.35, 0.2, 0.2], [0.2, 0.1, 0.2]])
    truth = np.array([[0, 1, 0], [1, 1, 0], [1, 0, 0], [0, 0, 0]], dtype=bool)
    fitted = MANY.with_thresholds(scores, truth)
    np.testing.assert_allclose(fitted.thresholds, [0.25, 0.5, 0.5])  # c has no row: unchanged
    np.testing.assert_array_equal(fitted.decide(scores)[:, :2], truth[:, :2])


def test_equal_scores_are_never_split_by_a_threshold() -> None:
    scores = np.array([[0.6], [0.6], [0.6], [0.1]])
    space = LabelSpace.of("c", ["a"], many=True)
    fitted = space.with_thresholds(scores, np.array([[True], [False], [True], [False]]))
    assert fitted.decide(scores)[:, 0].tolist() == [True, True, True, False]


def test_texts_without_a_valid_answer_move_no_threshold() -> None:
    rng = np.random.default_rng(0)
    scores, truth = rng.random((40, 3)), rng.random((40, 3)) < 0.4
    invalid = np.array([NONE] * 25)
    fitted = MANY.with_thresholds(
        np.vstack([invalid, scores]), np.vstack([np.ones((25, 3), dtype=bool), truth])
    )
    assert fitted == MANY.with_thresholds(scores, truth) != MANY
    assert MANY.with_thresholds(invalid, np.ones((25, 3), dtype=bool)) == MANY


def test_one_label_a_text_has_no_thresholds_to_fit() -> None:
    assert ONE.with_thresholds(np.full((2, 3), 0.3), np.eye(3, dtype=bool)[:2]) is ONE


def test_a_saved_space_comes_back_equal(tmp_path: Path) -> None:
    space = MANY.with_thresholds(np.array([[0.123456789, 0.2, 0.3]]), np.ones((1, 3), dtype=bool))
    for one in (space, replace(space, temperature=1 / 0.7, abstain=0.1 + 0.2)):
        one.save(tmp_path / "labels.json")
        assert LabelSpace.load(tmp_path / "labels.json") == one


def test_scores_keep_their_side_of_a_threshold_in_a_table() -> None:
    scores = np.array([[0.3 + 1e-9, 0.3, 0.1]])
    table = tables.scores_table(pd.Series(["1"]), scores, MANY)
    kept = tables.scores_of(table, pd.Series(["1"]), MANY, where="scores")
    np.testing.assert_array_equal(kept, scores)


def test_texts_without_a_valid_answer_stay_so_in_a_table(tmp_path: Path) -> None:
    scores = np.array([[0.1, 0.2, 0.3], NONE])
    path = tmp_path / "scores.parquet"
    tables.write(tables.scores_table(pd.Series(["1", "2"]), scores, ONE), path)
    kept = tables.scores_of(tables.read(path), pd.Series(["2", "1"]), ONE, where="scores")
    np.testing.assert_array_equal(kept, scores[::-1])
    with pytest.raises(Problem, match="row 0 has a score outside"):
        tables.scores_table(pd.Series(["1"]), np.array([[np.nan, 0.5, 0.5]]), ONE)


# calibrated scores


@pytest.mark.parametrize("temperature", [0.3, 0.9, 2.5, 8.0])
def test_calibrated_scores_are_those_of_logits_divided_by_the_temperature(temperature: float) -> None:
    rng = np.random.default_rng(1)
    one = rng.normal(scale=5.0, size=(300, 3))
    many = rng.uniform(-12, 12, size=(300, 3))
    np.testing.assert_allclose(
        replace(ONE, temperature=temperature).calibrated(softmax(one, axis=1)),
        softmax(one / temperature, axis=1),
        atol=1e-9,
    )
    np.testing.assert_allclose(
        replace(MANY, temperature=temperature).calibrated(expit(many)),
        expit(many / temperature),
        atol=1e-9,
    )


@pytest.mark.parametrize("space", [ONE, MANY])
def test_a_temperature_of_one_changes_no_bit(space: LabelSpace) -> None:
    scores = np.array([[0.1 + 0.2, 0.6, 0.1], NONE, [0.0, 1.0, 0.0]])
    np.testing.assert_array_equal(space.calibrated(scores), scores)


@pytest.mark.parametrize("temperature", [0.05, 0.5, 20.0])
@pytest.mark.parametrize("space", [ONE, MANY])
def test_calibrated_scores_stay_scores_and_decide_alike(space: LabelSpace, temperature: float) -> None:
    scores = np.array([[1.0, 0.0, 0.0], [0.2, 0.7, 0.1], NONE, [1e-300, 0.4, 0.6]])
    calibrated = replace(space, temperature=temperature).calibrated(scores)
    space.check(calibrated)
    np.testing.assert_array_equal(answered(calibrated), answered(scores))
    np.testing.assert_array_equal(space.decide(calibrated), space.decide(scores))
    assert space.many or np.allclose(calibrated[answered(scores)].sum(axis=1), 1)
    assert space.calibrated(np.zeros((0, 3))).shape == (0, 3)
    with pytest.raises(Problem, match="row 0 has a score outside"):
        replace(space, temperature=temperature).calibrated(np.array([[1.1, 0.0, 0.0]]))


@pytest.mark.parametrize("many", [False, True])
def test_scores_of_logits_are_right_however_large_these_are(many: bool) -> None:
    logits = np.array([[1000.0, 0.0, -1000.0], [-3.0, 2.0, 0.5]])
    expected = expit(logits) if many else softmax(logits, axis=1)
    np.testing.assert_allclose(activated(logits, many=many), expected, atol=1e-15)


# confidence and abstention


def test_confidence_is_how_probable_the_decision_is() -> None:
    scores = np.array([[0.2, 0.5, 0.3], NONE, [1.0, 0.0, 0.0]])
    np.testing.assert_allclose(ONE.confidence(scores), [0.5, np.nan, 1.0])
    own = replace(MANY, thresholds=(0.5, 0.2, 0.8))
    # yes, yes, no; no, no, no; the least sure label counts
    scores = np.array([[0.9, 0.3, 0.1], NONE, [0.1, 0.1, 0.7]])
    np.testing.assert_allclose(own.confidence(scores), [0.3, np.nan, 0.3])


def test_a_text_that_is_not_confident_enough_is_left_out() -> None:
    scores = np.array([[0.6, 0.2, 0.2], [0.5, 0.3, 0.2], NONE])
    assert replace(ONE, abstain=0.6).abstains(scores).tolist() == [False, True, True]
    assert replace(MANY, abstain=0.55).abstains(scores).tolist() == [False, True, True]
    assert replace(ONE, abstain=0.0).abstains(scores).tolist() == [False, False, True]
    assert ONE.abstains(scores).tolist() == [False] * 3
