"""One candidate, learnt from the training part; validation decides when to stop and where to cut."""

from pathlib import Path

from undertone import models, stage, tables, tracking
from undertone.files import md5, read_json, remove, whole
from undertone.labels import LabelSpace
from undertone.params import Params
from undertone.prompts import Instruction

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
) -> str:
    space = LabelSpace.load(labels)
    chosen = models.Recipe.load(recipe)
    own = chosen.settings
    table = tables.read(comments, ("id", "text", "part"))
    train, validation = (models.examples(table, part, space) for part in ("train", "validation"))
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
        tags={"source": source, "candidate": candidate, "family": own.family, "seed": str(params.seed)},
    ) as run:
        asked = read_json(instruction)
        start = models.Start(
            seed=params.seed,
            base=(adapted if own.adapt else base) if own.base else None,
            instruction=Instruction.from_json(asked) if asked else None,
        )
        model = models.create(own, space, start)
        # what other code began is no beginning
        model.fit(train, validation, run.log, STATE / source / candidate / chosen.code)
        scores = models.scored(model, validation.texts)
        model.space = space.with_thresholds(scores, validation.truth)
        reached = models.macro_f1(model.space, scores, validation)
        run.metrics({"validation_macro_f1": reached})
        with whole(out) as folder:
            models.save(model, folder, chosen)
        remove(STATE / source / candidate)
        run.tag({"model.md5": md5(out), "model.path": out.as_posix()})
    return f"{candidate}: {len(train.texts):,} rows, macro-F1 {reached:.3f} on {len(validation.texts):,}"


if __name__ == "__main__":
    stage.run(main)
