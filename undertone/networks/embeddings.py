"""Sentence vectors of many texts, kept on this machine, so that no text is read twice.

What is kept holds digests of texts, and never a text. It is as private as they are: much of a short text
can be told from its vector (Morris, Kuleshov, Shmatikov & Rush 2023, "Text embeddings reveal (almost) as
much as text"). So it lies below data/, which git ignores, and outside what DVC tracks: nothing sends it.
"""

import hashlib
import io
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from undertone.files import remove, whole
from undertone.networks import bases, encoder
from undertone.params import Search

KEPT = Path("data/.embeddings")  # in the repository's folder
CHUNK = 2048  # texts a file: what a kill can lose
DIGEST = 32  # bytes

Vectors = NDArray[np.float32]  # [n, width], each of length one


def embed(texts: Sequence[str], settings: Search, kept: Path) -> Vectors:
    """The vectors of `texts`, in their order; what the folder `kept` lacks is computed and joins it.

    What is kept is found by the digest of the text, under one of all that makes a vector: the base's
    bytes, prefix, pooling and length. A kill loses the file that was being written, and no other.
    """
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "base"
        made = bases.materialise(settings.base, base)["sha256"]
        how = settings.model_dump(include={"pooling", "prefix", "max_length"})
        own = kept / hashlib.sha256(json.dumps([made, how]).encode()).hexdigest()
        names = [hashlib.sha256(text.encode()).digest() for text in texts]
        found = _read(own)
        new = {name: text for name, text in zip(names, texts, strict=True) if name not in found}
        if new:
            found |= _computed(new, base, settings, own)
    return np.stack([found[name] for name in names]) if names else np.zeros((0, 0), np.float32)


def _computed(
    texts: Mapping[bytes, str], base: Path, settings: Search, own: Path
) -> dict[bytes, Vectors]:
    """Digest → vector of texts that are read now, written to `own` file by file."""
    tokenizer = encoder.load_tokenizer(base)
    backbone = encoder.load_backbone(base, max_length=settings.max_length)
    model = encoder.PooledClassifier(backbone, 1, pooling=settings.pooling, normalise=True).eval()
    names = list(texts)
    found: dict[bytes, Vectors] = {}
    with tqdm(total=len(names), desc="embedded", unit=" texts", disable=None) as bar:
        for start in range(0, len(names), CHUNK):
            chunk = names[start : start + CHUNK]
            vectors = encoder.run(
                [settings.prefix + texts[name] for name in chunk],
                tokenizer,
                lambda batch: model.embed(**batch),
                max_length=settings.max_length,
                width=model.config.hidden_size,
            )
            _write(chunk, vectors, own)
            found |= zip(chunk, vectors, strict=True)
            bar.update(len(chunk))
    return found


def _write(names: Sequence[bytes], vectors: Vectors, own: Path) -> None:
    """One more file in `own`, called by the sha256 of its bytes."""
    rows = np.empty(len(names), dtype=[("text", "u1", (DIGEST,)), ("vector", "f4", vectors.shape[1:])])
    rows["text"] = np.frombuffer(b"".join(names), np.uint8).reshape(-1, DIGEST)
    rows["vector"] = vectors
    content = io.BytesIO()
    np.save(content, rows)
    with whole(own / f"{hashlib.sha256(content.getvalue()).hexdigest()}.npy") as beside:
        beside.write_bytes(content.getvalue())


def _read(own: Path) -> dict[bytes, Vectors]:
    """Digest → vector. A file that doesn't hold the bytes of its name goes: its texts are read anew."""
    found: dict[bytes, Vectors] = {}
    for path in sorted(own.glob("*.npy")):
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != path.stem:
            remove(path)
            continue
        rows = np.load(io.BytesIO(content))
        found |= zip(map(bytes, rows["text"]), rows["vector"], strict=True)
    return found
