"""All candidates on the same rows, who of them is better, and which is chosen."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from undertone import tables
from undertone.annotation import queues
from undertone.errors import Problem
from undertone.labels import Flags, LabelSpace, Scores, answered
from undertone.measures import calibration, comparison, exact, metrics, slices
from undertone.measures.comparison import Metric

Judges = Mapping[str, tuple[LabelSpace, pd.DataFrame]]  # name → its thresholds, its scores
Folds = Mapping[str, pd.DataFrame]  # name → what `learning.Learner.out_of_fold` returned
Costs = Mapping[str, Mapping[str, float]]  # name → `ms` a text at batch 1, `bytes`

REFERENCES: tuple[tables.Reference, ...] = ("label", "gold")
BASELINES = ("majority", "stratified", "teachers")
NOISE = 0.2  # latencies that differ by less of the smaller count as equal


@dataclass(frozen=True)
class Asked:
    """What everybody said of the rows of a part that a reference knows. `decided` [n, labels] of each,
    baselines first; `scores` [n, labels] of those who have any."""

    part: str
    reference: tables.Reference
    truth: Flags
    groups: NDArray[np.int64]
    decided: Mapping[str, Flags]
    scores: Mapping[str, Scores]
    repeats: int = 1  # how often each row is among them

    @property
    def answered(self) -> dict[str, NDArray[np.bool_]]:
        return {name: answered(scores) for name, scores in self.scores.items()}


def evaluate_all(
    table: pd.DataFrame,
    judges: Judges,
    space: LabelSpace,
    *,
    folds: Folds | None = None,
    draws: int,
    seed: int,
) -> dict[str, Any]:
    """Part → reference → candidate → what `metrics.evaluate` returns; the intervals of shares that are
    0 or 1 are those of `exact`.

    The references are `label` (what the table's label columns say) and, where there is any on the
    part, `gold`; never mixed. Baselines are candidates too: `majority` always answers the commonest
    training label, `stratified` draws labels as often as training has them, and against gold, where
    voters gave the labels, `teachers` are their fused votes. With `folds` there is a part of that name
    too: every row, once for each repeat of the cross-validation, judged by a model that didn't see it;
    a row's repeats are drawn together, so the intervals are of the rows, not of the training's chance
    (Bengio & Grandvalet 2004). `Problem` where the labels or gold don't fit the codebook, a part lacks
    a label, or a candidate's scores don't fit the rows.
    """
    evaluated: dict[str, Any] = {}
    for asked in _asked(table, judges, space, folds, seed=seed):
        # n counts judgements: a row that is judged several times stands among them as often
        often = {"repeats": asked.repeats} if asked.repeats > 1 else {}
        evaluated.setdefault(asked.part, {})[asked.reference] = {
            name: often | _judged(asked, name, space, draws, seed) for name in asked.decided
        }
    return evaluated


def compare_all(
    table: pd.DataFrame,
    judges: Judges,
    space: LabelSpace,
    *,
    folds: Folds | None = None,
    metric: Metric,
    draws: int,
    seed: int,
) -> dict[str, Any]:
    """Part → reference → what `comparison.compare` returns: every candidate against each that comes
    after it, against `majority` and, on gold, against `teachers`; p is corrected for all of them."""
    compared: dict[str, Any] = {}
    for asked in _asked(table, judges, space, folds, seed=seed):
        pairs = [*combinations(judges, 2)]
        pairs += [
            (name, floor)
            for floor in ("majority", "teachers")
            if floor in asked.decided
            for name in judges
        ]
        found = _compared(asked, pairs, metric=metric, draws=draws, seed=seed)
        compared.setdefault(asked.part, {})[asked.reference] = found
    return compared


def compare_two(
    table: pd.DataFrame,
    judges: Judges,
    space: LabelSpace,
    *,
    part: str,
    reference: tables.Reference,
    metric: Metric,
    draws: int,
    seed: int,
) -> dict[str, Any]:
    """The first of two judges against the second, as `comparison.compare` returns it."""
    one, other = judges
    for asked in _asked(table, judges, space, None, seed=seed):
        if (asked.part, asked.reference) == (part, reference):
            return _compared(asked, [(one, other)], metric=metric, draws=draws, seed=seed)[0]
    remedy = "Rows that a review chose are none (docs/mixes.md)." if reference == "gold" else ""
    what = f"no row of part '{part}' has a {reference}"
    raise Problem(what, where=f"{one} and {other}", remedy=remedy)


def select(
    evaluated: Mapping[str, Any],
    compared: Mapping[str, Any],
    costs: Costs,
    exportable: Sequence[str],
    metric: Metric,
    twins: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The champion, and the best encoder among those that can be exported, on validation.

    Those that the best isn't shown to be better than are its equals (the paired test, corrected by
    Holm for the comparisons with the best); of them the cheapest wins: the fastest, of those about as
    fast (within 20 %) the smallest. Baselines never win, and who isn't above `majority` does only where
    nobody is. Where there are folds, they decide in validation's place. `compared` is what
    `compare_all` returned. `twins`: who learnt from a mix of its own → who differs in that alone; the
    former can win only where `kept` says so, and then the latter can't. `Problem` where no candidate can
    be exported, or a comparison or a cost is missing.
    """
    if not exportable:
        raise Problem(
            "no candidate can be exported", where="models", remedy="Add an encoder (e5 or bert)."
        )
    part = "folds" if "folds" in evaluated else "validation"
    found = evaluated[part]["label"]
    values = {name: found[name]["overall"][metric]["value"] for name in found if name not in BASELINES}
    floor = found["majority"]["overall"][metric]["value"]
    p = {
        frozenset(pair["between"]): pair["p"]
        for pair in compared[part]["label"]
        if pair["metric"] == metric
    }
    mixes = kept(compared, twins or {}, metric)
    beaten = {one["twin"] for one in mixes.values() if one["kept"]}  # whatever silver labels say
    fit = {
        name: one
        for name, one in values.items()
        if name not in beaten and (name not in mixes or mixes[name]["kept"])
    }
    champion, equals, why = _chosen(fit, floor, p, costs)
    able = {name: value for name, value in fit.items() if name in exportable}
    encoder, its_equals, its_why = _chosen(able, floor, p, costs)
    return {
        "metric": metric,
        "part": part,
        "values": values,
        "champion": champion,
        "equals": equals,
        "why": why,
        "encoder": encoder,
        "encoder_equals": its_equals,
        "encoder_why": its_why,
        "mixes": mixes,
    }


def kept(compared: Mapping[str, Any], twins: Mapping[str, str], metric: Metric) -> dict[str, Any]:
    """Candidate on a mix of its own → whether it is kept: where it is shown to be better than its twin
    on people's labels of validation (the paired test, Holm over all such candidates).

    `twin`; `difference`, `p` and `p_holm`, `n`: on gold, null where validation has none, and then
    nothing is kept.
    """
    pairs = {
        frozenset(pair["between"]): pair
        for pair in compared["validation"].get("gold", [])
        if pair["metric"] == metric
    }
    found: dict[str, Any] = {}
    for name, twin in twins.items():
        pair = pairs.get(frozenset((name, twin)))
        found[name] = {
            "twin": twin,
            "difference": None,
            "p": None,
            "p_holm": None,
            "n": 0,
            "kept": False,
        }
        if pair is not None:
            first = pair["between"][0] == name
            found[name] |= {key: pair[key] for key in ("p", "n")}
            found[name]["difference"] = pair["difference"] if first else _turned(pair["difference"])
    judged = [name for name, one in found.items() if one["p"] is not None]
    for name, p in zip(judged, comparison.holm([found[name]["p"] for name in judged]), strict=True):
        better = found[name]["difference"]["value"] > 0 and p <= comparison.LEVEL
        found[name] |= {"p_holm": float(p), "kept": bool(better)}
    return found


def _turned(one: Mapping[str, float | None]) -> dict[str, float | None]:
    """A difference, as the second sees it."""

    def minus(value: float | None) -> float | None:
        return None if value is None else 0.0 - value  # and not -0.0

    return {"value": minus(one["value"]), "low": minus(one["high"]), "high": minus(one["low"])}


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


def curves(
    table: pd.DataFrame, judges: Judges, space: LabelSpace, *, draws: int, seed: int
) -> dict[str, Any]:
    """Candidate → `reliability`, `coverage_risk` and, where it may abstain, `answered` (else null), as
    `calibration` returns them: on test, against the labels."""
    asked = _on_test(table, judges, space, seed)
    every = len(np.unique(asked.groups))

    def rule(name: str, own: LabelSpace, rng: np.random.Generator) -> dict[str, Any]:
        told = calibration.answered_error(
            asked.scores[name], asked.truth, own, groups=asked.groups, draws=draws, rng=rng
        )
        given = ~own.abstains(asked.scores[name])
        units = len(np.unique(asked.groups[given]))
        return {
            **told,
            "coverage": exact.share(told["coverage"], every),
            "error": exact.share(told["error"], units),
        }

    def found(name: str, own: LabelSpace) -> dict[str, Any]:
        scores, sampled = asked.scores[name], dict[str, Any](groups=asked.groups, draws=draws)
        rngs = (np.random.default_rng(seed) for _ in range(2))
        return {
            "reliability": calibration.reliability(scores, asked.truth, own),
            "coverage_risk": calibration.coverage_risk(
                scores, asked.truth, own, **sampled, rng=next(rngs)
            ),
            "answered": None if own.abstain is None else rule(name, own, next(rngs)),
        }

    return {name: found(name, own) for name, (own, _) in judges.items()}


def by_slice(
    table: pd.DataFrame,
    judges: Judges,
    space: LabelSpace,
    columns: Sequence[str],
    *,
    min_rows: int,
    draws: int,
    seed: int,
) -> dict[str, Any]:
    """Candidate → what `slices.by_column` returns: on test, against the labels."""
    asked = _on_test(table, judges, space, seed)
    rows = table[table["part"] == "test"]
    return {
        name: slices.by_column(
            rows,
            asked.truth,
            asked.decided[name],
            space,
            columns,
            answered=asked.answered[name],
            min_rows=min_rows,
            draws=draws,
            rng=np.random.default_rng(seed),
        )
        for name in judges
    }


def told(evaluated: Mapping[str, Any]) -> str:
    """`bert .81 [.78, .84], …`: macro-F1 on test against the labels."""
    found = evaluated["test"]["label"]
    shown = [f"{name} {metrics.told(one['overall']['macro_f1'])}" for name, one in found.items()]
    return f"macro-F1 on {found['majority']['n']:,} test rows: {', '.join(shown)}"


def _asked(
    table: pd.DataFrame, judges: Judges, space: LabelSpace, folds: Folds | None, *, seed: int
) -> Iterator[Asked]:
    for reference in REFERENCES:
        _check_columns(table, reference, space)
    train = tables.judged(table[table["part"] == "train"], "label", space) > 0.5
    for part in ("validation", "test"):
        rows = table[table["part"] == part]
        for reference in REFERENCES:
            given = tables.judged(rows, reference, space)
            known = ~np.isnan(given).all(axis=1)
            chosen, truth = rows.iloc[np.flatnonzero(known)], given[known] > 0.5
            decides = reference == "gold" and part != "test"
            if not known.any() or (decides and queues.uneven(chosen, len(rows))):
                continue
            _check_truth(given[known], part, reference, space)
            decided = {
                "majority": metrics.majority(train, len(chosen), space),
                # another stream than the bootstrap's
                "stratified": metrics.stratified(train, len(chosen), np.random.default_rng([seed, 1])),
            }
            scores = {}
            for name, (own, given_scores) in judges.items():
                scores[name] = _scores(given_scores, chosen["id"], space, where=f"scores of {name}")
                decided[name] = own.decide(scores[name])
            # against silver the teachers would judge themselves
            if reference == "gold" and f"silver.{space.labels[0]}" in chosen:
                silver = chosen[[f"silver.{label}" for label in space.labels]].to_numpy(np.float64)
                scores["teachers"] = silver
                decided["teachers"] = space.decide(silver)
            yield Asked(part, reference, truth, tables.groups(chosen), decided, scores)
    if folds and not all(found.empty for found in folds.values()):
        yield _folded(table, folds, space, seed)


def _judged(asked: Asked, name: str, space: LabelSpace, draws: int, seed: int) -> dict[str, Any]:
    decided, scores = asked.decided[name], asked.scores.get(name)
    found = metrics.evaluate(
        asked.truth,
        decided,
        space,
        scores=scores,
        groups=asked.groups,
        draws=draws,
        rng=np.random.default_rng(seed),  # the same draws for every candidate
    )
    valid = np.ones(len(decided), dtype=bool) if scores is None else answered(scores)
    return exact.shares(found, asked.truth, decided, valid, asked.groups)


def _on_test(table: pd.DataFrame, judges: Judges, space: LabelSpace, seed: int) -> Asked:
    asked = _asked(table[table["part"] != "validation"], judges, space, None, seed=seed)
    return next(one for one in asked if (one.part, one.reference) == ("test", "label"))


def _folded(table: pd.DataFrame, folds: Folds, space: LabelSpace, seed: int) -> Asked:
    """The rows of all folds, in the order of the first candidate's."""
    first = next(iter(folds.values()))[["id", "fold"]]
    rows = table.set_index("id", drop=False).reindex(first["id"])
    truth = tables.judged(rows, "label", space) > 0.5
    decided = {  # all rows are in most of the folds' training parts
        "majority": metrics.majority(truth, len(rows), space),
        "stratified": metrics.stratified(truth, len(rows), np.random.default_rng([seed, 1])),
    }
    scores = {}
    for name, found in folds.items():
        if not found[["id", "fold"]].equals(first):
            raise Problem(
                "other rows or folds than the others'",
                where=f"folds of {name}",
                remedy="Run `dvc repro train`.",
            )
        scores[name] = found[list(space.labels)].to_numpy(np.float64)
        space.check(scores[name])
        decided[name] = found[[f"decided.{label}" for label in space.labels]].to_numpy() > 0.5
    repeats = len(first) // first["id"].nunique()
    return Asked("folds", "label", truth, tables.groups(rows), decided, scores, repeats)


def _compared(
    asked: Asked, pairs: Sequence[tuple[str, str]], *, metric: Metric, draws: int, seed: int
) -> list[dict[str, Any]]:
    return comparison.compare(
        asked.truth,
        asked.decided,
        pairs,
        answered=asked.answered,
        groups=asked.groups,
        metric=metric,
        draws=draws,
        rng=np.random.default_rng(seed),  # the draws of the candidates' own intervals
    )


def _scores(table: pd.DataFrame, ids: "pd.Series[str]", space: LabelSpace, *, where: str) -> Scores:
    """As `tables.scores_of`, and every trouble names whose scores they are."""
    try:
        return tables.scores_of(table, ids, space, where=where)
    except ValueError:
        raise Problem("a score is not a number", where=where) from None
    except Problem as problem:
        if str(problem).startswith(where):
            raise
        raise Problem(str(problem), where=where) from None


def _check_columns(table: pd.DataFrame, reference: tables.Reference, space: LabelSpace) -> None:
    columns = [str(column).partition(".") for column in table.columns]
    there = [label for kind, _, label in columns if kind == reference]
    where = f"{reference} of codebook {space.codebook}"
    if unknown := [label for label in there if label not in space.labels]:
        raise Problem(f"labels it doesn't have: {', '.join(unknown)}", where=where)
    if missing := [label for label in space.labels if there and label not in there]:
        raise Problem(f"no column for {', '.join(missing)}", where=where)


def _check_truth(
    given: NDArray[np.float64], part: str, reference: tables.Reference, space: LabelSpace
) -> None:
    where = f"{reference} of the {part} part"
    odd = ~np.isin(given, (0, 1)).all(axis=1)
    if odd.any():
        raise Problem(f"{int(odd.sum())} of {len(given)} rows have a label neither 0 nor 1", where=where)
    odd = given.sum(axis=1) != 1
    if not space.many and odd.any():
        raise Problem(f"{int(odd.sum())} of {len(given)} rows have not exactly one label", where=where)
    lacking = [label for at, label in enumerate(space.labels) if not given[:, at].any()]
    if reference == "label" and lacking:  # gold may be few rows
        raise Problem(
            f"no row of {', '.join(lacking)}, so nothing can be said of finding it",
            where=where,
            remedy="Split again, or merge or drop the label in the codebook.",
        )


def _chosen(
    values: Mapping[str, float], floor: float, p: Mapping[frozenset[str], float], costs: Costs
) -> tuple[str, list[str], str]:
    """The one of `values` that wins, the best's equals (it among them, best first), and why."""
    above = {name: value for name, value in values.items() if value > floor} or values
    best = max(above, key=lambda name: above[name])
    others = [name for name in above if name != best]
    if missing := [name for name in others if frozenset((best, name)) not in p]:
        raise Problem(
            f"{best} was not compared with {missing[0]}",
            where="comparisons",
            remedy="Run `dvc repro evaluate`.",
        )
    corrected = comparison.holm([p[frozenset((best, name))] for name in others])
    near = [name for name, one in zip(others, corrected, strict=True) if one > comparison.LEVEL]
    equals = [best, *sorted(near, key=lambda name: -above[name])]
    if unknown := [name for name in equals if name not in costs]:
        raise Problem(
            f"no cost of {unknown[0]}", where="cost.json", remedy="Run `dvc repro`, or `dvc pull`."
        )
    fast = min(costs[name]["ms"] for name in equals) * (1 + NOISE)
    winner = min(
        (name for name in equals if costs[name]["ms"] <= fast),
        key=lambda name: (costs[name]["bytes"], -above[name]),
    )
    why = f"{best} is best ({values[best]:.3f})"
    if near:
        why += f"; no difference shown to {_listed(near)}, {_cheaper(winner, equals, costs)}"
    elif others:
        why += f", and shown to be better than {_listed(others)}"
    below = [name for name, value in values.items() if value <= floor]
    if len(below) == len(values):
        why += f"; none is above majority ({floor:.3f})"
    elif below:
        why += f"; not above majority ({floor:.3f}): {_listed(below)}"
    return winner, equals, why


def two_digits(value: float) -> str:
    """Rounded, and written out: 440, where `.2g` writes 4.4e+02."""
    return f"{float(f'{value:.2g}'):,g}"


def _cheaper(winner: str, equals: Sequence[str], costs: Costs) -> str:
    """`which is cheaper (1.2 ms against 5.1 ms)`: why the winner won among the best's equals."""
    best, *near = equals
    against = best if winner != best else min(near, key=lambda name: costs[name]["ms"])
    ms, other = costs[winner]["ms"], costs[against]["ms"]
    figures = f"{two_digits(ms)} ms against {two_digits(other)} ms"
    if max(ms, other) <= min(ms, other) * (1 + NOISE):
        size, its = costs[winner]["bytes"] / 1e6, costs[against]["bytes"] / 1e6
        figures = f"about as fast, {size:.3g} MB against {its:.3g} MB"
    if winner == best:
        return f"{'none of which is' if len(near) > 1 else 'which is not'} cheaper ({figures})"
    if len(near) > 1:
        return f"of which {winner} is cheapest ({figures})"
    return f"which is cheaper ({figures})"


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
