"""Experiments side by side: each with what it changed, read from a real git repository."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from undertone.cli import main
from undertone.errors import Problem
from undertone.labels import LabelSpace
from undertone.measures import metrics

ROOT = Path(__file__).parents[1]
EVALUATION, SPLIT = (f"reports/standin/{name}.json" for name in ("evaluation", "split"))
TRUTH = np.eye(2, dtype=bool)[np.arange(100) % 2]


def figures(*, right: int, valid: int = 100) -> dict:
    """Of a candidate that decides the first of 100 rows as they are, or doesn't answer the last."""
    return metrics.evaluate(
        TRUTH,
        np.where(np.arange(100)[:, None] < right, TRUTH, ~TRUTH),
        LabelSpace.of("c", ["a", "b"]),
        answered=np.arange(100) < valid,
        groups=np.arange(100),
        draws=100,
        rng=np.random.default_rng(0),
    )


BERT, LORA = figures(right=90), figures(right=70)


PARAMS = """\
seed: 13
split:
  train_rows:
models:
  bert:
    family: bert
lora:
  load: nf4
  r: 8
  alpha: 16
  dropout: 0.05
  target_modules: all-linear
"""


class Repository:
    """A git repository as DVC leaves it after some experiments."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def git(self, *command: str, day: int = 1) -> str:
        who = {
            f"GIT_{who}_{what}": "t@example.org"
            for who in ("AUTHOR", "COMMITTER")
            for what in ("NAME", "EMAIL")
        }
        done = subprocess.run(
            ["git", *command],
            cwd=self.folder,
            env={
                **os.environ,
                **who,
                "GIT_CONFIG_GLOBAL": os.devnull,
                "GIT_COMMITTER_DATE": f"2026-01-{day:02} 12:00:00 +0000",
            },
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    def commit(self) -> None:
        self.git("add", "-A")
        self.git("commit", "-qm", "x")

    def result(self, *, digest: str = "0", rows: int = 4056, **candidates: dict) -> None:
        evaluated = {
            "validation": {"label": {name: figures(right=50) for name in candidates}},
            "test": {"label": candidates, "gold": dict.fromkeys(candidates, BERT)},
        }
        split = {"rows": {"train": rows}, "test_digest": digest}
        for name, content in ((EVALUATION, evaluated), (SPLIT, split)):
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_text(json.dumps(content), "utf-8")

    def params(self, *changes: tuple[str, str]) -> None:
        """Change lines of params.yaml."""
        path = self.folder / "params.yaml"
        lines = path.read_text("utf-8").splitlines()
        for before, after in changes:
            lines[lines.index(before)] = after
        path.write_text("\n".join([*lines, ""]), "utf-8")

    def experiment(self, name: str, *, day: int = 1) -> str:
        """Keep the workspace as DVC keeps an experiment, and put it back; the commit."""
        self.git("add", "-A")
        tree, start = self.git("write-tree"), self.git("rev-parse", "HEAD")
        commit = self.git("commit-tree", tree, "-p", start, "-m", name, day=day)
        self.git("update-ref", f"refs/exps/{start[:2]}/{start[2:]}/{name}", commit)
        self.git("reset", "-q", "--hard")
        return commit


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = Repository(tmp_path_factory.mktemp("compare"))
    (made.folder / ".dvc").mkdir()
    (made.folder / ".dvc" / "config").touch()
    (made.folder / "params.yaml").write_text(PARAMS, "utf-8")
    made.git("init", "-q")
    made.result(bert=BERT, lora=LORA)
    made.commit()
    made.params(("  r: 8", "  r: 16"), ("  load: nf4", "  load: full"))
    made.result(bert=BERT, lora=figures(right=80, valid=97))
    made.experiment("wider-lora", day=1)
    made.params(("  train_rows:", "  train_rows: 500"))
    made.result(bert=BERT, lora=figures(right=60), rows=500)
    made.experiment("fewer-rows", day=2)
    return made.folder


@pytest.fixture
def repository(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """Two experiments with LoRA; the workspace is as HEAD."""
    folder = tmp_path / "repository"
    shutil.copytree(template, folder)
    monkeypatch.chdir(folder)
    return Repository(folder)


def compared(capsys: pytest.CaptureFixture[str], *given: str) -> tuple[list[dict[str, str]], list[str]]:
    """The table's lines by column, and the notes below it."""
    assert main(["compare", "--source", "standin", *given]) == 0
    table, *notes = capsys.readouterr().out.strip().split("\n\n")
    head, dashes, *lines = [
        [cell.strip() for cell in line[2:-2].split(" | ")] for line in table.splitlines()
    ]
    assert all(set(cell) == {"-"} for cell in dashes)
    return [dict(zip(head, line, strict=True)) for line in lines], notes


def refused(capsys: pytest.CaptureFixture[str], *given: str) -> str:
    """The one line that a wrong call gets."""
    assert main(["compare", "--source", "standin", *given]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    return shown.err.strip()


@pytest.mark.usefixtures("repository")
def test_a_row_has_the_experiments_figures_and_what_it_changed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines, notes = compared(capsys)
    assert [(line["candidate"], line["experiment"]) for line in lines] == [
        ("lora", "HEAD"), ("lora", "wider-lora"), ("lora", "fewer-rows"),
    ]  # fmt: skip
    wider = figures(right=80, valid=97)
    assert lines[1] == {
        "candidate": "lora",
        "experiment": "wider-lora",
        "n": "100",
        "macro-F1": metrics.told(wider["overall"]["macro_f1"]),
        "accuracy": metrics.told(wider["overall"]["accuracy"]),
        "valid answers": "97 (97.0%)",
        "training rows": "4,056",
        "params": "lora.load=full, lora.r=16",
    }
    assert lines[1]["accuracy"].startswith("0.800 [0.7")
    assert (lines[2]["training rows"], lines[2]["params"]) == ("500", "split.train_rows=500")
    assert (lines[0]["valid answers"], lines[0]["params"]) == ("100 (100.0%)", "")
    assert notes[0].startswith("standin, test against label, with 95 % intervals")
    assert notes[1:] == ["The workspace is as in HEAD."]


def test_a_grid_of_mixes_is_a_table_by_gold_with_the_rows_of_each(
    repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    mixes = repository.folder / "reports/standin/mixes"
    for day, (weight, rows) in enumerate((("0.25", 400), ("0.5", 400), ("0", 0)), start=3):
        path = repository.folder / "params.yaml"
        path.write_text(f"{PARAMS}mixes:\n  wide:\n    pseudo: {weight}\n", "utf-8")
        mixes.mkdir(exist_ok=True)
        learnt = {"silver": {"rows": 4000, "weight": 4000.0}}
        if rows:
            learnt["pseudo"] = {"rows": rows, "weight": rows * float(weight)}
        (mixes / "lora.json").write_text(json.dumps({"name": "wide", "rows": learnt}), "utf-8")
        repository.result(bert=BERT, lora=figures(right=70 + day))
        repository.experiment(f"pseudo-{weight}", day=day)
    lines, _ = compared(capsys, "--candidate", "lora", "--reference", "gold")
    shown = [(one["experiment"], one["training rows"], one["params"]) for one in lines]
    assert shown[-3:] == [
        ("pseudo-0.25", "silver 4,000, pseudo 400 × 0.25", 'mixes={"wide": {"pseudo": 0.25}}'),
        ("pseudo-0.5", "silver 4,000, pseudo 400 × 0.5", 'mixes={"wide": {"pseudo": 0.5}}'),
        ("pseudo-0", "silver 4,000", 'mixes={"wide": {"pseudo": 0}}'),
    ]
    assert shown[0] == ("HEAD", "4,056", "")  # from before there were mixes


def test_the_workspace_is_a_row_where_it_is_like_no_other(
    repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    repository.git("checkout", "-q", "refs/exps/" + exps(repository, "wider-lora"), "--", ".")
    assert compared(capsys)[1][1:] == ["The workspace is as in wider-lora."]
    repository.params(("  alpha: 16", "  alpha: 32"))
    lines, notes = compared(capsys)
    assert lines[-1]["experiment"] == "workspace"
    assert lines[-1]["params"] == "lora.load=full, lora.r=16, lora.alpha=32"
    assert len(notes) == 1


def exps(repository: Repository, name: str) -> str:
    start = repository.git("rev-parse", "HEAD")
    return f"{start[:2]}/{start[2:]}/{name}"


def test_only_experiments_of_head_come_unasked(
    repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    before = repository.git("rev-parse", "HEAD")
    repository.params(("seed: 13", "seed: 14"))
    repository.commit()
    repository.git("update-ref", "refs/exps/exec/EXEC_HEAD", "HEAD")  # DVC's own
    repository.git("update-ref", "refs/exps/celery/stash/failed", "HEAD")
    lines, _ = compared(capsys)
    assert {line["experiment"] for line in lines} == {"HEAD"}
    assert len(lines) == 2  # nothing differs, so all candidates
    assert "failed: no such experiment" in refused(capsys, "failed")
    lines, _ = compared(capsys, "wider-lora", before[:9], "workspace")
    assert [line["experiment"] for line in lines] == ["wider-lora", before[:9], "workspace"]
    assert lines[0]["params"] == "seed=13, lora.load=full, lora.r=16"
    assert lines[1]["params"] == "seed=13"


def test_an_experiments_name_may_come_again_on_another_commit(
    repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    repository.params(("seed: 13", "seed: 14"))
    repository.commit()
    repository.params(("  r: 8", "  r: 32"))
    commit = repository.experiment("wider-lora")
    assert compared(capsys, "wider-lora")[0][0]["params"] == "lora.r=32"  # HEAD's
    repository.git("commit", "-q", "--allow-empty", "-m", "x")
    told = refused(capsys, "wider-lora")
    assert told.startswith("undertone: wider-lora: 2 experiments are called so. Name one of ")
    assert compared(capsys, commit[:7])[0][0]["params"] == "lora.r=32"


@pytest.mark.usefixtures("repository")
def test_candidates_part_and_reference_can_be_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    lines, _ = compared(capsys, "--candidate", "bert", "--candidate", "lora")
    assert [line["candidate"] for line in lines] == ["bert"] * 3 + ["lora"] * 3
    assert lines[0]["accuracy"].startswith("0.900")
    lines, notes = compared(capsys, "--part", "validation")
    assert {line["accuracy"][:5] for line in lines} == {"0.500"}
    assert "validation against label" in notes[0]
    lines, notes = compared(capsys, "wider-lora", "--reference", "gold", "--candidate", "lora")
    assert [line["accuracy"][:5] for line in lines] == ["0.900"]
    told = refused(capsys, "--candidate", "setfit")
    assert told == "undertone: no candidate 'setfit'. There are bert, lora."


def test_a_candidate_of_some_experiments_only_is_among_those_that_differ(
    repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    repository.params(("models:", "models:\n  big:\n    family: bert"))
    repository.result(bert=BERT, lora=LORA, big=figures(right=95))
    repository.experiment("a|b")
    lines, _ = compared(capsys, "HEAD", "a|b")
    assert [(line["candidate"], line["experiment"]) for line in lines] == [("big", "a\\|b")]
    assert lines[0]["params"] == 'models.big={"family": "bert"}'


def test_params_that_are_gone_or_empty_are_told(
    repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    repository.params(
        ("  dropout: 0.05", "  other: ''"),
        ("  r: 8", "  r:"),
        ("  target_modules: all-linear", "  target_modules:\n  - q"),
    )
    repository.experiment("odd")
    line = compared(capsys, "odd")[0][0]
    assert line["params"] == 'lora.r=null, lora.other="", lora.target_modules=["q"], -lora.dropout'


def test_results_from_before_answers_were_counted_are_all_valid(
    repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    bert, lora = (
        {name: value for name, value in one.items() if not name.startswith("valid")}
        for one in (BERT, LORA)
    )
    repository.result(bert=bert, lora=lora)
    repository.experiment("older")
    lines, _ = compared(capsys, "older", "HEAD", "wider-lora")
    assert [line["valid answers"] for line in lines] == ["100 (100.0%)"] * 2 + ["97 (97.0%)"]


def test_experiments_that_were_judged_on_other_rows_are_named(
    repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    repository.result(bert=BERT, lora=figures(right=99), digest="1")
    repository.experiment("other-split", day=3)
    _, notes = compared(capsys)
    assert notes[-1].endswith("are others: HEAD, wider-lora, fewer-rows; other-split.")
    assert len(compared(capsys, "HEAD", "wider-lora")[1]) == 1


def test_an_experiment_without_a_result_is_left_out_and_named_unless_it_was_asked_for(
    repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    (repository.folder / EVALUATION).unlink()
    repository.experiment("failed")
    lines, notes = compared(capsys)
    assert len(lines) == 3
    assert "Left out, no result of standin on test against label: failed." in notes
    told = refused(capsys, "wider-lora", "failed")
    assert told.startswith("undertone: failed: no result of standin on test against label.")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            ["narrow-lora"],
            "narrow-lora: no such experiment or git revision."
            " HEAD's experiments: wider-lora, fewer-rows.",
        ),
        (
            ["--source", "edos"],
            "no result of edos on test against label. The workspace has reports of standin.",
        ),
        (["--out", "table.csv"], "table.csv: '.csv' is no format to write. .md"),
    ],
)
def test_what_is_not_there_is_one_line(
    given: list[str], told: str, repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refused(capsys, *given).endswith(told)
    assert repository.git("status", "--porcelain") == ""


def test_a_repository_without_a_commit_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".dvc").mkdir()
    monkeypatch.chdir(tmp_path)
    assert "git has no commit here" in refused(capsys)


def test_what_is_broken_is_told_with_its_experiment(
    repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    (repository.folder / EVALUATION).write_text("{", "utf-8")
    repository.experiment("cut")
    assert refused(capsys, "cut") == f"undertone: cut: {EVALUATION}: not readable as JSON"
    (repository.folder / "params.yaml").write_text("a: [", "utf-8")
    repository.experiment("open")
    assert refused(capsys, "open").startswith("undertone: open: params.yaml: not valid YAML")


def test_the_table_that_is_shown_is_written_from_any_folder(
    repository: Repository,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copy(ROOT / "params.yaml", repository.folder)  # data.source is standin
    assert main(["compare"]) == 0
    shown = capsys.readouterr().out
    monkeypatch.chdir(repository.folder / "reports")
    assert main(["compare", "--out", str(tmp_path / "table.md")]) == 0
    assert capsys.readouterr().out == f"{shown}\nwritten to {tmp_path / 'table.md'}\n"
    assert (tmp_path / "table.md").read_text("utf-8") == shown


def test_it_starts_without_the_heavy_libraries(repository: Repository) -> None:
    shutil.copy(ROOT / "params.yaml", repository.folder)
    code = (
        "import sys; from undertone.cli import main; assert main(['compare']) == 0;"
        "heavy = {'torch', 'transformers', 'pandas', 'mlflow', 'dvc'} & set(sys.modules);"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=repository.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "wider-lora" in done.stdout


def test_a_model_that_the_cache_has_lost_is_one_line(tmp_path: Path) -> None:
    from dvc.repo import Repo

    from undertone.reporting import judges

    repository = Repository(tmp_path)
    repository.git("init", "-q")
    (tmp_path / "model").mkdir()
    (tmp_path / "model/labels.json").write_text("{}")
    with Repo.init(str(tmp_path)) as dvc:
        dvc.add(str(tmp_path / "model"))
    repository.commit()
    wanted = ["model/labels.json"]
    assert judges._at("HEAD", wanted, tmp_path, "HEAD:bert") == [b"{}"]
    shutil.rmtree(tmp_path / ".dvc/cache")
    with pytest.raises(Problem, match=r"HEAD:bert: no model/labels.json there, or it isn't in DVC"):
        judges._at("HEAD", wanted, tmp_path, "HEAD:bert")
