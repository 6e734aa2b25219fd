"""The queue before a predictor: what waits is scored together, and nothing waits for more to come.

Requests take turns text by text, so that one with hundreds of texts doesn't hold up the next with one.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

Row = dict[str, Any]  # of one text, as `Predictor.predict` says it
_ENGLISH = 4  # bytes a token of English, 3 of Chinese: near enough for a queue, and costs nothing
_PART = 8  # a request counts for at most this part of the queue, else a large one shuts out all others
_KEPT = 0.9  # of the weight of earlier batches, after a full one
_UNSEEN = 50  # bytes that take the tokenizer as long as a token takes the model


class Full(Exception):
    """No more may wait; `seconds` is when there may be room again, 1 or more."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"full for {seconds} s")
        self.seconds = seconds


class Closed(Exception):
    """Nothing is taken any more."""


def load(text: str, longest: int) -> int:
    """What a text costs, in tokens of the model, at most `longest` of which it sees: an estimate, since
    to count them is half the work. At least 1."""
    size = len(text.encode("utf-8", "replace"))
    return 1 + min(size // _ENGLISH, longest) + size // _UNSEEN


@dataclass(eq=False)
class _Asked:
    texts: Sequence[str]
    loads: Sequence[int]
    answer: "asyncio.Future[list[Row]]"
    rows: list[Row]
    begun: int = 0  # texts that were taken
    missing: int = 0
    left: int = 0  # tokens that aren't scored


@dataclass(frozen=True)
class Done:
    """A batch that was scored, for whoever counts them."""

    texts: int
    tokens: int  # as `load` counts
    seconds: float


class Batcher:
    """One thread that scores, for any number of coroutines of one event loop that ask."""

    def __init__(
        self,
        predict: Callable[[list[str]], list[Row]],
        *,
        longest: int,
        batch_tokens: int,
        queue: int,
        queue_tokens: int,
        done: Callable[[Done], None] = lambda _: None,
    ) -> None:
        """`predict`'s rows must not depend on what else is in its list; `done` is called in the loop."""
        self._predict = predict
        self._longest = longest
        self._batch_tokens = batch_tokens
        self._queue = queue
        self._queue_tokens = queue_tokens
        self._done = done
        self.requests = 0  # that were asked and not answered
        self.tokens = 0  # the same, as `load` counts
        self._part = max(1, queue_tokens // _PART)
        self._held = 0  # of `tokens`, what counts against `queue_tokens`
        self._rate = 0.0  # tokens a second, lately, each token with the same weight
        self._weight = 0.0  # tokens that it is of
        self._waiting: deque[_Asked] = deque()
        self._changed = threading.Condition(threading.Lock())
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._work, name="batcher", daemon=True)

    def start(self) -> None:
        """In the loop that will ask."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def close(self) -> None:
        """Take nothing more; what was asked is answered, and the thread ends after it."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    @property
    def alive(self) -> bool:
        """It scores what is asked: not before `start`, nor after `close` once all is answered."""
        return self._thread.is_alive()

    def room(self, size: int = 0) -> None:
        """`Full` unless a request whose body has `size` bytes can be taken, if they are all text: before
        it is read, for in an overload what is read in vain takes the time of what is answered."""
        if self._closed or not self.alive:
            raise Closed
        least = max(1, min(size // _ENGLISH, self._part))
        if self.requests >= self._queue or self._held + least > self._queue_tokens:
            raise Full(self._seconds())

    async def ask(self, texts: Sequence[str]) -> list[Row]:
        """A row for each text, in order. `Full` unless what waits leaves room for them, where any one
        request takes at most a `_PART` of it. RuntimeError where the model fails in other ways than by
        an Exception."""
        self.room()
        assert self._loop is not None, "start first"
        if not texts:
            return []
        loads = [load(text, self._longest) for text in texts]
        total = sum(loads)
        counted = min(total, self._part)
        if self._held + counted > self._queue_tokens:
            raise Full(self._seconds())
        answer = self._loop.create_future()
        asked = _Asked(texts, loads, answer, [{}] * len(texts), missing=len(texts), left=total)
        self.requests += 1
        self.tokens += total
        self._held += counted
        try:
            with self._changed:
                self._waiting.append(asked)
                self._changed.notify()
            return await asked.answer
        finally:
            self.requests -= 1

    def _seconds(self) -> int:
        return max(1, ceil(self.tokens / self._rate)) if self._rate else 1

    def _work(self) -> None:
        assert self._loop is not None
        while True:
            with self._changed:
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if not self._waiting:
                    return
                batch = self._take()
            started = time.perf_counter()
            rows = self._scored([one.texts[at] for one, at in batch])
            seconds = time.perf_counter() - started
            self._loop.call_soon_threadsafe(self._deliver, batch, rows, seconds)

    def _take(self) -> list[tuple[_Asked, int]]:
        """The next texts up to the budget, at least one, a text of each request in turn."""
        batch: list[tuple[_Asked, int]] = []
        tokens = 0
        while self._waiting:
            asked = self._waiting[0]
            tokens += asked.loads[asked.begun]
            if batch and tokens > self._batch_tokens:
                break
            self._waiting.popleft()
            batch.append((asked, asked.begun))
            asked.begun += 1
            if asked.begun < len(asked.texts):
                self._waiting.append(asked)
        return batch

    def _scored(self, texts: list[str]) -> list[Row | Exception]:
        """Rows; where a text breaks the model, its neighbours of other requests still get theirs."""
        try:
            return [*self._predict(texts)]
        except BaseException as error:  # a panic of the tokenizer's Rust isn't an Exception
            if len(texts) == 1:
                return [error if isinstance(error, Exception) else _wrapped(error)]
            return [row for text in texts for row in self._scored([text])]

    def _deliver(
        self, batch: list[tuple[_Asked, int]], rows: list[Row | Exception], seconds: float
    ) -> None:
        tokens = sum(one.loads[at] for one, at in batch)
        self.tokens -= tokens
        self._weight = self._weight * _KEPT ** (tokens / self._batch_tokens) + tokens
        self._rate += (tokens / max(seconds, 1e-6) - self._rate) * tokens / self._weight
        for (asked, at), row in zip(batch, rows, strict=True):
            before = min(asked.left, self._part)
            asked.left -= asked.loads[at]
            self._held -= before - min(asked.left, self._part)
            if isinstance(row, Exception):
                if not asked.answer.done():
                    asked.answer.set_exception(row)
                continue
            asked.rows[at] = row
            asked.missing -= 1
            if not asked.missing and not asked.answer.done():
                asked.answer.set_result(asked.rows)
        self._done(Done(len(batch), tokens, seconds))


def _wrapped(error: BaseException) -> RuntimeError:
    """As a future may hold it, and a task raise it."""
    return RuntimeError(type(error).__name__).with_traceback(error.__traceback__)
