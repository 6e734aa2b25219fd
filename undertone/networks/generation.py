"""What a causal language model writes after each of many prompts, in batches of like length."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from transformers import GenerationConfig

from undertone.errors import Problem


def generate(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    ends: Collection[int],
    pad: int,
    batch: int,
    logits_processor: Callable[[Sequence[int]], Any] | None = None,
) -> list[list[int]]:
    """The ids that `model` writes after each prompt, to the first of `ends`, which is among them, or to
    `max_new_tokens`: always the likeliest, so that a row doesn't depend on those beside it.

    `logits_processor`: from the places in `prompts` of a batch's rows to what changes their logits, a
    callable as transformers has it. `Problem` where a batch is more than the GPU's memory holds.
    """
    order = sorted(range(len(prompts)), key=lambda at: -len(prompts[at]))
    written: list[list[int]] = [[] for _ in prompts]
    config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=sorted(ends),  # not None, which would be the model's own
        pad_token_id=pad,
    )
    for start in range(0, len(order), batch):
        places = order[start : start + batch]
        width = len(prompts[places[0]])
        ids = torch.full((len(places), width), pad)
        mask = torch.zeros((len(places), width), dtype=torch.long)
        for row, place in enumerate(places):
            ids[row, width - len(prompts[place]) :] = torch.as_tensor(prompts[place])
            mask[row, width - len(prompts[place]) :] = 1
        try:
            with torch.inference_mode():
                made = model.generate(
                    input_ids=ids.to(model.device),
                    attention_mask=mask.to(model.device),
                    logits_processor=[logits_processor(places)] if logits_processor else None,
                    generation_config=config,
                    use_model_defaults=False,  # a penalty that a model ships with is no one's wish here
                )
        except torch.OutOfMemoryError:
            raise Problem(
                f"{len(places)} texts of up to {width} tokens are more than this GPU's memory holds",
                remedy="Lower the batch, or choose a smaller base.",
            ) from None
        for place, ids_of_row in zip(places, made[:, width:].tolist(), strict=True):
            end = next((at for at, token in enumerate(ids_of_row) if token in ends), None)
            written[place] = ids_of_row if end is None else ids_of_row[: end + 1]
    return written
