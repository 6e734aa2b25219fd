"""The codebook: one YAML file from which labels, definitions and examples come."""

import unicodedata
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from undertone.labels import LabelSpace
from undertone.params import read_yaml, validated

_STRICT = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


RESERVED = ("id", "label", "labels")


class Label(BaseModel):
    """One label: `id` names columns and files, `code` stands for it in an answer or a sheet."""

    model_config = _STRICT
    id: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    name: str = Field(min_length=1)
    definition: str = Field(min_length=1)
    code: str | None = None
    aliases: list[str] = []
    examples: list[str] = []

    @field_validator("id")
    @classmethod
    def _is_no_other_column(cls, value: str) -> str:
        if value in RESERVED:
            raise ValueError(f"'{value}' is the name of another column of the score tables")
        return value

    @field_validator("code", mode="before")
    @classmethod
    def _code_as_written(cls, value: object) -> object:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class Codebook(BaseModel):
    """A labelling scheme."""

    model_config = _STRICT
    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    title: str
    language: str
    many: bool = False
    labels: list[Label] = Field(min_length=2)

    @model_validator(mode="after")
    def _every_spelling_means_one_label(self) -> "Codebook":
        ids = [label.id for label in self.labels]
        if len(set(ids)) < len(ids):
            raise ValueError("two labels have the same id")
        owner: dict[str, str] = {}
        for label in self.labels:
            for spelling in (label.id, label.name, label.code or label.id, *label.aliases):
                other = owner.setdefault(_folded(spelling), label.id)
                if other != label.id:
                    raise ValueError(f"'{spelling}' stands for both {other} and {label.id}")
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
        return {
            _folded(spelling): label.id
            for label in self.labels
            for spelling in (label.id, label.name, label.code or label.id, *label.aliases)
        }


def read_codebook(path: Path) -> Codebook:
    """The codebook in `path`; `Problem` with every fault of the file."""
    return validated(Codebook, read_yaml(path), where=str(path))


def label_of(value: str, spellings: dict[str, str]) -> str | None:
    """The id of the label that a sheet's `value` stands for, or None when it is no label."""
    return spellings.get(_folded(value))


def _folded(spelling: str) -> str:
    folded = unicodedata.normalize("NFKC", spelling).casefold()
    return " ".join(folded.replace("_", " ").split())
