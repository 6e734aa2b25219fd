"""One place where a codebook's prompt and a comment become what a model reads.

A prompt's slots: {definitions}, {labels} and {codes} in `system` and `user`, {text} in `user`;
{name}, {code} and {id} in `answer`, `each_answer` and in what lists labels. Any other brace stands for
itself. The comment is put in last and never searched for slots.
"""

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Self

from undertone.codebook import Codebook, Label, Prompt
from undertone.errors import Problem

_SLOT = re.compile(r"\{(\w+)\}")

NONE = "none"  # the answer that no label applies
Message = dict[str, str]  # role and content

# What a codebook without a prompt of its own is asked with.
GENERAL = Prompt(
    system="Label the text with exactly one of these labels: {labels}.{definitions}\n"
    "Answer with the label and nothing else.",
    definitions_as="\nWhat the labels mean:\n{each}",
    each_definition="- {name}: {definition}",
    each_label="{id}",
    user="Text: {text}",
    answer="{id}",
)
GENERAL_MANY = GENERAL.model_copy(
    update={
        "system": "Which of these labels apply to the text: {labels}?{definitions}\n"
        "Answer with them, separated by commas, or with none, and nothing else."
    }
)


@dataclass(frozen=True)
class Instruction:
    """All that a language model is told besides the comment.

    `codebook` holds the labels and the one prompt that is used, nothing else, so that no other change
    of the file makes another instruction. `shots`: comments and the ids of their labels.
    """

    codebook: Codebook
    prompt: Prompt
    definitions: bool
    shots: tuple[tuple[str, tuple[str, ...]], ...]

    @classmethod
    def of(cls, codebook: Codebook, name: str | None, *, definitions: bool, shots: int) -> Self:
        """With the prompt called `name`, or the codebook's first, or a general one where it has none;
        and with the first `shots` examples of each label, the labels taking turns.

        `Problem` where there is no such prompt, or a label has fewer examples.
        """
        if name is not None or codebook.prompts:
            prompt = codebook.prompt(name or next(iter(codebook.prompts)))
        else:
            prompt = GENERAL_MANY if codebook.many else GENERAL
        for label in codebook.labels:
            if len(label.examples) < shots:
                raise Problem(
                    f"{label.id} has {len(label.examples)} examples, {shots} are to be shown",
                    where=f"codebook {codebook.name}",
                    remedy="Write more, or lower `shots`.",
                )
        shown = [(label.examples[at], (label.id,)) for at in range(shots) for label in codebook.labels]
        labels = [label.model_copy(update={"examples": []}) for label in codebook.labels]
        bare = Codebook(
            name=codebook.name,
            title=codebook.title,
            language=codebook.language,
            many=codebook.many,
            labels=labels,
        )
        return cls(bare, prompt, definitions, tuple(shown))

    def to_json(self) -> dict[str, object]:
        return {
            "codebook": self.codebook.model_dump(mode="json", exclude_defaults=True),
            "prompt": self.prompt.model_dump(mode="json", exclude_defaults=True),
            "definitions": self.definitions,
            "shots": [[text, list(ids)] for text, ids in self.shots],
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        return cls(
            Codebook.model_validate(content["codebook"]),
            Prompt.model_validate(content["prompt"]),
            content["definitions"],
            tuple((text, tuple(ids)) for text, ids in content["shots"]),
        )


def messages(codebook: Codebook, prompt: Prompt, text: str, *, definitions: bool) -> list[Message]:
    """The conversation that asks for the label of `text`: the system's part, if any, and the user's.

    `definitions` off leaves out the paragraph of definitions and changes nothing else.
    """
    before, after = around(codebook, prompt, definitions=definitions)
    asked = {"role": "user", "content": before + text + after}
    system = _filled(prompt.system, _slots(codebook, prompt, definitions))
    return [{"role": "system", "content": system}, asked] if system else [asked]


def around(codebook: Codebook, prompt: Prompt, *, definitions: bool) -> tuple[str, str]:
    """What the user's part says before and after the comment."""
    slots = _slots(codebook, prompt, definitions)
    before, _, after = prompt.user.partition("{text}")
    return _filled(before, slots), _filled(after, slots)


def answer(prompt: Prompt, label: Label) -> str:
    """What a right answer looks like, in a prompt that doesn't ask for a yes or no to each label."""
    return _listed(prompt.answer, label)


def answered(codebook: Codebook, prompt: Prompt, chosen: Collection[str]) -> str:
    """What a right answer looks like where the labels of these ids apply: one, several or none."""
    if prompt.each_answer is None:
        told = [answer(prompt, label) for label in codebook.labels if label.id in chosen]
        return prompt.between_answers.join(told) or NONE
    yes, no = prompt.each_answer
    each = [_listed(yes if label.id in chosen else no, label) for label in codebook.labels]
    return _filled(prompt.answer, {"each": prompt.between_answers.join(each)})


def flat(prompt: Prompt, conversation: list[Message], answered: str) -> str:
    """The conversation and its answer in the prompt's own `template`, which must be there."""
    assert prompt.template is not None
    parts = {message["role"]: message["content"] for message in conversation}
    slots = {"system": parts.get("system", ""), "user": parts["user"], "answer": answered}
    return _filled(prompt.template, slots)


def digest(codebook: Codebook, prompt: Prompt, *, definitions: bool) -> str:
    """The sha256 of all that a model is told besides the comment."""
    told = [
        messages(codebook, prompt, "", definitions=definitions),
        around(codebook, prompt, definitions=definitions),  # where the comment stands
    ]
    return hashlib.sha256(json.dumps(told, ensure_ascii=False).encode()).hexdigest()


def defined(codebook: Codebook, prompt: Prompt) -> dict[str, str]:
    """Name → definition, as the prompt words them."""
    own = {label.name: label.definition for label in codebook.labels}
    return prompt.definitions or own


def _slots(codebook: Codebook, prompt: Prompt, definitions: bool) -> Mapping[str, str]:
    each = prompt.between_definitions.join(
        _filled(prompt.each_definition, {"name": name, "definition": text})
        for name, text in defined(codebook, prompt).items()
    )
    *most, last = (_listed(prompt.each_label, label) for label in codebook.labels)
    comma, final = prompt.between_labels
    return {
        "definitions": _filled(prompt.definitions_as, {"each": each}) if definitions else "",
        "labels": final.join([comma.join(most), last]),
        "codes": ", ".join(f"{label.answer} = {label.name}" for label in codebook.labels),
    }


def _listed(pattern: str, label: Label) -> str:
    return _filled(pattern, {"name": label.name, "code": label.answer, "id": label.id})


def _filled(pattern: str, slots: Mapping[str, str]) -> str:
    return _SLOT.sub(lambda slot: slots.get(slot[1], slot[0]), pattern)
