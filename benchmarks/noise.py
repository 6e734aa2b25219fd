"""Label noise put into a table's training part: what it costs a candidate, and what cleaning gives back.

The stage `doubt` does this for TF-IDF as judge and candidate, by validation; here other candidates and
judges, flips by class and the test part can be asked, see `doubts.planted` and `doubts.flipped`.

A draw takes k trainings of the judge and 5 of the candidate; of TF-IDF on 4,000 rows that is 0.4 s each.
e5's encoder is frozen, so a text is embedded once. bert's minutes count 5 times.

    python -m benchmarks.noise [--comments data/standin/split.parquet] [--space data/standin/space.json]
        [--judge tfidf] [--candidates tfidf e5] [--rates 0 0.1 0.2 0.3] [--kinds uniform class]
        [--draws 3] [--k 5] [--part test]

Prints a table and one JSON line with the same values.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from undertone import models, tables
from undertone.augmentation import doubts
from undertone.labels import LabelSpace
from undertone.learning import Learner
from undertone.measures import metrics
from undertone.models.e5 import Model
from undertone.params import Folds, Params, read_params

DRAWS = 1000


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--comments", type=Path, default=Path("data/standin/split.parquet"))
    parser.add_argument("--space", type=Path, default=Path("data/standin/space.json"))
    parser.add_argument("--bases", type=Path, default=Path("models/bases"))
    parser.add_argument("--judge", default="tfidf")
    parser.add_argument("--candidates", nargs="+", default=["tfidf", "e5"])
    parser.add_argument("--rates", nargs="+", type=float, default=[0.0, 0.1, 0.2, 0.3])
    parser.add_argument("--kinds", nargs="+", default=["uniform", "class"])
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--k", type=int, default=5)
    parser.add_argument("--part", choices=tables.PARTS[1:], default="test")
    given = parser.parse_args()
    params = read_params(Path("params.yaml"))
    table, space = tables.read(given.comments), LabelSpace.load(given.space)
    parts = {name: table[table["part"] == name].reset_index(drop=True) for name in tables.PARTS}
    Model._embed = remembered(Model._embed)  # type: ignore[method-assign]
    rows = []
    for kind, rate in cells(given.kinds, given.rates):
        for name in given.candidates:
            with tempfile.TemporaryDirectory() as folder:  # no training goes on from another's
                judge, candidate = (
                    learner(one, params, space, given.bases, Path(folder) / role)
                    for role, one in (("judge", given.judge), ("candidate", name))
                )
                found = doubts.planted(
                    parts,
                    given.part,
                    judge,
                    candidate,
                    kind=kind,
                    rate=rate,
                    draws=given.draws,
                    how=Folds(k=given.k, repeats=1),
                    alike=params.clean,
                    resamples=DRAWS,
                    seed=params.seed,
                )
            rows.append({"candidate": name, **found})
            print(f"{name}, {kind}: {doubts.line(found)}", flush=True)
    print(pd.DataFrame([shown(row) for row in rows]).to_string(index=False))
    print(json.dumps({"judge": given.judge, "k": given.k, "part": given.part, "rows": rows}))


def cells(kinds: Sequence[str], rates: Sequence[float]) -> list[tuple[Any, float]]:
    """Without noise there is one kind."""
    return [("uniform", 0.0)] * (0 in rates) + [(kind, rate) for kind in kinds for rate in rates if rate]


def learner(name: str, params: Params, space: LabelSpace, bases: Path, state: Path) -> Learner:
    settings = params.candidates()[name]
    start = models.Start(seed=params.seed, base=bases / name if settings.base else None)
    return Learner(settings, space, start, params.calibrate, state)


def remembered(embed: Callable[[Any, Sequence[str]], Any]) -> Callable[[Any, Sequence[str]], Any]:
    """The same embeddings, each text's computed once."""
    known: dict[str, NDArray[np.float32]] = {}

    def looked_up(self: Any, texts: Sequence[str]) -> Any:
        new = [text for text in dict.fromkeys(texts) if text not in known]
        known.update(zip(new, embed(self, new), strict=True))
        return np.stack([known[text] for text in texts])

    return looked_up


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """A line of the table."""
    line = {"candidate": row["candidate"], "noise": row["noise"], "rate": row["rate"]}
    line |= {way: f"{one['value']:.3f}" for way, one in row["macro_f1"].items()}
    line |= {f"{way} gives back": metrics.told(one) for way, one in row["recovered"].items()}
    found = row["found"]
    line["precision"] = round(found["both"] / max(found["doubted"], 1), 2)
    line["recall"] = round(found["both"] / max(found["flipped"], 1), 2)
    return line


if __name__ == "__main__":
    main()
