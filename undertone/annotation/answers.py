"""What a language model's answer says: a label, several, a refusal, or nothing that can be told.

Nothing is searched for. An answer is read only when all of it is understood: a value, what wraps it,
and the fixed phrases that may stand around it. So a negation, a doubt or a second label can't be
overlooked, in languages without word breaks neither. After a chain of thought this holds for what
begins at the last explicit answer ("Label: …").
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from undertone.annotation import phrases
from undertone.codebook import Codebook
from undertone.params import Outcome
from undertone.text import cleaned

SHORT = 200  # characters; longer answers don't come back, so they aren't kept


@dataclass(frozen=True)
class Reading:
    """`labels`: ids in the codebook's order; none unless `outcome` is ok.

    Where a text has many labels, ok without any is the answer "none of them".
    """

    outcome: Outcome
    labels: tuple[str, ...] = ()


REFUSED = Reading("refused")
UNPARSABLE = Reading("unparsable")
OUT_OF_SCHEMA = Reading("out_of_schema")
NONE_OF_THEM = Reading("ok")


class Reader:
    """Reads the answers to one codebook's question.

    `reasoning`: the prompt allows a chain of thought, after which the last explicit answer counts.
    Without it a thought is only dropped where it is marked as one (<think>…</think>). `each`: the prompt
    asks for a yes or no to each label, so that a label alone leaves the others open.
    """

    def __init__(self, codebook: Codebook, *, reasoning: bool, each: bool = False) -> None:
        owners: dict[str, set[str]] = {}
        self._codes: dict[str, str] = {}
        for label in codebook.labels:
            if label.code is not None:
                self._codes[_folded(label.code)] = label.id
            for spelling in (label.id, label.name, label.answer, *label.aliases):
                owners.setdefault(_folded(spelling), set()).add(label.id)
        owners.pop("", None)
        # We fold more than the codebook does (pro-war, pro war): what then means two means none.
        self._spellings = {one: min(ids) for one, ids in owners.items() if len(ids) == 1}
        self._ids = [label.id for label in codebook.labels]
        self._readings = {one: Reading("ok", (one,)) for one in self._ids}
        self._many = codebook.many
        self._reasoning = reasoning
        self._each = each
        codes = _any_of(self._codes)
        self._code_first = re.compile(rf"({codes})(?:\s*[-.:)=|]\s*|\s+|\s*(?=\())(?=\S)")
        self._bracketed_code = re.compile(rf"[\[(【{{]\s*(?:{codes})\s*[\])】}}]")
        words = sorted((one for one in owners if len(one) > 1), key=len, reverse=True)
        self._mention = re.compile("|".join(map(_mention, words)) or "(?!)")
        self._beginnings = {
            self._spellings[one]
            for one in self._spellings
            for other in self._spellings
            if other.startswith(one) and self._spellings[one] != self._spellings[other]
        }
        self._seen: dict[str, Reading] = {}

    def read_cut(self, answer: str) -> Reading:
        """What an answer that was cut off at its longest says. It can't be told where more labels, a
        thought or the rest of a longer label (1 of 10) may have followed."""
        reading = self.read(answer)
        if reading.outcome != "ok":
            return reading
        if self._reasoning or (self._many and not answer.rstrip().endswith(("}", "]", "```"))):
            return UNPARSABLE
        return UNPARSABLE if self._beginnings.intersection(reading.labels) else reading

    def read(self, answer: str) -> Reading:
        """What `answer` says; never raises. A thought that isn't closed makes it unparsable."""
        known = self._seen.get(answer)
        if known is not None:
            return known
        reading = self._read(answer)
        if len(answer) <= SHORT:
            self._seen[answer] = reading
        return reading

    def _read(self, answer: str) -> Reading:
        text = _without_thought(_folded_lines(answer))
        if text is None:
            return UNPARSABLE
        text = _without_markers(text)
        reading, bare = self._whole(text), True
        if reading.outcome == "unparsable" and "\n" in text:
            reading, bare = self._explained(text), False
        if reading.outcome == "unparsable" and self._reasoning:
            reading, bare = self._concluded(text), False
        if reading.outcome == "ok":
            # "As an AI I can't … Label: 1": neither a refusal nor an answer that anyone would trust.
            return UNPARSABLE if not bare and phrases.DECLINED.search(f"\n{text}") else reading
        if phrases.DECLINED.search(f"\n{text}") or phrases.UNABLE.search(f"\n{text}"):
            return UNPARSABLE if self._holds_answer(text) else REFUSED
        return reading

    def _whole(self, text: str) -> Reading:
        """All of `text` as an answer and nothing else."""
        for _ in range(3):  # "Sure! Answer: Label: 1"
            reading = self._value(text, explicit=False)
            if reading.outcome != "unparsable":
                return reading
            if keyed := phrases.KEYED.match(text):
                text = _without_markers(text[keyed.end() :])
                reading = self._ended(text, explicit=keyed["is"] is None)
                if reading.outcome != "unparsable":
                    return reading
            elif polite := phrases.POLITE.match(text):
                text = text[polite.end() :]
            else:
                break
        # Where a thought is allowed, a sentence may be a part of one that was cut off.
        if self._reasoning:
            return UNPARSABLE
        reading = self._ended(text, explicit=False)
        if reading.outcome == "unparsable" and not self._many:  # else it says nothing of the others
            for pattern, name in ((phrases.CLASSED, False), (phrases.STATED, True)):
                if found := pattern.match(text):
                    return self._ended(text[found.end() :], explicit=False, name=name)
        return reading

    def _explained(self, text: str) -> Reading:
        """A whole answer that a marked explanation follows which takes nothing back."""
        answer, because, reasons = _partition(phrases.BECAUSE, phrases.CONFIDENCE.sub("", text))
        if because:
            if (
                _DIGIT.search(reasons)
                or self._mention.search(reasons)
                or phrases.TAKEN_BACK.search(reasons)
            ):
                return UNPARSABLE
        return self._whole(answer)

    def _concluded(self, text: str) -> Reading:
        """The last explicit answer of a chain of thought, which must end it."""
        starts = [0, *(found.end() for found in phrases.SENTENCE_END.finditer(text))]
        body = text.rstrip(" \n.。")
        if body.endswith("}"):
            for start in [start for start in starts if text.startswith("{", start)][:-4:-1]:
                if _pairs_of_object(body[start:]) is not None:
                    return self._value(body[start:], explicit=True)
        if self._many and (listed := self._listed_at_the_end(text)):
            return listed
        explicit = [start for start in starts if phrases.EXPLICIT.match(text, start)][-2:]
        if not explicit:
            return UNPARSABLE
        if text[: explicit[-1]].rstrip().endswith(":"):
            return UNPARSABLE  # "The format is:", "What I would not say:"
        reading = self._whole(text[explicit[-1] :])
        if reading.outcome == "unparsable":
            reading = self._explained(text[explicit[-1] :])
        if len(explicit) > 1:
            before = text[slice(*explicit)]
            # Two in one line, or two that differ and nothing between them: a list of what there is.
            if "\n" not in before or self._whole(before) not in (UNPARSABLE, reading):
                return UNPARSABLE
        return reading

    def _listed_at_the_end(self, text: str) -> Reading | None:
        """The reading of the last lines that say yes or no to a label each, if there are any."""
        pairs: list[tuple[str, str]] = []
        for line in reversed(text.split("\n")):
            pair = _pair(line)
            if pair is None or _yes_or_no(pair[1]) is None or self._label(pair[0]) is None:
                break
            pairs.append(pair)
        return self._judged(pairs) if pairs else None

    def _holds_answer(self, text: str) -> bool:
        """Whether a refusal holds an answer all the same."""
        if self._bracketed_code.search(text) or self._concluded(text).outcome == "ok":
            return True
        lines = text.split("\n")
        if len(lines) > 50:  # who refuses is brief
            return True
        return any(self._whole(line).outcome == "ok" for line in lines if len(line) <= SHORT)

    def _ended(self, text: str, *, explicit: bool, name: bool = False) -> Reading:
        """A value, and maybe the end of the sentence in which it stands ("… sentiment.", "…です。").

        `name`: it must be written as a name. A code says too little in a sentence ("the text is 2").
        """
        reading = self._value(text, explicit=explicit)
        if name and (_DIGIT.search(text) or _unwrapped_wholly(text) in self._codes):
            return UNPARSABLE
        if reading.outcome != "unparsable" or len(text) > _LONGEST:
            return reading
        text = _without_stop(text.strip())
        shorter = phrases.VERB_AFTER.sub("", text)
        if shorter != text and (ended := self._value(shorter, explicit=False)) != UNPARSABLE:
            return ended
        name_only = phrases.NOUN_AFTER.sub("", shorter)
        if self._many or name_only == shorter or _unwrapped_wholly(name_only) in self._codes:
            return reading
        return self._single(name_only, explicit=False)

    def _value(self, text: str, *, explicit: bool) -> Reading:
        return self._several(text, explicit) if self._many else self._single(text, explicit)

    def _single(self, text: str, explicit: bool) -> Reading:
        """One label by its code, its name, or both where they agree.

        `explicit`: it is called an answer, so that an unknown word is one out of the schema.
        """
        for _ in range(_LAYERS):
            text = text.strip()
            if (pairs := _pairs_of_object(text)) is not None:
                return self._named(pairs)
            if len(text) > _LONGEST:
                return UNPARSABLE
            if (label := self._spellings.get(text.replace("\n", " "))) is not None:
                return self._readings[label]
            if _NUMBER.fullmatch(text):
                return OUT_OF_SCHEMA
            if (label := self._agreed(text)) is not None:
                return self._readings[label]
            inner, bracketed = _unwrapped(text)
            if inner is None:
                break
            text, explicit = inner, explicit or bracketed
        return OUT_OF_SCHEMA if explicit and self._is_foreign(text) else UNPARSABLE

    def _several(self, text: str, explicit: bool) -> Reading:
        """Any number of labels: a list, or a yes or no to each."""
        for _ in range(_LAYERS):
            text = text.strip()
            if (pairs := _pairs_of_object(text)) is not None:
                return self._answered(pairs)
            if len(text) > _LONGEST:
                return UNPARSABLE
            label = self._spellings.get(text.replace("\n", " "))
            if label is not None:
                return UNPARSABLE if self._each else self._readings[label]
            if text in _NONE or text == "[]":
                return NONE_OF_THEM
            pairs = _pairs_of_lines(text)
            if pairs and any(self._label(key) is not None for key, _ in pairs):
                return self._judged(pairs)
            reading = UNPARSABLE if self._each else self._listed(text, explicit)
            if reading.outcome != "unparsable":
                return reading
            inner, bracketed = _unwrapped(text)
            if inner is None:
                break
            text, explicit = inner, explicit or bracketed
        return UNPARSABLE

    def _listed(self, text: str, explicit: bool) -> Reading:
        """Labels with commas, slashes or line breaks between them."""
        pieces = _SEPARATOR.split(text.rstrip("."), maxsplit=len(self._ids))
        if len(pieces) > len(self._ids):  # some twice, or none of ours
            return UNPARSABLE
        parts = [part for piece in pieces for part in self._joined(_BULLET.sub("", piece))]
        # With as many as there are labels, 0 and 1 may be no codes but a no and a yes for each.
        if len(parts) == len(self._ids) and {part.strip() for part in parts} <= {"0", "1"}:
            return UNPARSABLE
        if any(_unwrapped_wholly(part) in _NONE for part in parts):
            return UNPARSABLE
        readings = [self._single(part, explicit) for part in parts]
        if UNPARSABLE in readings:
            return UNPARSABLE
        if OUT_OF_SCHEMA in readings:
            return OUT_OF_SCHEMA
        labels = [label for reading in readings for label in reading.labels]
        if len(set(labels)) < len(labels) or (not explicit and len(self._ids) == len(labels) > 2):
            return UNPARSABLE  # twice the same, or all that the prompt named
        return self._ok(labels)

    def _joined(self, piece: str) -> list[str]:
        """The parts of "this and that", unless a label is called so."""
        piece = _AND_FIRST.sub("", piece)
        parts = _AND.split(piece, maxsplit=len(self._ids))
        if len(parts) == 1 or self._label(piece) is not None:
            return [piece]
        return parts if all(self._label(part) is not None for part in parts) else [piece]

    def _named(self, pairs: Sequence[tuple[str, str]]) -> Reading:
        """The one label that an object names."""
        readings = set()
        for key, value in pairs:
            if phrases.KEY.fullmatch(key) and key not in self._spellings:
                readings.add(self._single(value, True))
            elif key not in _ASIDE:
                return UNPARSABLE
        return readings.pop() if len(readings) == 1 else UNPARSABLE

    def _answered(self, pairs: Sequence[tuple[str, str]]) -> Reading:
        """The labels that an object lists, or to each of which it says yes or no."""
        told = [pair for pair in pairs if pair[0] not in _ASIDE or pair[0] in self._spellings]
        if len(told) == 1 and phrases.KEY.fullmatch(told[0][0]) and self._label(told[0][0]) is None:
            return self._several(told[0][1], True)
        return self._judged(told)

    def _judged(self, pairs: Sequence[tuple[str, str]]) -> Reading:
        """The labels with a yes, where each label has a yes or a no: an omission isn't a no."""
        flags: dict[str, bool] = {}
        foreign = unclear = False
        for key, value in pairs:
            label, flag = self._label(key), _yes_or_no(value)
            if label is None:
                foreign = True
            elif flag is None:
                foreign, unclear = True, unclear or _is_wordy(value)
            elif flags.setdefault(label, flag) != flag:
                return UNPARSABLE
        if foreign:
            return UNPARSABLE if unclear else OUT_OF_SCHEMA
        if len(flags) < len(self._ids):
            return UNPARSABLE
        return self._ok([label for label, flag in flags.items() if flag])

    def _agreed(self, text: str) -> str | None:
        """The label of a code and a name, or of two names, that stand side by side and agree."""
        if not text or text[0] in '{"':
            return None
        parts: tuple[str, str] | None = None
        code = text
        if text[0] in "[(【":  # [1] mild
            close = text.find(_CLOSING[text[0]])
            code = f"{text[1:close].strip()} {text[close + 1 :].strip()}" if 0 < close < 40 else text
        if found := self._code_first.match(code):
            parts = (found[1], code[found.end() :])
            if _unwrapped_wholly(parts[1]) in self._codes:
                return None  # 1-1
        elif text[-1] in ")]】":  # mild [1], but not mild: 1, which may be a yes
            opening = max(text.rfind(mark) for mark in "([【")
            parts = (text[:opening], text[opening + 1 : -1]) if opening > 0 else None
        elif text.count("/") == 1:
            before, _, after = text.partition("/")
            parts = (before, after)
        if parts is None:
            return None
        first, second = (_unwrapped_wholly(part) for part in parts)
        label = self._spellings.get(first)
        return label if first != second and label == self._spellings.get(second) else None

    def _label(self, text: str) -> str | None:
        """The label that a key or a listed word stands for."""
        text = _unwrapped_wholly(text)
        return self._spellings.get(text) or self._agreed(text)

    def _is_foreign(self, text: str) -> bool:
        """Whether `text` is a term of a few words that names no label of ours, nor hints at one."""
        words = text.split()
        longest = 8 if _UNSPACED.search(text) else 40
        return (
            0 < len(text) <= longest
            and len(words) <= 3
            and all(word.replace("'", "").isalpha() for word in words)
            and not _NOT_OR.intersection(words)
            and not self._mention.search(text)
        )

    def _ok(self, labels: Iterable[str]) -> Reading:
        chosen = set(labels)
        return Reading("ok", tuple(one for one in self._ids if one in chosen))


class _Plain(dict[int, str]):
    """For `str.translate`: full and half widths, quotation marks and dashes in their plain form.

    NFKC would go too far: it makes 2 of ² and 1 of ①.
    """

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if unicodedata.decomposition(character).startswith(("<wide>", "<narrow>")):
            character = unicodedata.normalize("NFKC", character)
        self[code] = _TYPOGRAPHY.get(character, character)
        return self[code]


_TYPOGRAPHY = (
    {"_": " ", "−": "-"}
    | dict.fromkeys("“”„‟«»", '"')
    | dict.fromkeys("‘’‚‛´ʼ", "'")
    | dict.fromkeys("‐‑‒–—―", "-")
)
_PLAIN = _Plain()
_FENCE = re.compile(r"```(?:json|text|txt|plaintext|markdown|md|yaml|xml|python)?\b")
_EMPHASIS = re.compile(r"[*`]+")
_HYPHEN = re.compile(r"-(?<=[^\W\d]-)(?=[^\W\d])")  # off-topic and off topic are one spelling
_HEADING = re.compile(r"(?m)^#+ ?")


def _folded_lines(raw: str) -> str:
    """`raw` without case, widths, markdown and kinds of quotation marks; line breaks stay."""
    text = unicodedata.normalize("NFC", cleaned(raw).translate(_PLAIN)).casefold()
    if "*" in text or "`" in text:
        text = _EMPHASIS.sub(_unemphasised, _FENCE.sub("\n", text))
    text = _HYPHEN.sub(" ", _HEADING.sub("", text) if "#" in text else text)
    return "\n".join(" ".join(line.split()) for line in text.split("\n")).strip()


def _folded(spelling: str) -> str:
    return " ".join(_folded_lines(spelling).split())


def _unemphasised(found: re.Match[str]) -> str:
    """Nothing, but where two digits would become one number (2**3)."""
    before = found.string[max(found.start() - 1, 0) : found.start()]
    after = found.string[found.end() : found.end() + 1]
    return found.group() if before.isdigit() and after.isdigit() else ""


_THOUGHT = re.compile(r"<(/?)(?:think|thinking|thought|reasoning)>")


def _without_thought(text: str) -> str | None:
    """What follows the thoughts; None where one isn't closed, or where something stands before one.

    A thought after the answer may take it back. A first </think> without its <think>, which then was
    a part of the prompt, ends a thought too.
    """
    depth = end = 0
    for number, found in enumerate(_THOUGHT.finditer(text)):
        if not depth and text[end : found.start()].strip() and (number or not found[1]):
            return None
        depth += -1 if found[1] else 1
        if depth < 0 and not number:
            depth = 0
        if depth not in (0, 1):
            return None
        end = found.end()
    return None if depth else text[end:]


_ENDS = tuple(
    " ".join(mark.replace("_", " ").casefold().split())
    for mark in (
        "</s>", "<s>", "<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "<|end|>",
        "<|eom_id|>", "<end_of_turn>", "<eos>", "<pad>", "<|assistant|>", "<|im_start|>assistant",
        "<|start_header_id|>assistant<|end_header_id|>", "<|begin_of_text|>", "[/INST]", "[INST]",
        "<｜end▁of▁sentence｜>".translate(_PLAIN), "<|return|>",
    )
)  # fmt: skip


def _without_markers(text: str) -> str:
    """`text` without the marks that a chat template puts before and after an answer."""
    start, end = 0, len(text)
    trimmed = True
    while trimmed:
        trimmed = False
        while start < end and text[start].isspace():
            start += 1
        while start < end and text[end - 1].isspace():
            end -= 1
        for mark in _ENDS:
            if text.startswith(mark, start, end):
                start, trimmed = start + len(mark), True
            elif text.endswith(mark, start, end):
                end, trimmed = end - len(mark), True
    return text[start:end]


_LONGEST = 1_000  # characters of a value that is no object; what is longer is prose
_STOPS = (".", "。", "!")
_LAYERS = 12  # of brackets, quotation marks and full stops around a value
_CLOSING = dict(zip("[(【{<\"'「『《〈〔$", "])】}>\"'」』》〉〕$", strict=True))
_TAGGED = re.compile(r"<(label|answer|category|class|classification|sentiment|output|result|code)>")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:e[+-]?[0-9]+)?")
_DIGIT = re.compile(r"[0-9]")
_UNSPACED = re.compile("[\u3040-\u30ff\u3400-\u9fff]")  # kana and Chinese characters
_NOT_OR = frozenset(
    "not no never neither nor or and but isn't pas ni ou et nicht kein oder und o y ne".split()
)


def _without_stop(text: str) -> str:
    """`text` without its full stop; three of them trail off."""
    return text[:-1] if text[-1:] in _STOPS and text[-2:-1] not in _STOPS else text


def _unwrapped(text: str) -> tuple[str | None, bool]:
    """`text` without its outermost layer, None where it has none; whether that marked an answer."""
    if len(text) < 2:
        return None, False
    if (without := _without_stop(text)) != text:
        return without, False
    if text.startswith("\\boxed{") and text[-1] == "}":
        return text[7:-1], True
    if text.startswith("\\text{") and text[-1] == "}":
        return text[6:-1], False
    if (tag := _TAGGED.match(text)) and text.endswith(f"</{tag[1]}>"):
        return text[tag.end() : -len(tag[1]) - 3], True
    if _CLOSING.get(text[0]) == text[-1]:
        return text[1:-1], text[0] in "[【{"
    if bullet := _BULLET.match(text):
        return text[bullet.end() :], False
    return None, False


def _unwrapped_wholly(text: str) -> str:
    """`text` without any of its layers, on one line."""
    text = text.strip()
    if len(text) > _LONGEST:
        return text
    for _ in range(_LAYERS):
        inner, _ = _unwrapped(text)
        if inner is None:
            break
        text = inner.strip()
    return text.replace("\n", " ")


def _any_of(words: Iterable[str]) -> str:
    """A pattern for any of `words`, the longest first; of none, one that never matches."""
    return "|".join(map(re.escape, sorted(words, key=len, reverse=True))) or "(?!)"


def _mention(spelling: str) -> str:
    """A pattern for `spelling` where it is no part of a longer word; Chinese and kana have no words."""
    letter = r"[^\W\u3040-\u30ff\u3400-\u9fff]"
    before = rf"(?<!{letter})" if re.match(letter, spelling) else ""
    after = rf"(?!{letter})" if re.match(letter, spelling[-1]) else ""
    return before + re.escape(spelling) + after


_SEPARATOR = re.compile(r"\s*[,;、/\n]\s*")
_BULLET = re.compile(r"\A\s*[-•‣◦+·] +(?=[^0-9\s])")  # but - 1 may be minus one
_AND = re.compile(r" (?:and|et|und|y|&) |\s*(?:和|与|與|及|と)\s*")
_AND_FIRST = re.compile(r"\A\s*(?:and|et|und|y) ")
_LINK = re.compile(r"\s*(?:=>|->|→|:|=)\s*|\s-\s")
_YES = frozenset("yes y true 1 はい あり 有 是 是的 真 oui vrai ja wahr sí si sí verdadero".split())
_NO = frozenset("no n false 0 いいえ なし 无 無 否 不是 假 non faux nein falsch falso".split())
_NONE = frozenset(
    (
        "none", "none of them", "none of these", "none of the above", "no label", "no labels", "なし",
        "該当なし", "いずれも該当しない", "ラベルなし", "无", "無", "没有", "沒有", "以上都不是",
        "都不是", "无标签", "aucun", "aucune", "aucune étiquette", "aucune catégorie", "keine", "keines",
        "ninguno", "ninguna",
    )
)  # fmt: skip
_ESCAPE = re.compile(r"\\(?:u([0-9a-f]{4})|(.))", re.DOTALL)
_ASIDE = frozenset(
    (
        "reason", "reasons", "reasoning", "explanation", "rationale", "justification", "analysis",
        "thought", "thoughts", "confidence", "comment", "text", "理由", "原因", "解释", "解釋", "说明",
        "分析", "置信度", "説明", "根拠", "信頼度", "raison", "explication", "commentaire", "texte",
        "confiance", "begründung", "erklärung", "razón", "explicación",
    )
)  # fmt: skip


def _yes_or_no(text: str) -> bool | None:
    word = _unwrapped_wholly(text)
    return True if word in _YES else False if word in _NO else None


def _is_wordy(text: str) -> bool:
    """Whether a value that is neither a yes nor a no holds one of them, or a sentence."""
    words = re.findall(r"\w+", text)
    return len(words) > 3 or (len(words) > 1 and any(word in _YES or word in _NO for word in words))


def _pair(line: str) -> tuple[str, str] | None:
    key, link, value = _partition(_LINK, _BULLET.sub("", line))
    return (key, value) if link and key.strip() and value.strip() else None


def _pairs_of_lines(text: str) -> list[tuple[str, str]]:
    """The pairs of "this: yes, that: no"; none where there is anything else, or no yes and no no."""
    if not _LINK.search(text):
        return []
    pieces = re.split(r"[,;、\n]", text.rstrip(" .。"))
    pairs = [pair for piece in pieces if piece.strip() and (pair := _pair(piece))]
    if len(pairs) < len([piece for piece in pieces if piece.strip()]):
        return []
    return pairs if any(_yes_or_no(value) is not None for _, value in pairs) else []


def _pairs_of_object(text: str) -> list[tuple[str, str]] | None:
    """The keys and values of {…}, with quotation marks or without; None where it is malformed.

    A nested value is left as it is written.
    """
    if len(text) < 2 or text[0] != "{" or text[-1] != "}":
        return None
    pairs: list[tuple[str, str]] = []
    at, end = 1, len(text) - 1
    while True:
        at = _skipped(text, at)
        if at >= end:
            return pairs
        key, at = _item(text, at, end, stops=":=")
        at = _skipped(text, at)
        if key is None or at >= end or text[at] not in ":=":
            return None
        value, at = _item(text, _skipped(text, at + 1), end, stops=",;\n")
        if value is None:
            return None
        pairs.append((key, value))
        line_ends = text[at] == "\n"
        at = _skipped(text, at)
        if text[at] in ",;":
            at += 1
        elif at < end and not line_ends:
            return None


def _item(text: str, at: int, end: int, *, stops: str) -> tuple[str | None, int]:
    """The key or value that begins at `at`, and where it ends; None where it does not end in order."""
    if at >= end:
        return None, at
    if text[at] in "\"'":
        close = _closed(text, at, end)
        return (None, at) if close is None else (_unescaped(text[at + 1 : close]), close + 1)
    if text[at] in "[{":
        depth, place = 0, at
        while place < end:
            if text[place] in "\"'":
                closed = _closed(text, place, end)
                if closed is None:
                    return None, at
                place = closed
            elif text[place] in "[{":
                depth += 1
            elif text[place] in "]}":
                depth -= 1
                if not depth:
                    return text[at : place + 1], place + 1
            place += 1
        return None, at
    place = at
    while place < end and text[place] not in stops:
        if text[place] in '{}"':
            return None, at
        place += 1
    item = text[at:place].strip()
    return (item or None), place


def _closed(text: str, at: int, end: int) -> int | None:
    """Where the string that begins at `at` has its closing mark."""
    place = at + 1
    while place < end:
        if text[place] == "\\":
            place += 1
        elif text[place] == text[at]:
            return place
        place += 1
    return None


def _skipped(text: str, at: int) -> int:
    while at < len(text) and text[at].isspace():
        at += 1
    return at


def _unescaped(text: str) -> str:
    if "\\" not in text:
        return text.strip()
    return _folded(_ESCAPE.sub(_character, text))


def _character(escape: re.Match[str]) -> str:
    return chr(int(escape[1], 16)) if escape[1] else " " if escape[2] in "bfnrt" else escape[2]


def _partition(pattern: re.Pattern[str], text: str) -> tuple[str, str, str]:
    found = pattern.search(text)
    return (text[: found.start()], found[0], text[found.end() :]) if found else (text, "", "")
