"""SetFit (Tunstall et al. 2022): an encoder tuned on pairs of few rows, then a head on its embeddings.

The steps are those of `training`, the pairs those of `pairs`; the loss is the paper's. The library
setfit 1.2 can't keep what a family promises here: its sampler holds the numbers of all pairs even where
few are asked for (n² / 2 of them), and always draws with the seed 42; a killed training begins anew; the
head is saved as a pickle, and a model card repeats training texts.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from undertone import encoder, imbalance, losses, metrics, pairs, training
from undertone.heads import LogisticHead
from undertone.labels import Flags, LabelSpace, Scores
from undertone.models import Examples, Graph, Log, Start, macro_f1
from undertone.params import SetfitSettings, Settings

PLAIN = {"downsample": None, "mixing": 0.0}  # for rows that are drawn already


class Model:
    def __init__(self, settings: Settings, space: LabelSpace, start: Start) -> None:
        assert isinstance(settings, SetfitSettings)
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
        kind = {"logistic": LogisticHead, "torch": TorchHead}[settings.head]
        self._head = kind(space.many, settings, c=settings.c, seed=start.seed)

    def fit(self, train: Examples, validation: Examples, log: Log, state: Path) -> None:
        rows = imbalance.once(train.truth, self._own, seed=self._seed)
        rows = rows[pairs.few(train.truth[rows], self._own.shots, seed=self._seed)]
        log(0, imbalance.lost(train.truth, rows, self.space.labels))
        few = Examples([train.texts[row] for row in rows], train.truth[rows], train.weights[rows])
        self._tune(few, validation, log, state)
        self._head.fit(self._embed(few.texts), few.truth, few.weights)

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

    def _tune(self, few: Examples, validation: Examples, log: Log, state: Path) -> None:
        drawn = pairs.draw(few.truth, self._own.pairs, seed=self._seed)
        ids = self._tokenizer(self._read(few.texts), truncation=True, max_length=self._own.max_length)[
            "input_ids"
        ]
        watched = training.watched(len(few.texts), self._seed)

        def collate(batch: Sequence[Any]) -> dict[str, torch.Tensor]:
            both = [{"input_ids": one[side]} for side in ("first", "second") for one in batch]
            alike = torch.tensor([one["alike"] for one in batch])
            return {**self._tokenizer.pad(both, return_tensors="pt"), "alike": alike}

        def learn(model: Any, batch: dict[str, Any]) -> torch.Tensor:
            alike = batch.pop("alike")
            first, second = model(**batch).chunk(2)
            cosine = torch.nn.functional.cosine_similarity(first, second)
            return torch.nn.functional.mse_loss(cosine, alike)

        def judge() -> dict[str, float]:
            features = self._embed(few.texts)
            self._head.fit(features, few.truth, few.weights)
            scores = self.scores(validation.texts)
            space = self.space.with_thresholds(scores, validation.truth)
            own = Examples([few.texts[row] for row in watched], few.truth[watched])
            return {
                "validation_loss": metrics.log_loss(validation.truth, scores, many=space.many),
                "validation_macro_f1": macro_f1(space, scores, validation),
                "train_macro_f1": macro_f1(space, self._head.scores(features[watched]), own),
            }

        training.train(
            Embedder(self._model),
            [
                {"first": ids[first], "second": ids[second], "alike": float(alike)}
                for first, second, alike in zip(drawn.first, drawn.second, drawn.alike, strict=True)
            ],
            own=self._own.model_copy(update=PLAIN),
            truth=np.column_stack([~drawn.alike, drawn.alike]),
            labels=("unlike", "alike"),
            lengths=[
                len(ids[first]) + len(ids[second])
                for first, second in zip(drawn.first, drawn.second, strict=True)
            ],
            collate=collate,
            loss=learn,
            weigh=lambda batch: len(batch["alike"]),
            judge=judge,
            seed=self._seed,
            job="\n".join([*few.texts, *validation.texts]).encode()
            + few.truth.tobytes()
            + few.weights.tobytes()
            + validation.truth.tobytes(),
            state=state,
            log=log,
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


class Embedder(torch.nn.Module):
    """What learns from pairs: the encoder without the head, from token ids to sentence vectors."""

    def __init__(self, model: encoder.PooledClassifier) -> None:
        super().__init__()
        self.backbone = model.backbone
        self._embed = model.embed

    def forward(self, **inputs: Any) -> torch.Tensor:
        return self._embed(**inputs)


class TorchHead(LogisticHead):
    """A linear layer learnt by AdamW, as SetFit's differentiable head, with the loss of `losses`.

    All rows at once and from weights of zero, so that no chance is in it.
    """

    _sampled: SetfitSettings

    def fit(self, features: Any, truth: Flags, rows: imbalance.Weights | None = None) -> None:
        own = self._sampled.model_copy(update=PLAIN)
        loss = losses.Loss(own, truth, self._many, rows)
        given, wanted = torch.from_numpy(features), torch.from_numpy(truth)
        each = None if rows is None else torch.from_numpy(rows)
        linear = torch.nn.Linear(features.shape[1], truth.shape[1])
        torch.nn.init.zeros_(linear.weight)
        torch.nn.init.zeros_(linear.bias)
        optimizer = torch.optim.AdamW(linear.parameters(), lr=own.head_lr, weight_decay=own.weight_decay)
        for _ in range(own.head_epochs):
            optimizer.zero_grad()
            loss(linear(given), wanted, each).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        self._hold(*(one.detach().double().numpy() for one in (linear.weight, linear.bias)))
