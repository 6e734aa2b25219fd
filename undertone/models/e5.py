"""Frozen sentence embeddings and a logistic head: trains in the time of one pass over the texts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.numpy import load_file, save_file

from undertone import encoder, imbalance
from undertone.heads import LogisticHead
from undertone.labels import LabelSpace, Scores
from undertone.models import Examples, Graph, Log, Start
from undertone.params import E5Settings, Settings


class Model:
    def __init__(self, settings: Settings, space: LabelSpace, start: Start) -> None:
        assert isinstance(settings, E5Settings)
        assert start.base is not None
        self.settings: Settings = settings
        self.space = space
        self._own = settings
        self._seed = start.seed
        self._base = start.base
        self._tokenizer = encoder.load_tokenizer(start.base)
        self._model = encoder.PooledClassifier(
            encoder.load_backbone(start.base, max_length=settings.max_length),
            len(space.labels),
            pooling=settings.pooling,
            normalise=True,
        ).eval()
        self._head = LogisticHead(space.many, settings, c=settings.c, seed=start.seed)

    def fit(self, train: Examples, validation: Examples, log: Log, state: Path) -> None:
        rows = imbalance.once(train.truth, self._own, seed=self._seed)
        log(0, imbalance.lost(train.truth, rows, self.space.labels))
        texts = [train.texts[row] for row in rows]
        self._head.fit(self._embed(texts), train.truth[rows], train.weights[rows])

    def scores(self, texts: Sequence[str]) -> Scores:
        return self._head.scores(self._embed(texts))

    def save(self, folder: Path) -> None:
        self._model.backbone.save_pretrained(folder)
        self._tokenizer.save_pretrained(folder)
        save_file(self._head.arrays(), folder / "head.safetensors")

    @classmethod
    def load(cls, folder: Path, settings: Settings, space: LabelSpace) -> Self:
        model = cls(settings, space, Start(seed=0, base=folder))
        model._head.take(load_file(folder / "head.safetensors"))
        return model

    def graph(self) -> Graph:
        with torch.no_grad():
            self._model.linear.weight.copy_(torch.from_numpy(self._head.weight))
            self._model.linear.bias.copy_(torch.from_numpy(self._head.bias))
        return Graph(
            self._model,
            tokenizer=self._base / "tokenizer.json",
            prefix=self._own.prefix,
            max_length=self._own.max_length,
        )

    def _embed(self, texts: Sequence[str]) -> Any:
        return encoder.run(
            [self._own.prefix + text for text in texts],
            self._tokenizer,
            lambda batch: self._model.embed(**batch),
            max_length=self._own.max_length,
            width=self._model.config.hidden_size,
        )
