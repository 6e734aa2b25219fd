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
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from dvc.utils.hydra import apply_overrides
from dvc.utils.serialize import modify_yaml

from tests import canaries, tiny
from tests.network import NotHere, Nowhere
from undertone.codebook import read_codebook
from undertone.corpus import sample
from undertone.corpus.ledger import STAGES
from undertone.files import size
from undertone.params import read_params
from undertone.voters import simulated
from undertone.voters.collect import OUTCOMES

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow
CLI = (sys.executable, "-m", "undertone.cli")

CANDIDATES = {"tfidf", "e5", "bert", "setfit", "zeroshot", "lora", "tfidf_wide"}  # as they come
ROWS = 500
SMALL = {
    "sample.rows": str(ROWS),
    "sample.gold": "100",
    "split.min_support": "3",
    "request.private.rows": "400",
    "bert.epochs": "1",
    "bert.max_length": "32",
    "e5.max_length": "32",
    "setfit.max_length": "32",
    "setfit.shots": "8",
    "setfit.pairs": "64",
    "lora.steps": "10",
    "lora.load": "full",
    "lora.adapt.epochs": "0.3",
    "fewshot.adapt": "null",
    "fewshot.max_new_tokens": "6",
    "evaluate.draws": "100",
    "pseudo.candidates": "[tfidf]",  # of several, test_pseudo.py runs the stage
    "export.choose.max_drop": "0.5",
    "export.choose.min_agreement": "0",
    "bench.repeats": "5",
    "bench.lengths": "[12]",
    "bench.batches": "[1]",
    "bench.starts": "0",
    "bench.threads": "1",
    "data.source": "private",
}

OWN_LABELS = {
    "ingest": {
        "sheets": "all",
        "id": "comment_id",
        "text": "comment",
        "group": "author",
        "labels": {"form": "name", "columns": ["truth"]},
    },
    "request": {"voters": {}},
    "answer": "none",
    "generate": None,
}


class Repository:
    """A clone with its own DVC cache, MLflow store, home and tiny base, on a network that leads nowhere
    where the machine lends one."""

    def __init__(self, folder: Path, home: Path, network: Nowhere | None) -> None:
        self.folder = folder
        self.home = home
        self.network = network
        self.log = ""  # all that the first `dvc repro` printed
        self.printed = ""  # all that any command printed
        (home / "tmp").mkdir(parents=True)

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.there(*command),
            cwd=self.folder,
            env=environment(self.home),
            capture_output=True,
            text=True,
            check=False,
        )
        self.printed += done.stdout + done.stderr
        assert not check or done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done

    def there(self, *command: str) -> list[str]:
        """The command, on the network that leads nowhere."""
        return [*(self.network.prefix(self.folder) if self.network else ()), *command]

    def said(self, done: subprocess.CompletedProcess[str], stage: str) -> str:
        """The one line of trouble of a stage; DVC's progress may stand before it in the line."""
        lines = [line for line in re.split(r"[\r\n]+", done.stderr) if f"{stage}: " in line]
        assert len(lines) == 1, done.stdout[-2000:] + done.stderr[-2000:]
        return lines[0]

    def ran(self, printed: str) -> set[str]:
        """The stages that ran, by what DVC printed."""
        lines = printed.splitlines()
        return {line.split("'")[1] for line in lines if line.startswith("Running stage")}

    def runs(self) -> list[tuple[str, str]]:
        """Name and status of each MLflow run, oldest first."""
        with sqlite3.connect(self.folder / "mlflow.db") as store:
            return store.execute("SELECT name, status FROM runs ORDER BY start_time").fetchall()

    def json(self, name: str) -> dict:
        content = json.loads((self.folder / name).read_text("utf-8"))
        assert isinstance(content, dict)
        return content


def environment(home: Path) -> dict[str, str]:
    """A user's own, apart from what would tell a library that it is tested or must keep quiet: what
    keeps it from calling home has to come from the repository."""
    told = ("DVC_", "MLFLOW_", "HF_", "PYTEST_", "GIT_", "XDG_", "TRANSFORMERS_", "MPL")
    alone = {"CI", "GITHUB_ACTIONS", "GITLAB_CI", "TF_BUILD", "BUILD_NUMBER", "DO_NOT_TRACK"}
    kept = {name: value for name, value in os.environ.items() if not name.startswith(told)}
    return {
        **{name: value for name, value in kept.items() if name not in alone},
        "PATH": f"{Path(sys.executable).parent}:{kept['PATH']}",
        "HOME": str(home),
        "TMPDIR": str(home / "tmp"),
        "DVC_SITE_CACHE_DIR": str(home / "dvc"),  # else in /var/tmp
        "GIT_CONFIG_GLOBAL": os.devnull,
        **{
            f"GIT_{who}_{what}": "t@example.org"
            for who in ("AUTHOR", "COMMITTER")
            for what in ("NAME", "EMAIL")
        },
        "OMP_NUM_THREADS": "1",
    }


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    """After one whole `dvc repro`, committed."""
    with ExitStack() as stack:
        network = Nowhere(tmp_path_factory.mktemp("network"))
        try:
            stack.enter_context(network)
        except NotHere:
            yield _made(tmp_path_factory, None)
        else:
            yield _made(tmp_path_factory, network)


def _made(tmp_path_factory: pytest.TempPathFactory, network: Nowhere | None) -> Repository:
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
    with modify_yaml(folder / "params.yaml") as params:  # the private source is the one with voters
        for section, own in OWN_LABELS.items():
            params[section] |= {"private": params[section]["standin"], "standin": own}
        slices = params["evaluate"]["slices"]
        slices["private"] = slices.pop("standin")
        params["review"]["simulated"] = {"private": 20}  # the stand-in's truth is its labels here
    book = read_codebook(folder / "codebooks/gender.yaml")
    rows = sample.rows(book, ROWS, 100, np.random.default_rng(1))
    raw = folder / "data/raw/private"
    raw.mkdir()
    sample.write_workbook(canaries.planted(rows), raw / "own.xlsx")
    base = tiny.base(tmp_path_factory.mktemp("tiny"))
    small = {**SMALL, **{f"{family}.base": f"path:{base}" for family in ("bert", "e5", "setfit")}}
    small |= {f"{family}.base": "scratch:1x32" for family in ("fewshot", "lora")}
    changes = [f"{key}={value}" for key, value in small.items()]
    apply_overrides(folder / "params.yaml", changes)
    repository = Repository(folder, tmp_path_factory.mktemp("home"), network)
    repository.run("git", "init", "-q")
    repository.run("dvc", "add", "-q", "data/raw/private")
    repository.run("git", "add", "-A")
    repository.run("git", "commit", "-qm", "start")
    done = repository.run("dvc", "repro")
    repository.log = done.stdout + done.stderr
    assert "train@private-bert" in repository.ran(done.stdout)
    repository.run("git", "add", "-A")
    repository.run("git", "commit", "-qm", "results")
    return repository


def test_everything_comes_out(repository: Repository) -> None:
    metrics = repository.json("reports/private/metrics.json")
    assert set(metrics.pop("teachers")) == {
        f"{part}_gold_{metric}" for part in ("validation", "test") for metric in ("macro_f1", "accuracy")
    }
    assert set(metrics) == {"majority", "stratified", *CANDIDATES}
    for figures in metrics.values():
        assert {"validation_macro_f1", "test_macro_f1", "test_accuracy"} <= set(figures)
    variants = repository.json("models/variants/private/manifest.json")["variants"]
    assert {"fp32", "optimised", "int8"} <= set(variants)
    assert all("parity" in variant for variant in variants.values())
    released = repository.json("models/release/private/manifest.json")["variants"]
    assert released
    assert set(released) <= set(variants)
    latency = repository.json("reports/private/latency.json")
    measured = {row["model"] for row in latency["rows"]}
    assert measured == {*CANDIDATES, *(f"onnx-{one}" for one in variants)}
    costs = repository.json("reports/private/cost.json")["candidates"]
    assert set(costs) == CANDIDATES
    adapter = size(repository.folder / "models/candidates/private/lora")
    assert costs["lora"]["bytes"] > 2 * adapter  # its base is part of what it needs
    assert (
        (repository.folder / "reports/private/report.md").read_text().startswith("# gender on private")
    )


def test_a_model_that_writes_no_label_is_wrong_and_one_that_scores_labels_always_answers(
    repository: Repository,
) -> None:
    found = repository.json("reports/private/evaluation.json")["test"]["label"]
    written = found["zeroshot"]
    assert written["valid"]["share"]["value"] < 0.2  # random weights
    assert written["overall"]["accuracy"]["value"] <= written["valid"]["share"]["value"]
    assert found["lora"]["valid"]["n"] == found["lora"]["n"]
    scores = pd.read_parquet(repository.folder / "data/private/scores/zeroshot.parquet")
    assert scores["positive"].isna().any()


def test_every_row_is_accounted_for_from_the_workbook_to_the_split(repository: Repository) -> None:
    rows = ROWS
    for stage in STAGES:
        ledger = repository.json(f"reports/private/rows/{stage}.json")
        assert ledger["in"] == rows
        rows = ledger["out"]
        assert rows == ledger["in"] - sum(ledger["dropped"].values())
    assert rows == sum(repository.json("reports/private/split.json")["rows"].values())


def test_the_voters_fail_in_every_way_and_every_request_has_an_outcome(repository: Repository) -> None:
    counts = repository.json("reports/private/collect.json")
    asked = repository.json("reports/private/rows/request.json")["out"]
    assert len(counts["voters"]) >= 3
    for outcomes in counts["voters"].values():
        assert set(outcomes) == {*OUTCOMES, "repeated"}
        assert all(outcomes.values())
        assert sum(outcomes[one] for one in OUTCOMES) == asked
    assert counts["unknown_ids"] > 0
    for voter in counts["voters"]:
        for table in ("unlabelled", "labelled", "purged"):
            content = (repository.folder / f"data/private/collected/{voter}/{table}.csv").read_text()
            assert content.startswith("custom_id,message,class\n")
    assert list((repository.folder / "data/private/collected/retry").iterdir())


def test_every_generated_text_is_a_row_or_has_a_reason(repository: Repository) -> None:
    counts = repository.json("reports/private/generated.json")
    gone = sum(counts["rejected"].values()) + sum(counts["unread"].values())
    assert counts["asked"] == 80 == counts["accepted"] + gone
    made = pd.read_parquet(repository.folder / "data/private/generated.parquet")
    assert len(made) == counts["accepted"]
    rows = pd.read_parquet(repository.folder / "data/private/split.parquet")
    parents = {one for ids in made["parent"] for one in ids.split(";")}
    assert parents <= set(rows["id"][rows["part"] == "train"])
    page = (repository.folder / "reports/private/report.md").read_text("utf-8")
    assert "## augment: generated texts" in page


def test_silver_is_compared_with_people_and_the_teachers_with_the_model(repository: Repository) -> None:
    fused = repository.json("reports/private/fuse.json")
    assert {"careful", "brief", "chatty", "silver"} == set(fused["gold"])
    assert {"coder_a", "coder_b", "coder_c"} == set(fused["people"])
    for planted, voter in ((0.92, "careful"), (0.87, "brief"), (0.82, "chatty")):
        found = fused["teachers"][voter]["accuracy"]
        assert found["low"] - 0.03 < planted < found["high"] + 0.03
    evaluated = repository.json("reports/private/evaluation.json")
    assert "teachers" in evaluated["test"]["gold"]
    assert "teachers" not in evaluated["test"]["label"]
    page = (repository.folder / "reports/private/report.md").read_text("utf-8")
    assert "Silver is not gold." in page


def test_no_word_of_a_comment_is_in_what_is_shared(repository: Repository) -> None:
    texts = pd.read_parquet(repository.folder / "data/private/comments.parquet")["text"]
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
    private = (repository.folder / "data/private/requests/careful-0001.jsonl").read_bytes()
    assert sum(canary in private for canary in canaries) > 100


def test_training_and_export_are_recorded_and_the_registry_serves(repository: Repository) -> None:
    encoder = repository.json("reports/private/selection.json")["encoder"]
    expected = sorted([*CANDIDATES, f"export-{encoder}"])
    assert sorted(repository.runs()) == [(name, "FINISHED") for name in expected]
    program = """
import mlflow, json
from undertone.records import tracking
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
    assert aliases == sorted([*CANDIDATES, "champion", "release"])
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
    command = ("in.csv", "--text", "said", "--id", "nr", "--out", "scores")
    repository.run(*CLI, "score", *command)
    table = pd.read_parquet(repository.folder / "scores")
    assert table["id"].tolist() == ["007", "008"]
    assert table["labels"].iloc[0] == answer["labels"][0]
    assert table["positive"].iloc[0] == pytest.approx(answer["scores"]["positive"])
    (repository.folder / "in.csv").unlink()
    shutil.rmtree(repository.folder / "scores")


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
    page = (repository.folder / "reports/private/report.html").read_text("utf-8")
    assert page.count("data:image/svg+xml") > 10
    assert "http://" not in page.replace("http://www.w3.org", "")
    repository.run("dvc", "plots", "show", "--out", "shown")
    assert "pareto.svg" in (repository.folder / "shown/index.html").read_text("utf-8")
    shutil.rmtree(repository.folder / "shown")


def test_a_split_that_was_touched_does_not_hold(repository: Repository) -> None:
    assert repository.run(*CLI, "verify-split").stdout.startswith("holds: ")
    file = repository.folder / "data/private/split.parquet"
    before = file.read_bytes()
    rows = pd.read_parquet(file)
    planted = rows.index[rows["part"] == "test"][0], rows.index[rows["part"] == "train"][0]
    rows.loc[planted[0], "text"] = rows.loc[planted[1], "text"] + "!"
    rows.to_parquet(file, index=False)
    done = repository.run(*CLI, "verify-split", check=False)
    refused = repository.run(*CLI, "compare", "bert", "models:/gender@tfidf", check=False)
    file.write_bytes(before)
    assert "models:/gender@tfidf: learnt from another split of private" in refused.stderr
    assert done.returncode == 1
    assert "alike_rows.train and test: 1 rows are like a text on the other side" in done.stdout
    assert "is not the split that its certificate describes" in done.stderr
    assert "test_digest: ids or texts of the test part are others" in done.stdout


def test_another_source_and_back_reruns_nothing_and_loses_nothing(repository: Repository) -> None:
    """The other one has no voters, and is run as far as its labels and parts."""
    runs = repository.runs()
    with modify_yaml(repository.folder / "params.yaml") as params:
        params["data"]["source"] = "standin"
    done = repository.run("dvc", "repro", "split@standin")
    assert {"label@standin", "split@standin"} <= repository.ran(done.stdout)
    assert not [stage for stage in repository.ran(done.stdout) if "private" in stage]
    lock = (repository.folder / "dvc.lock").read_text()
    repository.run("git", "checkout", "-q", "params.yaml")
    assert repository.ran(repository.run("dvc", "repro").stdout) == set()
    assert (repository.folder / "dvc.lock").read_text() == lock
    assert repository.runs() == runs
    changed = repository.run("git", "status", "--short").stdout.split("\n")
    assert [line for line in changed if "private" in line] == []
    repository.run("git", "add", "-A")
    repository.run("git", "commit", "-qm", "another source")
    assert not repository.run("git", "ls-files", "data/private", "models/release").stdout


def test_a_killed_training_leaves_no_model_and_a_repro_brings_back_that_alone(
    repository: Repository,
) -> None:
    before = repository.run("git", "status", "--short").stdout
    shutil.rmtree(repository.folder / "models/candidates/private/bert")
    lock = yaml.safe_load((repository.folder / "dvc.lock").read_text("utf-8"))
    with (repository.home / "killed.log").open("w") as log:
        process = subprocess.Popen(
            repository.there(*lock["stages"]["train@private-bert"]["cmd"].split()),
            cwd=repository.folder,
            env=environment(repository.home),
            stdout=log,
            stderr=log,
        )
        deadline = time.monotonic() + 60
        while "RUNNING" not in dict(repository.runs()).values() and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert "RUNNING" in dict(repository.runs()).values()
    assert not (repository.folder / "models/candidates/private/bert").exists()
    assert repository.ran(repository.run("dvc", "repro").stdout) <= {"train@private-bert"}
    assert (repository.folder / "models/candidates/private/bert").exists()
    assert repository.run("git", "status", "--short").stdout == before


def test_an_experiment_in_a_copy_reruns_only_what_depends_on_it_and_reaches_the_same_store(
    repository: Repository,
) -> None:
    """It is also the first run after a training was killed, and marks that one."""
    target = "evaluate@private"  # what comes after it costs more time than it shows
    change = ("-S", "e5.c=2.0", "--name", "milder")
    repository.run("dvc", "exp", "run", "--queue", *change, target)
    repository.run("dvc", "exp", "run", "--run-all")
    copies = repository.folder / ".dvc/tmp/exps"
    (log,) = [path for path in canaries.files(copies) if b"train: " in path.read_bytes()]
    ran = repository.ran(log.read_text("utf-8"))
    assert {"resolve", "train@private-e5", "predict@private-e5", target} <= ran
    assert not ran & {
        *("sample", "ingest@private", "clean@private", "answer@private", "split@private"),
        *("bases@e5", "adapt@private-e5", "train@private-zeroshot", "train@private-bert"),
        *("train@private-tfidf", "predict@private-tfidf", "predict@private-zeroshot"),
        *("adapt@private-lora", "train@private-lora", "predict@private-lora"),
    }
    assert ("milder-e5", "FINISHED") in repository.runs()
    assert {status for _, status in repository.runs()} == {"FINISHED", "KILLED"}
    assert not list(copies.rglob("mlflow.db"))
    assert "e5.c=2.0" in repository.run(*CLI, "compare").stdout


def test_a_source_that_is_not_here_is_one_polite_line(repository: Repository) -> None:
    with modify_yaml(repository.folder / "params.yaml") as params:
        params["data"] |= {"source": "swsr", "codebook": "swsr"}
    done = repository.run("dvc", "repro", check=False)
    assert done.returncode != 0
    told = [line for line in done.stderr.splitlines() if line.startswith("locate: ")]
    assert len(told) == 1
    assert "the owner of this repository" in told[0]
    assert "data.source=standin" in told[0]
    repository.run("git", "checkout", "-q", ".")


BROKEN = {
    "shifted.csv": "comment_id,author,comment,truth\n1,a,mild,{0}\n2,b,{0},{0}\n",
    "half.jsonl": '{{"comment_id": "1", "comment": "{0}", "truth": "mild"}}\n{{"comment_id": "{0}", "c',
    "typed.jsonl": '{{"comment_id": 1, "author": {{"{0}": 1}}, "comment": ["{0}"], "truth": "{0}"}}\n',
}


@pytest.mark.parametrize("name", BROKEN)
def test_bad_rows_are_told_without_their_text(repository: Repository, name: str) -> None:
    raw = f"data/broken/{Path(name).stem}"
    (repository.folder / raw).mkdir(parents=True)
    (repository.folder / raw / name).write_text(BROKEN[name].format(canaries.plain()[0]))
    out = ("--out", f"{raw}.parquet", "--ledger", f"{raw}.json")
    given = ("--source", "standin", "--raw", raw, "--codebook", "codebooks/gender.yaml")
    done = repository.run("python", "-m", "stages.ingest", *given, *out, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"ingest: {name}, ")
    assert not canaries.found("printed", (done.stdout + done.stderr).encode())


def test_a_bug_keeps_its_traceback_and_tells_no_text(repository: Repository) -> None:
    lock = yaml.safe_load((repository.folder / "dvc.lock").read_text("utf-8"))
    learnt, spoiled = "data/private/training/tfidf.parquet", "data/broken/split.parquet"
    rows = pd.read_parquet(repository.folder / learnt)
    rows.assign(text=[[text] for text in rows["text"]]).to_parquet(repository.folder / spoiled)
    command = lock["stages"]["train@private-tfidf"]["cmd"].replace(learnt, spoiled)
    assert spoiled in command
    done = repository.run(*command.split(), check=False)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert not canaries.found("printed", (done.stdout + done.stderr).encode())


def test_dropped_answers_become_labels_and_a_broken_file_loses_nothing(repository: Repository) -> None:
    folder = repository.folder
    with modify_yaml(folder / "params.yaml") as params:
        one = params["request"]["private"]["voters"]["careful"] | {"provider": "openai"}
        params["request"]["private"]["voters"] = {"one": one}
        params["answer"]["private"] = "files"
    done = repository.run("dvc", "repro", "label@private", check=False)
    told = repository.said(done, "answer")
    assert "no answers to the requests of 'private'. Send data/private/requests" in told

    dropped = folder / "data/raw/answers/private/voters"
    dropped.mkdir()
    asked = pd.read_parquet(folder / "data/private/requests/asked.parquet")
    comments = pd.read_parquet(folder / "data/private/comments.parquet")
    truth = dict(zip(comments["id"], comments["meta.truth"].fillna(""), strict=True))
    book = read_codebook(folder / "codebooks/gender.yaml")
    voters = read_params(folder / "params.yaml").request["private"].voters
    simulated.answers(asked, truth, voters, book, seed=0, out=dropped)
    repository.run("dvc", "add", "-q", "data/raw/answers/private/voters")
    repository.run("dvc", "repro", "label@private")
    labels = folder / "data/private/labelled.parquet"
    before = labels.read_bytes()
    rows = pd.read_parquet(labels)
    assert set(rows["teachers"]) == {"one"}
    assert "2025-01-01" in set(rows["answered"])

    with (dropped / "one.output.jsonl").open("a") as file:
        file.write('{"custom_id": "half a li' + canaries.plain()[0])
    done = repository.run("dvc", "repro", "label@private", check=False)
    assert done.returncode != 0
    told = repository.said(done, "answer")
    assert "data/raw/answers/private/voters/one.output.jsonl, line" in told
    assert labels.read_bytes() == before
    assert (folder / "data/private/answers/one.output.jsonl").exists()  # what was there stays


def test_no_canary_is_in_anything_that_is_shared_or_left_about(repository: Repository) -> None:
    """A private table with canaries went through every family, an experiment, a queue, failures and a
    kill: none is in git, MLflow, reports, models, logs, what was printed, home or temporary files."""
    places = [("printed", repository.printed.encode()), *canaries.shareable(repository.folder)]
    places += [(str(path), path.read_bytes()) for path in canaries.files(repository.home)]
    names = [name for name, _ in places]
    for wanted in ("git's objects", "mlflow.db", "dvc.lock", "reports/private/report.md"):
        assert wanted in names
    for folder in ("mlartifacts/", "models/release/private/", ".dvc/tmp/exps/", ".git/logs/"):
        assert [name for name in names if name.startswith(folder)], folder
    leaked = {place for name, content in places for place in canaries.found(name, content)}
    assert leaked == set()
    audited = repository.run(*CLI, "audit", "--source", "private", check=False)
    assert audited.returncode == 0, audited.stdout
    assert re.search(r"searched for \d\d+ rows of private", audited.stdout)
    # the same search finds all that lies where it must
    private = (repository.folder / "data/private/split.parquet").read_bytes()
    assert canaries.found("split", private)
    texts = pd.read_parquet(repository.folder / "data/private/clean.parquet")["text"]
    everything = [*canaries.plain(), *canaries.chinese(), *canaries.addresses(), *canaries.phones()]
    assert all(texts.str.contains(one, regex=False).any() for one in everything)


def test_no_library_wrote_a_card_or_a_cache_of_texts(repository: Repository) -> None:
    """sentence-transformers and SetFit write training texts into README.md, datasets into its cache."""
    written = [*canaries.files(repository.folder / "models"), *canaries.files(repository.home)]
    written += canaries.files(repository.folder / "mlartifacts")
    written.remove(repository.folder / "models/README.md")  # the repository's own
    assert len(written) > 100
    for path in written:
        name = path.relative_to(path.anchor).as_posix().lower()
        assert path.suffix not in (".md", ".arrow", ".pkl", ".pickle", ".bin", ".pt"), name
        assert "modelcard" not in path.name.lower()


def test_nothing_was_tried_on_the_network(repository: Repository) -> None:
    """All of this file's commands ran where only the loopback answers, with no variable set that
    would keep a library quiet."""
    if repository.network is None:
        pytest.skip("this machine lends no network namespace (unshare and ip, as root or a user)")
    assert repository.network.tried == []
    assert repository.network.packets == 0


def test_whatever_is_tried_there_is_counted(repository: Repository, tmp_path: Path) -> None:
    program = """
import socket
from contextlib import suppress
with suppress(OSError):
    socket.create_connection(("203.0.113.9", 443), timeout=0.3)
with suppress(OSError):
    socket.getaddrinfo("telemetry.example.org", 443)
own = socket.create_server(("127.0.0.1", 0))
socket.create_connection(own.getsockname())
"""
    try:
        with Nowhere(tmp_path) as network:
            command = [*network.prefix(repository.folder), sys.executable, "-c", program]
            subprocess.run(command, env=environment(repository.home), check=True)
            tried, packets = network.tried, network.packets
    except NotHere as reason:
        pytest.skip(str(reason))
    assert tried[0] == "tcp 203.0.113.9:443"
    assert set(tried[1:]) == {"udp 198.51.100.53:53 telemetry.example.org"}
    assert packets == len(tried)


def test_a_canary_that_is_planted_is_found_wherever_and_however(repository: Repository) -> None:
    folder = repository.folder
    planted = {}
    for place in (
        folder / "reports/private/notes",
        folder / "mlartifacts/gender/notes",
        folder / "models/release/private/notes",
        folder / "models/candidates/private/bert/notes",
        folder / ".dvc/tmp/exps/notes",
        repository.home / ".cache/huggingface/datasets",
    ):
        place.mkdir(parents=True)
        for number, (name, encode) in enumerate(canaries.ENCODINGS.items()):
            canary = [*canaries.plain(), *canaries.chinese()][number * 13]
            pack = list(canaries.PACKED.values())[number % 3]
            planted[place / name] = encode(f"{number} {canary}.")
            planted[place / f"{name}.packed"] = pack(encode(canary))
    for path, content in planted.items():
        path.write_bytes(content)
    kept = ["git", "hash-object", "-w", "--stdin"]  # no branch leads there
    subprocess.run(kept, cwd=folder, input=canaries.addresses()[0].encode(), check=True)
    with sqlite3.connect(folder / "mlflow.db") as store:
        store.execute("INSERT INTO experiment_tags VALUES ('note', ?, 0)", canaries.phones()[:1])
    known = {str(path) for path in [*planted, folder / "git's objects", folder / "mlflow.db"]}
    places = [(str(folder / name), content) for name, content in canaries.shareable(folder)]
    places += [(str(path), path.read_bytes()) for path in canaries.files(repository.home)]
    hits = {name for name, content in places if canaries.found(name, content)}
    assert hits == known
    audited = repository.run(*CLI, "audit", "--source", "private", check=False)
    assert audited.returncode == 1
    counts = dict(re.findall(r"^([\w' ]+): .*, (\d+) found$", audited.stdout, re.MULTILINE))
    assert int(counts.pop("git objects")) > 0
    each = str(2 * (len(canaries.ENCODINGS) - 1))  # it doesn't read backwards
    folders = ("files", "reports", "release", "dvc's logs", "caches")
    assert counts == {**dict.fromkeys(folders, each), "mlflow": str(int(each) + 1)}
    assert canaries.STEM not in audited.stdout + audited.stderr
