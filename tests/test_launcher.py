"""Training by `accelerate launch`: two processes on a CPU learn as one, fail as one, and end as one."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from dvc.utils.hydra import apply_overrides
from mlflow import MlflowClient

from stages import train
from tests import launched, test_training, tiny
from undertone import models
from undertone.errors import Problem
from undertone.files import write_json
from undertone.params import read_params
from undertone.tuning import launcher

ROOT = Path(__file__).parents[1]
TWO = "--num_processes 2"


class Repository:
    """A folder with what the stage `train` reads, for a tiny language model without dropout, and a copy
    of the MLflow `store`."""

    def __init__(self, folder: Path, store: Path) -> None:
        self.folder = folder
        (folder / ".dvc").mkdir(parents=True)
        shutil.copyfile(store, folder / "mlflow.db")
        (folder / "params.yaml").write_text((ROOT / "params.yaml").read_text("utf-8"), "utf-8")
        space = tiny.space()
        space.save(folder / "labels.json")
        start = tiny.start("lora", folder)
        assert start.instruction is not None
        write_json(folder / "instruction.json", start.instruction.to_json())
        changed = {
            "batch": 7,
            "evaluate_every": 4,
            "epochs": 2.0,
            "patience": 99,
            "class_weights": "sqrt",
        }
        settings = tiny.SETTINGS["lora"].model_copy(update=changed)
        models.Recipe("lora", settings, "code").save(folder / "recipe.json")
        tables = []
        for seed, (part, rows) in enumerate({"train": 64, "validation": 20, "test": 10}.items()):
            made = tiny.examples(rows, seed=seed)
            table = pd.DataFrame(
                made.truth.astype(float), columns=[f"label.{one}" for one in space.labels]
            )
            table.insert(0, "id", [f"{part}{row}" for row in range(rows)])
            table.insert(1, "text", made.texts)
            table.insert(2, "part", part)
            table.insert(3, "weight", 1.0)
            table.insert(4, "origin", "silver")
            tables.append(table)
        pd.concat(tables).to_parquet(folder / "comments.parquet", index=False)

    def launcher(self, arguments: str) -> None:
        apply_overrides(self.folder / "params.yaml", [f"train.launcher={arguments}"])

    def start(self, module: str, **arguments: str) -> subprocess.Popen[str]:
        given = [word for key, value in arguments.items() for word in (f"--{key}", value)]
        return subprocess.Popen(
            [sys.executable, "-m", module, *given],
            cwd=self.folder,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def train(self, out: str) -> subprocess.Popen[str]:
        return self.start("stages.train", **reads(out))


def reads(out: str) -> dict[str, str]:
    """The arguments of the stage, for outputs below `out`."""
    return {
        "source": "standin",
        "candidate": "lora",
        "recipe": "recipe.json",
        "base": "decoder",
        "adapted": "decoder",
        "instruction": "instruction.json",
        "labels": "labels.json",
        "comments": "comments.parquet",
        "out": f"{out}/model",
        "curves": f"{out}/curves.json",
        "folds": f"{out}/folds.parquet",
    }


def environment() -> dict[str, str]:
    without = {key: value for key, value in os.environ.items() if not key.startswith("DVC_")}
    return {**without, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MLFLOW_TRACKING_URI": ""}


def told(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:  # it has ended
        return b""


def lives(process: int) -> bool:
    status = told(f"/proc/{process}/status")
    return status != b"" and b"\nState:\tZ" not in status


def members(launcher: int) -> list[int]:
    """The processes that it has started so far."""
    found = subprocess.run(["pgrep", "-P", str(launcher)], capture_output=True, text=True).stdout
    return [int(one) for one in found.split() if b"\0LOCAL_RANK=" in told(f"/proc/{one}/environ")]


def end(processes: list[int]) -> bool:
    """Whether none of them lives some seconds later."""
    until = time.monotonic() + 20
    while any(map(lives, processes)) and time.monotonic() < until:
        time.sleep(0.05)
    return not any(map(lives, processes))


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, template: Path) -> Repository:
    made = Repository(tmp_path_factory.mktemp("launched") / "repository", template)
    made.launcher(TWO)
    return made


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(repository: Repository, tmp_path: Path) -> None:
    stage = repository.start("tests.launched", how="learns", out=str(tmp_path))
    launched.learn(tmp_path / "alone.json", tmp_path / "alone")
    printed, error = stage.communicate()
    assert (stage.returncode, printed.count("\n"), error) == (0, 1, "")
    alone, *both = (
        json.loads((tmp_path / name).read_text())
        for name in ("alone.json", "learnt-0.json", "learnt-1.json")
    )
    assert both[0].keys() == alone.keys() == launched.KINDS.keys()
    for kind, straight in alone.items():
        for rows, *parts in zip(straight["rows"], *(one[kind]["rows"] for one in both), strict=True):
            assert sum(parts) == rows if rows > 1 else parts == [1, 1]
            assert max(parts) - min(parts) <= 1
        assert both[0][kind]["weights"] == both[1][kind]["weights"]
        for one, other in zip(straight["weights"], both[0][kind]["weights"], strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)
        masks = [one[kind]["masks"] for one in both]
        assert len(masks[0]) > 5
        assert all(one != other for one, other in zip(*masks, strict=True))
        compared = 0
        told = straight["curves"], both[0][kind]["curves"]
        for (step, values), (at, others) in zip(*told, strict=True):
            assert (step, values.keys()) == (at, others.keys())
            for name in values.keys() - test_training.TIMES:
                assert values[name] == pytest.approx(others[name], abs=2e-4), (kind, step, name)
                compared += 1
        assert compared > 10


@pytest.mark.slow
def test_a_stage_of_two_whose_launcher_is_killed_leaves_nobody_and_goes_on_later(
    repository: Repository, template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = repository.train("two")
    state = repository.folder / "models/.state"
    while not any(state.rglob("checkpoint-*/trainer_state.json")):
        assert stage.poll() is None, stage.communicate()
        time.sleep(0.02)
    both = members(stage.pid)
    assert len(both) == 2
    stage.kill()
    assert end(both)
    stage.communicate()
    assert not (repository.folder / "two").exists()
    begun = max(int(path.name.partition("-")[2]) for path in state.rglob("checkpoint-*"))
    [kept] = state.rglob(f"checkpoint-{begun}/trainer_state.json")
    found = json.loads(kept.read_text())
    next(one for one in found["log_history"] if "validation_loss" in one)["validation_loss"] = 777.0
    kept.write_text(json.dumps(found))
    again = repository.train("two")
    alone = Repository(tmp_path / "alone", template)
    monkeypatch.chdir(alone.folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert read_params().train.launcher is None
    paths = {
        key: Path(value) for key, value in reads("one").items() if key not in ("source", "candidate")
    }
    train.main(read_params(), source="standin", candidate="lora", **paths)
    printed, error = again.communicate()
    assert again.returncode == 0, error
    assert re.fullmatch(r"train: lora: 64 rows, macro-F1 \S+ on 20 \(.*\)\n", printed)
    assert not any(state.rglob("*.safetensors"))
    one, two = (
        json.loads(path.read_text())
        for path in (alone.folder / "one/curves.json", repository.folder / "two/curves.json")
    )
    assert [point["step"] for point in one] == [point["step"] for point in two]
    compared = 0
    # it went on from what was kept
    [planted] = [point for point in two if point.get("validation_loss") == 777.0]
    planted["validation_loss"] = one[two.index(planted)]["validation_loss"]
    for point, other in zip(one, two, strict=True):
        for name in point:
            assert point[name] == pytest.approx(other[name], abs=1e-3), (point["step"], name)
            compared += name == "loss"
    assert compared > 5
    assert begun < one[-1]["step"]
    assert {path.name for path in (repository.folder / "two").iterdir()} == {
        *("model", "curves.json", "folds.parquet")
    }
    store = MlflowClient(f"sqlite:///{repository.folder}/mlflow.db")
    runs = store.search_runs([store.get_experiment_by_name("tiny").experiment_id])
    assert [run.data.tags["launcher"] for run in runs] == [TWO, TWO]
    assert {run.data.metrics["weight.silver"] for run in runs if run.info.status == "FINISHED"} == {1.0}
    assert sum(run.info.status == "FINISHED" for run in runs) == 1


@pytest.mark.slow
def test_a_launcher_that_is_killed_while_its_processes_begin_leaves_nobody(
    repository: Repository, tmp_path: Path
) -> None:
    stage = repository.start("tests.launched", how="nothing fails", out=str(tmp_path))
    while len(both := members(stage.pid)) < 2:
        assert stage.poll() is None, stage.communicate()
        time.sleep(0.02)
    stage.kill()
    assert end(both)
    stage.communicate()
    assert not any(tmp_path.iterdir())  # they were killed before their work began


@pytest.mark.slow
def test_what_fails_in_one_process_ends_the_stage_with_one_line(
    repository: Repository, tmp_path: Path
) -> None:
    lines = {
        "one refuses": "launched: here: the pay is no number. Write one.",
        "all refuse": "launched: here: the pay is no number. Write one.",
        "one is killed": "launched: params.yaml: train.launcher: process 1 ended with SIGKILL. ",
    }
    for how in lines:
        (tmp_path / how).mkdir()
    running = {
        how: repository.start("tests.launched", how=how, out=str(tmp_path / how)) for how in lines
    }
    for how, stage in running.items():
        printed, error = stage.communicate()
        assert (stage.returncode, printed, error.count("\n")) == (1, "", 1), error
        assert error.startswith(lines[how])
        began = [int(path.read_text()) for path in (tmp_path / how).iterdir()]
        assert len(began) == 2
        assert not any(map(lives, began))


@pytest.mark.parametrize("arguments", ["--num_procesess 2", "--num_processes 1", "--multi_gpu", "x.py"])
def test_what_accelerate_does_not_take_is_one_line(
    arguments: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_CPP_LOG_LEVEL", "ERROR")
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", find_spec("tests.launched"))
    expected = pytest.raises(Problem, match=r"^params.yaml: train.launcher: [^\n]+$")
    with expected, launcher.processes(arguments):
        raise AssertionError("nothing was to begin")
