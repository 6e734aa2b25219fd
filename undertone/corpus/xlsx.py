"""Excel workbooks, each wanted cell exactly as it was typed, or a fault.

No ready-made reader tells an error from an empty cell, a padded number from a plain one, and what
was cut off from what was there; see tests/test_workbook.py for the cases.
"""

import itertools
import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal

from undertone.corpus.cells import MAX_ROWS, SCIENTIFIC, Grid, Place, Wanted
from undertone.corpus.prescan import damaged, open_zip
from undertone.corpus.sheetxml import (
    COLUMNS,
    Attributes,
    Frame,
    Unusual,
    Writing,
    decoded,
    frame_of,
    parser_of,
    strings_of,
    walk,
)
from undertone.errors import Problem

MAX_GAP = 100_000  # rows of nothing before a cell, which then is a slip of the hand

_LINK = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_STRICT = "http://purl.oclc.org/ooxml/"

Format = Literal["general", "whole", "date", "other"]


@dataclass(frozen=True)
class Sheet:
    """The part of the archive that holds a sheet."""

    part: str
    hidden: bool


class Workbook:
    """An open workbook, its `sheets` by name; every trouble with the file itself is a `Problem`."""

    def __init__(self, path: Path, where: str) -> None:
        self.where = where
        self.sheets: dict[str, Sheet] = {}
        self._parts: dict[str, str] = {}
        self._shared: list[str] | None = None
        self._formats: list[Format] = ["general"]
        self._from_1904 = False
        with damaged(where):
            self.archive = open_zip(path, where)
            try:
                self._open()
            except BaseException:
                self.archive.close()
                raise

    def __enter__(self) -> "Workbook":
        return self

    def __exit__(self, *_: object) -> None:
        self.archive.close()

    def grid(self, name: str, wanted: Wanted) -> Grid:
        """The wanted columns of a sheet; `Problem` where it is damaged or a column is missing."""
        place = Place(self.where, name)
        with damaged(str(place)):
            values = self._values()
            xml = self.archive.read(self.sheets[name].part)
            try:
                return _grid(frame_of(xml, str(place), usual=True), wanted, place, values)
            except Unusual:
                return _grid(frame_of(xml, str(place), usual=False), wanted, place, values)

    def header(self, name: str) -> dict[str, str]:
        """Letters of the columns → what the sheet's first row holds there, where it holds anything."""
        where = str(Place(self.where, name))
        with damaged(where):
            rows = frame_of(self.archive.read(self.sheets[name].part), where, usual=False).rows
            row, _, writing, texts = next(rows, (1, False, ((), ()), ()))
            held = zip(writing[0], _headers(writing, texts, self._values()), strict=True)
            return {letters: text for letters, text in held if text} if row == 1 else {}

    def is_empty(self, name: str) -> bool:
        """Whether no cell of the sheet holds anything."""
        where = str(Place(self.where, name))
        with damaged(where):
            rows = frame_of(self.archive.read(self.sheets[name].part), where, usual=False).rows
            return not any(value for *_, values in rows for value in values)

    def _values(self) -> "_Values":
        if self._shared is None:
            part = self._parts.get("sharedStrings")
            self._shared = strings_of(self.archive.read(part), self.where) if part else []
        return _Values(self._shared, self._formats, self._from_1904)

    def _open(self) -> None:
        root = self._links("")
        office = [target for kind, target in root.values() if kind.endswith("/officeDocument")]
        if any(kind.startswith(_STRICT) for kind, _ in root.values()):
            raise Problem(
                "a Strict Open XML workbook",
                where=self.where,
                remedy="Save it as Excel Workbook (.xlsx), without Strict.",
            )
        links = self._links(office[0])
        for _, part in links.values():
            self.archive.getinfo(part)  # without the styles, dates would pass for numbers
        self._parts = {kind.rsplit("/", 1)[1]: part for kind, part in links.values()}

        def opened(tag: str, attributes: Attributes) -> None:
            if tag == "workbookPr":
                self._from_1904 = attributes.get("date1904") in ("1", "true")
            if tag == "sheet":
                kind, part = links[attributes[f"{_LINK} id"]]
                name = attributes["name"]
                if name in self.sheets:
                    raise ValueError("two sheets of one name")
                if kind.endswith("/worksheet"):  # not a chart or a macro sheet
                    self.sheets[name] = Sheet(part, attributes.get("state", "visible") != "visible")

        walk(self.archive.read(office[0]), self.where, opened)
        if "styles" in self._parts:
            self._formats = _formats(self.archive.read(self._parts["styles"]), self.where)

    def _links(self, part: str) -> dict[str, tuple[str, str]]:
        """The relations of a part ('' is the package): id → kind, name of the other part."""
        folder, name = posixpath.split(part)
        links: dict[str, tuple[str, str]] = {}

        def opened(tag: str, attributes: Attributes) -> None:
            if tag.endswith("Relationship") and attributes.get("TargetMode") != "External":
                target = posixpath.normpath(posixpath.join("/", folder, attributes["Target"]))
                links[attributes["Id"]] = (attributes["Type"], target.lstrip("/"))

        walk(self.archive.read(posixpath.join(folder, "_rels", f"{name}.rels")), self.where, opened)
        return links


@dataclass(frozen=True)
class _Plan:
    """What to do with rows of one writing: (which cell, to which wanted column, read how)."""

    steps: list[tuple[int, int, Callable[[str], str]]]
    has_number_id: bool
    formulas: int


def _grid(frame: Frame, wanted: Wanted, place: Place, values: "_Values") -> Grid:
    grid = Grid(place, wanted)
    slots: dict[str, int] | None = None  # letters → which wanted column
    plans: dict[Writing, _Plan] = {}
    plan, planned = _Plan([], False, 0), None
    blank = [""] * len(wanted.columns)
    above = filled = missing = 0
    for row, hidden, writing, texts in frame.rows:
        if not above < row <= MAX_ROWS:
            raise ValueError("rows out of place")
        missing += row - above - 1
        above = row
        if row < wanted.header:
            continue
        if slots is None:
            header = (writing, texts) if row == wanted.header else (((), ()), ())
            slots = _slots(*header, wanted, place, values)
            filled, missing = row, 0
            continue
        if writing is not planned:
            if writing not in plans:
                plans[writing] = _plan(writing, slots, wanted, values)
            plan, planned = plans[writing], writing
        found = blank.copy()
        for at, slot, read in plan.steps:
            try:
                found[slot] = read(texts[at])
            except _Fault as fault:
                found[slot] = grid.fault(row, wanted.columns[slot].header, str(fault))
        if not grid.add(row, found):
            continue
        if row - filled > MAX_GAP:
            raise Problem(
                f"row {row} is filled, {row - filled - 1:,} empty rows below the last one",
                where=str(place),
                remedy="Delete the stray cell.",
            )
        filled = row
        grid.blank += missing
        missing = 0
        if plan.has_number_id:
            grid.number_ids.add(row)
        if plan.formulas:
            grid.seen["formula cells, taken at their stored results"] += plan.formulas
        if hidden:
            grid.seen["rows hidden in Excel"] += 1
    if slots is None:
        slots = _slots(((), ()), (), wanted, place, values)
    _refuse_merged(frame.merged, slots, wanted, place)
    columns = [COLUMNS[letters] for letters in slots]
    grid.seen["columns hidden in Excel"] += sum(
        first <= column <= last for first, last in frame.hidden for column in columns
    )
    return grid


def _plan(writing: Writing, slots: Mapping[str, int], wanted: Wanted, values: "_Values") -> _Plan:
    """A sheet has few writings, so that this is worked out once for each."""
    places = [COLUMNS[letters] for letters in writing[0]]
    if any(right <= left for left, right in itertools.pairwise(places)):
        raise ValueError("cells out of place")
    steps: list[tuple[int, int, Callable[[str], str]]] = []
    has_number_id, formulas = False, 0
    for at, (letters, head) in enumerate(zip(*writing, strict=True)):
        slot = slots.get(letters, -1)
        if slot >= 0 and (_is_valued(head) or "<f" in head):
            column = wanted.columns[slot]
            steps.append((at, slot, values.reader(head, column.exact)))
            has_number_id |= column.header == wanted.id and _attribute(head, "t") in ("", "n")
            formulas += "<f" in head
    return _Plan(steps, has_number_id, formulas)


def _slots(
    writing: Writing, texts: Sequence[str], wanted: Wanted, place: Place, values: "_Values"
) -> dict[str, int]:
    """Letters of the wanted columns → their place among the wanted ones, from the header's cells."""
    headers = _headers(writing, texts, values)
    return {writing[0][at]: slot for slot, at in enumerate(wanted.among(headers, place))}


def _headers(writing: Writing, texts: Sequence[str], values: "_Values") -> list[str]:
    headers = []
    for head, text in zip(writing[1], texts, strict=True):
        try:
            headers.append(values.reader(head, exact=False)(text) if _is_valued(head) else "")
        except _Fault:
            headers.append("")
    return headers


def _refuse_merged(
    merged: Sequence[str], slots: Mapping[str, int], wanted: Wanted, place: Place
) -> None:
    """`Problem` where merged cells lie over a wanted column: all but the first would be blank."""
    for reference in merged:
        first, _, last, bottom = re.findall("[A-Z]+|[0-9]+", reference)
        reach = range(COLUMNS[first], COLUMNS[last] + 1)
        if int(bottom) >= wanted.header and any(COLUMNS[letters] in reach for letters in slots):
            raise Problem(f"merged cells {reference}", where=str(place), remedy="Unmerge them.")


class _Fault(Exception):
    """A cell that can't be taken over; its text is a key of `cells.FAULTS`."""


def _faulty(reason: str) -> Callable[[str], str]:
    def refuse(_: str) -> str:
        raise _Fault(reason)

    return refuse


def _is_valued(head: str) -> bool:
    return "<v" in head or "<is>" in head


def _attribute(head: str, name: str) -> str:
    found = re.search(f' {name}="([^"]*)"', head)
    return found[1] if found else ""


@dataclass(frozen=True)
class _Values:
    """What a cell's writing stands for in this workbook."""

    shared: list[str]
    formats: list[Format]
    from_1904: bool

    def reader(self, head: str, exact: bool) -> Callable[[str], str]:
        """What turns the values of cells with this head into what Excel's formula bar shows, and
        dates into ISO 8601. It raises `_Fault` where that can't be told, or where `exact` and what
        the sheet shows is not what is stored."""
        kind = _attribute(head, "t") or "n"
        style = _attribute(head, "s")
        shown = self.formats[int(style)] if style else "general"
        if not _is_valued(head):
            return _faulty("formula without a result")
        if kind == "s":
            return partial(_shared, texts=self.shared)
        if kind in ("inlineStr", "str"):
            return decoded
        if kind == "b":
            return {"1": "TRUE", "0": "FALSE"}.__getitem__
        if kind == "e":
            return _faulty("error cell")
        if exact and (kind == "d" or (kind == "n" and shown == "date")):
            return lambda value: value and _faulty("date")(value)
        if kind == "d":
            return str
        if kind != "n":
            raise ValueError("unknown type of cell")
        number = (
            partial(_date, from_1904=self.from_1904)
            if shown == "date"
            else partial(_number, shown=shown, exact=exact)
        )
        if "<f" in head:
            return lambda value: number(value) or _faulty("formula without a result")(value)
        return number


def _shared(place: str, texts: list[str]) -> str:
    if not place.isdecimal():  # int() would also take -1, which is the last
        raise ValueError("not the place of a text")
    return texts[int(place)]


_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)
_WHOLE = re.compile("0|[1-9][0-9]{0,14}")


def _number(value: str, shown: Format, exact: bool) -> str:
    if shown == "general" and _WHOLE.fullmatch(value):
        return value
    number = _float(value)
    if number is None:
        return ""
    if exact and abs(number) >= SCIENTIFIC:
        raise _Fault("long number")
    text = f"{number:.15g}" if number else "0"
    if exact and ("e" in text or shown == "other" or (shown == "whole" and "." in text)):
        raise _Fault("formatted number")
    return text


def _float(value: str) -> float | None:
    if _NUMBER.fullmatch(value):  # float() would also take nan, inf and 1_000
        return float(value)
    if value.strip():
        raise ValueError("not a number")
    return None


_DAY = 86_400_000  # milliseconds


def _date(value: str, from_1904: bool) -> str:
    """A serial number of Excel's calendar as ISO 8601, to the millisecond.

    `_Fault` outside 1900 to 9999, and on 60, the 29th of February 1900 that never was.
    """
    number = _float(value)
    if number is None:
        return ""
    serial = number + (1462 if from_1904 else 0)
    if not 1 <= serial < 2_958_465.999 or 60 <= serial < 61:
        raise _Fault("no date")
    days, rest = divmod(round(serial * _DAY), _DAY)
    if not rest:
        return _day(days)
    moment = f"{_day(days)}T{rest // 3_600_000:02}:{rest // 60_000 % 60:02}:{rest // 1000 % 60:02}"
    return f"{moment}.{rest % 1000:03}" if rest % 1000 else moment


@lru_cache(maxsize=4096)
def _day(days: int) -> str:
    # 1900 has a 29th of February in Excel, so that the days before it count from a day later
    return (date(1899, 12, 30 if days > 60 else 31) + timedelta(days)).isoformat()


_DATES = {*range(14, 23), *range(27, 37), *range(45, 48), *range(50, 59)}  # built in, ECMA-376 18.8.30
_QUOTED = re.compile(r'"[^"]*"|\\.|_.|\*.|\[(?!h+\]|m+\]|s+\])[^\]]*\]', re.IGNORECASE)


def _formats(xml: bytes, where: str) -> list[Format]:
    """For each cell style of a workbook how it shows numbers."""
    codes: dict[int, str] = {0: "General", 1: "0", 49: "@", **dict.fromkeys(_DATES, "yyyy")}
    styles: list[int] = []
    path: list[str] = [""]

    def opened(tag: str, attributes: Attributes) -> None:
        if tag == "numFmt" and path[-1] == "numFmts":
            codes[int(attributes["numFmtId"])] = attributes["formatCode"]
        elif tag == "xf" and path[-1] == "cellXfs":
            styles.append(int(attributes.get("numFmtId", "0")))
        path.append(tag)

    parser_of(where, opened, lambda _: path.pop()).Parse(xml, True)
    return [_format(codes.get(style, "#")) for style in styles]


def _format(code: str) -> Format:
    if code.casefold() in ("general", "@"):
        return "general"
    if code == "0":
        return "whole"
    bare = _QUOTED.sub("", code).casefold()
    # [h]:mm is a span of time, which no calendar date stands for
    return "date" if re.search("[ymdhs]", bare) and "[" not in bare else "other"
