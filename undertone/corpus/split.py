"""Train, validation and test: no author and no near-repeat on two sides.

Iterative stratification (Sechidis, Tsoumakas & Vlahavas 2011) over whole units of rows instead of
single rows; one label a text is the case of label sets of size one.

By time every training row is older than the validation rows, and these than the test (Pendlebury et al.
2019, "TESSERACT", constraint C1). An author may have written in two periods: then the rows of the
earlier one go, as one purges what overlaps with the test (López de Prado 2018, chapter 7). So the test
is all that was written last, by newcomers or not, as what a model will meet.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from undertone import params, tables
from undertone.corpus import repeats
from undertone.corpus.ledger import Ledger
from undertone.corpus.repeats import numbered
from undertone.errors import Problem
from undertone.labels import LabelSpace
from undertone.text import same_name

Numbers = NDArray[np.int64]
Rows = NDArray[np.bool_]  # [n]
Fates = NDArray[np.object_]  # [n], a part, or why a row is in none
Counts = NDArray[np.int64]  # [n, labels], or one more column for rows without any of the labels

NEEDS = ("id", "text", "group", "part", "repeat")
JOINED = ";"  # between ids in `parent`
UNLABELLED = "unlabelled"
REPEATS_TEST = "repeats a test row"
REPEATS_VALIDATION = "repeats a validation row"
WROTE_TEST = "its author wrote a test row"
WROTE_VALIDATION = "its author wrote a validation row"
BEYOND = "beyond split.train_rows"
OUTSIDE = "made from a row outside the training part"
REASONS = (
    *(UNLABELLED, REPEATS_TEST, REPEATS_VALIDATION, WROTE_TEST, WROTE_VALIDATION, BEYOND, OUTSIDE),
)
TRIES = 20  # draws of folds, of which the most even is taken: a greedy one alone may be far from it


def split(
    table: pd.DataFrame, space: LabelSpace, settings: params.Split, alike: params.Clean
) -> tuple[pd.DataFrame, Ledger]:
    """The labelled rows of a cleaned table, in its order, with `part` train, validation or test.

    An official split stays, but for rows that repeat one of a later part; a part that it lacks is
    taken from its training rows. Rows that repeat each other have one `repeat`, or are `alike` as their
    texts stand here. Synthetic rows (their `parent` names the rows they were made from) are in the
    training part or nowhere, and go where a parent isn't a training row. `Problem` where a label is
    missing from a part, a part can't be made, or a row has no time but needs it.
    The order of the rows decides nothing.
    """
    tables.checked(table, NEEDS, where="split")
    order = np.argsort(table["id"].to_numpy(dtype=str), kind="stable")
    rows = table.iloc[order].reset_index(drop=True)
    marks = tables.judged(rows, "label", space)
    labelled = np.asarray(~np.isnan(marks).any(axis=1))
    flags = np.where(labelled[:, None], marks, 0).astype(np.int64)
    made = synthetic(rows)
    _check_support(flags[labelled & ~made], space)

    rng = np.random.default_rng(settings.seed)
    fate = _official(rows, labelled, made, settings)
    fate = _without_repeats(fate, rows)
    shares = {"validation": settings.validation, "test": settings.test}
    missing = {name: share for name, share in shares.items() if not (fate == name).any()}
    taken = np.flatnonzero((fate == "train") & ~made)
    if missing and len(taken) and settings.order == "time":
        fate[taken] = _periods(rows.iloc[taken], settings)
        fate = _without_authors(_without_repeats(fate, rows), rows)
    elif missing and len(taken):
        wanted = {"train": 1 - settings.validation - settings.test, **missing}
        total = sum(wanted.values())
        share = {name: share / total for name, share in wanted.items()}
        unit = _fitting(rows, taken, min(share.values()))
        _check_largest(unit, share["train"])
        side, few = _assigned(unit, flags[taken], share, rng)
        _check_few(few, unit, flags[taken], space, f"each of {', '.join(share)}")
        fate[taken] = np.array(list(share), dtype=object)[side]
        fate = _without_repeats(fate, rows)
    fate = _without_alike(fate, rows, alike)
    if settings.train_rows is not None:
        train = np.flatnonzero((fate == "train") & ~made)
        fate[np.delete(train, _stratified(flags[train], settings.train_rows, rng))] = BEYOND
    fate[orphans(rows, fate == "train")] = OUTSIDE
    _check_parts(
        fate, flags, units(rows), space, settings, official=bool(rows["part"].eq("validation").any())
    )

    part = fate[np.argsort(order)]
    result = table.assign(part=part)[np.isin(part, tables.PARTS)].reset_index(drop=True)
    dropped = {why: int((part == why).sum()) for why in REASONS if (part == why).any()}
    return result, Ledger("split", len(table), len(result), dropped)


def folds(
    table: pd.DataFrame, space: LabelSpace, how: params.Folds, alike: params.Clean, *, seed: int
) -> pd.DataFrame:
    """Repeated stratified k-fold: a column `fold.<repeat>.<fold>` for each model that is to be trained.

    It says of each row of a split table whether it is train, validation or test for that model; empty
    for a row that repeats one of a later part, and for a synthetic one whose parents aren't all in
    train. In each repeat every row that isn't synthetic is test once, and validation at most once;
    units stay whole, and every label is in every fold. `Problem` where fewer than `k` units hold a
    label. Pool a repeat's test rows before a metric is computed (Forman & Scholz 2010).
    """
    order = np.argsort(table["id"].to_numpy(dtype=str), kind="stable")
    rows = table.iloc[order].reset_index(drop=True)
    flags = tables.judged(rows, "label", space).astype(np.int64)
    made = synthetic(rows)
    real = np.flatnonzero(~made)
    unit = _fitting(rows, real, 1 / how.k)
    _check_largest(unit, 1 - 2 / how.k)
    share = {f"fold {at + 1}": 1 / how.k for at in range(how.k)}
    rng = np.random.default_rng(seed)
    columns: dict[str, Fates] = {}
    for repeat in range(how.repeats):
        draws = [_assigned(unit, flags[real], share, rng) for _ in range(TRIES)]
        side, few = min(draws, key=lambda draw: _unevenness(draw[0], flags[real], how.k))
        _check_few(few, unit, flags[real], space, f"each of {how.k} folds")
        for at in range(how.k):
            fate = np.full(len(rows), "train", dtype=object)
            fate[real[side == at]] = "test"
            fate[real[side == (at + 1) % how.k]] = "validation"
            fate = _without_alike(_without_repeats(fate, rows), rows, alike)
            fate[orphans(rows, fate == "train") | ~np.isin(fate, tables.PARTS)] = ""
            columns[f"fold.{repeat + 1}.{at + 1}"] = fate[np.argsort(order)]
    return pd.DataFrame(columns, index=table.index)


def synthetic(table: pd.DataFrame) -> Rows:
    """Which rows were made from others: those with a `parent`; none where there is no such column."""
    return np.asarray(named(table) != "")


def parents(table: pd.DataFrame) -> tuple[Numbers, Numbers]:
    """For each parent that a row names the numbers of both rows; the parent's is -1 if it isn't here."""
    if "parent" not in table:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    each = named(table).str.split(JOINED).reset_index(drop=True).explode().str.strip()
    each = each[each != ""]
    of = pd.Index(table["id"]).get_indexer(pd.Index(each))
    return each.index.to_numpy(dtype=np.int64), of.astype(np.int64)


def named(table: pd.DataFrame) -> "pd.Series[str]":
    """The parents of each row, empty for one without."""
    if "parent" not in table:
        return pd.Series("", index=table.index, dtype="str")
    return table["parent"].astype("object").fillna("").astype("str").str.strip()


def orphans(rows: pd.DataFrame, train: Rows) -> Rows:
    """The synthetic rows of `train` that weren't made from rows of it alone, in the end real ones."""
    child, parent = parents(rows)
    made = synthetic(rows)
    kept = train & ~made
    while True:
        without = np.zeros(len(rows), dtype=bool)
        without[child[(parent < 0) | ~kept[parent]]] = True
        more = train & made & ~without & ~kept
        if not more.any():
            return train & ~kept
        kept |= more


def dates(table: pd.DataFrame) -> NDArray[np.datetime64]:
    """The rows' `time` in UTC, as which one without an offset is read; `Problem` unless ISO 8601."""
    if "time" not in table:
        raise Problem("no column time", where="split", remedy="Set ingest's `time`.")
    found = pd.to_datetime(table["time"], format="ISO8601", utc=True, errors="coerce")
    if found.isna().any():
        raise Problem(
            f"split.order is time, but {int(found.isna().sum())} of {len(table)} labelled rows have no "
            "time such as 2024-05-31 or 2024-05-31 14:05",
            where="split",
            remedy="Fill the column of ingest's `time`, or set split.order to random.",
        )
    return found.dt.tz_localize(None).to_numpy()


def late(table: pd.DataFrame, parts: pd.DataFrame) -> Rows:
    """Which rows were written after the latest of the training part (of the split `parts`), or nobody
    knows when."""
    when = pd.to_datetime(table["time"], format="ISO8601", utc=True, errors="coerce")
    latest = when[table["id"].isin(parts.loc[parts["part"] == "train", "id"])].max()
    return np.asarray(~(when <= latest))


def authors(table: pd.DataFrame) -> Numbers:
    """A number for each row, the same for rows of one author; -1 where nobody knows the author."""
    names = table["group"].fillna("").map(same_name)
    return pd.factorize(names.replace("", None))[0].astype(np.int64)


def units(table: pd.DataFrame, *, across_authors: bool = True) -> Numbers:
    """A number for each row: the same for rows that an author, a repeat or a row made from them ties.

    With `across_authors` false a repeat ties only rows whose author nobody knows.
    """
    length = len(table)
    repeat = pd.factorize(table["repeat"])[0]
    author = authors(table)
    written = np.flatnonzero(author >= 0)
    repeated = np.arange(length) if across_authors else np.flatnonzero(author < 0)
    children, parent = parents(table)
    known = parent >= 0
    rows = np.concatenate([repeated, written, children[known]])
    knots = np.concatenate([length + repeat[repeated], 2 * length + author[written], parent[known]])
    graph = coo_matrix(
        (np.ones(len(rows), dtype=np.int8), (rows, knots)), shape=(3 * length, 3 * length)
    )
    return numbered(connected_components(graph, directed=False)[1][:length].astype(np.int64))


def nearest(
    table: pd.DataFrame, part: Fates, alike: params.Clean, *, floor: float
) -> NDArray[np.float64]:
    """`repeats.across` of the parts [n, 3], in the order of tables.PARTS."""
    side = pd.Index(tables.PARTS).get_indexer(pd.Index(part)).astype(np.int64)
    texts = table["text"].tolist()
    return repeats.across(texts, side, len(tables.PARTS), floor=floor, shingle=alike.shingle)


def told(table: pd.DataFrame, space: LabelSpace) -> str:
    """The sizes of the parts and the rarest label's share in each, for the log."""
    parts = [table[table["part"] == name] for name in tables.PARTS]
    counts = np.array([tables.judged(part, "label", space).sum(axis=0) for part in parts]).astype(int)
    rarest = int(counts.sum(axis=0).argmin())
    sizes = " / ".join(f"{len(part):,}" for part in parts)
    shares = " / ".join(f"{count:,}" for count in counts[:, rarest])
    return f"{sizes}; rarest label '{space.labels[rarest]}' {shares}"


def _official(rows: pd.DataFrame, labelled: Rows, made: Rows, settings: params.Split) -> Fates:
    """The part that each labelled row comes with; all train where the table names none.

    What is `made` from others is train whatever it comes with.
    """
    part = rows["part"].fillna("").to_numpy(dtype=object, copy=True)
    named = part[labelled & ~made] != ""
    if not named.any():
        part[:] = "train"
    elif not named.all():
        raise Problem(
            f"{int((~named).sum())} of {len(named)} labelled rows name no part of the official split",
            where="split",
            remedy="Fill the column of ingest's `split`, or take `split` out of ingest.",
        )
    elif settings.order == "time":
        raise Problem(
            "split.order is time, but the table comes with an official split",
            where="split",
            remedy="Set split.order to random to keep its parts, or take `split` out of ingest.",
        )
    part[made] = "train"
    if not set(part[labelled]) <= set(tables.PARTS):
        raise Problem(f"`part` must be one of {', '.join(tables.PARTS)}", where="split")
    if not (part[labelled & ~made] == "train").any():
        raise Problem("the official split has no training row", where="split")
    part[~labelled] = UNLABELLED
    return part


def _periods(rows: pd.DataFrame, settings: params.Split) -> Fates:
    """Each row's part by its time; rows of one time are in one part."""
    fate = np.full(len(rows), "train", dtype=object)
    times, row_time, counts = np.unique(dates(rows), return_inverse=True, return_counts=True)
    after = np.cumsum(counts[::-1])[::-1]  # rows at or after each time
    wanted = {
        "validation": (settings.validation + settings.test) * len(rows),
        "test": settings.test * len(rows),
    }
    for name, size in wanted.items():
        fate[row_time >= np.abs(after - size).argmin()] = name
    if len(set(fate)) < len(tables.PARTS):
        raise Problem(
            f"{len(rows)} labelled rows have {len(times)} different times, which make no three parts of "
            "the sizes asked for",
            where="split",
            remedy="Set split.order to random, or change split.validation and split.test.",
        )
    return fate


def _without_repeats(fate: Fates, rows: pd.DataFrame) -> Fates:
    """The same fates, but for rows that repeat a row of a later part."""
    whys = {"test": REPEATS_TEST, "validation": REPEATS_VALIDATION}
    return _without(fate, rows["repeat"].to_numpy(dtype=np.int64), whys)


def _without_authors(fate: Fates, rows: pd.DataFrame) -> Fates:
    """The same fates, but for rows whose author wrote a row of a later part too."""
    whys = {"test": WROTE_TEST, "validation": WROTE_VALIDATION}
    return _without(fate, authors(rows), whys)


def _without(fate: Fates, key: Numbers, whys: Mapping[str, str]) -> Fates:
    """The same fates, but for rows with the key (-1: none) of a row of a later part."""
    result = fate.copy()
    for later, why in whys.items():
        earlier = tables.PARTS[: tables.PARTS.index(later)]
        shared = np.isin(key, key[result == later]) & (key >= 0)
        result[np.isin(result, earlier) & shared] = why
    return result


def _without_alike(fate: Fates, rows: pd.DataFrame, alike: params.Clean) -> Fates:
    """The same fates, but for rows whose text is like one of a later part.

    `repeat` misses a pair in a hundred that is only just alike, and may tie other rows than these.
    """
    result = fate.copy()
    near = nearest(rows, fate, alike, floor=alike.similarity) > 0
    at = {name: place for place, name in enumerate(tables.PARTS)}
    result[np.isin(fate, ("train", "validation")) & near[:, at["test"]]] = REPEATS_TEST
    result[(fate == "train") & ~near[:, at["test"]] & near[:, at["validation"]]] = REPEATS_VALIDATION
    return result


def _fitting(rows: pd.DataFrame, real: Numbers, share: float) -> Numbers:
    """Units of the `real` rows of which, if that is possible, none is larger than the smallest part's
    `share`.

    What many say ("thanks!") can tie most authors into one unit. Then authors alone are units, and
    the rows that repeat a later part are dropped.
    """
    unit = numbered(units(rows)[real])
    if np.bincount(unit).max() <= share * len(real):
        return unit
    return numbered(units(rows, across_authors=False)[real])


def _assigned(
    unit: Numbers,
    flags: Counts,
    shares: Mapping[str, float],
    rng: np.random.Generator,
) -> tuple[Numbers, Rows]:
    """The side (a place in `shares`) of each row, rows of one unit on one side; and which labels
    [labels] some side lacks.

    Rarest label first, its biggest units first, each to the side that lacks most of the label, on a
    tie most rows, then by chance.
    """
    # Rows without any label are a stratum too: where many labels are allowed, none is an answer.
    strata = np.column_stack([flags, flags.sum(axis=1) == 0]).astype(np.int64)
    held = np.zeros((int(unit.max()) + 1, strata.shape[1]), dtype=np.int64)
    np.add.at(held, unit, strata)
    sizes = np.bincount(unit)
    share = np.array(list(shares.values()))
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
    lacks = np.asarray((has == 0).any(axis=0) & (held.sum(axis=0) > 0))
    return side[unit], lacks[: flags.shape[1]]


def _unevenness(side: Numbers, flags: Counts, sides: int) -> tuple[int, float]:
    """How many sides lack how many labels; and the squared distance from equal shares, by label."""
    strata = np.column_stack([flags, np.ones(len(flags), dtype=np.int64)])
    has = np.zeros((sides, strata.shape[1]))
    np.add.at(has, side, strata)
    share = has.sum(axis=0) / sides
    off = (has - share) ** 2 / np.maximum(share, 1e-9)
    return int((has[:, share > 0] == 0).sum()), float(off.sum())


def _stratified(flags: Counts, most: int, rng: np.random.Generator) -> Numbers:
    """At most `most` rows, each combination of labels in proportion: every k-th of the sorted rows."""
    if most >= len(flags):
        return np.arange(len(flags))
    order = np.lexsort((rng.permutation(len(flags)), *flags.T))
    steps = (np.arange(most) + rng.random()) * len(flags) / most
    return np.sort(order[steps.astype(np.int64)])


def _check_support(flags: Counts, space: LabelSpace) -> None:
    if not len(flags):
        raise Problem("no row has a label", where="split", remedy="Check ingest's `labels`.")
    for label, count in zip(space.labels, flags.sum(axis=0), strict=True):
        if count == len(flags):
            raise Problem(
                f"all {len(flags)} labelled rows are '{label}', so there is nothing to tell apart",
                where="split",
                remedy="Check ingest's `labels` and the codebook.",
            )


def _check_few(few: Rows, unit: Numbers, flags: Counts, space: LabelSpace, sides: str) -> None:
    lacking = [
        f"{space.labels[label]} ({len(np.unique(unit[flags[:, label] > 0]))})"
        for label in np.flatnonzero(few)
    ]
    if lacking:
        raise Problem(
            f"too few authors or groups of repeats to be in {sides}: {', '.join(lacking)}",
            where="split",
            remedy="Label rows of more authors, raise split.min_support with split.rare drop or merge, "
            "or ask for fewer folds.",
        )


def _check_largest(unit: Numbers, train: float) -> None:
    largest = int(np.bincount(unit).max())
    if largest > train * len(unit):
        raise Problem(
            f"one author, or one text repeated, holds {largest} of {len(unit)} rows, more than the "
            f"training part's {train:.0%}",
            where="split",
            remedy="Lower split.validation and split.test, or leave `group` out of ingest.",
        )


def _check_parts(
    part: NDArray[np.object_],
    flags: Counts,
    unit: Numbers,
    space: LabelSpace,
    settings: params.Split,
    *,
    official: bool,
) -> None:
    """`official`: the validation part is the table's own."""
    problems = []
    for column, label in enumerate(space.labels):
        carriers = len(np.unique(unit[(flags[:, column] > 0)]))
        for name in tables.PARTS:
            if not flags[part == name, column].any():
                remedy = "Label more rows of it, or merge or drop it in the codebook."
                if name == "train" and settings.train_rows is not None:
                    remedy = "Raise split.train_rows."
                elif name == "validation" and official:
                    remedy += (
                        " Or list its values under `train` in ingest's `split`: then it is drawn anew."
                    )
                problems.append(
                    Problem(
                        f"the {name} part holds no row of '{label}', which is in {carriers} units of "
                        "authors and repeats",
                        where="split",
                        remedy=remedy,
                    )
                )
    if problems:
        raise Problem.together(problems)
