"""Pretrained encoders: loading them safely, and running them over texts of any length."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoTokenizer, PreTrainedTokenizerFast
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
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
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
