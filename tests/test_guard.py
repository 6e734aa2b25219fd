"""Nothing private gets into git by accident."""

import shutil
import subprocess
from pathlib import Path

import pytest

from undertone.guard import faults

ROOT = Path(__file__).parents[1]


def git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    named = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    return subprocess.run(
        ["git", *named, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """An empty repository with the hook, as `make hooks` sets it up."""
    git(tmp_path, "init", "-q")
    git(tmp_path, "config", "core.hooksPath", ".githooks")
    shutil.copytree(ROOT / ".githooks", tmp_path / ".githooks")
    (tmp_path / "undertone").mkdir()
    for name in ("__init__.py", "guard.py"):
        shutil.copy(ROOT / "undertone" / name, tmp_path / "undertone" / name)
    git(tmp_path, "add", "-A")
    assert git(tmp_path, "commit", "-qm", "start").returncode == 0
    return tmp_path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("data/standin/comments.parquet", b"PAR1..."),
        ("data/notes.md", b"a comment"),
        ("models/release/x.json", b"{}"),
        ("comments.xlsx", b"PK\x03\x04..."),
        ("Comments.XLSX", b"anything"),
        ("docs/figure.png", b"PK\x03\x04 a renamed workbook"),
        ("notes.txt", b"\xd0\xcf\x11\xe0 an encrypted workbook"),
        ("tests/fixture.csv", b"id,text\n"),
        ("tests/fixture.txt", b"UEsDBBQAAAAIAA"),
        ("mlflow.db", b"SQLite format 3\0"),
        ("reports/weights", b"\x80\x04\x95pickle"),
        ("notebook.ipynb", b"x" * 1_000_001),
        ("docs/backup.gz.md", b"\x1f\x8b\x08"),
    ],
)
def test_the_hook_refuses_data_under_any_name(name: str, content: bytes, repository: Path) -> None:
    path = repository / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    git(repository, "add", "-f", name)
    done = git(repository, "commit", "-qm", "oops")
    assert done.returncode == 1
    assert f"not to be committed: {name}: " in done.stderr
    assert "a comment" not in done.stderr


def test_the_hook_lets_code_reports_and_pointers_pass(repository: Path) -> None:
    for name in ("stages/x.py", "reports/standin/metrics.json", "data/raw/private.dvc", "README.md"):
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).write_text("{}\n")
    git(repository, "add", "-A")
    assert git(repository, "commit", "-qm", "fine").returncode == 0


def test_a_file_once_refused_may_be_deleted(repository: Path) -> None:
    (repository / "big.txt").write_bytes(b"x" * 2_000_000)
    git(repository, "add", "-A")
    assert git(repository, "commit", "-qm", "forced", "--no-verify").returncode == 0
    (repository / "big.txt").unlink()
    git(repository, "add", "-A")
    assert git(repository, "commit", "-qm", "gone").returncode == 0


def test_nothing_that_is_tracked_here_is_refused() -> None:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    paths = [path for path in listing.stdout.decode().split("\0") if path]
    assert len(paths) > 50
    assert faults(":", [path for path in paths if (ROOT / path).exists()]) == []


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
