"""What a judge that learns from the other training rows says of each; and whether heeding it pays.

Both cost as many trainings as there are folds and ways, so the judge is best a cheap family. Its `state`
has to be a fresh folder each time: one that learns by gradient goes on from what it finds there.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from undertone import comparison, metrics, models, split, tables
from undertone.labels import Flags, Scores, answered
from undertone.learning import Learner
from undertone.noise import Weights
from undertone.params import Clean, Folds, Sampled

AS_THEY_ARE = {"class_weights": "none", "logit_adjustment": 0.0, "downsample": None, "mixing": 0.0}


def out_of_fold(train: pd.DataFrame, judge: Learner, how: Folds, alike: Clean, *, seed: int) -> Scores:
    """Scores [n, labels] of the training rows, in their order, each by models that learnt from neither
    it nor its author nor what repeats it, calibrated; the mean over `how.repeats`.

    The judge learns labels as often as they are, whatever its settings say of rare ones: what a row's
    label is doubted by are probabilities, and a rare label that is drawn up looks right where it isn't.

    `train` needs what a split needs and `label.<label>`, and may have `parent` and `weight`. A row made
    from others (it has a parent) is NaN: it is never held out. `Problem` where fewer than `how.k` units
    hold a label.
    """
    space, settings = judge.space, judge.settings
    if isinstance(settings, Sampled):
        settings = settings.model_copy(update=AS_THEY_ARE)
    own = train.drop(columns=tables.folds(train)).reset_index(drop=True)
    columns = split.folds(own, space, how, alike, seed=seed)
    said = replace(judge, settings=settings).out_of_fold(pd.concat([own, columns], axis=1))
    mean = said.groupby("id")[list(space.labels)].mean()
    scores: Scores = mean.reindex(own["id"]).to_numpy(dtype=np.float64)
    return scores


def pays(
    train: pd.DataFrame,
    validation: pd.DataFrame,
    ways: Mapping[str, Weights],
    judge: Learner,
    *,
    reference: tables.Reference | None = None,
    draws: int,
    seed: int,
) -> dict[str, Any]:
    """Which of several weights of the training rows is kept: the first, but for one that is shown to be
    better on validation (paired, see `comparison`), of several the best.

    `ways`: name → [n], for the rows of `train`; at least one. `reference`: by which labels of
    validation; None: gold where a row has any, else its labels. The judge learns once a way.

    `kept`; `reference`, `n`: by what, and on how many rows; `macro_f1`: way → value and interval;
    `rows`: way → how many weigh more than 0, and how much all weigh; `comparisons`: each way against the
    first.
    """
    space, first = judge.space, next(iter(ways))
    if reference is None:
        reference = "gold" if answered(tables.judged(validation, "gold", space)).any() else "label"
    marks = tables.judged(validation, reference, space)
    rows = np.flatnonzero(answered(marks))
    truth: Flags = marks[rows] > 0.5
    on = models.examples(validation.assign(part="validation"), "validation", space)
    groups = tables.groups(validation)[rows]
    decided, valid, figures = {}, {}, {}
    # the rule has no say in a comparison of decisions
    plain = replace(judge, calibrate=judge.calibrate.model_copy(update={"max_error": None}))
    for way, weights in ways.items():
        weighed = train.assign(part="train", weight=weights * train.get("weight", 1.0))
        learnt = models.examples(weighed[weighed["weight"] > 0], "train", space)
        model, _ = plain.learn(learnt, on, f"weights.{way}", lambda *_: None)
        scores = models.scored(model, validation["text"].iloc[rows].tolist())
        decided[way], valid[way] = model.space.decide(scores), answered(scores)
        found = metrics.evaluate(
            truth,
            decided[way],
            model.space,
            answered=valid[way],
            groups=groups,
            draws=draws,
            rng=np.random.default_rng(seed),
        )
        figures[way] = found["overall"]["macro_f1"]
    compared = comparison.compare(
        truth,
        decided,
        [(way, first) for way in ways if way != first],
        answered=valid,
        groups=groups,
        metric="macro_f1",
        draws=draws,
        rng=np.random.default_rng(seed),
    )
    better = [one["between"][0] for one in compared if one["verdict"] == "better"]
    return {
        "kept": max(better, key=lambda way: figures[way]["value"], default=first),
        "reference": reference,
        "n": len(rows),
        "macro_f1": figures,
        "rows": {
            way: {"n": int((weights > 0).sum()), "weight": round(float(weights.sum()), 1)}
            for way, weights in ways.items()
        },
        "comparisons": compared,
    }
