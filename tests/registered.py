"""A repository with two trained candidates, a release, and all of them registered; see `repository`."""

from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
import pandas as pd
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers import models as token_models

from tests import tiny
from undertone import models
from undertone.deployment.predictor import Family, sealed
from undertone.files import md5, sha256
from undertone.labels import LabelSpace
from undertone.records import registry, tracking

SPACE = LabelSpace.of("gender", ["yes", "no"])
CANARY = "zq48213907715kx"
TEXTS = [f"{CANARY} good", "good day", "bad day", "bad night"]
TRUTH = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], dtype=bool)
FIRST = Path("models/candidates/standin/first")
SECOND = Path("models/candidates/standin/second")
RELEASE = Path("models/release/standin")
COMMENTS = Path("data/standin/split.parquet")
CODEBOOK = Path("codebooks/gender.yaml")


def train(folder: Path, *, c: float = 1.0) -> None:
    """A TF-IDF candidate; another `c` gives other bytes."""
    settings = tiny.SETTINGS["tfidf"].model_copy(update={"features": 1024, "c": c})
    model = models.create(settings, SPACE, models.Start(seed=1))
    examples = models.Examples(TEXTS, TRUTH)
    model.fit(examples, examples, lambda _step, _values: None, folder)
    models.save(model, folder, models.Recipe(folder.name, settings, code="0"))


def release(folder: Path, *, encoder: str, good: float = 4) -> None:
    """A bundle whose graph says yes to a text whose first token is the word good (1), no to bad (0).

    `good`: the logit of that yes.
    """
    folder.mkdir(parents=True)
    helper, kinds = onnx.helper, onnx.TensorProto
    weights = onnx.numpy_helper.from_array(np.array([[0, 4], [good, 0]], np.float32), "weights")
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
        "runs": {family: ["fp32"] for family in get_args(Family)},
        "variants": {
            "fp32": {"file": "model.onnx", "backend": "onnxruntime", "families": list(get_args(Family))}
        },
        "prefix": "",
        "max_length": 8,
        "data": {"encoder": encoder},
        "sha256": {path.name: sha256(path) for path in folder.iterdir()},
    }
    (folder / "manifest.json").write_text(sealed(manifest))


def trained(folder: Path, **given: float) -> str:
    """The candidate and its run, as the stage `train` leaves them; the run's id."""
    with tracking.run(
        experiment="gender",
        name=folder.name,
        stage="train",
        settings=given,
        data={"comments": md5(COMMENTS), "base": "b" * 32},
        tags={"seed": "13"},
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
        "codebook": CODEBOOK,
        "pictures": Path("pictures"),
        "selection": {"champion": "first"},
        "target": None,
        "summary": {"first": {"test_macro_f1": 0.75}, "second": {"test_macro_f1": 0.5}},
    }
    return registry.register(**{**usual, **given})


def split(path: Path) -> None:
    """A split table of TEXTS; the last is validation, the one before it test."""
    path.parent.mkdir(parents=True)
    table = pd.DataFrame({"id": ["1", "2", "3", "4"], "text": TEXTS})
    table["part"] = ["train", "train", "test", "validation"]
    table["label.yes"], table["label.no"] = TRUTH[:, 0].astype(float), TRUTH[:, 1].astype(float)
    table.to_parquet(path, index=False)


def prepare() -> None:
    """All of it in the working folder, which has an MLflow store."""
    split(COMMENTS)
    CODEBOOK.parent.mkdir()
    CODEBOOK.write_text("name: gender\n")
    trained(FIRST)
    trained(SECOND, c=2.0)
    release(RELEASE, encoder=md5(FIRST))
    register()
