"""A registered release answers: by `mlflow models serve`, and by `undertone serve models:/…`."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from benchmarks.load import served
from tests.mlflow_server import free_port
from tests.registered import CANARY, RELEASE
from undertone.cli import main
from undertone.deployment.predictor import Predictor

pytestmark = pytest.mark.services


@contextmanager
def serving(name: str, log: Path) -> Iterator[str]:
    """Its address, once /ping answers."""
    port = free_port()
    options = ["--env-manager", "local", "--port", str(port), "--workers", "1"]
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "models", "serve", "-m", name, *options],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        end = time.monotonic() + 120
        while True:
            try:
                urlopen(f"{address}/ping", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None, log.read_text()[-3000:]
                assert time.monotonic() < end, log.read_text()[-3000:]
                time.sleep(0.3)
        yield address
    finally:
        os.killpg(process.pid, 9)
        process.wait()


def asked(address: str, content: object) -> Any:
    request = Request(
        address,
        json.dumps(content).encode(),
        {"Content-Type": "application/json"},
    )
    with urlopen(request, timeout=30) as answer:
        return json.load(answer)


@pytest.mark.usefixtures("repository")
def test_the_release_answers_as_the_predictor_does(tmp_path: Path) -> None:
    texts = ["good day", "bad day", f"good {CANARY}"]
    expected = [
        {"label": row["labels"][0], "abstained": row["abstained"], **row["scores"]}
        for row in Predictor.load(RELEASE).predict(texts)
    ]
    log = tmp_path / "log"
    with serving("models:/gender@release", log) as address:
        assert asked(f"{address}/invocations", {"inputs": texts})["predictions"] == expected
        table = {"columns": ["id", "text"], "data": [[n, text] for n, text in enumerate(texts)]}
        told = asked(f"{address}/invocations", {"dataframe_split": table})
        assert told["predictions"] == expected
        table = {"columns": ["a", "b"], "data": [[CANARY, 7]]}
        empty = asked(f"{address}/invocations", {"inputs": [*texts, ""]})["predictions"]
        assert empty == [*expected, {**dict.fromkeys(expected[0]), "label": "", "abstained": False}]
        with pytest.raises(HTTPError) as refused:
            asked(f"{address}/invocations", {"dataframe_split": table})
        assert CANARY not in refused.value.read().decode()
    assert CANARY not in log.read_text()


@pytest.mark.usefixtures("repository")
def test_a_registered_release_is_fetched_checked_and_named(tmp_path: Path) -> None:
    with served("models:/gender@release", tmp_path) as running:
        with urlopen(f"http://127.0.0.1:{running.port}/info") as answer:
            assert json.load(answer)["version"] == "gender/3"
        told = asked(f"http://127.0.0.1:{running.port}/predict", {"texts": ["good", "bad day"]})
        assert told["results"] == Predictor.load(RELEASE).predict(["good", "bad day"])


@pytest.mark.usefixtures("repository")
def test_the_command_line_takes_a_registered_release(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "--bundle", "models:/gender@release", "--text", "good"]) == 0
    assert [json.loads(capfd.readouterr().out)] == Predictor.load(RELEASE).predict(["good"])


@pytest.mark.usefixtures("repository")
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("models:/gender@champion", "is a candidate, and no release"),
        ("models:/gender@x", "no alias 'x'"),
    ],
)
def test_what_is_no_registered_release_is_told_in_one_line(
    name: str, told: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", name, "--port", "0"]) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert told in line
