"""What people are asked about comments, what they answer, and the gold labels that come of it.

A question is kept apart from the file that puts it to people (`reviewbook`, `labelstudio`): which rows,
why, with which probability, and a digest of each text. What comes back is believed only as far as it
fits that record.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from undertone import tables
from undertone.annotation import agreement, fuse
from undertone.annotation.queues import RANDOM
from undertone.codebook import Codebook, label_of, misspelt
from undertone.errors import Problem
from undertone.files import whole
from undertone.labels import LabelSpace

NONE = "none of these"  # what is answered where many labels are possible, and none applies
DECISION = "decision"  # who settles what the others differ on, where nobody is named
JOINED = ";"  # between several reviewers, and between several labels in a cell
GIVEN = "given"  # the folder of answers in a source's reviews: DVC's, as the one above is git's
GOLD = ("reviewers", "reviewed", "inclusion")  # the columns that come with gold labels

_NAME = re.compile(r"[^\s:;=+@-][^:;\n\r\t]{0,39}")  # a header, and one of several in a column
_FOLLOW_UP = "-decide(-[0-9]+)?"  # how the name of one ends that settles another's differences
_FILE = re.compile(rf"(?!(codebook|history)$)[a-z0-9][a-z0-9_-]{{0,19}}({_FOLLOW_UP})?")
_TAKEN = ("id", "text", "suggestion", "none")
_BETWEEN = re.compile(r"[;；,，/|+&\n]|\band\b")


@dataclass(frozen=True)
class Asked:
    """A question to `reviewers`, known by its name.

    `labels`: ids of those to choose from. `decides`: the review whose differences it settles, empty for
    one of its own. `rows`: `id`, `arm`, `inclusion`, `suggestion` (the model's, or empty), `digest` of
    the text, and `shown`: of what stands in the workbook's cell, another where the text is cut.
    """

    name: str
    source: str
    reviewers: tuple[str, ...]
    labels: tuple[str, ...]
    many: bool
    rows: pd.DataFrame
    decides: str = ""

    def about(self, comments: pd.DataFrame) -> set[str]:
        """The ids of the rows whose text is still the one that was asked about."""
        texts = dict(zip(comments["id"], comments["text"], strict=True))
        pairs = zip(self.rows["id"], self.rows["digest"], strict=True)
        return {one for one, own in pairs if one in texts and digest(texts[one]) == own}

    def save(self, path: Path) -> None:
        _write(self.rows, self, path)

    @classmethod
    def load(cls, path: Path) -> "Asked":
        rows = tables.read(path, ("id", "arm", "inclusion", "suggestion", "digest", "shown"))
        return cls(rows=rows, **_told(rows, path))


@dataclass(frozen=True)
class Line:
    """A row as it came back: `given` has what each reviewer chose, nothing of one who didn't; `days` on
    which, where the file says so."""

    number: int
    id: str
    text: str
    given: Mapping[str, tuple[str, ...]]
    days: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Review:
    """A question with its answers: `answers` has `id`, `reviewer`, `day` and a 0 or 1 for each label."""

    asked: Asked
    answers: pd.DataFrame

    def save(self, path: Path) -> None:
        """All rows, a line for each answer; one without a reviewer where there is none."""
        rows = self.asked.rows[["id", "arm", "inclusion", "digest"]]
        table = rows.merge(self.answers, on="id", how="left", sort=False)
        _write(
            table.assign(reviewer=table["reviewer"].fillna(""), day=table["day"].fillna("")),
            self.asked,
            path,
        )

    @classmethod
    def load(cls, path: Path) -> "Review":
        table = pd.read_parquet(path) if path.is_file() else pd.DataFrame()
        told = _told(table, path)
        rows = table.drop_duplicates("id")[["id", "arm", "inclusion", "digest"]].reset_index(drop=True)
        answers = table[table["reviewer"] != ""][["id", "reviewer", "day", *told["labels"]]]
        return cls(Asked(rows=rows, **told), answers.reset_index(drop=True))

    def with_answers(self, newer: pd.DataFrame) -> "Review":
        """Each reviewer's last answer to each row, by its day; a repeated one keeps its first day."""
        both = pd.concat([self.answers, newer], ignore_index=True)
        both = both.drop_duplicates(["id", "reviewer", *self.asked.labels])
        kept = both.sort_values("day", kind="stable").drop_duplicates(["id", "reviewer"], keep="last")
        return Review(self.asked, kept.sort_values(["id", "reviewer"], ignore_index=True))

    def replaced(self, before: "Review") -> int:
        """How many answers are others than those before."""
        both = pd.concat([before.answers, self.answers])
        return int(
            (both.groupby(["id", "reviewer"])[list(self.asked.labels)].nunique() > 1).any(axis=1).sum()
        )

    @property
    def differing(self) -> list[str]:
        """The ids of rows on which reviewers differ, in the order that they were asked in."""
        sets = self.answers.groupby("id")[list(self.asked.labels)].nunique().gt(1).any(axis=1)
        return [one for one in self.asked.rows["id"] if sets.get(one, False)]


def asked(
    name: str,
    source: str,
    queue: pd.DataFrame,
    reviewers: Sequence[str],
    space: LabelSpace,
    *,
    decides: str = "",
) -> Asked:
    """The question that a queue with `digest`, `shown` and `suggestion` makes; `Problem` on a name that
    can't stand in a workbook, whose sheet bears it (31 characters; Excel keeps `history` for itself)."""
    if not _FILE.fullmatch(name):
        raise Problem(
            f"no name for a review: '{name}'",
            where="undertone review",
            remedy="Take small letters, digits, _ and -, at most 20, a letter or digit first; not"
            " codebook, not history.",
        )
    folded = [one.casefold() for one in reviewers]
    wrong = [one for one in reviewers if not _NAME.fullmatch(one) or one.casefold() in _TAKEN]
    if wrong or len(set(folded)) < len(folded):
        raise Problem(
            f"no name for a reviewer: '{wrong[0]}'" if wrong else "two reviewers of one name",
            where="--reviewer",
            remedy=f"At most 40 characters on one line, no : or ;, not {', '.join(_TAKEN)}.",
        )
    return Asked(name, source, tuple(reviewers), space.labels, space.many, queue, decides)


def is_follow_up(name: str) -> bool:
    return re.search(f"{_FOLLOW_UP}$", name) is not None


def digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def answers(
    question: Asked,
    lines: Iterable[Line],
    codebook: Codebook,
    where: str,
    *,
    today: str,
    whole: bool = True,
) -> tuple[pd.DataFrame, list[Problem]]:
    """What `Review.answers` holds, and a line for each thing that is wrong; then no answer counts.

    `codebook`: the one that people label by. A row that nobody filled in is no fault, nor is another
    order, nor, unless it should be `whole`, a row that isn't there. `Problem` where the codebook's
    labels are no longer those that were asked for.
    """
    check_labels(question, codebook, where)
    known = question.rows.set_index("id")
    faults: list[Problem] = []
    first: dict[str, int] = {}
    rows: list[dict[str, Any]] = []
    for line in lines:
        at = f"{where}, row {line.number}"
        if line.id not in known.index:
            what = "an id that this review did not ask for" if line.id else "no id"
            faults.append(Problem(what, where=at, remedy="Take the row out, or write its id back."))
            continue
        at = f"{at}, id {line.id}"
        if line.id in first:
            what = f"the same id as row {first[line.id]}"
            faults.append(Problem(what, where=at, remedy="Take one of the two out."))
            continue
        first[line.id] = line.number
        if digest(line.text) not in (known.at[line.id, "digest"], known.at[line.id, "shown"]):
            remedy = (
                "Copy it from the workbook that was sent; answers belong to texts as they were asked."
            )
            faults.append(Problem("the text was edited", where=at, remedy=remedy))
        for reviewer, chosen in line.given.items():
            found, fault = _judged(chosen, codebook)
            if fault:
                faults.append(Problem(fault, where=f"{at}, {reviewer}"))
            else:
                day = line.days.get(reviewer) or today
                rows.append({"id": line.id, "reviewer": reviewer, "day": day, **found})
    for one in known.index:
        if whole and one not in first:
            remedy = "Copy it back from the workbook that was sent; its answer may stay empty."
            faults.append(Problem("the row was deleted", where=f"{where}, id {one}", remedy=remedy))
    columns = ["id", "reviewer", "day", *question.labels]
    return pd.DataFrame(rows, columns=columns), faults


def check_labels(question: Asked, codebook: Codebook, where: str) -> None:
    if (question.labels, question.many) != (codebook.space.labels, codebook.many):
        raise Problem(
            f"its labels were {', '.join(question.labels)}; now they are"
            f" {', '.join(codebook.space.labels)}",
            where=where,
            remedy="Set data.codebook and data.scheme back, or ask anew.",
        )


def _judged(chosen: Sequence[str], codebook: Codebook) -> tuple[dict[str, float], str]:
    """A 0 or 1 for each label, or why there is none."""
    spellings = codebook.spellings
    found: list[str] = []
    for value in chosen:
        label = NONE if codebook.many and value == NONE else label_of(value, spellings)
        pieces = [label_of(one, spellings) for one in _BETWEEN.split(value) if one.strip()]
        if label is not None:
            found.append(label)
        elif len(pieces) > 1 and None not in pieces:
            found += [one for one in pieces if one is not None]
        else:
            return {}, misspelt(value, codebook)
    several = len(set(found)) > 1
    if several and not codebook.many:
        return {}, "two labels where one is allowed"
    if several and NONE in found:
        return {}, f"a label, and '{NONE}' as well"
    return {label: float(label in found) for label in codebook.space.labels}, ""


@dataclass(frozen=True)
class Reviewed:
    """`table`: `id`, `gold.<label>`, and the columns of GOLD, only rows with a gold label; with them in
    its attrs `others`, how likely any other row was to be reviewed, and `asked`, the ids of all that
    people were asked about as it is now, left open or tied too. `told`: counts and agreement,
    JSON-ready, without texts, ids and names."""

    table: pd.DataFrame
    told: dict[str, Any]


def settled(
    reviews: Sequence[Review],
    comments: pd.DataFrame,
    space: LabelSpace,
    *,
    draws: int,
    rng: np.random.Generator,
) -> Reviewed:
    """Gold labels: what most reviewers say of a row, or who settles their differences.

    A tie that nobody has settled leaves a row without gold, as does a text that is another by now.
    `inclusion` of a row is its probability of having been labelled in one of the reviews, which are in
    the order that they were asked in: a row of one is in no later one. Where an arm was not filled in to
    its end, each of its rows counts as one drawn for that: workbooks come in random order (response
    homogeneity groups, Särndal, Swensson & Wretman 1992, 15.6).
    """
    fitting = [
        one for one in reviews if (one.asked.labels, one.asked.many) == (space.labels, space.many)
    ]
    own = [one for one in fitting if not one.asked.decides]
    rows = pd.concat([_EMPTY, *(one.asked.rows for one in own)], ignore_index=True)
    current = {one for review in own for one in review.asked.about(comments)}
    labels = list(space.labels)
    given = _latest(own, comments, ["id", "reviewer"], labels)
    last = _latest([one for one in fitting if one.asked.decides], comments, ["id"], labels)
    ids, people, votes = votes_of(given, space)
    gold = (
        fuse.decided(fuse.majority(votes, many=space.many)[0], space)
        if people
        else votes.reshape(0, len(labels))
    )
    table = pd.DataFrame(gold, columns=[f"gold.{label}" for label in labels])
    table.insert(0, "id", pd.Series(ids, dtype="str"))
    of = given.groupby("id")
    table["reviewers"] = table["id"].map(of["reviewer"].agg(JOINED.join)).astype("str")
    table["reviewed"] = table["id"].map(of["day"].max()).astype("str")
    table = _with_decisions(table, last, labels)
    undecided = table[f"gold.{labels[0]}"].isna()
    table = table[~undecided].reset_index(drop=True)
    table["inclusion"], others = _inclusion(own, table["id"])
    table.attrs = {"others": others, "asked": sorted(current)}
    groups = tables.groups(comments.set_index("id", drop=False).loc[ids])
    everyone = [f"reviewer {number}" for number in range(1, len(people) + 1)]
    told = {
        "reviews": len(own),
        "asked": int(rows["id"].nunique()),
        "unfilled": len(set(rows["id"]) - set().union(*(one.answers["id"] for one in own))),
        "gone": len(set(rows["id"]) - current),
        "reviewed": len(ids),
        "differing": int((given.groupby("id")[labels].nunique() > 1).any(axis=1).sum()),
        "settled": int(last["id"].isin(ids).sum()),
        "undecided": int(undecided.sum()),
        "gold": len(table),
        "arms": _arms(own, set(ids), set(table["id"])),
        "of_other_labels": len(reviews) - len(fitting),
        "agreement": agreement.agreement(votes, everyone, space, groups=groups, draws=draws, rng=rng)
        if len(people) > 1
        else None,
    }
    return Reviewed(table, told)


def votes_of(given: pd.DataFrame, space: LabelSpace) -> tuple[list[str], list[str], fuse.Votes]:
    """The rows and the reviewers of some answers, and their votes."""
    ids, people = list(dict.fromkeys(given["id"])), sorted(set(given["reviewer"]))
    votes = np.full((len(people), len(ids), len(space.labels)), np.nan)
    who = pd.Index(people).get_indexer(pd.Index(given["reviewer"]))
    row = pd.Index(ids).get_indexer(pd.Index(given["id"]))
    votes[who, row] = given[list(space.labels)].to_numpy(np.float64)
    return ids, people, votes


_EMPTY = pd.DataFrame({"id": [], "arm": [], "digest": []}, dtype="str").assign(inclusion=0.0)


def merged(
    comments: pd.DataFrame,
    reviewed: pd.DataFrame,
    space: LabelSpace,
    *,
    drawn: NDArray[np.float64] | None = None,
) -> pd.DataFrame:
    """Comments with people's reviewed labels as gold, and the columns of GOLD; unchanged without any.

    Where a table brought gold along, `inclusion` is of either: `drawn` [n] with which it was, without it
    all rows alike.
    """
    if reviewed.empty:
        return comments
    gold = [f"gold.{label}" for label in space.labels]
    brought = tables.judged(comments, "gold", space).copy()
    known = np.asarray(~np.isnan(brought).any(axis=1))
    alike = np.full(len(comments), known.mean())
    brought_by = alike if drawn is None else np.where(np.isnan(drawn), alike, drawn)
    at = pd.Index(reviewed["id"]).get_indexer(pd.Index(comments["id"]))
    here = at >= 0
    inclusion = np.full(len(comments), np.nan)
    inclusion[known] = reviewed.attrs["others"]
    inclusion[here] = reviewed["inclusion"].to_numpy(np.float64)[at[here]]
    brought[here] = reviewed[gold].to_numpy(np.float64)[at[here]]
    columns: dict[str, Any] = dict(zip(gold, brought.T, strict=True))
    for column in ("reviewers", "reviewed"):
        columns[column] = np.where(here, reviewed[column].to_numpy(object)[at], "")
    columns["inclusion"] = 1 - (1 - inclusion) * (1 - brought_by)
    return comments.assign(**columns)


def _with_decisions(table: pd.DataFrame, last: pd.DataFrame, labels: list[str]) -> pd.DataFrame:
    place = pd.Index(table["id"]).get_indexer(pd.Index(last["id"]))
    last, place = last[place >= 0], place[place >= 0]
    table = table.copy()
    table.loc[place, [f"gold.{label}" for label in labels]] = last[labels].to_numpy(np.float64)
    table.loc[place, "reviewers"] = (
        table.loc[place, "reviewers"].to_numpy(object) + JOINED + last["reviewer"].to_numpy(object)
    )
    table.loc[place, "reviewed"] = last["day"].to_numpy(object)
    return table


def _latest(
    reviews: Sequence[Review], comments: pd.DataFrame, key: list[str], labels: list[str]
) -> pd.DataFrame:
    """The last answer of each key to a text that is still as it was; of one day that of the review that
    comes later here."""
    parts = [pd.DataFrame(columns=["id", "reviewer", "day", *labels])]
    for one in reviews:
        parts.append(one.answers[one.answers["id"].isin(one.asked.about(comments))])
    order = pd.concat(parts, ignore_index=True).sort_values([*key, "day"], kind="stable")
    return order.drop_duplicates(key, keep="last").reset_index(drop=True)


def _inclusion(reviews: Sequence[Review], ids: "pd.Series[str]") -> tuple[NDArray[np.float64], float]:
    """For each of `ids`, and for any row that no review holds, how likely it was to get a gold label."""
    missed, missed_by_others = np.ones(len(ids)), 1.0
    open_, open_others = np.ones(len(ids)), 1.0  # not asked about yet; nobody is asked about a row twice
    with_gold = set(ids)
    for one in reviews:
        rows = one.asked.rows
        filled = rows["id"].isin(with_gold).groupby(rows["arm"]).transform("mean")
        own = pd.DataFrame({"asked": rows["inclusion"], "gold": rows["inclusion"] * filled})
        drawn = own[rows["arm"] == RANDOM]
        other = drawn.iloc[0] if len(drawn) else pd.Series({"asked": 0.0, "gold": 0.0})
        of = own.set_index(rows["id"]).reindex(ids).fillna(other)
        missed -= open_ * of["gold"].to_numpy(np.float64)
        missed_by_others -= open_others * float(other["gold"])
        open_ *= 1 - of["asked"].to_numpy(np.float64)
        open_others *= 1 - float(other["asked"])
    return 1 - missed.clip(0), 1 - max(missed_by_others, 0.0)  # rounding may lead below 0


def _arms(reviews: Sequence[Review], reviewed: set[str], gold: set[str]) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {}
    for one in reviews:
        for arm, ids in one.asked.rows.groupby("arm", sort=True)["id"]:
            own = counts.setdefault(str(arm), {"asked": 0, "reviewed": 0, "gold": 0})
            own["asked"] += len(ids)
            own["reviewed"] += int(ids.isin(reviewed).sum())
            own["gold"] += int(ids.isin(gold).sum())
    return counts


def _write(table: pd.DataFrame, question: Asked, path: Path) -> None:
    table = table.copy()
    table.attrs = {
        "name": question.name,
        "source": question.source,
        "reviewers": list(question.reviewers),
        "labels": list(question.labels),
        "many": question.many,
        "decides": question.decides,
    }
    with whole(path) as beside:
        table.to_parquet(beside, index=False)


def _told(table: pd.DataFrame, path: Path) -> dict[str, Any]:
    """The fields of `Asked` that a table's attrs hold."""
    told = {str(name): value for name, value in table.attrs.items()}
    if set(told) != {"name", "source", "reviewers", "labels", "many", "decides"}:
        raise Problem(
            "no record of a review", where=str(path), remedy="Run `dvc checkout`, or `dvc pull`."
        )
    return told | {"reviewers": tuple(told["reviewers"]), "labels": tuple(told["labels"])}


def told(found: Mapping[str, Any]) -> str:
    """One line for the log, of what `settled` told."""
    shown = (
        f"{found['asked']:,} rows asked about, {found['reviewed']:,} reviewed,"
        f" {found['differing']:,} differ, {found['settled']:,} settled → {found['gold']:,} gold"
    )
    if found["gone"]:
        shown += f"; {found['gone']:,} are gone or have another text by now"
    if found["of_other_labels"]:
        shown += f"; {found['of_other_labels']} reviews are of other labels"
    return f"{shown}; {agreement.told(found['agreement'])}" if found["agreement"] else shown
