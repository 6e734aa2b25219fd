"""Two who judge texts, on the same rows: candidates of the workspace or of an experiment, MLflow runs,
registered versions."""

import io
import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from dvc.api import DVCFileSystem
from dvc.exceptions import DvcException
from dvc_data.index import DataIndexError

from undertone import tables
from undertone.errors import Problem
from undertone.files import md5, root
from undertone.labels import LabelSpace
from undertone.measures import comparison, evaluation
from undertone.params import Params
from undertone.records import registry, tracking
from undertone.reporting import compare

Judge = tuple[LabelSpace, pd.DataFrame]  # its thresholds, its scores


def compared(
    names: tuple[str, str], params: Params, source: str, *, part: str, reference: tables.Reference
) -> str:
    """What `comparison.told` says of the two on the workspace's rows of `part`.

    What isn't a score yet is scored now. `Problem` where one can't be found, or was asked about other
    rows or labels.
    """
    folder = root()
    table = tables.read(folder / f"data/{source}/split.parquet", ("id", "text", "part", "group"))
    space = LabelSpace.load(folder / f"data/{source}/space.json")
    found = {name: _judge(name, source, table[table["part"] == part], folder) for name in names}
    if len(found) < 2:
        raise Problem("compared with itself", where=names[0])
    for name, (own, _) in found.items():
        if own.labels != space.labels:
            raise Problem(f"has the labels {', '.join(own.labels)}", where=name)
    pair = evaluation.compare_two(
        table[table["part"].isin(["train", part])],
        found,
        space,
        part=part,
        reference=reference,
        metric=params.select.metric,
        draws=params.evaluate.draws,
        seed=params.seed,
    )
    truth = "the labels" if reference == "label" else "people's labels"
    return f"{comparison.told(pair)}; on {part}, against {truth}; p of this comparison alone"


def _judge(name: str, source: str, rows: pd.DataFrame, folder: Path) -> Judge:
    if compare.VERSION.fullmatch(name):
        return _registered(name, source, rows, folder)
    if compare.RUN.fullmatch(name):
        return _registered(_version_of(name), source, rows, folder)
    revision, _, candidate = name.rpartition(":")
    files = (
        f"models/candidates/{source}/{candidate}/labels.json",
        f"data/{source}/scores/{candidate}.parquet",
    )
    if revision:
        commit = compare.commit_of(revision, folder)
        labels, scores = _at(commit, files, folder, name)
    else:
        missing = [file for file in files if not (folder / file).is_file()]
        if missing:
            raise Problem("no such file", where=missing[0], remedy="Run `dvc repro`, or `dvc pull`.")
        labels, scores = ((folder / file).read_bytes() for file in files)
    return LabelSpace.from_json(json.loads(labels)), pd.read_parquet(io.BytesIO(scores))


def _at(commit: str, files: Sequence[str], folder: Path, name: str) -> list[bytes]:
    """Files that DVC tracked at `commit`, from the cache or else the remote."""
    there = DVCFileSystem(str(folder), rev=commit)  # seconds; dvc.api.read would open one for each file
    found: list[bytes] = []
    for file in files:
        try:
            found.append(there.read_bytes(file))
        except (DvcException, DataIndexError, OSError):
            raise Problem(
                f"no {file} there, or it isn't in DVC's cache",
                where=name,
                remedy="Run `dvc pull`, or the experiment again.",
            ) from None
    return found


def _registered(name: str, source: str, rows: pd.DataFrame, folder: Path) -> Judge:
    version = registry.find(name)
    split = md5(folder / f"data/{source}/split.parquet")
    if version.tags["source"] == source and version.tags["data.comments"] != split:
        raise Problem(
            f"learnt from another split of {source}, whose training rows may be judged here",
            where=name,
            remedy="Bring that split back (`undertone lineage` says how), or train anew.",
        )
    judge = registry.judge(version)
    return judge.space, tables.scores_table(rows["id"], judge.scores(rows["text"].tolist()), judge.space)


def _version_of(run: str) -> str:
    with tracking.told():
        found = tracking.client().search_model_versions(f"run_id = '{run}'")
    if not found:
        raise Problem("no registered version came of this run", where=run)
    newest = max(found, key=lambda one: int(one.version))
    return f"{newest.name}/{newest.version}"
