"""What the families of language models share: where their base lies, and scores from answers."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from undertone.annotation.prompts import Instruction
from undertone.errors import Problem
from undertone.files import read_json, size, write_json
from undertone.labels import Flags, LabelSpace, Scores
from undertone.networks import closed, generation
from undertone.networks.chat import Builder
from undertone.params import Asked

START = "start.json"
GENERATED = 16  # rows that are generated for at once
COMMON = 32  # sets of labels that are scored besides single ones


def keep_start(folder: Path, base: Path, instruction: Instruction) -> None:
    """Write into a model's folder what it starts from: its instruction, and where its base lies.

    The base isn't copied: it may have gigabytes, and every candidate on it would hold them again.
    """
    content = {
        "base": base.as_posix(),
        "sha256": identity(base),
        "instruction": instruction.to_json(),
    }
    write_json(folder / START, content)


def kept_start(folder: Path) -> tuple[Path, Instruction]:
    """The base's folder and the instruction that `keep_start` wrote.

    The base is looked for from each folder above, so that a copy of the model that lies in the same
    repository, as MLflow's does, finds it too. `Problem` where it is gone or another one.
    """
    content = read_json(folder / START)
    found = [above / content["base"] for above in folder.resolve().parents]
    there = [base for base in found if base.is_dir()]
    for base in there:
        if identity(base) == content["sha256"]:
            return base, Instruction.from_json(content["instruction"])
    raise Problem(
        "its base is not the one that it was tuned on"
        if there
        else "the base that it was tuned on is not here",
        where=str(folder),
        remedy="Run `dvc repro`, or `dvc pull` the bases (models/bases, models/adapted).",
    )


def weight(folder: Path) -> int:
    """The bytes of a saved model, and of the base that it names where it holds none of its own."""
    base = size(kept_start(folder)[0]) if (folder / START).is_file() else 0
    return size(folder) + base


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
    sets: Flags,
    offset: NDArray[np.float64],
) -> Scores:
    """[n, labels]: each label's probability, or where the model writes, what it wrote (NaN: no label).

    `sets` [m, labels]: the answers that are scored, each the labels that it names; their probabilities
    are normalised, and a label's is the sum over the answers that name it. `offset` [labels] is added
    to the logits.
    """
    if not texts:
        return np.zeros((0, len(space.labels)))
    if own.predict == "generate":
        return _written(model, builder, texts, space, own)
    found = log_probabilities(model, builder, texts, space, sets)
    probabilities: Scores = softmax(found + sets @ offset, axis=1) @ sets
    return probabilities.clip(0, 1)


def log_probabilities(
    model: Any, builder: Builder, texts: Sequence[str], space: LabelSpace, sets: Flags
) -> NDArray[np.float64]:
    """[n, m]: log P of each text's answers `sets` [m, labels]."""
    rows = [builder.row("", named(one, space)) for one in sets]
    answers = [row.ids[row.start :] for row in rows]
    longest = max(map(len, answers))
    return closed.log_probabilities(model, [builder.prompt(text, longest) for text in texts], answers)


def named(flags: Flags, space: LabelSpace) -> list[str]:
    """The ids of the labels whose flag [labels] is set."""
    return [label for label, flag in zip(space.labels, flags, strict=True) if flag]


def answerable(space: LabelSpace, truth: Flags | None = None) -> Flags:
    """The answers [m, labels] to score: each label alone; where a text may have many also none of them,
    and the commonest sets of the rows [n, labels] learnt from."""
    alone = np.eye(len(space.labels), dtype=bool)
    if not space.many:
        return alone
    first = np.vstack([alone, np.zeros((1, len(alone)), dtype=bool)])
    if truth is None:
        return first
    seen, counts = np.unique(truth, axis=0, return_counts=True)
    common = seen[np.argsort(-counts, kind="stable")[:COMMON]]
    new = ~(common[:, None] == first[None]).all(axis=2).any(axis=1)
    return np.vstack([first, common[new]])


def fits(model: Any, max_length: int) -> None:
    """`Problem` where the base reads fewer tokens than `max_length`."""
    limit = closed.positions(model.config.get_text_config())
    if limit is not None and max_length > limit:
        raise Problem(
            f"max_length is {max_length}, but the base reads at most {limit} tokens",
            where="params.yaml",
            remedy=f"Set max_length to {limit} or less.",
        )


def check(model: Any, builder: Builder, own: Asked, *, closes: bool) -> None:
    """`Problem` where the base can't be scored though it `closes` (at the latest when validation is
    looked at), and where an answer can't be written."""
    if closes:
        closed.Reads.of(model, own.max_length)
    longest = max(map(len, builder.answers))
    if own.predict == "generate" and own.max_new_tokens < longest:
        raise Problem(
            f"max_new_tokens is {own.max_new_tokens}, but the longest right answer has {longest}",
            where="params.yaml",
            remedy=f"Set max_new_tokens to {longest} or more.",
        )


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
