"""All candidates on the same rows, and which of them is chosen."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from undertone import metrics, tables
from undertone.errors import Problem
from undertone.labels import LabelSpace, answered

Judges = Mapping[str, tuple[LabelSpace, pd.DataFrame]]  # name → its thresholds, its scores


def evaluate_all(
    table: pd.DataFrame, judges: Judges, space: LabelSpace, *, draws: int, seed: int
) -> dict[str, Any]:
    """Part → reference → candidate → what `metrics.evaluate` returns.

    The references are `label` (what the table's label columns say) and, where there is any on the
    part, `gold`; never mixed. The candidate `majority` always answers the commonest training label;
    against gold there are `teachers` too, where voters gave the labels: their fused votes.
    """
    train = tables.judged(table[table["part"] == "train"], "label", space) > 0.5
    evaluated: dict[str, Any] = {}
    for part in ("validation", "test"):
        rows = table[table["part"] == part]
        for reference in ("label", "gold"):
            given = tables.judged(rows, reference, space)
            known = ~np.isnan(given).any(axis=1)
            if not known.any():
                continue
            chosen, truth = rows.iloc[np.flatnonzero(known)], given[known] > 0.5
            decided = {"majority": metrics.majority(train, len(chosen), space)}
            valid: dict[str, NDArray[np.bool_]] = {}
            for name, (own, scores) in judges.items():
                found = tables.scores_of(scores, chosen["id"], space, where=f"scores of {name}")
                decided[name], valid[name] = own.decide(found), answered(found)
            if reference == "gold" and f"silver.{space.labels[0]}" in chosen:
                silver = chosen[[f"silver.{label}" for label in space.labels]].to_numpy(np.float64)
                decided["teachers"] = space.decide(silver)
            evaluated.setdefault(part, {})[reference] = {
                name: metrics.evaluate(
                    truth,
                    flags,
                    space,
                    answered=valid.get(name),
                    groups=tables.groups(chosen),
                    draws=draws,
                    rng=np.random.default_rng(seed),  # the same draws for every candidate
                )
                for name, flags in decided.items()
            }
    return evaluated


def select(evaluated: Mapping[str, Any], exportable: list[str], metric: str) -> dict[str, Any]:
    """The champion and the best exportable encoder by `metric` on validation, the earlier on a tie.

    `Problem` where no candidate can be exported.
    """
    found = evaluated["validation"]["label"]
    values = {name: found[name]["overall"][metric]["value"] for name in found if name != "majority"}
    if not exportable:
        raise Problem(
            "no candidate can be exported", where="models", remedy="Add an encoder (e5 or bert)."
        )
    return {
        "metric": metric,
        "validation": values,
        "champion": max(values, key=lambda name: values[name]),
        "encoder": max(exportable, key=lambda name: values[name]),
    }


def summary(evaluated: Mapping[str, Any]) -> dict[str, Any]:
    """Candidate → the figures that `dvc metrics show` and `dvc exp show` print.

    The share of valid answers is among them for a candidate that has an invalid one anywhere.
    """
    invalid = {
        name
        for references in evaluated.values()
        for candidates in references.values()
        for name, found in candidates.items()
        if metrics.unanswered(found)
    }
    figures: dict[str, Any] = {}
    for part, references in evaluated.items():
        for reference, candidates in references.items():
            for name, found in candidates.items():
                prefix = part if reference == "label" else f"{part}_gold"
                own = figures.setdefault(name, {})
                for metric in ("macro_f1", "accuracy"):
                    own[f"{prefix}_{metric}"] = found["overall"][metric]["value"]
                if name in invalid:
                    own[f"{prefix}_valid"] = found["valid"]["share"]["value"]
    return figures


def told(evaluated: Mapping[str, Any]) -> str:
    """`bert .81 [.78, .84], …`: macro-F1 on test against the labels."""
    found = evaluated["test"]["label"]
    shown = [f"{name} {metrics.told(one['overall']['macro_f1'])}" for name, one in found.items()]
    return f"macro-F1 on {found['majority']['n']:,} test rows: {', '.join(shown)}"
