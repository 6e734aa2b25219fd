"""Intervals where a bootstrap has none to give: all groups agree, so that no draw differs from another.

Of a share, "all right" and "none right" among so many groups have the exact interval of Clopper &
Pearson (1934), which there has a closed form; its upper end for none of n, about 3.7 / n, is the
two-sided kin of the rule of three (Hanley & Lippman-Hand 1983). A group counts as one however many rows
it has, as if they were all of one mind: the most careful reading of the effective sample size that
surveys take (Korn & Graubard 1998). Of other figures, such as F1, there is nothing as simple; `told`
marks them.

Differences take the intervals that their two parts have (MOVER, Zou & Donner 2008; for two shares it is
Newcombe's method 10 of 1998). The parts are taken to be independent.
"""

from collections.abc import Mapping
from math import hypot
from typing import Any

import numpy as np
from numpy.typing import NDArray

from undertone.labels import Flags
from undertone.measures import metrics

Figure = Mapping[str, float | None]

MARK = "†"  # at a figure without an interval
MARKED = (
    f"{MARK} No interval: every draw of the bootstrap gave this very number, as where all texts are"
    " right or none is. That is not certainty."
)


def share(one: Figure, groups: int) -> dict[str, float | None]:
    """The share `one`, seen in so many groups: with the exact interval where it is 0 or 1, and else as
    it is."""
    if one["value"] not in (0, 1) or one["low"] != one["high"] or not groups:
        return dict(one)
    beyond = float(0.025 ** (1 / groups))
    low, high = (beyond, 1.0) if one["value"] == 1 else (0.0, 1 - beyond)
    return metrics.figure(float(one["value"]), low, high)


def shares(
    found: Mapping[str, Any],
    truth: Flags,
    decided: Flags,
    valid: metrics.Rows,
    groups: NDArray[np.int64],
) -> dict[str, Any]:
    """What `metrics.evaluate` found on these rows, with `share` for each of its shares of rows.

    These are the share of valid answers, their accuracy, `accuracy`, and of each label precision, recall
    and accuracy, each with the groups that have a row it is a share of.
    """
    decided = decided & valid[:, None]

    def among(rows: metrics.Rows) -> int:
        return len(np.unique(groups[rows]))

    every, answered = among(np.ones(len(truth), dtype=bool)), among(valid)
    overall, labels = dict(found["overall"]), {}
    overall["accuracy"] = share(overall["accuracy"], every)
    for column, (label, one) in enumerate(found["labels"].items()):
        units = {
            "precision": among(decided[:, column]),
            "recall": among(truth[:, column]),
            "accuracy": every,
        }
        labels[label] = {**one, **{name: share(one[name], units[name]) for name in units}}
    return {
        **found,
        "valid": {**found["valid"], "share": share(found["valid"]["share"], every)},
        "valid_accuracy": share(found["valid_accuracy"], answered),
        "overall": overall,
        "labels": labels,
    }


def difference(one: Figure, other: Figure) -> dict[str, float | None]:
    """`one` less `other`, each with its interval and independent of the other; null where either is."""
    if any(part[end] is None for part in (one, other) for end in ("value", "low", "high")):
        return dict.fromkeys(("value", "low", "high"))
    (p, low, high), (q, its_low, its_high) = (
        [float(part[end] or 0) for end in ("value", "low", "high")] for part in (one, other)
    )
    return metrics.figure(
        p - q, p - q - hypot(p - low, its_high - q), p - q + hypot(high - p, q - its_low)
    )


def told(one: Figure) -> str:
    """As `metrics.told`, but `1.000†` where the interval has no width."""
    if one["value"] is not None and one["low"] is not None and one["low"] == one["high"]:
        return f"{one['value']:.3f}{MARK}"
    return metrics.told(one)


def signed(one: Figure) -> str:
    """`+0.038 [-0.010, +0.071]`, or `+0.000†`; empty where nothing defines the figure."""
    if one["value"] is None:
        return ""
    if one["low"] is None or one["low"] == one["high"]:
        return f"{one['value']:+.3f}{MARK}"
    return f"{one['value']:+.3f} [{one['low']:+.3f}, {one['high']:+.3f}]"
