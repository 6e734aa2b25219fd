"""What the families of language models share: where their base lies, and scores from answers."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from undertone import closed, generation
from undertone.chat import Builder
from undertone.errors import Problem
from undertone.files import read_json, write_json
from undertone.labels import LabelSpace, Scores
from undertone.params import Asked
from undertone.prompts import Instruction

BASE = "start.json"
GENERATED = 16  # rows that are generated for at once


def keep_start(folder: Path, base: Path, instruction: Instruction) -> None:
    """Write into a model's folder what it starts from: its instruction, and where its base lies.

    The base isn't copied: it may have gigabytes, and every candidate on it would hold them again.
    """
    content = {
        "base": os.path.relpath(base, folder),
        "sha256": identity(base),
        "instruction": instruction.to_json(),
    }
    write_json(folder / BASE, content)


def kept_start(folder: Path) -> tuple[Path, Instruction]:
    """The base's folder and the instruction that `keep_start` wrote; `Problem` where the base is gone
    or another one."""
    content = read_json(folder / BASE)
    base = (folder / content["base"]).resolve()
    remedy = "Run `dvc repro`, or `dvc pull` the bases (models/bases, models/adapted)."
    if not base.is_dir():
        raise Problem("the base that it was tuned on is not here", where=str(folder), remedy=remedy)
    if identity(base) != content["sha256"]:
        raise Problem("its base is not the one that it was tuned on", where=str(folder), remedy=remedy)
    return base, Instruction.from_json(content["instruction"])


def identity(base: Path) -> str:
    """A sha256 over the contents of a base's small files and the names and sizes of all.

    The weights' own digests are in base.json or, after adapting, follow from adapted.json's numbers;
    reading gigabytes at each load would tell no more.
    """
    total = hashlib.sha256()
    for path in sorted(base.rglob("*")):
        if path.is_file():
            total.update(f"{path.relative_to(base).as_posix()} {path.stat().st_size}\n".encode())
            if path.suffix == ".json" and path.stat().st_size < 2**16:
                total.update(path.read_bytes())
    return total.hexdigest()


def scores(
    model: Any,
    builder: Builder,
    texts: Sequence[str],
    space: LabelSpace,
    own: Asked,
    offset: NDArray[np.float64],
) -> Scores:
    """[n, labels]: each label's probability, or where the model writes, what it wrote (NaN: no label).

    One label a text: the probabilities of the labels' answers, normalised over them. Many: that of a
    label's answer against the answer that none applies. `offset` [labels] is added to the logits.
    """
    if not texts:
        return np.zeros((0, len(space.labels)))
    if own.predict == "generate":
        return _written(model, builder, texts, space, own)
    longest = max(len(answer) for answer in builder.answers)
    found = closed.log_probabilities(
        model, [builder.prompt(text, longest) for text in texts], builder.answers
    )
    if space.many:
        odds: Scores = expit(found[:, :-1] - found[:, -1:] + offset)
        return odds
    probabilities: Scores = softmax(found + offset, axis=1)
    return probabilities


def _written(
    model: Any, builder: Builder, texts: Sequence[str], space: LabelSpace, own: Asked
) -> Scores:
    told = model.generation_config.eos_token_id
    end = builder.answers[0][-1]
    answers = generation.generate(
        model,
        [builder.prompt(text, own.max_new_tokens) for text in texts],
        max_new_tokens=own.max_new_tokens,
        ends={end, *(told if isinstance(told, list) else [told or end])},
        pad=end,  # never looked at
        batch=GENERATED,
    )
    out = np.full((len(texts), len(space.labels)), np.nan)
    for row, answer in enumerate(answers):
        labels = builder.read(answer)
        if labels is not None:
            out[row] = [label in labels for label in space.labels]
    return out
