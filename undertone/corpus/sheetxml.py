"""The XML inside Excel workbooks (ECMA-376, transitional), taken apart into rows and texts.

Whether it is sound is expat's judgement. Then what is in the usual writing is taken apart by regular
expressions, three times as fast as by expat's events, which read all that is written otherwise.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from xml.parsers import expat

from undertone.corpus.cells import MAX_COLUMNS
from undertone.errors import Problem

MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
MAX_STRINGS = 8_000_000
MAX_SHAPES = 200

Attributes = Mapping[str, str]

# How the cells of a row are written: the letters of each one's address, and everything between the
# address and the value (`" s="1" t="s"><v>`).
Writing = tuple[tuple[str, ...], tuple[str, ...]]
Row = tuple[int, bool, Writing, Sequence[str]]  # its number, whether it is hidden, the cells' values


class Unusual(Exception):
    """A sheet that is not in the usual writing from end to end."""


@dataclass(frozen=True)
class Frame:
    """A sheet: its rows in order, merged ranges, and hidden columns (first, last)."""

    merged: list[str]
    hidden: list[tuple[int, int]]
    rows: Iterator[Row]


def frame_of(xml: bytes, where: str, *, usual: bool) -> Frame:
    """A sheet taken apart: fast if `usual`, when it or its rows may raise `Unusual`.

    `Problem`, `ExpatError` or `ValueError` where it is no sound worksheet, or a cell out of place.
    """
    tags: list[str] = []
    start, end = xml.find(b"<sheetData>") + len(b"<sheetData>"), xml.rfind(b"</sheetData>")
    if usual and not (len(b"<sheetData>") <= start <= end and _is_plain(xml, where)):
        raise Unusual
    frame = Frame([], [], _usual_rows(xml[start:end]) if usual else _any_rows(xml, where))

    def opened(tag: str, attributes: Attributes) -> None:
        tags.append(tag)
        if tag == "mergeCell":
            frame.merged.append(attributes["ref"])
        elif tag == "col" and attributes.get("hidden") in ("1", "true"):
            frame.hidden.append((int(attributes["min"]), int(attributes["max"])))

    walk(xml[:start] + xml[end:] if usual else xml, where, opened)
    if tags[0] != "worksheet" or tags.count("sheetData") != 1:
        raise ValueError("not a worksheet")
    return frame


def strings_of(xml: bytes, where: str) -> list[str]:
    """The texts that cells refer to by their place."""
    if _is_plain(xml, where) and _ALL_STRINGS.fullmatch(xml):
        strings: list[str] = _STRINGS.findall(_text(xml))
        if b"&" in xml:
            strings = [_unescaped(text) for text in strings]
    else:
        strings = _any_strings(xml, where)
    if len(strings) > MAX_STRINGS:
        raise Problem(f"more than {MAX_STRINGS:,} different texts", where=where)
    return [decoded(text) for text in strings] if b"_x" in xml else strings


def walk(xml: bytes, where: str, opened: Callable[[str, Attributes], object]) -> None:
    """Call `opened` with each element; names in the main namespace come without it."""
    parser_of(where, opened).Parse(xml, True)


def parser_of(
    where: str,
    opened: Callable[[str, Attributes], object] | None = None,
    closed: Callable[[str], object] | None = None,
) -> expat.XMLParserType:
    """An XML parser that takes no DTD, and so no entities of its own."""

    def refuse(*_: object) -> None:
        raise Problem(
            "its XML has a DTD, as no workbook has", where=where, remedy="Save it again in Excel."
        )

    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = refuse
    cut = len(MAIN) + 1
    if opened:
        parser.StartElementHandler = lambda tag, attributes: opened(
            tag[cut:] if tag.startswith(MAIN) else tag, attributes
        )
    if closed:
        parser.EndElementHandler = lambda tag: closed(tag[cut:] if tag.startswith(MAIN) else tag)
    return parser


_ESCAPED = re.compile("_x([0-9A-Fa-f]{4})_")


def decoded(text: str) -> str:
    """`_x000D_` and the like as the characters they stand for (ECMA-376 22.9.2.19, ST_Xstring).

    Pairs of surrogates are joined; half a pair stays, to be refused later.
    """
    if "_x" not in text:
        return text
    text = _ESCAPED.sub(lambda match: chr(int(match[1], 16)), text)
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def _letters(column: int) -> str:
    """1 → A, 27 → AA."""
    letters = ""
    while column:
        column, digit = divmod(column - 1, 26)
        letters = chr(65 + digit) + letters
    return letters


COLUMNS = {_letters(column): column for column in range(1, MAX_COLUMNS + 1)}


# The usual writing is what Excel, LibreOffice, openpyxl and XlsxWriter write. These expressions say
# where things are in XML that expat has found sound; they need not find faults in it.
_UTF_8 = rb"(?:\xef\xbb\xbf)?(?:<\?xml [^<>?]*encoding=[\"'](?:UTF|utf)-8[\"'][^<>?]*\?>\s*)?"
_HEAD = re.compile(_UTF_8 + rb"<(?:worksheet|sst) ")
_FORMULA = r"<f(?: [^<>]*+)?(?:/>|>[^<]*+</f>)"
_CELL = (
    r'<c r="([A-Z]{1,3})[0-9]++("(?: s="[0-9]++")?(?: t="[A-Za-z]++")? ?'
    rf"(?:/>|>(?:{_FORMULA})?(?:<v>|<v ?/>(?=</c>)"
    r'|<is><t(?: xml:space="preserve")?>)?))([^<]*+)(?:(?:</v>|</t></is>)?</c>)?'
)
_ROW_START = r'<row r="([0-9]++)"((?: [A-Za-z0-9:]++="[^"<>]*+")*+) ?'
_ROW = _ROW_START + r"(?:/>|>((?:%s)*+)</row>)\s*+"
_STRING = r'<si><t(?: xml:space="preserve")?>([^<]*+)</t></si>\s*+'


def _ungrouped(pattern: str) -> str:
    return re.sub(r"\((?!\?)", "(?:", pattern)


_CELLS = re.compile(_CELL)
_FORMULAS = re.compile(_FORMULA)
_STRINGS = re.compile(_STRING)
# \1: an address has the number of its row
_ROWS = re.compile(_ROW % _ungrouped(_CELL).replace("[0-9]++", r"\1", 1))
_ALL_STRINGS = re.compile(_UTF_8 + rf"<sst [^<>]*>\s*(?:{_ungrouped(_STRING)})*+</sst>\s*".encode())


def _is_plain(xml: bytes, where: str) -> bool:
    """Whether `<` begins a tag wherever it stands in this UTF-8; `ExpatError` on unsound XML."""
    plain = _HEAD.match(xml) is not None

    def unusual(*_: object) -> None:
        nonlocal plain
        plain = False

    parser = parser_of(where)
    parser.CommentHandler = unusual
    parser.ProcessingInstructionHandler = unusual
    parser.StartCdataSectionHandler = unusual
    parser.Parse(xml, True)
    return plain


def _text(xml: bytes) -> str:
    text = xml.decode()
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text  # as XML has it


def _usual_rows(xml: bytes) -> Iterator[Row]:
    """The rows of a sheet in the usual writing, each tried first with the writing of the last."""
    text = _text(xml).lstrip()
    shapes: dict[Writing, tuple[Writing, re.Pattern[str]]] = {}
    writing: Writing = ((), ())
    shape = re.compile("(?!)")
    end = 0
    while end < len(text):
        match = shape.match(text, end)
        if match:
            number, attributes, *found = match.groups()
            values: Sequence[str] = found
        else:
            match = _ROWS.match(text, end)
            if match is None:
                raise Unusual
            number, attributes, body = match.groups("")
            cells = _CELLS.findall(_FORMULAS.sub("<f/>", body))
            letters, heads, values = zip(*cells, strict=True) if cells else ((), (), ())
            writing = (letters, heads)
            if writing not in shapes and len(shapes) < MAX_SHAPES:
                shapes[writing] = (writing, _shape(writing))
            writing, shape = shapes.get(writing, (writing, shape))
        end = match.end()
        if "&" in match[0]:
            values = [_unescaped(value) for value in values]
        hidden = ' hidden="1"' in attributes or ' hidden="true"' in attributes
        yield int(number), hidden, writing, values


def _shape(writing: Writing) -> re.Pattern[str]:
    """What matches rows of one writing, with a group for the value of each cell."""
    cells = (
        rf'<c r="{letters}\1{re.escape(head)}([^<]*+)(?:(?:</v>|</t></is>)?</c>)?'
        for letters, head in zip(*writing, strict=True)
    )
    return re.compile(_ROW_START + rf">{''.join(cells)}</row>\s*+")


def _any_rows(xml: bytes, where: str) -> Iterator[Row]:
    """The rows of a sheet in whatever writing; cells without an address follow the one before."""
    rows: list[Row] = []
    cells: list[tuple[str, str, str]] = []
    row, column, hidden = 0, 0, False
    letters = head = ""
    pieces: list[str] = []
    path: list[str] = [""]

    def opened(tag: str, attributes: Attributes) -> None:
        nonlocal row, column, hidden, letters, head
        above = path[-1]
        path.append(tag)
        if tag == "row" and above == "sheetData":
            row, column = int(attributes.get("r", row + 1)), 0
            hidden = attributes.get("hidden") in ("1", "true")
            cells.clear()
        elif tag == "c" and above == "row":
            address = attributes.get("r") or f"{_letters(column + 1)}{row}"
            letters = address.rstrip("0123456789")
            if address[len(letters) :] != str(row):
                raise ValueError("cells out of place")
            column = COLUMNS[letters]
            head = "".join(f' {name}="{attributes[name]}"' for name in "st" if name in attributes)
        elif tag == "f" and above == "c":
            head += "<f/>"
        elif (tag == "v" and above == "c") or (tag == "t" and "is" in path and "rPh" not in path):
            head = head.removesuffix("<v>") + "<v>"
            parser.CharacterDataHandler = pieces.append

    def closed(tag: str) -> None:
        path.pop()
        if tag in ("v", "t"):
            parser.CharacterDataHandler = None
        elif tag == "c" and path[-1] == "row":
            cells.append((letters, head, "".join(pieces)))
            pieces.clear()
        elif tag == "row" and path[-1] == "sheetData":
            letters_of, heads, values = zip(*cells, strict=True) if cells else ((), (), ())
            rows.append((row, hidden, (letters_of, heads), values))

    parser = parser_of(where, opened, closed)
    for start in range(0, len(xml), 2**18):
        parser.Parse(xml[start : start + 2**18])
        yield from rows
        rows.clear()
    parser.Parse(b"", True)
    yield from rows


def _any_strings(xml: bytes, where: str) -> list[str]:
    strings: list[str] = []
    pieces: list[str] = []
    ruby = 0  # a reading aid, which is no part of the text

    def opened(tag: str, _: Attributes) -> None:
        nonlocal ruby
        ruby += tag == "rPh"
        if tag == "t" and not ruby:
            parser.CharacterDataHandler = pieces.append

    def closed(tag: str) -> None:
        nonlocal ruby
        ruby -= tag == "rPh"
        if tag == "t":
            parser.CharacterDataHandler = None
        elif tag == "si":
            strings.append("".join(pieces))
            pieces.clear()

    parser = parser_of(where, opened, closed)
    parser.Parse(xml, True)
    return strings


_ENTITIES = {"amp": "&", "lt": "<", "gt": ">", "quot": '"', "apos": "'"}
_ENTITY = re.compile("&(?:#x([0-9a-fA-F]+)|#([0-9]+)|([a-z]+));")


def _unescaped(text: str) -> str:
    """XML's entities as characters; not html.unescape, which takes &#128; for the euro sign."""

    def character(match: re.Match[str]) -> str:
        if match[1] or match[2]:
            return chr(int(match[1], 16) if match[1] else int(match[2]))
        return _ENTITIES[match[3]]

    return _ENTITY.sub(character, text) if "&" in text else text
