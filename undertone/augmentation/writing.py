"""New texts of a label, asked of a language model that sees the codebook and training rows of the label.

The prompt goes through `request` as any voter's does, the "comment" in it being the task: so plans,
files, ids and the record of what leaves are the same. Examples are shown because texts made without any
(Ye et al. 2022, "ZeroGen") teach less (Li et al. 2023, "Synthetic Data Generation with Large Language
Models for Text Classification").
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from undertone import params, tables
from undertone.annotation import batch, phrases
from undertone.codebook import Codebook, Prompt
from undertone.corpus.split import JOINED, synthetic
from undertone.errors import Problem
from undertone.labels import LabelSpace
from undertone.text import cleaned
from undertone.voters import request

WRITER = "writer"  # its name at the doors and in files
RAREST = "rarest"  # the label with fewest training rows
ASKED = ("custom_id", "id", "label", "texts")
# a text that was asked for and isn't there, by reason
UNREAD = ("missing", "provider_error", "refused", "unparsable", "too_few")
_SYSTEM = (
    "You write comments as people write them, from which a classifier learns. They are about: {title}.\n"
    "Its labels are {labels}.{definitions}\n"
    "Answer with a JSON array of strings and nothing else."
)
_TASK = (
    "These comments have the label '{name}':\n{examples}\n"
    "Write {count} new ones in their language that have the label '{name}' and no other. As different "
    "as these are from each other in subject, tone, length and care; in words of your own; with no "
    "name, address, number or link that stands in them."
)
_THOUGHT = re.compile(r"(?is)\A.*?</think(?:ing)?>|<think(?:ing)?>.*?</think(?:ing)?>")
_FENCE = re.compile(r"(?m)^\s*```\w*\s*$")
_ITEM = re.compile(r"[*_]{0,2}(?:(\d{1,3})[.):、．]|[-•*])[*_]{0,2}\s+(?=\S)")
# where an array or object begins: at the start of a line, or after an introduction's colon
_OPENING = re.compile(r"(?m)^\s*(?=[\[{])|\A[^\[{\n]*[:：]\s*(?=\[)")
_QUOTED = {'"': '"', "“": "”", "«": "»", "「": "」", "‘": "’"}
_KEYS = re.compile(r"(?i)text|comment|评论|comments|texts|examples|items|answer")


@dataclass(frozen=True)
class Written:
    """`texts`: custom_id, label, parent, answered, text, a row for each that was read. `unread`:
    custom_id, label, reason (one of UNREAD), count of texts, answer.

    Their sum is what was asked for. Besides, `surplus` texts beyond what a request asked for, `repeated`
    further answers to an answered request, and `unknown` answers to nothing asked.
    """

    texts: pd.DataFrame
    unread: pd.DataFrame
    surplus: int = 0
    repeated: int = 0
    unknown: int = 0


def ballot(codebook: Codebook, settings: params.Generate) -> request.Ballot:
    """The writer's way of being asked, about the labels of `codebook`."""
    prompt = Prompt(
        system=_SYSTEM.replace("{title}", codebook.title),
        user="{text}",
        answer="[]",
        definitions_as="\nThey mean:\n{each}",
        each_definition="- {name}: {definition}",
    )
    asked = settings.writer
    return request.Ballot.of(
        WRITER, asked, codebook.model_copy(update={"prompts": {asked.prompt: prompt}})
    )


def tasks(table: pd.DataFrame, space: LabelSpace, settings: params.Generate) -> pd.DataFrame:
    """What is asked: `id` (the parents' ids, joined by `;`), `text` (the task), `label`, `texts`.

    Parents are training rows of the label and, if there are such, of no other; first those in which
    people found it, each once before one is shown again; never one in which people found something else,
    a synthetic one, or two that repeat each other. The order of the rows decides nothing. `Problem`
    where a label is unknown or has no such row.
    """
    names = dict(zip(space.labels, space.names, strict=True))
    rows = table.iloc[np.argsort(table["id"].to_numpy(dtype=str), kind="stable")]
    # an id that `parent` can't hold stands for no parent
    held = (rows["id"].str.strip() == rows["id"]) & ~rows["id"].str.contains(JOINED, regex=False)
    train = rows[((rows["part"] == "train") & held).to_numpy() & ~synthetic(rows)]
    train = train.drop_duplicates("repeat").reset_index(drop=True)
    flags = tables.judged(train, "label", space) > 0.5
    made = []
    for label, count in _wanted(settings.labels, flags, space).items():
        at = space.labels.index(label)
        rng = np.random.default_rng([settings.seed, at])
        preferred, others = _eligible(train, flags, at, space)
        if not len(preferred) + len(others):
            raise Problem(
                f"no training row of '{label}' to show, in which people found nothing else",
                where="generate",
                remedy="Take the label out of generate.<source>.labels.",
            )
        sizes = [min(settings.texts, count - start) for start in range(0, count, settings.texts)]
        drawn = _drawn(preferred, others, settings.parents, len(sizes), rng)
        for size, parents in zip(sizes, drawn, strict=True):
            told = [train["text"][row] for row in parents]
            made.append(
                {
                    "id": JOINED.join(train["id"][row] for row in parents),
                    "text": task(names[label], told, size),
                    "label": label,
                    "texts": size,
                }
            )
    return pd.DataFrame(made, columns=["id", "text", "label", "texts"]).astype(
        {"id": "str", "text": "str", "label": "str", "texts": "int64"}
    )


def task(name: str, examples: Sequence[str], count: int) -> str:
    """What the user's part says; examples as JSON, so that none can pass for a part of the task."""
    shown = json.dumps(list(examples), ensure_ascii=False, indent=0)
    return _TASK.replace("{count}", str(count)).replace("{name}", name).replace("{examples}", shown)


def example(codebook: Codebook, settings: params.Generate) -> str:
    """A task with the codebook's own examples, which anybody may see."""
    label = next((one for one in codebook.labels if one.examples), codebook.labels[0])
    return task(label.name, label.examples[: settings.parents], settings.texts)


def write(
    made: pd.DataFrame,
    asked: request.Ballot,
    providers: Mapping[str, params.Provider],
    plans: Sequence[request.Plan],
    folder: Path,
) -> None:
    """As `request.write`; `asked.parquet` says of each request its label and texts too, and its `id`
    the parents, as `egress.json` does."""
    request.write(made, [asked], providers, plans, folder)
    known = pd.read_parquet(folder / "asked.parquet")
    known.assign(label=made["label"], texts=made["texts"]).to_parquet(
        folder / "asked.parquet", index=False
    )


def nothing(folder: Path) -> None:
    """As `write`, where nothing is asked."""
    folder.mkdir()
    columns = ("custom_id", "id", "voter", "label", "texts")
    pd.DataFrame(columns=list(columns), dtype="str").astype({"texts": "int64"}).to_parquet(
        folder / "asked.parquet", index=False
    )


def read(asked: pd.DataFrame, folder: Path) -> Written:
    """Every text that was asked for (see ASKED), or why it isn't there.

    The first readable answer to a request counts. `Problem` on an unreadable file, and where nothing is
    answered that was asked.
    """
    known = set(asked["custom_id"])
    found: dict[str, list[tuple[str, list[str], str, str]]] = {}
    unknown = 0
    for custom_id, record in batch.read_folder(folder):
        if custom_id in known:
            found.setdefault(custom_id, []).append(_reading(record))
        else:
            unknown += 1
    if len(asked) and not found:
        hint = f" ({unknown:,} answers are to other requests: another prompt, model or split?)"
        raise Problem(
            f"no answer of the writer{hint if unknown else ''}",
            where=str(folder),
            remedy="Add the answer files, or leave `generate.<source>` empty.",
        )
    texts: list[dict[str, Any]] = []
    unread: list[dict[str, Any]] = []
    surplus = repeated = 0
    for custom_id, parent, label, count in asked[list(ASKED)].itertuples(index=False):
        answers = found.get(custom_id, [])
        outcome, listed, answer, date = _settled(answers)
        repeated += max(sum(one[0] == "" for one in answers) - 1, 0)
        surplus += max(len(listed) - count, 0)
        own = {"custom_id": custom_id, "label": label}
        texts += [{**own, "parent": parent, "answered": date, "text": text} for text in listed[:count]]
        if lacking := count - min(len(listed), count):
            reason = outcome or "too_few"
            unread.append({**own, "reason": reason, "count": lacking, "text": answer})
    return Written(
        pd.DataFrame(texts, columns=["custom_id", "label", "parent", "answered", "text"]).astype("str"),
        pd.DataFrame(unread, columns=["custom_id", "label", "reason", "count", "text"]),
        surplus,
        repeated,
        unknown,
    )


def listed(answer: str) -> list[str] | None:
    """The texts of an answer: a JSON array (of strings, or of objects that hold one text each), cut off
    or within an object or not, or a list with numbers or bullets, after a thought and an introduction.

    None where it is anything else. Of an array that was cut off the last, broken text doesn't count.
    """
    text = _FENCE.sub("", _THOUGHT.sub("", answer)).strip()
    if "<think" in text.casefold():  # without its end, so nothing follows it
        return None
    opening = _OPENING.search(text)
    found = _array(text, opening.end()) if opening else _lines(text)
    return None if found is None else [cleaned(one) for one in found]


def _wanted(labels: Mapping[str, int], flags: NDArray[np.bool_], space: LabelSpace) -> dict[str, int]:
    """Label → texts to ask for."""
    rarest = space.labels[int(flags.sum(axis=0).argmin())]
    wanted: dict[str, int] = {}
    for label, count in labels.items():
        own = rarest if label == RAREST and label not in space.labels else label
        if own not in space.labels:
            raise Problem(
                f"no label '{own}'; there are {', '.join(space.labels)}",
                where="params.yaml: generate.<source>.labels",
                remedy=f"Name one of them, or {RAREST}.",
            )
        wanted[own] = wanted.get(own, 0) + count
    return wanted


def _eligible(
    train: pd.DataFrame, flags: NDArray[np.bool_], at: int, space: LabelSpace
) -> tuple[list[int], list[int]]:
    """The rows of label `at` in which people found it too, and those that nobody looked at."""
    own = flags[:, at]
    alone = own & (flags.sum(axis=1) == 1)
    own = alone if alone.any() else own
    people = tables.judged(train, "gold", space)
    seen = ~np.isnan(people).any(axis=1)
    agreed = seen & (np.nan_to_num(people) > 0.5)[:, at]
    return np.flatnonzero(own & agreed).tolist(), np.flatnonzero(own & ~seen).tolist()


def _drawn(
    preferred: Sequence[int], others: Sequence[int], size: int, count: int, rng: np.random.Generator
) -> list[list[int]]:
    """`count` times `size` rows, or as many as there are."""
    found: list[list[int]] = []
    while len(found) < count:
        order = [int(row) for rows in (preferred, others) for row in rng.permutation(rows)]
        found += [order[at : at + size] for at in range(0, max(len(order) - size, 0) + 1, size)]
    return found[:count]


def _reading(record: batch.Record) -> tuple[str, list[str], str, str]:
    """Why nothing can be read (empty: it can), the texts, the whole answer, and its date."""
    stamp = batch.created(record)
    date = "" if stamp is None else datetime.fromtimestamp(stamp, UTC).date().isoformat()
    choice = batch.choice(record)
    if choice is None:
        return "provider_error", [], "", date
    content = choice["message"].get("content")
    answer = content if isinstance(content, str) else ""
    if choice["message"].get("refusal") or choice.get("finish_reason") == "content_filter":
        return "refused", [], answer, date
    found = listed(answer)
    if found is not None:
        return "", found, answer, date
    declined = phrases.DECLINED.search(f"\n{answer.replace('’', chr(39)).casefold()}")
    return "refused" if declined else "unparsable", [], answer, date


def _settled(
    answers: Sequence[tuple[str, list[str], str, str]],
) -> tuple[str, list[str], str, str]:
    order = ("", "unparsable", "refused", "provider_error")
    return min(answers, key=lambda one: order.index(one[0]), default=("missing", [], "", ""))


def _array(text: str, start: int) -> list[str] | None:
    """The strings of the array that begins at `start`, or in the object that begins there."""
    decoder = json.JSONDecoder(strict=False)  # a line break within a string is taken for one
    try:
        value, end = decoder.raw_decode(text, start)
    except (ValueError, RecursionError):
        return _broken(text, start, decoder) if text[start] == "[" else None
    if isinstance(value, dict):
        lists = [one for one in value.values() if isinstance(one, list)]
        value = lists[0] if len(lists) == 1 else None
    if not isinstance(value, list) or "[" in text[end:]:
        return None
    strings = [_string(one) for one in value]
    return None if None in strings else [one for one in strings if one is not None]


def _broken(text: str, start: int, decoder: json.JSONDecoder) -> list[str] | None:
    """The whole strings of an array that has no end, or a comma before it; None without any."""
    found: list[str] = []
    at = start + 1
    while True:
        at += len(text[at:]) - len(text[at:].lstrip(" \t\r\n,"))
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            break
        if (string := _string(value)) is None:
            return None
        found.append(string)
    rest = text[at:].strip()
    cut = rest == "" or (rest[0] in '"{' and rest.count('"') % 2 == 1)
    return found if found and (cut or rest == "]") else None


def _string(value: object) -> str | None:
    """A string, or the one text of an object."""
    if isinstance(value, dict):
        texts = [one for key, one in value.items() if _KEYS.fullmatch(str(key))]
        value = texts[0] if len(texts) == 1 else None
    return value if isinstance(value, str) else None


def _lines(text: str) -> list[str] | None:
    """The items of a list with numbers that ascend from 1, or with bullets; a line without belongs to
    the item before it, a paragraph before and one after the list to nobody."""
    paragraphs = [part for part in re.split(r"\n\s*\n", text) if part.strip()]
    of_list = [at for at, part in enumerate(paragraphs) if _ITEM.search(part) and _begins(part)]
    if not of_list or of_list != list(range(of_list[0], of_list[-1] + 1)):
        return None
    if of_list[0] > 1 or len(paragraphs) - of_list[-1] > 2:
        return None
    items: list[str] = []
    numbers: list[int] = []
    for line in "\n".join(paragraphs[of_list[0] : of_list[-1] + 1]).split("\n"):
        found = _ITEM.match(line.strip())
        if found:
            numbers.append(int(found[1] or 0))
            items.append(line.strip()[found.end() :])
        elif items:
            items[-1] += f"\n{line}"
    if numbers not in ([0] * len(items), list(range(1, len(items) + 1))):
        return None
    return [_unquoted(one.strip()) for one in items]


def _begins(paragraph: str) -> bool:
    """Whether it begins with an item, or with an introduction that ends with a colon."""
    first, _, rest = paragraph.strip().partition("\n")
    return bool(
        _ITEM.match(first) or (first.rstrip().endswith((":", "：")) and _ITEM.match(rest.strip()))
    )


def _unquoted(item: str) -> str:
    close = _QUOTED.get(item[:1])
    return item[1:-1] if close and len(item) > 2 and item.endswith(close) else item
