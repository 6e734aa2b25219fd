"""The tables that stages hand to each other, checked on the way in and on the way out.

`comments`: `id`, `text`, `group`, `time`, `part` (an official split), `file`, `sheet`, `row`,
`meta.<column>`, `label.<label>` and `gold.<label>` (0 or 1, empty where a row has no label). After
cleaning also `repeat` (rows with the same number repeat each other); where voters gave the labels also
`silver.<label>` (their fused scores), `teachers`, `prompts`, `answered`; where people reviewed rows,
`reviewers`, `reviewed` (the day) and `inclusion` of rows with gold; after the split `part` is train,
validation or test, and `fold.<repeat>.<fold>` the same for each model of a cross-validation; `parent`,
if there is one, names the rows that a synthetic row was made from (ids joined by `;`). What a candidate
learns from has `weight` and `origin` besides, see `compose`. `scores`: `id` and a column 0..1 for each
label, empty all along the row of a text that got no valid answer.
"""

from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from undertone.errors import Problem
from undertone.files import whole
from undertone.labels import LabelSpace, Scores
from undertone.text import same_name

Reference = Literal["label", "gold"]
PARTS = ("train", "validation", "test")
FORMATS = (".parquet", ".csv", ".jsonl")  # that `share` writes
COMMENTS = ("id", "text", "group", "time", "part", "file", "sheet", "row")


def read(path: Path, needs: tuple[str, ...] = ("id",), *, key: str = "id") -> pd.DataFrame:
    """A parquet table; `Problem` where it is missing, broken, without a column, or a key repeats."""
    if not path.exists():
        raise Problem("no such table", where=str(path), remedy="Run `dvc repro`, or `dvc pull`.")
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise Problem(
            f"not a readable parquet table ({type(error).__name__})", where=str(path)
        ) from None
    return checked(table, needs, where=str(path), key=key)


def write(table: pd.DataFrame, path: Path, needs: tuple[str, ...] = ("id",)) -> None:
    checked(table, needs, where=str(path))
    with whole(path) as beside:
        table.to_parquet(beside, index=False)


def share(table: pd.DataFrame, path: Path) -> None:
    """A table for others, in the format of FORMATS that the file's name asks for."""
    with whole(path) as beside:
        if path.suffix == ".parquet":
            table.to_parquet(beside, index=False)
        elif path.suffix == ".csv":
            table.to_csv(beside, index=False)
        else:
            table.to_json(beside, orient="records", lines=True, force_ascii=False)


def checked(table: pd.DataFrame, needs: tuple[str, ...], *, where: str, key: str = "id") -> pd.DataFrame:
    """`table` itself; `Problem` where a column is missing or a key is empty or stands twice."""
    missing = [column for column in needs if column not in table.columns]
    if missing:
        raise Problem(f"no column {', '.join(missing)}", where=where)
    ids = table[key]
    if ids.isna().any() or (ids == "").any():
        raise Problem(f"{int(ids.isna().sum() + (ids == '').sum())} rows have no {key}", where=where)
    if ids.duplicated().any():
        raise Problem(f"{int(ids.duplicated().sum())} {key}s stand twice", where=where)
    return table


def judged(table: pd.DataFrame, reference: Reference, space: LabelSpace) -> NDArray[np.float64]:
    """The labels of a comments table as [n, labels] of 0 and 1; NaN all along a row without any."""
    columns = [f"{reference}.{label}" for label in space.labels]
    if not set(columns) <= set(table.columns):
        return np.full((len(table), len(columns)), np.nan)
    return table[columns].to_numpy(dtype=np.float64, na_value=np.nan)


def folds(table: pd.DataFrame) -> list[str]:
    """The columns that say which rows a model of the cross-validation learns from; none without one."""
    return [name for name in map(str, table.columns) if name.startswith("fold.")]


def groups(table: pd.DataFrame) -> NDArray[np.int64]:
    """A number for each row [n], the same for rows of one author; without one a row is by itself."""
    names = table["group"].fillna("").map(same_name)
    return pd.factorize(names.where(names != "", "\0" + table["id"]))[0].astype(np.int64)


def scores_table(ids: "pd.Series[str]", scores: Scores, space: LabelSpace) -> pd.DataFrame:
    """A table of scores; `Problem` where they don't fit the label space."""
    space.check(scores)
    table = pd.DataFrame(scores, columns=list(space.labels))
    table.insert(0, "id", ids.to_numpy())
    return table


def scores_of(table: pd.DataFrame, ids: "pd.Series[str]", space: LabelSpace, *, where: str) -> Scores:
    """The scores of `ids`, in their order; `Problem` where one is missing or out of range."""
    checked(table, ("id", *space.labels), where=where)
    rows = pd.Index(table["id"]).get_indexer(pd.Index(ids))
    if (rows < 0).any():
        raise Problem(
            f"{int((rows < 0).sum())} of {len(ids)} rows have no score",
            where=where,
        )
    scores: Scores = table[list(space.labels)].to_numpy(dtype=np.float64)[rows]
    space.check(scores)
    return scores
