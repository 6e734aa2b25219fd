"""A stand-in for a private workbook: seeded comments with the faults that real tables have.

For the codebook `gender` they come from the grammar in `sample_words`, made so that a model has to
read who says what of what; for any other codebook from the clauses of its examples.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
import xlsxwriter

from undertone.codebook import Codebook
from undertone.corpus.sample_words import ASIDES, FRAMES, FRAMINGS, SHARES, STANCES, WORDS
from undertone.errors import Problem

CODERS = ("coder_a", "coder_b", "coder_c")
COLUMNS = ("comment_id", "author", "posted", "source", "comment", "truth", *CODERS)
SHEETS = ("first half", "second half")
SEPARATOR = "; "  # between the labels of one comment
CARE = 0.95  # how often a coder gives the true label

# Shares of the rows; there is at least one row of each kind.
EXACT_REPEATS, NEAR_REPEATS = 0.02, 0.03
EMPTY_ROWS, EMPTY_COMMENTS, NUMBERS, FORMULAS = 0.002, 0.002, 0.001, 0.003

_FIRST_DAY, _DAYS = datetime(2023, 1, 2), 700
_OUTLETS = ("Morning Ledger", "The Works", "City Forum", "Radio North")
_HANDLES = ("otter", "baker", "clerk", "heron", "miller", "piper", "sailor", "weaver", "finch", "smith")
_EMOJI = ("🙂", "😂", "🙄", "👍", "🤔", "😡", "❤️", "👏🏽", "☕")
_FORMULA_STARTS = ("=) ", "= ", "=> ", "=")
_SLOT = re.compile(r"\{(\w+)\}")
_CLAUSE = re.compile(r"[^,;:.!?，；：。！？]+[,;:.!?，；：。！？]*")
_SENTENCE_START = re.compile(r"(?:^|[.!?]\s+)[a-z]")

T = TypeVar("T")
Writer = Callable[[tuple[str, ...], np.random.Generator], str]  # the ids of the labels → a text


@dataclass(frozen=True)
class Comment:
    """What stands in the cell, and the ids of its labels: none where there is nothing to judge."""

    cell: str | int | None
    labels: tuple[str, ...] = ()


def rows(codebook: Codebook, count: int, gold: int, rng: np.random.Generator) -> pd.DataFrame:
    """`count` rows with `COLUMNS`, oldest first; a few are empty, a few comments whole numbers.

    Where the codebook chooses rows by a category there is its column too.

    `truth` is what each comment was made to say: the simulated voters know it, nothing else does.
    `gold` rows have the labels of three people. `Problem` where a label has no examples, or where
    there are fewer rows with a text than `gold`.
    """
    shares = _shares(codebook)
    own = writer(codebook)
    blank = _part(EMPTY_ROWS, count)
    exact, near = _part(EXACT_REPEATS, count), _part(NEAR_REPEATS, count)
    fresh = list(
        islice(_distinct(own, shares, codebook.many, rng), max(count - blank - exact - near, 1))
    )
    copied = [fresh[int(i)] for i in rng.integers(len(fresh), size=exact + near)]
    repeats = copied[:exact] + [replace(c, cell=_retyped(str(c.cell), rng)) for c in copied[exact:]]
    comments = _with_odd_cells(_shuffled(fresh + repeats, rng), rng)
    table = _with_empty_rows(_table(comments, codebook, shares, gold, rng), blank, rng)
    if codebook.categories is not None:
        known = (*codebook.categories.include, *codebook.categories.exclude)
        drawn = pd.Series([_pick(known, rng) for _ in range(len(table))], table.index)
        table[codebook.categories.column] = drawn.where(table["comment_id"].notna())
    return table


def writer(codebook: Codebook) -> Writer:
    """Who writes the comments of a codebook, before they are `typed`; `Problem` where a label has no
    examples."""
    return _written if codebook.name == "gender" else _recombined(codebook)


def write_workbook(frame: pd.DataFrame, path: Path) -> None:
    """`frame` in two sheets, numbers and dates as such; equal frames give equal bytes."""
    as_written = dict.fromkeys(("strings_to_formulas", "strings_to_urls", "strings_to_numbers"), False)
    with xlsxwriter.Workbook(path, {**as_written, "default_date_format": "yyyy-mm-dd"}) as workbook:
        workbook.set_properties({"created": _FIRST_DAY})  # the clock's time otherwise
        half = (len(frame) + 1) // 2
        for name, part in zip(SHEETS, (frame[:half], frame[half:]), strict=True):
            sheet = workbook.add_worksheet(name)
            sheet.write_row(0, 0, frame.columns)
            for number, row in enumerate(part.itertuples(index=False), start=1):
                for column, value in enumerate(row):
                    if not pd.isna(value):
                        sheet.write(number, column, value)


def _shares(codebook: Codebook) -> dict[str, float]:
    """How frequent each label is; in an unknown codebook the first most, as in Zipf's law."""
    if codebook.name == "gender":
        return dict(SHARES)
    weights = {label.id: 1 / rank for rank, label in enumerate(codebook.labels, start=1)}
    return {label: weight / sum(weights.values()) for label, weight in weights.items()}


def _distinct(
    writer: Writer, shares: Mapping[str, float], many: bool, rng: np.random.Generator
) -> Iterator[Comment]:
    """Comments without end, no two alike unless the writer runs out of texts."""
    seen: set[str] = set()
    ids, weights = list(shares), list(shares.values())
    while True:
        size = 2 if many and rng.random() < 0.2 else 1
        drawn = rng.choice(len(ids), size=size, replace=False, p=weights)
        labels = tuple(ids[i] for i in sorted(drawn))
        for _ in range(50):
            text = typed(writer(labels, rng), rng)
            if text not in seen:
                break
        seen.add(text)
        yield Comment(text, labels)


def _written(labels: tuple[str, ...], rng: np.random.Generator) -> str:
    """A comment on equality at work: one to three sentences that make its label, and asides."""
    (label,) = labels
    parts = [_sentence(label, rng) for _ in range(1 + int(rng.choice(3, p=[0.9, 0.08, 0.02])))]
    if rng.random() < 0.2:
        parts.insert(0, _aside("besides", label, rng))
    if rng.random() < 0.1:
        parts.insert(0, _aside("before", label, rng))
    if rng.random() < 0.1:
        parts.append(_aside("after", label, rng))
    return " ".join(parts)


def _sentence(label: str, rng: np.random.Generator) -> str:
    framings = FRAMINGS[label]
    framing = str(rng.choice(list(framings), p=list(framings.values())))
    text = _filled(_taken(_pick(FRAMES[framing], rng), label, rng), rng)
    return text if text[-1] in ".!?" else text + _pick((".", ".", ".", "!", " ..."), rng)


def _aside(kind: str, label: str, rng: np.random.Generator) -> str:
    return _filled(_taken(_pick(ASIDES[kind], rng), label, rng), rng)


def _taken(frame: str, label: str, rng: np.random.Generator) -> str:
    """`frame` with the slots of a stance that goes with `label`."""
    stance = asdict(STANCES[label][int(rng.integers(len(STANCES[label])))])
    return _SLOT.sub(lambda slot: f"{{{stance.get(slot[1], slot[1])}}}", frame)


def _filled(template: str, rng: np.random.Generator) -> str:
    """`template` with a phrase in place of each slot, and in the phrases' slots in turn."""
    return _SLOT.sub(lambda slot: _filled(_pick(WORDS[slot[1]], rng), rng), template)


def _recombined(codebook: Codebook) -> Writer:
    """A writer that splices its labels' examples; now and then a clause of another label slips in."""
    clauses: dict[str, list[str]] = {}
    for label in codebook.labels:
        clauses[label.id] = [c.strip() for text in label.examples for c in _CLAUSE.findall(text)]
        if not clauses[label.id]:
            raise Problem(
                f"label {label.id} has no examples to make comments of",
                where=f"codebook {codebook.name}",
                remedy="Add some.",
            )
    spaced = codebook.language not in ("zh", "ja")

    def write(labels: tuple[str, ...], rng: np.random.Generator) -> str:
        parts = [
            _spliced(_pick(clauses[label], rng), _pick(clauses[label], rng), spaced, rng)
            for label in labels
            for _ in range(int(rng.integers(2, 4)))
        ]
        others = [label for label in clauses if label not in labels]
        if others and not codebook.many and rng.random() < 0.3:
            parts.append(_pick(clauses[_pick(others, rng)], rng))
        return (" " if spaced else "").join(_shuffled(parts, rng))

    return write


def _spliced(first: str, second: str, spaced: bool, rng: np.random.Generator) -> str:
    """The beginning of one clause and the end of another, since a codebook has few of them."""
    left, right = (clause.split() if spaced else list(clause) for clause in (first, second))
    kept = [*left[: int(rng.integers(1, len(left) + 1))], *right[int(rng.integers(len(right))) :]]
    return (" " if spaced else "").join(kept)


def typed(text: str, rng: np.random.Generator) -> str:
    """`text` as people type it: a capital at a sentence's start mostly, now and then a slip."""
    text = _SENTENCE_START.sub(lambda start: start[0].upper(), text)
    if rng.random() < 0.1:
        text = text.lower()
    if rng.random() < 0.15:
        text = _misspelled(text, rng)
    if rng.random() < 0.15:
        text = text.rstrip(".。")
    if rng.random() < 0.06:
        text = f"{text} {_pick(_EMOJI, rng)}"
    if rng.random() < 0.05:
        text = re.sub(r"(?<=[.!?。！？]) ?(?=\w)", "\n", text, count=1)
    return text


def _retyped(text: str, rng: np.random.Generator) -> str:
    """A near repeat of `text`: a slip, an emoji, other case or other punctuation."""
    change = int(rng.integers(4))
    if change == 0:
        return _misspelled(text, rng)
    if change == 1:
        return f"{text} {_pick(_EMOJI, rng)}"
    if change == 2:
        return text.upper() if text != text.upper() else text + "!"
    return text.rstrip(".!。") + _pick(("!!", "...", "!?"), rng)


def _misspelled(text: str, rng: np.random.Generator) -> str:
    """`text` with two neighbours swapped, a character lost, or one doubled."""
    at = int(rng.integers(max(len(text) - 1, 1)))
    left, pair, right = text[:at], text[at : at + 2], text[at + 2 :]
    return left + _pick((pair[::-1], pair[:1], pair[:1] + pair), rng) + right


def _with_odd_cells(comments: Sequence[Comment], rng: np.random.Generator) -> list[Comment]:
    """`comments`, of which a few become empty, a whole number, or a text that starts with `=`."""
    changed = list(comments)
    count = len(comments)
    empty, numbers, formulas = (_part(s, count) for s in (EMPTY_COMMENTS, NUMBERS, FORMULAS))
    chosen = iter(rng.permutation(count).tolist())
    for at in islice(chosen, empty):
        changed[at] = Comment(None)
    for at in islice(chosen, numbers):
        changed[at] = Comment(int(rng.integers(1, 2100)))
    for at in islice(chosen, formulas):
        changed[at] = replace(comments[at], cell=_pick(_FORMULA_STARTS, rng) + str(comments[at].cell))
    return changed


def _table(
    comments: Sequence[Comment],
    codebook: Codebook,
    shares: Mapping[str, float],
    gold: int,
    rng: np.random.Generator,
) -> pd.DataFrame:
    count = len(comments)
    names = {label.id: label.name for label in codebook.labels}
    judged = [at for at, comment in enumerate(comments) if comment.labels]
    if gold > len(judged):
        raise Problem(
            f"sample.gold is {gold}, but only {len(judged)} of sample.rows have a label",
            where="params.yaml",
        )
    golden = set(_shuffled(judged, rng)[:gold])

    def told(labels: tuple[str, ...]) -> str | None:
        return SEPARATOR.join(names[label] for label in labels) or None

    # Some write much and most write once or twice: the square of a uniform draw favours low numbers.
    authors = (rng.random(count) ** 2.5 * max(count // 4, 2)).astype(int).tolist()
    days = sorted(rng.integers(_DAYS, size=count).tolist())
    return pd.DataFrame(
        {
            "comment_id": [f"{number:05d}" for number in range(1, count + 1)],
            "author": [f"{_HANDLES[author % len(_HANDLES)]}{author:03d}" for author in authors],
            "posted": [_FIRST_DAY + timedelta(days=day) for day in days],
            "source": [_pick(_OUTLETS, rng) for _ in comments],
            "comment": pd.Series([comment.cell for comment in comments], dtype=object),
            "truth": [told(comment.labels) for comment in comments],
            **{
                coder: [
                    told(_coded(comment.labels, shares, codebook.many, rng)) if at in golden else None
                    for at, comment in enumerate(comments)
                ]
                for coder in CODERS
            },
        }
    ).astype(object)


def _coded(
    truth: tuple[str, ...], shares: Mapping[str, float], many: bool, rng: np.random.Generator
) -> tuple[str, ...]:
    """What a person says; in doubt a label that is frequent."""
    if rng.random() < CARE:
        return truth
    others = [label for label in shares if label not in truth]
    weights = np.array([shares[label] for label in others])
    wrong = others[int(rng.choice(len(others), p=weights / weights.sum()))]
    return tuple(label for label in shares if label == wrong or (many and label in truth[1:]))


def _with_empty_rows(table: pd.DataFrame, blank: int, rng: np.random.Generator) -> pd.DataFrame:
    places = np.sort(rng.integers(len(table), size=blank))
    filled = np.insert(np.arange(len(table)), places, -1)
    return table.reindex(filled).reset_index(drop=True)[list(COLUMNS)]


def _part(share: float, count: int) -> int:
    return max(1, round(share * count))


def _pick(options: Sequence[T], rng: np.random.Generator) -> T:
    """One of `options`, an early one more often: so that late words are rare in training."""
    return options[int(rng.random() ** 1.4 * len(options))]


def _shuffled(items: Sequence[T], rng: np.random.Generator) -> list[T]:
    return [items[int(i)] for i in rng.permutation(len(items))]
