"""Every candidate on the same rows: metrics with intervals, against the labels and against gold; and
which of two is better."""

from pathlib import Path

import pandas as pd

from undertone import stage, tables
from undertone.files import write_json
from undertone.labels import LabelSpace
from undertone.measures import evaluation
from undertone.params import Params


def main(
    params: Params,
    *,
    source: str,
    labels: Path,
    comments: Path,
    scores: Path,
    folds: Path,
    models: Path,
    out: Path,
    comparisons: Path,
    curves: Path,
    slices: Path,
    summary: Path,
) -> str:
    space = LabelSpace.load(labels)
    table = tables.read(comments, ("id", "part", "group"))
    judges = {
        name: (
            LabelSpace.load(models / name / "labels.json"),
            tables.read(scores / f"{name}.parquet", ("id", *space.labels)),
        )
        for name in params.models
    }
    folded = {name: pd.read_parquet(folds / f"{name}.parquet") for name in params.models}
    own, seed = params.evaluate, params.seed
    evaluated = evaluation.evaluate_all(table, judges, space, folds=folded, draws=own.draws, seed=seed)
    compared = evaluation.compare_all(
        table,
        judges,
        space,
        folds=folded,
        metric=params.select.metric,
        draws=own.draws,
        seed=seed,
    )
    columns = own.slices.get(source, ["length"])
    sliced = evaluation.by_slice(
        table, judges, space, columns, min_rows=own.slice_rows, draws=own.draws, seed=seed
    )
    write_json(out, evaluated)
    write_json(comparisons, compared)
    write_json(curves, evaluation.curves(table, judges, space, draws=own.draws, seed=seed))
    write_json(slices, sliced)
    write_json(summary, evaluation.summary(evaluated))
    return evaluation.told(evaluated)


if __name__ == "__main__":
    stage.run(main)
