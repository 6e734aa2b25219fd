"""Metrics by slice: among which sources, months or lengths the decisions are better or worse.

A slice is the rows with one value of a metadata column. Intervals come from the bootstrap over groups of
`metrics`, p-values from permutations that keep what a group's comments have in common.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_array

from undertone import tables
from undertone.errors import Problem
from undertone.labels import Flags, LabelSpace
from undertone.measures import exact, metrics
from undertone.measures.comparison import holm

Numbers = NDArray[np.float64]
Codes = NDArray[np.int64]

LENGTH, MONTH = "length", "month"  # columns made of `text` and of `time`
MISSING, OTHER = "missing", "other"
MOST_VALUES = 50  # a column with more is free text
MOST_NUMBERS = 10  # more different numbers are cut at their quartiles
PERMUTATIONS = 4_999  # so that Holm's correction can be passed among 250 slices

_YEAR_MONTH = re.compile(r"\s*(\d{4})[-/.年]\s*(0?[1-9]|1[0-2])(?!\d)")
_BLOCK = 2_000_000  # rows permuted at once


def by_column(
    table: pd.DataFrame,
    truth: Flags,
    decided: Flags,
    space: LabelSpace,
    columns: Sequence[str],
    *,
    answered: metrics.Rows | None = None,
    min_rows: int,
    draws: int,
    rng: np.random.Generator,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Column → slice → its figures, for decisions [n, labels] on the n rows of a comments table.

    `columns` are columns of the table (`meta.<column>`), `length` (of the text, in characters) or
    `month` (of a time that begins with year and month; another is missing). More than 10 different
    numbers are cut at their quartiles; values with fewer than `min_rows` rows are pooled as `other`;
    rows without a value are the slice `missing`. `Problem` without rows, on a column that the table
    lacks, and on one with more than 50 values that aren't all numbers.

    A slice has `n`, `groups`, `accuracy` and `macro_f1` (over the labels that its rows have, true or
    decided) as `metrics.evaluate` shows them, and its accuracy's `difference` from that of all other
    rows, both with the intervals of `exact` where all rows are right or none is, with `p` (see
    `_p_values`), `p_holm` (Holm 1979, over all slices of all columns) and `significant` (`p_holm` below
    0.05). These four are null in a slice that holds all rows.
    """
    if not len(table):
        raise Problem("no rows to slice", where=f"codebook {space.codebook}")
    valid = np.ones(len(table), dtype=bool) if answered is None else answered
    decided = decided & valid[:, None]
    right = (truth == decided).all(axis=1) & valid
    ones = np.ones(len(table), dtype=bool)
    counts = np.column_stack([truth & decided, ~truth & decided, truth & ~decided, right, ones])
    groups = tables.groups(table)
    groups = np.unique(groups, return_inverse=True)[1].astype(np.int64)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    tested: list[dict[str, Any]] = []
    for column in columns:
        names, codes = _slices(table, column, min_rows)
        figures = _figures(counts, codes, groups, len(names), draws, rng)
        found[column] = dict(zip(names, figures, strict=True))
        if len(names) > 1:
            for one, p in zip(figures, _p_values(right, codes, groups, rng), strict=True):
                one["p"] = float(p)
                tested.append(one)
    for one, corrected in zip(tested, holm([one["p"] for one in tested]), strict=True):
        one.update(
            p=round(one["p"], 6), p_holm=round(float(corrected), 6), significant=bool(corrected < 0.05)
        )
    return found


def _slices(table: pd.DataFrame, column: str, min_rows: int) -> tuple[list[str], Codes]:
    """The slices' names, in the values' order with `other` and `missing` last, and each row's slice."""
    values = _values(table, column)
    known = values.notna()
    numbers = pd.to_numeric(values[known], errors="coerce")
    numeric = bool(numbers.notna().all())
    if numeric and numbers.nunique() > MOST_NUMBERS:
        quarter = pd.qcut(numbers, 4, labels=False, duplicates="drop")
        middle = numbers.groupby(quarter).median()  # of many rows, while an end may be one row's own
        order = [f"quarter {at + 1}, about {value:.4g}" for at, value in enumerate(middle)]
        values = quarter.map(dict(zip(middle.index, order, strict=True))).reindex(values.index)
    else:
        distinct = values[known].unique().tolist()
        if len(distinct) > MOST_VALUES:
            raise Problem(
                f"{len(distinct):,} different values, more than {MOST_VALUES} and not all numbers",
                where=f"slices by '{column}'",
                remedy="Take a column of few values, such as a source.",
            )
        order = sorted(distinct, key=float if numeric else None)
    rows = values.value_counts()
    few = [value for value in order if rows[value] < min_rows]
    values = values.where(~values.isin(few), OTHER).where(known, MISSING)
    kept = [value for value in order if value not in few and value not in (OTHER, MISSING)]
    names = [name for name in (*kept, OTHER, MISSING) if (values == name).any()]
    return names, pd.Index(names).get_indexer(pd.Index(values)).astype(np.int64)


def _values(table: pd.DataFrame, column: str) -> "pd.Series[Any]":
    """A text for each row, numbered from 0, null where there is none."""
    source = {LENGTH: "text", MONTH: "time"}.get(column, column)
    if source not in table:
        raise Problem(
            f"no column '{source}'",
            where=f"slices by '{column}'",
            remedy=f"Name a column of `meta` in ingest as `meta.<column>`, or {LENGTH} or {MONTH}.",
        )
    given = table[source].reset_index(drop=True)
    given = given.astype(object).where(given.notna(), "").astype(str)
    if column == LENGTH:
        return given.str.len().astype(str).astype(object)
    if column == MONTH:
        parts = given.str.extract(_YEAR_MONTH)
        given = (parts[0] + "-" + parts[1].str.zfill(2)).fillna("")
    given = given.str.strip().astype(object)
    return given.where(given != "", None)


def _figures(
    counts: NDArray[np.bool_],
    codes: Codes,
    groups: Codes,
    slices: int,
    draws: int,
    rng: np.random.Generator,
) -> list[dict[str, Any]]:
    """What is shown of each slice, but for the test; `counts` [n, 3 × labels + 2]: true and false
    positives and false negatives of each label, wholly right rows, rows."""
    row, column = counts.nonzero()
    width = counts.shape[1]
    places = (groups[row], codes[row] * width + column)
    # a group is in few slices, so most of its sums are 0
    by_group = csr_array((np.ones(len(row)), places), shape=(groups.max() + 1, slices * width))
    own = _summary(np.asarray(by_group.sum(axis=0)).reshape(slices, width))
    drawn = _summary(metrics.resampled(by_group, draws, rng).reshape(draws, slices, width))
    found = []
    for at in range(slices):
        units = len(np.unique(groups[codes == at]))
        shown = {
            name: metrics.figure(float(own[name][at]), *metrics.interval(drawn[name][:, at], units))
            for name in ("accuracy", "macro_f1", "difference")
        }
        apart = int(np.unique(groups[codes != at]).size)
        accuracy = exact.share(shown["accuracy"], units)
        rest = metrics.figure(float(own["others"][at]), *metrics.interval(drawn["others"][:, at], apart))
        others = exact.share(rest, apart)
        if (accuracy, others) != (shown["accuracy"], rest):  # the draws know no doubt of one of the two
            shown |= {"accuracy": accuracy, "difference": exact.difference(accuracy, others)}
        empty = {"p": None, "p_holm": None, "significant": None}
        found.append({"n": int((codes == at).sum()), "groups": units, **shown, **empty})
    return found


def _summary(sums: Numbers) -> dict[str, Numbers]:
    """The figures [..., slices] of sums [..., slices, columns of counts]."""
    tp, fp, fn = np.split(sums[..., :-2], 3, axis=-1)
    right, rows = sums[..., -2], sums[..., -1]
    return {
        "accuracy": _share(right, rows),
        "macro_f1": metrics.precision_recall_f1(tp, fp, fn, absent=np.nan)["macro_f1"],
        "others": _share(*_others(right, rows)),
        "difference": _difference(right, rows),
    }


def _difference(right: Numbers, rows: Numbers) -> Numbers:
    """[..., slices]: each slice's share of right rows less that of all other rows."""
    return _share(right, rows) - _share(*_others(right, rows))


def _others(right: Numbers, rows: Numbers) -> tuple[Numbers, Numbers]:
    """Right rows and rows of all other slices [..., slices]."""
    return right.sum(axis=-1, keepdims=True) - right, rows.sum(axis=-1, keepdims=True) - rows


def _share(part: Numbers, whole: Numbers) -> Numbers:
    found: Numbers = np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=whole > 0)
    return found


def _p_values(
    right: NDArray[np.bool_], codes: Codes, groups: Codes, rng: np.random.Generator
) -> NDArray[np.float64]:
    """The two-sided p [slices] of each slice's difference, by permutation (Phipson & Smyth 2010).

    Where slices tell nothing of who is right, it doesn't matter which whole groups are in which slice,
    nor how the comments of a group that several slices share are turned around among their places. So
    the former swap their slices, and each of the latter shifts by a random number of places, which
    keeps what neighbouring comments have in common. What one large author does is thus no evidence on
    a slice.
    """
    order = np.argsort(groups, kind="stable")
    right, codes, groups = right[order].astype(np.float64), codes[order], groups[order]
    start = np.flatnonzero(np.r_[True, groups[1:] != groups[:-1]])
    size = np.diff(np.r_[start, len(groups)])
    slices = np.eye(int(codes.max()) + 1)
    whole = np.maximum.reduceat(codes, start) == np.minimum.reduceat(codes, start)
    sizes, rights = size[whole].astype(np.float64), np.add.reduceat(right, start)[whole]
    slice_of = slices[codes[start[whole]]]  # [whole groups, slices]

    among = np.flatnonzero(~whole[groups])  # rows of groups in several slices
    place_of = slices[codes[among]]
    first, length = start[groups[among]], size[groups[among]]
    turned = np.cumsum(~whole)[groups[among]] - 1
    observed = _difference(right @ slices[codes], slices[codes].sum(axis=0))

    differences = np.empty((PERMUTATIONS, len(slices)))
    block = max(1, _BLOCK // len(right))
    for begin in range(0, PERMUTATIONS, block):
        count = min(block, PERMUTATIONS - begin)
        swapped = rng.permuted(np.tile(np.arange(len(sizes)), (count, 1)), axis=1)
        by = rng.integers(0, size[~whole], size=(count, int((~whole).sum())))[:, turned]
        shifted = right[first + (among - first + by) % length]
        differences[begin : begin + count] = _difference(
            rights[swapped] @ slice_of + shifted @ place_of,
            sizes[swapped] @ slice_of + place_of.sum(axis=0),
        )
    middle = (differences.sum(axis=0) + observed) / (PERMUTATIONS + 1)
    further = np.abs(differences - middle) >= np.abs(observed - middle) - 1e-12
    p: NDArray[np.float64] = (further.sum(axis=0) + 1) / (PERMUTATIONS + 1)
    return p
