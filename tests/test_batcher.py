"""The queue before a predictor: who waits for whom, and who is turned away."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

import undertone.deployment.batcher as batcher_module
from undertone.deployment.batcher import Batcher, Closed, Done, Full, load

Play = Callable[[Batcher, "Scorer"], Awaitable[None]]


class Panic(BaseException):
    """No Exception, as a panic in the tokenizer's Rust is none."""


class Scorer:
    """Says a text's length, and keeps what it was given together; waits where it is told to."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Event()

    def __call__(self, texts: list[str]) -> list[dict[str, Any]]:
        self.batches.append(texts)
        self.entered.set()
        assert self.open.wait(10)
        if "broken" in texts:
            raise ZeroDivisionError
        if "panic" in texts:
            raise Panic
        return [{"text": text, "length": len(text)} for text in texts]

    async def busy(self, batcher: Batcher) -> "asyncio.Task[Any]":
        """A first text that it scores until `open` is set."""
        self.open.clear()
        task = asyncio.create_task(batcher.ask(["first"]))
        await asyncio.to_thread(self.entered.wait, 10)
        return task


def run(play: Play, done: Callable[[Done], None] = lambda _: None, **given: int) -> Scorer:
    """In a batcher of its own; once it is over nothing waits there any more."""
    scorer = Scorer()
    usual = {"longest": 8, "batch_tokens": 64, "queue": 100, "queue_tokens": 1000}

    async def played() -> None:
        batcher = Batcher(scorer, done=done, **{**usual, **given})
        batcher.start()
        await asyncio.wait_for(play(batcher, scorer), 20)
        assert (batcher.requests, batcher.tokens) == (0, 0)
        batcher.close()

    asyncio.run(played())
    return scorer


def texts_of(rows: Sequence[dict[str, Any]]) -> list[str]:
    return [row["text"] for row in rows]


def test_every_request_gets_its_own_rows_in_its_own_order() -> None:
    asked = [[f"{number}.{at}" for at in range(number % 5 + 1)] for number in range(60)]

    async def play(batcher: Batcher, _: Scorer) -> None:
        found = await asyncio.gather(*(batcher.ask(texts) for texts in asked))
        assert [texts_of(rows) for rows in found] == asked

    run(play, queue_tokens=10_000)


def test_what_waits_is_scored_together_and_a_lone_text_alone_at_once() -> None:
    async def play(batcher: Batcher, scorer: Scorer) -> None:
        first = await scorer.busy(batcher)
        others = [asyncio.create_task(batcher.ask([text])) for text in "abc"]
        await asyncio.sleep(0)
        scorer.open.set()
        await asyncio.gather(first, *others)

    assert run(play).batches == [["first"], ["a", "b", "c"]]


def test_a_batch_stays_within_its_tokens_but_takes_at_least_one_text() -> None:
    async def play(batcher: Batcher, scorer: Scorer) -> None:
        first = await scorer.busy(batcher)
        texts = ["a", "b", "eight letters more" * 9, "c"]
        assert [load(text, 8) for text in texts] == [1, 1, 12, 1]
        others = [asyncio.create_task(batcher.ask([text])) for text in texts]
        await asyncio.sleep(0)
        scorer.open.set()
        await asyncio.gather(first, *others)

    sizes = [len(batch) for batch in run(play, batch_tokens=2).batches]
    assert sizes == [1, 2, 1, 1]


def test_a_request_with_many_texts_does_not_hold_up_the_next_with_one() -> None:
    order = []

    async def ask(batcher: Batcher, texts: list[str]) -> None:
        await batcher.ask(texts)
        order.append(texts[0])

    async def play(batcher: Batcher, scorer: Scorer) -> None:
        first = await scorer.busy(batcher)
        many = asyncio.create_task(ask(batcher, ["many"] * 50))
        one = asyncio.create_task(ask(batcher, ["one"]))
        await asyncio.sleep(0)
        scorer.open.set()
        await asyncio.gather(first, many, one)

    batches = run(play, batch_tokens=8).batches
    assert order == ["one", "many"]
    assert "one" in batches[1]
    assert sum(map(len, batches)) == 52


def test_more_requests_than_may_wait_are_turned_away_and_the_rest_is_answered() -> None:
    async def play(batcher: Batcher, scorer: Scorer) -> None:
        first = await scorer.busy(batcher)
        second = asyncio.create_task(batcher.ask(["second"]))
        await asyncio.sleep(0)
        with pytest.raises(Full) as told:
            await batcher.ask(["third"])
        assert told.value.seconds >= 1
        with pytest.raises(Full):
            batcher.room()
        scorer.open.set()
        await asyncio.gather(first, second)
        assert texts_of(await batcher.ask(["third"])) == ["third"]

    run(play, queue=2)


def test_more_tokens_than_may_wait_are_turned_away_until_some_were_scored() -> None:
    async def play(batcher: Batcher, scorer: Scorer) -> None:
        first = await scorer.busy(batcher)
        others = [asyncio.create_task(batcher.ask(["text"])) for _ in range(24)]
        await asyncio.sleep(0)
        assert batcher.tokens == 50
        with pytest.raises(Full):
            batcher.room()
        with pytest.raises(Full):
            await batcher.ask(["text"])
        scorer.open.set()
        await asyncio.gather(first, *others)
        assert len(await batcher.ask(["text"])) == 1

    run(play, queue_tokens=50)


def test_what_will_not_fit_is_known_by_its_bytes_before_it_is_read() -> None:
    async def play(batcher: Batcher, scorer: Scorer) -> None:
        first = await scorer.busy(batcher)
        others = [asyncio.create_task(batcher.ask(["text"])) for _ in range(22)]
        await asyncio.sleep(0)
        assert batcher.tokens == 46
        batcher.room(16)
        with pytest.raises(Full):
            batcher.room(20)
        scorer.open.set()
        await asyncio.gather(first, *others)
        batcher.room(10**9)  # counts for a part of an empty queue, like any other

    run(play, queue_tokens=50)


def test_a_large_request_leaves_room_for_others_until_there_are_many_of_them() -> None:
    large = ["a text of eight tokens or more of them"] * 100

    async def play(batcher: Batcher, scorer: Scorer) -> None:
        first = await scorer.busy(batcher)
        asked = [asyncio.create_task(batcher.ask(large)) for _ in range(7)]
        await asyncio.sleep(0)
        assert batcher.tokens == 2 + 7 * 900
        batcher.room()
        asked += [asyncio.create_task(batcher.ask(["text"])) for _ in range(4)]
        await asyncio.sleep(0)
        with pytest.raises(Full):
            await batcher.ask(large)
        scorer.open.set()
        assert [len(rows) for rows in await asyncio.gather(first, *asked)] == [1, *[100] * 7, *[1] * 4]

    run(play, queue_tokens=80)


def test_who_is_turned_away_is_told_how_long_what_waits_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10_000))  # each batch takes a second, whatever is in it
    monkeypatch.setattr(batcher_module, "time", SimpleNamespace(perf_counter=lambda: next(clock)))

    async def play(batcher: Batcher, scorer: Scorer) -> None:
        for _ in range(20):
            await batcher.ask(["a"])
        await batcher.ask(["a"] * 64)
        first = await scorer.busy(batcher)
        waits = [asyncio.create_task(batcher.ask(["a"] * 8)) for _ in range(40)]
        await asyncio.sleep(0)
        with pytest.raises(Full) as told:
            await batcher.ask(["a"])
        assert 5 <= told.value.seconds <= 8  # 5 full batches and a bit; by the mean of batches 23
        scorer.open.set()
        await asyncio.gather(first, *waits)

    run(play, queue_tokens=322)


def test_no_failure_of_the_model_ends_the_thread_that_scores() -> None:
    async def play(batcher: Batcher, _: Scorer) -> None:
        with pytest.raises(RuntimeError, match="Panic"):
            await batcher.ask(["panic"])
        assert batcher.alive
        assert texts_of(await batcher.ask(["next"])) == ["next"]

    run(play)


def test_a_text_that_breaks_the_model_breaks_no_neighbour() -> None:
    async def play(batcher: Batcher, scorer: Scorer) -> None:
        first = await scorer.busy(batcher)
        asked = [["a", "b"], ["c", "broken", "d"], ["e"]]
        others = [asyncio.create_task(batcher.ask(texts)) for texts in asked]
        await asyncio.sleep(0)
        scorer.open.set()
        found = await asyncio.gather(first, *others, return_exceptions=True)
        assert isinstance(found.pop(2), ZeroDivisionError)
        assert [texts_of(rows) for rows in found] == [["first"], ["a", "b"], ["e"]]

    run(play)


def test_a_client_that_left_leaves_no_trace() -> None:
    async def play(batcher: Batcher, scorer: Scorer) -> None:
        first = await scorer.busy(batcher)
        gone = asyncio.create_task(batcher.ask(["gone", "broken"]))
        await asyncio.sleep(0)
        gone.cancel()
        scorer.open.set()
        await first
        assert texts_of(await batcher.ask(["next"])) == ["next"]

    run(play)


def test_the_end_answers_what_was_asked_and_takes_nothing_more() -> None:
    async def play(batcher: Batcher, scorer: Scorer) -> None:
        first = await scorer.busy(batcher)
        second = asyncio.create_task(batcher.ask(["second"]))
        await asyncio.sleep(0)
        batcher.close()
        with pytest.raises(Closed):
            await batcher.ask(["third"])
        scorer.open.set()
        assert texts_of(await first) + texts_of(await second) == ["first", "second"]

    run(play)


def test_each_batch_is_counted_once() -> None:
    counted: list[Done] = []

    async def play(batcher: Batcher, _: Scorer) -> None:
        for _ in range(3):
            await batcher.ask(["a", "b"])

    run(play, done=counted.append)
    assert [one.texts for one in counted] == [2, 2, 2]
    assert [one.tokens for one in counted] == [2, 2, 2]
    assert all(one.seconds >= 0 for one in counted)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("", 1), ("four", 2), ("word " * 40, 1 + 50 + 4), ("词" * 40, 1 + 30 + 2), ("x" * 100_000, 2129)],
)
def test_a_text_costs_what_the_model_sees_and_a_little_for_the_rest(text: str, tokens: int) -> None:
    assert load(text, 128) == tokens
