"""MLflow's pages in a real browser, as a reader of runs and of the registry meets them.

The store is made here, by a training of two tiny candidates. `make pictures` runs the same tests on
a copy of the repository's own database, and keeps in docs/pictures what was seen.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import Browser, Error, Locator, Page, expect

from tests import mlflow_server, tiny
from undertone import learning, models
from undertone.files import md5
from undertone.params import Calibrate
from undertone.records import registry, team, tracking
from undertone.reporting import pictures

pytestmark = pytest.mark.services

PATIENCE = 15_000  # milliseconds; other tests may keep the machine busy
REPOSITORY = Path(__file__).parents[1]
PICTURES = REPOSITORY / "docs/pictures"
ASKED = bool(os.environ.get("UNDERTONE_PICTURES"))
CANARY = "zq90317726548kx"


@dataclass(frozen=True)
class Site:
    """MLflow's pages over the store in the folder `root`, which holds one registered model."""

    root: Path
    address: str
    model: str
    experiment: str

    @property
    def champion(self) -> registry.Version:
        return registry.find(f"{self.model}@champion")

    @property
    def candidates(self) -> list[registry.Version]:
        """The newest version of each candidate."""
        aliases = tracking.client().get_registered_model(self.model).aliases
        names = sorted({*aliases} - {"champion", "release"})
        return [registry.find(f"{self.model}@{name}") for name in names]


@dataclass
class Visit:
    """A page, and the hosts it asked for something."""

    page: Page
    site: Site
    hosts: set[str] = field(default_factory=set)

    def go(self, where: str) -> None:
        self.page.goto(f"{self.site.address}/#/{where}")
        expect(self.page.get_by_role("main")).to_be_visible()

    def runs(self) -> None:
        self.go(f"experiments/{self.site.experiment}/runs")

    def run(self, version: registry.Version, tab: str) -> None:
        self.go(f"experiments/{self.site.experiment}/runs/{version.run_id}")
        self.page.get_by_role("tab", name=tab).click()

    def versions(self) -> None:
        self.go(f"models/{self.site.model}")

    def row(self, number: int) -> Locator:
        """A version's, on the page of its model."""
        link = self.page.get_by_role("link", name=f"Version {number}", exact=True)
        return self.page.get_by_role("row").filter(has=link)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, template: Path) -> Path:
    """Two candidates' runs with their curves, the candidates, a release, pictures: all registered."""
    folder = tmp_path_factory.mktemp("repository")
    (folder / ".dvc").mkdir()
    if ASKED:
        shutil.copyfile(REPOSITORY / "mlflow.db", folder / "mlflow.db")
        return folder
    shutil.copyfile(template, folder / "mlflow.db")
    candidates = {name: Path("models/candidates/standin") / name for name in ("tfidf", "bert")}
    comments, release = Path("data/standin/split.parquet"), Path("models/release/standin")
    codebook = Path("codebook.yaml")
    summary = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        table = split(comments)
        shutil.copyfile(REPOSITORY / "codebooks/gender.yaml", codebook)
        train, validation = (
            models.examples(table, part, tiny.space()) for part in ("train", "validation")
        )
        for name, out in candidates.items():
            longer = {"epochs": 6.0, "patience": 6} if name == "bert" else {}
            settings = tiny.SETTINGS[name].model_copy(update=longer)
            learner = learning.Learner(
                settings,
                tiny.space(),
                tiny.start(name, folder),
                Calibrate(temperature=True, max_error=None),
                Path("state"),
            )
            with tracking.run(
                experiment="tiny",
                name=name,
                stage="train",
                settings=settings,
                data={"comments": md5(comments)},
                tags={"source": "standin", "candidate": name, "family": name, "seed": "7"},
            ) as run:
                course = learning.Curves(run.log)
                model, reached = learner.learn(train, validation, "all", course.log)
                run.metrics({"validation_macro_f1": reached})
                models.save(model, out, models.Recipe(name, settings, code="0"))
                run.tag({"model.md5": md5(out)})
            summary[name] = {"validation_macro_f1": reached}
            drawn = Path("pictures") / name
            drawn.mkdir(parents=True)
            pictures.learning_curves(name, course.points, drawn / "learning.svg")
        patch.chdir(REPOSITORY)  # a release carries a digest of the code
        made = {"encoder": md5(folder / candidates["bert"])}
        tiny.released(model, folder / release, candidate="bert", digests=made)
        patch.chdir(folder)
        registry.register(
            source="standin",
            candidates=candidates,
            release=release,
            comments=comments,
            codebook=codebook,
            pictures=Path("pictures"),
            selection={"champion": "bert"},
            target=None,
            summary=summary,
        )
    return folder


def split(path: Path) -> pd.DataFrame:
    """160 comments to learn from and 40 to validate on; each holds the canary."""
    given = tiny.examples(200)
    table = pd.DataFrame({"id": [f"c{number}" for number in range(200)]})
    table["text"] = [f"{text} {CANARY}" for text in given.texts]
    table["part"] = np.where(np.arange(200) < 160, "train", "validation")
    for at, label in enumerate(tiny.space().labels):
        table[f"label.{label}"] = given.truth[:, at].astype(float)
    path.parent.mkdir(parents=True)
    table.to_parquet(path, index=False)
    return table


@pytest.fixture(scope="module")
def site(store: Path) -> Iterator[Site]:
    """As the README says: `mlflow ui` in the repository's folder."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = store / "ui.log"
    with log.open("w") as file:
        server = subprocess.Popen(
            [Path(sys.executable).with_name("mlflow"), "ui", "--port", str(port), "--workers", "1"],
            cwd=store,
            env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(store)
            patch.delenv("MLFLOW_TRACKING_URI", raising=False)
            (model,) = tracking.client().search_registered_models()
            experiment = tracking.client().get_experiment_by_name(model.name).experiment_id
        answering(f"http://127.0.0.1:{port}", server, log)
        yield Site(store, f"http://127.0.0.1:{port}", model.name, experiment)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait(timeout=30)


def answering(address: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    for _ in range(300):
        assert server.poll() is None, log.read_text()
        with suppress(OSError), urlopen(f"{address}/health", timeout=5):
            return
        time.sleep(0.2)
    pytest.fail(log.read_text())


@contextmanager
def visiting(browser: Browser, site: Site, **given: Any) -> Iterator[Visit]:
    """A reader's own window, without anybody's cookies."""
    context = browser.new_context(
        viewport={"width": 1280, "height": 800}, locale="en-GB", timezone_id="UTC", **given
    )
    context.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    visit = Visit(context.new_page(), site)
    context.on("request", lambda request: visit.hosts.add(urlsplit(request.url).netloc))
    yield visit
    context.close()


@pytest.fixture(scope="module")
def habits(chromium: Browser, site: Site) -> Any:
    """What MLflow remembers once a reader chose its pages on trained models and shut the assistant."""
    with visiting(chromium, site) as visit:
        visit.go("experiments")
        visit.page.get_by_text("Model training", exact=True).click()
        visit.page.get_by_role("button", name="Close").last.click()
        expect(visit.page.get_by_role("link", name="Model registry")).to_be_visible()
        return visit.page.context.storage_state()


@pytest.fixture
def visit(
    chromium: Browser, site: Site, habits: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Visit]:
    monkeypatch.chdir(site.root)
    with visiting(chromium, site, storage_state=habits) as visit:
        yield visit


def test_the_experiment_is_called_like_the_codebook(visit: Visit) -> None:
    visit.go("experiments")
    link = visit.page.get_by_role("link", name=visit.site.model, exact=True)
    expect(link).to_be_visible()
    shoot(visit, "experiments")
    link.click()
    expect(visit.page).to_have_url(re.compile(f"/experiments/{visit.site.experiment}/runs"))


def test_the_table_of_runs_has_each_candidates_figure(visit: Visit) -> None:
    found = visit.site.candidates
    assert len(found) >= 2
    visit.runs()
    expect(visit.page.locator(f"[row-id='{found[0].run_id}']").first).to_be_visible()
    choose_columns(visit, {"Dataset": False, "validation_macro_f1": True})
    for one in found:
        cells = visit.page.locator(f"[row-id='{one.run_id}']")
        expect(cells.get_by_role("link", name=one.run_name, exact=True)).to_be_visible()
        figure = cells.locator("[col-id='metrics.`validation_macro_f1`']")
        expect(figure).to_have_text(re.compile(r"^[01](\.\d+)?$"))
        assert float(figure.inner_text()) == pytest.approx(one.metrics["validation_macro_f1"], abs=1e-6)
    shoot(visit, "runs")


def choose_columns(visit: Visit, wanted: Mapping[str, bool]) -> None:
    visit.page.get_by_role("button", name="Columns", exact=True).click()
    for name, shown in wanted.items():
        visit.page.get_by_placeholder("Search columns").fill(name)
        line = visit.page.locator("[class*=tree-treenode]").filter(
            has=visit.page.get_by_text(name, exact=True)
        )
        line.locator("[class*=tree-checkbox]").first.click()
        expect(line.locator("[class*=tree-checkbox-checked]")).to_have_count(int(shown))
    visit.page.keyboard.press("Escape")


def test_a_runs_curves_are_drawn_through_each_point_that_was_logged(visit: Visit) -> None:
    champion = visit.site.champion
    visit.run(champion, "Model metrics")
    visit.page.get_by_placeholder("Search metric charts").fill("^(loss|train_|validation_).*")
    cards = visit.page.get_by_test_id("experiment-view-compare-runs-card")
    for name in ("loss", "train_macro_f1", "validation_macro_f1"):
        history = tracking.client().get_metric_history(champion.run_id, name)
        assert len({point.step for point in history}) >= 3
        card = cards.filter(has=visit.page.get_by_text(name, exact=True))
        card.scroll_into_view_if_needed()
        expect(card.locator("svg .scatterlayer path.point")).to_have_count(len(history))
        drawn = card.locator(".js-plotly-plot").evaluate("plot => [plot.data[0].x, plot.data[0].y]")
        logged = sorted((point.step, point.value) for point in history)
        assert sorted(zip(*drawn, strict=True)) == logged
    cards.first.evaluate("card => card.scrollIntoView({block: 'end'})")
    shoot(visit, "curves")


def test_a_run_shows_its_parameters(visit: Visit) -> None:
    champion = visit.site.champion
    visit.run(champion, "Overview")
    assert {"family", "lr", "epochs"} <= set(champion.params)
    visit.page.get_by_placeholder("Search parameters").fill("lr")
    row = visit.page.get_by_role("row").filter(has=visit.page.get_by_text("lr", exact=True))
    expect(row).to_contain_text(champion.params["lr"])


def test_a_picture_of_the_report_is_among_a_runs_artifacts(visit: Visit) -> None:
    visit.run(visit.site.champion, "Artifacts")
    visit.page.get_by_text("pictures", exact=True).click()
    visit.page.get_by_text("learning.svg", exact=True).click()
    image = visit.page.get_by_role("img", name="pictures/learning.svg")
    expect(image).to_be_visible()
    assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") > 300
    shoot(visit, "artifacts")


def test_the_models_versions_carry_their_aliases(visit: Visit) -> None:
    visit.versions()
    held = tracking.client().get_registered_model(visit.site.model).aliases
    assert {"champion", "release", "bert", "tfidf"} <= set(held)
    for alias, number in held.items():
        tag = visit.row(int(number)).get_by_text(f"@ {alias}", exact=True)
        expect(tag).to_be_visible()
    shoot(visit, "versions")


def test_a_version_leads_to_its_run(visit: Visit) -> None:
    champion = visit.site.champion
    visit.go(f"models/{visit.site.model}/versions/{champion.number}")
    expect(visit.page.get_by_text("@ champion", exact=True)).to_be_visible()
    expect(visit.page.get_by_role("cell", name=champion.tags["model.md5"]).first).to_be_visible()
    shoot(visit, "version")
    visit.page.get_by_role("link", name=champion.run_name, exact=True).click()
    expect(visit.page).to_have_url(re.compile(f"/runs/{champion.run_id}"))


def test_an_alias_that_is_moved_by_clicks_is_the_registrys(visit: Visit) -> None:
    before = visit.site.champion
    other = next(one for one in visit.site.candidates if one.number != before.number)
    for version in (other, before):
        visit.versions()
        visit.row(version.number).get_by_role("button").last.click()
        window = visit.page.get_by_role("dialog")
        window.get_by_role("combobox").fill("champion")
        window.get_by_role("combobox").press("Enter")
        with visit.page.expect_response("**/registered-models/alias") as answer:
            window.get_by_role("button", name="Save aliases").click()
        assert answer.value.ok
        assert visit.site.champion.number == version.number
        visit.page.reload()  # MLflow shows the former alias until then
        tag = visit.row(version.number).get_by_text("@ champion", exact=True)
        expect(tag).to_be_visible()


@pytest.fixture(scope="module")
def walked(chromium: Browser, site: Site, habits: Any) -> tuple[dict[str, str], set[str]]:
    """All kinds of pages with what they are about, and the hosts they asked."""
    shown = {}
    with (
        pytest.MonkeyPatch.context() as patch,
        visiting(chromium, site, storage_state=habits) as visit,
    ):
        patch.chdir(site.root)
        champion = site.champion
        runs, model = f"experiments/{site.experiment}/runs", f"models/{site.model}"
        run = f"{runs}/{champion.run_id}"
        for place, about in {
            "": site.model,
            "experiments": site.model,
            runs: champion.run_name,
            run: champion.tags["data.comments"],
            f"{run}/model-metrics": "learning_rate",
            f"{run}/artifacts": "pictures",
            f"experiments/{site.experiment}/models": champion.run_name,
            "models": site.model,
            model: "@ champion",
            f"{model}/versions/{champion.number}": champion.tags["model.md5"],
        }.items():
            visit.go(place)
            expect(visit.page.get_by_role("main").get_by_text(about).first).to_be_visible()
            shown[place] = visit.page.content()
        return shown, visit.hosts


def test_no_page_asks_another_host(walked: tuple[dict[str, str], set[str]], site: Site) -> None:
    assert walked[1] == {urlsplit(site.address).netloc}


def test_a_request_to_another_host_would_be_noticed(visit: Visit) -> None:
    visit.go("experiments")
    visit.page.evaluate("fetch('http://other.invalid/').catch(() => 0)")
    assert "other.invalid" in visit.hosts


def test_no_page_shows_a_comment(walked: tuple[dict[str, str], set[str]]) -> None:
    assert len(walked[0]) == 10
    assert [place for place, page in walked[0].items() if CANARY in page] == []


def test_a_comment_in_a_tag_would_be_seen(visit: Visit) -> None:
    run = visit.site.champion.run_id
    tracking.client().set_tag(run, "note", CANARY)
    try:
        visit.run(visit.site.champion, "Overview")
        expect(visit.page.get_by_text(CANARY)).to_be_visible()
        assert CANARY in visit.page.content()
    finally:
        tracking.client().delete_tag(run, "note")


@pytest.mark.skipif(ASKED, reason="nothing of it is kept as a picture")
def test_on_the_teams_server_each_sees_the_codebook_that_was_granted(
    chromium: Browser, tmp_path: Path
) -> None:
    people = {"anna": "gender", "dora": "news"}
    password = "a password for tests"
    with (
        mlflow_server.postgresql() as database,
        mlflow_server.server(database, tmp_path / "home") as server,
    ):
        for user, codebook in people.items():
            team.create(server.admin, user, password)
            team.grant(server.admin, user, codebook, "read")
        made = server.admin.ask("POST", "2.0/mlflow/experiments/search", max_results=10)["experiments"]
        ids = {one["name"]: one["experiment_id"] for one in made}
        runs = {
            codebook: server.admin.ask(
                "POST", "2.0/mlflow/runs/create", experiment_id=ids[codebook], run_name=f"run-{codebook}"
            )["run"]["info"]["run_id"]
            for codebook in people.values()
        }
        for user, own in people.items():
            (other,) = {*people.values()} - {own}
            site = Site(tmp_path, server.address, own, ids[own])
            with visiting(
                chromium, site, http_credentials={"username": user, "password": password}
            ) as visit:
                for place in ("experiments", "models"):
                    visit.go(place)
                    expect(visit.page.get_by_role("link", name=own, exact=True)).to_be_visible()
                    assert visit.page.get_by_role("link", name=other, exact=True).count() == 0
                for codebook in (own, other):
                    with visit.page.expect_response(
                        lambda answer: "mlflowGetRun(" in (answer.request.post_data or "")
                    ) as answer:
                        visit.go(f"experiments/{ids[codebook]}/runs/{runs[codebook]}")
                    assert (f"run-{codebook}" in answer.value.text()) == (codebook == own)
                assert f"run-{other}" not in visit.page.content()
        with (
            visiting(chromium, site) as visit,
            pytest.raises(Error, match="ERR_INVALID_AUTH_CREDENTIALS"),
        ):
            visit.page.goto(server.address)


def shoot(visit: Visit, name: str) -> None:
    """Keep what is seen for the docs, if asked; no path of this machine and not its name."""
    if not ASKED:
        return
    where = "[title^='/']"  # an artifact lies
    visit.page.add_style_tag(content=f"{where}, {where} + button {{ display: none }}")
    visit.page.wait_for_timeout(1000)  # for MLflow's own animations
    seen = visit.page.inner_text("body")
    assert re.findall(rf"(?<!\S)/\w\S*|\b{re.escape(socket.gethostname())}\b", seen) == []
    PICTURES.mkdir(exist_ok=True)
    visit.page.screenshot(path=PICTURES / f"{name}.png", animations="disabled")
