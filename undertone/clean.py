"""Cleaning a table: clean texts, no empty ones; repeats are numbered, not dropped."""

import pandas as pd

from undertone import params, repeats
from undertone.ledger import Ledger
from undertone.text import cleaned


def clean(table: pd.DataFrame, settings: params.Clean, *, seed: int) -> tuple[pd.DataFrame, Ledger]:
    """A comments table with clean texts, without empty ones, and with `repeat`: see `repeats.groups`."""
    texts = table["text"].fillna("").map(cleaned)
    kept = table.assign(text=texts)[texts != ""].reset_index(drop=True)
    kept["repeat"] = repeats.groups(
        kept["text"].tolist(), similarity=settings.similarity, shingle=settings.shingle, seed=seed
    )
    return kept, Ledger("clean", len(table), len(kept), {"empty": len(table) - len(kept)})
