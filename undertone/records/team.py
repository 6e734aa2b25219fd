"""A team's MLflow server: how it is started, and who may see what on it.

`serve` starts MLflow's own server on PostgreSQL with an account for everybody and no rights by
default. All it needs lies in one folder that git ignores: `settings`, which a person writes, and what
the first start makes there. `grant` and `revoke` speak to the running server, from anywhere.
"""

import base64
import configparser
import ipaddress
import json
import os
import secrets
import socket
import ssl
import stat
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any, Literal, NoReturn
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode, urlsplit
from urllib.request import Request, urlopen

from undertone.errors import REFUSALS, Problem, misread, without_password
from undertone.files import whole

HOME = Path(".server")
PORT = 5000
Level = Literal["read", "edit", "manage"]
_DATABASE, _HOSTS, _ARTIFACTS = "UNDERTONE_DATABASE", "UNDERTONE_HOSTS", "UNDERTONE_ARTIFACTS"
_ADMIN = "MLFLOW_AUTH_ADMIN_PASSWORD"
_SECRET = "MLFLOW_FLASK_SERVER_SECRET_KEY"
_KNOWN = (_DATABASE, _HOSTS, _ARTIFACTS, _ADMIN, _SECRET)
_GRANT, _REVOKE = (f"3.0/mlflow/users/permissions/{verb}" for verb in ("grant", "revoke"))
_SERVER = {
    # a server that ran jobs would run what its users send it; off it also needs half the memory
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_BASIC_AUTH_FAIL_CLOSED": "true",
    "MLFLOW_SERVER_X_FRAME_OPTIONS": "DENY",
}

UPGRADE = """
import os
from mlflow.store.db import utils
engine = utils.create_sqlalchemy_engine_with_retry(os.environ["MLFLOW_BACKEND_STORE_URI"])
if not utils._is_empty_database(engine):
    utils._upgrade_db(engine)
"""


@dataclass(frozen=True)
class Settings:
    """`hosts`: the names by which the server is reached through its TLS proxy, none for this machine
    alone; `artifacts`: a folder, or the address of a bucket."""

    database: str = field(repr=False)
    hosts: tuple[str, ...]
    artifacts: str


def read_settings(home: Path, environment: Mapping[str, str]) -> tuple[Settings, dict[str, str]]:
    """`home`/settings (lines of NAME=value), and above it the environment; all values by name, too."""
    file = home / "settings"
    given: dict[str, str] = {}
    if file.is_file():
        _only_ours(file)
        for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
            name, equals, value = line.partition("=")
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            if not equals or name.strip() not in _KNOWN:
                known = ", ".join(_KNOWN)
                raise Problem("no setting", where=f"{file} line {number}", remedy=f"There are {known}.")
            given[name.strip()] = value.strip()
    given |= {name: environment[name] for name in _KNOWN if environment.get(name)}
    database = given.get(_DATABASE, "")
    if not database:
        remedy = (
            f"Write {_DATABASE}=postgresql://USER:PASSWORD@127.0.0.1/NAME there;"
            " see docs/team-server.md."
        )
        raise Problem("names no database", where=str(file), remedy=remedy)
    if not database.startswith("postgresql://"):
        remedy = "Write postgresql://USER:PASSWORD@HOST/NAME: a team writes at the same time."
        raise Problem(f"{_DATABASE} is no PostgreSQL address", where=str(file), remedy=remedy)
    hosts = tuple(one.strip() for one in given.get(_HOSTS, "").split(",") if one.strip())
    if any("*" in one or "/" in one for one in hosts):
        remedy = f"Write the name alone, as in {_HOSTS}=mlflow.example.org."
        raise Problem(f"{_HOSTS} holds more than names", where=str(file), remedy=remedy)
    artifacts = given.get(_ARTIFACTS) or str((home / "artifacts").absolute())
    return Settings(database, hosts, artifacts), given


def serve(
    home: Path,
    *,
    host: str = "127.0.0.1",
    port: int = PORT,
    exposed: bool = False,
    upgrade: bool = False,
) -> NoReturn:
    """Become the server: this process is MLflow's from here on.

    `upgrade` first brings the tables to this MLflow's version; it else refuses to start on older ones.
    """
    _check_host(host, exposed=exposed)
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    settings, given = read_settings(home, os.environ)
    _check_database(settings.database)
    _check_port(host, port)
    os.umask(0o077)  # artifacts are for this server's user alone
    environment = prepare(home, settings, given, port=port)
    os.chdir(home)
    if upgrade:
        subprocess.run([sys.executable, "-c", UPGRADE], env=environment, check=True)
    os.execve(sys.executable, command(host=host, port=port), environment)


def command(*, host: str, port: int) -> list[str]:
    """What runs. No address and no password: every user of the machine can read a command line."""
    server = ["-m", "mlflow", "server", "--app-name", "basic-auth", "--serve-artifacts"]
    # with one process a changed password holds at once, and a team needs no second
    return [sys.executable, *server, "--host", host, "--port", str(port), "--workers", "1"]


def prepare(home: Path, settings: Settings, given: Mapping[str, str], *, port: int) -> dict[str, str]:
    """The server's environment. The first time makes the key and the administrator's password."""
    # what is set for this machine's own runs, or to open a server, is not for this one
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.lstrip("_").startswith(("MLFLOW_", "UNDERTONE_"))
    }
    password = _kept_login(home, given.get(_ADMIN), port=port)
    # SQLAlchemy 2.1 would look for psycopg 3
    database = settings.database.replace("postgresql:", "postgresql+psycopg2:", 1)
    settled = {
        "default_permission": "NO_PERMISSIONS",
        "database_uri": database.replace("%", "%%"),  # MLflow reads it with interpolation
        "admin_username": "admin",
        "authorization_function": "undertone.records.admission:admitted",
        "grant_default_workspace_access": "false",
        # each request asks for the password's hash several times, 0.1 s each
        "auth_cache_ttl_seconds": "60",
    }
    _write(home / "auth.ini", settled)
    hosts = [*settings.hosts, *(f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]"))]
    return {
        **environment,
        **_SERVER,
        # the admission beside this file, not another installation's
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "MLFLOW_AUTH_CONFIG_PATH": str((home / "auth.ini").absolute()),
        _ADMIN: password,
        _SECRET: given.get(_SECRET) or _kept(home / "secret_key"),
        "MLFLOW_BACKEND_STORE_URI": database,
        "MLFLOW_REGISTRY_STORE_URI": database,
        "MLFLOW_ARTIFACTS_DESTINATION": settings.artifacts,
        "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join(hosts),
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": ",".join(f"https://{name}" for name in settings.hosts)
        or f"http://127.0.0.1:{port}",
    }


class Refused(Problem):
    """The server's own sentence; `code` is MLflow's name for the reason."""

    def __init__(self, what: str, *, where: str, code: str) -> None:
        super().__init__(what, where=where)
        self.code = code


@dataclass(frozen=True)
class Server:
    """A running server, and who we are there."""

    address: str
    username: str
    password: str = field(repr=False)

    @classmethod
    def found(cls, home: Path = HOME) -> "Server":
        """$MLFLOW_TRACKING_URI with the login that MLflow itself would take; without that variable
        the server of this machine, as its administrator."""
        address = os.environ.get("MLFLOW_TRACKING_URI", "")
        file = Path("~/.mlflow/credentials").expanduser() if address else home / "login"
        login = _read_login(file)
        address = address or login.get("mlflow_tracking_uri", "")
        if not address.startswith(("http://", "https://")):
            remedy = "Set MLFLOW_TRACKING_URI=https://… to its address; docs/team-server.md starts one."
            raise Problem("no server named", remedy=remedy)
        names = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
        bare = without_password(address)
        if bare != address:
            remedy = f"Set {' and '.join(names)}, and leave them out of the address."
            raise Problem("holds a login", where=bare, remedy=remedy)
        username, password = (os.environ.get(name) or login.get(name.lower(), "") for name in names)
        if not username or not password:
            remedy = f"Set {' and '.join(names)}, or write them into {file}."
            raise Problem("no login", where=address, remedy=remedy)
        try:
            parts = urlsplit(address)
        except ValueError:
            remedy = "Set MLFLOW_TRACKING_URI=https://… to the server's address."
            raise Problem("is no address", where=address, remedy=remedy) from None
        if parts.scheme == "http" and not _loopback(parts.hostname or ""):
            remedy = "Write https://."
            raise Problem("would send the password in the clear", where=address, remedy=remedy)
        return cls(address.rstrip("/"), username, password)

    def ask(self, method: str, path: str, **given: str | int) -> dict[str, Any]:
        """The answer to a call of MLflow's REST API; `Problem` with the server's own sentence."""
        query = f"?{urlencode(given)}" if method == "GET" and given else ""
        token = base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
        request = Request(
            f"{self.address}/api/{path}{query}",
            method=method,
            data=None if method == "GET" else json.dumps(given).encode(),
            headers={"Authorization": f"Basic {token}", "Content-Type": "application/json"},
        )
        trusted = os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH")
        context = ssl.create_default_context(cafile=trusted or None)
        try:
            with urlopen(request, timeout=30, context=context) as answer:
                content: dict[str, Any] = json.loads(answer.read() or b"{}")
                return content
        except HTTPError as error:
            raise _refusal(error, self) from None
        except (URLError, OSError, HTTPException, ValueError) as error:
            reason = getattr(error, "reason", error)
            remedy = "Check that the server runs, and MLFLOW_TRACKING_URI."
            raise Problem(f"does not answer ({reason})", where=self.address, remedy=remedy) from None


def grant(server: Server, user: str, codebook: str, level: Level) -> None:
    """`user` may read, edit or manage both the runs and the models of `codebook`.

    MLflow keeps rights to an experiment and to the registered model of the same name apart; one
    without the other shows a model whose runs can't be seen, or can't be loaded. Both are made where
    there are none, so that the first run needs no right to make them.
    """
    for kind, key in _resources(server, codebook, make=True).items():
        right = {"username": user, "resource_type": kind, "resource_id": key}
        try:
            server.ask("POST", _GRANT, **right, permission=level.upper())
        except Refused as refused:
            if refused.code != "RESOURCE_ALREADY_EXISTS":
                raise
            server.ask("POST", _REVOKE, **right)
            server.ask("POST", _GRANT, **right, permission=level.upper())


def create(server: Server, user: str, password: str | None = None) -> str:
    """An account without any rights, and its password, made up where none is given."""
    password = password or secrets.token_urlsafe(18)
    try:
        server.ask("POST", "2.0/mlflow/users/create", username=user, password=password)
    except Refused as refused:
        if refused.code != "RESOURCE_ALREADY_EXISTS":
            raise
        remedy = "Leave --new out to grant it more."
        raise Problem(f"'{user}' has an account", where=server.address, remedy=remedy) from None
    return password


def change(server: Server, password: str, user: str | None = None) -> None:
    """Another password, our own or as administrator somebody's; the page of this server has no place
    for it, as MLflow shows that for its own admission only."""
    user = user or server.username
    own = {"current_password": server.password} if user == server.username else {}
    given = {"username": user, "password": password, **own}
    server.ask("PATCH", "2.0/mlflow/users/update-password", **given)


def revoke(server: Server, user: str, codebook: str | None = None) -> None:
    """Take the rights to a codebook away, or with none named the account with all it may do."""
    if codebook is None:
        server.ask("DELETE", "2.0/mlflow/users/delete", username=user)
        return
    taken = 0
    for kind, key in _resources(server, codebook).items():
        try:
            server.ask("POST", _REVOKE, username=user, resource_type=kind, resource_id=key)
            taken += 1
        except Refused as refused:
            if refused.code != "RESOURCE_DOES_NOT_EXIST":
                raise
    if not taken:
        remedy = "`undertone grants` lists who has."
        raise Problem(f"'{user}' has no right to {codebook}", where=server.address, remedy=remedy)


def grants(server: Server) -> str:
    """A line for each account and codebook. Where runs and models differ, both are named."""
    lines = []
    names = {one["experiment_id"]: one["name"] for one in _experiments(server)}
    users = server.ask("GET", "2.0/mlflow/users/list")["users"]
    for user in sorted(users, key=lambda one: str(one["username"])):
        if user["is_admin"]:
            lines.append((user["username"], "everything", "administrator"))
            continue
        held: dict[str, dict[str, str]] = {}
        for one in _permissions(server, user["username"]):
            pattern = one["resource_pattern"]
            experiment = one["resource_type"] == "experiment"
            codebook = names.get(pattern, f"experiment {pattern}") if experiment else pattern
            held.setdefault(codebook, {})[one["resource_type"]] = one["permission"].lower()
        for codebook, rights in sorted(held.items()):
            runs, registered = rights.get("experiment"), rights.get("registered_model")
            told = f"{runs}" if runs == registered else f"runs: {runs}, models: {registered} (uneven)"
            lines.append((user["username"], codebook, told))
        if not held:
            lines.append((user["username"], "nothing", ""))
    wide = [max(len(line[column]) for line in lines) for column in (0, 1)]
    return "\n".join(f"{who:{wide[0]}}  {what:{wide[1]}}  {may}".rstrip() for who, what, may in lines)


def _resources(server: Server, codebook: str, *, make: bool = False) -> dict[str, str]:
    """MLflow's experiment and registered model for a codebook, by kind."""
    ids = {one["name"]: str(one["experiment_id"]) for one in _experiments(server)}
    if make and codebook not in ids:
        made = server.ask("POST", "2.0/mlflow/experiments/create", name=codebook)
        ids[codebook] = str(made["experiment_id"])
    if codebook not in ids:
        remedy = f"There are {', '.join(sorted(ids))}."
        raise Problem(f"no codebook '{codebook}'", where=server.address, remedy=remedy)
    filter_ = f"name = '{codebook}'"
    found = server.ask("GET", "2.0/mlflow/registered-models/search", filter=filter_)
    if make and not found.get("registered_models"):
        server.ask("POST", "2.0/mlflow/registered-models/create", name=codebook)
    return {"experiment": ids[codebook], "registered_model": codebook}


def _experiments(server: Server) -> list[dict[str, Any]]:
    found = server.ask("POST", "2.0/mlflow/experiments/search", max_results=5000)
    return list(found.get("experiments", []))


def _permissions(server: Server, user: str) -> list[dict[str, str]]:
    found = server.ask("GET", "3.0/mlflow/users/permissions/list", username=user)
    return list(found["permissions"])


def _refusal(error: HTTPError, server: Server) -> Problem:
    if error.code in REFUSALS:
        what, remedy = REFUSALS[error.code]
        return Problem(what, where=f"{server.username} at {server.address}", remedy=remedy)
    try:
        content = dict(json.loads(error.read()))
    except (ValueError, TypeError):
        content = {}
    told = str(content.get("message") or f"answers {error.code}").splitlines()[0]
    return Refused(told, where=server.address, code=str(content.get("error_code", "")))


def _check_host(host: str, *, exposed: bool) -> None:
    if not exposed and not _loopback(host):
        raise Problem(
            f"{host} can be reached from other machines, without TLS",
            where="--host",
            remedy="Leave it at 127.0.0.1 and put a TLS proxy before it (docs/team-server.md), or add"
            " --exposed where something else does that.",
        )


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _check_database(address: str) -> None:
    import psycopg2

    shown = without_password(address)
    if odd := misread(address):
        raise Problem(odd, where=shown)
    try:
        psycopg2.connect(address, connect_timeout=5).close()
    except psycopg2.ProgrammingError:  # it repeats what it could not read
        raise Problem("is no address that PostgreSQL can read", where=shown) from None
    except psycopg2.Error as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        remedy = "Start PostgreSQL, and check name, password and address in .server/settings."
        raise Problem(f"can't be opened: {reason}", where=shown, remedy=remedy) from None


def _check_port(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), port))
        except OSError as error:
            remedy = "Stop what runs there, or choose another with --port."
            raise Problem(f"{error.strerror}", where=f"{host}:{port}", remedy=remedy) from None


def _kept_login(home: Path, password: str | None, *, port: int) -> str:
    """The administrator's password; the first time it is made up, if none was given, and kept."""
    file = home / "login"
    kept = _read_login(file)
    # MLflow takes it once, at the very first start
    password = kept.get("mlflow_tracking_password") or password or secrets.token_urlsafe(18)
    login = {
        "mlflow_tracking_uri": f"http://127.0.0.1:{port}",
        "mlflow_tracking_username": "admin",
        "mlflow_tracking_password": password,
    }
    if kept != login:
        _write(file, login)
    file.chmod(0o600)
    if not kept:
        print(f"server: the administrator's login is in {file}", file=sys.stderr)
    return password


def _read_login(file: Path) -> dict[str, str]:
    """The section `mlflow` of a file such as ~/.mlflow/credentials; nothing where there is none."""
    config = configparser.ConfigParser(interpolation=None)
    try:
        config.read(file, "utf-8")
    except configparser.Error:
        raise Problem("is no list of NAME = value under [mlflow]", where=str(file)) from None
    return dict(config["mlflow"]) if "mlflow" in config else {}


def _write(file: Path, content: Mapping[str, str]) -> None:
    """`content` as the section `mlflow`: whole or not at all, as no other copy of a password is kept."""
    config = configparser.ConfigParser(interpolation=None)
    config["mlflow"] = content
    with whole(file) as beside, _private(beside).open("w", encoding="utf-8") as opened:
        config.write(opened)


def _kept(file: Path) -> str:
    """A secret that is made once."""
    if not file.is_file():
        with whole(file) as beside:
            _private(beside).write_text(secrets.token_hex(32), "utf-8")
    _only_ours(file)
    return file.read_text("utf-8").strip()


def _private(file: Path) -> Path:
    """`file`, made if need be, and closed to others before anything is written to it."""
    file.touch(mode=0o600)
    file.chmod(0o600)
    return file


def _only_ours(file: Path) -> None:
    if stat.S_IMODE(file.stat().st_mode) & 0o077:
        remedy = f"Run `chmod 600 {file}`."
        raise Problem("other users of this machine can read it", where=str(file), remedy=remedy)
