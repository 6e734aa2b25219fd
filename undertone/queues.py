"""Which rows go to people next, and how likely each was to be among them.

Rows that a criterion names are in for certain; of all others some are drawn, each as likely as the next.
So labels of a queue can speak for the whole table, each row weighed by the inverse of its inclusion
probability (Horvitz & Thompson 1952).
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

RANDOM = "random"  # the arm of the rows that are drawn


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
