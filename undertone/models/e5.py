"""Frozen sentence embeddings and a logistic head: trains in the time of one pass over the texts."""

from pathlib import Path

from undertone.labels import LabelSpace
from undertone.models import Examples, Log, Start
from undertone.models._embedded import Embedded
from undertone.params import E5Settings, Settings
from undertone.tuning import imbalance
from undertone.tuning.heads import LogisticHead


class Model(Embedded):
    _own: E5Settings

    def __init__(self, settings: Settings, space: LabelSpace, start: Start) -> None:
        super().__init__(settings, space, start)
        self._head = LogisticHead(space.many, self._own, c=self._own.c, seed=start.seed)

    def fit(self, train: Examples, validation: Examples, log: Log, state: Path) -> None:
        rows = imbalance.once(train.truth, self._own, seed=self._seed)
        log(0, imbalance.lost(train.truth, rows, self.space.labels))
        texts = [train.texts[row] for row in rows]
        self._head.fit(self._embed(texts), train.truth[rows], train.weights[rows])
