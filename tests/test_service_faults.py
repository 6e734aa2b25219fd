"""The server under load, at its end, and under clients that mean it ill: the runs of `benchmarks.load`,
shorter."""

import asyncio
import dataclasses
import socket
import time
from contextlib import suppress
from typing import Any

import pytest
import uvloop

from benchmarks import load
from tests import tiny
from undertone.deployment.predictor import Predictor

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> load.Setup:
    """A small encoder, for a machine that does other things too."""
    folder = tmp_path_factory.mktemp("faults")
    tiny.bundled("e5", folder)
    predictor = Predictor.load(folder / "bundle")
    texts = load.different(16, 32, predictor.tokens)
    return load.Setup(folder / "bundle", folder, predictor, [], texts, batch=8)


def run(measured: Any) -> dict[str, Any]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found: dict[str, Any] = runner.run(measured)
    return found


def test_a_load_it_can_bear_is_answered_rightly_to_the_last_request(setup: load.Setup) -> None:
    told = run(load.steady(setup, seconds=5))
    assert told["accounted"]
    assert told["due"] > 300
    assert told["outcomes"] == {"200": told["due"]}
    assert told["wrong"] == 0


def test_more_than_it_can_bear_is_answered_or_refused_and_nothing_else(setup: load.Setup) -> None:
    small = dataclasses.replace(setup, options=["--queue", "8"])
    told = run(load.overload(small, seconds=5))
    assert told["accounted"]
    assert {*told["outcomes"]} == {"200", "429"}
    assert told["wrong"] == 0


def test_no_request_is_lost_when_it_ends_under_load(setup: load.Setup) -> None:
    told = run(load.sigterm(setup, times=3))
    assert told["accounted"]
    assert {*told["outcomes"]} <= {"200", "held"}
    assert told["outcomes"]["200"] > 100
    assert told["exits"] == [0]


def test_no_request_fails_while_it_is_replaced(setup: load.Setup) -> None:
    told = run(load.restarts(setup, times=2, seconds=18))
    assert told["accounted"]
    assert told["outcomes"] == {"200": told["due"]}
    assert told["exits"] == [0]


def test_a_body_of_300_megabytes_is_refused_and_takes_no_memory(setup: load.Setup) -> None:
    told = run(load.large(setup))
    statuses = {kind: answer.split()[1] for kind, answer in told["answers"].items()}
    assert statuses == {"declared": "413", "chunked": "413", "lying": "400"}
    assert told["peak_growth_mb"] <= 20
    assert {*told["then"]} == {"200"}


def test_500_slow_connections_keep_nobody_from_an_answer(setup: load.Setup) -> None:
    told = run(load.slow(setup, seconds=4))
    assert told["established"] >= 500
    assert told["wrong"] == 0
    assert {*told["outcomes"]} == {"200"}


def test_a_client_that_fetches_no_answer_is_left_after_a_while(setup: load.Setup) -> None:
    asked = b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n" * 10
    with (
        load.served(setup.bundle, setup.folder, "--arrival", "1") as server,
        socket.socket() as line,
    ):
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.connect(("127.0.0.1", server.port))
        line.sendall(asked)
        assert load.established(server.port) == 1
        with suppress(ConnectionError):
            for _ in range(100):  # 10 at a time, or it would end for sending too many ahead
                line.sendall(asked)
                time.sleep(0.03)
        for _ in range(150):
            if not load.established(server.port):
                break
            time.sleep(0.1)
        assert load.established(server.port) == 0
        log = server.log.read_text()
        assert "GET /openapi.json 200" in log
        assert " 400 " not in log


def test_a_flood_of_requests_ahead_takes_no_memory(setup: load.Setup) -> None:
    predict = load.request({"text": setup.texts[0]})
    with load.served(setup.bundle, setup.folder) as server:
        for asked in (b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n", predict):
            before, answered, end = server.memory(), 0, time.monotonic() + 3
            while time.monotonic() < end:
                with socket.create_connection(("127.0.0.1", server.port)) as line, suppress(OSError):
                    line.settimeout(0.5)
                    answered += 1
                    while time.monotonic() < end:
                        line.sendall(asked * 1_000)
            assert answered > 1
            assert server.memory("VmHWM") - before < 40
        assert asyncio.run(load.ready(server.port))
