"""Requests hold the text and nothing else of a row, fit the provider's files, and are the same again."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from undertone.codebook import Codebook
from undertone.errors import Problem
from undertone.params import Door, Price, Provider, Request, Voter
from undertone.voters import request
from undertone.voters.request import Ballot

HERE = Provider(url=None, key=None, lines=5, bytes=10_000, may_read=[])
AWAY = Provider(url="https://llm.example.org/v1", key="KEY", lines=5000, bytes=10**9, may_read=[])


def codebook(definition: str = "warm words") -> Codebook:
    return Codebook.model_validate(
        {
            "name": "tiny",
            "title": "t",
            "language": "en",
            "labels": [
                {
                    "id": "kind",
                    "name": "kind",
                    "code": 0,
                    "definition": definition,
                    "examples": ["well"],
                },
                {
                    "id": "cold",
                    "name": "cold",
                    "code": 1,
                    "definition": "cold words",
                    "aliases": ["kind of cold"],
                },
            ],
            "merges": {"all": {"kind": ["kind"], "not kind": ["cold"]}},
            "prompts": {
                "plain": {
                    "system": "Choose {labels}.{definitions}",
                    "definitions_as": " They mean: {each}",
                    "user": "Comment: {text}",
                    "answer": "[{code}]",
                },
                "merged": {"scheme": "all", "user": "{text} {labels}", "answer": "{name}"},
            },
        }
    )


def voter(**changed: object) -> Voter:
    settings = {
        "provider": "here",
        "model": "m",
        "prompt": "plain",
        "definitions": True,
        "temperature": 0.0,
        "max_tokens": 4,
    }
    return Voter.model_validate({**settings, **changed})


def ballot(name: str = "v", book: Codebook | None = None, **changed: object) -> Ballot:
    return Ballot.of(name, voter(**changed), book or codebook())


def comments(rows: int = 12) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "id": [f"user-{row:02d}" for row in range(rows)],
            "text": [f'text "{row}" 你好 {{text}} {{labels}}\n' for row in range(rows)],
            "group": "Anna Canary",
            "meta.source": "the canary post",
        }
    )


def written(folder: Path, table: pd.DataFrame, *ballots: Ballot, provider: Provider = HERE) -> Path:
    providers = {"here": provider}
    plans = request.plan(table, ballots, providers, {}, "files")
    request.write(table, ballots, providers, plans, folder)
    return folder


def lines(folder: Path, name: str = "v") -> list[dict]:
    return [
        json.loads(line)
        for path in request.shards(folder, name)
        for line in path.read_text("utf-8").split("\n")
        if line
    ]


def test_a_request_has_the_batch_shape_and_the_text_as_it_is(tmp_path: Path) -> None:
    table = comments()
    found = lines(written(tmp_path, table, ballot()))
    assert [line["body"]["messages"][1]["content"] for line in found] == [
        f"Comment: {text}" for text in table["text"]
    ]
    for line in found:
        assert set(line) == {"custom_id", "method", "url", "body"}
        assert (line["method"], line["url"]) == ("POST", "/v1/chat/completions")
        assert set(line["body"]) == {"model", "messages", "temperature", "max_tokens"}


def test_nothing_of_a_row_but_its_text_is_in_a_request(tmp_path: Path) -> None:
    folder = written(tmp_path, comments(), ballot())
    sent = b"".join(path.read_bytes() for path in request.shards(folder, "v"))
    assert b'text \\"3\\"' in sent
    for canary in (b"Canary", b"canary", b"user-"):
        assert canary not in sent


def test_requests_are_the_same_bytes_again(tmp_path: Path) -> None:
    one, two = (written(tmp_path / name, comments(), ballot()) for name in "ab")
    names = sorted(path.name for path in one.iterdir())
    assert names == sorted(path.name for path in two.iterdir())
    assert len(names) == 5
    for name in names:
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_files_keep_the_providers_limit_of_lines(tmp_path: Path) -> None:
    folder = written(tmp_path, comments(12), ballot())
    assert [len(path.read_text("utf-8").splitlines()) for path in request.shards(folder, "v")] == [
        5,
        5,
        2,
    ]


@pytest.mark.parametrize("limit", [420, 700, 1_100, 5_000])
def test_files_keep_the_providers_limit_of_bytes_and_are_full(tmp_path: Path, limit: int) -> None:
    table = comments(40)
    table["text"] = [('é\u2028"\\😀\t' * (row % 7 + 1)) for row in range(40)]
    provider = HERE.model_copy(update={"bytes": limit, "lines": 1000})
    folder = written(tmp_path, table, ballot(), provider=provider)
    sizes = [path.stat().st_size for path in request.shards(folder, "v")]
    first = [path.read_bytes().split(b"\n")[0] for path in request.shards(folder, "v")]
    assert max(sizes) <= limit
    # the first line of the next file would not have fitted
    assert all(size + len(line) + 1 > limit for size, line in zip(sizes[:-1], first[1:], strict=True))
    plans = request.plan(table, [ballot()], {"here": provider}, {}, "local")
    assert plans[0].shards == len(sizes)
    assert [line["custom_id"] for line in lines(folder)] == [
        ballot().custom_id(text, table["text"].tolist()[:row].count(text))
        for row, text in enumerate(table["text"])
    ]


def test_a_comment_too_large_for_a_file_is_told_without_its_text(tmp_path: Path) -> None:
    table = pd.DataFrame({"id": ["a"], "text": ["secret " * 3000]})
    with pytest.raises(
        Problem, match=r"one request has 2\d,\d{3} bytes, more than the 10,000"
    ) as caught:
        written(tmp_path, table, ballot())
    assert "secret" not in str(caught.value)


def test_an_id_changes_with_the_text_the_prompt_and_the_model_and_says_nothing_of_the_row() -> None:
    same = ballot().custom_id("text", 0)
    assert same == ballot().custom_id("text", 0)
    others = {
        ballot().custom_id("text", 1),
        ballot().custom_id("texts", 0),
        ballot(definitions=False).custom_id("text", 0),
        ballot(model="n").custom_id("text", 0),
        ballot(provider="away").custom_id("text", 0),
        ballot(temperature=0.5).custom_id("text", 0),
        ballot(max_tokens=5).custom_id("text", 0),
        ballot(book=codebook("other words")).custom_id("text", 0),
        ballot("w").custom_id("text", 0),
    }
    assert len(others) == 9
    assert same not in others
    assert len(ballot("v" * 40).custom_id("text", 0)) <= 64
    examples = codebook().model_copy(update={"title": "another"})
    assert ballot(book=examples).custom_id("text", 0) == same


def test_comments_of_one_text_have_ids_that_tell_nothing_of_the_labs(
    tmp_path: Path,
) -> None:
    table = pd.DataFrame({"id": ["a", "b", "c"], "text": ["same", "other", "same"]})
    renamed = table.assign(id=["x", "y", "z"])
    one, two = (
        pd.read_parquet(written(tmp_path / name, frame, ballot()) / "asked.parquet")
        for name, frame in (("one", table), ("two", renamed))
    )
    assert one["custom_id"].nunique() == 3
    assert one["custom_id"].tolist() == two["custom_id"].tolist()
    assert two["id"].tolist() == ["x", "y", "z"]


def test_the_egress_record_names_every_id_its_provider_and_prompt(tmp_path: Path) -> None:
    table = comments(3)
    providers = {"here": HERE, "away": AWAY}
    asked = [ballot("one"), ballot("two", provider="away", definitions=False)]
    plans = request.plan(table, asked, providers, {}, "endpoint")
    request.write(table, asked, providers, plans, tmp_path)
    one, two = json.loads((tmp_path / "egress.json").read_text("utf-8"))["voters"]
    assert (one["leaves"], two["leaves"], two["host"]) == (True, True, "llm.example.org")
    assert one["ids"] == two["ids"] == table["id"].tolist()
    assert one["prompt_sha256"] != two["prompt_sha256"]


@pytest.mark.parametrize(
    ("door", "told"),
    [
        ("local", "; stays on this machine"),
        ("simulated", "; stays on this machine"),
        ("endpoint", "; to llm.example.org (away)"),
        ("files", "; to llm.example.org (away)"),
    ],
)
def test_the_door_decides_whether_comments_leave(door: Door, told: str) -> None:
    plans = request.plan(comments(3), [ballot(provider="away")], {"away": AWAY}, {}, door)
    assert request.told(plans, []).endswith(told)


def test_the_plan_tells_rows_files_tokens_and_price() -> None:
    table = comments(1000)
    prices = {"m": Price(input=2.0, output=8.0, currency="EUR")}
    (one,) = request.plan(table, [ballot(provider="away")], {"away": AWAY}, prices, "endpoint")
    sent = sum(len(json.dumps(ballot().body(text), ensure_ascii=False)) for text in table["text"])
    assert 0.5 < one.tokens_in / (sent / 4) < 1.5
    assert (one.rows, one.shards, one.tokens_out_at_most) == (1000, 1, 4000)
    assert one.price_at_most == pytest.approx((one.tokens_in * 2 + 4000 * 8) / 1e6, abs=1e-4)
    told = request.told([one], request.rendered([ballot()]))
    assert "llm.example.org" in told
    assert "EUR" in told
    assert "Comment: well" in told  # an example of the codebook
    assert "你好" not in told
    (unknown,) = request.plan(table, [ballot(provider="away")], {"away": AWAY}, {}, "files")
    assert "price unknown (prices has no m)" in request.told([unknown], [])
    (here,) = request.plan(table, [ballot()], {"here": HERE}, {}, "local")
    assert "price" not in request.told([here], [])


def test_a_prompt_for_merged_labels_is_no_prompt_to_vote_by() -> None:
    with pytest.raises(Problem, match="prompt 'merged' asks for the labels of 'all'"):
        ballot(prompt="merged")
    with pytest.raises(Problem, match="no prompt 'none'; it has plain, merged"):
        ballot(prompt="none")


def test_people_s_rows_are_asked_about_first_and_a_larger_number_adds_to_a_smaller() -> None:
    table = pd.DataFrame({"id": [f"c{at}" for at in range(50)], "text": "t"})
    table["gold.kind"] = np.where(np.arange(50) % 10 == 0, 1.0, np.nan)
    asked = {
        rows: request.chosen(table, Request(voters={"v": voter()}, rows=rows), seed=3)
        for rows in (2, 20, 30, 99, None)
    }
    by_hand = {f"c{at}" for at in range(0, 50, 10)}
    assert set(asked[2]["id"]) == by_hand
    assert by_hand < set(asked[20]["id"]) < set(asked[30]["id"])
    assert [len(one) for one in asked.values()] == [5, 20, 30, 50, 50]
    assert asked[20]["id"].map(lambda one: int(one[1:])).is_monotonic_increasing
    other = request.chosen(table, Request(voters={"v": voter()}, rows=20), seed=4)
    assert set(other["id"]) != set(asked[20]["id"])
    backwards = request.chosen(table[::-1], Request(voters={"v": voter()}, rows=20), seed=3)
    assert set(backwards["id"]) == set(asked[20]["id"])


def test_without_people_s_labels_the_draw_is_of_all() -> None:
    table = pd.DataFrame({"id": [f"c{at}" for at in range(50)], "text": "t"})
    drawn = request.chosen(table, Request(voters={"v": voter()}, rows=20), seed=3)
    assert len(drawn) == 20
    assert drawn["id"].tolist() != table["id"].tolist()[:20]
