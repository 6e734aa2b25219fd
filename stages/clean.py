"""Unicode in one form, nothing invisible, nothing empty; repeats get one number."""

from pathlib import Path

from undertone import clean, stage, tables
from undertone.params import Params


def main(params: Params, *, comments: Path, out: Path, ledger: Path) -> str:
    table = tables.read(comments, ("id", "text"))
    # The split's seed: which rows repeat must not change with the seed of the training.
    kept, counts = clean.clean(table, params.clean, seed=params.split.seed)
    tables.write(kept, out, ("id", "text", "repeat"))
    counts.save(ledger)
    return f"{len(table):,} rows → {len(kept):,}; {kept['repeat'].duplicated().sum():,} repeat another"


if __name__ == "__main__":
    stage.run(main)
