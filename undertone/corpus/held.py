"""Which rows say nothing of validation and test, so that something may be learnt from them."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from undertone import params, tables
from undertone.corpus import repeats

Rows = NDArray[np.bool_]  # [n]
HELD = tables.PARTS[1:]


def free(comments: pd.DataFrame, parts: pd.DataFrame, alike: params.Clean) -> Rows:
    """Which of the cleaned `comments`, labelled or not, are not validation or test (in the split
    `parts`, or by the table's own word), repeat no such row, are not as `alike` to one, and are of no
    author who wrote one."""
    ids = parts.loc[parts["part"] != "train", "id"]
    held = (comments["id"].isin(ids) | comments["part"].isin(HELD)).to_numpy()
    kept = ~held
    for shared in (tables.groups(comments), comments["repeat"].to_numpy()):
        kept &= ~np.isin(shared, shared[held])
    side = np.where(held, 1, np.where(kept, 0, -1))
    return np.asarray(kept & ~_near(comments["text"].tolist(), side, alike))


def repeated(texts: "pd.Series[str]", of: "pd.Series[str]", alike: params.Clean) -> Rows:
    """Which of `texts` repeat one of the texts `of`, or are as `alike` to one."""
    both = [*texts, *of]
    side = np.repeat([0, 1], [len(texts), len(of)])
    return _near(both, side, alike)[: len(texts)]


def _near(texts: list[str], side: NDArray[np.int64], alike: params.Clean) -> Rows:
    found = repeats.across(texts, side, 2, floor=alike.similarity, shingle=alike.shingle)
    return np.asarray(found[:, 1] > 0)
