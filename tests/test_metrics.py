"""Metrics equal scikit-learn's, and their intervals cover what they claim."""

import numpy as np
import pytest
from sklearn import metrics as sk

from undertone.errors import Problem
from undertone.labels import LabelSpace
from undertone.measures import metrics


def evaluated(
    truth: np.ndarray,
    decided: np.ndarray,
    *,
    many: bool,
    draws: int = 200,
    answered: np.ndarray | None = None,
    scores: np.ndarray | None = None,
    names: list[str] | None = None,
) -> dict:
    space = LabelSpace.of("c", names or [f"l{at}" for at in range(truth.shape[1])], many=many)
    return metrics.evaluate(
        truth,
        decided,
        space,
        scores=scores,
        answered=answered,
        groups=np.arange(len(truth)),
        draws=draws,
        rng=np.random.default_rng(0),
    )


def averages_equal_scikit_learns(
    overall: dict, given: np.ndarray, found: np.ndarray, averages: tuple[str, ...]
) -> None:
    for average in averages:
        figures = sk.precision_recall_fscore_support(given, found, average=average, zero_division=0)
        for name, expected in zip(("precision", "recall", "f1"), figures[:3], strict=True):
            assert overall[f"{average}_{name}"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_one_label_figures_equal_scikit_learns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    given, found = rng.integers(0, 4, 200), rng.integers(0, 4, 200)
    one = evaluated(np.eye(4, dtype=bool)[given], np.eye(4, dtype=bool)[found], many=False)
    overall = {name: value["value"] for name, value in one["overall"].items()}
    names = list(range(4))
    assert overall["accuracy"] == pytest.approx(sk.accuracy_score(given, found), abs=1e-6)
    averages_equal_scikit_learns(overall, given, found, ("macro", "weighted", "micro"))
    np.testing.assert_array_equal(one["confusion"], sk.confusion_matrix(given, found))
    report = sk.classification_report(given, found, output_dict=True, zero_division=0)
    for label in names:
        for name, theirs in (("precision", "precision"), ("recall", "recall"), ("f1", "f1-score")):
            mine = one["labels"][f"l{label}"][name]["value"]
            assert mine == pytest.approx(report[str(label)][theirs], abs=1e-6)
        mine = one["labels"][f"l{label}"]["accuracy"]["value"]
        assert mine == pytest.approx(sk.accuracy_score(given == label, found == label), abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_many_label_figures_equal_scikit_learns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, decided = rng.random((150, 5)) < 0.3, rng.random((150, 5)) < 0.4
    one = evaluated(truth, decided, many=True)
    overall = {name: value["value"] for name, value in one["overall"].items()}
    assert overall["accuracy"] == pytest.approx(sk.accuracy_score(truth, decided), abs=1e-6)
    assert overall["hamming_loss"] == pytest.approx(sk.hamming_loss(truth, decided), abs=1e-6)
    averages_equal_scikit_learns(overall, truth, decided, ("macro", "weighted", "micro", "samples"))
    for label in range(5):
        expected = sk.accuracy_score(truth[:, label], decided[:, label])
        assert one["labels"][f"l{label}"]["accuracy"]["value"] == pytest.approx(expected, abs=1e-6)


def test_a_label_without_rows_counts_as_zero_and_does_not_vanish() -> None:
    truth = np.eye(5, dtype=bool)[[0, 0, 0, 0]]  # one of five labels: leaving the rest out gives 1.0
    assert metrics.macro_f1(truth, truth) == pytest.approx(0.2)


@pytest.mark.parametrize("many", [False, True])
def test_the_interval_is_of_what_the_value_says_also_where_no_row_has_a_label(many: bool) -> None:
    truth = np.eye(3, dtype=bool)[[0, 1] * 10]
    overall = evaluated(truth, truth, many=many)["overall"]
    assert overall["macro_f1"] == {"value": 0.666667, "low": 0.666667, "high": 0.666667}


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


SHARES, RIGHT = np.array([0.6, 0.3, 0.1]), 0.75  # of the labels; of the decisions


def comments_of_authors(groups: int, mean: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Truth, decisions and authors: an author's labels are alike, and so is how often they are right."""
    author = np.repeat(np.arange(groups), rng.geometric(1 / mean, groups))
    shares = rng.dirichlet(8 * SHARES, groups)[author].cumsum(axis=1)
    truth = (rng.random((len(author), 1)) > shares).sum(axis=1).clip(max=2)
    right = rng.random(len(author)) < rng.beta(8 * RIGHT, 8 * (1 - RIGHT), groups)[author]
    other = (truth + rng.integers(1, 3, len(author))) % 3
    return np.eye(3, dtype=bool)[truth], np.eye(3, dtype=bool)[np.where(right, truth, other)], author


@pytest.mark.parametrize(("groups", "mean"), [(130, 3), (25, 16)])
def test_intervals_cover_the_truth_about_as_often_as_they_say(groups: int, mean: int) -> None:
    space, sets = LabelSpace.of("c", ["a", "b", "c"]), 1000
    hits = SHARES * RIGHT
    missed = SHARES * (1 - RIGHT)
    f1 = 2 * hits / (2 * hits + missed + (missed.sum() - missed) / 2)
    true = {"accuracy": RIGHT, "macro_f1": f1.mean()}
    covered = dict.fromkeys(true, 0)
    for seed in range(sets):
        rng = np.random.default_rng(seed)
        truth, decided, author = comments_of_authors(groups, mean, rng)
        found = metrics.evaluate(truth, decided, space, groups=author, draws=400, rng=rng)["overall"]
        for name, value in true.items():
            covered[name] += found[name]["low"] <= value <= found[name]["high"]
    for count in covered.values():
        assert 0.93 <= count / sets <= 0.97


@pytest.mark.parametrize(("sharper", "least"), [(1.0, 0.9), (2.0, 0.85)])
def test_the_interval_of_the_calibration_error_allows_for_its_bias(sharper: float, least: float) -> None:
    """Calibrated scores (error 0, which the plain interval never holds) and too sure ones."""
    space = LabelSpace.of("c", ["a", "b", "c"])

    def drawn(rows: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        logits = rng.normal(0, 1.5, (rows, 3))
        true, shown = (
            np.exp(one) / np.exp(one).sum(axis=1, keepdims=True) for one in (logits, sharper * logits)
        )
        truth = (rng.random((rows, 1)) > true.cumsum(axis=1)).sum(axis=1).clip(max=2)
        return np.eye(3, dtype=bool)[truth], shown

    def error(rows: int, rng: np.random.Generator) -> dict:
        truth, scores = drawn(rows, rng)
        found = metrics.evaluate(
            truth,
            space.decide(scores),
            space,
            scores=scores,
            groups=np.arange(rows),
            draws=200,
            rng=rng,
        )
        return found["overall"]["expected_calibration_error"]

    rng = np.random.default_rng(5)
    true = 0.0 if sharper == 1 else error(200_000, rng)["value"]
    found = [error(300, rng) for _ in range(200)]
    assert all(one["low"] <= one["value"] <= one["high"] for one in found)
    assert np.mean([one["low"] <= true <= one["high"] for one in found]) >= least


@pytest.mark.parametrize("many", [False, True])
def test_scores_are_judged_as_scikit_learn_and_a_plain_loop_do(many: bool) -> None:
    rng = np.random.default_rng(8)
    space = LabelSpace.of("c", ["a", "b", "c"], many=many)
    scores = rng.dirichlet([1, 1, 1], 300)
    truth = rng.random((300, 3)) < 0.4 if many else np.eye(3, dtype=bool)[rng.integers(0, 3, 300)]
    silent = rng.random(300) < 0.2
    known, shown = truth[~silent], scores[~silent]
    scores[silent] = np.nan
    found = evaluated(truth, space.decide(scores), many=many, scores=scores)
    judged = {name: one["value"] for name, one in found["overall"].items()}
    assert found["valid"]["n"] == (~silent).sum()
    assert (
        found["overall"]["log_loss"]["low"] < judged["log_loss"] < found["overall"]["log_loss"]["high"]
    )
    if many:
        pairs = [(float(s), bool(t)) for s, t in zip(shown.ravel(), known.ravel(), strict=True)]
        losses = [sk.log_loss(known[:, at], shown[:, at]) for at in range(3)]
        assert judged["log_loss"] == pytest.approx(np.mean(losses), abs=1e-6)
        briers = [sk.brier_score_loss(known[:, at], shown[:, at]) for at in range(3)]
        assert judged["brier_score"] == pytest.approx(np.mean(briers), abs=1e-6)
    else:
        pairs = [(float(s.max()), bool(t[s.argmax()])) for s, t in zip(shown, known, strict=True)]
        assert judged["log_loss"] == pytest.approx(sk.log_loss(known, shown), abs=1e-6)
        theirs = sk.brier_score_loss(known.argmax(axis=1), shown, scale_by_half=False)
        assert judged["brier_score"] == pytest.approx(theirs, abs=1e-6)
    error = 0.0
    for at in range(15):
        own = [(sure, hit) for sure, hit in pairs if at / 15 < sure <= (at + 1) / 15]
        error += abs(sum(hit for _, hit in own) - sum(sure for sure, _ in own)) / len(pairs)
    assert judged["expected_calibration_error"] == pytest.approx(error, abs=1e-6)


def test_without_scores_nothing_is_said_of_them() -> None:
    truth = np.eye(2, dtype=bool)[[0, 1, 1, 0]]
    overall = evaluated(truth, truth, many=False)["overall"]
    unanswered = evaluated(truth, truth, many=False, scores=np.full((4, 2), np.nan))["overall"]
    for name in ("log_loss", "brier_score", "expected_calibration_error"):
        assert overall[name] == unanswered[name] == {"value": None, "low": None, "high": None}


@pytest.mark.parametrize("labels", range(2, 8))
@pytest.mark.parametrize("silent", [0, 0.1])
def test_the_report_of_one_label_is_scikit_learns(labels: int, silent: float) -> None:
    rng = np.random.default_rng(labels)
    names = ["a", "neutral", "rather against", "反对", "much longer than that", "b c", "z"][:labels]
    given = np.r_[np.arange(labels), rng.integers(0, labels, 143)]  # 4-digit ties happen
    found = np.where(rng.random(len(given)) < 0.5, given, rng.integers(0, labels, len(given)))
    found[rng.random(len(given)) < silent] = labels
    decided = np.eye(labels + 1, dtype=bool)[found][:, :labels]
    truth = np.eye(labels, dtype=bool)[given]
    mine = evaluated(truth, decided, many=False, draws=100, answered=found < labels, names=names)
    for digits in (1, 2, 3, 14):
        theirs = sk.classification_report(
            given,
            found,
            labels=list(range(labels)),
            target_names=names,
            digits=digits,
            zero_division=0,
        )
        assert metrics.classification_report(mine, digits=digits) == theirs
    assert ("micro avg" in theirs) == (silent > 0)


@pytest.mark.parametrize("labels", range(2, 8))
def test_the_report_of_many_labels_is_scikit_learns(labels: int) -> None:
    rng = np.random.default_rng(labels)
    names = ["a", "neutral", "rather against", "反对", "much longer than that", "b c", "z"][:labels]
    truth, decided = rng.random((97, labels)) < 0.3, rng.random((97, labels)) < 0.4
    truth[:, -1] = False  # a label without a row
    mine = evaluated(truth, decided, many=True, draws=100, names=names)
    for digits in (2, 3):
        theirs = sk.classification_report(
            truth, decided, target_names=names, digits=digits, zero_division=0
        )
        assert metrics.classification_report(mine, digits=digits) == theirs


@pytest.mark.parametrize("many", [False, True])
def test_stratified_chance_decides_label_sets_as_often_as_training_has_them(many: bool) -> None:
    sets = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]] + many * [[1, 0, 1], [0, 0, 0]], dtype=bool)
    often = np.array([5, 3, 2, 6, 4])[: len(sets)]
    decided = metrics.stratified(np.repeat(sets, often, axis=0), 20_000, np.random.default_rng(0))
    for one, count in zip(sets, often, strict=True):
        share = (decided == one).all(axis=1).mean()
        assert share == pytest.approx(count / often.sum(), abs=0.02)


def test_drawing_groups_in_blocks_changes_nothing_but_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    by_group = np.random.default_rng(1).random((40, 3))
    whole = metrics.resampled(by_group, 50, np.random.default_rng(2))
    monkeypatch.setattr(metrics, "_BLOCK", 7 * 40)
    np.testing.assert_allclose(metrics.resampled(by_group, 50, np.random.default_rng(2)), whole)
    assert whole.std(axis=0).min() > 0


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
