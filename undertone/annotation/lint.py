"""What is wrong with a codebook that can be read nevertheless.

A finding's subject, a label's name or a token, stands first and in quotes. A prompt that is kept as it
was published acknowledges its findings under `faults`, one by one, as `kind: subject`, or as `kind`
where there is no subject. Findings about labels and merges are there to be mended. No finding shows
an example.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from math import sqrt
from pathlib import Path

from undertone.annotation import prompts
from undertone.codebook import Codebook, Label, Prompt, label_of, read_codebook
from undertone.errors import Problem

# The cosine of two wordings' 2- and 3-grams from which one may be the other. The definitions that were
# published swapped have 0.84 with each other's label and 0.66 with their own; across the shipped
# variants no other pair of different labels has more than 0.63.
ALIKE = 0.65
NEARER = 0.1  # so much more than with the label's own wording: else the labels are merely similar

# What a tokenizer adds itself: begin and end of a text, padding, masks.
_BOUNDARY = re.compile(
    r"</?s>|<(?:bos|eos|pad|unk|mask)>|\[(?:CLS|SEP|PAD|MASK|UNK)\]"
    r"|<[|｜](?:begin|end)[_▁]?of[_▁]?(?:text|sentence)[|｜]>"
)
# What a chat template adds; a prompt's own `template` is the place for it.
_TURN = re.compile(r"<[|｜][^|｜<>\n]{1,40}[|｜]>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>")
_QUOTED = re.compile(
    r"(?:(?<!\w)[\"']|[‘“«「『])\s?([^\"'‘’“”«»「」『』\n]{2,60}?)\s?(?:[\"'’](?!\w)|[”»」』])"
)
_HEADING = re.compile(r"(?<![^.。;；:：\n])[\s*-]*([^.。;；:：\n*-][^.。;；:：\n]{1,60}?)\s?[:：]")


@dataclass(frozen=True)
class Finding:
    """`where`: the part of the codebook. `known`: the prompt's `faults` acknowledge it."""

    kind: str
    where: str
    what: str
    known: bool


@dataclass(frozen=True)
class _Seen:
    """A finding before it is known whether a prompt acknowledges it."""

    kind: str
    where: str
    about: str
    what: str
    prompt: str | None = None

    @property
    def fault(self) -> str:
        return f"{self.kind}: {self.about}" if self.about else self.kind

    def told(self, *, known: bool) -> Finding:
        what = f"'{self.about}' {self.what}" if self.about else self.what
        return Finding(self.kind, self.where, what, known)


def findings(path: Path) -> list[Finding]:
    """All that is wrong in the codebook at `path`; `unreadable`, a line each, where it can't be read."""
    try:
        codebook = read_codebook(path)
    except Problem as problem:
        lines = [line.removeprefix(str(path)).lstrip(": ") for line in str(problem).splitlines()]
        return [Finding("unreadable", path.name, line, False) for line in lines]
    seen = list(_all(codebook))
    faults = {(name, fault) for name, prompt in codebook.prompts.items() for fault in prompt.faults}
    stale = sorted(faults - {(one.prompt or "", one.fault) for one in seen})
    return [
        *(one.told(known=(one.prompt or "", one.fault) in faults) for one in seen),
        *(
            Finding("unknown-fault", f"prompt {name}", f"'{fault}' fits no finding", False)
            for name, fault in stale
        ),
    ]


def _all(codebook: Codebook) -> Iterator[_Seen]:
    yield from _of_merges(codebook)
    views: dict[str | None, Codebook] = {}
    for scheme in (None, *codebook.merges, *codebook.questions):
        if scheme in codebook.merges and codebook.merge_faults(scheme):
            continue  # told above
        try:
            views[scheme] = codebook.learnt(scheme)
        except Problem as problem:
            for line in str(problem).splitlines():
                yield _Seen("unreadable", _place(codebook, scheme), "", line)
    spelled = {
        spelling
        for view in views.values()
        for label in view.labels
        for spelling in (label.id, label.name, label.answer, *label.aliases)
    }
    for scheme, view in views.items():
        yield from _of_labels(view.labels, _place(codebook, scheme), merged=scheme in codebook.merges)
    for name, prompt in codebook.prompts.items():
        if prompt.scheme in views:
            yield from _of_prompt(name, prompt, views[prompt.scheme], codebook, spelled)
    yield from _contradictions(codebook, _wordings(codebook))


def _place(codebook: Codebook, scheme: str | None) -> str:
    if scheme is None:
        return "labels"
    return f"{'merge' if scheme in codebook.merges else 'question'} {scheme}"


def _of_merges(codebook: Codebook) -> Iterator[_Seen]:
    names = {label.id: label.name for label in codebook.labels}
    for merge in codebook.merges:
        for fault in codebook.merge_faults(merge):
            label, _, what = fault.partition(" ")
            kind = "merge-incomplete" if what == "is in no group" else "merge-overlap"
            yield _Seen(kind, f"merge {merge}", names[label], what)


def _of_labels(labels: Iterable[Label], where: str, *, merged: bool) -> Iterator[_Seen]:
    labels = list(labels)
    for label in labels:
        # a merge may be a mere list; its prompts are asked for definitions of their own
        if not label.definition.strip() and not merged:
            yield _Seen("no-definition", where, label.name, "has no definition")
    for one, other in combinations(labels, 2):
        for spelling in _names(one):
            if twin := next((name for name in _names(other) if near(spelling, name)), None):
                yield _Seen("near-names", where, spelling, f"is spelled almost like '{twin}'")
                break
    for short, long in _prefixes({label.name: label.answer for label in labels}):
        yield _Seen("code-prefix", where, short, f"has a code with which that of '{long}' begins")


def _of_prompt(
    name: str, prompt: Prompt, view: Codebook, codebook: Codebook, spelled: set[str]
) -> Iterator[_Seen]:
    where = f"prompt {name}"
    whole_answer = " ".join((prompt.answer, *(prompt.each_answer or ()), prompt.between_answers))
    fields = {"system": prompt.system, "user": prompt.user, "answer": whole_answer}
    for field, text in fields.items():
        for token in _unique(match[0] for form in (_BOUNDARY, _TURN) for match in form.finditer(text)):
            what = f"stands in `{field}`; the tokenizer or the chat template adds its own"
            yield _Seen("literal-special-token", where, token, what, name)
    for token in _unique(match[0] for match in _BOUNDARY.finditer(prompt.template or "")):
        what = "stands in `template`; the tokenizer adds its own"
        yield _Seen("literal-special-token", where, token, what, name)

    told = "\n".join(
        message["content"] for message in prompts.messages(view, prompt, "", definitions=True)
    )
    missing = [label.name for label in view.labels if label.name not in told]
    slots = ("{labels}", "{codes}") if prompt.definitions else ("{labels}", "{codes}", "{definitions}")
    if missing and not any(slot in prompt.system + prompt.user for slot in slots):
        yield _Seen("label-missing", where, "", f"does not name {', '.join(missing)}", name)

    if "{code}" in prompt.answer + "".join(prompt.each_answer or ()):
        unseen = [
            label.answer
            for label in view.labels
            if not re.search(rf"(?<!\w){re.escape(label.answer)}(?!\w)", told)
        ]
        if unseen:
            what = f"answers by code, but never shows {', '.join(unseen)}"
            yield _Seen("code-missing", where, "", what, name)

    if "{definitions}" in prompt.system + prompt.user:
        for label in view.labels:
            if not _defined(label, prompt, codebook):
                yield _Seen("no-definition", where, label.name, "has no definition", name)
    for key in prompt.definitions:
        if not _entities(key, prompt.scheme, codebook):
            what = "is defined but is the name of no label and no group"
            yield _Seen("unknown-name", where, key, what, name)

    known = _unique(spelling for label in view.labels for spelling in _names(label))
    for mark in _marked(told + "\n" + (prompt.template or ""), known):
        if mark not in spelled:
            if meant := next((spelling for spelling in known if near(mark, spelling)), None):
                yield _Seen("near-names", where, mark, f"is '{meant}' in the codebook", name)

    answers = {label.name: prompts.answered(view, prompt, {label.id}) for label in view.labels}
    for one, other in combinations(answers, 2):
        if _flat(answers[one]) == _flat(answers[other]):
            what = f"has the same right answer as '{one}'"
            yield _Seen("ambiguous-answer", where, other, what, name)
    codes = set(_prefixes({label.name: label.answer for label in view.labels}))
    for short, long in _prefixes(answers):
        if (short, long) not in codes:  # else told of the labels
            what = f"has an answer with which that of '{long}' begins"
            yield _Seen("code-prefix", where, short, what, name)


def _prefixes(codes: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Pairs of names: the code of the first is the beginning of the second's."""
    for one, short in codes.items():
        for other, long in codes.items():
            if _flat(short) != _flat(long) and _flat(long).startswith(_flat(short)):
                yield one, other


def _defined(label: Label, prompt: Prompt, codebook: Codebook) -> bool:
    if not prompt.definitions:
        # those of the labels themselves are told once, of the labels
        return prompt.scheme not in codebook.merges or bool(label.definition.strip())
    mine = _entities(label.name, prompt.scheme, codebook)
    return any(
        text.strip() and set(mine) & set(_entities(key, prompt.scheme, codebook))
        for key, text in prompt.definitions.items()
    )


# --- names ---


def near(one: str, other: str) -> bool:
    """Whether two names differ in case, accents, punctuation or a slip of the pen alone.

    A word that ends like the other (relevant, irrelevant), another number and any Chinese or Japanese
    character more make another name.
    """
    left, right = _bare(one), _bare(other)
    if left.replace(" ", "") == right.replace(" ", ""):
        return bool(left)
    pairs = list(zip(left.split(), right.split(), strict=False))
    same_length = len(left.split()) == len(right.split())
    return same_length and all(a == b or _misspelled(a, b) for a, b in pairs)


def _misspelled(one: str, other: str) -> bool:
    if one.endswith(other) or other.endswith(one) or min(len(one), len(other)) < 5:
        return False
    if any(sign.isdigit() or sign >= "\u2e80" for sign in one + other):
        return False
    return _distance(one, other) <= (1 if min(len(one), len(other)) < 9 else 2)


def _distance(one: str, other: str) -> int:
    """How many letters are lost, added, changed or swapped with the next (optimal string alignment)."""
    before: list[int] = []
    last = list(range(len(other) + 1))
    for row, letter in enumerate(one, start=1):
        line = [row]
        for column, sign in enumerate(other, start=1):
            steps = [last[column] + 1, line[-1] + 1, last[column - 1] + (letter != sign)]
            if row > 1 and column > 1 and (letter, one[row - 2]) == (other[column - 2], sign):
                steps.append(before[column - 2] + 1)
            line.append(min(steps))
        before, last = last, line
    return last[-1]


def _marked(text: str, names: Iterable[str]) -> list[str]:
    """What stands in `text` like a name: in quotes, before a colon, or a name's words with a capital."""
    marks = [match[1] for form in (_QUOTED, _HEADING) for match in form.finditer(text)]
    for name in names:
        words = [re.escape(word) for word in re.split(r"[\s_-]+", name) if word]
        if len(words) > 1:
            whole = re.compile(rf"(?<!\w){r'[ _-]'.join(words)}(?!\w)", re.IGNORECASE)
            marks += [found[0] for found in whole.finditer(text) if found[0] != found[0].lower()]
    return _unique(mark.strip() for mark in marks)


def _names(label: Label) -> list[str]:
    return _unique([label.name, label.id, *label.aliases])


def _bare(name: str) -> str:
    """`name` in lower case, without accents, anything but letters and digits as a space."""
    split = unicodedata.normalize("NFKD", name)
    plain = "".join(sign for sign in split if not "\u0300" <= sign <= "\u036f")
    folded = unicodedata.normalize("NFC", plain).casefold()
    return " ".join("".join(sign if sign.isalnum() else " " for sign in folded).split())


def _flat(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _unique(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


# --- definitions that contradict each other ---

# A scheme (empty for the codebook's own labels) and what it tells apart: a label's id, a group's name.
_Entity = tuple[str, str]


@dataclass(frozen=True)
class _Wording:
    """What one variant (the labels, a merge, a question, a prompt) says of a label or group."""

    variant: str
    prompt: str | None
    entity: _Entity
    name: str
    grams: Mapping[str, int]


def _contradictions(codebook: Codebook, wordings: list[_Wording]) -> Iterator[_Seen]:
    """Wordings of one label that another variant gives to another label.

    Which variant is wrong the texts don't say: the one that owns up to it, else the one that is at
    odds with most others, else a prompt, else the later. Contradictions in wholly different words are
    not found.
    """
    swaps = [
        (one, other)
        for one in wordings
        for other in wordings
        if one.variant != other.variant
        and one.entity[0] == other.entity[0]
        and one.entity[1] != other.entity[1]
        and _contradicts(one, other, wordings)
    ]
    order = _unique(one.variant for one in wordings)
    owning = {
        f"prompt {name}"
        for name, prompt in codebook.prompts.items()
        if any(fault.startswith("definition-contradicts") for fault in prompt.faults)
    }
    while swaps:
        rivals: dict[str, set[str]] = {}
        for one, other in swaps:
            rivals.setdefault(one.variant, set()).add(other.variant)
            rivals.setdefault(other.variant, set()).add(one.variant)
        wrong = max(
            rivals,
            key=lambda name: (
                name in owning,
                len(rivals[name]),
                name.startswith("prompt "),
                order.index(name),
            ),
        )
        told: dict[tuple[str, str, str | None], list[str]] = {}
        for one, other in swaps:
            if wrong in (one.variant, other.variant):
                mine, theirs = (one, other) if one.variant == wrong else (other, one)
                places = told.setdefault((mine.name, theirs.name, mine.prompt), [])
                if theirs.variant not in places:
                    places.append(theirs.variant)
        for (mine_name, their_name, prompt), places in told.items():
            what = f"is defined in the words of '{their_name}' in {' and '.join(places)}"
            yield _Seen("definition-contradicts", wrong, mine_name, what, prompt)
        swaps = [pair for pair in swaps if wrong not in (pair[0].variant, pair[1].variant)]


def _contradicts(one: _Wording, other: _Wording, wordings: list[_Wording]) -> bool:
    """Whether `one` is worded like `other`, and not like its own label in other's variant."""
    own = [
        _cosine(one.grams, twin.grams)
        for twin in wordings
        if twin.variant == other.variant and twin.entity == one.entity
    ]
    alike = _cosine(one.grams, other.grams)
    return bool(own) and alike >= ALIKE and alike >= max(own) + NEARER


def _wordings(codebook: Codebook) -> list[_Wording]:
    found: list[_Wording] = []

    def add(variant: str, entities: Iterable[_Entity], name: str, text: str, prompt: str | None) -> None:
        if grams := _grams(text):
            found.extend(_Wording(variant, prompt, entity, name, grams) for entity in entities)

    for label in codebook.labels:
        entities = _entities(label.name, None, codebook)
        add("labels", entities, label.name, label.definition, None)
    for merge, groups in codebook.merges.items():
        for name, group in groups.items():
            add(f"merge {merge}", [(merge, _flat(name))], name, group.definition, None)
    for scheme, question in codebook.questions.items():
        for label in question.labels:
            add(f"question {scheme}", [(scheme, label.id)], label.name, label.definition, None)
    for name, prompt in codebook.prompts.items():
        for key, text in prompt.definitions.items():
            add(f"prompt {name}", _entities(key, prompt.scheme, codebook), key, text, name)
    return found


def _entities(key: str, scheme: str | None, codebook: Codebook) -> list[_Entity]:
    """What a name in a prompt's `definitions` stands for: nothing where it is no name.

    A label of the codebook stands for its groups too; the name of a group, in a prompt that has no
    scheme, for that group.
    """
    if scheme is not None and scheme in codebook.merges:
        return [(scheme, _flat(key))] if _flat(key) in map(_flat, codebook.merges[scheme]) else []
    asked = codebook.asked(scheme)
    if label := label_of(key, asked.spellings):
        own = (scheme or "", label)
        return [own] if scheme else [own, *_groups_of(label, codebook)]
    found = [
        (merge, _flat(name))
        for merge, groups in codebook.merges.items()
        for name in groups
        if scheme is None and _flat(name) == _flat(key)
    ]
    return found if len(found) == 1 else []


def _groups_of(label: str, codebook: Codebook) -> list[_Entity]:
    return [
        (merge, _flat(name))
        for merge, groups in codebook.merges.items()
        for name, group in groups.items()
        if label in group.labels
    ]


def _grams(text: str) -> Counter[str]:
    """How often each pair and each triple of neighbouring characters stands in `text`."""
    flat = _flat(text)
    return Counter(flat[at : at + size] for size in (2, 3) for at in range(len(flat) - size + 1))


def _cosine(one: Mapping[str, int], other: Mapping[str, int]) -> float:
    shared = sum(count * other[gram] for gram, count in one.items() if gram in other)
    return shared / sqrt(sum(n * n for n in one.values()) * sum(n * n for n in other.values()))
