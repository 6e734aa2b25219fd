"""Each door leaves answer files, or says in one line what is missing and what to do."""

import json
from pathlib import Path

import pytest

from tests.test_request import AWAY, HERE, ballot, codebook, comments, voter, written
from undertone import doors, request
from undertone.errors import Problem
from undertone.params import Endpoint

PATIENCE = Endpoint(poll=0.01, wait=1.0, timeout=1.0, retries=0, rounds=0)


def test_dropped_files_are_taken_whatever_their_names_and_folders(tmp_path: Path) -> None:
    folder, out = tmp_path / "answers" / "private", tmp_path / "out"
    (folder / "retry").mkdir(parents=True)
    out.mkdir()
    (folder / "batch_7 (1).jsonl").write_text('{"custom_id": "1"}')
    (folder / "retry" / "错误.jsonl").write_text('{"custom_id": "2"}')
    (folder / ".batch.jsonl.tmp").write_text("a killed pull")
    (folder / "README.md").write_text("a note")
    assert doors.from_files("private", folder, out) == "2 files"
    assert {path.relative_to(out).as_posix(): path.read_text() for path in out.rglob("*.*")} == {
        "batch_7 (1).jsonl": '{"custom_id": "1"}',
        "retry/错误.jsonl": '{"custom_id": "2"}',
    }


def test_an_empty_folder_says_what_to_send_and_where_to_put_what_comes_back(tmp_path: Path) -> None:
    folder = tmp_path / "answers" / "private"
    with pytest.raises(Problem, match=r"no answers to the requests of 'private'\. Send data/private"):
        doors.from_files("private", folder, tmp_path / "out")
    folder.mkdir(parents=True)
    (tmp_path / "answers" / "batch.jsonl").write_text("{}")
    with pytest.raises(Problem, match="1 lie in the folder above"):
        doors.from_files("private", folder, tmp_path / "out")


def test_a_half_written_file_is_named_where_it_lies(tmp_path: Path) -> None:
    folder, out = tmp_path / "private", tmp_path / "out"
    folder.mkdir()
    (folder / "half.jsonl").write_text('{"custom_id": "1"}\n{"custom_id": "secr')
    with pytest.raises(Problem, match=r"private/half\.jsonl, line 2: not a line of JSON"):
        doors.from_files("private", folder, out)


def test_what_is_submitted_stays_on_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".dvc").mkdir()
    monkeypatch.chdir(tmp_path)
    for model in ("m", "m", "n"):
        one = ballot(model=model, provider="away")
        plans = request.plan(comments(2), [one], {"away": AWAY}, {}, "endpoint")
        request.write(comments(2), [one], {"away": AWAY}, plans, tmp_path / "requests")
        doors._note(json.loads((tmp_path / "requests" / "egress.json").read_text("utf-8")), "private")
    lines = (tmp_path / doors.STATE / "egress.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["model"] for line in lines] == ["m", "n"]
    assert {json.loads(line)["source"] for line in lines} == {"private"}


def test_a_file_of_another_kind_is_named(tmp_path: Path) -> None:
    (tmp_path / "batch.zip").write_text("{}")
    with pytest.raises(Problem, match=r"1 files are no \.jsonl, the first is batch\.zip"):
        doors.from_files("private", tmp_path, tmp_path / "out")


def test_nothing_is_sent_to_a_provider_that_may_not_read_the_source(tmp_path: Path) -> None:
    voters = {"v": voter(provider="away")}
    with pytest.raises(Problem, match=r"away may not read the comments of 'private'.*may_read"):
        doors.from_endpoint("private", tmp_path, voters, {"away": AWAY}, PATIENCE, tmp_path, tmp_path)


def test_simulated_voters_answer_only_about_the_standin(tmp_path: Path) -> None:
    requests = written(tmp_path / "requests", comments(3), ballot(), provider=HERE)
    with pytest.raises(Problem, match="simulated voters answer only about the stand-in"):
        doors.from_simulation(
            "private", requests, {"v": voter()}, comments(3), codebook(), 0, tmp_path / "out"
        )


def test_without_voters_the_folder_is_not_empty(tmp_path: Path) -> None:
    assert doors.nobody(tmp_path) == "no voters"
    assert list(tmp_path.iterdir())
