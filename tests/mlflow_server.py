"""A PostgreSQL cluster and the project's own MLflow server, both real, for the time of a test file."""

import getpass
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from undertone.records import team

REPOSITORY = Path(__file__).parents[1]
PASSWORD = "p%40ss%25word"  # @ and %, as an address has to write them


@dataclass(frozen=True)
class Running:
    """`login` is what the first start left for the administrator; `log` all that was printed."""

    address: str
    database: str
    home: Path
    process: int
    log: Path

    @property
    def admin(self) -> team.Server:
        return team.Server.found(self.home)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def postgresql() -> Iterator[str]:
    """The address of an empty database in a cluster of its own; skips where Debian's isn't there."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    programs = found[-1].parent
    user = "postgres" if os.geteuid() == 0 else getpass.getuser()  # initdb refuses root
    become = ["setpriv", "--reuid", user, "--regid", user, "--init-groups"] if os.geteuid() == 0 else []
    # not below pytest's folder, which only its own user may enter
    folder = Path(tempfile.mkdtemp(prefix="undertone-postgresql-"))
    if become:
        shutil.chown(folder, user, user)
    port = free_port()
    password = folder / "password"
    password.write_text("p@ss%word")
    password.chmod(0o644)

    def run(program: str, *given: str) -> None:
        subprocess.run(
            [*become, str(programs / program), "-D", str(folder / "data"), *given],
            cwd=folder,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )

    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
    try:
        run("initdb", "-U", "undertone", "-A", "scram-sha-256", f"--pwfile={password}", "--no-sync")
        run("pg_ctl", "-w", "-l", str(folder / "log"), "-o", options, "start")
        try:
            yield f"postgresql://undertone:{PASSWORD}@127.0.0.1:{port}/postgres"
        finally:
            run("pg_ctl", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)


@contextmanager
def server(database: str, home: Path, *, hosts: str = "mlflow.example.org") -> Iterator[Running]:
    """`undertone team-server` on a database, until the block ends."""
    home.mkdir(parents=True)
    settings = home / "settings"
    settings.write_text(f"UNDERTONE_DATABASE={database}\nUNDERTONE_HOSTS={hosts}\n")
    settings.chmod(0o600)
    port = free_port()
    log = home / "log"
    address = f"http://127.0.0.1:{port}"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "undertone.cli", "team-server", "--home", home, "--port", str(port)],
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        _await(f"{address}/health", process, log)
        yield Running(address, database, home, process.pid, log)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await(address: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    end = time.monotonic() + 90
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    pytest.fail(f"the server did not start:\n{log.read_text()[-3000:]}")
