"""Scores for every row of a file, every row accounted for."""

import glob
from pathlib import Path

import pandas as pd

from undertone import tables
from undertone.cells import Column, Wanted
from undertone.errors import Problem
from undertone.params import Source
from undertone.predictor import Predictor
from undertone.workbook import read_files


def score_file(predictor: Predictor, path: Path, out: Path, *, text: str, id_: str | None) -> str:
    """Write a row for each row of `path`: its id (or its row number), its labels and scores.

    `text` and `id_` name columns. Returns the line to show. `Problem` on a bad cell, as in ingest.
    """
    if out.suffix not in tables.FORMATS:
        what = f"'{out.suffix}' is no format to write"
        raise Problem(what, where=str(out), remedy=", ".join(tables.FORMATS))
    if not path.is_file():
        raise Problem("no such file", where=str(path))
    columns = [Column(text, "--column", exact=True)]
    if id_ is not None:
        columns.append(Column(id_, "--id", exact=True))
    source = Source(files=[glob.escape(path.name)], text=text)
    raw = read_files(path.parent, source, Wanted(tuple(columns), id_, 1), "")
    if raw.bad:
        raise Problem(f"{len(raw.bad)} cells can't be read, the first is {raw.bad[0]}", where=str(path))
    predicted = predictor.predict(raw.cells[f"cell.{text}"].tolist())
    table = pd.DataFrame([one["scores"] for one in predicted], columns=list(predictor.space.labels))
    table.insert(0, "abstained", [one["abstained"] for one in predicted])
    table.insert(0, "labels", [";".join(one["labels"]) for one in predicted])
    table.insert(0, "id", raw.cells[f"cell.{id_}" if id_ else "row"])
    tables.share(table, out)
    return f"{len(table):,} rows scored into {out}"
