"""How much of the corpus each label is: the classifier's count, corrected by hand-labelled rows."""

from pathlib import Path

import numpy as np
import pandas as pd

from undertone import models, stage, tables
from undertone.augmentation import compose
from undertone.codebook import read_codebook
from undertone.files import read_json, write_json
from undertone.measures import prevalence
from undertone.params import Params
from undertone.people import review
from undertone.voters import silver


def main(
    params: Params,
    *,
    source: str,
    codebook: Path,
    comments: Path,
    reviewed: Path,
    split: Path,
    selection: Path,
    trained: Path,
    training: Path,
    out: Path,
) -> str:
    book = read_codebook(codebook)
    space = book.learnt(params.data.scheme).space
    given = tables.read(comments, ("id", "text", "group"))
    column = params.prevalence.inclusion.get(source)
    drawn = prevalence.probabilities(given, column) if column else None
    asked = book.asked(params.data.scheme).space
    people = tables.read(reviewed)
    if (
        len(people)
        and not people.attrs["others"]
        and np.isnan(tables.judged(given, "gold", asked)).all()
    ):
        write_json(out, {})
        return "nothing is corrected: people saw chosen rows alone; have them label the random ones"
    given = review.merged(given, people, asked, drawn=drawn)
    table, _ = silver.labelled(given, None, book, params.data.scheme)
    if np.isnan(tables.judged(table, "gold", space)).any(axis=1).all():
        write_json(out, {})
        return "no row is labelled by hand, so nothing is corrected"
    judge = read_json(selection)[params.prevalence.judge]
    model = models.load(trained / judge)
    parts = tables.read(split, ("id", "part"))
    learnt = tables.read(training / f"{judge}.parquet", ("id", "part", "origin"))
    taught = ["train", "validation"] if params.answer[source] == "none" else []
    if not learnt["origin"].isin([compose.SILVER, compose.TABLE]).all():
        taught = taught or ["train"]  # people's labels chose what the others are; voters had validation
    if "inclusion" in table:
        drawn = table["inclusion"].to_numpy(np.float64)
    try:
        whole = prevalence.corpus(
            table,
            pd.concat([parts, learnt[~learnt["id"].isin(parts["id"])]]),
            space,
            model.space,
            params.split,
            taught=taught,
        )
        rows = table.iloc[whole.rows]
        found = prevalence.prevalence(
            models.scored(model, rows["text"].tolist()),
            whole.gold,
            model.space,
            groups=tables.groups(rows),
            weights=whole.weights,
            inclusion=None if drawn is None else drawn[whole.rows],
        )
    except prevalence.Unfit as reason:  # of these rows nothing can be said; the rest of the report can
        write_json(out, {})
        return f"nothing is corrected: {reason}"
    write_json(out, {"judge": judge, **found})
    return f"{judge} on {prevalence.told(found)}"


if __name__ == "__main__":
    stage.run(main)
