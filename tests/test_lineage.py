import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.registered import CANARY, CODEBOOK, COMMENTS, FIRST, RELEASE, SPACE, train
from undertone.cli import main
from undertone.corpus import digests
from undertone.files import md5
from undertone.records import lineage, registry, runs, tracking


@pytest.mark.usefixtures("repository")
def test_lineage_tells_what_a_version_was_made_from_and_by_what() -> None:
    told = lineage.describe("gender@champion")
    rows = dict(line.split("  ", 1) for line in told.split("\n\n")[0].splitlines())
    rows = {key.strip(): value.strip() for key, value in rows.items()}
    assert rows["model"] == "gender/1 (champion, first)"
    assert rows["made by"] == "candidate first (tfidf) on standin"
    assert rows["experiment of DVC"] == "none"
    assert rows["seed"] == "13"
    assert rows["base"] == "none"
    assert f"mlflow {tracking.provenance.versions()['version.mlflow']}" in rows["libraries"]
    assert rows[FIRST.as_posix()] == f"md5 {md5(FIRST)}"
    assert rows[CODEBOOK.as_posix()] == f"md5 {md5(CODEBOOK)}"
    assert rows["models/bases/first"] == f"md5 {'b' * 32}"
    for part, digest in digests.parts(COMMENTS, SPACE).items():
        assert rows[f"{COMMENTS}, {part}"] == f"sha256 {digest}"


@pytest.mark.usefixtures("repository")
def test_a_release_leads_to_what_its_candidate_was_made_from() -> None:
    found = lineage.lineage("gender@release")
    assert (found["path"], found["seed"], found["data"]["base"]) == (RELEASE.as_posix(), "13", "b" * 32)


def verified(name: str) -> dict[str, str]:
    lines = lineage.verify(name)[0].splitlines()
    return {where.strip(): judged for where, judged in (line.rsplit("  ", 1) for line in lines)}


def test_verify_says_what_is_equal_what_differs_and_what_is_not_here(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = {
        FIRST.as_posix(): "equal",
        COMMENTS.as_posix(): "equal",
        "models/bases/first": "not here",
        CODEBOOK.as_posix(): "equal",
        **{f"{COMMENTS}, {part}": "equal" for part in ("train", "validation", "test")},
        "the registry's copy": "equal",
    }
    assert verified("gender@first") == expected
    assert main(["lineage", "gender@first", "--verify"]) == 0
    with CODEBOOK.open("a") as file:
        file.write("#\n")
    changed = (FIRST / "labels.json").read_bytes()
    (FIRST / "labels.json").write_bytes(changed + b" ")
    Path("models/bases/first").mkdir(parents=True)
    table = pd.read_parquet(COMMENTS)
    table.loc[2, "text"] = "good daz"  # a row of the test part
    table.to_parquet(COMMENTS, index=False)
    (copy,) = (repository / "mlartifacts").rglob("data/first/tfidf.safetensors")
    copy.write_bytes(copy.read_bytes()[:-1])
    expected |= {
        FIRST.as_posix(): "differs",
        COMMENTS.as_posix(): "differs",
        "models/bases/first": "differs",
        CODEBOOK.as_posix(): "differs",
        f"{COMMENTS}, test": "differs",
        "the registry's copy": "differs",
    }
    assert verified("gender@first") == expected
    capsys.readouterr()
    assert main(["lineage", "gender@first", "--verify"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("undertone: gender@first: 6 not as they were: ")
    assert CANARY not in told
    shutil.rmtree("data")
    assert verified("gender@first")[f"{COMMENTS}, train"] == "not here"


@pytest.mark.usefixtures("repository")
def test_a_table_that_is_torn_differs() -> None:
    COMMENTS.write_bytes(COMMENTS.read_bytes()[:100])
    assert verified("gender@first")[f"{COMMENTS}, train"] == "differs"


def table_of(rows: int) -> pd.DataFrame:
    table = pd.DataFrame({"id": [f"{row:05}" for row in range(rows)]})
    table["text"] = "comment " + table["id"]
    table["part"] = np.where(np.arange(rows) % 10 == 0, "test", "train")
    table.loc[5, "part"] = "validation"
    table["label.yes"], table["label.no"] = 1.0, 0.0
    return table


@pytest.mark.parametrize(
    ("column", "value"), [("text", "comment 12001 "), ("label.yes", 0.0), ("id", "12001x")]
)
def test_one_byte_changed_in_row_12001_is_noticed(tmp_path: Path, column: str, value: object) -> None:
    table = table_of(15_000)
    table.to_parquet(tmp_path / "before.parquet")
    table.loc[12_001, column] = value
    table.to_parquet(tmp_path / "after.parquet")
    before, after = (digests.parts(tmp_path / f"{name}.parquet", SPACE) for name in ("before", "after"))
    assert {part for part in before if before[part] != after[part]} == {"train"}


def test_the_order_of_rows_and_the_writer_of_the_table_make_no_difference(tmp_path: Path) -> None:
    table = table_of(200)
    table.loc[7, ["label.yes", "label.no"]] = np.nan
    table.to_parquet(tmp_path / "one.parquet")
    shuffled = table.sample(frac=1, random_state=1).assign(more=1)
    shuffled.to_parquet(tmp_path / "other.parquet", compression="gzip", index=False)
    assert digests.parts(tmp_path / "one.parquet", SPACE) == digests.parts(
        tmp_path / "other.parquet", SPACE
    )


def test_a_row_that_moves_to_another_part_changes_both(tmp_path: Path) -> None:
    table = table_of(200)
    table.to_parquet(tmp_path / "one.parquet")
    table.loc[7, "part"] = "validation"
    table.to_parquet(tmp_path / "other.parquet")
    one, other = (digests.parts(tmp_path / f"{name}.parquet", SPACE) for name in ("one", "other"))
    assert {part for part in one if one[part] != other[part]} == {"train", "validation"}


@pytest.mark.usefixtures("repository")
def test_head_gets_its_lines_and_no_traceback() -> None:
    reader, writer = os.pipe()
    child = subprocess.Popen(
        [sys.executable, "-m", "undertone.cli", "lineage", "gender@first"],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        stdout=writer,
        stderr=subprocess.PIPE,
    )
    os.close(reader)  # before anything was written
    os.close(writer)
    _, told = child.communicate()
    assert (child.returncode, told) == (0, b"")


PIPELINE = """
stages:
  split:
    matrix:
      source: ["${data.source}"]
    cmd: python -c "import shutil; shutil.copy('raw.txt', 'data/${item.source}/split.parquet')"
    deps: [raw.txt]
    outs: ["data/${item.source}/split.parquet"]
  train:
    matrix:
      source: ["${data.source}"]
    cmd: >-
      python -c "import shutil;
      shutil.copytree('made', 'models/candidates/${item.source}/first', dirs_exist_ok=True)"
    deps: ["data/${item.source}/split.parquet", code.txt]
    params: [c]
    outs: ["models/candidates/${item.source}/first"]
"""


@pytest.mark.usefixtures("store")
def test_lineage_brings_back_data_and_model_of_either_source(monkeypatch: pytest.MonkeyPatch) -> None:
    def shell(command: str) -> str:
        return subprocess.run(
            command, shell=True, check=True, capture_output=True, text=True
        ).stdout.strip()

    def commit(message: str) -> str:
        shell(f"git add --all && git commit --quiet --message {message}")
        return shell("git rev-parse HEAD")

    def repro(c: float, source: str) -> str:
        """Train anew and register; the model's md5."""
        shutil.rmtree("made", ignore_errors=True)
        with tracking.run(experiment="gender", name="first", stage="train", settings={}, data={}) as run:
            train(Path("made"), c=c)
            run.tag({"model.md5": md5(Path("made"))})
        Path("params.yaml").write_text(f"data:\n  source: {source}\nc: {c}\n")
        shell("dvc repro --quiet")
        client = tracking.client()
        folder = Path("models/candidates") / source / "first"
        entry = registry.Entry.of_candidate(folder, "first")
        facts = {
            "source": source,
            "data.comments": md5(Path("data") / source / "split.parquet"),
        }
        number = registry.add(client, entry, facts, runs.Ledger())
        client.set_registered_model_alias("gender", f"{source}{int(c)}", str(number))
        return md5(folder)

    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{Path('/usr/bin')}:/bin")
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "n")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "e@example.org")
    shutil.rmtree(".dvc")
    shell("git init --quiet && dvc init --quiet")
    Path(".gitignore").write_text("/data/**\n/models/**\n/made/\n/mlflow.db*\n/mlartifacts/\n/unsent/\n")
    Path("dvc.yaml").write_text(PIPELINE)
    Path("raw.txt").write_text(CANARY)
    Path("code.txt").write_text("code")
    for source in ("standin", "private"):
        (Path("data") / source).mkdir(parents=True)
    start = commit("start")
    first = repro(1.0, "private")
    repro(2.0, "standin")
    assert lineage.lineage("gender@standin2")["commands"] == []
    assert "commit dvc.lock" in lineage.describe("gender@standin2")
    held = commit("both")
    repro(3.0, "standin")
    commit("later")

    second = lineage.lineage("gender@standin2")
    assert second["trained_on"] == start
    told = lineage.describe("gender@standin2")
    assert f"commit {start[:12]}, with changes that no commit holds: the code that ran" in told
    assert f"commit {held[:12]}: the first whose dvc.lock holds the model" in told
    assert second["commit"] == held
    assert second["commands"] == [
        f"git checkout {held}",
        "dvc pull models/candidates/standin/first data/standin/split.parquet",
    ]
    assert lineage.lineage("gender@private1")["commands"] == [
        f"git checkout {held}",
        "perl -pi -e 's/^  source: standin$/  source: private/' params.yaml",
        "dvc pull models/candidates/private/first data/private/split.parquet",
    ]
    for name, digest in (("gender@standin2", second["md5"]), ("gender@private1", first)):
        found = lineage.lineage(name)
        shutil.rmtree("models")
        shutil.rmtree("data")
        for line in found["commands"]:
            assert f"  {line}\n" in lineage.describe(name) + "\n"
            shell(line)
        shell("git restore params.yaml")
        assert md5(Path(found["path"])) == digest
        assert md5(Path("data") / found["source"] / "split.parquet") == found["data"]["comments"]


def test_a_model_that_is_nowhere_is_not_verified(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (copy,) = (repository / "mlartifacts").rglob("data/first")
    shutil.rmtree(copy)
    assert main(["lineage", "gender@first", "--verify"]) == 0
    shutil.rmtree(FIRST)
    assert main(["lineage", "gender@first", "--verify"]) == 1
    assert "the model is not here, so that it is not verified" in capsys.readouterr().err
