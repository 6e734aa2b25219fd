"""What a server takes before it says no. No imports that cost: the command line shows the defaults."""

from typing import NamedTuple


class Limits(NamedTuple):
    """See HELP for each. `queue_tokens` and `batch_tokens` count as `batcher.load` does."""

    body: int = 262_144
    texts: int = 256
    queue: int = 512
    queue_tokens: int = 8_192
    batch_tokens: int = 512
    connections: int = 2_000
    arrival: float = 10.0
    idle: float = 75.0
    grace: float = 5.0
    drain: float = 30.0


HELP = {
    "body": "bytes a request's body may have",
    "texts": "texts a request may bring",
    "queue": "requests that may wait",
    "queue_tokens": "tokens that may wait; more are answered 429",
    "batch_tokens": "tokens that are scored at a time",
    "connections": "connections at a time; one more closes the longest idle one",
    "arrival": "seconds within which a request has to be here whole",
    "idle": "seconds that a connection is kept for a next request",
    "grace": "seconds that it goes on after SIGTERM while /readyz says 503",
    "drain": "seconds after that for what was begun",
}
