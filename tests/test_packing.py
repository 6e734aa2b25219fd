"""Rows packed behind a shared instruction are learnt from as single rows are."""

from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from undertone.networks import packing
from undertone.networks.chat import Row

SIZES = {
    "vocab_size": 60,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "attn_implementation": "sdpa",
}
KINDS: dict[str, Any] = {
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, {}),
    "llama": (LlamaForCausalLM, LlamaConfig, {}),
    "mistral": (MistralForCausalLM, MistralConfig, {"sliding_window": 8}),
    "gemma2": (
        Gemma2ForCausalLM,
        Gemma2Config,
        {"sliding_window": 8, "head_dim": 8, "attn_implementation": "eager"},
    ),
}


@pytest.fixture(params=KINDS)
def model(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    kind, config, own = KINDS[request.param]
    return kind(config(**{**SIZES, **own})).eval()


def rows(count: int, *, prefix: int = 20, seed: int = 0) -> list[Row]:
    rng = np.random.default_rng(seed)
    first = rng.integers(1, 60, prefix).tolist()
    made = []
    for _ in range(count):
        comment = rng.integers(1, 60, rng.integers(1, 12)).tolist()
        answer = rng.integers(1, 60, rng.integers(1, 4)).tolist()
        made.append(Row([*first, *comment, *answer], prefix + len(comment)))
    return made


def alone(model: Any, row: Row, *, everything: bool) -> torch.Tensor:
    """-log P of each learnt token of one row, by one plain forward pass."""
    ids = torch.tensor([list(row.ids)])
    found = torch.log_softmax(model(input_ids=ids).logits[0].float(), dim=-1)
    first = 1 if everything else row.start
    return torch.stack([-found[at - 1, ids[0, at]] for at in range(first, len(row.ids))])


@pytest.mark.parametrize("everything", [False, True])
@pytest.mark.parametrize("budget", [40, 2048])
@pytest.mark.parametrize("prefix", [0, 1, 20])
def test_loss_and_gradient_are_those_of_single_rows(
    model: Any, prefix: int, budget: int, everything: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "BUDGET", budget)
    batch = rows(7, prefix=prefix)
    weights = [1.0, 2.0, 0.5, 1.0, 3.0, 1.0, 0.25]
    shared = packing.shared(batch)
    assert shared >= prefix
    packed = packing.pack(batch, weights, shared, everything=everything)
    assert (packed["input_ids"].shape[0] == 1) == (budget == 2048)
    loss = packing.answer_loss(model, packed)
    loss.backward()
    gradients = [weight.grad.clone() for weight in model.parameters()]
    model.zero_grad()
    parts = [
        alone(model, row, everything=everything) * weight
        for row, weight in zip(batch, weights, strict=True)
    ]
    total = sum(
        weight * (len(row.ids) - (1 if everything else row.start))
        for row, weight in zip(batch, weights, strict=True)
    )
    expected = torch.cat(parts).sum() / total
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
    expected.backward()
    for weight, gradient in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(gradient, weight.grad, atol=1e-5, rtol=1e-3)


def test_the_loss_is_the_one_of_trl_on_the_same_rows(model: Any) -> None:
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling  # seconds, each worker collects

    batch = rows(5)
    collate = DataCollatorForLanguageModeling(pad_token_id=0)
    given = collate(
        [
            {"input_ids": list(row.ids), "labels": [-100] * row.start + list(row.ids[row.start :])}
            for row in batch
        ]
    )
    packed = packing.pack(batch, [1.0] * 5, packing.shared(batch), everything=False)
    with torch.inference_mode():
        torch.testing.assert_close(
            packing.answer_loss(model, packed), model(**given).loss, atol=1e-5, rtol=1e-5
        )


def test_rows_that_have_nothing_in_common_share_nothing() -> None:
    assert packing.shared([Row([1, 2, 3], 2), Row([2, 2, 3], 2)]) == 0
    assert packing.shared([Row([1, 2, 3], 2), Row([1, 2, 4], 2)]) == 2
    assert packing.shared([Row([1, 2, 3, 4], 1), Row([1, 2, 3, 4], 3)]) == 1


def test_focal_weighs_sure_rows_down(model: Any) -> None:
    batch = rows(4)
    packed = packing.pack(batch, [1.0] * 4, packing.shared(batch), everything=False)
    with torch.inference_mode():
        losses = [alone(model, row, everything=False) for row in batch]
        expected = sum((1 - (-one.sum()).exp()) ** 2 * one.sum() for one in losses)
        count = sum(len(one) for one in losses)
        torch.testing.assert_close(packing.answer_loss(model, packed, 2.0), expected / count)


def test_preference_is_won_by_raising_right_answers_over_wrong_ones(model: Any) -> None:
    right, wrong = rows(3, seed=1), rows(3, seed=1)
    wrong = [Row([*row.ids[: row.start], 7, 8], row.start) for row in wrong]
    both = [row for pair in zip(right, wrong, strict=True) for row in pair]
    packed = packing.pack(both, [1.0] * 6, packing.shared(both), everything=False)
    with torch.inference_mode():
        before = packing.ahead(model, packed)
        for at, (good, bad) in enumerate(zip(right, wrong, strict=True)):
            expected = (
                alone(model, bad, everything=False).sum() - alone(model, good, everything=False).sum()
            )
            torch.testing.assert_close(before[at], expected, atol=1e-4, rtol=1e-4)
        even = packing.preference_loss(model, {**packed, "ahead": before}, 0.1)
        gained = packing.preference_loss(model, {**packed, "ahead": before - 1}, 0.1)
    torch.testing.assert_close(even, torch.tensor(2.0).log())
    torch.testing.assert_close(gained, (1 + torch.tensor(-0.1).exp()).log())
