"""The row ledger."""

from pathlib import Path

import pytest

from undertone.corpus.ledger import STAGES, VOTED, Ledger, begun, chain, told
from undertone.errors import Problem
from undertone.files import write_json


def test_a_ledger_is_read_as_it_was_written(tmp_path: Path) -> None:
    ledger = Ledger("clean", 100, 97, {"empty": 3})
    ledger.save(tmp_path / "clean.json")
    assert Ledger.load(tmp_path / "clean.json") == ledger


def test_a_ledger_that_does_not_add_up_is_refused() -> None:
    with pytest.raises(Problem, match="100 rows in, but 98 out and 3 dropped"):
        Ledger("clean", 100, 98, {"empty": 3})


def test_a_negative_count_is_refused_even_where_the_sum_fits() -> None:
    with pytest.raises(Problem):
        Ledger("clean", 1, 2, {"empty": -1})


def test_a_stage_that_drops_nothing_has_an_empty_list_of_reasons(tmp_path: Path) -> None:
    Ledger("clean", 5, 5, {"empty": 0}).save(tmp_path / "clean.json")
    assert Ledger.load(tmp_path / "clean.json").dropped == {}


def test_a_changed_ledger_file_is_refused_when_read(tmp_path: Path) -> None:
    write_json(tmp_path / "clean.json", {"stage": "clean", "in": 3, "out": 1, "dropped": {}})
    with pytest.raises(Problem, match=r"clean.json: .*3 rows in, but 1 out.*dvc repro"):
        Ledger.load(tmp_path / "clean.json")


@pytest.mark.parametrize("content", ['{"stage": "clean", "in": 3}', '{"stage": "cl', "[1]", ""])
def test_another_or_half_a_file_is_no_ledger(tmp_path: Path, content: str) -> None:
    (tmp_path / "clean.json").write_text(content)
    with pytest.raises(Problem, match=r"not a row ledger|not readable as JSON"):
        Ledger.load(tmp_path / "clean.json")


def saved(folder: Path, **changes: Ledger) -> Path:
    """A folder with all stages' ledgers: 1,203 rows in the files, 1,150 in the split."""
    counts = {
        "ingest": Ledger("ingest", 1203, 1200, {"blank": 1, "date": 2}),
        "clean": Ledger("clean", 1200, 1190, {"empty": 10}),
        "label": Ledger("label", 1190, 1160, {"no vote": 30}),
        "split": Ledger("split", 1160, 1150, {"repeats a test row": 10}),
    }
    rest = {stage: Ledger(stage, 1190, 1190) for stage in STAGES if stage not in counts}
    for stage, ledger in (counts | rest | changes).items():
        ledger.save(folder / f"{stage}.json")
    return folder


def test_the_chain_goes_from_the_files_to_the_split(tmp_path: Path) -> None:
    ledgers = chain(saved(tmp_path))
    assert " ".join(one.stage for one in ledgers) == "ingest clean request collect fuse label split"
    gone = sum(sum(one.dropped.values()) for one in ledgers)
    assert ledgers[0].rows_in == ledgers[-1].rows_out + gone


@pytest.mark.parametrize("stage", STAGES)
def test_a_missing_ledger_is_named(stage: str, tmp_path: Path) -> None:
    (saved(tmp_path) / f"{stage}.json").unlink()
    with pytest.raises(Problem, match=rf"{stage}.json: no such file.*dvc repro"):
        chain(tmp_path)


def test_before_the_split_the_stages_that_ran_are_shown(tmp_path: Path) -> None:
    saved(tmp_path)
    for stage in ("fuse", "label", "split"):
        (tmp_path / f"{stage}.json").unlink()
    lines = told(begun(tmp_path)).splitlines()
    assert lines[-2:] == [
        "not run yet: fuse, label, split",
        "from 1,203 rows in the files to 1,190 left by collect",
    ]
    with pytest.raises(Problem, match=r"ingest\.json: no such file"):
        begun(tmp_path / "nowhere")


def test_rows_lost_between_two_stages_are_told(tmp_path: Path) -> None:
    saved(tmp_path, fuse=Ledger("fuse", 1189, 1189))
    with pytest.raises(Problem, match=r"collect left 1190 rows, fuse was given 1189.*dvc repro"):
        chain(tmp_path)


def test_the_ledger_of_another_stage_is_refused(tmp_path: Path) -> None:
    saved(tmp_path, fuse=Ledger("collect", 1190, 1190))
    with pytest.raises(Problem, match=r"fuse.json: the ledger of 'collect', not of 'fuse'"):
        chain(tmp_path)


def test_the_chain_is_told_in_aligned_columns(tmp_path: Path) -> None:
    lines = told(chain(saved(tmp_path))).splitlines()
    assert lines[0] == "stage    rows in  rows out  dropped"
    assert lines[1] == "ingest     1,203     1,200  blank 1, date 2"
    assert lines[3] == "request    1,190     1,190"
    assert lines[-1] == "from 1,203 rows in the files to 1,150 left by split"
    assert len(lines) == len(STAGES) + 2


def test_where_nobody_votes_the_stages_of_the_voters_are_left_out(tmp_path: Path) -> None:
    lines = told(chain(saved(tmp_path)), VOTED).splitlines()
    shown = [line.split()[0] for line in lines[1:-1]]
    assert shown == ["ingest", "clean", "label", "split"]
    assert "request" in told([Ledger("request", 1190, 1189, {"not asked": 1})], VOTED)
