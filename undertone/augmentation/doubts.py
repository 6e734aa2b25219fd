"""What a judge that learns from the other training rows says of each; and whether heeding it pays.

The judge is best a cheap family: it learns once a fold. Its `state` has to be a fresh folder each time,
for one that learns by gradient goes on from what it finds there.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

import undertone.models.tfidf  # noqa: F401  # loaded by its name; its change is a change of who doubts
from undertone import models, tables
from undertone.annotation import noise
from undertone.corpus import split
from undertone.labels import Flags, LabelSpace, Scores
from undertone.learning import Learner
from undertone.measures import metrics
from undertone.params import Calibrate, Clean, Folds, Sampled, TfidfSettings

AS_THEY_ARE = {"class_weights": "none", "logit_adjustment": 0.0, "downsample": None, "mixing": 0.0}
FOLDS = Folds(k=5, repeats=1)
STATE = Path("models/.state/doubts")  # where nothing is left: the judge's family learns at once
WAYS: tuple[noise.Remedy, ...] = tuple(way for way in get_args(noise.Remedy) if way != "none")
ORACLE = "oracle"  # drops what was flipped and nothing else: no way that drops can know more
HALF = 0.5
Kind = Literal["uniform", "class"]


def judge(settings: TfidfSettings, space: LabelSpace, calibrate: Calibrate, *, seed: int) -> Learner:
    """Who doubts in the pipeline: needs no base, and takes seconds."""
    return Learner(settings, space, models.Start(seed), calibrate, STATE)


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


def flipped(truth: Flags, kind: Kind, rate: float, rng: np.random.Generator) -> Flags:
    """`truth` [n, labels] with about `rate` of the rows given another label: any other (`uniform`), or
    the one that theirs is always mistaken for (`class`). Of many labels, one that is there and one that
    isn't change places."""
    noisy, labels = truth.copy(), truth.shape[1]
    taken = (np.arange(labels) + rng.integers(1, labels, size=labels)) % labels
    for row in np.flatnonzero(rng.random(len(truth)) < rate):
        there = rng.permutation(np.flatnonzero(truth[row]))[:1]
        away = np.flatnonzero(~truth[row])
        if kind == "class" and len(there) and not truth[row, taken[there[0]]]:
            away = taken[there]
        noisy[row, there] = False
        if len(away):
            noisy[row, rng.choice(away)] = True
    return noisy


def planted(
    parts: Mapping[str, pd.DataFrame],
    tested: str,
    judge: Learner,
    candidate: Learner,
    *,
    kind: Kind,
    rate: float,
    draws: int,
    how: Folds,
    alike: Clean,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """What flips in the training part cost a candidate, and what each of WAYS gives back of it.

    `parts`: train, validation and, if that is `tested`, test, each a split's rows; but for the training
    part all stay as they are. `draws`: how often flips are drawn; figures are over the tested rows of
    all of them together, with the bootstrap over authors.

    `found`: the likely errors by `noise.quality` (`doubted`), how many were `flipped`, and `both`.
    `macro_f1` learnt from `clean`, `noisy` and cleaned labels, and by ORACLE; what was `lost`, and how
    much of that is `recovered`, (cleaned - noisy) / (clean - noisy), where any was.
    """
    space, train = judge.space, parts["train"]
    validation = models.examples(parts["validation"], "validation", space)
    on = parts[tested]
    truth, true = (tables.judged(rows, "label", space) > HALF for rows in (train, on))
    found = dict.fromkeys(("flipped", "doubted", "both"), 0)
    times, ones = (draws if rate else 1), np.ones(len(train))

    def decided(name: str, labels: Flags, weights: noise.Weights) -> Flags:
        weighed = models.examples(_labelled(train, labels, space, weight=weights), "train", space)
        model, _ = candidate.learn(weighed, validation, name, lambda *_: None)
        return model.space.decide(models.scored(model, on["text"].tolist()))

    said = {"clean": [decided("clean", truth, ones)] * times}
    for draw in range(times):
        given = flipped(truth, kind, rate, np.random.default_rng((seed, draw, round(rate * 1000))))
        wrong = (given != truth).any(axis=1)
        fresh = replace(judge, state=judge.state / str(draw))
        scores = out_of_fold(_labelled(train, given, space), fresh, how, alike, seed=seed)
        doubted, _ = noise.quality(given, scores, space)
        for name, rows in (("flipped", wrong), ("doubted", doubted), ("both", wrong & doubted)):
            found[name] += int(rows.sum())
        weights = {"noisy": ones}
        weights |= {way: noise.cleaned(given, scores, space, way) for way in WAYS}
        weights[ORACLE] = (~wrong).astype(np.float64)
        for way, own in weights.items():
            said.setdefault(way, []).append(decided(f"{way}.{draw}", given, own))
    together = {way: np.concatenate(flags) for way, flags in said.items()}
    groups = np.tile(tables.groups(on), times)
    figures = _measured(np.tile(true, (times, 1)), together, groups, resamples, seed=seed)
    return {"noise": kind, "rate": rate, "n": len(on), "found": found, **figures}


def line(found: Mapping[str, Any]) -> str:
    """For the log: what `planted` returned."""
    clean, noisy = (found["macro_f1"][way]["value"] for way in ("clean", "noisy"))
    back = "".join(
        f", {way} gives back {one['value']:.2f}"
        for way, one in found["recovered"].items()
        if way != ORACLE
    )
    return f"{found['rate']:.0%} flipped: {clean:.3f} → {noisy:.3f}{back}"


def _labelled(
    train: pd.DataFrame, truth: Flags, space: LabelSpace, **columns: noise.Weights
) -> pd.DataFrame:
    labels = [f"label.{label}" for label in space.labels]
    return train.assign(**dict(zip(labels, truth.T.astype(float), strict=True)), **columns)


def _measured(
    truth: Flags, decided: Mapping[str, Flags], groups: Any, resamples: int, *, seed: int
) -> dict[str, Any]:
    counts = [
        np.hstack([truth & flags, ~truth & flags, truth & ~flags]).astype(np.float64)
        for flags in decided.values()
    ]
    by_group = metrics.summed(np.hstack(counts), groups)
    drawn = metrics.resampled(by_group, resamples, np.random.default_rng(seed))
    value, spread = (
        dict(zip(decided, _macro(sums, len(decided), absent).T, strict=True))
        for sums, absent in ((by_group.sum(axis=0)[None], 0.0), (drawn, np.nan))
    )

    def figure(point: Any, draws: Any) -> dict[str, float | None]:
        return metrics.figure(point[0], *metrics.interval(draws, len(by_group)))

    cleaned = (*WAYS, ORACLE)
    lost = [one["clean"] - one["noisy"] for one in (value, spread)]
    with np.errstate(divide="ignore", invalid="ignore"):
        recovered = {
            way: [
                (one[way] - one["noisy"]) / gone for one, gone in zip((value, spread), lost, strict=True)
            ]
            for way in cleaned
        }
    return {
        "macro_f1": {way: figure(value[way], spread[way]) for way in decided},
        "lost": figure(*lost),
        "recovered": {way: figure(*both) for way, both in recovered.items()} if lost[0][0] > 0 else {},
    }


def _macro(sums: Any, ways: int, absent: float) -> Any:
    """[draws, ways] of sums [draws, ways × (true, false positives, false negatives) × labels]."""
    true, false, missed = np.moveaxis(sums.reshape(len(sums), ways, 3, -1), 2, 0)
    return metrics.precision_recall_f1(true, false, missed, absent)["macro_f1"]
