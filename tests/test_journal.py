import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from undertone.errors import Problem
from undertone.records import journal
from undertone.records.journal import Journal, Point, Record

RECORD = Record(
    id="a" * 32,
    name="bert",
    experiment="gender",
    start=1000,
    params={"lr": "0.1"},
    tags={"source": "standin"},
    data={"comments": "0" * 32},
)


def whole(folder: Path) -> Path:
    """A journal of two points and how it ended."""
    one = Journal(folder / journal.FOLDER, RECORD)
    one.points(2000, 1, {"loss": 0.1, "lr": float("nan")})
    one.tags({"model.md5": "1" * 32})
    one.end("FINISHED", 3000)
    one.close(sent=False)
    return one.path


def test_a_journal_is_read_as_it_was_written(tmp_path: Path) -> None:
    found = journal.read(whole(tmp_path))
    assert found is not None
    assert (found.id, found.name, found.start, found.params) == ("a" * 32, "bert", 1000, {"lr": "0.1"})
    assert (found.status, found.end) == ("FINISHED", 3000)
    assert found.tags == {"source": "standin", "model.md5": "1" * 32}
    assert found.points[0] == Point("loss", 0.1, 2000, 1)
    assert found.points[1].key == "lr"
    assert found.points[1].value != found.points[1].value


def test_a_run_without_its_end_was_killed_at_its_last_line(tmp_path: Path) -> None:
    one = Journal(tmp_path, RECORD)
    one.points(2500, 1, {"loss": 0.1})
    found = journal.read(one.path)
    assert found is not None
    assert (found.status, found.end) == ("KILLED", 2500)


def test_a_journal_that_was_cut_anywhere_keeps_all_that_stands_before(tmp_path: Path) -> None:
    path = whole(tmp_path)
    content = path.read_bytes()
    first = content.index(b"\n") + 1
    second = content.index(b"\n", first) + 1
    for length in range(len(content)):
        path.write_bytes(content[:length])
        found = journal.read(path)
        if length < first - 1:
            assert found is None
        else:
            assert found is not None
            assert len(found.points) == (2 if length >= second - 1 else 0)


def test_the_journal_of_a_run_under_way_is_not_over_until_its_process_is(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from undertone.records.journal import *;"
        "one = Journal(Path(sys.argv[1]), Record('b' * 32, 'n', 'e', 1, {}, {}, {}));"
        "print(flush=True); time.sleep(300)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / journal.FOLDER)], stdout=subprocess.PIPE
    )
    try:
        assert child.stdout is not None
        child.stdout.readline()
        (path,) = journal.left(tmp_path)
        with journal.over(path) as over:
            assert not over
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        with journal.over(path) as over:
            assert over
    finally:
        child.kill()


def test_a_journal_that_is_gone_is_not_over(tmp_path: Path) -> None:
    with journal.over(tmp_path / "gone.jsonl") as over:
        assert not over


def test_what_is_sent_leaves_nothing(tmp_path: Path) -> None:
    one = Journal(tmp_path, RECORD)
    one.close(sent=True)
    assert list(tmp_path.iterdir()) == []


def test_without_its_first_line_a_journal_holds_no_run(tmp_path: Path) -> None:
    path = whole(tmp_path)
    lines = path.read_bytes().split(b"\n")
    for first in ([b'{"id": "a", "na'], []):
        path.write_bytes(b"\n".join(first + lines[1:]))
        assert journal.read(path) is None


def test_a_journal_that_another_sends_meanwhile_stops_nobody(tmp_path: Path) -> None:
    path = whole(tmp_path)
    (path.parent / "gone.jsonl").symlink_to(tmp_path / "nowhere")  # listed, and then not there
    assert set(journal.left(tmp_path)) == {path.parent / "gone.jsonl", path}


def test_a_journal_that_was_sent_between_its_opening_and_its_lock_is_not_over(tmp_path: Path) -> None:
    path = whole(tmp_path)
    lock = journal.fcntl.flock

    def late(file: int, how: int) -> None:
        path.unlink()
        lock(file, how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal.fcntl, "flock", late)
        with journal.over(path) as over:
            assert not over


def full(one: Journal) -> int:
    """What is written to this journal finds no room, until what is returned takes its place again."""
    before = os.dup(one._file)
    device = os.open("/dev/full", os.O_WRONLY)
    os.dup2(device, one._file)
    os.close(device)
    return before


def test_what_a_full_disk_did_not_take_costs_no_other_line(tmp_path: Path) -> None:
    one = Journal(tmp_path, RECORD)
    os.write(one._file, b'[1500, 1, {"lo')  # as much of a line as there was room for
    before = full(one)
    one.points(2000, 2, {"loss": 0.2})
    assert one.trouble == "No space left on device"
    os.dup2(before, one._file)
    os.close(before)
    one.points(2500, 3, {"loss": 0.1})
    one.close(sent=False)
    found = journal.read(one.path)
    assert found is not None
    assert found.points == (Point("loss", 0.1, 2500, 3),)


def test_a_run_that_a_full_disk_can_not_hold_does_not_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def into_nothing(path: Path, flags: int, mode: int) -> int:
        os.close(opened(path, flags, mode))
        return opened("/dev/full", os.O_WRONLY)

    monkeypatch.setattr(journal.os, "open", into_nothing)
    with pytest.raises(Problem, match="can't be written: No space left on device"):
        Journal(tmp_path, RECORD)
    assert list(tmp_path.iterdir()) == []
