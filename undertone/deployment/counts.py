"""What a server's /metrics shows. Every label's values come out of a closed set."""

from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import Metric, SummaryMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from undertone.deployment.batcher import Batcher, Done

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5)
_TEXTS = (1, 2, 4, 8, 16, 32, 64, 128)
_QUANTILES = (0.5, 0.95, 0.99)
_KEPT = 4_096  # answers, for exact quantiles; the histogram's lie between two buckets


class Counts:
    """Those of one server."""

    media_type = CONTENT_TYPE_PLAIN_0_0_4

    def __init__(self, reasons: Iterable[str]) -> None:
        """`reasons`: why a request may get no answer."""
        own = CollectorRegistry()
        ProcessCollector(registry=own)
        self._requests = Counter("undertone_requests", "All that came", ["path", "status"], registry=own)
        self._errors = Counter("undertone_errors", "Those refused, and why", ["error"], registry=own)
        self._latency = Histogram(
            "undertone_request_seconds", "Of an answered /predict", buckets=_SECONDS, registry=own
        )
        self._texts = Counter("undertone_texts", "Texts that were answered", registry=own)
        self._together = Histogram(
            "undertone_batch_texts", "Scored together", buckets=_TEXTS, registry=own
        )
        self._scoring = Histogram(
            "undertone_batch_seconds", "To score them", buckets=_SECONDS, registry=own
        )
        self._requests_now = Gauge(
            "undertone_queue_requests", "That wait or are being scored", registry=own
        )
        self._tokens_now = Gauge("undertone_queue_tokens", "Theirs, estimated", registry=own)
        self._lost = Counter("undertone_log_lines_lost", "Could not be written", registry=own)
        self._recent: deque[float] = deque(maxlen=_KEPT)
        self._kinds: dict[tuple[str, int], Counter] = {}
        self._reasons = {reason: self._errors.labels(reason) for reason in reasons}
        own.register(self)
        self._registry = own

    def watch(self, batcher: Batcher) -> None:
        self._requests_now.set_function(lambda: batcher.requests)
        self._tokens_now.set_function(lambda: batcher.tokens)

    def answered(self, path: str, status: int, seconds: float, texts: int) -> None:
        of_kind = self._kinds.get((path, status))
        if of_kind is None:  # `labels` costs as much as all else here
            of_kind = self._kinds[path, status] = self._requests.labels(path, str(status))
        of_kind.inc()
        if path == "/predict" and status == 200:
            self._latency.observe(seconds)
            self._texts.inc(texts)
            self._recent.append(seconds)

    def refused(self, reason: str) -> None:
        self._reasons[reason].inc()

    def lost(self, lines: int) -> None:
        self._lost.inc(lines)

    def scored(self, done: Done) -> None:
        self._together.observe(done.texts)
        self._scoring.observe(done.seconds)

    def written(self) -> bytes:
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Called by the registry."""
        recent = SummaryMetricFamily("undertone_recent_seconds", f"Of the last {_KEPT:,} of them")
        if self._recent:
            for name, value in zip(_QUANTILES, np.quantile(self._recent, _QUANTILES), strict=True):
                recent.add_sample("undertone_recent_seconds", {"quantile": str(name)}, float(value))
        yield recent
