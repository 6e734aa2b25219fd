"""Nothing private gets into git by accident: each way is tried with the hooks that `make hooks` sets."""

import base64
import gzip
import io
import json
import os
import pickle
import resource
import shutil
import sqlite3
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pandas as pd
import pytest

from undertone.privacy import guard, kinds

ROOT = Path(__file__).parents[1]
TEXT = "My boss at the Lisbon office never grants leave to fathers in our team"
CHINESE = "我们办公室的领导从来不给爸爸们批准陪产假真是太不公平了"
ROWS = [("r1", TEXT), ("r2", f"{TEXT}, and nobody asks why"), ("r3", CHINESE)] * 4


def lines(delimiter: str, *, header: bool = True) -> str:
    rows = [("id", "comment")] * header + ROWS
    return "".join(f'{one}{delimiter}"{text}"\n' for one, text in rows)


def workbook() -> bytes:
    file = io.BytesIO()
    pd.DataFrame(ROWS, columns=["id", "comment"]).to_excel(file, index=False)
    return file.getvalue()


def table() -> bytes:
    file = io.BytesIO()
    pd.DataFrame(ROWS, columns=["id", "comment"]).to_parquet(file)
    return file.getvalue()


def zipped(name: str, content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, content)
    return file.getvalue()


def database() -> bytes:
    with sqlite3.connect(":memory:") as made:
        made.execute("create table comments (id, text)")
        made.executemany("insert into comments values (?, ?)", ROWS)
    return made.serialize()


def array() -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([text for _, text in ROWS]))
    return file.getvalue()


def picture(*, beside: bytes = b"", after: bytes = b"") -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    parts = [(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)), (b"tEXt", b"Comment\0" + beside)]
    parts += [(b"IDAT", zlib.compress(b"\0\0")), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts) + after


def notebook(**cell: object) -> str:
    whole = {"cell_type": "code", "source": ["table.head()"], "metadata": {}, "outputs": [], **cell}
    return json.dumps({"cells": [whole], "nbformat": 4, "nbformat_minor": 5, "metadata": {}})


def escaped(text: str) -> str:
    return json.dumps(text)[1:-1]


# as sentence-transformers and SetFit write it beside every model and checkpoint
CARD = f"""---
tags:
- sentence-transformers
- setfit
widget:
- text: {TEXT}
---
# A model
"""
POINTER = "outs:\n- md5: 0123456789abcdef0123456789abcdef.dir\n  size: 12\n  nfiles: 2\n  hash: md5\n"
OUTPUT = [{"output_type": "stream", "name": "stdout", "text": [TEXT]}]
JOINED = "\n".join(f'{{"id": "{one}", "text": "{text}"}}' for one, text in ROWS)
WRAPPED = base64.encodebytes(os.urandom(3000)).decode()

WAYS: dict[str, tuple[str, str | bytes]] = {
    "a workbook": ("comments.xlsx", workbook()),
    "a workbook in capitals": ("Comments.XLSX", workbook()),
    "a workbook under another name": ("docs/figure.png", workbook()),
    "an encrypted workbook under another name": ("notes.md", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" * 90),
    "a workbook in a zip archive": ("docs/attached.md", zipped("comments.xlsx", workbook())),
    "Excel's own lock file": (".~lock.comments.xlsx#", "somebody"),
    "a test fixture": ("tests/fixture.csv", lines(",")),
    "CSV under another name": ("docs/sample.md", lines(",")),
    "CSV within code": ("tests/test_x.py", f'ROWS = """\n{lines(";")}"""\n'),
    "CSV without a header": ("docs/sample.yaml", lines(",", header=False)),
    "a tab-separated table": ("docs/sample.md", lines("\t")),
    "a list of texts": ("texts.txt", "\n".join(text for _, text in ROWS)),
    "a Markdown table": ("docs/examples.md", f"| id | comment |\n|---|---|\n| 1 | {TEXT} |\n"),
    "JSON lines": ("requests.jsonl", JOINED),
    "JSON lines under another name": ("docs/requests.md", JOINED),
    "compressed JSON lines": ("docs/requests.md", gzip.compress(JOINED.encode())),
    "what the stages keep": ("data/standin/comments.parquet", table()),
    "a note beside the data": ("data/notes.md", TEXT),
    "a parquet table under another name": ("reports/scores", table()),
    "metrics with a text": ("reports/x/metrics.json", json.dumps({"worst": [{"of": TEXT}]})),
    "metrics with short texts": ("reports/y/metrics.json", json.dumps([{"text": "bad boss"}])),
    "a table of short texts": ("docs/short.md", "id,text\n1,bad boss\n2,no leave\n"),
    "metrics with a Chinese text": ("reports/x/metrics.json", json.dumps({CHINESE: 0.5})),
    "a plot with texts": ("reports/x/plot.json", json.dumps({"data": {"values": [{"t": TEXT}]}})),
    "DVC's page of plots": ("dvc_plots/index.html", f"<script>{TEXT}</script>"),
    "an HTML report": ("reports/x/errors.html", f"<table><tr><td>{TEXT}</td></tr></table>"),
    "MLflow's database": ("mlflow.db", database()),
    "what a database writes beside it": ("mlflow.db-wal", b"\x37\x7f\x06\x82" + TEXT.encode()),
    "a database under another name": ("docs/store.md", database()),
    "a pickle": ("reports/x/model", pickle.dumps(ROWS)),
    "an array of texts": ("reports/x/texts", array()),
    "a model's folder": ("models/candidates/standin/bert/config.json", "{}"),
    "a model's weights elsewhere": ("export/model.safetensors", b"\x08\0\0\0\0\0\0\0{}      "),
    "a model's card": ("models/candidates/standin/e5/README.md", CARD),
    "a model's card elsewhere": ("export/README.md", CARD),
    "a notebook's output": ("docs/look.ipynb", notebook(outputs=OUTPUT)),
    "a notebook's picture": ("docs/look.ipynb", notebook(attachments={"a.png": {}})),
    "a log": ("train.log", TEXT),
    "a log of DVC's queue": (".dvc/tmp/exps/celery/proc.md", TEXT),
    "what a killed pull leaves": (".Cc4TjWcNbxNL.tmp", workbook()[:3000]),
    "text in what keeps a folder": ("data/raw/reviews/private/.gitkeep", TEXT),
    "what a killed pull leaves below": ("data/raw/.3k.tmp", table()[:300]),
    "what an editor leaves": ("docs/.notes.md.swp", TEXT),
    "text in base64 in code": ("tests/x.py", f'X = "{base64.b64encode(TEXT.encode()).decode()}"\n'),
    "Chinese in base64": ("docs/x.md", base64.b64encode(CHINESE.encode()).decode()),
    "a workbook in base64": ("docs/x.yaml", "book: " + base64.b64encode(workbook()).decode()),
    "wrapped base64": ("docs/x.md", WRAPPED),
    "a workbook in base64 in JSON": (
        "reports/x/a.json",
        json.dumps({"a": base64.b64encode(workbook()).decode()}),
    ),
    "text in hex": ("docs/x.md", TEXT.encode().hex()),
    "text in a bytes literal": ("x.py", "".join(f"\\x{one:02x}" for one in TEXT.encode())),
    "text in escapes": ("tests/x.py", f'X = "{escaped(CHINESE)}"\n'),
    "text in URL escapes": ("docs/x.md", f"https://example.org/?q={quote(CHINESE)}"),
    "text in HTML entities": ("docs/x.md", "".join(f"&#{ord(one)};" for one in CHINESE)),
    "a UTF-16 copy": ("docs/notes.md", TEXT.encode("utf-16")),
    "a copy in GB18030": ("docs/notes.md", CHINESE.encode("gb18030")),
    "a text in a picture's head": ("docs/a.png", picture(beside=TEXT.encode() * 2)),
    "an archive behind a picture": ("docs/a.png", picture(after=zipped("a.csv", b"1"))),
    "a picture of results": ("reports/x/errors.png", picture()),
    "a name that is a text": (f"docs/{TEXT}.md", "x"),
    "a Chinese name that is a text": (f"docs/{CHINESE}.md", "x"),
    "a pointer with more in it": ("data/raw/private.dvc", f"{POINTER}  path: private\ndesc: {TEXT}\n"),
    "credentials": (".dvc/config.local", "['remote \"private\"']\n    password = p4ssw0rd\n"),
    "a password in DVC's settings": (".dvc/config", "['remote \"private\"']\n    password = p4ssw0rd\n"),
    "a password in an address": (
        ".dvc/config",
        "['remote \"private\"']\n    url = https://ann:p4ssw0rd@h/x\n",
    ),
    "the server's passwords": (".server/auth.ini", "[mlflow]\nadmin_password = p4ssw0rd\n"),
    "runs that wait": ("unsent/standin-bert.journal", TEXT),
    "keys to a store": ("docs/credentials", "[default]\naws_secret_access_key = p4ssw0rd\n"),
    "a private key": ("docs/access.md", "-----BEGIN " + "OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1r\n"),
    "an access token": ("x.py", "TOKEN = 'ghp_" + "a1B2" * 9 + "'"),
    "a large file": ("docs/large.md", "word \n" * 200_000),
}


def git(
    folder: Path, *arguments: str, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    named = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "protocol.file.allow=always"]
    return subprocess.run(
        ["git", *named, *arguments],
        cwd=folder,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )


def done(folder: Path, *arguments: str) -> str:
    run = git(folder, *arguments)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the hooks as `make hooks` installs them."""
    folder = tmp_path_factory.mktemp("repository")
    done(folder, "init", "-q", "-b", "main")
    shutil.copy(ROOT / "Makefile", folder)
    shutil.copytree(ROOT / ".githooks", folder / ".githooks")
    (folder / "undertone/privacy").mkdir(parents=True)
    for name in ("__init__", "privacy/__init__", "privacy/guard", "privacy/kinds"):
        shutil.copy(ROOT / f"undertone/{name}.py", folder / f"undertone/{name}.py")
    (folder / ".gitignore").write_text("__pycache__/\n")  # as every repository of Python has it
    subprocess.run(["make", "hooks"], cwd=folder, check=True, stdout=subprocess.PIPE)
    done(folder, "add", "-A")
    done(folder, "commit", "-qm", "start")
    return folder


@pytest.fixture
def repository(prepared: Path) -> Iterator[Path]:
    """The prepared one, which is as it was afterwards."""
    start = done(prepared, "rev-parse", "HEAD")
    yield prepared
    done(prepared, "checkout", "-qf", "-B", "main", start)
    done(prepared, "clean", "-qffdx")


def put(folder: Path, name: str, content: str | bytes) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def waves() -> list[list[str]]:
    """The ways, those of different paths together: a commit costs as much as a look at all of them."""
    paths = [name for name, _ in WAYS.values()]
    turns = {way: paths[:at].count(WAYS[way][0]) for at, way in enumerate(WAYS)}
    return [[way for way in WAYS if turns[way] == turn] for turn in range(max(turns.values()) + 1)]


@pytest.mark.parametrize("wave", waves(), ids=len)
def test_the_hook_stops_data_in_any_shape(wave: list[str], repository: Path) -> None:
    for way in wave:
        put(repository, *WAYS[way])
    done(repository, "add", "-f", *(WAYS[way][0] for way in wave))
    run = git(repository, "commit", "-qm", "oops")
    assert run.returncode == 1
    told = [line.removeprefix("not to be committed: ") for line in run.stderr.splitlines()]
    names = {way: f"{kinds.shown(WAYS[way][0])}: " for way in wave}
    assert [way for way in wave if not any(one.startswith(names[way]) for one in told)] == []
    assert len(told) == len(wave) + 1  # the last says what to do
    assert not any(text in run.stderr for text in (TEXT, CHINESE, "p4ssw0rd"))
    assert done(repository, "log", "--format=%s") == "start"


@pytest.mark.parametrize("leads", ["data/raw/private/comments.xlsx", "/srv/comments", "../../comments"])
def test_a_link_to_private_files_is_stopped(leads: str, repository: Path) -> None:
    (repository / "comments").symlink_to(leads)
    done(repository, "add", "-f", "comments")
    assert "not to be committed: comments: a link" in git(repository, "commit", "-qm", "oops").stderr


def test_a_repository_within_the_repository_is_stopped(repository: Path, tmp_path: Path) -> None:
    done(tmp_path, "init", "-q")
    put(tmp_path, "comments.xlsx", workbook())
    done(tmp_path, "add", "-A")
    done(tmp_path, "commit", "-qm", "data")
    done(repository, "submodule", "--quiet", "add", str(tmp_path), "other")
    assert "not to be committed: other: " in git(repository, "commit", "-qm", "oops").stderr


def test_what_is_staged_counts_and_not_what_lies_in_the_folder(repository: Path) -> None:
    put(repository, "docs/notes.md", lines(","))
    done(repository, "add", "-A")
    put(repository, "docs/notes.md", "Nothing.\n")
    assert git(repository, "commit", "-qm", "oops").returncode == 1
    done(repository, "add", "-A")
    put(repository, "docs/notes.md", lines(","))
    done(repository, "commit", "-qm", "fine")
    assert git(repository, "commit", "-qam", "oops").returncode == 1  # its index is another one
    assert git(repository, "commit", "-qm", "oops", "docs/notes.md").returncode == 1


def test_a_renamed_file_is_looked_at_anew(repository: Path) -> None:
    put(repository, "docs/notes.md", "id,number\n1,2\n")
    done(repository, "add", "-A")
    done(repository, "commit", "-qm", "fine")
    done(repository, "mv", "docs/notes.md", "notes.csv")
    assert "not to be committed: notes.csv" in git(repository, "commit", "-qm", "oops").stderr


def test_a_file_once_refused_may_be_deleted(repository: Path) -> None:
    put(repository, "comments.csv", lines(","))
    done(repository, "add", "-A")
    done(repository, "commit", "-qm", "forced", "--no-verify")
    done(repository, "rm", "-q", "comments.csv")
    done(repository, "commit", "-qm", "gone")


def test_a_merge_is_looked_at(repository: Path) -> None:
    done(repository, "checkout", "-qb", "other")
    forced(repository)
    done(repository, "checkout", "-q", "main")
    run = git(repository, "merge", "--no-ff", "-m", "oops", "other")
    assert run.returncode == 1
    assert "not to be committed: docs/notes.md: a table of texts" in run.stderr
    done(repository, "merge", "--abort")
    done(repository, "branch", "-D", "other")


@pytest.mark.parametrize(
    "text", [lines(","), base64.b64encode(TEXT.encode()).decode(), JOINED, escaped(CHINESE)]
)
def test_a_message_with_data_is_stopped(text: str, repository: Path) -> None:
    run = git(repository, "commit", "-q", "--allow-empty", "-m", "Say what changed", "-m", text)
    assert run.returncode == 1
    assert "not to be committed: the message of this commit: " in run.stderr


def test_what_looks_like_a_comment_of_git_is_a_message_too(repository: Path) -> None:
    text = f"#{base64.b64encode(TEXT.encode()).decode()}"
    run = git(repository, "commit", "-q", "--allow-empty", "-m", "Why", "-m", text)
    assert run.returncode == 1
    assert "the message of this commit: text in base64" in run.stderr


def test_what_git_shows_in_the_editor_is_no_message(repository: Path) -> None:
    put(repository, "docs/x.md", base64.b64encode(TEXT.encode()).decode())
    done(repository, "add", "-A")
    done(repository, "commit", "-qm", "forced", "--no-verify")
    done(repository, "rm", "-q", "docs/x.md")
    run = git(repository, "commit", "-q", "-v", "-e", "-m", "gone", environment={"GIT_EDITOR": "true"})
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("who", ["author", "committer"])
def test_who_made_a_commit_is_looked_at(who: str, repository: Path) -> None:
    name = base64.b64encode(TEXT.encode()).decode()
    environment = {f"GIT_{who.upper()}_NAME": name}
    run = git(repository, "commit", "-q", "--allow-empty", "-m", "Why", environment=environment)
    assert run.returncode == 1
    assert "the message of this commit: text in base64" in run.stderr
    forced = ["commit", "-q", "--no-verify", "--allow-empty", "-m", "Why"]
    assert git(repository, *forced, environment=environment).returncode == 0
    assert "text in base64" in looked_back(repository).stderr


@pytest.mark.parametrize("name", ["connection_string", "sas_token", "token", "secret_access_key"])
def test_secret_settings_are_named_and_not_shown(name: str) -> None:
    told = kinds.of_file(".dvc/config", f"[x]\n    {name} = p4ssw0rd\n".encode())
    assert told == f"it holds {name}; put that into .dvc/config.local or the environment"


def test_code_reports_and_pointers_pass(repository: Path) -> None:
    passing = {
        "stages/x.py": '"""Split."""\n',
        "reports/standin/metrics.json": '{"macro_f1": 0.5, "why": "bert"}\n',
        "reports/standin/latency.json": '{"machine": "AMD Ryzen 7 PRO 7840U with Radeon 780M Graphics"}',
        "reports/x/rows/split.json": '{"dropped": {"made from a row out of the training part": 1}}',
        "reports/runs.jsonl": '{"run": "bert", "c": 1.0}\n{"run": "e5"}\n',
        "data/raw/private.dvc": f"{POINTER}  path: private\n",
        "data/raw/reviews/private/.gitkeep": "",
        "data/raw/my comments.xlsx.dvc": f"{POINTER}  path: my comments.xlsx\n",
        "README.md": f"# A title\n\n{TEXT}.\n",
        "docs/shot.png": picture(),
        "docs/empty.ipynb": notebook(),
        "dvc.lock": f"schema: '2.0'\n{POINTER}" * 3000,
        ".dvc/config": "[core]\n    remote = private\n['remote \"private\"']\n"
        "    url = ssh://ann@data.example.org:22/srv/x@y\n    ask_password = true\n    keyfile = ~/.k\n",
    }
    for name, content in passing.items():
        put(repository, name, content)
    done(repository, "add", "-A")
    done(repository, "commit", "-qm", "Give each its reason\n\nBecause authors repeat themselves.")
    assert set(done(repository, "show", "--format=", "--name-only", "-z").split("\0")) >= set(passing)


@pytest.fixture
def remote(repository: Path, tmp_path: Path) -> Iterator[str]:
    """Where the repository's `main` has been pushed to."""
    done(tmp_path, "init", "-q", "--bare")
    done(repository, "remote", "add", "origin", str(tmp_path))
    done(repository, "push", "-q", "origin", "main")
    yield str(tmp_path)
    done(repository, "remote", "remove", "origin")


@pytest.fixture(scope="module")
def private(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone where the private comments are, and what `make repro` installs."""
    folder = tmp_path_factory.mktemp("private") / "clone"
    done(prepared, "clone", "-q", str(prepared), str(folder))
    for name in ("undertone", "codebooks"):
        shutil.copytree(ROOT / name, folder / name, dirs_exist_ok=True)
    shutil.copy(ROOT / "params.yaml", folder)
    (folder / ".venv").symlink_to(sys.prefix)
    put(folder, ".git/info/exclude", ".venv\n__pycache__\ndata\n")
    (folder / "data/private").mkdir(parents=True)
    table = pd.DataFrame(ROWS[:3], columns=["id", "text"]).assign(group=["a", "b", "c"])
    table.to_parquet(folder / "data/private/comments.parquet")
    done(folder, "add", "-A")
    done(folder, "commit", "-qm", "start")
    subprocess.run(["make", "hooks"], cwd=folder, check=True, stdout=subprocess.PIPE)
    return folder


def test_where_the_comments_are_a_quotation_in_code_is_stopped(private: Path) -> None:
    put(private, "undertone/x.py", f'def f():\n    """As in: {TEXT}."""\n')
    put(private, f"docs/{TEXT[:50].replace(' ', '-')}.md", "A name is public, too.\n")
    done(private, "add", "-A")
    run = git(private, "commit", "-qm", "oops")
    assert run.returncode == 1
    assert "not to be committed: undertone/x.py: text of row r1 of private" in run.stderr
    assert "not to be committed: something whose name holds it" in run.stderr
    assert "grants" not in run.stderr
    done(private, "reset", "-q", "--hard")


def test_where_the_comments_are_a_quotation_in_a_message_is_stopped(private: Path) -> None:
    run = git(private, "commit", "-q", "--allow-empty", "-m", f"Why {CHINESE[:20]}")
    assert run.returncode == 1
    assert "not to be committed: " in run.stderr
    assert CHINESE[:20] not in run.stderr
    done(private, "commit", "-q", "--allow-empty", "-m", "Why some comments are short")


def test_one_refusal_tells_of_files_and_message(private: Path) -> None:
    put(private, "docs/x.md", f"{TEXT}.\n")
    done(private, "add", "-A")
    run = git(private, "commit", "-qm", f"#Why {CHINESE[:20]}", "docs/x.md")  # a part has its own index
    assert run.returncode == 1
    assert "not to be committed: docs/x.md: text of row r1 of private" in run.stderr
    assert "not to be committed: the message of this commit: text of row r3 of private" in run.stderr
    done(private, "reset", "-q", "--hard")


def test_an_author_of_the_data_is_none_of_a_commit(private: Path) -> None:
    run = git(private, "commit", "-q", "--allow-empty", "-m", "Why", "--author", f"{TEXT} <a@b.example>")
    assert run.returncode == 1
    assert "not to be committed: the message of this commit: text of row r1 of private" in run.stderr


def test_a_linked_working_tree_is_searched_for_the_texts_of_the_main_one(
    private: Path, tmp_path: Path
) -> None:
    linked = tmp_path / "linked"
    done(private, "worktree", "add", "-q", str(linked))
    put(linked, "docs/x.md", f"{TEXT}.\n")
    done(linked, "add", "-A")
    run = git(linked, "commit", "-qm", "oops")
    done(private, "worktree", "remove", "--force", str(linked))
    assert run.returncode == 1
    assert "not to be committed: docs/x.md: text of row r1 of private" in run.stderr


def test_where_nothing_can_search_for_the_texts_the_hook_says_so(private: Path) -> None:
    (private / ".venv").rename(private / "data/away")
    run = git(private, "commit", "-q", "--allow-empty", "-m", "Why")
    (private / "data/away").rename(private / ".venv")
    assert run.returncode == 0
    assert run.stderr.count("not searched for the texts below") == 1


def forced(repository: Path) -> None:
    """A commit made without the hook."""
    put(repository, "docs/notes.md", lines(","))
    done(repository, "add", "-A")
    done(repository, "commit", "-qm", "forced", "--no-verify")


@pytest.mark.usefixtures("remote")
def test_a_push_stops_what_no_hook_saw(repository: Path) -> None:
    forced(repository)
    done(repository, "rm", "-q", "docs/notes.md")
    done(repository, "commit", "-qm", "gone")
    run = git(repository, "push", "origin", "main")
    assert run.returncode == 1
    assert "not to be committed: docs/notes.md in " in run.stderr
    done(repository, "reset", "-q", "--hard", "HEAD~2")
    done(repository, "commit", "-q", "--allow-empty", "-m", "fine")
    done(repository, "push", "-q", "origin", "main")


@pytest.mark.usefixtures("remote")
def test_a_push_stops_notes_and_names_that_hold_texts(repository: Path) -> None:
    done(repository, "notes", "add", "-m", lines(","))
    assert git(repository, "push", "origin", "refs/notes/commits").returncode == 1
    branch = CHINESE
    assert git(repository, "push", "origin", f"main:refs/heads/{branch}").returncode == 1
    done(repository, "update-ref", "-d", "refs/notes/commits")


@pytest.mark.usefixtures("remote")
@pytest.mark.parametrize("nested", [False, True])
def test_a_push_stops_tags_whose_message_holds_texts(nested: bool, repository: Path) -> None:
    done(repository, "tag", "-a", "v1", "-m", JOINED)
    if nested:
        done(repository, "-c", "advice.nestedTag=false", "tag", "-a", "v2", "-m", "fine", "v1")
    run = git(repository, "push", "origin", "v2" if nested else "v1")
    done(repository, "tag", "-d", "v1", *["v2"] * nested)
    assert run.returncode == 1
    assert "not to be committed: the message of tag v1: " in run.stderr
    assert TEXT not in run.stderr


@pytest.mark.usefixtures("remote")
def test_a_signed_tag_passes(repository: Path, tmp_path: Path) -> None:
    if not shutil.which("ssh-keygen"):
        pytest.skip("git signs with ssh-keygen, which isn't here")
    key = str(tmp_path / "key")
    subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-N", "", "-f", key], check=True)
    signed = ["-c", "gpg.format=ssh", "-c", f"user.signingkey={key}", "tag", "-s", "v1", "-m", "First"]
    done(repository, *signed)
    assert kinds.of_text(done(repository, "cat-file", "tag", "v1")) is not None  # but for the cut
    done(repository, "push", "-q", "origin", "v1")
    done(repository, "tag", "-d", "v1")


def looked_back(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "undertone.privacy.guard", "--history"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_history_tells_commit_and_path_of_what_is_gone_by_now(repository: Path) -> None:
    forced(repository)
    commit = done(repository, "rev-parse", "HEAD")
    done(repository, "rm", "-q", "docs/notes.md")
    done(repository, "commit", "-qm", "gone")
    run = looked_back(repository)
    assert run.returncode == 1
    assert f"not to be committed: docs/notes.md in {commit[:10]}: a table of texts" in run.stderr
    assert "3 messages" in run.stderr


@pytest.mark.parametrize("way", ["stash", "note", "tag", "tagged blob", "branch", "message"])
def test_the_history_reaches_stashes_notes_tags_and_names(way: str, repository: Path) -> None:
    assert looked_back(repository).returncode == 0
    before = set(done(repository, "for-each-ref", "--format=%(refname)").split("\n"))
    put(repository, "README.md", "x")
    done(repository, "add", "-A")
    done(repository, "commit", "-qm", "fine")
    if way == "stash":
        put(repository, "README.md", lines(","))
        done(repository, "stash", "push", "-q")
    elif way == "note":
        done(repository, "notes", "add", "-m", lines(","))
    elif way == "tag":
        done(repository, "tag", "-a", "v1", "-m", JOINED)
    elif way == "tagged blob":
        put(repository, "README.md", lines(","))
        done(repository, "tag", "v2", done(repository, "hash-object", "-w", "README.md"))
    elif way == "branch":
        done(repository, "branch", CHINESE)
    else:
        done(repository, "commit", "-q", "--no-verify", "--allow-empty", "-m", lines(","))
    run = looked_back(repository)
    for name in set(done(repository, "for-each-ref", "--format=%(refname)").split("\n")) - before:
        done(repository, "update-ref", "-d", name)
    assert run.returncode == 1
    assert "not to be committed: " in run.stderr
    assert TEXT not in run.stderr
    assert CHINESE not in run.stderr


def test_a_shallow_or_empty_checkout_says_so(repository: Path, tmp_path: Path) -> None:
    put(repository, "README.md", "x")
    done(repository, "add", "-A")
    done(repository, "commit", "-qm", "fine")
    done(tmp_path, "clone", "-q", "--depth=1", repository.as_uri(), "shallow")
    run = looked_back(tmp_path / "shallow")
    assert run.returncode == 0
    assert "1 messages" in run.stderr
    assert "a shallow clone, older commits are not here" in run.stderr
    (tmp_path / "empty").mkdir()
    done(tmp_path / "empty", "init", "-q")
    shutil.copytree(repository / "undertone", tmp_path / "empty/undertone")
    run = looked_back(tmp_path / "empty")
    assert run.returncode == 1
    assert "nothing was looked at" in run.stderr


def test_nothing_in_this_repository_or_its_past_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    change = guard.asked(["--tracked"])
    assert len(change.entries) > 50
    assert guard.faults(change) == []
    past = guard.asked(["--history"])
    assert {one.blob for one in past.entries} > {one.blob for one in change.entries} - unstaged()
    assert guard.faults(past) == []


def unstaged() -> set[str]:
    """What is in the index, and in no commit yet."""
    return {one.blob for one in guard.staged()}


def test_a_commit_is_looked_at_within_a_second(repository: Path) -> None:
    for path in sorted((ROOT / "undertone").rglob("*.py"))[:40]:
        put(repository, f"undertone/copy_{path.name}", path.read_bytes())
    done(repository, "add", "-A")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done(repository, "commit", "-qm", "fine")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert 0 < after.ru_utime - before.ru_utime < 3  # 0.5 s; wide, for busy machines


@pytest.mark.parametrize(
    "path",
    [
        "data/private/comments.parquet",
        "data/raw/private/comments.xlsx",
        "data/raw/private/.gitignore.tmp",
        "data/.comments.parquet.tmp",
        ".xyz.tmp",
        "models/release/private/int8.onnx",
        "mlflow.db",
        "mlflow.db.init",
        "mlartifacts/1/x",
        "dvc_plots/index.html",
        ".dvc/config.local",
        ".dvc/cache/x",
    ],
)
def test_git_ignores_what_is_private(path: str) -> None:
    assert git(ROOT, "check-ignore", "-q", path).returncode == 0


@pytest.mark.parametrize(
    "path", ["data/raw/private.dvc", "reports/private/metrics.json", "dvc.lock", "params.yaml"]
)
def test_git_keeps_what_is_shared(path: str) -> None:
    assert git(ROOT, "check-ignore", "-q", path).returncode == 1


def test_digests_paths_and_rulers_are_no_encoded_text() -> None:
    for harmless in (
        "0123456789abcdef" * 4,
        "undertone/models/candidates/standin/first/tokenizer/config/json/x",
        "-" * 300,
        "=" * 300,
        "\n".join(f'"{number:064x}",' for number in range(9)),
        "https://example.org/a%20b%20c",
        "id,name\n1,a\n2,b\n",
    ):
        assert kinds.of_text(harmless) is None
