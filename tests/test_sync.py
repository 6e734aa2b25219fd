import json
import shutil
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from tests.registered import CANARY, FIRST, RELEASE, SECOND, register, train, trained
from tests.test_termination import Server, server  # noqa: F401
from undertone.cli import main
from undertone.errors import Problem
from undertone.files import md5
from undertone.records import journal, lineage, registry, runs, tracking
from undertone.records.runs import LEDGER
from undertone.records.sync import sync


def synced() -> list[str]:
    """What was done; nothing may be in the way."""
    done, trouble = sync()
    assert trouble == []
    return done


@pytest.fixture
def clone(repository: Path, template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What another person has after `git clone` and `dvc pull`: all but MLflow's store."""
    folder = tmp_path / "clone"
    shutil.copytree(repository, folder, ignore=shutil.ignore_patterns("mlflow.db*", "mlartifacts"))
    shutil.copyfile(template, folder / "mlflow.db")
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    return folder


def store_of() -> tuple[dict[str, object], dict[str, object]]:
    """All of the working folder's store that the ledger promises to keep: runs and versions."""
    store = tracking.client()
    found = registry.mirrored(store, runs.Ledger())
    return (
        {
            own: (one.name, one.status, one.start, one.end, one.params, dict(one.data), set(one.points))
            for own, one in found.runs.items()
        },
        {
            key: (one.model, one.number, one.aliases, one.run, runs.kept(one.tags))
            for key, one in found.versions.items()
        },
    )


def test_registering_writes_a_ledger_that_holds_the_store(repository: Path) -> None:
    ledger = runs.read(LEDGER)
    assert {one.name for one in ledger.runs.values()} == {"first", "second"}
    assert [one.number for one in ledger.versions.values()] == [1, 2, 3]
    content = LEDGER.read_bytes()
    register()
    assert LEDGER.read_bytes() == content
    assert CANARY.encode() not in content
    assert str(repository).encode() not in content
    assert socket.gethostname() not in json.loads(content.split(b"\n")[0])["tags"].values()


@pytest.mark.usefixtures("clone")
def test_a_fresh_clone_builds_the_store_anew(repository: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(repository)
        told, versions = store_of()
        before = lineage.lineage("gender@first")
    content = LEDGER.read_bytes()
    done = synced()
    assert done[0] == "2 runs of reports/runs.jsonl made in MLflow"
    assert "gender/1 registered: candidate first of gender" in done
    assert "gender@champion is version 1" in done
    assert store_of() == (told, versions)
    assert LEDGER.read_bytes() == content
    after = lineage.lineage("gender@first")
    assert {key for key in before if before[key] != after[key]} == {"run"}
    assert synced() == [
        "nothing to do: MLflow and reports/runs.jsonl hold the same 2 runs and 3 versions"
    ]
    assert LEDGER.read_bytes() == content


@pytest.mark.usefixtures("clone")
def test_what_dvc_lock_holds_and_is_not_here_is_told_how_to_fetch() -> None:
    shutil.rmtree(SECOND)
    Path("dvc.lock").write_text(f"md5: {runs_of('second')}\n")
    done, trouble = sync()
    assert "gender/1 registered: candidate first of gender" in done
    assert trouble == [
        f"1 version not registered, as the models are not here. `dvc pull {SECOND}`,"
        " then `undertone sync`"
    ]
    with pytest.raises(Problem, match="no alias 'second'"):
        registry.find("gender@second")


@pytest.mark.usefixtures("clone")
def test_older_versions_whose_models_are_not_here_are_one_line_and_no_failure(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.rmtree(SECOND)
    (RELEASE / "labels.json").write_text("{}")
    counted = "2 older versions not registered here, without the models: `undertone sync --missing`"
    assert main(["sync"]) == 0
    assert counted in capsys.readouterr().out
    assert main(["sync"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == "nothing to do: MLflow and reports/runs.jsonl hold the same 2 runs and 1 version"
    assert second.startswith(counted)
    assert main(["sync", "--missing"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "candidate second of gender: its model is not here. No commit's dvc.lock holds it.",
        "release first of gender: its model is not here. No commit's dvc.lock holds it.",
    ]


@pytest.mark.usefixtures("clone")
def test_a_training_that_made_the_same_again_is_no_news_to_the_ledger() -> None:
    content = LEDGER.read_bytes()
    shutil.rmtree(SECOND)
    trained(SECOND, c=2.0)
    assert "gender/2 registered: candidate second of gender" in synced()
    assert LEDGER.read_bytes() == content
    assert sorted(one.info.run_name for one in tracking.ours(tracking.client()).values()) == [
        *("first", "second", "second")
    ]
    assert synced()[0].startswith("nothing to do")
    shutil.rmtree(SECOND)
    trained(SECOND, c=3.0)
    assert synced() == ["reports/runs.jsonl: 1 run and 0 versions more"]


def runs_of(name: str) -> str:
    """The digest of the model that a run of the ledger made."""
    (found,) = [one for one in runs.read(LEDGER).runs.values() if one.name == name]
    return found.tags["model.md5"]


@pytest.mark.usefixtures("clone")
def test_registering_in_a_clone_finds_the_run_in_the_ledger() -> None:
    run = runs_of("first")
    register()
    found = registry.find("gender@first")
    assert (found.run_name, found.run_tags["model.md5"]) == ("first", run)
    assert found.tags["seed"] == "13"
    synced()
    assert sorted(one.name for one in runs.read(LEDGER).runs.values()) == ["first", "second"]


@pytest.mark.usefixtures("clone")
def test_a_killed_sync_is_finished_by_the_next() -> None:
    store = tracking.client()
    record = next(iter(runs.read(LEDGER).runs.values()))
    tracking._make(store, record)  # and killed
    synced()
    assert len(tracking.ours(store)) == 2
    assert {one.info.status for one in tracking.ours(store).values()} == {"FINISHED"}


@pytest.mark.usefixtures("repository")
def test_a_deleted_run_stays_deleted() -> None:
    store = tracking.client()
    run = next(iter(tracking.ours(store).values())).info.run_id
    store.delete_run(run)
    synced()
    assert store.get_run(run).info.lifecycle_stage == "deleted"
    assert len(tracking.ours(store)) == 2


@pytest.mark.usefixtures("repository")
def test_what_hands_logged_stays_out_of_the_ledger() -> None:
    store = tracking.client()
    run = store.create_run("1", run_name=CANARY)
    store.log_param(run.info.run_id, "prompt", CANARY)
    store.set_terminated(run.info.run_id)
    assert synced()[0].startswith("nothing to do")
    assert CANARY.encode() not in LEDGER.read_bytes()


@pytest.fixture
def nobody(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The repository, whose server is dead."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    return repository


@pytest.mark.usefixtures("nobody")
def test_where_no_server_answers_the_ledger_keeps_what_is_to_be_registered(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(SECOND)
    trained(SECOND, c=3.0)
    registered = register(selection={"champion": "second"})
    assert "`undertone sync` registers what is here" in capsys.readouterr().err
    assert (
        registry.told(registered) == "gender: first not yet, second not yet (champion); release not yet"
    )
    assert {key: registered[key] for key in ("model", "champion", "released")} == {
        "model": "gender",
        "champion": "second",
        "released": True,
    }
    content = LEDGER.read_bytes()
    register(selection={"champion": "second"})
    assert LEDGER.read_bytes() == content
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    done = synced()
    assert done[0] == "sent what was recorded of second"
    assert "gender/4 registered: candidate second of gender" in done
    found = registry.find("gender/4")
    assert (found.run_name, found.tags["model.md5"]) == ("second", md5(SECOND))
    assert "gender@champion is version 4" in done
    assert registry.find("gender@champion").number == 4
    assert registry.find("gender@first").aliases == ("first",)
    assert synced()[0].startswith("nothing to do")


@pytest.mark.usefixtures("nobody")
def test_an_older_version_that_became_champion_while_no_server_answered_is_it_after_sync(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    register(selection={"champion": "second"})
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert synced() == ["gender@champion is version 2", "reports/runs.jsonl brought up to date"]
    assert synced()[0].startswith("nothing to do")
    register(selection={"champion": "first"})
    assert synced()[0].startswith("nothing to do")
    assert registry.find("gender@champion").number == 1


@pytest.mark.usefixtures("nobody")
def test_where_no_server_answers_registering_refuses_if_told_to() -> None:
    text = (Path(__file__).parents[1] / "params.yaml").read_text("utf-8")
    Path("params.yaml").write_text(text.replace("unreachable: record", "unreachable: refuse"))
    with pytest.raises(Problem, match="Check MLFLOW_TRACKING_URI"):
        register()


@pytest.mark.usefixtures("nobody")
def test_sync_says_in_one_line_that_no_server_answers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sync"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("undertone: MLflow at http://127.0.0.1:9: can't be reached. Check")
    assert len(told.splitlines()) == 1


def test_relocate_says_what_it_did(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    moved = repository.rename(repository.with_name("moved"))
    monkeypatch.chdir(moved)
    assert main(["relocate"]) == 0
    told = capsys.readouterr().out
    assert told.endswith(" paths in mlflow.db now lead to the artifacts in this folder\n")
    assert int(told.split()[0]) >= 1 + 2 + 3 + 3  # experiment, runs, logged models, versions
    assert registry.copy_of("gender@champion") is not None
    assert synced()[0].startswith("nothing to do")
    assert main(["relocate"]) == 0
    assert capsys.readouterr().out.endswith("every path in mlflow.db leads to this folder already\n")


@pytest.mark.services
def test_a_server_gets_a_ledgers_runs_and_models(
    clone: Path,
    server: Server,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    done = synced()
    assert done[0] == "2 runs of reports/runs.jsonl made in MLflow"
    assert synced()[0].startswith("nothing to do")
    assert registry.find("gender@champion").tags["model.md5"] == md5(FIRST)
    scores = registry.judge(registry.find("gender@champion")).scores(["good day"])
    assert scores.shape == (1, 2)
    shutil.rmtree(SECOND)
    train(SECOND, c=4.0)
    register()
    assert registry.find("gender@second").number == 4
    assert journal.left(clone) == []


@pytest.mark.usefixtures("repository")
def test_what_another_writes_into_the_ledger_meanwhile_is_kept() -> None:
    with ThreadPoolExecutor() as pool:
        with runs.opened(LEDGER) as ledger:
            waiting = pool.submit(synced)
            with pytest.raises(TimeoutError):
                waiting.result(timeout=1)
            other = replace(next(iter(ledger.runs.values())), id="f" * 32, name="third")
            runs.write(LEDGER, ledger.joined(runs.Ledger({other.id: other})))
        assert waiting.result(timeout=60) == ["1 run of reports/runs.jsonl made in MLflow"]
    assert {one.name for one in runs.read(LEDGER).runs.values()} == {"first", "second", "third"}


@pytest.mark.usefixtures("repository")
def test_a_journal_that_can_not_be_read_is_told_and_stops_nobody(repository: Path) -> None:
    folder = repository / journal.FOLDER
    folder.mkdir(exist_ok=True)
    (folder / "torn.jsonl").write_text('{"id": "a", "na\n[1, 2, {"loss": 0.5}]\n')
    _, trouble = sync()
    assert trouble == [f"{folder}/torn.jsonl: says of no run what it is. Remove it."]
