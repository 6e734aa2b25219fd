"""The one place where a conversation becomes token ids: to train on, to score answers, to go on from.

A tokenizer reads a text in stretches, between the tokens that were added to its model's own, each
stretch by itself. So a conversation is taken apart where its template writes such tokens, and what lies
between is read by a tokenizer that has none: what a comment says in their shape is letters to it.
"""

import bisect
import contextlib
import itertools
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
from jinja2 import TemplateError
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer

from undertone.annotation import prompts
from undertone.annotation.answers import Reader
from undertone.annotation.prompts import Instruction, Message
from undertone.codebook import Prompt
from undertone.errors import Problem

# Some templates name the day, and a prompt that changes overnight is another prompt. The date is the
# one that Llama 3's template falls back on.
TODAY = date(2024, 7, 26)
LEAST = 8  # tokens that must remain for a comment

# Two noncharacters (Unicode 15 §23.7), which are taken out of every text.
_BREAK = "\U0010ffff"  # where a tokenizer begins anew
_MARK = "\U0010fffe"  # begins what stands for something else
_NO_TEXT = re.compile(f"[\ud800-\udfff{_BREAK}{_MARK}]")
_HIDDEN = re.compile(f"{_MARK}[0-9]+;")
_COMMENT, _ANSWER = f"{_MARK}comment;", f"{_MARK}answer;"

Pieces = list[str | int]  # a text, then an added token and a text, as often as need be


def readable(text: str) -> str:
    """`text` with U+FFFD for what no tokenizer reads: half characters, and this module's own marks."""
    return _NO_TEXT.sub("\ufffd", text)


class Chat:
    """A conversation as token ids, in the tokenizer's own chat template where it has one.

    `ends`: the tokens that end an answer: EOS, and the one that the template writes after an answer.
    `special`: all that are no text.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.letters = _Letters(tokenizer)
        begun = tokenizer("a", return_special_tokens_mask=True)
        pairs = zip(begun["input_ids"], begun["special_tokens_mask"], strict=True)
        self._start = [token for token, added in itertools.takewhile(lambda pair: pair[1], pairs)]
        added = tokenizer.added_tokens_decoder.items()
        self.special = frozenset(at for at, one in added if one.special) - {tokenizer.unk_token_id}
        _, _, end = self.around([{"role": "user", "content": "a"}])
        self.ends = frozenset(one for one in (tokenizer.eos_token_id, end) if one is not None)

    def prompt(self, messages: Sequence[Message], template: Prompt | None = None) -> NDArray[np.int32]:
        """The token ids of a conversation, up to where the answer begins.

        `template`: the prompt whose own template is used if the tokenizer has none. What a text says in
        the shape of an added token is read as the letters it is written with.
        """
        clean = [{**one, "content": readable(one["content"])} for one in messages]
        quoted, hidden = self.quoted(clean)
        pieces = self.pieces(self.asked(quoted, template), hidden)
        return np.array(self.begun(self.ids(pieces)), dtype=np.int32)

    def quoted(self, messages: Sequence[Message]) -> tuple[list[Message], dict[str, str]]:
        """`messages` with marks for what has the shape of an added token, and what each stands for."""
        hidden: dict[str, str] = {}
        quoted = []
        for message in messages:
            text = message["content"]
            parts, start = [], 0
            for _, first, last in self.letters.added(text):
                name = f"{_MARK}{len(hidden)};"
                parts += [text[start:first], name]
                hidden[name], start = text[first:last], last
            quoted.append({**message, "content": "".join([*parts, text[start:]])})
        return quoted, hidden

    def asked(self, messages: Sequence[Message], template: Prompt | None = None) -> str:
        """The conversation as a text, up to where the answer begins."""
        if self._tokenizer.chat_template is not None:
            return self._rendered(messages, answered=False)
        if template is None or template.template is None:
            return "\n\n".join(message["content"] for message in messages)
        # a space is mostly part of the token that follows, here of the answer's first
        return self._flat(messages, template).partition(_ANSWER)[0].rstrip(" ")

    def around(
        self, messages: Sequence[Message], template: Prompt | None = None
    ) -> tuple[str, str, int | None]:
        """What the template writes between `asked` and an answer, what after the answer, and the token
        that then ends it, None where there is none."""
        whole = ""
        if self._tokenizer.chat_template is not None:
            answered = [*messages, {"role": "assistant", "content": _ANSWER}]
            with contextlib.suppress(Problem):  # it can only ask
                whole = self._rendered(answered, answered=True)
        elif template is not None and template.template is not None:
            whole = self._flat(messages, template)
        before, _, after = whole.partition(_ANSWER)
        asked = self.asked(messages, template)
        between = before[len(asked) :] if before.startswith(asked) else ""
        closing, *more = self.pieces(after, {})
        assert isinstance(closing, str)
        end = next((one for one in more if isinstance(one, int)), self._tokenizer.eos_token_id)
        return between, closing, end

    def pieces(self, text: str, hidden: Mapping[str, str]) -> Pieces:
        """`text` taken apart at the added tokens in it; then marks give way to what is `hidden`."""
        pieces: Pieces = []
        start = 0
        for token, first, last in self.letters.added(text):
            pieces += [_shown(text[start:first], hidden), token]
            start = last
        return [*pieces, _shown(text[start:], hidden)]

    def ids(self, pieces: Pieces) -> list[int]:
        """The token ids of `pieces`, of which only the first stands at the beginning."""
        ids: list[int] = []
        for at, piece in enumerate(pieces):
            ids += [piece] if isinstance(piece, int) else self.letters.read(piece, begins=at == 0)
        return ids

    def begun(self, ids: list[int]) -> list[int]:
        """`ids` after what the tokenizer puts before a text, unless the template has written that."""
        start = self._start
        return ids if ids[: len(start)] == start else [*start, *ids]

    def _rendered(self, messages: Sequence[Message], *, answered: bool) -> str:
        told = {
            "tokenize": False,
            "add_generation_prompt": not answered,
            "enable_thinking": False,  # a short answer is wanted
            "date_string": TODAY.strftime("%d %b %Y"),
            "strftime_now": TODAY.strftime,
        }
        first, *others = messages
        ways = [list(messages)]
        if first["role"] == "system" and others:  # Gemma and others have no place for it
            joined = f"{first['content']}\n\n{others[0]['content']}"
            ways.append([{**others[0], "content": joined}, *others[1:]])
        for way in ways:
            try:
                flat: str = self._tokenizer.apply_chat_template(way, **told)
            except TemplateError:
                continue
            # some leave a system out without a word
            if way is ways[-1] or first["content"].strip() in flat:
                return flat
        raise Problem(
            "its chat template doesn't take a question and an answer",
            where=str(self._tokenizer.name_or_path),
            remedy="Choose another base.",
        )

    def _flat(self, messages: Sequence[Message], template: Prompt) -> str:
        """In the prompt's template, whose <s> and </s> stand for the tokenizer's own."""
        assert template.template is not None
        own = template.template.replace("<s>", self._tokenizer.bos_token or "")
        own = own.replace("</s>", self._tokenizer.eos_token or "")
        return prompts.flat(template.model_copy(update={"template": own}), list(messages), _ANSWER)


class _Letters:
    """A tokenizer without those of its added tokens that a text must not be able to write.

    Those that remain are white space and single letters, which say no more than what they look like.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._whole = tokenizer
        backend = tokenizer.backend_tokenizer
        self._inner = Tokenizer(backend.model)
        if backend.normalizer is not None:
            self._inner.normalizer = backend.normalizer
        if backend.pre_tokenizer is not None:
            self._inner.pre_tokenizer = backend.pre_tokenizer
        self._inner.add_special_tokens([AddedToken(_BREAK, normalized=False)])
        self._added: set[int] = set()
        self._numbers: dict[str, int] = {}  # of those that remain and have other numbers in `_inner`
        for number, token in sorted(tokenizer.added_tokens_decoder.items()):
            shown = token.content.replace("▁", " ").strip()  # SentencePiece's white space
            if not shown or (len(token.content) == 1 and not token.special):
                self._inner.add_tokens([token])
                if self._inner.token_to_id(token.content) != number:
                    self._numbers[token.content] = number
            elif number != tokenizer.unk_token_id:
                self._added.add(number)
        # a model's own vocabulary may hold them too, as Unigram's holds <s>
        self._written = {one for one in self._added if backend.model.id_to_token(one) is not None}

    def added(self, text: str) -> Iterator[tuple[int, int, int]]:
        """The added tokens that the whole tokenizer finds in `text`: number, beginning and end."""
        encoded = self._whole(
            text,
            add_special_tokens=False,
            return_offsets_mapping=True,
            split_special_tokens=False,
            verbose=False,
        )
        end = 0
        for token, (first, last) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
            if token in self._added and first >= end:
                yield token, first, last
                end = last

    def read(self, text: str, *, begins: bool) -> list[int]:
        """The ids of `text`, which `begins` a conversation or follows an added token."""
        told, encoded = self._divided(text if begins else _BREAK + text)
        if self._numbers or len(told) > len(text) + 1:
            pairs = zip(encoded.tokens, encoded.ids, strict=True)
            return [self._numbers.get(token, number) for token, number in pairs if token != _BREAK]
        ids: list[int] = encoded.ids
        return ids[len(told) - len(text) :]

    def beginning(self, text: str, tokens: int) -> str:
        """The beginning of `text` that makes about so many tokens, at most; no half characters."""
        size = 8 * tokens + 64
        while True:
            told, encoded = self._divided(text[:size])
            spans = [span for span in encoded.offsets if told[slice(*span)] != _BREAK]
            if len(spans) > tokens:
                break
            if size >= len(text):
                return text
            size *= 4
        first, last = spans[tokens]
        if tokens and spans[tokens - 1] == (first, last):  # bytes of a character, or of a run of them
            first += bisect.bisect_right(
                range(first + 1, last), tokens, key=lambda end: len(self._divided(told[:end])[1])
            )
        return told[:first].replace(_BREAK, "")

    def _divided(self, text: str) -> tuple[str, Any]:
        """`text` with a break within each of `_written`, and its encoding."""
        while True:
            encoded = self._inner.encode(text, add_special_tokens=False)
            if self._written.isdisjoint(encoded.ids):
                return text, encoded
            cuts = [
                first + 1
                for token, (first, last) in zip(encoded.ids, encoded.offsets, strict=True)
                if token in self._written and last - first > 1
            ]
            if not cuts:
                return text, encoded
            for at in reversed(cuts):
                text = text[:at] + _BREAK + text[at:]


@dataclass(frozen=True)
class Row:
    """`ids`: a prompt and its answer, at `start` of which the answer begins."""

    ids: list[int]
    start: int


class Builder:
    """Prompts and their answers, of at most `max_length` tokens together.

    `answers`: the ids of each label's answer in the codebook's order, each with the token that ends it;
    where a text has many labels one more, that none applies.

    `Problem` where instruction and answer leave a comment fewer than `LEAST` tokens, and where the
    tokenizer has none to end an answer.
    """

    answers: tuple[tuple[int, ...], ...]

    def __init__(self, tokenizer: Any, instruction: Instruction, max_length: int) -> None:
        if tokenizer.eos_token_id is None:
            raise Problem(
                "the tokenizer has no token that ends an answer",
                where=str(tokenizer.name_or_path),
                remedy="Name its eos_token in tokenizer_config.json, or choose another base.",
            )
        prompt, codebook = instruction.prompt, instruction.codebook
        self._tokenizer = tokenizer
        self._instruction = instruction
        self._max_length = max_length
        self._chat = Chat(tokenizer)
        self._reader = Reader(codebook, reasoning=prompt.reasoning, each=prompt.each_answer is not None)
        self._gap = _gap(prompts.around(codebook, prompt, definitions=instruction.definitions)[1])
        labels = [label.id for label in codebook.labels]
        single = [frozenset([one]) for one in labels] + [frozenset[str]()] * codebook.many
        self._known: dict[frozenset[str], tuple[int, ...]] = {}
        self._lay_out(single)
        self.answers = tuple(map(self._answer, single))
        longest = max(map(len, self.answers))
        if codebook.many:
            longest = max(longest, len(self._answer(frozenset(labels))))
        self._fixed = len(self._prompt(""))
        if max_length < self._fixed + longest + LEAST:
            raise Problem(
                f"max_length is {max_length}, but the instruction and the answer alone take "
                f"{self._fixed + longest} tokens",
                where="params.yaml",
                remedy=f"Set max_length to {self._fixed + longest + LEAST} or more.",
            )

    def prompt(self, text: str, reserve: int) -> list[int]:
        """The ids that ask for the label of `text`, at most `max_length` less `reserve`.

        Where that is too little, the end of `text` is left out and nothing else. `Problem` where not
        even the instruction fits.
        """
        room = self._max_length - reserve
        if room < self._fixed:
            raise Problem(
                f"max_length is {self._max_length}, but the instruction takes {self._fixed} tokens and "
                f"{reserve} are kept for the answer",
                where="params.yaml",
                remedy=f"Set max_length to {self._fixed + reserve + LEAST} or more.",
            )
        text = readable(text)
        if len(text) <= 8 * room and len(ids := self._prompt(text)) <= room:
            return ids
        tokens = room - self._fixed
        while len(ids := self._prompt(self._chat.letters.beginning(text, tokens))) > room:
            tokens = max(tokens - (len(ids) - room), 0)
        return ids

    def row(self, text: str, labels: Collection[str]) -> Row:
        """The prompt for `text` and the answer that these labels apply."""
        answer = self._answer(frozenset(labels))
        asked = self.prompt(text, len(answer))
        return Row([*asked, *answer], len(asked))

    def read(self, ids: Sequence[int]) -> tuple[str, ...] | None:
        """The labels that a model wrote after a prompt, None where that is no valid answer."""
        ends = self._chat.ends | self._chat.special
        end = next((at for at, token in enumerate(ids) if token in ends), None)
        text: str = self._tokenizer.decode(
            ids[:end], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        text = text.strip().removeprefix(self._handed.strip()).removesuffix(self._closing.strip())
        reading = self._reader.read_cut(text) if end is None else self._reader.read(text)
        return reading.labels if reading.outcome == "ok" else None

    def _conversation(self) -> list[Message]:
        """Up to where the answer begins, with a mark for the comment."""
        prompt, codebook = self._instruction.prompt, self._instruction.codebook
        definitions = self._instruction.definitions
        *system, last = prompts.messages(codebook, prompt, _COMMENT, definitions=definitions)
        shots: list[Message] = []
        for text, labels in self._instruction.shots:
            shots += [
                prompts.messages(codebook, prompt, text, definitions=definitions)[-1],
                {"role": "assistant", "content": prompts.answered(codebook, prompt, labels)},
            ]
        if self._tokenizer.chat_template is not None:
            return [*system, *shots, last]
        told = [message["content"] for message in shots]
        earlier = "".join(
            f"{question}{self._gap}{answer}\n\n"
            for question, answer in zip(told[::2], told[1::2], strict=True)
        )
        return [*system, {**last, "content": earlier + last["content"]}]

    def _lay_out(self, answers: Sequence[Collection[str]]) -> None:
        """What stands around the comment, and where the prompt ends: as late as its tokens are those
        with which the whole conversation begins, whichever of `answers` follows; but a space before an
        answer is part of that, as it is of most words' first token."""
        chat, prompt = self._chat, self._instruction.prompt
        messages, hidden = chat.quoted(self._conversation())
        between, self._closing, end = chat.around(messages, prompt)
        assert end is not None
        self._end = end
        if self._tokenizer.chat_template is None and prompt.template is None:
            between = self._gap
        pieces = chat.pieces(chat.asked(messages, prompt) + between, hidden)
        places = [at for at, one in enumerate(pieces) if isinstance(one, str) and _COMMENT in one]
        if len(places) != 1 or str(pieces[places[0]]).count(_COMMENT) > 1:
            raise Problem(
                "its chat template doesn't show a comment once",
                where=str(self._tokenizer.name_or_path),
                remedy="Choose another base.",
            )
        self._head = chat.begun(chat.ids(pieces[: places[0]]))
        self._begins = places[0] == 0
        self._lead, _, trail = str(pieces[places[0]]).partition(_COMMENT)
        after: Pieces = [trail, *pieces[places[0] + 1 :]]
        self._after, ending = after[:-1], str(after[-1])
        wholes = [self._ids("a", self._ended(ending + self._said(one))) for one in answers]
        latest = len(ending.rstrip(" "))
        for seam in [*range(latest, -1, -1), latest]:  # if it is nowhere so, the latest will do
            self._trail, self._handed = ending[:seam], ending[seam:]
            self._tail = self._ended(self._trail)
            asked = self._prompt("a")
            if all(whole[: len(asked)] == asked for whole in wholes):
                break

    def _answer(self, labels: frozenset[str]) -> tuple[int, ...]:
        """The ids of what follows the prompt."""
        if labels not in self._known:
            rest = self._handed + self._said(labels)
            asked, whole = self._prompt("a"), self._ids("a", self._ended(self._trail + rest))
            if whole[: len(asked)] == asked:
                ids = whole[len(asked) :]
            else:
                ids = self._chat.letters.read(rest, begins=False)
            self._known[labels] = (*ids, self._end)
        return self._known[labels]

    def _said(self, labels: Collection[str]) -> str:
        codebook, prompt = self._instruction.codebook, self._instruction.prompt
        return prompts.answered(codebook, prompt, labels) + self._closing

    def _prompt(self, comment: str) -> list[int]:
        return self._ids(comment, self._tail)

    def _ids(self, comment: str, ended: tuple[str, list[int]]) -> list[int]:
        trail, tail = ended
        text = f"{self._lead}{comment}{trail}"
        return [*self._head, *self._chat.letters.read(text, begins=self._begins), *tail]

    def _ended(self, ending: str) -> tuple[str, list[int]]:
        """What follows a comment up to the next added token, and the ids after that, where the last text
        is `ending`."""
        pieces: Pieces = [*self._after, ending]
        return str(pieces[0]), self._chat.ids(pieces[1:])


def _gap(after: str) -> str:
    """What separates an answer from a question that ends with `after`, what follows its comment."""
    if after[-1:].isspace():
        return ""
    return " " if after else "\n"


def _shown(text: str, hidden: Mapping[str, str]) -> str:
    return _HIDDEN.sub(lambda name: hidden[name[0]], text)
