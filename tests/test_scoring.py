"""Scoring of files: every row once, whoever is killed meanwhile, and no text in what comes out."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pyarrow.parquet as pq
import pytest

from tests import tiny
from tests.registered import CANARY, release
from undertone.corpus import rows
from undertone.corpus.cells import FAULTS
from undertone.deployment import scoring
from undertone.deployment.predictor import Predictor, read_manifest, seal
from undertone.deployment.scoring import MANIFEST, PLAN, Part, Work, local, score
from undertone.errors import Problem

KINDS = ("csv", "tsv", "jsonl", "parquet", "xlsx")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Says yes to a text that begins with the word good, no to others; eight tokens long."""
    folder = tmp_path_factory.mktemp("scoring") / "bundle"
    release(folder, encoder="0")
    return folder


def given(count: int) -> list[tuple[str, str]]:
    """Ids and texts; every fifth begins with good, every seventh is empty, some have line breaks, some
    are long."""
    texts = [f'{"good" if n % 5 == 0 else "bad"} {CANARY}, "{n}"' for n in range(count)]
    texts = [text + "\r\n\u2028more" if n % 3 == 0 else text for n, text in enumerate(texts)]
    texts = [text + " and" * 8 if n % 4 == 0 else text for n, text in enumerate(texts)]
    return [(f"{n:05}", "" if n % 7 == 0 else text) for n, text in enumerate(texts)]


def written(path: Path, table: Sequence[tuple[str, str]], **more: Any) -> Path:
    frame = pd.DataFrame(table, columns=["nr", "said"])
    if path.suffix in (".csv", ".tsv"):
        separator = "," if path.suffix == ".csv" else "\t"
        frame.to_csv(path, index=False, sep=separator, lineterminator="\r\n", encoding="utf-8-sig")
    elif path.suffix == ".jsonl":
        lines = [json.dumps(one, ensure_ascii=False) for one in frame.to_dict("records")]
        path.write_text("\n".join(lines), "utf-8", newline="")
    elif path.suffix == ".parquet":
        frame.to_parquet(path, index=False, **more)
    else:
        frame.to_excel(path, index=False, engine="xlsxwriter")
    return path


def scored(out: Path) -> pd.DataFrame:
    return pd.read_parquet(out)


def closing(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / MANIFEST).read_text("utf-8"))
    return content


def contents(out: Path) -> dict[str, bytes]:
    found = {path.name: path.read_bytes() for path in out.iterdir()}
    assert any(name.startswith("part-") for name in found)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_every_row_of_every_kind_of_file_gets_its_own_scores(
    kind: str, bundle: Path, tmp_path: Path
) -> None:
    rows_in = given(1000)
    path = written(tmp_path / f"in.{kind}", rows_in)
    out = tmp_path / "out"
    told = score([str(path)], out, bundle, local, text="said", id_="nr", rows_per_part=300)
    assert told == f"1,000 rows → 857 scored, 143 not (143 empty); 214 cut; 4 parts in {out}"
    table = scored(out)
    assert table["id"].tolist() == [id_ for id_, _ in rows_in]
    expected = [None if not text else "yes" if text[0] == "g" else "no" for _, text in rows_in]
    assert table["labels"].astype(object).where(table["labels"].notna(), None).tolist() == expected
    assert ((table["yes"] > 0.9) == (table["labels"] == "yes")).all()
    assert (table["yes"].isna() == (table["error"] == "empty")).all()
    assert table["cut"].tolist() == [text.endswith("and") for _, text in rows_in]
    assert not table["abstained"].any()
    assert CANARY not in table.to_csv()
    assert CANARY not in (out / MANIFEST).read_text("utf-8")
    account = closing(out)
    assert account["rows"] == account["scored"] + sum(account["errors"].values()) == 1000
    assert [one["rows"] for one in account["parts"]] == [300, 300, 300, 100]
    assert [one["row"] for one in account["parts"]] == table["row"].iloc[::300].tolist()
    assert account["files"][0]["scored"] == sum(one["scored"] for one in account["parts"]) == 857


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_is_read_again_from_its_own_place(kind: str, tmp_path: Path) -> None:
    path = written(
        tmp_path / f"in.{kind}", given(60), **({"row_group_size": 7} if kind == "parquet" else {})
    )
    table = rows.Table.of(path, "in", "said", "nr")
    found = list(rows.rows(table))
    assert [(row.id, row.text) for row in found] == given(60)
    for place, row in enumerate(found):
        assert list(rows.rows(table, row.at, row.number)) == found[place:]


def test_several_files_are_parts_of_their_own_and_told_apart(bundle: Path, tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        written(tmp_path / name / "in[1].csv", given(10))
    out = tmp_path / "out"
    patterns = [str(tmp_path / "*/in*.csv"), str(tmp_path / "b/in[1].csv")]
    score(patterns, out, bundle, local, text="said", rows_per_part=8)
    table = scored(out)
    assert table["file"].value_counts().to_dict() == {"a/in[1].csv": 10, "b/in[1].csv": 10}
    assert table["id"].iloc[[0, 10]].tolist() == ["a/in[1].csv:2", "b/in[1].csv:2"]
    assert table["id"].is_unique
    assert [one["rows"] for one in closing(out)["parts"]] == [8, 2, 8, 2]


def test_a_cell_that_holds_no_text_is_a_row_that_says_so(bundle: Path, tmp_path: Path) -> None:
    csv = tmp_path / "in.csv"
    csv.write_text("nr,text\n1,good\n\n2,good,more\n3\n4, \u3000\n", "utf-8")
    jsonl = tmp_path / "in.jsonl"
    lines = ['{"nr": 1.0, "text": "good"}', "", '{"text": ["good"]}', '{"nr": [2]}']
    jsonl.write_text("\n".join([*lines, '{"nr": 9007199254740993, "text": "\\ud83d"}']), "utf-8")
    parquet = tmp_path / "in.parquet"
    days = pd.DataFrame({"nr": [1, 2], "text": [date(2023, 1, 1), None]})
    days.to_parquet(parquet)
    expected = {
        csv: (
            ["1", None, None, "4"],
            [None, "number_of_fields", "number_of_fields", "empty"],
        ),
        jsonl: (
            ["1.0", None, None, "9007199254740993"],
            [None, "not_a_value", "empty", "broken_character"],
        ),
        parquet: (["1", "2"], ["date", "empty"]),
    }
    for path, (ids, errors) in expected.items():
        out = tmp_path / path.suffix[1:]
        told = score([str(path)], out, bundle, local, id_="nr")
        table = scored(out).astype(object)
        table = table.where(table.notna(), None)
        assert table["id"].tolist() == ids
        assert table["error"].tolist() == errors
        assert set(errors) <= {*(one.replace(" ", "_") for one in FAULTS), "empty", None}
        account = closing(out)
        assert account["ids"] == {"missing": ids.count(None), "repeated": 0}
        assert ("rows without an id" in told) == (None in ids)
        assert account["files"][0]["blank"] == (0 if path == parquet else 1)


def test_repeated_ids_are_told_and_kept(bundle: Path, tmp_path: Path) -> None:
    path = written(tmp_path / "in.csv", [("1", "good"), ("2", "bad"), ("1", "bad"), ("", "good")])
    out = tmp_path / "out"
    told = score([str(path)], out, bundle, local, text="said", id_="nr")
    assert "1 rows without an id; 2 rows with an id that another row has" in told
    assert scored(out)["labels"].tolist() == ["yes", "no", "no", "yes"]


BAD = {
    "cut.csv": (f"text\n{CANARY}\n{CANARY}", "its last line has no end"),
    "quote.csv": (f'text\n"{CANARY}\n{CANARY}\n', "unexpected end of data"),
    "return.csv": (f"text\n{CANARY}\rgood\n", "new-line character seen in unquoted field"),
    "latin.csv": (b"text\n\xe9\n", "byte 6, in line 2, is not UTF-8"),
    "wide.csv": ("text\ngood\n".encode("utf-16"), "byte 1, in line 1, is not UTF-8"),
    "column.csv": (f"{CANARY} is a text without a header\ngood\n", "no column 'text'"),
    "twice.csv": ("text,text\na,b\n", "column 'text' stands 2 times"),
    "header.csv": ("text\n", "no rows"),
    "twice.jsonl": (f'{{"text": "{CANARY}", "text": "b"}}\n', "line 1: a key stands twice"),
    "nan.jsonl": ('{"text": "a"}\n{"text": NaN}\n', "line 2: NaN is no JSON"),
    "cut.jsonl": (f'{{"text": "a"}}\n{{"text": "{CANARY}', "line 2: not JSON"),
    "list.jsonl": (f'{{"text": "a"}}\n["{CANARY}"]\n', "line 2: not a JSON object"),
    "column.jsonl": ('{"said": "a"}\n', "no column 'text'"),
    "cut.parquet": (b"PAR1 and no more", "not a readable parquet table"),
    "picture.png": (b"\x89PNG\0", "not a table of any known kind"),
    "empty.csv": ("", "an empty file"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_doubtful_file_is_one_line_and_writes_nothing(name: str, bundle: Path, tmp_path: Path) -> None:
    content, told = BAD[name]
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(Problem) as refused:
        score([str(path)], tmp_path / "out", bundle, local)
    assert told in str(refused.value)
    assert name in str(refused.value)
    assert "\n" not in str(refused.value)
    assert CANARY not in str(refused.value)
    assert [one.name for one in tmp_path.iterdir()] == [name]


def test_a_wrong_call_is_refused(bundle: Path, tmp_path: Path) -> None:
    csv = written(tmp_path / "in.csv", given(3))
    jsonl = written(tmp_path / "in.jsonl", given(3))
    (tmp_path / "other.csv").write_text("said,other\na,b\n")
    out = tmp_path / "out"
    for inputs, id_, told in (
        ([csv, jsonl], None, "in.jsonl: not of one kind with in.csv"),
        ([csv, tmp_path / "other.csv"], None, "other.csv: other columns than in.csv"),
        ([tmp_path / "none*"], None, "none*: no such file"),
        ([tmp_path], None, "a folder. Name files"),
        ([csv], "said", "--id names the column of texts"),
        ([csv], "number", "no column 'number'"),
        (["."], None, ".: a folder. Name files"),
        (["/"], None, "/: a folder. Name files"),
        ([""], None, ".: a folder. Name files"),
        (["a**b.csv"], None, "a**b.csv: no name and no pattern of files (ValueError)"),
        (["n" * 300], None, "n: no name and no pattern of files (OSError)"),
    ):
        with pytest.raises(Problem) as refused:
            score([str(one) for one in inputs], out, bundle, local, text="said", id_=id_)
        assert told in str(refused.value)
    assert not out.exists()
    for out, kind in ((csv, "FileExistsError"), (csv / "out", "NotADirectoryError")):
        with pytest.raises(Problem, match=rf"in.csv\S*: can't be made a folder \({kind}\)"):
            score([str(csv)], out, bundle, local, text="said")


def test_the_bytes_depend_on_neither_threads_nor_chunks(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = encoder / "bundle"  # its int8 scores would move with a text's neighbours
    texts = [(str(n), text) for n, text in enumerate(tiny.examples(500).texts)]
    path = written(tmp_path / "in.parquet", texts, row_group_size=90)
    for name, threads, chunk in (("one", 1, 2048), ("two", 2, 2048), ("small", 2, 7)):
        monkeypatch.setattr(scoring, "CHUNK", chunk)
        out, given_ = tmp_path / name, {"text": "said", "rows_per_part": 128}
        score([str(path)], out, real, local, threads=threads, **given_)
    assert closing(tmp_path / "one")["bundle"]["variant"] == "int8"
    assert scored(tmp_path / "one")["fair"].nunique() > 100
    assert contents(tmp_path / "one") == contents(tmp_path / "two") == contents(tmp_path / "small")


COMMAND = [sys.executable, "-m", "undertone.cli", "score", "--text", "said", "--id", "nr"]


def test_a_killed_run_goes_on_to_the_same_bytes(bundle: Path, tmp_path: Path) -> None:
    path = written(tmp_path / "in.csv", given(6000))
    command = [*COMMAND, str(path), "--bundle", str(bundle), "--rows-per-part", "50", "--out"]
    killed = tmp_path / "killed"
    process = subprocess.Popen([*command, str(killed)], stdout=subprocess.DEVNULL)
    while not (killed / "part-00005.parquet").exists():
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    there = {path.name: path.stat().st_mtime_ns for path in killed.glob("part-*.parquet")}
    assert 5 < len(there) < 120
    assert not (killed / MANIFEST).exists()
    (killed / ".part-00099.parquet.0.tmp").write_bytes(b"half")
    done = subprocess.run([*command, str(killed)], capture_output=True, text=True, check=True)
    assert f"; {50 * len(there):,} were there already; 120 parts in" in done.stdout
    assert done.stderr == ""
    assert {name: (killed / name).stat().st_mtime_ns for name in there} == there
    subprocess.run([*command, str(tmp_path / "whole")], capture_output=True, check=True)
    assert contents(killed) == contents(tmp_path / "whole")


def test_a_damaged_part_is_written_again(bundle: Path, tmp_path: Path) -> None:
    path = written(tmp_path / "in.csv", given(40))
    out = tmp_path / "out"
    again = {"text": "said", "rows_per_part": 10}
    score([str(path)], out, bundle, local, **again)
    before = contents(out)
    part = out / "part-00002.parquet"
    for damage in (
        part.read_bytes()[:-1],
        before["part-00003.parquet"],  # of as many rows
        bytes([*before[part.name][:40], before[part.name][40] ^ 1, *before[part.name][41:]]),
    ):
        part.write_bytes(damage)
        (out / "part-00001.parquet").unlink()
        assert "; 20 were there already;" in score([str(path)], out, bundle, local, **again)
        assert contents(out) == before


def test_a_part_in_anothers_place_is_written_again_before_there_is_an_account(
    bundle: Path, tmp_path: Path
) -> None:
    path = written(tmp_path / "in.csv", given(40))
    out = tmp_path / "out"
    again = {"text": "said", "rows_per_part": 10}
    score([str(path)], out, bundle, local, **again)
    before = contents(out)
    (out / MANIFEST).unlink()
    (out / "part-00002.parquet").write_bytes(before["part-00001.parquet"])
    assert "; 30 were there already;" in score([str(path)], out, bundle, local, **again)
    assert contents(out) == before


def test_an_account_that_cant_be_read_vouches_for_no_part(bundle: Path, tmp_path: Path) -> None:
    path = written(tmp_path / "in.csv", given(40))
    out = tmp_path / "out"
    score([str(path)], out, bundle, local, text="said")
    before = contents(out)
    for damage in (b"{}", b"\xff", b'{"parts": [1]}', before[MANIFEST][:-9]):
        (out / MANIFEST).write_bytes(damage)
        assert "already" not in score([str(path)], out, bundle, local, text="said")
        assert contents(out) == before


def test_a_part_that_no_plan_names_is_refused_before_and_after(bundle: Path, tmp_path: Path) -> None:
    path = written(tmp_path / "in.csv", given(4))
    out = tmp_path / "out"
    stray = out / "part-00099.parquet"

    def strewing(work: Work, parts: Sequence[Part], predictor: Predictor) -> Iterator[int]:
        yield from local(work, parts, predictor)
        stray.write_bytes((out / "part-00000.parquet").read_bytes())

    def never(_work: Work, _parts: Sequence[Part], _: Predictor) -> Iterator[int]:
        raise AssertionError("it was refused only after the work")

    for engine in (strewing, never):
        with pytest.raises(Problem, match=r"part-00099.parquet: no part of this work. Remove"):
            score([str(path)], out, bundle, engine, text="said")
        assert not (out / MANIFEST).exists()
        (out / "part-00000.parquet").unlink(missing_ok=True)
    stray.unlink()
    assert score([str(path)], out, bundle, local, text="said").startswith("4 rows")


def test_an_account_stands_only_while_every_row_is_there(bundle: Path, tmp_path: Path) -> None:
    path = written(tmp_path / "in.csv", given(40))
    out = tmp_path / "out"
    again = {"text": "said", "rows_per_part": 10}
    score([str(path)], out, bundle, local, **again)
    before = contents(out)
    (out / "part-00001.parquet").unlink()
    whole = before["part-00002.parquet"]
    (out / "part-00002.parquet").write_bytes(whole.replace(whole[40:42], b"\0\0", 1))

    def stopped(_work: Work, parts: Sequence[Part], _: Predictor) -> Iterator[int]:
        assert [part.number for part in parts] == [1, 2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score([str(path)], out, bundle, stopped, **again)
    assert not (out / MANIFEST).exists()
    score([str(path)], out, bundle, local, **again)
    assert contents(out) == before


def test_a_file_under_several_names_is_scored_once(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    written(Path("in/a.csv"), given(5))
    Path("link.csv").symlink_to("in/a.csv")
    inputs = ["in/a.csv", "in/../in/a.csv", "link.csv", "*/*.csv", "*.csv"]
    score(inputs, Path("out"), bundle, local, text="said")
    assert scored(Path("out"))["id"].tolist() == [f"a.csv:{n}" for n in range(2, 7)]


def test_a_pattern_doesnt_take_the_output_for_input(bundle: Path, tmp_path: Path) -> None:
    written(tmp_path / "in.parquet", given(5))
    out = tmp_path / "out"
    for _ in range(2):
        score([str(tmp_path / "**/*.parquet")], out, bundle, local, text="said")
        assert closing(out)["rows"] == 5


def test_a_text_without_an_answer_is_an_error(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    release(bundle, encoder="0")
    graph = onnx.load(bundle / "model.onnx")
    weights = np.array([[np.nan, np.nan], [4, 0]], np.float32)  # of the words bad and good
    graph.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weights, "weights"))
    onnx.save(graph, bundle / "model.onnx")
    seal(bundle, read_manifest(bundle))
    path = written(tmp_path / "in.csv", given(10))
    out = tmp_path / "out"
    told = score([str(path)], out, bundle, local, text="said")
    assert told.startswith("10 rows → 1 scored, 9 not (2 empty, 7 no_answer);")
    table = scored(out)
    unanswered = table[table["error"] == "no_answer"]
    assert unanswered[["labels", "yes", "no"]].isna().all(axis=None)
    assert not unanswered["abstained"].any()


def test_a_file_with_another_separator_is_scored_once_it_is_named(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text('nr;said\n1;good\n2;"bad; bad"\n')
    out = tmp_path / "out"
    with pytest.raises(Problem, match=r"has no ',', but has ';'.* Set --delimiter ';'\."):
        score([str(path)], out, bundle, local, text="said")
    assert not out.exists()
    score([str(path)], out, bundle, local, text="said", delimiter=";")
    assert scored(out)["labels"].tolist() == ["yes", "no"]


def test_of_several_sheets_one_is_scored(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "in.xlsx"
    with pd.ExcelWriter(path) as book:
        for name, text in (("one", "good"), ("two", "bad")):
            pd.DataFrame({"said": [text]}).to_excel(book, sheet_name=name, index=False)
    out = tmp_path / "out"
    with pytest.raises(Problem, match=r"several sheets: one, two.* Name one with --sheet"):
        score([str(path)], out, bundle, local, text="said")
    with pytest.raises(Problem, match="no sheet 'three'"):
        score([str(path)], out, bundle, local, text="said", sheet="three")
    score([str(path)], out, bundle, local, text="said", sheet="two")
    assert scored(out)["labels"].tolist() == ["no"]
    with pytest.raises(Problem, match="was begun with another --sheet"):
        score([str(path)], out, bundle, local, text="said", sheet="one")


def test_other_work_is_not_mixed_in(bundle: Path, tmp_path: Path) -> None:
    path = written(tmp_path / "in.csv", given(40))
    out = tmp_path / "out"
    score([str(path)], out, bundle, local, text="said")
    before = contents(out)
    other = tmp_path / "bundle"
    release(other, encoder="1")
    with pytest.raises(Problem, match="was begun with another bundle"):
        score([str(path)], out, other, local, text="said")
    with pytest.raises(Problem, match="was begun with another --rows-per-part"):
        score([str(path)], out, bundle, local, text="said", rows_per_part=7)
    written(path, given(41))
    with pytest.raises(Problem, match="was begun with another set of inputs"):
        score([str(path)], out, bundle, local, text="said")
    assert contents(out) == before
    with pytest.raises(Problem, match="holds something else"):
        score([str(path)], tmp_path, bundle, local, text="said")
    written(path, given(40))
    for plan in ("{}", "[]", "{", '{"bundle": {"variant": null}}', '{"bundle": {"variant": "fp32"}}'):
        (out / PLAN).write_text(plan)
        with pytest.raises(Problem, match=r"Name another folder, or remove this one\.$"):
            score([str(path)], out, bundle, local, text="said")


def test_two_runs_dont_write_to_one_folder(bundle: Path, tmp_path: Path) -> None:
    path = written(tmp_path / "in.csv", given(4))
    out = tmp_path / "out"
    out.mkdir()
    handle = os.open(out, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(Problem, match="another run is writing there"):
        score([str(path)], out, bundle, local, text="said")
    os.close(handle)
    score([str(path)], out, bundle, local, text="said")


def test_a_lost_part_or_a_changed_file_is_no_success(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "in.csv"

    def forgetful(work: Work, parts: Sequence[Part], predictor: Predictor) -> Iterator[int]:
        return local(work, parts[:-1], predictor)

    def early(work: Work, parts: Sequence[Part], predictor: Predictor) -> Iterator[int]:
        written(path, given(41))
        return local(work, parts, predictor)

    def late(work: Work, parts: Sequence[Part], predictor: Predictor) -> Iterator[int]:
        yield from local(work, parts, predictor)
        written(path, given(41))

    changed = "changed while it was scored"
    for engine, told in ((forgetful, "missing, or not whole"), (early, changed), (late, changed)):
        written(path, given(40))
        out = tmp_path / engine.__name__
        with pytest.raises(Problem, match=told):
            score([str(path)], out, bundle, engine, text="said", rows_per_part=10)
        assert not (out / MANIFEST).exists()


def test_another_bundle_in_the_same_place_is_refused(bundle: Path, tmp_path: Path) -> None:
    given_ = Work((), tmp_path, bundle, read_manifest(bundle)["digest"], "fp32")
    assert given_.predictor(threads=1).variant == "fp32"
    with pytest.raises(Problem, match="another bundle than the one it was begun with"):
        replace(given_, digest="0").predictor(threads=1)


MEASURED = r"""
import re, sys
from pathlib import Path
from undertone.deployment.scoring import local, score
path, out, bundle = map(Path, sys.argv[1:])
score([str(path)], out, bundle, local, rows_per_part=1000, id_="nr", threads=1)
told = Path("/proc/self/status").read_text()  # getrusage would tell the peak of who started it
print(re.search(r"VmHWM:\s+(\d+) kB", told)[1])
"""


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_memory_doesnt_grow_with_the_rows(kind: str, bundle: Path, tmp_path: Path) -> None:
    peaks = {}
    for count in (2_500, 10_000):  # 25 MB; one word each, as words take time and no memory
        path = tmp_path / f"{count}.{kind}"
        frame = pd.DataFrame({"nr": range(count), "text": "good" * 625})
        frame.to_csv(path, index=False) if kind == "csv" else frame.to_parquet(path)
        given = [str(path), str(tmp_path / f"{count}"), str(bundle)]
        done = subprocess.run(
            [sys.executable, "-c", MEASURED, *given], capture_output=True, text=True, check=True
        )
        peaks[count] = int(done.stdout) / 1024
        assert (
            sum(pq.read_metadata(one).num_rows for one in (tmp_path / f"{count}").glob("part-*"))
            == count
        )
    assert peaks[10_000] - peaks[2_500] < 10, peaks
