"""`undertone serve` under load, and under clients that mean it ill: latency, goodput, and what is lost.

One request costs the model about what `bare` says, the same texts through `Predictor.predict` in a loop
without HTTP, and beside that what HTTP costs: a tenth of a millisecond or two in uvicorn and FastAPI,
a twentieth in the kernel and in this client each. Client and server share the machine's cores here, so
a server alone on its machine has what the client takes as well.

Arrivals are those of a Poisson process that waits for nobody (an open loop); latency counts from when
a request was due. Every request that was due ends in exactly one outcome: a status, `refused` (no
connection), `lost` (a connection that ended before the whole answer), `late` (no answer in 10 s),
`extra` (bytes after the answer), `held` (not sent, as /readyz said no). `accounted`: the server counted
as many of each status itself. Each answer is compared, to the last bit of its scores, with the
predictor's own to that text.

    python -m benchmarks.load [BUNDLE] [--tokens 31] [--threads 2] [--only steady overload …]

Prints a table and one JSON line with the same values.
"""

import argparse
import asyncio
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import uvloop
from pydantic_core import to_json

from undertone.deployment import latency
from undertone.deployment.predictor import Predictor

PATIENCE = 10.0  # seconds until an answer is late
HOST = "127.0.0.1"
RATE = 100.0  # requests a second, where nothing else is said
TICK = 0.002  # seconds; what falls due meanwhile is sent together, or this client takes a core itself
LINES = 64  # clients that ask as fast as they are answered, to find how much it can answer
Done = Callable[[int | str, bytes], None]


# ---- the client


@dataclass
class Tally:
    """What became of every request that was due."""

    due: int = 0
    outcomes: Counter[int | str] = field(default_factory=Counter)
    wrong: int = 0  # answered 200 with another answer than the predictor's own
    seconds: list[float] = field(default_factory=list)  # of those answered 200

    def exact(self, counted: Counter[int]) -> bool:
        """Each due request has one outcome, and the server `counted` the same ones; of those without an
        answer it may have counted some, or none."""
        own = Counter({name: count for name, count in self.outcomes.items() if isinstance(name, int)})
        unknown = sum(self.outcomes[name] for name in ("lost", "late", "extra"))
        whole = self.due == sum(self.outcomes.values())
        return whole and own <= counted and (counted - own).total() <= unknown

    def told(self, counted: Counter[int]) -> dict[str, Any]:
        """`counted`: the server's own."""
        taken = np.percentile(self.seconds, (50, 95, 99, 100)) if self.seconds else np.zeros(4)
        p50, p95, p99, most = (round(1000 * float(one), 2) for one in taken)
        return {
            "due": self.due,
            "accounted": self.exact(counted),
            "outcomes": {str(name): count for name, count in sorted(self.outcomes.items(), key=str)},
            "wrong": self.wrong,
            "p50_ms": p50,
            "p95_ms": p95,
            "p99_ms": p99,
            "max_ms": most,
        }


class Line(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, crowd: "Crowd") -> None:
        self.crowd = crowd
        self.done: Done | None = None
        self.open = False

    def connection_made(self, transport: Any) -> None:
        self.transport: asyncio.Transport = transport
        self.open = True

    def ask(self, request: bytes, done: Done) -> None:
        self.done, self.buffer, self.need = done, b"", 0
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        if not self.done:
            self.crowd.tally.outcomes["extra"] += 1
            self.transport.abort()
            return
        self.buffer += data
        if not self.need:
            head = self.buffer.find(b"\r\n\r\n")
            if head < 0:
                return
            at = self.buffer.find(b"content-length: ", 0, head) + 16
            self.need = head + 4 + int(self.buffer[at : self.buffer.find(b"\r", at)])
            self.body = head + 4
            self.open = self.buffer.find(b"connection: close", 0, head) < 0
        if self.done and len(self.buffer) >= self.need:
            done, self.done = self.done, None
            if len(self.buffer) > self.need:
                self.transport.abort()
                done("extra", b"")
                return
            if self.open:
                self.crowd.idle.append(self)
            else:
                self.transport.close()
            done(int(self.buffer[9:12]), self.buffer[self.body : self.need])

    def connection_lost(self, _: Exception | None) -> None:
        self.open = False
        if self in self.crowd.idle:
            self.crowd.idle.remove(self)
        if self.done:
            done, self.done = self.done, None
            done("lost", b"")


class Crowd:
    """Connections to one address, as many as are needed at a time."""

    def __init__(self, port: int, requests: Sequence[bytes], answers: Sequence[bytes]) -> None:
        """`answers`: how the right answer to each of `requests` begins, up to its `time_ms`."""
        assert len(set(answers)) == len(requests) > 1, "one's right answer would pass as another's"
        self.port = port
        self.requests = requests
        self.answers = answers
        self.idle: list[Line] = []
        self.tally = Tally()
        self.held = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._open: set[int] = set()

    def send(self, due: float, then: Callable[[], None] | None = None) -> None:
        number = self.tally.due
        self.tally.due += 1
        if self.held:
            self.tally.outcomes["held"] += 1
            return
        self._open.add(number)
        which = number % len(self.requests)

        def done(outcome: int | str, body: bytes) -> None:
            if number not in self._open:
                return
            self._open.discard(number)
            self.tally.outcomes[outcome] += 1
            if outcome == 200:
                self.tally.seconds.append(time.monotonic() - due)
                self.tally.wrong += not body.startswith(self.answers[which])
            if then:
                then()

        if self.idle:
            self.idle.pop().ask(self.requests[which], done)
            return
        task = asyncio.get_running_loop().create_task(self._connect(self.requests[which], done))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, request: bytes, done: Done) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, line = await loop.create_connection(lambda: Line(self), HOST, self.port)
        except OSError:
            done("refused", b"")
            return
        line.ask(request, done)

    async def over(self) -> Tally:
        """Once all is answered, or late; the connections are closed."""
        end = time.monotonic() + PATIENCE
        while self._open and time.monotonic() < end:
            await asyncio.sleep(0.01)
        if self._open:
            self.tally.outcomes["late"] += len(self._open)
            self._open.clear()
        for line in self.idle:
            line.transport.close()
        return self.tally

    async def arrive(self, rate: float, seconds: float, seed: int = 0) -> None:
        """Requests at random moments, `rate` a second, whether or not earlier ones are answered."""
        drawn = random.Random(seed)
        due = time.monotonic()  # a loop's own clock may tick in milliseconds
        end = due + seconds
        while (due := due + drawn.expovariate(rate)) < end:
            if (early := due - time.monotonic()) > 0:
                await asyncio.sleep(max(early, TICK))
            self.send(due)

    async def press(self, lines: int, seconds: float) -> float:
        """`lines` clients that ask again as soon as they are answered; answers a second."""
        started = time.monotonic()

        def again() -> None:
            if (now := time.monotonic()) < started + seconds:
                self.send(now, again)

        for _ in range(lines):
            again()
        await asyncio.sleep(seconds)
        return self.tally.outcomes[200] / (time.monotonic() - started)

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """As a balancer does: ten times a second /readyz says whether to send anything."""

        async def watch() -> None:
            while True:
                self.held = not await ready(self.port)
                await asyncio.sleep(0.1)

        task = asyncio.get_running_loop().create_task(watch())
        yield
        task.cancel()


def established(port: int) -> int:
    """Connections that the server has, as the kernel sees them."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(line[1].endswith(f":{port:04X}") and line[3] == "01" for line in lines)


async def ready(port: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        line = await asyncio.wait_for(reader.readline(), 2)
        writer.close()
    except (OSError, TimeoutError):
        return False
    return b" 200 " in line


def request(content: object) -> bytes:
    body = json.dumps(content).encode()
    return (
        b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n%b" % (len(body), body)
    )


def answer(**content: object) -> bytes:
    """How it begins: as pydantic writes JSON, floats to their last bit."""
    return to_json(content)[:-1] + b',"time_ms":'


# ---- the server


@dataclass
class Running:
    """`undertone serve` in a process of its own."""

    process: "subprocess.Popen[bytes]"
    port: int
    log: Path

    def memory(self, which: str = "VmRSS") -> float:
        """Megabytes; VmHWM: the most it ever had."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        (found,) = [line for line in lines if line.startswith(which)]
        return int(found.split()[1]) / 1024

    def counted(self) -> Counter[int]:
        """Its requests to /predict by status: /metrics, or once it has ended its log, which is made of
        the same."""
        if self.process.poll() is not None:
            told = re.findall(r" /predict (\d+) ", self.log.read_text())
            return Counter(int(status) for status in told)
        with urlopen(f"http://{HOST}:{self.port}/metrics") as answered:
            told = _COUNTED.findall(answered.read().decode())
        return Counter({int(status): int(float(count)) for status, count in told})

    def stop(self) -> tuple[int, float]:
        """Its exit status, and the seconds from SIGTERM to its end."""
        started = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60), time.monotonic() - started


_COUNTED = re.compile(r'undertone_requests_total\{path="/predict",status="(\d+)"\} (\S+)')
COMMAND = [sys.executable, "-m", "undertone.cli", "serve"]


@contextmanager
def served(
    bundle: Path | str, folder: Path, *given: str, environment: Mapping[str, str] = os.environ
) -> Iterator[Running]:
    """Ready; killed at the block's end if it still runs. `environment`: beside this process's own."""
    running = started(bundle, folder, *given, environment=environment)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait()


def started(
    bundle: Path | str,
    folder: Path,
    *given: str,
    fd: int | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Running:
    """Once it says that it is ready, by systemd's own way; on the open socket `fd`, or a free port."""
    log = Path(tempfile.mkstemp(dir=folder, suffix=".log")[1])
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told, log.open("wb") as file:
        address = log.with_suffix(".notify")
        told.bind(str(address))
        where = ["--port", "0"] if fd is None else ["--fd", str(fd)]
        process = subprocess.Popen(
            [*COMMAND, str(bundle), *where, *given],
            stdout=file,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            pass_fds=[] if fd is None else [fd],
            env={**os.environ, **environment, "NOTIFY_SOCKET": str(address)},
        )
        told.settimeout(0.5)
        while process.poll() is None:
            with suppress(TimeoutError):
                assert told.recv(64) == b"READY=1"
                break
        else:
            raise SystemExit(log.read_text())
    found = re.search(r"http://[\d.]+:(\d+)", log.read_text())
    assert found
    return Running(process, int(found[1]), log)


# ---- what is measured


def different(tokens: int, count: int, measure: Callable[[str], int]) -> list[str]:
    """`count` texts of about `tokens` tokens, of other words each; those of `latency` repeat soon."""
    words = sorted({word for text in latency.texts_of(tokens, 64, measure) for word in text.split()})
    drawn = random.Random(0)
    texts: set[str] = set()
    while len(texts) < count:
        text = drawn.choice(words)
        while measure(text) < tokens:
            text += f" {drawn.choice(words)}"
        texts.add(text)
    return sorted(texts)


@dataclass
class Setup:
    bundle: Path
    folder: Path
    predictor: Predictor
    options: list[str]  # of `serve`
    texts: list[str]
    batch: int  # texts a request of the batch form

    def singles(self, port: int) -> Crowd:
        """One text each, in the form whose answer has the scores: by its label one would pass as right
        that belongs to another text."""
        answers = [answer(results=self.predictor.predict([text])) for text in self.texts]
        return Crowd(port, [request({"texts": [text]}) for text in self.texts], answers)

    def batches(self, port: int) -> Crowd:
        parts = [self.texts[at : at + self.batch] for at in range(0, len(self.texts), self.batch)]
        answers = [answer(results=self.predictor.predict(part)) for part in parts]
        return Crowd(port, [request({"texts": part}) for part in parts], answers)

    def bare(self, size: int, seconds: float) -> float:
        """Texts a second through `Predictor.predict`, `size` at a time, without HTTP."""
        count, started = 0, time.perf_counter()
        while (taken := time.perf_counter() - started) < seconds:
            at = count % len(self.texts)
            count += len(self.predictor.predict(self.texts[at : at + size]))
        return count / taken

    def served(self, *given: str) -> Any:
        return served(self.bundle, self.folder, *self.options, *given)


async def throughput(setup: Setup) -> dict[str, Any]:
    """In turns, bare and served, of single texts and of batches."""
    found: dict[str, list[float]] = {}
    with setup.served() as server:
        for _ in range(3):
            for name, size, crowd, lines in (
                ("single", 1, setup.singles(server.port), LINES),
                ("batch", setup.batch, setup.batches(server.port), 4),
            ):
                found.setdefault(f"bare_{name}", []).append(setup.bare(size, 4))
                before = await asyncio.to_thread(server.counted)
                rate = await crowd.press(lines, 4)
                tally = await crowd.over()
                told = tally.told(await asyncio.to_thread(server.counted) - before)
                assert told["accounted"], told
                assert {*told["outcomes"]} <= {"200"}, told
                assert not told["wrong"], told
                found.setdefault(name, []).append(rate * size)
    median = {name: round(float(np.median(rates)), 1) for name, rates in found.items()}
    ratios = {
        f"{name}_of_bare": round(median[name] / median[f"bare_{name}"], 3)
        for name in ("single", "batch")
    }
    return {"texts_per_second": median, **ratios}


async def steady(setup: Setup, seconds: float = 60) -> dict[str, Any]:
    with setup.served() as server:
        crowd = setup.singles(server.port)
        await crowd.arrive(RATE, seconds)
        tally = await crowd.over()
        counted = await asyncio.to_thread(server.counted)
        return {"rate": RATE, "seconds": seconds, **tally.told(counted)}


async def overload(setup: Setup, seconds: float = 30) -> dict[str, Any]:
    """Three times as much as it can answer, which is measured first."""
    with setup.served() as server:
        first = setup.singles(server.port)
        capacity = await first.press(LINES, 6)
        await first.over()
        before = server.memory()
        earlier = await asyncio.to_thread(server.counted)
        crowd = setup.singles(server.port)
        await crowd.arrive(3 * capacity, seconds)
        good = crowd.tally.outcomes[200]  # what is answered later was not within `seconds`
        tally = await crowd.over()
        told = tally.told(await asyncio.to_thread(server.counted) - earlier)
        return {
            "capacity": round(capacity, 1),
            "seconds": seconds,
            **told,
            "goodput_of_capacity": round(good / seconds / capacity, 3),
            "memory_growth_mb": round(server.memory() - before, 1),
        }


async def sigterm(setup: Setup, times: int = 10) -> dict[str, Any]:
    """A balancer that heeds /readyz; the process ends under load."""
    tallies, ends = [], []
    counted: Counter[int] = Counter()
    for turn in range(times):
        with setup.served("--grace", "1") as server:
            crowd = setup.singles(server.port)
            async with crowd.watching():
                arriving = asyncio.create_task(crowd.arrive(RATE, 3, seed=turn))
                await asyncio.sleep(1)
                ends.append(await asyncio.to_thread(server.stop))
                await arriving
            tallies.append(await crowd.over())
            counted += server.counted()
    return {
        "times": times,
        **_summed(tallies).told(counted),
        "exits": sorted({code for code, _ in ends}),
        "slowest_end_s": round(max(seconds for _, seconds in ends), 2),
    }


async def restarts(setup: Setup, times: int = 3, seconds: float = 36) -> dict[str, Any]:
    """A parent holds the socket, starts the next, and ends the last when the next is ready."""
    with socket.socket() as listening:
        listening.bind((HOST, 0))
        listening.listen(1024)
        start: Callable[[], Running] = lambda: started(  # noqa: E731
            setup.bundle, setup.folder, *setup.options, "--grace", "1", fd=listening.fileno()
        )
        server = await asyncio.to_thread(start)
        counted: Counter[int] = Counter()
        crowd = setup.singles(listening.getsockname()[1])
        arriving = asyncio.create_task(crowd.arrive(RATE, seconds))
        codes = []
        try:
            for _ in range(times):
                await asyncio.sleep(seconds / (times + 1) - 3)
                following = await asyncio.to_thread(start)
                codes.append((await asyncio.to_thread(server.stop))[0])
                counted += server.counted()
                server = following
            await arriving
            tally = await crowd.over()
            counted += await asyncio.to_thread(server.counted)
        finally:
            server.process.kill()
            server.process.wait()
        return {"times": times, **tally.told(counted), "exits": sorted(set(codes))}


async def large(setup: Setup, megabytes: int = 300) -> dict[str, Any]:
    """A body of that size, declared, in chunks without a length, and behind a length that lies."""
    found = {}
    with setup.served() as server:
        crowd = setup.singles(server.port)
        await crowd.press(4, 2)
        await crowd.over()
        before = server.memory()
        Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")  # VmHWM starts anew
        for kind in ("declared", "chunked", "lying"):
            found[kind] = await asyncio.to_thread(heavy, server.port, kind, megabytes)
        grown = round(server.memory("VmHWM") - before, 1)
        after = setup.singles(server.port)
        await after.press(4, 1)
        await after.over()
    return {
        "megabytes": megabytes,
        "answers": found,
        "peak_growth_mb": grown,
        "then": {str(name): count for name, count in after.tally.outcomes.items()},
    }


def heavy(port: int, kind: str, megabytes: int) -> str:
    """The status line that a client sees which sends all of it, or as much as is taken."""
    megabyte = b"x" * 2**20
    head = "POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    head += {
        "declared": f"content-length: {megabytes * 2**20}",
        "chunked": "transfer-encoding: chunked",
        "lying": "content-length: 64",
    }[kind]
    part = b"%x\r\n%b\r\n" % (len(megabyte), megabyte) if kind == "chunked" else megabyte
    with socket.create_connection((HOST, port), 30) as line:
        line.sendall(f"{head}\r\n\r\n".encode())
        try:
            for _ in range(megabytes):
                line.sendall(part)
        except OSError:
            pass  # it takes no more
        try:
            return line.recv(4096).split(b"\r\n")[0].decode()
        except OSError:
            return "closed"


async def slow(setup: Setup, lines: int = 500, seconds: float = 12) -> dict[str, Any]:
    """The steady load, in turns alone and beside connections that send a byte a second, for ever."""
    found: dict[str, list[dict[str, Any]]] = {"alone": [], "beside": []}
    opened = []
    with setup.served() as server:
        for turn in range(2):
            for name in found:
                trickling = [asyncio.create_task(trickle(server.port)) for _ in range(lines)]
                if name == "alone":
                    for one in trickling:
                        one.cancel()
                else:
                    await asyncio.sleep(1)
                    opened.append(established(server.port))
                before = await asyncio.to_thread(server.counted)
                crowd = setup.singles(server.port)
                await crowd.arrive(RATE, seconds, seed=turn)
                tally = await crowd.over()
                found[name].append(tally.told(await asyncio.to_thread(server.counted) - before))
                for one in trickling:
                    one.cancel()
                await asyncio.gather(*trickling, return_exceptions=True)
    p99 = {
        name: round(float(np.median([one["p99_ms"] for one in runs])), 2) for name, runs in found.items()
    }
    outcomes = _summed_outcomes(found["beside"])
    return {
        "lines": lines,
        "established": min(opened),
        "wrong": sum(one["wrong"] for runs in found.values() for one in runs),
        "p99_ms": p99,
        "ratio": round(p99["beside"] / p99["alone"], 2),
        "outcomes": outcomes,
    }


async def trickle(port: int) -> None:
    """Headers that never end; opened again when the server has had enough."""
    while True:
        try:
            reader, writer = await asyncio.open_connection(HOST, port)
            writer.write(b"POST /predict HTTP/1.1\r\nhost: x\r\nx-slow: ")
            try:
                while not reader.at_eof():
                    writer.write(b"x")
                    await asyncio.sleep(1)
            finally:
                writer.close()
        except OSError:
            await asyncio.sleep(1)


def _summed(tallies: Sequence[Tally]) -> Tally:
    total = Tally()
    for one in tallies:
        total.due += one.due
        total.outcomes += one.outcomes
        total.wrong += one.wrong
        total.seconds += one.seconds
    return total


def _summed_outcomes(told: Sequence[dict[str, Any]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for one in told:
        total.update(one["outcomes"])
    return dict(total)


RUNS: dict[str, Callable[[Setup], Any]] = {
    "throughput": throughput,
    "steady": steady,
    "overload": overload,
    "sigterm": sigterm,
    "restarts": restarts,
    "large": large,
    "slow": slow,
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle", type=Path, nargs="?", default=Path("models/release/standin"))
    parser.add_argument("--tokens", type=int, default=31, help="a text")
    parser.add_argument("--batch", type=int, default=32, help="texts a request of the batch form")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--only", nargs="+", choices=RUNS, default=list(RUNS))
    given = parser.parse_args()
    threads = [] if given.threads is None else ["--threads", str(given.threads)]
    predictor = Predictor.load(given.bundle, threads=given.threads)
    texts = different(given.tokens, 8 * given.batch, predictor.tokens)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        setup = Setup(given.bundle, Path(folder), predictor, threads, texts, given.batch)
        for name in given.only:
            found[name] = _run(RUNS[name](setup))
            print(
                f"{name:12}" + "  ".join(f"{key} {value}" for key, value in found[name].items()),
                flush=True,
            )
    print(json.dumps({"machine": latency.machine(given.threads), "tokens": given.tokens, **found}))


def _run(measured: Any) -> dict[str, Any]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(measured)


if __name__ == "__main__":
    main()
