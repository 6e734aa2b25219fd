"""Gold labels of what people said of the comments that they were asked about, and their agreement."""

import tempfile
from pathlib import Path

import numpy as np

from undertone import stage, tables
from undertone.codebook import read_codebook
from undertone.files import write_json
from undertone.params import Params
from undertone.people import rehearsal, review


def main(
    params: Params,
    *,
    source: str,
    codebook: Path,
    comments: Path,
    reviews: Path,
    out: Path,
    summary: Path,
) -> str:
    book = read_codebook(codebook).asked(params.data.scheme)
    table = tables.read(comments, ("id", "text", "group"))
    # in the order of asking: review-2 before review-10
    found = (reviews / review.GIVEN).glob("*.parquet")
    paths = sorted(found, key=lambda path: (len(path.name), path.name))
    own = [review.Review.load(path) for path in paths]
    if simulated := params.review.simulated.get(source):
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=".review", suffix=".tmp") as beside:
            own += rehearsal.reviews(table, simulated, book, seed=params.seed, folder=Path(beside))
    rng = np.random.default_rng(params.seed)
    gold = review.settled(own, table, book.space, draws=params.evaluate.draws, rng=rng)
    tables.write(gold.table, out)
    write_json(summary, gold.told if own else {})
    return review.told(gold.told) if own else "nothing was reviewed"


if __name__ == "__main__":
    stage.run(main)
