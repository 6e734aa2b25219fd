"""Train, validation and test: no author and no near-repeat on two sides.

Iterative stratification (Sechidis, Tsoumakas & Vlahavas 2011) over whole units of rows instead of
single rows; one label a text is the case of label sets of size one.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from undertone import params, tables
from undertone.errors import Problem
from undertone.labels import LabelSpace
from undertone.ledger import Ledger
from undertone.repeats import numbered
from undertone.text import same_name

Numbers = NDArray[np.int64]
Counts = NDArray[np.int64]  # [n, labels], or one more column for rows without any of the labels

NEEDS = ("id", "text", "group", "part", "repeat")
UNLABELLED = "unlabelled"
REPEATS_TEST = "repeats a test row"
REPEATS_VALIDATION = "repeats a validation row"
BEYOND = "beyond split.train_rows"


def split(table: pd.DataFrame, space: LabelSpace, settings: params.Split) -> tuple[pd.DataFrame, Ledger]:
    """The labelled rows of a cleaned table, in its order, with `part` train, validation or test.

    An official split stays, but for rows that repeat one of a later part; a part that it lacks is
    taken from its training rows. `Problem` where a label has too few rows or a part can't be made.
    The order of the rows decides nothing.
    """
    tables.checked(table, NEEDS, where="split")
    order = np.argsort(table["id"].to_numpy(dtype=str), kind="stable")
    rows = table.iloc[order].reset_index(drop=True)
    marks = tables.judged(rows, "label", space)
    labelled = np.asarray(~np.isnan(marks).any(axis=1))
    flags = np.where(labelled[:, None], marks, 0).astype(np.int64)
    _check_support(flags[labelled], space, settings)

    rng = np.random.default_rng(settings.seed)
    repeat = rows["repeat"].to_numpy(dtype=np.int64)
    fate = _without_repeats(_official(rows, labelled), repeat)  # a part, or why there is none
    shares = {"validation": settings.validation, "test": settings.test}
    missing = {name: share for name, share in shares.items() if not (fate == name).any()}
    taken = np.flatnonzero(fate == "train")
    if missing and len(taken):
        wanted = {"train": 1 - settings.validation - settings.test, **missing}
        total = sum(wanted.values())
        share = {name: share / total for name, share in wanted.items()}
        unit = _fitting(rows.iloc[taken], min(share.values()))
        side = _assigned(unit, flags[taken], share, space, rng)
        fate[taken] = np.array(list(share), dtype=object)[side]
        fate = _without_repeats(fate, repeat)
    if settings.train_rows is not None:
        train = np.flatnonzero(fate == "train")
        fate[np.delete(train, _stratified(flags[train], settings.train_rows, rng))] = BEYOND
    _check_parts(fate, flags, units(rows), space, settings)

    part = fate[np.argsort(order)]
    result = table.assign(part=part)[np.isin(part, tables.PARTS)].reset_index(drop=True)
    reasons = (UNLABELLED, REPEATS_TEST, REPEATS_VALIDATION, BEYOND)
    dropped = {why: int((part == why).sum()) for why in reasons if (part == why).any()}
    return result, Ledger("split", len(table), len(result), dropped)


def units(table: pd.DataFrame, *, across_authors: bool = True) -> Numbers:
    """A number for each row: the same for rows that an author or a repeat ties together.

    With `across_authors` false a repeat ties only rows whose author nobody knows.
    """
    length = len(table)
    repeats = pd.factorize(table["repeat"])[0]
    names = table["group"].fillna("").map(same_name)
    authors = pd.factorize(names.replace("", None))[0]  # -1: unknown
    written = np.flatnonzero(authors >= 0)
    repeated = np.arange(length) if across_authors else np.flatnonzero(authors < 0)
    rows = np.concatenate([repeated, written])
    knots = length + np.concatenate([repeats[repeated], length + authors[written]])
    graph = coo_matrix(
        (np.ones(len(rows), dtype=np.int8), (rows, knots)), shape=(3 * length, 3 * length)
    )
    return numbered(connected_components(graph, directed=False)[1][:length].astype(np.int64))


def certificate(table: pd.DataFrame, space: LabelSpace, settings: params.Split) -> dict[str, object]:
    """What the split promises, counted again on its result; no text, and JSON as it is.

    `shared_groups` can be above 0 in an official split only. `test_digest` is the sha256 of the
    test part's ids and texts, whatever their order.
    """
    tables.checked(table, NEEDS, where="split")
    part = table["part"].to_numpy(dtype=str)
    flags = tables.judged(table, "label", space)
    sizes = np.bincount(units(table))
    return {
        "rows": {name: int((part == name).sum()) for name in tables.PARTS},
        "labels": {
            name: dict(
                zip(space.labels, flags[part == name].sum(axis=0).astype(int).tolist(), strict=True)
            )
            for name in tables.PARTS
        },
        "units": len(sizes),
        "largest_unit": int(sizes.max(initial=0)),
        "shared_groups": _shared(table["group"].replace("", None), part),
        "shared_repeats": _shared(table["repeat"], part),
        "seed": settings.seed,
        "test_digest": _digest(table[part == "test"]),
    }


def told(table: pd.DataFrame, space: LabelSpace) -> str:
    """The sizes of the parts and the rarest label's share in each, for the log."""
    parts = [table[table["part"] == name] for name in tables.PARTS]
    counts = np.array([tables.judged(part, "label", space).sum(axis=0) for part in parts]).astype(int)
    rarest = int(counts.sum(axis=0).argmin())
    sizes = " / ".join(f"{len(part):,}" for part in parts)
    shares = " / ".join(f"{count:,}" for count in counts[:, rarest])
    return f"{sizes}; rarest label '{space.labels[rarest]}' {shares}"


def _official(rows: pd.DataFrame, labelled: NDArray[np.bool_]) -> NDArray[np.object_]:
    """The part that each labelled row comes with; all train where the table names none."""
    part = rows["part"].fillna("").to_numpy(dtype=object, copy=True)
    named = part[labelled] != ""
    if not named.any():
        part[:] = "train"
    elif not named.all():
        raise Problem(
            f"{int((~named).sum())} of {len(named)} labelled rows name no part of the official split",
            where="split",
            remedy="Fill the column of ingest's `split`, or take `split` out of ingest.",
        )
    if not set(part[labelled]) <= set(tables.PARTS):
        raise Problem(f"`part` must be one of {', '.join(tables.PARTS)}", where="split")
    if not (part[labelled] == "train").any():
        raise Problem("the official split has no training row", where="split")
    part[~labelled] = UNLABELLED
    return part


def _without_repeats(fate: NDArray[np.object_], repeat: Numbers) -> NDArray[np.object_]:
    """The same fates, but for rows that repeat a row of a later part."""
    result = fate.copy()
    for later, earlier, why in (
        ("test", ("train", "validation"), REPEATS_TEST),
        ("validation", ("train",), REPEATS_VALIDATION),
    ):
        result[np.isin(result, earlier) & np.isin(repeat, repeat[result == later])] = why
    return result


def _fitting(table: pd.DataFrame, share: float) -> Numbers:
    """Units of which, if that is possible, none is larger than the smallest part's `share`.

    What many say ("thanks!") can tie most authors into one unit. Then authors alone are units, and
    the rows that repeat a later part are dropped.
    """
    unit = units(table)
    if np.bincount(unit).max() <= share * len(table):
        return unit
    return units(table, across_authors=False)


def _assigned(
    unit: Numbers,
    flags: Counts,
    shares: Mapping[str, float],
    space: LabelSpace,
    rng: np.random.Generator,
) -> Numbers:
    """The side (a place in `shares`) of each row; rows of one unit are on one side.

    Rarest label first, its biggest units first, each to the side that lacks most of the label, on a
    tie most rows, then by chance.
    """
    # Rows without any label are a stratum too: where many labels are allowed, none is an answer.
    strata = np.column_stack([flags, flags.sum(axis=1) == 0]).astype(np.int64)
    held = np.zeros((int(unit.max()) + 1, strata.shape[1]), dtype=np.int64)
    np.add.at(held, unit, strata)
    sizes = np.bincount(unit)
    share = np.array(list(shares.values()))
    _check_largest(int(sizes.max()), len(unit), float(share[0]))
    need = share[:, None] * held.sum(axis=0)
    room = share * len(unit)
    has = np.zeros(need.shape, dtype=np.int64)
    side = np.full(len(held), -1, dtype=np.int64)
    chance = rng.permutation(len(held))
    while (side < 0).any():
        left = held[side < 0].sum(axis=0)
        stratum = int(np.where(left > 0, left, left.max() + 1).argmin())
        waiting = np.flatnonzero((side < 0) & (held[:, stratum] > 0))
        waiting = waiting[np.lexsort((chance[waiting], -sizes[waiting]))]
        for position, index in enumerate(waiting):
            lacking = np.flatnonzero(has[:, stratum] == 0)
            # The last units of a label go where there is none of it yet.
            scarce = 0 < len(waiting) - position <= len(lacking)
            open_to = lacking if scarce else np.arange(len(share))
            ties = open_to[need[open_to, stratum] > need[open_to, stratum].max() - 1e-9]
            ties = ties[room[ties] > room[ties].max() - 1e-9]
            best = int(ties[0]) if len(ties) == 1 else int(rng.choice(ties))
            side[index] = best
            has[best] += held[index]
            need[best] -= held[index]
            room[best] -= sizes[index]
    few = [
        f"{space.labels[label]} ({int((held[:, label] > 0).sum())})"
        for label in range(len(space.labels))
        if (has[:, label] == 0).any() and (held[:, label] > 0).sum() < len(share)
    ]
    if few:
        raise Problem(
            f"too few authors or groups of repeats to be in each of {', '.join(shares)}: "
            f"{', '.join(few)}",
            where="split",
            remedy="Label rows of more authors, or merge or drop the label in the codebook.",
        )
    return side[unit]


def _stratified(flags: Counts, most: int, rng: np.random.Generator) -> Numbers:
    """At most `most` rows, each combination of labels in proportion: every k-th of the sorted rows."""
    if most >= len(flags):
        return np.arange(len(flags))
    order = np.lexsort((rng.permutation(len(flags)), *flags.T))
    steps = (np.arange(most) + rng.random()) * len(flags) / most
    return np.sort(order[steps.astype(np.int64)])


def _check_support(flags: Counts, space: LabelSpace, settings: params.Split) -> None:
    if not len(flags):
        raise Problem("no row has a label", where="split", remedy="Check ingest's `labels`.")
    counts = flags.sum(axis=0)
    for label, count in zip(space.labels, counts, strict=True):
        if count == len(flags):
            raise Problem(
                f"all {len(flags)} labelled rows are '{label}', so there is nothing to tell apart",
                where="split",
                remedy="Check ingest's `labels` and the codebook.",
            )
    few = [
        f"'{label}' {count}"
        for label, count in zip(space.labels, counts, strict=True)
        if count < settings.min_support
    ]
    if few:
        raise Problem(
            f"fewer than {settings.min_support} labelled rows: {', '.join(few)}",
            where="split",
            remedy=f"Merge or drop {'it' if len(few) == 1 else 'them'} in codebook {space.codebook}, "
            "or lower split.min_support.",
        )


def _check_largest(largest: int, total: int, train: float) -> None:
    if largest > train * total:
        raise Problem(
            f"one author, or one text repeated, holds {largest} of {total} rows, more than the training "
            f"part's {train:.0%}",
            where="split",
            remedy="Lower split.validation and split.test, or leave `group` out of ingest.",
        )


def _check_parts(
    part: NDArray[np.object_], flags: Counts, unit: Numbers, space: LabelSpace, settings: params.Split
) -> None:
    problems = []
    for column, label in enumerate(space.labels):
        carriers = len(np.unique(unit[(flags[:, column] > 0)]))
        for name in tables.PARTS:
            if not flags[part == name, column].any():
                beyond = name == "train" and settings.train_rows is not None
                problems.append(
                    Problem(
                        f"the {name} part holds no row of '{label}', which is in {carriers} units of "
                        "authors and repeats",
                        where="split",
                        remedy="Raise split.train_rows."
                        if beyond
                        else "Label more rows of it, or merge or drop it in the codebook.",
                    )
                )
    if problems:
        raise Problem.together(problems)


def _shared(values: "pd.Series[str]", part: NDArray[np.str_]) -> dict[str, int]:
    """How many of the values (null aside) two parts have in common, for each pair of parts."""
    of = {name: set(values[part == name].dropna()) for name in tables.PARTS}
    pairs: Sequence[tuple[str, str]] = (
        ("train", "validation"),
        ("train", "test"),
        ("validation", "test"),
    )
    return {f"{one} and {other}": len(of[one] & of[other]) for one, other in pairs}


def _digest(rows: pd.DataFrame) -> str:
    pairs = sorted(zip(rows["id"].astype(str), rows["text"].astype(str), strict=True))
    return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()
