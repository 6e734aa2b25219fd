"""The label space: which labels there are, and how scores become decisions."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from undertone.errors import Problem

Scores = NDArray[np.float64]  # [n, labels], 0..1; a row of NaN for a text without a valid answer
Flags = NDArray[np.bool_]  # [n, labels]


@dataclass(frozen=True)
class LabelSpace:
    """The labels of one codebook, in its order, and the rule that turns scores into labels.

    One label a text (`many` false): the highest score, the first in order on a tie.
    Many labels a text: every label whose score reaches its threshold. A text without a valid answer has
    no label in either case.
    """

    codebook: str
    labels: tuple[str, ...]
    names: tuple[str, ...]
    many: bool
    thresholds: tuple[float, ...]

    @classmethod
    def of(
        cls, codebook: str, labels: Sequence[str], names: Sequence[str] = (), *, many: bool = False
    ) -> "LabelSpace":
        """A space with every threshold at one half."""
        return cls(codebook, tuple(labels), tuple(names or labels), many, tuple(0.5 for _ in labels))

    def decide(self, scores: Scores) -> Flags:
        """Decisions [n, labels] for scores [n, labels]; `Problem` on a wrong shape or range."""
        self.check(scores)
        if self.many:
            return scores >= np.asarray(self.thresholds)
        decided = np.zeros(scores.shape, dtype=bool)
        rows = np.flatnonzero(answered(scores))
        decided[rows, scores[rows].argmax(axis=1)] = True
        return decided

    def check(self, scores: Scores) -> None:
        """`Problem` unless `scores` is [n, labels] and each row is 0..1, or NaN all along."""
        if scores.ndim != 2 or scores.shape[1] != len(self.labels):
            raise Problem(
                f"scores have the shape {scores.shape}, expected (n, {len(self.labels)})",
                where=f"codebook {self.codebook}",
            )
        within = np.all((scores >= 0) & (scores <= 1), axis=1)  # also false for NaN
        if not np.all(within | ~answered(scores)):
            row = int(np.argmin(within | ~answered(scores)))
            raise Problem(
                f"row {row} has a score outside 0..1 or not a number",
                where=f"codebook {self.codebook}",
            )

    def with_thresholds(self, scores: Scores, truth: Flags) -> "LabelSpace":
        """The same space with each label's threshold at its best F1 on these rows.

        Nothing changes for one label a text, nor for a label without a positive row; rows without a
        valid answer are left out. Candidate thresholds lie halfway between neighbouring scores (Lipton,
        Elkan & Naryanaswamy 2014).
        """
        if not self.many:
            return self
        self.check(scores)
        rows = answered(scores)
        fitted = [
            _best_threshold(scores[rows, column], truth[rows, column])
            for column in range(len(self.labels))
        ]
        return replace(self, thresholds=tuple(fitted))

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), ensure_ascii=False, indent=2) + "\n", "utf-8")

    @classmethod
    def load(cls, path: Path) -> "LabelSpace":
        content = json.loads(path.read_text("utf-8"))
        return cls(
            codebook=content["codebook"],
            labels=tuple(content["labels"]),
            names=tuple(content["names"]),
            many=content["many"],
            thresholds=tuple(content["thresholds"]),
        )


def answered(scores: Scores) -> NDArray[np.bool_]:
    """Which rows [n] have a valid answer: all but those that are NaN all along."""
    return np.asarray(~np.isnan(scores).all(axis=1))


def _best_threshold(scores: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    if not truth.any():
        return 0.5
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    hits = np.cumsum(truth[order])
    f1 = 2 * hits / (np.arange(1, len(ranked) + 1) + truth.sum())
    f1[:-1][ranked[:-1] == ranked[1:]] = -1  # equal scores can't be told apart by a threshold
    best = int(f1.argmax())
    below = ranked[best + 1] if best + 1 < len(ranked) else 0.0
    return float((ranked[best] + below) / 2)
