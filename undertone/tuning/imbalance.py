"""What `params.Sampled` means where labels differ in frequency: weights, the rows of an epoch, priors.

For one label a text or many. Where rows are drawn, each belongs to one group: its label, or of several
its rarest; rows without a label are a group of their own.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from undertone.labels import Flags
from undertone.params import ClassWeights, Sampled

Rows = NDArray[np.int64]  # row numbers
Weights = NDArray[np.float64]  # [n], what each row counts as


def class_weights(truth: Flags, kind: ClassWeights, rows: Weights | None = None) -> NDArray[np.float64]:
    """What a row of each label weighs; `truth` [n, labels] has one label a row. `balanced` is
    scikit-learn's n / (labels x rows), `sqrt` its root: milder where the rarest label is very rare.
    `rows`: what each counts as, 1 without it."""
    each = np.ones(len(truth)) if rows is None else rows
    counts = each @ truth
    counts = np.where(counts > 0, counts, 1)
    ratio = each.sum() / (len(counts) * counts)
    power = {"none": 0.0, "sqrt": 0.5, "balanced": 1.0}[kind]
    weights: NDArray[np.float64] = ratio**power
    return weights


def presence_weights(
    truth: Flags, kind: ClassWeights, rows: Weights | None = None
) -> NDArray[np.float64]:
    """What each label's presence weighs against its absence, for many labels a row."""
    pairs = [class_weights(np.stack([~one, one], axis=1), kind, rows) for one in truth.T]
    return np.array([present / absent for absent, present in pairs])


def groups(truth: Flags) -> Rows:
    """The group of each row [n]: the number of its rarest label, that of labels for a row without."""
    counts = truth.sum(axis=0)
    found: Rows = np.where(truth, counts, len(truth) + 1).argmin(axis=1)
    found[~truth.any(axis=1)] = truth.shape[1]
    return found


def epoch(truth: Flags, settings: Sampled, *, seed: int, number: int) -> Rows:
    """The rows of one epoch, shuffled; always the same for the same seed and number, and as many in
    each epoch."""
    rng = np.random.default_rng((seed, number))
    if settings.downsample is not None:
        return rng.permutation(_downsampled(truth, settings.downsample, rng))
    if settings.mixing:
        return rng.permutation(_mixed(truth, settings.mixing, rng))
    return rng.permutation(len(truth))


def once(truth: Flags, settings: Sampled, *, seed: int) -> Rows:
    """The rows for a family that sees them once: those of the first epoch, in the data's order."""
    return np.sort(epoch(truth, settings, seed=seed, number=0))


def lost(truth: Flags, rows: Rows, labels: Sequence[str]) -> dict[str, float]:
    """How many rows of each label are not among `rows`, as metrics; none for a label that loses none."""
    counts = truth.sum(axis=0) - truth[np.unique(rows)].sum(axis=0)
    named = zip(labels, counts.tolist(), strict=True)
    return {f"rows_left_out.{label}": float(count) for label, count in named if count}


def prior(truth: Flags, many: bool, rows: Weights | None = None) -> NDArray[np.float64]:
    """Each label's log frequency, for many labels its log odds, with one row added to each outcome:
    what logit adjustment (Menon et al. 2021) multiplies by tau."""
    each = np.ones(len(truth)) if rows is None else rows
    counts = each @ truth + 1.0
    others = each.sum() + 2 - counts if many else each.sum() + truth.shape[1]
    logarithm: NDArray[np.float64] = np.log(counts / others)
    return logarithm


def _downsampled(truth: Flags, times: float, rng: np.random.Generator) -> Rows:
    counts = truth.sum(axis=0)
    limit = int(times * counts[counts > 0].min(initial=len(truth)))
    return np.concatenate([rng.permutation(rows)[:limit] for rows in _grouped(truth)])


def _mixed(truth: Flags, share: float, rng: np.random.Generator) -> Rows:
    grouped = _grouped(truth)
    balanced = round(share * len(truth))
    sizes = np.full(len(grouped), balanced // len(grouped))
    sizes[rng.permutation(len(grouped))[: balanced % len(grouped)]] += 1
    # a group's rows come in turn, so that none comes twice before all came once
    drawn = [np.resize(rng.permutation(rows), size) for rows, size in zip(grouped, sizes, strict=True)]
    return np.concatenate([*drawn, rng.permutation(len(truth))[: len(truth) - balanced]])


def _grouped(truth: Flags) -> list[Rows]:
    numbers = groups(truth)
    return [np.flatnonzero(numbers == number) for number in np.unique(numbers)]
