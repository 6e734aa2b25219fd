"""What `undertone private add` takes, and what it refuses before anything is changed."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from dvc.exceptions import ReproductionError
from dvc.repo import Repo

from stages import locate
from tests.people import ROOT
from undertone.errors import Problem
from undertone.params import Source, read_params
from undertone.privacy import sharing

SOURCE = read_params(ROOT / "params.yaml").ingest["private"]
CSV = "comment,label\none,positive\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty repository with this one's ignore files and its private remote."""
    repository = tmp_path / "repository"
    (repository / "data/raw").mkdir(parents=True)
    (repository / ".dvc").mkdir()
    for name in (".gitignore", ".dvcignore", ".dvc/config", ".dvc/.gitignore"):
        (repository / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run(["git", "init", "-q"], cwd=repository, check=True)
    monkeypatch.chdir(repository)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")
    return repository


def given(folder: Path, name: str, content: str = CSV) -> Path:
    path = folder.with_name("desk") / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    return path


def add(*paths: Path, settings: Source | None = SOURCE, replace: bool = False) -> str:
    return sharing.add(paths, "private", settings, replace=replace, push=False)


def status(folder: Path) -> list[str]:
    listed = ["git", "status", "--porcelain", "--untracked-files=all"]
    done = subprocess.run(listed, cwd=folder, capture_output=True, text=True, check=True)
    return sorted(line for line in done.stdout.split() if "data" in line)


def pointer() -> dict[str, str]:
    content = yaml.safe_load(Path("data/raw/private.dvc").read_text())
    (out,) = content["outs"]
    assert isinstance(out, dict)
    return out


def test_a_workbook_is_tracked_pinned_to_the_private_remote_and_ignored_by_git(folder: Path) -> None:
    book = folder.with_name("own.xlsx")
    pd.DataFrame({"comment": ["one"], "label": ["positive"]}).to_excel(book, index=False)
    said = add(book)
    assert (folder / "data/raw/private/own.xlsx").read_bytes() == book.read_bytes()
    kept = [f"data/raw/{kind}/private/.gitkeep" for kind in ("answers", "reviews")]
    assert status(folder) == sorted(["data/raw/private.dvc", *kept])
    first = pointer()
    assert (first["remote"], first["nfiles"]) == ("private", 1)
    assert f"git add data/raw/private.dvc {' '.join(kept)} &&" in said
    assert "dvc push data/raw/private.dvc" in said
    # another one joins it, the same again changes nothing, and the pin stays
    add(given(folder, "more.csv"))
    second = pointer()
    assert (second["remote"], second["nfiles"]) == ("private", 2)
    add(book)
    assert pointer() == second


def test_another_file_of_the_same_name_is_not_replaced_unasked(folder: Path) -> None:
    path = given(folder, "own.csv")
    add(path)
    before = pointer()
    path.write_text(CSV + "two,positive\n")
    with pytest.raises(Problem, match="another file of this name is tracked already"):
        add(path)
    assert (folder / "data/raw/private/own.csv").read_text() == CSV
    assert pointer() == before
    add(path, replace=True)
    assert pointer()["md5"] != before["md5"]
    assert pointer()["remote"] == "private"


def test_files_that_are_not_here_are_never_dropped_from_the_pointer(folder: Path) -> None:
    out = {"md5": f"{'0' * 32}.dir", "path": "private", "nfiles": 3}
    (folder / "data/raw/private.dvc").write_text(yaml.safe_dump({"outs": [out]}))
    with pytest.raises(Problem, match="adding to it would lose the rest"):
        add(given(folder, "own.csv"))
    assert pointer() == out
    assert not (folder / "data/raw/private").exists()


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("own.xlsx", CSV, "plain text, perhaps CSV, not a workbook"),
        ("own.csv", "", "an empty file"),
        ("page.csv", "<html><table>", "an HTML page"),
        ("own.dvc.csv", "outs:\n- md5: abc\n", "a DVC pointer"),
        ("lfs.csv", "version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        ("notes.md", "notes", "not a table"),
        ("~$own.xlsx", CSV, "a name that ingest passes over"),
        (".own.csv", CSV, "a name that ingest passes over"),
        ("own.csv.tmp", CSV, "a name that ingest passes over"),
    ],
)
def test_what_ingest_would_refuse_is_refused_before_it_is_copied(
    name: str, content: str, why: str, folder: Path
) -> None:
    good = given(folder, "good.csv")
    with pytest.raises(Problem, match=why):
        add(good, given(folder, name, content))
    assert list((folder / "data/raw").iterdir()) == []


def test_a_file_that_the_source_does_not_read_and_two_of_one_name_are_refused(folder: Path) -> None:
    path = given(folder, "own.csv")
    with pytest.raises(Problem, match=r"ingest\.private\.files would not read it: \*\.xlsx"):
        add(path, settings=SOURCE.model_copy(update={"files": ["*.xlsx"]}))
    with pytest.raises(Problem, match="two files of one name"):
        add(path, path.parent / "x" / ".." / "own.csv")
    with pytest.raises(Problem, match="no such file"):
        add(path.with_name("absent.csv"))


@pytest.mark.parametrize(
    "source", ["standin/answers/../../../reports", "../x", "Own", "answers", "standin"]
)
def test_a_name_that_is_no_sources_is_refused_with_nothing_changed(source: str, folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    with pytest.raises(Problem, match="--source: no name for a source of your own"):
        sharing.add([given(folder, "own.csv")], source, SOURCE, replace=False, push=False)
    assert sorted(folder.rglob("*")) == before


def test_what_dvc_says_is_the_reason(folder: Path) -> None:
    (folder / "dvc.yaml").write_text("stages:\n  x:\n    cmd: x\n    outs:\n    - data/raw/private\n")
    with pytest.raises(Problem, match=r"^dvc add: .*overlaps with an output of stage"):
        add(given(folder, "own.csv"))


def test_damage_is_found_from_a_folder_below_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(given(folder, "own.csv"))
    (path,) = folder.glob(".dvc/cache/files/md5/*/*[0-9a-f]")
    path.chmod(0o644)
    path.write_text("other")
    (folder / "below").mkdir()
    monkeypatch.chdir(folder / "below")
    found = sharing.verify(remote=None, repair=False)
    assert [one.paths for one in found.bad if one.kind == "cache"] == [
        ("data/raw/private/own.csv (data/raw/private.dvc)",)
    ]
    assert found.checked["workspace"] == 1
    assert Path.cwd() == folder / "below"


def test_nothing_comes_in_where_git_would_take_it(folder: Path) -> None:
    (folder / ".gitignore").write_text("")
    with pytest.raises(Problem, match="git would take it"):
        add(given(folder, "own.csv"))
    assert list((folder / "data/raw").iterdir()) == []


READERS = ("answer", "generate", "review")  # of what comes to a source from outside, late


def short() -> None:
    """A dvc.yaml of the stages that read answers and reviews, as they are but for their commands."""
    whole = yaml.safe_load((ROOT / "dvc.yaml").read_text("utf-8"))["stages"]
    stages = {}
    for name in READERS:
        deps = [one for one in whole[name]["deps"] if one.startswith("data/raw/")]
        assert len(deps) == 1
        out = f"data/${{item.source}}/{name}.txt"
        command = f"mkdir -p data/${{item.source}} && ls {deps[0]}/* > {out} || true"
        stages[name] = {"matrix": whole[name]["matrix"], "cmd": command, "deps": deps, "outs": [out]}
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    source("standin")


def source(name: str) -> None:
    Path("params.yaml").write_text(f"data:\n  source: {name}\n")


def reproduced(*, pull: bool = False) -> list[str]:
    """The stages that ran."""
    with Repo() as repo:
        return sorted(stage.addressing for stage in repo.reproduce(pull=pull) if stage.cmd)


def git(*arguments: str) -> None:
    me = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "core.hooksPath=/dev/null"]
    subprocess.run(["git", *me, *arguments], check=True)


def cloned(folder: Path, name: str, remote: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git("clone", "-q", str(folder), str(folder.with_name(name)))
    monkeypatch.chdir(folder.with_name(name))
    Path(".dvc/config.local").write_text(f'["remote "private""]\n    url = {remote}\n')


def test_the_standin_needs_no_private_answers_and_does_not_run_again_for_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = folder.with_name("remote")
    short()
    for name in read_params(ROOT / "params.yaml").ingest:
        for path in sharing.kept_by_git(name):
            assert (ROOT / path).exists(), f"{path} is not in git"
    Path(".dvc/config.local").write_text(f'["remote "private""]\n    url = {remote}\n')
    assert reproduced() == [f"{name}@standin" for name in READERS]
    given = {"answers/private/voters": "answer", "answers/private/writer": "generate"}
    for part in (*given, "reviews/private/given"):
        path = Path("data/raw") / part / "own.jsonl"
        path.parent.mkdir()
        path.write_text("{}\n")
        assert sharing.track(path.parent) == ["private"]
    with Repo() as repo:
        repo.push()
    git("add", "-A")
    git("commit", "-qm", "start")
    assert reproduced() == []  # owner

    cloned(folder, "outsider", folder.with_name("nowhere"), monkeypatch)
    assert reproduced() == [f"{name}@standin" for name in READERS]
    source("private")
    with pytest.raises(ReproductionError, match="private"):
        reproduced()

    cloned(folder, "collaborator", remote, monkeypatch)
    source("private")
    assert reproduced(pull=True) == [f"{name}@private" for name in READERS]
    assert "own.jsonl" in Path("data/private/review.txt").read_text()


def test_a_source_without_its_folders_is_told_what_to_make(folder: Path) -> None:
    (folder / "data/raw/own").mkdir()
    (folder / "data/raw/own/own.csv").write_text(CSV)
    given, out = read_params(ROOT / "params.yaml"), folder / "data/own/located.json"
    with pytest.raises(
        Problem, match=r"data/raw/answers/own: stages read it.* `mkdir -p data/raw/answers"
    ):
        locate.main(given, source="own", out=out)
    sharing.kept_by_git("own")
    assert locate.main(given, source="own", out=out) == "1 file of own"
