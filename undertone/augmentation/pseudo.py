"""Labels for comments that nobody labelled: what an ensemble says of them, and how far it agrees.

Pseudo-labels (Lee 2013) by several models, as where they err differently, what they agree on is more
often right (Zhou & Li 2005, "Tri-training"). What they disagree on is what people are best asked about.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from undertone import params, tables
from undertone.annotation import queues
from undertone.corpus import held, split
from undertone.labels import Flags, LabelSpace, Scores, answered
from undertone.measures import calibration, metrics

ARM = "disagreed"
LEFT_OUT = "repeats, or is of an author of, a validation or test row, or is later than training"


@dataclass(frozen=True)
class Said:
    """What an ensemble says of n texts: `decided` [n, labels], `confidence` [n] in 0..1, and whether all
    decide the same, `alike` [n]. A text that one of them gave no valid answer has no label, confidence
    0, and nobody disagrees on it."""

    decided: Flags
    confidence: NDArray[np.float64]
    alike: NDArray[np.bool_]

    def accepted(self, threshold: float) -> NDArray[np.bool_]:
        return np.asarray(self.confidence >= threshold - 1e-12)  # 2/3 of three votes is 2/3


def pool(
    comments: pd.DataFrame,
    labelled: pd.DataFrame,
    people: pd.DataFrame,
    parts: pd.DataFrame,
    settings: params.Split,
    alike: params.Clean,
) -> tuple[pd.DataFrame, int]:
    """The cleaned `comments` that have no label, not even people's, and that may be learnt from, see
    `held.free`; in time order none of after the training part. And how many without a label may not.

    `labelled` and `people`: what the stage label wrote; `parts`: the split.
    """
    columns = [column for column in labelled.columns if str(column).startswith("label.")]
    known = labelled.loc[labelled[columns].notna().any(axis=1), "id"]
    without = ~comments["id"].isin([*known, *people["id"]]).to_numpy()
    free = held.free(comments, parts, alike) if without.any() else without
    if settings.order == "time":
        free &= ~split.late(comments, parts)
    return comments[without & free].reset_index(drop=True), int((without & ~free).sum())


def combined(
    scores: Sequence[Scores], spaces: Sequence[LabelSpace], how: params.Pseudo, space: LabelSpace
) -> Said:
    """What the members say together: calibrated `scores` [n, labels] of each, decided by its own space.

    `vote`: the set of labels that most decide, of equally many the one with the higher mean score; its
    share is the confidence. `mean`: what `space`, that of the labels, decides from the mean of the
    scores, of many labels at the mean of the members' thresholds; the confidence is
    `LabelSpace.confidence`.
    """
    each = np.stack([own.decide(one) for own, one in zip(spaces, scores, strict=True)])
    valid = np.all([answered(one) for one in scores], axis=0)
    mean = np.where(valid[:, None], np.mean(np.nan_to_num(np.stack(scores)), axis=0), 0.0)
    alike = np.asarray((each == each[0]).all(axis=(0, 2)) | ~valid)
    if how.combine == "mean":
        thresholds = np.mean([own.thresholds for own in spaces], axis=0)
        whole = LabelSpace.of(space.codebook, space.labels, space.names, many=space.many)
        joint = LabelSpace(**{**vars(whole), "thresholds": tuple(thresholds.tolist())})
        decided, confidence = joint.decide(mean), joint.confidence(mean)
    else:
        # [members, n]: how many decide as this one
        votes = (each[:, None] == each[None]).all(axis=3).sum(axis=1)
        likely = np.where(each, mean, 1 - mean).prod(axis=2)
        # no product of scores is worth a vote
        best = (votes + 0.5 * likely).argmax(axis=0)
        rows = np.arange(len(mean))
        decided, confidence = each[best, rows], votes[best, rows] / len(each)
    return Said(decided & valid[:, None], np.where(valid, confidence, 0.0), alike)


def crossfitted(
    validation: pd.DataFrame,
    scores: Sequence[Scores],
    how: params.Pseudo,
    space: LabelSpace,
    calibrate: params.Calibrate,
    *,
    seed: int,
) -> Said:
    """What the members say together of validation, each row by temperatures and thresholds of the
    others, authors and near-repeats whole: of the rows that put them they would know too much.

    What else a member took from validation, such as when to stop, stays.
    """
    truth = tables.judged(validation, "label", space) > 0.5
    units = split.units(validation)
    folds = [calibration.crossfitted(space, one, truth, calibrate, units, seed=seed) for one in scores]
    decided = np.zeros((len(validation), len(space.labels)), dtype=bool)
    confidence, alike = np.zeros(len(validation)), np.ones(len(validation), dtype=bool)
    for members in zip(*folds, strict=True):
        held = members[0][0]
        spaces = [own for _, own in members]
        each = [own.calibrated(one[held]) for own, one in zip(spaces, scores, strict=True)]
        found = combined(each, spaces, how, space)
        decided[held], confidence[held], alike[held] = found.decided, found.confidence, found.alike
    return Said(decided, confidence, alike)


def rows(table: pd.DataFrame, said: Said, space: LabelSpace, threshold: float) -> pd.DataFrame:
    """`id`, `text`, `group`, `repeat`, `label.<label>` and `confidence` of the rows whose label is
    accepted."""
    kept = said.accepted(threshold)
    labels = pd.DataFrame(
        said.decided[kept].astype(np.float64), columns=[f"label.{label}" for label in space.labels]
    )
    found = table.loc[kept, ["id", "text", "group", "repeat"]].reset_index(drop=True)
    return pd.concat([found, labels], axis=1).assign(confidence=said.confidence[kept])


def queue(
    table: pd.DataFrame, said: Said, open_: Sequence[str], how: params.Pseudo, *, seed: int
) -> pd.DataFrame:
    """Who goes to people, as `queues.queue` has it: of the pool's `table` those not accepted and not
    alike, the least confident first, and some of all others of `open_`.

    `open_`: the ids of all comments that people may be asked about, and not of the pool alone, or the
    random ones would speak for what voters were not asked about only.
    """
    apart = ~said.accepted(how.threshold) & ~said.alike & table["id"].isin(open_).to_numpy()
    order = np.flatnonzero(apart)
    order = order[np.argsort(said.confidence[order], kind="stable")][: how.queue.disagreed]
    arms = {ARM: table["id"].iloc[order].tolist()}
    return queues.queue(open_, arms, how.queue.random, np.random.default_rng(seed))


@dataclass(frozen=True)
class Labelled:
    """`rows`: what may be learnt from, as `rows` has it; `queue`: who goes to people, as `queue` has it;
    `told`: what the report says, JSON-ready."""

    rows: pd.DataFrame
    queue: pd.DataFrame
    told: dict[str, Any]

    def line(self) -> str:
        """For the log."""
        told = self.told
        if not told:
            return "no ensemble, or no comment without a label: nothing to do"
        right = told["accuracy"]["label"]
        shown = f", right in {metrics.told(right)} of {right['n']:,} validation rows" if right else ""
        return (
            f"{told['pool']:,} rows without a label → {told['accepted']:,} accepted{shown}, "
            f"{told['disagreed']:,} disagreed on, {told['in_doubt']:,} in doubt"
        )


def labelled(
    table: pd.DataFrame,
    validation: pd.DataFrame,
    scores: Sequence[Sequence[Scores]],
    spaces: Sequence[LabelSpace],
    how: params.Pseudo,
    space: LabelSpace,
    calibrate: params.Calibrate,
    left_out: int,
    open_: Sequence[str],
    *,
    draws: int,
    seed: int,
) -> Labelled:
    """What becomes of the pool's `table`. `scores`: each member's, calibrated, of the pool's texts and
    of the validation rows', on which they were calibrated, too; without a member nothing has a label.
    `open_`: see `queue`.

    `told`: the settings; how many rows of the pool are accepted, disagreed on, or in doubt (all decide
    the same, and are not sure enough), and label by label; and `accuracy`: how often what is accepted is
    right, by `label` and `gold` of validation, each row decided as `crossfitted` has it.
    """
    if not scores:
        nothing = np.zeros((0, len(space.labels)))
        nobody = combined([nothing], [space], how, space)
        none = table.iloc[:0]
        return Labelled(rows(none, nobody, space, 1.0), queue(none, nobody, [], how, seed=seed), {})
    said = combined([one[0] for one in scores], spaces, how, space)
    checked = crossfitted(validation, [one[1] for one in scores], how, space, calibrate, seed=seed)
    accepted = said.accepted(how.threshold)

    def right(reference: tables.Reference) -> dict[str, Any] | None:
        return accuracy(validation, checked, space, reference, how.threshold, draws=draws, seed=seed)

    told = {
        **how.model_dump(),
        "pool": len(table),
        "left_out": {LEFT_OUT: left_out},
        "accepted": int(accepted.sum()),
        "disagreed": int((~accepted & ~said.alike).sum()),
        "in_doubt": int((~accepted & said.alike).sum()),
        "labels": {
            label: {
                "accepted": int((accepted & said.decided[:, at]).sum()),
                "rejected": int((~accepted & said.decided[:, at]).sum()),
            }
            for at, label in enumerate(space.labels)
        },
        "accuracy": {
            "label": right("label"),
            "gold": right("gold"),
        },
    }
    asked = queue(table, said, open_, how, seed=seed)
    return Labelled(rows(table, said, space, how.threshold), asked, told)


def accuracy(
    table: pd.DataFrame,
    said: Said,
    space: LabelSpace,
    reference: tables.Reference,
    threshold: float,
    *,
    draws: int,
    seed: int,
) -> dict[str, Any] | None:
    """How often what is accepted is right by a reference, with its interval and `n`, and of how many
    rows that the reference knows; None where it knows none of the accepted, or is of chosen rows."""
    truth = tables.judged(table, reference, space)
    known = ~np.isnan(truth).any(axis=1) & (space.many | (truth.sum(axis=1) == 1))
    rows = known & said.accepted(threshold)
    uneven = reference == "gold" and queues.uneven(table[known], len(table))
    if uneven or not rows.any():
        return None
    found = metrics.evaluate(
        truth[rows] > 0.5,
        said.decided[rows],
        space,
        groups=tables.groups(table)[rows],
        draws=draws,
        rng=np.random.default_rng(seed),
    )
    return {**found["overall"]["accuracy"], "n": int(rows.sum()), "of": int(known.sum())}
