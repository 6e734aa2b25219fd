"""Rows a second of `undertone score`: local and on Ray, with one worker and with two, side by side.

A row costs what its text costs: 2 x the layers' parameters x tokens, for MiniLM (10.6 M) and the 29
tokens of an average row here 0.6 GFLOP, which at 280 to 460 GOP/s of int8 a core is 1.3 to 2.2 ms:
at most 450 to 750 rows a second and core. Reading and writing are nothing beside it (0.01 ms a row
to read a CSV twice and write 60 bytes), nor is Ray's work, a message for each part. So two cores give
twice as much, less what they share: memory, the clock, and on one machine Ray's own processes.

Each run is a process of its own, in turn, `--repeats` times; medians. The rate is that between a run
of a fifth of the rows and one of all, the start is what is left: Python, the bundle, and Ray's cluster.
Memory is the peak of the process, for Ray that of the driver alone. All runs must give the same bytes.

    python -m benchmarks.scoring --rows 5000 --bundle models/release/standin
    python -m benchmarks.scoring --rows 1000000 --engines local-2     # constant memory at any size

Prints a table and one JSON line with the same values.
"""

import argparse
import csv
import hashlib
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from undertone.deployment import latency

ENGINES = ("local-1", "local-2", "ray-1", "ray-2")
_RUN = """
import re, sys
from pathlib import Path
from undertone.cli import main
code = main(sys.argv[1:])
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
sys.exit(code)
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--bundle", type=Path, default=Path("models/release/standin"))
    parser.add_argument("--rows-per-part", type=int, default=250)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES)
    given = parser.parse_args()
    sizes = (given.rows // 5, given.rows)
    runs: dict[tuple[str, int], list[tuple[float, float]]] = {}
    digests = set()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for size in sizes:
            write(folder / f"{size}.csv", size)
        for repeat in range(given.repeats):
            for engine in given.engines:
                for size in sizes:
                    out = folder / f"{engine}.{size}.{repeat}"
                    took = timed(folder / f"{size}.csv", out, engine, given)
                    runs.setdefault((engine, size), []).append(took)
                digests.add(digest(out))
    if len(digests) != 1:
        sys.exit(f"the engines gave {len(digests)} different outputs")
    rows = [summed(engine, runs, sizes) for engine in given.engines]
    for row in rows:
        row["times"] = round(row["rows_per_s"] / rows[0]["rows_per_s"], 2)
    print(f"{'':10}{'rows/s':>10}{'':>8}{'start s':>10}{'MB':>8}{'MB at 1/5':>12}")
    for row in rows:
        line = f"{row['engine']:10}{row['rows_per_s']:10,.0f}{row['times']:7.2f}x{row['start_s']:10.1f}"
        print(f"{line}{row['mb']:8,.0f}{row['mb_fifth']:12,.0f}")
    setting = {"rows": given.rows, "rows_per_part": given.rows_per_part, "repeats": given.repeats}
    print(json.dumps({"machine": latency.machine(None), **setting, "runs": rows}))


def write(path: Path, count: int) -> None:
    """Texts of 4 to 120 neutral words, 29 on average, as comments are: many short, few long."""
    rng = random.Random(0)
    words = "the people at work say that time and money go to some of them".split()
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["nr", "text"])
        for row in range(count):
            length = min(120, max(4, round(rng.lognormvariate(3.2, 0.6))))
            table.writerow([row, " ".join(rng.choices(words, k=length))])


def timed(path: Path, out: Path, engine: str, given: argparse.Namespace) -> tuple[float, float]:
    """Seconds of the whole call, and the process's peak of memory in MB."""
    name, workers = engine.split("-")
    command = ["score", str(path), "--out", str(out), "--id", "nr", "--bundle", str(given.bundle)]
    command += ["--engine", name, "--workers", workers, "--rows-per-part", str(given.rows_per_part)]
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", _RUN, *command], check=True, stdout=subprocess.PIPE, text=True
    )
    return time.perf_counter() - began, int(done.stdout.split()[-1]) / 1024


def digest(out: Path) -> str:
    """Of all that was written."""
    files = sorted(out.iterdir())
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def summed(
    engine: str, runs: dict[tuple[str, int], list[tuple[float, float]]], sizes: tuple[int, int]
) -> dict[str, Any]:
    small, large = sizes
    seconds = {size: statistics.median(took for took, _ in runs[engine, size]) for size in sizes}
    memory = {size: statistics.median(peak for _, peak in runs[engine, size]) for size in sizes}
    rate = (large - small) / (seconds[large] - seconds[small])
    return {
        "engine": engine,
        "rows_per_s": round(rate, 1),
        "start_s": round(seconds[small] - small / rate, 2),
        "seconds": round(seconds[large], 2),
        "mb": round(memory[large]),
        "mb_fifth": round(memory[small]),
    }


if __name__ == "__main__":
    main()
