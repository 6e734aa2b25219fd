"""A stage starts on the bytes that were recorded for its inputs, or not at all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.people import ROOT
from undertone import files
from undertone.errors import Problem
from undertone.files import md5
from undertone.privacy.integrity import refuse_broken

ITEMS = ("own", "bert", "own-bert")


def record(stages: dict[str, dict[str, Path]], folder: Path) -> None:
    """dvc.lock after these stages wrote these paths."""
    lock = {
        name: {"cmd": "x", "outs": [{"path": str(path), "md5": md5(path)} for path in outs.values()]}
        for name, outs in stages.items()
    }
    (folder / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": lock}))


def point(path: Path) -> Path:
    pointer = path.with_name(f"{path.name}.dvc")
    pointer.write_text(yaml.safe_dump({"outs": [{"md5": md5(path), "path": path.name}]}))
    return pointer


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository in which one stage of each kind has run."""
    monkeypatch.chdir(tmp_path)
    for name in ("table", "scores/bert", "scores/gone", "collected/votes", "raw/own/a", "raw/own/b"):
        path = Path("data") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    data = Path("data")
    record(
        {
            "label@own": {"out": data / "table"},
            "predict@own-bert": {"out": data / "scores/bert"},
            "predict@own-gone": {"out": data / "scores/gone"},
            "collect@own": {"out": data / "collected"},
        },
        tmp_path,
    )
    point(data / "raw/own")
    return tmp_path


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("path", "changed"),
    [
        ("data/table", "data/table"),
        ("data/collected/votes", "data/collected/votes"),
        ("data/scores", "data/scores/bert"),
        ("data/raw/own", "data/raw/own/b"),
        ("data/raw", "data/raw/own/a"),
        ("data/raw/own/a", "data/raw/own/a"),
    ],
)
def test_one_flipped_bit_of_an_input_is_refused(path: str, changed: str) -> None:
    refuse_broken([Path(path)], stage="split@own", items=ITEMS)
    whole = Path(changed).read_bytes()
    Path(changed).write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    with pytest.raises(Problem, match=r"not the bytes that .* recorded"):
        refuse_broken([Path(path)], stage="split@own", items=ITEMS)
    Path(changed).write_bytes(whole[:-1])
    with pytest.raises(Problem, match="undertone verify --repair"):
        refuse_broken([Path(path)], stage="split@own", items=ITEMS)


@pytest.mark.usefixtures("folder")
def test_own_outputs_and_what_former_candidates_left_may_hold_anything() -> None:
    Path("data/table").write_text("older")
    Path("data/scores/gone").write_text("of another branch")
    refuse_broken([Path("data/table"), Path("data/scores")], stage="label@own", items=ITEMS)
    with pytest.raises(Problem, match="data/table"):
        refuse_broken([Path("data/table")], stage="split@own", items=ITEMS)
    with pytest.raises(Problem, match="scores/gone"):
        refuse_broken([Path("data/scores")], stage="evaluate@own", items=(*ITEMS, "own-gone"))


@pytest.mark.usefixtures("folder")
def test_an_input_that_only_the_last_run_names_is_checked_too() -> None:
    lock = yaml.safe_load(Path("dvc.lock").read_text())
    lock["stages"]["split@own"] = {"cmd": "x", "deps": [{"path": "data/table", "md5": "older"}]}
    Path("dvc.lock").write_text(yaml.safe_dump(lock))
    refuse_broken([], stage="split@own", items=ITEMS)
    Path("data/table").write_text("other")
    with pytest.raises(Problem, match="data/table"):
        refuse_broken([], stage="split@own", items=ITEMS)


def test_before_the_first_run_nothing_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "table").write_text("any")
    refuse_broken([Path("table"), Path("absent")], stage="split@own", items=ITEMS)


@pytest.mark.usefixtures("folder")
def test_a_lock_file_that_git_left_in_conflict_is_one_line() -> None:
    Path("dvc.lock").write_text("<<<<<<< ours\nstages: [\n")
    with pytest.raises(Problem, match=r"dvc\.lock: not readable"):
        refuse_broken([Path("data/table")], stage="split@own", items=ITEMS)


def test_a_stage_refuses_before_it_does_anything(folder: Path) -> None:
    (folder / "demo.py").write_text(
        "from pathlib import Path\n"
        "from undertone import stage\n"
        "from undertone.params import Params\n"
        "def main(params: Params, *, table: Path, out: Path) -> str:\n"
        "    out.write_text('trained')\n"
        "    return '1'\n"
        "stage.run(main)\n"
    )
    (folder / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    record({"label@standin": {"out": Path("data/table")}}, folder)
    lock = (folder / "dvc.lock").read_text()
    Path("data/table").write_text("other")
    command = [sys.executable, "demo.py", "--table", "data/table", "--out", "out"]
    by_dvc = {**os.environ, "DVC_STAGE": "split@standin", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=by_dvc, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("demo: data/table: not the bytes that label@standin recorded. ")
    assert done.stderr.count("\n") == 1
    assert not Path("out").exists()
    assert (folder / "dvc.lock").read_text() == lock
    by_hand = {**os.environ, "PYTHONPATH": str(ROOT)}  # at one's own risk
    assert subprocess.run(command, env=by_hand, capture_output=True).returncode == 0


def test_every_input_that_dvc_yaml_names_is_named_by_its_command_or_recorded() -> None:
    """What DVC makes a stage depend on, and a command doesn't name, only dvc.lock can tell."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text("utf-8"))["stages"]
    silent = {
        (name, dep)
        for name, stage in stages.items()
        for dep in stage["deps"]
        if dep.startswith(("data/", "models/"))
        and not any(
            dep == word or dep.startswith(f"{word}/") or word.startswith(f"{dep}/")
            for word in stage["cmd"].split()
        )
    }
    known = {"locate", "ingest", "predict", "cost", "prevalence", "bench"}
    assert {name for name, _ in silent} <= known
    locked = yaml.safe_load((ROOT / "dvc.lock").read_text("utf-8"))["stages"]
    recorded = {name.partition("@")[0] for name in locked}
    assert {name for name, _ in silent} <= recorded


def test_a_folders_digest_is_dvcs_whatever_lies_about(tmp_path: Path) -> None:
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "init", "-q", "--no-scm"], cwd=tmp_path, check=True)
    (tmp_path / ".dvcignore").write_bytes((ROOT / ".dvcignore").read_bytes())
    for name in ("a", "b/c", "b/.half.tmp", "b/x.tmp", ".gitignore", "__pycache__/m.pyc", "n.pyc"):
        path = tmp_path / "data/own" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    subprocess.run([*dvc, "add", "-q", "data/own"], cwd=tmp_path, check=True)
    pointer = yaml.safe_load((tmp_path / "data/own.dvc").read_text())
    assert pointer["outs"][0]["nfiles"] == 2
    assert files.md5(tmp_path / "data/own") == pointer["outs"][0]["md5"]
