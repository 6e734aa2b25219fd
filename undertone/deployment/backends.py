"""What runs a bundle's graph: onnxruntime, or OpenVINO for graphs that were quantised for it.

onnxruntime's int8 takes its scales from what it is given at the moment, so that a text's scores would
depend on its neighbours: each text runs by itself, and has the same scores in any company, bit for bit.
That costs nothing, as these products gain nothing from a batch and there is no padding. OpenVINO's
scales are fixed and its products gain up to 2.7 times: texts of like length share a run. There a text's
scores move with the last bits, which may turn a rounding: by less than 0.001 on 878 comments.
"""

import math
import sys
import threading
import time
from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from undertone.errors import Problem

Name = Literal["onnxruntime", "openvino"]
Ids = Sequence[Sequence[int]]  # token ids of each text
Logits = NDArray[np.float32]  # [n, labels]

BUDGET = 1024  # tokens a run, padding included; 512 and 2,048 are as fast
# the ONNX graph c = MatMulInteger(a, b), uint8 [1, 64] by int8 [64, 32]
_PRODUCT = b64decode(
    "CAgSADpcChgKAWEKAWISAWMiDU1hdE11bEludGVnZXISAXBaEwoBYRIOCgwIAhIICgIIAQoCCEBaEwoBYhIOCgwIAxIICgII"
    "QAoCCCBiEwoBYxIOCgwIBhIICgIIAQoCCCBCBAoAEBE="
)
_REMEDY = "Run `dvc checkout --force` or export again."


class Backend(Protocol):
    """An opened graph. Any number of threads may ask at once."""

    def logits(self, ids: Ids) -> Logits:
        """A row for each text, which has at least one token, in their order."""


class OnnxRuntime:
    """A lone text has all `threads`; of several each thread takes one, the longest first."""

    def __init__(self, graph: Path, *, threads: int) -> None:
        self._graph = graph
        self._threads = threads
        self._lone = _session(graph, threads=threads)
        self._single = self._lone if threads == 1 else None  # of one thread, for many texts
        self._opening = threading.Lock()
        self._pool = ThreadPoolExecutor(max(1, threads - 1))
        self._inputs = [one.name for one in self._lone.get_inputs()]

    def logits(self, ids: Ids) -> Logits:
        if len(ids) == 1:
            return self._run(self._lone, ids[0])
        session = self._of_one_thread()
        order = iter(sorted(range(len(ids)), key=lambda row: -len(ids[row])))
        taking = threading.Lock()
        rows: dict[int, Logits] = {}

        def work() -> None:
            while (row := _next(order, taking)) is not None:
                rows[row] = self._run(session, ids[row])

        helpers = [self._pool.submit(work) for _ in range(min(self._threads, len(ids)) - 1)]
        work()
        for one in helpers:
            if not one.cancel():  # it may still wait behind another call's, and there is nothing left
                one.result()
        return np.concatenate([rows[row] for row in range(len(ids))])

    def _of_one_thread(self) -> ort.InferenceSession:
        with self._opening:
            if self._single is None:
                self._single = _session(self._graph, threads=1)
        return self._single

    def _run(self, session: ort.InferenceSession, ids: Sequence[int]) -> Logits:
        logits: Logits = session.run(None, feed([ids], self._inputs))[0]
        return logits


class OpenVino:
    """Texts sorted by length, in runs of at most `BUDGET` tokens."""

    def __init__(self, graph: Path, *, threads: int) -> None:
        # absent for OpenVINO's import: it would report to its maker
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
        try:
            import openvino
        except ImportError:
            raise Problem(
                "was quantised for OpenVINO, which isn't installed",
                where=str(graph),
                remedy="Run `pip install openvino`, or take another variant.",
            ) from None
        try:
            compiled = openvino.Core().compile_model(
                graph,
                "CPU",
                {
                    "PERFORMANCE_HINT": "LATENCY",
                    "INFERENCE_NUM_THREADS": threads,
                    "INFERENCE_PRECISION_HINT": "f32",  # what isn't int8; else bf16 where the CPU has it
                },
            )
        except Exception as error:  # OpenVINO's errors have no common kind
            what = f"OpenVINO can't open it ({type(error).__name__})"
            raise Problem(what, where=str(graph), remedy=_REMEDY) from None
        self._request: Any = compiled.create_infer_request()
        self._inputs = [one.get_any_name() for one in compiled.inputs]
        self._running = threading.Lock()  # a request holds the tensors of one run

    def logits(self, ids: Ids) -> Logits:
        rows: dict[int, Logits] = {}
        for run in _batches([len(one) for one in ids]):
            given = feed([ids[row] for row in run], self._inputs)
            with self._running:
                found = self._request.infer(given)
                logits = np.array(next(iter(found.values())))
            rows.update(zip(run, logits, strict=True))
        return np.stack([rows[row] for row in range(len(ids))])


def opened(backend: Name, graph: Path, *, threads: int) -> Backend:
    """`Problem` where the backend isn't installed or can't open the graph."""
    kind: type[OnnxRuntime] | type[OpenVino] = OpenVino if backend == "openvino" else OnnxRuntime
    return kind(graph, threads=threads)


def installed(backend: Name) -> bool:
    return find_spec(backend) is not None


def fastest(running: Mapping[str, Backend], max_length: int) -> str:
    """Which of them is the fastest here, by a lone text of 12, 31 and 128 tokens, in turns."""
    taken = dict.fromkeys(running, 0.0)
    for length in (12, 31, 128):
        text = [[0] * min(length, max_length)]
        best = dict.fromkeys(running, math.inf)
        for turn in range(-2, 8):
            for name, one in running.items():
                started = time.perf_counter()
                one.logits(text)
                if turn >= 0:
                    best[name] = min(best[name], time.perf_counter() - started)
        for name, seconds in best.items():
            taken[name] += math.log(seconds)
    return min(taken, key=lambda name: taken[name])


@cache
def exact() -> bool:
    """Whether onnxruntime multiplies 8-bit weights without overflow on this CPU: it is asked for the
    largest product. No list of a CPU's features says so on every system and in every emulation."""
    session = ort.InferenceSession(_PRODUCT, providers=["CPUExecutionProvider"])
    most, weights = np.full((1, 64), 255, dtype=np.uint8), np.full((64, 32), 127, dtype=np.int8)
    return bool((session.run(None, {"a": most, "b": weights})[0] == 64 * 255 * 127).all())


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Rows of like length, the longest first, at most `BUDGET` tokens together or one text."""
    run: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if run and lengths[run[0]] * (len(run) + 1) > BUDGET:
            yield run
            run = []
        run.append(row)
    if run:
        yield run


def feed(ids: Ids, names: Sequence[str]) -> dict[str, NDArray[np.int64]]:
    """A graph's inputs of these `names`, each [n, longest], padded at the end."""
    width = max(len(one) for one in ids)
    given = np.zeros((len(ids), width), dtype=np.int64)
    mask = np.zeros_like(given)
    for row, one in enumerate(ids):
        given[row, : len(one)] = one
        mask[row, : len(one)] = 1
    known = {"input_ids": given, "attention_mask": mask, "token_type_ids": np.zeros_like(given)}
    return {name: known[name] for name in names}


def _next(order: Iterator[int], taking: threading.Lock) -> int | None:
    with taking:
        return next(order, None)


def _session(graph: Path, *, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    # waiting threads may spin while a text runs, not between texts: the cores may be shared
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        # fused with its skip, a layer norm keeps the next product from being quantised in one step
        return ort.InferenceSession(
            graph,
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=["SkipLayerNormFusion"],
        )
    except Exception as error:  # onnxruntime's errors have no common kind
        what = f"onnxruntime can't open it ({type(error).__name__})"
        raise Problem(what, where=str(graph), remedy=_REMEDY) from None
