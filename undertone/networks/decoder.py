"""Causal language models: loading them safely, whole or in 4 bit, with their own head or a new one."""

import logging
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BitsAndBytesConfig,
)

from undertone.errors import Problem
from undertone.networks import encoder

HEAD = "score"  # what transformers calls a decoder's classification head

# it says at each import that it would like to fetch a kernel from the hub
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


def load(folder: Path, *, four_bit: bool, classes: int | None = None, pad: int | None = None) -> Any:
    """The causal language model in `folder`, or with `classes` a classifier on it, in eval mode on this
    machine's device; safetensors only, no code.

    A classifier's head is new, random from torch's generator, and in fp32; it reads the last token that
    isn't `pad`. `four_bit`: NF4 with double quantisation (Dettmers et al. 2023), multiplied in bf16
    where the machine does. Other weights are bf16 on a GPU and fp32 on a CPU. `Problem` where the folder
    holds no such model, or memory is short.
    """
    check(folder)
    kind = AutoModelForCausalLM if classes is None else AutoModelForSequenceClassification
    on_gpu = encoder.device().type == "cuda"
    dtype = torch.bfloat16 if encoder.bf16() and (on_gpu or four_bit) else torch.float32
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        own = config.get_text_config()
        if classes is not None:
            config.num_labels = classes
            own.pad_token_id = pad
        model, told = kind.from_pretrained(
            folder,
            config=config,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=dtype,
            # sdpa where the architecture has it; it would leave out Gemma 2's cap on attention
            attn_implementation="eager" if getattr(own, "attn_logit_softcapping", None) else None,
            quantization_config=_nf4(dtype, classes) if four_bit else None,
            output_loading_info=True,
        )
        if four_bit:
            _keep_trainable(model)
        else:
            model = model.to(encoder.device())
    except torch.OutOfMemoryError:
        raise Problem(
            "the model is larger than this GPU's memory",
            where=str(folder),
            remedy="Choose a smaller base, or another machine.",
        ) from None
    except Exception as error:  # what a broken folder makes transformers raise has no common kind
        raise Problem(
            f"can't be loaded as a causal language model ({type(error).__name__})",
            where=str(folder),
            remedy="Check config.json and the safetensors, or fetch the base anew.",
        ) from None
    missing = set(told["missing_keys"])
    if classes is not None and hasattr(model, HEAD):  # an encoder's has another name
        missing -= {f"{HEAD}.weight"}
        _in_fp32(model.score)
    if missing:  # would be random numbers
        raise Problem(
            f"its weights lack {len(missing)} of the model's tensors",
            where=str(folder),
            remedy="Choose a base with a language model's head, or fetch it anew.",
        )
    return model.eval()


def told(model: Any) -> str:
    """What a model is and where, for the log: `Qwen2, 4-bit NF4, bf16, sdpa, on cpu`."""
    config = model.config
    four_bit = getattr(model, "is_loaded_in_4bit", False)
    dtype = config.quantization_config.bnb_4bit_compute_dtype if four_bit else model.dtype
    parts = [
        type(config).__name__.removesuffix("Config"),
        *(["4-bit NF4"] if four_bit else []),
        {torch.bfloat16: "bf16", torch.float32: "fp32"}[dtype],
        config._attn_implementation,
    ]
    return f"{', '.join(parts)}, on {model.device.type}"


def check(folder: Path) -> None:
    """`Problem` where `folder` holds no safetensors."""
    if not folder.is_dir():
        raise Problem("no such folder", where=str(folder), remedy="Run `dvc repro`, or `dvc pull`.")
    if not any(folder.glob("*.safetensors")):
        raise Problem(
            "no safetensors weights (pickled weights are never loaded)",
            where=str(folder),
            remedy="Choose a base that has model.safetensors.",
        )


def _nf4(dtype: torch.dtype, classes: int | None) -> BitsAndBytesConfig:
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=None if classes is None else [HEAD],  # unsaid, it skips the last layer
    )


def _keep_trainable(model: Any) -> None:
    """On a CPU with AVX512-BF16, bitsandbytes 0.50 repacks the weights at the first forward pass in eval
    mode, for good; a packed layer passes no gradient, and has to be a multiple of 32 wide."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _in_fp32(head: torch.nn.Linear) -> None:
    head.float()
    head.register_forward_pre_hook(lambda layer, given: (given[0].to(layer.weight.dtype),))
