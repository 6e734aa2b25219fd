"""A trained encoder as ONNX graphs: plain, optimised, int8; and how far each is from PyTorch.

The plain graph comes from optimum's exporter, which knows each architecture's quirks. Fusion and
quantisation go to onnxruntime's own tools, not optimum's: only these let the skip-layer-norm fusion
be switched off and a fused graph be quantised per channel, which agrees better with PyTorch
(0.97 against 0.92 of the decisions for optimum's preset on MiniLM) and is faster.

The dynamic int8 graphs take a text's token ids and nothing else: texts run one at a time, so that there
is no padding to mask, and the mask's operators cost 5 to 8 % of MiniLM's time.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.transformers.fusion_options import FusionOptions
from onnxruntime.transformers.optimizer import optimize_model
from optimum.exporters.onnx import export as optimum_export
from optimum.exporters.tasks import TasksManager
from tokenizers import Tokenizer

from undertone.deployment import backends, static
from undertone.deployment.predictor import Family, Predictor
from undertone.errors import Problem
from undertone.labels import Flags, LabelSpace, Scores
from undertone.measures import comparison, metrics
from undertone.models import Graph

_ALL: tuple[Family, ...] = get_args(Family)
_EXACT: tuple[Family, ...] = ("avx512_vnni", "arm64")


@dataclass(frozen=True)
class Variant:
    """`families` of CPUs that compute it as it is meant: on plain avx2 the sum of two products of 8-bit
    weights overflows (onnxruntime's notes on quantisation): scores are not those that were measured."""

    families: tuple[Family, ...]
    backend: backends.Name = "onnxruntime"


# what is built and measured; of equals, the first
VARIANTS = {
    "fp32": Variant(_ALL),
    "optimised": Variant(_ALL),
    "int8": Variant(_EXACT),
    "int8_7bit": Variant(_ALL),
    "int8_openvino": Variant(("avx512_vnni",), "openvino"),
}


def export(graph: Graph, folder: Path, *, opset: int, calibration: Sequence[str]) -> dict[str, Path]:
    """Write `<variant>.onnx` for each of `VARIANTS` into `folder`; variant → path.

    `calibration`: texts from which the static variant takes the ranges of its activations.
    """
    paths = {variant: folder / f"{variant}.onnx" for variant in VARIANTS}
    _export_plain(graph, paths["fp32"], opset)
    _optimise(paths["fp32"], paths["optimised"])
    _quantise(paths["optimised"], paths["int8"], bits=8)
    _quantise(paths["optimised"], paths["int8_7bit"], bits=7)
    static.quantise(paths["fp32"], paths["int8_openvino"], _feeds(graph, paths["fp32"], calibration))
    return paths


def parity(
    reference: Scores,
    scores: Scores,
    truth: Flags,
    space: LabelSpace,
    *,
    groups: NDArray[np.int64],
    draws: int,
    seed: int,
) -> dict[str, Any]:
    """How far `scores` [n, labels] are from PyTorch's `reference` on the same rows, both calibrated.

    `max_difference` of any score; `agreement`, the share of rows decided alike; `abstains_alike`, of
    those that both answer or both leave; `macro_f1` and `drop`, what PyTorch has more (negative: less),
    with its interval `low`, `high`, and `p` and `verdict` of the paired test over `groups` [n].
    """
    decided, expected = space.decide(scores), space.decide(reference)
    found = comparison.compare(
        truth,
        {"variant": decided, "pytorch": expected},
        [("variant", "pytorch")],
        answered={},
        groups=groups,
        metric="macro_f1",
        draws=draws,
        rng=np.random.default_rng(seed),
    )[0]
    difference = found["difference"]
    return {
        "max_difference": round(float(np.abs(scores - reference).max()), 6),
        "agreement": round(float((decided == expected).all(axis=1).mean()), 6),
        "abstains_alike": round(float((space.abstains(scores) == space.abstains(reference)).mean()), 6),
        "macro_f1": round(metrics.macro_f1(truth, decided), 6),
        "drop": _negative(difference["value"]),
        "low": _negative(difference["high"]),
        "high": _negative(difference["low"]),
        "p": found["p"],
        "verdict": found["verdict"],
    }


def neighbours(predictor: Predictor, texts: Sequence[str], scores: Scores) -> dict[str, float]:
    """`alone`: how far any of `scores`, of all `texts` in one call, is from that of its text alone."""
    alone = np.concatenate([predictor.scores([text]) for text in texts])
    return {"alone": round(float(np.abs(scores - alone).max()), 6)}


def _negative(value: float | None) -> float | None:
    return None if value is None else round(0.0 - value, 6)


def _feeds(graph: Graph, plain: Path, texts: Sequence[str]) -> Iterator[static.Feed]:
    """The plain graph's inputs for each text."""
    inputs = [one.name for one in onnx.load(plain).graph.input]
    tokenizer = Tokenizer.from_file(str(graph.tokenizer))
    tokenizer.no_padding()
    tokenizer.enable_truncation(graph.max_length)
    for one in tokenizer.encode_batch_fast([graph.prefix + text for text in texts]):
        yield backends.feed([one.ids], inputs)


def _export_plain(graph: Graph, path: Path, opset: int) -> None:
    module: Any = graph.module
    kind = module.config.model_type
    try:
        constructor = TasksManager.get_exporter_config_constructor(
            "onnx", model_type=kind, task="text-classification", library_name="transformers"
        )
    except (KeyError, ValueError):
        raise Problem(
            f"optimum can't export the architecture '{kind}'",
            where="export",
            remedy="Choose another base for the encoder.",
        ) from None
    optimum_export(module.to("cpu"), constructor(module.config), path, opset=opset)


def _optimise(plain: Path, path: Path) -> None:
    options = FusionOptions("bert")
    # with these two, the int8 graph is slower and loses more (measured, performance notes)
    options.enable_skip_layer_norm = False
    options.enable_embed_layer_norm = False
    model = optimize_model(
        str(plain), model_type="bert", num_heads=0, hidden_size=0, optimization_options=options
    )
    model.save_model_to_file(str(path))


def _quantise(optimised: Path, path: Path, *, bits: int) -> None:
    _alone(optimised, path)
    quantize_dynamic(
        path,
        path,
        per_channel=True,
        reduce_range=bits == 7,
        weight_type=QuantType.QInt8,
        extra_options={
            "MatMulConstBOnly": True,
            # shape inference doesn't know the fused operators' types
            "DefaultTensorType": onnx.TensorProto.FLOAT,
        },
    )


def _alone(optimised: Path, path: Path) -> None:
    """The fused graph for texts without padding: it makes the mask and the token types itself."""
    model = onnx.load(optimised)
    graph = model.graph
    for node in graph.node:
        if node.op_type == "Attention":
            node.input[3] = ""  # the mask
    given = {one.name: one for one in graph.input}
    del graph.input[:]
    graph.input.append(given.pop("input_ids"))
    made = [onnx.helper.make_node("Shape", ["input_ids"], ["undertone.shape"])]
    for name in given:
        constant = onnx.helper.make_tensor("value", onnx.TensorProto.INT64, [1], [_CONSTANT[name]])
        made.append(
            onnx.helper.make_node("ConstantOfShape", ["undertone.shape"], [name], value=constant)
        )
    nodes = _used(made + list(graph.node), {one.name for one in graph.output})
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.save(model, path)


_CONSTANT = {"attention_mask": 1, "token_type_ids": 0}


def _used(nodes: list[Any], outputs: set[str]) -> list[Any]:
    """Those that lead to an output, in their order."""
    kept, wanted = [], set(outputs)
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted.update(node.input)
    return kept[::-1]
