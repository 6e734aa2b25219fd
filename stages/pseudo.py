"""Labels for comments that have none, where an ensemble agrees; what it disagrees on goes to people."""

from pathlib import Path

from undertone import learning, models, stage, tables
from undertone.augmentation import compose, pseudo
from undertone.corpus.split import NEEDS
from undertone.files import read_json, remove, write_json
from undertone.labels import LabelSpace, Scores
from undertone.params import Mix, Params

STATE = Path("models/.state")  # of trainings under way: private, and gone when they are done


def main(
    params: Params,
    *,
    source: str,
    recipes: Path,
    bases: Path,
    adapted: Path,
    instructions: Path,
    labels: Path,
    comments: Path,
    labelled: Path,
    people: Path,
    reviewed: Path,
    split: Path,
    out: Path,
    queue: Path,
    counts: Path,
) -> str:
    space, own, seed = LabelSpace.load(labels), params.pseudo, params.seed
    rows = tables.read(split, NEEDS)
    everything, gold = tables.read(comments, NEEDS), tables.read(people)
    table, left_out = pseudo.pool(
        everything, tables.read(labelled), gold, rows, params.split, params.clean
    )
    known = {*gold["id"], *tables.read(reviewed).attrs["asked"]}
    open_ = [one for one in everything["id"] if one not in known]
    judged = rows[rows["part"] == "validation"].reset_index(drop=True)
    texts = [table["text"].tolist(), judged["text"].tolist()]
    spaces: list[LabelSpace] = []
    scores: list[list[Scores]] = []
    ensemble = read_json(recipes / "candidates.json")["candidates"]
    for name in ensemble if len(table) else ():
        chosen = models.Recipe.load(recipes / name / "recipe.json")
        mix = Mix.model_validate(read_json(recipes / name / "mix.json")["weights"])
        start = models.Start.of(
            chosen.settings,
            seed=seed,
            base=bases / name,
            adapted=adapted / name,
            asked=read_json(instructions / f"{name}.json"),
        )
        state = STATE / source / "pseudo" / name / chosen.code
        learner = learning.Learner(chosen.settings, space, start, params.calibrate, state)
        learnt = compose.compose(rows, space, mix, params.clean, added={})
        train, validation = (models.examples(learnt, part, space) for part in ("train", "validation"))
        model, _ = learner.learn(train, validation, "all", lambda *_: None)
        spaces.append(model.space)
        scores.append([models.scored(model, some) for some in texts])
    draws = params.evaluate.draws
    found = pseudo.labelled(
        table,
        judged,
        scores,
        spaces,
        own,
        space,
        params.calibrate,
        left_out,
        open_,
        draws=draws,
        seed=seed,
    )
    tables.write(found.rows, out)
    tables.write(found.queue, queue)
    write_json(counts, found.told)
    remove(STATE / source / "pseudo")
    return found.line()


if __name__ == "__main__":
    stage.run(main)
