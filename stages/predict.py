"""A candidate's scores for every validation and test row."""

from pathlib import Path

from undertone import models, stage, tables
from undertone.params import Params


def main(params: Params, *, candidate: str, model: Path, comments: Path, out: Path) -> str:
    loaded = models.load(model)
    table = tables.read(comments, ("id", "text", "part"))
    rows = table[table["part"] != "train"]
    scores = loaded.scores(rows["text"].tolist())
    tables.write(tables.scores_table(rows["id"], scores, loaded.space), out)
    return f"{candidate}: {len(rows):,} rows"


if __name__ == "__main__":
    stage.run(main)
