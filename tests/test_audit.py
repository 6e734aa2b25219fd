"""Every place is looked at, a finding names it and the row, and never shows the text."""

import base64
import gzip
import hashlib
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from undertone import cli
from undertone.codebook import read_codebook
from undertone.corpus import sample
from undertone.errors import Problem
from undertone.params import read_params
from undertone.privacy import audit
from undertone.privacy.audit import Memo
from undertone.privacy.needles import Needles, Row, public_texts

SECRET = "The foreman of the Riverside bakery asked my sister whether she planned to have children soon."
HERE = Path(__file__).parents[1]


def git(root: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    return subprocess.run(
        ["git", *identity, *arguments], cwd=root, check=True, capture_output=True, text=True
    ).stdout


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a private table, and nothing of it anywhere else."""
    root = tmp_path / "repository"
    (root / ".dvc/tmp").mkdir(parents=True)
    (root / "data/lab").mkdir(parents=True)
    columns = {"id": ["r1", "r2"], "text": [SECRET, "ok"], "group": ["heron_7731", ""]}
    pd.DataFrame(columns).to_parquet(root / "data/lab/comments.parquet")
    text = (HERE / "params.yaml").read_text("utf-8")
    (root / "params.yaml").write_text(text.partition("  - codebooks/")[0] + "  - public.txt\n", "utf-8")
    (root / "public.txt").write_text("nothing private\n")
    (root / ".gitignore").write_text("/data/\n/.cache/\n/mlflow.db\n/unsent/\n/dvc_plots/\n/models/\n")
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "A beginning")
    for name in ("HOME", "TMPDIR", "HF_HOME"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.chdir(root)
    return root


def found(root: Path, *names: str) -> list[audit.Finding]:
    return [one for done in audit.reports(root, Needles.of(root), names) for one in done.findings]


def write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def commit(root: Path, name: str, content: str, message: str = "More") -> None:
    write(root / name, content)
    git(root, "add", "-f", name)
    git(root, "commit", "-qm", message)


def undone(root: Path) -> None:
    commit(root, "a.txt", SECRET)
    git(root, "reset", "-q", "--hard", "HEAD~1")


def stashed(root: Path) -> None:
    write(root / "public.txt", SECRET)
    git(root, "stash", "-q")


def experiment(root: Path) -> None:
    undone(root)
    git(root, "update-ref", "refs/exps/ab/cd/name", "ORIG_HEAD")
    git(root, "gc", "-q", "--prune=now")


def remote(root: Path) -> None:
    write(
        root / ".dvc/config",
        "['remote \"public\"']\n    url = ../store\n['remote \"private\"']\n    url = ../own\n",
    )
    write(root / "store/files/md5/ab/cd", SECRET)
    write(root / "own/files/md5/ab/cd", SECRET)
    with (root / ".gitignore").open("a") as file:
        file.write("/store/\n/own/\n")


PLANTED: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a committed file": ("git objects", lambda root: commit(root, "a.txt", SECRET)),
    "a file's name": ("git objects", lambda root: commit(root, f"{SECRET}.txt", "")),
    "a message": ("git objects", lambda root: commit(root, "a.txt", "a", SECRET)),
    "a tag": ("git objects", lambda root: git(root, "tag", "-a", "v1", "-m", SECRET)),
    "a note": ("git objects", lambda root: git(root, "notes", "add", "-m", SECRET)),
    "a commit that no branch holds": ("git objects", undone),
    "a stash": ("git objects", stashed),
    "an experiment": ("git objects", experiment),
    "a reflog": (
        "git's own files",
        lambda root: git(root, "update-ref", "-m", SECRET, "--create-reflog", "refs/heads/x", "HEAD"),
    ),
    "a new file": ("files", lambda root: write(root / "note.md", SECRET)),
    "a new file in base64": (
        "files",
        lambda root: write(root / "a.json", base64.b64encode(SECRET.encode())),
    ),
    "MLflow's database": ("mlflow", lambda root: write(root / "mlflow.db", SECRET)),
    "an artifact": (
        "mlflow",
        lambda root: write(root / "mlartifacts/1/a.gz", gzip.compress(SECRET.encode())),
    ),
    "a journal": ("journals", lambda root: write(root / "unsent/a.jsonl", SECRET)),
    "a report": ("reports", lambda root: write(root / "reports/lab/report.html", SECRET)),
    "a user's name in a plot": (
        "reports",
        lambda root: write(root / "dvc_plots/a.html", "<b>heron_7731</b>"),
    ),
    "a release": ("release", lambda root: write(root / "models/release/lab/labels.json", SECRET)),
    "a public remote": ("public remotes", remote),
    "a log of the queue": ("dvc's logs", lambda root: write(root / ".dvc/tmp/exps/run/a/a.out", SECRET)),
    "the data sets' cache": (
        "caches",
        lambda root: write(root.parent / "HF_HOME/datasets/json/a.arrow", SECRET),
    ),
    "a temporary file": (
        "temporary files",
        lambda root: write(root.parent / "TMPDIR/undertone-x/a", SECRET),
    ),
}


@pytest.mark.parametrize("what", PLANTED)
def test_a_planted_text_is_found_in_its_place(
    what: str, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place, plant = PLANTED[what]
    assert found(repository, place) == []
    plant(repository)
    wrong = found(repository, place)
    assert {(one.place, one.row, one.source) for one in wrong} == {(place, "r1", "lab")}
    assert cli.main(["audit", "--place", place]) == 1
    shown = capsys.readouterr().out
    assert "r1" in shown
    assert f"{place}: " in shown
    letters = "".join(filter(str.isalnum, shown.casefold()))
    secret = "".join(filter(str.isalnum, SECRET.casefold()))
    assert all(secret[at : at + 12] not in letters for at in range(len(secret) - 12))
    assert "heron" not in shown


def test_the_data_itself_is_no_finding(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["audit"]) == 0
    shown = capsys.readouterr().out
    for place in audit.places(repository):
        assert f"{place.name}: " in shown
    assert "1 rows" in shown  # the one that is too short


def test_a_git_object_that_was_read_and_found_fit_is_public(repository: Path) -> None:
    commit(repository, "public.txt", SECRET)
    commit(repository, "public.txt", "nothing private\n")
    (one,) = found(repository, "git objects")
    assert "public.txt" in one.item
    object_ = git(repository, "rev-parse", "HEAD~1:public.txt").strip()
    with (repository / "params.yaml").open("a") as file:
        file.write(f"  - {object_}\n")
    assert found(repository, "git objects") == []
    commit(repository, "public.txt", SECRET + "!")
    needles = Needles.made([Row("lab", "r1", SECRET)])
    (done,) = audit.reports(repository, needles, ["git objects"])
    assert [one.row for one in done.findings] == ["r1"]


def test_the_stage_writes_the_same_again_and_stops_at_a_finding(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stages.audit import main

    out = repository / "reports/standin/audit.json"
    (repository / "data/raw/standin").mkdir(parents=True)
    paths = {
        name: repository / "reports" / name for name in ("registered", "report", "page", "pictures")
    }

    def run() -> str:
        return main(
            read_params(repository / "params.yaml"),
            source="standin",
            raw=repository / "data/raw/standin",
            comments=repository / "data/lab/comments.parquet",
            release=repository / "models/release/standin",
            out=out,
            **paths,
        )

    assert "none found" in run()
    first = out.read_bytes()
    assert json.loads(first)["findings"] == 0
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://runs.example.org")
    assert "not looked at: MLflow's store (https)" in run()
    assert out.read_bytes() == first
    write(repository / "models/release/standin/README.md", f"Trained on: {SECRET}")
    where = re.escape("release: models/release/standin/README.md: text of row r1")
    with pytest.raises(Problem, match=where) as stopped:
        run()
    assert "foreman" not in str(stopped.value)


def test_many_findings_are_counted(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(30):
        write(repository / f"{number}.txt", SECRET)
    assert cli.main(["audit", "--place", "files"]) == 1
    shown = capsys.readouterr().out
    assert shown.count("of row r1 of lab") == audit.SHOWN
    assert "and 10 more" in shown


def test_a_file_that_cannot_be_opened_is_a_finding() -> None:
    unread = audit.Unread.because("can't be read (PermissionError)")
    (one,) = audit.searched([("a.txt", unread)], Needles.made([Row("lab", "1", SECRET)]))
    assert str(one) == "a.txt: not searched: can't be read (PermissionError)"


def test_a_remote_on_another_machine_is_said_to_be_unlooked(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(repository / ".dvc/config", "['remote \"models\"']\n    url = s3://bucket/models\n")
    assert cli.main(["audit", "--place", "public remotes"]) == 0
    assert "not looked at: the public remote 'models'" in capsys.readouterr().out


def test_a_remote_of_this_machine_alone_is_looked_at(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = repository.parent
    write(folder / "settings/config", f"['remote \"open\"']\n    url = file://{folder}/a%20store\n")
    write(folder / "a store/files/md5/ab/cd", SECRET)
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(folder / "settings"))
    assert [one.row for one in found(repository, "public remotes")] == ["r1"]


def test_a_public_folder_that_is_not_here_is_told(repository: Path) -> None:
    write(repository / ".dvc/config", "['remote \"open\"']\n    url = ../gone\n")
    (done,) = audit.reports(repository, Needles.of(repository), ["public remotes"])
    assert audit.unlooked([done]) == ["the public remote 'open', as its folder isn't here"]


def test_a_store_of_mlflow_elsewhere_is_looked_at_or_told(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = repository.parent / "store"
    for name in ("my.db-wal", "mlartifacts/1/a.txt", "2/meta.yaml"):
        write(folder / name, SECRET)
    for address, count in (
        (f"sqlite:///{folder}/my.db", 2),
        (f"file://{folder}", 3),
        (str(folder), 3),
        ("../store", 3),
    ):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        assert len(found(repository, "mlflow")) == count, address
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://ann:pw@db.example.org/x")
    (done,) = audit.reports(repository, Needles.of(repository), ["mlflow"])
    assert audit.unlooked([done]) == [
        "MLflow's store (postgresql): run `undertone audit` on its machine"
    ]


def test_a_git_that_gives_no_answer_is_a_finding(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    for place in ("git objects", "git's own files", "files"):
        (one,) = found(repository, place)
        assert one.kind == "unsearched"
        assert "fails" in one.why
    monkeypatch.undo()
    assert audit.searched(audit.history(repository.parent), Needles.made([])) == []  # no repository


@pytest.mark.parametrize("damage", [b"\0" * 20, b""])
def test_a_git_object_that_cannot_be_read_is_a_finding_beside_the_others(
    damage: bytes, repository: Path
) -> None:
    commit(repository, "a.txt", SECRET)
    write(repository / "b.txt", "b")
    bad = git(repository, "hash-object", "-w", "b.txt").strip()
    path = repository / ".git/objects" / bad[:2] / bad[2:]
    path.chmod(0o644)
    path.write_bytes(damage)
    kinds = {one.kind for one in found(repository, "git objects")}
    assert kinds == {"text", "unsearched"}


def test_files_are_named_not_described(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(repository / "export[1].md", SECRET)
    assert cli.main(["audit", "export[1].md"]) == 1
    assert "files given: 1 items" in capsys.readouterr().out
    assert cli.main(["audit", "export*.md"]) == 1
    assert "export*.md: no such file" in capsys.readouterr().err


def test_what_is_packed_and_too_large_to_open_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "PIECE", 3 << 19)
    bulk = np.random.default_rng(1).bytes(1 << 21)
    write(tmp_path / "a.gz", gzip.compress(bulk + SECRET.encode(), 1))
    write(tmp_path / "b.zip", bulk + b"PK\x05\x06" + bytes(18))
    write(tmp_path / "c.bin", bulk + SECRET.encode())
    wrong = audit.searched(audit.files(tmp_path, ["*"]), Needles.made([Row("lab", "1", SECRET)]))
    assert [one.item for one in wrong if one.kind == "unsearched"] == ["a.gz", "b.zip"]
    assert [one.row for one in wrong if one.item.startswith("c.bin from byte")] == ["1"]


def test_what_was_searched_is_not_searched_again(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(repository / "clean.txt", "nothing of it")
    write(repository / "bad.txt", SECRET)
    looked: list[str] = []
    unpacked = audit.containers.unpacked
    monkeypatch.setattr(
        audit.containers,
        "unpacked",
        lambda name, content: (looked.append(name), unpacked(name, content))[1],
    )
    assert len(found(repository, "files")) == 1
    assert "clean.txt" in looked
    looked.clear()
    assert len(found(repository, "files")) == 1
    assert looked == ["bad.txt"]


def test_the_memo_holds_no_plain_digest_and_its_key_is_the_users_own(repository: Path) -> None:
    content = b"nothing of it"
    write(repository / "clean.txt", content)
    found(repository, "files")
    folder = repository / ".cache/audit"
    assert (folder / "key").stat().st_mode & 0o777 == 0o600
    (held,) = [path.read_bytes() for path in folder.iterdir() if path.name != "key"]
    for plain in (
        hashlib.md5(content),
        hashlib.sha256(content),
        hashlib.blake2b(content, digest_size=16),
    ):
        assert plain.digest()[:8] not in held
    needles = Needles.of(repository)
    digest = Memo(repository, needles).digest(content, raw=False)
    assert digest in Memo(repository, needles)
    (folder / "key").write_bytes(b"another key that has 32 bytes...")
    assert digest not in Memo(repository, needles)


def test_other_rows_make_another_memo(repository: Path) -> None:
    write(
        repository / "clean.txt", "A second row, which was written after all this and by somebody else."
    )
    assert not found(repository, "files")
    table = pd.read_parquet("data/lab/comments.parquet")
    table.loc[1, "text"] = "A second row, which was written after all this and by somebody else."
    table.to_parquet("data/lab/comments.parquet")
    assert [one.row for one in found(repository, "files")] == ["r2"]


def test_this_repository_holds_nothing_of_its_own_stand_in() -> None:
    """And what is planted of it is found, though it is made of public phrases."""
    frame = sample.rows(
        read_codebook(HERE / "codebooks/gender.yaml"), 2000, 100, np.random.default_rng(13)
    )
    rows = [
        Row("standin", str(one.comment_id), str(one.comment), str(one.author))
        for one in frame.dropna(subset=["comment"]).itertuples()
    ]
    assert len(rows) > 1900
    needles = Needles.made(
        rows, public_texts(HERE, ["codebooks/*.yaml", "undertone/corpus/sample_words.py"])
    )
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=HERE, check=True, capture_output=True).stdout
    files = [HERE / name for name in listed.decode().split("\0") if name and (HERE / name).is_file()]
    assert len(files) > 150
    assert audit.searched(((path.name, path.read_bytes()) for path in files), needles) == []
    planted = [row for row in rows[::20] if len(row.text) > 80]
    assert len(planted) > 60
    assert all(needles.found(f"x {row.text} y") for row in planted)


def test_a_source_that_is_not_here_is_told_and_the_stand_in_is_no_loss(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(repository / "data/raw/ministry.dvc", "outs: []\n")
    told = "not searched for, as it isn't here: ministry (`dvc pull data/raw/ministry`)\n"
    assert cli.main(["audit", "--place", "reports"]) == 0
    said = capsys.readouterr().out
    assert said.endswith(told)
    assert "standin" not in said
    write(repository / "data/raw/ministry/a.csv", "id,text\n")
    cli.main(["audit", "--place", "reports"])
    assert told not in capsys.readouterr().out
