"""Labels that are likely wrong, by what models that haven't seen them say of the texts.

Confident learning (Northcutt, Jiang & Chuang 2021): a row counts as an error of its label where a model
trained on other rows is as sure of another label as it is on average of the rows that bear that one. So
a model that is sure of nothing, or less sure of rare labels, names no more errors than there are.
"""

import warnings
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from undertone.labels import FLOOR, Flags, LabelSpace, Scores, answered

Remedy = Literal["none", "drop", "weigh"]
Weights = NDArray[np.float64]  # [n], 0..1


def quality(
    truth: Flags, scores: Scores, space: LabelSpace
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Which rows [n] have a label that is likely wrong, and how well label and scores agree [n], 0..1.

    `truth` [n, labels] as it was given, `scores` [n, labels] of models that didn't learn from the row.
    Of many labels a text one wrong or missing label is enough; agreement is then cleanlab's average that
    leans to the worst label. A row without a valid answer, or without a label where it needs one, is
    never wrong, and its agreement NaN. `Problem` where the scores don't fit the space.
    """
    space.check(scores)
    known = np.flatnonzero(answered(scores) & (truth.any(axis=1) | space.many))
    wrong, agreement = np.zeros(len(truth), dtype=bool), np.full(len(truth), np.nan)
    if not len(known):
        return wrong, agreement
    given, said = truth[known], scores[known]
    if not space.many:
        wrong[known] = _issues(given.argmax(axis=1), said)
        agreement[known] = said[given]
        return wrong, agreement
    pairs = zip(given.T.astype(np.int64), said.T, strict=True)
    each = [_issues(present, np.column_stack([1 - one, one])) for present, one in pairs]
    wrong[known] = np.any(each, axis=0)
    agreement[known] = _averaged(np.where(given, said, 1 - said))
    return wrong, agreement


def cleaned(truth: Flags, scores: Scores, space: LabelSpace, how: Remedy) -> Weights:
    """What each row [n] counts as in training, 0..1; arguments as `quality` has them.

    `none`: 1. `drop`: 0 for one whose label is likely wrong. `weigh`: how near the given label's score
    comes to the highest one's, so 1 where model and label say the same; of many labels the least over
    them, a label against its absence. What `quality` knows nothing of counts 1, and no label loses all
    its rows: of one that would, the row that agrees best counts 1.
    """
    weights = np.ones(len(truth))
    if how == "none":
        return weights
    wrong, agreement = quality(truth, scores, space)
    known = ~np.isnan(agreement)
    given, said = truth[known], scores[known]
    if how == "drop":
        weights[wrong] = 0
    elif space.many:
        own = np.where(given, said, 1 - said)
        weights[known] = (own / np.maximum(own, 1 - own)).min(axis=1)
    else:
        weights[known] = agreement[known] / said.max(axis=1).clip(FLOOR)
    for carried in truth.T:
        if carried.any() and not weights[carried].any():
            rows = np.flatnonzero(carried)
            weights[rows[np.nanargmax(agreement[rows])]] = 1
    return weights


def _issues(given: NDArray[np.int64], said: Scores) -> NDArray[np.bool_]:
    """cleanlab's for one label a text. Where all rows have the same one, nothing is known of others."""
    if len(np.unique(given)) < 2:
        return np.zeros(len(given), dtype=bool)
    # imported here: cleanlab takes two seconds, for it loads Hugging Face's `datasets`
    from cleanlab.filter import find_label_issues

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a label with a single row, which stays
        found = find_label_issues(given, said, n_jobs=1)
    return np.asarray(found, dtype=bool)


def _averaged(agreement: NDArray[np.float64]) -> NDArray[np.float64]:
    """[n] of [n, labels]: an exponential moving average that comes to the worst label last."""
    from cleanlab.internal.multilabel_scorer import exponential_moving_average

    return np.asarray(exponential_moving_average(agreement, alpha=0.8), dtype=np.float64)
