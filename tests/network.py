"""A network that leads nowhere, and counts what was tried in it.

A process in it has a loopback of its own, and a default route and a name server behind one interface
whose far end nobody answers at. So whatever it tries, by whatever library, leaves as a packet there:
the kernel counts them, and a listener at the far end writes down where each was bound for. IPv6 is off,
and /run is empty, as a name service or container engine there would speak for the process.
"""

import os
import select
import shutil
import socket
import struct
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

NAMES = "198.51.100.53"  # an address for documents (RFC 5737), as all here
HERE, FAR = "out0", "far0"


class NotHere(Exception):
    """This machine lends no network namespace."""


class Nowhere:
    """A context: `prefix` before a command runs it there, `tried` is what went out so far."""

    def __init__(self, folder: Path) -> None:
        self._seen = folder / "tried.txt"
        folder.mkdir(parents=True, exist_ok=True)
        self._seen.touch()

    def __enter__(self) -> Self:
        if not shutil.which("unshare") or not shutil.which("nsenter") or not shutil.which("ip"):
            raise NotHere("unshare and nsenter (util-linux) and ip (iproute2) are needed")
        own = [] if os.geteuid() == 0 else ["--map-root-user"]
        self._held = subprocess.Popen(
            ["unshare", *own, "--net", "--mount", sys.executable, str(Path(__file__)), str(self._seen)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._held.stdout is not None
        assert self._held.stderr is not None
        if self._held.stdout.readline() != "ready\n":
            told = self._held.stderr.read().strip().splitlines()
            self.__exit__(None, None, None)
            raise NotHere(f"no network namespace ({told[-1] if told else 'refused'})")
        self._user = [] if not own else ["--user", "--preserve-credentials"]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.kill()
        self._held.wait()

    def prefix(self, folder: Path) -> list[str]:
        """What to put before a command, so that it runs in this network and in `folder`."""
        enter = ["nsenter", f"--target={self._held.pid}", *self._user, "--net", "--mount"]
        return [*enter, f"--wd={folder}", "--"]

    @property
    def packets(self) -> int:
        """How many packets the kernel sent out."""
        lines = Path(f"/proc/{self._held.pid}/net/dev").read_text().splitlines()
        (counts,) = [line.split(":")[1].split() for line in lines if line.strip().startswith(f"{HERE}:")]
        return int(counts[9])

    @property
    def tried(self) -> list[str]:
        """Where each packet was bound for: `tcp 203.0.113.9:443`, `udp 198.51.100.53:53 example.org`."""
        return self._seen.read_text("utf-8").splitlines()


def _hold(seen: Path) -> None:
    """In the new namespaces: lay out the network, then write down what comes along."""
    for which in ("all", "default"):
        Path(f"/proc/sys/net/ipv6/conf/{which}/disable_ipv6").write_text("1")
    for command in (
        ["ip", "link", "set", "lo", "up"],
        ["ip", "link", "add", HERE, "arp", "off", "type", "veth", "peer", "name", FAR, "arp", "off"],
        ["ip", "address", "add", "192.0.2.2/24", "dev", HERE],
        ["ip", "link", "set", FAR, "up"],
        ["ip", "link", "set", HERE, "up"],
        ["ip", "route", "add", "default", "dev", HERE],
        ["mount", "-t", "tmpfs", "none", "/run"],
    ):
        subprocess.run(command, check=True)
    names = {
        "resolv.conf": f"nameserver {NAMES}\noptions timeout:1 attempts:1\n",
        "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    }
    for name, content in names.items():
        own = Path("/run", f"own.{name}")
        own.write_text(content)
        used = Path("/etc", name).resolve()  # may have lain in /run
        used.parent.mkdir(parents=True, exist_ok=True)
        if not used.exists():
            used.touch()
        subprocess.run(["mount", "--bind", own, used], check=True)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003)) as far:
        far.bind((FAR, 0))
        print("ready", flush=True)
        with seen.open("a", encoding="utf-8") as file:
            while (
                sys.stdin not in select.select([far, sys.stdin], [], [])[0]
            ):  # whoever began it is gone
                packet, (_, _, kind, *_) = far.recvfrom(65536)
                if kind != socket.PACKET_OUTGOING:
                    print(_told(packet), file=file, flush=True)


def _told(packet: bytes) -> str:
    """Where an Ethernet frame was bound for."""
    (kind,) = struct.unpack_from("!H", packet, 12)
    if kind != 0x0800:
        return f"a frame of kind {kind:#06x}"
    start = 14 + (packet[14] & 15) * 4
    host = socket.inet_ntoa(packet[30:34])
    protocol = {6: "tcp", 17: "udp"}.get(packet[23])
    if protocol is None:
        return f"protocol {packet[23]} {host}"
    (port,) = struct.unpack_from("!H", packet, start + 2)
    asked = f" {_name(packet[start + 8 :])}" if (protocol, port) == ("udp", 53) else ""
    return f"{protocol} {host}:{port}{asked}"


def _name(query: bytes) -> str:
    """The name that a DNS query asks for."""
    parts, at = [], 12
    while at < len(query) and (length := query[at]):
        parts.append(query[at + 1 : at + 1 + length].decode("ascii", "replace"))
        at += 1 + length
    return ".".join(parts)


if __name__ == "__main__":
    _hold(Path(sys.argv[1]))
