"""The process around `service`: its socket, its connections, how it begins and how it ends."""

import asyncio
import ipaddress
import logging
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from undertone.deployment.service import GONE, REASONS, Service, trouble
from undertone.errors import Problem

_HEAD = 16_384  # bytes of a request's first line and headers
_AHEAD = 16  # requests that a connection may send before it has the first one's answer
_LINGER = 0.2  # seconds for what a connection has sent that was only just accepted
_FILES = 64  # descriptors that are no connections
_BACKLOG = 2_048
_SWITCH = 0.0005  # seconds until a thread that scores gets the interpreter back; 0.005 costs a tenth


class Connection(HttpToolsProtocol):
    """uvicorn's, which alone would wait for ever: for a request that doesn't come, or for a client that
    doesn't fetch its answer."""

    def __init__(self, *given: Any, service: Service, **named: Any) -> None:
        super().__init__(*given, **named)
        self._service = service
        self._limits = service.limits
        self.ended = 0  # the status of what was not answered when it ended
        self._reason = "malformed"  # why the parser stops
        self._since = 0.0  # when it was opened, was last answered, or began to send what isn't here
        self._due = True  # a request isn't here whole
        self._begun = False  # and something of it is
        self._heading = True  # and its headers aren't
        self._head = 0  # bytes of them
        self._stuck = 0.0  # since when its client takes nothing; 0: it does

    @property
    def idle(self) -> bool:
        """Nothing is being answered."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def quiet(self) -> bool:
        """And nothing of a request is here either, read or not."""
        return self.idle and not self._begun and not self._unread()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._since = self.loop.time()
        super().connection_made(transport)
        if len(self.connections) > self._limits.connections:
            idle = [one for one in self.connections if isinstance(one, Connection) and one.idle]
            idle.sort(key=lambda one: one._since)
            # not one with a whole request that wasn't read yet; at the latest its own
            next(one for one in idle if one._due or one.quiet).transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self.ended = self.ended or GONE
        super().connection_lost(error)

    def data_received(self, data: bytes) -> None:
        if not self._due:
            self._since, self._due = self.loop.time(), True
        self._begun = True
        self._head += len(data) if self._heading else 0
        super().data_received(data)
        if self._heading and self._head > _HEAD and not self.transport.is_closing():
            self._last("long_head")

    def on_message_begin(self) -> None:
        if not self._due:  # right behind the one before, in the same piece
            self._since, self._due = self.loop.time(), True
        self._begun = True
        super().on_message_begin()
        self.scope["undertone.line"] = self  # type: ignore[typeddict-unknown-key]

    def on_headers_complete(self) -> None:
        # counted here as well, for the parser was given more, or less, than these bytes at a time
        size = len(self.parser.get_method()) + len(self.url) + len("  HTTP/1.1\r\n\r\n")
        if size + sum(len(name) + len(value) + 4 for name, value in self.headers) > _HEAD:
            self._reason = "long_head"
            raise ValueError(self._reason)  # which ends the parser
        if len(self.pipeline) >= _AHEAD:
            raise ValueError(self._reason)
        super().on_headers_complete()  # which may raise as well
        self._heading, self._head = False, 0

    def on_message_complete(self) -> None:
        self._due, self._begun, self._heading = False, False, True
        if self.cycle.response_complete:  # before the body was here: it only now begins to wait
            self._since = self.loop.time()
        super().on_message_complete()
        if not self.pipeline:  # after a large body, else nobody sees that the client leaves
            self.flow.resume_reading()

    def on_response_complete(self) -> None:
        if not self._due:
            self._since = self.loop.time()
        super().on_response_complete()
        if self.pipeline and not self.transport.is_closing():
            self.flow.pause_reading()

    def send_400_response(self, msg: str) -> None:
        self._last(self._reason)

    def look(self, now: float) -> None:
        """Once a second: end it where its client has let the time pass."""
        if self.transport.is_closing() or self.flow.write_paused:
            self._stuck = self._stuck or now
            if now - self._stuck > self._limits.arrival:
                self.transport.abort()
            return
        self._stuck = 0.0
        waited = now - self._since
        if self._due and waited > self._limits.arrival:
            self._last("late")
        elif not self._due and waited > self._limits.idle and self.quiet:
            self.transport.close()

    def _unread(self) -> bool:
        """What came since the loop last looked: closing now would lose it."""
        waiting = select.poll()
        waiting.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(waiting.poll(0))

    def _last(self, reason: str) -> None:
        """Say why, unless nothing came or an answer has begun, and close."""
        if not self.idle:  # the request that is being answered is counted with this status
            self.ended = REASONS[reason][0]
            answer = self._service.unread(reason, counted=False)
            if not self.pipeline and not self.cycle.response_started:
                self.transport.write(answer)
        elif self._begun and self._heading:
            self.transport.write(self._service.unread(reason, counted=True))
        self.transport.close()


class Server(uvicorn.Server):
    """Ends as those expect who send it requests: it says so first, goes on for a while, then finishes
    what was begun, and exits 0."""

    def __init__(self, service: Service, ready: str) -> None:
        limits = service.limits
        super().__init__(
            uvicorn.Config(
                service,
                http=partial(Connection, service=service),  # type: ignore[arg-type]
                loop="uvloop",
                ws="none",
                lifespan="on",
                timeout_keep_alive=limits.idle,  # type: ignore[arg-type]
                backlog=_BACKLOG,
                access_log=False,
                log_config=None,
                server_header=False,
                proxy_headers=False,
            )
        )
        self._service = service
        self._ready = ready

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for one in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(one, self._stop, one)
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        with suppress(OSError):
            print(self._ready, file=sys.stderr, flush=True)
        notify("READY=1")

    async def on_tick(self, counter: int) -> bool:
        self._write()
        if counter % 10 == 0:
            self._look()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._service.stopping = True
        for server in self.servers:
            server.close()
        for one in sockets or []:
            one.close()
        end = time.monotonic() + self._service.limits.drain
        await asyncio.sleep(_LINGER)
        while self.server_state.connections and time.monotonic() < end and not self.force_exit:
            for connection in list(self.server_state.connections):
                if isinstance(connection, Connection) and connection.quiet:
                    connection.transport.close()
            self._look()
            await asyncio.sleep(0.05)
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await self.lifespan.shutdown()
        self._write()

    def _write(self) -> None:
        """The log, several lines at a time: one write each would be a tenth of an overload's work. What
        can't be written is lost and counted, for the answers matter more."""
        if (lines := self._service.logged()) and sys.stdout:
            try:  # past Python's buffer, which would keep it and fail again at the end
                os.write(sys.stdout.fileno(), lines.encode())
            except OSError:
                self._service.counts.lost(lines.count("\n"))

    def _look(self) -> None:
        now = asyncio.get_running_loop().time()
        for connection in list(self.server_state.connections):
            if isinstance(connection, Connection):
                connection.look(now)

    def _stop(self, which: signal.Signals) -> None:
        """SIGTERM waits for `grace`; a second signal, and a person's Ctrl-C, don't, and a third one ends
        all at once."""
        if self.should_exit:
            self.force_exit = True
        elif self._service.stopping or which == signal.SIGINT:
            self.should_exit = True
        else:
            notify("STOPPING=1")
            asyncio.get_running_loop().call_later(self._service.limits.grace, self._leave)
        self._service.stopping = True

    def _leave(self) -> None:
        self.should_exit = True


def run(service: Service, listening: socket.socket) -> None:
    """Serve until a signal; the socket listens, or is only bound. `Problem` where as many connections
    as the limits allow can't be open at a time."""
    _more_files(service.limits.connections)
    sys.setswitchinterval(_SWITCH)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    trouble.addHandler(handler)
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # warns of each bad request
    Server(service, f"undertone: serving {service.told} on {_address(listening)}").run([listening])


def bound(host: str, port: int, *, guarded: bool) -> socket.socket:
    """A socket; `Problem` where others could reach it and no token guards it."""
    if not 0 <= port < 2**16:
        raise Problem(f"--port is {port}, must be 0 to 65535")
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError:
        raise Problem("no such host", where=f"--host {host}") from None
    _reached(str(address[0]), f"--host {host}", guarded=guarded)
    opened = socket.socket(family, socket.SOCK_STREAM)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind(address)
    except OSError as error:
        remedy = "Choose another --port; 0 takes a free one."
        raise Problem(str(error.strerror), where=f"{host}:{port}", remedy=remedy) from None
    return opened


def handed(descriptor: int, *, guarded: bool) -> socket.socket:
    """The listening socket that a parent left open; it outlives this process. `Problem` as for `bound`;
    who reaches a socket of the file system is for its permissions to say."""
    try:
        given = socket.socket(fileno=descriptor)
        listens = given.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        family, address = given.family, given.getsockname()
        given.detach()
    except OSError:
        listens = 0
    if not listens:
        remedy = "systemd hands over the first as 3; docs/serving.md has the units."
        raise Problem("no listening socket", where=f"--fd {descriptor}", remedy=remedy)
    if family != socket.AF_UNIX:
        _reached(str(address[0]), f"--fd {descriptor}", guarded=guarded)
    return socket.socket(fileno=descriptor)


def _reached(address: str, where: str, *, guarded: bool) -> None:
    if not ipaddress.ip_address(address.split("%")[0]).is_loopback and not guarded:
        remedy = "Set UNDERTONE_TOKEN, which clients then send, or allow it with --exposed."
        raise Problem("would answer anybody", where=where, remedy=remedy)


def notify(state: str) -> None:
    """Tell the parent (systemd's sd_notify), if it asked and is still there."""
    if address := os.environ.get("NOTIFY_SOCKET"):
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
            told.connect(address.replace("@", "\0", 1) if address[0] == "@" else address)
            told.send(state.encode())


def _address(opened: socket.socket) -> str:
    if opened.family == socket.AF_UNIX:
        return f"unix:{opened.getsockname()}"
    host, port = opened.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _more_files(connections: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _FILES
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise Problem(
            f"only {hard} open files are allowed here",
            where=f"--connections {connections}",
            remedy=f"Allow more (LimitNOFILE), or at most {max(1, hard - _FILES)} connections.",
        )
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
