"""The row ledger."""

from pathlib import Path

import pytest

from undertone.errors import Problem
from undertone.files import write_json
from undertone.ledger import Ledger


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
    with pytest.raises(Problem):
        Ledger.load(tmp_path / "clean.json")


def test_another_json_file_is_no_ledger(tmp_path: Path) -> None:
    write_json(tmp_path / "clean.json", {"stage": "clean", "in": 3})
    with pytest.raises(Problem, match="not a row ledger"):
        Ledger.load(tmp_path / "clean.json")
