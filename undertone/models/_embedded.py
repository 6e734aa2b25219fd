"""No family, but what two of them are: a base's sentence vectors and a linear head on them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from undertone.labels import LabelSpace, Scores
from undertone.models import Graph, Start
from undertone.networks import encoder
from undertone.params import E5Settings, SetfitSettings, Settings
from undertone.tuning.heads import LinearHead


class Embedded:
    """All that a family promises but `fit`: that, and its head, a subclass brings."""

    _own: E5Settings | SetfitSettings
    _head: LinearHead

    def __init__(self, settings: Settings, space: LabelSpace, start: Start) -> None:
        assert isinstance(settings, E5Settings | SetfitSettings)
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

    def _embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return encoder.run(
            self._read(texts),
            self._tokenizer,
            lambda batch: self._model.embed(**batch),
            max_length=self._own.max_length,
            width=self._model.config.hidden_size,
        )

    def _read(self, texts: Sequence[str]) -> list[str]:
        return [self._own.prefix + text for text in texts]
