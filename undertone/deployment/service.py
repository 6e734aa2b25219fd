"""A release bundle over HTTP: the routes, what is refused and why, what is counted and what is logged.

No text is logged, counted or repeated, and neither is a client's path, query or header: each refusal
has a reason out of REASONS.
"""

import hashlib
import hmac
import json
import logging
import re
import time
import traceback
from base64 import b64encode
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from http import HTTPStatus
from importlib.metadata import version as installed
from importlib.resources import files as packaged
from typing import Any, NoReturn, get_args

from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from undertone.deployment.batcher import Batcher, Closed, Full
from undertone.deployment.counts import Counts
from undertone.deployment.limits import Limits
from undertone.deployment.predictor import Error, Predictor
from undertone.labels import LabelSpace

REASONS = {  # status, what, what to do
    "not_json": (400, "The body is no JSON in UTF-8 that says each thing once.", ""),
    "malformed": (400, "No HTTP, or more requests at a time than are taken.", ""),
    "no_token": (401, "No token, or a wrong one.", "Send `Authorization: Bearer …`."),
    "unknown_path": (404, "There is nothing here.", "/openapi.json says what there is."),
    "wrong_method": (405, "Not with this method.", "See `Allow`."),
    "late": (408, "The request did not arrive in time.", "/info has the limit: `arrival` seconds."),
    "too_large": (413, "The body has more bytes than are taken.", "/info has the limit: send less."),
    "too_many": (413, "More texts than are taken at a time.", "/info has the limit: send fewer."),
    "wrong_type": (415, "No JSON.", "Send `Content-Type: application/json`, not compressed."),
    "wrong_shape": (422, "Not what is asked for.", 'Send {"text": "…"} or {"texts": ["…"]}, no more.'),
    "empty": (422, "There is nothing to read in the text.", ""),
    "broken_character": (422, "The text holds a NUL, or half of a surrogate pair.", ""),
    "too_long": (422, "More tokens than the model reads.", "/info has the limit: send a part."),
    "no_answer": (422, "The model has no number for the text.", ""),
    "busy": (429, "More waits than can be answered soon.", "Ask again after `Retry-After` seconds."),
    "long_head": (431, "The address and the headers have more bytes than are taken.", ""),
    "failed": (500, "The server failed.", "Its log says where."),
    "stopping": (503, "The server stops.", "Ask again in a while."),
    "refused": (400, "Refused.", ""),
}
_OPEN = ("/", "/livez", "/readyz")  # need no token: a page that asks for it, and what watches over us
_HEADERS = [(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")]
_LAST = [(b"connection", b"close")]
_TYPE = re.compile(r'application/json\s*(;\s*charset="?utf-8"?\s*)?', re.IGNORECASE)
GONE = 499  # as nginx logs a client that did not wait
_FIRST = (["a"], ["a", "b"])  # the first call of each kind opens and allocates what it needs
_ANYWHERE = (400, 404, 405, 408, 431)  # refused before a route is asked
_TOLD = {401: "WWW-Authenticate", 405: "Allow", 429: "Retry-After"}  # the header of a refusal
_METHODS = ("GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE")
trouble = logging.getLogger("undertone.trouble")


class Refused(Exception):
    """An answer that isn't one; `reason` is of REASONS."""

    def __init__(self, reason: str, **headers: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Service:
    """An ASGI application over one predictor. `stopping` makes it say so and ask clients to leave."""

    def __init__(
        self,
        predictor: Predictor,
        limits: Limits,
        *,
        echo: bool = False,
        token: str | None = None,
        version: str = "",
    ) -> None:
        """`echo` repeats a single text in its answer; `version` is the registry's for the bundle."""
        self.limits = limits
        self.stopping = False
        self.space = predictor.space
        self._predictor = predictor
        self._echo = echo
        self._token = token.encode() if token else None
        self._version = version
        self.counts = Counts(REASONS)
        self.batcher = Batcher(
            predictor.predict,
            longest=predictor.max_length,
            batch_tokens=limits.batch_tokens,
            queue=limits.queue,
            queue_tokens=limits.queue_tokens,
            done=self.counts.scored,
        )
        self.counts.watch(self.batcher)
        self.log: list[tuple[float, str, str, int, float, int]] = []
        self._page, self._policy = page()
        self._app = self._routed()
        threads = f"{predictor.threads} threads"
        self.told = f"{predictor.manifest['candidate']} ({predictor.variant}, {threads})"
        self._paths = {route.path for route in self._app.routes}  # type: ignore[attr-defined]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        path = scope["path"] if scope["path"] in self._paths else "other"
        status = 0

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = _ended(scope) or message["status"]
                message["headers"] += _HEADERS + (_LAST if self.stopping else [])
            await send(message)

        try:
            if refused := self._at_once(scope, path):
                await self._refusal(refused)(scope, receive, counted)
            else:
                await self._app(scope, receive, counted)
        except Exception as error:
            told(error)  # the answer was sent on the error's way up here
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._note(method, path, status, started, scope.get("undertone.texts", 0))

    def _note(self, method: str, path: str, status: int, started: float, texts: int) -> None:
        seconds = time.perf_counter() - started
        self.counts.answered(path, status, seconds, texts)
        self.log.append((time.time(), method, path, status, seconds, texts))

    def unread(self, reason: str, *, counted: bool) -> bytes:
        """All that is answered to what was no request that could be read, the connection's last.
        `counted`: as a request; not so where the answer is one to a request that is counted itself."""
        refusal = self._refusal(Refused(reason))
        if counted:
            self._note("other", "other", refusal.status_code, time.perf_counter(), 0)
        line = f"HTTP/1.1 {refusal.status_code} {HTTPStatus(refusal.status_code).phrase}\r\n".encode()
        headers = b"".join(b"%b: %b\r\n" % one for one in [*refusal.raw_headers, *_HEADERS, *_LAST])
        return b"%b%b\r\n%b" % (line, headers, bytes(refusal.body))

    def _at_once(self, scope: Scope, path: str) -> Refused | None:
        """Why not even a byte of the body is read; an overload is borne by saying so cheaply."""
        if self._token and path not in _OPEN and not self._known(scope):
            return Refused("no_token", WWW_Authenticate="Bearer")
        if path == "other":  # routes would take a path with a line's end after it
            return Refused("unknown_path")
        if path == "/predict" and scope["method"] == "POST":
            try:
                self.batcher.room(declared(scope["headers"]))
            except Full as full:
                return Refused("busy", Retry_After=str(full.seconds))
            except Closed:
                return Refused("stopping")
        return None

    def logged(self) -> str:
        """A line for each request since the last call."""
        lines, self.log = self.log, []
        return "".join(
            f"{datetime.fromtimestamp(at).isoformat(' ', 'milliseconds')} {method} {path} {status}"
            f" {1000 * seconds:.1f} ms, {texts} texts\n"
            for at, method, path, status, seconds, texts in lines
        )

    def _known(self, scope: Scope) -> bool:
        given = b"".join(value for name, value in scope["headers"] if name == b"authorization")
        kind, _, token = given.partition(b" ")
        return kind.lower() == b"bearer" and hmac.compare_digest(token.strip(), self._token or b"")

    def _refusal(self, refused: Refused) -> Response:
        status, what, remedy = REASONS[refused.reason]
        self.counts.refused(refused.reason)
        told = {"error": refused.reason, "message": f"{what} {remedy}".strip()}
        return _json(told, status=status, headers=refused.headers)

    def _routed(self) -> FastAPI:
        app = FastAPI(
            title="undertone",
            version=installed("undertone"),
            docs_url=None,  # they come from a CDN
            redoc_url=None,
            redirect_slashes=False,
            lifespan=self._alive,
        )
        schemas = _schemas(self.space, self.limits, echo=self._echo)
        asked = {"required": True, "content": {"application/json": {"schema": schemas["request"]}}}
        state = _object(status={"enum": ["alive", "ready"]})
        guarded = (401,) if self._token else ()

        @app.exception_handler(Refused)
        async def refused(_: Request, error: Refused) -> Response:
            return self._refusal(error)

        @app.exception_handler(HTTPException)
        async def http(_: Request, error: HTTPException) -> Response:
            reason = {404: "unknown_path", 405: "wrong_method"}.get(error.status_code, "refused")
            return self._refusal(Refused(reason, **(error.headers or {})))

        @app.exception_handler(Exception)
        async def failed(_: Request, __: Exception) -> Response:
            return self._refusal(Refused("failed"))

        @app.post(
            "/predict",
            summary="Labels and scores of a text, or of several",
            openapi_extra={"requestBody": asked},
            responses=_answers(schemas["answer"], *guarded, 413, 415, 422, 429, 500, 503),
        )
        async def predict(request: Request) -> Response:
            return await self._predict(request)

        @app.head("/livez", include_in_schema=False)
        @app.get("/livez", summary="Whether it runs, and scores", responses=_answers(state, 500))
        async def livez() -> Response:
            if not self.batcher.alive and not self.stopping:
                raise Refused("failed")
            return _json({"status": "alive"})

        @app.head("/readyz", include_in_schema=False)
        @app.get("/readyz", summary="Whether to send it requests", responses=_answers(state, 503))
        async def readyz() -> Response:
            if self.stopping:
                raise Refused("stopping")
            return _json({"status": "ready"})

        @app.get(
            "/info",
            summary="Labels, version, digests and limits",
            responses=_answers({"type": "object"}, *guarded),
        )
        async def info() -> Response:
            return _json(self.info())

        @app.get(
            "/metrics",
            summary="Prometheus metrics",
            response_class=PlainTextResponse,
            responses={one: told for one, told in _answers({}, *guarded).items() if one != 200},
        )
        async def metrics() -> Response:
            return Response(self.counts.written(), media_type=self.counts.media_type)

        @app.get("/", include_in_schema=False)
        async def page() -> Response:
            headers = {"content-security-policy": self._policy, "referrer-policy": "no-referrer"}
            return Response(self._page, media_type="text/html; charset=utf-8", headers=headers)

        if self._token:
            bearer = {"type": "http", "scheme": "bearer"}
            described = app.openapi()  # which it keeps
            described["components"] = {"securitySchemes": {"token": bearer}}
            for path in described["paths"].keys() - set(_OPEN):
                for operation in described["paths"][path].values():
                    operation["security"] = [{"token": []}]
        return app

    @asynccontextmanager
    async def _alive(self, _: FastAPI) -> AsyncIterator[None]:
        for texts in _FIRST:
            self._predictor.predict(texts)
        self.batcher.start()
        yield
        self.batcher.close()

    async def _predict(self, request: Request) -> Response:
        headers = request.headers
        if not _TYPE.fullmatch(headers.get("content-type", "")) or "content-encoding" in headers:
            raise Refused("wrong_type")
        try:
            body = await read(request, self.limits.body)
            started = time.perf_counter()
            texts, alone = asked(parsed(body), self.limits.texts)
            request.scope["undertone.texts"] = len(texts)
            rows = await self.batcher.ask(texts)
        except ClientDisconnect:
            return Response(status_code=GONE)
        except Full as full:
            raise Refused("busy", Retry_After=str(full.seconds)) from None
        except Closed:
            raise Refused("stopping") from None
        taken = round(1000 * (time.perf_counter() - started), 3)
        if not alone:
            return _json({"results": rows, "time_ms": taken})
        (row,) = rows
        if row["error"]:
            raise Refused(row["error"])
        prediction = None if row["abstained"] else row["labels"]
        if prediction is not None and not self.space.many:
            (prediction,) = prediction
        echoed = {"input": texts[0]} if self._echo else {}
        return _json({**echoed, "prediction": prediction, "cut": row["cut"], "time_ms": taken})

    def info(self) -> dict[str, Any]:
        """What runs here, and what it takes."""
        manifest = self._predictor.manifest
        return {
            "undertone": installed("undertone"),
            "version": self._version or manifest["digest"][:12],
            "candidate": manifest["candidate"],
            "codebook": self.space.codebook,
            "variant": self._predictor.variant,
            "digest": manifest["digest"],
            "sha256": manifest["sha256"],
            "labels": [
                {"id": one, "name": name}
                for one, name in zip(self.space.labels, self.space.names, strict=True)
            ],
            "many": self.space.many,
            "thresholds": dict(zip(self.space.labels, self.space.thresholds, strict=True)),
            "abstain": self.space.abstain,
            "tokens": self._predictor.max_length,
            "long": self._predictor.long,
            "limits": self.limits._asdict(),
        }


def declared(headers: Iterable[tuple[bytes, bytes]]) -> int:
    """The bytes that a body is said to have; 0 where nothing is said."""
    for name, value in headers:
        if name == b"content-length" and value.isdigit():
            return int(value[:18])
    return 0


async def read(request: Request, limit: int) -> bytearray:
    """The body; `Refused` before more than `limit` bytes of it are kept."""
    if declared(request.scope["headers"]) > limit:
        raise Refused("too_large")
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > limit:
            raise Refused("too_large")
    return body


def parsed(body: bytearray) -> object:
    """What the JSON says; `Refused` where it says a name twice, NaN, or nothing that can be read."""
    try:
        return _JSON.decode(body.decode("utf-8"))
    except (ValueError, RecursionError):
        raise Refused("not_json") from None


def asked(content: object, most: int) -> tuple[list[str], bool]:
    """The texts, and whether one was asked for alone. `Refused` for any other shape."""
    match content:
        case {"text": str(text), **rest} if not rest:
            texts, alone = [text], True
        case {"texts": [_, *_] as texts, **rest} if not rest:
            alone = False
        case _:
            raise Refused("wrong_shape")
    if len(texts) > most:
        raise Refused("too_many")
    if not all(isinstance(text, str) for text in texts):
        raise Refused("wrong_shape")
    return texts, alone


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a name twice")
    return content


def _none(_: str) -> NoReturn:
    raise ValueError("NaN or infinite")


_JSON = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_none)


def _ended(scope: Scope) -> int:
    """The status, where the connection ended before there was an answer; else 0."""
    line = scope.get("undertone.line")  # a `serving.Connection`
    return int(line.ended) if line else 0


def _json(content: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(to_json(content), status, headers, media_type="application/json")


def told(error: BaseException) -> None:
    """Where it failed, and not the error's own words, which may repeat a text."""
    frames = traceback.extract_tb(error.__traceback__)
    where = "\n".join(f"  {one.filename}:{one.lineno} {one.name}" for one in frames)
    trouble.error("%s\n%s", type(error).__name__, where)


def page() -> tuple[bytes, str]:
    """The page, and the policy that lets it run its own script and style and nothing else."""
    html = packaged("undertone.deployment").joinpath("service.html").read_text("utf-8")

    def digests(tag: str) -> str:
        found = re.findall(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        sums = (b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in found)
        return " ".join(f"'sha256-{one}'" for one in sums)

    policy = (  # the icon is an empty one, else browsers ask for one
        f"default-src 'none'; script-src {digests('script')}; style-src {digests('style')};"
        " img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return html.encode(), policy


def _schemas(space: LabelSpace, limits: Limits, *, echo: bool) -> dict[str, dict[str, Any]]:
    """What is asked and answered, as OpenAPI has it."""
    text = {"type": "string"}
    labels = {"type": "array", "items": {"enum": space.labels}, "uniqueItems": True}
    score = {"type": "number", "minimum": 0, "maximum": 1}
    milliseconds = {"type": "number", "minimum": 0}
    row = _object(
        labels=labels,
        scores={"anyOf": [_object(**dict.fromkeys(space.labels, score)), _object()]},
        abstained={"type": "boolean", "description": "too unsure, by the rule it was trained with"},
        tokens={"type": "integer", "minimum": 0, "description": "that the model saw"},
        cut={"type": "boolean", "description": "and that it had more"},
        error={"enum": [None, *get_args(Error)], "description": "then no labels and no scores"},
    )
    one = labels if space.many else {"enum": space.labels}
    single = _object(
        **({"input": text} if echo else {}),
        prediction={"anyOf": [one, {"type": "null", "description": "it abstained"}]},
        cut={"type": "boolean", "description": "the model saw only its beginning"},
        time_ms=milliseconds,
    )
    texts = {"type": "array", "items": text, "minItems": 1, "maxItems": limits.texts}
    results = {"type": "array", "items": row, "description": "in the order of the texts"}
    return {
        "request": {"oneOf": [_object(text=text), _object(texts=texts)]},
        "answer": {"oneOf": [single, _object(results=results, time_ms=milliseconds)]},
    }


def _object(**properties: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": [*properties],
        "additionalProperties": False,
    }


def _answers(schema: Mapping[str, Any], *statuses: int) -> dict[int | str, dict[str, Any]]:
    """An operation's answers: what it is for, and why it may be refused, with each of `statuses` or as
    any other."""
    told = {200: schema}
    for status in sorted({*statuses, *_ANYWHERE}):
        reasons = [reason for reason, (own, _, _) in REASONS.items() if own == status]
        told[status] = _object(error={"enum": reasons}, message={"type": "string"})
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {"application/json": {"schema": one}},
            **({"headers": {_TOLD[status]: {"schema": {"type": "string"}}}} if status in _TOLD else {}),
        }
        for status, one in told.items()
    }
