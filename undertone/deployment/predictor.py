"""Runs a bundle with onnxruntime (or OpenVINO) and tokenizers: no torch, no transformers, no pickle."""

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from tokenizers import Tokenizer

from undertone.corpus.cells import UNUSABLE
from undertone.deployment import backends, cores
from undertone.errors import Problem
from undertone.files import sha256
from undertone.labels import LabelSpace, Scores, activated, answered
from undertone.text import cleaned

MANIFEST = "manifest.json"
FASTEST = "fastest"  # in place of a variant's name
_NEEDED = {"runs", "variants", "sha256", "prefix", "max_length"}
_SEAL = "digest"  # the manifest's own, and its last entry

Long = Literal["cut", "refuse"]
Error = Literal["empty", "broken_character", "too_long", "no_answer"]
Family = Literal["avx512_vnni", "avx2", "arm64"]


@dataclass(frozen=True)
class Read:
    """What the tokenizer made of a text: `ids`, and whether its end was `cut` off; or the `error` that
    keeps it from being judged."""

    ids: Sequence[int]
    cut: bool
    error: Error | None


class Predictor:
    """Texts in, scores and labels out; any number of threads may ask at once.

    A text's scores don't depend on the others that it comes with (see `backends`).
    """

    def __init__(
        self,
        backend: backends.Backend,
        tokenizer: Tokenizer,
        space: LabelSpace,
        manifest: Mapping[str, Any],
        *,
        variant: str,
        threads: int,
        long: Long,
    ) -> None:
        self.space = space
        self.manifest = manifest
        self.variant = variant
        self.max_length = int(manifest["max_length"])
        self.threads = threads
        self._backend = backend
        self._tokenizer = tokenizer
        self._prefix = str(manifest["prefix"])
        self.long = long

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        variant: str | None = None,
        threads: int | None = None,
        long: Long = "cut",
    ) -> Self:
        """The bundle in `folder`, in the first variant that its manifest names for this CPU and whose
        backend is installed, unless another is asked for; on `threads` cores, by default all.

        `variant` FASTEST measures those that are named for this CPU, and takes the fastest here.

        A text of more than the model's `max_length` tokens is cut or refused. `Problem`, before anything
        is loaded, where a file is missing, not the one that the manifest's digest names, or more than
        it names.
        """
        manifest = read_manifest(folder)
        _refuse_strangers(folder, manifest)
        names = _named(folder, manifest, variant)
        variants = {name: manifest["variants"][name] for name in names}
        for file in ("tokenizer.json", "labels.json", *(one["file"] for one in variants.values())):
            verify(folder / file, manifest["sha256"].get(file))
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.enable_truncation(manifest["max_length"])
        space = LabelSpace.load(folder / "labels.json")
        threads = threads or cores.usable()
        running = {
            name: backends.opened(one["backend"], folder / one["file"], threads=threads)
            for name, one in variants.items()
        }
        chosen = backends.fastest(running, manifest["max_length"]) if len(running) > 1 else names[0]
        return cls(
            running[chosen],
            tokenizer,
            space,
            manifest,
            variant=chosen,
            threads=threads,
            long=long,
        )

    def read(self, texts: Sequence[str]) -> list[Read]:
        """What the model sees of each text, in one call of the tokenizer.

        Texts are cleaned as those were that the model learnt from; a text of which nothing is left is
        empty. One that holds what is no character, as ingest sees it, isn't read.
        """
        clean = [None if UNUSABLE.search(text) else cleaned(text) for text in texts]
        encoded = self._tokenizer.encode_batch_fast([self._prefix + (text or "") for text in clean])
        found = []
        for text, one in zip(clean, encoded, strict=True):
            cut = bool(one.overflowing)
            error: Error | None = None
            if text is None:
                error = "broken_character"
            elif not text:
                error = "empty"
            elif cut and self.long == "refuse":
                error = "too_long"
            found.append(Read(one.ids, cut, error))
        return found

    def scores(self, texts: Sequence[str]) -> Scores:
        """[n, labels], 0..1, calibrated, in the order of `texts`.

        A row of NaN is a text that isn't judged: an empty one, a refused one, or one without an answer.
        """
        return self._scores(self.read(texts))

    def predict(self, texts: Sequence[str]) -> list[dict[str, Any]]:
        """For each text `labels` (ids, none or several where the codebook allows many), `scores`
        (id → 0..1), `abstained` (the labels are too unsure for the rule it was trained with), `tokens`,
        `cut`, and `error`: None, or with neither labels nor scores "empty", "broken_character" (NUL, or
        half of a surrogate pair), "too_long" or "no_answer" (the model's scores are no numbers).
        """
        read = self.read(texts)
        scores = self._scores(read)
        decided, abstained = self.space.decide(scores), self.space.abstains(scores)
        judged, labels = answered(scores), self.space.labels
        return [
            {
                "labels": [label for label, yes in zip(labels, flags, strict=True) if yes],
                "scores": dict(zip(labels, row.tolist(), strict=True)) if valid else {},
                "abstained": bool(withheld and valid),
                "tokens": len(one.ids),
                "cut": one.cut,
                "error": one.error or (None if valid else "no_answer"),
            }
            for one, flags, row, withheld, valid in zip(
                read, decided, scores, abstained, judged, strict=True
            )
        ]

    def tokens(self, text: str) -> int:
        """How many tokens the model sees of `text`."""
        return len(self._tokenizer.encode(self._prefix + text).ids)

    def _scores(self, read: Sequence[Read]) -> Scores:
        rows = [row for row, one in enumerate(read) if one.error is None]
        scores = np.full((len(read), len(self.space.labels)), np.nan)
        if rows:
            logits = self._backend.logits([read[row].ids for row in rows])
            scores[rows] = activated(logits.astype(np.float64), many=self.space.many)
        return self.space.calibrated(scores)


def family() -> Family:
    """The kind of CPU: `arm64`; `avx512_vnni`, which multiplies 8-bit weights exactly (AVX-VNNI too); or
    `avx2`, where the sum of two such products overflows."""
    if platform.machine().lower() in ("arm64", "aarch64"):
        return "arm64"
    return "avx512_vnni" if backends.exact() else "avx2"


def _named(folder: Path, manifest: Mapping[str, Any], variant: str | None) -> Sequence[str]:
    """The variant to open; with FASTEST several."""
    known = manifest["variants"]
    if variant and variant != FASTEST:
        if variant not in known:
            raise Problem(
                f"no variant '{variant}'", where=str(folder), remedy=f"It has {', '.join(known)}."
            )
        if family() not in known[variant]["families"]:
            raise Problem(
                f"'{variant}' is for {' and '.join(known[variant]['families'])}, this CPU is {family()}",
                where=str(folder),
                remedy="Its scores would be others than those that were measured: name another variant.",
            )
        return [variant]
    meant = manifest["runs"].get(family(), [])
    here = [name for name in meant if backends.installed(known[name]["backend"])]
    if not here:
        wrong = f"none of its variants ({', '.join(known)}) is for {family()} and what is installed"
        raise Problem(wrong, where=str(folder), remedy="Name one.")
    return here if variant == FASTEST else here[:1]


def read_manifest(folder: Path) -> dict[str, Any]:
    """What the bundle says of itself; `Problem` where it is not what was written with it."""
    path = folder / MANIFEST
    if not path.is_file():
        raise Problem(
            "no release bundle here",
            where=str(folder),
            remedy="Run `dvc repro release`, or `dvc pull` it.",
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
    if not content.keys() >= _NEEDED or any(
        "families" not in one for one in content["variants"].values()
    ):
        raise Problem(
            "an older version wrote it",
            where=str(path),
            remedy="Run `dvc repro release`, and register it.",
        )
    return content


def sealed(manifest: Mapping[str, Any]) -> str:
    """A manifest's text, with a digest of all that it says: a changed byte of it shows."""
    said = {name: value for name, value in manifest.items() if name != _SEAL}
    digest = hashlib.sha256(json.dumps(said, ensure_ascii=False, allow_nan=False).encode()).hexdigest()
    return json.dumps({**said, _SEAL: digest}, ensure_ascii=False, indent=2) + "\n"


def seal(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest of a bundle, with a sha256 of every other file in its folder."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name != MANIFEST)
    content = {**manifest, "sha256": {path.name: sha256(path) for path in files}}
    (folder / MANIFEST).write_text(sealed(content), encoding="utf-8")


def _refuse_strangers(folder: Path, manifest: Mapping[str, Any]) -> None:
    """`Problem` unless the folder holds the manifest's files and nothing else: no code, no pickle, no
    link, no weights beside a graph."""
    files = {*manifest["sha256"], *(one["file"] for one in manifest["variants"].values())}
    if elsewhere := sorted(name for name in files if Path(name).name != name):
        raise Problem(f"its manifest names {elsewhere[0]}, which is no file in it", where=str(folder))
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
