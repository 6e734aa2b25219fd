"""What planted label noise costs on a source's own rows, and how much of it doubting labels gives back:
the reason why a mix doubts or doesn't."""

from pathlib import Path

from undertone import stage, tables
from undertone.augmentation import doubts
from undertone.corpus.split import NEEDS
from undertone.errors import Problem
from undertone.files import write_json
from undertone.labels import LabelSpace
from undertone.params import Params

TESTED = "validation"  # as in all that is chosen


def main(params: Params, *, labels: Path, comments: Path, out: Path) -> str:
    space, own = LabelSpace.load(labels), params.doubt
    rows = tables.read(comments, NEEDS)
    parts = {part: rows[rows["part"] == part].reset_index(drop=True) for part in tables.PARTS}
    judge = doubts.judge(params.tfidf, space, params.calibrate, seed=params.seed)
    try:
        found = [
            doubts.planted(
                parts,
                TESTED,
                judge,
                judge,
                kind="uniform",
                rate=rate,
                draws=own.draws,
                how=doubts.FOLDS,
                alike=params.clean,
                resamples=params.evaluate.draws,
                seed=params.seed,
            )
            for rate in own.rates
        ]
    except Problem as problem:  # a small table: no reason to stop the others
        found, told = [], f"nothing is planted: {problem}"
    else:
        told = "; ".join(map(doubts.line, found)) or "nothing is planted"
    write_json(out, {"candidate": "tfidf", "part": TESTED, "draws": own.draws, "planted": found})
    return told


if __name__ == "__main__":
    stage.run(main)
