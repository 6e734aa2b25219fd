"""Scores for every row of a file, every row accounted for."""

from pathlib import Path

import pandas as pd

from undertone.cells import Column, Wanted
from undertone.errors import Problem
from undertone.files import whole
from undertone.params import Source
from undertone.predictor import Predictor
from undertone.workbook import read_files

FORMATS = (".parquet", ".csv", ".jsonl")


def score_file(predictor: Predictor, path: Path, out: Path, *, text: str, id_: str | None) -> str:
    """Write a row for each row of `path`: its id (or its row number), its labels and scores.

    `text` and `id_` name columns. Returns the line to show. `Problem` on a bad cell, as in ingest.
    """
    if out.suffix not in FORMATS:
        raise Problem(f"'{out.suffix}' is no format to write", where=str(out), remedy=", ".join(FORMATS))
    if not path.is_file():
        raise Problem("no such file", where=str(path))
    columns = [Column(text, "--column", exact=True)]
    if id_ is not None:
        columns.append(Column(id_, "--id", exact=True))
    raw = read_files(
        path.parent, Source(files=[path.name], text=text), Wanted(tuple(columns), id_, 1), ""
    )
    if raw.bad:
        raise Problem(f"{len(raw.bad)} cells can't be read, the first is {raw.bad[0]}", where=str(path))
    predicted = predictor.predict(raw.cells[f"cell.{text}"].tolist())
    table = pd.DataFrame([one["scores"] for one in predicted], columns=list(predictor.space.labels))
    table.insert(0, "labels", [";".join(one["labels"]) for one in predicted])
    table.insert(0, "id", raw.cells[f"cell.{id_}" if id_ else "row"])
    with whole(out) as beside:
        _write(table, beside, out.suffix)
    return f"{len(table):,} rows scored into {out}"


def _write(table: pd.DataFrame, path: Path, suffix: str) -> None:
    if suffix == ".parquet":
        table.to_parquet(path, index=False)
    elif suffix == ".csv":
        table.to_csv(path, index=False)
    else:
        table.to_json(path, orient="records", lines=True, force_ascii=False)
