"""Tables that aren't workbooks: CSV, TSV, JSON Lines, parquet. Strings stay as they are written."""

import csv
import io
import json
import math
import re
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from undertone.corpus.cells import SCIENTIFIC, Grid, Place, Wanted
from undertone.errors import Problem

MAX_FIELD = 10_000_000  # characters


_QUOTED = re.compile('"[^"]*"')
_LONE_CR = re.compile("\r(?!\n)")


def read_delimited(path: Path, where: str, wanted: Wanted, encoding: str, delimiter: str) -> Grid:
    """The wanted columns of a CSV or TSV file (RFC 4180); row numbers are those Excel would show."""
    place = Place(where)
    text = _decoded(path, where, encoding)
    if text[-1:] not in ("\n", "\r"):
        raise Problem(
            "its last line has no end, as in a file that was cut off",
            where=where,
            remedy="Copy it again; if it is complete, end it with a line break.",
        )
    if "\n" in text and _LONE_CR.search(_QUOTED.sub("", text)):
        raise Problem(
            "a carriage return within a line, which would cut a text in two",
            where=where,
            remedy="Quote the fields that hold line breaks.",
        )
    limit = csv.field_size_limit(MAX_FIELD)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        return _delimited(reader, wanted, place, delimiter)
    except csv.Error as error:
        raise Problem(
            f"line {reader.line_num}: {error}",
            where=where,
            remedy="Quote fields that hold quotes, and double the quotes in them.",
        ) from None
    finally:
        csv.field_size_limit(limit)


def _delimited(reader: Iterator[list[str]], wanted: Wanted, place: Place, delimiter: str) -> Grid:
    grid = Grid(place, wanted)
    at: list[int] = []
    width = 0
    for row, fields in enumerate(reader, start=1):
        if row < wanted.header:
            continue
        if row == wanted.header:
            width = len(fields)
            check_delimiter(fields, wanted, delimiter, str(place), "Set the source's `delimiter` to")
            at = wanted.among(fields, place)
        elif not fields:
            grid.blank += 1
        elif len(fields) != width:
            grid.add(row, [grid.fault(row, wanted.columns[0].header, "number of fields")] * len(at))
        else:
            grid.add(row, [fields[position] for position in at])
    if not at:
        wanted.among([], place)
    return grid


def check_delimiter(
    header: Sequence[str], wanted: Wanted, delimiter: str, where: str, remedy: str
) -> None:
    """`Problem` where a header of one cell, which isn't wanted, is apart at another delimiter: Excel
    writes the one of its country."""
    other = next((one for one in ";\t|," if len(header) == 1 and one in header[0]), None)
    if other and not any(column.fits(header[0]) for column in wanted.columns):
        what = f"its header has no '{delimiter}', but has '{other}'"
        raise Problem(what, where=where, remedy=f"{remedy} '{other}'.")


def read_jsonl(path: Path, where: str, wanted: Wanted, encoding: str) -> Grid:
    """The wanted keys of JSON Lines; a key that a line lacks is an empty cell."""
    place = Place(where)
    grid = Grid(place, wanted)
    lines: list[tuple[int, dict[str, object]]] = []
    # Not splitlines: U+2028 and U+0085 may stand inside a text.
    for number, line in enumerate(_decoded(path, where, encoding).split("\n"), start=1):
        if not line.strip():
            grid.blank += 1
            continue
        lines.append((number, json_object(line, f"{where}, line {number}")))
    grid.blank -= 1 if lines and lines[-1][0] <= number - 1 else 0  # after the last line break
    headers = list(dict.fromkeys(key for _, entry in lines for key in entry))
    keys = [headers[position] for position in wanted.among(headers, place)]
    for number, entry in lines:
        values = []
        for key, column in zip(keys, wanted.columns, strict=True):
            value = entry.get(key)
            if isinstance(value, list | dict):
                values.append(grid.fault(number, column.header, "not a value"))
            else:
                values.append("" if value is None else str(value))
            if column.header == wanted.id and isinstance(value, _Number):
                grid.number_ids.add(number)
        grid.add(number, values)
    return grid


class _Number(str):
    """A JSON number as it is written: 1.0 stays 1.0, and 18 digits stay 18 digits."""


def json_object(line: str, where: str) -> dict[str, object]:
    """A JSON object, its numbers and truth values as text, as they are written; `Problem` where a key
    stands twice, or a number is none."""

    def no_repeat(pairs: list[tuple[str, object]]) -> dict[str, object]:
        entry = dict(pairs)
        if len(entry) < len(pairs):
            raise Problem("a key stands twice", where=where)
        return {
            key: {True: "true", False: "false"}[value] if isinstance(value, bool) else value
            for key, value in pairs
        }

    def constant(name: str) -> object:
        raise Problem(f"{name} is no JSON", where=where, remedy="Write null.")

    try:
        entry = json.loads(
            line,
            object_pairs_hook=no_repeat,
            parse_constant=constant,
            parse_int=_Number,
            parse_float=_Number,
        )
    except (json.JSONDecodeError, RecursionError) as error:
        raise Problem(
            f"not JSON ({type(error).__name__})", where=where, remedy="Write one object a line."
        ) from None
    if not isinstance(entry, dict):
        raise Problem("not a JSON object", where=where, remedy="Write one object a line.")
    return entry


def read_parquet(path: Path, where: str, wanted: Wanted) -> Grid:
    """The wanted columns of a parquet table; rows count from 1."""
    place = Place(where)
    grid = Grid(place, wanted)
    try:
        schema = pq.read_schema(path)
        names = [schema.names[position] for position in wanted.among(schema.names, place)]
        columns = [pq.read_table(path, columns=[name]).column(0).to_pylist() for name in names]
    except (OSError, pa.ArrowException, ValueError) as error:
        raise Problem(f"not a readable parquet table ({type(error).__name__})", where=where) from None
    for row, values in enumerate(zip(*columns, strict=True), start=1):
        add_values(grid, row, values)
    return grid


def add_values(grid: Grid, row: int, values: Sequence[object], *, sure: bool = True) -> None:
    """Take over a row of Python values, one for each wanted column.

    Not `sure` (calamine's values): a whole number may have had any format, and an empty cell may
    be an error, so that both are refused where they matter.
    """
    texts = []
    filled = any(value not in ("", None) for value in values)
    for column, value in zip(grid.wanted.columns, values, strict=True):
        if not sure and column.exact and isinstance(value, int | float):
            texts.append(grid.fault(row, column.header, "number or blank"))
        elif not sure and filled and value in ("", None) and column.setting.endswith(".text"):
            texts.append(grid.fault(row, column.header, "number or blank"))
        elif isinstance(value, float) and math.isnan(value):
            texts.append("")
        elif column.exact and isinstance(value, float) and abs(value) >= SCIENTIFIC:
            texts.append(grid.fault(row, column.header, "long number"))
        elif column.exact and isinstance(value, date | time | timedelta):
            texts.append(grid.fault(row, column.header, "date"))
        elif (text := _shown(value)) is None:
            texts.append(grid.fault(row, column.header, "not a value"))
        else:
            texts.append(text)
        if column.header == grid.wanted.id and isinstance(value, int | float):
            grid.number_ids.add(row)
    grid.add(row, texts)


def _shown(value: object) -> str | None:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, str | int):
        return str(value)
    if isinstance(value, float):
        return f"{value:.15g}"
    if isinstance(value, datetime):
        midnight = value.time() == time() and value.tzinfo is None
        return value.date().isoformat() if midnight else value.isoformat()
    return value.isoformat() if isinstance(value, date) else None


def _decoded(path: Path, where: str, encoding: str) -> str:
    """The file's text without its byte order mark; `Problem` naming the first byte that fails."""
    content = path.read_bytes()
    name = "utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding
    try:
        return content.decode(name).removeprefix("\ufeff")
    except LookupError:
        raise Problem(f"no encoding is called '{encoding}'", where=where) from None
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise Problem(
            f"byte {error.start + 1:,}, in line {line:,}, is not {encoding}",
            where=where,
            remedy="Set the source's `encoding`, such as utf-16, gb18030 or cp1252.",
        ) from None
