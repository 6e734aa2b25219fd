"""The bundle decides as PyTorch does, runs without torch, and refuses files that were changed."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx as onnx_format
import pytest

from tests import tiny
from undertone import bundle, calibration, code, models, onnx, registry
from undertone.errors import Problem
from undertone.labels import LabelSpace
from undertone.params import Calibrate
from undertone.predictor import Predictor, read_manifest

VALIDATION = tiny.examples(60, seed=1)
EXPORTABLE = ["bert", "e5"]


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> tuple[models.Classifier, Path]:
    folder = tmp_path_factory.mktemp("bundled")
    return tiny.bundled("e5", folder), folder / "bundle"


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("family", EXPORTABLE)
def test_the_exported_graph_scores_as_pytorch_does(family: str, many: bool, tmp_path: Path) -> None:
    model = tiny.bundled(family, tmp_path, many=many)
    reference = model.scores(VALIDATION.texts)
    for variant, most in {"fp32": 1e-5, "optimised": 1e-5, "int8": 0.1}.items():
        predictor = Predictor.load(tmp_path / "bundle", variant=variant)
        assert predictor.space == model.space
        found = onnx.parity(reference, predictor.scores(VALIDATION.texts), VALIDATION.truth, model.space)
        assert found["max_difference"] <= most, variant


@pytest.mark.parametrize("many", [False, True])
def test_a_bundle_calibrates_and_abstains_as_the_model_does(many: bool, tmp_path: Path) -> None:
    model = tiny.bundled("e5", tmp_path, many=many)
    own = model.scores(VALIDATION.texts)
    settings = Calibrate(temperature=True, max_error=None)
    fitted = calibration.fit(tiny.space(many=many), own, VALIDATION.truth, settings)
    least = float(np.median(fitted.confidence(fitted.calibrated(own)))) + 1e-4
    model.space = replace(fitted, abstain=least)
    models.save(model, tmp_path / "model", models.Recipe("e5", model.settings, "code"))
    model = models.load(tmp_path / "model")
    bundle.write(model, tmp_path / "calibrated", candidate="e5", opset=17, digests={})
    predictor = Predictor.load(tmp_path / "calibrated", variant="fp32")
    assert predictor.space == model.space != tiny.space(many=many)

    reference = models.scored(model, VALIDATION.texts)
    assert np.abs(reference - own).max() > 0.01
    np.testing.assert_array_equal(reference, fitted.calibrated(own))  # once, not twice
    np.testing.assert_allclose(predictor.scores(VALIDATION.texts), reference, atol=1e-5)
    predicted = predictor.predict(VALIDATION.texts)
    abstained = [one["abstained"] for one in predicted]
    assert abstained == model.space.abstains(reference).tolist()
    assert 10 < sum(abstained) < 50
    assert all(set(one["scores"]) == set(model.space.labels) for one in predicted)
    found = onnx.parity(reference, predictor.scores(VALIDATION.texts), VALIDATION.truth, model.space)
    assert found["agreement"] == found["abstains_alike"] == 1

    judged = registry.Pyfunc(registry.Candidate(model)).predict(list(VALIDATION.texts))
    np.testing.assert_array_equal(judged[list(model.space.labels)], reference)


def test_without_a_rule_no_text_is_abstained_from(bundled: tuple[models.Classifier, Path]) -> None:
    predicted = Predictor.load(bundled[1]).predict(VALIDATION.texts)
    assert [one["abstained"] for one in predicted] == [False] * len(VALIDATION.texts)


def test_int8_is_smaller_and_has_integer_products(
    bundled: tuple[models.Classifier, Path],
) -> None:
    _, folder = bundled
    kinds = {node.op_type for node in onnx_format.load(folder / "int8.onnx").graph.node}
    assert kinds & {"MatMulInteger", "DynamicQuantizeMatMul", "QAttention"}
    assert (folder / "int8.onnx").stat().st_size < (folder / "fp32.onnx").stat().st_size


def test_a_texts_scores_do_not_depend_on_its_neighbours(
    bundled: tuple[models.Classifier, Path],
) -> None:
    predictor = Predictor.load(bundled[1])
    together = predictor.scores(VALIDATION.texts)
    alone = np.concatenate([predictor.scores([text]) for text in VALIDATION.texts])
    np.testing.assert_array_equal(together, alone)


def test_a_bundle_has_no_pickle_and_no_code_and_names_every_file(
    bundled: tuple[models.Classifier, Path],
) -> None:
    names = {path.name for path in bundled[1].iterdir()}
    manifest = read_manifest(bundled[1])
    assert names == {"manifest.json", *manifest["sha256"]}
    assert {Path(name).suffix for name in names} == {".json", ".onnx"}
    assert manifest["data"] == {"comments": "md5"}
    assert {"torch", "onnxruntime"} <= set(manifest["versions"])


def test_the_predictor_runs_where_torch_and_transformers_cannot_be_imported(
    bundled: tuple[models.Classifier, Path],
) -> None:
    program = f"""
import sys
banned = ("torch", "transformers", "mlflow", "pandas", "sklearn", "scipy", "pydantic", "optimum")
class Barred:
    def find_spec(self, name, *_):
        if name.split(".")[0] in banned:
            raise ImportError(f"{{name}} is barred")
sys.meta_path.insert(0, Barred())
from pathlib import Path
from undertone.predictor import Predictor
print(Predictor.load(Path({str(bundled[1])!r})).predict(["the pay is fair"])[0]["labels"])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in {"['fair']", "['cold']", "['other']"}


def test_odd_texts_get_a_row_each(bundled: tuple[models.Classifier, Path]) -> None:
    odd = ["", "  ", "🙂", "not " * 5000, "=cmd", "\u202eabc"]
    assert len(Predictor.load(bundled[1]).predict(odd)) == len(odd)
    assert Predictor.load(bundled[1]).predict([]) == []


@pytest.mark.parametrize("name", ["int8.onnx", "tokenizer.json", "labels.json"])
def test_a_changed_file_is_refused_before_it_is_loaded(
    name: str, bundled: tuple[models.Classifier, Path], tmp_path: Path
) -> None:
    for path in bundled[1].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    content = bytearray((tmp_path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Problem, match=f"{name}: not the file that manifest.json describes"):
        Predictor.load(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(Problem, match="missing from the bundle"):
        Predictor.load(tmp_path)


def test_an_unknown_variant_is_refused_with_those_there_are(
    bundled: tuple[models.Classifier, Path],
) -> None:
    with pytest.raises(Problem, match="no variant 'int4', it has fp32, optimised, int8"):
        Predictor.load(bundled[1], variant="int4")


def test_a_ruined_variant_stops_the_export_with_its_numbers() -> None:
    space = LabelSpace.of("tiny", ["a", "b"])
    truth = np.array([[True, False], [False, True]] * 10)
    good = truth * 0.8 + 0.1
    parities = {
        "fp32": onnx.parity(good, good, truth, space),
        "int8": onnx.parity(good, 1 - good, truth, space),
    }
    assert parities["int8"]["abstains_alike"] == 1
    rule = replace(space, abstain=0.6)
    assert onnx.parity(good, good * 0.5 + 0.25, truth, rule)["abstains_alike"] == 1
    assert onnx.parity(good, good * 0.1 + 0.45, truth, rule)["abstains_alike"] == 0
    onnx.check_drop({"fp32": parities["fp32"]}, max_drop=0.01)
    with pytest.raises(Problem, match=r"variant int8: macro-F1 0.0000 is 1.0000 below") as caught:
        onnx.check_drop(parities, max_drop=0.01)
    assert "fp32" not in str(caught.value)


def test_the_manifest_is_the_same_for_the_same_model(tmp_path: Path) -> None:
    model = models.create(tiny.SETTINGS["e5"], tiny.space(), tiny.start("e5", tmp_path))
    model.fit(tiny.examples(100), VALIDATION, lambda *_: None, tmp_path / "state")
    manifests = []
    for attempt in ("one", "two"):
        bundle.write(model, tmp_path / attempt, candidate="e5", opset=17, digests={})
        manifests.append(json.loads((tmp_path / attempt / "manifest.json").read_text()))
    assert manifests[0] == manifests[1]


def test_a_change_of_the_plumbing_makes_no_other_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: set[Path] = set()

    def digest(paths: set[Path]) -> str:
        counted.update(paths)
        return ""

    monkeypatch.setattr(code, "digest", digest)
    model = models.create(tiny.SETTINGS["e5"], tiny.space(), tiny.start("e5", tmp_path))
    model.fit(tiny.examples(100), VALIDATION, lambda *_: None, tmp_path / "state")
    bundle.write(model, tmp_path / "bundle", candidate="e5", opset=17, digests={})
    assert Path("undertone/models/e5.py") in counted
    assert not counted & code.PLUMBING
