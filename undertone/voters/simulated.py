"""Voters of the stand-in: right as often as they are told to be, in every form, with every fault.

They know the truth that the stand-in workbook holds of each comment; nothing else does. What they
answer is an answer file as a batch service gives it back.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from undertone.annotation import prompts
from undertone.codebook import Codebook, Prompt, label_of
from undertone.errors import Problem
from undertone.params import Voter

PREFIX = "simulated:"
CREATED = 1_735_732_800  # 2025-01-01: the day of all simulated answers
SEPARATOR = ";"  # between the labels of one comment

# Shares of a voter's requests that go wrong in each way; there is at least one of each.
FAULTS = {
    "missing": 0.004,
    "provider_error": 0.006,
    "refused": 0.004,
    "unparsable": 0.006,
    "out_of_schema": 0.003,
    "duplicate": 0.002,
    "repeated": 0.003,
}
UNKNOWN = 3  # answers to requests that nobody made
REFUSALS = (
    "I'm sorry, but I can't help with that.",
    "I cannot assist with this request.",
    "抱歉，我无法回答这个问题。",
    "Je suis désolé, mais je ne peux pas répondre à cette demande.",
)
_MUSINGS = (
    "It depends on what the writer meant, and there are two ways to read it.",
    "[",
    "The comment speaks for itself.",
    "1 or 2",
)
_THOUGHTS = (
    "The writer gives their own view in the last clause.",
    "What is quoted here is not what the writer thinks.",
    "There are 2 claims, and only one of them is the writer's.",
)
_FRAMES = ("{answer}", "{answer}", "{answer}", " {answer}\n", "{answer}.", "**{answer}**")


def answers(
    asked: pd.DataFrame,
    truth: Mapping[str, str],
    voters: Mapping[str, Voter],
    codebook: Codebook,
    *,
    seed: int,
    out: Path,
) -> str:
    """Write `<voter>.output.jsonl` and `<voter>.errors.jsonl` for every row of `asked`.

    `truth`: comment id → the names of its labels, joined by `;`, empty where there is none. A voter's
    model is `simulated:<accuracy>`, how often a readable answer is right.
    """
    written = 0
    for number, (name, voter) in enumerate(voters.items()):
        rng = np.random.default_rng([seed, number])
        own = asked[asked["voter"] == name]
        right = [_labels(truth.get(id_, ""), codebook) for id_ in own["id"]]
        given = _given(right, accuracy(voter, name), codebook, rng)
        lines, errors = _answered(own["custom_id"].tolist(), given, voter, codebook, rng)
        for kind, content in (("output", lines), ("errors", errors)):
            with (out / f"{name}.{kind}.jsonl").open("w", encoding="utf-8") as file:
                file.writelines(json.dumps(one, ensure_ascii=False) + "\n" for one in content)
        written += len(lines) + len(errors)
    return f"{written:,} simulated answers of {len(voters)} voters"


def accuracy(voter: Voter, name: str) -> float:
    """How often it is right; `Problem` where its model is no `simulated:<share>`."""
    try:
        share = float(voter.model.removeprefix(PREFIX)) if voter.model.startswith(PREFIX) else -1.0
    except ValueError:
        share = -1.0
    if not 0 < share <= 1:
        raise Problem(
            f"voter {name}: '{voter.model}' is no simulated model",
            where="params.yaml",
            remedy="Write simulated: and a share, such as simulated:0.9, or choose another door.",
        )
    return share


def _labels(names: str, codebook: Codebook) -> tuple[str, ...]:
    spellings = codebook.spellings
    found = (label_of(name, spellings) for name in names.split(SEPARATOR) if name.strip())
    return tuple(label for label in found if label is not None)


def _given(
    right: Sequence[tuple[str, ...]], accuracy: float, codebook: Codebook, rng: np.random.Generator
) -> list[tuple[str, ...]]:
    """What a voter thinks: the truth, or in doubt a label that is frequent."""
    ids = list(codebook.space.labels)
    counts = np.array([sum(label in labels for labels in right) for label in ids]) + 1.0
    thought: list[tuple[str, ...]] = []
    for labels in right:
        if (labels or codebook.many) and rng.random() < accuracy:
            thought.append(labels)
            continue
        others = np.array([label not in labels for label in ids])
        if codebook.many:  # one label too many, or one too few
            changed = ids[int(rng.integers(len(ids)))]
            thought.append(tuple(one for one in ids if (one in labels) != (one == changed)))
        else:
            weights = counts * others if others.any() else counts
            thought.append((ids[int(rng.choice(len(ids), p=weights / weights.sum()))],))
    return thought


def _answered(
    custom_ids: Sequence[str],
    given: Sequence[tuple[str, ...]],
    voter: Voter,
    codebook: Codebook,
    rng: np.random.Generator,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The lines of the output file, in no order, and those of the error file."""
    prompt = codebook.prompt(voter.prompt)
    fate = fates(len(custom_ids), FAULTS, rng)
    lines: list[dict[str, Any]] = []
    errors: list[dict[str, Any]] = []
    for custom_id, labels, fault in zip(custom_ids, given, fate, strict=True):
        said = _said(labels, prompt, codebook, rng)
        if fault == "missing":
            continue
        if fault == "provider_error":
            errors.append(error(custom_id))
        elif fault == "refused":
            lines.append(line(custom_id, pick(REFUSALS, rng), voter))
        elif fault == "unparsable":
            lines.append(line(custom_id, pick(_MUSINGS, rng), voter))
        elif fault == "out_of_schema":
            lines.append(line(custom_id, f"[{len(codebook.labels) + 90}]", voter))
        else:
            lines.append(line(custom_id, said, voter))
            if fault == "repeated":
                lines.append(line(custom_id, said, voter))
            elif fault == "duplicate":
                other = next(one for one in codebook.space.labels if (one,) != labels)
                lines.append(line(custom_id, _said((other,), prompt, codebook, rng), voter))
    lines += [line(f"nobody-{at}", "[0]", voter) for at in range(UNKNOWN)]
    return [lines[at] for at in rng.permutation(len(lines))], errors


def fates(count: int, faults: Mapping[str, float], rng: np.random.Generator) -> list[str]:
    """What goes wrong with each of `count`, empty where nothing does: of every fault its share, and one
    at least."""
    fate = [""] * count
    places = iter(rng.permutation(count).tolist())
    for fault, share in faults.items():
        for _ in range(max(1, round(share * count))):
            if (at := next(places, None)) is not None:
                fate[at] = fault
    return fate


def _said(labels: tuple[str, ...], prompt: Prompt, codebook: Codebook, rng: np.random.Generator) -> str:
    """The answer that the prompt asks for, as a model types it."""
    if codebook.many:
        answer = prompts.answered(codebook, prompt, labels)
        return answer if rng.random() < 0.7 else f"```json\n{answer}\n```"
    (label,) = (label for label in codebook.labels if label.id in labels)
    if prompt.reasoning:
        return f"{pick(_THOUGHTS, rng)}\n{prompts.answer(prompt, label)}"
    forms = (prompts.answer(prompt, label), f"({label.answer})", label.answer, label.name)
    likely = forms[0] if rng.random() < 0.8 else pick(forms, rng)
    return pick(_FRAMES, rng).replace("{answer}", likely)


def line(custom_id: str, content: str, voter: Voter) -> dict[str, Any]:
    """An answer as a batch service writes it."""
    message = {"role": "assistant", "content": content}
    body = {
        "object": "chat.completion",
        "created": CREATED,
        "model": voter.model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
    }
    response = {"status_code": 200, "request_id": f"r-{custom_id}", "body": body}
    return {"id": f"b-{custom_id}", "custom_id": custom_id, "response": response, "error": None}


def error(custom_id: str) -> dict[str, Any]:
    """A failure as a batch service writes it."""
    error = {"code": "server_error", "message": "The server had an error."}
    response = {"status_code": 500, "request_id": f"r-{custom_id}", "body": {"error": error}}
    return {"id": f"b-{custom_id}", "custom_id": custom_id, "response": response, "error": error}


def pick(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]
