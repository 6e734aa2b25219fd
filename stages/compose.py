"""What a candidate learns from: the split's rows, and those that its mix adds to the training part."""

from pathlib import Path

from undertone import stage, tables
from undertone.augmentation import compose
from undertone.corpus.split import NEEDS
from undertone.files import read_json, write_json
from undertone.labels import LabelSpace
from undertone.params import Mix, Params


def main(
    params: Params,
    *,
    mix: Path,
    labels: Path,
    comments: Path,
    split: Path,
    people: Path,
    generated: Path,
    pseudo: Path,
    out: Path,
    counts: Path,
) -> str:
    own, space = read_json(mix), LabelSpace.load(labels)
    weights = Mix.model_validate(own["weights"])
    rows = tables.read(split, NEEDS)
    added = {compose.GENERATED: tables.read(generated), compose.PSEUDO: tables.read(pseudo)}
    if weights.gold:
        given = tables.read(people, ("id", "text"))
        everything = tables.read(comments, NEEDS)
        added[compose.GOLD] = compose.outside(given, rows, everything, space, params.split, params.clean)
    table = compose.compose(rows, space, weights, params.clean, added=added)
    if weights.doubts:
        from undertone.augmentation import doubts

        judge = doubts.judge(params.tfidf, space, params.calibrate, seed=params.seed)
        train = table[table["part"] == "train"]
        scores = doubts.out_of_fold(train, judge, doubts.FOLDS, params.clean, seed=params.seed)
        table = compose.doubted(table, space, scores, weights.noise)
    found = compose.told(table)
    tables.write(table, out, compose.NEEDS)
    write_json(counts, {**own, "rows": found})
    shown = ", ".join(f"{one['rows']:,} {name}" for name, one in found.items())
    return f"mix {own['name']}: {shown}"


if __name__ == "__main__":
    stage.run(main)
