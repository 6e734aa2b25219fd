"""A trained encoder as an ONNX graph: plain, optimised and int8, and how far each is from PyTorch.

The plain graph comes from optimum's exporter, which knows each architecture's quirks. Fusion and
quantisation go to onnxruntime's own tools, not optimum's: only these let the skip-layer-norm fusion
be switched off and a fused graph be quantised per channel, which agrees better with PyTorch
(0.97 against 0.92 of the decisions for optimum's preset on MiniLM) and is faster.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.transformers.fusion_options import FusionOptions
from onnxruntime.transformers.optimizer import optimize_model
from optimum.exporters.onnx import export as optimum_export
from optimum.exporters.tasks import TasksManager

from undertone import metrics
from undertone.errors import Problem
from undertone.labels import Flags, LabelSpace, Scores
from undertone.models import Graph

VARIANTS = ("fp32", "optimised", "int8")


def export(graph: Graph, folder: Path, *, opset: int) -> dict[str, Path]:
    """Write `<variant>.onnx` for each of `VARIANTS` into `folder`; variant → path."""
    paths = {variant: folder / f"{variant}.onnx" for variant in VARIANTS}
    _export_plain(graph, paths["fp32"], opset)
    _optimise(paths["fp32"], paths["optimised"])
    _quantise(paths["optimised"], paths["int8"])
    return paths


def parity(reference: Scores, scores: Scores, truth: Flags, space: LabelSpace) -> dict[str, float]:
    """How far `scores` [n, labels] are from PyTorch's `reference` on the same rows, both calibrated.

    `max_difference` of any score; `agreement`, the share of rows decided alike; `abstains_alike`, of
    those that both answer or both leave; `macro_f1` and `drop`, what PyTorch has more (negative: less).
    """
    decided, expected = space.decide(scores), space.decide(reference)
    macro_f1 = metrics.macro_f1(truth, decided)
    return {
        "max_difference": round(float(np.abs(scores - reference).max()), 6),
        "agreement": round(float((decided == expected).all(axis=1).mean()), 6),
        "abstains_alike": round(float((space.abstains(scores) == space.abstains(reference)).mean()), 6),
        "macro_f1": round(macro_f1, 6),
        "drop": round(metrics.macro_f1(truth, expected) - macro_f1, 6),
    }


def check_drop(parities: dict[str, dict[str, float]], *, max_drop: float) -> None:
    """`Problem` with the numbers where a variant loses more macro-F1 than `max_drop`."""
    ruined = {name: one for name, one in parities.items() if one["drop"] > max_drop}
    if ruined:
        raise Problem.together(
            [
                Problem(
                    f"macro-F1 {one['macro_f1']:.4f} is {one['drop']:.4f} below PyTorch's on validation,"
                    f" export.max_drop is {max_drop}; {one['agreement']:.1%} of the rows are decided alike",  # noqa: E501
                    where=f"variant {name}",
                    remedy="Export another candidate, or raise export.max_drop.",
                )
                for name, one in ruined.items()
            ]
        )


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


def _quantise(optimised: Path, path: Path) -> None:
    quantize_dynamic(
        optimised,
        path,
        per_channel=True,
        weight_type=QuantType.QInt8,
        extra_options={
            "MatMulConstBOnly": True,
            # shape inference doesn't know the fused operators' types
            "DefaultTensorType": onnx.TensorProto.FLOAT,
        },
    )
