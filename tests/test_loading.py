"""What is loaded is data, and the data that was written: no pickle, no code, digests before loaders."""

import contextlib
import importlib.util
import json
import pickle
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow.pyfunc
import numpy as np
import onnx
import pytest
import yaml
from mlflow.models import Model
from safetensors.numpy import load_file
from transformers.integrations import hub_kernels

from tests import tiny
from undertone import models, stage
from undertone.deployment import backends, predictor
from undertone.deployment.predictor import MANIFEST, Predictor, read_manifest, sealed
from undertone.errors import Problem
from undertone.files import md5, sha256
from undertone.networks import bases, encoder, language, loading
from undertone.params import Params

ROOT = Path(__file__).parents[1]
RELEASED = {"int8.onnx", "tokenizer.json", "labels.json", MANIFEST}
DATA = {".json", ".safetensors", ".txt"}  # vocab.txt is a tokenizer's list of words
FAMILIES = sorted(tiny.SETTINGS)


@pytest.fixture(scope="module")
def made(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `bundle`, a release, and below `models` a candidate of each family."""
    folder = tmp_path_factory.mktemp("made")
    shutil.copytree(encoder / "bundle", folder / "bundle")
    shutil.copytree(encoder / "model", folder / "models/e5")
    for family in FAMILIES:
        if family == "e5":
            continue
        model = models.create(tiny.SETTINGS[family], tiny.space(), tiny.start(family, folder))
        if family == "tfidf":
            few = tiny.examples(40)
            model.fit(few, few, lambda *_: None, folder / "state")
        models.save(model, folder / "models" / family, models.Recipe(family, model.settings, "code"))
    return folder


@pytest.fixture
def bundle(made: Path, tmp_path: Path) -> Path:
    """A copy of the release."""
    return Path(shutil.copytree(made / "bundle", tmp_path / "bundle"))


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The loaders that were called; each only says so."""
    called: list[str] = []

    def recorder(name: str) -> Callable[..., None]:
        def record(*_: object, **__: object) -> None:
            called.append(name)
            raise AssertionError(f"{name} was called")

        return record

    for owner, name in (
        (backends.ort, "InferenceSession"),
        (predictor.Tokenizer, "from_file"),
        (predictor.LabelSpace, "load"),
        (models.Recipe, "load"),
        (models, "load"),
    ):
        monkeypatch.setattr(owner, name, recorder(name), raising=True)
    return called


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def spots(path: Path) -> Iterator[int]:
    """The first, a middle and the last byte."""
    size = path.stat().st_size
    yield from (0, size // 2, size - 1)


def reseal(folder: Path, **changed: object) -> None:
    """Write the manifest anew with the digests of what is there, as one who means ill would."""
    manifest = read_manifest(folder)
    names = [path.name for path in folder.iterdir() if path.name != MANIFEST]
    manifest["sha256"] = {name: sha256(folder / name) for name in names}
    (folder / MANIFEST).write_text(sealed({**manifest, **changed}))


def test_a_release_is_a_closed_list_of_graphs_and_json(bundle: Path) -> None:
    assert {path.name for path in bundle.iterdir()} == RELEASED
    assert set(read_manifest(bundle)["sha256"]) == RELEASED - {MANIFEST}
    Predictor.load(bundle)


@pytest.mark.parametrize("name", sorted(RELEASED - {MANIFEST}))
def test_a_flipped_byte_of_a_release_is_refused_before_anything_is_loaded(
    name: str, bundle: Path, loaded: list[str]
) -> None:
    variant = name.removesuffix(".onnx") if name.endswith(".onnx") else None
    with pytest.raises(AssertionError, match="was called"):
        Predictor.load(bundle, variant=variant)  # what is whole gets as far as a loader
    loaded.clear()
    for at in spots(bundle / name):
        flip(bundle / name, at)
        with pytest.raises(Problem, match=f"{name}: not the file that manifest.json describes"):
            Predictor.load(bundle, variant=variant)
        flip(bundle / name, at)
    assert loaded == []


def test_no_byte_of_a_manifest_can_change(bundle: Path, loaded: list[str]) -> None:
    content = (bundle / MANIFEST).read_bytes()
    assert len(content) > 1000
    for at in range(0, len(content), 7):
        flip(bundle / MANIFEST, at)
        with pytest.raises(Problem, match="not the manifest that was written with the bundle"):
            Predictor.load(bundle)
        (bundle / MANIFEST).write_bytes(content)
    (bundle / MANIFEST).write_bytes(content.replace(b"\n", b"\r\n"))
    with pytest.raises(Problem, match="not the manifest"):
        Predictor.load(bundle)
    assert loaded == []


@pytest.mark.parametrize(
    "name", ["extra.json", "model.py", "model.pkl", "int8.onnx.data", "pytorch_model.bin", "sub/a.json"]
)
def test_a_file_too_many_is_refused(name: str, bundle: Path, loaded: list[str]) -> None:
    (bundle / name).parent.mkdir(exist_ok=True)
    (bundle / name).write_bytes(b"{}")
    with pytest.raises(Problem, match=f"{name.split('/')[0]}: no file of a bundle"):
        Predictor.load(bundle)
    if "/" not in name and not name.endswith(".json"):
        reseal(bundle)  # nor does it help to name it
        with pytest.raises(Problem, match="no file of a bundle"):
            Predictor.load(bundle)
    assert loaded == []


@pytest.mark.parametrize("name", ["labels.json", "int8.onnx"])
def test_a_link_out_of_the_release_is_refused(name: str, bundle: Path, loaded: list[str]) -> None:
    (bundle / name).rename(bundle.parent / name)
    (bundle / name).symlink_to(bundle.parent / name)
    with pytest.raises(Problem, match=f"{name}: no file of a bundle"):
        Predictor.load(bundle)
    assert loaded == []


def test_a_manifest_cannot_name_a_graph_elsewhere(bundle: Path, loaded: list[str]) -> None:
    shutil.copyfile(bundle / "int8.onnx", bundle.parent / "int8.onnx")
    manifest = read_manifest(bundle)
    given, digest = manifest["variants"]["int8"], manifest["sha256"]["int8.onnx"]
    for name in ("../int8.onnx", str(bundle.parent / "int8.onnx")):
        reseal(bundle, variants={"int8": {**given, "file": name}})
        manifest = read_manifest(bundle) | {"sha256": {**read_manifest(bundle)["sha256"], name: digest}}
        (bundle / MANIFEST).write_text(sealed(manifest))
        with pytest.raises(Problem, match=r"which is no file in it"):
            Predictor.load(bundle)
    assert loaded == []


@pytest.mark.parametrize("place", ["../weights", "{above}/weights", "sub/../../weights", "/etc/passwd"])
def test_a_graph_cannot_read_weights_elsewhere(place: str, bundle: Path) -> None:
    np.ones((2, 2), np.float32).tofile(bundle.parent / "weights")
    helper, kinds = onnx.helper, onnx.TensorProto
    weights = kinds(name="w", data_type=kinds.FLOAT, dims=[2, 2], data_location=kinds.EXTERNAL)
    weights.external_data.add(key="location", value=place.format(above=bundle.parent))
    shape = helper.make_tensor_value_info("input_ids", kinds.INT64, [None])
    out = helper.make_tensor_value_info("logits", kinds.FLOAT, None)
    node = helper.make_node("Gather", ["w", "input_ids"], ["logits"])
    graph = helper.make_graph([node], "evil", [shape], [out], [weights])
    evil = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (bundle / "int8.onnx").write_bytes(evil.SerializeToString())
    reseal(bundle)
    with pytest.raises(Problem, match=r"int8\.onnx: onnxruntime can't open it"):
        Predictor.load(bundle)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_candidate_is_json_and_safetensors(family: str, made: Path) -> None:
    files = [path for path in (made / "models" / family).rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= DATA
    assert (made / "models" / family / models.RECIPE) in files
    for path in files:
        if path.suffix == ".safetensors":
            assert load_file(path)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_flipped_byte_of_a_candidate_stops_a_stage_before_anything_is_loaded(
    family: str,
    made: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    own = Path("models/candidates/standin") / family
    shutil.copytree(made / "models" / family, tmp_path / own)
    shutil.copyfile(ROOT / "params.yaml", tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    maker = {"outs": [{"path": own.as_posix(), "md5": md5(own)}]}
    Path("dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": {"train@standin": maker}}))
    monkeypatch.setenv("DVC_STAGE", "predict@standin")
    monkeypatch.setattr(sys, "argv", ["predict", "--model", str(own)])
    begun = []

    def main(_: Params, *, model: Path) -> str:
        begun.append(model)
        return "1 row"

    def code() -> object:
        with pytest.raises(SystemExit) as ended:
            stage.run(main)
        return ended.value.code

    code()
    assert begun == [own]
    for path in sorted(own.rglob("*")):
        if path.is_file():
            flip(path, path.stat().st_size // 2)
            assert code() == 1
            assert "not the bytes that train@standin recorded" in capsys.readouterr().err
            flip(path, path.stat().st_size // 2)
    (own / "extra.py").write_text("")
    assert code() == 1
    assert begun == [own]


@pytest.mark.parametrize("kind", ["bundle", "models/tfidf", "models/bert"])
def test_a_flipped_byte_of_a_registered_version_is_refused_before_anything_is_loaded(
    kind: str, made: Path, tmp_path: Path, loaded: list[str]
) -> None:
    stored = tmp_path / "stored"
    described = Model(metadata={"md5": md5(made / kind)})
    mlflow.pyfunc.save_model(
        str(stored),
        loader_module="undertone.records.registry",
        data_path=str(made / kind),
        mlflow_model=described,
        pip_requirements=[],
    )
    copy = stored / "data" / Path(kind).name
    with pytest.raises(AssertionError, match="was called"):
        mlflow.pyfunc.load_model(str(stored))
    loaded.clear()
    files = [path for path in copy.rglob("*") if path.is_file()]
    assert len(files) >= 3
    for path in files:
        for at in spots(path):
            flip(path, at)
            with pytest.raises(Problem, match="not the bytes that were registered"):
                mlflow.pyfunc.load_model(str(stored))
            flip(path, at)
    (copy / "extra.py").write_text("")
    with pytest.raises(Problem, match="not the bytes that were registered"):
        mlflow.pyfunc.load_model(str(stored))
    assert loaded == []


class Evil:
    """Leaves a trace where it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.trace,)


def poison(folder: Path, trace: Path) -> None:
    """Put beside a base's files all that would run if the libraries' own loaders were let."""
    evil = pickle.dumps(Evil(trace))
    for name in ("pytorch_model.bin", "model_head.pkl", "training_args.bin", "adapter_model.bin"):
        (folder / name).write_bytes(evil)
    code = f"from pathlib import Path\nPath({str(trace)!r}).touch()\nclass Own: pass\n"
    for name in ("modeling_own.py", "__init__.py", "custom_generate/generate.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(code)
    module = {"idx": 0, "name": "0", "path": "", "type": "modeling_own.Own"}
    (folder / "modules.json").write_text(json.dumps([module]))
    adapter = {"peft_type": "LORA", "base_model_name_or_path": "evil/base", "auto_mapping": None}
    (folder / "adapter_config.json").write_text(json.dumps(adapter))


def test_code_and_pickles_beside_a_base_stay_behind(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    made = tiny.base(tmp_path / "made")
    poison(made, trace)
    pickle.loads((made / "pytorch_model.bin").read_bytes())
    assert trace.exists()  # the payload works
    trace.unlink()
    bases.materialise(f"path:{made}", tmp_path / "base")
    names = {path.name for path in (tmp_path / "base").rglob("*")}
    assert names == {"config.json", "model.safetensors", "base.json"} | {
        path.name for path in made.glob("*token*")
    }
    encoder.load_tokenizer(tmp_path / "base")
    encoder.load_backbone(tmp_path / "base", max_length=32)
    assert not trace.exists()


def test_a_base_that_names_a_kernel_of_the_hub_s_is_refused(tmp_path: Path) -> None:
    made = tiny.base(tmp_path / "made")
    content = json.loads((made / "config.json").read_text())
    content["_attn_implementation_internal"] = "evil/code"
    (made / "config.json").write_text(json.dumps(content))
    with pytest.raises(Problem, match=r"own \(_attn_implementation_internal in config"):
        bases.materialise(f"path:{made}", tmp_path / "base")


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_a_base_that_names_code_of_its_own_is_refused(file: str, tmp_path: Path) -> None:
    made = tiny.base(tmp_path / "made")
    content = json.loads((made / file).read_text())
    names = ("AutoConfig", "AutoModel", "AutoTokenizer")
    content["auto_map"] = dict.fromkeys(names, "modeling_own.Own")
    (made / file).write_text(json.dumps(content))
    with pytest.raises(Problem, match=f"code of its own .auto_map in {file}., which is never run"):
        bases.materialise(f"path:{made}", tmp_path / "base")


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_that_got_into_a_candidates_folder_is_not_run(
    file: str, made: Path, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    own = Path(shutil.copytree(made / "models/bert", tmp_path / "bert"))
    poison(own, trace)
    (own / "adapter_config.json").unlink()
    content = json.loads((own / file).read_text())
    content["auto_map"] = {"AutoConfig": "modeling_own.Own", "AutoTokenizer": [None, "modeling_own.Own"]}
    (own / file).write_text(json.dumps(content))
    models.load(own)  # it has a class of this name itself
    content |= {"model_type": "own", "tokenizer_class": "Own"}
    (own / file).write_text(json.dumps(content))
    with pytest.raises(ValueError, match="trust_remote_code"):
        models.load(own)
    assert not trace.exists()


def test_pickled_weights_are_not_loaded(made: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(made / "models/bert", tmp_path / "bert"))
    (own / "model.safetensors").unlink()
    (own / "pytorch_model.bin").write_bytes(pickle.dumps(Evil(tmp_path / "trace")))
    with pytest.raises(OSError, match="safetensors"):
        models.load(own)
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("family", ["lora", "fewshot"])
def test_a_language_model_on_a_changed_base_is_refused(family: str, made: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(made / "models" / family, tmp_path / "models" / family))
    copy = Path(shutil.copytree(made / "decoder", tmp_path / "decoder"))
    start = json.loads((own / language.START).read_text())
    (own / language.START).write_text(json.dumps({**start, "base": "decoder"}))
    models.load(own)
    flip(copy / "config.json", 20)
    with pytest.raises(Problem, match="its base is not the one that it was tuned on"):
        models.load(own)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_was_registered_may_be_loaded(family: str, made: Path) -> None:
    own = made / "models" / family
    assert (own / loading.START).exists() == (family in ("lora", "fewshot"))
    assert loading.START == language.START
    loading.check(own, md5(own))
    with pytest.raises(Problem, match="not the bytes that were registered"):
        loading.check(own, "0" * 32)


def test_a_release_may_be_loaded(bundle: Path) -> None:
    loading.check(bundle, md5(bundle))


@pytest.mark.parametrize("name", ["extra.py", "model_head.pkl", "pytorch_model.bin", "modules.so"])
def test_whatever_its_digest_says_a_folder_with_more_than_data_is_refused(
    name: str, made: Path, tmp_path: Path
) -> None:
    own = Path(shutil.copytree(made / "models/bert", tmp_path / "bert"))
    (own / name).write_bytes(b"")
    with pytest.raises(Problem, match=f"{name}: a link, or no kind of file that is loaded"):
        loading.check(own, md5(own))


def test_a_link_in_a_registered_folder_is_refused(made: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(made / "models/bert", tmp_path / "bert"))
    (own / "vocab.txt").unlink(missing_ok=True)
    (own / "vocab.txt").symlink_to("/etc/passwd")
    with pytest.raises(Problem, match="a link"):
        loading.check(own, md5(own))


@pytest.mark.parametrize("name", sorted(loading.CODE))
@pytest.mark.parametrize("place", ["models/bert", "decoder"])
def test_a_config_that_names_code_is_refused(name: str, place: str, made: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(made / place, tmp_path / place)) / "config.json"
    own = path.parent
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "text_config": {name: "evil/code"}}))
    if place == "decoder":
        own = on_copy(made, tmp_path)
    with pytest.raises(Problem, match=f"config.json: it names code to run .{name}."):
        loading.check(own, md5(own))


def on_copy(made: Path, folder: Path) -> Path:
    """A tuned model whose base is `folder`/decoder."""
    own = Path(shutil.copytree(made / "models/lora", folder / "models/lora"))
    start = json.loads((own / language.START).read_text())
    changed = {**start, "base": "decoder", "sha256": language.identity(folder / "decoder")}
    (own / language.START).write_text(json.dumps(changed))
    return own


def test_a_flipped_byte_of_a_base_s_weights_is_refused(made: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(made / "decoder", tmp_path / "decoder"))
    own = on_copy(made, tmp_path)
    loading.check(own, md5(own))
    flip(base / "model.safetensors", (base / "model.safetensors").stat().st_size - 5)
    with pytest.raises(Problem, match="not the bytes that the model was tuned on"):
        loading.check(own, md5(own))
    flip(base / "model.safetensors", (base / "model.safetensors").stat().st_size - 5)
    (base / "base.json").write_text("{}")
    start = json.loads((own / language.START).read_text())
    (own / language.START).write_text(json.dumps({**start, "sha256": language.identity(base)}))
    with pytest.raises(Problem, match="no digest of its weights"):
        loading.check(own, md5(own))


def test_kernels_is_not_installed_since_a_config_alone_would_make_it_fetch_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers 4.57 takes a hub's address from a config's key and has `kernels` download and import
    what lies there, whatever trust_remote_code says (CVE-2026-4372); without the package it stops."""
    assert importlib.util.find_spec("kernels") is None
    for name in ("requirements.in", "requirements.lock"):
        assert not re.search(r"^kernels\b", (ROOT / name).read_text(), re.MULTILINE)
    base = tiny.base(tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    evil = {**config, "_attn_implementation_internal": "evil/code"}
    (base / "config.json").write_text(json.dumps(evil))
    with pytest.raises(ImportError, match="kernels"):
        encoder.load_backbone(base, max_length=32)

    asked = []
    monkeypatch.setattr(hub_kernels, "_kernels_available", True)  # as if it were installed
    monkeypatch.setattr(hub_kernels, "get_kernel", lambda name, **_: asked.append(name), raising=False)
    with contextlib.suppress(Exception):
        encoder.load_backbone(base, max_length=32)
    assert asked == ["evil/code"]
