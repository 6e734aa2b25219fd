"""The whole pipeline, small, through real DVC and a real MLflow store, in a repository of its own."""

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml
from dvc.utils.hydra import apply_overrides

from tests import tiny
from undertone import simulated
from undertone.codebook import read_codebook
from undertone.collect import OUTCOMES
from undertone.files import size
from undertone.ledger import STAGES
from undertone.params import read_params

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow
CLI = (sys.executable, "-m", "undertone.cli")

SMALL = {
    "sample.rows": "500",
    "sample.gold": "100",
    "split.min_support": "3",
    "bert.epochs": "1",
    "bert.max_length": "32",
    "lora.epochs": "1.0",
    "lora.load": "full",
    "lora.adapt.epochs": "1.0",
    "fewshot.adapt": "null",
    "fewshot.max_new_tokens": "6",
    "evaluate.draws": "100",
    "export.max_drop": "0.5",
    "bench.repeats": "5",
    "bench.lengths": "[12]",
    "bench.batches": "[1]",
}


class Repository:
    """A clone with its own DVC cache, MLflow store and tiny base."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = ""  # all that the first `dvc repro` printed

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command, cwd=self.folder, env=environment(), capture_output=True, text=True, check=False
        )
        assert not check or done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done

    def said(self, done: subprocess.CompletedProcess[str], stage: str) -> str:
        """The one line of trouble of a stage; DVC's progress may stand before it in the line."""
        lines = [line for line in re.split(r"[\r\n]+", done.stderr) if f"{stage}: " in line]
        assert len(lines) == 1, done.stdout[-2000:] + done.stderr[-2000:]
        return lines[0]

    def ran(self, done: subprocess.CompletedProcess[str]) -> set[str]:
        """The stages that ran, by what DVC printed."""
        lines = done.stdout.splitlines()
        return {line.split("'")[1] for line in lines if line.startswith("Running stage")}

    def runs(self) -> list[tuple[str, str]]:
        """Name and status of each MLflow run, oldest first."""
        with sqlite3.connect(self.folder / "mlflow.db") as store:
            return store.execute("SELECT name, status FROM runs ORDER BY start_time").fetchall()

    def json(self, name: str) -> dict:
        content = json.loads((self.folder / name).read_text("utf-8"))
        assert isinstance(content, dict)
        return content


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name[:4] not in ("DVC_", "MLFL")}
    return {
        **kept,
        "PATH": f"{Path(sys.executable).parent}:{kept['PATH']}",
        "GIT_CONFIG_GLOBAL": os.devnull,
        **{
            f"GIT_{who}_{what}": "t@example.org"
            for who in ("AUTHOR", "COMMITTER")
            for what in ("NAME", "EMAIL")
        },
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DVC_NO_ANALYTICS": "1",
        "OMP_NUM_THREADS": "1",
    }


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """After one whole `dvc repro`, committed."""
    folder = tmp_path_factory.mktemp("repository")
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listing.stdout.decode().split("\0")):
        if (
            (ROOT / name).is_file()
            and not name.startswith(("reports/", "tests/"))
            and name != "dvc.lock"
        ):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    base = tiny.base(tmp_path_factory.mktemp("tiny"))
    small = {**SMALL, "bert.base": f"path:{base}"}
    small |= {f"{family}.base": "scratch:1x32" for family in ("fewshot", "lora")}
    changes = [f"{key}={value}" for key, value in small.items()]
    apply_overrides(folder / "params.yaml", ["~models.e5", *changes])
    repository = Repository(folder)
    repository.run("git", "init", "-q")
    repository.run("git", "add", "-A")
    repository.run("git", "commit", "-qm", "start")
    done = repository.run("dvc", "repro")
    repository.log = done.stdout + done.stderr
    assert "train@standin-bert" in repository.ran(done)
    repository.run("git", "add", "-A")
    repository.run("git", "commit", "-qm", "results")
    return repository


def test_everything_comes_out(repository: Repository) -> None:
    metrics = repository.json("reports/standin/metrics.json")
    assert set(metrics.pop("teachers")) == {
        f"{part}_gold_{metric}" for part in ("validation", "test") for metric in ("macro_f1", "accuracy")
    }
    assert set(metrics) == {"majority", "stratified", "tfidf", "bert", "zeroshot", "lora"}
    for figures in metrics.values():
        assert {"validation_macro_f1", "test_macro_f1", "test_accuracy"} <= set(figures)
    manifest = repository.json("models/release/standin/manifest.json")
    assert set(manifest["variants"]) == {"fp32", "optimised", "int8"}
    assert all("parity" in variant for variant in manifest["variants"].values())
    latency = repository.json("reports/standin/latency.json")
    measured = {row["model"] for row in latency["rows"]}
    bundles = {"onnx-fp32", "onnx-optimised", "onnx-int8"}
    assert measured == {"bert", *bundles}
    costs = repository.json("reports/standin/cost.json")["candidates"]
    assert set(costs) == {"tfidf", "bert", "zeroshot", "lora"}
    adapter = size(repository.folder / "models/candidates/standin/lora")
    assert costs["lora"]["bytes"] > 2 * adapter  # its base is part of what it needs
    assert (
        (repository.folder / "reports/standin/report.md").read_text().startswith("# gender on standin")
    )


def test_a_model_that_writes_no_label_is_wrong_and_one_that_scores_labels_always_answers(
    repository: Repository,
) -> None:
    found = repository.json("reports/standin/evaluation.json")["test"]["label"]
    written = found["zeroshot"]
    assert written["valid"]["share"]["value"] < 0.2  # random weights
    assert written["overall"]["accuracy"]["value"] <= written["valid"]["share"]["value"]
    assert found["lora"]["valid"]["n"] == found["lora"]["n"]
    scores = pd.read_parquet(repository.folder / "data/standin/scores/zeroshot.parquet")
    assert scores["positive"].isna().any()


def test_every_row_is_accounted_for_from_the_workbook_to_the_split(repository: Repository) -> None:
    rows = 500
    for stage in STAGES:
        ledger = repository.json(f"reports/standin/rows/{stage}.json")
        assert ledger["in"] == rows
        rows = ledger["out"]
        assert rows == ledger["in"] - sum(ledger["dropped"].values())
    assert rows == sum(repository.json("reports/standin/split.json")["rows"].values())


def test_the_voters_fail_in_every_way_and_every_request_has_an_outcome(repository: Repository) -> None:
    counts = repository.json("reports/standin/collect.json")
    asked = repository.json("reports/standin/rows/request.json")["out"]
    assert len(counts["voters"]) >= 3
    for outcomes in counts["voters"].values():
        assert set(outcomes) == {*OUTCOMES, "repeated"}
        assert all(outcomes.values())
        assert sum(outcomes[one] for one in OUTCOMES) == asked
    assert counts["unknown_ids"] > 0
    for voter in counts["voters"]:
        for table in ("unlabelled", "labelled", "purged"):
            content = (repository.folder / f"data/standin/collected/{voter}/{table}.csv").read_text()
            assert content.startswith("custom_id,message,class\n")
    assert list((repository.folder / "data/standin/collected/retry").iterdir())


def test_silver_is_compared_with_people_and_the_teachers_with_the_model(repository: Repository) -> None:
    fused = repository.json("reports/standin/fuse.json")
    assert {"careful", "brief", "chatty", "silver"} == set(fused["gold"])
    assert {"coder_a", "coder_b", "coder_c"} == set(fused["people"])
    for planted, voter in ((0.92, "careful"), (0.87, "brief"), (0.82, "chatty")):
        found = fused["teachers"][voter]["accuracy"]
        assert found["low"] - 0.03 < planted < found["high"] + 0.03
    evaluated = repository.json("reports/standin/evaluation.json")
    assert "teachers" in evaluated["test"]["gold"]
    assert "teachers" not in evaluated["test"]["label"]
    page = (repository.folder / "reports/standin/report.md").read_text("utf-8")
    assert "Silver is not gold." in page


def test_no_word_of_a_comment_is_in_what_is_shared(repository: Repository) -> None:
    texts = pd.read_parquet(repository.folder / "data/standin/comments.parquet")["text"]
    canaries = [text.encode() for text in texts if len(text) > 40]
    assert len(canaries) > 300
    tracked = repository.run("git", "ls-files").stdout.splitlines()
    shared = [repository.folder / name for name in tracked]
    shared += [path for path in (repository.folder / "mlartifacts").rglob("*") if path.is_file()]
    shared += [repository.folder / "mlflow.db"]
    shared += [path for path in (repository.folder / "reports").rglob("*") if path.is_file()]
    assert len(shared) > 80
    printed = repository.log.encode()
    assert b"collect: " in printed
    for name, content in [("log", printed), *((path, path.read_bytes()) for path in shared)]:
        assert not any(canary in content for canary in canaries), name
    # the same search finds them where they must be
    private = (repository.folder / "data/standin/requests/careful-0001.jsonl").read_bytes()
    assert sum(canary in private for canary in canaries) > 100


def test_a_second_repro_does_nothing(repository: Repository) -> None:
    before = repository.runs()
    assert repository.ran(repository.run("dvc", "repro")) == set()
    assert repository.runs() == before
    assert repository.run("git", "status", "--short").stdout == ""


def test_training_and_export_are_recorded_and_the_registry_serves(repository: Repository) -> None:
    encoder = repository.json("reports/standin/selection.json")["encoder"]
    expected = ["bert", f"export-{encoder}", "lora", "tfidf", "zeroshot"]
    assert sorted(repository.runs()) == [(name, "FINISHED") for name in expected]
    program = """
import mlflow, json
from undertone import tracking
mlflow.set_tracking_uri(tracking.uri())
client = mlflow.MlflowClient()
aliases = client.get_registered_model("gender").aliases
rows = mlflow.pyfunc.load_model("models:/gender@champion").predict(["the pay is fair"])
release = mlflow.pyfunc.load_model("models:/gender@release").predict(["the pay is fair"])
print(json.dumps([sorted(aliases), list(rows.columns), list(release.columns)]))
"""
    aliases, columns, released = json.loads(
        repository.run(sys.executable, "-c", program).stdout.splitlines()[-1]
    )
    assert aliases == ["bert", "champion", "lora", "release", "tfidf", "zeroshot"]
    assert columns == released == ["label", "abstained", "positive", "mild", "negative", "irrelevant"]
    assert not list((repository.folder / "mlartifacts").rglob("*.pkl"))


def test_lineage_leads_from_the_champion_to_commit_data_and_commands(repository: Repository) -> None:
    told = repository.run(*CLI, "lineage", "models:/gender@champion").stdout
    assert "git checkout" in told
    assert "dvc pull" in told


def test_the_command_line_scores_texts_and_files(repository: Repository) -> None:
    line = repository.run(*CLI, "predict", "--text", "the pay is fair").stdout
    answer = json.loads(line)
    assert set(answer["scores"]) == {"positive", "mild", "negative", "irrelevant"}
    (repository.folder / "in.csv").write_text("nr,said\n007,the pay is fair\n008,=1+1\n")
    command = ("--file", "in.csv", "--column", "said", "--id", "nr", "--out", "out.parquet")
    repository.run(*CLI, "predict", *command)
    table = pd.read_parquet(repository.folder / "out.parquet")
    assert table["id"].tolist() == ["007", "008"]
    assert table["labels"].iloc[0] == answer["labels"][0]
    assert table["positive"].iloc[0] == pytest.approx(answer["scores"]["positive"])
    for name in ("in.csv", "out.parquet"):
        (repository.folder / name).unlink()


def test_two_are_compared_wherever_they_are(repository: Repository) -> None:
    said = repository.run(*CLI, "compare", "bert", "tfidf").stdout
    assert re.search(r"(than|and) tfidf: macro-F1 [+-]0\.\d+ \[.*\], p .* texts of \d+ authors", said)
    same = repository.run(*CLI, "compare", "HEAD:bert", "models:/gender@bert").stdout
    assert same.startswith(
        "no difference shown between HEAD:bert and models:/gender@bert: macro-F1 +0.000"
    )
    assert "(McNemar 0:0)" in same
    done = repository.run(*CLI, "compare", "bert", "HEAD:nobody", check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("undertone: HEAD:nobody: no ")


def test_the_board_has_verdicts_and_the_page_pictures(repository: Repository) -> None:
    assert "| verdict |" in repository.log
    page = (repository.folder / "reports/standin/report.html").read_text("utf-8")
    assert page.count("data:image/svg+xml") > 10
    assert "http://" not in page.replace("http://www.w3.org", "")
    repository.run("dvc", "plots", "show", "--out", "shown")
    assert "pareto.svg" in (repository.folder / "shown/index.html").read_text("utf-8")
    shutil.rmtree(repository.folder / "shown")


def test_a_split_that_was_touched_does_not_hold(repository: Repository) -> None:
    assert repository.run(*CLI, "verify-split").stdout.startswith("holds: ")
    file = repository.folder / "data/standin/split.parquet"
    before = file.read_bytes()
    rows = pd.read_parquet(file)
    planted = rows.index[rows["part"] == "test"][0], rows.index[rows["part"] == "train"][0]
    rows.loc[planted[0], "text"] = rows.loc[planted[1], "text"] + "!"
    rows.to_parquet(file, index=False)
    done = repository.run(*CLI, "verify-split", check=False)
    refused = repository.run(*CLI, "compare", "bert", "models:/gender@tfidf", check=False)
    file.write_bytes(before)
    assert "models:/gender@tfidf: learnt from another split of standin" in refused.stderr
    assert done.returncode == 1
    assert "alike_rows.train and test: 1 rows are like a text on the other side" in done.stdout
    assert "is not the split that its certificate describes" in done.stderr
    assert "test_digest: ids or texts of the test part are others" in done.stdout


def test_an_experiment_reruns_only_what_depends_on_its_parameter(repository: Repository) -> None:
    done = repository.run("dvc", "exp", "run", "-S", "lora.r=16", "--name", "wider")
    ran = repository.ran(done)
    assert {"resolve", "train@standin-lora", "predict@standin-lora", "evaluate@standin"} <= ran
    assert not ran & {
        *("sample", "ingest@standin", "clean@standin", "answer@standin", "split@standin"),
        *("bases@lora", "adapt@standin-lora", "train@standin-zeroshot", "train@standin-bert"),
        *("train@standin-tfidf", "predict@standin-tfidf", "predict@standin-zeroshot"),
    }
    assert "wider-lora" in [name for name, _ in repository.runs()]
    compared = repository.run(*CLI, "compare").stdout
    assert "lora.r=16" in compared
    repository.run("git", "checkout", "-q", ".")
    repository.run("dvc", "checkout", "-q")


def test_an_experiment_in_a_temporary_copy_reaches_the_same_store(repository: Repository) -> None:
    repository.run("dvc", "exp", "run", "--temp", "-S", "tfidf.c=2.0", "--name", "aside")
    assert "aside-tfidf" in [name for name, _ in repository.runs()]
    assert not list((repository.folder / ".dvc/tmp/exps").rglob("mlflow.db"))


def test_another_source_and_back_reruns_nothing_and_loses_nothing(repository: Repository) -> None:
    raw = repository.folder / "data/raw/private"
    raw.mkdir()
    table = pd.read_excel(
        repository.folder / "data/raw/standin/comments.xlsx", dtype=str, sheet_name="first half"
    )
    table = table[table["truth"].notna()].rename(columns={"truth": "label"})
    table[["comment", "label"]].to_excel(raw / "own.xlsx", index=False)
    repository.run("dvc", "add", "-q", "data/raw/private")
    repository.run("dvc", "repro", "-q", "split@standin")  # the pointer is no stage's business
    done = repository.run("dvc", "exp", "run", "-S", "data.source=private", "--name", "own")
    assert "train@private-bert" in repository.ran(done)
    repository.run("git", "add", "-A")
    repository.run("git", "commit", "-qm", "private results")
    assert not repository.run("git", "ls-files", "data/private", "models/release").stdout
    for source in ("standin", "private", "standin"):
        lock = (repository.folder / "dvc.lock").read_text()
        done = repository.run("dvc", "exp", "run", "-S", f"data.source={source}")
        assert repository.ran(done) == set()
        assert (repository.folder / "dvc.lock").read_text() == lock
    changed = repository.run("git", "status", "--short").stdout.split()
    assert changed in ([], ["M", "params.yaml"])


def test_a_source_that_is_not_here_is_one_polite_line(repository: Repository) -> None:
    done = repository.run(
        "dvc", "exp", "run", "-S", "data.source=swsr", "-S", "data.codebook=swsr", check=False
    )
    assert done.returncode != 0
    told = [line for line in done.stderr.splitlines() if line.startswith("locate: ")]
    assert len(told) == 1
    assert "the owner of this repository" in told[0]
    assert "data.source=standin" in told[0]
    repository.run("git", "checkout", "-q", ".")


def test_a_killed_training_leaves_no_model_and_the_next_run_is_clean(repository: Repository) -> None:
    repository.run("dvc", "exp", "run", "-S", "data.source=standin")
    before = repository.run("git", "status", "--short").stdout
    shutil.rmtree(repository.folder / "models/candidates/standin/bert")
    lock = yaml.safe_load((repository.folder / "dvc.lock").read_text("utf-8"))
    process = subprocess.Popen(
        lock["stages"]["train@standin-bert"]["cmd"].split(),
        cwd=repository.folder,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while "RUNNING" not in dict(repository.runs()).values() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert "RUNNING" in dict(repository.runs()).values()
    assert not (repository.folder / "models/candidates/standin/bert").exists()
    repository.run("dvc", "repro")
    assert repository.run("git", "status", "--short").stdout == before
    repository.run("dvc", "repro", "-f", "-s", "train@standin-tfidf")
    statuses = [status for _, status in repository.runs()]
    assert "RUNNING" not in statuses
    assert "KILLED" in statuses


def test_dropped_answers_become_labels_and_a_broken_file_loses_nothing(repository: Repository) -> None:
    folder = repository.folder
    repository.run("git", "checkout", "-q", ".")
    repository.run("dvc", "checkout", "-q")
    apply_overrides(
        folder / "params.yaml",
        [
            "data.source=private",
            "~ingest.private.labels",
            "answer.private=files",
            "+request.private.voters.one={provider: openai, model: 'simulated:0.9', prompt: corrected,"
            " definitions: true, temperature: 0.0, max_tokens: 16}",
        ],
    )
    done = repository.run("dvc", "repro", "label@private", check=False)
    told = repository.said(done, "answer")
    assert "no answers to the requests of 'private'. Send data/private/requests" in told

    dropped = folder / "data/raw/answers/private"
    dropped.mkdir()
    asked = pd.read_parquet(folder / "data/private/requests/asked.parquet")
    given = pd.read_excel(folder / "data/raw/private/own.xlsx", dtype=str)["label"]
    truth = dict(zip(asked["id"], given, strict=True))
    book = read_codebook(folder / "codebooks/gender.yaml")
    voters = read_params(folder / "params.yaml").request["private"].voters
    simulated.answers(asked, truth, voters, book, seed=0, out=dropped)
    repository.run("dvc", "add", "-q", "data/raw/answers/private")
    repository.run("dvc", "repro", "label@private")
    labels = folder / "data/private/labelled.parquet"
    before = labels.read_bytes()
    rows = pd.read_parquet(labels)
    assert set(rows["teachers"]) == {"one"}
    assert "2025-01-01" in set(rows["answered"])

    with (dropped / "one.output.jsonl").open("a") as file:
        file.write('{"custom_id": "half a li')
    done = repository.run("dvc", "repro", "label@private", check=False)
    assert done.returncode != 0
    told = repository.said(done, "answer")
    assert "data/raw/answers/private/one.output.jsonl, line" in told
    assert labels.read_bytes() == before
    assert (folder / "data/private/answers/one.output.jsonl").exists()  # what was there stays
