"""Bundles: a folder of ONNX graphs, and the manifest that leads back to where they came from.

The export's holds every variant, the release's those that were chosen. `manifest.json`: the variants and
which of them runs on which CPUs, a sha256 of every file, digests of data, codebook and encoder, of the
code that made it, the versions of the libraries, and its own digest.
"""

import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from undertone import code
from undertone.deployment import onnx
from undertone.deployment.predictor import read_manifest, seal
from undertone.errors import Problem
from undertone.files import size
from undertone.models import Classifier, Exportable

LIBRARIES = (
    "torch",
    "transformers",
    "optimum",
    "optimum-onnx",
    "onnx",
    "onnxruntime",
    "openvino",
    "tokenizers",
)


def write(
    model: Classifier,
    folder: Path,
    *,
    candidate: str,
    opset: int,
    calibration: Sequence[str],
    digests: Mapping[str, str],
) -> None:
    """Fill the new folder `folder` with every variant; `Problem` where the model is no encoder."""
    if not isinstance(model, Exportable):
        raise Problem("can't be exported", where=candidate)
    folder.mkdir(parents=True)
    graph = model.graph()
    paths = onnx.export(graph, folder, opset=opset, calibration=calibration)
    shutil.copyfile(graph.tokenizer, folder / "tokenizer.json")
    model.space.save(folder / "labels.json")
    family = Path(f"undertone/models/{model.settings.family}.py")
    exporter = Path("undertone/deployment/onnx.py")
    manifest = {
        "codebook": model.space.codebook,
        "candidate": candidate,
        "settings": model.settings.model_dump(mode="json"),
        "runs": {},
        "variants": {
            variant: {
                "file": path.name,
                "bytes": size(path),
                "backend": onnx.VARIANTS[variant].backend,
                "families": list(onnx.VARIANTS[variant].families),
            }
            for variant, path in paths.items()
        },
        "prefix": graph.prefix,
        "max_length": graph.max_length,
        "data": dict(digests),
        "code": code.digest(
            {family, exporter, *code.reached(family), *code.reached(exporter)} - code.PLUMBING
        ),
        "versions": {library: version(library) for library in LIBRARIES},
    }
    seal(folder, manifest)


def add_parity(folder: Path, parities: Mapping[str, Mapping[str, Any]]) -> None:
    """Put what was measured against PyTorch on validation beside each variant."""
    manifest = read_manifest(folder)
    for variant, one in parities.items():
        manifest["variants"][variant]["parity"] = dict(one)
    seal(folder, manifest)
