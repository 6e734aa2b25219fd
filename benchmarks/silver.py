"""`request` and `collect` on many comments, beside the loose script that they replace.

70,000 comments of 120 characters under a prompt of 1,500 bytes are 140 MB of requests: JSON writes
300 MB/s and parses 200 MB/s, sha256 takes 1.5 GB/s, so about a second each is the floor. The loose
script is what studies publish: it joins prompt and line, writes one file, and takes the first digit of
each answer. It checks nothing, so it is the floor in Python, not a competitor. Each runs in a process
of its own, in turn; seconds are medians.

    python -m benchmarks.silver --rows 70000
"""

import argparse
import json
import multiprocessing
import random
import re
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from undertone.codebook import read_codebook
from undertone.params import Voter
from undertone.voters.request import Ballot

CODEBOOK = Path("codebooks/gender.yaml")


def corpus(rows: int) -> pd.DataFrame:
    rng = random.Random(0)
    words = [f"{one}{two}" for one in ("fair", "pay", "board", "leave") for two in ("", "s", "ing", "?")]
    texts = [" ".join(rng.choices(words, k=20)) for _ in range(rows)]
    return pd.DataFrame({"id": [f"{row:06d}" for row in range(rows)], "text": texts})


def ballot() -> Ballot:

    settings = Voter(
        provider="away",
        model="m",
        prompt="reasoned",
        definitions=True,
        temperature=0.0,
        max_tokens=16,
    )
    return Ballot.of("voter", settings, read_codebook(CODEBOOK))


def request(folder: Path) -> None:
    from undertone.params import Provider
    from undertone.voters import request

    table = pd.read_parquet(folder / "comments.parquet")
    providers = {"away": Provider(url="https://a.b/v1", key="K", lines=5000, bytes=10**9, may_read=[])}
    asked = [ballot()]
    plans = request.plan(table, asked, providers, {}, "files")
    request.write(table, asked, providers, plans, folder / "requests")


def loose_request(folder: Path) -> None:
    prompt = ballot().messages("")[0]["content"]
    table = pd.read_parquet(folder / "comments.parquet")
    with (folder / "loose.jsonl").open("w", encoding="utf-8") as file:
        for id_, text in zip(table["id"], table["text"], strict=True):
            messages = [{"role": "system", "content": prompt}, {"role": "user", "content": text}]
            body = {"model": "m", "messages": messages, "temperature": 0.0, "max_tokens": 16}
            line = {"custom_id": id_, "method": "POST", "url": "/v1/chat/completions", "body": body}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def collect(folder: Path) -> None:
    from undertone.params import Collect
    from undertone.voters import collect

    one = ballot()
    asked = pd.read_parquet(folder / "requests" / "asked.parquet")
    table = pd.read_parquet(folder / "comments.parquet")
    found = collect.collect(asked, folder / "answers", one.codebook, {"voter": one.settings})
    again = Collect(retry=["missing", "provider_error"])
    collect.write(found, folder / "requests", table, one.codebook, again, folder / "collected")


def loose_collect(folder: Path) -> None:
    table = pd.read_parquet(folder / "comments.parquet")
    asked = pd.read_parquet(folder / "requests" / "asked.parquet")
    found = {}
    for path in (folder / "answers").glob("*.jsonl"):
        for line in path.read_text("utf-8").splitlines():
            record = json.loads(line)
            if (body := record["response"]["body"]).get("choices"):
                digits = re.search(r"\d", body["choices"][0]["message"]["content"])
                found[record["custom_id"]] = int(digits[0]) if digits else -1
    table["class"] = asked["custom_id"].map(found).fillna(-1).astype(int)
    table.to_csv(folder / "labelled.csv", index=False)
    table[table["class"] >= 0].to_csv(folder / "purged.csv", index=False)


JOBS: tuple[Callable[[Path], None], ...] = (request, loose_request, collect, loose_collect)


def timed(job: Callable[[Path], None], folder: Path) -> tuple[float, float]:
    """Seconds without imports, and the process's peak memory in MB."""
    import undertone.voters.collect
    import undertone.voters.request  # noqa: F401

    started = time.perf_counter()
    job(folder)
    seconds = time.perf_counter() - started
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def answers(folder: Path) -> None:
    """Every answer different, as after a chain of thought, so that no cache helps; 1 % fail."""
    asked = pd.read_parquet(folder / "requests" / "asked.parquet")
    rng = random.Random(1)
    (folder / "answers").mkdir()
    with (folder / "answers" / "output.jsonl").open("w", encoding="utf-8") as file:
        for row, custom_id in enumerate(asked["custom_id"]):
            said = f"Comment {row} gives its writer's view in the last clause.\nLabel: [{row % 4}]"
            choice = {"message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
            failed = rng.random() < 0.01
            body = {"error": {"code": "x"}} if failed else {"created": 1, "choices": [choice]}
            response = {"status_code": 500 if failed else 200, "request_id": f"r{row}", "body": body}
            line = {"id": f"b{row}", "custom_id": custom_id, "response": response, "error": None}
            file.write(json.dumps(line) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=70_000)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    found: dict[str, list[tuple[float, float]]] = {job.__name__: [] for job in JOBS}
    for _ in range(arguments.repeats):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            corpus(arguments.rows).to_parquet(folder / "comments.parquet")
            for job in JOBS:
                if job is collect:
                    answers(folder)
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    found[job.__name__].append(pool.apply(timed, (job, folder)))
            megabytes = sum(path.stat().st_size for path in (folder / "requests").iterdir()) / 1e6
    seconds = {name: statistics.median(run[0] for run in runs) for name, runs in found.items()}
    memory = {name: max(run[1] for run in runs) for name, runs in found.items()}
    print(f"{arguments.rows:,} comments, {megabytes:.0f} MB of requests, median of {arguments.repeats}")
    print("| job | s | slowest | peak MB | × the loose script |")
    print("|---|---|---|---|---|")
    for name, runs in found.items():
        ratio = seconds[name] / seconds["loose_" + name.removeprefix("loose_")]
        slowest = max(run[0] for run in runs)
        print(f"| {name} | {seconds[name]:.2f} | {slowest:.2f} | {memory[name]:.0f} | {ratio:.1f} |")
    print(
        json.dumps(
            {
                "benchmark": "silver",
                "rows": arguments.rows,
                "megabytes": round(megabytes, 1),
                "seconds": {name: round(value, 3) for name, value in seconds.items()},
                "peak_mb": {name: round(value) for name, value in memory.items()},
            }
        )
    )


if __name__ == "__main__":
    main()
