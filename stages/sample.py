"""The stand-in workbook, so that the whole pipeline runs before any private data is at hand."""

from pathlib import Path

import numpy as np

from undertone import stage
from undertone.codebook import read_codebook
from undertone.corpus import sample
from undertone.files import whole
from undertone.params import Params


def main(params: Params, *, codebook: Path, out: Path) -> str:
    rng = np.random.default_rng(params.sample.seed)
    book = read_codebook(codebook).asked(params.sample.scheme)
    rows = sample.rows(book, params.sample.rows, params.sample.gold, rng)
    with whole(out) as beside:
        beside.mkdir()
        sample.write_workbook(rows, beside / "comments.xlsx")
    return f"{len(rows):,} rows, {rows[sample.CODERS[0]].notna().sum():,} labelled by people"


if __name__ == "__main__":
    stage.run(main)
