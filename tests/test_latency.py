"""Who is measured, for how long, and in what: this process, in turns, or one of its own."""

import json
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests import tiny
from undertone import models
from undertone.deployment import cores, fresh, latency
from undertone.errors import Problem
from undertone.files import remove

Runner = Callable[[Sequence[str]], object]
TEXTS = {3: ["a b c"] * 4}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that the module sees, which only what is in the list lets pass."""
    passed = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: sum(passed))
    return passed


def taking(clock: list[float], *seconds: float) -> Runner:
    """A runner whose calls take so long, from the first again after the last."""
    calls = iter(range(10**9))
    return lambda _: clock.append(seconds[next(calls) % len(seconds)])


def test_texts_of_a_length_have_that_length_and_differ() -> None:
    texts = latency.texts_of(12, 10, lambda text: len(text.split()))
    assert {len(text.split()) for text in texts} == {12}
    assert len(set(texts)) == 10


def test_every_runner_is_measured_at_every_length_and_batch() -> None:
    seen: list[int] = []
    rows = latency.measure(
        {"one": lambda texts: seen.append(len(texts)), "two": lambda _: None},
        TEXTS | {5: ["a b c d e"] * 4},
        batches=[1, 8],
        repeats=5,
    )
    found = {(row["model"], row["tokens"], row["batch"]) for row in rows}
    assert len(rows) == len(found) == 8
    assert set(seen) == {1, 8}
    assert all(row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"] for row in rows)


def test_a_slow_model_is_called_less_often_but_in_every_round(clock: list[float]) -> None:
    runners = {"fast": taking(clock, 0.001), "slow": taking(clock, 2.0), "able": taking(clock, 0.1)}
    rows = latency.measure(runners, TEXTS, batches=[1], repeats=30, seconds=1.5)
    found = {row["model"]: row for row in rows}
    # each round has half a second: 0.1 s six times, of which two warm up
    assert {name: row["calls"] for name, row in found.items()} == {"fast": 30, "slow": 3, "able": 12}
    assert found["slow"]["p50_ms"] == pytest.approx(2000)
    assert found["slow"]["comments_per_second"] == pytest.approx(0.5)
    unbounded = latency.measure(runners, TEXTS, batches=[1], repeats=30)
    assert {row["calls"] for row in unbounded} == {30}


def test_the_first_calls_of_a_round_are_not_counted(clock: list[float]) -> None:
    waking = taking(clock, *[9.0] * latency.WARM_UP, *[0.01] * 10)
    row = latency.measure({"one": waking}, TEXTS, batches=[1], repeats=30)[0]
    assert row["calls"] == 30
    assert row["p99_ms"] == pytest.approx(10)


def test_the_batch_that_answers_most_is_named(clock: list[float]) -> None:
    def runner(texts: Sequence[str]) -> None:
        clock.append({1: 0.01, 8: 0.04, 32: 0.32}[len(texts)])

    rows = latency.measure({"one": runner}, TEXTS, batches=[1, 8, 32], repeats=30)
    best = latency.fastest_batch(rows, "one", 3)
    assert (best["batch"], best["comments_per_second"]) == (8, pytest.approx(200))


def test_a_missed_latency_target_is_said() -> None:
    rows = [
        {"model": "m", "tokens": length, "batch": 1, "p50_ms": 1.0, "p95_ms": p95}
        for length, p95 in ((12, 2.0), (128, 9.0))
    ]
    assert latency.verdict(rows, "m", None) is None
    assert latency.verdict(rows, "m", 10.0) == {"p95_ms": 10.0, "slowest_p95_ms": 9.0, "passed": True}
    missed = latency.verdict(rows, "m", 5.0)
    assert missed is not None
    assert not missed["passed"]
    assert latency.told(rows, "m", missed).endswith("target MISSED")


def test_the_machine_is_described_without_its_name() -> None:
    told = latency.machine(None)
    assert told["threads"] == cores.usable()
    assert told["processor"]
    assert {"torch", "onnxruntime"} <= set(told["versions"])
    assert platform.node() not in json.dumps(told)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the family that starts soonest."""
    folder = tmp_path_factory.mktemp("saved")
    model = models.create(tiny.SETTINGS["tfidf"], tiny.space(), tiny.start("tfidf", folder))
    model.fit(tiny.examples(60), tiny.examples(20, seed=1), lambda *_: None, folder / "state")
    remove(folder / "state")
    models.save(model, folder / "model", models.Recipe("tiny", model.settings, "code"))
    return folder / "model"


def test_a_cold_start_and_its_memory_are_those_of_a_process_of_its_own(saved: Path) -> None:
    ballast = bytearray(b"x") * 600_000_000  # a child that counted its parent's memory would show it
    seen = fresh.start(saved, ["one", "two", "three"], threads=1)
    assert len(ballast) > seen["peak_bytes"] >= seen["loaded_bytes"] > 20_000_000
    assert seen["starts"] == 1
    assert seen["cold_start_ms"] > 50  # no interpreter starts sooner


def test_quick_starts_are_repeated_and_none_is_fine_too(saved: Path) -> None:
    assert fresh.start(saved, ["one", "two"], threads=1, starts=2, seconds=60.0)["starts"] == 2
    nothing = fresh.start(saved, ["one", "two"], threads=1, starts=0)
    assert nothing == {"starts": 0, "cold_start_ms": None, "loaded_bytes": None, "peak_bytes": None}


def test_a_model_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    with pytest.raises(Problem, match=rf"^{tmp_path}: a process that should load it ended with 1"):
        fresh.start(tmp_path, ["one"], threads=1)
