"""The ids and texts of a file of any size, row by row in constant memory, from any row on.

A cell is read as ingest reads it (`plain`, `workbook`), but ingest holds a whole source and refuses it
for one bad cell; here a bad cell is a row that says so. What makes the rows themselves doubtful (quotes
that don't close, a last line cut off, bytes that aren't UTF-8) is still a `Problem`. A workbook is the
exception: it is read whole, for a sheet has an end.
"""

import csv
import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from undertone.corpus import plain, prescan
from undertone.corpus.cells import FAULTS, UNUSABLE, Column, Grid, Place, Wanted
from undertone.corpus.workbook import read_files
from undertone.errors import Problem
from undertone.params import Source

BLANK = "blank"  # the fault of what is no row: an empty line
MAX_LINE = 4 * plain.MAX_FIELD  # bytes
_ENDINGS: dict[str, prescan.Kind] = {
    ".csv": "text", ".tsv": "text", ".tab": "text", ".txt": "text", ".jsonl": "jsonl",
    ".parquet": "parquet",
}  # fmt: skip
_BATCH = 1024  # rows of parquet at a time
_BOM = b"\xef\xbb\xbf"


class Row(NamedTuple):
    """`at` is where to start to read it again; `number` the row or line that other programs show.

    `fault`: why the text is none (a key of `cells.FAULTS`, or BLANK), empty for a good one. `id` is
    None where there is none to be read, and where none was asked for.
    """

    at: int
    number: int
    id: str | None
    text: str
    fault: str


@dataclass(frozen=True)
class Table:
    """A file with its columns; `name` is what people are told, `stamp` its size and time of change.

    `sheet`: of a workbook, by default the only one that holds anything. `delimiter`: of a file of
    delimited text, by default what its name says.
    """

    path: Path
    name: str
    kind: prescan.Kind
    text: str
    id: str | None
    stamp: tuple[int, int]
    sheet: str | None
    delimiter: str | None

    @classmethod
    def of(
        cls,
        path: Path,
        name: str,
        text: str,
        id_: str | None,
        *,
        sheet: str | None = None,
        delimiter: str | None = None,
    ) -> "Table":
        """`Problem` where the file is nothing that can be read, or has no such parts."""
        if not path.is_file():
            raise Problem("no such file", where=str(path))
        kind = _kind(path, name)
        if sheet is not None and kind not in ("xlsx", "xls", "ods"):
            raise Problem("has no sheets", where=name, remedy="Leave out --sheet.")
        if delimiter is not None and kind != "text":
            raise Problem("has no delimiter", where=name, remedy="Leave out --delimiter.")
        return cls(path.absolute(), name, kind, text, id_, _stamp(path), sheet, delimiter)

    @property
    def wanted(self) -> Wanted:
        columns = [Column(self.text, "--text", exact=True)]
        if self.id is not None:
            columns.append(Column(self.id, "--id", exact=True))
        return Wanted(tuple(columns), self.id)

    def check(self) -> None:
        """`Problem` where the file isn't the one that it was."""
        if not self.path.is_file() or _stamp(self.path) != self.stamp:
            raise Problem("changed while it was scored", where=self.name, remedy="Score it anew.")


def rows(table: Table, at: int = 0, number: int = 1) -> Iterator[Row]:
    """All rows and blank lines, or those from the one whose `at` and `number` are given."""
    if table.kind == "text":
        return _delimited(table, at, number)
    if table.kind == "jsonl":
        return _jsonl(table, at, number)
    if table.kind == "parquet":
        return _parquet(table, at)
    return iter(_sheet(table)[at:])


def header(table: Table) -> frozenset[str]:
    """The names of all columns, where a file has them in one place: CSV and parquet."""
    if table.kind == "text":
        with table.path.open("rb") as file:
            return frozenset(next(_records(_Lines(file, table.name), table), []))
    if table.kind == "parquet":
        return frozenset(_opened(table).schema_arrow.names)
    return frozenset()


def _stamp(path: Path) -> tuple[int, int]:
    told = path.stat()
    return told.st_size, told.st_mtime_ns


def _kind(path: Path, name: str) -> prescan.Kind:
    """By content; ingest's limit of size is for what is read whole."""
    kind = _ENDINGS.get(path.suffix.lower())
    large = path.stat().st_size > prescan.MAX_FILE
    return kind if kind and large else prescan.kind_of(path, name)


class _Lines:
    """The lines of a UTF-8 file as text, ended by the line feed alone; `at` is where the next begins."""

    def __init__(self, file: BinaryIO, name: str, at: int = 0, *, ended: bool = True) -> None:
        self.at = at
        self._file = file
        self._name = name
        self._ended = ended
        self._number = 0
        file.seek(at)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._file.readline(MAX_LINE)
        if not line:
            raise StopIteration
        self._number += 1
        if not line.endswith(b"\n"):
            if len(line) == MAX_LINE:
                raise Problem(
                    f"line {self._number:,} is longer than {MAX_LINE:,} bytes", where=self._name
                )
            if self._ended:
                raise Problem(
                    "its last line has no end, as in a file that was cut off",
                    where=self._name,
                    remedy="Copy it again; if it is complete, end it with a line break.",
                )
        start, self.at = self.at, self.at + len(line)
        try:
            return (line.removeprefix(_BOM) if start == 0 else line).decode()
        except UnicodeDecodeError as error:
            raise Problem(
                f"byte {start + error.start + 1:,}, in line {self._number:,}, is not UTF-8",
                where=self._name,
                remedy="Save it as UTF-8.",
            ) from None


def _records(lines: _Lines, table: Table) -> Iterator[list[str]]:
    """RFC 4180; asks for no line before it is needed, so that `lines.at` is where the next begins."""
    csv.field_size_limit(plain.MAX_FIELD)
    reader = csv.reader(lines, delimiter=_delimiter(table), strict=True)
    try:
        yield from reader
    except csv.Error as error:
        raise Problem(
            f"line {reader.line_num:,}: {str(error).partition(' - ')[0]}",
            where=table.name,
            remedy="Quote fields that hold quotes or line breaks, and double the quotes in them.",
        ) from None


def _delimited(table: Table, at: int, first: int) -> Iterator[Row]:
    with table.path.open("rb") as file:
        lines = _Lines(file, table.name)
        names = next(_records(lines, table), [])
        plain.check_delimiter(names, table.wanted, _delimiter(table), table.name, "Set --delimiter")
        places = table.wanted.among(names, Place(table.name))
        if at:
            lines = _Lines(file, table.name, at)
        start = lines.at
        for number, fields in enumerate(_records(lines, table), first if at else 2):
            if not fields:
                yield Row(start, number, None, "", BLANK)
            elif len(fields) != len(names):
                yield Row(start, number, None, "", "number of fields")
            else:
                yield _row(start, number, [fields[place] for place in places])
            start = lines.at


def _delimiter(table: Table) -> str:
    return table.delimiter or ("\t" if table.path.suffix.lower() in (".tsv", ".tab") else ",")


def _jsonl(table: Table, at: int, first: int) -> Iterator[Row]:
    keys: dict[str, None] = {}
    with table.path.open("rb") as file:
        lines = _Lines(file, table.name, at, ended=False)
        start = at
        for number, line in enumerate(lines, first):
            if line.strip():
                entry = plain.json_object(line, f"{table.name}, line {number:,}")
                if len(keys) < 1000:  # they are asked for below, and told if one is missing
                    keys |= dict.fromkeys(entry)
                values = [entry.get(one.header) for one in table.wanted.columns]
                nested = isinstance(values[0], list | dict)
                texts = ["" if one is None else str(one) for one in values]
                if isinstance(values[-1], list | dict):
                    texts[-1] = ""
                yield _row(start, number, texts, "not a value" if nested else "")
            else:
                yield Row(start, number, None, "", BLANK)
            start = lines.at
    if at == 0:
        table.wanted.exactly(list(keys), Place(table.name))


def _parquet(table: Table, at: int) -> Iterator[Row]:
    file = _opened(table)
    places = table.wanted.among(file.schema_arrow.names, Place(table.name))
    names = [file.schema_arrow.names[place] for place in places]
    first, skipped = 0, at
    while first < file.num_row_groups and skipped >= (group := file.metadata.row_group(first).num_rows):
        first, skipped = first + 1, skipped - group
    groups = list(range(first, file.num_row_groups))
    try:
        for batch in file.iter_batches(_BATCH, row_groups=groups, columns=names, use_threads=False):
            if skipped >= len(batch):
                skipped -= len(batch)
                continue
            columns = [batch.column(name)[skipped:].to_pylist() for name in names]
            grid = Grid(Place(table.name), table.wanted)
            for row, values in enumerate(zip(*columns, strict=True), start=at + 1):
                plain.add_values(grid, row, values)
            yield from _filled(grid, at, len(columns[0]))
            at, skipped = at + len(columns[0]), 0
    except (OSError, pa.ArrowException, ValueError) as error:
        raise _unreadable(table, error) from None


def _filled(grid: Grid, at: int, count: int) -> Iterator[Row]:
    """Every row of a batch: the grid leaves out those of nothing, which here are rows without a text."""
    bad = {(one.row, one.column): one.reason for one in grid.bad}
    columns = [one.header for one in grid.wanted.columns]
    width = len(columns)
    places = {row: place for place, row in enumerate(grid.rows)}
    for number in range(at + 1, at + count + 1):
        place = places.get(number)
        values = [""] * width if place is None else grid.values[place * width : (place + 1) * width]
        if width > 1 and (number, columns[1]) in bad:
            values[1] = ""
        yield _row(number - 1, number, values, bad.get((number, columns[0]), ""))


def _opened(table: Table) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(table.path, buffer_size=2**20, pre_buffer=False)
    except (OSError, pa.ArrowException, ValueError) as error:
        raise _unreadable(table, error) from None


def _unreadable(table: Table, error: Exception) -> Problem:
    return Problem(f"not a readable parquet table ({type(error).__name__})", where=table.name)


@lru_cache(maxsize=1)  # each part of it asks for it again
def _sheet(table: Table) -> list[Row]:
    sheets = None if table.sheet is None else [table.sheet]
    source = Source(files=[glob.escape(table.path.name)], text=table.text, sheets=sheets)
    raw = read_files(table.path.parent, source, table.wanted, "")
    bad = {(one.row, one.column): one.reason for one in raw.bad}
    texts = raw.cells[f"cell.{table.text}"]
    ids = texts if table.id is None else raw.cells[f"cell.{table.id}"]
    found = []
    for at, (number, text, id_) in enumerate(zip(raw.cells["row"], texts, ids, strict=True)):
        values = [text] if table.id is None else [text, "" if (number, table.id) in bad else id_]
        found.append(_row(at, int(number), values, bad.get((number, table.text), "")))
    return found + [Row(len(found), 0, None, "", BLANK)] * raw.blank


def _row(at: int, number: int, values: Sequence[str], fault: str = "") -> Row:
    """`values`: the text, and the id where one was asked for."""
    text, id_ = values[0], values[1] if len(values) > 1 else ""
    fault = fault or ("broken character" if UNUSABLE.search(text) else "")
    assert fault in FAULTS or not fault
    return Row(at, number, None if UNUSABLE.search(id_) else id_ or None, "" if fault else text, fault)
