"""SetFit (Tunstall et al. 2022): an encoder tuned on pairs of few rows, then a head on its embeddings.

The steps are those of `training`, the pairs those of `pairs`; the loss is the paper's. The library
setfit 1.2 can't keep what a family promises here: its sampler holds the numbers of all pairs even where
few are asked for (n² / 2 of them), and always draws with the seed 42; a killed training begins anew; the
head is saved as a pickle, and a model card repeats training texts.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from undertone.labels import Flags, LabelSpace
from undertone.measures import metrics
from undertone.models import Examples, Log, Start, macro_f1
from undertone.models._embedded import Embedded
from undertone.networks import encoder
from undertone.params import SetfitSettings, Settings
from undertone.tuning import imbalance, losses, pairs, training
from undertone.tuning.heads import LinearHead, LogisticHead

PLAIN = {"downsample": None, "mixing": 0.0}  # for rows that are drawn already


class Model(Embedded):
    _own: SetfitSettings

    def __init__(self, settings: Settings, space: LabelSpace, start: Start) -> None:
        super().__init__(settings, space, start)
        if self._own.head == "torch":
            self._head = TorchHead(space.many, self._own)
        else:
            own = self._own
            self._head = LogisticHead(space.many, own, c=own.logistic.c, seed=start.seed)

    def fit(self, train: Examples, validation: Examples, log: Log, state: Path) -> None:
        rows = imbalance.once(train.truth, self._own, seed=self._seed)
        drawn, weights = pairs.few(
            train.truth[rows], self._own.shots, weights=train.weights[rows], seed=self._seed
        )
        rows = rows[drawn]
        log(0, imbalance.lost(train.truth, rows, self.space.labels))
        few = Examples([train.texts[row] for row in rows], train.truth[rows], weights)
        self._tune(few, validation, log, state)
        self._head.fit(self._embed(few.texts), few.truth, few.weights)

    def _tune(self, few: Examples, validation: Examples, log: Log, state: Path) -> None:
        drawn = pairs.draw(few.truth, self._own.pairs, weights=few.weights, seed=self._seed)
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


class Embedder(torch.nn.Module):
    """What learns from pairs: the encoder without the head, from token ids to sentence vectors."""

    def __init__(self, model: encoder.PooledClassifier) -> None:
        super().__init__()
        self.backbone = model.backbone
        self._embed = model.embed

    def forward(self, **inputs: Any) -> torch.Tensor:
        return self._embed(**inputs)


class TorchHead(LinearHead):
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
        optimizer = torch.optim.AdamW(
            linear.parameters(), lr=own.torch.lr, weight_decay=own.weight_decay
        )
        for _ in range(own.torch.epochs):
            optimizer.zero_grad()
            loss(linear(given), wanted, each).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        self._hold(*(one.detach().double().numpy() for one in (linear.weight, linear.bias)))
