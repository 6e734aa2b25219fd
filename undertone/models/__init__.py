"""Model families: one file each, found by name, all alike from outside.

A family's module defines `Model`, a class that fulfils `Classifier`; its settings class stands in
`params.py`. Nothing else knows which families there are. `_embedded.py` is what two of them share.
"""

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from undertone import tables
from undertone.annotation.prompts import Instruction
from undertone.errors import Problem
from undertone.labels import Flags, LabelSpace, Scores, answered
from undertone.measures import metrics
from undertone.params import FAMILIES, Asked, Settings

RECIPE = "recipe.json"
Log = Callable[[int, Mapping[str, float]], None]  # step, values


@dataclass(frozen=True)
class Examples:
    """Texts, what is true of them, [n, labels], and what each weighs in training, [n]: 1 unless told.

    A row of weight 2 is learnt from as if it stood there twice; of weight 0, not at all.
    """

    texts: Sequence[str]
    truth: Flags
    weights: NDArray[np.float64] = None  # type: ignore[assignment]  # ones

    def __post_init__(self) -> None:
        given = np.ones(len(self.texts)) if self.weights is None else self.weights
        weights = np.asarray(given, dtype=np.float64)
        wrong = int((~(weights >= 0) | np.isinf(weights)).sum())  # also counts NaN
        if wrong or len(weights) != len(self.texts):
            what = f"{wrong} of {len(weights)} weights for {len(self.texts)} texts are no weights"
            raise Problem(what, where="train")
        object.__setattr__(self, "weights", weights)

    def weighing(self) -> "Examples":
        """Those that weigh anything."""
        rows = np.flatnonzero(self.weights > 0)
        if len(rows) == len(self.texts):
            return self
        texts = [self.texts[row] for row in rows.tolist()]
        return Examples(texts, self.truth[rows], self.weights[rows])


@dataclass(frozen=True)
class Start:
    """What a candidate starts from.

    `base`: a folder with pretrained weights, for a family that has one. `instruction`: what a language
    model is asked, for a family that asks.
    """

    seed: int
    base: Path | None = None
    instruction: Instruction | None = None

    @classmethod
    def of(
        cls, settings: Settings, *, seed: int, base: Path, adapted: Path, asked: Mapping[str, Any]
    ) -> Self:
        """What the stages before left for a candidate; `asked`: its instruction as JSON, perhaps
        empty."""
        chosen = adapted if settings.adapt else base
        instruction = Instruction.from_json(asked) if asked else None
        return cls(seed, chosen if settings.base else None, instruction)


class Classifier(Protocol):
    """What every family's `Model` can do."""

    settings: Settings
    space: LabelSpace

    def __init__(self, settings: Settings, space: LabelSpace, start: Start) -> None: ...

    def fit(self, train: Examples, validation: Examples, log: Log, state: Path) -> None:
        """Learn from `train`, all of whose rows weigh more than 0; `validation` may only decide when to
        stop and what is kept, and weighs alike.

        `state`: a folder, perhaps not there yet, that outlives a kill: a second call with the same
        arguments goes on from what it holds. The caller removes it when the model is saved.
        """

    def scores(self, texts: Sequence[str]) -> Scores:
        """[n, labels], 0..1, rows in the order of `texts`; (0, labels) for no texts. A row of NaN is a
        text that got no valid answer. Not calibrated: that is what `scored` adds."""

    def save(self, folder: Path) -> None:
        """Write the weights into an existing folder; no pickle, no training text."""

    @classmethod
    def load(cls, folder: Path, settings: Settings, space: LabelSpace) -> Self: ...


@runtime_checkable
class Exportable(Protocol):
    """A family whose model is an encoder that can be exported to ONNX."""

    def graph(self) -> "Graph": ...


@dataclass(frozen=True)
class Graph:
    """What export needs: a module from token ids to logits, its tokenizer's file, its settings."""

    module: object  # torch.nn.Module; not named here, so that this module loads without torch
    tokenizer: Path
    prefix: str
    max_length: int


def examples(table: pd.DataFrame, part: str, space: LabelSpace) -> Examples:
    """The texts of one part, their labels and, where there is a column `weight`, their weights;
    `Problem` where the part has no row."""
    rows = table[table["part"] == part]
    if rows.empty:
        raise Problem(f"the {part} part has no rows", where="split")
    weights = rows["weight"].to_numpy(np.float64) if "weight" in rows else np.ones(len(rows))
    return Examples(rows["text"].tolist(), tables.judged(rows, "label", space) > 0.5, weights)


def scored(model: Classifier, texts: Sequence[str]) -> Scores:
    """`model.scores`, calibrated by its space; `Problem` where one is no number though the model doesn't
    write its answers."""
    scores = model.scores(texts)
    writes = isinstance(model.settings, Asked) and model.settings.predict == "generate"
    missing = int((~answered(scores)).sum())
    if missing and not writes:
        raise Problem(
            f"{missing} of {len(texts)} texts get a score that is no number",
            where=f"a model of the family {model.settings.family}",
            remedy="Its training has diverged: lower `lr`.",
        )
    return model.space.calibrated(scores)


def macro_f1(space: LabelSpace, scores: Scores, on: Examples) -> float:
    """Macro-F1 of what `space` decides from `scores`."""
    return metrics.macro_f1(on.truth, space.decide(scores))


@dataclass(frozen=True)
class Recipe:
    """A candidate's name and complete settings, and a digest of the code that acts on them."""

    candidate: str
    settings: Settings
    code: str

    def save(self, path: Path) -> None:
        content = {**asdict(self), "settings": self.settings.model_dump(mode="json")}
        path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")

    @classmethod
    def load(cls, path: Path) -> Self:
        content = json.loads(path.read_text("utf-8"))
        family = FAMILIES[content["settings"]["family"]]
        return cls(content["candidate"], family.model_validate(content["settings"]), content["code"])


def create(settings: Settings, space: LabelSpace, start: Start) -> Classifier:
    """An untrained model of the family that `settings` name."""
    return _family(settings.family)(settings, space, start)


def save(model: Classifier, folder: Path, recipe: Recipe) -> None:
    """A new folder that `load` reads: the family's files, `labels.json` and `recipe.json`.

    The recipe's code digest makes the folder differ where only the code that made it does.
    """
    folder.mkdir(parents=True)
    model.save(folder)
    model.space.save(folder / "labels.json")
    recipe.save(folder / RECIPE)


def load(folder: Path) -> Classifier:
    """The model that `save` wrote; `Problem` where the folder holds none."""
    if not (folder / RECIPE).is_file():
        raise Problem(
            "no model here", where=str(folder), remedy="Run `dvc repro`, or `dvc pull` what it tracks."
        )
    settings = Recipe.load(folder / RECIPE).settings
    return _family(settings.family).load(folder, settings, LabelSpace.load(folder / "labels.json"))


def _family(name: str) -> type[Classifier]:
    model: type[Classifier] = importlib.import_module(f"undertone.models.{name}").Model
    return model
