"""From a folder of the lab's files to one table of raw cells, or a `Problem` that says which cell."""

import multiprocessing
import resource
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
from python_calamine import CalamineError, SheetVisibleEnum, load_workbook

from undertone.corpus import plain
from undertone.corpus.cells import UNUSABLE, Bad, Grid, NoColumn, Place, Wanted
from undertone.corpus.prescan import Kind, kind_of
from undertone.corpus.xlsx import Workbook
from undertone.errors import Problem
from undertone.params import Source

CHILD_MEMORY = 4 * 2**30  # bytes
CHILD_SECONDS = 600
HEADER_ROWS = 5  # where a header is looked for, to say where it is


@dataclass(frozen=True)
class Raw:
    """The wanted cells of all files, as strings, in the files' order.

    `cells` has a column `cell.<header>` for each wanted one, besides `file`, `sheet` (empty where
    there is none), `row` and `number_id` (whether the id is a number, not a text). `blank` counts
    the rows without anything in a wanted column; `notes` are for the log.
    """

    cells: pd.DataFrame
    bad: list[Bad]
    blank: int
    notes: list[str]


def read_files(folder: Path, source: Source, wanted: Wanted, setting: str) -> Raw:
    """The wanted columns of the source's files in `folder`; `setting` is the source's params key, empty
    for what the command line names."""
    grids: list[Grid] = []
    notes: list[str] = []
    for path in files_of(folder, source.files, setting):
        where = path.relative_to(folder).as_posix()
        kind = kind_of(path, where)
        try:
            read, unread = _read(path, where, kind, source, wanted, setting)
        except NoColumn as problem:
            named = setting.startswith("ingest.") and kind not in ("parquet", "jsonl")
            row = _header_row(path, where, kind, source, wanted) if named else None
            if row is None:
                raise
            told = f"the wanted columns are not in row {wanted.header}, but in row {row}"
            remedy = f"Set {setting}.header: {row}."
            raise Problem(told, where=str(problem.place), remedy=remedy) from None
        grids += read
        notes += unread
    for grid in grids:
        _mark_unusable(grid)
    seen = sum((grid.seen for grid in grids), Counter[str]())
    notes += [f"{count:,} {what}" for what, count in seen.items() if count]
    columns = [grid.cells for grid in grids]
    cells = {
        "file": [grid.place.file for grid in grids for _ in grid.rows],
        "sheet": [grid.place.sheet for grid in grids for _ in grid.rows],
        "row": [row for grid in grids for row in grid.rows],
        "number_id": [row in grid.number_ids for grid in grids for row in grid.rows],
        **{
            f"cell.{column.header}": [cell for of in columns for cell in of[column.header]]
            for column in wanted.columns
        },
    }
    return Raw(
        pd.DataFrame(cells),
        [bad for grid in grids for bad in grid.bad],
        sum(grid.blank for grid in grids),
        notes,
    )


def _header_row(path: Path, where: str, kind: Kind, source: Source, wanted: Wanted) -> int | None:
    """The row, of a sheet's first, that has the wanted columns: a title may stand above them."""
    for row in range(1, HEADER_ROWS + 1):
        try:
            _read(path, where, kind, source, replace(wanted, header=row), "")
        except Problem:
            continue
        return row
    return None


def files_of(folder: Path, patterns: list[str], setting: str) -> list[Path]:
    """The files that match, sorted; not those of git, DVC and Excel's locks. `Problem` if none."""
    if not folder.is_dir():
        raise Problem("no such folder", where=str(folder), remedy="Run `dvc pull`.")
    if any(pattern.startswith("/") or ".." in Path(pattern).parts for pattern in patterns):
        raise Problem("leads out of the source's folder", where=f"params.yaml: {setting}.files")
    found = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    tables = []
    for path in sorted(found, key=lambda path: path.relative_to(folder).as_posix()):
        hidden = any(part.startswith((".", "~$")) for part in path.relative_to(folder).parts)
        pointer = path.suffix == ".dvc" and path.with_suffix("").exists()
        if not hidden and not pointer:
            tables.append(path)
    if not tables:
        told = " or ".join(patterns)
        there = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
        raise Problem(
            f"no file matches {told}; it has {', '.join(there[:10]) or 'no files'}",
            where=str(folder),
            remedy=f"Set {setting}.files, or run `dvc pull`.",
        )
    return tables


def _read(
    path: Path, where: str, kind: Kind, source: Source, wanted: Wanted, setting: str
) -> tuple[list[Grid], list[str]]:
    """The file's sheets, and what the log should say of those that were left out."""
    if kind == "parquet":
        return [plain.read_parquet(path, where, wanted)], []
    if kind == "jsonl":
        return [plain.read_jsonl(path, where, wanted, source.encoding)], []
    if kind == "text":
        delimiter = source.delimiter or ("\t" if path.suffix.lower() in (".tsv", ".tab") else ",")
        return [plain.read_delimited(path, where, wanted, source.encoding, delimiter)], []
    book = Workbook(path, where) if kind == "xlsx" else _Foreign(path, where)
    with book:
        remedy = f"Set {setting}.sheets to the names of those to read, or to `all`."
        return _sheets(book, where, source, wanted, remedy if setting else "Name one with --sheet.")


def _sheets(
    book: "Workbook | _Foreign", where: str, source: Source, wanted: Wanted, remedy: str
) -> tuple[list[Grid], list[str]]:
    if isinstance(source.sheets, list):
        names = source.sheets
        missing = [name for name in names if name not in book.sheets]
        if missing:
            raise Problem(
                f"no sheet '{missing[0]}'; it has {', '.join(book.sheets)}",
                where=where,
                remedy=remedy,
            )
    else:
        names = list(book.sheets)
        if len(names) > 1:
            names = [name for name in names if not book.is_empty(name)] or names[:1]
        if source.sheets is None and len(names) > 1:
            raise Problem(
                f"several sheets: {', '.join(names)}",
                where=where,
                remedy=remedy,
            )
    if not names:
        raise Problem("a workbook without a sheet", where=where)
    grids: list[Grid] = []
    notes: list[str] = []
    without: list[NoColumn] = []
    text = wanted.columns[0].header
    for name in names:
        if book.sheets[name].hidden:
            notes.append(f"{Place(where, name)} is hidden in Excel")
        try:
            grids.append(book.grid(name, wanted))
        except NoColumn as problem:
            if source.sheets != "all" or text not in problem.headers:
                raise
            notes.append(f"{Place(where, name)} not read: no column '{text}'")
            without.append(problem)
    if not grids:
        raise without[0]
    return grids, notes


def _mark_unusable(grid: Grid) -> None:
    """Note the cells that no UTF-8 file can hold, or that end early in other programs."""
    width = len(grid.wanted.columns)
    for at, (header, cells) in enumerate(grid.cells.items()):
        if not UNUSABLE.search("".join(cells)):
            continue
        for place, (row, cell) in enumerate(zip(grid.rows, cells, strict=True)):
            if UNUSABLE.search(cell):
                grid.values[place * width + at] = grid.fault(row, header, "broken character")


@dataclass(frozen=True)
class _ForeignSheet:
    hidden: bool
    rows: list[list[object]]


class _Foreign:
    """An .xls or .ods workbook, read by calamine.

    calamine tells neither errors from empty cells nor how a number is shown, so texts must be
    texts here. In a process of its own, since it aborts on some broken workbooks.
    """

    def __init__(self, path: Path, where: str) -> None:
        self.where = where
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context, initializer=_limit) as pool:
            try:
                sheets = pool.submit(_values, path).result(CHILD_SECONDS)
            except (BrokenProcessPool, CalamineError, MemoryError, TimeoutError) as error:
                password = type(error).__name__ == "PasswordError"
                raise Problem(
                    "password-protected" if password else f"not readable ({type(error).__name__})",
                    where=where,
                    remedy="Save it without a password, as Excel Workbook (.xlsx).",
                ) from None
        self.sheets = {name: _ForeignSheet(hidden, rows) for name, hidden, rows in sheets}

    def __enter__(self) -> "_Foreign":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def is_empty(self, name: str) -> bool:
        return not any(value != "" for row in self.sheets[name].rows for value in row)

    def grid(self, name: str, wanted: Wanted) -> Grid:
        grid = Grid(Place(self.where, name), wanted)
        rows = enumerate(self.sheets[name].rows, start=1)
        header = next((row for number, row in rows if number == wanted.header), [])
        at = wanted.among([str(value) for value in header], grid.place)
        for number, values in rows:
            plain.add_values(grid, number, [values[position] for position in at], sure=False)
        return grid


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (CHILD_MEMORY, CHILD_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold the comments


def _values(path: Path) -> list[tuple[str, bool, list[list[object]]]]:
    book = load_workbook(path)
    return [
        (
            meta.name,
            meta.visible != SheetVisibleEnum.Visible,
            [list(row) for row in book.get_sheet_by_name(meta.name).to_python(skip_empty_area=False)],
        )
        for meta in book.sheets_metadata
    ]
