"""The team's server as `make team-server` starts it, on Debian's PostgreSQL, spoken to over HTTP."""

import base64
import http.client
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import pytest

from tests import mlflow_server
from tests import registered as small
from tests.mlflow_server import Running
from undertone import cli
from undertone.errors import Problem
from undertone.files import md5
from undertone.labels import LabelSpace
from undertone.records import registry, team, tracking

pytestmark = pytest.mark.services

REPOSITORY = Path(__file__).parents[1]
PASSWORD = "a password for tests"
SECRET = "zq60418822731kx"  # what stands in the file that no request may bring out
NEWS = LabelSpace.of("news", ["yes", "no"])
# anna reads gender, bert edits it, dora manages news, carl has an account and nothing else
USERS = {"anna": ("gender", "read"), "bert": ("gender", "edit"), "dora": ("news", "manage")}
API, AJAX = "/api/2.0/mlflow", "/ajax-api/2.0/mlflow"
PROXIED = "/api/2.0/mlflow-artifacts/artifacts"
# Served without a login by MLflow, and left so: liveness, which features there are (a client asks
# before it signs in), and the page's own scripts and pictures.
WITHOUT_LOGIN = {
    ("GET", "/health"),
    ("GET", "/api/3.0/mlflow/server-info"),
    ("GET", "/ajax-api/3.0/mlflow/server-info"),
    ("GET", "/static-files/<path:path>"),
}


@dataclass(frozen=True)
class Codebook:
    """What lies on the server of one codebook; `file` is an artifact of its run."""

    name: str
    experiment: str
    run: str
    version: str
    model: str
    file: str


@dataclass(frozen=True)
class Team:
    server: Running
    gender: Codebook
    news: Codebook

    def ask(
        self,
        method: str,
        path: str,
        user: str = "",
        *,
        query: Mapping[str, str] | None = None,
        body: object = None,
        host: str | None = None,
        password: str = PASSWORD,
    ) -> tuple[int, bytes]:
        """Status and body; the path goes out exactly as it is written."""
        if user == "admin":
            password = self.server.admin.password
        headers = {"Content-Type": "application/json"}
        if user:
            token = base64.b64encode(f"{user}:{password}".encode()).decode()
            headers["Authorization"] = f"Basic {token}"
        if host is not None:
            headers["Host"] = host
        connection = http.client.HTTPConnection(urlsplit(self.server.address).netloc, timeout=30)
        connection._validate_path = lambda _path: None  # type: ignore[attr-defined]
        try:
            target = f"{path}?{urlencode(query)}" if query else path
            content = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
            connection.request(method, target, None if method == "GET" else content, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


@contextmanager
def signed_in(server: Running, user: str, password: str = PASSWORD) -> Iterator[None]:
    """As a person's shell is set up; MLflow keeps what it was told within a process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", server.address)
        patch.setenv("MLFLOW_TRACKING_USERNAME", user)
        patch.setenv("MLFLOW_TRACKING_PASSWORD", password)
        yield


def fill(server: Running, user: str, codebook: str) -> Codebook:
    """A run with a curve, and a registered version with files, made as the stages do."""
    with signed_in(server, user):
        with tracking.run(
            experiment=codebook,
            name=f"{codebook}-run",
            stage="train",
            settings={"lr": 1e-4},
            data={"comments": md5(small.COMMENTS)},
        ) as run:
            for step in range(1200):
                run.log(step, {f"{codebook}_loss": 1 / (step + 1)})
            run.tag({"model.md5": md5(small.FIRST)})
        registered = small.register(
            candidates={"first": small.FIRST},
            summary={"first": {"test_macro_f1": 0.75}},
        )
        store = tracking.client()
        experiment = store.get_experiment_by_name(codebook).experiment_id
        version = store.get_model_version_by_alias(codebook, "champion")
        assert registered["model"] == codebook
        return Codebook(
            name=codebook,
            experiment=experiment,
            run=run.id,
            version=str(version.version),
            model=version.source.removeprefix("models:/"),
            file="pictures/all.svg",
        )


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """One server with two codebooks, each with a run and versions, and four people."""
    root = tmp_path_factory.mktemp("team")
    with (
        mlflow_server.postgresql() as database,
        mlflow_server.server(database, root / "home") as server,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        (root / "repository/.dvc").mkdir(parents=True)
        patch.chdir(root / "repository")
        shutil.copy(REPOSITORY / "params.yaml", "params.yaml")
        shutil.copytree(REPOSITORY / "codebooks", "codebooks")
        small.split(small.COMMENTS)
        Path("pictures").mkdir()
        Path("pictures/all.svg").write_text("<svg>a picture</svg>")
        filled = {}
        for user, (codebook, level) in USERS.items():
            team.create(server.admin, user, PASSWORD)
            team.grant(server.admin, user, codebook, level)  # type: ignore[arg-type]
        team.create(server.admin, "carl", PASSWORD)
        for user, space in (("bert", small.SPACE), ("dora", NEWS)):
            patch.setattr(small, "SPACE", space)
            shutil.rmtree("models", ignore_errors=True)
            small.train(small.FIRST)
            small.release(small.RELEASE, encoder=md5(small.FIRST))
            filled[space.codebook] = fill(server, user, space.codebook)
        (root / "secret").write_text(SECRET)
        yield Team(server, filled["gender"], filled["news"])


@pytest.fixture(autouse=True)
def _working_folder(here: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(here.server.home.parent / "repository")


# ----------------------------------------------------------------------------- without a login


ROUTES = """
import json
from mlflow.server.auth import create_app
from starlette.routing import Mount

def walk(routes):
    for route in routes:
        if hasattr(route, "effective_candidates"):
            yield from walk(route.effective_candidates())
        elif not isinstance(route, Mount):
            yield from ((method, route.path) for method in route.methods or ["GET"])

found = set(walk(create_app().routes))
from mlflow.server import app
for rule in app.url_map.iter_rules():
    found |= {(method, str(rule)) for method in rule.methods - {"HEAD", "OPTIONS"}}
print(json.dumps(sorted(found)))
"""


@pytest.fixture(scope="module")
def routes(here: Team) -> list[tuple[str, str]]:
    """Method and path of all that this MLflow serves, from its own two routers."""
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(REPOSITORY),
        "MLFLOW_AUTH_CONFIG_PATH": str(here.server.home / "auth.ini"),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "key",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "_MLFLOW_SGI_NAME": "uvicorn",
        "_MLFLOW_AUTH_ADMIN_BOOTSTRAPPED": "true",
    }
    printed = subprocess.check_output(
        [sys.executable, "-c", ROUTES], env=environment, text=True, stderr=subprocess.PIPE
    )
    return [(method, path) for method, path in json.loads(printed.splitlines()[-1])]


def concrete(path: str) -> str:
    return re.sub(r"<(?:\w+:)?\w+>|\{[^}]*\}", "1", path)


def test_no_route_answers_without_a_login(here: Team, routes: list[tuple[str, str]]) -> None:
    assert len(routes) > 500
    families = {path.split("/mlflow/")[-1].split("/")[0] for _method, path in routes}
    assert {"runs", "registered-models", "users", "traces", "gateway", "assistant"} <= families
    answers = {
        (method, path): here.ask(method, concrete(path))[0]
        for method, path in [
            *routes,
            *(("GET", path) for path in ("/docs", "/openapi.json", "/metrics", "/index.html")),
        ]
    }
    assert {one for one, status in answers.items() if status not in (401, 403)} <= WITHOUT_LOGIN
    assert sum(status in (401, 403) for status in answers.values()) > 500


def test_what_answers_without_a_login_tells_nothing(here: Team) -> None:
    status, told = here.ask("GET", "/api/3.0/mlflow/server-info")
    assert status == 200
    assert not {"gender", "news", "admin", "127.0.0.1", "postgres"} & set(
        re.findall(r"[\w.]+", str(told))
    )
    assert here.ask("GET", "/health") == (200, b"OK")


@pytest.mark.parametrize(
    ("user", "password"),
    [
        ("anna", "wrong password"),
        ("anna", ""),
        ("nobody", PASSWORD),
        ("admin", "password1234"),  # MLflow's own until 3.10
        ("' or 1=1 --", PASSWORD),
    ],
)
def test_a_wrong_name_or_password_is_not_let_in(here: Team, user: str, password: str) -> None:
    for path in (f"{API}/experiments/get?experiment_id=1", f"{PROXIED}/1/x", "/", "/graphql"):
        token = base64.b64encode(f"{user}:{password}".encode()).decode()
        connection = http.client.HTTPConnection(urlsplit(here.server.address).netloc, timeout=30)
        connection.request("GET", path, headers={"Authorization": f"Basic {token}"})
        assert connection.getresponse().status == 401
        connection.close()


def test_a_page_of_another_origin_can_not_write(here: Team) -> None:
    token = base64.b64encode(f"bert:{PASSWORD}".encode()).decode()
    for origin, expected in (("https://evil.example.com", 403), ("https://mlflow.example.org", 200)):
        connection = http.client.HTTPConnection(urlsplit(here.server.address).netloc, timeout=30)
        connection.request(
            "POST",
            f"{AJAX}/runs/search",
            json.dumps({"experiment_ids": [here.gender.experiment]}),
            {"Authorization": f"Basic {token}", "Content-Type": "application/json", "Origin": origin},
        )
        assert connection.getresponse().status == expected
        connection.close()


@pytest.mark.parametrize(
    "host",
    [
        "evil.example.com",
        "mlflow.example.org.evil.example.com",
        "evil.mlflow.example.org",
        "mlflow.example.org:1",
        "mlflow.example.org@evil.example.com",
        "127.0.0.1:1",
        "10.0.0.1",
        "",
    ],
)
def test_a_foreign_host_header_is_refused(here: Team, host: str) -> None:
    for path in ("/", f"{API}/experiments/get?experiment_id=1", f"{PROXIED}/1/x", "/graphql"):
        status, told = here.ask("GET", path, "admin", host=host)
        assert (status, b"Invalid Host" in told) == (403, True)


def test_the_host_of_the_settings_is_let_in(here: Team) -> None:
    assert here.ask("GET", "/version", "carl", host="mlflow.example.org")[0] == 200


# ------------------------------------------------------------------------------- who sees what


def reads(of: Codebook) -> dict[str, tuple[str, str, dict[str, str], object]]:
    """All the ways to read about a codebook: method, path, query, body."""
    artifact = f"{of.experiment}/{of.run}/artifacts"
    graphql = {
        "operationName": "GetRun",
        "query": "query GetRun($data: MlflowGetRunInput!) { mlflowGetRun(input: $data) {"
        " run { info { runName } data { metrics { key value } } } } }",
        "variables": {"data": {"runId": of.run}},
    }
    ids = {"experiment_ids": [of.experiment]}
    return {
        "experiment": ("GET", f"{API}/experiments/get", {"experiment_id": of.experiment}, None),
        "by name": ("GET", f"{API}/experiments/get-by-name", {"experiment_name": of.name}, None),
        "experiments": ("POST", f"{API}/experiments/search", {}, {"max_results": 1000}),
        "run": ("GET", f"{API}/runs/get", {"run_id": of.run}, None),
        "runs": ("POST", f"{API}/runs/search", {}, ids),
        "runs of the page": ("POST", f"{AJAX}/runs/search", {}, ids),
        "datasets": ("POST", f"{AJAX}/experiments/search-datasets", {}, ids),
        "curve": (
            "GET",
            f"{API}/metrics/get-history",
            {"run_id": of.run, "metric_key": f"{of.name}_loss"},
            None,
        ),
        "curves": (
            "GET",
            f"{AJAX}/metrics/get-history-bulk",
            {"run_id": of.run, "metric_key": f"{of.name}_loss"},
            None,
        ),
        "thinned curve": (
            "GET",
            f"{AJAX}/metrics/get-history-bulk-interval",
            {"run_ids": of.run, "metric_key": f"{of.name}_loss"},
            None,
        ),
        "artifacts": ("GET", f"{API}/artifacts/list", {"run_id": of.run, "path": "pictures"}, None),
        "artifact": ("GET", "/get-artifact", {"run_id": of.run, "path": of.file}, None),
        "proxied list": ("GET", PROXIED, {"path": f"{artifact}/pictures"}, None),
        "proxied artifact": ("GET", f"{PROXIED}/{artifact}/{of.file}", {}, None),
        "graphql": ("POST", "/graphql", {}, graphql),
        "logged model": ("GET", f"{API}/logged-models/{of.model}", {}, None),
        "logged models": ("POST", f"{API}/logged-models/search", {}, ids),
        "model's files": ("GET", f"{API}/logged-models/{of.model}/artifacts/directories", {}, None),
        "model's file": (
            "GET",
            f"{AJAX}/logged-models/{of.model}/artifacts/files",
            {"artifact_file_path": "MLmodel"},
            None,
        ),
        "model": ("GET", f"{API}/registered-models/get", {"name": of.name}, None),
        "models": ("GET", f"{API}/registered-models/search", {"max_results": "100"}, None),
        "latest": ("POST", f"{API}/registered-models/get-latest-versions", {}, {"name": of.name}),
        "alias": (
            "GET",
            f"{API}/registered-models/alias",
            {"name": of.name, "alias": "champion"},
            None,
        ),
        "version": (
            "GET",
            f"{API}/model-versions/get",
            {"name": of.name, "version": of.version},
            None,
        ),
        "versions": ("GET", f"{API}/model-versions/search", {"max_results": "100"}, None),
        "download": (
            "GET",
            f"{API}/model-versions/get-download-uri",
            {"name": of.name, "version": of.version},
            None,
        ),
        "version's file": (
            "GET",
            "/model-versions/get-artifact",
            {"name": of.name, "version": of.version, "path": "MLmodel"},
            None,
        ),
    }


def writes(of: Codebook) -> dict[str, tuple[str, str, object]]:
    artifact = f"{of.experiment}/{of.run}/artifacts/planted"
    version = {"name": of.name, "version": of.version}
    return {
        "run": ("POST", f"{API}/runs/create", {"experiment_id": of.experiment}),
        "point": (
            "POST",
            f"{API}/runs/log-batch",
            {"run_id": of.run, "metrics": [{"key": "a", "value": 1, "timestamp": 1, "step": 1}]},
        ),
        "tag": ("POST", f"{API}/runs/set-tag", {"run_id": of.run, "key": "a", "value": "b"}),
        "end": ("POST", f"{API}/runs/update", {"run_id": of.run, "status": "KILLED"}),
        "deleted run": ("POST", f"{API}/runs/delete", {"run_id": of.run}),
        "artifact": ("PUT", f"{PROXIED}/{artifact}", b"planted"),
        "deleted artifact": ("DELETE", f"{PROXIED}/{artifact}", None),
        "experiment": (
            "POST",
            f"{API}/experiments/update",
            {"experiment_id": of.experiment, "new_name": "taken"},
        ),
        "deleted": ("POST", f"{API}/experiments/delete", {"experiment_id": of.experiment}),
        "version": (
            "POST",
            f"{API}/model-versions/create",
            {"name": of.name, "source": f"models:/{of.model}", "run_id": of.run},
        ),
        "version's tag": (
            "POST",
            f"{API}/model-versions/set-tag",
            {**version, "key": "a", "value": "b"},
        ),
        "deleted version": ("DELETE", f"{API}/model-versions/delete", version),
        "alias": ("POST", f"{API}/registered-models/alias", {**version, "alias": "champion"}),
        "deleted model": ("DELETE", f"{API}/registered-models/delete", {"name": of.name}),
        "renamed": ("POST", f"{API}/registered-models/rename", {"name": of.name, "new_name": "x"}),
        "right": (
            "POST",
            "/api/3.0/mlflow/users/permissions/grant",
            {
                "username": "anna",
                "resource_type": "experiment",
                "resource_id": of.experiment,
                "permission": "MANAGE",
            },
        ),
    }


def marks(of: Codebook) -> list[bytes]:
    """What an answer that tells about a codebook has in it; not its name, which was asked for."""
    own = [f"{of.name}-run", f"{of.name}_loss", of.run, of.model, "a picture", "tfidf", "loader_module"]
    return [one.encode() for one in (*own, f'"name": "{of.name}"', f'"name":"{of.name}"')]


@pytest.mark.parametrize("way", reads(Codebook("", "", "", "", "", "")))
def test_who_may_read_a_codebook_reads_all_of_it(here: Team, way: str) -> None:
    for user, of in (("anna", here.gender), ("bert", here.gender), ("dora", here.news)):
        method, path, query, body = reads(of)[way]
        status, told = here.ask(method, path, user, query=query, body=body)
        assert (
            status,
            any(mark in told for mark in [*marks(of), b"comments", b"MLmodel", b".svg"]),
        ) == (
            200,
            True,
        ), told[:300]


@pytest.mark.parametrize("way", reads(Codebook("", "", "", "", "", "")))
@pytest.mark.parametrize("user", ["anna", "bert", "carl"])
def test_who_may_not_reads_nothing_of_it(here: Team, user: str, way: str) -> None:
    method, path, query, body = reads(here.news)[way]
    status, told = here.ask(method, path, user, query=query, body=body)
    assert status in (200, 403)  # a search answers, with what one may see
    leaked = [mark for mark in marks(here.news) if mark in told and mark not in marks(here.gender)]
    assert leaked == []
    if user == "carl":
        assert [mark for mark in marks(here.gender) if mark in told] == []


@pytest.mark.parametrize("way", writes(Codebook("", "", "", "", "", "")))
def test_who_may_only_read_writes_nothing(here: Team, way: str) -> None:
    for of in (here.gender, here.news):
        method, path, body = writes(of)[way]
        assert here.ask(method, path, "anna", body=body)[0] == 403
    method, path, body = writes(here.gender)[way]
    assert here.ask(method, path, "carl", body=body)[0] == 403
    assert here.ask(method, path, "dora", body=body)[0] == 403


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", f"{API}/experiments/create", {"name": "taken"}),
        ("POST", f"{API}/registered-models/create", {"name": "taken"}),
        ("GET", f"{API}/users/list", None),
        ("POST", f"{API}/users/create", {"username": "mallory", "password": PASSWORD}),
        ("PATCH", f"{API}/users/update-admin", {"username": "bert", "is_admin": True}),
        ("PATCH", f"{API}/users/update-password", {"username": "anna", "password": PASSWORD + "1"}),
        ("DELETE", f"{API}/users/delete", {"username": "anna"}),
        ("POST", f"{API}/runs/create-promptlab-run", {}),
        ("POST", "/api/3.0/mlflow/traces", {}),
        ("POST", "/api/3.0/mlflow/datasets/create", {"name": "texts"}),
        ("POST", "/ajax-api/3.0/mlflow/assistant/message", {}),
        ("POST", "/api/3.0/mlflow/gateway/secrets/create", {}),
        ("POST", "/gateway/mlflow/v1/chat/completions", {"model": "x"}),
        ("POST", f"{API}/webhooks", {"name": "out", "url": "https://example.com"}),
        ("POST", "/api/3.0/mlflow/mcp-servers", {"name": "x"}),
        ("POST", "/ajax-api/3.0/jobs/", {"function": "x"}),
        ("POST", "/v1/traces", {}),
        ("GET", "/signup", None),
    ],
)
def test_an_account_alone_makes_nothing(here: Team, method: str, path: str, body: object) -> None:
    assert here.ask(method, path, "bert", body=body)[0] == 403


def test_texts_have_no_door_not_even_for_the_administrator(
    here: Team, routes: list[tuple[str, str]]
) -> None:
    doors = ("traces", "datasets", "prompt", "assistant", "gateway", "webhooks", "jobs", "scorer", "mcp")
    asked = [
        (method, path)
        for method, path in routes
        if any(f"/{door}" in path for door in doors) and "search-datasets" not in path
    ]
    assert len(asked) > 100
    answers = {one: here.ask(one[0], concrete(one[1]), "admin")[0] for one in asked}
    assert {one: status for one, status in answers.items() if status != 403} == {}


# ------------------------------------------------------------------------------ out of the folder


def spellings(depth: int, secret: Path) -> list[str]:
    """Ways to write `secret`, `depth` folders above where a relative path starts."""
    up, name, folder = "../" * depth, secret.name, secret.parent
    if depth > len(secret.parts):  # from the root on
        name = str(secret).lstrip("/")
    return [
        f"{up}{name}",
        f"a/{'../' * (depth + 1)}{name}",
        f"./{up}{name}",
        up.replace("/", "%2f") + name,
        up.replace(".", "%2e") + name,
        up.replace(".", "%2e").replace("/", "%2f") + name,
        up.replace(".", "%252e").replace("/", "%252f") + name,
        up.replace(".", "%25252e").replace("/", "%25252f") + name,
        up.replace("/", "\\") + name,
        up.replace("/", "%5c") + name,
        up.replace("/", "%255c") + name,
        up.replace("../", "....//") + name,
        up.replace("../", "..;/") + name,
        up.replace("../", "..%00/") + name,
        up.replace("../", "%c0%ae%c0%ae/") + name,
        up.replace("../", "%uff0e%uff0e/") + name,
        up.replace("../", "．．/") + name,
        f"{up}{name}%00.svg",
        f"{up}{name}%23.svg",
        f"{up}{name}%3f.svg",
        f"pictures/all.svg/{up}../../{name}",
        str(secret),
        f"/{secret}",
        str(secret).replace("/", "%2f"),
        str(secret).replace("/", "%252f"),
        f"file://{secret}",
        f"file:{secret}",
        f"file:%2f%2f{secret}",
        f"file://localhost{secret}",
        f"mlflow-artifacts:{folder}/{name}",
        f"~/{up}{name}",
        "link",  # planted beside the artifacts
        "folder/secret",
    ]


def opened(way: str, of: Codebook, written: str) -> tuple[str, str]:
    """The method and target that ask for a path written so."""
    if "%" not in written:
        written = quote(written, safe="/.\\;:~")  # a query or a path can hold it as it is
    return {
        "proxied": ("GET", f"{PROXIED}/{of.experiment}/{of.run}/artifacts/{written}"),
        "proxied root": ("GET", f"{PROXIED}/{written}"),
        "proxied list": ("GET", f"{PROXIED}?path={of.experiment}/{of.run}/artifacts/{written}"),
        "run": ("GET", f"/get-artifact?run_id={of.run}&path={written}"),
        "run's list": ("GET", f"{API}/artifacts/list?run_id={of.run}&path={written}"),
        "version": (
            "GET",
            f"/model-versions/get-artifact?name={of.name}&version={of.version}&path={written}",
        ),
        "model": (
            "GET",
            f"{AJAX}/logged-models/{of.model}/artifacts/files?artifact_file_path={written}",
        ),
        "page": ("GET", f"/static-files/{written}"),
    }[way]


WAYS = {  # and how many folders the secret is above where each starts
    "proxied": 5,
    "proxied root": 2,
    "proxied list": 5,
    "run": 5,
    "run's list": 5,
    "version": 6,
    "model": 6,
    "page": 20,
}


@pytest.fixture
def planted(here: Team) -> Iterator[Path]:
    """A secret beside the artifacts, and links to it as somebody on the server may have left."""
    secret = here.server.home.parent / "secret"
    artifacts = here.server.home / "artifacts" / here.gender.experiment
    links = {}
    for folder in (f"{here.gender.run}/artifacts", f"models/{here.gender.model}/artifacts"):
        assert (artifacts / folder).is_dir()
        links |= {
            artifacts / folder / "link": secret,
            artifacts / folder / "folder": secret.parent,
        }
    for link, target in links.items():
        link.symlink_to(target)
    yield secret
    for link in links:
        link.unlink()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("user", ["bert", "admin"])
def test_no_spelling_of_a_path_leads_out(here: Team, planted: Path, user: str, way: str) -> None:
    assert planted.read_text() == SECRET
    tried = spellings(WAYS[way], planted)
    assert len(set(tried)) >= 30
    for written in tried:
        method, target = opened(way, here.gender, written)
        status, told = here.ask(method, target.encode("utf-8").decode("latin-1"), user)
        assert SECRET.encode() not in told, written
        assert status != 500, (written, told[:300])


def test_the_table_of_spellings_finds_what_is_within(here: Team) -> None:
    for way in ("proxied", "run"):
        method, target = opened(way, here.gender, "pictures/all.svg")
        assert here.ask(method, target, "bert") == (200, b"<svg>a picture</svg>")


def test_nothing_is_written_outside(here: Team, planted: Path) -> None:
    before = set(here.server.home.parent.rglob("*"))
    for way in ("proxied", "proxied root"):
        for written in spellings(WAYS[way], planted.with_name("written")):
            for user in ("bert", "admin"):
                _method, target = opened(way, here.gender, written)
                here.ask("PUT", target.encode("utf-8").decode("latin-1"), user, body=b"planted")
    new = set(here.server.home.parent.rglob("*")) - before
    assert {path for path in new if not path.is_relative_to(here.server.home / "artifacts")} == set()
    assert planted.read_text() == SECRET


def sources(here: Team, planted: Path) -> list[str]:
    """Where a version or an experiment could be said to lie: here, elsewhere, in another's folder."""
    gender, news = here.gender, here.news
    home = here.server.home
    return [
        str(planted.parent),
        f"file://{planted.parent}",
        f"file:{planted.parent}",
        f"file://localhost{planted.parent}",
        f"FILE://{planted.parent}",
        f"file://{home}/artifacts/../..",
        f"file://{home}/artifacts/%2e%2e/%2e%2e",
        f"file://{home}/artifacts/{gender.experiment}/{gender.run}/artifacts/folder",
        f"{home}/artifacts/{news.experiment}/{news.run}/artifacts",
        f"mlflow-artifacts:/{news.experiment}/{news.run}/artifacts",
        f"mlflow-artifacts:/{gender.experiment}/{gender.run}/artifacts/../../../../..",
        f"mlflow-artifacts:/{gender.experiment}/{gender.run}/artifacts/%2e%2e/%2e%2e/%2e%2e/%2e%2e",
        f"mlflow-artifacts://127.0.0.1/{news.experiment}/{news.run}/artifacts",
        f"runs:/{news.run}/pictures",
        f"runs:/{gender.run}/../../../..",
        f"models:/{news.model}",
        f"models:/{news.name}/{news.version}",
        f"models:/{news.name}@champion",
        f"models:/../../{news.name}/1",
        "http://127.0.0.1:1/",
        "https://example.org/",
        f"sqlite:///{planted}",
        "dbfs:/etc",
        "../../..",
        "/",
        "/proc/self/root" + str(planted.parent),
        f"{planted.parent}?x=1",
        f"{planted.parent}#x",
        f"{planted.parent}\\",
    ]


def test_no_source_of_a_version_leads_out(here: Team, planted: Path) -> None:
    tried = sources(here, planted)
    assert len(tried) >= 20
    for source in tried:
        for extra in ({}, {"run_id": here.gender.run}, {"model_id": here.gender.model}):
            status, told = here.ask(
                "POST",
                f"{API}/model-versions/create",
                "bert",
                body={"name": "gender", "source": source, **extra},
            )
            if status != 200:
                continue
            made = json.loads(told)["model_version"]["version"]
            for path in ("secret", "pictures/all.svg", "all.svg", "MLmodel"):
                query = {"name": "gender", "version": made, "path": path}
                found = here.ask("GET", "/model-versions/get-artifact", "bert", query=query)[1]
                assert SECRET.encode() not in found, source
                assert here.news.model.encode() not in found, source


def test_no_experiment_lies_where_its_maker_says(here: Team, planted: Path) -> None:
    for number, source in enumerate(sources(here, planted)):
        for body in (
            {"name": f"made-{number}", "artifact_location": source},
            {"name": f"made-{number}", "artifactLocation": source},
            json.dumps(
                {"name": f"made-{number}", "artifact_location": source}
            ),  # as old clients send it
        ):
            for user in ("bert", "admin"):
                status = here.ask("POST", f"{API}/experiments/create", user, body=body)[0]
                assert status in (400, 403), source


# ------------------------------------------------------------------------------------ undertone


def test_a_reader_brings_the_champion_here_and_uses_it(here: Team) -> None:
    with signed_in(here.server, "anna"):
        found = registry.find("gender@champion")
        assert found.run_id == here.gender.run
        scores = registry.judge(found).scores(["good day", "bad day"])
    assert scores.argmax(axis=1).tolist() == [0, 1]


@pytest.mark.parametrize("user", ["anna", "carl"])
def test_without_the_right_a_run_is_refused_in_one_line(here: Team, user: str) -> None:
    usual: dict[str, Any] = {"experiment": "gender", "name": "x", "stage": "train", "settings": {}}
    with (
        signed_in(here.server, user),
        pytest.raises(Problem) as told,
        tracking.run(**usual, data={}),
    ):
        pass
    assert len(str(told.value).splitlines()) == 1
    assert "permission denied" in str(told.value)
    assert "undertone grant" in str(told.value)


def test_without_the_right_a_model_is_refused_in_one_line(here: Team) -> None:
    with signed_in(here.server, "carl"):
        with pytest.raises(Problem) as found:
            registry.find("gender@champion")
        with pytest.raises(Problem) as registered:
            small.register(candidates={"first": small.FIRST})
    for told in (found, registered):
        assert len(str(told.value).splitlines()) == 1


def test_rights_are_given_changed_listed_and_taken_away(
    here: Team, capsys: pytest.CaptureFixture[str]
) -> None:
    admin = here.server.admin
    look = ("GET", f"{API}/experiments/get-by-name", {"experiment_name": "gender"})
    with signed_in(here.server, "admin", admin.password):
        assert cli.main(["grant", "erna", "gender", "read", "--new"]) == 0
        printed = re.search(r"password, shown only now: (\S{20,})\n", capsys.readouterr().out)
        assert printed
        method, path, query = look
        assert here.ask(method, path, "erna", query=query, password=printed[1])[0] == 200
        assert cli.main(["grant", "erna", "gender", "read", "--new"]) == 1
        assert "has an account" in capsys.readouterr().err
        assert cli.main(["grant", "erna", "gender", "edit"]) == 0
        capsys.readouterr()
        assert cli.main(["grants"]) == 0
        listed = capsys.readouterr().out.splitlines()
        assert [line.split() for line in listed] == [
            ["admin", "everything", "administrator"],
            ["anna", "gender", "read"],
            ["bert", "gender", "edit"],
            ["carl", "nothing"],
            ["dora", "news", "manage"],
            ["erna", "gender", "edit"],
        ]
        assert cli.main(["revoke", "erna", "gender"]) == 0
        assert here.ask(method, path, "erna", query=query, password=printed[1])[0] == 403
        assert cli.main(["revoke", "erna", "gender"]) == 1
        assert cli.main(["revoke", "erna"]) == 0
        assert here.ask(method, path, "erna", query=query, password=printed[1])[0] == 401
    capsys.readouterr()
    with signed_in(here.server, "bert"):
        assert cli.main(["grant", "bert", "news", "read"]) == 1
        assert cli.main(["grants"]) == 1
        assert cli.main(["grant", "bert", "gender", "manage"]) == 1
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 3
    assert all("bert at http" in line and "permission denied" in line for line in told)


def test_everybody_changes_their_own_password_and_the_administrator_any(
    here: Team, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def typed(password: str, *given: str) -> int:
        monkeypatch.setattr("sys.stdin", io.StringIO(f"{password}\n"))
        return cli.main(["password", *given])

    def let_in(password: str) -> bool:
        return here.ask("GET", "/version", "carl", password=password)[0] == 200

    with signed_in(here.server, "carl"):
        assert typed("another password") == 0
        assert typed("short") == 1  # and the old one is no longer right
        assert typed("mine now, and yours", "anna") == 1
    assert (let_in(PASSWORD), let_in("another password")) == (False, True)
    with signed_in(here.server, "admin", here.server.admin.password):
        assert typed(PASSWORD, "carl") == 0
    assert (let_in(PASSWORD), let_in("another password")) == (True, False)
    assert "short" not in "".join(capsys.readouterr())


def test_who_manages_a_codebook_may_grant_it_and_no_other(here: Team) -> None:
    with signed_in(here.server, "dora"):
        dora = team.Server.found()
        team.grant(dora, "carl", "news", "read")
        team.revoke(dora, "carl", "news")
        with pytest.raises(Problem, match="permission denied"):
            team.grant(dora, "carl", "gender", "read")


# --------------------------------------------------------------------------------- the machine


def processes(pid: int) -> list[int]:
    """A process and all below it."""
    below = subprocess.run(["ps", "--ppid", str(pid), "-o", "pid="], capture_output=True, text=True)
    return [pid, *(one for child in below.stdout.split() for one in processes(int(child)))]


def test_no_password_stands_in_a_command_line_a_log_or_an_open_file(here: Team) -> None:
    home = here.server.home
    secrets = [
        here.server.admin.password,
        mlflow_server.PASSWORD,
        "p@ss%word",
        (home / "secret_key").read_text(),
    ]
    running = processes(here.server.process)
    assert len(running) == 2
    shown = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in running]
    assert all(b"mlflow" in line for line in shown)
    for text in [*shown, here.server.log.read_bytes()]:
        assert [one for one in secrets if one.encode() in text] == []
    for name in ("settings", "login", "auth.ini", "secret_key"):
        assert (home / name).stat().st_mode & 0o077 == 0
    assert all(not path.stat().st_mode & 0o077 for path in (home / "artifacts").iterdir())


def test_the_server_runs_no_jobs_and_is_small(here: Team) -> None:
    running = processes(here.server.process)
    for pid in running:
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        assert b"MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false" in environment
        assert b"MLFLOW_DISABLE_TELEMETRY=true" in environment
    sizes = [
        int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[0]) for pid in running
    ]
    assert sum(sizes) < 900_000  # kB; 560,000 measured
    print(f"the server's memory: {sum(sizes) / 1000:.0f} MB in {len(sizes)} processes")


def test_it_listens_on_this_machine_alone(here: Team) -> None:
    port = urlsplit(here.server.address).port or 0
    entries = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = {one[1] for one in entries if one[3] == "0A" and one[1].endswith(f":{port:04X}")}
    assert listening == {f"0100007F:{port:04X}"}


def test_tables_of_this_version_need_no_upgrade(here: Team) -> None:
    settings, given = team.read_settings(here.server.home, {})
    environment = team.prepare(
        here.server.home, settings, given, port=urlsplit(here.server.address).port or 0
    )
    subprocess.run([sys.executable, "-c", team.UPGRADE], env=environment, check=True)
    assert here.ask("GET", f"{API}/runs/get?run_id={here.gender.run}", "anna")[0] == 200


def test_a_backup_brings_back_runs_and_rights(here: Team) -> None:
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]
    address = here.server.database
    restored = f"{address.rpartition('/')[0]}/restored"
    dump = here.server.home / "backup"

    def run(program: str, *given: str) -> str:
        return subprocess.run(
            [programs / program, *given], check=True, capture_output=True, text=True
        ).stdout

    run("pg_dump", "--format=custom", f"--file={dump}", address)
    run("createdb", "--maintenance-db", address, "restored")
    run("pg_restore", f"--dbname={restored}", "--exit-on-error", str(dump))
    for table in ("runs", "metrics", "model_versions", "users", "role_permissions"):
        counted = [
            run("psql", "-Atc", f"select count(*) from {table}", one) for one in (address, restored)
        ]
        assert counted[0] == counted[1] != "0\n"


# ----------------------------------------------------------------------------- the page on the TLS side


def block(language: str) -> str:
    """A fenced block of docs/team-server.md."""
    text = (REPOSITORY / "docs/team-server.md").read_text("utf-8")
    (found,) = re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
    return str(found)


def test_the_documented_nginx_serves_it_over_tls(here: Team, tmp_path: Path) -> None:
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/bin")
    if nginx is None:
        pytest.skip("nginx is not installed (Debian: apt-get install nginx-light)")
    port = mlflow_server.free_port()
    certify = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -keyout key.pem -out cert.pem"
    name = "mlflow.example.org"
    subprocess.run(
        [*certify.split(), "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    site = block("nginx")
    for old, new in (
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("/etc/ssl/mlflow/cert.pem", f"{tmp_path}/cert.pem"),
        ("/etc/ssl/mlflow/key.pem", f"{tmp_path}/key.pem"),
        ("http://127.0.0.1:5000", here.server.address),
    ):
        assert old in site
        site = site.replace(old, new)
    config = tmp_path / "nginx.conf"
    scratch = "".join(
        f"{name}_temp_path {tmp_path}/{name};\n"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config.write_text(
        f"pid {tmp_path}/pid;\nerror_log {tmp_path}/error.log;\ndaemon off;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{scratch}{site}\n}}\n"
    )
    checked = subprocess.run([nginx, "-t", "-c", config], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    process = subprocess.Popen([nginx, "-c", config], stderr=subprocess.DEVNULL)
    fetch = ["curl", "-s", "--cacert", "cert.pem", "--retry", "20", "--retry-connrefused"]
    fetch += ["--retry-delay", "1", "--connect-to", f"mlflow.example.org:443:127.0.0.1:{port}"]
    fetch += ["-w", "\n%{http_code}"]

    def get(*given: str) -> tuple[str, str]:
        told = subprocess.run([*fetch, *given], cwd=tmp_path, capture_output=True, text=True).stdout
        content, _, status = told.rpartition("\n")
        return status, content

    try:
        page = "https://mlflow.example.org"
        search = f"{page}{API}/runs/search"
        ids = json.dumps({"experiment_ids": [here.gender.experiment]})
        asked = ["-H", "Content-Type: application/json", "-H", f"Origin: {page}", "-d", ids]
        assert get(page)[0] == "401"
        assert get(search, *asked)[0] == "401"
        status, told = get(search, *asked, "-u", f"anna:{PASSWORD}")
        assert (status, "gender-run" in told) == ("200", True)
        assert get(f"{page}/version", "-u", f"anna:{PASSWORD}")[0] == "200"
        foreign = ["-H", "Host: evil.example.com", "-u", f"anna:{PASSWORD}"]
        assert get(f"{page}/version", *foreign)[0] in ("000", "403", "421")
        large = tmp_path / "large"
        large.write_bytes(b"0" * 3_000_000)
        artifact = f"{here.gender.experiment}/{here.gender.run}/artifacts/large"
        assert get(f"{page}{PROXIED}/{artifact}", "-T", str(large), "-u", f"bert:{PASSWORD}")[0] == "200"
    finally:
        process.terminate()
        process.wait(10)


def test_the_documented_caddyfile_is_valid(tmp_path: Path) -> None:
    caddy = shutil.which("caddy")
    if caddy is None:
        pytest.skip("caddy is not installed (Debian: apt-get install caddy)")
    (tmp_path / "Caddyfile").write_text(block("caddy"))
    checked = subprocess.run(
        [caddy, "validate", "--config", tmp_path / "Caddyfile", "--adapter", "caddyfile"],
        capture_output=True,
        text=True,
        env={**os.environ, "HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path)},
    )
    assert checked.returncode == 0, checked.stderr
