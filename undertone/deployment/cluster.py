"""Scoring on a Ray cluster: an item of the Ray Data set is a part, which is a place in a file.

So no text passes through Ray: not through its object store, which may spill to disk, nor its logs. A
worker reads the part and writes its file, from and to a folder that all machines see. A lost worker's
parts are given to another; a part written twice is the same bytes, renamed in place, and the account
is taken from the files, so that every row is there once whatever Ray repeats.
"""

import contextlib
import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from undertone.deployment.predictor import Predictor
from undertone.deployment.scoring import Engine, Part, Work, score_part
from undertone.errors import Problem


def engine(address: str | None, workers: int | None) -> Engine:
    """`workers` processes of one core each, by default as many as the cluster has cores; `address` of
    a cluster, or None for one of this machine's own, as long as it takes."""

    def run(work: Work, parts: Sequence[Part], _: Predictor) -> Iterator[int]:
        with _connected(address, workers) as cores:
            import ray.data

            most = min(workers or cores, len(parts))
            done = ray.data.from_items(
                [asdict(part) for part in parts], override_num_blocks=len(parts)
            ).map_batches(
                _Worker,
                fn_constructor_args=(work,),
                batch_size=1,
                num_cpus=1,
                # not all need be free at once, nor left after a node's death
                compute=ray.data.ActorPoolStrategy(min_size=1, initial_size=most, max_size=most),
            )
            for row in done.iter_rows():
                if row["problem"]:
                    raise Problem(row["problem"])
                yield int(row["rows"])

    return run


class _Worker:
    """One process: the bundle is loaded once. A `Problem` is an answer: Ray would log it at length."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._predictor: Predictor | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        part = Part(**{name: int(values[0]) for name, values in batch.items()})
        try:
            self._predictor = self._predictor or self._work.predictor(threads=1)
            return {"rows": [sum(score_part(self._predictor, self._work, part))], "problem": [""]}
        except Problem as problem:
            return {"rows": [0], "problem": [str(problem)]}


@contextlib.contextmanager
def _connected(address: str | None, workers: int | None) -> Iterator[int]:
    """How many cores the cluster has, while connected to it; Ray neither reports home nor prints."""
    # read when Ray starts
    wanted = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
    if not address:
        # Even so its head asks which cloud it runs in, from an address that a proxy can hide. Nobody
        # is there; Ray's own messages take no proxy.
        wanted["http_proxy"] = "http://127.0.0.1:9"
    before = {name: os.environ.get(name) for name in wanted}
    # nobody else may enter; Ray opens its own to all
    own = Path(tempfile.mkdtemp(prefix="undertone-ray-"))
    try:
        os.environ |= wanted
        with _started(address, workers, own) as cores:
            yield cores
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        shutil.rmtree(own, ignore_errors=True)


@contextlib.contextmanager
def _started(address: str | None, workers: int | None, own: Path) -> Iterator[int]:
    try:
        import ray.data
    except ImportError:
        remedy = "Run `pip install -e '.[ray]'` in a clone."
        raise Problem("Ray isn't installed", remedy=remedy) from None
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}
    alone = {"num_cpus": workers, "include_dashboard": False, "_temp_dir": str(own / "ray")}
    if address:
        _reach(address)
    # what Ray tells of a node's death comes by another way, on standard output
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        try:
            ray.init(address=address or "local", **({} if address else alone), **quiet)
        except (ConnectionError, ValueError, RuntimeError) as error:
            what = f"can't be reached ({type(error).__name__})"
            remedy = "Run it on a machine of the cluster; `ray status` shows the address."
            raise Problem(what, where=address or "Ray", remedy=remedy) from None
        try:
            yield int(ray.cluster_resources().get("CPU", 1))
        finally:
            ray.shutdown()


def _reach(address: str) -> None:
    """`Problem` where nobody answers: Ray itself would wait for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise Problem("no address", where=address, remedy="Write HOST:PORT, as `ray status` shows it.")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        what = f"no Ray cluster answers ({type(error).__name__})"
        raise Problem(what, where=address, remedy="`ray status` shows the address.") from None
