"""Which rows go to people next, and how likely each was to be among them.

Rows that a criterion names are in for certain; of all others some are drawn, each as likely as the next.
So labels of a queue can speak for the whole table, each row weighed by the inverse of its inclusion
probability (Horvitz & Thompson 1952).
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

RANDOM = "random"  # the arm of the rows that are drawn
UNEVEN = 2  # times as likely to be labelled as others: a row was chosen, and not drawn as they were


def queue(
    ids: Sequence[str],
    arms: Mapping[str, Iterable[str]],
    drawn: int,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """`id`, `arm` and `inclusion` (0..1) of each row in the queue, in random order.

    `ids`: of the whole table. `arms`: why → the rows that are in for it; a row in several is in for
    the first. `drawn`: how many of the others; all of them where there are no more.
    """
    why: dict[str, str] = {}
    known = set(ids)
    for arm, chosen in arms.items():
        for one in chosen:
            assert one in known
            why.setdefault(one, arm)
    others = [one for one in ids if one not in why]
    count = min(drawn, len(others))
    likely = count / len(others) if others else 0.0
    rows = [(one, arm, 1.0) for one, arm in why.items()]
    rows += [(others[at], RANDOM, likely) for at in rng.choice(len(others), count, replace=False)]
    shuffled = [rows[at] for at in rng.permutation(len(rows))]
    return pd.DataFrame(shuffled, columns=["id", "arm", "inclusion"])


def uneven(gold: pd.DataFrame, rows: int) -> bool:
    """Whether some of a part's `rows` were far likelier to be labelled by people than others, or others
    could not be labelled at all: those that a review took because the models erred or differed there.
    Unweighed they say nothing of the whole, and who was not looked at for the choice is ahead for
    nothing; docs/mixes.md says why they aren't weighed."""
    inclusion = gold["inclusion"].dropna() if "inclusion" in gold else pd.Series(dtype=float)
    if inclusion.empty:
        return False
    stand_for = float((1 / inclusion).sum())  # about all rows, if each of them could be drawn
    return float(inclusion.max()) > UNEVEN * float(inclusion.min()) or UNEVEN * stand_for < rows
