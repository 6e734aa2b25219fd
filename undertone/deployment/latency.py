"""How long a text takes, from text to scores, and what machine took it.

Operations a text of `t` tokens: about 2 x parameters of the layers x t, so 0.26 GFLOP for MiniLM
(10.6 M) at 12 tokens; the floor is that over the machine's rate, or at batch 1 the weights' bytes
over the memory's bandwidth, whichever is longer.
"""

import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from undertone.deployment import cores

ROUNDS, WARM_UP = 3, 2
SETTLE = 0.05  # seconds until the last runner's threads sleep
LIBRARIES = ("torch", "transformers", "onnxruntime", "openvino", "tokenizers", "scikit-learn", "numpy")
# Neutral words, so that no private text is needed; nearly all are one token in every vocabulary.
_WORDS = [
    "the",
    "people",
    "at",
    "work",
    "say",
    "that",
    "time",
    "and",
    "money",
    "go",
    "to",
    "some",
    "of",
    "them",
]


def texts_of(tokens: int, count: int, measure: Callable[[str], int]) -> list[str]:
    """`count` different texts of `tokens` tokens each (as near as whole words allow)."""
    texts = []
    for shift in range(count):
        words = [_WORDS[shift % len(_WORDS)]]
        while measure(" ".join(words)) < tokens:
            words.append(_WORDS[(shift + len(words)) % len(_WORDS)])
        texts.append(" ".join(words))
    return texts


def measure(
    runners: dict[str, Callable[[Sequence[str]], object]],
    texts: dict[int, list[str]],
    *,
    batches: Sequence[int],
    repeats: int,
    seconds: float | None = None,
) -> list[dict[str, Any]]:
    """Each runner at each length and batch size: p50, p95 and p99 in ms a call, and comments/s at p50
    (a neighbour's burst on a shared machine would be in the mean of a few calls).

    `repeats` calls at batch 1, fewer for larger batches; a runner that would need more than `seconds`
    for them makes fewer, at least one a round (`calls` says how many). The runners take turns in
    rounds, so that a change of the machine's speed meets all alike; not call by call, because a
    runner's threads spin for a while after its call and would slow the next one's.
    """
    rows = []
    for length, pool in texts.items():
        for batch in batches:
            calls = max(2, repeats // (ROUNDS * max(1, batch // 8)))
            taken: dict[str, list[float]] = {name: [] for name in runners}
            for turn in range(ROUNDS):
                chosen = [
                    [pool[(start + offset) % len(pool)] for offset in range(batch)]
                    for start in range(turn * calls * batch, (turn + 1) * calls * batch, batch)
                ]
                for name, runner in runners.items():
                    time.sleep(SETTLE)
                    taken[name] += _round(runner, chosen, seconds and seconds / ROUNDS)
            for name, times in taken.items():
                p50, p95, p99 = np.percentile(times, (50, 95, 99))
                rows.append(
                    {
                        "model": name,
                        "tokens": length,
                        "batch": batch,
                        "calls": len(times),
                        "p50_ms": round(float(p50), 3),
                        "p95_ms": round(float(p95), 3),
                        "p99_ms": round(float(p99), 3),
                        "comments_per_second": round(1000 * batch / float(p50), 1),
                    }
                )
    return rows


def _round(
    runner: Callable[[Sequence[str]], object], calls: Sequence[Sequence[str]], seconds: float | None
) -> list[float]:
    """Milliseconds of each call after those that warm up; of the first ones alone where `seconds` are
    over, but always of one."""
    times: list[float] = []
    begun = time.perf_counter()
    for texts in [*[calls[0]] * WARM_UP, *calls]:
        started = time.perf_counter()
        runner(texts)
        ended = time.perf_counter()
        times.append(1000 * (ended - started))
        if seconds is not None and ended - begun > seconds and len(times) > 1:
            break
    return times[min(WARM_UP, len(times) - 1) :]


def fastest_batch(rows: Sequence[dict[str, Any]], model: str, tokens: int) -> dict[str, Any]:
    """The row of `model` at this length whose batch answers most comments a second."""
    own = [row for row in rows if row["model"] == model and row["tokens"] == tokens]
    return max(own, key=lambda row: float(row["comments_per_second"]))


def verdict(rows: Sequence[dict[str, Any]], model: str, target: float | None) -> dict[str, Any] | None:
    """Whether `model` stays within `target` ms (p95, batch 1) at every length; None without a target."""
    if target is None:
        return None
    slowest = max(row["p95_ms"] for row in rows if row["model"] == model and row["batch"] == 1)
    return {"p95_ms": target, "slowest_p95_ms": slowest, "passed": slowest <= target}


def told(rows: Sequence[dict[str, Any]], model: str, judged: dict[str, Any] | None) -> str:
    """`onnx-int8 at batch 1: 1.1 / 1.9 / 6.0 ms (p50) for 12 / 31 / 128 tokens`."""
    own = [row for row in rows if row["model"] == model and row["batch"] == 1]
    times = " / ".join(f"{row['p50_ms']:.1f}" for row in own)
    lengths = " / ".join(str(row["tokens"]) for row in own)
    outcome = "" if judged is None else f"; target {'met' if judged['passed'] else 'MISSED'}"
    return f"{model} at batch 1: {times} ms (p50) for {lengths} tokens{outcome}"


def set_threads(threads: int | None) -> None:
    """Let PyTorch and the BLAS libraries use `threads`; None leaves them their own choice."""
    if threads is None:
        return
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(threads)
    threadpool_limits(threads)


def machine(threads: int | None) -> dict[str, Any]:
    """What the numbers were measured on; no host name. `gpu`: where PyTorch runs models on one."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": threads or cores.usable(),
        "gpu": _gpu(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: one for name in LIBRARIES if (one := _version(name))},
    }


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def _gpu() -> str | None:
    torch = sys.modules.get("torch")
    return str(torch.cuda.get_device_name()) if torch and torch.cuda.is_available() else None


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
