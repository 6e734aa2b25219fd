"""The registry: one model a codebook, a version for each candidate and each release.

Which version is which, aliases say: a candidate's name (its newest), `champion`, `release`.
MLflow loads a version through `_load_pyfunc` below, so no code and no pickle lies in the store.
"""

import os
import re
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any, Literal, Protocol

import mlflow.pyfunc
import numpy as np
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput
from mlflow.entities.model_registry import ModelVersion
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, Schema

from undertone import models, provenance, tracking
from undertone.errors import Problem
from undertone.files import md5
from undertone.labels import LabelSpace, Scores
from undertone.predictor import MANIFEST, Predictor, read_manifest
from undertone.text import cleaned

Role = Literal["candidate", "release"]
RESERVED = ("champion", "release", "latest")
_RELEASE = ("numpy", "pandas", "onnxruntime", "tokenizers")
_CANDIDATE = (
    *("numpy", "pandas", "pydantic", "scikit-learn", "safetensors", "torch", "transformers"),
    *("peft", "bitsandbytes"),
)


@dataclass(frozen=True)
class Entry:
    """A folder to register; `trained` is the md5 of the candidate's folder it was made from."""

    folder: Path
    role: Role
    candidate: str
    family: str
    space: LabelSpace
    md5: str
    trained: str

    @classmethod
    def of_candidate(cls, folder: Path, name: str) -> "Entry":
        family = models.Recipe.load(folder / models.RECIPE).settings.family
        space = LabelSpace.load(folder / "labels.json")
        digest = md5(folder)
        return cls(folder, "candidate", name, family, space, digest, digest)

    @classmethod
    def of_release(cls, folder: Path) -> "Entry":
        manifest = read_manifest(folder)
        return cls(
            folder,
            "release",
            manifest["candidate"],
            manifest["settings"]["family"],
            LabelSpace.load(folder / "labels.json"),
            md5(folder),
            manifest["data"]["encoder"],
        )


@dataclass(frozen=True)
class Version:
    """A registered version and the run it came from."""

    model: str
    number: int
    aliases: tuple[str, ...]
    tags: Mapping[str, str]
    run_id: str
    run_name: str
    run_tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: Mapping[str, float]


def register(
    *,
    source: str,
    candidates: Mapping[str, Path],
    release: Path,
    comments: Path,
    pictures: Path,
    selection: Mapping[str, Any],
    target: Mapping[str, Any] | None,
    summary: Mapping[str, Any],
) -> dict[str, Any]:
    """Register all, move the aliases, and say which version is which.

    What is already there is used again. `selection` names the champion; a release that missed its
    latency `target` becomes a version, but not the alias; `summary` holds each candidate's metrics.
    The run of a candidate gets its folder of `pictures`, the champion's also those of all.
    """
    for name in candidates:
        if name in RESERVED or re.fullmatch(r"v\d+", name):
            raise Problem(f"'{name}' can't be a candidate's name, it is an alias", where="params.yaml")
    entries = [Entry.of_candidate(folder, name) for name, folder in candidates.items()]
    bundle = Entry.of_release(release)
    model = bundle.space.codebook
    data = {"comments": md5(comments)}
    with tracking.told(), tracking.locked("register"):
        store = tracking.client()
        if not store.search_registered_models(f"name = '{model}'"):
            store.create_registered_model(model)
        numbers = {
            entry.candidate: add(
                store, entry, source=source, data=data, metrics=summary[entry.candidate]
            )
            for entry in entries
        }
        for name, number in numbers.items():
            run = store.get_model_version(model, str(number)).run_id
            _show(store, run, pictures / name)
            if name == selection["champion"]:
                _show(store, run, pictures)
        released = add(store, bundle, source=source, data=data, metrics={})
        aliases = {**numbers, "champion": numbers[selection["champion"]]}
        if target is None or target["passed"]:
            aliases["release"] = released
        for alias, number in aliases.items():
            store.set_registered_model_alias(model, alias, str(number))
    return {
        "model": model,
        "candidates": numbers,
        "champion": selection["champion"],
        "release": released,
        "released": "release" in aliases,
    }


def told(registered: Mapping[str, Any]) -> str:
    """`gender: tfidf 1, bert 2 (champion); release 3`."""
    shown = [
        f"{name} {number}" + (" (champion)" if name == registered["champion"] else "")
        for name, number in registered["candidates"].items()
    ]
    kept = "" if registered["released"] else " (kept back: latency target missed)"
    return f"{registered['model']}: {', '.join(shown)}; release {registered['release']}{kept}"


def add(
    store: MlflowClient,
    entry: Entry,
    *,
    source: str,
    data: Mapping[str, str],
    metrics: Mapping[str, float],
) -> int:
    """The number of the version that holds this entry, made when there is none."""
    model = entry.space.codebook
    found = store.search_model_versions(
        f"name = '{model}' and tags.`model.md5` = '{entry.md5}' and tags.role = '{entry.role}'"
    )
    if found:
        return max(int(one.version) for one in found)
    run = _run(store, entry, source=source, data=data)
    tags = {
        "role": entry.role,
        "candidate": entry.candidate,
        "family": entry.family,
        "source": source,
        "model.md5": entry.md5,
        "dvc.path": entry.folder.as_posix(),
        "dvc.md5": entry.md5,
        "commit": run.data.tags.get(provenance.COMMIT, ""),
        "experiment": run.data.tags.get(provenance.EXPERIMENT, ""),
        **{f"data.{name}": digest for name, digest in data.items()},
        **{name: f"{value:.4f}" for name, value in metrics.items()},
    }
    logged = _log(store, entry, run)
    with _global_store():
        made = store.create_model_version(
            model, source=f"models:/{logged}", run_id=run.info.run_id, model_id=logged, tags=tags
        )
    return int(made.version)


def _show(store: MlflowClient, run: str, folder: Path) -> None:
    """Put the pictures of a folder beside a run; there may be none."""
    for picture in sorted(folder.glob("*.svg")):
        store.log_artifact(run, str(picture), "pictures")


def find(name: str) -> Version:
    """The version called `models:/gender@champion`, `gender/3`, or `3` of the only model."""
    with tracking.told():
        store = tracking.client()
        found = _find(store, name.removeprefix("models:/"))
        if "model.md5" not in found.tags:
            raise Problem(
                "was registered by hand, so nothing is known of it",
                where=f"{found.name}/{found.version}",
            )
        run = store.get_run(found.run_id)
        model = store.get_registered_model(found.name)
    return Version(
        model=found.name,
        number=int(found.version),
        aliases=tuple(sorted(key for key, value in model.aliases.items() if value == found.version)),
        tags=found.tags,
        run_id=run.info.run_id,
        run_name=run.info.run_name,
        run_tags=run.data.tags,
        params=run.data.params,
        metrics=run.data.metrics,
    )


class Judge(Protocol):
    """A trained candidate or a release's predictor; its scores are calibrated."""

    space: LabelSpace

    def scores(self, texts: Sequence[str]) -> Scores: ...


def judge(version: Version) -> Judge:
    """What MLflow loads for a version."""
    with tracking.told():
        loaded = mlflow.pyfunc.load_model(f"models:/{version.model}/{version.number}")
    found: Judge = loaded.get_raw_model()
    return found


class Candidate:
    """A family's model as a `Judge`."""

    def __init__(self, model: models.Classifier) -> None:
        self.space = model.space
        self._model = model

    def scores(self, texts: Sequence[str]) -> Scores:
        return models.scored(self._model, texts)


class Pyfunc:
    """What `mlflow.pyfunc.load_model` hands out."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge

    def get_raw_model(self) -> Judge:
        """What MLflow's method of this name returns."""
        return self._judge

    def predict(self, model_input: object, params: object = None) -> pd.DataFrame:
        """`label` (ids, joined by `;` where the codebook allows many), `abstained`, then each label's
        score.

        `model_input`: a list or Series of texts, or a table with a column `text` or only one.
        """
        del params
        space = self._judge.space
        scores = self._judge.scores([cleaned(text) for text in texts_of(model_input)])
        table = pd.DataFrame(scores, columns=list(space.labels))
        decided = [
            ";".join(label for label, yes in zip(space.labels, flags, strict=True) if yes)
            for flags in space.decide(scores)
        ]
        table.insert(0, "abstained", space.abstains(scores), allow_duplicates=True)
        table.insert(0, "label", pd.Series(decided, dtype=object), allow_duplicates=True)
        return table


def texts_of(model_input: object) -> list[str]:
    """The texts in any of the shapes that MLflow hands over; `Problem` names a row, not its value."""
    if isinstance(model_input, pd.DataFrame):
        if "text" in model_input:
            column = model_input["text"]
        elif len(model_input.columns) == 1:
            column = model_input.iloc[:, 0]
        else:
            raise Problem("no column text", where="input", remedy="Name the column `text`.")
        texts = column.tolist()
    elif isinstance(model_input, pd.Series | np.ndarray | list | tuple):
        texts = list(model_input)
    else:
        raise Problem(
            f"a {type(model_input).__name__}, not a list of texts", where="input", remedy="Pass a list."
        )
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise Problem(f"a {type(text).__name__}, not a text", where=f"input, row {row}")
    return texts


def _load_pyfunc(path: str) -> Pyfunc:
    """MLflow calls this with the folder that was registered."""
    folder = Path(path)
    _check(folder)
    if (folder / MANIFEST).is_file():
        return Pyfunc(Predictor.load(folder))
    return Pyfunc(Candidate(models.load(folder)))


def _check(folder: Path) -> None:
    written = Model.load(str(folder.parents[1])).metadata or {}
    if md5(folder) != written.get("md5"):
        raise Problem(
            "not the bytes that were registered",
            where=str(folder),
            remedy="Delete this version in MLflow and run `dvc repro --force register`.",
        )


def _run(store: MlflowClient, entry: Entry, *, source: str, data: Mapping[str, str]) -> Any:
    """The newest run that made these bytes, else the one whose candidate was exported.

    A stage that DVC restored from its cache has left no run here, so one stands in for it.
    """
    model = entry.space.codebook
    home = tracking.experiment(store, model)
    for digest in (entry.md5, entry.trained):
        found = store.search_runs(
            [home], f"tags.`model.md5` = '{digest}'", order_by=["start_time DESC"], max_results=1
        )
        if found:
            return found[0]
    with tracking.run(
        experiment=model,
        name=f"restored-{entry.candidate}",
        stage="register",
        settings={},
        data=data,
        tags={"source": source, "candidate": entry.candidate, "family": entry.family},
    ) as run:
        run.tag({"model.md5": entry.trained})
    return store.get_run(run.id)


def _log(store: MlflowClient, entry: Entry, run: Any) -> str:
    """Copy the folder into the store as a model of MLflow; its id."""
    logged = store.create_logged_model(
        run.info.experiment_id,
        name=f"{entry.candidate}-{entry.role}",
        source_run_id=run.info.run_id,
        tags={"model.md5": entry.md5},
    )
    described = Model(
        artifact_path=logged.artifact_location,
        run_id=run.info.run_id,
        model_uuid=logged.model_id,
        model_id=logged.model_id,
        metadata={"md5": entry.md5},
    )
    # No schema of the input: MLflow would take a table's first column, whatever it is, and its
    # errors repeat the texts. `texts_of` looks instead.
    columns = [ColSpec("string", "label"), ColSpec("boolean", "abstained")]
    columns += [ColSpec("double", one) for one in entry.space.labels]
    with tempfile.TemporaryDirectory() as beside, warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*An input example")  # it would be a text in the store
        folder = Path(beside) / "model"
        mlflow.pyfunc.save_model(
            str(folder),
            loader_module=__name__,
            data_path=str(entry.folder),
            mlflow_model=described,
            signature=ModelSignature(outputs=Schema(columns)),
            pip_requirements=[
                f"{name}=={installed(name)}"
                for name in (_RELEASE if entry.role == "release" else _CANDIDATE)
            ],
        )
        store.log_model_artifacts(logged.model_id, str(folder))
    store.finalize_logged_model(logged.model_id, "READY")
    store.log_outputs(run.info.run_id, [LoggedModelOutput(logged.model_id, step=0)])
    return str(logged.model_id)


@contextmanager
def _global_store() -> Iterator[None]:
    """MLflow looks up `models:/…` in its global store, whatever client is asked (3.17).

    It puts that store's address into the environment, where `tracking.uri` would find it later.
    """
    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(tracking.uri())
    try:
        yield
    finally:
        mlflow.set_tracking_uri(None)
        if before is not None:
            os.environ["MLFLOW_TRACKING_URI"] = before


def _find(store: MlflowClient, name: str) -> ModelVersion:
    if "@" in name:
        return store.get_model_version_by_alias(*name.split("@", 1))
    if "/" in name:
        return store.get_model_version(*name.split("/", 1))
    names = [one.name for one in store.search_registered_models()]
    if name.isdigit() and len(names) == 1:
        return store.get_model_version(names[0], name)
    raise Problem(
        f"'{name}' names no version",
        where="registry",
        remedy=f"It has the models {', '.join(names) or 'none'}: write <model>@champion or <model>/1.",
    )
