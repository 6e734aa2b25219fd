"""A stage's door: command line from the signature, one line of log, one line for a problem."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = """
from pathlib import Path
import time
from undertone import stage
from undertone.errors import Problem
from undertone.params import Params
from undertone.files import whole

def main(params: Params, *, source: str, out: Path) -> str:
    if source == "wrong":
        raise Problem("no column 'text'", where="a.xlsx", remedy="Set ingest.text.")
    if source == "bug":
        try:
            float("a comment")
        except ValueError as error:
            raise KeyError("a comment") from error
    if source == "slow":
        with whole(out) as beside:
            beside.write_text("half")
            print("started", flush=True)
            time.sleep(60)
    out.write_text(source)
    return "1 row"

if __name__ == "__main__":
    stage.run(main)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "demo.py").write_text(PROGRAM)
    (tmp_path / "params.yaml").write_text(Path("params.yaml").read_text("utf-8"), "utf-8")
    return tmp_path


def ran(folder: Path, source: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "demo.py", "--source", source, "--out", "out"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_a_stage_logs_one_line_with_counts_and_seconds(folder: Path) -> None:
    done = ran(folder, "good")
    assert done.returncode == 0
    assert done.stdout.startswith("demo: 1 row (")
    assert done.stdout.count("\n") == 1


def test_a_problem_is_one_line_and_exit_code_1(folder: Path) -> None:
    done = ran(folder, "wrong")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "demo: a.xlsx: no column 'text'. Set ingest.text.\n"


def test_wrong_params_stop_every_stage_with_a_line_a_fault(folder: Path) -> None:
    path = folder / "params.yaml"
    path.write_text(path.read_text("utf-8").replace("seed: 13", "seed: x", 1) + "typo: 1\n", "utf-8")
    done = ran(folder, "good")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "demo: params.yaml: seed is 'x', must be a whole number",
        "demo: params.yaml: typo is not a known key",
    ]
    assert not (folder / "out").exists()


def test_a_bug_keeps_its_traceback_and_its_words_only_if_they_are_wanted(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = ran(folder, "bug")
    assert done.returncode == 1
    assert done.stderr.count("Traceback (most recent call last)") == 2
    assert "ValueError: its words are withheld" in done.stderr
    assert 'raise KeyError("a comment") from error' in done.stderr  # code, which everybody has
    assert "could not convert" not in done.stderr
    monkeypatch.setenv("UNDERTONE_WORDS", "1")
    assert "could not convert string to float: 'a comment'" in ran(folder, "bug").stderr


def test_sigterm_cleans_up_and_exits_with_143(folder: Path) -> None:
    command = [sys.executable, "demo.py", "--source", "slow", "--out", "out"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(timeout=10) == 143
    assert sorted(path.name for path in folder.iterdir()) == ["demo.py", "params.yaml"]


LIGHT = """
import sys, json
import undertone.{module}
heavy = ("torch", "transformers", "mlflow", "onnxruntime", "sklearn", "pandas")
print(json.dumps([name for name in heavy if name in sys.modules]))
"""


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        ("cli", []),
        ("params", []),
        ("labels", []),
        ("codebook", []),
        ("stage", []),
        ("deployment.predictor", ["onnxruntime"]),
        ("tables", ["pandas"]),
        ("measures.metrics", []),
        ("models", ["pandas"]),
        ("reporting.report", ["onnxruntime", "pandas"]),
    ],
)
def test_light_modules_load_no_heavy_library(module: str, allowed: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIGHT.format(module=module)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == allowed


def test_the_cli_answers_for_help_at_once() -> None:
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "undertone.cli", "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "predict" in done.stdout
    assert time.perf_counter() - started < 30  # a hang, not a speed
