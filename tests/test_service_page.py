"""The server's page in a real browser: what a person sees who types a text."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from benchmarks.load import Running, served
from tests import tiny
from undertone.deployment.predictor import Predictor

pytestmark = pytest.mark.services

TOKEN = "a token for tests"
HOSTILE = "fair <img src=x onerror=alert(1)> & </textarea> office"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    tiny.bundled("e5", folder)
    return folder / "bundle"


@pytest.fixture(scope="module")
def server(bundle: Path) -> Iterator[Running]:
    with served(bundle, bundle.parent) as running:
        yield running


@pytest.fixture
def page(chromium: Browser, server: Running) -> Iterator[Page]:
    """The page, opened; no request goes elsewhere, and nothing is refused by its policy or fails."""
    with chromium.new_context() as context:
        page = context.new_page()
        hosts, complaints = set(), []
        page.on("request", lambda request: hosts.add(request.url.split("/")[2]))
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append("a dialog") or dialog.dismiss())
        page.goto(f"http://127.0.0.1:{server.port}/")
        yield page
        assert hosts == {f"127.0.0.1:{server.port}"}
        assert complaints == []


def judge(page: Page, text: str) -> None:
    page.get_by_label("A text").fill(text)
    page.get_by_role("button", name="Judge").click()


def test_a_text_shows_its_label_and_a_bar_for_each_score(page: Page, bundle: Path) -> None:
    text = "the pay is fair and kind"
    (row,) = Predictor.load(bundle).predict([text])
    judge(page, text)
    expect(page.get_by_role("status")).to_contain_text(row["labels"][0])
    lines = page.get_by_role("listitem")
    expect(lines).to_have_count(3)
    ranked = sorted(row["scores"].items(), key=lambda one: -one[1])
    for line, (label, score) in zip(lines.all(), ranked, strict=True):
        expect(line).to_contain_text(label)
        expect(line).to_contain_text(f"{100 * score:.1f} %")
        bar, whole = line.locator(".bar i").bounding_box(), line.locator(".bar").bounding_box()
        assert bar is not None
        assert whole is not None
        assert bar["width"] / whole["width"] == pytest.approx(score, abs=0.01)
    expect(page.locator("li.chosen")).to_have_text(lines.first.inner_text().replace("\n", ""))


def test_the_keyboard_is_enough(page: Page) -> None:
    page.keyboard.type("cold office")  # the field has the focus
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("listitem")).to_have_count(3)


def test_what_is_typed_is_text_and_never_markup(page: Page) -> None:
    judge(page, HOSTILE)
    expect(page.get_by_role("listitem")).to_have_count(3)
    assert page.locator("img").count() == 0


def test_an_empty_text_is_told_and_takes_the_last_scores_away(page: Page) -> None:
    judge(page, "fair")
    expect(page.get_by_role("listitem")).to_have_count(3)
    judge(page, "\u200b \u200b")
    expect(page.get_by_role("status")).to_have_text("There is nothing to read in it.")
    expect(page.get_by_role("listitem")).to_have_count(0)


def test_a_long_text_is_told_to_be_cut(page: Page) -> None:
    judge(page, "office " * 200)
    expect(page.get_by_role("status")).to_contain_text("only its beginning was read")


def test_a_script_that_is_not_the_pages_own_does_not_run(chromium: Browser, server: Running) -> None:
    with chromium.new_context() as context:
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{server.port}/")
        refused = page.evaluate(
            "new Promise(done => {"
            " document.addEventListener('securitypolicyviolation', one => done(one.violatedDirective));"
            " const one = document.createElement('script'); one.textContent = 'window.ran = true';"
            " document.body.append(one) })"
        )
        assert refused == "script-src-elem"
        assert page.evaluate("window.ran") is None


def broken(body: str) -> Callable[[Route], None]:
    return lambda route: route.fulfill(status=502, body=body)


def test_an_error_that_is_no_json_is_told_by_its_status(chromium: Browser, server: Running) -> None:
    with chromium.new_context() as context:
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{server.port}/")
        for body in ("", "<html>Bad Gateway</html>"):
            page.route("**/predict", broken(body))
            judge(page, "fair")
            expect(page.get_by_role("status")).to_have_text("No answer: status 502.")
            page.unroute("**/predict")
            judge(page, "fair")
            expect(page.get_by_role("listitem")).to_have_count(3)


def test_a_token_is_asked_for_where_one_is_needed(chromium: Browser, bundle: Path) -> None:
    environment = {"UNDERTONE_TOKEN": TOKEN}
    with (
        served(bundle, bundle.parent, environment=environment) as running,
        chromium.new_context() as context,
    ):
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{running.port}/")
        expect(page.get_by_label("Token")).to_be_hidden()
        judge(page, "fair")
        expect(page.get_by_role("status")).to_contain_text("No token")
        page.get_by_label("Token").fill(TOKEN)
        page.get_by_role("button", name="Judge").click()
        expect(page.get_by_role("listitem")).to_have_count(3)
        assert TOKEN not in page.url
    assert TOKEN not in running.log.read_text()
