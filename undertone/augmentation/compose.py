"""What a candidate learns from: the split's rows and those that its mix adds, each with its weight.

Rows that are added stand in the training part alone. None was made from a row of validation or test, and
none repeats one, or is as alike to one as repeats are.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from undertone import params, tables
from undertone.annotation import noise
from undertone.corpus import held, split
from undertone.errors import Problem
from undertone.labels import LabelSpace, Scores

GOLD, SILVER, TABLE, GENERATED, PSEUDO = ORIGINS = ("gold", "silver", "table", "generated", "pseudo")
NEEDS = ("id", "text", "group", "repeat", "part", "weight", "origin", "parent")


def compose(
    rows: pd.DataFrame,
    space: LabelSpace,
    mix: params.Mix,
    alike: params.Clean,
    *,
    added: Mapping[str, pd.DataFrame],
) -> pd.DataFrame:
    """A split's `rows` with `weight`, `origin` and `parent` (empty where there is none), and behind them
    those `added`: origin → `id`, `text`, `label.<label>`, and where they have them `group`, `repeat` and
    `parent`.

    Training rows that people labelled have their label, if gold weighs anything; what weighs nothing is
    gone. Validation and test are as they were, and weigh 1. `Problem` where nothing is left to learn
    from, and where an added row was made from, or repeats, one that isn't a training row.
    """
    labels = [f"label.{label}" for label in space.labels]
    voted = f"silver.{space.labels[0]}" in rows
    learnt = (rows["part"] == "train").to_numpy()
    by_hand = tables.judged(rows, "gold", space)
    known = learnt & ~np.isnan(by_hand).any(axis=1) & (mix.gold > 0)
    kept = ["id", "text", "group", "repeat", "part", *labels, *tables.folds(rows)]
    real = rows[kept].reset_index(drop=True)
    real.loc[known, labels] = by_hand[known]
    origin = np.where(known, GOLD, SILVER if voted else TABLE).astype(object)
    real["weight"] = np.where(learnt, _weights(origin, mix), 1.0)
    real["origin"] = origin
    real["parent"] = split.named(rows).to_numpy()
    more = [
        _more(table, name, rows, space, alike).assign(weight=float(getattr(mix, name)))
        for name, table in added.items()
        if getattr(mix, name) and len(table)
    ]
    composed = pd.concat([real[real["weight"] > 0], *more], ignore_index=True)[real.columns]
    composed = composed.fillna({"group": "", **dict.fromkeys(tables.folds(rows), "")})
    # what is added repeats nothing that counts as a row of the study
    alone = composed["repeat"].isna().to_numpy()
    composed.loc[alone, "repeat"] = rows["repeat"].max() + 1 + np.arange(alone.sum())
    composed["repeat"] = composed["repeat"].astype(np.int64)
    if not (composed["part"] == "train").any():
        given = " and ".join(sorted(set(origin[learnt])))
        raise Problem(
            f"no row is left to learn from: those of the training part are {given}",
            where="compose",
            remedy="Give them a weight in the candidate's mix.",
        )
    return composed


def outside(
    people: pd.DataFrame,
    rows: pd.DataFrame,
    comments: pd.DataFrame,
    space: LabelSpace,
    settings: params.Split,
    alike: params.Clean,
) -> pd.DataFrame:
    """Of the rows that `people` labelled those that the split's `rows` lack, for nobody else labelled
    them (a search found them, or they came out of the pool), and that may be learnt from, see
    `held.free`; in time order none of after the training part. `label.<label>` is people's.

    `comments`: all that were cleaned.
    """
    flags = tables.judged(people, "gold", space)
    one = ~np.isnan(flags).any(axis=1) & (space.many | (flags.sum(axis=1) == 1))
    new = one & ~people["id"].isin(rows["id"]).to_numpy()
    if new.any():
        free = held.free(comments, rows, alike)
        if settings.order == "time":
            free &= ~split.late(comments, rows)
        new &= people["id"].isin(comments.loc[free, "id"]).to_numpy()
    labels = {f"label.{label}": flags[new, at] for at, label in enumerate(space.labels)}
    found = people.iloc[np.flatnonzero(new)][["id", "text", "group", "repeat"]]
    return found.assign(**labels)


def doubted(table: pd.DataFrame, space: LabelSpace, scores: Scores, how: noise.Remedy) -> pd.DataFrame:
    """What `compose` returned, the weights of training rows times what `noise.cleaned` says of them by
    out-of-fold `scores` [training rows, labels]; people's labels weigh as before, what weighs 0 is
    gone."""
    train = (table["part"] == "train").to_numpy()
    factor = np.ones(len(table))
    truth = tables.judged(table[train], "label", space) > 0.5
    factor[train] = noise.cleaned(truth, scores, space, how)
    factor[(table["origin"] == GOLD).to_numpy()] = 1.0
    weighed = table.assign(weight=table["weight"] * factor)
    return weighed[weighed["weight"] > 0].reset_index(drop=True)


def told(table: pd.DataFrame) -> dict[str, Any]:
    """Of what `compose` returned: origin → its training rows, and their weight all together."""
    train = table[table["part"] == "train"]
    weights = {name: train.loc[train["origin"] == name, "weight"] for name in ORIGINS}
    return {
        name: {"rows": len(own), "weight": round(float(own.sum()), 6)}
        for name, own in weights.items()
        if len(own)
    }


def _weights(origin: NDArray[np.object_], mix: params.Mix) -> NDArray[np.float64]:
    return np.array([getattr(mix, name) for name in origin], dtype=np.float64)


def _more(
    table: pd.DataFrame, origin: str, rows: pd.DataFrame, space: LabelSpace, alike: params.Clean
) -> pd.DataFrame:
    """The rows of one origin as `compose` adds them, checked."""
    labels = [f"label.{label}" for label in space.labels]
    tables.checked(table, ("id", "text", *labels), where=f"{origin} rows")
    known = [column for column in ("group", "repeat") if column in table]
    more = table[["id", "text", *known, *labels]].assign(
        part="train", origin=origin, parent=split.named(table)
    )
    flags = tables.judged(more, "label", space)
    faults = {
        "have an id that the split has": more["id"].isin(rows["id"]).to_numpy(),
        "have no label of the codebook, or not one alone": (
            ~np.isin(flags, (0, 1)).all(axis=1) | (~np.array(space.many) & (flags.sum(axis=1) != 1))
        ),
        "were made from a row that is no training row": _orphaned(more, rows),
        "repeat a row of validation or test": held.repeated(
            more["text"], rows.loc[rows["part"].isin(held.HELD), "text"], alike
        ),
    }
    problems = [
        Problem(f"{int(wrong.sum())} of {len(more)} rows {what}", where=f"{origin} rows")
        for what, wrong in faults.items()
        if wrong.any()
    ]
    if problems:
        raise Problem.together(problems)
    return more


def _orphaned(more: pd.DataFrame, rows: pd.DataFrame) -> NDArray[np.bool_]:
    """Which of `more` name a parent that, or whose own, is not among the split's training rows."""
    if more["id"].isin(rows["id"]).any():
        return np.zeros(len(more), dtype=bool)  # nobody can say whose parent is meant
    both = pd.concat([rows[["id"]].assign(parent=split.named(rows)), more[["id", "parent"]]])
    train = np.concatenate([(rows["part"] == "train").to_numpy(), np.ones(len(more), dtype=bool)])
    return split.orphans(both.reset_index(drop=True), train)[len(rows) :]
