"""Each door leaves answer files, or says in one line what is missing and what to do."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from tests.faulty_server import KEY, FaultyServer
from tests.test_request import AWAY, HERE, ballot, codebook, comments, voter, written
from undertone.errors import Problem
from undertone.params import Endpoint
from undertone.voters import doors, request

PATIENCE = Endpoint(poll=0.01, wait=60.0, timeout=20.0, retries=0, rounds=0)


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


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AWAY_KEY", KEY)
    return tmp_path


def submitted(place: Path, server: FaultyServer, model: str = "m", allowed: str = "127.0.0.1") -> None:
    provider = AWAY.model_copy(update={"url": server.url, "key": "AWAY_KEY", "may_read": ["private"]})
    one = ballot(model=model, provider="away")
    plans = request.plan(comments(3), [one], {"away": provider}, {}, "endpoint")
    request.write(comments(3), [one], {"away": provider}, plans, place / "requests")
    own = {"v": voter(model=model, provider="away")}
    folders = (place / "before", place / "sent.json", place / "out")
    doors.from_endpoint(
        "private", place / "requests", own, {"away": provider}, PATIENCE, [allowed], *folders
    )


def test_what_is_submitted_is_recorded_with_its_ids_here_and_without_them_in_the_summary(
    place: Path,
) -> None:
    with FaultyServer() as server:
        for model in ("m", "m", "n"):  # the second time nobody is asked
            submitted(place, server, model)
    record = (place / doors.STATE / doors.RECORD).read_bytes()
    lines = [json.loads(line) for line in record.splitlines()]
    assert [line["model"] for line in lines] == ["m", "n"]
    for line in lines:
        assert (line["source"], line["voter"], line["host"]) == ("private", "v", "127.0.0.1")
        assert line["ids"] == comments(3)["id"].tolist()
    entries = json.loads((place / "sent.json").read_text("utf-8"))["sent"]
    assert [(one["model"], one["uploads"], one["comments"]) for one in entries] == [
        ("m", 1, 3),
        ("n", 1, 3),
    ]
    assert entries[0]["first"] == lines[0]["at"][:10]
    digest = hashlib.sha256(record.splitlines()[1]).hexdigest()
    assert entries[1]["record_sha256"] == digest
    told = (place / "sent.json").read_text("utf-8")
    assert "user-" not in told
    assert "text" not in told


def test_the_parents_in_a_request_are_recorded_one_by_one_and_apart_from_what_voters_read(
    place: Path,
) -> None:
    own, generated = place / "sent.json", place / "sent_generate.json"
    made = comments(2).assign(id=["r1;r2", "r1;r3"])
    with FaultyServer() as server:
        submitted(place, server)
        before = own.read_bytes()
        provider = AWAY.model_copy(
            update={"url": server.url, "key": "AWAY_KEY", "may_read": ["private"]}
        )
        one = ballot("writer", model="m", provider="away")
        plans = request.plan(made, [one], {"away": provider}, {}, "endpoint")
        request.write(made, [one], {"away": provider}, plans, place / "prompts")
        doors.from_endpoint(
            "private",
            place / "prompts",
            {"writer": one.settings},
            {"away": provider},
            PATIENCE,
            ["127.0.0.1"],
            place / "before",
            generated,
            place / "out",
            stage="generate",
            joined=";",
        )
    record = (place / doors.STATE / doors.RECORD).read_bytes()
    first, second = map(json.loads, record.splitlines())
    assert (first["stage"], second["stage"]) == ("answer", "generate")
    assert second["ids"] == ["r1", "r1", "r2", "r3"]
    (entry,) = json.loads(generated.read_bytes())["sent"]
    assert (entry["voter"], entry["requests"], entry["comments"]) == ("writer", 2, 3)
    doors.summarise("private", own)
    assert own.read_bytes() == before


@pytest.mark.parametrize("cut", [b'{"source": "priv', b"\0\0\0\0"])
def test_a_line_that_was_cut_off_before_anything_left_does_not_count(place: Path, cut: bytes) -> None:
    record, sent = place / doors.STATE / doors.RECORD, place / "sent.json"
    record.parent.mkdir(parents=True)
    record.write_bytes(cut)
    doors.summarise("another", sent)
    assert json.loads(sent.read_bytes()) == {"sent": []}
    with FaultyServer() as server:
        submitted(place, server)
        first = sent.read_bytes()
        with record.open("ab") as file:
            file.write(cut)
        doors.summarise("private", sent)
        assert sent.read_bytes() == first
        submitted(place, server, "n")
    assert [one["model"] for one in json.loads(sent.read_bytes())["sent"]] == ["m", "n"]
    assert [json.loads(line)["model"] for line in record.read_bytes().splitlines()] == ["m", "n"]


@pytest.mark.parametrize("line", [b"{", b"[]", b'{"source": "private"}', b"\0\xff"])
def test_a_damaged_record_is_one_line_that_names_it(place: Path, line: bytes) -> None:
    with FaultyServer() as server:
        submitted(place, server)
    with (place / doors.STATE / doors.RECORD).open("ab") as file:
        file.write(line + b"\n")
    with pytest.raises(Problem, match=r"data/\.batches/sent\.jsonl, line 2: not a line of this record"):
        doors.summarise("another", place / "another.json")


def test_the_summary_keeps_what_other_clones_sent_and_is_the_same_again(place: Path) -> None:
    sent = place / "sent.json"
    with FaultyServer() as server:
        submitted(place, server)
        before = sent.read_bytes()
        doors.summarise("private", sent)
        assert sent.read_bytes() == before
        shutil.rmtree(place / doors.STATE)  # a fresh clone: git brings the summary alone
        doors.summarise("private", sent)
        assert sent.read_bytes() == before
        submitted(place, server, "n")
    assert [one["model"] for one in json.loads(sent.read_bytes())["sent"]] == ["m", "n"]
    doors.summarise("another", place / "another.json")
    assert json.loads((place / "another.json").read_bytes()) == {"sent": []}


def test_a_host_that_is_not_named_gets_nothing_and_nothing_is_recorded(place: Path) -> None:
    with FaultyServer() as server:
        with pytest.raises(Problem, match=r"127\.0\.0\.1, which privacy\.allowed_hosts doesn't name"):
            submitted(place, server, allowed="api.example.org")
        assert not server.calls
    assert not (place / doors.STATE / doors.RECORD).exists()
    assert not (place / "sent.json").exists()


def test_a_file_of_another_kind_is_named(tmp_path: Path) -> None:
    (tmp_path / "batch.zip").write_text("{}")
    with pytest.raises(Problem, match=r"1 files are no \.jsonl, the first is batch\.zip"):
        doors.from_files("private", tmp_path, tmp_path / "out")


def test_nothing_is_sent_to_a_provider_that_may_not_read_the_source(tmp_path: Path) -> None:
    voters = {"v": voter(provider="away")}
    with pytest.raises(Problem, match=r"away may not read the comments of 'private'.*may_read"):
        doors.from_endpoint("private", tmp_path, voters, {"away": AWAY}, PATIENCE, [], *[tmp_path] * 3)


def test_simulated_voters_answer_only_about_the_standin(tmp_path: Path) -> None:
    requests = written(tmp_path / "requests", comments(3), ballot(), provider=HERE)
    with pytest.raises(Problem, match="simulated voters answer only about the stand-in"):
        doors.from_simulation(
            "private", requests, {"v": voter()}, comments(3), codebook(), 0, tmp_path / "out"
        )


def test_without_voters_the_folder_is_not_empty(tmp_path: Path) -> None:
    assert doors.nobody(tmp_path) == "nobody is asked"
    assert list(tmp_path.iterdir())
