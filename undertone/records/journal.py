"""What a run has to say, on this machine's disk before it is sent: nobody's death loses a point.

One file a run, `unsent/<id>.jsonl`: what the run is, then a line for each step, then how it ended.
It is gone once MLflow has all of it. No text is in it: numbers, settings, names and digests.
"""

import errno
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from undertone.errors import Problem

FOLDER = "unsent"  # in the repository's folder, ignored by git


class Point(NamedTuple):
    """One value of one curve; `time` in milliseconds since 1970."""

    key: str
    value: float
    time: int
    step: int


@dataclass(frozen=True)
class Record:
    """A run wherever it is told of; times in milliseconds since 1970, `end` 0 while it goes on.

    `id` is its own for ever; a store gives it another one. `data` maps names to digests of what it read.
    """

    id: str
    name: str
    experiment: str
    start: int
    params: Mapping[str, str]
    tags: Mapping[str, str]
    data: Mapping[str, str]
    status: str = "RUNNING"
    end: int = 0
    points: tuple[Point, ...] = field(default=(), repr=False)


class Journal:
    """The file of a run under way, which holds a lock on it: the system lets go of it at any death.

    `trouble`: why a line of it could not be written, such as a full disk; the run goes on.
    """

    def __init__(self, folder: Path, record: Record) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.trouble = ""
        self.path = folder / f"{record.id}.jsonl"
        beside = folder / f".{record.id}.tmp"  # .*.tmp is ignored by git
        self._file = os.open(beside, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self._write({key: value for key, value in asdict(record).items() if key != "points"})
        if self.trouble:
            beside.unlink()
            os.close(self._file)
            raise Problem(f"can't be written: {self.trouble}", where=str(folder))
        beside.rename(self.path)  # so that nobody sees it without its first line or its lock

    def points(self, time: int, step: int, values: Mapping[str, float]) -> None:
        self._write([time, step, dict(values)])

    def tags(self, tags: Mapping[str, str]) -> None:
        self._write({"tags": dict(tags)})

    def end(self, status: str, time: int) -> None:
        self._write({"status": status, "end": time})

    def close(self, *, sent: bool) -> None:
        """Leave the file, or remove it where MLflow has all of it."""
        if sent:
            self.path.unlink(missing_ok=True)
        os.close(self._file)

    def _write(self, line: object) -> None:
        # one call of the system, unbuffered: what was written outlives this process's SIGKILL
        content = json.dumps(line).encode() + b"\n"
        if self.trouble:
            content = b"\n" + content  # after what was cut short
        try:
            if os.write(self._file, content) < len(content):
                self.trouble = os.strerror(errno.ENOSPC)
        except OSError as error:
            self.trouble = error.strerror or str(error)


def read(path: Path) -> Record | None:
    """The run of a journal; without its end it was killed when its last line was written.

    None where its first line can't be read. Another line that was cut short is left out.
    """
    record: Record | None = None
    points: list[Point] = []
    ended = False
    for line in _lines(path):
        if record is None:
            try:
                record = Record(**line)
            except TypeError:  # the first line was cut short, and this is another
                return None
        elif isinstance(line, list):
            time, step, values = line
            points += [Point(key, value, time, step) for key, value in values.items()]
        elif "tags" in line:
            record = replace(record, tags={**record.tags, **line["tags"]})
        else:
            ended = True
            record = replace(record, status=line["status"], end=line["end"])
    if record is None:
        return None
    if not ended:
        last = max([record.start, *(point.time for point in points)])
        record = replace(record, status="KILLED", end=last)
    return replace(record, points=tuple(points))


def left(folder: Path) -> list[Path]:
    """The journals in a repository's folder, of runs over and under way; oldest first."""
    return sorted((folder / FOLDER).glob("*.jsonl"), key=_changed)


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # sent meanwhile
        return 0.0


@contextmanager
def over(path: Path) -> Iterator[bool]:
    """Whether the run of this journal is over; then it is locked for the time of the block."""
    try:
        file = os.open(path, os.O_RDWR)
    except FileNotFoundError:  # sent meanwhile
        yield False
        return
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = path.exists()  # else sent since it was opened
        except BlockingIOError:
            free = False
        yield free
    finally:
        os.close(file)


def _lines(path: Path) -> Iterator[Any]:
    for line in path.read_bytes().split(b"\n"):
        try:
            yield json.loads(line)
        except ValueError:  # a disk that was full, or a power cut
            continue
