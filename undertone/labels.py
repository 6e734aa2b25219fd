"""The label space: which labels there are, and how scores become decisions."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from undertone.errors import Problem

Scores = NDArray[np.float64]  # [n, labels], 0..1; a row of NaN for a text without a valid answer
Flags = NDArray[np.bool_]  # [n, labels]
FLOOR = 2.0**-53  # how near to 0 or 1 a score counts as being: nearer to 1 a float64 can't come


@dataclass(frozen=True)
class LabelSpace:
    """The labels of one codebook, in its order, and the rule that turns scores into labels.

    A model's scores are calibrated first, once, by `temperature`; all else is about calibrated ones.
    One label a text (`many` false): the highest score, the first in order on a tie.
    Many labels a text: every label whose score reaches its threshold. A text without a valid answer has
    no label in either case. `abstain`: the least confidence of an answer; None: none is withheld.
    """

    codebook: str
    labels: tuple[str, ...]
    names: tuple[str, ...]
    many: bool
    thresholds: tuple[float, ...]
    temperature: float = 1.0
    abstain: float | None = None

    @classmethod
    def of(
        cls, codebook: str, labels: Sequence[str], names: Sequence[str] = (), *, many: bool = False
    ) -> "LabelSpace":
        """A space with every threshold at one half, that leaves scores as they are and answers all."""
        return cls(codebook, tuple(labels), tuple(names or labels), many, tuple(0.5 for _ in labels))

    def calibrated(self, scores: Scores) -> Scores:
        """A model's own scores [n, labels], their logits divided by the temperature (Guo et al. 2017).

        One label a text: p^(1/T), normalised. Many: the sigmoid of log(p / (1 - p)) / T. A temperature
        of 1 changes nothing, a row of NaN stays one. `Problem` on a wrong shape or range.
        """
        self.check(scores)
        if self.temperature == 1:
            return scores
        return activated(self.logits(scores) / self.temperature, many=self.many)

    def logits(self, scores: Scores) -> NDArray[np.float64]:
        """What `activated` makes these scores of: log p, of many labels log(p / (1 - p)). Finite, for
        scores are taken to be FLOOR from 0 and 1."""
        kept = scores.clip(FLOOR, 1 - FLOOR)
        return np.asarray(np.log(kept) - np.log1p(-kept) if self.many else np.log(kept))

    def decide(self, scores: Scores) -> Flags:
        """Decisions [n, labels] for scores [n, labels]; `Problem` on a wrong shape or range."""
        self.check(scores)
        if self.many:
            return scores >= np.asarray(self.thresholds)
        decided = np.zeros(scores.shape, dtype=bool)
        rows = np.flatnonzero(answered(scores))
        decided[rows, scores[rows].argmax(axis=1)] = True
        return decided

    def confidence(self, scores: Scores) -> NDArray[np.float64]:
        """[n], 0..1: how probable it is, by these scores, that a text's decision is right.

        One label a text: the highest score. Many: the least over the labels, for one that is decided its
        score, for one that isn't 1 - its score. NaN for a text without a valid answer.
        """
        decided = self.decide(scores)
        if not self.many:
            return np.asarray(scores.max(axis=1))
        return np.asarray(np.where(decided, scores, 1 - scores).min(axis=1))

    def abstains(self, scores: Scores) -> NDArray[np.bool_]:
        """Which texts [n] are better left to people: those less confident than `abstain`, and without
        a valid answer. None of them where nothing is to be withheld."""
        if self.abstain is None:
            return np.zeros(len(scores), dtype=bool)
        return ~(self.confidence(scores) >= self.abstain)

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
        return cls.from_json(json.loads(path.read_text("utf-8")))

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "LabelSpace":
        """What `save` wrote; `Problem` where it was written by another version."""
        if missing := [one.name for one in fields(cls) if one.name not in content]:
            raise Problem(
                f"a label space without {', '.join(missing)}",
                where="labels.json",
                remedy="An older version wrote it: train and export anew with `dvc repro`.",
            )
        return cls(
            codebook=content["codebook"],
            labels=tuple(content["labels"]),
            names=tuple(content["names"]),
            many=content["many"],
            thresholds=tuple(content["thresholds"]),
            temperature=content["temperature"],
            abstain=content["abstain"],
        )


def answered(scores: Scores) -> NDArray[np.bool_]:
    """Which rows [n] have a valid answer: all but those that are NaN all along."""
    return np.asarray(~np.isnan(scores).all(axis=1))


def activated(logits: NDArray[np.float64], *, many: bool) -> Scores:
    """Scores from logits [n, labels]: a softmax, or a sigmoid for each of many labels."""
    if many:
        sigmoid: Scores = 0.5 * (1 + np.tanh(logits / 2))  # can't overflow
        return sigmoid
    if not len(logits):
        return logits
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    softmax: Scores = raised / raised.sum(axis=1, keepdims=True)
    return softmax


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
