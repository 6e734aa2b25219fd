"""Who says whether a generated text has the label that was asked for.

The champion of this very run can't: it learns from what is accepted. So it is a released one of before,
or a model of the family tfidf that learns from the training part alone; that needs no base and takes
seconds, and its errors are others than those of the encoders that learn from what it lets by.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from undertone import models
from undertone.corpus import split
from undertone.deployment.predictor import Predictor
from undertone.errors import Problem
from undertone.labels import Flags, LabelSpace
from undertone.measures import calibration, metrics
from undertone.models import Start
from undertone.models.tfidf import Model
from undertone.params import Bundle, Calibrate, TfidfSettings


def judge(
    named: Bundle | None,
    table: pd.DataFrame,
    space: LabelSpace,
    settings: TfidfSettings,
    calibrate: Calibrate,
    *,
    seed: int,
) -> tuple[Callable[[Sequence[str]], Flags], dict[str, Any]]:
    """From texts to decisions [n, labels], and who that is, with its macro-F1 on the validation part of
    `table`: of a model that is fitted here each row by temperature and thresholds of the others, authors
    and near-repeats whole; a bundle brings its own, which may be of the same rows. `Problem` where the
    bundle is another one than `named`, or has other labels."""
    train, validation = (models.examples(table, part, space) for part in ("train", "validation"))
    if named is None:
        model = Model(settings, space, Start(seed=seed))
        model.fit(train, validation, lambda *_: None, Path())
        scores = model.scores(validation.texts)
        own = calibration.fit(space, scores, validation.truth, calibrate)

        def decide(texts: Sequence[str]) -> Flags:
            return own.decide(own.calibrated(model.scores(texts)))

        units = split.units(table[table["part"] == "validation"])
        decided = np.zeros_like(validation.truth)
        for rows, apart in calibration.crossfitted(
            space, scores, validation.truth, calibrate, units, seed=seed
        ):
            decided[rows] = apart.decide(apart.calibrated(scores[rows]))
        told: dict[str, Any] = {"family": "tfidf", "digest": None}
    else:
        predictor = Predictor.load(Path(named.folder))
        digest = predictor.manifest["digest"]
        if digest != named.digest:
            raise Problem(
                f"its manifest's digest is {digest}, not the one in generate.<source>.accept.judge",
                where=named.folder,
                remedy="Name this one, or bring the other back.",
            )
        if predictor.space.labels != space.labels:
            raise Problem(
                f"has the labels {', '.join(predictor.space.labels)}, not {', '.join(space.labels)}",
                where=named.folder,
                remedy="Leave generate.<source>.accept.judge empty, or name another bundle.",
            )

        def decide(texts: Sequence[str]) -> Flags:
            return predictor.space.decide(predictor.scores(texts))

        decided = decide(validation.texts)
        told = {"family": "release", "digest": digest}
    reached = metrics.macro_f1(validation.truth, decided)
    return decide, {**told, "validation_macro_f1": round(reached, 6)}
