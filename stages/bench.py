"""How fast every candidate and every ONNX variant answers, how soon, and with how much memory; in one
run on one machine."""

from pathlib import Path

from undertone import stage
from undertone.deployment import cores, fresh, latency
from undertone.deployment.predictor import Predictor, family, read_manifest
from undertone.files import write_json
from undertone.networks import language
from undertone.params import Params


def main(params: Params, *, candidates: Path, variants: Path, out: Path) -> str:
    bundle, threads = read_manifest(variants), params.bench.threads or cores.usable()
    latency.set_threads(threads)
    here = [name for name, one in bundle["variants"].items() if family() in one["families"]]
    where = {
        **{name: (candidates / name, None) for name in params.models},
        **{f"onnx-{name}": (variants, name) for name in here},
    }
    # a longer text is cut: it would be measured under a length that it doesn't have
    lengths = sorted({min(length, int(bundle["max_length"])) for length in params.bench.lengths})
    tokens = Predictor.load(variants, variant=here[0], threads=threads).tokens
    batches = sorted({1, *params.bench.batches})
    measured = latency.measure(
        {
            name: fresh.opened(folder, variant=variant, threads=threads)
            for name, (folder, variant) in where.items()
        },
        {length: latency.texts_of(length, 64, tokens) for length in lengths},
        batches=batches,
        repeats=params.bench.repeats,
        seconds=params.bench.seconds,
    )
    first = latency.texts_of(lengths[0], 1, tokens)
    largest = latency.texts_of(lengths[-1], batches[-1], tokens)
    models = {
        name: {
            "bytes": bundle["variants"][variant]["bytes"] if variant else language.weight(folder),
            **fresh.start(
                folder,
                first + largest,
                variant=variant,
                threads=threads,
                starts=params.bench.starts,
                seconds=params.bench.seconds,
            ),
        }
        for name, (folder, variant) in where.items()
    }
    write_json(
        out,
        {
            "machine": latency.machine(threads),
            "family": family(),
            "encoder": bundle["candidate"],
            "models": models,
            "rows": measured,
        },
    )
    single = [row for row in measured if row["batch"] == 1 and row["model"].startswith("onnx-")]
    fastest = min(single, key=lambda row: float(row["p50_ms"]))["model"]
    return f"{len(models)} models; fastest variant: {latency.told(measured, fastest, None)}"


if __name__ == "__main__":
    stage.run(main)
