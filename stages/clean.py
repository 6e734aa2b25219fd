"""Unicode in one form, nothing invisible, nothing empty; repeats get one number."""

from pathlib import Path

from undertone import stage, tables
from undertone.codebook import read_codebook
from undertone.corpus import clean
from undertone.params import Params


def main(params: Params, *, codebook: Path, comments: Path, out: Path, ledger: Path) -> str:
    categories = read_codebook(codebook).categories
    table = tables.read(comments, ("id", "text"))
    # The split's seed: which rows repeat must not change with the seed of the training.
    kept, counts = clean.clean(table, params.clean, categories, seed=params.split.seed)
    tables.write(kept, out, ("id", "text", "repeat"))
    counts.save(ledger)
    return f"{len(table):,} rows → {len(kept):,}; {kept['repeat'].duplicated().sum():,} repeat another"


if __name__ == "__main__":
    stage.run(main)
