"""Pretrained encoders: loading them safely, pooling, and running them over texts of any length."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerFast
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.utils import logging as transformers_logging

from undertone.errors import Problem

transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()

BUDGET = 2048  # tokens a batch: fills two cores' caches; larger batches of short texts gain nothing


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def bf16() -> bool:
    """Whether this machine multiplies bf16 in hardware (elsewhere bf16 is slower than fp32)."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    # torch has no public question for AVX512-BF16; the private one is the one it asks itself
    return bool(torch.cpu._is_avx512_bf16_supported())


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The fast tokenizer in `folder`; `Problem` where there is only a slow one, which can't be
    released: a bundle runs on the tokenizers library alone."""
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if not tokenizer.is_fast:
        raise Problem(
            "no fast tokenizer",
            where=str(folder),
            remedy="Choose a base that ships tokenizer.json.",
        )
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    return tokenizer


def run(
    texts: Sequence[str],
    tokenizer: PreTrainedTokenizerFast,
    forward: Callable[[dict[str, torch.Tensor]], torch.Tensor],
    *,
    max_length: int,
    width: int,
) -> NDArray[np.float32]:
    """`forward` over all texts, [n, width], in their order.

    Batches hold texts of like length up to a token budget, so that little is padding.
    """
    out = np.zeros((len(texts), width), dtype=np.float32)
    if not texts:
        return out
    encoded = tokenizer(list(texts), truncation=True, max_length=max_length)
    lengths = [len(ids) for ids in encoded["input_ids"]]
    for rows in batches(lengths):
        batch = tokenizer.pad(
            {key: [encoded[key][row] for row in rows] for key in encoded}, return_tensors="pt"
        )
        with torch.inference_mode():
            out[rows] = forward({key: value.to(device()) for key, value in batch.items()}).float().cpu()
    return out


def batches(lengths: Sequence[int], budget: int = BUDGET) -> Iterator[list[int]]:
    """Row numbers, longest texts first, in batches whose padded size stays within `budget` tokens
    (a text longer than that stands alone)."""
    order = np.argsort(-np.asarray(lengths), kind="stable").tolist()
    start = 0
    while start < len(order):
        count = max(1, budget // max(1, lengths[order[start]]))
        yield order[start : start + count]
        start += count


def pooled(states: torch.Tensor, mask: torch.Tensor, pooling: str) -> torch.Tensor:
    """One vector a text [n, width] from its token states [n, tokens, width]."""
    if pooling == "cls":
        return states[:, 0]
    weights = mask.unsqueeze(-1).to(states.dtype)
    return (states * weights).sum(dim=1) / weights.sum(dim=1)


class PooledClassifier(torch.nn.Module):
    """Backbone, pooling and a linear head as one module from token ids to logits.

    transformers' own classifier reads the first token, which bases trained for sentence embeddings
    (e5, MiniLM) leave untrained; these learn far faster from the mean.
    """

    def __init__(self, backbone: Any, labels: int, *, pooling: str, normalise: bool) -> None:
        super().__init__()
        self.backbone = backbone
        self.config = backbone.config
        self.linear = torch.nn.Linear(backbone.config.hidden_size, labels)
        self._takes = set(inspect.signature(backbone.forward).parameters)
        self._pooling = pooling
        self._normalise = normalise
        self._dropout = 0.0 if normalise else 0.1

    @property
    def dtype(self) -> torch.dtype:
        return self.linear.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.linear.weight.device

    def embed(self, **inputs: Any) -> torch.Tensor:
        """Sentence vectors [n, width], of length one where the head was fitted on such."""
        # a tokenizer may make token types that its model doesn't take
        taken = {name: value for name, value in inputs.items() if name in self._takes}
        states = self.backbone(**taken).last_hidden_state
        vectors = pooled(states, inputs["attention_mask"], self._pooling)
        return torch.nn.functional.normalize(vectors, dim=-1) if self._normalise else vectors

    def forward(
        self, input_ids: Any = None, attention_mask: Any = None, token_type_ids: Any = None
    ) -> SequenceClassifierOutput:
        extra = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        vectors = self.embed(input_ids=input_ids, attention_mask=attention_mask, **extra)
        dropped = torch.nn.functional.dropout(vectors, self._dropout, self.training)
        return SequenceClassifierOutput(logits=self.linear(dropped))


def load_backbone(folder: Path, *, max_length: int) -> Any:
    """The encoder in `folder`, fp32, on this machine's device; safetensors only, no code.

    `Problem` where it has fewer positions than `max_length` tokens.
    """
    backbone = AutoModel.from_pretrained(
        folder,
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
        dtype=torch.float32,
    )
    positions = getattr(backbone.config, "max_position_embeddings", None) or max_length
    if backbone.config.model_type in ("roberta", "xlm-roberta", "camembert", "mpnet"):
        positions -= 2  # these count from the padding token on
    if max_length > positions:
        raise Problem(
            f"max_length is {max_length}, but the base reads at most {positions} tokens",
            where="params.yaml",
            remedy=f"Set max_length to {positions} or less.",
        )
    return backbone.eval().to(device())
