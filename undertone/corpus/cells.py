"""Cells on their way from a file to a table: where they stand, which are wanted, which are bad."""

import difflib
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from undertone.errors import Problem

MAX_ROWS = 1_048_576  # of an Excel sheet, and MAX_COLUMNS (ECMA-376 leaves it to Excel)
MAX_COLUMNS = 16_384
SCIENTIFIC = 10**15  # from here on Excel has lost digits: it keeps 15
UNUSABLE = re.compile("[\x00\ud800-\udfff]")  # NUL, and halves of surrogate pairs

# What can be wrong with a cell, as the ledger counts it → as a person reads it.
FAULTS: Mapping[str, str] = {
    "error cell": "an error cell (Excel shows it as #N/A or the like). Fix the cell",
    "formula without a result": "a formula without a stored result. Save the file once in Excel",
    "date": "a date where a text is expected. Type it as a text",
    "formatted number": "a number whose format changes how it reads. Type it as a text",
    "long number": "a number beyond the 15 digits that Excel keeps. Store it as a text",
    "broken character": "half of a surrogate pair, or NUL. Retype the cell",
    "no date": "a number that is no date in Excel's calendar. Retype the cell",
    "not a value": "a value that is no text and no number. Write it as a text",
    "blank id": "an empty id. Fill it in",
    "number of fields": "a row with more or fewer fields than the header. Quote its fields",
    "number or blank": "a number or nothing, and this old format doesn't say how Excel shows it."
    " Save the workbook as .xlsx",
}


@dataclass(frozen=True)
class Place:
    """A sheet of a file; `sheet` is empty where a file has none."""

    file: str
    sheet: str = ""

    def __str__(self) -> str:
        return f"{self.file}, sheet {self.sheet}" if self.sheet else self.file

    def cell(self, row: int, column: str) -> str:
        return f"{self}, row {row}, column {column}"


@dataclass(frozen=True)
class Bad:
    """A cell that can't be taken over as it is; `reason` is counted, `what` is told."""

    place: Place
    row: int
    column: str
    reason: str
    what: str

    def __str__(self) -> str:
        return f"{self.place.cell(self.row, self.column)}: {self.what}"


@dataclass(frozen=True)
class Column:
    """A column that is needed: its header, and the params key that names it.

    `exact`: what Excel shows matters (ids, texts), not what a number is worth (flags, dates).
    `means`: other headers that stand for it.
    """

    header: str
    setting: str
    exact: bool = False
    means: Callable[[str], bool] | None = None

    def fits(self, header: str) -> bool:
        return header == self.header or (self.means is not None and self.means(header))


@dataclass(frozen=True)
class Wanted:
    """The columns to read, the one with the ids, and the row of the header."""

    columns: tuple[Column, ...]
    id: str | None
    header: int = 1

    def among(self, headers: Sequence[str], place: Place) -> list[int]:
        """For each wanted column its position among `headers`; `Problem` with all that's wrong.

        Where no header is spelt so, one that differs in the space around it, or in how its letters are
        composed, is the column.
        """
        return self._positions(headers, place, near=True)

    def exactly(self, headers: Sequence[str], place: Place) -> None:
        """`Problem` as `among`, and where a column is not spelt as it is wanted."""
        self._positions(headers, place, near=False)

    def _positions(self, headers: Sequence[str], place: Place, *, near: bool) -> list[int]:
        problems: list[Problem] = []
        missing: list[Column] = []
        found: list[int] = []
        for column in self.columns:
            at = [position for position, header in enumerate(headers) if column.fits(header)]
            if near and not at:
                own = _trimmed(column.header)
                at = [position for position, header in enumerate(headers) if _trimmed(header) == own]
            found.append(at[0] if at else -1)
            if len(at) > 1:
                problems.append(
                    Problem(
                        f"column '{column.header}' stands {len(at)} times",
                        where=str(place),
                        remedy="Rename all but one.",
                    )
                )
            if not at:
                missing.append(column)
                problems.append(_missing(column, headers, self.header, place))
        if missing:
            raise NoColumn(problems, missing, place)
        if problems:
            raise Problem.together(problems)
        return found


class NoColumn(Problem):
    """A sheet without some of the wanted columns."""

    def __init__(self, problems: Sequence[Problem], missing: Sequence[Column], place: Place) -> None:
        super().__init__(str(Problem.together(problems)))
        self.headers = {column.header for column in missing}
        self.place = place


@dataclass
class Grid:
    """The wanted cells of one sheet: `values` has those of row `rows[0]` of the file first, and so on.

    `number_ids`: the rows whose id is a number, not a text. `seen`: what the log should say.
    """

    place: Place
    wanted: Wanted
    rows: list[int] = field(default_factory=list)
    values: list[str] = field(default_factory=list)
    bad: list[Bad] = field(default_factory=list)
    number_ids: set[int] = field(default_factory=set)
    blank: int = 0
    seen: Counter[str] = field(default_factory=Counter)

    @property
    def cells(self) -> dict[str, list[str]]:
        """The values of each wanted column, by its header."""
        columns = self.wanted.columns
        return {column.header: self.values[at :: len(columns)] for at, column in enumerate(columns)}

    def add(self, row: int, values: Sequence[str]) -> bool:
        """Take over a row, one value for each wanted column; one of nothing is counted only."""
        if not any(values):
            self.blank += 1
            return False
        self.rows.append(row)
        self.values.extend(values)
        return True

    def fault(self, row: int, column: str, reason: str) -> str:
        """Note a bad cell; what stands in its place keeps the row from being taken for blank."""
        self.bad.append(Bad(self.place, row, column, reason, FAULTS[reason]))
        return "\ufffd"


def _missing(column: Column, headers: Sequence[str], row: int, place: Place) -> Problem:
    named = [header for header in headers if header.strip()]
    near = [header for header in named if _plain(header) == _plain(column.header)]
    near = near or difflib.get_close_matches(column.header, named, n=1)
    looks_right = all(map(_looks_like_a_header, named)) and len(set(named)) == len(named)
    if not named:
        it_has = f"row {row} is empty"
    elif looks_right:
        it_has = f"row {row} has {', '.join(named[:20])}"
    else:  # it may hold a comment, which is never shown
        it_has = f"row {row} has {len(named)} cells and doesn't look like a header"
    nearest = f" (nearest: '{near[0]}')" if near and looks_right else ""
    return Problem(
        f"no column '{column.header}'; {it_has}{nearest}",
        where=str(place),
        remedy=f"Set {column.setting}.",
    )


def _looks_like_a_header(cell: str) -> bool:
    words = cell.split()
    return len(words) <= 3 and len(cell) <= (30 if cell.isascii() else 12)


def _plain(header: str) -> str:
    return _trimmed(header).casefold()


def _trimmed(header: str) -> str:
    return unicodedata.normalize("NFC", header).strip().strip("\ufeff")
