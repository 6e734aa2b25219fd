"""Labels with too few rows to learn and to judge: refused, dropped or merged, and always told."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from undertone import params, tables
from undertone.corpus.split import synthetic
from undertone.errors import Problem
from undertone.labels import LabelSpace

PREFIXES = ("label", "gold", "silver")


@dataclass(frozen=True)
class Settled:
    """A table in the labels that are left. `rare`: a label that isn't left → its rows; `into`: the label
    they joined, none where they were dropped; `dropped`: reason → rows, for the ledger."""

    table: pd.DataFrame
    space: LabelSpace
    rare: dict[str, int]
    into: str | None
    dropped: dict[str, int]

    def told(self) -> str:
        """What the log says of it, empty where every label had rows enough."""
        if not self.rare:
            return ""
        names = ", ".join(f"'{label}' ({count:,})" for label, count in self.rare.items())
        what = f"merged into '{self.into}'" if self.into else "dropped"
        return f"; too rare and {what}: {names}"


def settled(table: pd.DataFrame, space: LabelSpace, settings: params.Split) -> Settled:
    """What `split.rare` makes of labels with fewer than `split.min_support` rows, synthetic ones aside.

    With `drop` and one label a text its rows go; with many only its column does. With `merge` its rows
    have the label `split.merge_into` instead. Gold and silver follow: a row whose gold label is gone has
    no gold; merged scores add up where labels exclude each other, otherwise the highest counts.
    `Problem` with `refuse`, and where too few labels are left.
    """
    marks = tables.judged(table, "label", space)
    counts = np.nan_to_num(marks[~synthetic(table)]).sum(axis=0).astype(int)
    few = counts < settings.min_support
    if not few.any():
        return Settled(table, space, {}, None, {})
    rare = {space.labels[at]: int(counts[at]) for at in np.flatnonzero(few)}
    if settings.rare == "refuse":
        raise Problem(
            f"fewer than {settings.min_support} labelled rows: "
            + ", ".join(f"'{label}' {count}" for label, count in rare.items()),
            where="split",
            remedy=f"Merge or drop {'it' if len(rare) == 1 else 'them'} in codebook {space.codebook} or "
            "by split.rare, or lower split.min_support.",
        )
    if settings.rare == "drop":
        return _dropped(table, space, rare, settings)
    return _merged(table, space, rare, settings)


def _dropped(
    table: pd.DataFrame, space: LabelSpace, rare: dict[str, int], settings: params.Split
) -> Settled:
    kept = [at for at, label in enumerate(space.labels) if label not in rare]
    if len(kept) < 2:
        raise Problem(
            f"{len(kept)} of {len(space.labels)} labels have {settings.min_support} labelled rows",
            where="split",
            remedy="Label more rows, or lower split.min_support.",
        )
    left = _over(space, kept)
    result = table
    for prefix in PREFIXES:
        values = _values(table, prefix, space)
        if values is None:
            continue
        own = values[:, kept]
        # what was said of one label alone says nothing any more when the label is gone
        if not space.many and prefix != "silver":
            own[(own == 0).all(axis=1)] = np.nan
        result = _with(result, prefix, space, own, left)
    if space.many:
        return Settled(result, left, rare, None, {})
    marks = tables.judged(table, "label", space)
    reasons = {f"its label '{label}' is too rare": _is(marks, space, label) for label in rare}
    gone = np.any(list(reasons.values()), axis=0)
    dropped = {why: int(rows.sum()) for why, rows in reasons.items() if rows.any()}
    return Settled(result[~gone].reset_index(drop=True), left, rare, None, dropped)


def _merged(
    table: pd.DataFrame, space: LabelSpace, rare: dict[str, int], settings: params.Split
) -> Settled:
    into = settings.merge_into
    gone = {label: count for label, count in rare.items() if label != into}
    left = _over(space, [at for at, label in enumerate(space.labels) if label not in gone])
    if into not in left.labels:
        left = replace(
            left,
            labels=(*left.labels, into),
            names=(*left.names, into),
            thresholds=(*left.thresholds, 0.5),
        )
    joined = [at for at, label in enumerate(space.labels) if label in gone or label == into]
    result = table
    for prefix in PREFIXES:
        values = _values(table, prefix, space)
        if values is None:
            continue
        parts = values[:, joined]
        one = parts.max(axis=1) if space.many else parts.sum(axis=1).clip(None, 1)
        own = np.column_stack(
            [one if label == into else values[:, space.labels.index(label)] for label in left.labels]
        )
        result = _with(result, prefix, space, own, left)
    marks = tables.judged(result, "label", left)[~synthetic(result), left.labels.index(into)]
    count = int(np.nansum(marks))
    if count < settings.min_support or len(left.labels) < 2:
        raise Problem(
            f"merged, the rare labels are {count} of the labelled rows as '{into}', beside "
            f"{len(left.labels) - 1} other labels",
            where="split",
            remedy=f"Set split.merge_into to a label with at least {settings.min_support} rows, "
            "or lower split.min_support.",
        )
    return Settled(result, left, gone, into, {})


def _over(space: LabelSpace, kept: list[int]) -> LabelSpace:
    return replace(
        space,
        labels=tuple(space.labels[at] for at in kept),
        names=tuple(space.names[at] for at in kept),
        thresholds=tuple(space.thresholds[at] for at in kept),
    )


def _values(table: pd.DataFrame, prefix: str, space: LabelSpace) -> NDArray[np.float64] | None:
    columns = [f"{prefix}.{label}" for label in space.labels]
    if not set(columns) <= set(table.columns):
        return None
    return table[columns].to_numpy(dtype=np.float64, na_value=np.nan)


def _with(
    table: pd.DataFrame,
    prefix: str,
    before: LabelSpace,
    values: NDArray[np.float64],
    after: LabelSpace,
) -> pd.DataFrame:
    without = table.drop(columns=[f"{prefix}.{label}" for label in before.labels])
    columns = [f"{prefix}.{label}" for label in after.labels]
    return pd.concat([without, pd.DataFrame(values, columns=columns, index=table.index)], axis=1)


def _is(marks: NDArray[np.float64], space: LabelSpace, label: str) -> NDArray[np.bool_]:
    return np.asarray(marks[:, space.labels.index(label)] == 1)
