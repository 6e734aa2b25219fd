"""Metrics with their intervals, for one label a text or many.

All that is shown is a function of three counts a label (true positives, false positives, false
negatives) and of the number of texts that are wholly right. The bootstrap draws groups (authors),
whose comments count together, so a thousand draws are one matrix product.
"""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from undertone.errors import Problem
from undertone.labels import Flags, LabelSpace

Counts = NDArray[np.float64]


def macro_f1(truth: Flags, decided: Flags) -> float:
    """The mean of the labels' F1; a label without any row, true or decided, counts as 0."""
    return float(_summary(_counts(truth, decided).sum(axis=0), len(truth), truth.shape[1])["macro_f1"])


def evaluate(
    truth: Flags,
    decided: Flags,
    space: LabelSpace,
    *,
    groups: NDArray[np.int64],
    draws: int,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Every metric as `{"value", "low", "high"}` with a 95 % percentile interval.

    `truth`, `decided` [n, labels]; `groups` [n] numbers rows that are drawn together. Returns `n`,
    `groups`, `overall` (name → value and interval), `labels` (id → the same, and support) and
    `confusion` (one label a text: rows are the truth, in the label space's order).
    """
    if not len(truth):
        raise Problem("no rows to evaluate", where=f"codebook {space.codebook}")
    _, numbered = np.unique(groups, return_inverse=True)
    units = int(numbered.max()) + 1
    row_counts = _counts(truth, decided)
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

    def shown(name: str, label: int | None = None) -> dict[str, float]:
        at: Any = () if label is None else (label,)
        return {
            "value": _rounded(value[name][at]),
            "low": _rounded(spread[name][0][at]),
            "high": _rounded(spread[name][1][at]),
        }

    return {
        "n": len(truth),
        "groups": units,
        "overall": {name: shown(name) for name in value if name not in _BY_LABEL},
        "labels": {
            label: {
                **{name: shown(name, column) for name in _BY_LABEL},
                "support": int(truth[:, column].sum()),
                "decided": int(decided[:, column].sum()),
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


def _counts(truth: Flags, decided: Flags) -> Counts:
    """[n, 3 × labels + 2]: tp, fp and fn a label, wholly right texts, wrong label decisions."""
    hit = truth & decided
    false = ~truth & decided
    missed = truth & ~decided
    right = (truth == decided).all(axis=1, keepdims=True)
    wrong = (truth != decided).sum(axis=1, keepdims=True)
    return np.hstack([hit, false, missed, right, wrong]).astype(np.float64)


def _summary(counts: Counts, rows: Any, labels: int, absent: float = 0.0) -> Mapping[str, Any]:
    """`absent`: what the figures of a label without any row, true or decided, are taken to be."""
    tp, fp, fn = (counts[..., part * labels : (part + 1) * labels] for part in range(3))
    right, wrong = counts[..., 3 * labels], counts[..., 3 * labels + 1]
    precision, recall = _ratio(tp, tp + fp), _ratio(tp, tp + fn)
    f1 = _ratio(2 * tp, 2 * tp + fp + fn)
    nowhere = tp + fp + fn == 0
    precision, recall, f1 = (np.where(nowhere, absent, one) for one in (precision, recall, f1))
    support = tp + fn
    share = _ratio(support, support.sum(axis=-1, keepdims=True))
    total = tp.sum(axis=-1), fp.sum(axis=-1), fn.sum(axis=-1)
    return {
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
