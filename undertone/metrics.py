"""Metrics with their intervals, for one label a text or many.

All that is shown is a function of three counts a label (true positives, false positives, false
negatives) and of a few counts of texts, such as those that are wholly right. The bootstrap draws groups
(authors), whose comments count together, so a thousand draws are one matrix product.

A text without a valid answer is wrong: all its decisions are, and what is true of it was missed.
"""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from undertone.errors import Problem
from undertone.labels import Flags, LabelSpace, Scores

Counts = NDArray[np.float64]
Rows = NDArray[np.bool_]  # [n]


def macro_f1(truth: Flags, decided: Flags) -> float:
    """The mean of the labels' F1; a label without any row, true or decided, counts as 0."""
    counts = _counts(truth, decided, np.ones(len(truth), dtype=bool))
    return float(_summary(counts.sum(axis=0), len(truth), truth.shape[1])["macro_f1"])


def log_loss(truth: Flags, scores: Scores, *, many: bool) -> float:
    """The mean -log of what the scores [n, labels] give to the truth, in nats; of many labels the mean
    over them. Scores of 0 count as 1e-12."""
    right = np.where(truth, scores, 1 - scores) if many else scores[truth]
    return float(-np.log(np.maximum(right, 1e-12)).mean())


def evaluate(
    truth: Flags,
    decided: Flags,
    space: LabelSpace,
    *,
    answered: Rows | None = None,
    groups: NDArray[np.int64],
    draws: int,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Every metric as `{"value", "low", "high"}` with a 95 % percentile interval.

    `truth`, `decided` [n, labels]; `answered` [n], rows with a valid answer, without it all;
    `groups` [n] numbers rows that are drawn together. Returns `n`, `groups`, `valid` (rows with a
    valid answer: n and share), `valid_accuracy` (over these alone; null without any), `overall`
    (name → value and interval), `labels` (id → the same, and its rows: true, decided, without a
    valid answer) and `confusion` (one label a text: rows are the truth, in the label space's order;
    those without a valid answer are in no column).
    """
    if not len(truth):
        raise Problem("no rows to evaluate", where=f"codebook {space.codebook}")
    valid = np.ones(len(truth), dtype=bool) if answered is None else answered
    decided = decided & valid[:, None]
    _, numbered = np.unique(groups, return_inverse=True)
    units = int(numbered.max()) + 1
    row_counts = _counts(truth, decided, valid)
    by_group = np.zeros((units, row_counts.shape[1]))
    np.add.at(by_group, numbered, row_counts)
    rows_by_group = np.bincount(numbered, minlength=units).astype(np.float64)

    weights = rng.multinomial(units, np.full(units, 1 / units), size=draws).astype(np.float64)
    labels = truth.shape[1]
    value = _summary(by_group.sum(axis=0), len(truth), labels)
    # a draw without any row of a label says nothing of that label, least of all that its F1 is 0
    drawn = _summary(weights @ by_group, weights @ rows_by_group, labels, absent=np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a label that no draw holds
        spread = {
            name: np.nan_to_num(np.nanpercentile(drawn[name], (2.5, 97.5), axis=0)) for name in value
        }

    def shown(name: str, label: int | None = None) -> dict[str, float | None]:
        at: Any = () if label is None else (label,)
        if np.isnan(value[name][at]):
            return {"value": None, "low": None, "high": None}
        return {
            "value": _rounded(value[name][at]),
            "low": _rounded(spread[name][0][at]),
            "high": _rounded(spread[name][1][at]),
        }

    return {
        "n": len(truth),
        "groups": units,
        "valid": {"n": int(valid.sum()), "share": shown("valid")},
        "valid_accuracy": shown("valid_accuracy"),
        "overall": {name: shown(name) for name in value if name not in _BY_LABEL + _OF_VALID},
        "labels": {
            label: {
                **{name: shown(name, column) for name in _BY_LABEL},
                "support": int(truth[:, column].sum()),
                "decided": int(decided[:, column].sum()),
                "unanswered": int(truth[~valid, column].sum()),
            }
            for column, label in enumerate(space.labels)
        },
        "confusion": None if space.many else _confusion(truth, decided).tolist(),
    }


def right(found: Mapping[str, Any], *, many: bool) -> dict[str, float]:
    """The share of right decisions in what `evaluate` returns: accuracy, or for many labels the mean of
    the labels' accuracies, which is 1 - the Hamming loss."""
    if not many:
        return dict(found["overall"]["accuracy"])
    wrong = found["overall"]["hamming_loss"]
    ends = {"value": "value", "low": "high", "high": "low"}
    return {one: round(1 - wrong[other], 6) for one, other in ends.items()}


def unanswered(found: Mapping[str, Any]) -> int:
    """Rows without a valid answer in what `evaluate` returns; none where it didn't count them yet."""
    return int(found["n"] - found["valid"]["n"]) if "valid" in found else 0


def told(one: Mapping[str, float | None]) -> str:
    """`0.812 [0.781, 0.840]`, as far as it is known; empty where nothing defines the figure."""
    if one["value"] is None or one["low"] is None:
        return "" if one["value"] is None else f"{one['value']:.3f}"
    return f"{one['value']:.3f} [{one['low']:.3f}, {one['high']:.3f}]"


def told_valid(found: Mapping[str, Any]) -> str:
    """`870 (97.0%)`: the valid answers in what `evaluate` returns."""
    count = found["n"] - unanswered(found)
    return f"{count:,} ({count / found['n']:.1%})"


def majority(train: Flags, rows: int, space: LabelSpace) -> Flags:
    """What always answering the commonest training label (for many: every label that most texts
    have) would decide on `rows` texts."""
    decided = np.zeros((rows, train.shape[1]), dtype=bool)
    if space.many:
        decided[:] = train.mean(axis=0) >= 0.5
    else:
        decided[:, int(train.sum(axis=0).argmax())] = True
    return decided


_BY_LABEL = ("precision", "recall", "f1")
_OF_VALID = ("valid", "valid_accuracy")


def _counts(truth: Flags, decided: Flags, valid: Rows) -> Counts:
    """[n, 3 × labels + 3]: tp, fp and fn a label, wholly right texts, wrong label decisions, texts with
    a valid answer."""
    hit = truth & decided
    false = ~truth & decided
    missed = truth & ~decided
    wrong = ((truth != decided) | ~valid[:, None]).sum(axis=1, keepdims=True)
    return np.hstack([hit, false, missed, wrong == 0, wrong, valid[:, None]]).astype(np.float64)


def _summary(counts: Counts, rows: Any, labels: int, absent: float = 0.0) -> Mapping[str, Any]:
    """`absent`: what the figures of a label without any row, true or decided, are taken to be."""
    tp, fp, fn = (counts[..., part * labels : (part + 1) * labels] for part in range(3))
    right, wrong, valid = (counts[..., 3 * labels + place] for place in range(3))
    precision, recall = _ratio(tp, tp + fp), _ratio(tp, tp + fn)
    f1 = _ratio(2 * tp, 2 * tp + fp + fn)
    nowhere = tp + fp + fn == 0
    precision, recall, f1 = (np.where(nowhere, absent, one) for one in (precision, recall, f1))
    support = tp + fn
    share = _ratio(support, support.sum(axis=-1, keepdims=True))
    total = tp.sum(axis=-1), fp.sum(axis=-1), fn.sum(axis=-1)
    return {
        "valid": _ratio(valid, rows),
        "valid_accuracy": np.where(valid > 0, _ratio(right, valid), np.nan),
        "accuracy": _ratio(right, rows),  # for many labels: subset accuracy
        "hamming_loss": _ratio(wrong, np.asarray(rows) * labels),
        "macro_precision": np.nanmean(precision, axis=-1),
        "macro_recall": np.nanmean(recall, axis=-1),
        "macro_f1": np.nanmean(f1, axis=-1),
        "micro_f1": _ratio(2 * total[0], 2 * total[0] + total[1] + total[2]),
        "weighted_f1": (share * np.nan_to_num(f1)).sum(axis=-1),
        "precision": precision,
        "recall": recall,
        "f1": f1,
    }


def _ratio(part: Any, whole: Any) -> Any:
    part, whole = np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64)
    return np.divide(part, whole, out=np.zeros(np.broadcast(part, whole).shape), where=whole > 0)


def _confusion(truth: Flags, decided: Flags) -> NDArray[np.int64]:
    matrix: NDArray[np.int64] = truth.astype(np.int64).T @ decided.astype(np.int64)
    return matrix


def _rounded(value: Any) -> float:
    return round(float(value), 6)
