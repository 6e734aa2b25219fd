"""Outputs are whole or absent, and digests are DVC's."""

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest

from undertone.files import md5, read_json, whole, write_json


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    write_json(path, {"old": 1})
    with contextlib.suppress(RuntimeError), whole(path) as beside:
        beside.write_text("half")
        raise RuntimeError
    assert read_json(path) == {"old": 1}
    assert [one.name for one in tmp_path.iterdir()] == ["out.json"]


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "model"
    for names in (["a", "b"], ["c"]):
        with whole(path) as beside:
            beside.mkdir()
            for name in names:
                (beside / name).write_text(name)
    assert sorted(one.name for one in path.iterdir()) == ["c"]


@pytest.mark.parametrize("signal", ["SIGKILL", "SIGTERM"])
def test_a_killed_write_is_never_taken_for_whole_and_is_swept_by_the_next(
    signal: str, tmp_path: Path
) -> None:
    program = f"""
import os, signal
from pathlib import Path
from undertone.files import whole
with whole(Path({str(tmp_path / "out")!r})) as beside:
    beside.write_text("half")
    os.kill(os.getpid(), signal.{signal})
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True)
    assert done.returncode < 0
    assert not (tmp_path / "out").exists()
    assert all(one.name.endswith(".tmp") for one in tmp_path.iterdir())  # ignored by git
    with whole(tmp_path / "out") as beside:
        beside.write_text("whole")
    assert [one.name for one in tmp_path.iterdir()] == ["out"]


def test_nothing_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), whole(tmp_path / "out"):
        pass


def test_a_folders_digest_sees_names_and_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_text("1")
    first = md5(tmp_path)
    assert first.endswith(".dir")
    (tmp_path / "a" / "x").rename(tmp_path / "a" / "y")
    second = md5(tmp_path)
    (tmp_path / "a" / "y").write_text("2")
    assert len({first, second, md5(tmp_path)}) == 3
