"""The release bundle: what is in it, and the manifest that leads back to where it came from.

`manifest.json`: the variants and which of them runs by default, a sha256 of every file, digests of
data, codebook and encoder, of the code that made it, the versions of the libraries, and its own digest.
"""

import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from undertone import code, onnx
from undertone.errors import Problem
from undertone.files import sha256, size
from undertone.models import Classifier, Exportable
from undertone.predictor import MANIFEST, read_manifest, sealed

LIBRARIES = ("torch", "transformers", "optimum", "optimum-onnx", "onnx", "onnxruntime", "tokenizers")


def write(
    model: Classifier, folder: Path, *, candidate: str, opset: int, digests: Mapping[str, str]
) -> None:
    """Fill the new folder `folder`; `Problem` where the model is no encoder."""
    if not isinstance(model, Exportable):
        raise Problem("can't be exported", where=candidate)
    folder.mkdir(parents=True)
    graph = model.graph()
    paths = onnx.export(graph, folder, opset=opset)
    shutil.copyfile(graph.tokenizer, folder / "tokenizer.json")
    model.space.save(folder / "labels.json")
    files = sorted(path for path in folder.iterdir() if path.is_file())
    family = Path(f"undertone/models/{model.settings.family}.py")
    _save(
        folder,
        {
            "codebook": model.space.codebook,
            "candidate": candidate,
            "settings": model.settings.model_dump(mode="json"),
            "variant": "int8",
            "variants": {
                variant: {"file": path.name, "bytes": size(path)} for variant, path in paths.items()
            },
            "prefix": graph.prefix,
            "max_length": graph.max_length,
            "sha256": {path.name: sha256(path) for path in files},
            "data": dict(digests),
            "code": code.digest(
                {family, Path("undertone/onnx.py"), *code.reached(family)} - code.PLUMBING
            ),
            "versions": {library: version(library) for library in LIBRARIES},
        },
    )


def add_parity(folder: Path, parities: Mapping[str, Mapping[str, float]]) -> None:
    """Put what was measured against PyTorch on validation beside each variant."""
    manifest = read_manifest(folder)
    for variant, one in parities.items():
        manifest["variants"][variant]["parity"] = dict(one)
    _save(folder, manifest)


def _save(folder: Path, manifest: Mapping[str, Any]) -> None:
    (folder / MANIFEST).write_text(sealed(manifest), encoding="utf-8")
