"""How much of the corpus each label is: the classifier's count, corrected by hand-labelled rows."""

from pathlib import Path

import numpy as np

from undertone import models, prevalence, silver, stage, tables
from undertone.codebook import read_codebook
from undertone.files import read_json, write_json
from undertone.params import Params


def main(
    params: Params,
    *,
    source: str,
    codebook: Path,
    comments: Path,
    split: Path,
    selection: Path,
    trained: Path,
    out: Path,
) -> str:
    book = read_codebook(codebook)
    space = book.learnt(params.data.scheme).space
    given = tables.read(comments, ("id", "text", "group"))
    table, _ = silver.labelled(given, None, book, params.data.scheme)
    if np.isnan(tables.judged(table, "gold", space)).any(axis=1).all():
        write_json(out, {})
        return "no row is labelled by hand, so nothing is corrected"
    judge = read_json(selection)[params.prevalence.judge]
    model = models.load(trained / judge)
    column = params.prevalence.inclusion.get(source)
    drawn = prevalence.probabilities(table, column) if column else None
    try:
        whole = prevalence.corpus(
            table,
            tables.read(split, ("id", "part")),
            space,
            model.space,
            params.split,
            taught=params.answer[source] == "none",
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
