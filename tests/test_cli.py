"""The command line: one answer a text, one line for a problem, never a text in it."""

import io
import json
import re
from pathlib import Path

import pandas as pd
import pytest

from tests.test_analysis import CATEGORIES, DERIVED, toxicity
from undertone.cli import main
from undertone.corpus.ledger import STAGES, Ledger

CANARY = "zq48151623420kx"
ROOT = Path(__file__).parents[1]
TOXICITY = ["--codebook", str(ROOT / "codebooks" / "toxicity.yaml")]


@pytest.fixture
def bundle(encoder: Path) -> str:
    return str(encoder / "bundle")


def answers(capsys: pytest.CaptureFixture[str]) -> list[dict]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_texts_from_arguments_and_standard_input_get_the_same_answers(
    bundle: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["the pay is fair", "cold office\u2028never"]  # U+2028 ends no text
    assert main(["predict", "--bundle", bundle, "--text", texts[0], "--text", texts[1]]) == 0
    told = answers(capsys)
    assert len(told) == 2
    assert set(told[0]["scores"]) == {"fair", "cold", "other"}
    assert told[0]["abstained"] is False
    given_in(monkeypatch, "\r\n".join(texts).encode() + b"\n")
    assert main(["predict", "--bundle", bundle]) == 0
    assert answers(capsys) == told


def given_in(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))


def test_each_line_of_standard_input_has_its_answer_an_empty_one_too(
    bundle: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given_in(monkeypatch, b"fair pay\n\ncold office")
    assert main(["predict", "--bundle", bundle]) == 0
    assert [one["error"] for one in answers(capsys)] == [None, "empty", None]
    given_in(monkeypatch, b"fair pay\n\xff\xfe\n")
    assert main(["predict", "--bundle", bundle]) == 1
    assert capsys.readouterr().err == "undertone: standard input, line 2: not UTF-8\n"


def test_a_text_gets_the_same_answer_in_a_file(
    bundle: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.csv").write_text('nr,said\n007,fair pay\n008,"cold\noffice"\n009,\n', "utf-8")
    out = tmp_path / "out"
    given = [str(tmp_path / "in.csv"), "--out", str(out), "--text", "said", "--id", "nr"]
    assert main(["score", "--bundle", bundle, *given, "--workers", "1"]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("3 rows → 2 scored, 1 not (1 empty); ")
    assert shown.out.count("\n") == 1
    assert shown.err == ""  # no bar where nobody looks
    table = pd.read_parquet(out)
    assert table["id"].tolist() == ["007", "008", "009"]
    assert main(["predict", "--bundle", bundle, "--text", "fair pay", "--text", "cold\noffice"]) == 0
    for row, one in zip(table.to_dict("records"), answers(capsys), strict=False):
        assert {label: row[label] for label in ("fair", "cold", "other")} == one["scores"]
        assert row["labels"] == ";".join(one["labels"])


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["score", "none.csv", "--out", "x"], "none.csv: no such file"),
        (["score", "in.csv", "--out", "x"], "no column 'text'"),
        (["score", "in.csv", "--out", "x", "--workers", "0"], "--workers is 0, must be above 0"),
        (["score", "in.csv", "--out", "x", "--address", "h:1"], "--address needs --engine ray"),
        (["predict", "--text", CANARY, "--variant", "int4"], "no variant 'int4'"),
    ],
)
def test_a_wrong_call_is_one_line_and_writes_nothing(
    given: list[str],
    told: str,
    bundle: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.csv").write_text(f"said\n{CANARY}\n", "utf-8")
    assert main([*given, "--bundle", bundle]) == 1
    shown = capsys.readouterr()
    assert told in shown.err
    assert shown.err.count("\n") == 1
    assert CANARY not in shown.err + shown.out
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_no_bundle_says_how_to_get_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "--bundle", str(tmp_path), "--text", "fair"]) == 1
    assert "dvc repro release" in capsys.readouterr().err


def test_help_has_a_line_for_each_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0
    told = capsys.readouterr().out.partition("COMMAND\n")[2]
    listed = re.sub(r"\n {8,}", " ", told).splitlines()  # a long name has its help below it
    names = (
        "lint ledger analyse review compare predict score serve plan verify-split lineage sync".split()
    )
    names += "relocate team-server grant revoke password grants private audit verify access".split()
    assert [line.split()[0] for line in listed] == names
    assert all(len(line.split()) > 3 for line in listed)


# lint


def test_the_shipped_codebooks_pass(capsys: pytest.CaptureFixture[str]) -> None:
    paths = sorted((ROOT / "codebooks").glob("*.yaml"))
    assert len(paths) > 5
    assert main(["lint", *map(str, paths)]) == 0
    told = capsys.readouterr().out
    assert "gender.yaml: no findings\n" in told
    assert "(as published)\n" in told


def test_a_finding_is_a_line_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(
        "name: x\ntitle: X\nlanguage: en\nlabels:\n- {id: one, name: one, definition: the first}\n"
        "- {id: two, name: two, definition: the second}\nmerges:\n  half: {All: [one]}\n"
    )
    assert main(["lint", str(path)]) == 1
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 1
    assert "half" in told[0]
    assert "(as published)" not in told[0]


# ledger


def test_the_ledger_of_a_source_is_one_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text("utf-8"), "utf-8")
    for stage in STAGES:
        Ledger(stage, 7, 7).save(tmp_path / f"reports/standin/rows/{stage}.json")
    assert main(["ledger"]) == 0
    default = capsys.readouterr().out
    assert default.endswith("from 7 rows in the files to 7 left by split\n")
    assert main(["ledger", "standin"]) == 0
    assert capsys.readouterr().out == default
    assert main(["ledger", "other"]) == 1
    assert "other/rows/ingest.json: no such file" in capsys.readouterr().err


# analyse


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A .csv with a study's counts, in yes and no; and a file that its name would match."""
    flags = toxicity(seed=11)
    table = pd.DataFrame(flags, columns=list(CATEGORIES)).replace({True: "yes", False: "no"})
    table.insert(0, "id", [f"{row:05}" for row in range(len(table))])
    table.insert(1, "text", CANARY)
    folder = tmp_path_factory.mktemp("study")
    table.to_csv(folder / "in[1].csv", index=False)
    (folder / "in1.csv").write_text("id\n")
    return folder / "in[1].csv"


@pytest.mark.parametrize("rows", DERIVED)
def test_a_studys_sets_come_out_of_its_table(
    rows: int, study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    filters, counts, percents = DERIVED[rows]
    out = tmp_path / "out.csv"
    wanted = [word for one in filters for word in ("--filter", one)]
    assert main(["analyse", str(study), *TOXICITY, *wanted, "--write", str(out), "--seed", "4"]) == 0
    shown = capsys.readouterr().out
    assert "3,847 rows, 0 without a label\n" in shown
    assert "yes-counts: {0: 1965, 1: 1468, 2: 382, 3: 28, 4: 3, 5: 0, 6: 1, 7: 0}\n" in shown
    last = shown.rpartition(f"{filters[-1]}: ")[2]
    for name, percent in zip(counts, percents.split(), strict=True):
        line = next(line for line in last.splitlines() if line.startswith(name))
        for side in counts[name]:
            assert f"→ {side:,} " in line
        assert f"→ {percent}% (" in line
    assert f"{rows:,} rows written to" in shown
    assert CANARY not in shown
    table = pd.read_csv(out, dtype={"id": str})
    assert table.columns.tolist() == ["id", "text", *counts]
    assert len(table) == table["id"].nunique() == rows
    assert {name: int(table[name].sum()) for name in counts} == {
        name: yes for name, (yes, _) in counts.items()
    }
    given = pd.read_csv(study, dtype={"id": str}).set_index("id").loc[table["id"], list(counts)]
    assert ((given == "yes").to_numpy() == table[list(counts)].to_numpy()).all()


def test_nothing_is_written_unless_asked(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(study.parent.iterdir())
    assert main(["analyse", str(study), *TOXICITY, "--filter", "drop-all-no"]) == 0
    assert "nothing written" in capsys.readouterr().out
    assert sorted(study.parent.iterdir()) == before


def test_the_labelled_comments_are_analysed_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("params.yaml", "codebooks/gender.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text("utf-8"), "utf-8")
    assert main(["analyse"]) == 1
    assert "data/standin/labelled.parquet: no such table" in capsys.readouterr().err
    flags = {
        f"label.{label}": [float(label == one) if one else None for one in ("mild", "mild", None)]
        for label in ("positive", "mild", "negative", "irrelevant")
    }
    (tmp_path / "data/standin").mkdir(parents=True)
    pd.DataFrame({"id": ["1", "2", "3"], "text": CANARY} | flags).to_parquet(
        tmp_path / "data/standin/labelled.parquet"
    )
    assert main(["analyse", "--plot", "rates.png"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "3 rows, 1 without a label" in lines
    assert "mild 2 100.00%" in lines
    assert (tmp_path / "rates.png").exists()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--filter", "drop-category:toxic"], "no label 'toxic'; there are obscene,"),
        (["--write", "out.xlsx"], "'.xlsx' is no format to write"),
        (["--plot", "out.bmp"], "'.bmp' is no format to write"),
        (["--write", "./in.csv"], "would take the place of the table itself"),
        (["--scheme", "verdicts"], "no merge or question 'verdicts'"),
        (["--column", "text"], "no label of codebook toxicity"),
    ],
)
def test_a_wrong_analysis_is_one_line_and_writes_nothing(
    given: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    head = ",".join(["text", *CATEGORIES])
    (tmp_path / "in.csv").write_text(f"{head}\n{CANARY},yes{',no' * 6}\n", "utf-8")
    assert main(["analyse", "in.csv", *TOXICITY, *given]) == 1
    shown = capsys.readouterr()
    assert told in shown.err
    assert shown.err.count("\n") == 1
    assert CANARY not in shown.err + shown.out
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_a_column_without_a_file_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    assert main(["analyse", *TOXICITY, "--column", "label"]) == 1
    assert "--column needs FILE" in capsys.readouterr().err
