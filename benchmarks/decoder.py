"""Closed-label scoring beside generation, and training on packed rows beside padded ones.

How publications ask language models, and how a trainer with defaults learns from rows: each padded to
the longest allowed, the instruction read again in every row, logits for every token.

A random-weight Qwen2 of 6 layers of width 384 over 32,000 tokens; an instruction of 300 tokens, then a
comment of about 40 (10 to 80), then an answer: one of four labels, and the end. Operations: 2 x 10.3 M
parameters in the layers for each token, and 2 x 12.3 M where a next token is asked for. Generation reads
340 tokens a comment and then, one by one, 7 of the 8 that it writes: 7.4 GFLOP, and 8 times the weights'
90 MB. Closed scoring reads 40 and the four labels, and asks at five places: 1.0 GFLOP, and the weights
once a batch. So operations alone give 7x; what is more comes from the memory's bandwidth.

    OMP_WAIT_POLICY=passive python -m benchmarks.decoder [--comments 128] [--rounds 9] [--threads 2]

(passive: else threads that wait for each other take the cores from whatever runs beside them).
Prints a table and one JSON line with the same values.
"""

import argparse
import json
import resource
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers import Qwen2Config, Qwen2ForCausalLM

from undertone.deployment import latency
from undertone.networks import closed, encoder, generation, packing
from undertone.networks.chat import Row

VOCABULARY, INSTRUCTION, LABELS, WRITTEN = 32_000, 300, 4, 8
BATCH = 32  # rows that a GPU generates for at once
ROWS, MAX_LENGTH = 8, 512  # that training sees at once, and pads to
Ids = list[list[int]]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--comments", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=6)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    result = {
        "benchmark": "decoder",
        "machine": latency.machine(given.threads),
        "closed": scoring(given.comments, given.rounds),
        "training": training(given.steps, min(given.rounds, 3), given.threads),
    }
    print(json.dumps(result))


def training(steps: int, rounds: int, threads: int) -> dict[str, Any]:
    """Rows a second, the last loss and the peak memory of LoRA training on the same rows, packed and
    padded; each in a process of its own, by turns."""
    found: dict[str, list[dict[str, float]]] = {"padded": [], "packed": []}
    for _ in range(rounds):
        for name, own in found.items():
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as apart:
                own.append(apart.submit(learnt, name, steps, threads).result())
    print(f"{steps} steps of {ROWS} rows, padded to {MAX_LENGTH} tokens or packed, {rounds} rounds")
    print(f"{'':14}{'rows/s':>10}{'last loss':>10}{'peak GiB':>10}")
    shown = {
        name: {key: statistics.median(one[key] for one in own) for key in own[0]}
        for name, own in found.items()
    }
    for name, one in shown.items():
        print(f"{name:14}{one['rows_per_second']:10.2f}{one['loss']:10.4f}{one['peak_gib']:10.2f}")
    faster = statistics.median(
        packed["rows_per_second"] / padded["rows_per_second"]
        for packed, padded in zip(found["packed"], found["padded"], strict=True)
    )
    print(f"{'times faster':14}{faster:10.1f}")
    return {**shown, "times_faster": round(faster, 2)}


def learnt(name: str, steps: int, threads: int) -> dict[str, float]:
    """What `steps` steps took; the first, which warms up, isn't counted in the time."""
    torch.set_num_threads(threads)
    made = get_peft_model(model(), LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM"))
    optimiser = torch.optim.AdamW([one for one in made.parameters() if one.requires_grad], lr=1e-3)
    prompts, answers = asked((steps + 1) * ROWS)
    rows = [Row([*prompt, *answers[at % LABELS]], len(prompt)) for at, prompt in enumerate(prompts)]
    rows.sort(key=lambda row: len(row.ids))  # batches of like length, as training makes them
    started, loss = 0.0, torch.tensor(0.0)
    for step in range(steps + 1):
        if step == 1:
            started = time.perf_counter()
        batch = rows[step * ROWS : (step + 1) * ROWS]
        if name == "packed":
            packed = packing.pack(batch, [1.0] * ROWS, packing.shared(rows), everything=False)
            loss = packing.answer_loss(made, {key: one.to(made.device) for key, one in packed.items()})
        else:
            ids = torch.zeros((ROWS, MAX_LENGTH), dtype=torch.long)
            targets = torch.full((ROWS, MAX_LENGTH), -100)
            for at, row in enumerate(batch):
                ids[at, : len(row.ids)] = torch.tensor(row.ids)
                targets[at, row.start : len(row.ids)] = torch.tensor(row.ids[row.start :])
            mask = (torch.arange(MAX_LENGTH) < torch.tensor([[len(row.ids)] for row in batch])).long()
            given = {"input_ids": ids, "attention_mask": mask, "labels": targets}
            loss = made(**{key: one.to(made.device) for key, one in given.items()}).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated() / 2**30
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    seconds = time.perf_counter() - started
    return {"rows_per_second": steps * ROWS / seconds, "loss": loss.item(), "peak_gib": peak}


def scoring(comments: int, rounds: int) -> dict[str, Any]:
    """Milliseconds a comment, closed and generated; the two take turns, so that a change of the
    machine's speed meets both. One by one, as published, generation is timed on every eighth comment."""
    made = model()
    prompts, answers = asked(comments)
    on_gpu = encoder.device().type == "cuda"
    batch = BATCH if on_gpu else 1
    few = prompts if on_gpu else prompts[::8]

    def generated() -> None:
        generation.generate(made, few, max_new_tokens=WRITTEN, ends=[VOCABULARY - 1], pad=0, batch=batch)

    def scored() -> None:
        closed.log_probabilities(made, prompts, answers)

    taken: dict[str, list[float]] = {"generated": [], "closed": []}
    for turn in range(-1, rounds):  # the first warms up
        for name, run, count in (("generated", generated, len(few)), ("closed", scored, comments)):
            milliseconds = 1000 * timed(run) / count
            if turn >= 0:
                taken[name].append(milliseconds)
    print(f"{comments} comments, {encoder.device().type}, generated {batch} at once, {rounds} rounds")
    print(f"{'ms a comment':14}{'median':>10}{'fastest':>10}")
    for name, own in taken.items():
        print(f"{name:14}{statistics.median(own):10.2f}{min(own):10.2f}")
    pairs = zip(taken["generated"], taken["closed"], strict=True)
    ratios = {
        "median": statistics.median(one / other for one, other in pairs),
        "fastest": min(taken["generated"]) / min(taken["closed"]),
    }
    print(f"{'times faster':14}" + "".join(f"{ratio:10.1f}" for ratio in ratios.values()))
    return {
        "comments": comments,
        "generated_at_once": batch,
        "device": encoder.device().type,
        "ms_a_comment": {name: round(statistics.median(own), 3) for name, own in taken.items()},
        "fastest_ms_a_comment": {name: round(min(own), 3) for name, own in taken.items()},
        "times_faster": {name: round(ratio, 2) for name, ratio in ratios.items()},
    }


def model() -> Any:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=384,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=2,
        intermediate_size=1152,
        tie_word_embeddings=True,
        eos_token_id=None,
        pad_token_id=None,
    )
    dtype = torch.bfloat16 if encoder.device().type == "cuda" else torch.float32
    return Qwen2ForCausalLM(config).eval().to(encoder.device(), dtype)


def asked(comments: int) -> tuple[Ids, Ids]:
    """Prompts and answers, an answer being a label's token and the end."""
    rng = np.random.default_rng(0)
    instruction = rng.integers(VOCABULARY - 1, size=INSTRUCTION).tolist()
    lengths = np.clip(np.round(rng.gamma(6, 40 / 6, size=comments)), 10, 80).astype(int)
    prompts = [instruction + rng.integers(VOCABULARY - 1, size=length).tolist() for length in lengths]
    return prompts, [[label + 1, VOCABULARY - 1] for label in range(LABELS)]


def timed(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
