"""Answer files → one outcome for each request, and one vote for each readable answer.

Files come in any order, with retries, error files and repeats; what an answer says is decided in
`answers`. Every request ends in exactly one outcome.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd

from undertone.annotation import batch, prompts
from undertone.annotation.answers import Reader, Reading
from undertone.codebook import Codebook
from undertone.corpus.ledger import Ledger
from undertone.errors import Problem
from undertone.params import Collect, Outcome, Voter
from undertone.voters.request import shards

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
_RANKS: tuple[Outcome, ...] = ("ok", "out_of_schema", "unparsable", "refused", "provider_error")
REPEATED = "repeated"
PROVIDER_ERROR = Reading("provider_error")
NONE = -1  # the class of a comment without a label, as the published tables have it


@dataclass(frozen=True)
class Collected:
    """`votes`: custom_id, id, voter, outcome, answered (a date, or empty), and 0 or 1 for each label,
    NaN without a valid answer. `unread`: custom_id → the last answer that gave no label. `counts`:
    voter → each of OUTCOMES, whose sum is what was asked; besides, `repeated` (a further answer that
    says the same). `unknown`: answers to nothing asked."""

    votes: pd.DataFrame
    unread: dict[str, str]
    counts: dict[str, dict[str, int]]
    unknown: int


def collect(
    asked: pd.DataFrame, folder: Path, codebook: Codebook, voters: Mapping[str, Voter]
) -> Collected:
    """The outcome of every row of `asked` (see `request.write`) by the answers in `folder`.

    Of several answers to one request a readable one counts; readable ones that differ are no answer.
    `Problem` on an unreadable file, and on a voter without any answer.
    """
    readers = {
        name: Reader(codebook, reasoning=prompt.reasoning, each=prompt.each_answer is not None)
        for name, voter in voters.items()
        for prompt in [codebook.prompt(voter.prompt)]
    }
    voter_of = dict(zip(asked["custom_id"], asked["voter"], strict=True))
    found: dict[str, list[tuple[Reading, str]]] = {}
    unread: dict[str, str] = {}
    unknown = 0
    for custom_id, record in batch.read_folder(folder):
        voter = voter_of.get(custom_id)
        if voter is None:
            unknown += 1
            continue
        read = reading(record, readers[voter])
        found.setdefault(custom_id, []).append((read, _date(record)))
        if read.outcome not in ("ok", "provider_error"):
            unread[custom_id] = str(_content(record))
    answered = {voter_of[custom_id] for custom_id in found}
    if missing := [name for name in voters if name not in answered]:
        hint = f" ({unknown:,} answers are to other requests: another prompt, model or table?)"
        raise Problem(
            f"no answer of voter {', '.join(missing)}{hint if unknown else ''}",
            where=str(folder),
            remedy="Add the answer files, or take the voter out of `request`.",
        )
    votes, counts = _tabled(asked, found, codebook)
    return Collected(votes, unread, counts, unknown)


def reading(record: batch.Record, reader: Reader) -> Reading:
    """What one line of an output or error file says."""
    choice = batch.choice(record)
    if choice is None:
        return PROVIDER_ERROR
    if choice["message"].get("refusal") or choice.get("finish_reason") == "content_filter":
        return Reading("refused")
    content = _content(record)
    if not isinstance(content, str):
        return Reading("unparsable")
    return (reader.read_cut if choice.get("finish_reason") == "length" else reader.read)(content)


def _content(record: batch.Record) -> object:
    choice = batch.choice(record)
    return choice["message"].get("content") if choice else None


def tables(votes: pd.DataFrame, texts: Mapping[str, str], codebook: Codebook) -> dict[str, pd.DataFrame]:
    """`<voter>/unlabelled`, `/labelled` and `/purged`, each with custom_id, message, class: nobody's
    class yet (-1), each answer's code (several joined by `;`, none) or -1, and only those that have
    one."""
    codes = np.array([label.answer for label in codebook.labels], dtype=object)
    labels = list(codebook.space.labels)
    made = {}
    for voter, own in votes.groupby("voter", sort=False):
        flags = own[labels].to_numpy() == 1
        ok = (own["outcome"] == "ok").to_numpy()
        classes = [
            (";".join(codes[row]) or prompts.NONE) if valid else str(NONE)
            for row, valid in zip(flags, ok, strict=True)
        ]
        labelled = pd.DataFrame(
            {"custom_id": own["custom_id"], "message": own["id"].map(texts), "class": classes}
        )
        made[f"{voter}/unlabelled"] = labelled.assign(**{"class": str(NONE)})
        made[f"{voter}/labelled"] = labelled
        made[f"{voter}/purged"] = labelled[ok]
    return made


def retry(requests: Path, votes: pd.DataFrame, outcomes: Iterable[Outcome]) -> dict[str, list[bytes]]:
    """The request lines to send again, by the name of their file, as they were sent."""
    again = set(votes.loc[votes["outcome"].isin(list(outcomes)), "custom_id"])
    lines: dict[str, list[bytes]] = {}
    for voter in votes["voter"].unique() if again else ():
        for path in shards(requests, str(voter)):
            with path.open("rb") as file:
                if chosen := [line for line in file if json.loads(line)["custom_id"] in again]:
                    lines[path.name] = chosen
    return lines


def rows(votes: pd.DataFrame) -> Ledger:
    """Comments that were asked about: those that anybody answered, and those without a valid answer."""
    asked = votes["id"].nunique()
    heard = votes.loc[votes["outcome"] == "ok", "id"].nunique()
    return Ledger("collect", asked, heard, {"no valid answer": asked - heard})


def write(
    collected: Collected,
    requests: Path,
    comments: pd.DataFrame,
    codebook: Codebook,
    settings: Collect,
    folder: Path,
) -> None:
    """Into `folder`: `votes.parquet`; `<voter>/{unlabelled,labelled,purged}.csv`, and `unread.csv`, what
    was answered where no label could be read; and in `retry/` the requests to send again."""
    folder.mkdir(parents=True)
    collected.votes.to_parquet(folder / "votes.parquet", index=False)
    texts = dict(zip(comments["id"], comments["text"], strict=True))
    for name, table in tables(collected.votes, texts, codebook).items():
        (folder / name).parent.mkdir(exist_ok=True)
        table.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")
    unread = collected.votes[~collected.votes["outcome"].isin(["ok", "missing", "provider_error"])]
    unread = unread[["custom_id", "id", "voter", "outcome"]].assign(
        message=unread["id"].map(texts), answer=unread["custom_id"].map(collected.unread)
    )
    for voter, own in unread.groupby("voter", sort=False):
        own.drop(columns="voter").to_csv(
            folder / str(voter) / "unread.csv", index=False, lineterminator="\n"
        )
    for name, lines in retry(requests, collected.votes, settings.retry).items():
        (folder / "retry").mkdir(exist_ok=True)
        (folder / "retry" / name).write_bytes(b"".join(lines))


def again(folder: Path) -> str:
    """What to do about requests without an answer, for the log; nothing where there are none."""
    files = sorted(folder.glob("retry/*.jsonl"))
    if not files:
        return ""
    lines = sum(1 for path in files for _ in path.open("rb"))
    where = folder / "retry"
    return f"{lines:,} requests to send again are in {where}; put what comes back beside the rest"


def told(counts: Mapping[str, Mapping[str, int]], unknown: int) -> str:
    """A table for people: a line a voter, a column an outcome."""
    head = ["voter", "asked", *OUTCOMES, REPEATED]
    lines = [head]
    for name, one in counts.items():
        asked = sum(one[outcome] for outcome in OUTCOMES)
        lines.append([name, f"{asked:,}", *(f"{one[column]:,}" for column in head[2:])])
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    shown = [
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines
    ]
    return "\n".join([*shown, f"answers to unknown ids: {unknown:,}"])


def _tabled(
    asked: pd.DataFrame,
    found: Mapping[str, list[tuple[Reading, str]]],
    codebook: Codebook,
) -> tuple[pd.DataFrame, dict[str, dict[str, int]]]:
    """`Collected.votes` and `Collected.counts`."""
    place = {label: at for at, label in enumerate(codebook.space.labels)}
    flags = np.full((len(asked), len(place)), np.nan)
    outcomes, dates = [], []
    counts = {voter: dict.fromkeys((*OUTCOMES, REPEATED), 0) for voter in asked["voter"].unique()}
    for row, (custom_id, voter) in enumerate(zip(asked["custom_id"], asked["voter"], strict=True)):
        read, date, repeated = _settled(found.get(custom_id, []))
        outcomes.append(read.outcome)
        dates.append(date)
        counts[voter][read.outcome] += 1
        counts[voter][REPEATED] += repeated
        if read.outcome == "ok":
            flags[row] = 0
            flags[row, [place[label] for label in read.labels]] = 1
    votes = asked[["custom_id", "id", "voter"]].assign(outcome=outcomes, answered=dates)
    labels = pd.DataFrame(flags, columns=list(place), index=votes.index)
    return pd.concat([votes, labels], axis=1), counts


def _settled(found: list[tuple[Reading, str]]) -> tuple[Reading, str, int]:
    """The reading that counts, its date, and how many further answers say the same.

    A readable answer counts before any other, for what failed was asked again; readable answers that
    differ are none. What a model said counts before an error.
    """
    if not found:
        return Reading("missing"), "", 0
    rank = min(_RANKS.index(read.outcome) for read, _ in found)
    best = [(read, date) for read, date in found if _RANKS.index(read.outcome) == rank]
    if len({read for read, _ in best}) > 1:
        return Reading("duplicate"), "", 0
    repeated = len(best) - 1 if best[0][0].outcome == "ok" else 0
    return best[0][0], max(date for _, date in best), repeated


def _date(record: batch.Record) -> str:
    """The day, in UTC, that the provider stamped on the answer; empty without one."""
    stamp = batch.created(record)
    return "" if stamp is None else datetime.fromtimestamp(stamp, UTC).date().isoformat()
