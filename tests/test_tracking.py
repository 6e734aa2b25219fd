import ast
import multiprocessing
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run
from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository

from undertone import files, stage
from undertone.errors import Problem, without_password
from undertone.files import md5
from undertone.records import tracking
from undertone.records.journal import Point

REPOSITORY = Path(__file__).parents[1]
# a server that has imported MLflow once, and forks
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["undertone.records.tracking"])


def work(root: Path, name: str, seconds: float, started: Event) -> None:
    """A stage in a process of its own."""
    os.chdir(root)
    signal.signal(signal.SIGTERM, stage._terminated)
    with tracking.run(experiment="gender", name=name, stage="train", settings={}, data={}) as run:
        run.log(1, {"loss": 0.5})
        started.set()
        time.sleep(seconds)


def start(root: Path, name: str, seconds: float) -> tuple[BaseProcess, Event]:
    started = PROCESSES.Event()
    process = PROCESSES.Process(target=work, args=(root, name, seconds, started))
    process.start()
    return process, started


def one_run(**given: object) -> tracking.Run:
    """A run that finishes at once."""
    usual: dict[str, object] = {
        "experiment": "gender",
        "name": "bert",
        "stage": "train",
        "settings": {},
        "data": {},
    }
    with tracking.run(**{**usual, **given}) as run:  # type: ignore[arg-type]
        pass
    return run


def runs() -> dict[str, Run]:
    client = tracking.client()
    ids = [one.experiment_id for one in client.search_experiments()]
    return {one.info.run_name: one for one in client.search_runs(ids)}


def test_only_tracking_and_registry_import_mlflow() -> None:
    files = sorted((REPOSITORY / "undertone").rglob("*.py"))
    assert len(files) > 5
    importers = {
        path.name
        for path in files
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if (isinstance(node, ast.Import) and any(one.name.startswith("mlflow") for one in node.names))
        or (isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mlflow"))
    }
    # access tells its errors apart, admission runs inside the server
    assert importers - {"access.py", "admission.py"} == {"tracking.py", "registry.py"}


def test_the_root_is_the_first_folder_upwards_with_dvc(tmp_path: Path) -> None:
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert files.root(tmp_path / "a" / "b") == tmp_path


def test_an_experiments_temporary_copy_shares_the_repositorys_store(tmp_path: Path) -> None:
    copy = tmp_path / ".dvc" / "tmp" / "exps" / "tmp1"
    (copy / ".dvc").mkdir(parents=True)
    assert files.root(copy) == tmp_path


def test_outside_a_repository_is_a_problem(tmp_path: Path) -> None:
    with pytest.raises(Problem, match=r"holds \.dvc"):
        files.root(tmp_path)


def test_an_inherited_dvc_root_is_not_believed(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", "/elsewhere")
    assert tracking.uri() == f"sqlite:///{store}/mlflow.db"


@pytest.mark.usefixtures("store")
def test_the_environment_names_another_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example.org")
    assert tracking.uri() == "http://mlflow.example.org"


@pytest.mark.usefixtures("store")
def test_a_run_holds_settings_curves_metrics_and_digests() -> None:
    with tracking.run(
        experiment="gender",
        name="bert",
        stage="train",
        settings={"lr": 1e-4, "base": "e5", "lora": {"r": 16, "alpha": None}},
        data={"comments": "0" * 32, "base": "1" * 32 + ".dir"},
        tags={"source": "standin"},
    ) as run:
        for step in range(1000):
            run.log(step, {"loss": 1 / (step + 1)})
        run.metrics({"macro_f1": 0.75})
        run.tag({"model.md5": "2" * 32})
    client = tracking.client()
    found = client.get_run(run.id)
    assert (found.info.run_name, found.info.status) == ("bert", "FINISHED")
    assert found.data.params == {"lr": "0.0001", "base": "e5", "lora.r": "16", "lora.alpha": "null"}
    assert len(client.get_metric_history(run.id, "loss")) == 1000
    assert found.data.metrics == {"loss": 0.001, "macro_f1": 0.75}
    assert {
        "source": "standin",
        "data.comments": "0" * 32,
        "model.md5": "2" * 32,
        "process.pid": str(os.getpid()),
        "version.mlflow": tracking.provenance.versions()["version.mlflow"],
    }.items() <= found.data.tags.items()
    assert int(found.data.tags["threads"]) >= 1
    inputs = {one.dataset.name: one.dataset for one in found.inputs.dataset_inputs}
    assert {name: one.digest for name, one in inputs.items()} == {
        "comments": "0" * 32,
        "base": "1" * 32 + ".dir",
    }
    assert all((one.source, one.schema, one.profile) == ("{}", None, None) for one in inputs.values())


@pytest.mark.usefixtures("store")
def test_points_wait_so_that_a_step_costs_no_call() -> None:
    with tracking.run(experiment="gender", name="bert", stage="train", settings={}, data={}) as run:
        started = time.perf_counter()
        for step in range(1000):
            run.log(step, {"loss": 0.5})
        assert time.perf_counter() - started < 16  # 32 s when each point is sent by itself


@pytest.mark.usefixtures("store")
def test_a_run_in_an_experiment_is_named_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", "icy-fog")
    monkeypatch.setenv("DVC_EXP_BASELINE_REV", "abc123")
    monkeypatch.setenv("DVC_STAGE", "train@standin-bert")
    one_run()
    assert {
        "dvc.experiment": "icy-fog",
        "dvc.baseline": "abc123",
        "dvc.stage": "train@standin-bert",
    }.items() <= runs()["icy-fog-bert"].data.tags.items()


@pytest.mark.usefixtures("store")
def test_a_run_tells_its_commit_and_changes_that_no_commit_holds() -> None:
    def git(*arguments: str) -> str:
        who = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
        return subprocess.check_output(["git", *who, *arguments], text=True).strip()

    git("init", "--quiet")
    Path("params.yaml").write_text("lr: 1\n")
    Path("dvc.lock").write_text("a\n")
    git("add", "params.yaml", "dvc.lock")
    git("commit", "--quiet", "--message", "one")
    Path("dvc.lock").write_text("b\n")  # as every stage does
    one_run(name="clean")
    Path("params.yaml").write_text("lr: 2\n")
    one_run(name="dirty")
    tags = {name: one.data.tags for name, one in runs().items()}
    assert tags["clean"]["mlflow.source.git.commit"] == git("rev-parse", "HEAD")
    assert (tags["clean"]["git.dirty"], tags["dirty"]["git.dirty"]) == ("false", "true")


@pytest.mark.parametrize(
    ("stop", "status"),
    [
        (ValueError(), "FAILED"),
        (SystemExit(1), "FAILED"),
        (SystemExit(143), "KILLED"),
        (KeyboardInterrupt(), "KILLED"),
    ],
)
@pytest.mark.usefixtures("store")
def test_a_run_that_stops_early_says_how(stop: BaseException, status: str) -> None:
    with (
        pytest.raises(type(stop)),
        tracking.run(experiment="gender", name="bert", stage="train", settings={}, data={}),
    ):
        raise stop
    assert runs()["bert"].info.status == status


def test_a_killed_run_is_marked_and_a_live_one_spared(store: Path) -> None:
    (dead, _), (live, _) = children = [start(store, name, 300) for name in ("dead", "live")]
    try:
        assert all(started.wait(60) for _, started in children)
        dead.kill()
        dead.join()
        assert runs()["dead"].info.status == "RUNNING"
        one_run(name="next")
        assert {name: one.info.status for name, one in runs().items()} == {
            "dead": "KILLED",
            "live": "RUNNING",
            "next": "FINISHED",
        }
        live.terminate()
        live.join(60)
        assert live.exitcode == 143
        assert runs()["live"].info.status == "KILLED"
        assert runs()["live"].data.metrics == {"loss": 0.5}
    finally:
        live.kill()


def test_a_run_that_ends_while_another_looks_for_the_dead_stays_finished(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child, started = start(store, "ending", 300)
    assert started.wait(60)
    listed = tracking.MlflowClient.search_runs

    def ends_then(self: tracking.MlflowClient, *given: Any, **named: Any) -> Any:
        found = listed(self, *given, **named)
        for one in found:
            self.set_terminated(one.info.run_id, "FINISHED")
        child.kill()
        child.join()
        return found

    monkeypatch.setattr(tracking.MlflowClient, "search_runs", ends_then)
    one_run(name="next")
    monkeypatch.undo()
    monkeypatch.chdir(store)
    assert runs()["ending"].info.status == "FINISHED"


@pytest.mark.usefixtures("store")
def test_a_process_that_took_over_the_number_is_not_the_run() -> None:
    own = tracking.provenance.process()
    assert tracking.provenance.alive(own)
    assert not tracking.provenance.alive({**own, "process.started": "1.00"})


def test_four_first_runs_at_once_make_one_sound_database(tmp_path: Path) -> None:
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "mlflow.db.init").write_bytes(b"left behind by a kill")
    children = [start(tmp_path, f"run{number}", 0) for number in range(4)]
    for child, _ in children:
        child.join(120)
    assert [child.exitcode for child, _ in children] == [0, 0, 0, 0]
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        assert database.execute("SELECT count(*) FROM runs WHERE status = 'FINISHED'").fetchone() == (4,)
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert not (tmp_path / "mlflow.db.init").exists()


def test_artifacts_lie_in_the_repository_wherever_the_run_starts(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = store / ".dvc" / "tmp" / "exps" / "tmp1"
    (copy / ".dvc").mkdir(parents=True)
    monkeypatch.chdir(copy)
    run = one_run()
    found = tracking.client().get_run(run.id).info.artifact_uri
    assert found == f"{store}/mlartifacts/gender/{run.id}/artifacts"


def test_a_moved_repository_is_told_and_relocated(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = one_run()
    moved = store.rename(store.with_name("moved"))
    monkeypatch.chdir(moved)
    with pytest.raises(Problem, match="undertone relocate"):
        one_run()
    assert tracking.relocate() >= 2
    assert one_run().id != run.id
    found = tracking.client().get_run(run.id).info.artifact_uri
    assert found == f"{moved}/mlartifacts/gender/{run.id}/artifacts"
    assert tracking.relocate() == 0


def test_an_experiment_made_in_mlflows_pages_is_told_and_relocated(store: Path) -> None:
    tracking.client().create_experiment("gender", artifact_location="mlflow-artifacts:/7")
    with pytest.raises(Problem, match="undertone relocate"):
        one_run()
    tracking.relocate()
    run = one_run()
    found = tracking.client().get_run(run.id).info.artifact_uri
    assert found.startswith(f"{store}/mlartifacts/7/")


@pytest.mark.usefixtures("store")
def test_a_deleted_experiment_is_told() -> None:
    one_run()
    tracking.client().delete_experiment("1")
    with pytest.raises(Problem, match="mlflow experiments restore -x 1"):
        one_run()


# one waits for the silent
@pytest.fixture(params=["dead", pytest.param("silent", marks=pytest.mark.services)])
def nobody(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A port where nobody listens, or one that takes every call and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        if request.param == "silent":
            listening.listen(100)
        port = listening.getsockname()[1]
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://anna:hunter2@127.0.0.1:{port}")
        yield


@pytest.mark.usefixtures("nobody")
def test_where_no_server_answers_a_run_is_recorded_and_sent_later(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started = time.monotonic()
    with tracking.run(
        experiment="gender", name="bert", stage="train", settings={"lr": 1}, data={"base": "0" * 32}
    ) as run:
        went_on = time.monotonic() - started
        for step in range(2000):
            run.log(step, {"loss": 1 / (step + 1)})
    assert went_on < 15
    assert time.monotonic() - started < 2 * 15  # the end asks once more
    told = capsys.readouterr().err
    assert "hunter2" not in told
    assert "Check MLFLOW_TRACKING_URI" in told
    assert "`undertone sync` sends it" in told
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert tracking.send_unsent(tracking.client()) == (["bert"], [])
    found = runs()["bert"]
    assert (found.info.status, found.data.params, found.data.metrics["loss"]) == (
        *("FINISHED", {"lr": "1"}),
        1 / 2000,
    )
    assert found.info.end_time - found.info.start_time < 2 * 15 * 1000
    assert [one.dataset.digest for one in found.inputs.dataset_inputs] == ["0" * 32]
    assert len(tracking.client().get_metric_history(found.info.run_id, "loss")) == 2000
    assert list((store / "unsent").iterdir()) == []


@pytest.mark.usefixtures("nobody", "store")
def test_where_no_server_answers_a_stage_refuses_if_told_to() -> None:
    text = (REPOSITORY / "params.yaml").read_text("utf-8")
    Path("params.yaml").write_text(text.replace("unreachable: record", "unreachable: refuse"))
    started = time.monotonic()
    with pytest.raises(Problem, match="Check MLFLOW_TRACKING_URI") as told:
        one_run()
    assert time.monotonic() - started < 15
    assert "hunter2" not in str(told.value)
    assert len(str(told.value).splitlines()) == 1
    assert list(Path("unsent").iterdir()) == []


def test_a_ruined_database_is_told(store: Path) -> None:
    (store / "mlflow.db").write_bytes(b"no database" * 1000)
    with pytest.raises(Problem, match="not a database"):
        one_run()


def test_a_store_that_dies_midway_does_not_end_the_training(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with tracking.run(experiment="gender", name="bert", stage="train", settings={}, data={}) as run:
        shutil.copyfile(store / "mlflow.db", store / "kept.db")
        with sqlite3.connect(store / "mlflow.db") as database:
            database.execute("DROP TABLE metrics")
        run.log(1, {"loss": 0.5})
        trained = True
    assert trained
    told = capsys.readouterr().err
    assert "`undertone sync` sends it" in told
    assert len(told.splitlines()) == 1
    shutil.copyfile(store / "kept.db", store / "mlflow.db")
    assert runs()["bert"].info.status == "RUNNING"
    assert tracking.send_unsent(tracking.client()) == (["bert"], [])
    assert (runs()["bert"].info.status, runs()["bert"].data.metrics) == ("FINISHED", {"loss": 0.5})
    assert runs()["bert"].info.run_id == run.id


def test_points_that_a_store_did_not_take_are_offered_again(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "_EVERY", 0.0)
    monkeypatch.setattr(tracking, "_PAUSE", 0.0)
    with tracking.run(experiment="gender", name="bert", stage="train", settings={}, data={}) as run:
        with sqlite3.connect(store / "mlflow.db") as database:
            database.execute("ALTER TABLE metrics RENAME TO away")
        run.log(1, {"loss": 0.5})
        with sqlite3.connect(store / "mlflow.db") as database:
            database.execute("ALTER TABLE away RENAME TO metrics")
        run.log(2, {"loss": 0.25})
    history = tracking.client().get_metric_history(run.id, "loss")
    assert [(one.step, one.value) for one in history] == [(1, 0.5), (2, 0.25)]
    assert runs()["bert"].info.status == "FINISHED"


@pytest.mark.usefixtures("store")
def test_a_point_that_is_sent_twice_is_there_once() -> None:
    run = one_run()
    record = tracking.recorded(tracking.client(), runs()["bert"])
    points = tuple(Point("loss", value, 1000 + step, step) for step, value in enumerate([0.1, 0.2, 0.2]))
    for _ in range(3):
        tracking.send(tracking.client(), replace(record, points=points))
    history = tracking.client().get_metric_history(run.id, "loss")
    assert [(one.step, one.value) for one in history] == [(0, 0.1), (1, 0.2), (2, 0.2)]
    assert len(runs()) == 1


def test_a_run_that_was_killed_loses_no_point(store: Path) -> None:
    child, started = start(store, "killed", 300)
    assert started.wait(60)
    child.kill()
    child.join()
    assert runs()["killed"].data.metrics == {}
    assert tracking.send_unsent(tracking.client()) == (["killed"], [])
    assert (runs()["killed"].info.status, runs()["killed"].data.metrics) == ("KILLED", {"loss": 0.5})


def test_a_run_under_way_is_left_to_itself(store: Path) -> None:
    child, started = start(store, "live", 300)
    try:
        assert started.wait(60)
        assert tracking.send_unsent(tracking.client()) == ([], [])
        assert tracking.unsent() == {}
        assert len(list((store / "unsent").iterdir())) == 1
    finally:
        child.kill()


def test_a_run_that_a_store_refuses_fails_and_leaves_no_journal(store: Path) -> None:
    with pytest.raises(Problem):
        one_run(data={"comments": "0" * 600})  # MLflow takes a digest of 36 characters
    assert runs()["bert"].info.status == "FAILED"
    assert list((store / "unsent").iterdir()) == []


def test_a_long_setting_becomes_its_digest() -> None:
    found = tracking.flat({"prompt": "word " * 60, "labels": ["a", "b"], "on": True})
    assert found["prompt"].startswith("md5:")
    assert (found["labels"], found["on"]) == ('["a", "b"]', "true")


def test_digests_are_those_that_dvc_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder" / "below").mkdir(parents=True)
    (tmp_path / "table.csv").write_bytes("id,text\r\n1,评论\n".encode())
    (tmp_path / "folder" / "b.txt").write_text("b")
    (tmp_path / "folder" / "a b.txt").write_text("a")
    (tmp_path / "folder" / "below" / "é.txt").write_text("c")
    dvc = str(Path(sys.executable).with_name("dvc"))
    subprocess.run([dvc, "init", "--quiet", "--no-scm"], check=True)
    subprocess.run([dvc, "add", "--quiet", "--no-commit", "table.csv", "folder"], check=True)
    for name in ("table.csv", "folder"):
        assert f"md5: {md5(tmp_path / name)}\n" in (tmp_path / f"{name}.dvc").read_text()


def run_on_a_full_disk() -> None:
    with tracking.run(experiment="gender", name="bert", stage="train", settings={}, data={}) as run:
        device = os.open("/dev/full", os.O_WRONLY)
        os.dup2(device, run._journal._file)
        os.close(device)
        run.log(1, {"loss": 0.5})
        raise ZeroDivisionError


def test_a_full_disk_neither_leaves_a_run_running_nor_hides_what_went_wrong(store: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        run_on_a_full_disk()
    found = runs()["bert"]
    assert (found.info.status, found.data.metrics["loss"]) == ("FAILED", 0.5)
    assert list((store / "unsent").iterdir()) == []


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[BaseHTTPRequestHandler]]:
    """A server that takes no file, for the reason `status`."""

    class Refusing(BaseHTTPRequestHandler):
        status = 413

        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(self.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_port}")
        yield Refusing
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (401, "wrong name or password. Check"),
        (403, "permission denied. Ask"),
        (413, "takes no file of this size. Who"),
        (507, "has no room left. Ask"),
    ],
)
def test_a_server_that_takes_no_file_is_one_line(
    tmp_path: Path, refusing: Any, status: int, told: str
) -> None:
    refusing.status = status
    (tmp_path / "model").write_text("x")
    place = MlflowArtifactsRepository("mlflow-artifacts:/1/2", tracking_uri=tracking.uri())
    for send, what in ((place.log_artifact, tmp_path / "model"), (place.log_artifacts, tmp_path)):
        with pytest.raises(Problem, match=told) as problem, tracking.told():
            send(str(what))
        assert len(str(problem.value).splitlines()) == 1


@pytest.mark.parametrize(
    "login", ["u:SECRET", "u:SEC/RET", "u:SEC@RET", "SEC@RET", "u:SEC%RET", "u:SEC#RET", "u:[SEC?RET"]
)
@pytest.mark.parametrize("kind", ["postgresql", "https"])
def test_no_part_of_a_password_is_ever_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str, login: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{kind}://{login}@127.0.0.1:1/db?password=RET")
    with pytest.raises(tracking.Unreachable) as problem:
        tracking._reach()
    everything = str(problem.value) + capsys.readouterr().err
    assert "SEC" not in everything
    assert "RET" not in everything
    assert without_password(f"at {kind}://{login}@host/db.") == f"at {kind}://host/db."
