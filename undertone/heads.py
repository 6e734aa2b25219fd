"""A logistic head on fixed features, for one label a text or many."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax
from sklearn.linear_model import LogisticRegression

from undertone.errors import Problem
from undertone.labels import Flags, Scores
from undertone.params import ClassWeights


def class_weights(truth: Flags, kind: ClassWeights) -> NDArray[np.float64]:
    """What a row of each label weighs; `truth` [n, labels] has one label a row. `balanced` is
    scikit-learn's n / (labels x rows), `sqrt` its root: milder where the rarest label is very rare."""
    counts = np.maximum(truth.sum(axis=0), 1)
    ratio = len(truth) / (len(counts) * counts)
    power = {"none": 0.0, "sqrt": 0.5, "balanced": 1.0}[kind]
    weights: NDArray[np.float64] = ratio**power
    return weights


class LogisticHead:
    """Softmax over the labels, or one sigmoid a label; held as plain arrays once fitted."""

    def __init__(self, many: bool, *, c: float, weights: ClassWeights, seed: int) -> None:
        self._many = many
        self._weights: ClassWeights = weights
        self._settings = {
            "C": c,
            "max_iter": 1000,
            "random_state": seed,
        }
        self.weight: NDArray[np.float32] = np.empty((0, 0), dtype=np.float32)  # [labels, features]
        self.bias: NDArray[np.float32] = np.empty(0, dtype=np.float32)

    def fit(self, features: Any, truth: Flags) -> None:
        """`features` [n, features], dense or sparse; `Problem` for a label without a row."""
        empty = np.flatnonzero(~truth.any(axis=0))
        if len(empty):
            raise Problem(f"{len(empty)} labels have no training row", where="train")
        if self._many:
            fitted = [self._fit_one(features, truth[:, [label]]) for label in range(truth.shape[1])]
            self._hold(
                np.concatenate([one.coef_ for one in fitted]),
                np.concatenate([one.intercept_ for one in fitted]),
            )
            return
        one = self._fit_one(features, truth)
        weight, bias = one.coef_, one.intercept_
        if len(weight) == 1:  # scikit-learn holds a single row for two classes
            weight, bias = np.vstack([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        self._hold(weight, bias)

    def _fit_one(self, features: Any, truth: Flags) -> LogisticRegression:
        """On all labels [n, labels], or on one label against its absence [n, 1]."""
        either = np.hstack([~truth, truth]) if truth.shape[1] == 1 else truth
        weights = dict(enumerate(class_weights(either, self._weights)))
        return LogisticRegression(**self._settings, class_weight=weights).fit(
            features, either.argmax(axis=1)
        )

    def scores(self, features: Any) -> Scores:
        logits = np.asarray(features @ self.weight.T, dtype=np.float64) + self.bias
        scores: Scores = expit(logits) if self._many else softmax(logits, axis=1)
        return scores

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        return {"weight": self.weight, "bias": self.bias}

    def take(self, arrays: Mapping[str, NDArray[np.float32]]) -> None:
        self.weight, self.bias = arrays["weight"], arrays["bias"]

    def _hold(self, weight: NDArray[np.float64], bias: NDArray[np.float64]) -> None:
        # safetensors writes the memory as it lies, so a Fortran-ordered array would come back scrambled
        self.weight = np.ascontiguousarray(weight, dtype=np.float32)
        self.bias = np.ascontiguousarray(bias, dtype=np.float32)
