import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import onnx
import pandas as pd
import pytest
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers import models as token_models

from tests import tiny
from undertone import lineage, models, registry, tracking
from undertone.errors import Problem
from undertone.files import md5, sha256
from undertone.labels import LabelSpace, Scores

REPOSITORY = Path(__file__).parents[1]
SPACE = LabelSpace.of("gender", ["yes", "no"])
CANARY = "zq48213907715kx"
TEXTS = [f"{CANARY} good", "good day", "bad day", "bad night"]
TRUTH = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], dtype=bool)
FIRST = Path("models/candidates/standin/first")
SECOND = Path("models/candidates/standin/second")
RELEASE = Path("models/release/standin")
COMMENTS = Path("data/standin/split.parquet")


def train(folder: Path, *, c: float = 1.0) -> None:
    """A TF-IDF candidate; another `c` gives other bytes."""
    settings = tiny.SETTINGS["tfidf"].model_copy(update={"features": 1024, "c": c})
    model = models.create(settings, SPACE, models.Start(seed=1))
    examples = models.Examples(TEXTS, TRUTH)
    model.fit(examples, examples, lambda _step, _values: None, folder)
    models.save(model, folder, models.Recipe(folder.name, settings, code="0"))


def release(folder: Path, *, encoder: str) -> None:
    """A bundle whose graph says yes to a text whose first token is the word good (1), no to bad (0)."""
    folder.mkdir(parents=True)
    helper, kinds = onnx.helper, onnx.TensorProto
    weights = onnx.numpy_helper.from_array(np.array([[0, 4], [4, 0]], np.float32), "weights")
    first = onnx.numpy_helper.from_array(np.array(0), "first")
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["input_ids", "first"], ["token"], axis=1),
            helper.make_node("Gather", ["weights", "token"], ["logits"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("input_ids", kinds.INT64, [None, None])],
        [helper.make_tensor_value_info("logits", kinds.FLOAT, [None, 2])],
        [weights, first],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(made, folder / "model.onnx")
    tokenizer = Tokenizer(token_models.WordLevel({"bad": 0, "good": 1}, unk_token="bad"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    SPACE.save(folder / "labels.json")
    manifest = {
        "candidate": "first",
        "settings": {"family": "bert"},
        "variant": "fp32",
        "variants": {"fp32": {"file": "model.onnx"}},
        "prefix": "",
        "max_length": 8,
        "data": {"encoder": encoder},
        "sha256": {path.name: sha256(path) for path in folder.iterdir()},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))


def trained(folder: Path, **given: float) -> str:
    """The candidate and its run, as the stage `train` leaves them; the run's id."""
    with tracking.run(
        experiment="gender",
        name=folder.name,
        stage="train",
        settings=given,
        data={"comments": md5(COMMENTS)},
    ) as run:
        train(folder, **given)
        run.tag({"model.md5": md5(folder)})
    return run.id


def register(**given: Any) -> dict[str, Any]:
    usual: dict[str, Any] = {
        "source": "standin",
        "candidates": {"first": FIRST, "second": SECOND},
        "release": RELEASE,
        "comments": COMMENTS,
        "pictures": Path("pictures"),
        "selection": {"champion": "first"},
        "target": None,
        "summary": {"first": {"test_macro_f1": 0.75}, "second": {"test_macro_f1": 0.5}},
    }
    return registry.register(**{**usual, **given})


def load(name: str) -> Any:
    return mlflow.pyfunc.load_model(f"models:/{name}")


def versions() -> int:
    return len(tracking.client().search_model_versions("name = 'gender'"))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, template: Path) -> Path:
    """A repository with two trained candidates, a release, and all of them registered."""
    root = tmp_path_factory.mktemp("prepared")
    (root / ".dvc").mkdir()
    shutil.copyfile(template, root / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        COMMENTS.parent.mkdir(parents=True)
        COMMENTS.write_text("\n".join(TEXTS))
        trained(FIRST)
        trained(SECOND, c=2.0)
        release(RELEASE, encoder=md5(FIRST))
        register()
    return root


@pytest.fixture
def repository(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the prepared one, relocated, as the working folder."""
    root = tmp_path / "repository"
    shutil.copytree(prepared, root)
    monkeypatch.chdir(root)
    tracking.relocate()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking.uri())
    return root


@pytest.mark.usefixtures("repository")
def test_mlflow_alone_loads_the_champion_in_the_repositorys_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script = """
import mlflow
print(mlflow.pyfunc.load_model("models:/gender@champion").predict(["good", "bad"]).to_json())
"""
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    printed = subprocess.check_output(
        [sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, text=True
    )
    found = pd.read_json(io.StringIO(printed))
    assert list(found.columns) == ["label", "abstained", "yes", "no"]
    assert found["label"].tolist() == ["yes", "no"]
    assert found[["yes", "no"]].sum(axis=1).tolist() == pytest.approx([1, 1])


@pytest.mark.usefixtures("repository")
def test_a_table_a_series_and_an_array_are_judged_alike() -> None:
    model = load("gender@first")
    texts = ["good", "bad"]
    for given in (
        pd.DataFrame({"id": ["bad", "bad"], "text": texts}),
        pd.DataFrame({"comment": texts}),
        pd.Series(texts),
        np.array(texts),
    ):
        pd.testing.assert_frame_equal(model.predict(given), model.predict(texts))


@pytest.mark.usefixtures("repository")
def test_the_release_is_loaded_by_the_predictor() -> None:
    found = load("gender@release").predict(["good day", "bad day"])
    assert found["label"].tolist() == ["yes", "no"]
    assert found["yes"].tolist() == pytest.approx([0.982, 0.018], abs=0.001)


@pytest.mark.usefixtures("repository")
def test_registering_twice_makes_no_second_version() -> None:
    before = register()
    assert versions() == 3
    assert register() == before
    assert versions() == 3


@pytest.mark.usefixtures("repository")
def test_a_run_holds_its_candidates_pictures_and_the_champions_those_of_all() -> None:
    for name in ("pareto", "first/labels", "second/labels"):
        path = Path(f"pictures/{name}.svg")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("<svg/>")
    register()
    store = tracking.client()
    runs = {name: registry.find(f"gender@{name}").run_id for name in ("first", "second")}
    held = {
        name: [one.path for one in store.list_artifacts(run, "pictures")] for name, run in runs.items()
    }
    assert held == {
        "first": ["pictures/labels.svg", "pictures/pareto.svg"],
        "second": ["pictures/labels.svg"],
    }


@pytest.mark.usefixtures("repository")
def test_the_champions_alias_moves() -> None:
    registered = register(selection={"champion": "second"})
    found = registry.find("gender@champion")
    assert (found.number, found.tags["candidate"]) == (registered["candidates"]["second"], "second")
    assert versions() == 3


@pytest.mark.usefixtures("repository")
def test_a_candidate_trained_anew_becomes_a_version_and_takes_its_alias() -> None:
    shutil.rmtree(SECOND)
    run = trained(SECOND, c=3.0)
    register()
    assert registry.find("gender@second").run_id == run
    assert versions() == 4


@pytest.mark.usefixtures("repository")
def test_a_release_that_missed_its_target_is_kept_back() -> None:
    before = registry.find("gender@release").number
    manifest = json.loads((RELEASE / "manifest.json").read_text())
    (RELEASE / "manifest.json").write_text(json.dumps({**manifest, "prefix": "query: "}))
    registered = register(target={"p95_ms": 1.0, "passed": False})
    assert registered["release"] != before
    assert registry.find("gender@release").number == before
    assert "kept back" in registry.told(registered)


@pytest.mark.usefixtures("repository")
def test_a_version_says_where_it_comes_from() -> None:
    found = registry.find("models:/gender@first")
    assert found.aliases == ("champion", "first")
    assert {
        "role": "candidate",
        "candidate": "first",
        "family": "tfidf",
        "source": "standin",
        "model.md5": md5(FIRST),
        "dvc.path": FIRST.as_posix(),
        "data.comments": md5(COMMENTS),
        "test_macro_f1": "0.7500",
    }.items() <= found.tags.items()
    assert found.run_tags["model.md5"] == md5(FIRST)


@pytest.mark.usefixtures("repository")
def test_a_release_belongs_to_the_run_of_the_candidate_it_was_made_from() -> None:
    assert registry.find("gender@release").run_id == registry.find("gender@first").run_id


@pytest.mark.usefixtures("repository")
def test_a_candidate_that_dvc_restored_gets_one_run_that_says_so() -> None:
    shutil.rmtree(SECOND)
    train(SECOND, c=5.0)
    register()
    register()
    found = registry.find("gender@second")
    assert found.run_name == "restored-second"
    client = tracking.client()
    restored = client.search_runs(["1"], "attributes.run_name = 'restored-second'")
    assert [one.info.status for one in restored] == ["FINISHED"]


@pytest.mark.usefixtures("repository")
def test_a_version_is_found_by_alias_by_number_and_by_number_alone() -> None:
    number = registry.find("models:/gender@champion").number
    assert registry.find(f"gender/{number}") == registry.find(str(number))


@pytest.mark.parametrize("name", ["gender", "gender@nobody", "gender/99", "99", "other/1"])
@pytest.mark.usefixtures("repository")
def test_a_version_that_is_not_there_is_a_problem(name: str) -> None:
    with pytest.raises(Problem):
        registry.find(name)


@pytest.mark.parametrize("name", ["champion", "release", "latest", "v2"])
@pytest.mark.usefixtures("repository")
def test_a_candidate_called_like_an_alias_is_a_problem(name: str) -> None:
    with pytest.raises(Problem, match=name):
        register(candidates={name: FIRST})


@pytest.mark.usefixtures("repository")
def test_a_version_registered_by_hand_is_a_problem() -> None:
    made = tracking.client().create_model_version("gender", source="https://example.org/model")
    with pytest.raises(Problem, match="by hand"):
        registry.find(f"gender/{made.version}")


def test_a_damaged_artifact_is_not_loaded(repository: Path) -> None:
    (weights,) = [
        path
        for path in (repository / "mlartifacts").rglob("tfidf.safetensors")
        if path.parent.name == "first"
    ]
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(Problem, match="not the bytes that were registered"):
        load("gender@first")


def test_the_store_holds_no_pickle_and_no_code(repository: Path) -> None:
    files = {path.suffix for path in (repository / "mlartifacts").rglob("*") if path.is_file()}
    assert ".safetensors" in files
    assert not files & {".pkl", ".py", ".bin", ".pt", ".joblib"}


def test_no_text_reaches_the_store(repository: Path) -> None:
    load("gender@champion").predict([CANARY])
    store = [repository / "mlflow.db", *(repository / "mlartifacts").rglob("*")]
    content = b"".join(path.read_bytes() for path in store if path.is_file())
    assert md5(COMMENTS).encode() in content  # what is written there can be found there
    assert md5(FIRST).encode() in content
    assert CANARY.encode() in COMMENTS.read_bytes()
    assert CANARY.encode() not in content
    assert CANARY.encode("utf-16-le") not in content


@dataclass
class Fixed:
    """Says the same of every text."""

    space: LabelSpace
    row: Sequence[float]

    def scores(self, texts: Sequence[str]) -> Scores:
        return np.array([self.row] * len(texts), dtype=np.float64).reshape(-1, len(self.row))


def test_many_labels_are_joined_and_no_label_is_empty() -> None:
    space = LabelSpace.of("emotions", ["joy", "anger"], many=True)
    both = registry.Pyfunc(Fixed(space, [0.9, 0.6])).predict(["a"])
    none = registry.Pyfunc(Fixed(space, [0.1, 0.2])).predict(["a"])
    assert (both["label"].tolist(), none["label"].tolist()) == (["joy;anger"], [""])


def test_no_texts_give_an_empty_table() -> None:
    found = registry.Pyfunc(Fixed(SPACE, [0.5, 0.5])).predict([])
    assert (len(found), list(found.columns)) == (0, ["label", "abstained", "yes", "no"])


@pytest.mark.parametrize(
    "given", [CANARY, ["a", 7], ["a", None], pd.DataFrame({"a": [CANARY], "b": [CANARY]}), {CANARY: 1}]
)
def test_what_is_no_list_of_texts_is_a_problem_that_repeats_none(given: object) -> None:
    with pytest.raises(Problem, match="input") as told:
        registry.texts_of(given)
    assert CANARY not in str(told.value)


PIPELINE = """
stages:
  split:
    matrix:
      source: ["${data.source}"]
    cmd: python -c "import shutil; shutil.copy('raw.txt', 'data/${item.source}/split.parquet')"
    deps: [raw.txt]
    outs: ["data/${item.source}/split.parquet"]
  train:
    matrix:
      source: ["${data.source}"]
    cmd: >-
      python -c "import shutil;
      shutil.copytree('made', 'models/candidates/${item.source}/first', dirs_exist_ok=True)"
    deps: ["data/${item.source}/split.parquet", code.txt]
    params: [c]
    outs: ["models/candidates/${item.source}/first"]
"""


@pytest.mark.usefixtures("store")
def test_lineage_brings_back_data_and_model_of_either_source(monkeypatch: pytest.MonkeyPatch) -> None:
    def shell(command: str) -> str:
        return subprocess.run(
            command, shell=True, check=True, capture_output=True, text=True
        ).stdout.strip()

    def commit(message: str) -> str:
        shell(f"git add --all && git commit --quiet --message {message}")
        return shell("git rev-parse HEAD")

    def repro(c: float, source: str) -> str:
        """Train anew and register; the model's md5."""
        shutil.rmtree("made", ignore_errors=True)
        train(Path("made"), c=c)
        Path("params.yaml").write_text(f"data:\n  source: {source}\nc: {c}\n")
        shell("dvc repro --quiet")
        client = tracking.client()
        folder = Path("models/candidates") / source / "first"
        if not client.search_registered_models():
            client.create_registered_model("gender")
        entry = registry.Entry.of_candidate(folder, "first")
        data = {"comments": md5(Path("data") / source / "split.parquet")}
        number = registry.add(client, entry, source=source, data=data, metrics={})
        client.set_registered_model_alias("gender", f"{source}{int(c)}", str(number))
        return md5(folder)

    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{Path('/usr/bin')}:/bin")
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "n")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "e@example.org")
    shutil.rmtree(".dvc")
    shell("git init --quiet && dvc init --quiet")
    Path(".gitignore").write_text("/data/**\n/models/**\n/made/\n/mlflow.db*\n/mlartifacts/\n")
    Path("dvc.yaml").write_text(PIPELINE)
    Path("raw.txt").write_text(CANARY)
    Path("code.txt").write_text("code")
    for source in ("standin", "private"):
        (Path("data") / source).mkdir(parents=True)
    start = commit("start")
    first = repro(1.0, "private")
    repro(2.0, "standin")
    assert lineage.lineage("gender@standin2")["commands"] == []
    assert "commit dvc.lock" in lineage.describe("gender@standin2")
    held = commit("both")
    repro(3.0, "standin")
    commit("later")

    second = lineage.lineage("gender@standin2")
    assert second["trained_on"] == start
    assert second["commit"] == held
    assert second["commands"] == [
        f"git checkout {held}",
        "dvc pull models/candidates/standin/first data/standin/split.parquet",
    ]
    assert lineage.lineage("gender@private1")["commands"] == [
        f"git checkout {held}",
        "perl -pi -e 's/^  source: standin$/  source: private/' params.yaml",
        "dvc pull models/candidates/private/first data/private/split.parquet",
    ]
    for name, digest in (("gender@standin2", second["md5"]), ("gender@private1", first)):
        found = lineage.lineage(name)
        shutil.rmtree("models")
        shutil.rmtree("data")
        for line in found["commands"]:
            assert f"  {line}\n" in lineage.describe(name) + "\n"
            shell(line)
        shell("git restore params.yaml")
        assert md5(Path(found["path"])) == digest
        assert md5(Path("data") / found["source"] / "split.parquet") == found["data"]["comments"]
