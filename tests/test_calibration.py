"""Scores come to mean what they say, and what is answered is wrong no more often than promised."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, softmax

from stages import predict, train
from tests import tiny
from undertone import models, tables
from undertone.errors import Problem
from undertone.files import write_json
from undertone.labels import Flags, LabelSpace, Scores
from undertone.measures import calibration, metrics
from undertone.params import Calibrate, read_params
from undertone.records import tracking

ROOT = Path(__file__).parents[1]
ONE = LabelSpace.of("c", ["a", "b", "c"])
MANY = LabelSpace.of("c", ["a", "b", "c"], many=True)
SPACES = [ONE, MANY]
TEMPERATURE = Calibrate(temperature=True, max_error=None)
NONE = [np.nan] * 3


def drawn(
    space: LabelSpace, rows: int, rng: np.random.Generator, *, planted: float = 1.0, spread: float = 2.0
) -> tuple[Scores, Flags]:
    """Scores that are too sure by `planted`, and a truth drawn from what they should have been."""
    logits = rng.normal(scale=spread, size=(rows, 3))
    if space.many:
        return expit(planted * logits), rng.random((rows, 3)) < expit(logits)
    right = (rng.random((rows, 1)) > softmax(logits, axis=1).cumsum(axis=1)).sum(axis=1)
    return softmax(planted * logits, axis=1), np.eye(3, dtype=bool)[np.minimum(right, 2)]


def evaluated(space: LabelSpace, scores: Scores, truth: Flags) -> dict[str, Any]:
    return metrics.evaluate(
        truth,
        space.decide(scores),
        space,
        scores=scores,
        groups=np.arange(len(truth)),
        draws=100,
        rng=np.random.default_rng(0),
    )


# temperature


@pytest.mark.parametrize("planted", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("space", SPACES)
def test_a_planted_temperature_is_found(space: LabelSpace, planted: float) -> None:
    scores, truth = drawn(space, 4000, np.random.default_rng(1), planted=planted)
    assert calibration.temperature(space, scores, truth) == pytest.approx(planted, rel=0.06)


@pytest.mark.parametrize("space", SPACES)
def test_an_overconfident_model_is_better_calibrated_on_fresh_texts(space: LabelSpace) -> None:
    rng = np.random.default_rng(2)
    fitted = calibration.fit(space, *drawn(space, 400, rng, planted=2.5), TEMPERATURE)
    assert fitted.temperature > 2
    scores, truth = drawn(space, 2000, rng, planted=2.5)
    before, after = (
        evaluated(space, one, truth)["overall"] for one in (scores, fitted.calibrated(scores))
    )
    assert after["log_loss"]["high"] < before["log_loss"]["low"]
    error = "expected_calibration_error"
    assert after[error]["value"] < 0.04 < 0.08 < before[error]["value"]
    np.testing.assert_array_equal(space.decide(scores), space.decide(fitted.calibrated(scores)))


def test_the_temperature_is_that_of_the_least_log_loss() -> None:
    scores, truth = drawn(ONE, 1000, np.random.default_rng(3), planted=2.0)
    found = calibration.temperature(ONE, scores, truth)
    losses = {
        step: metrics.log_loss(
            truth, replace(ONE, temperature=found * step).calibrated(scores), many=False
        )
        for step in (0.9, 0.97, 1.0, 1.03, 1.1)
    }
    assert min(losses, key=losses.__getitem__) == 1.0


@pytest.mark.parametrize("space", SPACES)
def test_scores_that_tell_all_texts_apart_keep_a_temperature(space: LabelSpace) -> None:
    rng = np.random.default_rng(4)
    truth = np.eye(3, dtype=bool)[rng.integers(3, size=300)]
    scores = np.where(truth, 0.7, 0.15)
    found = calibration.temperature(space, scores, truth)
    assert 0.1 < found < 0.5
    sure = replace(space, temperature=found).calibrated(scores)
    assert 0.97 < sure[truth].min() < 1 - 1 / 3000  # no surer than so few texts allow


@pytest.mark.parametrize("space", SPACES)
def test_scores_that_know_nothing_are_cooled_within_the_bounds(space: LabelSpace) -> None:
    rng = np.random.default_rng(5)
    scores, truth = drawn(space, 1000, rng, planted=4.0)
    found = calibration.temperature(space, scores, rng.permutation(truth))
    assert 10 < found <= 20


@pytest.mark.parametrize("space", SPACES)
def test_a_temperature_is_left_where_it_cannot_be_known(space: LabelSpace) -> None:
    scores, truth = drawn(space, 400, np.random.default_rng(6), planted=3.0)
    few = calibration.FEWEST - 1
    assert calibration.temperature(space, scores[:few], truth[:few]) == 1
    assert calibration.temperature(space, scores[: few + 1], truth[: few + 1]) > 1.3
    written = truth.astype(np.float64)
    written[:100] = written[:100, ::-1]  # an answer is a label, right or wrong, and has no odds
    written[-50:] = np.nan
    assert calibration.temperature(space, written, truth) == 1
    assert calibration.temperature(space, np.array([NONE] * 100), truth[:100]) == 1
    off = Calibrate(temperature=False, max_error=None)
    assert calibration.fit(space, scores, truth, off).temperature == 1


@pytest.mark.parametrize("space", SPACES)
def test_texts_without_a_valid_answer_move_nothing(space: LabelSpace) -> None:
    scores, truth = drawn(space, 300, np.random.default_rng(7), planted=2.0)
    more = np.vstack([scores, [NONE] * 40]), np.vstack([truth, np.ones((40, 3), dtype=bool)])
    fitted = calibration.fit(space, *more, TEMPERATURE)
    assert fitted == calibration.fit(space, scores, truth, TEMPERATURE) != space


def test_thresholds_are_of_calibrated_scores() -> None:
    scores, truth = drawn(MANY, 500, np.random.default_rng(8), planted=3.0)
    fitted = calibration.fit(MANY, scores, truth, TEMPERATURE)
    calibrated = fitted.calibrated(scores)
    assert fitted.thresholds == MANY.with_thresholds(calibrated, truth).thresholds
    # the order of scores is as it was, and so are the decisions
    np.testing.assert_array_equal(
        fitted.decide(calibrated), MANY.with_thresholds(scores, truth).decide(scores)
    )


# abstention


@pytest.mark.parametrize(("space", "rows", "max_error"), [(ONE, 600, 0.1), (MANY, 600, 0.3)])
def test_the_error_of_what_is_answered_is_kept_on_fresh_texts(
    space: LabelSpace, rows: int, max_error: float
) -> None:
    """With temperature and thresholds fitted on the same rows, as the stage does it."""
    rng = np.random.default_rng(9)
    fresh, true = drawn(space, 40_000, rng, planted=2.0, spread=4.0)
    settings = Calibrate(temperature=True, max_error=max_error)
    broken, naive, coverage = 0, 0, []
    for _ in range(150):
        scores, truth = drawn(space, rows, rng, planted=2.0, spread=4.0)
        fitted = calibration.fit(space, scores, truth, settings)
        calibrated = fitted.calibrated(scores)
        # without a bound: the most texts of which no more than that share was wrong
        order = np.argsort(-fitted.confidence(calibrated))
        wrong = (fitted.decide(calibrated) != truth).any(axis=1)[order]
        kept = np.flatnonzero(wrong.cumsum() <= max_error * np.arange(1, rows + 1))[-1]
        least = fitted.confidence(calibrated)[order][kept]
        for name in ("rule", "naive"):
            one = fitted if name == "rule" else replace(fitted, abstain=least)
            told = one.calibrated(fresh)
            given = ~one.abstains(told)
            error = (one.decide(told) != true).any(axis=1)[given].mean()
            if name == "rule":
                coverage.append(given.mean())
                broken += error > max_error
            else:
                naive += error > max_error
    assert broken <= 0.05 * 150
    assert naive > 0.25 * 150  # the promise is not kept by itself
    assert np.mean(coverage) > 0.3


def test_a_model_that_is_right_answers_every_text() -> None:
    truth = np.eye(3, dtype=bool)[np.arange(600) % 3]
    space = calibration.fit(
        ONE, np.where(truth, 0.8, 0.1), truth, Calibrate(temperature=True, max_error=0.05)
    )
    assert space.abstain == 0
    assert not space.abstains(np.array([[0.34, 0.33, 0.33]])).any()
    assert space.abstains(np.array([NONE])).all()


def test_the_least_confidence_lies_between_two_texts() -> None:
    truth = np.eye(3, dtype=bool)[np.zeros(1000, dtype=int)]
    scores = np.tile([0.9, 0.05, 0.05], (1000, 1))
    scores[500:] = [0.3, 0.5, 0.2]  # wrong, and told so by the score
    found = calibration.least_confidence(ONE, scores, truth, 0.05)
    assert found == pytest.approx(0.7)
    assert (replace(ONE, abstain=found).abstains(scores) == (np.arange(1000) >= 500)).all()


def test_the_bound_is_clopper_and_pearsons_corrected_for_all_that_is_tried() -> None:
    """All texts alike, so that one least confidence is tried: the bound of 3 in 100 is 7.57 %."""
    truth = np.eye(3, dtype=bool)[np.repeat([0, 1], [97, 3])]
    alike = np.tile([0.8, 0.1, 0.1], (100, 1))
    assert calibration.least_confidence(ONE, alike, truth, 0.0758) == 0
    assert calibration.least_confidence(ONE, alike, truth, 0.0752) == calibration.NEVER
    # one more confidence is tried: each bound is at 97.5 %, the better one 8.1 %
    other = np.vstack([alike, [[0.5, 0.3, 0.2]] * 5])
    more = np.vstack([truth, truth[:5]])
    assert calibration.least_confidence(ONE, other, more, 0.079) == calibration.NEVER
    assert calibration.least_confidence(ONE, other, more, 0.083) == 0


def test_where_nothing_is_sure_enough_nothing_is_answered() -> None:
    scores, truth = drawn(ONE, 300, np.random.default_rng(10), spread=0.5)
    settings = Calibrate(temperature=True, max_error=0.05)
    space = calibration.fit(ONE, scores, truth, settings)
    assert space.abstains(space.calibrated(scores)).all()
    unanswered = np.array([NONE] * 9)
    assert calibration.fit(ONE, unanswered, truth[:9], settings).abstain == calibration.NEVER


def test_what_abstaining_comes_to_is_told_with_its_interval() -> None:
    space = replace(ONE, abstain=0.6)
    truth = np.eye(3, dtype=bool)[np.zeros(5, dtype=int)]
    scores = np.array(
        [[0.9, 0.1, 0.0], [0.2, 0.7, 0.1], [0.5, 0.3, 0.2], NONE, [0.6, 0.2, 0.2]]  # 0.6 is enough
    )
    told = answered_error(scores, truth, space, draws=500)
    assert (told["n"], told["answered"], told["wrong"]) == (5, 3, 1)
    assert told["coverage"]["value"] == 0.6
    assert told["error"]["value"] == pytest.approx(1 / 3, abs=1e-6)
    assert told["error"]["low"] <= told["error"]["value"] <= told["error"]["high"]
    without = answered_error(scores, truth, ONE)
    assert (without["answered"], without["wrong"]) == (5, 2)  # a text without a valid answer is wrong
    assert answered_error(scores, truth, replace(ONE, abstain=1.0))["error"]["value"] is None
    with pytest.raises(Problem, match="no rows"):
        answered_error(scores[:0], truth[:0], ONE)


def test_no_error_seen_is_not_no_error() -> None:
    truth = np.eye(3, dtype=bool)[np.zeros(100, dtype=int)]
    scores = np.tile([0.9, 0.05, 0.05], (100, 1))
    alone = answered_error(scores, truth, ONE)
    by_two = answered_error(scores, truth, ONE, groups=np.repeat([5, 9], 50))
    assert alone["error"] == {"value": 0, "low": 0, "high": pytest.approx(1 - 0.025**0.01, abs=1e-6)}
    assert by_two["error"]["high"] == pytest.approx(1 - 0.025**0.5, abs=1e-6)


def test_an_authors_texts_widen_the_interval() -> None:
    rng = np.random.default_rng(11)
    wrong = rng.random(40) < 0.3
    truth = np.eye(3, dtype=bool)[np.repeat(wrong.astype(int), 10)]
    scores = np.tile([0.9, 0.05, 0.05], (400, 1))
    widths = []
    for groups in (np.arange(400), np.arange(400) // 10):
        error = answered_error(scores, truth, ONE, groups=groups, draws=1000)["error"]
        widths.append(error["high"] - error["low"])
    assert widths[1] > 2 * widths[0]


def answered_error(
    scores: Scores, truth: Flags, space: LabelSpace, *, groups: Any = None, draws: int = 100
) -> dict[str, Any]:
    return calibration.answered_error(
        scores,
        truth,
        space,
        groups=np.arange(len(truth)) if groups is None else groups,
        draws=draws,
        rng=np.random.default_rng(0),
    )


# curves


def curve(scores: Scores, truth: Flags, space: LabelSpace, groups: Any = None) -> dict[str, Any]:
    return calibration.coverage_risk(
        scores,
        truth,
        space,
        groups=np.arange(len(truth)) if groups is None else groups,
        draws=300,
        rng=np.random.default_rng(0),
    )


def test_risk_is_the_share_of_wrong_texts_among_the_surest() -> None:
    truth = np.eye(3, dtype=bool)[np.zeros(5, dtype=int)]
    scores = np.array(
        [NONE, [0.5, 0.3, 0.2], [0.3, 0.7, 0.0], [0.9, 0.1, 0.0], [0.8, 0.1, 0.1]],
    )
    found = curve(scores, truth, ONE)
    assert found["coverage"] == [0.2, 0.4, 0.6, 0.8, 1.0]
    np.testing.assert_allclose(found["risk"], [0, 0, 1 / 3, 1 / 4, 2 / 5], atol=1e-6)
    assert found["area"]["value"] == pytest.approx(np.mean(found["risk"]), abs=1e-6)
    with pytest.raises(Problem, match="no rows"):
        curve(scores[:0], truth[:0], ONE)


def test_texts_of_one_confidence_come_in_no_order() -> None:
    truth = np.eye(3, dtype=bool)[[0, 0, 1, 1]]
    alike = np.tile([0.8, 0.1, 0.1], (4, 1))
    assert curve(alike, truth, ONE)["risk"] == [0.5] * 4
    assert curve(alike, truth, ONE) == curve(alike, truth[[2, 0, 3, 1]], ONE, np.array([2, 0, 3, 1]))


@pytest.mark.parametrize("space", SPACES)
def test_the_curve_ends_at_all_texts_within_its_band_and_is_json(space: LabelSpace) -> None:
    rng = np.random.default_rng(12)
    scores, truth = drawn(space, 730, rng)
    groups = rng.integers(200, size=730)
    found = curve(scores, truth, space, groups)
    assert json.loads(json.dumps(found)) == found
    assert {len(found[name]) for name in ("coverage", "risk", "low", "high")} == {calibration.POINTS}
    assert found["risk"][-1] == pytest.approx(
        (space.decide(scores) != truth).any(axis=1).mean(), abs=1e-6
    )
    low, risk, high = (np.array(found[name]) for name in ("low", "risk", "high"))
    assert (low <= risk).all()
    assert (risk <= high).all()
    assert (high > low)[20:].all()
    assert found["area"]["low"] < found["area"]["value"] < found["area"]["high"]
    assert found["area"]["value"] < found["risk"][-1]  # confidence knows something


def test_the_band_is_the_bootstraps_draw_by_draw() -> None:
    """Against each drawn set of authors written out, row by row."""
    rng = np.random.default_rng(13)
    scores, truth = drawn(ONE, 60, rng)
    groups = np.repeat(np.arange(20), 3)
    found = curve(scores, truth, ONE, groups)
    times = metrics.resampled(np.eye(20), 300, np.random.default_rng(0)).astype(int)
    areas = []
    for one in times:
        rows = np.repeat(np.arange(60), one[groups])
        order = rows[np.argsort(-scores[rows].max(axis=1), kind="stable")]
        wrong = (ONE.decide(scores[order]) != truth[order]).any(axis=1)
        points = np.arange(1, 61) / 60 * len(order)
        areas.append(
            np.mean(np.interp(points, np.arange(len(order) + 1), np.append(0, wrong.cumsum())) / points)
        )
    low, high = metrics.interval(np.array(areas), 20)
    assert found["area"]["low"] == pytest.approx(low, abs=1e-6)
    assert found["area"]["high"] == pytest.approx(high, abs=1e-6)


@pytest.mark.parametrize("space", SPACES)
def test_reliability_is_what_the_calibration_error_is_made_of(space: LabelSpace) -> None:
    scores, truth = drawn(space, 500, np.random.default_rng(14), planted=3.0)
    scores[:20] = np.nan
    bins = calibration.reliability(scores, truth, space)
    assert json.loads(json.dumps(bins)) == bins
    count = np.array([one["n"] for one in bins])
    assert count.sum() == (480 * 3 if space.many else 480)
    gaps = [abs(one["confidence"] - one["accuracy"]) for one in bins]
    error = evaluated(space, scores, truth)["overall"]["expected_calibration_error"]["value"]
    assert np.average(gaps, weights=count) == pytest.approx(error, abs=2e-6)
    assert calibration.reliability(np.array([NONE]), truth[:1], space) == []


# stages


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.usefixtures("store")
def test_train_fits_and_predict_applies_once(many: bool) -> None:
    space, given = tiny.space(many=many), tiny.examples(900, many=many)
    rows = {f"label.{label}": given.truth[:, at] for at, label in enumerate(space.labels)}
    table = pd.DataFrame({"id": np.arange(900).astype(str), "text": given.texts, **rows})
    table["part"] = np.repeat(["train", "validation", "test"], 300)
    table["weight"], table["origin"] = 1.0, "table"
    tables.write(table.astype(dict.fromkeys(rows, float)), Path("split.parquet"))
    space.save(Path("labels.json"))
    for name in ("base", "instruction"):
        write_json(Path(f"{name}.json"), {})
    models.Recipe("tfidf", tiny.SETTINGS["tfidf"], "code").save(Path("recipe.json"))
    settings = Calibrate(temperature=True, max_error=0.3)
    params = read_params(ROOT / "params.yaml").model_copy(update={"calibrate": settings})
    train.main(
        params,
        source="tiny",
        candidate="tfidf",
        recipe=Path("recipe.json"),
        base=Path("base.json"),
        adapted=Path("base.json"),
        instruction=Path("instruction.json"),
        labels=Path("labels.json"),
        comments=Path("split.parquet"),
        out=Path("model"),
        curves=Path("curves.json"),
        folds=Path("folds.parquet"),
    )
    assert pd.read_parquet("folds.parquet").empty
    predict.main(
        params,
        candidate="tfidf",
        model=Path("model"),
        comments=Path("split.parquet"),
        out=Path("scores.parquet"),
    )
    model = models.load(Path("model"))
    validation = models.examples(table, "validation", space)
    own = model.scores(validation.texts)
    assert model.space == calibration.fit(space, own, validation.truth, settings)
    assert model.space.temperature != 1
    assert model.space.abstain is not None
    written = tables.scores_of(
        tables.read(Path("scores.parquet")), table["id"][300:600], model.space, where="scores"
    )
    np.testing.assert_allclose(written, model.space.calibrated(own), atol=1e-12)
    logged = tracking.client().search_runs(["1"])[0].data.metrics
    assert logged["temperature"] == model.space.temperature
    assert logged["validation_macro_f1"] == models.macro_f1(model.space, written, validation)
