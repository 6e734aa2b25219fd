"""Comments and a prompt → request lines in the OpenAI batch shape; first a plan of what they cost.

A line's `custom_id` is a digest of what the provider is sent anyway, so it says nothing of the lab's
ids, and an old answer can't pass for one to a changed text or prompt. Comments of one text are numbered.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd

from undertone import params
from undertone.annotation import batch, prompts
from undertone.codebook import Codebook
from undertone.errors import Problem
from undertone.files import write_json

ASKED = ("custom_id", "id", "voter")
_BYTES_A_TOKEN = (
    4  # of UTF-8: a rule of thumb for English, and near it for Chinese (3 bytes a character)
)
_FRAME_TOKENS = 8  # what a chat template adds to a conversation


@dataclass(frozen=True)
class Ballot:
    """One voter's way of asking: its settings, and the prompt with its digest."""

    voter: str
    settings: params.Voter
    codebook: Codebook
    prompt_sha256: str

    @classmethod
    def of(cls, voter: str, settings: params.Voter, codebook: Codebook) -> "Ballot":
        """`Problem` where the codebook has no such prompt, or the prompt asks for other labels."""
        prompt = codebook.prompt(settings.prompt)
        if prompt.scheme is not None:
            raise Problem(
                f"voter {voter}: prompt '{settings.prompt}' asks for the labels of '{prompt.scheme}'",
                where=f"codebook {codebook.name}",
                remedy="Choose a prompt without `scheme`; merged labels are made of the votes.",
            )
        digest = prompts.digest(codebook, prompt, definitions=settings.definitions)
        return cls(voter, settings, codebook, digest)

    def messages(self, text: str) -> list[prompts.Message]:
        prompt = self.codebook.prompt(self.settings.prompt)
        return prompts.messages(self.codebook, prompt, text, definitions=self.settings.definitions)

    def body(self, text: str) -> dict[str, Any]:
        return {
            "model": self.settings.model,
            "messages": self.messages(text),
            "temperature": self.settings.temperature,
            "max_tokens": self.settings.max_tokens,
        }

    def custom_id(self, text: str, number: int) -> str:
        """At most 61 characters (providers take 64); `number` tells comments of one text apart."""
        own = self.settings
        asked = [own.provider, own.model, self.prompt_sha256, own.temperature, own.max_tokens]
        told = json.dumps([*asked, text, number], ensure_ascii=False)
        return f"{self.voter}-{hashlib.sha256(told.encode()).hexdigest()[:20]}"

    def line(self, text: str, number: int) -> bytes:
        request = {
            "custom_id": self.custom_id(text, number),
            "method": "POST",
            "url": batch.URL,
            "body": self.body(text),
        }
        return json.dumps(request, ensure_ascii=False).encode() + b"\n"


@dataclass(frozen=True)
class Plan:
    """What one voter would be asked, and at what price; `leaves` whether it leaves the machine."""

    voter: str
    model: str
    prompt: str
    prompt_sha256: str
    definitions: bool
    temperature: float
    provider: str
    host: str
    leaves: bool
    rows: int
    shards: int
    tokens_in: int
    tokens_out_at_most: int
    price_at_most: float | None
    currency: str | None


def ballots(request: params.Request, codebook: Codebook) -> list[Ballot]:
    return [Ballot.of(name, voter, codebook) for name, voter in request.voters.items()]


def chosen(table: pd.DataFrame, request: params.Request, *, seed: int) -> pd.DataFrame:
    """The rows, in their order, that voters are asked about: those that people labelled and, up to
    `request.rows`, others; all where it is empty or nobody is asked.

    Each row's place in the queue is a digest of its id, so that who asks about more asks anew about
    none.
    """
    if request.rows is None or not request.voters:
        return table
    by_hand = [column for column in table.columns if str(column).startswith("gold.")]
    later = table[by_hand].isna().any(axis=1).to_numpy() if by_hand else np.ones(len(table), dtype=bool)
    place = [hashlib.sha256(f"{seed} {one}".encode()).hexdigest() for one in table["id"]]
    order = np.lexsort((np.array(place), later))
    return table.iloc[np.sort(order[: max(request.rows, int((~later).sum()))])].reset_index(drop=True)


def plan(
    table: pd.DataFrame,
    asked: Sequence[Ballot],
    providers: Mapping[str, params.Provider],
    prices: Mapping[str, params.Price],
    door: params.Door,
) -> list[Plan]:
    """A plan a voter. By the doors `files` and `endpoint` comments leave the machine.

    Tokens are estimated, four bytes of UTF-8 each; the price is for answers of full length, None where
    `prices` lacks the model.
    """
    told = sum(len(text.encode()) for text in table["text"])
    leaves = door in ("files", "endpoint")
    plans = []
    for ballot in asked:
        own = ballot.settings
        provider = providers[own.provider]
        frame = sum(len(message["content"].encode()) for message in ballot.messages(""))
        into = math.ceil((told + frame * len(table)) / _BYTES_A_TOKEN) + _FRAME_TOKENS * len(table)
        out = own.max_tokens * len(table)
        price = prices.get(own.model)
        cost = (into * price.input + out * price.output) / 1e6 if price else None
        plans.append(
            Plan(
                voter=ballot.voter,
                model=own.model,
                prompt=own.prompt,
                prompt_sha256=ballot.prompt_sha256,
                definitions=own.definitions,
                temperature=own.temperature,
                provider=own.provider,
                host=urlsplit(provider.url).hostname or "" if leaves and provider.url else "",
                leaves=leaves,
                rows=len(table),
                shards=len(_shards(ballot, table["text"], provider)),
                tokens_in=into,
                tokens_out_at_most=out,
                price_at_most=None if cost is None else round(cost, 4),
                currency=price.currency if price else None,
            )
        )
    return plans


def told(plans: Sequence[Plan], rendered: Sequence[prompts.Message]) -> str:
    """The plan for people: a line a voter, and one prompt as it is sent, with a text of the codebook."""
    lines = []
    for one in plans:
        to = f"{one.host} ({one.provider})" if one.host else "wherever you send it"
        where = f"to {to}" if one.leaves else "stays on this machine"
        price = f", price unknown (prices has no {one.model})" if one.leaves else ""
        if one.price_at_most is not None:
            price = f", at most {one.price_at_most:,.2f} {one.currency}"
        lines.append(
            f"{one.voter}: {one.model}, prompt {one.prompt}"
            f"{'' if one.definitions else ' without definitions'}; {one.rows:,} rows in {one.shards} "
            f"files, about {one.tokens_in:,} tokens in and at most {one.tokens_out_at_most:,} out"
            f"{price}; {where}"
        )
    if rendered:
        lines.append("a prompt as it is sent, with an example of the codebook as the comment:")
        lines += [f"  [{one['role']}] {one['content']}" for one in rendered]
    return "\n".join(lines)


def rendered(asked: Sequence[Ballot]) -> list[prompts.Message]:
    """The first voter's prompt about an example of the codebook; nothing without a voter."""
    for ballot in asked:
        examples = [text for label in ballot.codebook.labels for text in label.examples]
        return ballot.messages(examples[0] if examples else "…")
    return []


def write(
    table: pd.DataFrame,
    asked: Sequence[Ballot],
    providers: Mapping[str, params.Provider],
    plans: Sequence[Plan],
    folder: Path,
) -> None:
    """Into `folder`: `<voter>-<number>.jsonl` within the provider's limits, `asked.parquet` (which
    comment a `custom_id` stands for) and `egress.json` (which ids go where, under which prompt)."""
    folder.mkdir(parents=True, exist_ok=True)
    ids, texts = table["id"].tolist(), table["text"].tolist()
    numbers = table.groupby("text", sort=False).cumcount().tolist()
    known = []
    for ballot in asked:
        cuts = _shards(ballot, texts, providers[ballot.settings.provider])
        for number, (start, end) in enumerate(cuts, start=1):
            with (folder / f"{ballot.voter}-{number:04d}.jsonl").open("wb") as file:
                file.writelines(map(ballot.line, texts[start:end], numbers[start:end]))
        known += [
            (ballot.custom_id(text, number), id_, ballot.voter)
            for id_, text, number in zip(ids, texts, numbers, strict=True)
        ]
    pd.DataFrame(known, columns=list(ASKED), dtype="str").to_parquet(
        folder / "asked.parquet", index=False
    )
    write_json(folder / "egress.json", {"voters": [{**asdict(one), "ids": ids} for one in plans]})


def shards(folder: Path, voter: str) -> list[Path]:
    """The request files of one voter, in order."""
    return sorted(folder.glob(f"{voter}-[0-9][0-9][0-9][0-9].jsonl"))


def _shards(ballot: Ballot, texts: Iterable[str], provider: params.Provider) -> list[tuple[int, int]]:
    """From which row up to which each file goes; `Problem` where one line alone is too large."""
    # a line is as long as its frame and its text: `custom_id` has one length, JSON escapes by character
    frame = len(ballot.line("", 0)) - 2
    cuts, start, lines, size = [], 0, 0, 0
    for row, text in enumerate(texts):
        length = frame + len(json.dumps(text, ensure_ascii=False).encode())
        if length > provider.bytes:
            raise Problem(
                f"voter {ballot.voter}: one request has {length:,} bytes, more than the "
                f"{provider.bytes:,} of a file of {ballot.settings.provider}",
                where="params.yaml",
                remedy=f"Raise providers.{ballot.settings.provider}.bytes, or leave such comments out.",
            )
        if lines == provider.lines or size + length > provider.bytes:
            cuts.append((start, row))
            start, lines, size = row, 0, 0
        lines, size = lines + 1, size + length
    return [*cuts, (start, start + lines)] if lines else cuts
