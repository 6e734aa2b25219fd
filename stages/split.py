"""Train, validation and test. No author and no near-repeat on two sides."""

from pathlib import Path

import pandas as pd

from undertone import files, stage, tables
from undertone.corpus import rare, split
from undertone.corpus.certificate import certificate as certified
from undertone.corpus.ledger import Ledger
from undertone.labels import LabelSpace
from undertone.params import Params


def main(
    params: Params,
    *,
    labels: Path,
    comments: Path,
    out: Path,
    space: Path,
    certificate: Path,
    ledger: Path,
) -> str:
    table = tables.read(comments, split.NEEDS)
    settled = rare.settled(table, LabelSpace.load(labels), params.split)
    left = settled.space
    parts, counts = split.split(settled.table, left, params.split, params.clean)
    if params.split.folds is not None:
        learnt = parts[parts["part"] != "test"]  # the test part chooses nothing
        columns = split.folds(learnt, left, params.split.folds, params.clean, seed=params.split.seed)
        parts = pd.concat([parts, columns.reindex(parts.index, fill_value="")], axis=1)
    proof = certified(parts, left, params.split, params.clean, rare=settled.rare, into=settled.into)
    tables.write(parts, out, split.NEEDS)
    with files.whole(space) as beside:
        left.save(beside)
    files.write_json(certificate, proof)
    Ledger("split", len(table), len(parts), {**settled.dropped, **counts.dropped}).save(ledger)
    return f"{len(table):,} rows → {split.told(parts, left)}{settled.told()}"


if __name__ == "__main__":
    stage.run(main)
