"""What a batch service does wrong costs nothing twice, and none of its words come out."""

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import faulty_server as faulty
from tests.faulty_server import CONTENT, CREATE, KEY, LIST, POLL, UPLOAD, Fault, FaultyServer, Plan
from undertone import params
from undertone.errors import Problem
from undertone.voters import endpoint

NAME = "FAULTY_KEY"
SECRET = "a comment that must stay unseen"
ANSWER = "an answer that must stay unseen"
OPEN: dict[str, Any] = {"allowed": {"127.0.0.1"}, "note": lambda *_: None}
SHARED: dict[str, Any] = {"lines": 100, "bytes": 10_000, "may_read": []}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyServer]:
    monkeypatch.setenv(NAME, KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.01)
    monkeypatch.setattr(endpoint, "FIRST_PAUSE", 0.01)
    # the world's certificates, 40 ms a client, are of no use to plain HTTP
    monkeypatch.setattr("ssl.SSLContext.load_verify_locations", lambda *_, **__: None)
    with FaultyServer() as server:
        yield server


def provider(server: FaultyServer, **changed: Any) -> params.Provider:
    return params.Provider(**{"url": server.url, "key": NAME, **SHARED, **changed})


def settings(**changed: Any) -> params.Endpoint:
    own = {"poll": 0.002, "wait": 20.0, "timeout": 5.0, "retries": 3, "rounds": 2, **changed}
    return params.Endpoint(**own)


def shard(folder: Path, *ids: str, name: str = "s-000.jsonl", text: str = SECRET) -> Path:
    folder.mkdir(exist_ok=True)
    body = {"model": "m", "messages": [{"role": "user", "content": text}]}
    lines = [
        {"custom_id": one, "method": "POST", "url": "/v1/chat/completions", "body": body} for one in ids
    ]
    path = folder / name
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return path


def asked(server: FaultyServer, folder: Path, *shards: Path, **changed: Any) -> str:
    (folder / "out").mkdir(exist_ok=True, parents=True)
    where = {"state": folder / "state", "before": folder / "before", "out": folder / "out"}
    return endpoint.answers({"v": (shards, provider(server))}, settings(**changed), **OPEN, **where)


def came(folder: Path) -> dict[str, list[str]]:
    """File → the custom_ids of its lines."""
    return {
        path.name: [json.loads(line)["custom_id"] for line in path.read_text("utf-8").splitlines()]
        for path in sorted((folder / "out").iterdir())
    }


def test_what_comes_back_is_kept_byte_for_byte(server: FaultyServer, tmp_path: Path) -> None:
    told = asked(server, tmp_path, shard(tmp_path, "a", "b"), shard(tmp_path, "c", name="s-001.jsonl"))
    assert came(tmp_path) == {"s-000.0.output.jsonl": ["a", "b"], "s-001.0.output.jsonl": ["c"]}
    assert (tmp_path / "out" / "s-001.0.output.jsonl").read_bytes() in server.files.values()
    assert told == "v: 3 asked in 2 batches → 3 answered, 0 only errors, 0 without an answer"


def test_every_state_of_a_batch_is_waited_through(server: FaultyServer, tmp_path: Path) -> None:
    server.plans = [Plan(("validating", "in_progress", "news", "finalizing", "completed"))]
    asked(server, tmp_path, shard(tmp_path, "a"))
    assert server.calls[POLL] == 5


def test_a_batch_says_whose_it_is(server: FaultyServer, tmp_path: Path) -> None:
    path = shard(tmp_path, "a")
    asked(server, tmp_path, path)
    (batch,) = server.batches.values()
    digest = endpoint.sha256(path)
    assert batch["metadata"] == {"sha256": digest, "voter": "v", "round": "0"}
    assert batch["endpoint"] == "/v1/chat/completions"
    assert batch["completion_window"] == "24h"


def test_a_second_call_asks_nobody(server: FaultyServer, tmp_path: Path) -> None:
    path = shard(tmp_path, "a")
    told = asked(server, tmp_path, path)
    before, calls = came(tmp_path), server.calls.total()
    for file in (tmp_path / "out").iterdir():
        file.unlink()
    assert asked(server, tmp_path, path) == told
    assert came(tmp_path) == before
    assert server.calls.total() == calls


def test_an_edited_shard_is_a_new_job(server: FaultyServer, tmp_path: Path) -> None:
    asked(server, tmp_path, shard(tmp_path, "a"))
    asked(server, tmp_path, shard(tmp_path, "b"))
    assert [server.asked(0), server.asked(1)] == [["a"], ["b"]]


def test_another_voter_with_the_same_requests_is_asked_too(server: FaultyServer, tmp_path: Path) -> None:
    path = shard(tmp_path, "a")
    asked(server, tmp_path, path)
    where = {"state": tmp_path / "state", "before": tmp_path / "before", "out": tmp_path / "out"}
    endpoint.answers({"w": ([path], provider(server))}, settings(), **OPEN, **where)
    assert len(server.batches) == 2


def test_what_failed_is_asked_again_and_no_more_than_told(server: FaultyServer, tmp_path: Path) -> None:
    server.plans = [
        Plan(
            output=lambda _: [faulty.answer("a"), faulty.error("b", ANSWER, 429)],
            errors=lambda _: [faulty.error("c", ANSWER, None)],
        ),
        Plan(output=lambda _: [faulty.answer("c")]),
        Plan(output=lambda _: [faulty.error("b", ANSWER)]),
    ]
    told = asked(server, tmp_path, shard(tmp_path, "a", "b", "c", "d"), rounds=2)
    assert [server.asked(number) for number in range(3)] == [
        ["a", "b", "c", "d"],
        ["b", "c", "d"],
        ["b", "d"],
    ]
    assert len(server.batches) == 3
    assert told == "v: 4 asked in 3 batches → 2 answered, 1 only errors, 1 without an answer"
    assert came(tmp_path)["s-000.0.errors.jsonl"] == ["c"]
    assert came(tmp_path)["s-000.2.output.jsonl"] == ["b"]


def test_without_rounds_what_failed_stays_so(server: FaultyServer, tmp_path: Path) -> None:
    server.plans = [Plan(output=lambda _: None, errors=lambda _: [faulty.error("a")])]
    asked(server, tmp_path, shard(tmp_path, "a"), rounds=0)
    assert came(tmp_path) == {"s-000.0.errors.jsonl": ["a"]}


def test_a_batch_without_any_file_is_asked_again(server: FaultyServer, tmp_path: Path) -> None:
    server.plans = [Plan(output=lambda _: None), Plan()]
    asked(server, tmp_path, shard(tmp_path, "a"))
    assert came(tmp_path) == {"s-000.1.output.jsonl": ["a"]}


def test_what_an_expired_batch_did_is_kept_and_the_rest_asked_again(
    server: FaultyServer, tmp_path: Path
) -> None:
    server.plans = [Plan(("in_progress", "expired"), lambda _: [faulty.answer("a")]), Plan()]
    told = asked(server, tmp_path, shard(tmp_path, "a", "b"))
    assert came(tmp_path) == {"s-000.0.output.jsonl": ["a"], "s-000.1.output.jsonl": ["b"]}
    assert "in 2 batches (1 expired) → 2 answered" in told


def test_a_cancelled_batch_is_not_asked_again(server: FaultyServer, tmp_path: Path) -> None:
    server.plans = [Plan(("cancelling", "cancelled"), lambda _: [faulty.answer("a")]), Plan()]
    told = asked(server, tmp_path, shard(tmp_path, "a", "b"))
    assert came(tmp_path) == {"s-000.0.output.jsonl": ["a"]}
    assert "in 1 batches (1 cancelled) → 1 answered, 0 only errors, 1 without" in told


def test_unknown_and_repeated_ids_are_passed_on(server: FaultyServer, tmp_path: Path) -> None:
    lines = ["a", "a", "stranger"]
    server.plans = [Plan(output=lambda _: [faulty.answer(one) for one in lines])]
    told = asked(server, tmp_path, shard(tmp_path, "a"))
    assert came(tmp_path) == {"s-000.0.output.jsonl": lines}
    assert "1 answered, 0 only errors, 0 without" in told


def test_a_bad_status_and_an_error_are_each_no_answer(server: FaultyServer, tmp_path: Path) -> None:
    refused = {**faulty.error("a", status=400), "error": None}
    failed = {**faulty.answer("b"), "error": {"code": "server_error", "message": ""}}
    server.plans = [Plan(output=lambda _: [refused, failed]), Plan()]
    asked(server, tmp_path, shard(tmp_path, "a", "b"))
    assert server.asked(1) == ["a", "b"]


def test_a_stranger_is_no_answer_to_what_was_asked(server: FaultyServer, tmp_path: Path) -> None:
    server.plans = [Plan(output=lambda _: [faulty.answer("stranger")]), Plan()]
    asked(server, tmp_path, shard(tmp_path, "a"))
    assert server.asked(1) == ["a"]


def test_a_failed_batch_names_code_and_line_and_can_be_submitted_again(
    server: FaultyServer, tmp_path: Path
) -> None:
    faults = [
        {"code": "invalid_json_line", "line": 3, "message": SECRET},
        {"code": SECRET, "line": 4, "message": SECRET},
    ]
    server.plans = [Plan(("validating", "failed"), faults=faults), Plan()]
    path = shard(tmp_path, "a")
    with pytest.raises(
        Problem, match=r"s-000.jsonl failed: invalid_json_line \(line 3\), a fault"
    ) as told:
        asked(server, tmp_path, path)
    assert SECRET not in str(told.value)
    asked(server, tmp_path, path)  # a quota that was used up, say
    assert came(tmp_path) == {"s-000.0.output.jsonl": ["a"]}


@pytest.mark.parametrize("route", [UPLOAD, CREATE, POLL, CONTENT])
@pytest.mark.parametrize(
    "fault",
    [
        faulty.refusal(429, "rate_limit", SECRET, Retry_After="0"),
        faulty.refusal(500, "server_error", SECRET),
        faulty.refusal(503, "overloaded", SECRET),
        Fault(),
        Fault(sleep=0.3),
    ],
    ids=["429", "500", "503", "dropped", "timeout"],
)
def test_a_passing_trouble_passes(
    server: FaultyServer, tmp_path: Path, route: str, fault: Fault
) -> None:
    server.faults[route] = [fault, fault]
    asked(server, tmp_path, shard(tmp_path, "a"), timeout=0.15 if fault.sleep else 5.0)
    assert came(tmp_path) == {"s-000.0.output.jsonl": ["a"]}
    assert len(server.batches) == 1
    assert server.calls[route] >= 3


@pytest.mark.parametrize("route", [UPLOAD, CREATE, POLL, CONTENT])
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (faulty.refusal(429, "rate_limit", SECRET), "HTTP 429, rate_limit"),
        (faulty.refusal(503, SECRET, SECRET), r"HTTP 503\)"),
        (Fault(), "can't be reached"),
        (Fault(sleep=0.3), "no answer within 0.1 seconds"),
    ],
    ids=["429", "503", "dropped", "timeout"],
)
def test_a_lasting_trouble_is_one_line_and_the_next_run_goes_on(
    server: FaultyServer, tmp_path: Path, route: str, fault: Fault, said: str
) -> None:
    path = shard(tmp_path, "a")
    server.faults[route] = [fault] * 2
    with pytest.raises(Problem, match=rf"{said}.*dvc repro` again: it goes on") as told:
        asked(server, tmp_path, path, retries=1, timeout=0.1 if fault.sleep else 5.0)
    assert "\n" not in str(told.value)
    assert SECRET not in str(told.value)
    assert not list((tmp_path / "out").iterdir())
    asked(server, tmp_path, path)
    assert came(tmp_path) == {"s-000.0.output.jsonl": ["a"]}
    assert len(server.batches) == 1


@pytest.mark.parametrize("route", [UPLOAD, CREATE, POLL, CONTENT])
def test_the_pause_that_a_provider_asks_for_is_kept(
    server: FaultyServer, tmp_path: Path, route: str
) -> None:
    server.faults[route] = [faulty.refusal(429, "rate_limit", SECRET, Retry_After="0.3")]
    asked(server, tmp_path, shard(tmp_path, "a"))
    first, second = server.times[route][:2]
    assert second - first >= 0.3


def test_a_pause_too_long_is_left_to_the_next_run(server: FaultyServer, tmp_path: Path) -> None:
    server.faults[CREATE] = [faulty.refusal(429, "rate_limit", SECRET, Retry_After="3600")]
    with pytest.raises(Problem, match="goes on where it was"):
        asked(server, tmp_path, shard(tmp_path, "a"))
    assert server.calls[CREATE] == 1


def test_what_was_answered_in_another_file_is_not_asked_again(
    server: FaultyServer, tmp_path: Path
) -> None:
    """A new comment, or another limit of lines, cuts all the files that follow anew."""
    asked(server, tmp_path / "first", shard(tmp_path, "a", "b", "c"))
    where = {"state": tmp_path / "first" / "state", "before": tmp_path / "none", "out": tmp_path / "out"}
    (tmp_path / "out").mkdir()
    cut = [
        shard(tmp_path, "a", "b", name="v-0001.jsonl"),
        shard(tmp_path, "c", "new", name="v-0002.jsonl"),
    ]
    slashed = provider(server).model_copy(update={"url": f"{server.url}/"})
    told = endpoint.answers({"v": (cut, slashed)}, settings(), **OPEN, **where)
    assert [server.asked(number) for number in range(len(server.batches))] == [["a", "b", "c"], ["new"]]
    assert "4 asked in 1 batches → 4 answered" in told
    given = [
        json.loads(line)["custom_id"]
        for path in (tmp_path / "out").iterdir()
        for line in path.read_text("utf-8").splitlines()
    ]
    assert sorted(given) == ["a", "b", "c", "new"]


def test_a_colleague_with_the_answers_pays_for_nothing(server: FaultyServer, tmp_path: Path) -> None:
    path = shard(tmp_path, "a", "b")
    asked(server, tmp_path / "owner", path)
    before = tmp_path / "owner" / "out"
    (tmp_path / "out").mkdir()
    where = {"state": tmp_path / "fresh", "before": before, "out": tmp_path / "out"}
    endpoint.answers({"v": ([path], provider(server))}, settings(), **OPEN, **where)
    assert server.calls[CREATE] == 1
    assert len((tmp_path / "out" / "s-000.known.jsonl").read_text("utf-8").splitlines()) == 2


def test_an_answer_without_a_status_is_an_answer(server: FaultyServer, tmp_path: Path) -> None:
    def bare(one: str) -> faulty.Line:
        line = faulty.answer(one)
        del line["response"]["status_code"]
        return line

    server.plans = [Plan(output=lambda lines: [bare(one["custom_id"]) for one in lines])]
    told = asked(server, tmp_path, shard(tmp_path, "a", "b"))
    assert "2 answered" in told
    assert server.calls[CREATE] == 1


def test_a_line_that_is_no_request_is_told(server: FaultyServer, tmp_path: Path) -> None:
    one = shard(tmp_path, "a")
    one.write_text('{"custom_id": "a"}\n' + json.dumps({"custom_id": 7, "body": SECRET}))
    with pytest.raises(Problem, match=r"s-000.jsonl, line 2: no request") as told:
        asked(server, tmp_path, one)
    assert SECRET not in str(told.value)
    assert not server.calls


def test_all_voters_are_asked_at_the_same_time(server: FaultyServer, tmp_path: Path) -> None:
    """A batch may take a day: the second voter's must not wait for the first's to end."""
    (tmp_path / "out").mkdir()
    ballots = {
        name: ([shard(tmp_path / "shards", "a", "b", name=f"{name}-0001.jsonl")], provider(server))
        for name in ("v", "w")
    }
    where = {"state": tmp_path / "state", "before": tmp_path / "before", "out": tmp_path / "out"}
    server.faults[POLL] = [faulty.refusal(401, "invalid_api_key", "")]
    with pytest.raises(Problem, match="HTTP 401"):
        endpoint.answers(ballots, settings(), **OPEN, **where)
    assert server.calls[CREATE] == 2
    told = endpoint.answers(ballots, settings(), **OPEN, **where)
    assert [part.partition(":")[0] for part in told.split("; ")] == ["v", "w"]
    assert len(list((tmp_path / "out").iterdir())) == 2
    assert server.calls[CREATE] == 2


@pytest.mark.parametrize(
    "lost",
    [Fault(after=True), Fault(sleep=0.3, after=True), Fault(502, after=True)],
    ids=["dropped", "timeout", "502"],
)
def test_a_batch_whose_reply_was_lost_is_found_and_not_paid_twice(
    server: FaultyServer, tmp_path: Path, lost: Fault
) -> None:
    server.faults[CREATE] = [lost]
    asked(server, tmp_path, shard(tmp_path, "a"), timeout=0.15 if lost.sleep else 5.0)
    assert len(server.batches) == 1
    assert came(tmp_path) == {"s-000.0.output.jsonl": ["a"]}


@pytest.mark.parametrize("hidden", ["metadata", "input_file_id"])
def test_a_batch_is_known_by_its_file_or_its_marks(
    server: FaultyServer, tmp_path: Path, hidden: str
) -> None:
    server.hidden = hidden
    server.faults[CREATE] = [Fault(after=True)]
    asked(server, tmp_path, shard(tmp_path, "a"))
    assert len(server.batches) == 1


@pytest.mark.parametrize("unpaged", [False, True])
def test_the_batch_is_found_among_many(server: FaultyServer, tmp_path: Path, unpaged: bool) -> None:
    server.unpaged = unpaged
    lost, path = shard(tmp_path, "a"), tmp_path / "others"
    server.faults[CREATE] = [Fault(after=True)]
    with pytest.raises(Problem, match="can't be reached"):
        asked(server, tmp_path, lost, retries=0)
    others = [shard(path, f"b{at}", name=f"o-{at}.jsonl") for at in range(5)]
    asked(server, tmp_path, *others)
    asked(server, tmp_path, lost)
    assert len(server.batches) == 6
    server.faults[CREATE] = [Fault()]  # now the list, however it is paged, doesn't hold it
    asked(server, tmp_path, shard(tmp_path, "c", name="last.jsonl"))
    assert server.asked(-1) == ["c"]


def test_a_batch_that_nobody_can_look_up_is_not_created_again(
    server: FaultyServer, tmp_path: Path
) -> None:
    path = shard(tmp_path, "a")
    server.faults = {CREATE: [Fault(after=True)], LIST: [Fault(404)] * 2}
    for _ in range(2):
        with pytest.raises(Problem, match=r"no list of batches.*file-0.*remove the batch.json"):
            asked(server, tmp_path, path, retries=1)
    asked(server, tmp_path, path)
    assert len(server.batches) == 1


def test_a_refused_look_up_forgets_nothing(
    server: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shard(tmp_path, "a")
    server.faults[CREATE] = [Fault(after=True)]
    with pytest.raises(Problem):
        asked(server, tmp_path, path, retries=0)
    monkeypatch.setenv(NAME, "another")
    with pytest.raises(Problem, match="HTTP 401"):
        asked(server, tmp_path, path)
    monkeypatch.setenv(NAME, KEY)
    asked(server, tmp_path, path)
    assert len(server.batches) == 1


def test_a_refused_batch_is_uploaded_anew(server: FaultyServer, tmp_path: Path) -> None:
    path = shard(tmp_path, "a")
    server.faults[CREATE] = [faulty.refusal(400, "invalid_file", SECRET)]
    with pytest.raises(Problem, match=r"no batch created \(HTTP 400, invalid_file\)"):
        asked(server, tmp_path, path)
    asked(server, tmp_path, path)
    assert server.calls[UPLOAD] == 2
    assert len(server.batches) == 1


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (401, "Check the key in FAULTY_KEY"),
        (403, "may not do this"),
        (404, "Check the provider's `url`"),
    ],
)
def test_a_refusal_is_told_at_once_with_its_remedy(
    server: FaultyServer, tmp_path: Path, status: int, remedy: str
) -> None:
    server.faults[UPLOAD] = [faulty.refusal(status, "some_code", SECRET)]
    with pytest.raises(Problem, match=rf"HTTP {status}, some_code\)\. .*{remedy}"):
        asked(server, tmp_path, shard(tmp_path, "a"))
    assert server.calls[UPLOAD] == 1


@pytest.mark.parametrize("key", [None, "", "  ", "sk-a\nb", "sk-é", "sk-a b"])
def test_a_key_that_is_none_is_told_before_anything_leaves(
    server: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str | None
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)  # not the one that the provider names
    if key is None:
        monkeypatch.delenv(NAME)
    else:
        monkeypatch.setenv(NAME, key)
    with pytest.raises(Problem, match=r"FAULTY_KEY holds no key.*export FAULTY_KEY") as told:
        asked(server, tmp_path, shard(tmp_path, "a"))
    assert "sk-" not in str(told.value)
    assert not server.calls


def test_a_provider_without_url_or_key_is_told(server: FaultyServer, tmp_path: Path) -> None:
    where = {"state": tmp_path / "state", "before": tmp_path / "before", "out": tmp_path}
    for changed, fault in (({"url": None}, "has no url"), ({"key": None}, "names no environment")):
        with pytest.raises(Problem, match=fault):
            endpoint.answers({"v": ([], provider(server, **changed))}, settings(), **OPEN, **where)


def test_what_is_no_batch_service_is_told(server: FaultyServer, tmp_path: Path) -> None:
    page = Fault(200, {"Content-Type": "text/html"}, b"<html>welcome</html>")
    for route in (UPLOAD, CREATE, POLL):
        server.faults = {
            route: [page, Fault(200, {}, b"{"), Fault(200, {}, b"{}"), Fault(200, {}, b"[]")]
        }
        for _ in range(4):
            with pytest.raises(Problem, match=r"neither a file nor a batch.*url"):
                asked(server, tmp_path, shard(tmp_path, "a"))
    server.faults = {LIST: [page], CREATE: [Fault(after=True)]}
    with pytest.raises(Problem, match="neither a file nor a batch"):
        asked(server, tmp_path, shard(tmp_path, "b"))


def test_a_batch_that_takes_too_long_is_told_and_waited_for_again(
    server: FaultyServer, tmp_path: Path
) -> None:
    paths = [shard(tmp_path, "a"), shard(tmp_path, "b", name="s-001.jsonl")]
    server.plans = [Plan(), Plan(("in_progress",) * 400 + ("completed",))]
    with pytest.raises(Problem, match=r"1 of 2 batches still run.*in 0.2 seconds.*goes on"):
        asked(server, tmp_path, *paths, wait=0.2)
    server.plans = [Plan()]
    server._plans["batch_1"][1][:] = ["completed"]
    asked(server, tmp_path, *paths)
    assert len(server.batches) == 2
    assert len(came(tmp_path)) == 2


def test_a_file_that_is_cut_off_once_is_downloaded_again(server: FaultyServer, tmp_path: Path) -> None:
    server.faults[CONTENT] = [Fault(cut=True)]
    asked(server, tmp_path, shard(tmp_path, "a", "b"))
    assert came(tmp_path) == {"s-000.0.output.jsonl": ["a", "b"]}
    assert len(server.batches) == 1


def test_a_file_that_is_always_cut_off_is_named_with_its_line(
    server: FaultyServer, tmp_path: Path
) -> None:
    path = shard(tmp_path, "a", "b")
    server.faults[CONTENT] = [Fault(cut=True)] * 3
    with pytest.raises(Problem, match=r"output of s-000.jsonl, round 0, line 2: cut off"):
        asked(server, tmp_path, path)
    asked(server, tmp_path, path)
    assert came(tmp_path) == {"s-000.0.output.jsonl": ["a", "b"]}


def test_a_last_line_without_its_newline_is_whole(server: FaultyServer, tmp_path: Path) -> None:
    server.faults[CONTENT] = [Fault(200, body=json.dumps(faulty.answer("a")).encode())]
    asked(server, tmp_path, shard(tmp_path, "a"))
    assert came(tmp_path) == {"s-000.0.output.jsonl": ["a"]}
    assert server.calls[CONTENT] == 1


def test_answers_that_the_provider_no_longer_has_are_told(server: FaultyServer, tmp_path: Path) -> None:
    server.faults[CONTENT] = [faulty.refusal(404, "not_found", SECRET)]
    with pytest.raises(Problem, match=r"HTTP 404, not_found.*paid again, remove .*state"):
        asked(server, tmp_path, shard(tmp_path, "a"))


def test_siliconflows_ways_are_understood(server: FaultyServer, tmp_path: Path) -> None:
    server.wrapped = True
    server.plans = [Plan(("in_queue", "in_progress", "completed"))]
    asked(server, tmp_path, shard(tmp_path, "a"))
    assert came(tmp_path) == {"s-000.0.output.jsonl": ["a"]}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("route", [UPLOAD, CREATE])
def test_requests_are_not_sent_on_to_another_host(
    server: FaultyServer, tmp_path: Path, route: str, status: int
) -> None:
    """Nor to another port of it, whatever the kind of redirection; and the key stays here."""
    with FaultyServer() as another:
        for host in ("127.0.0.1", "localhost"):
            elsewhere = another.url.replace("127.0.0.1", host) + route.partition(" ")[2]
            server.faults[route] = [Fault(status, {"Location": elsewhere})]
            with pytest.raises(Problem):
                asked(server, tmp_path, shard(tmp_path, "a"))
        assert not another.files
        assert not another.batches
        assert not [headers for headers in another.headers if "authorization" in headers]


def test_answers_are_not_fetched_from_a_host_that_is_not_named(
    server: FaultyServer, tmp_path: Path
) -> None:
    path = shard(tmp_path, "a")
    elsewhere = server.url.replace("127.0.0.1", "localhost") + "/files/file-1/content"
    server.faults[CONTENT] = [Fault(302, {"Location": elsewhere})]
    with pytest.raises(Problem, match=r"answers from localhost, which privacy.allowed_hosts doesn't"):
        asked(server, tmp_path, path)
    assert server.calls[CONTENT] == 1
    asked(server, tmp_path, path)
    assert came(tmp_path) == {"s-000.0.output.jsonl": ["a"]}


def test_nothing_is_connected_to_before_the_host_is_named(server: FaultyServer, tmp_path: Path) -> None:
    told: list[object] = []
    for allowed in ([], ["api.openai.com"], ["localhost", "127.0.0.10"]):
        where = {"state": tmp_path / "state", "before": tmp_path / "before", "out": tmp_path / "out"}
        closed = {"allowed": allowed, "note": lambda *one: told.append(one)}
        ballots = {"v": ([shard(tmp_path, "a")], provider(server))}
        with pytest.raises(
            Problem, match=r"not be sent to 127\.0\.0\.1, .*add 127\.0\.0\.1 to priv"
        ) as line:
            endpoint.answers(ballots, settings(), **closed, **where)
        assert "\n" not in str(line.value)
    assert not told
    assert not server.calls


def test_what_leaves_is_noted_before_it_does(server: FaultyServer, tmp_path: Path) -> None:
    noted: list[tuple[str, list[str], int]] = []

    def note(voter: str, leaving: frozenset[str]) -> None:
        noted.append((voter, sorted(leaving), server.calls[UPLOAD]))

    server.plans = [Plan(output=lambda _: [faulty.answer("a")]), Plan()]
    (tmp_path / "out").mkdir()
    where = {"state": tmp_path / "state", "before": tmp_path / "before", "out": tmp_path / "out"}
    ballots = {"v": ([shard(tmp_path, "a", "b")], provider(server))}
    for _ in range(2):  # the second asks nobody
        endpoint.answers(ballots, settings(), allowed=["127.0.0.1"], note=note, **where)
    assert noted == [("v", ["a", "b"], 0), ("v", ["b"], 1)]


def test_a_proxy_of_the_environment_is_refused_unless_it_is_named(
    server: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = {"url": "https://llm.example.org/v1"}
    where = {"state": tmp_path / "state", "before": tmp_path / "before", "out": tmp_path / "out"}
    ballots = {"v": ([shard(tmp_path, "a")], provider(server, **away))}
    for name in ("HTTPS_PROXY", "all_proxy"):
        with monkeypatch.context() as own, FaultyServer() as proxy:
            own.setenv(name, proxy.url)
            own.setenv("NO_PROXY", "")
            for allowed, said in (
                (["llm.example.org"], r"a proxy at 127\.0\.0\.1, which privacy\.allowed_hosts"),
                (["llm.example.org", "127.0.0.1"], "can't be reached"),  # it takes no CONNECT
            ):
                closed = {"allowed": allowed, "note": lambda *_: None}
                with pytest.raises(Problem, match=said):
                    endpoint.answers(ballots, settings(retries=0), **closed, **where)


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"])
def test_what_goes_to_this_machine_passes_no_proxy(
    server: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A proxy could read it, since it isn't encrypted."""
    monkeypatch.delenv("NO_PROXY")
    with FaultyServer() as proxy:
        monkeypatch.setenv(name, proxy.url)
        asked(server, tmp_path, shard(tmp_path, "a"))
        assert not proxy.headers
    assert came(tmp_path) == {"s-000.0.output.jsonl": ["a"]}


def test_only_the_named_key_and_no_description_of_this_machine_leaves(
    server: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-other")
    monkeypatch.setenv("OPENAI_ADMIN_KEY", "admin-other")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Authorization: Bearer other\nX-Other: other")
    asked(server, tmp_path, shard(tmp_path, "a"))
    assert len(server.headers) >= 5
    for headers in server.headers:
        assert headers["authorization"] == f"Bearer {KEY}"
        assert not [name for name in headers if name.startswith(("x-", "openai-"))]
        assert "other" not in str(headers)


KILLS: dict[str, tuple[str, list[Fault | None]]] = {
    "before the upload": (UPLOAD, [Fault(kill=True)]),
    "after the upload": (UPLOAD, [Fault(kill=True, after=True)]),
    "before the batch": (CREATE, [Fault(kill=True)]),
    "before the batch's reply": (CREATE, [Fault(kill=True, after=True)]),
    "at the first poll": (POLL, [Fault(kill=True)]),
    "before the last poll's reply": (POLL, [None, Fault(kill=True, after=True)]),
    "in the first download": (CONTENT, [Fault(kill=True, cut=True)]),
    "between the downloads": (CONTENT, [None, Fault(kill=True)]),
}
SCRIPT = """
import sys, json
from pathlib import Path
from undertone import params
from undertone.voters import endpoint
own = json.loads(sys.argv[1])
ballots = {"v": ([Path(own["shard"])], params.Provider(**own["provider"]))}
print(endpoint.answers(ballots, params.Endpoint(**own["settings"]),
      allowed={"127.0.0.1"}, note=lambda *_: None,
      state=Path(own["state"]), before=Path(own["state"]) / "none", out=Path(own["out"])))
"""


def killed(server: FaultyServer, folder: Path, path: Path) -> subprocess.CompletedProcess[str]:
    """`asked` in a process of its own; killed where the server's faults have it."""
    (folder / "out").mkdir(exist_ok=True)
    own = {
        "shard": str(path),
        "provider": provider(server).model_dump(),
        "settings": settings().model_dump(),
        "state": str(folder / "state"),
        "out": str(folder / "out"),
    }
    server.victim = 0
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, json.dumps(own)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        server.victim = process.pid
        out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess([], process.returncode, out, err)


@pytest.mark.parametrize("point", KILLS)
def test_a_killed_run_pays_for_nothing_twice(server: FaultyServer, tmp_path: Path, point: str) -> None:
    def half(_: object) -> list[faulty.Line]:
        return [faulty.answer("a")]

    def other(_: object) -> list[faulty.Line]:
        return [faulty.error("b")]

    server.plans = [Plan(output=half, errors=other), Plan()]
    path = shard(tmp_path, "a", "b")
    (tmp_path / "unbroken").mkdir()
    asked(server, tmp_path / "unbroken", path)
    expected = {p.name: p.read_bytes() for p in (tmp_path / "unbroken" / "out").iterdir()}
    assert len(expected) == 3

    with FaultyServer(*server.plans) as fresh:
        route, faults = KILLS[point]
        fresh.faults[route] = list(faults)
        done = killed(fresh, tmp_path, path)
        assert done.returncode == -9, done.stderr
        assert not list((tmp_path / "out").iterdir())
        asked(fresh, tmp_path, path)
        assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == expected
        assert [fresh.asked(at) for at in range(len(fresh.batches))] == [["a", "b"], ["b"]]
        assert set(fresh.downloads.values()) == {1}


def test_no_key_and_no_text_comes_out(
    server: FaultyServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("OPENAI_LOG", "debug")
    caplog.set_level(logging.DEBUG)
    for name in ("openai", "httpx2", "httpcore2"):
        caplog.set_level(logging.DEBUG, logger=name)
    server.plans = [
        Plan(
            output=lambda _: [faulty.answer("a", ANSWER)],
            errors=lambda _: [faulty.error("b", SECRET, 400)],
        )
    ]
    said: list[str] = []
    path = shard(tmp_path, "a", "b")
    for route in (UPLOAD, CREATE, POLL, CONTENT):
        for fault in (
            faulty.refusal(400, SECRET, f"{SECRET} {KEY}"),
            faulty.refusal(500, KEY + SECRET, f"{SECRET} {KEY}"),
            Fault(),
        ):
            server.faults = {route: [fault]}
            with pytest.raises(Problem) as told:
                asked(server, tmp_path, path, retries=0)
            said.append(str(told.value))
    said.append(asked(server, tmp_path, path))
    assert not caplog.records
    server.victim = 0
    done = killed(
        server, tmp_path / "other", shard(tmp_path / "other", "a", "b")
    )  # OPENAI_LOG works on import
    assert done.returncode == 0
    assert "2 asked in 3 batches" in done.stdout
    said += [done.stdout, done.stderr, caplog.text, *capfd.readouterr()]
    assert done.stderr == ""
    for text in said:
        assert SECRET not in text
        assert ANSWER not in text
        assert KEY not in text
    records = [file for file in (tmp_path / "state").rglob("*") if file.is_file()]
    assert len(records) == 9
    for file in records:
        content = file.read_text("utf-8")
        assert KEY not in content
        assert file.name in ("output.jsonl", "errors.jsonl") or SECRET not in content


def test_others_may_log_again_afterwards(server: FaultyServer, tmp_path: Path) -> None:
    asked(server, tmp_path, shard(tmp_path, "a"))
    assert logging.getLogger("any").isEnabledFor(logging.WARNING)
