"""A candidate learns: once for the model that is kept, and once a fold where the split has folds."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from undertone import models, tables
from undertone.labels import LabelSpace
from undertone.measures import calibration
from undertone.models import Classifier, Examples, Log, Start
from undertone.params import Calibrate, Settings

CURVES = ("loss", "learning_rate", "grad_norm", "train_", "validation_", "gap")  # how their names begin


@dataclass(frozen=True)
class Learner:
    """How a candidate learns. `state`: where a training that is killed goes on from; the caller removes
    it once what was learnt is kept."""

    settings: Settings
    space: LabelSpace
    start: Start
    calibrate: Calibrate
    state: Path

    def learn(
        self, train: Examples, validation: Examples, name: str, log: Log
    ) -> tuple[Classifier, float]:
        """A model fitted on those of `train` that weigh anything, and its macro-F1 on `validation`,
        which stops it, calibrates it and puts its thresholds."""
        model = models.create(self.settings, self.space, self.start)
        model.fit(train.weighing(), validation, log, self.state / name)
        scores = models.scored(model, validation.texts)
        model.space = calibration.fit(self.space, scores, validation.truth, self.calibrate)
        return model, models.macro_f1(model.space, model.space.calibrated(scores), validation)

    def out_of_fold(self, table: pd.DataFrame) -> pd.DataFrame:
        """What each fold's own model says of its test rows: `id`, `fold`, a calibrated score a label,
        and `decided.<label>` (0 or 1), since thresholds differ by fold.

        `table` is a split's; without columns `fold.<repeat>.<fold>` the result has no rows.
        """
        decided = [f"decided.{label}" for label in self.space.labels]
        parts = [pd.DataFrame(columns=["id", "fold", *self.space.labels, *decided])]
        # the rule has no say in decisions, and a fold's validation is too little for it
        without = replace(self, calibrate=self.calibrate.model_copy(update={"max_error": None}))
        for fold in tables.folds(table):
            own = table.assign(part=table[fold])
            train, validation = (
                models.examples(own, part, self.space) for part in ("train", "validation")
            )
            model, _ = without.learn(train, validation, fold, lambda *_: None)
            rows = own[own["part"] == "test"]
            scores = models.scored(model, rows["text"].tolist())
            judged = tables.scores_table(rows["id"], scores, model.space)
            judged.insert(1, "fold", fold)
            judged[decided] = model.space.decide(scores).astype(float)
            parts.append(judged)
        return pd.concat(parts[1:] or parts, ignore_index=True)


def mixed(table: pd.DataFrame) -> dict[str, float]:
    """Of what `compose` returned, as metrics: of each origin its training rows, `rows.<origin>`, and
    what one weighs on average, `weight.<origin>`."""
    train = table[table["part"] == "train"].groupby("origin")["weight"]
    return {
        f"{what}.{origin}": float(value)
        for what, values in (("rows", train.size()), ("weight", train.mean()))
        for origin, value in values.items()
    }


class Curves:
    """What a log is told of the course of a training, as JSON has it; not what it took, for the same
    training must leave the same bytes."""

    def __init__(self, log: Log) -> None:
        self.points: list[dict[str, Any]] = []
        self._log = log

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._log(step, values)
        own = {
            name: float(f"{value:.6g}") if math.isfinite(value) else None
            for name, value in values.items()
            if name.removeprefix("preference_").startswith(CURVES)
        }
        if own:
            self.points.append({"step": step, **own})
