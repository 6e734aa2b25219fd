"""Label noise put into a table's training part: what it costs a candidate, and what cleaning gives back.

Flips are uniform (any other label) or by class (each label has one other that it is mistaken for).
Validation, which puts thresholds and temperatures, and the part that is tested stay as they are. The
judge says of each noisy row, held out, what its label should be; likely errors are dropped, or rows
weigh what the judge's scores leave of them, and the candidate learns anew. `oracle` drops what was
flipped and nothing else: no loop that drops can know more.

A cell takes k trainings of the judge and, for each candidate, one a way; of TF-IDF on 4,000 rows that is
0.4 s each. e5's encoder is frozen, so a text is embedded once. bert's minutes count 2 + 4 ways a cell.

    python -m benchmarks.noise [--comments data/standin/split.parquet] [--space data/standin/space.json]
        [--judge tfidf] [--candidates tfidf e5] [--rates 0 0.1 0.2 0.3] [--kinds uniform class]
        [--seeds 3] [--k 5] [--rounds 1] [--part test]

Each figure is over the tested rows, those of all seeds together, with the bootstrap over authors (who
are drawn with all seeds' decisions). Recovered is (cleaned - noisy) / (clean - noisy). `found` are the
likely errors by confident learning, `pays` says how often `doubts.pays` would have kept the way on
validation, by its labels and by gold. Prints two tables and one JSON line with the same values.
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

from undertone import comparison, doubts, metrics, models, noise, tables
from undertone.labels import Flags, LabelSpace
from undertone.learning import Learner
from undertone.models import e5
from undertone.params import Folds, Params, read_params

WAYS: tuple[noise.Remedy, ...] = ("drop", "weigh")
DRAWS = 1000
HALF = 0.5


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--comments", type=Path, default=Path("data/standin/split.parquet"))
    parser.add_argument("--space", type=Path, default=Path("data/standin/space.json"))
    parser.add_argument("--bases", type=Path, default=Path("models/bases"))
    parser.add_argument("--judge", default="tfidf")
    parser.add_argument("--candidates", nargs="+", default=["tfidf", "e5"])
    parser.add_argument("--rates", nargs="+", type=float, default=[0.0, 0.1, 0.2, 0.3])
    parser.add_argument("--kinds", nargs="+", default=["uniform", "class"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--k", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--part", choices=tables.PARTS[1:], default="test")
    given = parser.parse_args()
    params = read_params(Path("params.yaml"))
    table, space = tables.read(given.comments), LabelSpace.load(given.space)
    parts = {name: table[table["part"] == name].reset_index(drop=True) for name in tables.PARTS}
    e5.Model._embed = remembered(e5.Model._embed)  # type: ignore[method-assign]
    rows, flags = [], []
    with tempfile.TemporaryDirectory() as folder:
        learners = {
            name: learner(name, params, space, given.bases, Path(folder))
            for name in {given.judge, *given.candidates}
        }
        for kind, rate in cells(given.kinds, given.rates):
            cell = Cell(parts, space, kind, rate, given.seeds, given.part)
            flags.append(cell.clean(learners[given.judge], params, given.k, given.rounds))
            rows += [cell.tested(name, learners[name]) for name in given.candidates]
            print(f"{kind} {rate:.0%}", flush=True)
    report = {"judge": given.judge, "k": given.k, "rounds": given.rounds, "seeds": given.seeds}
    report |= {"part": given.part, "train_rows": len(parts["train"]), "rows": rows, "found": flags}
    print(pd.DataFrame([shown(row) for row in rows]).to_string(index=False))
    print(pd.DataFrame(flags).to_string(index=False))
    print(json.dumps(report))


def cells(kinds: Sequence[str], rates: Sequence[float]) -> list[tuple[str, float]]:
    """Without noise there is one kind."""
    noisy = [(kind, rate) for kind in kinds for rate in rates if rate]
    return [("none", 0.0)] * (0 in rates) + noisy


def learner(name: str, params: Params, space: LabelSpace, bases: Path, state: Path) -> Learner:
    settings = params.candidates()[name]
    start = models.Start(seed=params.seed, base=bases / name if settings.base else None)
    return Learner(settings, space, start, params.calibrate, state / name)


def remembered(embed: Callable[[Any, Sequence[str]], Any]) -> Callable[[Any, Sequence[str]], Any]:
    """The same embeddings, each text's computed once."""
    known: dict[str, NDArray[np.float32]] = {}

    def looked_up(self: Any, texts: Sequence[str]) -> Any:
        new = [text for text in dict.fromkeys(texts) if text not in known]
        known.update(zip(new, embed(self, new), strict=True))
        return np.stack([known[text] for text in texts])

    return looked_up


def flipped(truth: Flags, kind: str, rate: float, rng: np.random.Generator) -> Flags:
    """`truth` [n, labels] with about `rate` of the rows given another label; of many labels, one label
    that is there and one that isn't change places."""
    noisy, labels = truth.copy(), truth.shape[1]
    taken = (np.arange(labels) + rng.integers(1, labels, size=labels)) % labels
    for row in np.flatnonzero(rng.random(len(truth)) < rate):
        there = rng.permutation(np.flatnonzero(truth[row]))[:1]
        away = np.flatnonzero(~truth[row])
        if kind == "class" and len(there) and not truth[row, taken[there[0]]]:
            away = taken[there]
        noisy[row, there] = False
        noisy[row, rng.choice(away)] = True
    return noisy


class Cell:
    """One kind and rate of noise in the training part, drawn `seeds` times."""

    def __init__(
        self,
        parts: dict[str, pd.DataFrame],
        space: LabelSpace,
        kind: str,
        rate: float,
        seeds: int,
        tested: str,
    ) -> None:
        self.train, self.validation, self.test = parts["train"], parts["validation"], parts[tested]
        self.space, self.kind, self.rate, self.seeds = space, kind, rate, seeds
        self.truth = tables.judged(self.train, "label", space) > HALF
        self.noisy = [
            flipped(self.truth, kind, rate, np.random.default_rng((seed, round(rate * 100))))
            for seed in range(seeds if rate else 1)
        ]
        self.weights: list[dict[str, noise.Weights]] = []

    def labelled(self, truth: Flags) -> pd.DataFrame:
        columns = [f"label.{label}" for label in self.space.labels]
        return self.train.assign(**dict(zip(columns, truth.T.astype(float), strict=True)))

    def clean(self, judge: Learner, params: Params, k: int, rounds: int) -> dict[str, Any]:
        """Puts the weights of each way, and tells what was found and whether it seemed to pay."""
        found = {"noise": self.kind, "rate": self.rate, "flipped": 0, "doubted": 0, "both": 0}
        kept: dict[str, list[str]] = {"label": [], "gold": []}
        for seed, noisy in enumerate(self.noisy):
            train, wrong = self.labelled(noisy), (noisy != self.truth).any(axis=1)
            how = Folds(k=k, repeats=1)
            scores = doubts.out_of_fold(train, judge, how, params.clean, seed=seed)
            doubted, _ = noise.quality(noisy, scores, self.space)
            ways = {way: noise.cleaned(noisy, scores, self.space, way) for way in WAYS}
            for way in WAYS * (rounds - 1):
                weighed = train.assign(weight=ways[way])
                scores = doubts.out_of_fold(weighed, judge, how, params.clean, seed=seed)
                ways[way] = noise.cleaned(noisy, scores, self.space, way)
            found["flipped"] += int(wrong.sum())
            found["doubted"] += int(doubted.sum())
            found["both"] += int((wrong & doubted).sum())
            for reference in kept:
                told = doubts.pays(
                    train,
                    self.validation,
                    {"none": np.ones(len(train)), **ways},
                    judge,
                    reference=reference,  # type: ignore[arg-type]
                    draws=DRAWS,
                    seed=seed,
                )
                kept[reference].append(told["kept"])
            self.weights.append({**ways, "oracle": (~wrong).astype(np.float64)})
        found["precision"] = round(found["both"] / max(found["doubted"], 1), 3)
        found["recall"] = round(found["both"] / max(found["flipped"], 1), 3)
        return found | {f"pays by {name}": " ".join(ways) for name, ways in kept.items()}

    def tested(self, name: str, candidate: Learner) -> dict[str, Any]:
        """macro-F1 of the candidate learnt from clean, noisy and cleaned labels; what was recovered."""
        validation = models.examples(self.validation, "validation", self.space)
        truth = tables.judged(self.test, "label", self.space) > HALF
        ones = np.ones(len(self.train))

        def decided(labels: Flags, weights: noise.Weights) -> Flags:
            train = self.labelled(labels).assign(weight=weights)
            learnt = models.examples(train, "train", self.space)
            model, _ = candidate.learn(learnt, validation, "noise", lambda *_: None)
            return model.space.decide(models.scored(model, self.test["text"].tolist()))

        said = {"clean": [decided(self.truth, ones)] * len(self.noisy)}
        said["noisy"] = [decided(one, ones) for one in self.noisy] if self.rate else said["clean"]
        for way in (*WAYS, *["oracle"] * bool(self.rate)):
            said[way] = [
                decided(one, weights[way]) for one, weights in zip(self.noisy, self.weights, strict=True)
            ]
        pooled = {way: np.concatenate(flags) for way, flags in said.items()}
        many = len(self.noisy)
        return {
            "noise": self.kind,
            "rate": self.rate,
            "candidate": name,
            "n": len(truth),
            **measured(np.tile(truth, (many, 1)), pooled, np.tile(tables.groups(self.test), many)),
        }


def measured(truth: Flags, decided: dict[str, Flags], groups: NDArray[np.int64]) -> dict[str, Any]:
    """macro-F1 of each way; of what cleans, its verdict against `noisy` and the recovered share."""
    counts = [
        np.hstack([truth & flags, ~truth & flags, truth & ~flags]).astype(np.float64)
        for flags in decided.values()
    ]
    by_group = metrics.summed(np.hstack(counts), groups)
    drawn = metrics.resampled(by_group, DRAWS, np.random.default_rng(0))
    value, spread = (
        dict(zip(decided, scored.T, strict=True))
        for scored in (
            macro(by_group.sum(axis=0)[None], len(decided), 0.0),
            macro(drawn, len(decided), np.nan),
        )
    )

    def figure(point: NDArray[np.float64], draws: NDArray[np.float64]) -> dict[str, float | None]:
        return metrics.figure(point[0], *metrics.interval(draws, len(by_group)))

    found: dict[str, Any] = {"macro_f1": {way: figure(value[way], spread[way]) for way in decided}}
    cleaned = [way for way in decided if way not in ("clean", "noisy")]
    lost = [one["clean"] - one["noisy"] for one in (value, spread)]
    found["lost"] = figure(*lost)
    if lost[0][0]:
        found["recovered"] = {
            way: figure(
                (value[way] - value["noisy"]) / lost[0], (spread[way] - spread["noisy"]) / lost[1]
            )
            for way in cleaned
        }
    found["comparisons"] = comparison.compare(
        truth,
        decided,
        [(way, "noisy") for way in cleaned],
        answered={},
        groups=groups,
        metric="macro_f1",
        draws=DRAWS,
        rng=np.random.default_rng(0),
    )
    return found


def macro(sums: NDArray[np.float64], ways: int, absent: float) -> NDArray[np.float64]:
    """[draws, ways] of sums [draws, ways × (true, false positives, false negatives) × labels]."""
    shaped = sums.reshape(len(sums), ways, 3, -1)
    figures = metrics.precision_recall_f1(*(shaped[:, :, at] for at in range(3)), absent=absent)
    return figures["macro_f1"]


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """A line of the table."""
    line = {"noise": row["noise"], "rate": row["rate"], "candidate": row["candidate"]}
    line |= {way: f"{one['value']:.3f}" for way, one in row["macro_f1"].items()}
    verdicts = {one["between"][0]: one for one in row["comparisons"]}
    for way in WAYS:
        share = row.get("recovered", {}).get(way)
        line[f"{way} recovers"] = metrics.told(share) if share else ""
        line[f"{way} p"] = f"{verdicts[way]['p_holm']:.3f}"
    oracle = row.get("recovered", {}).get("oracle")
    return line | {"oracle recovers": metrics.told(oracle) if oracle else ""}


if __name__ == "__main__":
    main()
