"""An untuned language model, asked with examples of each label or without any."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np

from undertone.labels import LabelSpace, Scores
from undertone.models import Examples, Log, Start
from undertone.networks import decoder, encoder, language
from undertone.networks.chat import Builder
from undertone.params import FewshotSettings, Settings


class Model:
    def __init__(self, settings: Settings, space: LabelSpace, start: Start) -> None:
        assert isinstance(settings, FewshotSettings)
        assert start.base is not None
        assert start.instruction is not None
        self.settings: Settings = settings
        self.space = space
        self._own = settings
        self._base, self._instruction = start.base, start.instruction
        self._builder = Builder(
            encoder.load_tokenizer(start.base), start.instruction, settings.max_length
        )
        self._model = decoder.load(start.base, four_bit=settings.load == "nf4")
        language.fits(self._model, settings.max_length)
        language.check(self._model, self._builder, settings, closes=settings.predict == "closed")

    def fit(self, train: Examples, validation: Examples, log: Log, state: Path) -> None:
        """Nothing is learnt."""

    def scores(self, texts: Sequence[str]) -> Scores:
        return language.scores(
            self._model,
            self._builder,
            texts,
            self.space,
            self._own,
            language.answerable(self.space),
            np.zeros(len(self.space.labels)),
        )

    def save(self, folder: Path) -> None:
        language.keep_start(folder, self._base, self._instruction)

    @classmethod
    def load(cls, folder: Path, settings: Settings, space: LabelSpace) -> Self:
        base, instruction = language.kept_start(folder)
        return cls(settings, space, Start(0, base, instruction))
