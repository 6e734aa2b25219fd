"""SIGTERM at any moment of a run, which never leaves it RUNNING; a server killed midway, which costs no
point."""

import multiprocessing
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from undertone import stage
from undertone.records import journal, tracking

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["undertone.records.tracking"])


def runs_for_ever(root: Path, uri: str, seed: int) -> None:
    """Runs of five steps, one after the other, each step sent at once."""
    os.chdir(root)
    os.environ["MLFLOW_TRACKING_URI"] = uri
    signal.signal(signal.SIGTERM, stage._terminated)
    tracking._EVERY = 0.0
    for number in range(10_000):
        with tracking.run(
            experiment="gender",
            name=f"{seed}-{number}",
            stage="train",
            settings={"lr": 1},
            data={"comments": "0" * 32},
        ) as run:
            for step in range(5):
                run.log(step, {"loss": 1.0 / (step + 1)})


def terminated(root: Path, uri: str, moments: list[float]) -> list[int]:
    """Exit codes of children that were told to end so many seconds after their first run began."""
    codes = []
    for seed, moment in enumerate(moments):
        before = len(ended(uri))
        child = PROCESSES.Process(target=runs_for_ever, args=(root, uri, seed))
        child.start()
        deadline = time.monotonic() + 60
        while not journal.left(root) and len(ended(uri)) == before and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(moment)
        child.terminate()
        child.join(60)
        codes.append(child.exitcode)
    return codes


def ended(uri: str) -> dict[str, str]:
    """Name → status of every run."""
    if uri.startswith("sqlite"):
        with closing(sqlite3.connect(uri.removeprefix("sqlite:///"), timeout=60)) as database:
            return dict(database.execute("SELECT run_uuid, status FROM runs").fetchall())
    client = tracking.client()
    homes = [one.experiment_id for one in client.search_experiments()]
    return {one.info.run_id: one.info.status for one in client.search_runs(homes, max_results=50_000)}


def test_sigterm_at_any_moment_leaves_no_run_running(store: Path) -> None:
    uri = tracking.uri()
    codes = terminated(store, uri, [0.07 * number for number in range(10)])
    found = list(ended(uri).values())
    assert codes == [143] * 10
    assert len(found) >= 10
    assert set(found) <= {"FINISHED", "KILLED"}
    assert journal.left(store) == []


class Server:
    """A real `mlflow server` with a sqlite database, which can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"),
                *("--port", str(self.port), "--workers", "1"),
                *("--backend-store-uri", f"sqlite:///{self.folder}/server.db"),
                *("--artifacts-destination", str(self.folder / "artifacts")),
            ],
            cwd=self.folder,
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # its workers end with it
        )
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                with urlopen(f"{self.uri}/health", timeout=5):
                    return
            except (URLError, OSError):
                time.sleep(0.2)
        raise TimeoutError("the server does not answer")

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@pytest.fixture
def server(tmp_path: Path, template: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    folder = tmp_path / "server"
    folder.mkdir()
    (folder / "server.db").write_bytes(template.read_bytes())
    one = Server(folder)
    one.start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", one.uri)
    yield one
    one.kill()


@pytest.mark.services
def test_sigterm_at_any_moment_leaves_no_run_running_on_a_server(store: Path, server: Server) -> None:
    codes = terminated(store, server.uri, [0.1 * number for number in range(8)])
    found = list(ended(server.uri).values())
    assert codes == [143] * 8
    assert len(found) >= 8
    assert set(found) <= {"FINISHED", "KILLED"}
    assert journal.left(store) == []


@pytest.mark.services
def test_a_server_killed_midway_costs_no_point(
    store: Path, server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "_EVERY", 0.2)
    monkeypatch.setattr(tracking, "_PAUSE", 3600.0)
    slowest = 0.0
    with tracking.run(
        experiment="gender", name="bert", stage="train", settings={"lr": 1}, data={"base": "0" * 32}
    ) as run:
        for step in range(3000):
            if step == 1000:
                server.kill()
            started = time.monotonic()
            run.log(step, {"loss": 1 / (step + 1), "lr": step / 3000})
            slowest = max(slowest, time.monotonic() - started)
            time.sleep(0.0005)
    assert slowest < 15
    assert "`undertone sync` sends it" in capsys.readouterr().err
    server.start()
    client = tracking.client()
    before = len(client.get_metric_history(run.id, "loss"))
    assert 0 < before < 3000
    assert client.get_run(run.id).info.status == "RUNNING"
    assert tracking.send_unsent(client) == (["bert"], [])
    for key in ("loss", "lr"):
        history = client.get_metric_history(run.id, key)
        assert sorted(one.step for one in history) == list(range(3000))
    assert client.get_run(run.id).info.status == "FINISHED"
    assert journal.left(store) == []


@pytest.mark.services
def test_a_killed_client_and_a_killed_server_together_cost_no_point(store: Path, server: Server) -> None:
    child = PROCESSES.Process(target=runs_for_ever, args=(store, server.uri, 0))
    child.start()
    deadline = time.monotonic() + 60
    while len(ended(server.uri)) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    server.kill()
    time.sleep(1)
    child.kill()
    child.join()
    server.start()
    waiting = tracking.unsent()
    assert waiting
    sent, trouble = tracking.send_unsent(tracking.client())
    assert (len(sent), trouble) == (len(waiting), [])
    client = tracking.client()
    stored = {one.data.tags[tracking.ORIGIN]: one for one in tracking.ours(client).values()}
    for own, record in waiting.items():
        history = client.get_metric_history(stored[own].info.run_id, "loss")
        assert [one.step for one in history] == [one.step for one in record.points]
    assert set(ended(server.uri).values()) <= {"FINISHED", "KILLED"}
