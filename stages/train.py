"""One candidate, learnt from the training part; validation decides when to stop, calibrates its scores,
and puts the thresholds and the least confidence of an answer."""

import sys
from pathlib import Path

from undertone import learning, models, stage, tables
from undertone.files import md5, read_json, remove, whole, write_json
from undertone.labels import LabelSpace
from undertone.measures import calibration
from undertone.params import Params, Trained
from undertone.records import tracking
from undertone.tuning import launcher

STATE = Path("models/.state")  # of trainings under way: private, and gone when they are done


def main(
    params: Params,
    *,
    source: str,
    candidate: str,
    recipe: Path,
    base: Path,
    adapted: Path,
    instruction: Path,
    labels: Path,
    comments: Path,
    out: Path,
    curves: Path,
    folds: Path,
) -> str:
    space = LabelSpace.load(labels)
    chosen = models.Recipe.load(recipe)
    own = chosen.settings
    table = tables.read(comments, ("id", "text", "part", "weight", "origin"))
    train, validation = (models.examples(table, part, space) for part in ("train", "validation"))
    asked = read_json(instruction)
    start = models.Start.of(own, seed=params.seed, base=base, adapted=adapted, asked=asked)
    # what other code began is no beginning
    state = STATE / source / candidate / chosen.code
    learner = learning.Learner(own, space, start, params.calibrate, state)
    launched = params.train.launcher if isinstance(own, Trained) else None
    with launcher.processes(launched) as number:
        if number:
            learner.learn(train, validation, "all", lambda *_: None)
            learner.out_of_fold(table)
            sys.exit()
        with tracking.run(
            experiment=space.codebook,
            name=candidate,
            stage="train",
            settings=own,
            data={
                "comments": md5(comments),
                "labels": md5(labels),
                "base": md5(base),
                "adapted": md5(adapted),
                "instruction": md5(instruction),
            },
            tags={
                "source": source,
                "candidate": candidate,
                "family": own.family,
                "seed": str(params.seed),
                "launcher": launched or "none",
            },
        ) as run:
            course = learning.Curves(run.log)
            model, reached = learner.learn(train, validation, "all", course.log)
            run.metrics(
                {
                    "validation_macro_f1": reached,
                    "temperature": model.space.temperature,
                    **learning.mixed(table),
                }
            )
            apart = learner.out_of_fold(table)
            with whole(out) as folder:
                models.save(model, folder, chosen)
            write_json(curves, course.points)
            with whole(folds) as beside:
                apart.to_parquet(beside, index=False)
            remove(STATE / source / candidate)
            run.tag({"model.md5": md5(out), "model.path": out.as_posix()})
    silent = "; too often wrong to answer any text" if model.space.abstain == calibration.NEVER else ""
    return (
        f"{candidate}: {len(train.texts):,} rows, macro-F1 {reached:.3f} on {len(validation.texts):,}"
        f"{silent}"
    )


if __name__ == "__main__":
    stage.run(main)
