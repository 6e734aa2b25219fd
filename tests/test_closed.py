"""Each answer's probability is what reading prompt and answer alone, token by token, gives."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    FalconConfig,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    PretrainedConfig,
    Qwen2Config,
)

from undertone.errors import Problem
from undertone.networks import closed

END, WORDS = 2, 97
SIZES: dict[str, Any] = {
    "vocab_size": WORDS,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
    "bos_token_id": 1,
    "eos_token_id": END,
    "pad_token_id": None,
}
GEMMA = {"head_dim": 8, "query_pre_attn_scalar": 8}
MODELS: dict[str, tuple[PretrainedConfig, str]] = {
    "qwen2": (Qwen2Config(**SIZES), "sdpa"),
    "qwen2 eager": (Qwen2Config(**SIZES), "eager"),
    "llama": (LlamaConfig(**SIZES), "sdpa"),
    "mistral": (MistralConfig(**SIZES, sliding_window=4096), "sdpa"),
    "mistral, window": (MistralConfig(**SIZES, sliding_window=50), "sdpa"),
    "gemma2, window": (Gemma2Config(**SIZES, **GEMMA, sliding_window=50), "eager"),
    "gpt2": (GPT2Config(**SIZES), "sdpa"),
}
ANSWERS = [[5], [5, END], [5, 6], [5, 6, END], [9, END], [9, 4, 4, 8, END], [11]]


def built(config: PretrainedConfig, attention: str = "sdpa", dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(1)
    made: Any = AutoModelForCausalLM.from_config(config, attn_implementation=attention, dtype=dtype)
    return made.eval()


@pytest.fixture(scope="module")
def qwen() -> Any:
    return built(*MODELS["qwen2"])


def drawn(length: int, seed: int) -> list[int]:
    return np.random.default_rng(seed).integers(3, WORDS, length).tolist()


def asked(lengths: Sequence[int], shared: int) -> list[list[int]]:
    """Prompts that begin with the same `shared` tokens."""
    begin = drawn(shared, 0)
    return [begin + drawn(length, at + 1) for at, length in enumerate(lengths)]


def recomputed(model: Any, prompts: Sequence[Sequence[int]]) -> NDArray[np.float64]:
    """A plain forward pass for each prompt and answer."""
    rows = []
    for prompt in prompts:
        for answer in ANSWERS:
            with torch.inference_mode():
                logits = model(torch.tensor([[*prompt, *answer]]), use_cache=False).logits[0]
            before = logits[len(prompt) - 1 : -1].float().log_softmax(dim=-1)
            rows.append(sum(float(one[token]) for one, token in zip(before, answer, strict=True)))
    return np.array(rows).reshape(len(prompts), len(ANSWERS))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("shared", [0, 60])
def test_it_equals_a_full_recompute(name: str, shared: int) -> None:
    model = built(*MODELS[name])
    prompts = asked([1, 2, 5, 40, 80, 140, 7, 30], shared)
    expected = recomputed(model, prompts)
    assert np.ptp(expected) > 5  # else anything would pass
    np.testing.assert_allclose(closed.log_probabilities(model, prompts, ANSWERS), expected, atol=1e-4)


@pytest.mark.parametrize("length", [1, 2, 200])
def test_one_prompt_alone(qwen: Any, length: int) -> None:
    prompts = [drawn(length, 3)]
    found = closed.log_probabilities(qwen, prompts, ANSWERS)
    np.testing.assert_allclose(found, recomputed(qwen, prompts), atol=1e-4)


@pytest.mark.parametrize("answers", [[[5]], [[5], [7], [11]], [[5, 6, 7, END]]])
def test_other_sets_of_answers(qwen: Any, answers: list[list[int]]) -> None:
    prompts = asked([3, 30], 20)
    every = closed.log_probabilities(qwen, prompts, [*ANSWERS, *answers])
    found = closed.log_probabilities(qwen, prompts, answers)
    np.testing.assert_allclose(found, every[:, len(ANSWERS) :], atol=1e-4)


def test_a_prompt_may_be_the_beginning_of_another(qwen: Any) -> None:
    longest = drawn(50, 3)
    prompts = [longest[:10], longest, longest[:1]]
    found = closed.log_probabilities(qwen, prompts, ANSWERS)
    np.testing.assert_allclose(found, recomputed(qwen, prompts), atol=1e-4)


def test_probabilities_of_all_next_tokens_sum_to_one(qwen: Any) -> None:
    found = closed.log_probabilities(qwen, asked([4, 9], 5), [[token] for token in range(WORDS)])
    np.testing.assert_allclose(np.exp(found).sum(axis=1), 1, atol=1e-5)


def test_neither_order_nor_batch_matter(qwen: Any) -> None:
    prompts = asked(list(range(1, 200, 9)), 30)
    expected = closed.log_probabilities(qwen, prompts, ANSWERS)
    assert np.isfinite(expected).all()
    order = np.random.default_rng(0).permutation(len(prompts))
    for budget in (1, 500, 100_000):
        found = closed.log_probabilities(qwen, [prompts[at] for at in order], ANSWERS, budget=budget)
        np.testing.assert_allclose(found, expected[order], atol=1e-4)
    turned = closed.log_probabilities(qwen, prompts, ANSWERS[::-1])
    np.testing.assert_allclose(turned[:, ::-1], expected, atol=1e-4)


def test_no_prompts_are_no_rows(qwen: Any) -> None:
    assert closed.log_probabilities(qwen, [], ANSWERS).shape == (0, len(ANSWERS))


def test_what_prompts_share_is_read_once(qwen: Any) -> None:
    read: list[int] = []
    embedding = qwen.get_input_embeddings()
    hook = embedding.register_forward_hook(lambda _, given, __: read.append(given[0].numel()))
    prompts = asked([8] * 10, 60)
    closed.log_probabilities(qwen, [*prompts, *prompts], ANSWERS)
    hook.remove()
    inner = 6  # of the answers: 5, 5 6, 9, 9 4, 9 4 4, 9 4 4 8
    assert sum(read) == 60 + 10 * (8 + inner)


def test_tuned_by_adapters_in_bf16() -> None:
    config = Qwen2Config(**{**SIZES, "initializer_range": 0.1})
    model = built(config, dtype=torch.bfloat16)
    bare = closed.log_probabilities(model, asked([1, 40, 9], 30), ANSWERS)
    adapters = LoraConfig(target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    tuned = get_peft_model(model, adapters).eval()
    prompts = asked([1, 40, 9], 30)
    found = closed.log_probabilities(tuned, prompts, ANSWERS)
    np.testing.assert_allclose(found, recomputed(tuned, prompts), atol=0.3, rtol=0.02)
    assert np.abs(found - bare).max() > 1


@pytest.mark.parametrize(
    "config",
    [
        FalconConfig(**SIZES, alibi=True),  # positions from the mask
        OPTConfig(**SIZES, word_embed_proj_dim=32, ffn_dim=64),  # logits of every token
    ],
)
def test_a_model_that_cant_be_scored_so_is_named(config: PretrainedConfig) -> None:
    with pytest.raises(Problem, match=f"a {config.model_type} model .* can't be scored"):
        closed.log_probabilities(built(config), asked([3], 5), ANSWERS)


def test_a_prompt_longer_than_the_model_reads_is_told(qwen: Any) -> None:
    closed.log_probabilities(qwen, [drawn(507, 1)], ANSWERS)
    with pytest.raises(Problem, match="513 tokens; the model reads 512"):
        closed.log_probabilities(qwen, [drawn(508, 1)], ANSWERS)


def test_too_little_memory_is_one_line(qwen: Any) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError

    hook = qwen.lm_head.register_forward_hook(full)
    with pytest.raises(Problem, match="more than this GPU's memory holds") as problem:
        closed.log_probabilities(qwen, asked([3, 4], 5), ANSWERS)
    hook.remove()
    assert "\n" not in str(problem.value)
