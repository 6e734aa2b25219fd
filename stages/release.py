"""The fastest variant that decides as PyTorch does, as a bundle that anyone can run."""

from pathlib import Path

from undertone import stage
from undertone.deployment import latency, release
from undertone.deployment.predictor import read_manifest
from undertone.files import read_json, whole, write_json
from undertone.params import Params


def main(params: Params, *, variants: Path, measured: Path, out: Path, chosen: Path) -> str:
    found = read_json(measured)
    rows = found["rows"]
    released = release.choose(read_manifest(variants), rows, params.export.choose, found["family"])
    model = f"onnx-{released['variant']}"
    verdict = latency.verdict(rows, model, params.bench.p95_ms)
    with whole(out) as folder:
        release.write(variants, folder, released["runs"])
    write_json(chosen, {**released, "target": verdict})
    return f"{release.told(released)}; {latency.told(rows, model, verdict)}"


if __name__ == "__main__":
    stage.run(main)
