"""The stand-in's writer: texts by the stand-in's own grammar, and every fault that a model's have.

What it writes are answer files as a batch service gives them back.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from undertone.augmentation.writing import WRITER
from undertone.codebook import Codebook
from undertone.corpus import sample
from undertone.corpus.split import JOINED
from undertone.params import Voter
from undertone.voters import simulated

# Shares of the texts that go wrong in each way, and of the requests; there is at least one of each, as
# far as there are texts and requests.
TEXT_FAULTS = {
    "copy": 0.05,
    "near_copy": 0.04,
    "quotation": 0.04,
    "address": 0.02,
    "forbidden": 0.02,
    "short": 0.03,
    "foreign": 0.04,
    "twice": 0.03,
}
REQUEST_FAULTS = {
    "missing": 0.02,
    "provider_error": 0.03,
    "refused": 0.02,
    "unparsable": 0.02,
    "cut": 0.03,
    "few": 0.03,
    "many": 0.03,
    "repeated": 0.03,
}
_FOREIGN = (
    "Niemand kann mir erzählen, dass ein Vorstand ohne Frauen ein Zufall ist.",
    "Mijn baas zegt dat het quotum een vergissing is, maar ik heb het bestuur zien werken.",
    "同工同酬三十年前就应该成为规则，现在还有人反对。",
    "Равная оплата за равный труд должна была стать правилом.",
)
_ADDRESSES = (" Write to quill@example.org.", " Call +44 20 7946 0958.", " @quillreader knows more.")
_PROSE = "Comments of this kind differ a lot, so it depends on what you want to use them for."
_FORMS = ("json", "json", "json", "fenced", "object", "introduced", "numbered")


def answers(
    asked: pd.DataFrame,
    texts: Mapping[str, str],
    codebook: Codebook,
    voter: Voter,
    *,
    seed: int,
    out: Path,
) -> str:
    """Write `writer.output.jsonl` and `writer.errors.jsonl` for every row of `asked`.

    `texts`: the parents' ids → their texts. The voter's model is `simulated:<share>`, of the texts that
    have the label that was asked for.
    """
    rng = np.random.default_rng(seed)
    share = simulated.accuracy(voter, WRITER)
    written = sample.writer(codebook)
    fates = simulated.fates(int(asked["texts"].sum()), TEXT_FAULTS, rng)
    lines: list[dict[str, Any]] = []
    errors: list[dict[str, Any]] = []
    faults = simulated.fates(len(asked), REQUEST_FAULTS, rng)
    rows = asked[["custom_id", "id", "label", "texts"]].itertuples(index=False)
    for fault, (custom_id, parents, label, count) in zip(faults, rows, strict=True):
        shown = [texts[one] for one in parents.split(JOINED)]
        own: list[str] = []
        for _ in range(count):
            others = [one for one in codebook.space.labels if one != label]
            meant = label if rng.random() < share else simulated.pick(others, rng)
            fresh = sample.typed(written((meant,), rng), rng)
            own.append(_spoilt(fresh, fates.pop(), shown, own, rng))
        answer = _form(own, fault, rng)
        if fault == "provider_error":
            errors.append(simulated.error(custom_id))
        elif fault == "refused":
            lines.append(simulated.line(custom_id, simulated.pick(simulated.REFUSALS, rng), voter))
        elif fault == "unparsable":
            lines.append(simulated.line(custom_id, _PROSE, voter))
        elif fault != "missing":
            lines += [simulated.line(custom_id, answer, voter)] * (1 + (fault == "repeated"))
    lines.append(simulated.line("nobody-0", "[]", voter))
    for kind, content in (("output", lines), ("errors", errors)):
        with (out / f"{WRITER}.{kind}.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(one, ensure_ascii=False) + "\n" for one in content)
    return f"{len(lines) + len(errors):,} simulated answers"


def _spoilt(
    text: str, fault: str, parents: Sequence[str], before: Sequence[str], rng: np.random.Generator
) -> str:
    parent = simulated.pick(parents, rng)
    match fault:
        case "copy":
            return parent
        case "near_copy":
            return f"{parent} x"
        case "quotation":
            return f"{parent[: max(60, len(parent) // 2)]} {text}"
        case "address":
            return text + simulated.pick(_ADDRESSES, rng)
        case "forbidden":
            return f"As an AI, I would say: {text}"
        case "short":
            return "ok"
        case "foreign":
            return simulated.pick(_FOREIGN, rng)
        case "twice":
            return before[-1] if before else text
    return text


def _form(texts: Sequence[str], fault: str, rng: np.random.Generator) -> str:
    """An answer as a model types it."""
    if fault == "few":
        texts = texts[:-1]
    elif fault == "many":
        texts = [*texts, "One more, since there is room for it."]
    array = json.dumps(list(texts), ensure_ascii=False, indent=1)
    match "cut" if fault == "cut" else simulated.pick(_FORMS, rng):
        case "cut":
            return array[: array.rindex('"')]
        case "fenced":
            return f"```json\n{array}\n```"
        case "object":
            return json.dumps({"comments": list(texts)}, ensure_ascii=False)
        case "introduced":
            return f"Sure! Here are {len(texts)} comments:\n{array}"
        case "numbered":
            return "\n".join(f"{at}. {text}" for at, text in enumerate(texts, start=1))
    return array
