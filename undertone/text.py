"""A comment's text in one form: what can't be seen goes, what the author wrote stays."""

import re
import unicodedata

# Control characters, soft hyphen, marks and overrides of direction, ZWSP, word joiner and invisible
# operators, BOM and its mirror image, annotation anchors. None is seen; all of them split words for a
# tokeniser, and serve to hide words from filters.
_UNSEEN = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e"
    "\u2060-\u206f\ufeff\ufffe\ufff9-\ufffb]"
    # Tag characters spell the flags of England, Scotland and Wales; elsewhere they smuggle text.
    "|(?<![\U0001f3f4\U000e0020-\U000e007e])[\U000e0000-\U000e007f]+"
)
_JOINERS = re.compile("[\u200c\u200d]+")
_PICTURE = re.compile(
    "[©®‼⁉™ℹ\u2190-\u21ff\u2300-\u23ff\u2460-\u27bf\u2900-\u297f\u2b00-\u2bff"
    "〰〽㊗㊙\U0001f000-\U0001faff]"
)
# Arabic to Mandaic, Indic to Tibetan, Myanmar, Khmer, Mongolian, Meetei Mayek, Arabic forms, Brahmi ff.
_JOINED = re.compile(
    "[\u0600-\u085f\u0860-\u08ff\u0900-\u0dff\u0f00-\u109f\u1780-\u18af\u1b00-\u1cff\ua800-\ua8ff"
    "\ua980-\ua9ff\uaa60-\uaa7f\uaae0-\uaaff\uabc0-\uabff\ufb50-\ufdff\ufe70-\ufefc"
    "\U00011000-\U00011fff\U0001e900-\U0001e95f]"
)
_BREAKS = re.compile("[\r\n\x0b\x0c\x85\u2028\u2029]")
_BLANKS = re.compile("[\\s\u2800\u3164\uffa0]+")  # \s, and a braille and two Hangul letters without ink


def cleaned(raw: str) -> str:
    """`raw` in NFC without what can't be seen; a run of white space is one space or line break.

    Case, punctuation, spelling and emoji are the author's. A lone surrogate becomes U+FFFD.
    """
    whole = raw.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    seen = _JOINERS.sub(_joiner, _UNSEEN.sub("", whole))
    lines = (_BLANKS.sub(" ", line).strip() for line in _BREAKS.split(seen))
    return unicodedata.normalize("NFC", "\n".join(line for line in lines if line))


def same_name(name: str) -> str:
    """What two spellings of one person's name have in common: case, width and blanks don't count."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def _joiner(match: re.Match[str]) -> str:
    """What a run of zero-width joiners and non-joiners is worth where it stands.

    They make one emoji of several (👩‍💻, UTS #51) and shape letters of joining scripts: a non-joiner
    between two (می‌خواهم is one word; without it the spelling is wrong), a joiner after one (Sinhala
    and Malayalam ligatures, Unicode 15 §12). Anywhere else they show nothing and split words.
    """
    before = match.string[max(match.start() - 1, 0) : match.start()]
    after = match.string[match.end() : match.end() + 1]
    sign = match.group()[0]
    if "\u200d" in match.group() and _PICTURE.match(after):
        if _PICTURE.match(before) or before == "\ufe0f":
            return "\u200d"
    if _JOINED.match(before) and (sign == "\u200d" or _JOINED.match(after)):
        return sign
    return ""
