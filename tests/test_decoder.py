"""A base is loaded whole or in 4 bit, ready to be asked or trained, or refused in one line."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    PretrainedConfig,
    Qwen2Config,
)

from tests import tiny
from undertone.errors import Problem
from undertone.networks import closed, decoder, encoder

WORDS, PAD = 97, 0
SIZES: dict[str, Any] = {
    "vocab_size": WORDS,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "max_position_embeddings": 128,
    "initializer_range": 0.1,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": None,
}
CONFIGS: dict[str, PretrainedConfig] = {
    "qwen2": Qwen2Config(**SIZES),
    "llama": LlamaConfig(**SIZES),
    "gpt2": GPT2Config(**SIZES),
    "gemma2": Gemma2Config(**SIZES, head_dim=16),
}
PROMPTS = [[5, 6, 7, 8, 9], [5, 6, 7, 10, 11, 12, 13], [5, 6, 7]]
ANSWERS = [[3, 2], [4, 2]]


def base(folder: Path, name: str = "qwen2") -> Path:
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(CONFIGS[name]).save_pretrained(folder)
    return folder


def test_a_model_is_loaded_as_it_was_saved(tmp_path: Path) -> None:
    model = decoder.load(base(tmp_path), four_bit=False)
    torch.manual_seed(0)
    expected = AutoModelForCausalLM.from_config(CONFIGS["qwen2"]).state_dict()
    weights = model.state_dict()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name].float().cpu(), expected[name]) for name in weights)
    assert not model.training


def test_the_cap_on_attention_is_kept(tmp_path: Path) -> None:
    """sdpa would leave it out."""
    assert decoder.load(base(tmp_path, "gemma2"), four_bit=False).config._attn_implementation == "eager"


@pytest.mark.parametrize("name", ["qwen2", "llama", "gpt2"])
def test_4_bit_weights_answer_much_as_whole_ones(name: str, tmp_path: Path) -> None:
    whole = decoder.load(base(tmp_path, name), four_bit=False)
    small = decoder.load(tmp_path, four_bit=True)
    assert small.get_memory_footprint() < 0.6 * whole.get_memory_footprint()
    expected = closed.log_probabilities(whole, PROMPTS, ANSWERS)
    found = closed.log_probabilities(small, PROMPTS, ANSWERS)
    assert 0 < np.abs(found - expected).max() < 1


def test_4_bit_scores_equal_a_plain_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder, "bf16", lambda: False)  # its rounding would hide a fault
    model = decoder.load(base(tmp_path), four_bit=True)
    found = closed.log_probabilities(model, PROMPTS, ANSWERS)
    for row, prompt in zip(found, PROMPTS, strict=True):
        for score, (first, second) in zip(row, ANSWERS, strict=True):
            with torch.inference_mode():
                ids = torch.tensor([[*prompt, first]], device=model.device)
                likely = model(ids).logits[0, -2:].log_softmax(dim=-1)
            assert score == pytest.approx(float(likely[0, first] + likely[1, second]), abs=1e-4)


@pytest.mark.parametrize("four_bit", [False, True])
@pytest.mark.parametrize("name", ["qwen2", "llama"])
def test_adapters_learn_even_after_a_look_at_validation(
    name: str, four_bit: bool, tmp_path: Path
) -> None:
    model = decoder.load(base(tmp_path, name), four_bit=four_bit)
    if four_bit:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    torch.manual_seed(0)
    model = get_peft_model(
        model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    ).eval()
    before = closed.log_probabilities(model, PROMPTS, ANSWERS)[0, 0]
    learnt = {key: value for key, value in model.named_parameters() if value.requires_grad}
    optimiser = torch.optim.AdamW(learnt.values(), lr=0.02)
    ids = torch.tensor([[*PROMPTS[0], *ANSWERS[0]]], device=model.device)
    labels = ids.clone()
    labels[:, : len(PROMPTS[0])] = -100
    model.train()
    for _ in range(5):
        model(ids, labels=labels).loss.backward()
        # the first gradients of `lora_A` are 0, since `lora_B` begins as 0
        assert all(bool(one.grad.any()) for key, one in learnt.items() if "lora_B" in key)
        optimiser.step()
        optimiser.zero_grad()
    assert closed.log_probabilities(model.eval(), PROMPTS, ANSWERS)[0, 0] > before + 1


@pytest.mark.parametrize("four_bit", [False, True])
def test_a_classifiers_head_is_new_in_fp32_and_drawn_by_the_seed(four_bit: bool, tmp_path: Path) -> None:
    base(tmp_path)
    heads = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        model = decoder.load(tmp_path, four_bit=four_bit, classes=3, pad=PAD)
        heads.append(model.score.weight.detach().cpu())
    assert type(model.score) is torch.nn.Linear
    assert heads[0].dtype == torch.float32
    assert heads[0].shape == (3, 64)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    found = model(torch.tensor([[5, 6, 7, PAD, PAD], [5, 6, 7, 8, 9]], device=model.device)).logits
    alone = model(torch.tensor([[5, 6, 7]], device=model.device)).logits
    assert found.shape == (2, 3)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found[:1], alone, atol=0.01, rtol=0.01)
    found.square().sum().backward()
    assert model.score.weight.grad.any()


def test_it_is_told_what_was_loaded(tmp_path: Path) -> None:
    base(tmp_path)
    where = f"sdpa, on {encoder.device().type}"
    small = "bf16" if encoder.bf16() else "fp32"
    whole = small if encoder.device().type == "cuda" else "fp32"
    model = decoder.load(tmp_path, four_bit=False)
    assert decoder.told(model) == f"Qwen2, {whole}, {where}"
    tuned = get_peft_model(model, LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM"))
    assert decoder.told(tuned) == f"Qwen2, {whole}, {where}"
    classifier = decoder.load(tmp_path, four_bit=True, classes=2, pad=PAD)
    assert decoder.told(classifier) == f"Qwen2, 4-bit NF4, {small}, {where}"


def broken(folder: Path, fault: str) -> Path:
    """A base that can't be used."""
    made = base(folder / "base")
    if fault == "encoder":
        from transformers import BertConfig, BertModel

        sizes = {key: SIZES[key] for key in SIZES if not key.endswith("_id")}
        BertModel(BertConfig(**sizes)).save_pretrained(made)
    else:
        tiny.spoil(made, fault)
    return made


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("missing", "no such folder"),
        ("pickled", "no safetensors weights"),
        ("cut", "can't be loaded"),
        ("tensors", "lack 1 of the model's tensors"),
        ("encoder", r"lack \d of the model's tensors"),
        ("code", "can't be loaded"),
    ],
)
@pytest.mark.parametrize("classes", [None, 3])
def test_a_folder_without_a_usable_model_is_one_line(
    fault: str, told: str, classes: int | None, tmp_path: Path
) -> None:
    folder = broken(tmp_path, fault)
    with pytest.raises(Problem, match=told) as problem:
        decoder.load(folder, four_bit=False, classes=classes, pad=PAD)
    assert "\n" not in str(problem.value)
    assert str(folder) in str(problem.value)
