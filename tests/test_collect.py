"""Every request ends in exactly one outcome, whatever comes back, in whatever order."""

import json
import random
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.test_request import ballot, codebook, comments, voter, written
from undertone.corpus.ledger import Ledger
from undertone.errors import Problem
from undertone.params import Collect
from undertone.voters import collect, request
from undertone.voters.collect import OUTCOMES

VOTERS = {"v": voter(), "w": voter(definitions=False)}


BODY = {"created": 1_735_732_800, "choices": [{"message": {"content": "[1]"}}]}

UNDATED = {**BODY, "created": 0}


def cut(custom_id: str, content: str) -> dict:
    return ok(custom_id, content, finish="length")


def ok(custom_id: str, content: object, finish: str = "stop", **message: object) -> dict:
    choice = {"message": {"role": "assistant", "content": content, **message}, "finish_reason": finish}
    body = {"created": 1_735_732_800, "choices": [choice]}
    return {"custom_id": custom_id, "response": {"status_code": 200, "body": body}, "error": None}


def error(custom_id: str) -> dict:
    return {"custom_id": custom_id, "response": None, "error": {"code": "batch_expired", "message": "m"}}


def dropped(folder: Path, *records: dict, name: str = "a.jsonl") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("".join(json.dumps(one) + "\n" for one in records), "utf-8")
    return folder


@pytest.fixture
def asked(tmp_path: Path) -> pd.DataFrame:
    folder = written(tmp_path / "requests", comments(4), ballot("v"), ballot("w", definitions=False))
    return pd.read_parquet(folder / "asked.parquet")


def ids(asked: pd.DataFrame, name: str = "v") -> list[str]:
    return asked.loc[asked["voter"] == name, "custom_id"].tolist()


def outcomes(found: collect.Collected, name: str = "v") -> list[str]:
    return found.votes.loc[found.votes["voter"] == name, "outcome"].tolist()


@pytest.mark.parametrize(
    ("records", "outcome"),
    [
        ([], "missing"),
        ([ok("?", "[1]")], "ok"),
        ([ok("?", "[1]"), ok("?", "1")], "ok"),
        ([ok("?", "[1]"), ok("?", "[0]")], "duplicate"),
        ([ok("?", "[1]"), ok("?", "who knows")], "ok"),
        ([ok("?", "I cannot assist with this request."), ok("?", "[1]")], "ok"),
        ([ok("?", "hmm"), ok("?", "hmm")], "unparsable"),
        ([error("?"), ok("?", "[1]")], "ok"),
        ([ok("?", "[1]"), error("?")], "ok"),
        ([error("?"), error("?")], "provider_error"),
        ([error("?"), ok("?", "hmm"), ok("?", None, refusal="No.")], "unparsable"),
        (
            [{"custom_id": "?", "response": {"status_code": 429, "body": {"error": {}}}}],
            "provider_error",
        ),
        (
            [{"custom_id": "?", "response": {"status_code": 200, "body": {"choices": []}}}],
            "provider_error",
        ),
        ([{"custom_id": "?", "response": {"status_code": 200, "body": None}}], "provider_error"),
        ([{"custom_id": "?"}], "provider_error"),
        ([ok("?", "I'm sorry, but I can't help with that.")], "refused"),
        ([ok("?", None, refusal="No.")], "refused"),
        ([ok("?", "It may be this or that.")], "unparsable"),
        ([ok("?", None)], "unparsable"),
        ([ok("?", ["[1]"])], "unparsable"),
        ([ok("?", "[7]")], "out_of_schema"),
        ([cut("?", "kind")], "unparsable"),
        ([cut("?", "cold")], "ok"),
        ([ok("?", "[1]", finish="content_filter")], "refused"),
        (
            [{"custom_id": "?", "response": {"status_code": 400, "body": {**BODY, "created": 0}}}],
            "provider_error",
        ),
        ([{"custom_id": "?", "response": {"body": BODY}}], "ok"),
    ],
)
def test_each_fault_has_its_outcome(
    tmp_path: Path, asked: pd.DataFrame, records: list[dict], outcome: str
) -> None:
    first, *others = ids(asked)
    lines = [{**one, "custom_id": first} for one in records]
    lines += [ok(one, "[0]") for one in [*others, *ids(asked, "w")]]
    random.Random(0).shuffle(lines)
    found = collect.collect(asked, dropped(tmp_path / "in", *lines), codebook(), VOTERS)
    assert outcomes(found) == [outcome, "ok", "ok", "ok"]
    assert sum(found.counts["v"][one] for one in OUTCOMES) == 4
    row = found.votes.iloc[0]
    expected = (0.0, 1.0) if outcome == "ok" else (None, None)
    assert tuple(None if pd.isna(row[label]) else row[label] for label in ("kind", "cold")) == expected
    assert row["answered"] == (
        "2025-01-01" if outcome not in ("missing", "duplicate", "provider_error") else ""
    )


def test_the_latest_day_of_an_answer_counts(tmp_path: Path, asked: pd.DataFrame) -> None:
    lines = [ok(one, "[1]") for one in asked["custom_id"]]
    later = ok(ids(asked)[0], "1")
    later["response"]["body"]["created"] += 86_400
    found = collect.collect(asked, dropped(tmp_path / "in", later, *lines), codebook(), VOTERS)
    assert found.votes["answered"].tolist()[:2] == ["2025-01-02", "2025-01-01"]
    assert (found.counts["v"]["repeated"], found.counts["w"]["repeated"]) == (1, 0)


def test_errors_are_no_repeated_answers(tmp_path: Path, asked: pd.DataFrame) -> None:
    lines = [ok(one, "[1]") for one in asked["custom_id"][1:]] + [error(ids(asked)[0])] * 3
    found = collect.collect(asked, dropped(tmp_path / "in", *lines), codebook(), VOTERS)
    assert (found.counts["v"]["provider_error"], found.counts["v"]["repeated"]) == (1, 0)


def test_files_in_any_order_and_number_give_the_same_votes(tmp_path: Path, asked: pd.DataFrame) -> None:
    lines = [ok(one, "[1]") for one in asked["custom_id"]] + [error(ids(asked)[0])]
    lines += [ok("nobody-1", "[0]"), ok(ids(asked)[1], "(1)")]
    whole = collect.collect(asked, dropped(tmp_path / "one", *lines), codebook(), VOTERS)
    for at, line in enumerate(reversed(lines)):
        dropped(tmp_path / "many", line, name=f"{at}.jsonl")
    (tmp_path / "many" / "empty.jsonl").touch()
    parts = collect.collect(asked, tmp_path / "many", codebook(), VOTERS)
    pd.testing.assert_frame_equal(whole.votes, parts.votes)
    assert whole.counts == parts.counts
    assert (whole.unknown, parts.counts["v"]["repeated"]) == (1, 1)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'{"custom_id": "x"}\n{"custom_id": "secret', "line 2: not a line of JSON"),
        (b'{"custom_id": "x"}\n\xff\xfe', "line 2: not a line of JSON"),
        (b"[" * 100_000, "line 1: not a line of JSON"),
        (b'\n\n"secret"\n', "line 3: no `custom_id`"),
        (b'{"id": "secret"}\n', "line 1: no `custom_id`"),
        (b'{"custom_id": 7}\n', "line 1: no `custom_id`"),
    ],
)
def test_an_unreadable_file_is_one_line_with_its_name_and_line(
    tmp_path: Path, asked: pd.DataFrame, content: bytes, told: str
) -> None:
    folder = dropped(tmp_path / "in", *(ok(one, "[1]") for one in asked["custom_id"]))
    (folder / "half.jsonl").write_bytes(content)
    with pytest.raises(Problem, match=told) as caught:
        collect.collect(asked, folder, codebook(), VOTERS)
    assert "half.jsonl" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_line_separators_inside_an_answer_do_not_cut_a_line(tmp_path: Path, asked: pd.DataFrame) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    lines = [json.dumps(ok(one, "\u2028[1]\u0085"), ensure_ascii=False) for one in asked["custom_id"]]
    (folder / "a.jsonl").write_text("\ufeff" + "\r\n".join(lines), "utf-8", newline="")
    found = collect.collect(asked, folder, codebook(), VOTERS)
    assert outcomes(found) == ["ok"] * 4


def test_a_voter_without_answers_is_told(tmp_path: Path, asked: pd.DataFrame) -> None:
    folder = dropped(tmp_path / "in", *(ok(one, "[1]") for one in ids(asked)))
    with pytest.raises(Problem, match="no answer of voter w"):
        collect.collect(asked, folder, codebook(), VOTERS)


def test_answers_to_another_prompt_are_unknown_and_said_to_be(
    tmp_path: Path, asked: pd.DataFrame
) -> None:
    folder = dropped(tmp_path / "in", *(ok(f"v-{at}", "[1]") for at in range(9)))
    with pytest.raises(Problem, match=r"no answer of voter v, w \(9 answers are to other requests"):
        collect.collect(asked, folder, codebook(), VOTERS)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from(["[0]", "[1]", "?", "[9]", "", "I can't", None])),
        max_size=30,
    )
)
def test_outcomes_add_up_whatever_comes(answers: list[tuple[int, str | None]]) -> None:
    asked = pd.DataFrame(
        {"custom_id": [f"v-{at}" for at in range(5)], "id": list("abcde"), "voter": "v"}
    )
    reader = collect.Reader(codebook(), reasoning=False)
    found: dict[str, list] = {}
    for at, content in answers:
        if at < 5:
            found.setdefault(f"v-{at}", []).append((collect.reading(ok("", content), reader), ""))
    votes, by_voter = collect._tabled(asked, found, codebook())
    collected, counts = collect.Collected(votes, {}, by_voter, 0), by_voter["v"]
    assert sum(counts[one] for one in OUTCOMES) == 5
    valid = (collected.votes["outcome"] == "ok").to_numpy()
    labels = collected.votes[["kind", "cold"]]
    assert (labels.notna().all(axis=1) == valid).all()
    assert (labels[valid].sum(axis=1) == 1).all()
    assert collect.rows(collected.votes).rows_out == counts["ok"]


def test_the_three_tables_and_the_retry_hold_what_they_say(tmp_path: Path, asked: pd.DataFrame) -> None:
    table = comments(4)
    first, second, *others = ids(asked)
    lines = [ok(first, "[1]"), ok(second, "well..."), error(others[0])]  # the fourth is missing
    lines += [ok(one, "[0]") for one in ids(asked, "w")]
    found = collect.collect(asked, dropped(tmp_path / "in", *lines), codebook(), VOTERS)
    again = Collect(retry=["missing", "provider_error"])
    collect.write(found, tmp_path / "requests", table, codebook(), again, tmp_path / "out")

    def read(name: str) -> pd.DataFrame:
        return pd.read_csv(tmp_path / "out" / "v" / f"{name}.csv", dtype=str, keep_default_na=False)

    for name, classes in (
        ("unlabelled", ["-1", "-1", "-1", "-1"]),
        ("labelled", ["1", "-1", "-1", "-1"]),
        ("purged", ["1"]),
    ):
        one = read(name)
        assert list(one.columns) == ["custom_id", "message", "class"]
        assert one["class"].tolist() == classes
        assert one["message"].tolist() == table["text"].tolist()[: len(one)]
        assert one["custom_id"].tolist() == ids(asked)[: len(one)]
    unread = read("unread")
    assert unread.iloc[0][["id", "outcome", "answer"]].tolist() == ["user-01", "unparsable", "well..."]
    assert len(unread) == 1
    told = collect.again(tmp_path / "out")
    assert told.startswith("2 requests to send again are in ")
    assert collect.again(tmp_path / "in") == ""
    sent = {
        json.loads(line)["custom_id"]: line
        for path in request.shards(tmp_path / "requests", "v")
        for line in path.read_bytes().splitlines()
    }
    retried = [
        line
        for path in (tmp_path / "out" / "retry").iterdir()
        for line in path.read_bytes().splitlines()
    ]
    assert retried == [sent[one] for one in others]
    assert collect.rows(found.votes) == Ledger("collect", 4, 4, {"no valid answer": 0})
