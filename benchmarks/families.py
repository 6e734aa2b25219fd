"""int8 graphs on CPUs that this machine isn't: what onnxruntime computes there, by emulation.

On plain AVX2, onnxruntime's kernel adds two products of 8-bit activations and weights in 16 bits:
2 x 255 x 127 = 64,770 is more than the 32,767 that fit, and is cut. With 7-bit weights it fits
(2 x 255 x 63 = 32,130). AVX512-VNNI, AVX-VNNI and arm64 add in 32 bits. The emulator runs the kernel
that onnxruntime picks for the CPU, some 50 times as slowly, so its time says nothing.

    apt-get install qemu-user
    python -m benchmarks.families [--encoder models/candidates/standin/bert]
        [--comments data/standin/split.parquet] [--texts 100] [--cpu Haswell]

For each graph here and on the emulated CPU: the share of texts decided as PyTorch does, and how far
scores are from PyTorch's and from those of this machine. `exact` tells whether a product of the largest
numbers comes out right. Prints a table and one JSON line with the same values.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer

from undertone import models
from undertone.deployment import onnx as graphs
from undertone.tuning import losses

VARIANTS = ("int8", "int8_7bit")
LONGEST = 160  # characters: long texts take minutes
RUN = """
import json, sys
import numpy as np, onnxruntime
folder, given = sys.argv[1], json.load(open(sys.argv[1] + "/given.json"))
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
def opened(name):
    return onnxruntime.InferenceSession(f"{folder}/{name}.onnx", options, ["CPUExecutionProvider"])
def run(name):
    session = opened(name)
    return [session.run(None, {"input_ids": np.array([ids])})[0][0].tolist() for ids in given["ids"]]
found = {name: run(name) for name in given["variants"]}
found["product"] = int(opened("product").run(None, {"a": np.full((1, 64), 255, np.uint8)})[0][0, 0])
print(json.dumps(found))
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--encoder", type=Path, default=Path("models/candidates/standin/bert"))
    parser.add_argument("--comments", type=Path, default=Path("data/standin/split.parquet"))
    parser.add_argument("--texts", type=int, default=100)
    parser.add_argument("--cpu", default="Haswell")
    given = parser.parse_args()
    table = pd.read_parquet(given.comments)
    table = table[(table["part"] == "validation") & (table["text"].str.len() <= LONGEST)]
    texts = table["text"].tolist()[: given.texts]
    model = models.load(given.encoder)
    assert isinstance(model, models.Exportable)
    graph = model.graph()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        graphs.export(graph, folder, opset=17, calibration=texts)
        tokenizer = Tokenizer.from_file(str(graph.tokenizer))
        tokenizer.no_padding()
        tokenizer.enable_truncation(graph.max_length)
        ids = [one.ids for one in tokenizer.encode_batch([graph.prefix + text for text in texts])]
        (folder / "given.json").write_text(json.dumps({"ids": ids, "variants": VARIANTS}))
        _product(folder / "product.onnx")
        own = [sys.executable, "-c", RUN, str(folder)]
        found = {"here": _ran(own), given.cpu: _ran(["qemu-x86_64", "-cpu", given.cpu, *own])}
    reference = model.scores(texts)
    rows = []
    for cpu, outputs in found.items():
        for variant in VARIANTS:
            scores, same = (_scores(one[variant], model.space.many) for one in (outputs, found["here"]))
            rows.append(
                {
                    "cpu": cpu,
                    "variant": variant,
                    "exact": outputs["product"] == 255 * 127 * 64,
                    "agreement": float((scores.argmax(1) == reference.argmax(1)).mean()),
                    "from_pytorch": float(np.abs(scores - reference).max()),
                    "mean": float(np.abs(scores - reference).max(axis=1).mean()),
                    "from_here": float(np.abs(scores - same).max()),
                }
            )
    print(pd.DataFrame(rows).round(4).to_string(index=False))
    print(json.dumps({"texts": len(texts), "rows": rows}))


def _scores(logits: Any, many: bool) -> Any:
    return losses.activated(np.asarray(logits), many)


def _ran(command: list[str]) -> dict[str, Any]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment)
    done.check_returncode()
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _product(path: Path) -> None:
    """The largest activations times the largest weights, 64 of them."""
    weights = numpy_helper.from_array(np.full((64, 32), 127, np.int8), "b")
    inputs = [helper.make_tensor_value_info("a", TensorProto.UINT8, [None, 64])]
    outputs = [helper.make_tensor_value_info("c", TensorProto.INT32, [None, 32])]
    node = helper.make_node("MatMulInteger", ["a", "b"], ["c"])
    graph = helper.make_graph([node], "product", inputs, outputs, [weights])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


if __name__ == "__main__":
    main()
