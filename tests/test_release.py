"""The fastest variant that decides as PyTorch does is released, a ruined one refused by its numbers."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx as onnx_format
import onnx.reference
import pytest

from tests import tiny
from undertone import models
from undertone.deployment import backends, onnx, predictor, release
from undertone.deployment.predictor import FASTEST, Predictor, family, read_manifest
from undertone.errors import Problem
from undertone.params import Choose

RULE = Choose(max_drop=0.01, min_agreement=0.95)
VALIDATION = tiny.examples(80, seed=1)
GOOD = {"drop": 0.0, "agreement": 1.0, "macro_f1": 0.9, "verdict": "no difference shown", "p": 1.0}
GOOD |= {"alone": 0.0}


def manifest(**parities: dict[str, Any]) -> dict[str, Any]:
    """Of an export whose variants are all good but for what is said; the int8 ones are smaller."""
    return {
        "candidate": "bert",
        "variants": {
            name: {
                "backend": variant.backend,
                "families": list(variant.families),
                "bytes": 10 if name.startswith("int8") else 40,
                "parity": GOOD | parities.get(name, {}),
            }
            for name, variant in onnx.VARIANTS.items()
        },
    }


def rows(**ms: float) -> list[dict[str, Any]]:
    """What `bench` found: at 128 tokens four times what is said, 10 ms where nothing is."""
    return [
        {
            "model": f"onnx-{name}",
            "tokens": tokens,
            "batch": batch,
            "p50_ms": ms.get(name, 10.0) * factor * (1 if batch == 1 else 1 + len(name)),
        }
        for name in onnx.VARIANTS
        for tokens, factor in ((12, 1.0), (128, 4.0))
        for batch in (1, 8)
    ]


def test_of_the_equally_fast_and_small_the_one_that_decides_most_alike_is_released() -> None:
    for most, agreement in (("int8", 0.97), ("int8_7bit", 0.99)):
        found = release.choose(
            manifest(int8={"agreement": 0.98}, int8_7bit={"agreement": agreement}),
            rows(int8=1.0, int8_7bit=1.04),
            RULE,
            "avx512_vnni",
        )
        assert found["variant"] == most


def test_the_fastest_that_a_cpu_computes_exactly_is_released_for_it() -> None:
    found = release.choose(
        manifest(), rows(int8=1.0, int8_7bit=1.2, int8_openvino=3.0), RULE, "avx512_vnni"
    )
    assert found["runs"] == {"avx512_vnni": ["int8"], "avx2": ["int8_7bit"], "arm64": ["int8"]}
    assert found["variant"] == "int8"
    assert found["variants"]["int8"]["ms"] == 2.0  # the geometric mean of 1 and 4
    assert found["variants"]["int8"]["released_for"] == ["avx512_vnni", "arm64"]
    assert found["variants"]["fp32"]["released_for"] == []


def test_behind_another_backend_stands_the_best_of_onnxruntime() -> None:
    found = release.choose(
        manifest(), rows(int8=1.0, int8_7bit=1.2, int8_openvino=0.5), RULE, "avx512_vnni"
    )
    assert found["runs"]["avx512_vnni"] == ["int8_openvino", "int8"]
    assert found["runs"]["arm64"] == ["int8"]


def test_of_two_that_are_as_fast_the_smaller_is_released() -> None:
    found = release.choose(manifest(), rows(fp32=1.0, int8=1.04), RULE, "avx512_vnni")
    assert found["variant"] == "int8"
    found = release.choose(manifest(), rows(fp32=1.0, int8=1.1), RULE, "avx512_vnni")
    assert found["variant"] == "fp32"


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ({"drop": 0.02, "macro_f1": 0.88}, "macro-F1 0.8800 is 0.0200 below PyTorch's"),
        ({"agreement": 0.94}, "94.0% decided alike"),
        ({"verdict": "worse", "p": 0.01, "drop": 0.009}, "shown to be worse, p 0.0100"),
        ({"alone": 0.02}, "a score moves by 0.020 with a text's neighbours"),
    ],
)
def test_a_fast_variant_that_fails_the_rule_is_refused_with_its_numbers(
    fault: dict[str, Any], told: str
) -> None:
    found = release.choose(manifest(int8=fault), rows(int8=1.0, int8_7bit=2.0), RULE, "avx512_vnni")
    assert found["variants"]["int8"]["refused"] == told
    assert found["variant"] == "int8_7bit"
    assert f"refused: int8 ({told})" in release.told(found)


def test_where_none_passes_there_is_no_release() -> None:
    bad = {name: {"agreement": 0.5} for name in onnx.VARIANTS}
    with pytest.raises(Problem, match=r"no variant for avx512_vnni passes export\.choose: fp32: 50\.0%"):
        release.choose(manifest(**bad), rows(), RULE, "avx512_vnni")


@pytest.fixture(scope="module")
def made(encoder: Path) -> tuple[models.Classifier, Path]:
    return models.load(encoder / "model"), encoder / "variants"


def parity(model: models.Classifier, found: Predictor) -> dict[str, Any]:
    reference, texts = models.scored(model, VALIDATION.texts), VALIDATION.texts
    scores, groups = found.scores(texts), np.arange(len(texts))
    held = onnx.parity(
        reference, scores, VALIDATION.truth, model.space, groups=groups, draws=100, seed=0
    )
    return held | onnx.neighbours(found, texts, scores)


def test_a_planted_bad_quantisation_is_not_released(
    made: tuple[models.Classifier, Path], tmp_path: Path
) -> None:
    model, exported = made
    graph = onnx_format.load(exported / "int8.onnx")
    spoilt = 0
    for one in graph.graph.initializer:
        if one.name.endswith("_scale") and one.dims:  # of a product's columns
            scale = onnx_format.numpy_helper.to_array(one)
            one.CopyFrom(onnx_format.numpy_helper.from_array(scale[::-1] * 3, one.name))
            spoilt += 1
    assert spoilt > 3
    onnx_format.save(graph, tmp_path / "int8.onnx")
    settings = read_manifest(exported)
    parities = {}
    for name in onnx.VARIANTS:
        whole = Predictor.load(exported, variant=name)
        parities[name] = parity(model, whole)
        if name == "int8":
            backend = backends.opened("onnxruntime", tmp_path / "int8.onnx", threads=1)
            bad = Predictor(
                backend,
                whole._tokenizer,
                whole.space,
                settings,
                variant=name,
                threads=1,
                long="cut",
            )
            assert parities[name]["agreement"] > 0.9
            parities[name] = parity(model, bad)
    found = release.choose(
        {**settings, "variants": manifest(**parities)["variants"]},
        rows(int8=0.1, int8_7bit=1.0),
        RULE,
        "avx512_vnni",
    )
    assert found["variant"] != "int8"
    assert "decided alike" in found["variants"]["int8"]["refused"]


def test_a_release_holds_what_was_chosen_and_nothing_else(
    made: tuple[models.Classifier, Path], tmp_path: Path
) -> None:
    runs = {"avx512_vnni": ["int8_openvino", "int8"], "avx2": ["int8_7bit"], "arm64": ["int8"]}
    release.write(made[1], tmp_path / "release", runs)
    held = {path.name for path in (tmp_path / "release").iterdir()}
    graphs = {f"{name}.onnx" for name in ("int8", "int8_7bit", "int8_openvino")}
    assert held == {*graphs, "labels.json", "tokenizer.json", "manifest.json"}
    content = read_manifest(tmp_path / "release")
    assert content["runs"] == runs
    assert set(content["variants"]) == {"int8", "int8_7bit", "int8_openvino"}
    assert Predictor.load(tmp_path / "release").variant == runs[family()][0]


def test_without_openvino_the_next_variant_runs(
    made: tuple[models.Classifier, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release.write(made[1], tmp_path / "release", {family(): ["int8_openvino", "int8"]})
    assert Predictor.load(tmp_path / "release").variant == "int8_openvino"
    monkeypatch.setattr(backends, "find_spec", lambda name: None if name == "openvino" else object())
    assert Predictor.load(tmp_path / "release").variant == "int8"
    monkeypatch.setattr(predictor, "family", lambda: "arm64")
    with pytest.raises(Problem, match="none of its variants"):
        Predictor.load(tmp_path / "release")


def test_the_fastest_here_is_found_by_measuring(
    made: tuple[models.Classifier, Path], tmp_path: Path
) -> None:
    release.write(made[1], tmp_path / "release", {family(): ["int8_openvino", "int8"]})
    found = Predictor.load(tmp_path / "release", variant=FASTEST)
    assert found.variant in ("int8_openvino", "int8")

    class Slow:
        def logits(self, ids: backends.Ids) -> backends.Logits:
            time.sleep(0.02)
            return np.zeros((len(ids), 1), dtype=np.float32)

    class Quick(Slow):
        def logits(self, ids: backends.Ids) -> backends.Logits:
            return np.zeros((len(ids), 1), dtype=np.float32)

    assert backends.fastest({"slow": Slow(), "quick": Quick()}, 16) == "quick"


def test_runs_of_texts_hold_a_budget_of_tokens_and_every_row_once() -> None:
    lengths = [3, 128, 64, 3, 700, 2000, 5, 64] * 20
    runs = list(backends._batches(lengths))
    assert sorted(row for run in runs for row in run) == list(range(len(lengths)))
    for run in runs:
        assert len(run) == 1 or max(lengths[row] for row in run) * len(run) <= backends.BUDGET
    assert len(runs) < len(lengths) / 2


def test_the_largest_product_of_8_bit_weights_tells_the_cpus_family() -> None:
    given = {"a": np.full((1, 64), 255, np.uint8), "b": np.full((64, 32), 127, np.int8)}
    graph = onnx_format.load_from_string(backends._PRODUCT)
    (expected,) = onnx_format.reference.ReferenceEvaluator(graph).run(None, given)
    assert (expected == 64 * 255 * 127).all()
    onnx_format.checker.check_model(graph)
    flags = Path("/proc/cpuinfo")
    if not flags.is_file():
        pytest.skip("only Linux tells a CPU's features")
    known = {"avx512_vnni", "avx_vnni", "asimddp"} & set(flags.read_text().split())
    assert backends.exact() == bool(known)
