"""QLoRA of Qwen2.5-3B's shape on one GPU: this repository's training beside TRL's as it comes.

Random weights (nothing is downloaded), 4-bit NF4 with double quantisation, adapters of r=16 on all
linear layers, the same rows for both: an instruction of 300 tokens, then a comment, 512 tokens in all,
and an answer of 2 that is learnt. TRL pads the batch to 512 and makes what its defaults make, gradient
checkpointing among it; ours reads the instruction once a sequence.

Operations of one token: 2 x the layers' weights forward and as many backward, since frozen weights need
no gradient of their own; logits, and what checkpointing computes anew, aren't counted. `rows/s`
compares the two; tokens/s and the share of the card's peak count the tokens that each one computes.

    python -m benchmarks.qlora --peak 989        [--batch 8] [--steps 20] [--rounds 2]

`--peak`: the card's dense bf16 TFLOP/s by its data sheet (H100 SXM and H200 989, A100 312, L4 121).
On a machine without a GPU, `--layers 2 --width 64 --vocabulary 1000` shows that it runs.
Prints a table and one JSON line with the same values.
"""

import argparse
import json
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
from trl import SFTConfig, SFTTrainer

from undertone.deployment import latency
from undertone.networks import decoder, encoder, packing
from undertone.networks.chat import Row

INSTRUCTION, LENGTH, ANSWER = 300, 512, 2


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peak", type=float, help="the card's dense bf16 TFLOP/s")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--layers", type=int, default=36)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--vocabulary", type=int, default=151_936)
    given = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {"TRL": [], "undertone": []}
    with tempfile.TemporaryDirectory() as kept:
        base = Path(kept) / "base"
        made(given.layers, given.width, given.vocabulary).save_pretrained(base)
        for _ in range(given.rounds):  # by turns, each in a process of its own
            for name, own in found.items():
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as apart:
                    arguments = (name, base, given.batch, given.steps, given.vocabulary, Path(kept))
                    own.append(apart.submit(learnt, *arguments).result())
    shown = {
        name: {key: statistics.median(one[key] for one in own) for key in own[0]}
        for name, own in found.items()
    }
    print(f"{given.steps} steps of {given.batch} rows of {LENGTH} tokens, {given.rounds} rounds")
    print(f"{'':12}{'rows/s':>10}{'tokens/s':>10}{'peak GiB':>10}{'% of peak':>10}")
    for name, one in shown.items():
        if given.peak:
            one["share_of_peak"] = 4 * one["weights"] * one["tokens_per_second"] / (given.peak * 1e12)
        share = f"{one['share_of_peak']:10.1%}" if given.peak else f"{'':>10}"
        rates = f"{one['rows_per_second']:10.2f}{one['tokens_per_second']:10.0f}"
        print(f"{name:12}{rates}{one['peak_gib']:10.2f}{share}")
    faster = shown["undertone"]["rows_per_second"] / shown["TRL"]["rows_per_second"]
    print(f"{'times faster':12}{faster:10.1f}")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    machine = {**latency.machine(None), "device": device}
    print(json.dumps({"benchmark": "qlora", "machine": machine, **shown, "times_faster": faster}))


def made(layers: int, width: int, vocabulary: int) -> Any:
    """Qwen2.5-3B by default; heads of 128 and 2 of them for keys, and layers as wide as its own."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    heads = max(2, width // 128)
    config = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=2,
        intermediate_size=width * 43 // 8,
        tie_word_embeddings=True,
    )
    return Qwen2ForCausalLM(config)


def learnt(
    name: str, base: Path, batch: int, steps: int, vocabulary: int, kept: Path
) -> dict[str, float]:
    """Rates of the steps after the first, which warms up, and the peak of the GPU's memory."""
    model = prepare_model_for_kbit_training(
        decoder.load(base, four_bit=True), use_gradient_checkpointing=False
    )
    adapters = LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM")
    rows = asked((steps + 1) * batch, vocabulary)
    if name == "TRL":
        seconds, tokens = trl(model, adapters, rows, batch, kept)
    else:
        seconds, tokens = ours(model, adapters, rows, batch)
    with torch.device("meta"):  # packed to 4 bits they would count as half
        layers = Qwen2ForCausalLM(Qwen2Config.from_pretrained(base)).model.layers
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    return {
        "rows_per_second": steps * batch / seconds,
        "tokens_per_second": tokens / seconds,
        "peak_gib": peak / 2**30,
        "weights": float(sum(one.numel() for one in layers.parameters())),
    }


def ours(model: Any, adapters: LoraConfig, rows: list[Row], batch: int) -> tuple[float, int]:
    """Seconds that the steps after the first took, and the tokens that they computed."""
    tuned = get_peft_model(model, adapters).train()
    optimiser = torch.optim.AdamW([one for one in tuned.parameters() if one.requires_grad], lr=1e-4)
    prefix = packing.shared(rows)
    started, tokens = 0.0, 0
    for at in range(0, len(rows), batch):
        if at == batch:
            started, tokens = now(), 0
        packed = packing.pack(rows[at : at + batch], [1.0] * batch, prefix, everything=False)
        with torch.autocast(encoder.device().type, torch.bfloat16, enabled=encoder.bf16()):
            loss = packing.answer_loss(
                tuned, {key: one.to(encoder.device()) for key, one in packed.items()}
            )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(tuned.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        tokens += packed["input_ids"].numel()
    return now() - started, tokens


def trl(model: Any, adapters: LoraConfig, rows: list[Row], batch: int, kept: Path) -> tuple[float, int]:
    """The same of TRL's trainer, whose rows are all as long as the longest."""
    words = {"[PAD]": 0, "[EOS]": 1}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, "[EOS]")),
        pad_token="[PAD]",
        eos_token="[EOS]",
    )
    labels = [[-100] * row.start + list(row.ids[row.start :]) for row in rows]
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(kept / "trl"),
            per_device_train_batch_size=batch,
            num_train_epochs=1,
            max_length=LENGTH,
            learning_rate=1e-4,
            bf16=encoder.bf16(),
            use_cpu=not torch.cuda.is_available(),
            save_strategy="no",
            report_to="none",
            dataset_kwargs={"skip_prepare_dataset": True},
        ),
        train_dataset=Dataset.from_dict(
            {"input_ids": [list(row.ids) for row in rows], "labels": labels}
        ),
        processing_class=tokenizer,
        peft_config=adapters,
    )
    step, started = trainer.training_step, []

    def timed(*given: Any, **named: Any) -> Any:
        started.append(now())
        return step(*given, **named)

    trainer.training_step = timed
    trainer.train()
    return now() - started[1], (len(rows) - batch) * LENGTH


def asked(count: int, vocabulary: int) -> list[Row]:
    rng = np.random.default_rng(0)
    first = rng.integers(2, vocabulary, INSTRUCTION).tolist()
    rest = rng.integers(2, vocabulary, (count, LENGTH - INSTRUCTION)).tolist()
    return [Row([*first, *one], LENGTH - ANSWER) for one in rest]


def now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    main()
