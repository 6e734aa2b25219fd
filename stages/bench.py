"""Latency of the encoder and of every ONNX variant of it, in one run on one machine."""

from pathlib import Path

from undertone import latency, models, stage
from undertone.files import size, write_json
from undertone.params import Params
from undertone.predictor import Predictor, read_manifest


def main(params: Params, *, encoder: Path, release: Path, out: Path) -> str:
    settings = params.bench
    latency.set_threads(settings.threads)
    variants = {
        f"onnx-{variant}": Predictor.load(release, variant=variant, threads=settings.threads)
        for variant in read_manifest(release)["variants"]
    }
    name, own = str(read_manifest(release)["candidate"]), models.load(encoder)
    counter = next(iter(variants.values()))
    # a longer text is cut: it would be measured under a length that it doesn't have
    longest = int(read_manifest(release)["max_length"])
    lengths = sorted({min(length, longest) for length in settings.lengths})
    measured = latency.measure(
        {name: own.scores, **{variant: one.scores for variant, one in variants.items()}},
        {length: latency.texts_of(length, 64, counter.tokens) for length in lengths},
        batches=settings.batches,
        repeats=settings.repeats,
    )
    sizes = {
        name: size(encoder),
        **{f"onnx-{name}": one["bytes"] for name, one in read_manifest(release)["variants"].items()},
    }
    verdict = latency.verdict(measured, "onnx-int8", settings.p95_ms)
    write_json(
        out,
        {
            "machine": latency.machine(settings.threads),
            "release": "onnx-int8",
            "target": verdict,
            "bytes": sizes,
            "rows": measured,
        },
    )
    return latency.told(measured, "onnx-int8", verdict)


if __name__ == "__main__":
    stage.run(main)
