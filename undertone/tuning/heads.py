"""Linear heads on fixed features, for one label a text or many."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax
from sklearn.linear_model import LogisticRegression

from undertone.errors import Problem
from undertone.labels import Flags, Scores
from undertone.params import Sampled
from undertone.tuning import imbalance


class LinearHead:
    """Softmax over the labels, or one sigmoid a label; held as plain arrays once a subclass has fitted
    it."""

    def __init__(self, many: bool, settings: Sampled) -> None:
        self._many = many
        self._sampled = settings
        self.weight: NDArray[np.float32] = np.empty((0, 0), dtype=np.float32)  # [labels, features]
        self.bias: NDArray[np.float32] = np.empty(0, dtype=np.float32)

    def fit(self, features: Any, truth: Flags, rows: imbalance.Weights | None = None) -> None:
        """`features` [n, features]; `rows` [n]: what each weighs, 1 without it."""
        raise NotImplementedError

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


class LogisticHead(LinearHead):
    """scikit-learn's."""

    def __init__(self, many: bool, settings: Sampled, *, c: float, seed: int) -> None:
        super().__init__(many, settings)
        self._settings = {
            "C": c,
            "max_iter": 1000,
            "random_state": seed,
        }

    def fit(self, features: Any, truth: Flags, rows: imbalance.Weights | None = None) -> None:
        """`features` may be sparse. `Problem` for a label without a row.

        Logits are adjusted after the fit (Menon et al. 2021, post hoc), within the bias.
        """
        empty = np.flatnonzero(~truth.any(axis=0))
        if len(empty):
            raise Problem(f"{len(empty)} labels have no training row", where="train")
        if self._many:
            fitted = [
                self._fit_one(features, truth[:, [label]], rows) for label in range(truth.shape[1])
            ]
            weight = np.concatenate([one.coef_ for one in fitted])
            bias = np.concatenate([one.intercept_ for one in fitted])
        else:
            one = self._fit_one(features, truth, rows)
            weight, bias = one.coef_, one.intercept_
            if len(weight) == 1:  # scikit-learn holds a single row for two classes
                weight, bias = np.vstack([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        prior = imbalance.prior(truth, self._many, rows)
        self._hold(weight, bias - self._sampled.logit_adjustment * prior)

    def _fit_one(
        self, features: Any, truth: Flags, rows: imbalance.Weights | None
    ) -> LogisticRegression:
        """On all labels [n, labels], or on one label against its absence [n, 1]."""
        either = np.hstack([~truth, truth]) if truth.shape[1] == 1 else truth
        weights = dict(enumerate(imbalance.class_weights(either, self._sampled.class_weights, rows)))
        return LogisticRegression(**self._settings, class_weight=weights).fit(
            features, either.argmax(axis=1), sample_weight=rows
        )
