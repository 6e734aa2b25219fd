"""TF-IDF and logistic regression: the baseline that a model has to beat.

The n-grams are hashed (Weinberger et al. 2009), so that the saved model holds no word of a comment.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

from undertone.labels import LabelSpace, Scores
from undertone.models import Examples, Log, Start
from undertone.params import Settings, TfidfSettings
from undertone.tuning import imbalance
from undertone.tuning.heads import LogisticHead


class Model:
    """Only the columns seen in training are kept, with their inverse document frequencies."""

    def __init__(self, settings: Settings, space: LabelSpace, start: Start) -> None:
        assert isinstance(settings, TfidfSettings)
        self.settings: Settings = settings
        self.space = space
        self._own = settings
        self._seed = start.seed
        self._head = LogisticHead(space.many, settings, c=settings.c, seed=start.seed)
        self._columns: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._idf: NDArray[np.float64] = np.empty(0)
        self._hash = HashingVectorizer(
            analyzer=settings.analyzer,
            ngram_range=settings.ngrams,
            n_features=settings.features,
            alternate_sign=False,
            norm=None,
        )

    def fit(self, train: Examples, validation: Examples, log: Log, state: Path) -> None:
        rows = imbalance.once(train.truth, self._own, seed=self._seed)
        log(0, imbalance.lost(train.truth, rows, self.space.labels))
        texts = [train.texts[row] for row in rows]
        counts = self._hash.transform(texts)
        self._columns = np.unique(counts.indices).astype(np.int64)
        self._idf = TfidfTransformer().fit(counts[:, self._columns]).idf_
        self._head.fit(self._features(texts), train.truth[rows], train.weights[rows])

    def scores(self, texts: Sequence[str]) -> Scores:
        return self._head.scores(self._features(texts))

    def save(self, folder: Path) -> None:
        arrays = {"columns": self._columns, "idf": self._idf, **self._head.arrays()}
        save_file(arrays, folder / "tfidf.safetensors")

    @classmethod
    def load(cls, folder: Path, settings: Settings, space: LabelSpace) -> Self:
        model = cls(settings, space, Start(seed=0))
        arrays = load_file(folder / "tfidf.safetensors")
        model._columns, model._idf = arrays["columns"], arrays["idf"]
        model._head.take(arrays)
        return model

    def _features(self, texts: Sequence[str]) -> csr_matrix:
        if not len(texts):
            return csr_matrix((0, len(self._columns)))
        weighted = self._hash.transform(texts)[:, self._columns].multiply(self._idf).tocsr()
        norms = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=1))).ravel()
        norms[norms == 0] = 1
        return csr_matrix(weighted.multiply(1 / norms[:, None]))
