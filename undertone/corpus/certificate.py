"""The split's certificate: what it promises, counted from the rows alone, and counted again later.

No text and no id: numbers of rows, digests, days. `verify` believes neither the certificate nor the
table's `repeat`: it compares the texts across the sides.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from undertone import params, tables
from undertone.corpus.split import NEEDS, authors, dates, nearest, orphans, synthetic, units
from undertone.errors import Problem
from undertone.labels import LabelSpace
from undertone.params import validated

PAIRS = tuple(combinations(tables.PARTS, 2))
CLOSER = 0.8  # each look for the most similar texts goes down to this share of the one before
LOOKS = 3

# What is 0 in every split of ours, whatever a certificate says.
PROMISED = {
    "in_no_part": "rows are in no part",
    "unlabelled": "rows have no label",
    "alike_rows": "rows are like a text on the other side",
    "synthetic_held_out": "rows made from others are validation or test",
    "parents_elsewhere": "rows were made from a row that is no training row",
    "not_before": "rows are no older than the later part's first",
    "folds_shared": "authors or like texts on two sides of a fold",
}
DIGESTS = {
    **{f"{part}_digest": f"ids or texts of the {part} part are others" for part in tables.PARTS},
    "label_digest": "labels or parts of rows are others",
    "fold_digest": "folds of rows are others",
}


def certificate(
    table: pd.DataFrame,
    space: LabelSpace,
    settings: params.Split,
    alike: params.Clean,
    *,
    rare: Mapping[str, int],
    into: str | None,
) -> dict[str, Any]:
    """The rules of a split, the labels too `rare` for it and what they joined, and its `figures`."""
    return {
        "rules": {"split": settings.model_dump(mode="json"), "clean": alike.model_dump(mode="json")},
        "rare": {"labels": dict(rare), "into": into},
        **figures(table, space, settings, alike),
    }


def figures(
    table: pd.DataFrame, space: LabelSpace, settings: params.Split, alike: params.Clean
) -> dict[str, Any]:
    """What can be counted of a split table; JSON as it is.

    `shared_groups` (authors) can be above 0 in an official split only. `largest_similarity` is null
    where nothing as similar as `similarity_floor` stands across two parts; it is found without chance.
    `alike_rows`: rows of the later part that are like a text of the other. Digests are sha256 of the
    part's ids and texts, and of all ids, parts and labels, whatever the order of the rows.
    """
    tables.checked(table, NEEDS, where="split")
    part = table["part"].fillna("").to_numpy(dtype=object)
    marks = tables.judged(table, "label", space)
    made = synthetic(table)
    sizes = np.bincount(units(table))
    near, floor = _nearest(table, part, alike)
    timed = settings.order == "time"
    folds = tables.folds(table)
    return {
        "rows": {name: int((part == name).sum()) for name in tables.PARTS},
        "in_no_part": int((~np.isin(part, tables.PARTS)).sum()),
        "labels": {
            name: dict(
                zip(
                    space.labels,
                    np.nan_to_num(marks[part == name]).sum(axis=0).astype(int).tolist(),
                    strict=True,
                )
            )
            for name in tables.PARTS
        },
        "unlabelled": int(np.isnan(marks).any(axis=1).sum()),
        "units": len(sizes),
        "largest_unit": int(sizes.max(initial=0)),
        "shared_groups": _shared(authors(table), part),
        "shared_repeats": _shared(table["repeat"].to_numpy(dtype=np.int64), part),
        "similarity_floor": floor,
        "largest_similarity": _of_pairs(near, part, lambda most: round(float(most.max()), 6) or None),
        "alike_rows": _of_pairs(near, part, lambda most: int((most >= alike.similarity - 1e-12).sum())),
        "synthetic": int(made.sum()),
        "synthetic_held_out": int((made & (part != "train")).sum()),
        "parents_elsewhere": int(orphans(table, part == "train").sum()),
        "days": _days(table[~made], part[~made]) if timed else None,
        "not_before": _not_before(table[~made], part[~made]) if timed else None,
        "folds": len(folds),
        "folds_shared": sum(_torn(table, name, alike) for name in folds),
        **{f"{name}_digest": _digest(table[part == name], ["text"]) for name in tables.PARTS},
        "label_digest": _digest(table.assign(part=part), ["part"], marks),
        "fold_digest": _digest(table, folds) if folds else None,
    }


def verify(table: pd.DataFrame, space: LabelSpace, given: Mapping[str, Any]) -> list[str]:
    """What of a certificate doesn't hold for `table`, a line each; empty where all of it does.

    Everything is counted again by the rules that the certificate names. `Problem` where it is none.
    """
    rules = given.get("rules")
    if not isinstance(rules, dict) or not {"split", "clean"} <= set(rules):
        raise Problem("not a split's certificate", where="split", remedy="Run `dvc repro`.")
    settings = validated(params.Split, rules["split"], where="certificate: rules.split")
    alike = validated(params.Clean, rules["clean"], where="certificate: rules.clean")
    found = figures(table, space, settings, alike)
    lines = []
    for name, what in PROMISED.items():
        lines += [
            f"{place}: {count} {what}" for place, count in _flat({name: found[name]}).items() if count
        ]
    said, now = (_flat({name: one.get(name) for name in found}) for one in (given, found))
    for place in dict.fromkeys([*said, *now]):
        before, after = said.get(place), now.get(place)
        if before == after:
            continue
        if place in DIGESTS:
            lines.append(f"{place}: {DIGESTS[place]} than in the certificate")
        else:
            lines.append(f"{place}: {_told(before)} in the certificate, {_told(after)} in the table")
    return lines


def told(given: Mapping[str, Any]) -> str:
    """What a certificate promises, on one line."""
    rows = " / ".join(f"{given['rows'][part]:,}" for part in tables.PARTS)
    authors_shared = sum(given["shared_groups"].values())
    alike = given["rules"]["clean"]["similarity"]
    found = {pair: value for pair, value in given["largest_similarity"].items() if value is not None}
    pair = max(found, key=lambda one: float(found[one]), default=None)
    nearest_two = (
        f"no two texts across parts are {given['similarity_floor']:g} alike"
        if pair is None
        else f"the most similar two across parts are {found[pair]:.3f} alike ({pair})"
    )
    return (
        f"{rows} rows in {given['units']:,} units; authors in two parts: {authors_shared:,}; "
        f"{nearest_two}, a repeat would be from {alike:g}"
    )


def _nearest(
    table: pd.DataFrame, part: NDArray[np.object_], alike: params.Clean
) -> tuple[NDArray[np.float64], float]:
    """How similar each row is to the most similar of each part [n, 3], and down to where was looked."""
    for look in range(LOOKS):
        floor = alike.similarity * CLOSER**look
        near = nearest(table, part, alike, floor=floor)
        if near.any():
            break
    return near, round(floor, 6)


def _of_pairs(
    near: NDArray[np.float64], part: NDArray[np.object_], value: Callable[[NDArray[np.float64]], object]
) -> dict[str, object]:
    """`value` of how near the earlier part comes to each row of the later, for each pair of parts."""
    return {
        f"{one} and {other}": value(np.append(near[part == other, tables.PARTS.index(one)], 0.0))
        for one, other in PAIRS
    }


def _shared(key: NDArray[np.int64], part: NDArray[np.object_]) -> dict[str, int]:
    """How many keys (-1 aside) two parts have in common, for each pair of parts."""
    of = {name: np.unique(key[(part == name) & (key >= 0)]) for name in tables.PARTS}
    return {f"{one} and {other}": len(np.intersect1d(of[one], of[other])) for one, other in PAIRS}


def _days(table: pd.DataFrame, part: NDArray[np.object_]) -> dict[str, list[str]]:
    """The first and the last day of each part."""
    days = dates(table).astype("datetime64[D]")
    return {
        name: [str(days[part == name].min()), str(days[part == name].max())]
        for name in tables.PARTS
        if (part == name).any()
    }


def _not_before(table: pd.DataFrame, part: NDArray[np.object_]) -> dict[str, int]:
    """How many rows of the earlier part aren't older than all of the later, for each pair of parts."""
    times = dates(table)
    return {
        f"{one} and {other}": int((times[part == one] >= times[part == other].min()).sum())
        for one, other in PAIRS
        if (part == other).any()
    }


def _torn(table: pd.DataFrame, column: str, alike: params.Clean) -> int:
    part = table[column].fillna("").to_numpy(dtype=object)
    near = nearest(table, part, alike, floor=alike.similarity)
    outside = orphans(table, part == "train") | (synthetic(table) & np.isin(part, tables.PARTS[1:]))
    return (
        sum(_shared(authors(table), part).values())
        + int((near > 0).any(axis=1).sum())
        + int(outside.sum())
    )


def _digest(rows: pd.DataFrame, columns: list[str], marks: NDArray[np.float64] | None = None) -> str:
    cells = [rows[column].fillna("").astype(str).tolist() for column in ["id", *columns]]
    labels = [] if marks is None else np.nan_to_num(marks, nan=-1).astype(int).T.tolist()
    pairs = sorted(zip(*cells, *labels, strict=True))
    return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()


def _flat(content: Mapping[str, Any], within: str = "") -> dict[str, Any]:
    """Nested mappings as one: `labels.test.calm`."""
    flat: dict[str, Any] = {}
    for name, value in content.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{within}{name}.")
        else:
            flat[f"{within}{name}"] = value
    return flat


def _told(value: object) -> str:
    if isinstance(value, list):
        return " to ".join(map(str, value))
    return "nothing" if value is None else str(value)
