"""Silver labels: what the voters' fused votes say of each comment, with where it came from.

Silver is not gold: it is compared with people's labels here, and never called by their name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from undertone import params, tables
from undertone.annotation import agreement
from undertone.annotation.fuse import Fused, Votes, decided, fuse
from undertone.codebook import Codebook
from undertone.corpus.ledger import Ledger
from undertone.errors import Problem
from undertone.labels import LabelSpace
from undertone.measures import metrics

TEACHERS, PROMPTS, ANSWERED = "teachers", "prompts", "answered"
JOINED = ";"


@dataclass(frozen=True)
class Silver:
    """`table`: id, a score for each label, teachers, prompts (their sha256) and answered (the latest
    day), only rows with a label; `told`: all that the report says of it, JSON-ready, text-free."""

    table: pd.DataFrame
    ledger: Ledger
    told: dict[str, Any]


def fused(
    votes: pd.DataFrame,
    comments: pd.DataFrame,
    prompts: Mapping[str, str],
    codebook: Codebook,
    scheme: str | None,
    settings: params.Fuse,
    *,
    draws: int,
    seed: int,
) -> Silver:
    """One label for each comment that has a valid answer; agreement; teachers against people.

    All in the labels that models learn: votes are merged by `scheme` before they are fused, for
    voters who differ on two labels of one group agree. `codebook` is the whole one.
    Without voters the table is empty, for the labels came with the comments.

    `votes` as `collect` gives them, `comments` cleaned, `prompts` voter → the sha256 of its prompt.
    """
    asked, space = codebook.asked(scheme).space, codebook.learnt(scheme).space
    labels, voters = list(space.labels), list(prompts)
    if not voters:
        columns = ["id", *labels, TEACHERS, PROMPTS, ANSWERED]
        empty = pd.DataFrame({column: pd.Series(dtype="str") for column in columns})
        return Silver(empty, Ledger("fuse", len(comments), len(comments)), {"method": None})
    valid = votes[votes["outcome"] == "ok"]
    rows = comments[comments["id"].isin(valid["id"])].reset_index(drop=True)
    stack = _stacked(valid, rows["id"], voters, list(asked.labels))
    stack = np.stack([codebook.merged(one, scheme) for one in stack])
    groups = tables.groups(rows)

    def rng() -> np.random.Generator:
        return np.random.default_rng(seed)

    found = fuse(stack, voters, settings, space, groups=groups, draws=draws, rng=rng())
    kept = ~np.isnan(found.scores).any(axis=1)
    table = pd.DataFrame(found.scores[kept], columns=labels)
    table.insert(0, "id", rows["id"].to_numpy()[kept])
    provenance = _provenance(valid, voters, prompts)
    table = table.merge(provenance, on="id", how="left", validate="one_to_one")
    people = _people(rows, codebook, scheme)
    if twice := set(people) & set(voters):
        raise Problem(
            f"'{min(twice)}' is both a voter and a column of people's labels",
            where="params.yaml: request",
            remedy="Give the voter another name.",
        )
    everyone = np.concatenate([stack, *(one[None] for one in people.values())])
    told = {
        "method": settings.method,
        "many": space.many,
        "teachers": found.teachers,
        "agreement": agreement.agreement(
            everyone, [*voters, *people], space, groups=groups, draws=draws, rng=rng()
        ),
        "people": list(people),
        "gold": _against_gold(
            stack,
            voters,
            found,
            tables.judged(_merged(rows, "gold", codebook, scheme), "gold", space),
            space,
            groups,
            draws=draws,
            seed=seed,
        ),
    }
    ledger = Ledger("fuse", len(rows), len(table), dict(found.dropped))
    return Silver(table, ledger, told)


def line(told: Mapping[str, Any]) -> str:
    """The voters' accuracy for the log: as estimated without people, and by people where there are."""
    if told["method"] is None:
        return "no voters, the labels came with the table"
    gold = told["gold"] or {}
    shown = []
    for name, one in told["teachers"].items():
        value = one["accuracy"]["value"]
        estimated = "?" if value is None else f"{value:.3f}"
        judged = metrics.right(gold[name], many=told["many"])["value"] if name in gold else None
        people = "" if judged is None else f", by people {judged:.3f}"
        shown.append(f"{name} about {estimated} right{people}")
    return f"{told['method']}: {'; '.join(shown)}; {agreement.told(told['agreement'])}"


def labelled(
    comments: pd.DataFrame, silver: pd.DataFrame | None, codebook: Codebook, scheme: str | None
) -> tuple[pd.DataFrame, Ledger]:
    """Comments with the labels that models learn, in `label.<label>`, and gold in the same labels.

    With `silver` only its rows, decided, and their scores in `silver.<label>`; without it the labels
    that came with the table. `label` and `gold` are merged by `scheme`.
    """
    space = codebook.learnt(scheme).space
    table = _merged(comments, "gold", codebook, scheme)
    if silver is None:
        table = _merged(table, "label", codebook, scheme)
        return table, Ledger("label", len(comments), len(table), {})
    table = table.merge(silver[["id", TEACHERS, PROMPTS, ANSWERED]], on="id", validate="one_to_one")
    scores = tables.scores_of(silver, table["id"], space, where="silver")
    table = _with(table, "silver", scores, space)
    table = _with(table, "label", space.decide(scores).astype(np.float64), space)
    return table, Ledger("label", len(silver), len(table), {})


def by_hand(comments: pd.DataFrame, codebook: Codebook, scheme: str | None) -> pd.DataFrame:
    """The comments that people labelled, whoever else did, with gold in the labels that models learn."""
    table = _merged(comments, "gold", codebook, scheme)
    flags = tables.judged(table, "gold", codebook.learnt(scheme).space)
    return table.iloc[np.flatnonzero(~np.isnan(flags).any(axis=1))].reset_index(drop=True)


def _merged(
    table: pd.DataFrame, reference: tables.Reference, codebook: Codebook, scheme: str | None
) -> pd.DataFrame:
    asked, learnt = codebook.asked(scheme).space, codebook.learnt(scheme).space
    if scheme not in codebook.merges or f"{reference}.{asked.labels[0]}" not in table:
        return table
    flags = codebook.merged(tables.judged(table, reference, asked), scheme)
    without = table.drop(columns=[f"{reference}.{label}" for label in asked.labels])
    return _with(without, reference, flags, learnt)


def _with(
    table: pd.DataFrame, prefix: str, values: NDArray[np.float64], space: LabelSpace
) -> pd.DataFrame:
    columns = [f"{prefix}.{label}" for label in space.labels]
    return pd.concat([table, pd.DataFrame(values, columns=columns, index=table.index)], axis=1)


def _stacked(
    valid: pd.DataFrame, ids: "pd.Series[str]", voters: Sequence[str], labels: list[str]
) -> Votes:
    """Votes [voters, n, labels] in the order of `ids`."""
    stack = np.full((len(voters), len(ids), len(labels)), np.nan)
    place = pd.Index(ids)
    for at, voter in enumerate(voters):
        own = valid[valid["voter"] == voter]
        stack[at, place.get_indexer(pd.Index(own["id"]))] = own[labels].to_numpy(np.float64)
    return stack


def _people(
    rows: pd.DataFrame, codebook: Codebook, scheme: str | None
) -> dict[str, NDArray[np.float64]]:
    """Each person's labels [n, labels learnt]: the annotators', or else the one gold column."""
    asked = codebook.asked(scheme).space
    suffix = f".{asked.labels[0]}"
    names = [
        column.removeprefix("annotator.").removesuffix(suffix)
        for column in rows.columns
        if column.startswith("annotator.") and column.endswith(suffix)
    ]
    people = {
        name: rows[[f"annotator.{name}.{label}" for label in asked.labels]].to_numpy(np.float64)
        for name in names
    }
    if not people and f"gold{suffix}" in rows:
        people = {"gold": tables.judged(rows, "gold", asked)}
    return {
        name: codebook.merged(flags, scheme)
        for name, flags in people.items()
        if not np.isnan(flags).all()
    }


def _against_gold(
    stack: Votes,
    voters: Sequence[str],
    found: Fused,
    gold: NDArray[np.float64],
    space: LabelSpace,
    groups: NDArray[np.int64],
    *,
    draws: int,
    seed: int,
) -> dict[str, Any] | None:
    """Each teacher and the fused label against people, on the rows that both judged."""
    if np.isnan(gold).all():
        return None
    judges = dict(zip(voters, stack, strict=True)) | {"silver": decided(found.scores, space)}
    return {
        name: metrics.evaluate(
            gold[both] > 0.5,
            flags[both] > 0.5,
            space,
            groups=groups[both],
            draws=draws,
            rng=np.random.default_rng(seed),
        )
        for name, flags in judges.items()
        if (both := ~np.isnan(gold).any(axis=1) & ~np.isnan(flags).any(axis=1)).any()
    }


def _provenance(valid: pd.DataFrame, voters: Sequence[str], prompts: Mapping[str, str]) -> pd.DataFrame:
    """id, the voters that answered it, their prompts' digests, and the latest day."""
    order = {voter: place for place, voter in enumerate(voters)}
    sorted_ = valid.assign(place=valid["voter"].map(order)).sort_values("place", kind="stable")
    of = sorted_.assign(prompt=sorted_["voter"].map(prompts)).groupby("id", sort=False)
    return pd.DataFrame(
        {
            TEACHERS: of["voter"].agg(JOINED.join),
            PROMPTS: of["prompt"].agg(JOINED.join),
            ANSWERED: of["answered"].max(),
        }
    ).reset_index()
