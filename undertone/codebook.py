"""The codebook: one YAML file from which labels, definitions, examples and prompts come."""

import difflib
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from undertone.errors import Problem
from undertone.labels import LabelSpace, Scores
from undertone.params import read_yaml, validated

_STRICT = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)
_ID = r"^[a-z][a-z0-9_]*$"


def _as_written(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Name = Annotated[str, Field(pattern=_ID)]


def _is_a_code(value: str) -> str:
    if value == "-1":
        raise ValueError("-1 stands for no label in the tables of answers; choose another code")
    return value


# 1 is written without quotes
Code = Annotated[str, BeforeValidator(_as_written), Field(min_length=1), AfterValidator(_is_a_code)]

RESERVED = (
    *("id", "label", "labels", "custom_id", "voter", "outcome", "answered", "teachers", "prompts"),
)


class Label(BaseModel):
    """One label: `id` names columns and files, `code` stands for it in an answer or a sheet."""

    model_config = _STRICT
    id: str = Field(pattern=_ID)
    name: str = Field(min_length=1)
    definition: str = ""
    code: Code | None = None
    aliases: list[str] = []
    examples: list[str] = []

    @field_validator("id")
    @classmethod
    def _is_no_other_column(cls, value: str) -> str:
        if value in RESERVED:
            raise ValueError(f"'{value}' is the name of another column of the score tables")
        return value

    @property
    def answer(self) -> str:
        """What stands for the label in an answer: its code, or its id where it has none."""
        return self.code or self.id


class Prompt(BaseModel):
    """One wording of the question, see `prompts` for how it is filled in.

    `scheme`: the merge or question whose labels it names, empty for the codebook's own.
    `answer`: what a right answer looks like. `each_answer`: what it says, as {each}, of each label that
    applies and of each that doesn't, where the prompt asks for all of them. `definitions`: this
    prompt's own wordings, by the name of a label or of a group of a merge; without them the labels'
    definitions. `template`: the whole conversation for a model that has no chat template. `reasoning`:
    the answer may follow a chain of thought. `faults`: findings of `lint` that stay, since the prompt
    is kept as it was published, each as `kind: subject`.
    """

    model_config = _STRICT
    scheme: str | None = None
    source: str = ""
    system: str = ""
    user: str
    answer: str
    each_answer: tuple[str, str] | None = Field(default=None, strict=False)
    between_answers: str = ", "
    definitions: dict[str, str] = {}
    each_definition: str = "{name}: {definition}"
    between_definitions: str = "\n"
    definitions_as: str = "{each}"
    each_label: str = "'{name}'"
    between_labels: tuple[str, str] = Field(default=(", ", ", "), strict=False)
    template: str | None = None
    reasoning: bool = False
    faults: list[str] = []

    @model_validator(mode="after")
    def _has_one_place_for_each_part(self) -> "Prompt":
        if self.user.count("{text}") != 1 or "{text}" in self.system:
            raise ValueError("the comment's place is {text}, once, in `user`")
        if self.template is not None:
            for slot in ("{system}", "{user}", "{answer}"):
                if self.template.count(slot) > 1 or (slot != "{system}" and slot not in self.template):
                    raise ValueError(f"`template` needs {slot} once")
        if ("{each}" in self.answer) != (self.each_answer is not None):
            raise ValueError("`answer` holds {each} where there is an `each_answer`, and only there")
        return self


class Group(BaseModel):
    """Labels that a merge takes for one; written as a mere list where its name will do as its id."""

    model_config = _STRICT
    id: str | None = Field(default=None, pattern=_ID)
    labels: list[str] = Field(min_length=1)
    definition: str = ""
    code: Code | None = None
    aliases: list[str] = []

    @model_validator(mode="before")
    @classmethod
    def _a_list_is_its_labels(cls, value: object) -> object:
        return {"labels": value} if isinstance(value, list) else value


class Question(BaseModel):
    """Another question about the same comments, with labels of its own."""

    model_config = _STRICT
    title: str
    many: bool = False
    labels: list[Label] = Field(min_length=2)


class Categories(BaseModel):
    """Which of the source's categories (a column of its metadata) belong to the study."""

    model_config = _STRICT
    column: str
    include: list[str] = Field(min_length=1)
    exclude: list[str] = []
    aliases: dict[str, list[str]] = {}  # a category → its other spellings

    @model_validator(mode="after")
    def _no_category_is_both(self) -> "Categories":
        both = {_folded(one) for one in self.include} & {_folded(one) for one in self.exclude}
        if both:
            raise ValueError(f"{', '.join(sorted(both))} is both included and excluded")
        spellings: dict[str, str] = {}
        for name in [*self.include, *self.exclude]:
            for spelling in (name, *self.aliases.get(name, [])):
                if spellings.setdefault(_folded(spelling), name) != name:
                    raise ValueError(f"'{spelling}' stands for two categories")
        if unknown := set(self.aliases) - {*self.include, *self.exclude}:
            raise ValueError(f"aliases of no category: {', '.join(sorted(unknown))}")
        return self

    def kept(self, category: str) -> bool | None:
        """Whether a category belongs; None where the codebook doesn't know it."""
        folded = _folded(category)
        for names, belongs in ((self.include, True), (self.exclude, False)):
            for name in names:
                if folded in {_folded(one) for one in (name, *self.aliases.get(name, []))}:
                    return belongs
        return None


class Codebook(BaseModel):
    """A labelling scheme, and what can be made of it.

    `merges`: name → (name of a merged label → its labels). `questions`: name → other labels. Both
    are schemes: see `asked` and `learnt`.
    """

    model_config = _STRICT
    name: Name
    title: str
    language: str
    source: str = ""
    many: bool = False
    labels: list[Label] = Field(min_length=2)
    merges: dict[Name, dict[str, Group]] = {}
    questions: dict[Name, Question] = {}
    categories: Categories | None = None
    prompts: dict[Name, Prompt] = {}

    @model_validator(mode="after")
    def _every_spelling_means_one_label(self) -> "Codebook":
        for labels in (self.labels, *(question.labels for question in self.questions.values())):
            ids = [label.id for label in labels]
            if len(set(ids)) < len(ids):
                raise ValueError("two labels have the same id")
            owner: dict[str, str] = {}
            for label in labels:
                for spelling in _spellings(label):
                    other = owner.setdefault(_folded(spelling), label.id)
                    if other != label.id:
                        raise ValueError(f"'{spelling}' stands for both {other} and {label.id}")
        return self

    @model_validator(mode="after")
    def _every_scheme_is_known(self) -> "Codebook":
        ids = {label.id for label in self.labels}
        if both := set(self.merges) & set(self.questions):
            raise ValueError(f"{', '.join(sorted(both))} is both a merge and a question")
        for merge, groups in self.merges.items():
            for name, group in groups.items():
                if unknown := set(group.labels) - ids:
                    raise ValueError(
                        f"merge {merge}: {name} holds no label {', '.join(sorted(unknown))}"
                    )
        for name, prompt in self.prompts.items():
            if prompt.scheme is not None and prompt.scheme not in (*self.merges, *self.questions):
                raise ValueError(f"prompt {name}: no merge or question '{prompt.scheme}'")
        return self

    @property
    def space(self) -> LabelSpace:
        return LabelSpace.of(
            self.name,
            [label.id for label in self.labels],
            [label.name for label in self.labels],
            many=self.many,
        )

    @property
    def spellings(self) -> dict[str, str]:
        """Every folded spelling (id, name, code, alias) → the id of its label."""
        return {_folded(spelling): label.id for label in self.labels for spelling in _spellings(label)}

    def asked(self, scheme: str | None) -> "Codebook":
        """The codebook by which people and voters label: the question's, or for a merge this one.

        `Problem` where there is no such scheme, or a merge that can't be made of the labels: that must
        be known before anybody is asked.
        """
        if scheme in self.merges:
            self.learnt(scheme)
        if scheme in self.questions:
            question = self.questions[scheme]
            return self._view(scheme, question.labels, many=question.many)
        if scheme is not None and scheme not in self.merges:
            known = ", ".join([*self.merges, *self.questions]) or "none"
            raise Problem(
                f"no merge or question '{scheme}'; it has {known}",
                where=f"codebook {self.name}",
                remedy="Correct data.scheme.",
            )
        return self

    def learnt(self, scheme: str | None) -> "Codebook":
        """The codebook of what models learn: that of `asked`, or the merged labels.

        `Problem` where a merge leaves a label out or holds it twice.
        """
        if scheme not in self.merges:
            return self.asked(scheme)
        if faults := self.merge_faults(scheme):
            raise Problem("; ".join(faults), where=f"codebook {self.name}, merge {scheme}")
        labels = [
            Label(
                id=group.id or name_as_id(name, scheme),
                name=name,
                definition=group.definition,
                code=group.code,
                aliases=group.aliases,
                examples=[
                    text for one in self.labels if one.id in group.labels for text in one.examples
                ],
            )
            for name, group in self.merges[scheme].items()
        ]
        return self._view(scheme, labels, many=self.many)

    def within(self, space: LabelSpace) -> "Codebook":
        """The codebook of the labels that a split has left. Where some are gone its own prompts are too,
        since they name them; the general ones take their place."""
        if space.labels == self.space.labels:
            return self
        own = {one.id: one for one in self.labels}
        labels = [
            own.get(label) or Label(id=label, name=name)
            for label, name in zip(space.labels, space.names, strict=True)
        ]
        return self.model_copy(update={"labels": labels, "merges": {}, "questions": {}, "prompts": {}})

    def merge_faults(self, scheme: str) -> list[str]:
        """A line for each label that the merge leaves out or holds twice."""
        holders: dict[str, list[str]] = {label.id: [] for label in self.labels}
        for name, group in self.merges[scheme].items():
            for label in group.labels:
                holders[label].append(name)
        return [
            f"{label} is in {' and '.join(names)}" if names else f"{label} is in no group"
            for label, names in holders.items()
            if len(names) != 1
        ]

    def merged(self, scores: Scores, scheme: str | None) -> Scores:
        """Scores [n, labels asked] as [n, labels learnt]; NaN rows stay so.

        One label a text: the sum of a group's scores, for its labels exclude each other. Many: the
        highest.
        """
        if scheme not in self.merges:
            return scores
        at = {label.id: place for place, label in enumerate(self.labels)}
        columns = [
            scores[:, [at[label] for label in group.labels]] for group in self.merges[scheme].values()
        ]
        if self.many:
            return np.column_stack([part.max(axis=1) for part in columns])
        return np.column_stack([part.sum(axis=1) for part in columns]).clip(0, 1)

    def prompt(self, name: str) -> Prompt:
        """`Problem` where the codebook has no such prompt."""
        if name not in self.prompts:
            known = ", ".join(self.prompts) or "none"
            raise Problem(f"no prompt '{name}'; it has {known}", where=f"codebook {self.name}")
        return self.prompts[name]

    def _view(self, scheme: str, labels: list[Label], *, many: bool) -> "Codebook":
        prompts = {
            name: prompt.model_copy(update={"scheme": None})
            for name, prompt in self.prompts.items()
            if prompt.scheme == scheme
        }
        content: Mapping[str, object] = {
            "name": f"{self.name}_{scheme}",
            "title": self.title,
            "language": self.language,
            "many": many,
            "labels": labels,
            "categories": self.categories,
            "prompts": prompts,
        }
        return validated(Codebook, content, where=f"codebook {self.name}, {scheme}")


def read_codebook(path: Path) -> Codebook:
    """The codebook in `path`; `Problem` with every fault of the file."""
    return validated(Codebook, read_yaml(path), where=str(path))


def label_of(value: str, spellings: Mapping[str, str]) -> str | None:
    """The id of the label that a sheet's `value` stands for, or None when it is no label."""
    return spellings.get(_folded(value))


def misspelt(value: str, codebook: Codebook) -> str:
    """What is wrong with a value that is no label; the value itself isn't told."""
    own = {one.casefold(): one for label in codebook.labels for one in (*_also(label), label.name)}
    near = difflib.get_close_matches(value.strip().casefold(), own, n=1)
    told = f", the nearest is '{own[near[0]]}'" if near else ""
    known = [
        f"{label.name} ({', '.join(also)})" if (also := _also(label)) else label.name
        for label in codebook.labels
    ]
    return f"no label of codebook {codebook.name}{told}. It has {', '.join(known)}"


def _also(label: Label) -> list[str]:
    """A label's other spellings."""
    others = dict.fromkeys((label.id, label.answer, *label.aliases))
    return [one for one in others if one.casefold() != label.name.casefold()]


def name_as_id(name: str, scheme: str) -> str:
    """An id from a merged label's name; `Problem` where the name gives none."""
    found = re.sub(r"[^a-z0-9]+", "_", _folded(name)).strip("_")
    if not re.match(_ID, found):
        raise Problem(
            f"no id can be made of '{name}'", where=f"merge {scheme}", remedy="Give it an `id`."
        )
    return found


def _spellings(label: Label) -> tuple[str, ...]:
    return (label.id, label.name, label.answer, *label.aliases)


def _folded(spelling: str) -> str:
    folded = unicodedata.normalize("NFKC", spelling).casefold()
    return " ".join(folded.replace("_", " ").split())
