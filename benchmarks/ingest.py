"""Reading a workbook: ours (sheets to the checked comments table) against pandas with openpyxl.

70,000 rows of 60 Chinese characters are 11 MB packed, 29 MB of XML. Unpacking runs at 350 MB/s and
expat at 170 MB/s without handlers, so 0.25 s is the floor for any reader that checks its XML; making
350,000 Python strings costs as much again. Each reader runs in a process of its own, in turn,
`--repeats` times; the table shows medians.

    python -m benchmarks.ingest --rows 70000
"""

import argparse
import json
import multiprocessing
import random
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import xlsxwriter

LABELS = ("fair", "cold", "other")


def write(path: Path, rows: int) -> None:
    rng = random.Random(0)
    characters = [chr(code) for code in range(0x4E00, 0x4E00 + 3000)]
    plain = {"strings_to_formulas": False, "strings_to_urls": False, "strings_to_numbers": False}
    with xlsxwriter.Workbook(path, plain) as book:
        sheet = book.add_worksheet("评论")
        dates = book.add_format({"num_format": "yyyy-mm-dd hh:mm"})
        sheet.write_row(0, 0, ["编号", "作者", "时间", "评论", "类别"])
        for row in range(1, rows + 1):
            sheet.write_number(row, 0, row)
            sheet.write_string(row, 1, f"u{rng.randrange(rows // 8 + 1)}")
            sheet.write_datetime(row, 2, datetime(2023, 1, 1) + timedelta(minutes=row), dates)
            sheet.write_string(row, 3, "".join(rng.choices(characters, k=60)))
            sheet.write_string(row, 4, LABELS[row % 3])


def ours(folder: Path) -> int:
    from undertone.codebook import Codebook, Label
    from undertone.corpus import ingest
    from undertone.params import LabelColumns, Source

    codebook = Codebook(
        name="bench",
        title="",
        language="zh",
        labels=[Label(id=label, name=label, definition="-") for label in LABELS],
    )
    labels = LabelColumns(form="name", columns=["类别"])
    source = Source(id="编号", group="作者", time="时间", text="评论", labels=labels)
    return len(ingest.comments(folder, source, "bench", codebook)[0])


def pandas_with_openpyxl(folder: Path) -> int:
    import pandas as pd

    return len(pd.read_excel(folder / "comments.xlsx", engine="openpyxl"))


def pandas_with_calamine(folder: Path) -> int:
    import pandas as pd

    return len(pd.read_excel(folder / "comments.xlsx", engine="calamine"))


READERS: tuple[Callable[[Path], int], ...] = (ours, pandas_with_openpyxl, pandas_with_calamine)


def timed(read: Callable[[Path], int], folder: Path) -> tuple[float, float]:
    """Seconds without imports, and the process's peak memory in MB."""
    import pandas  # noqa: F401

    from undertone.corpus import ingest  # noqa: F401

    started = time.perf_counter()
    read(folder)
    seconds = time.perf_counter() - started
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=70_000)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    found: dict[str, list[tuple[float, float]]] = {read.__name__: [] for read in READERS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder / "comments.xlsx", arguments.rows)
        megabytes = (folder / "comments.xlsx").stat().st_size / 1e6
        for _ in range(arguments.repeats):
            for read in READERS:
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    found[read.__name__].append(pool.apply(timed, (read, folder)))
    print(f"{arguments.rows:,} rows, {megabytes:.1f} MB, median of {arguments.repeats}")
    print("| reader | s | slowest | peak MB | × ours |")
    print("|---|---|---|---|---|")
    seconds = {name: statistics.median(run[0] for run in runs) for name, runs in found.items()}
    memory = {name: max(run[1] for run in runs) for name, runs in found.items()}
    for name, runs in found.items():
        ratio = seconds[name] / seconds["ours"]
        slowest = max(run[0] for run in runs)
        print(f"| {name} | {seconds[name]:.2f} | {slowest:.2f} | {memory[name]:.0f} | {ratio:.1f} |")
    print(
        json.dumps(
            {
                "benchmark": "ingest",
                "rows": arguments.rows,
                "megabytes": round(megabytes, 1),
                "seconds": {name: round(value, 3) for name, value in seconds.items()},
                "peak_mb": {name: round(value) for name, value in memory.items()},
                "times_faster": round(seconds["pandas_with_openpyxl"] / seconds["ours"], 2),
            }
        )
    )


if __name__ == "__main__":
    main()
