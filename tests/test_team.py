"""The team's server without a server: settings, secrets, and what would be started."""

import configparser
import os
import resource
from pathlib import Path

import pytest

from undertone import cli
from undertone.errors import Problem
from undertone.records import team

ADDRESS = "postgresql://undertone:p%40ss%25word@127.0.0.1/undertone"


def settings(home: Path, *lines: str, mode: int = 0o600) -> Path:
    home.mkdir(parents=True, exist_ok=True)
    file = home / "settings"
    file.write_text("\n".join(lines) + "\n")
    file.chmod(mode)
    return home


def test_settings_are_read_and_the_environment_wins(tmp_path: Path) -> None:
    settings(
        tmp_path,
        "# a comment",
        "",
        f"UNDERTONE_DATABASE={ADDRESS}",
        "UNDERTONE_HOSTS = mlflow.example.org, runs.example.org:8443",
    )
    found, _ = team.read_settings(tmp_path, {"UNDERTONE_ARTIFACTS": "s3://models/undertone"})
    assert found.database == ADDRESS
    assert found.hosts == ("mlflow.example.org", "runs.example.org:8443")
    assert found.artifacts == "s3://models/undertone"
    assert team.read_settings(tmp_path, {"UNDERTONE_HOSTS": "a"})[0].hosts == ("a",)
    assert "p%40ss" not in repr(found)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("", "names no database"),
        ("UNDERTONE_DATABASE=sqlite:///mlflow.db", "no PostgreSQL address"),
        ("DATABASE=postgresql://127.0.0.1/undertone", "no setting"),
        ("postgresql://127.0.0.1/undertone", "no setting"),
        ("UNDERTONE_DATABASE=postgres://[p%40ss", "no PostgreSQL address"),
        (f"UNDERTONE_DATABASE={ADDRESS}\nUNDERTONE_HOSTS=*", "more than names"),
        (f"UNDERTONE_DATABASE={ADDRESS}\nUNDERTONE_HOSTS=https://mlflow.example.org", "more than names"),
    ],
)
def test_what_is_missing_or_wrong_is_said_in_one_line(tmp_path: Path, line: str, told: str) -> None:
    settings(tmp_path, line)
    with pytest.raises(Problem, match=told) as problem:
        team.read_settings(tmp_path, {})
    assert len(str(problem.value).splitlines()) == 1
    assert "p%40ss" not in str(problem.value)


def test_settings_that_others_can_read_are_refused(tmp_path: Path) -> None:
    settings(tmp_path, f"UNDERTONE_DATABASE={ADDRESS}", mode=0o640)
    with pytest.raises(Problem, match="chmod 600"):
        team.read_settings(tmp_path, {})


def prepared(home: Path, *lines: str, port: int = 5000) -> dict[str, str]:
    settings(home, f"UNDERTONE_DATABASE={ADDRESS}", *lines)
    return team.prepare(home, *team.read_settings(home, {}), port=port)


def test_secrets_are_made_once_and_for_nobody_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = prepared(tmp_path)
    assert str(tmp_path / "login") in capsys.readouterr().err
    again = prepared(tmp_path)
    other = prepared(tmp_path / "other")
    for name in ("MLFLOW_FLASK_SERVER_SECRET_KEY", "MLFLOW_AUTH_ADMIN_PASSWORD"):
        assert first[name] == again[name] != other[name]
        assert len(first[name]) >= 24
    files = [path for path in tmp_path.iterdir() if path.is_file()]
    assert {path.name for path in files} == {"settings", "login", "auth.ini", "secret_key"}
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}


def test_mlflow_reads_the_rights_and_the_database_that_were_meant(tmp_path: Path) -> None:
    environment = prepared(tmp_path)
    config = configparser.ConfigParser()  # as MLflow reads it: with interpolation
    config.read(environment["MLFLOW_AUTH_CONFIG_PATH"])
    assert config["mlflow"]["default_permission"] == "NO_PERMISSIONS"
    expected = ADDRESS.replace("postgresql:", "postgresql+psycopg2:")
    assert config["mlflow"]["database_uri"] == environment["MLFLOW_BACKEND_STORE_URI"] == expected
    assert "admin_password" not in config["mlflow"]


def test_only_named_hosts_and_this_machine_are_let_in(tmp_path: Path) -> None:
    environment = prepared(tmp_path, "UNDERTONE_HOSTS=mlflow.example.org", port=5001)
    assert environment["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",") == [
        *("mlflow.example.org", "127.0.0.1:5001", "localhost:5001", "[::1]:5001")
    ]
    assert environment["MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"] == "https://mlflow.example.org"
    alone = prepared(tmp_path / "other")
    assert "*" not in alone["MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"]


def test_what_would_open_the_server_is_not_inherited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening = {
        "MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE": "true",
        "MLFLOW_BASIC_AUTH_FAIL_CLOSED": "false",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "true",
        "MLFLOW_SERVER_ENABLE_CUSTOM_SCORERS": "true",
        "MLFLOW_ENABLE_WORKSPACES": "true",
        "MLFLOW_TRACKING_URI": "http://elsewhere",
        "_MLFLOW_AUTH_ADMIN_BOOTSTRAPPED": "true",
    }
    for name, value in opening.items():
        monkeypatch.setenv(name, value)
    environment = prepared(tmp_path)
    assert {name for name, value in opening.items() if environment.get(name) == value} == set()
    assert environment["MLFLOW_BASIC_AUTH_FAIL_CLOSED"] == "true"
    assert environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert environment["PATH"] == os.environ["PATH"]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.2", "mlflow.example.org", ""])
def test_another_side_than_this_machines_has_to_be_asked_for(tmp_path: Path, host: str) -> None:
    with pytest.raises(Problem, match="--exposed"):
        team.serve(tmp_path, host=host)


def test_a_database_that_is_not_there_is_one_line_without_its_password(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings(tmp_path, "UNDERTONE_DATABASE=postgresql://undertone:letmein@127.0.0.1:1/undertone")
    assert cli.main(["team-server", "--home", str(tmp_path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "can't be opened" in line
    assert "letmein" not in line


def test_a_login_is_found_where_mlflow_finds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".mlflow").mkdir()
    (tmp_path / ".mlflow/credentials").write_text(
        "[mlflow]\nmlflow_tracking_username = bert\nmlflow_tracking_password = per%cent\n"
    )
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example.org/")
    found = team.Server.found(tmp_path)
    assert (found.address, found.username) == ("https://mlflow.example.org", "bert")
    assert found.password == "per%cent"
    assert "per%cent" not in repr(found)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "anna")
    assert team.Server.found(tmp_path).username == "anna"


def test_on_the_servers_machine_the_administrator_is_found(tmp_path: Path) -> None:
    prepared(tmp_path, port=5002)
    found = team.Server.found(tmp_path)
    assert (found.address, found.username) == ("http://127.0.0.1:5002", "admin")


def test_no_password_goes_out_in_the_clear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example.org")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(Problem, match="no login"):  # not this machine's administrator's
        team.Server.found(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "anna")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "a password")
    with pytest.raises(Problem, match="in the clear"):
        team.Server.found(tmp_path)


def test_a_server_that_does_not_answer_is_one_line() -> None:
    with pytest.raises(Problem, match="does not answer") as told:
        team.grants(team.Server("http://127.0.0.1:1", "anna", "a password"))
    assert "a password" not in str(told.value)


def test_without_a_server_the_remedy_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["grants"]) == 1
    assert "MLFLOW_TRACKING_URI" in capsys.readouterr().err


@pytest.mark.parametrize("password", ["SEC/RET", "SEC@RET", "SEC%RET", "SEC#RET", "[SEC", "SEC%00RET"])
def test_a_password_that_an_address_can_not_hold_is_told_without_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], password: str
) -> None:
    settings(tmp_path, f"UNDERTONE_DATABASE=postgresql://undertone:{password}@127.0.0.1:1/undertone")
    assert cli.main(["team-server", "--home", str(tmp_path)]) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert "postgresql://127.0.0.1:1/undertone: " in line
    assert "SEC" not in line
    assert "RET" not in line


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("https://admin:SECRET@mlflow.example.org", "https://mlflow.example.org: holds a login"),
        ("https://admin:SEC/RET@mlflow.example.org", "https://mlflow.example.org: holds a login"),
        ("https://[::1/x", "is no address"),
    ],
)
def test_a_login_within_the_address_is_refused_and_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, told: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "anna")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "another")
    with pytest.raises(Problem, match=told.replace("[", "")) as problem:
        team.Server.found(tmp_path)
    assert "SEC" not in str(problem.value)


def test_a_start_that_finds_no_room_keeps_the_administrators_password(tmp_path: Path) -> None:
    first = prepared(tmp_path)
    kept = (tmp_path / "login").stat().st_ino
    assert prepared(tmp_path) == first
    assert (tmp_path / "login").stat().st_ino == kept  # not written again
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, usual[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            team._kept_login(tmp_path, None, port=5002)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    again = prepared(tmp_path, port=5002)
    assert again["MLFLOW_AUTH_ADMIN_PASSWORD"] == first["MLFLOW_AUTH_ADMIN_PASSWORD"]
    assert team.Server.found(tmp_path).address == "http://127.0.0.1:5002"
