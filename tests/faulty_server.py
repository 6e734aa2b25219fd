"""A batch service on this machine, as OpenAI's, that does wrong what a test tells it to.

Routes are named as in `POST /files`, `GET /batches/{}`; each request first meets the next fault that
was planned for its route, if any is left.
"""

import json
import os
import re
import signal
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

KEY = "sk-canary-0123456789"
UPLOAD, CREATE, LIST = "POST /files", "POST /batches", "GET /batches"
POLL, CONTENT = "GET /batches/{}", "GET /files/{}/content"

Line = dict[str, Any]


@dataclass(frozen=True)
class Fault:
    """`after`: what was asked for is done, only the reply is not the one of its doing."""

    status: int = 0  # 0: the connection is dropped
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b"{}"
    sleep: float = 0.0
    kill: bool = False  # the client, with SIGKILL
    after: bool = False
    cut: bool = False  # half of the content is sent; without `kill` it passes for the whole


def refusal(status: int, code: str, said: str, **headers: str) -> Fault:
    """An error as OpenAI words it."""
    content = {"error": {"code": code, "message": said, "type": "error"}}
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Fault(status, names, json.dumps(content).encode())


def answer(custom: str, content: str = "1") -> Line:
    message = {"index": 0, "message": {"role": "assistant", "content": content}}
    body = {"created": 1, "model": "m", "choices": [message | {"finish_reason": "stop"}]}
    response = {"status_code": 200, "request_id": f"r-{custom}", "body": body}
    return {"id": f"a-{custom}", "custom_id": custom, "response": response, "error": None}


def error(custom: str, said: str = "", status: int | None = 500) -> Line:
    response = None if status is None else {"status_code": status, "request_id": "r", "body": {}}
    fault = {"code": "server_error", "message": said}
    return {"id": f"e-{custom}", "custom_id": custom, "response": response, "error": fault}


@dataclass
class Plan:
    """How a batch goes: its states one poll after the other, the lines of its two files (None: no
    such file), and the errors of one that fails."""

    states: Sequence[str] = ("in_progress", "completed")
    output: Callable[[list[Line]], list[Line] | None] = lambda asked: [
        answer(one["custom_id"]) for one in asked
    ]
    errors: Callable[[list[Line]], list[Line] | None] = lambda _: None
    faults: Sequence[Line] = ()


class FaultyServer:
    """`plans`: for the batches in the order of their creation, the last for all that follow."""

    def __init__(self, *plans: Plan) -> None:
        self.plans = list(plans) or [Plan()]
        self.faults: dict[str, list[Fault | None]] = {}  # None: that request goes well
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, Line] = {}  # in the order of their creation
        self.calls: Counter[str] = Counter()
        self.times: dict[str, list[float]] = {}
        self.headers: list[dict[str, str]] = []
        self.downloads: Counter[str] = Counter()  # sent as a whole
        self.victim = 0  # the process to kill
        self.wrapped = self.unpaged = False  # SiliconFlow's ways: an upload's `data`, a list of one page
        self.page = 2
        self.hidden = ""  # what the list says of no batch
        self._plans: dict[str, tuple[Plan, list[str]]] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        handler = type("Handler", (_Handler,), {"service": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def asked(self, number: int) -> list[str]:
        """The custom_ids of a batch."""
        batch = list(self.batches.values())[number]
        return [one["custom_id"] for one in self._requests(batch["input_file_id"])]

    def handle(self, route: str, name: str, query: str, body: bytes) -> tuple[int, bytes]:
        with self._lock:
            if route == UPLOAD:
                file = self._keep(_uploaded(body))
                told: Line = {"id": file, "object": "file", "purpose": "batch"}
                return 200, _json({"code": 20000, "data": told} if self.wrapped else told)
            if route == CREATE:
                return 200, _json(self._create(json.loads(body)))
            if route == LIST:
                return 200, _json(self._list(query))
            if route == POLL and name in self.batches:
                return 200, _json(self._poll(name))
            if route == CONTENT and name in self.files:
                return 200, self.files[name]
            return 404, _json({"error": {"code": "not_found", "message": "no such thing"}})

    def _create(self, asked: Line) -> Line:
        name = f"batch_{len(self.batches)}"
        plan = self.plans[min(len(self.batches), len(self.plans) - 1)]
        self._plans[name] = plan, list(plan.states)
        self.batches[name] = asked | {"id": name, "object": "batch", "status": "validating"}
        return self.batches[name]

    def _list(self, query: str) -> Line:
        newest = [
            {key: value for key, value in one.items() if key != self.hidden}
            for one in list(self.batches.values())[::-1]
        ]
        if self.unpaged:
            return {"object": "list", "data": newest}
        after = re.search(r"after=(\w+)", query)
        start = 1 + [one["id"] for one in newest].index(after[1]) if after else 0
        page = newest[start : start + self.page]
        return {"object": "list", "data": page, "has_more": start + self.page < len(newest)}

    def _poll(self, name: str) -> Line:
        batch = self.batches[name]
        plan, states = self._plans[name]
        batch["status"] = states.pop(0) if len(states) > 1 else states[0]
        if batch["status"] in ("completed", "expired", "cancelled") and "output_file_id" not in batch:
            requests = self._requests(batch["input_file_id"])
            for key, lines in (
                ("output_file_id", plan.output(requests)),
                ("error_file_id", plan.errors(requests)),
            ):
                batch[key] = None if lines is None else self._keep(b"".join(map(_json, lines)))
        if batch["status"] == "failed":
            batch["errors"] = {"object": "list", "data": list(plan.faults)}
        return batch

    def _keep(self, content: bytes) -> str:
        name = f"file-{len(self.files)}"
        self.files[name] = content
        return name

    def _requests(self, file: str) -> list[Line]:
        return [json.loads(line) for line in self.files[file].splitlines()]


class _Handler(BaseHTTPRequestHandler):
    service: FaultyServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each reply waits 40 ms

    def do_GET(self) -> None:
        self._serve(b"")

    def do_POST(self) -> None:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            self._serve(b"".join(parts))
        else:
            self._serve(self.rfile.read(int(self.headers["Content-Length"])))

    def _serve(self, body: bytes) -> None:
        path, _, query = self.path.removeprefix("/v1").partition("?")
        parts = path.strip("/").split("/")
        name = parts[1] if len(parts) > 1 else ""
        route = f"{self.command} /{'/'.join([parts[0], *(['{}'] if name else []), *parts[2:]])}"
        service = self.service
        service.calls[route] += 1
        service.times.setdefault(route, []).append(time.monotonic())
        service.headers.append({key.lower(): value for key, value in self.headers.items()})
        if self.headers.get("Authorization") != f"Bearer {KEY}":
            told = {"error": {"code": "invalid_api_key", "message": f"no {self.headers}"}}
            self._send(401, _json(told), {})
            return
        planned = service.faults.get(route)
        fault = planned.pop(0) if planned else None
        if fault is None:
            self._send(*service.handle(route, name, query, body), {})
        elif fault.cut:
            _, content = service.handle(route, name, query, body)
            half = content[: len(content) - 9]
            if fault.kill:
                self._head(200, len(content), {})
                self.wfile.write(half)
                self.wfile.flush()
                self._kill()
            else:
                self._send(200, half, {})
            return
        else:
            if fault.after:
                service.handle(route, name, query, body)
            if fault.kill:
                self._kill()
            time.sleep(fault.sleep)
            if fault.status:
                self._send(fault.status, fault.body, fault.headers)
            else:
                # a reset, not a mere end
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.close_connection = True
                self.connection.close()
            return
        if route == CONTENT:
            service.downloads[name] += 1

    def _kill(self) -> None:
        while not self.service.victim:
            time.sleep(0.001)
        os.kill(self.service.victim, signal.SIGKILL)

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self._head(status, len(body), headers)
        self.wfile.write(body)

    def _head(self, status: int, length: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json"} | headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the tests read what is printed."""


def _uploaded(body: bytes) -> bytes:
    """The file in a multipart body."""
    boundary = body[: body.index(b"\r\n")]
    for part in body.split(boundary):
        head, _, content = part.partition(b"\r\n\r\n")
        if b'name="file"' in head:
            return content.removesuffix(b"\r\n")
    raise ValueError("no file in the upload")


def _json(content: object) -> bytes:
    return (json.dumps(content, ensure_ascii=False) + "\n").encode()
