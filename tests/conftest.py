"""Shared by the tests: an environment without DVC's and MLflow's variables, and an MLflow store."""

import os
import shutil
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# Before torch is imported, here or by what is started: for models so small, threads do nothing but wait
# for each other, and with a worker on each core that takes five times the time.
os.environ.setdefault("OMP_NUM_THREADS", "1")

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = """--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
  --disable-component-update --disable-sync""".split()


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that runs within a stage would else write to the repository's own store."""
    for name in list(os.environ):
        if name.startswith(("DVC_", "MLFLOW_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")


Once = Callable[[str, Callable[[Path], None]], Path]


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Once:
    """A folder of this name, filled by the worker that needs it first, for all of them to read."""
    shared = tmp_path_factory.getbasetemp()
    shared = shared if worker_id == "master" else shared.parent

    def filled(name: str, fill: Callable[[Path], None]) -> Path:
        folder, done = shared / name, shared / f"{name}.done"
        with FileLock(shared / f"{name}.lock"):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                fill(folder)
                done.touch()
        return folder

    return filled


@pytest.fixture(scope="session")
def template(once: Once) -> Path:
    """An empty MLflow database; a new one costs seconds."""

    def fill(folder: Path) -> None:
        from undertone.records import tracking

        tracking.create(folder / "template.db")

    return once("template", fill) / "template.db"


@pytest.fixture
def store(tmp_path: Path, template: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an empty repository with an MLflow store, as the working folder."""
    root = tmp_path / "repository"
    (root / ".dvc").mkdir(parents=True)
    shutil.copyfile(template, root / "mlflow.db")
    monkeypatch.chdir(root)
    return root


@pytest.fixture(scope="session")
def prepared(once: Once, template: Path) -> Path:
    """A repository with two trained candidates, a release, and all of them registered."""

    def fill(root: Path) -> None:
        from tests import registered

        (root / ".dvc").mkdir()
        shutil.copyfile(template, root / "mlflow.db")
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(root)
            registered.prepare()

    return once("prepared", fill)


@pytest.fixture(scope="session")
def encoder(once: Once) -> Path:
    """A trained encoder in `model`, its int8 bundle in `bundle`, and all variants in `variants`."""

    def fill(folder: Path) -> None:
        from tests import tiny
        from undertone import models

        model = tiny.bundled("e5", folder)
        models.save(model, folder / "model", models.Recipe("e5", model.settings, "code"))

    return once("encoder", fill)


@pytest.fixture
def repository(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the prepared one, relocated, as the working folder."""
    from undertone.records import tracking

    root = tmp_path / "repository"
    shutil.copytree(prepared, root)
    monkeypatch.chdir(root)
    tracking.relocate()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking.uri())
    return root


@pytest.fixture(scope="module")
def chromium() -> "Iterator[Browser]":
    """Debian's; its user data lie in a folder that playwright makes and removes."""
    from playwright.sync_api import sync_playwright

    if not CHROMIUM.exists():
        pytest.skip("Chromium can't be had: run `apt-get install chromium`.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The whole-pipeline tests first: the other worker does the rest meanwhile."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where the programs were promised, a test that skips for want of one has failed.

    The whole pipeline's tests skip for one reason alone, a machine without network namespaces.
    """
    report = yield
    promised = os.environ.get("UNDERTONE_SERVICES") == "required"
    needs = item.get_closest_marker("services") or item.path.name == "test_repro.py"
    if promised and report.skipped and needs:
        report.outcome = "failed"
    return report
