"""What is written after a prompt doesn't depend on the prompts beside it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PretrainedConfig, Qwen2Config

from undertone.errors import Problem
from undertone.networks import generation

WORDS, PAD, NEW = 97, 0, 8
SIZES: dict[str, Any] = {
    "vocab_size": WORDS,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 512,
    "initializer_range": 0.5,  # logits well apart
    "pad_token_id": None,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MODELS: dict[str, PretrainedConfig] = {
    "qwen2": Qwen2Config(**SIZES),
    "llama": LlamaConfig(**SIZES),
    "gpt2": GPT2Config(**SIZES),
}


def built(config: PretrainedConfig) -> Any:
    torch.manual_seed(3)
    model: Any = AutoModelForCausalLM.from_config(config).eval()
    # what a model ships with mustn't change a greedy answer
    model.generation_config.update(do_sample=True, temperature=9.0, repetition_penalty=2.0)
    return model


@pytest.fixture(scope="module")
def qwen() -> Any:
    return built(MODELS["qwen2"])


def prompts() -> list[list[int]]:
    """Of 5 to 200 tokens, the longest in the middle."""
    rng = np.random.default_rng(0)
    return [rng.integers(3, WORDS, length).tolist() for length in (5, 31, 200, 7, 60, 12)]


def likeliest(model: Any, prompt: Sequence[int], ends: Sequence[int] = ()) -> list[int]:
    """Token by token, alone, without a cache."""
    written: list[int] = []
    while len(written) < NEW and not (written and written[-1] in ends):
        with torch.inference_mode():
            logits = model(torch.tensor([[*prompt, *written]]), use_cache=False).logits
        written.append(int(logits[0, -1].argmax()))
    return written


def generate(model: Any, asked: Sequence[Sequence[int]], **given: Any) -> list[list[int]]:
    how: dict[str, Any] = {"max_new_tokens": NEW, "ends": [], "pad": PAD, "batch": 4, **given}
    return generation.generate(model, asked, **how)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("batch", [1, 8])
def test_short_and_long_prompts_beside_each_other_get_their_own_answers(name: str, batch: int) -> None:
    model = built(MODELS[name])
    expected = [likeliest(model, prompt) for prompt in prompts()]
    assert len({tuple(one) for one in expected}) == 6
    assert generate(model, prompts(), batch=batch) == expected
    assert generate(model, prompts()[::-1], batch=batch) == expected[::-1]


@pytest.mark.parametrize("pad", [PAD, 2])
def test_an_answer_goes_up_to_the_first_end(qwen: Any, pad: int) -> None:
    free = [likeliest(qwen, prompt) for prompt in prompts()]
    ends = [free[0][2], free[2][5], 2]
    expected = [likeliest(qwen, prompt, ends) for prompt in prompts()]
    assert len({len(one) for one in expected}) > 2
    assert generate(qwen, prompts(), ends=ends, pad=pad) == expected


def test_a_processor_knows_its_rows(qwen: Any) -> None:
    """Each row is made to repeat its place."""

    def repeated(places: Sequence[int]) -> Any:
        def forced(_: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
            chosen = torch.full_like(logits, -1e4)
            chosen[range(len(places)), list(places)] = 0
            return chosen

        return forced

    found = generate(qwen, prompts(), logits_processor=repeated)
    assert found == [[place] * NEW for place in range(len(prompts()))]


def test_no_prompts_are_no_answers(qwen: Any) -> None:
    assert generate(qwen, []) == []


def test_too_little_memory_is_one_line(qwen: Any) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError

    hook = qwen.lm_head.register_forward_hook(full)
    with pytest.raises(Problem, match="4 texts of up to 200 tokens are more than") as problem:
        generate(qwen, prompts())
    hook.remove()
    assert "\n" not in str(problem.value)
