"""The registry: one model a codebook, a version for each candidate and each release.

Which version is which, aliases say: a candidate's name (its newest), `champion`, `release`.
MLflow loads a version through `_load_pyfunc` below, so no code and no pickle lies in the store.
"""

import json
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any, Literal, Protocol

import mlflow.artifacts
import mlflow.pyfunc
import numpy as np
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput
from mlflow.entities.model_registry import ModelVersion
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, Schema

from undertone import models
from undertone.corpus import digests
from undertone.corpus.cells import UNUSABLE
from undertone.deployment.predictor import MANIFEST, Predictor, read_manifest
from undertone.errors import Problem
from undertone.files import md5
from undertone.labels import LabelSpace, Scores, answered
from undertone.networks import loading
from undertone.params import read_yaml
from undertone.records import provenance, runs, tracking
from undertone.records.journal import Record
from undertone.records.runs import Ledger
from undertone.text import cleaned

Role = Literal["candidate", "release"]
RESTORED = "restored"  # the tag of a run that stands in for one that is nowhere to be found
_INPUTS = {  # what `train` reads, and where it lies
    "labels": re.compile(r"data/[^/]+/space\.json"),
    "comments": re.compile(r"data/[^/]+/split\.parquet"),
    "base": re.compile(r"models/bases/.+"),
    "adapted": re.compile(r"models/adapted/.+"),
    "instruction": re.compile(r"models/instructions/.+"),
}
_RELEASE = ("numpy", "pandas", "onnxruntime", "tokenizers")
_CANDIDATE = (
    *("numpy", "pandas", "pydantic", "scikit-learn", "safetensors", "torch", "transformers"),
    *("peft", "bitsandbytes"),
)


@dataclass(frozen=True)
class Entry:
    """A folder to register; `trained` is the md5 of the candidate's folder it was made from.

    `base` names the pretrained weights with their revision, empty where there are none.
    """

    folder: Path
    role: Role
    candidate: str
    family: str
    base: str
    space: LabelSpace
    md5: str
    trained: str

    @classmethod
    def of(cls, folder: Path, role: str, name: str) -> "Entry":
        return cls.of_release(folder) if role == "release" else cls.of_candidate(folder, name)

    @classmethod
    def of_candidate(cls, folder: Path, name: str) -> "Entry":
        own = models.Recipe.load(folder / models.RECIPE).settings
        space = LabelSpace.load(folder / "labels.json")
        digest = md5(folder)
        return cls(folder, "candidate", name, own.family, own.base or "", space, digest, digest)

    @classmethod
    def of_release(cls, folder: Path) -> "Entry":
        manifest = read_manifest(folder)
        return cls(
            folder,
            "release",
            manifest["candidate"],
            manifest["settings"]["family"],
            manifest["settings"].get("base") or "",
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
    codebook: Path,
    pictures: Path,
    selection: Mapping[str, Any],
    target: Mapping[str, Any] | None,
    summary: Mapping[str, Any],
) -> dict[str, Any]:
    """Register all, move the aliases, write the ledger of runs, and say which version is which.

    What is already there is used again. `selection` names the champion; a release that missed its
    latency `target` becomes a version, but not the alias; `summary` holds each candidate's metrics.
    The run of a candidate gets its folder of `pictures`, the champion's also those of all. Where no
    server answers, the ledger keeps what is to be registered by `undertone sync`.
    """
    bundle = Entry.of_release(release)
    known = {
        "source": source,
        "codebook": codebook.as_posix(),
        "codebook.md5": md5(codebook),
        "data.comments": md5(comments),
        **{f"digest.{part}": one for part, one in digests.parts(comments, bundle.space).items()},
    }
    entries = {name: Entry.of_candidate(folder, name) for name, folder in candidates.items()}
    facts = {
        name: {**known, **{key: f"{value:.4f}" for key, value in summary[name].items()}}
        for name in entries
    }
    champion = selection["champion"]
    released = target is None or target["passed"]
    numbers: dict[str, int] = {}
    number = 0
    with runs.opened(runs.LEDGER) as ledger:
        try:
            with tracking.told(), tracking.locked("register"):
                store = tracking.client()
                for trouble in tracking.send_unsent(store)[1]:
                    print(trouble, file=sys.stderr)
                numbers = {name: add(store, one, facts[name], ledger) for name, one in entries.items()}
                number = add(store, bundle, known, ledger)
                model = bundle.space.codebook
                for name, one in numbers.items():
                    run = store.get_model_version(model, str(one)).run_id
                    _show(store, run, pictures / name)
                    if name == champion:
                        _show(store, run, pictures)
                aliases = {**numbers, "champion": numbers[champion]}
                if released:
                    aliases["release"] = number
                for alias, one in aliases.items():
                    store.set_registered_model_alias(model, alias, str(one))
                seen = mirrored(store, ledger)
        except tracking.Unreachable as problem:
            if tracking.refuses():
                raise
            print(f"{problem} `undertone sync` registers what is here.", file=sys.stderr)
            names = {name: (name, "champion") if name == champion else (name,) for name in entries}
            seen = Ledger(
                tracking.unsent(),
                {
                    line.key: line
                    for line in (
                        *(_planned(one, facts[name], names[name]) for name, one in entries.items()),
                        _planned(bundle, known, ("release",) if released else ()),
                    )
                },
            )
        runs.write(runs.LEDGER, ledger.joined(seen))
    return {
        "model": bundle.space.codebook,
        "candidates": {name: numbers.get(name) for name in entries},
        "champion": champion,
        "release": number or None,
        "released": released,
    }


def told(registered: Mapping[str, Any]) -> str:
    """`gender: tfidf 1, bert 2 (champion); release 3`; without numbers where no server answered."""
    shown = [
        f"{name} {number or 'not yet'}" + (" (champion)" if name == registered["champion"] else "")
        for name, number in registered["candidates"].items()
    ]
    kept = "" if registered["released"] else " (kept back: latency target missed)"
    release = registered["release"] or "not yet"
    return f"{registered['model']}: {', '.join(shown)}; release {release}{kept}"


def add(store: MlflowClient, entry: Entry, facts: Mapping[str, str], ledger: Ledger) -> int:
    """The number of the version that holds this entry, made when there is none.

    `facts` become its tags, with what its run says of inputs, seed and library versions.
    """
    model = entry.space.codebook
    if not store.search_registered_models(f"name = '{model}'"):
        store.create_registered_model(model)
    found = store.search_model_versions(
        f"name = '{model}' and tags.`model.md5` = '{entry.md5}' and tags.role = '{entry.role}'"
    )
    if found:
        newest = max(found, key=lambda one: int(one.version))
        if facts.keys() - newest.tags.keys():  # an older undertone knew less
            tags = _tags(store, entry, facts, store.get_run(newest.run_id))
            for key in tags.keys() - newest.tags.keys():
                store.set_model_version_tag(model, newest.version, key, tags[key])
        return int(newest.version)
    run = _run(store, entry, facts, ledger)
    logged = _log(store, entry, run)
    with _global_store():
        made = store.create_model_version(
            model,
            source=f"models:/{logged}",
            run_id=run.info.run_id,
            model_id=logged,
            tags=_tags(store, entry, facts, run),
        )
    return int(made.version)


def mirrored(store: MlflowClient, known: Ledger) -> Ledger:
    """The store's versions, and its runs that are over and not so in `known`.

    A training that made again what a run of `known` had made, bit for bit, is no news: that run stands
    for it.
    """
    ours = tracking.ours(store)
    first = {
        _outcome(one.name, one.status, one.params, one.data, one.tags): one.id
        for one in known.runs.values()
        if "model.md5" in one.tags
    }
    repeats: dict[str, str] = {}
    for origin, run in ours.items():
        data = {one.dataset.name: one.dataset.digest for one in run.inputs.dataset_inputs}
        told = run.data.params, data, run.data.tags
        same = first.get(_outcome(run.info.run_name, run.info.status, *told))
        if same and origin not in known.runs:
            repeats[origin] = same
    origins = {run.info.run_id: repeats.get(origin, origin) for origin, run in ours.items()}
    fresh = {
        origin: tracking.recorded(store, run)
        for origin, run in ours.items()
        if origin not in repeats
        and run.info.lifecycle_stage == "active"
        and run.info.end_time
        and not _same(known.runs.get(origin), run)
    }
    lines = [
        runs.Line(
            model=model.name,
            number=int(one.version),
            aliases=tuple(sorted(name for name, at in model.aliases.items() if at == one.version)),
            run=origins.get(one.run_id, ""),
            registered=one.creation_timestamp,
            tags=one.tags,
        )
        for model in store.search_registered_models()
        for one in _versions(store, model.name)
    ]
    return Ledger(fresh, {line.key: line for line in lines})


def alias(store: MlflowClient, line: runs.Line) -> list[str]:
    """Give a version of the ledger its aliases that nobody has in this registry, or all where they were
    decided while it was away; what was done."""
    found = store.search_model_versions(
        f"name = '{line.model}' and tags.`model.md5` = '{line.tags['model.md5']}'"
        f" and tags.role = '{line.tags['role']}'"
    )
    if not found:
        return []
    newest = max(found, key=lambda one: int(one.version)).version
    taken = store.get_registered_model(line.model).aliases
    new = [
        one
        for one in line.aliases
        if one not in taken or (line.pending and str(taken[one]) != str(newest))
    ]
    for one in new:
        store.set_registered_model_alias(line.model, one, newest)
    return [f"{line.model}@{one} is version {newest}" for one in new]


def _outcome(
    name: str,
    status: str,
    params: Mapping[str, str],
    data: Mapping[str, str],
    tags: Mapping[str, str],
) -> str:
    """Equal for two runs that learnt the same from the same, made the same bytes, and differ in when and
    where alone."""
    own = {key: tags.get(key) for key in ("source", "candidate", "seed", "model.md5")}
    return json.dumps([name, status, dict(params), dict(data), own], sort_keys=True)


def _same(record: Record | None, run: Any) -> bool:
    return record is not None and (record.status, record.end) == (run.info.status, run.info.end_time)


def _versions(store: MlflowClient, model: str) -> list[ModelVersion]:
    """Those that `add` made, oldest first."""
    found: list[ModelVersion] = []
    token = None
    while True:
        page = store.search_model_versions(f"name = '{model}'", page_token=token)
        found += [one for one in page if one.tags.keys() >= runs.NEEDED]
        token = page.token
        if not token:
            return sorted(found, key=lambda one: int(one.version))


def _planned(entry: Entry, facts: Mapping[str, str], aliases: tuple[str, ...]) -> runs.Line:
    """A version that is in no registry yet."""
    tags = {**facts, **_own(entry)}
    return runs.Line(entry.space.codebook, 0, aliases, "", 0, tags, pending=True)


def _own(entry: Entry) -> dict[str, str]:
    return {
        "role": entry.role,
        "candidate": entry.candidate,
        "family": entry.family,
        "base": entry.base,
        "model.md5": entry.md5,
        "dvc.path": entry.folder.as_posix(),
        "dvc.md5": entry.md5,
    }


def _tags(store: MlflowClient, entry: Entry, facts: Mapping[str, str], run: Any) -> dict[str, str]:
    made = _of(store, run.info.experiment_id, entry.trained) or run
    if "data.base" in made.data.tags:
        inputs = {
            key: value
            for key, value in made.data.tags.items()
            if key == "seed" or key.startswith(("data.", "version."))
        }
    else:
        inputs = _locked(entry.trained)
    stood_in = RESTORED in run.data.tags  # where it was trained nobody here knows
    return {
        **{key: value for key, value in run.data.tags.items() if key.startswith("data.")},
        **inputs,
        "commit": "" if stood_in else run.data.tags.get(provenance.COMMIT, ""),
        "experiment": "" if stood_in else run.data.tags.get(provenance.EXPERIMENT, ""),
        **_own(entry),
        **facts,
    }


def _locked(digest: str) -> dict[str, str]:
    """What dvc.lock says went into the candidate's folder with this md5; empty where it doesn't say."""
    lock = Path("dvc.lock")
    content: Any = read_yaml(lock) if lock.is_file() else {}
    stages = content.get("stages", {})
    for name, stage in stages.items():
        if name.startswith("train@") and digest in {out.get("md5") for out in stage.get("outs", [])}:
            inputs = {
                f"data.{key}": dep["md5"]
                for dep in stage.get("deps", [])
                for key, place in _INPUTS.items()
                if place.fullmatch(dep["path"])
            }
            params = stage.get("params", {}).get("params.yaml", {})
            return {**inputs, "seed": str(params.get("seed", ""))}
    return {}


def _show(store: MlflowClient, run: str, folder: Path) -> None:
    """Put the pictures of a folder beside a run; there may be none."""
    with tracking.large():
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


def copy_of(name: str) -> Path | None:
    """The folder of a version's bytes in the registry; None where they lie on another machine."""
    with tracking.told():
        store = tracking.client()
        found = _find(store, name.removeprefix("models:/"))
        logged = store.get_logged_model(found.source.removeprefix("models:/"))
    place = Path(logged.artifact_location.removeprefix("file://"))
    folder = place / "data" / Path(found.tags["dvc.path"]).name
    return folder if folder.is_dir() else None


class Judge(Protocol):
    """A trained candidate or a release's predictor; its scores are calibrated."""

    space: LabelSpace

    def scores(self, texts: Sequence[str]) -> Scores: ...


def judge(version: Version) -> Judge:
    """The version's model, from the bytes that its tag names.

    Not by MLflow, which would run whatever loader and code the stored MLmodel names.
    """
    return _opened(_stored(version), version.tags["model.md5"])


def copy(version: Version, folder: Path) -> Path:
    """The version's files in a new folder in `folder`: the bytes that its tag names, and data only."""
    copied = _stored(version, folder)
    loading.check(copied, version.tags["model.md5"])
    return copied


def _stored(version: Version, folder: Path | None = None) -> Path:
    with tracking.told(), tracking.large(), _global_store():
        name = f"models:/{version.model}/{version.number}"
        stored = mlflow.artifacts.download_artifacts(name, dst_path=folder and str(folder))
    return Path(stored) / "data" / Path(version.tags["dvc.path"]).name


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
        score. Of a text that isn't judged, as it is empty or broken, no label, and None for scores.

        `model_input`: a list or Series of texts, or a table with a column `text` or only one.
        """
        del params
        space = self._judge.space
        texts = ["" if UNUSABLE.search(one) else cleaned(one) for one in texts_of(model_input)]
        empty = np.array([not one for one in texts], dtype=bool)
        scores = np.where(empty[:, None], np.nan, self._judge.scores(texts))
        table = pd.DataFrame(scores, columns=list(space.labels))
        if not answered(scores).all():  # JSON has no NaN, though MLflow's server would write it
            table = table.astype(object).where(table.notna(), None)
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
    written = Model.load(str(Path(path).parents[1])).metadata or {}
    return Pyfunc(_opened(Path(path), str(written.get("md5"))))


def _opened(folder: Path, digest: str) -> Judge:
    loading.check(folder, digest)
    if (folder / MANIFEST).is_file():
        return Predictor.load(folder)
    return Candidate(models.load(folder))


def _run(store: MlflowClient, entry: Entry, facts: Mapping[str, str], ledger: Ledger) -> Any:
    """The newest run that made these bytes, else the one whose candidate was exported; of the store, or
    of the ledger.

    A stage that DVC restored from its cache has left no run where it never ran, so one stands in.
    """
    home = tracking.experiment(store, entry.space.codebook)
    for digest in dict.fromkeys((entry.md5, entry.trained)):
        if found := _of(store, home, digest):
            return found
        told = [one for one in ledger.runs.values() if one.tags.get("model.md5") == digest]
        if told:
            tracking.send(store, max(told, key=lambda one: one.start))
            return _of(store, home, digest)
    recipe = entry.folder / models.RECIPE
    with tracking.run(
        experiment=entry.space.codebook,
        name=f"restored-{entry.candidate}",
        stage="register",
        settings=models.Recipe.load(recipe).settings if recipe.is_file() else {},
        data={"comments": facts["data.comments"]},
        tags={
            "source": facts["source"],
            "candidate": entry.candidate,
            "family": entry.family,
            RESTORED: "true",
        },
    ) as run:
        run.tag({"model.md5": entry.trained})
    return store.get_run(run.id)


def _of(store: MlflowClient, home: str, digest: str) -> Any:
    """The newest run that made a folder with this md5."""
    found = store.search_runs(
        [home], f"tags.`model.md5` = '{digest}'", order_by=["start_time DESC"], max_results=1
    )
    return found[0] if found else None


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
    if entry.role == "release":
        _as_onnx(described, entry.folder)
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
        with tracking.large():
            store.log_model_artifacts(logged.model_id, str(folder))
    store.finalize_logged_model(logged.model_id, "READY")
    store.log_outputs(run.info.run_id, [LoggedModelOutput(logged.model_id, step=0)])
    return str(logged.model_id)


def _as_onnx(described: Model, folder: Path) -> None:
    """Let `mlflow.onnx.load_model` hand out the graph that onnxruntime runs right on any CPU."""
    manifest = read_manifest(folder)
    variants = manifest["variants"]
    own = next(name for name in manifest["runs"]["avx2"] if variants[name]["backend"] == "onnxruntime")
    described.add_flavor(
        "onnx",
        onnx_version=installed("onnx"),
        data=f"data/{folder.name}/{variants[own]['file']}",
        providers=["CPUExecutionProvider"],
        onnx_session_options=None,
        code=None,
    )


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
    models_ = {one.name: one for one in store.search_registered_models()}
    if not models_:
        remedy = (
            "Run `undertone sync`, which registers those of reports/runs.jsonl whose models are here;"
            " they come by `dvc repro` or `dvc pull`."
        )
        raise Problem("is empty", where="registry", remedy=remedy)
    model, alias = name.split("@", 1) if "@" in name else (name, "")
    model, number = model.split("/", 1) if "/" in model else (model, "")
    if name.isdigit() and len(models_) == 1:
        model, number = next(iter(models_)), name
    if model not in models_ or not (alias or number):
        first = next(iter(models_))
        raise Problem(
            f"'{name}' names no version",
            where="registry",
            remedy=f"It has the models {', '.join(models_)}: write {first}@champion or {first}/1.",
        )
    known = models_[model].aliases
    if alias:
        if alias not in known:
            aliases = ", ".join(sorted(known)) or "none"
            raise Problem(f"no alias '{alias}'", where=f"registry, {model}", remedy=f"It has {aliases}.")
        number = str(known[alias])
    numbers = [str(one.version) for one in store.search_model_versions(f"name = '{model}'")]
    if number not in numbers:
        remedy = f"It has {', '.join(sorted(numbers, key=int)) or 'none'}."
        raise Problem(f"no version '{number}'", where=f"registry, {model}", remedy=remedy)
    return store.get_model_version(model, number)
