"""The command line: one answer a text, one line for a problem, never a text in it."""

import io
import json
from pathlib import Path

import pandas as pd
import pytest

from tests import tiny
from undertone.cli import main

CANARY = "zq48151623420kx"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("cli")
    tiny.bundled("e5", folder)
    return str(folder / "bundle")


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
    monkeypatch.setattr("sys.stdin", io.StringIO("\r\n".join(texts) + "\n\n"))
    assert main(["predict", "--bundle", bundle]) == 0
    assert answers(capsys) == told


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_every_row_of_a_file_is_scored(suffix: str, bundle: str, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text('nr,said\n007,fair pay\n008,"cold\noffice"\n009,\n', "utf-8")
    out = tmp_path / f"out{suffix}"
    given = ["--file", str(tmp_path / "in.csv"), "--column", "said", "--id", "nr", "--out", str(out)]
    assert main(["predict", "--bundle", bundle, *given]) == 0
    if suffix == ".parquet":
        table = pd.read_parquet(out)
    elif suffix == ".csv":
        table = pd.read_csv(out, dtype={"id": str})
    else:
        table = pd.read_json(out, lines=True, dtype={"id": str})
    assert table["id"].tolist() == ["007", "008", "009"]
    assert table.columns.tolist() == ["id", "labels", "fair", "cold", "other"]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--file", "in.csv"], "--file needs --out"),
        (["--file", "in.csv", "--out", "x.pdf"], "'.pdf' is no format to write"),
        (["--file", "none.csv", "--out", "x.csv"], "none.csv: no such file"),
        (["--file", "in.csv", "--out", "x.csv"], "no column 'text'"),
        (["--text", CANARY, "--variant", "int4"], "no variant 'int4'"),
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
    assert main(["predict", "--bundle", bundle, *given]) == 1
    shown = capsys.readouterr()
    assert told in shown.err
    assert shown.err.count("\n") == 1
    assert CANARY not in shown.err + shown.out
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_no_bundle_says_how_to_get_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "--bundle", str(tmp_path), "--text", "fair"]) == 1
    assert "dvc repro export" in capsys.readouterr().err
