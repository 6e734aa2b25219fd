"""A model in a process of its own: how long from its start to the first answer, and how much memory.

Run as a program it is that process: what to load comes in, and what was seen goes out, as JSON.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from undertone.errors import Problem
from undertone.labels import Scores

_STATUS = Path("/proc/self/status")


def opened(
    folder: Path, *, variant: str | None = None, threads: int | None = None
) -> Callable[[Sequence[str]], Scores]:
    """From texts to scores: a trained model, or a variant of a bundle, which needs neither torch nor
    the models' libraries. `threads` is for a variant; PyTorch's are the process's own."""
    if variant is not None:
        from undertone.deployment.predictor import Predictor

        return Predictor.load(folder, variant=variant, threads=threads).scores
    from undertone import models

    return partial(models.scored, models.load(folder))


def start(
    folder: Path,
    texts: Sequence[str],
    *,
    variant: str | None = None,
    threads: int,
    starts: int = 1,
    seconds: float = 0.0,
) -> dict[str, Any]:
    """`cold_start_ms` until the first text is answered, the median of at most `starts` processes; of
    fewer where those took longer than `seconds`. The files are in the system's cache.

    `loaded_bytes`: the process's memory when the model is loaded; `peak_bytes`: the most until the
    other texts are answered too, in one call. None where the system doesn't tell them (Linux does),
    and all None without a start.
    """
    asked = {"folder": str(folder), "variant": variant, "threads": threads, "texts": list(texts)}
    seen: list[dict[str, Any]] = []
    begun = time.monotonic()
    while len(seen) < starts and (not seen or time.monotonic() - begun < seconds):
        seen.append(_start(json.dumps(asked), threads, folder))
    return {
        "starts": len(seen),
        "cold_start_ms": round(statistics.median(one["cold_start_ms"] for one in seen), 1)
        if seen
        else None,
        "loaded_bytes": seen[0]["loaded_bytes"] if seen else None,
        "peak_bytes": seen[0]["peak_bytes"] if seen else None,
    }


def _start(asked: str, threads: int, folder: Path) -> dict[str, Any]:
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "undertone.deployment.fresh"],
        input=asked,
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Problem(
            f"a process that should load it ended with {done.returncode}",
            where=str(folder),
            remedy="If that is -9, the machine has too little memory for it.",
        )
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    # both processes read the machine's one monotonic clock
    return told | {"cold_start_ms": 1000 * (told["answered"] - started)}


def _memory(name: str) -> int | None:
    """VmRSS (now) or VmHWM (at most) in bytes. Not getrusage's, which begins at the parent's peak."""
    if not _STATUS.is_file():
        return None
    lines = _STATUS.read_text("utf-8").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def main() -> None:
    asked = json.load(sys.stdin)
    run = opened(Path(asked["folder"]), variant=asked["variant"], threads=asked["threads"])
    loaded = _memory("VmRSS")
    run(asked["texts"][:1])
    answered = time.monotonic()
    run(asked["texts"][1:])
    seen = {"answered": answered, "loaded_bytes": loaded, "peak_bytes": _memory("VmHWM")}
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
