"""Runs in MLflow: where the store lies, and one run around one piece of work.

No text reaches MLflow, only numbers, settings, names and digests: never autolog, never an input
example, never a dataset object.
"""

import json
import logging
import os
import re
import signal
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from hashlib import md5
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, Metric, Param, RunTag, ViewType
from mlflow.entities import Run as Stored
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request
from pydantic import BaseModel
from requests import RequestException
from sqlalchemy.exc import SQLAlchemyError

from undertone.errors import REFUSALS, Problem, misread, without_password
from undertone.files import root
from undertone.params import read_params
from undertone.records import journal, provenance
from undertone.records.journal import Journal, Point, Record

ORIGIN = "run.origin"  # the tag that holds a run's own id, in whatever store it is

_PATHS = (  # where MLflow keeps absolute paths
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
)
_ARTIFACT = re.compile(r"(?:mlflow-artifacts:/+|(?:file://)?/(?:.*/)?mlartifacts/)(.+)")
_EVERY = 5.0  # seconds between two batches of numbers; each call costs about 30 ms on sqlite
_PAUSE = 60.0  # seconds until a store that failed is tried again
_PATIENCE = 5.0  # seconds for a server to show that it is there
_TROUBLE = (MlflowException, SQLAlchemyError, RequestException)  # the last of files alone


Store = MlflowClient


def uri() -> str:
    """$MLFLOW_TRACKING_URI, or `mlflow.db` in the repository's folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root()}/mlflow.db"


def client() -> MlflowClient:
    """The store's client; the first one on this machine makes the database.

    `Unreachable` within seconds where no server answers.
    """
    # MLflow's own defaults keep a stage waiting for four minutes for a dead server
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "4")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # a stage logs one line
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store").setLevel(logging.CRITICAL)  # tells all that it raises again
    database = _database()
    if database is not None and not database.exists():
        with locked("create"):
            if not database.exists():
                create(database)
    _reach()
    return MlflowClient(tracking_uri=uri(), registry_uri=uri())


class Unreachable(Problem):
    """No server answers where the store should be."""


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
    except _TROUBLE as error:
        what, remedy = REFUSALS.get(_status(error), (_line(error), ""))
        trouble: Problem = Problem(what, where=_where(), remedy=remedy)
        try:
            _reach()
        except Unreachable as away:
            trouble = away
        raise trouble from None


def experiment(store: MlflowClient, name: str) -> str:
    """The id of the experiment called `name`, made when there is none.

    `Problem` when it was deleted, or when its artifacts lie where this repository no longer is.
    """
    database = _database()
    home = database.parent / "mlartifacts" / name if database else None
    found = store.get_experiment_by_name(name)
    if found is None:
        try:
            store.create_experiment(name, artifact_location=str(home) if home else None)
        except MlflowException:
            if store.get_experiment_by_name(name) is None:  # else another process was first
                raise
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
    """A run under way. Its numbers are on this disk at once, and are sent to MLflow together.

    A store that dies midway costs nothing: what it didn't take is offered again, at the latest by
    `undertone sync`.
    """

    def __init__(self, record: Record, patience: "_Patience") -> None:
        self.id = record.id  # until the store has given it one of its own
        self._record = record
        self._patience = patience
        self._store: MlflowClient | None = None
        self._begun = False
        self._metrics: list[Metric] = []
        self._tags: list[RunTag] = []
        self._next = time.monotonic() + _EVERY
        self._trouble = ""
        self._reached = 0  # the last step of the curves
        self._journal = Journal(root() / journal.FOLDER, record)

    def begin(self) -> None:
        """Make the run in the store; `Unreachable` or another `Problem` when that can't be."""
        with told():
            store = client()
            if not self._trouble:
                _bury(store)
            self.id = _make(store, self._record)
            self._store = store
            _fill(store, self.id, self._record)
        self._begun = True

    def wait(self, trouble: str) -> None:
        """The store isn't there: go on without."""
        self._trouble = trouble
        self._next = time.monotonic() + _PAUSE

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Points of the curves; cheap enough to call at each step."""
        now = _now()
        self._reached = max(self._reached, step)
        numbers = {key: float(value) for key, value in values.items()}
        self._journal.points(now, step, numbers)
        self._metrics += [Metric(key, value, now, step) for key, value in numbers.items()]
        if time.monotonic() >= self._next:
            with self._patience.hold():
                self._send()

    def metrics(self, values: Mapping[str, float]) -> None:
        """Final metrics, at the end of the curves: MLflow shows the figure of the last step."""
        self.log(self._reached, values)

    def tag(self, tags: Mapping[str, str]) -> None:
        self._journal.tags(tags)
        self._tags += [RunTag(key, value) for key, value in tags.items()]

    def close(self, status: str) -> None:
        self.tag({"threads": str(provenance.threads())})
        end = _now()
        self._journal.end(status, end)
        self._send()
        if self._store is not None and not self._trouble:
            try:
                _finish(self._store, self.id, self._record.id, status, end)
            except _TROUBLE as error:
                self._trouble = _line(error)
        self._journal.close(sent=not self._trouble)
        if self._trouble:
            lost = self._journal.trouble
            held = f"All but what found no place ({lost})" if lost else "All"
            print(
                f"MLflow: {self._trouble.rstrip('.')}. {held} of run {self._record.name} is in"
                f" {journal.FOLDER}/{self._journal.path.name}; `undertone sync` sends it.",
                file=sys.stderr,
            )

    def discard(self, *, away: bool) -> None:
        """It could not begin, and holds nothing; what there is of it in the store has failed."""
        if self._store is not None and not away:
            with suppress(*_TROUBLE):
                self._store.set_terminated(self.id, "FAILED")
        self._journal.close(sent=True)

    def _send(self) -> None:
        try:
            if not self._begun:
                self.begin()
            elif self._trouble:
                _reach()  # cheaper than a call that waits for a dead server
            assert self._store is not None
            while self._metrics or self._tags:
                self._store.log_batch(self.id, metrics=self._metrics[:900], tags=self._tags[:90])
                del self._metrics[:900], self._tags[:90]
            self._trouble = ""
        except Problem as problem:
            self._trouble = str(problem)
        except _TROUBLE as error:
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
    without a chance to say so is marked by the next run on its machine. Where no server answers it is
    recorded on this machine, or `Unreachable` is raised, as `tracking.unreachable` of params.yaml says.
    """
    within = os.environ.get("DVC_EXP_NAME")
    own = uuid4().hex
    record = Record(
        id=own,
        name=f"{within}-{name}" if within else name,
        experiment=experiment,
        start=_now(),
        params=flat(settings),
        tags={
            **provenance.here(),
            **{f"data.{key}": digest for key, digest in data.items()},
            "mlflow.source.name": stage,
            **(tags or {}),
            ORIGIN: own,
        },
        data=dict(data),
    )
    status = "FAILED"
    with _Patience() as patience:
        current = Run(record, patience)
        begun = False
        try:
            _begin(current)
            begun = True
            patience.end()
            try:
                yield current
                status = "FINISHED"
            finally:
                patience.start()
        except (KeyboardInterrupt, SystemExit) as stop:
            if isinstance(stop, KeyboardInterrupt) or stop.code == 143:
                status = "KILLED"
            raise
        finally:
            if begun:
                current.close(status)


def _begin(current: Run) -> None:
    try:
        current.begin()
    except Unreachable as problem:
        if refuses():
            current.discard(away=True)
            raise
        current.wait(str(problem))
        print(f"{problem} The run is recorded on this machine.", file=sys.stderr)
    except BaseException:
        current.discard(away=False)
        raise


def refuses() -> bool:
    """Whether a stage is to stop where no server answers; the experiment's own params say so."""
    params = Path("params.yaml")
    return params.is_file() and read_params(params).tracking.unreachable == "refuse"


class _Patience:
    """SIGTERM and Ctrl-C wait while MLflow is spoken to: what half a call leaves behind is RUNNING.

    From the first of them on, and from `start` on, all wait for the end.
    """

    def __init__(self) -> None:
        self._busy = True
        self._came: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "_Patience":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._before[number] = signal.signal(number, self._arrived)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._came is not None:
            signal.raise_signal(self._came)

    @contextmanager
    def hold(self) -> Iterator[None]:
        before, self._busy = self._busy, True
        try:
            yield
        finally:
            if not before:
                self.end()

    def start(self) -> None:
        self._busy = True

    def end(self) -> None:
        self._busy = False
        if self._came is not None:
            number, self._came = self._came, None
            self._arrived(number, None)

    def _arrived(self, number: int, frame: FrameType | None) -> None:
        if self._busy:
            self._came = number
            return
        self._busy = True
        handler = self._before[number]
        if callable(handler):
            handler(number, frame)  # a stage's exits
            self._busy = False
        else:
            sys.exit(128 + number)


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


@contextmanager
def large() -> Iterator[None]:
    """Time for files that a server hands on, to another machine maybe, before it answers."""
    client()  # sets the usual limit
    before = os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"]
    os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = str(max(600, int(before)))
    try:
        yield
    finally:
        os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = before


def relocate() -> int:
    """Point a moved repository's database to where its artifacts lie now; how many rows changed."""
    database = _database()
    if database is None or not database.is_file():
        raise Problem("no mlflow.db here to rewrite", where=without_password(uri()))
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


def _where() -> str:
    return f"MLflow at {without_password(uri())}"


def _reach() -> None:
    """`Unreachable` unless a server answers, whatever it answers, within seconds."""
    address = uri()
    if address.startswith("sqlite:"):
        return
    found: list[str] = []
    # a thread, since the look-up of a name knows no limit of time
    asking = threading.Thread(target=lambda: found.append(_asked(address)), daemon=True)
    asking.start()
    asking.join(_PATIENCE)
    trouble = found[0] if found else "doesn't answer"
    if trouble:
        remedy = "Check MLFLOW_TRACKING_URI, and that the server runs."
        raise Unreachable(trouble, where=_where(), remedy=remedy)


def _asked(address: str) -> str:
    """What keeps a server from being asked; empty where nothing does."""
    try:
        if address.startswith("http"):
            answer = http_request(
                get_default_host_creds(address),
                *("/health", "GET"),
                max_retries=0,
                timeout=_PATIENCE - 1,
                raise_on_status=False,
            )
            return f"answers with status {answer.status_code}" if answer.status_code >= 500 else ""
        place = urlsplit(address)
        if place.scheme.startswith("postgresql"):
            if odd := misread(address):
                return odd
            socket.create_connection((place.hostname, place.port or 5432), _PATIENCE - 1).close()
    except (MlflowException, OSError):
        return "can't be reached"
    except ValueError:  # it would repeat what it took for a port
        return "is no address"
    return ""


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


def send(store: MlflowClient, record: Record) -> None:
    """All of a run that is over is in the store, once, however often it is sent."""
    run = _make(store, record)
    _fill(store, run, record)
    points = [Metric(*point) for point in record.points]
    for start in range(0, len(points), 900):
        store.log_batch(run, metrics=points[start : start + 900])
    tags = [RunTag(*pair) for pair in record.tags.items()]
    for start in range(0, len(tags), 90):
        store.log_batch(run, tags=tags[start : start + 90])
    _finish(store, run, record.id, record.status, record.end)


def send_unsent(store: MlflowClient) -> tuple[list[str], list[str]]:
    """Send what was recorded while the store was away: names of runs sent, and lines of trouble."""
    sent, trouble = [], []
    for path in journal.left(root()):
        with journal.over(path) as over:
            if not over:
                continue
            record = journal.read(path)
            if record is None:
                trouble.append(f"{path}: says of no run what it is. Remove it.")
                continue
            try:
                with told():
                    send(store, record)
            except Unreachable:
                raise
            except Problem as problem:
                trouble.append(f"{path.name}: {problem}")
                continue
            path.unlink(missing_ok=True)
            sent.append(record.name)
    return sent, trouble


def unsent() -> dict[str, Record]:
    """Own id → each run that is over and waits on this machine."""
    found: dict[str, Record] = {}
    for path in journal.left(root()):
        with journal.over(path) as over:
            record = journal.read(path) if over else None
        if record is not None:
            found[record.id] = record
    return found


def ours(store: MlflowClient) -> dict[str, Stored]:
    """Own id → each run that this project made, in all experiments; those that were deleted too."""
    found: dict[str, Stored] = {}
    homes = [one.experiment_id for one in store.search_experiments(view_type=ViewType.ALL)]
    token = None
    while homes:
        # small pages: a call has few seconds
        page = store.search_runs(homes, run_view_type=ViewType.ALL, max_results=200, page_token=token)
        for one in page:
            if provenance.HOST in one.data.tags or ORIGIN in one.data.tags:  # not what hands logged
                found[one.data.tags.get(ORIGIN, one.info.run_id)] = one
        token = page.token
        if not token:
            break
    return found


def lives(run: Stored) -> bool:
    """Whether a run of this machine still goes on."""
    tags = run.data.tags
    return tags.get(provenance.HOST) == socket.gethostname() and provenance.alive(tags)


def recorded(store: MlflowClient, run: Stored) -> Record:
    """A run of the store that is over, with all its points."""
    return Record(
        id=run.data.tags.get(ORIGIN, run.info.run_id),
        name=run.info.run_name,
        experiment=store.get_experiment(run.info.experiment_id).name,
        start=run.info.start_time,
        params=flat(run.data.params),  # what hands logged may be long
        tags=run.data.tags,
        data={one.dataset.name: one.dataset.digest for one in run.inputs.dataset_inputs},
        status=run.info.status,
        end=run.info.end_time or 0,
        points=tuple(
            Point(one.key, one.value, one.timestamp, one.step)
            for key in sorted(run.data.metrics)
            for one in store.get_metric_history(run.info.run_id, key)
        ),
    )


def _make(store: MlflowClient, record: Record) -> str:
    """The id in the store of a run, which may be there already."""
    home = experiment(store, record.experiment)
    known = _found(store, home, record.id)
    run = known or store.create_run(
        home,
        start_time=record.start,
        run_name=record.name,
        tags={**record.tags, ORIGIN: record.id},
    )
    return str(run.info.run_id)


def _fill(store: MlflowClient, run: str, record: Record) -> None:
    params = [Param(*pair) for pair in record.params.items()]
    for start in range(0, len(params), 90):
        store.log_batch(run, params=params[start : start + 90])
    store.log_inputs(
        run,
        [
            DatasetInput(Dataset(name=key, digest=digest, source_type="dvc", source="{}"))
            for key, digest in record.data.items()
        ],
    )


def _found(store: MlflowClient, home: str, origin: str) -> Stored | None:
    found = store.search_runs([home], f"tags.`{ORIGIN}` = '{origin}'", order_by=["start_time ASC"])
    return found[0] if found else None


def _finish(store: MlflowClient, run: str, origin: str, status: str, end: int) -> None:
    store.set_terminated(run, status, end)
    if _database() is not None:
        return
    # a server too slow to say that it had made the run was asked again, and made another
    home = store.get_run(run).info.experiment_id
    for twin in store.search_runs([home], f"tags.`{ORIGIN}` = '{origin}'"):
        if twin.info.run_id != run:
            store.delete_run(twin.info.run_id)


def _now() -> int:
    return int(time.time() * 1000)


def _line(error: Exception) -> str:
    lines = [one for one in str(error).splitlines() if not one.startswith("(raised as a result of")]
    return without_password(lines[0].partition(" (Caused by")[0]) if lines else type(error).__name__


def _status(error: Exception) -> int:
    """What a server answered with; 0 where that isn't known."""
    if isinstance(error, RequestException):
        return 0 if error.response is None else error.response.status_code
    # MLflow's own errors have it in their text alone
    told = re.search(r"failed with error code (\d{3})|\b(4\d\d|5\d\d) \w+ Error: ", str(error))
    return int(told[1] or told[2]) if told else 0
