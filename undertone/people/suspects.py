"""Rows whose labels are worth a person's look, by what models say that haven't learnt from them."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from undertone import tables
from undertone.annotation import noise
from undertone.labels import Flags, LabelSpace, Scores, answered

Order = NDArray[np.int64]  # rows, the most doubtful first; others aren't in it

ERROR, VOTERS, MODELS = "likely error", "voters and model", "model and model"
UNSURE, RARE = "low confidence", "rare label"


def held_out(
    table: pd.DataFrame, scores: pd.DataFrame, folds: pd.DataFrame, space: LabelSpace
) -> pd.DataFrame:
    """`id` and scores of the rows whose label a model hadn't learnt: of validation and test, and of
    every fold's test rows (their mean over the repeats, which then also speaks for validation).
    `scores` never are of training rows; where the table says otherwise, they are left out.
    """
    part = scores["id"].map(table.set_index("id")["part"])
    own = scores[part.isin(["validation", "test"]).to_numpy()]
    labels = list(space.labels)
    if len(folds):
        apart = folds.groupby("id", as_index=False, sort=False)[labels].mean()
        own = pd.concat([apart, own[~own["id"].isin(apart["id"])]], ignore_index=True)
    return own[["id", *labels]].reset_index(drop=True)


def arms(
    table: pd.DataFrame,
    judges: Mapping[str, tuple[LabelSpace, pd.DataFrame]],
    space: LabelSpace,
    rows: int,
    *,
    voters: bool,
) -> dict[str, list[str]]:
    """Why → the ids that are to be looked at for it, `rows` in all where there are as many.

    `judges`: candidates with their spaces and what `held_out` returned; the first is asked for likely
    errors, its own doubts and rare labels. `voters`: the table's labels are theirs. The arms choose in
    turns, each its most doubtful row that none has yet, so a short one leaves its turns to the others.
    """
    ids = [set(one["id"]) for _, one in judges.values()]
    common = table[table["id"].isin(set.intersection(*ids))].reset_index(drop=True)
    said = [
        (own, tables.scores_of(scores, common["id"], own, where=name))
        for name, (own, scores) in judges.items()
    ]
    truth = tables.judged(common, "label", space)
    known = np.asarray(~np.isnan(truth).any(axis=1))
    first, scores = said[0]
    flags = [own.decide(one) for own, one in said]
    orders = {ERROR: _errors(truth > 0.5, known, scores, first)}
    if voters:
        silver = common[[f"silver.{label}" for label in space.labels]].to_numpy(np.float64)
        orders[VOTERS] = _disagreeing(
            [truth > 0.5, flags[0]], [silver, scores], known & answered(scores)
        )
    if len(said) > 1:
        all_answered = np.all([answered(one) for _, one in said], axis=0)
        orders[MODELS] = _disagreeing(flags, [one for _, one in said], all_answered)
    orders[UNSURE] = _ranked(first.confidence(scores), answered(scores))
    orders[RARE] = _rare(flags[0], scores)
    return _in_turns(
        {arm: common["id"].to_numpy(object)[order].tolist() for arm, order in orders.items()}, rows
    )


def suggestions(
    table: pd.DataFrame, judge: tuple[LabelSpace, pd.DataFrame], space: LabelSpace
) -> dict[str, str]:
    """id → the names of the labels that the model suggests, joined by `; `, or of a training row that
    it has learnt from, those that the table has."""
    own, scores = judge
    found: dict[str, str] = {}
    labels = tables.judged(table, "label", space)
    known = np.asarray(table["part"] == "train") & ~np.isnan(labels).any(axis=1)
    of_table = (table["id"].to_numpy(object)[known], labels[known] > 0.5)
    said = scores[list(own.labels)].to_numpy(np.float64)
    for ids, flags in (of_table, (scores["id"].to_numpy(object), own.decide(said))):
        for one, row in zip(ids, flags, strict=True):
            found[one] = "; ".join(name for name, flag in zip(own.names, row, strict=True) if flag)
    return found


def _errors(truth: Flags, known: NDArray[np.bool_], scores: Scores, space: LabelSpace) -> Order:
    wrong, agreement = noise.quality(truth, scores, space)
    return _ranked(agreement, wrong & known)


def _disagreeing(flags: Sequence[Flags], scores: Sequence[Scores], known: NDArray[np.bool_]) -> Order:
    """Rows that are decided differently, by how far the judges' scores lie from their mean (Kullback
    and Leibler's divergence to it; McCallum & Nigam 1998)."""
    differing = np.any([(one != flags[0]).any(axis=1) for one in flags[1:]], axis=0) & known
    stack = np.stack([np.where(known[:, None], one, 0.5) for one in scores]).clip(1e-9, 1)
    stack = np.concatenate([stack, (1 - stack).clip(1e-9)], axis=2)  # a label's absence is said as well
    apart = (stack * np.log(stack / stack.mean(axis=0))).sum(axis=(0, 2))
    return _ranked(-apart, differing)


def _rare(flags: Flags, scores: Scores) -> Order:
    """Rows of the labels that are predicted least often, the rarest label's surest first; those of more
    than an equal share of all are not rare."""
    often = flags.sum(axis=0)
    rare = (often > 0) & (often * flags.shape[1] < flags.any(axis=1).sum())
    of = flags & rare
    rarity = np.where(of, often, np.iinfo(np.int64).max).min(axis=1)
    surest = np.where(of, scores, 0).max(axis=1)
    return np.lexsort((-surest, rarity))[: int(of.any(axis=1).sum())]


def _ranked(doubt: NDArray[np.float64], of: NDArray[np.bool_]) -> Order:
    """The rows `of`, the least value first, in the table's order where equal."""
    rows = np.flatnonzero(of)
    return rows[np.argsort(doubt[rows], kind="stable")]


def _in_turns(orders: Mapping[str, Sequence[str]], rows: int) -> dict[str, list[str]]:
    chosen: dict[str, list[str]] = {arm: [] for arm in orders}
    waiting = {arm: iter(order) for arm, order in orders.items()}
    taken: set[str] = set()
    while waiting:
        for arm in list(waiting):
            if len(taken) >= rows:
                return chosen
            one = next((one for one in waiting[arm] if one not in taken), None)
            if one is None:
                del waiting[arm]
            else:
                taken.add(one)
                chosen[arm].append(one)
    return chosen
