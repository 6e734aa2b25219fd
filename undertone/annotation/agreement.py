"""Agreement between any two annotators, people or models, and among them all.

Cohen's κ (Cohen 1960, "A coefficient of agreement for nominal scales") and Krippendorff's α for
nominal answers, of which some may be missing (Krippendorff 2011, "Computing Krippendorff's
Alpha-Reliability"). Both are functions of counts of answer patterns, as is their bootstrap.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from undertone.annotation.fuse import (
    NONE,
    Numbers,
    Patterns,
    Table,
    Votes,
    agreeing,
    asked,
    check,
    interval,
    resampled,
)
from undertone.labels import LabelSpace

Pairs = Sequence[tuple[int, int]]


def agreement(
    votes: Votes,
    names: Sequence[str],
    space: LabelSpace,
    *,
    groups: Numbers,
    draws: int,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """How far annotators agree, JSON-ready, each figure with its 95 % percentile interval.

    `groups` [n] numbers rows that are drawn together. Returns `n` (name → its answers), `alpha` (over
    all) and `pairs`, each with `between` (two names), `n` (rows that both answered), `raw`, `kappa`,
    `alpha`. Many labels: each label is judged by itself under `labels` (id → the same figures), beside
    their mean over the labels that have one; `raw` stays the share of identical sets.

    A figure is `{"value", "low", "high"}`, null where nothing defines it: no row in common, or for κ
    and α one answer only, which leaves no chance to disagree. `Problem` on votes outside 0/1.
    """
    check(votes, names, space)
    pairs = list(combinations(range(len(names)), 2))
    questions = asked(votes, space)
    sets = _sets(votes) if space.many else questions[0]
    everything = [*questions, sets]
    measures = [_Measure(question, pairs) for question in questions]
    both, same = agreeing(sets.answers, pairs)

    def figures(counts: Sequence[Table]) -> tuple[Table, Table]:
        """Raw [pairs, draws]; and [questions, figures, draws], see `_Measure.of`."""
        raw = _ratio(same @ counts[-1], both @ counts[-1])
        return raw, np.stack(
            [measure.of(one) for measure, one in zip(measures, counts[:-1], strict=True)]
        )

    common = (both @ sets.counts)[:, 0].astype(int)
    raw, values = figures([question.counts for question in everything])
    if len(groups):
        parts = [figures(counts) for counts in resampled(everything, groups, draws, rng)]
        raw_drawn, drawn = (np.concatenate(arrays, axis=-1) for arrays in zip(*parts, strict=True))
    else:
        raw_drawn, drawn = raw, values

    def shown(figure: int) -> dict[str, float | None]:
        return interval(_mean(values[:, figure])[0], _mean(drawn[:, figure]))

    def by_label(**figure: int) -> dict[str, Any]:
        if not space.many:
            return {}
        return {
            "labels": {
                label: {
                    name: interval(values[at, one, 0], drawn[at, one]) for name, one in figure.items()
                }
                for at, label in enumerate(space.labels)
            }
        }

    result: dict[str, Any] = {
        "n": {name: int((~np.isnan(rows[:, 0])).sum()) for name, rows in zip(names, votes, strict=True)},
        "alpha": shown(0),
        **by_label(alpha=0),
        "pairs": [],
    }
    for at, (one, other) in enumerate(pairs):
        kappa, alpha = 1 + at, 1 + len(pairs) + at
        result["pairs"].append(
            {
                "between": [names[one], names[other]],
                "n": int(common[at]),
                "raw": interval(raw[at, 0], raw_drawn[at]),
                "kappa": shown(kappa),
                "alpha": shown(alpha),
                **by_label(kappa=kappa, alpha=alpha),
            }
        )
    return result


def told(found: dict[str, Any]) -> str:
    """α over all and the range of the pairs' κ, of what `agreement` found, for the log."""
    kappas = [pair["kappa"]["value"] for pair in found["pairs"] if pair["kappa"]["value"] is not None]
    alpha = found["alpha"]["value"]
    shown = f"α {'undefined' if alpha is None else f'{alpha:.2f}'} among {len(found['n'])} annotators"
    if not kappas:
        return f"{shown}; no pair has a κ"
    return f"{shown}; κ of {len(kappas)} pairs {min(kappas):.2f} to {max(kappas):.2f}"


class _Measure:
    """The figures of one question, linear in counts of patterns but for a last step."""

    def __init__(self, question: Patterns, pairs: Pairs) -> None:
        answers, self.values = question.answers, question.values
        self.given, self.differing = _coincidences(answers, self.values)
        self.tables = [_cells(answers[[one, other]], self.values) for one, other in pairs]

    def of(self, counts: Table) -> Table:
        """α over all, then each pair's κ, then each pair's α: [1 + 2 × pairs, draws]."""
        kappas, alphas = [], []
        for cells in self.tables:
            table = np.asarray(cells @ counts).reshape(self.values, self.values, -1)
            kappas.append(_kappa(table))
            alphas.append(
                _alpha(
                    table.sum(axis=0) + table.sum(axis=1), 2 * (table.sum(axis=(0, 1)) - _agreed(table))
                )
            )
        return np.stack([_alpha(self.given @ counts, self.differing @ counts), *kappas, *alphas])


def _kappa(table: Table) -> Table:
    """κ [draws] of contingency tables [values, values, draws]."""
    rows = table.sum(axis=(0, 1))
    observed = _ratio(_agreed(table), rows)
    expected = _ratio((table.sum(axis=0) * table.sum(axis=1)).sum(axis=0), rows**2)
    return _ratio(observed - expected, 1 - expected)


def _alpha(given: Table, differing: Table) -> Table:
    """α [draws]: `given` [values, draws] answers in rows with two or more, `differing` [draws] the
    coincidences off the diagonal, of which each row with m answers has m in all."""
    answers = given.sum(axis=0)
    return 1 - _ratio((answers - 1) * differing, answers**2 - (given**2).sum(axis=0))


def _coincidences(answers: Numbers, values: int) -> tuple[Table, Table]:
    """What each pattern adds to `_alpha`: [values, patterns] answers, [patterns] coincidences."""
    given = np.stack([(answers == value).sum(axis=0) for value in range(values)]).astype(np.float64)
    rated = given.sum(axis=0)
    given[:, rated < 2] = 0  # a lone answer can't be compared
    rated = given.sum(axis=0)
    return given, _ratio((given * (rated - given)).sum(axis=0), rated - 1, absent=0.0)


def _cells(answers: Numbers, values: int) -> Any:
    """Two annotators' answers [2, patterns] as a sparse [values², patterns]: the cell of each."""
    both = np.flatnonzero((answers != NONE).all(axis=0))
    cell = answers[0, both] * values + answers[1, both]
    return csr_matrix((np.ones(len(both)), (cell, both)), shape=(values**2, answers.shape[1]))


def _sets(votes: Votes) -> Patterns:
    """Each answer as the number of its set of labels."""
    voters, rows, labels = votes.shape
    silent = np.isnan(votes[:, :, 0])
    sets, numbers = np.unique(np.nan_to_num(votes).reshape(-1, labels), axis=0, return_inverse=True)
    return Patterns.among(np.where(silent, NONE, numbers.reshape(voters, rows)), len(sets))


def _agreed(table: Table) -> Table:
    return np.asarray(np.einsum("kkd->d", table))


def _mean(figures: Table) -> Table:
    """[draws], of [questions, draws]: the mean of those that are defined."""
    known = ~np.isnan(figures)
    return _ratio(np.nan_to_num(figures).sum(axis=0), known.sum(axis=0).astype(np.float64))


def _ratio(part: Table, whole: Table, absent: float = np.nan) -> Table:
    return np.asarray(np.divide(part, whole, out=np.full(part.shape, absent), where=whole > 0))
