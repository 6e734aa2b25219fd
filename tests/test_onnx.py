"""The bundle decides as PyTorch does, runs without torch, and refuses files that were changed."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx as onnx_format
import pytest

from tests import tiny
from undertone import code, models
from undertone.deployment import backends, bundle, onnx
from undertone.deployment.predictor import Predictor, read_manifest
from undertone.errors import Problem
from undertone.labels import Flags, LabelSpace, Scores
from undertone.measures import calibration
from undertone.params import Calibrate
from undertone.records import registry

VALIDATION = tiny.examples(60, seed=1)
EXPORTABLE = ["bert", "e5", "setfit"]


def parity(
    reference: Scores, scores: Scores, space: LabelSpace, truth: Flags = VALIDATION.truth
) -> dict[str, Any]:
    return onnx.parity(reference, scores, truth, space, groups=np.arange(len(truth)), draws=50, seed=0)


Built = Callable[[str, bool], tuple[models.Classifier, Path]]


@pytest.fixture
def released(encoder: Path) -> Path:
    """To be read."""
    return encoder / "bundle"


@pytest.fixture(scope="module")
def built(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A model of a family, for one label or many, and the folder of its variants; each is built once."""

    @cache
    def made(family: str, many: bool) -> tuple[models.Classifier, Path]:
        if (family, many) == ("e5", False):
            return models.load(encoder / "model"), encoder / "variants"
        folder = tmp_path_factory.mktemp("built")
        return tiny.bundled(family, folder, many=many), folder / "variants"

    return made


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("family", EXPORTABLE)
def test_the_exported_graph_scores_as_pytorch_does(family: str, many: bool, built: Built) -> None:
    model, variants = built(family, many)
    reference = model.scores(VALIDATION.texts)
    most = {"fp32": 1e-5, "optimised": 1e-5, "int8": 0.1, "int8_7bit": 0.2, "int8_openvino": 0.1}
    assert set(most) == set(onnx.VARIANTS)
    for variant, limit in most.items():
        predictor = Predictor.load(variants, variant=variant)
        assert predictor.space == model.space
        found = parity(reference, predictor.scores(VALIDATION.texts), model.space)
        assert found["max_difference"] <= limit, variant


@pytest.mark.parametrize("many", [False, True])
def test_a_bundle_calibrates_and_abstains_as_the_model_does(
    many: bool, built: Built, tmp_path: Path
) -> None:
    model = copy(built("e5", many)[0])
    own = model.scores(VALIDATION.texts)
    settings = Calibrate(temperature=True, max_error=None)
    fitted = calibration.fit(tiny.space(many=many), own, VALIDATION.truth, settings)
    least = float(np.median(fitted.confidence(fitted.calibrated(own)))) + 1e-4
    model.space = replace(fitted, abstain=least)
    models.save(model, tmp_path / "model", models.Recipe("e5", model.settings, "code"))
    model = models.load(tmp_path / "model")
    (tmp_path / "calibrated").mkdir()
    tiny.released(model, tmp_path / "calibrated/bundle", candidate="e5", digests={})
    predictor = Predictor.load(tmp_path / "calibrated/variants", variant="fp32")
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
    found = parity(reference, predictor.scores(VALIDATION.texts), model.space)
    assert found["agreement"] == found["abstains_alike"] == 1

    judged = registry.Pyfunc(registry.Candidate(model)).predict(list(VALIDATION.texts))
    np.testing.assert_array_equal(judged[list(model.space.labels)], reference)


def test_without_a_rule_no_text_is_abstained_from(released: Path) -> None:
    predicted = Predictor.load(released).predict(VALIDATION.texts)
    assert [one["abstained"] for one in predicted] == [False] * len(VALIDATION.texts)


def test_int8_is_smaller_and_has_integer_products(released: Path) -> None:
    folder = released
    kinds = {node.op_type for node in onnx_format.load(folder / "int8.onnx").graph.node}
    assert kinds & {"MatMulInteger", "DynamicQuantizeMatMul", "QAttention"}
    plain = folder.parent / "variants" / "fp32.onnx"
    assert (folder / "int8.onnx").stat().st_size < plain.stat().st_size


@pytest.mark.parametrize("variant", list(onnx.VARIANTS))
def test_a_texts_scores_are_the_same_alone_in_any_order_and_on_any_number_of_cores(
    variant: str, released: Path
) -> None:
    folder = released.parent / "variants"
    predictor = Predictor.load(folder, variant=variant, threads=3)
    together = predictor.scores(VALIDATION.texts)
    alone = np.concatenate([predictor.scores([text]) for text in VALIDATION.texts])
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(together[::-1], predictor.scores(VALIDATION.texts[::-1]))
    one = Predictor.load(folder, variant=variant, threads=1)
    np.testing.assert_array_equal(together, one.scores(VALIDATION.texts))
    assert len({tuple(row) for row in together}) > len(together) // 2


@pytest.mark.parametrize("variant", ["fp32", "int8", "int8_openvino"])
def test_many_may_ask_at_once(variant: str, released: Path) -> None:
    predictor = Predictor.load(released.parent / "variants", variant=variant, threads=2)
    expected = predictor.scores(VALIDATION.texts)
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(predictor.scores, VALIDATION.texts[at:]) for at in range(40)]
        for at, one in enumerate(asked):
            np.testing.assert_allclose(one.result(), expected[at:], atol=1e-6)


def test_a_call_of_two_texts_does_not_wait_for_anothers_thousands(
    released: Path,
) -> None:
    predictor = Predictor.load(released, threads=2)
    blocked = threading.Event()
    pool = predictor._backend._pool  # type: ignore[attr-defined]
    waiting = pool.submit(blocked.wait, 60)  # what a call of thousands leaves of it
    rows = predictor.predict(VALIDATION.texts[:2])
    assert not waiting.done()
    assert len(rows) == 2
    blocked.set()


def test_a_text_that_the_model_gives_no_number_has_no_answer(
    released: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = Predictor.load(released)
    own = predictor._backend.logits

    def broken(ids: backends.Ids) -> backends.Logits:
        logits = own(ids)
        logits[0] = np.nan
        return logits

    monkeypatch.setattr(predictor._backend, "logits", broken)
    rows = predictor.predict(["the pay is fair", "the pay is fair"])
    assert [row["error"] for row in rows] == ["no_answer", None]
    assert (rows[0]["labels"], rows[0]["scores"], rows[0]["abstained"]) == ([], {}, False)


OPENED = """
import sys
events = []
sys.addaudithook(lambda name, _: events.append(name) if name.startswith("socket.") else None)
from pathlib import Path
from undertone.deployment.predictor import Predictor
print(Predictor.load(Path(sys.argv[1]), variant="int8_openvino").predict(["fair pay"])[0]["error"])
print(events)
"""


def test_openvino_asks_nobody_on_the_network(released: Path) -> None:
    folder = str(released.parent / "variants")
    command = [sys.executable, "-c", OPENED, folder]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-2:] == ["None", "[]"]


def test_a_bundle_has_no_pickle_and_no_code_and_names_every_file(
    released: Path,
) -> None:
    names = {path.name for path in released.iterdir()}
    manifest = read_manifest(released)
    assert names == {"manifest.json", *manifest["sha256"]}
    assert {Path(name).suffix for name in names} == {".json", ".onnx"}
    assert manifest["data"] == {"comments": "md5"}
    assert {"torch", "onnxruntime"} <= set(manifest["versions"])


def test_the_predictor_runs_where_torch_and_transformers_cannot_be_imported(
    released: Path,
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
from undertone.deployment.predictor import Predictor
print(Predictor.load(Path({str(released)!r})).predict(["the pay is fair"])[0]["labels"])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in {"['fair']", "['cold']", "['other']"}


def test_odd_texts_get_a_row_each_that_says_what_became_of_them(
    released: Path,
) -> None:
    odd = ["", "  \u200b", "🙂", "not " * 5000, "=cmd", "\u202eabc", "\ud83d"]
    rows = Predictor.load(released).predict(odd)
    assert [row["error"] for row in rows] == ["empty", "empty", *[None] * 4, "broken_character"]
    assert [row["cut"] for row in rows] == [False, False, False, True, False, False, False]
    assert all(row["labels"] == [] and row["scores"] == {} and not row["abstained"] for row in rows[:2])
    assert rows[3]["tokens"] == tiny.SETTINGS["e5"].max_length
    assert Predictor.load(released).predict([]) == []


def test_a_text_that_is_too_long_is_refused_where_that_is_wished(
    released: Path,
) -> None:
    given = ["not " * 5000, "the pay is fair"]
    refused = Predictor.load(released, long="refuse").predict(given)
    assert [row["error"] for row in refused] == ["too_long", None]
    assert refused[1] == Predictor.load(released).predict(given)[1]


@pytest.mark.parametrize("name", ["int8.onnx", "tokenizer.json", "labels.json"])
def test_a_changed_file_is_refused_before_it_is_loaded(
    name: str, released: Path, tmp_path: Path
) -> None:
    for path in released.iterdir():
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
    released: Path,
) -> None:
    with pytest.raises(Problem, match=r"no variant 'int4'\. It has int8\."):
        Predictor.load(released, variant="int4")


def test_parity_counts_decisions_and_answers_apart() -> None:
    space = LabelSpace.of("tiny", ["a", "b"])
    truth = np.array([[True, False], [False, True]] * 10)
    good = truth * 0.8 + 0.1
    same, turned = parity(good, good, space, truth), parity(good, 1 - good, space, truth)
    assert (same["drop"], same["agreement"], same["verdict"]) == (0, 1, "no difference shown")
    assert (turned["drop"], turned["agreement"], turned["verdict"]) == (1, 0, "worse")
    assert turned["abstains_alike"] == 1
    rule = replace(space, abstain=0.6)
    assert parity(good, good * 0.5 + 0.25, rule, truth)["abstains_alike"] == 1
    assert parity(good, good * 0.1 + 0.45, rule, truth)["abstains_alike"] == 0


def test_the_manifest_is_the_same_for_the_same_model(built: Built, tmp_path: Path) -> None:
    model, _ = built("e5", False)
    manifests = []
    for attempt in ("one", "two"):
        bundle.write(
            model, tmp_path / attempt, candidate="e5", opset=17, calibration=["fair pay"], digests={}
        )
        manifests.append(json.loads((tmp_path / attempt / "manifest.json").read_text()))
    assert manifests[0] == manifests[1]


def test_a_change_of_the_plumbing_makes_no_other_bundle(
    built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: set[Path] = set()

    def digest(paths: set[Path]) -> str:
        counted.update(paths)
        return ""

    monkeypatch.setattr(code, "digest", digest)
    model, _ = built("e5", False)
    tiny.released(model, tmp_path / "bundle", candidate="e5", digests={})
    assert Path("undertone/models/e5.py") in counted
    assert not counted & code.PLUMBING
