"""Runs a release bundle with onnxruntime and tokenizers alone: no torch, no transformers, no pickle."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from tokenizers import Tokenizer

from undertone.errors import Problem
from undertone.files import sha256
from undertone.labels import LabelSpace, Scores, activated
from undertone.text import cleaned

MANIFEST = "manifest.json"
_SEAL = "digest"  # the manifest's own, and its last entry


class Predictor:
    """Texts in, scores and labels out.

    Texts run one at a time: dynamic int8 scales its activations over the whole batch, so a text's
    score would depend on its neighbours, and on a CPU a batch of one is as fast (no padding).
    """

    def __init__(
        self, session: ort.InferenceSession, tokenizer: Tokenizer, space: LabelSpace, prefix: str
    ) -> None:
        self.space = space
        self._session = session
        self._tokenizer = tokenizer
        self._prefix = prefix
        self._inputs = [one.name for one in session.get_inputs()]

    @classmethod
    def load(cls, folder: Path, *, variant: str | None = None, threads: int | None = None) -> Self:
        """The bundle in `folder`, in the variant that its manifest names unless another is asked for.

        `Problem`, before anything is loaded, where a file is missing, not the one that the manifest's
        digest names, or more than it names.
        """
        manifest = read_manifest(folder)
        _refuse_strangers(folder, manifest)
        chosen = variant or manifest["variant"]
        if chosen not in manifest["variants"]:
            raise Problem(
                f"no variant '{chosen}', it has {', '.join(manifest['variants'])}", where=str(folder)
            )
        graph = manifest["variants"][chosen]["file"]
        for name in (graph, "tokenizer.json", "labels.json"):
            verify(folder / name, manifest["sha256"].get(name))
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.enable_truncation(manifest["max_length"])
        return cls(
            open_session(folder / graph, threads=threads),
            tokenizer,
            LabelSpace.load(folder / "labels.json"),
            manifest["prefix"],
        )

    def scores(self, texts: Sequence[str]) -> Scores:
        """[n, labels], 0..1, calibrated, in the order of `texts`; they don't depend on each other.

        Texts are cleaned as those were that the model learnt from.
        """
        logits = np.zeros((len(texts), len(self.space.labels)))
        encoded = self._tokenizer.encode_batch_fast([self._prefix + cleaned(text) for text in texts])
        for row, one in enumerate(encoded):
            logits[row] = self._session.run(None, self._feed(one))[0][0]
        return self.space.calibrated(activated(logits, many=self.space.many))

    def predict(self, texts: Sequence[str]) -> list[dict[str, Any]]:
        """For each text `labels` (ids, none or several where the codebook allows many), `scores`
        (id → 0..1) and `abstained`: whether the labels are too unsure for the rule it was trained with.
        """
        scores = self.scores(texts)
        decided, abstained = self.space.decide(scores), self.space.abstains(scores)
        return [
            {
                "labels": [label for label, yes in zip(self.space.labels, flags, strict=True) if yes],
                "scores": dict(zip(self.space.labels, row.tolist(), strict=True)),
                "abstained": bool(withheld),
            }
            for flags, row, withheld in zip(decided, scores, abstained, strict=True)
        ]

    def tokens(self, text: str) -> int:
        """How many tokens the model sees of `text`."""
        return len(self._tokenizer.encode(self._prefix + text).ids)

    def _feed(self, encoded: Any) -> dict[str, NDArray[np.int64]]:
        given = {
            "input_ids": encoded.ids,
            "attention_mask": encoded.attention_mask,
            "token_type_ids": encoded.type_ids,
        }
        return {name: np.array([given[name]], dtype=np.int64) for name in self._inputs}


def read_manifest(folder: Path) -> dict[str, Any]:
    """What the bundle says of itself; `Problem` where it is not what was written with it."""
    path = folder / MANIFEST
    if not path.is_file():
        raise Problem(
            "no release bundle here",
            where=str(folder),
            remedy="Run `dvc repro export`, or `dvc pull` it.",
        )
    text = path.read_bytes().decode("utf-8", "replace")  # as it stands, line ends too
    try:
        content = json.loads(text)
    except ValueError:
        content = None
    if not isinstance(content, dict) or text != sealed(content):
        raise Problem(
            "not the manifest that was written with the bundle",
            where=str(path),
            remedy="Run `dvc checkout --force` or export again.",
        )
    return content


def sealed(manifest: Mapping[str, Any]) -> str:
    """A manifest's text, with a digest of all that it says: a changed byte of it shows."""
    said = {name: value for name, value in manifest.items() if name != _SEAL}
    digest = hashlib.sha256(json.dumps(said, ensure_ascii=False).encode()).hexdigest()
    return json.dumps({**said, _SEAL: digest}, ensure_ascii=False, indent=2) + "\n"


def _refuse_strangers(folder: Path, manifest: Mapping[str, Any]) -> None:
    """`Problem` unless the folder holds the manifest's files and nothing else: no code, no pickle, no
    link, no weights beside a graph."""
    named = {MANIFEST, *(name for name in manifest["sha256"] if Path(name).suffix in (".json", ".onnx"))}
    strange = sorted(
        path.name
        for path in folder.iterdir()
        if path.name not in named or path.is_symlink() or not path.is_file()
    )
    if strange:
        raise Problem(
            f"{', '.join(strange)}: no file of a bundle, which has graphs and JSON only",
            where=str(folder),
            remedy="Remove it, or run `dvc checkout --force`.",
        )


def verify(path: Path, digest: str | None) -> None:
    """`Problem` unless the file is there and has this sha256."""
    if not path.is_file():
        raise Problem("missing from the bundle", where=str(path))
    if digest is None or sha256(path) != digest:
        raise Problem(
            "not the file that manifest.json describes",
            where=str(path),
            remedy="Run `dvc checkout --force` or export again.",
        )


def open_session(graph: Path, *, threads: int | None) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        # fused with its skip, a layer norm keeps the next product from being quantised in one step
        return ort.InferenceSession(
            graph,
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=["SkipLayerNormFusion"],
        )
    except Exception as error:  # onnxruntime's errors have no common kind
        raise Problem(
            f"onnxruntime can't open it ({type(error).__name__})",
            where=str(graph),
            remedy="Run `dvc checkout --force` or export again.",
        ) from None
