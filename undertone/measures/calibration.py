"""Scores that mean what they say, and when to say nothing: both fitted on validation.

Temperature scaling (Guo et al. 2017), a least confidence that keeps the error of what is answered
(Geifman & El-Yaniv 2017), and what is shown of both: reliability, and risk against coverage. A text is
wrong where any of its labels is, or where it has no valid answer.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.sparse import csr_array
from scipy.special import betaincinv, logsumexp

from undertone.errors import Problem
from undertone.labels import Flags, LabelSpace, Scores, answered
from undertone.measures import metrics
from undertone.params import Calibrate

Values = NDArray[np.float64]
Rows = NDArray[np.bool_]  # [n]

FOLDS = 5
FEWEST = 50  # texts; from fewer a temperature would be a guess
TEMPERATURES = (0.05, 20.0)
NEVER = 2.0  # above any confidence
RISK = 0.05  # how often the error of what is answered may be more than promised
SHARES = 20  # how many least confidences are tried, each for another share of the texts
POINTS = 100  # of the curve of risk against coverage


def fit(space: LabelSpace, scores: Scores, truth: Flags, settings: Calibrate) -> LabelSpace:
    """`space` with its temperature, then thresholds, then least confidence fitted on these rows.

    `scores` [n, labels] are a model's own, not calibrated. `Problem` where no least confidence keeps
    `max_error`.
    """
    warmth = temperature(space, scores, truth) if settings.temperature else 1.0
    scaled = replace(space, temperature=warmth)
    calibrated = scaled.calibrated(scores)
    cut = scaled.with_thresholds(calibrated, truth)
    if settings.max_error is None:
        return cut
    return replace(cut, abstain=least_confidence(cut, calibrated, truth, settings.max_error))


def crossfitted(
    space: LabelSpace,
    scores: Scores,
    truth: Flags,
    settings: Calibrate,
    units: NDArray[np.int64],
    *,
    seed: int,
) -> Iterator[tuple[NDArray[np.int64], LabelSpace]]:
    """Row numbers, each once, and `space` fitted on the others: to tell what decisions are worth on the
    rows that also fit them. Rows of the same of `units` [n] stay together; arguments as `fit` has them.
    """
    _, numbered = np.unique(units, return_inverse=True)
    drawn = np.random.default_rng(seed).permutation(len(np.unique(units)))
    fold = drawn[numbered] % FOLDS
    for number in np.unique(fold):
        others = fold != number
        yield np.flatnonzero(~others), fit(space, scores[others], truth[others], settings)


def temperature(space: LabelSpace, scores: Scores, truth: Flags) -> float:
    """The temperature with the least log loss on these rows, rows without a valid answer left out.

    `scores` are not calibrated. Of many labels a row's loss is the mean of its labels'. A gamma prior on
    1 / T, with its mode at 1 and the weight of one row, keeps it finite where the scores tell all rows
    apart; log loss and prior are convex in 1 / T, which is looked for within TEMPERATURES. 1 where there
    are fewer than FEWEST rows, where every score is 0 or 1, and where nothing is gained.
    """
    space.check(scores)
    rows = answered(scores)
    known, true = scores[rows], truth[rows]
    if len(known) < FEWEST or np.isin(known, (0, 1)).all():
        return 1.0
    logits = space.logits(known)

    def loss(inverse: float) -> float:
        scaled = inverse * logits
        if space.many:
            return float(np.logaddexp(0, np.where(true, -scaled, scaled)).mean(axis=1).sum())
        return float((logsumexp(scaled, axis=1) - scaled[true]).sum())

    found = minimize_scalar(
        lambda inverse: loss(inverse) + inverse - 1 - np.log(inverse),
        bounds=(1 / TEMPERATURES[1], 1 / TEMPERATURES[0]),
        method="bounded",
        options={"xatol": 1e-9},
    )
    return float(1 / found.x) if loss(found.x) < loss(1.0) else 1.0


def least_confidence(space: LabelSpace, scores: Scores, truth: Flags, max_error: float) -> float:
    """The least confidence that answers most while at most `max_error` of what is answered is wrong,
    with 95 % confidence for texts like these; 0 where all may be answered.

    `scores` are calibrated. As in selection with guaranteed risk (Geifman & El-Yaniv 2017), an upper
    Clopper-Pearson bound of the error is corrected for the search; but what is tried is fixed beforehand
    (the most confident 5 %, 10 %, … of the texts with a valid answer) and corrected by Bonferroni, so
    that no step depends on another's errors. It holds for texts that are drawn one by one; an author who
    is wrong often makes it looser. NEVER where no bound is low enough: then nothing is answered.
    """
    rows = answered(scores)
    wrong = _wrong(space, scores, truth)[rows]
    confidence = space.confidence(scores[rows])
    levels = np.unique(confidence)[::-1]
    if not len(levels):
        return NEVER
    ranks = np.ceil(np.arange(1, SHARES + 1) / SHARES * len(confidence)).astype(np.int64) - 1
    tried = np.unique(np.sort(confidence)[::-1][ranks])[::-1]
    below = np.append(levels, 0.0)[np.searchsorted(-levels, -tried) + 1]
    among = confidence >= tried[:, None]
    count = among.sum(axis=1)
    bounds = _upper((among & wrong).sum(axis=1), count, RISK / len(tried))
    kept = np.flatnonzero(bounds <= max_error)
    if not len(kept):
        return NEVER
    most = kept[-1]
    # halfway to the next text, so that another machine's rounding moves none; the last answers all
    return float((tried[most] + below[most]) / 2) if below[most] else 0.0


def answered_error(
    scores: Scores,
    truth: Flags,
    space: LabelSpace,
    *,
    groups: NDArray[np.int64],
    draws: int,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """What abstaining comes to on these rows, `scores` [n, labels] calibrated.

    `n`, `answered` and `wrong` (of these) in texts, `coverage` (share answered) and `error` (share wrong
    of these; null where none is answered), each `{"value", "low", "high"}` with a 95 % interval over
    groups. Where no answer is wrong, no draw shows an error; the upper end is then that of Clopper and
    Pearson for as many texts as there are groups with an answer. `Problem` on no rows.
    """
    if not len(truth):
        raise Problem("no rows to evaluate", where=f"codebook {space.codebook}")
    given = ~space.abstains(scores)
    wrong = given & _wrong(space, scores, truth)
    by_group = metrics.summed(np.stack([np.ones(len(given)), given, wrong], axis=1), groups)
    drawn = metrics.resampled(by_group, draws, rng)
    units = len(by_group)
    rows, some, errors = by_group.sum(axis=0)
    drawn_errors = np.divide(drawn[:, 2], drawn[:, 1], out=np.full(draws, np.nan), where=drawn[:, 1] > 0)
    low, high = metrics.interval(drawn_errors, units)
    if not errors:
        high = _upper(0, np.count_nonzero(by_group[:, 1]), 0.025)
    return {
        "n": int(rows),
        "answered": int(some),
        "wrong": int(errors),
        "coverage": metrics.figure(some / rows, *metrics.interval(drawn[:, 1] / drawn[:, 0], units)),
        "error": metrics.figure(errors / some if some else np.nan, low, high),
    }


def coverage_risk(
    scores: Scores,
    truth: Flags,
    space: LabelSpace,
    *,
    groups: NDArray[np.int64],
    draws: int,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """The share of wrong texts among the most confident share of them (El-Yaniv & Wiener 2010).

    `scores` are calibrated. `coverage`, `risk`, `low` and `high`: lists of as many points as there are
    rows, at most POINTS, evenly spread to all rows; the band is a 95 % interval over groups.
    `area`: the risk's mean over the points, with its interval. Among texts of one confidence it is as if
    they came in random order; those without a valid answer come last. `Problem` on no rows.
    """
    if not len(truth):
        raise Problem("no rows to evaluate", where=f"codebook {space.codebook}")
    # a level: the texts of one confidence, the most confident first
    levels, level = np.unique(-np.nan_to_num(space.confidence(scores), nan=-1.0), return_inverse=True)
    _, group = np.unique(groups, return_inverse=True)
    wrong = _wrong(space, scores, truth).astype(np.float64)
    both = np.concatenate([np.ones(len(wrong)), wrong])
    places = np.concatenate([level, level + len(levels)])
    units = int(group.max()) + 1
    by_group = csr_array((both, (np.tile(group, 2), places)), shape=(units, 2 * len(levels)))
    points = np.arange(1, min(POINTS, len(wrong)) + 1) / min(POINTS, len(wrong))
    value = _risks(by_group.sum(axis=0)[None], points)[0]
    step = max(1, 2**21 // len(levels))  # draws at a time: about 100 MB
    drawn = np.concatenate(
        [
            _risks(metrics.resampled(by_group, min(step, draws - start), rng), points)
            for start in range(0, draws, step)
        ]
    )
    low, high = metrics.interval(drawn, units)
    return {
        "coverage": _listed(points),
        "risk": _listed(value),
        "low": _listed(low),
        "high": _listed(high),
        "area": metrics.figure(value.mean(), *metrics.interval(drawn.mean(axis=1), units)),
    }


def reliability(scores: Scores, truth: Flags, space: LabelSpace) -> list[dict[str, float]]:
    """The bins behind `metrics.evaluate`'s expected calibration error that hold a score, from the least.

    `scores` are calibrated. Each bin has `confidence` (its scores' mean), `accuracy` and `n`. One label
    a text: its highest score, and how often that label is true. Many: every label's score, and how
    often that label is true. Texts without a valid answer are in no bin.
    """
    rows = answered(scores)
    given, true = scores[rows], truth[rows]
    if space.many:
        values, right = given.ravel(), true.ravel()
    else:
        values = space.confidence(given)
        right = np.asarray((space.decide(given) & true).any(axis=1))
    at = np.digitize(values, np.linspace(0, 1, metrics.BINS + 1)[1:-1], right=True)
    count = np.bincount(at)
    confidence, accuracy = (np.bincount(at, weights=weights) for weights in (values, right))
    return [
        {
            "confidence": round(confidence[one] / count[one], 6),
            "accuracy": round(accuracy[one] / count[one], 6),
            "n": int(count[one]),
        }
        for one in np.flatnonzero(count)
    ]


def _wrong(space: LabelSpace, scores: Scores, truth: Flags) -> Rows:
    return np.asarray((space.decide(scores) != truth).any(axis=1) | ~answered(scores))


def _upper(wrong: Any, count: Any, risk: float) -> Any:
    """The one-sided upper bound of a share, `wrong` of `count` seen (Clopper & Pearson 1934)."""
    some = np.where(wrong < count, count, wrong + 1)  # all wrong: the bound is 1
    return np.where(wrong < count, betaincinv(wrong + 1, some - wrong, 1 - risk), 1.0)


def _risks(drawn: Values, points: Values) -> Values:
    """[draws, points]: the share of wrong texts from the most confident on, for how many texts and how
    many wrong ones there are of each confidence, side by side [draws, 2 × levels]."""
    texts, wrong = np.split(drawn, 2, axis=1)
    texts, wrong = (np.insert(one.cumsum(axis=1), 0, 0, axis=1) for one in (texts, wrong))
    reached = points * texts[:, -1:]
    met = [np.interp(*each) for each in zip(reached, texts, wrong, strict=True)]
    return np.asarray(np.array(met) / reached)


def _listed(values: Values) -> list[float]:
    return [round(float(value), 6) for value in values]
