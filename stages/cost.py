"""What a text costs with each candidate, measured in one run on one machine, and how large each is."""

from pathlib import Path

from undertone import models, stage
from undertone.deployment import cores, latency
from undertone.files import write_json
from undertone.networks import language
from undertone.params import Params


def main(params: Params, *, trained: Path, out: Path) -> str:
    threads = params.bench.threads or cores.usable()
    latency.set_threads(threads)
    folders = {name: trained / name for name in params.models}
    candidates = {name: models.load(folder) for name, folder in folders.items()}
    words = min(params.bench.lengths)  # nearly a token each, in any vocabulary
    measured = latency.measure(
        {name: one.scores for name, one in candidates.items()},
        {words: latency.texts_of(words, 64, lambda text: len(text.split()))},
        batches=[1],
        repeats=params.bench.repeats,
        seconds=params.bench.seconds,
    )
    costs = {
        row["model"]: {"ms": row["p50_ms"], "bytes": language.weight(folders[row["model"]])}
        for row in measured
    }
    machine = latency.machine(threads)
    write_json(out, {"machine": machine, "words": words, "candidates": costs})
    shown = ", ".join(
        f"{name} {one['ms']:.1f} ms, {one['bytes'] / 1e6:,.0f} MB" for name, one in costs.items()
    )
    return f"a text of {words} words: {shown}"


if __name__ == "__main__":
    stage.run(main)
