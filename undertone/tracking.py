"""Runs in MLflow: where the store lies, and one run around one piece of work.

No text reaches MLflow, only numbers, settings, names and digests: never autolog, never an input
example, never a dataset object. Only this module and `registry` import mlflow.
"""

import json
import logging
import os
import re
import socket
import sqlite3
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from hashlib import md5
from pathlib import Path

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError

from undertone import provenance
from undertone.errors import Problem
from undertone.files import root

_PATHS = (  # where MLflow keeps absolute paths
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
)
_ARTIFACT = re.compile(r"(?:mlflow-artifacts:/+|(?:file://)?/(?:.*/)?mlartifacts/)(.+)")
_EVERY = 5.0  # seconds between two batches of numbers; each call costs about 30 ms on sqlite
_PAUSE = 60.0  # seconds until a store that failed is tried again


def uri() -> str:
    """$MLFLOW_TRACKING_URI, or `mlflow.db` in the repository's folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root()}/mlflow.db"


def client() -> MlflowClient:
    """The store's client; the first one on this machine makes the database."""
    # MLflow's own defaults keep a stage waiting for four minutes for a dead server
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store").setLevel(logging.CRITICAL)  # tells all that it raises again
    database = _database()
    if database is not None and not database.exists():
        with locked("create"):
            if not database.exists():
                create(database)
    return MlflowClient(tracking_uri=uri(), registry_uri=uri())


@contextmanager
def locked(purpose: str) -> Iterator[None]:
    """One process at a time for `purpose`; a store on a server brings its own order."""
    database = _database()
    if database is None:
        yield
        return
    with FileLock(database.with_name(f"{database.name}.{purpose}.lock")):
        yield


@contextmanager
def told() -> Iterator[None]:
    """Trouble with the store as a `Problem` of one line, without the address's password."""
    try:
        yield
    except (MlflowException, SQLAlchemyError) as error:
        raise Problem(
            _line(error),
            where=f"MLflow at {_without_password(uri())}",
            remedy="" if _database() else "Check MLFLOW_TRACKING_URI, and that the server runs.",
        ) from None


def experiment(store: MlflowClient, name: str) -> str:
    """The id of the experiment called `name`, made when there is none.

    `Problem` when it was deleted, or when its artifacts lie where this repository no longer is.
    """
    database = _database()
    home = database.parent / "mlartifacts" / name if database else None
    found = store.get_experiment_by_name(name)
    if found is None:
        with suppress(MlflowException):  # another process may be first
            store.create_experiment(name, artifact_location=str(home) if home else None)
        found = store.get_experiment_by_name(name)
    if found.lifecycle_stage == "deleted":
        raise Problem(
            "was deleted",
            where=f"MLflow experiment '{name}'",
            remedy=f"Run `mlflow experiments restore -x {found.experiment_id}`.",
        )
    if database is not None and _settled(found.artifact_location, database) != found.artifact_location:
        raise Problem(
            f"its artifacts are said to lie in {found.artifact_location}: the repository was moved",
            where=f"MLflow experiment '{name}'",
            remedy="Run `undertone relocate`.",
        )
    return str(found.experiment_id)


class Run:
    """A run under way. Numbers wait here and are sent together.

    A store that dies midway costs the end of the curves, never the training: what it didn't take
    is offered again later, and given up with one line on standard error at the end.
    """

    def __init__(self, store: MlflowClient, run_id: str) -> None:
        self.id = run_id
        self._store = store
        self._metrics: list[Metric] = []
        self._tags: list[RunTag] = []
        self._next = time.monotonic() + _EVERY
        self._trouble = ""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Points of the curves; cheap enough to call at each step."""
        now = int(time.time() * 1000)
        self._metrics += [Metric(key, float(value), now, step) for key, value in values.items()]
        if time.monotonic() >= self._next:
            self._send()

    def metrics(self, values: Mapping[str, float]) -> None:
        """Final metrics."""
        self.log(0, values)

    def tag(self, tags: Mapping[str, str]) -> None:
        self._tags += [RunTag(key, value) for key, value in tags.items()]

    def close(self, status: str) -> None:
        self.tag({"threads": str(provenance.threads())})
        self._send()
        if not self._trouble:
            try:
                self._store.set_terminated(self.id, status)
            except (MlflowException, SQLAlchemyError) as error:
                self._trouble = _line(error)
        if self._trouble:
            print(f"MLflow lost the end of run {self.id}: {self._trouble}", file=sys.stderr)

    def _send(self) -> None:
        try:
            while self._metrics or self._tags:
                self._store.log_batch(self.id, metrics=self._metrics[:900], tags=self._tags[:90])
                del self._metrics[:900], self._tags[:90]
            self._trouble = ""
        except (MlflowException, SQLAlchemyError) as error:
            self._trouble = _line(error)
        self._next = time.monotonic() + (_PAUSE if self._trouble else _EVERY)


@contextmanager
def run(
    *,
    experiment: str,
    name: str,
    stage: str,
    settings: BaseModel | Mapping[str, object],
    data: Mapping[str, str],
    tags: Mapping[str, str] | None = None,
) -> Iterator[Run]:
    """A run named `name`, after the DVC experiment where there is one, for the time of the block.

    `data` maps a name to the md5 that dvc.lock holds. The run ends FINISHED, FAILED on an
    exception, KILLED on SIGTERM (as exit code 143, see `stage.run`) or Ctrl-C; one that was killed
    without a chance to say so is marked by the next run on its machine.
    """
    within = os.environ.get("DVC_EXP_NAME")
    with told():
        store = client()
        home = _experiment(store, experiment)
        _bury(store)
        created = store.create_run(
            home,
            run_name=f"{within}-{name}" if within else name,
            tags={
                **provenance.here(),
                **{f"data.{key}": digest for key, digest in data.items()},
                "mlflow.source.name": stage,
                **(tags or {}),
            },
        )
    current = Run(store, created.info.run_id)
    status = "FAILED"
    try:
        with told():
            store.log_batch(current.id, params=[Param(*pair) for pair in flat(settings).items()])
            store.log_inputs(
                current.id,
                [
                    DatasetInput(Dataset(name=key, digest=digest, source_type="dvc", source="{}"))
                    for key, digest in data.items()
                ],
            )
        yield current
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit) as stop:
        if isinstance(stop, KeyboardInterrupt) or stop.code == 143:
            status = "KILLED"
        raise
    finally:
        current.close(status)


def flat(settings: BaseModel | Mapping[str, object], within: str = "") -> dict[str, str]:
    """`lora.r` → `16`; values as JSON writes them. A long text becomes its digest: it could be a
    prompt with comments in it."""
    content = settings.model_dump() if isinstance(settings, BaseModel) else settings
    settled: dict[str, str] = {}
    for key, value in content.items():
        if isinstance(value, BaseModel | Mapping):
            settled |= flat(value, f"{within}{key}.")
        else:
            shown = value if isinstance(value, str) else json.dumps(value, default=str)
            long = len(shown) > 250
            settled[within + key] = f"md5:{md5(shown.encode()).hexdigest()}" if long else shown
    return settled


def relocate() -> int:
    """Point a moved repository's database to where its artifacts lie now; how many rows changed."""
    database = _database()
    if database is None or not database.is_file():
        raise Problem("no mlflow.db here to rewrite", where=_without_password(uri()))
    changed = 0
    with locked("create"), closing(sqlite3.connect(database, timeout=60)) as connection, connection:
        for table, column in _PATHS:
            rows = connection.execute(f"SELECT rowid, {column} FROM {table}").fetchall()
            for row, location in rows:
                settled = _settled(location or "", database)
                if settled != (location or ""):
                    connection.execute(
                        f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (settled, row)
                    )
                    changed += 1
    return changed


_experiment = experiment  # `run` has an argument of that name


def _database() -> Path | None:
    address = uri()
    if not address.startswith("sqlite:///"):
        return None
    return Path(address.removeprefix("sqlite:///").partition("?")[0]).absolute()


def create(database: Path) -> None:
    # a kill, or a second process, in the midst of the first migration would ruin it for good
    beside = database.with_name(f"{database.name}.init")
    beside.unlink(missing_ok=True)
    store = SqlAlchemyStore(f"sqlite:///{beside}", str(database.parent / "mlartifacts"))
    store.engine.dispose()
    os.replace(beside, database)


def _settled(location: str, database: Path) -> str:
    ours = _ARTIFACT.fullmatch(location)
    return str(database.parent / "mlartifacts" / ours[1]) if ours else location


def _bury(store: MlflowClient) -> None:
    """Mark this machine's runs whose process is gone."""
    running = store.search_runs(
        [one.experiment_id for one in store.search_experiments()],
        f"attributes.status = 'RUNNING' and tags.`{provenance.HOST}` = '{socket.gethostname()}'",
    )
    for one in running:
        # it may have ended well since it was looked up; once its process is gone nothing changes
        gone = not provenance.alive(one.data.tags)
        if gone and store.get_run(one.info.run_id).info.status == "RUNNING":
            store.set_terminated(one.info.run_id, "KILLED")


def _line(error: Exception) -> str:
    return _without_password(str(error).splitlines()[0].partition(" (Caused by")[0])


def _without_password(address: str) -> str:
    return re.sub(r"//[^/@\s]*@", "//", address)
