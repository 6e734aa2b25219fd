"""A real sshd on loopback, with its own port, host key, users' keys and configuration."""

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

PROGRAM = Path("/usr/sbin/sshd")
SFTP = Path("/usr/lib/openssh/sftp-server")

# The roles of docs/access.md. The forwarding is for ProxyCommand, by which OpenSSH checks the host key.
_LIMITS = 'restrict,port-forwarding,permitopen="localhost:{port}"'
WRITER = 'command="{sftp}",' + _LIMITS
READER = 'command="{sftp} -R",' + _LIMITS


@dataclass(frozen=True)
class Server:
    """`folder` holds keys and logs; `authorized` is the file that grants access."""

    folder: Path
    port: int
    user: str

    @property
    def authorized(self) -> Path:
        return self.folder / "authorized_keys"

    def grant(self, role: str, key: Path, *, sftp: Path = SFTP) -> None:
        """One line for the key's public half, as an owner would add it."""
        line = role.format(sftp=sftp, port=self.port)
        with self.authorized.open("a") as file:
            file.write(f"{line} {key.with_suffix('.pub').read_text()}")

    def withdraw(self, key: Path) -> None:
        body = key.with_suffix(".pub").read_text().split()[1]
        lines = self.authorized.read_text().splitlines(keepends=True)
        self.authorized.write_text("".join(line for line in lines if body not in line))

    def known_host(self, name: str) -> str:
        """The line of known_hosts for this server under the name `name`."""
        kind, body = (self.folder / "host.pub").read_text().split()[:2]
        return f"[{name}]:{self.port} {kind} {body}\n"

    def log(self) -> str:
        return (self.folder / "log").read_text()


def keypair(path: Path) -> Path:
    """A new private key at `path`, its public half beside it as .pub."""
    path.parent.mkdir(parents=True, exist_ok=True)
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", path.name, "-f", str(path)]
    subprocess.run(command, check=True)
    return path


def missing() -> str:
    """Why no sshd can be started here, or nothing."""
    for program in (PROGRAM, SFTP):
        if not program.exists():
            return f"{program} is not installed (Debian: apt-get install openssh-server)"
    return "" if shutil.which("ssh") else "ssh is not installed (Debian: openssh-client)"


@contextmanager
def running(folder: Path) -> Iterator[Server]:
    """An sshd of the current user that nobody may enter yet; skips the test where there is none."""
    if reason := missing():
        pytest.skip(reason)
    folder.mkdir(parents=True, exist_ok=True)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd refuses to start without it
    keypair(folder / "host")
    server = Server(folder, _free_port(), getpass.getuser())
    server.authorized.touch(mode=0o600)
    (folder / "sshd_config").write_text(
        f"""ListenAddress 127.0.0.1:{server.port}
HostKey {folder}/host
AuthorizedKeysFile {server.authorized}
PidFile none
PermitRootLogin yes
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
MaxStartups 100
LogLevel VERBOSE
Subsystem sftp {SFTP}
"""
    )
    with (folder / "log").open("w") as log:
        command = [str(PROGRAM), "-D", "-e", "-f", str(folder / "sshd_config")]
        process = subprocess.Popen(command, stderr=log, stdin=subprocess.DEVNULL)
    try:
        _answers(server, process)
        yield server
    finally:
        process.terminate()
        process.wait(timeout=20)


def _free_port() -> int:
    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))
        return int(own.getsockname()[1])


def _answers(server: Server, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", server.port), timeout=2) as own:
            if own.recv(4) == b"SSH-":
                return
        time.sleep(0.05)
    pytest.fail(f"sshd doesn't answer: {server.log()}")
