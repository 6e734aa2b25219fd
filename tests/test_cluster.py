"""Scoring on a real Ray cluster of two nodes, one of which is killed: every row once, the same bytes."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest

from tests.network import NotHere, Nowhere
from tests.registered import CANARY, release
from undertone.corpus.rows import Table
from undertone.deployment.cluster import engine
from undertone.deployment.predictor import Predictor
from undertone.deployment.scoring import MANIFEST, Part, Work, local, score
from undertone.errors import Problem

pytestmark = pytest.mark.services

ROWS, PART = 200_000, 1000
COMMAND = [sys.executable, "-m", "undertone.cli", "score", "--engine", "ray", "--id", "nr"]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bundle, a table, and what the local engine makes of it."""
    folder = tmp_path_factory.mktemp("cluster")
    release(folder / "bundle", encoder="0")
    texts = [f"{'good' if n % 3 else 'bad'} {CANARY}" if n % 10 else "" for n in range(ROWS)]
    table = pd.DataFrame({"nr": [f"{n:06}" for n in range(ROWS)], "text": texts})
    table.to_csv(folder / "in.csv", index=False)
    score(
        [str(folder / "in.csv")],
        folder / "local",
        folder / "bundle",
        local,
        id_="nr",
        rows_per_part=PART,
    )
    return folder


def command(work: Path, out: str, *more: str) -> list[str]:
    given = [str(work / "in.csv"), "--bundle", str(work / "bundle"), "--rows-per-part", str(PART)]
    return [*COMMAND, *given, "--out", str(work / out), *more]


def contents(out: Path) -> dict[str, bytes]:
    found = {path.name: path.read_bytes() for path in out.iterdir()}
    assert len(found) == ROWS // PART + 2
    return found


def waited(path: Path, process: "subprocess.Popen[str]") -> None:
    for _ in range(6000):
        if path.exists():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    raise AssertionError(f"no {path.name}")


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ray's folder, of this test alone; short, for a socket's path has 107 characters."""
    folder = Path(f"/tmp/undertone-test-{os.getpid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    return folder


def test_a_nodes_death_loses_no_row_and_changes_no_byte(work: Path, own: Path) -> None:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        node = cluster.add_node(num_cpus=1)
        running = subprocess.Popen(
            command(work, "ray", "--address", cluster.address, "--workers", "2"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
        while not any("MapWorker" in " ".join(one.cmdline()) for one in raylet.children()):
            assert running.poll() is None, running.communicate()
            time.sleep(0.01)  # till it has work that it can lose
        waited(work / "ray" / "part-00010.parquet", running)
        cluster.remove_node(node, allow_graceful=False)
        there = len(list((work / "ray").glob("part-*.parquet")))
        said, trouble = running.communicate(timeout=100)
    finally:
        cluster.shutdown()
    assert running.returncode == 0, trouble
    assert 10 <= there < ROWS // PART
    assert said.startswith(f"{ROWS:,} rows → {ROWS * 9 // 10:,} scored, {ROWS // 10:,} not")
    assert said.count("\n") == 1
    assert contents(work / "ray") == contents(work / "local")
    ids = pd.read_parquet(work / "ray")["id"]
    assert ids.tolist() == [f"{n:06}" for n in range(ROWS)]
    logs = [path for path in own.rglob("*") if path.is_file()]
    assert any(b"_Worker" in path.read_bytes() for path in logs)  # they are the logs of this work
    assert not [path for path in logs if CANARY.encode() in path.read_bytes()]
    assert CANARY not in said + trouble


@pytest.mark.usefixtures("own")
def test_alone_it_makes_a_cluster_that_reaches_for_nobody_and_leaves_nothing(
    work: Path, tmp_path: Path
) -> None:
    network = Nowhere(tmp_path / "network")
    try:
        network.__enter__()
    except NotHere as reason:
        pytest.skip(str(reason))
    before = set(Path("/tmp").glob("undertone-ray-*"))
    try:
        running = subprocess.Popen(
            [*network.prefix(Path.cwd()), *command(work, "alone", "--workers", "2")],
            stdout=subprocess.PIPE,
            text=True,
        )
        waited(work / "alone" / "part-00003.parquet", running)
        running.kill()
        running.wait()
        assert not (work / "alone" / MANIFEST).exists()
        done = subprocess.run(
            [*network.prefix(Path.cwd()), *command(work, "alone", "--workers", "2")],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        assert "were there already" in done.stdout
        assert network.tried == []
        assert network.packets == 0
    finally:
        network.__exit__(None, None, None)
    assert contents(work / "alone") == contents(work / "local")
    killed = set(Path("/tmp").glob("undertone-ray-*")) - before
    assert len(killed) <= 1  # of the killed run


@pytest.mark.usefixtures("own")
def test_a_workers_problem_stays_a_problem_and_the_environment_as_it_was(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.invalid")
    monkeypatch.delenv("RAY_BACKEND_LOG_LEVEL", raising=False)
    names = ("http_proxy", "RAY_BACKEND_LOG_LEVEL", "RAY_USAGE_STATS_ENABLED")
    before = {name: os.environ.get(name) for name in names}
    table = Table.of(work / "in.csv", "in.csv", "text", None)
    wrong = Work((table,), work, work / "bundle", digest="0", variant="fp32")
    with pytest.raises(Problem, match=r"^\S+: another bundle than the one it was begun with$"):
        list(engine(None, 1)(wrong, [Part(0, 0, 0, 1, PART)], Predictor.load(work / "bundle")))
    assert {name: os.environ.get(name) for name in names} == before


def test_a_cluster_that_isnt_there_is_one_line(work: Path) -> None:
    told = subprocess.run(
        command(work, "nowhere", "--address", "127.0.0.1:9"), capture_output=True, text=True
    )
    assert told.returncode == 1
    assert told.stderr == (
        "undertone: 127.0.0.1:9: no Ray cluster answers (ConnectionRefusedError)."
        " `ray status` shows the address.\n"
    )
