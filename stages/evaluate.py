"""Every candidate on the same rows: metrics with intervals, against the labels and against gold."""

from pathlib import Path

from undertone import evaluation, stage, tables
from undertone.files import write_json
from undertone.labels import LabelSpace
from undertone.params import Params


def main(
    params: Params,
    *,
    labels: Path,
    comments: Path,
    scores: Path,
    models: Path,
    out: Path,
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
    evaluated = evaluation.evaluate_all(
        table, judges, space, draws=params.evaluate.draws, seed=params.seed
    )
    write_json(out, evaluated)
    write_json(summary, evaluation.summary(evaluated))
    return evaluation.told(evaluated)


if __name__ == "__main__":
    stage.run(main)
