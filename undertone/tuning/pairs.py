"""Which rows SetFit learns from, and in which pairs (Tunstall et al. 2022, section 3.1).

Two rows are alike when they share a label: with one label a text, when it is the same; with many, any of
them, as in the library setfit 1.2 (`ContrastiveDataset.generate_multilabel_pairs`). Rows without a label
are like no other.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from undertone.errors import Problem
from undertone.labels import Flags
from undertone.tuning.imbalance import Rows, Weights


@dataclass(frozen=True)
class Pairs:
    """Row numbers [n] and [n], and whether the two are alike [n]."""

    first: Rows
    second: Rows
    alike: NDArray[np.bool_]


def few(truth: Flags, shots: int | None, *, weights: Weights, seed: int) -> tuple[Rows, Weights]:
    """Rows drawn so that each label has `shots` of them, or all it has; all rows without `shots`. And
    what each of them weighs from now on.

    A row of twice the `weights` [n] is drawn with twice the chance (Efraimidis & Spirakis 2006), and
    weighs what those it is drawn from do on average, for its own weight has had its say; one that is
    taken because all of a label are keeps its own.

    In the data's order. Of many labels, the rarest are served first: a row counts for each of its
    labels, so a common one may get more. Rows without a label are drawn as if that were one. `Problem`
    for a label without a row.
    """
    if empty := int((~truth.any(axis=0)).sum()):
        raise Problem(f"{empty} labels have no training row", where="train")
    if shots is None:
        return np.arange(len(truth)), weights
    rng = np.random.default_rng((seed, 0))
    kinds = np.column_stack([truth, ~truth.any(axis=1)])
    taken, kept = np.zeros(len(truth), dtype=bool), weights.copy()
    for kind in np.argsort(kinds.sum(axis=0), kind="stable"):
        left = np.flatnonzero(kinds[:, kind] & ~taken)
        wanted = max(0, shots - int(taken[kinds[:, kind]].sum()))
        if wanted < len(left):
            kept[left] = weights[left].mean()
            left = left[np.argsort(rng.exponential(size=len(left)) / weights[left])][:wanted]
        taken[left] = True
    rows = np.flatnonzero(taken)
    return rows, kept[rows]


def draw(truth: Flags, count: int, *, weights: Weights, seed: int) -> Pairs:
    """`count` pairs, one half alike and one not; each label is in as many of them as the others.

    Drawn and not enumerated, so that memory grows with rows and pairs, never with rows squared. A
    label's rows come first in as many as their share of its `weights` [n] is, up to one; who comes
    second is chance. A label's only row is paired with itself, as in the library: dropout makes
    two of it (Gao et al. 2021). A row that shares a label with every other is left out of the half that
    isn't alike; `Problem` where that leaves none of it.
    """
    rng = np.random.default_rng((seed, 1))
    alike = np.concatenate(
        [_alike(rows, size, weights, rng) for rows, size in _shares(truth, count // 2, rng)]
    )
    firsts = [
        rows[_in_turn(weights[rows], size, rng)]
        for rows, size in _shares(truth, count - count // 2, rng)
    ]
    apart = _apart(truth, np.concatenate(firsts), rng)
    if not len(apart):
        raise Problem(
            "any two training rows share a label, so that there are no pairs of unlike ones",
            where="train",
            remedy="Take another family, such as bert or e5.",
        )
    both = np.concatenate([alike, apart])
    return Pairs(both[:, 0], both[:, 1], np.arange(len(both)) < len(alike))


def _shares(truth: Flags, count: int, rng: np.random.Generator) -> list[tuple[Rows, int]]:
    """Each label's rows, and how many of `count` pairs are of it."""
    labels = np.flatnonzero(truth.any(axis=0))
    sizes = np.full(len(labels), count // len(labels))
    sizes[rng.permutation(len(labels))[: count % len(labels)]] += 1
    return [
        (np.flatnonzero(truth[:, label]), size)
        for label, size in zip(labels, sizes.tolist(), strict=True)
    ]


def _in_turn(weights: Weights, size: int, rng: np.random.Generator) -> Rows:
    """`size` numbers of rows, each as often as its share of the weights, up to one; shuffled (systematic
    sampling, Madow 1949)."""
    order = rng.permutation(len(weights))
    reached = np.cumsum(weights[order])
    steps = (np.arange(size) + rng.random()) * (reached[-1] / max(size, 1))
    found = np.searchsorted(reached, steps, side="right").clip(max=len(weights) - 1)
    return rng.permutation(order[found])


def _alike(rows: Rows, size: int, weights: Weights, rng: np.random.Generator) -> Rows:
    """[size, 2], each of them two of these rows."""
    first = _in_turn(weights[rows], size, rng)
    further = rng.integers(1, max(2, len(rows)), size)
    return rows[np.column_stack([first, (first + further) % len(rows)])]


def _apart(truth: Flags, firsts: Rows, rng: np.random.Generator) -> Rows:
    """[n, 2], each of `firsts` with a row that has none of its labels, where there is one."""
    seconds = np.full(len(firsts), -1)
    patterns, which = np.unique(truth[firsts], axis=0, return_inverse=True)
    for number, pattern in enumerate(patterns):
        others = np.flatnonzero(~truth[:, pattern].any(axis=1))
        wanted = np.flatnonzero(which.ravel() == number)
        if len(others):
            seconds[wanted] = rng.choice(others, len(wanted))
    return np.column_stack([firsts, seconds])[seconds >= 0]
