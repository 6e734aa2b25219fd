"""Frozen sentence embeddings and a logistic head: trains in the time of one pass over the texts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.numpy import load_file, save_file
from transformers import AutoModel
from transformers.modeling_outputs import SequenceClassifierOutput

from undertone import encoder
from undertone.heads import LogisticHead
from undertone.labels import LabelSpace, Scores
from undertone.models import Examples, Graph, Log
from undertone.params import E5Settings, Settings


class Model:
    def __init__(self, settings: Settings, space: LabelSpace, *, base: Path | None, seed: int) -> None:
        assert isinstance(settings, E5Settings)
        assert base is not None
        self.settings: Settings = settings
        self.space = space
        self._own = settings
        self._base = base
        self._tokenizer = encoder.load_tokenizer(base)
        self._backbone = AutoModel.from_pretrained(
            base, local_files_only=True, use_safetensors=True, dtype=torch.float32
        )
        self._backbone.eval().to(encoder.device())
        self._head = LogisticHead(space.many, c=settings.c, balanced=settings.class_weights, seed=seed)

    def fit(self, train: Examples, validation: Examples, log: Log) -> None:
        self._head.fit(self._embed(train.texts), train.truth)

    def scores(self, texts: Sequence[str]) -> Scores:
        return self._head.scores(self._embed(texts))

    def save(self, folder: Path) -> None:
        self._backbone.save_pretrained(folder)
        self._tokenizer.save_pretrained(folder)
        save_file(self._head.arrays(), folder / "head.safetensors")

    @classmethod
    def load(cls, folder: Path, settings: Settings, space: LabelSpace) -> Self:
        model = cls(settings, space, base=folder, seed=0)
        model._head.take(load_file(folder / "head.safetensors"))
        return model

    def graph(self) -> Graph:
        module = _Pooled(self._backbone, self._own.pooling, self._head)
        return Graph(
            module,
            tokenizer=self._base / "tokenizer.json",
            prefix=self._own.prefix,
            max_length=self._own.max_length,
        )

    def _embed(self, texts: Sequence[str]) -> Any:
        def forward(batch: dict[str, torch.Tensor]) -> torch.Tensor:
            states = self._backbone(**batch).last_hidden_state
            return pooled(states, batch["attention_mask"], self._own.pooling)

        return encoder.run(
            [self._own.prefix + text for text in texts],
            self._tokenizer,
            forward,
            max_length=self._own.max_length,
            width=self._backbone.config.hidden_size,
        )


def pooled(states: torch.Tensor, mask: torch.Tensor, pooling: str) -> torch.Tensor:
    """Sentence embeddings [n, width] of length one, from token states [n, tokens, width]."""
    if pooling == "cls":
        vectors = states[:, 0]
    else:
        weights = mask.unsqueeze(-1).to(states.dtype)
        vectors = (states * weights).sum(dim=1) / weights.sum(dim=1)
    return torch.nn.functional.normalize(vectors, dim=-1)


class _Pooled(torch.nn.Module):
    """Backbone, pooling and head as one module from token ids to logits."""

    def __init__(self, backbone: Any, pooling: str, head: LogisticHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.config = backbone.config
        self._pooling = pooling
        self.linear = torch.nn.Linear(head.weight.shape[1], head.weight.shape[0])
        with torch.no_grad():
            self.linear.weight.copy_(torch.from_numpy(head.weight))
            self.linear.bias.copy_(torch.from_numpy(head.bias))
        self.eval()

    @property
    def dtype(self) -> torch.dtype:
        return self.linear.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.linear.weight.device

    def forward(
        self, input_ids: Any = None, attention_mask: Any = None, token_type_ids: Any = None
    ) -> SequenceClassifierOutput:
        extra = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        states = self.backbone(input_ids=input_ids, attention_mask=attention_mask, **extra)
        vectors = pooled(states.last_hidden_state, attention_mask, self._pooling)
        return SequenceClassifierOutput(logits=self.linear(vectors))
