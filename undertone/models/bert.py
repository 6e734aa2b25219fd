"""A fully fine-tuned encoder.

Warm-up, early stopping on validation macro-F1, batches of like length padded to their longest row,
class weights; bf16 where the machine has it. A fit that was killed goes on from its last look at
validation, see `training`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from transformers import DataCollatorWithPadding, set_seed

from undertone.labels import LabelSpace, Scores
from undertone.models import Examples, Graph, Log, Start, macro_f1
from undertone.networks import encoder
from undertone.params import BertSettings, Settings
from undertone.tuning import losses, training


class Model:
    def __init__(self, settings: Settings, space: LabelSpace, start: Start) -> None:
        assert isinstance(settings, BertSettings)
        assert start.base is not None
        self.settings: Settings = settings
        self.space = space
        self._own = settings
        self._base = start.base
        self._seed = start.seed
        self._tokenizer = encoder.load_tokenizer(start.base)
        set_seed(start.seed)  # the new head is random
        self._model = encoder.PooledClassifier(
            encoder.load_backbone(start.base, max_length=settings.max_length),
            len(space.labels),
            pooling=settings.pooling,
            normalise=False,
        )
        self._model.eval().to(encoder.device())

    def fit(self, train: Examples, validation: Examples, log: Log, state: Path) -> None:
        loss = losses.Loss(self._own, train.truth, self.space.many, train.weights)
        chosen = training.watched(len(train.texts), self._seed)
        watched = Examples([train.texts[row] for row in chosen], train.truth[chosen])

        def learn(model: Any, batch: dict[str, Any]) -> torch.Tensor:
            truth, weights = batch.pop("truth"), batch.pop("weight")
            return loss(model(**batch).logits, truth, weights)

        def judge() -> dict[str, float]:
            logits = self._logits(validation.texts)
            scores = losses.activated(logits, self.space.many)
            space = self.space.with_thresholds(scores, validation.truth)
            wrong = loss(torch.from_numpy(logits), torch.from_numpy(validation.truth))
            return {
                "validation_loss": wrong.item(),
                "validation_macro_f1": macro_f1(space, scores, validation),
                "train_macro_f1": macro_f1(space, self.scores(watched.texts), watched),
            }

        encoded = self._tokenizer(list(train.texts), truncation=True, max_length=self._own.max_length)
        training.train(
            self._model,
            [
                {
                    **{key: encoded[key][row] for key in encoded},
                    "truth": truth.astype(np.float32),
                    "weight": weight,
                }
                for row, (truth, weight) in enumerate(
                    zip(train.truth, train.weights.tolist(), strict=True)
                )
            ],
            own=self._own,
            truth=train.truth,
            labels=self.space.labels,
            lengths=[len(ids) for ids in encoded["input_ids"]],
            collate=DataCollatorWithPadding(self._tokenizer),
            loss=learn,
            weigh=lambda batch: loss.weight(batch["truth"], batch["weight"]),
            judge=judge,
            seed=self._seed,
            job="\n".join(validation.texts).encode() + validation.truth.tobytes(),
            state=state,
            log=log,
        )

    def scores(self, texts: Sequence[str]) -> Scores:
        return losses.activated(self._logits(texts), self.space.many)

    def save(self, folder: Path) -> None:
        self._model.backbone.save_pretrained(folder)
        self._tokenizer.save_pretrained(folder)
        head = {key: value.cpu() for key, value in self._model.linear.state_dict().items()}
        save_file(head, folder / "head.safetensors")

    @classmethod
    def load(cls, folder: Path, settings: Settings, space: LabelSpace) -> Self:
        model = cls(settings, space, Start(seed=0, base=folder))
        model._model.linear.load_state_dict(load_file(folder / "head.safetensors"))
        return model

    def graph(self) -> Graph:
        return Graph(
            self._model,
            tokenizer=self._base / "tokenizer.json",
            prefix="",
            max_length=self._own.max_length,
        )

    def _logits(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return encoder.run(
            texts,
            self._tokenizer,
            lambda batch: self._model(**batch).logits,
            max_length=self._own.max_length,
            width=len(self.space.labels),
        )
