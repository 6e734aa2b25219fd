"""Metrics equal scikit-learn's, and their intervals cover what they claim."""

import numpy as np
import pytest
from sklearn import metrics as sk

from undertone import metrics
from undertone.errors import Problem
from undertone.labels import LabelSpace


def evaluated(
    truth: np.ndarray,
    decided: np.ndarray,
    *,
    many: bool,
    draws: int = 200,
    answered: np.ndarray | None = None,
) -> dict:
    space = LabelSpace.of("c", [f"l{at}" for at in range(truth.shape[1])], many=many)
    return metrics.evaluate(
        truth,
        decided,
        space,
        answered=answered,
        groups=np.arange(len(truth)),
        draws=draws,
        rng=np.random.default_rng(0),
    )


@pytest.mark.parametrize("seed", range(5))
def test_one_label_figures_equal_scikit_learns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    given, found = rng.integers(0, 4, 200), rng.integers(0, 4, 200)
    one = evaluated(np.eye(4, dtype=bool)[given], np.eye(4, dtype=bool)[found], many=False)
    overall = {name: value["value"] for name, value in one["overall"].items()}
    names = list(range(4))
    assert overall["accuracy"] == pytest.approx(sk.accuracy_score(given, found), abs=1e-6)
    for average in ("macro", "weighted", "micro"):
        expected = sk.f1_score(given, found, average=average, labels=names)
        assert overall[f"{average}_f1"] == pytest.approx(expected, abs=1e-6)
    np.testing.assert_array_equal(one["confusion"], sk.confusion_matrix(given, found))
    report = sk.classification_report(given, found, output_dict=True, zero_division=0)
    for label in names:
        for name, theirs in (("precision", "precision"), ("recall", "recall"), ("f1", "f1-score")):
            mine = one["labels"][f"l{label}"][name]["value"]
            assert mine == pytest.approx(report[str(label)][theirs], abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_many_label_figures_equal_scikit_learns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, decided = rng.random((150, 5)) < 0.3, rng.random((150, 5)) < 0.4
    overall = evaluated(truth, decided, many=True)["overall"]
    assert overall["accuracy"]["value"] == pytest.approx(sk.accuracy_score(truth, decided), abs=1e-6)
    assert overall["hamming_loss"]["value"] == pytest.approx(sk.hamming_loss(truth, decided), abs=1e-6)
    for average in ("macro", "micro", "weighted"):
        expected = sk.f1_score(truth, decided, average=average, zero_division=0)
        assert overall[f"{average}_f1"]["value"] == pytest.approx(expected, abs=1e-6)


def test_a_label_without_rows_counts_as_zero_and_does_not_vanish() -> None:
    truth = np.eye(5, dtype=bool)[[0, 0, 0, 0]]  # one of five labels: leaving the rest out gives 1.0
    assert metrics.macro_f1(truth, truth) == pytest.approx(0.2)


def test_rows_of_one_author_are_drawn_together() -> None:
    rng = np.random.default_rng(3)
    right = np.repeat(rng.random(40) < 0.6, 25)  # an author is wholly right or wholly wrong
    truth = np.eye(2, dtype=bool)[rng.integers(0, 2, 1000)]
    decided = np.where(right[:, None], truth, ~truth)
    space = LabelSpace.of("c", ["a", "b"])
    widths = []
    for groups in (np.arange(1000), np.repeat(np.arange(40), 25)):
        one = metrics.evaluate(
            truth, decided, space, groups=groups, draws=500, rng=np.random.default_rng(0)
        )
        accuracy = one["overall"]["accuracy"]
        widths.append(accuracy["high"] - accuracy["low"])
    assert widths[1] > 3 * widths[0]


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    covered = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        truth = np.eye(2, dtype=bool)[rng.integers(0, 2, 300)]
        decided = np.where(rng.random(300)[:, None] < 0.8, truth, ~truth)
        accuracy = evaluated(truth, decided, many=False, draws=200)["overall"]["accuracy"]
        covered += accuracy["low"] <= 0.8 <= accuracy["high"]
    assert 0.90 <= covered / 200 <= 0.99


def test_the_majority_answers_the_commonest_training_label() -> None:
    train = np.eye(3, dtype=bool)[[1, 1, 2]]
    decided = metrics.majority(train, 2, LabelSpace.of("c", ["a", "b", "c"]))
    np.testing.assert_array_equal(decided, [[0, 1, 0], [0, 1, 0]])


def test_no_rows_are_refused() -> None:
    none = np.zeros((0, 2), dtype=bool)
    with pytest.raises(Problem, match="no rows to evaluate"):
        evaluated(none, none, many=False)


def test_a_perfect_classifier_has_a_perfect_interval_though_some_draws_miss_a_label() -> None:
    truth = np.eye(4, dtype=bool)[np.repeat(range(4), [12, 40, 2, 37])]
    f1 = evaluated(truth, truth, many=False)["overall"]["macro_f1"]
    assert f1 == {"value": 1.0, "low": 1.0, "high": 1.0}


@pytest.mark.parametrize("seed", range(3))
def test_no_valid_answer_is_wrong_as_a_label_of_its_own_would_be(seed: int) -> None:
    rng = np.random.default_rng(seed)
    given, found = rng.integers(0, 3, 200), rng.integers(0, 4, 200)  # 3: no valid answer
    decided = np.eye(4, dtype=bool)[found][:, :3]
    answered = found < 3
    truth = np.eye(3, dtype=bool)[given]
    one = evaluated(truth, decided, many=False, answered=answered)
    overall = {name: value["value"] for name, value in one["overall"].items()}
    names = list(range(3))
    assert overall["accuracy"] == pytest.approx(sk.accuracy_score(given, found), abs=1e-6)
    for average in ("macro", "weighted", "micro"):
        expected = sk.f1_score(given, found, average=average, labels=names)
        assert overall[f"{average}_f1"] == pytest.approx(expected, abs=1e-6)
    assert overall["macro_f1"] == pytest.approx(metrics.macro_f1(truth, decided), abs=1e-6)
    matrix = sk.confusion_matrix(given, found)
    np.testing.assert_array_equal(one["confusion"], matrix[:3, :3])
    assert [label["unanswered"] for label in one["labels"].values()] == matrix[:3, 3].tolist()
    assert one["valid"]["n"] == answered.sum() == 200 - metrics.unanswered(one)
    assert one["valid"]["share"]["value"] == pytest.approx(answered.mean(), abs=1e-6)
    alone = sk.accuracy_score(given[answered], found[answered])
    assert one["valid_accuracy"]["value"] == pytest.approx(alone, abs=1e-6)
    assert alone > overall["accuracy"] + 0.05


def test_no_valid_answer_is_wrong_in_every_decision_even_where_no_label_applies() -> None:
    truth = np.array([[0, 0], [0, 0], [1, 0], [1, 1]], dtype=bool)
    decided = np.array([[0, 0], [0, 0], [1, 0], [0, 0]], dtype=bool)
    answered = np.array([True, False, True, False])
    one = evaluated(truth, decided, many=True, answered=answered)
    assert one["overall"]["accuracy"]["value"] == 0.5
    assert one["overall"]["hamming_loss"]["value"] == 0.5  # both decisions of both rows
    assert metrics.right(one, many=True)["value"] == 0.5
    assert one["valid_accuracy"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert one["labels"]["l0"]["recall"]["value"] == 0.5
    assert one["labels"]["l0"]["precision"]["value"] == 1  # nothing was decided that isn't true
    assert [label["unanswered"] for label in one["labels"].values()] == [1, 1]
    assert one["confusion"] is None
    # decisions of a row that has no valid answer are none
    assert evaluated(truth, truth, many=True, answered=answered) == one


def test_without_any_valid_answer_their_accuracy_is_unknown() -> None:
    truth = np.eye(2, dtype=bool)[[0, 1, 1]]
    none = np.zeros(3, dtype=bool)
    one = evaluated(truth, truth, many=False, answered=none)
    assert one["valid_accuracy"] == {"value": None, "low": None, "high": None}
    assert one["overall"]["macro_f1"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert one["valid"] == {"n": 0, "share": {"value": 0.0, "low": 0.0, "high": 0.0}}
    assert metrics.told(one["valid_accuracy"]) == ""


def test_all_rows_have_a_valid_answer_unless_it_is_said_otherwise() -> None:
    truth = np.eye(2, dtype=bool)[[0, 1, 1, 0]]
    one = evaluated(truth, truth[::-1] & [True, False], many=False)
    assert one == evaluated(truth, truth[::-1] & [True, False], many=False, answered=truth.any(axis=1))
    assert one["valid"] == {"n": 4, "share": {"value": 1.0, "low": 1.0, "high": 1.0}}
    assert one["valid_accuracy"] == one["overall"]["accuracy"]
    assert metrics.unanswered(one) == 0


def test_valid_answers_of_one_author_are_drawn_together() -> None:
    rng = np.random.default_rng(3)
    silent = np.repeat(rng.random(40) < 0.3, 25)  # an author gets answers to all comments or to none
    truth = np.eye(2, dtype=bool)[rng.integers(0, 2, 1000)]
    wrong = np.repeat(rng.random(40) < 0.3, 25)
    decided = np.where(wrong[:, None], ~truth, truth)
    space = LabelSpace.of("c", ["a", "b"])
    one, other = (
        metrics.evaluate(
            truth,
            decided,
            space,
            answered=~silent,
            groups=groups,
            draws=500,
            rng=np.random.default_rng(0),
        )
        for groups in (np.arange(1000), np.repeat(np.arange(40), 25))
    )
    for figure in (lambda found: found["valid"]["share"], lambda found: found["valid_accuracy"]):
        narrow, wide = figure(one), figure(other)
        assert wide["value"] == narrow["value"]
        assert wide["high"] - wide["low"] > 3 * (narrow["high"] - narrow["low"]) > 0
