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
import pandas as pd
import pytest
from mlflow.models import Model

from tests.registered import (
    CANARY,
    CODEBOOK,
    COMMENTS,
    FIRST,
    RELEASE,
    SECOND,
    SPACE,
    register,
    train,
    trained,
)
from undertone.deployment.predictor import Predictor, sealed
from undertone.errors import Problem
from undertone.files import md5
from undertone.labels import LabelSpace, Scores
from undertone.records import registry, tracking

REPOSITORY = Path(__file__).parents[1]


def load(name: str) -> Any:
    return mlflow.pyfunc.load_model(f"models:/{name}")


def versions() -> int:
    return len(tracking.client().search_model_versions("name = 'gender'"))


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
    (RELEASE / "manifest.json").write_text(sealed({**manifest, "prefix": "query: "}))
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
        "data.base": "b" * 32,
        "seed": "13",
        "codebook": "codebooks/gender.yaml",
        "codebook.md5": md5(CODEBOOK),
        "test_macro_f1": "0.7500",
        "version.mlflow": mlflow.__version__,
    }.items() <= found.tags.items()
    parts = {key: value for key, value in found.tags.items() if key.startswith("digest.")}
    assert parts.keys() == {"digest.train", "digest.validation", "digest.test"}
    assert len(set(parts.values())) == 3
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


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("gender", "write gender@champion or gender/1"),
        ("gender@nobody", "no alias 'nobody'. It has champion, first, release, second."),
        ("gender/99", "no version '99'. It has 1, 2, 3."),
        ("99", "no version '99'. It has 1, 2, 3."),
        ("other/1", "It has the models gender: write gender@champion or gender/1."),
    ],
)
@pytest.mark.usefixtures("repository")
def test_a_version_that_is_not_there_is_a_problem_that_says_which_are(name: str, remedy: str) -> None:
    with pytest.raises(Problem) as told:
        registry.find(name)
    assert remedy in str(told.value)


@pytest.mark.usefixtures("store")
def test_an_empty_registry_says_how_to_fill_it() -> None:
    with pytest.raises(Problem, match=r"^registry: is empty\. Run `undertone sync`"):
        registry.find("1")


@pytest.mark.usefixtures("repository")
def test_a_version_of_an_older_undertone_gets_the_digests_it_lacks() -> None:
    before = registry.find("gender@first")
    for key in ("digest.train", "codebook.md5", "seed"):
        tracking.client().delete_model_version_tag("gender", str(before.number), key)
    register()
    assert registry.find("gender@first").tags == before.tags


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


def test_what_cannot_be_judged_has_no_label_and_is_null_in_json() -> None:
    found = registry.Pyfunc(Fixed(SPACE, [0.75, 0.25])).predict(["a", " \u200b", "a\0b"])
    assert found["label"].tolist() == ["yes", "", ""]
    assert found.to_dict("records")[0]["yes"] == 0.75
    nothing = {"label": "", "abstained": False, "yes": None, "no": None}
    assert found.to_dict("records")[1:] == [nothing] * 2


@pytest.mark.slow
@pytest.mark.usefixtures("repository")
def test_spark_gives_a_releases_own_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    sql = pytest.importorskip("pyspark.sql", reason="`pip install pyspark`, which needs Java")
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    monkeypatch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
    texts = ["good day", "bad day", "", "bad\0"]
    spark = sql.SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
    try:
        judge = mlflow.pyfunc.spark_udf(spark, "models:/gender@release", env_manager="local")
        table = spark.createDataFrame(list(enumerate(texts)), "id int, text string")
        found = table.withColumn("judged", judge("text")).orderBy("id").select("judged.*").collect()
    finally:
        spark.stop()
    nothing = {"label": "", "abstained": False, **dict.fromkeys(SPACE.labels)}
    expected = [
        {**nothing, "label": "".join(row["labels"]), **row["scores"]}
        for row in Predictor.load(RELEASE).predict(texts)
    ]
    assert [row.asDict() for row in found] == expected


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


def test_code_that_the_store_names_is_not_run_and_its_digest_is_not_believed(repository: Path) -> None:
    version = registry.find("gender@first")
    (weights,) = [
        path
        for path in (repository / "mlartifacts").rglob("tfidf.safetensors")
        if path.parent.name == "first"
    ]
    stored = weights.parents[2]
    described = Model.load(str(stored))
    described.flavors["python_function"] |= {"loader_module": "evil", "code": "code"}
    described.save(str(stored / "MLmodel"))
    (stored / "code").mkdir()
    (stored / "code/evil.py").write_text("raise SystemExit('code was run')")
    with pytest.raises(SystemExit, match="code was run"):
        load("gender@first")  # what MLflow itself does
    assert registry.judge(version).scores(["good"]).shape == (1, 2)

    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    described.metadata["md5"] = md5(weights.parent)
    described.save(str(stored / "MLmodel"))
    with pytest.raises(Problem, match="not the bytes that were registered"):
        registry.judge(version)


@pytest.mark.usefixtures("repository")
def test_the_release_is_an_onnx_model_too() -> None:
    with registry._global_store():
        graph = mlflow.onnx.load_model("models:/gender@release").graph
    assert [one.name for one in graph.output] == ["logits"]
