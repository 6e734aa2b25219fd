"""The doctor: each thing that is wrong is one line that says what to do. No server; see test_sharing."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import requests
import yaml

from tests import mlflow_server
from tests.people import ROOT
from undertone.privacy import access
from undertone.records import team

CONFIG = "[core]\n    remote = private\n['remote \"private\"']\n    url = {url}\n    verify = {verify}\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository whose remote is a directory, and a home without keys."""
    repository = tmp_path / "repository"
    (repository / ".dvc").mkdir(parents=True)
    (tmp_path / "srv").mkdir()
    (repository / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    subprocess.run(["git", "init", "-q"], cwd=repository, check=True)
    configure(repository, str(tmp_path / "srv"))
    monkeypatch.chdir(repository)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    (tmp_path / "home/.ssh").mkdir(parents=True)
    return repository


def configure(repository: Path, url: str, verify: str = "true", more: str = "") -> None:
    (repository / ".dvc/config").write_text(CONFIG.format(url=url, verify=verify) + more)


def failures(name: str | None = None) -> dict[str, str]:
    checks = list(access.examine(name))
    assert len(checks) >= 2
    return {check.name: str(check) for check in checks if not check.ok}


def test_where_all_is_well_nothing_fails(folder: Path) -> None:
    assert failures() == {}
    assert sorted(path.name for path in folder.iterdir()) == [".dvc", ".git", "params.yaml"]


def test_a_remote_that_is_not_there_is_told_with_those_that_are(folder: Path) -> None:
    assert "there are: private" in failures("shared")["remote"]
    (folder / ".dvc/config").write_text("")
    assert "Ask the owner of this repository for its address" in failures()["remote"]


def test_the_placeholder_of_a_fresh_clone_is_told_as_that(folder: Path) -> None:
    (folder / ".dvc/config").write_text((ROOT / ".dvc/config").read_text())
    assert failures() == {
        "server": "fails  server: data.example.org is a placeholder, and nobody's → the owner of this"
        " repository sets the real one by `dvc remote modify private url URL`, and commits .dvc/config."
    }


def test_a_remote_that_does_not_verify_fails(folder: Path) -> None:
    configure(folder, str(folder.with_name("srv")), verify="false")
    assert failures()["verify"].endswith(
        "→ dvc remote modify private verify true, and commit .dvc/config"
    )


def test_a_password_in_the_committed_config_fails_and_is_not_shown(folder: Path) -> None:
    configure(folder, "s3://bucket/data", more="    secret_access_key = hush-hush\n")
    assert "which git tracks, holds secret_access_key" in failures()["secrets"]
    assert "hush" not in "".join(map(str, access.examine()))


@pytest.mark.parametrize(
    ("url", "more"),
    [
        ("azure://x/y", "connection_string = hush-hush"),
        ("azure://x/y", "sas_token = hush-hush"),
        ("https://me:hush-hush@127.0.0.1:1/srv", ""),
        ("https://me:hush/hush@127.0.0.1:1/srv", ""),
    ],
)
def test_what_the_guard_refuses_in_the_config_the_doctor_tells(
    url: str, more: str, folder: Path
) -> None:
    configure(folder, url, more=f"    {more}\n")
    assert "which git tracks, holds " in failures()["secrets"]
    assert "hush" not in "".join(map(str, access.examine()))


@pytest.mark.parametrize(
    ("url", "local", "ssh", "name"),
    [
        ("ssh://127.0.0.1:1/srv", b"[core\n", "", "remote settings"),
        ("ssh://127.0.0.1:1/srv", b"[core]\n    remote = \xff\n", "", "remote settings"),
        ("ssh://127.0.0.1:1/srv", b"['remote \"other\"']\n    user = me\n", "", "remote settings"),
        ("ssh://127.0.0.1:22x/srv", b"", "", "remote settings"),
        ("ssh://me:2hush/hush@127.0.0.1:1/srv", b"", "", "remote settings"),
        ("gs://bucket/data", b"", "", "remote settings"),
        ("https://[::1/x", b"", "", "remote settings"),
        ("ssh://127.0.0.1:1/srv", b"", "Host 127.0.0.1\n  Port 22x\n", "ssh settings"),
    ],
)
def test_settings_that_cannot_be_read_are_one_line(
    url: str, local: bytes, ssh: str, name: str, folder: Path
) -> None:
    configure(folder, url)
    (folder / ".dvc/config.local").write_bytes(local)
    (folder / ".dvc/config.local").chmod(0o600)
    (folder.with_name("home") / ".ssh/config").write_text(ssh)
    told = failures()[name]
    assert " → " in told
    assert "hush" not in told
    assert "\n" not in told


def test_an_error_with_an_answer_that_is_not_of_s3_is_told_by_its_name() -> None:
    error = requests.HTTPError("no", response=requests.Response())
    assert access._code(error) == "HTTPError"
    error.response = None
    assert access._code(error) == "HTTPError"


def test_it_is_the_same_from_a_folder_below(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(folder, str(folder.with_name("srv")), verify="false")
    (folder / ".dvc/config.local").touch(0o644)
    (folder / "below").mkdir()
    monkeypatch.chdir(folder / "below")
    assert set(failures()) == {"verify", "secrets"}


def test_secrets_in_config_local_are_for_their_owner_alone(folder: Path) -> None:
    local = folder / ".dvc/config.local"
    local.write_text("")
    local.chmod(0o644)
    assert failures()["secrets"].endswith("→ chmod 600 .dvc/config.local")
    local.chmod(0o600)
    assert failures() == {}


def test_a_server_that_does_not_answer_is_one_line(folder: Path) -> None:
    configure(folder, "ssh://127.0.0.1:1/srv")
    assert "127.0.0.1:1 doesn't answer" in failures()["server"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_may_be_read_only(folder: Path) -> None:
    folder.with_name("srv").chmod(0o555)
    assert any("you may only read" in str(check) for check in access.examine())
    folder.with_name("srv").chmod(0o755)


def test_objects_of_a_directory_that_dvc_would_delete_are_counted(folder: Path) -> None:
    store = folder.with_name("srv") / "files/md5/ab"
    store.mkdir(parents=True)
    for number, mode in enumerate((0o444, 0o644, 0o664)):
        path = store / f"{number:030}"
        path.write_text("x")
        path.chmod(mode)
    (store / ".half.tmp").write_text("x")
    assert "2 objects are not read-only" in failures()["objects' mode"]


def test_a_directory_that_is_not_mounted_fails(folder: Path) -> None:
    configure(folder, str(folder.with_name("elsewhere")))
    assert failures()["read"].endswith("→ Mount it, or correct `url` in .dvc/config.local.")


def test_keys_that_others_may_read_are_absent_or_are_none_fail(folder: Path) -> None:
    key = folder.with_name("home") / "key"

    def told(*keys: Path) -> dict[str, str]:
        checks = access._keys(list(keys), False, "private", "Ann")
        return {check.name: str(check) for check in checks if not check.ok}

    assert "send its .pub to Ann" in told()["key"]
    assert "no such file" in told(key)["key"]
    key.write_text("x")
    key.chmod(0o644)
    assert told(key)["key's permissions"].endswith(f"→ chmod 600 {key}")
    key.chmod(0o600)
    assert told(key) == {}


@pytest.mark.parametrize(
    ("proxy", "fine"),
    [
        ("ssh -o ProxyCommand=none -W localhost:%p data.example.org", True),
        ("/usr/bin/ssh -F config -W localhost:22 data.example.org", True),
        (None, False),
        ("nc %h %p", False),
        ("ssh -o StrictHostKeyChecking=no -W localhost:%p data.example.org", False),
        ("ssh -oStrictHostKeyChecking=off -W localhost:%p data.example.org", False),
    ],
)
def test_only_an_ssh_that_checks_counts_as_checking_the_host_key(proxy: str | None, fine: bool) -> None:
    check = access._host_key_checked("data.example.org", proxy, Path("config"))
    assert check.ok == fine
    assert fine or "ProxyCommand ssh -o ProxyCommand=none" in check.remedy


def test_a_dead_mlflow_server_is_one_line_and_its_password_is_not_shown(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert folder.is_dir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:hush-hush@127.0.0.1:1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    found = failures()
    assert "127.0.0.1:1 doesn't answer" in found["MLflow"]
    assert "hush" not in "".join(found.values())


@pytest.mark.services
def test_who_is_unknown_to_the_server_has_no_right_or_may_read_is_told_apart(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert folder.is_dir()
    with (
        mlflow_server.postgresql() as database,
        mlflow_server.server(database, tmp_path / "server") as running,
    ):
        admin = running.admin
        passwords = {user: team.create(admin, user) for user in ("reader", "guest")}
        team.grant(admin, "reader", "gender", "read")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", running.address)

        def told(user: str, password: str) -> dict[str, str]:
            monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", user)
            monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
            return failures()

        assert told("reader", passwords["reader"]) == {}
        guest = told("guest", passwords["guest"])
        assert {"MLflow experiment", "MLflow registry"} == set(guest)
        assert all(
            "you have no right to 'gender' (403) → Ask the owner" in one for one in guest.values()
        )
        stranger = told("reader", "guessed-in-vain")
        assert set(stranger) == {"MLflow"}
        assert "doesn't know you (401) → Set MLFLOW_TRACKING_USERNAME" in stranger["MLflow"]


def test_a_failure_is_exit_code_1(folder: Path) -> None:
    command = [sys.executable, "-m", "undertone.cli", "access"]
    run: Callable[[], subprocess.CompletedProcess[str]] = lambda: subprocess.run(  # noqa: E731
        command, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert run().returncode == 0
    configure(folder, str(folder.with_name("srv")), verify="false")
    done = run()
    assert done.returncode == 1
    assert done.stderr == ""
    assert all(line.startswith(("ok     ", "fails  ")) for line in done.stdout.splitlines())


def test_the_committed_remote_verifies_and_is_the_private_one() -> None:
    written = (ROOT / ".dvc/config").read_text()
    assert "verify = true" in written
    assert "remote = private" in written
    assert yaml.safe_load((ROOT / "params.yaml").read_text("utf-8"))["data"]["contact"]
