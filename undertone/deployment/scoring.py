"""Scores for every row of files of any size, every row accounted for.

The rows are cut into parts of one file each. A part is read, scored and written by itself, so that
memory doesn't grow with the rows, a killed run goes on where it was, and any engine gives the same
bytes. A text is read where it is scored and goes nowhere else: a plan and its parts are places in files.
"""

import fcntl
import hashlib
import json
import os
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from undertone.corpus import rows
from undertone.corpus.rows import BLANK, Row, Table
from undertone.deployment.predictor import Predictor, read_manifest
from undertone.errors import Problem
from undertone.files import remove, sha256, write_json

# Names that begin with _ or . are no data to pyarrow, Spark and the like, which read the folder as one.
PLAN = "_plan.json"  # what is scored, and by what; there before the first part
MANIFEST = "_manifest.json"  # what became of every row; there after the last
CHUNK = 2048  # texts at a time
ROWS_PER_PART = 20_000
_ANEW = "Name another folder, or remove this one."
_SAME = {  # of a plan: what a run that goes on must have in common with the one before
    "bundle": "bundle",
    "files": "set of inputs",
    **{name: f"--{name.replace('_', '-')}" for name in ("text", "id", "sheet", "delimiter")},
    "rows_per_part": "--rows-per-part",
}
_COLUMNS = ("id", "file", "row", "labels", "abstained", "cut", "error", "model")


@dataclass(frozen=True)
class Part:
    """`rows` rows of one file (its place among the work's tables) from the one at `at` on, which other
    programs show as `row`."""

    number: int
    table: int
    at: int
    row: int
    rows: int

    @property
    def name(self) -> str:
        return f"part-{self.number:05}.parquet"


@dataclass(frozen=True)
class Work:
    """What an engine must know to score any part of it; no text is in it."""

    tables: tuple[Table, ...]
    out: Path
    bundle: Path
    digest: str  # the bundle's
    variant: str

    def predictor(self, *, threads: int | None) -> Predictor:
        """`Problem` where the bundle isn't the one that the work was begun with."""
        if read_manifest(self.bundle)["digest"] != self.digest:
            raise Problem("another bundle than the one it was begun with", where=str(self.bundle))
        return Predictor.load(self.bundle, variant=self.variant, threads=threads)


# Scores the parts, in any order; yields how many more rows are scored. The predictor is one that is
# open here already, on the threads that `score` was given.
Engine = Callable[[Work, Sequence[Part], Predictor], Iterator[int]]


def score(
    inputs: Sequence[str],
    out: Path,
    bundle: Path,
    engine: Engine,
    *,
    text: str = "text",
    id_: str | None = None,
    sheet: str | None = None,
    delimiter: str | None = None,
    rows_per_part: int = ROWS_PER_PART,
    threads: int | None = None,
) -> str:
    """Write `part-00000.parquet` and so on, and MANIFEST; parts that are there already stay.

    `inputs`: files or patterns. `text` and `id_` name columns, `sheet` and `delimiter` are those of
    `rows.Table`. `threads`: of this process's own
    predictor, by default all cores. Returns the line to show. `Problem` where `out` holds anything but
    the beginning of the same work.
    """
    if id_ == text:
        raise Problem("--id names the column of texts", remedy="A text never goes to the output.")
    tables = tables_of(inputs, text, id_, out, sheet=sheet, delimiter=delimiter)
    manifest = read_manifest(bundle)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        what = f"can't be made a folder ({type(error).__name__})"
        raise Problem(what, where=str(out), remedy="Name a new or empty folder.") from None
    with _alone(out):
        begun = _begun(out)
        parts, plan = planned(tables, out, rows_per_part)
        plan["bundle"] = {name: manifest.get(name) for name in ("codebook", "candidate", "digest")}
        plan["bundle"]["variant"] = None
        if begun is not None:
            plan["bundle"]["variant"] = begun["bundle"]["variant"]
            _same(begun, plan, out)
        _refuse_strangers(parts, out)
        predictor = _opened(bundle, plan["bundle"]["variant"], threads)
        plan["bundle"]["variant"] = predictor.variant
        write_json(out / PLAN, plan)
        work = Work(tables, out.absolute(), bundle.absolute(), manifest["digest"], predictor.variant)
        left = _left(work, parts)
        done = plan["rows"] - sum(part.rows for part in left)
        with tqdm(total=plan["rows"], initial=done, desc="scored", unit=" rows", disable=None) as bar:
            for more in engine(work, left, predictor) if left else ():
                bar.update(more)
        for table in tables:
            table.check()
        closing = accounts(plan, work, parts)
        write_json(out / MANIFEST, closing)
    return told(closing, out, done)


def local(work: Work, parts: Sequence[Part], predictor: Predictor) -> Iterator[int]:
    """One process; the predictor itself spreads over cores."""
    for part in parts:
        yield from score_part(predictor, work, part)


def score_part(predictor: Predictor, work: Work, part: Part) -> Iterator[int]:
    """Write a part, whole or not at all; yields how many more rows are scored.

    Under a name that nobody else has, for a worker that was taken for dead may still be writing the
    same part, with the same bytes, while another does.
    """
    table = work.tables[part.table]
    table.check()
    manifest = predictor.manifest
    model = f"{manifest['candidate']}@{work.digest[:12]}"
    schema = _schema(predictor.space.labels, work, part)
    batches = []
    left = _rows_of(table, part)
    while chunk := list(islice(left, CHUNK)):
        batches.append(_scored(predictor, schema, table, model, chunk))
        yield len(chunk)
    scored = pa.Table.from_batches(batches, schema)
    table.check()
    if len(scored) != part.rows:
        raise Problem(f"{len(scored):,} rows where {part.rows:,} were", where=table.name)
    beside = work.out / f".{part.name}.{uuid.uuid4().hex}.tmp"
    try:
        with beside.open("wb") as file:
            pq.write_table(scored, file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
        beside.replace(work.out / part.name)
    finally:
        beside.unlink(missing_ok=True)


def _rows_of(table: Table, part: Part) -> Iterator[Row]:
    found = (row for row in rows.rows(table, part.at, part.row) if row.fault != BLANK)
    return islice(found, part.rows)


def _origin(work: Work, part: Part) -> dict[str, str]:
    """What a part's file says beside its rows: which part of which work it is."""
    place = {"part": str(part.number), "table": str(part.table), "at": str(part.at)}
    return {"bundle": work.digest, "variant": work.variant, **place}


def _schema(labels: Sequence[str], work: Work, part: Part) -> pa.Schema:
    text = pa.string()
    types = (text, text, pa.int64(), text, pa.bool_(), pa.bool_(), text, text)
    fields = [*zip(_COLUMNS, types, strict=True), *((label, pa.float64()) for label in labels)]
    return pa.schema(fields, _origin(work, part))


def _scored(
    predictor: Predictor, schema: pa.Schema, table: Table, model: str, chunk: Sequence[Row]
) -> pa.RecordBatch:
    answers = iter(predictor.predict([row.text for row in chunk if not row.fault]))
    labels = predictor.space.labels
    columns: list[list[Any]] = [[] for _ in schema.names]
    for row in chunk:
        # named as the predictor names what it finds itself
        one: dict[str, Any] = {"error": row.fault.replace(" ", "_")} if row.fault else next(answers)
        good = one["error"] is None
        values = (
            row.id if table.id else f"{table.name}:{row.number}",
            table.name,
            row.number,
            ";".join(one["labels"]) if good else None,
            one["abstained"] if good else False,
            one["cut"] if good else False,
            one["error"],
            model,
            *(one["scores"][label] if good else None for label in labels),
        )
        for column, value in zip(columns, values, strict=True):
            column.append(value)
    arrays = [pa.array(column, type_) for column, type_ in zip(columns, schema.types, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _opened(bundle: Path, begun: str | None, threads: int | None) -> Predictor:
    """In the variant that every worker takes, whatever its own machine would choose; that of the run
    before, if there was one. `Problem` where the bundle can't be scored with."""
    predictor = Predictor.load(bundle, variant=begun, threads=threads)
    if same := sorted(set(predictor.space.labels) & set(_COLUMNS)):
        raise Problem(f"a label is called '{same[0]}', as a column of the output is", where=str(bundle))
    return predictor


def tables_of(
    inputs: Sequence[str],
    text: str,
    id_: str | None,
    out: Path,
    *,
    sheet: str | None = None,
    delimiter: str | None = None,
) -> tuple[Table, ...]:
    """The files, in the order given, of a pattern sorted and without those in `out`; each once, by
    whatever names. `Problem` unless all are of one kind and, where a file has its columns' names in
    one place (CSV, TSV, parquet), have the same columns."""
    found: dict[Path, Path] = {}
    for one in inputs:
        for path in _matching(one, out):
            found.setdefault(path.resolve(), path.absolute())
    paths = list(found.values())
    common = Path(os.path.commonpath([path.parent for path in paths]))
    tables = [
        Table.of(path, path.relative_to(common).as_posix(), text, id_, sheet=sheet, delimiter=delimiter)
        for path in paths
    ]
    first, *others = tables
    columns = rows.header(first)
    for other in others:
        if other.kind != first.kind or rows.header(other) != columns:
            what = "other columns than" if other.kind == first.kind else "not of one kind with"
            remedy = "Score files of different shapes into folders of their own."
            raise Problem(f"{what} {first.name}", where=other.name, remedy=remedy)
    return tuple(tables)


def _matching(given: str, out: Path) -> list[Path]:
    pattern = Path(given)
    what = "no such file"
    try:
        if pattern.is_file():  # its name may hold the signs of a pattern
            return [pattern]
        if pattern.is_dir():
            what, found = "a folder", []
        else:
            found = sorted(Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor))))
        files = [
            one
            for one in found
            if one.is_file()
            and not one.name.startswith((".", "~$"))
            and out.resolve() not in one.resolve().parents
        ]
    except (OSError, ValueError) as error:  # a name that is too long, or ** beside other signs
        what, files = f"no name and no pattern of files ({type(error).__name__})", []
    if not files:
        remedy = "Name files, or a pattern in quotes such as 'in/*.parquet'."
        raise Problem(what, where=str(pattern), remedy=remedy)
    return files


def planned(tables: Sequence[Table], out: Path, rows_per_part: int) -> tuple[list[Part], dict[str, Any]]:
    """The parts, after all files were read once, and what the same work has in common."""
    parts: list[Part] = []
    files = []
    with (
        _Repeats(out / ".ids.tmp") as repeats,
        tqdm(desc="read", unit=" rows", disable=None, delay=1) as bar,
    ):
        for place, table in enumerate(tables):
            starts: list[Row] = []
            count = blank = 0
            for row in rows.rows(table):
                if row.fault == BLANK:
                    blank += 1
                    continue
                if count % rows_per_part == 0:
                    starts.append(row._replace(text=""))
                count += 1
                bar.update()
                if table.id:
                    repeats.add(row.id)
            first = len(parts)
            for nth, start in enumerate(starts):
                size = min(rows_per_part, count - nth * rows_per_part)
                parts.append(Part(len(parts), place, start.at, start.number, size))
            about = {"file": table.name, "bytes": table.stamp[0], "sha256": sha256(table.path)}
            table.check()
            files.append({**about, "rows": count, "blank": blank, "parts": [first, len(parts)]})
        ids = repeats.counted()
    if not parts:
        raise Problem("no rows", where=", ".join(table.name for table in tables[:10]))
    return parts, {
        "text": tables[0].text,
        "id": tables[0].id,
        "sheet": tables[0].sheet,
        "delimiter": tables[0].delimiter,
        "rows_per_part": rows_per_part,
        "rows": sum(part.rows for part in parts),
        "ids": ids if tables[0].id else None,
        "files": files,
    }


class _Repeats:
    """Counts ids that are missing or stand on several rows; on disk, for their number has no bound."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: list[BinaryIO] = []
        self._missing = 0

    def __enter__(self) -> "_Repeats":
        remove(self._folder)
        self._folder.mkdir()
        self._files = [(self._folder / str(number)).open("w+b") for number in range(64)]
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            file.close()
        remove(self._folder)

    def add(self, id_: str | None) -> None:
        if id_ is None:
            self._missing += 1
            return
        digest = hashlib.blake2b(id_.encode(), digest_size=8).digest()
        self._files[digest[0] % 64].write(digest)

    def counted(self) -> dict[str, int]:
        """How many rows have no id, and how many one that another row has too."""
        repeated = 0
        for file in self._files:
            file.seek(0)
            _, counts = np.unique(np.fromfile(file, np.uint64), return_counts=True)
            repeated += int(counts[counts > 1].sum())
        return {"missing": self._missing, "repeated": repeated}


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """No second run writes to `out`; what a killed one left half written goes."""
    handle = os.open(out, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise Problem("another run is writing there", where=str(out)) from None
    try:
        for beside in out.glob(".part-*.tmp"):
            beside.unlink(missing_ok=True)
        yield
    finally:
        os.close(handle)
        with suppress(OSError):  # a wrong call leaves nothing, not even an empty folder
            out.rmdir()


def _begun(out: Path) -> dict[str, Any] | None:
    """The plan of the run that began here; `Problem` where something else is."""
    if (out / PLAN).is_file():
        try:
            begun: dict[str, Any] = json.loads((out / PLAN).read_text("utf-8"))
            whole = isinstance(begun["bundle"]["variant"], str)
        except (ValueError, KeyError, TypeError):
            whole = False
        if not whole:
            raise Problem("not the plan that was written here", where=str(out / PLAN), remedy=_ANEW)
        return begun
    if any(not one.name.endswith(".tmp") for one in out.iterdir()):
        raise Problem("holds something else", where=str(out), remedy="Name a new or empty folder.")
    return None


def _same(begun: dict[str, Any], plan: dict[str, Any], out: Path) -> None:
    one, other = (_comparable(content) for content in (begun, plan))
    reasons = [f"another {what}" for name, what in _SAME.items() if one.get(name) != other[name]]
    if reasons:
        raise Problem(f"was begun with {' and '.join(reasons)}", where=str(out), remedy=_ANEW)


def _comparable(plan: dict[str, Any]) -> dict[str, Any]:
    """As JSON has it; which parts a file has is told by other options."""
    content: dict[str, Any] = json.loads(json.dumps(plan))
    return {**content, "files": [{**one, "parts": None} for one in content.get("files", ())]}


def _refuse_strangers(parts: Sequence[Part], out: Path) -> None:
    """`Problem` where the folder holds more than the parts: readers take it for one table."""
    own = {part.name for part in parts}
    names = {one.name for one in out.iterdir() if not one.name.startswith(("_", "."))}
    if strange := sorted(names - own):
        raise Problem("no part of this work", where=str(out / strange[0]), remedy="Remove it.")


def _left(work: Work, parts: Sequence[Part]) -> list[Part]:
    """The parts that aren't there as they were written; what lies in their places goes, and then the
    account of an earlier finish: it would be one of rows that are not there."""
    closed = _closed(work.out)
    left = [
        part
        for part in parts
        if not is_there(part, work)
        or (closed is not None and closed.get(part.name) != sha256(work.out / part.name))
    ]
    for part in left:
        remove(work.out / part.name)
    if left:
        (work.out / MANIFEST).unlink(missing_ok=True)
    return left


def _closed(out: Path) -> dict[str, str] | None:
    """Each part's sha256 as the run before closed with it, if it did; none that can be believed where
    its account can't be read."""
    if not (out / MANIFEST).is_file():
        return None
    try:
        account = json.loads((out / MANIFEST).read_text("utf-8"))
        return {one["part"]: one["sha256"] for one in account["parts"]}
    except (ValueError, KeyError, TypeError):
        return {}


def is_there(part: Part, work: Work) -> bool:
    """Whether a part is written whole, and in its own place."""
    try:
        about = pq.read_metadata(work.out / part.name)
    except (OSError, pa.ArrowException, ValueError):
        return False
    said = about.metadata or {}
    own = all(said.get(key.encode()) == value.encode() for key, value in _origin(work, part).items())
    return own and bool(about.num_rows == part.rows)


def accounts(plan: dict[str, Any], work: Work, parts: Sequence[Part]) -> dict[str, Any]:
    """The closing account, taken from the parts as they lie there: rows in = scored + errors.

    `Problem` where a row is missing, or there are others.
    """
    _refuse_strangers(parts, work.out)
    lines = []
    for part in parts:
        path = work.out / part.name
        if not is_there(part, work):
            remedy = "Run the same command again: it goes on from here."
            raise Problem("missing, or not whole", where=str(path), remedy=remedy)
        columns = ["abstained", "cut", "error"]
        table = pq.read_table(path, columns=columns, memory_map=False)
        kinds = Counter(table["error"].to_pylist())
        scored = kinds.pop(None, 0)
        lines.append(
            {
                "part": part.name,
                "file": plan["files"][part.table]["file"],
                "row": part.row,
                "rows": part.rows,
                "scored": scored,
                "errors": dict(sorted(kinds.items())),
                "abstained": table["abstained"].to_pylist().count(True),
                "cut": table["cut"].to_pylist().count(True),
                "sha256": sha256(path),
            }
        )
    files = []
    for file in plan["files"]:
        first, end = file["parts"]
        files.append({**file, **_summed(lines[first:end])})
    total = _summed(lines)
    assert total["scored"] + sum(total["errors"].values()) == plan["rows"]
    return {**plan, **total, "files": files, "parts": lines}


def _summed(lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    errors = sum((Counter(line["errors"]) for line in lines), Counter[str]())
    counts = {name: sum(line[name] for line in lines) for name in ("scored", "abstained", "cut")}
    return {**counts, "errors": dict(sorted(errors.items()))}


def told(closing: dict[str, Any], out: Path, before: int) -> str:
    """One line with what became of the rows; `before`: how many of them an earlier run had done."""
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in closing["errors"].items())
    line = f"{closing['rows']:,} rows → {closing['scored']:,} scored"
    line += f", {closing['rows'] - closing['scored']:,} not ({kinds})" if kinds else ""
    line += f"; {closing['abstained']:,} abstained" if closing["abstained"] else ""
    line += f"; {closing['cut']:,} cut" if closing["cut"] else ""
    for name, what in (("missing", "without an id"), ("repeated", "with an id that another row has")):
        if closing["ids"] and closing["ids"][name]:
            line += f"; {closing['ids'][name]:,} rows {what}"
    line += f"; {before:,} were there already" if before else ""
    return f"{line}; {len(closing['parts']):,} parts in {out}"
