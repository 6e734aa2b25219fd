"""The ledger `reports/runs.jsonl`: every run and registered version, a line each, and no text.

It is committed, so that a clone can build an MLflow store anew (`undertone sync`). It holds clocks, so
no stage depends on it. Lines only join: git merges two of them with `merge=union`.
"""

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from undertone.errors import Problem
from undertone.files import whole
from undertone.records.journal import Point, Record

LEDGER = Path("reports/runs.jsonl")
POINTS = 100  # of a curve that the ledger keeps
# Nothing else gets in: a tag could hold a text.
TAGS = re.compile(
    r"source|candidate|family|role|seed|threads|base|codebook|experiment|commit|model\.(md5|path)"
    r"|(data|digest|version)\.[\w-]+|codebook\.md5|dvc\.(stage|experiment|baseline|path|md5)|git\.dirty"
    r"|mlflow\.source\.(name|git\.commit)|run\.origin"
)
NEEDED = frozenset({"role", "candidate", "model.md5", "dvc.path"})  # tags of each version
_VALUE = re.compile(r"[^\r\n]{0,250}")


@dataclass(frozen=True)
class Line:
    """A registered version. `number` is that of the registry where it was first; 0 while in none.

    `run` is the own id of the run that it came from, empty while unknown; `registered` in milliseconds.
    `pending`: its aliases were decided where no server answered, so that the next `sync` sets them.
    """

    model: str
    number: int
    aliases: tuple[str, ...]
    run: str
    registered: int
    tags: Mapping[str, str]
    pending: bool = False

    @property
    def key(self) -> tuple[str, str, str]:
        """What makes it the same version in another registry: model, role, digest."""
        return self.model, self.tags["role"], self.tags["model.md5"]


@dataclass(frozen=True)
class Ledger:
    runs: Mapping[str, Record] = field(default_factory=dict)
    versions: Mapping[tuple[str, str, str], Line] = field(default_factory=dict)

    def joined(self, other: "Ledger") -> "Ledger":
        """With the lines of `other`, whose word on a run's end and on aliases counts."""
        known = {**self.versions, **other.versions}
        taken = {
            (line.model, alias): key for key, line in other.versions.items() for alias in line.aliases
        }
        settled = {}
        for key, line in known.items():
            first = self.versions.get(key, line)
            first = first if first.number else line
            settled[key] = Line(
                line.model,
                first.number,
                tuple(one for one in line.aliases if taken.get((line.model, one), key) == key),
                first.run or line.run,
                first.registered,
                {**line.tags, **first.tags},
                line.pending,
            )
        return Ledger({**self.runs, **other.runs}, settled)


@contextmanager
def opened(path: Path) -> Iterator[Ledger]:
    """The ledger in a file, to `write` it anew: no other process opens it for the time of the block."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock.tmp")):  # .*.tmp is ignored by git
        yield read(path)


def read(path: Path) -> Ledger:
    """The ledger in a file; an empty one where there is none.

    What a merge of git has doubled is one again, for a run the later end, for an alias the version that
    was registered last.
    """
    if not path.is_file():
        return Ledger()
    found: dict[str, Record] = {}
    lines: dict[tuple[str, str, str], list[Line]] = defaultdict(list)
    for number, text in enumerate(path.read_bytes().split(b"\n"), 1):
        if not text:
            continue
        try:
            content = json.loads(text)
            if "id" in content:
                record = _record(content)
                found[record.id] = max(found.get(record.id, record), record, key=lambda one: one.end)
            else:
                content["aliases"] = tuple(content["aliases"])
                line = Line(**content)
                if not line.tags.keys() >= NEEDED:
                    raise KeyError
                lines[line.key].append(line)
        except (ValueError, TypeError, KeyError, AttributeError):
            raise Problem(
                "is no run and no version",
                where=f"{path}, line {number}",
                remedy="Resolve a merge that git left open, or remove the line; `undertone sync` writes"
                " what the store knows anew.",
            ) from None
    doubled = [max(ones, key=lambda one: (one.number > 0, -one.registered)) for ones in lines.values()]
    holders: dict[tuple[str, str], Line] = {}
    for ones in lines.values():
        for line in ones:
            for alias in line.aliases:
                place = line.model, alias
                holders[place] = max(
                    holders.get(place, line), line, key=lambda one: (one.registered, one.key)
                )
    held: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for (_, alias), line in holders.items():
        held[line.key].append(alias)
    return Ledger(
        found,
        {
            one.key: Line(
                one.model,
                one.number,
                tuple(sorted(held[one.key])),
                one.run,
                one.registered,
                one.tags,
                one.pending,
            )
            for one in doubled
        },
    )


def write(path: Path, ledger: Ledger) -> bool:
    """The ledger's file, in the order of time, within `opened`; whether anything in it changed."""
    runs = sorted(ledger.runs.values(), key=lambda one: (one.start, one.id))
    versions = sorted(ledger.versions.values(), key=lambda one: (one.registered, one.number, one.key))
    content = "".join(
        json.dumps(one, ensure_ascii=False, sort_keys=True, allow_nan=False) + "\n"
        for one in [*map(_line_of_run, runs), *map(_line_of_version, versions)]
    )
    if path.is_file() and path.read_text("utf-8") == content:
        return False
    with whole(path) as beside:
        beside.write_text(content, "utf-8")
    return True


def kept(tags: Mapping[str, str]) -> dict[str, str]:
    """The tags that the ledger may hold."""
    return {
        key: value
        for key, value in tags.items()
        if (TAGS.fullmatch(key) and _VALUE.fullmatch(value)) or _metric(key, value)
    }


def thinned(points: Iterable[Point]) -> list[Point]:
    """At most POINTS of a curve, evenly, the first and the last among them."""
    all_ = sorted(points, key=lambda point: (point.step, point.time))
    if len(all_) <= POINTS:
        return all_
    last = len(all_) - 1
    return [all_[round(place * last / (POINTS - 1))] for place in range(POINTS)]


def _line_of_run(record: Record) -> dict[str, Any]:
    curves: dict[str, list[Point]] = defaultdict(list)
    for point in record.points:
        curves[point.key].append(point)
    final = {key: max(points, key=lambda one: (one.step, one.time)) for key, points in curves.items()}
    return {
        "id": record.id,
        "name": record.name,
        "experiment": record.experiment,
        "status": record.status,
        "start": record.start,
        "end": record.end,
        "params": dict(record.params),
        "tags": kept(record.tags),
        "data": dict(record.data),
        "metrics": {key: _number(point.value) for key, point in final.items()},
        "curves": {
            key: [[one.step, one.time - record.start, _number(one.value)] for one in thinned(points)]
            for key, points in curves.items()
        },
    }


def _record(content: dict[str, Any]) -> Record:
    """The reverse of `_line_of_run`."""
    curves = content.pop("curves")
    content.pop("metrics")
    points = tuple(
        Point(key, float(value), content["start"] + time, step)
        for key, rows in curves.items()
        for step, time, value in rows
    )
    return Record(**content, points=points)


def _line_of_version(line: Line) -> dict[str, Any]:
    return {
        "model": line.model,
        "number": line.number,
        "aliases": sorted(line.aliases),
        "run": line.run,
        "registered": line.registered,
        "tags": kept(line.tags),
        **({"pending": True} if line.pending else {}),
    }


def _metric(key: str, value: str) -> bool:
    """One of a version, as `registry.add` writes it."""
    return bool(re.fullmatch(r"\w+_\w{1,80}", key) and re.fullmatch(r"-?\d+\.\d{4}|nan", value))


def _number(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)  # JSON knows no nan
