"""How much of a corpus is X: a classifier's counts, corrected by rows that people labelled.

Prediction-powered inference for means (Angelopoulos, Bates, Fannjiang, Jordan & Zrnic 2023, Science 382)
with power tuning (PPI++; Angelopoulos, Duchi & Zrnic 2023): the scores' mean over the corpus, times a
power in 0..1, plus what hand-labelled rows say is wrong with it. The power has the least variance, so a
useless classifier gets none, and what is left are the hand-labelled rows alone. It is the difference
estimator of survey sampling (Särndal, Swensson & Wretman 1992), and as there a row drawn with an
inclusion probability weighs its inverse (Hájek 1971), and variances come from the totals of groups
(authors), so that comments of one author aren't taken for independent ones.

Intervals are Wilson's (1927) with the number of hand-labelled rows that would give the same variance,
as surveys do for rare shares (Korn & Graubard 1998; Franco, Little, Louis & Slud 2019), and with
Student's t. Where a class is rare, the sample may hold no error of the classifier at all, and the
variance would be taken for almost 0: so half an error is added, as Haldane (1956) adds to rare counts.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.special import ndtri, stdtrit

from undertone import params, tables
from undertone.corpus import split
from undertone.errors import Problem
from undertone.labels import LabelSpace, Scores, answered
from undertone.measures import metrics

Numbers = NDArray[np.float64]
Places = NDArray[np.int64]

UNSEEN = 0.5  # errors of the classifier that are taken to be in the sample beside those seen
UNLIKELY = 4.0  # standard errors between hand-labelled rows and corpus that no random draw explains


class Unfit(Problem):
    """The hand-labelled rows can't stand for the corpus."""


@dataclass(frozen=True)
class Corpus:
    """The rows of a table that speak for the corpus.

    `rows` [n] are places in the table, `gold` [n, labels] 0 and 1 or NaN where nobody labelled by hand,
    `weights` [n] how many rows of the corpus each stands for.
    """

    rows: Places
    gold: Numbers
    weights: Numbers


@dataclass(frozen=True)
class Pilot:
    """What a plan needs to know of a label.

    `share` 0..1; `spread`: the variance of a hand-labelled row's label; `residual`: the same after what
    its score explains (both times the design effect, if authors or weights have one); `rows`: of the
    corpus that is, or will be, scored.
    """

    share: float
    spread: float
    residual: float
    rows: int

    @classmethod
    def assumed(cls, share: float, f1: float, rows: int) -> "Pilot":
        """Without a pilot: a share and the classifier's F1 on the label, precision equal to recall."""
        if not (0 < share < 1 and 0 <= f1 <= 1 and rows >= 1):
            raise Problem(
                f"a share of {share}, an F1 of {f1} and {rows} rows",
                where="plan",
                remedy="A share is above 0 and below 1, an F1 0 to 1, a corpus has rows.",
            )
        correlation = max(0.0, (f1 - share) / (1 - share))
        spread = share * (1 - share)
        return cls(share, spread, spread * (1 - correlation**2), rows)


def corpus(
    table: pd.DataFrame,
    parts: pd.DataFrame,
    space: LabelSpace,
    learnt: LabelSpace,
    settings: params.Split,
    *,
    taught: Collection[str],
) -> Corpus:
    """Which rows of a cleaned table, in the labels of `space`, count, and for how many; `parts` names
    the part of the rows that were split, `learnt` holds the labels that `settings.rare` left.

    Hand-labelled rows must be drawn from the corpus without regard to what the model has learnt. Where
    voters' labels alone taught it, they are, in the training part too: there its scores are over-fitted
    for rows with and without a hand label alike, and none of these had a say. In the parts where
    people's own labels `taught` it they are not: train, and validation, which chose thresholds, if its
    labels are people's, too. The labelled rows of those parts are left out, and the others stand for
    them. `Unfit` where they can't, and where that leaves no hand-labelled row. Synthetic rows never
    count.
    """
    gold = _left(tables.judged(table, "gold", space), space, learnt, settings)
    weights = np.where(split.synthetic(table), 0.0, 1.0)
    if taught:
        if settings.order == "time":
            raise Unfit(
                "the test part holds the latest rows, which can't stand for all that people labelled",
                where="prevalence",
                remedy="Set split.order to random, or where voters gave the labels the mix's gold to 0.",
            )
        labels = _left(tables.judged(table, "label", space), space, learnt, settings)
        part = table["id"].map(parts.set_index("id")["part"])
        own = ~np.isnan(labels).any(axis=1) & (learnt.many | (labels > 0).any(axis=1))
        known = (own | part.notna().to_numpy()) & (weights > 0)
        others = known & part.isin(set(tables.PARTS) - set(taught)).to_numpy()
        weights[known] = np.where(others[known], known.sum() / max(others.sum(), 1), 0)
    rows = np.flatnonzero(weights > 0)
    by_hand = int((~np.isnan(gold).any(axis=1)).sum())
    if np.isnan(gold[rows]).any(axis=1).all():
        raise Unfit(
            f"none of {by_hand} hand-labelled rows is in the test part or outside the split, and the "
            "others taught the model"
            if by_hand
            else "no row is labelled by hand",
            where="prevalence",
            remedy="Label rows by hand that were drawn at random from the test part.",
        )
    return Corpus(rows, gold[rows], weights[rows])


def probabilities(table: pd.DataFrame, column: str) -> Numbers:
    """The probabilities in a `meta` column [n], NaN where it holds no number; `Problem` without it."""
    if f"meta.{column}" not in table:
        raise Problem(
            f"no column '{column}', which prevalence.inclusion names",
            where="prevalence",
            remedy=f"Add {column} to ingest's `meta`.",
        )
    values = pd.to_numeric(table[f"meta.{column}"], errors="coerce")
    return np.asarray(values.to_numpy(dtype=np.float64, na_value=np.nan))


def prevalence(
    scores: Scores,
    gold: Numbers,
    space: LabelSpace,
    *,
    groups: Places | None = None,
    weights: Numbers | None = None,
    inclusion: Numbers | None = None,
) -> dict[str, Any]:
    """Each label's share of the corpus, JSON-ready; `Unfit` on fewer than two groups labelled by hand.

    `scores`, `gold` [n, labels]: of all rows of the corpus; gold is 0 or 1, NaN in rows that nobody
    labelled by hand; a row without a valid answer counts as one without any label, and is corrected as
    such. `groups` [n] numbers rows that aren't independent, without it all are. `weights` [n]: rows of
    the corpus that each stands for. `inclusion` [n]: the probability of being labelled by hand, without
    it the same for all; read in hand-labelled rows alone.

    Returns `rows`, `n` and `groups` (labelled by hand) and `labels`: id → `naive` (the share of
    decisions), `corrected` and `by_hand` (value and 95 % interval), `adjusted_counts` (Forman 2008) and
    `adjusted_scores` (Bella et al. 2010), null where the sample can't tell, `power` (0: the classifier
    is of no use, 1: as plain PPI), `worth` (hand-labelled rows that would give the same interval alone),
    `n` (rows of the label by hand), `balance` (how many standard errors the scores of hand-labelled rows
    lie above the corpus's) and `pilot`, see `Pilot`.

    An interval is of comments such as these; for the corpus itself it is wide enough, and too wide
    where a good part of it is labelled by hand.
    """
    space.check(scores)
    known = np.asarray(~np.isnan(gold).any(axis=1))
    group = np.arange(len(scores)) if groups is None else np.unique(groups, return_inverse=True)[1]
    count = len(np.unique(group[known]))
    if count < 2:
        raise Unfit(
            f"{count} authors' comments are labelled by hand, which gives no interval",
            where="prevalence",
            remedy="Label more rows by hand.",
        )
    own = _shares(np.ones(len(scores)) if weights is None else weights)
    drawn = _shares(np.where(known, own / _checked(inclusion, known), 0))
    decided = space.decide(scores)
    found = np.where(answered(scores)[:, None], scores, 0.0)
    truth = np.where(known[:, None], gold, 0.0)

    mean, of_drawn, share = own @ found, drawn @ found, drawn @ truth
    told = drawn[:, None] * (truth - share)
    scored = drawn[:, None] * (found - of_drawn)
    a, b, c = _totals(own[:, None] * (found - mean) - scored, told, scored, group=group)
    small = count / (count - 1)
    size = 1 / float((_totals(drawn[:, None], group=group)[0] ** 2).sum())  # Kish 1965
    spread = share * (1 - share)
    seen = spread > 0  # in some hand-labelled rows, not in all

    variance_by_hand = small * (b * b).sum(axis=0)
    unseen = UNSEEN / size**2 * _ratio(own @ (found - mean) ** 2, spread)
    power = np.clip(_ratio(-(a * b).sum(axis=0), (a * a).sum(axis=0) + unseen), 0, 1)
    variance = small * ((b + power * a) ** 2).sum(axis=0) + power**2 * unseen
    residual = small * ((b - power * c) ** 2).sum(axis=0)
    corrected = np.clip(share + power * (mean - of_drawn), 0, 1)

    rows_by_hand = np.where(seen, _ratio(spread, variance_by_hand), size)
    worth = np.maximum(rows_by_hand, _ratio(corrected * (1 - corrected), variance))
    student = float(stdtrit(count - 1, 0.975))
    n = int(known.sum())
    figures = {
        "corrected": (corrected, *_wilson(corrected, worth, student)),
        "by_hand": (share, *_wilson(share, rows_by_hand, student)),
    }
    compared = {
        "adjusted_counts": _adjusted(decided.astype(np.float64), truth, own, drawn),
        "adjusted_scores": _adjusted(found, truth, own, drawn),
    }
    naive, balance = own @ decided, _ratio(of_drawn - mean, np.sqrt((a * a).sum(axis=0)))
    return {
        "rows": len(scores),
        "n": n,
        "groups": count,
        "labels": {
            label: {
                "naive": _rounded(naive[at]),
                **{
                    name: {
                        key: _rounded(one[at])
                        for key, one in zip(("value", "low", "high"), ends, strict=True)
                    }
                    for name, ends in figures.items()
                },
                **{
                    name: None if np.isnan(one[at]) else _rounded(one[at])
                    for name, one in compared.items()
                },
                "power": _rounded(power[at]),
                "worth": int(worth[at]),
                "n": int(truth[:, at].sum()),
                "balance": round(float(balance[at]), 2),
                "pilot": {
                    "share": _rounded(corrected[at]),
                    "spread": _rounded(n * variance_by_hand[at]),
                    "residual": _rounded(n * residual[at]),
                },
            }
            for at, label in enumerate(space.labels)
        },
    }


def pilots(found: Mapping[str, Any]) -> dict[str, Pilot]:
    """What `prevalence` found, as what a plan needs; labels without a hand-labelled row are left out."""
    return {
        label: Pilot(**one["pilot"], rows=found["rows"])
        for label, one in found["labels"].items()
        if 0 < one["pilot"]["share"] < 1 and one["pilot"]["spread"] > 0
    }


def rows_needed(width: float, pilot: Pilot) -> dict[str, int | None]:
    """`by_hand` and `corrected`: rows to label by hand, drawn at random, for a 95 % interval of `width`
    (from its low to its high end) from them alone, and with the classifier's help.

    None where all rows of the corpus wouldn't do.
    """
    if not 0 < width < 1:
        raise Problem(f"an interval {width} wide", where="plan", remedy="Choose one between 0 and 1.")
    z, binomial = float(ndtri(0.975)), pilot.share * (1 - pilot.share)
    # Wilson's width solved for n: width² (n + z²)² = 4 z² (n p (1 - p) + z² / 4)
    half = z**2 * (1 - 2 * binomial / width**2)
    rows = -half + sqrt(max(0.0, half**2 - z**4 * (1 - 1 / width**2)))
    variance = binomial / max(rows, 1.0)
    by_hand = ceil(pilot.spread / variance)
    # residual / n + (spread - residual) / rows + unseen / n² = variance, solved for 1 / n
    left = variance - (pilot.spread - pilot.residual) / pilot.rows
    unseen = UNSEEN * max(0.0, 1 - pilot.residual / pilot.spread)
    corrected = by_hand
    if left > 0:
        root = pilot.residual + sqrt(pilot.residual**2 + 4 * unseen * left)
        corrected = min(by_hand, ceil(root / (2 * left)))
    return {
        name: count if count <= pilot.rows else None
        for name, count in (("by_hand", by_hand), ("corrected", corrected))
    }


def table(found: Mapping[str, Any]) -> str:
    """What `prevalence` found as a Markdown table, a line a label."""
    lines = [
        (
            label,
            f"{one['naive']:.3f}",
            metrics.told(one["corrected"]),
            metrics.told(one["by_hand"]),
            "" if one["adjusted_counts"] is None else f"{one['adjusted_counts']:.3f}",
            f"{one['n']:,} of {found['n']:,}",
        )
        for label, one in found["labels"].items()
    ]
    return _lines(
        ("label", "naïve", "corrected", "by hand alone", "adjusted counts", "n by hand"), lines
    )


def plan(width: float, known: Mapping[str, Pilot]) -> str:
    """For each label the rows to label by hand, as a Markdown table."""
    lines = []
    for label, pilot in known.items():
        needed = rows_needed(width, pilot)
        least = f"more than the {pilot.rows:,} there are"
        told = (least if one is None else f"{one:,}" for one in needed.values())
        lines.append((label, f"{pilot.share:.3f}", *told))
    return _lines(("label", "share", "rows by hand alone", "rows with the classifier"), lines)


def told(found: Mapping[str, Any]) -> str:
    """One line for the log; it says where hand-labelled rows can't be a random draw of the corpus."""
    shown = [
        f"{label} {one['naive']:.3f} → {metrics.told(one['corrected'])}"
        for label, one in found["labels"].items()
    ]
    far = [label for label, one in found["labels"].items() if abs(one["balance"]) > UNLIKELY]
    doubt = f"; not a random draw by the scores of {', '.join(far)}" if far else ""
    return f"{found['rows']:,} rows, {found['n']:,} by hand: {', '.join(shown)}{doubt}"


def _left(marks: Numbers, space: LabelSpace, learnt: LabelSpace, settings: params.Split) -> Numbers:
    """`marks` in the labels learnt: a rare label counts as what it was merged into, or as none of them;
    its rows are no less a part of the corpus."""
    gone = [at for at, label in enumerate(space.labels) if label not in learnt.labels]
    into = settings.merge_into if settings.rare == "merge" else None
    of = [
        [at for at, known in enumerate(space.labels) if known == label] + (gone if label == into else [])
        for label in learnt.labels
    ]
    return np.column_stack([marks[:, columns].max(axis=1) for columns in of])


def _totals(*values: Numbers, group: Places) -> list[Numbers]:
    """The sums over each group, [groups, labels], of each of `values` [n, labels]."""
    rows = len(group)
    sums = csr_matrix((np.ones(rows), (group, np.arange(rows))), shape=(int(group.max()) + 1, rows))
    return [np.asarray(sums @ one) for one in values]


def _adjusted(found: Numbers, truth: Numbers, own: Numbers, drawn: Numbers) -> Numbers:
    """The share at which what is `found` would have the mean that it has, given its means where a label
    is true and where not; NaN where these aren't known or don't differ in the right way."""
    hits = _ratio(drawn @ (found * truth), drawn @ truth, np.nan)
    false = _ratio(drawn @ (found * (1 - truth)), drawn @ (1 - truth), np.nan)
    apart = np.where(hits > false, hits - false, np.nan)
    adjusted: Numbers = np.clip((own @ found - false) / apart, 0, 1)
    return adjusted


def _wilson(share: Numbers, rows: Numbers, student: float) -> tuple[Numbers, Numbers]:
    square = student**2 / rows
    middle = (share + square / 2) / (1 + square)
    half = np.sqrt(square * (share * (1 - share) + square / 4)) / (1 + square)
    return np.clip(middle - half, 0, 1), np.clip(middle + half, 0, 1)


def _checked(inclusion: Numbers | None, known: NDArray[np.bool_]) -> Numbers:
    if inclusion is None:
        return np.ones(len(known))
    wrong = int((known & ~((inclusion > 0) & (inclusion <= 1))).sum())  # also counts NaN
    if wrong:
        raise Problem(
            f"{wrong} of {int(known.sum())} hand-labelled rows have no inclusion probability",
            where="prevalence",
            remedy="Give each the probability with which it was drawn, above 0 and up to 1.",
        )
    return np.where(known, inclusion, 1.0)


def _shares(weights: Numbers) -> Numbers:
    return np.asarray(weights / weights.sum(), dtype=np.float64)


def _ratio(part: Numbers, whole: Numbers, without: float = 0.0) -> Numbers:
    return np.asarray(np.divide(part, whole, out=np.full(np.shape(part), without), where=whole > 0))


def _lines(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *lines])


def _rounded(value: Any) -> float:
    return round(float(value), 6)
