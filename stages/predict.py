"""A candidate's calibrated scores for every validation and test row."""

from pathlib import Path

from undertone import models, stage, tables
from undertone.labels import answered
from undertone.params import Params


def main(params: Params, *, candidate: str, model: Path, comments: Path, out: Path) -> str:
    loaded = models.load(model)
    table = tables.read(comments, ("id", "text", "part"))
    rows = table[table["part"] != "train"]
    scores = models.scored(loaded, rows["text"].tolist())
    tables.write(tables.scores_table(rows["id"], scores, loaded.space), out)
    without = int((~answered(scores)).sum())
    told = f", {without:,} without a valid answer" if without else ""
    return f"{candidate}: {len(rows):,} rows{told}"


if __name__ == "__main__":
    stage.run(main)
