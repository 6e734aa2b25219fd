"""Cleaning a table: clean texts, no empty ones, none of another category; repeats are numbered."""

import pandas as pd

from undertone import params
from undertone.codebook import Categories
from undertone.corpus import repeats
from undertone.corpus.ledger import Ledger
from undertone.errors import Problem
from undertone.text import cleaned


def clean(
    table: pd.DataFrame, settings: params.Clean, categories: Categories | None, *, seed: int
) -> tuple[pd.DataFrame, Ledger]:
    """A comments table with clean texts, without empty ones, and with `repeat`: see `repeats.groups`.

    With `categories` only rows of an included one. `Problem` where their column isn't in the table.
    """
    texts = table["text"].fillna("").map(cleaned)
    empty = texts == ""
    belongs = _belongs(table, categories)
    reasons = {
        "empty": empty,
        "category excluded": ~empty & (belongs == "no"),
        "category unknown to the codebook": ~empty & (belongs == "unknown"),
    }
    dropped = {why: int(rows.sum()) for why, rows in reasons.items() if rows.any()}
    kept = table.assign(text=texts)[~empty & (belongs == "yes")].reset_index(drop=True)
    kept["repeat"] = repeats.groups(
        kept["text"].tolist(), similarity=settings.similarity, shingle=settings.shingle, seed=seed
    )
    return kept, Ledger("clean", len(table), len(kept), dropped)


def _belongs(table: pd.DataFrame, categories: Categories | None) -> "pd.Series[str]":
    if categories is None:
        return pd.Series("yes", index=table.index)
    column = f"meta.{categories.column}"
    if column not in table:
        raise Problem(
            f"the codebook chooses rows by the column '{categories.column}', which was not read",
            where="clean",
            remedy=f"Add {categories.column} to ingest's `meta`, or drop the codebook's `categories`.",
        )
    words = {True: "yes", False: "no", None: "unknown"}
    known = {value: words[categories.kept(value)] for value in table[column].unique()}
    return table[column].map(known)
