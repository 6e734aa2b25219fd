"""The server as its clients meet it: what it answers, what it refuses, and what it never says."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import jsonschema
import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

from benchmarks import load
from benchmarks.load import Running, served
from tests import registered
from undertone.cli import main
from undertone.deployment import serving
from undertone.deployment.limits import Limits
from undertone.deployment.predictor import Predictor
from undertone.deployment.scoring import local, score
from undertone.deployment.service import Service

CANARY = "zq70316852914kx"
TOKEN = "a token, of tests"
TEXTS = [
    "good day",
    "bad day",
    "good",
    "bad bad bad",
    "day good",
    f"good {CANARY}",
    "good\nday",
    "好 good",
]
LONG = "good " * 9  # of 8 tokens
JSON = {"content-type": "application/json"}
TYPE = "content-type: application/json"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served") / "bundle"
    registered.release(folder, encoder="md5")
    return folder


@pytest.fixture(scope="module")
def server(bundle: Path) -> Iterator[Running]:
    with served(bundle, bundle.parent, "--arrival", "1", "--texts", "50", "--body", "20000") as running:
        yield running


@pytest.fixture(scope="module")
def guarded(bundle: Path) -> Iterator[Running]:
    given = ["--echo", "--long", "refuse"]
    with served(bundle, bundle.parent, *given, environment={"UNDERTONE_TOKEN": f"{TOKEN}\n"}) as running:
        yield running


def ask(
    running: Running, path: str, content: object = None, **headers: str
) -> tuple[int, dict[str, str], Any]:
    line = HTTPConnection("127.0.0.1", running.port, timeout=10)
    body = None if content is None else json.dumps(content).encode()
    line.request("GET" if body is None else "POST", path, body, {**JSON, **headers})
    answer = line.getresponse()
    told = answer.read()
    line.close()
    plain = not answer.headers["content-type"].startswith("application/json")
    return answer.status, dict(answer.headers), told.decode() if plain else json.loads(told)


def logged(running: Running, last: str) -> str:
    """The log, once its last line has `last`: it is written ten times a second."""
    end = time.monotonic() + 10
    while last not in (log := running.log.read_text()).rstrip().rpartition("\n")[2]:
        assert time.monotonic() < end, log[-1000:]
        time.sleep(0.05)
    return log


def known(running: Running, path: str, content: object = None) -> tuple[int, dict[str, str], Any]:
    return ask(running, path, content, Authorization=f"Bearer {TOKEN}")


def test_a_text_gets_the_published_answer_and_is_not_repeated(server: Running) -> None:
    status, headers, told = ask(server, "/predict", {"text": TEXTS[0]})
    assert (status, told["prediction"]) == (200, "yes")
    assert told.keys() == {"prediction", "cut", "time_ms"}
    assert 0 <= told["time_ms"] < 10_000
    assert headers["cache-control"] == "no-store"


def test_the_input_is_repeated_where_that_is_asked_for(guarded: Running) -> None:
    status, _, told = known(guarded, "/predict", {"text": TEXTS[1]})
    assert status == 200
    assert {**told, "time_ms": 0} == {"input": TEXTS[1], "prediction": "no", "cut": False, "time_ms": 0}


def test_command_line_http_batch_and_alone_say_the_same(
    server: Running, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = Predictor.load(bundle).predict(TEXTS)
    given = [word for text in TEXTS for word in ("--text", text)]
    assert main(["predict", "--bundle", str(bundle), *given]) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == rows
    assert ask(server, "/predict", {"texts": TEXTS})[2]["results"] == rows
    with ThreadPoolExecutor(8) as pool:  # so that the server batches them as they come
        alone = pool.map(
            lambda text: ask(server, "/predict", {"texts": [text]})[2]["results"], TEXTS * 5
        )
        assert [row for (row,) in alone] == rows * 5
        single = pool.map(lambda text: ask(server, "/predict", {"text": text})[2]["prediction"], TEXTS)
        assert [[one] for one in single] == [row["labels"] for row in rows]


def test_a_batch_says_of_each_text_what_is_wrong_with_it(server: Running, guarded: Running) -> None:
    texts = ["good", "", " \u200b", LONG]
    rows = ask(server, "/predict", {"texts": texts})[2]["results"]
    assert [row["error"] for row in rows] == [None, "empty", "empty", None]
    assert [row["cut"] for row in rows] == [False, False, False, True]
    assert [row["labels"] for row in rows] == [["yes"], [], [], ["yes"]]
    refused = known(guarded, "/predict", {"texts": texts})[2]["results"]
    assert [row["error"] for row in refused] == [None, "empty", "empty", "too_long"]
    assert refused[3]["scores"] == {}


def test_what_is_no_character_is_told_alike_by_all_and_leaves_its_neighbours_alone(
    server: Running, bundle: Path, tmp_path: Path
) -> None:
    texts = ["good", "good\0day", "good \ud83d", "good \ud83d\ude00 day"]
    errors = [None, "broken_character", "broken_character", None]
    rows = Predictor.load(bundle).predict(json.loads(json.dumps(texts)))  # which joins the last's halves
    assert [row["error"] for row in rows] == errors
    assert [row["labels"] for row in rows] == [["yes"], [], [], ["yes"]]
    assert ask(server, "/predict", {"texts": texts})[2]["results"] == rows
    for text, row in zip(texts, rows, strict=True):
        assert ask(server, "/predict", {"texts": [text]})[2]["results"] == [row]
        status, _, told = ask(server, "/predict", {"text": text})
        assert (status, told.get("error")) == (422 if row["error"] else 200, row["error"])
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    score([str(tmp_path / "in.jsonl")], tmp_path / "out", bundle, local)
    table = pq.read_table(tmp_path / "out").to_pylist()
    assert [row["error"] for row in table] == errors
    assert [row["yes"] for row in table] == [row["scores"].get("yes") for row in rows]


def test_a_text_to_which_the_model_has_no_number_is_no_fault_of_the_server(tmp_path: Path) -> None:
    registered.release(tmp_path / "bundle", encoder="md5", good=float("nan"))
    with TestClient(Service(Predictor.load(tmp_path / "bundle"), Limits())) as client:
        answer = client.post("/predict", json={"text": "good"})
        assert (answer.status_code, answer.json()["error"]) == (422, "no_answer")
        (row,) = client.post("/predict", json={"texts": ["good"]}).json()["results"]
        assert (row["error"], row["scores"]) == ("no_answer", {})
        assert client.post("/predict", json={"text": "bad"}).json()["prediction"] == "no"


def test_a_single_text_that_is_cut_says_so(server: Running) -> None:
    assert ask(server, "/predict", {"text": LONG})[2]["cut"] is True


def test_a_single_text_that_can_not_be_judged_is_refused(server: Running, guarded: Running) -> None:
    assert ask(server, "/predict", {"text": "\u200b"})[::2] == (
        422,
        {"error": "empty", "message": "There is nothing to read in the text."},
    )
    assert ask(server, "/predict", {"text": LONG})[0] == 200
    status, _, told = known(guarded, "/predict", {"text": LONG})
    assert (status, told["error"]) == (422, "too_long")


def test_every_answer_has_the_shape_that_openapi_promises(server: Running) -> None:
    paths = ask(server, "/openapi.json")[2]["paths"]
    assert paths.keys() == {"/predict", "/livez", "/readyz", "/info", "/metrics"}
    promised = paths["/predict"]["post"]
    wanted = promised["requestBody"]["content"]["application/json"]["schema"]
    for content in (
        {"text": "good"},
        {"texts": ["good", "", LONG]},
        {"text": ""},
        {"texts": ["a"] * 51},
    ):
        status, _, told = ask(server, "/predict", content)
        answer = promised["responses"][str(status)]["content"]["application/json"]["schema"]
        jsonschema.validate(told, answer)
        if status == 200:
            jsonschema.validate(content, wanted)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"text": "a", "texts": ["a"]}, wanted)
    for path, operations in paths.items():
        for method, operation in operations.items():
            other = "POST" if method == "get" else "GET"
            line = HTTPConnection("127.0.0.1", server.port, timeout=10)
            line.request(other, path)
            answer = line.getresponse()
            promised = operation["responses"][str(answer.status)]
            assert (answer.status, answer.headers["allow"] is None) == (405, False)
            assert promised["headers"].keys() == {"Allow"}
            shape = promised["content"]["application/json"]["schema"]
            jsonschema.validate(json.loads(answer.read()), shape)
            line.close()
            assert "404" in operation["responses"]


def test_info_says_what_runs_and_what_it_takes(server: Running, bundle: Path) -> None:
    told = ask(server, "/info")[2]
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert (told["digest"], told["sha256"]) == (manifest["digest"], manifest["sha256"])
    assert told["labels"] == [{"id": "yes", "name": "yes"}, {"id": "no", "name": "no"}]
    assert (told["limits"]["body"], told["limits"]["texts"], told["tokens"]) == (20_000, 50, 8)


def test_metrics_count_requests_texts_errors_and_quantiles(bundle: Path) -> None:
    service = Service(Predictor.load(bundle), Limits())
    with TestClient(service) as client:
        for _ in range(3):
            client.post("/predict", json={"texts": ["good", "bad"]})
        client.post("/predict", json={"text": ""})
        client.get(f"/{CANARY}")
        client.request(CANARY, "/livez")
        metrics = client.get("/metrics").text
    for line in (
        'undertone_requests_total{path="/predict",status="200"} 3.0',
        'undertone_requests_total{path="other",status="404"} 1.0',
        'undertone_errors_total{error="empty"} 1.0',
        'undertone_errors_total{error="busy"} 0.0',
        "undertone_request_seconds_count 3.0",
        'undertone_request_seconds_bucket{le="+Inf"} 3.0',
        "undertone_texts_total 6.0",
        "undertone_queue_requests 0.0",
        "undertone_queue_tokens 0.0",
        "undertone_batch_texts_sum 7.0",
    ):
        assert f"\n{line}\n" in metrics, line
    found = re.findall(r'undertone_recent_seconds\{quantile="(.+?)"\} (\S+)', metrics)
    assert [name for name, _ in found] == ["0.5", "0.95", "0.99"]
    assert 0 < float(found[0][1]) <= float(found[1][1]) <= float(found[2][1]) < 10
    assert "process_resident_memory_bytes" in metrics
    assert CANARY not in metrics


def test_who_would_wait_too_long_is_told_when_to_come_again(bundle: Path) -> None:
    with TestClient(Service(Predictor.load(bundle), Limits(queue=0))) as client:
        answer = client.post("/predict", json={"text": "good"})
    assert (answer.status_code, answer.json()["error"]) == (429, "busy")
    assert int(answer.headers["retry-after"]) >= 1


def test_a_server_that_stops_says_so_first_and_still_answers(bundle: Path) -> None:
    service = Service(Predictor.load(bundle), Limits())
    with TestClient(service) as client:
        assert client.get("/readyz").json() == {"status": "ready"}
        service.stopping = True
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json()["error"]) == (503, "stopping")
        assert client.get("/livez").status_code == 200
        answer = client.post("/predict", json={"text": "good"})
        assert (answer.status_code, answer.headers["connection"]) == (200, "close")
        service.batcher.close()
        answer = client.post("/predict", json={"text": "good"})
        assert (answer.status_code, answer.json()["error"]) == (503, "stopping")


def test_a_fault_of_the_server_says_where_and_repeats_nothing(
    bundle: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    predictor = Predictor.load(bundle)
    service = Service(predictor, Limits())
    with TestClient(service) as client:
        predictor.space = None  # type: ignore[assignment]
        answer = client.post("/predict", json={"text": CANARY})
    assert (answer.status_code, answer.json()["error"]) == (500, "failed")
    assert "AttributeError" in caplog.text
    assert "predictor.py" in caplog.text
    assert CANARY not in caplog.text + "".join(capsys.readouterr()) + answer.text


def test_without_the_token_nothing_but_probes_and_page(guarded: Running) -> None:
    for path in ("/predict", "/info", "/metrics", "/openapi.json", "/other"):
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}):
            status, answered, told = ask(guarded, path, {"text": "good"}, **headers)
            assert (status, answered["www-authenticate"]) == (401, "Bearer")
            assert told["error"] == "no_token"
    for path in ("/", "/livez", "/readyz"):
        assert ask(guarded, path)[0] == 200
    assert known(guarded, "/info")[0] == 200
    assert "401" in known(guarded, "/openapi.json")[2]["paths"]["/predict"]["post"]["responses"]
    log = logged(guarded, "GET /openapi.json 200")
    assert "POST /predict 401" in log
    assert TOKEN not in log
    line = Path(f"/proc/{guarded.process.pid}/cmdline").read_bytes()
    assert TOKEN.encode() not in line


# ---- bad requests, byte by byte


def post(body: bytes, *headers: str, kind: str = "application/json", path: str = "/predict") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "host: x", f"content-type: {kind}", f"content-length: {len(body)}"]
    return "\r\n".join([*lines, *headers, "", ""]).encode() + body


def head(*lines: str) -> bytes:
    return "\r\n".join([*lines, "", ""]).encode()


def get(line: str, *headers: str) -> bytes:
    return head(line, "host: x", *headers)


def of(content: str) -> bytes:
    return post(content.encode())


FINE = b'{"text":"good"}'
SHAPES = """null|[]|{}|"x"|1|true|{"text":null}|{"text":1}|{"text":true}|{"text":[]}|{"text":{}}|
 {"text":["a"]}|
 {"text":"a","extra":"CANARY"}|{"CANARY":"a"}|{"TEXT":"a"}|{"texts":"CANARY"}|{"texts":[]}|{"texts":null}|
 {"texts":[null]}|{"texts":["a",1]}|{"texts":[["a"]]}|{"texts":{"0":"a"}}|{"text":"a","texts":["a"]}|
 {"text":"\\ud800"}|{"text":"a \\udc00\\ud800 CANARY"}|{"\\ud800":"a"}|
 {"text":""}|{"text":" \\n\\t"}|{"text":"\\u0000"}|{"text":"\\u200b\\ufeff"}|{"text":1e400}"""
BROKEN = """|   |NaN|{"text":NaN}|{"text":Infinity}|{"texts":[-Infinity]}|{"text":"a","text":"CANARY"}|
 {"texts":["a"],"texts":["b"]}|{"text":"a"|{"text":"a",}|{'text':'CANARY'}|{"text":"a"}//|{"text":"a"}{}|
 {text:"CANARY"}|{"text":"\\x41"}|{"text":"\\ud80"}|{"text":"a\tb"}|{"text":"a\nCANARY"}|undefined|/**/{}|
 \ufeff{"text":"a"}|{"a":{"b":1,"b":2}}"""
BAD: list[tuple[bytes, int]] = [
    *((of(one.strip(" \n").replace("CANARY", CANARY)), 422) for one in SHAPES.split("|")),
    *((of(one.lstrip("\n").replace("CANARY", CANARY)), 400) for one in BROKEN.split("|")),
    (post(b'{"text":"\xff"}'), 400),
    (post(b'{"text":"\xc0\xaf"}'), 400),
    (post(b'{"text":"\xed\xa0\x80"}'), 400),  # a surrogate, as no UTF-8 has it
    (post('{"text":"a"}'.encode("utf-16")), 400),
    (post(b"\x1f\x8b\x08\x00CANARY"), 400),
    (of("[" * 15_000), 400),
    (of('{"text":' * 2_000 + "1" + "}" * 2_000), 400),
    (of('{"text":' + "9" * 5_000 + "}"), 400),
    (of(json.dumps({"texts": ["a"] * 51})), 413),
    (of(json.dumps({"text": "a" * 20_000})), 413),
    (
        head(
            "POST /predict HTTP/1.1",
            "host: x",
            "content-type: application/json",
            "content-length: 99999",
        ),
        413,
    ),
    (post(FINE, kind="text/plain"), 415),
    (post(b"text=" + CANARY.encode(), kind="application/x-www-form-urlencoded"), 415),
    (post(FINE, kind="application/json; charset=latin-1"), 415),
    (post(FINE, kind="application/jsonx"), 415),
    (post(FINE, kind=""), 415),
    (post(FINE, kind=f"multipart/form-data; boundary={CANARY}"), 415),
    (post(FINE, "content-encoding: gzip"), 415),
    (get("POST /predict HTTP/1.1"), 415),
    *(
        (get(f"{method} /predict HTTP/1.1"), 405)
        for method in "GET PUT DELETE PATCH HEAD OPTIONS TRACE".split()
    ),
    (post(FINE, path="/livez"), 405),
    (get("GET /predict HTTP/1.1", "connection: upgrade", "upgrade: websocket"), 405),
    *(
        (post(FINE, path=path), 404)
        for path in (
            f"/{CANARY}",
            "/predict/",
            "//predict",
            "/predict%2f",
            "/predict%0a",
            "/livez%0A",
            "/Predict",
            "/../predict",
            "/%zz",
            "/docs",
            "/redoc",
            f"/{CANARY}?text={CANARY}",
        )
    ),
    (get("GET /%ff%fe HTTP/1.1"), 404),
    (get("GET /undertone/service.html HTTP/1.1"), 404),
    (b"GET /\xff HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    (get("CONNECT x:80 HTTP/1.1"), 400),
    (get("OPTIONS * HTTP/1.1"), 404),
    (get(f"{CANARY} /livez HTTP/1.1"), 400),
    (get("get /livez HTTP/1.1"), 400),
    (get("GET /livez HTTP/9.9"), 400),
    (get("GET /livez HTTP/1.1", f"no colon {CANARY}"), 400),
    (get("GET /livez HTTP/1.1", "a b: c"), 400),
    (get("GET /livez HTTP/1.1", "a: b\x00c"), 400),
    (get("GET /livez HTTP/1.1", "content-length: -1"), 400),
    (get("GET /livez HTTP/1.1", "content-length: 99999999999999999999999"), 400),
    (get("GET /livez HTTP/1.1", "content-length: 1", "content-length: 2"), 400),
    (post(FINE, "transfer-encoding: chunked"), 400),  # and a length: two requests in one
    (get("POST /predict HTTP/1.1", "transfer-encoding: gzip, x"), 400),
    (
        get("POST /predict HTTP/1.1", "content-type: application/json", "transfer-encoding: chunked")
        + b"zz\r\n",
        400,
    ),
    (get("GET /livez HTTP/1.1", f"x: {'a' * 16_000}"), 200),
    (get("GET /livez HTTP/1.1", f"x: {'a' * 17_000}"), 431),  # in one piece, and read at once
    (get("GET /livez HTTP/1.1", *["a: b"] * 3_000), 431),
    (b"GET /livez HTTP/1.1\r\nhost: x\r\nx: " + b"a" * 300_000, 431),
    (b"GET /" + b"a" * 300_000, 431),
    (post(b"{" * 50)[:-9], 408),
    (b"GET /livez HT", 408),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),  # TLS
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    (b"SSH-2.0-OpenSSH_9.2\r\n", 400),
    (b"\x00" * 100, 400),
]


def raw(port: int, request: bytes) -> bytes:
    """All that comes back until a whole answer is here, or the connection's end."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), 10) as line:
        try:
            line.sendall(request)
            while b"\r\n\r\n" not in answer and (part := line.recv(65536)):
                answer += part
        except ConnectionError:
            pass
    return answer


def test_every_bad_request_gets_its_own_answer_and_none_is_the_servers_fault(server: Running) -> None:
    assert len(BAD) >= 60
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda one: raw(server.port, one[0]), BAD))
    wrong = [
        (request[:90], expected, answer[:60])
        for (request, expected), answer in zip(BAD, answers, strict=True)
        if not answer.startswith(b"HTTP/1.1 %d " % expected)
    ]
    assert wrong == []
    assert b"".join(answers).count(CANARY.encode()) == 0
    assert ask(server, "/predict", {"text": "good"})[2]["prediction"] == "yes"


def test_no_bad_request_leaves_a_word_in_log_or_metrics(server: Running) -> None:
    for request, _ in BAD:
        if CANARY.encode() in request:
            raw(server.port, request)
    canaries = dict.fromkeys(("user-agent", "x-forwarded-for", "referer", "cookie"), CANARY)
    assert ask(server, f"/predict?text={CANARY}", {"text": CANARY}, **canaries)[0] == 200
    assert ask(server, "/livez", **canaries)[0] == 200
    log = logged(server, "GET /livez 200")
    assert "POST /predict 200" in log
    assert "POST other 404" in log
    assert CANARY not in log + ask(server, "/metrics")[2]
    assert "Traceback" not in log


# ---- connections


def test_one_connection_more_than_allowed_ends_the_one_that_waits_longest(bundle: Path) -> None:
    with served(bundle, bundle.parent, "--connections", "3") as running:
        first, *others = (socket.create_connection(("127.0.0.1", running.port), 5) for _ in range(3))
        assert [alive(line) for line in others] == [True, True]
        assert ask(running, "/livez")[0] == 200
        assert [alive(line) for line in (first, *others)] == [False, True, True]


def alive(line: socket.socket) -> bool:
    try:
        line.sendall(get("GET /livez HTTP/1.1"))
        answer = b""
        while part := line.recv(4096):
            answer += part
            if answer.endswith(b"}"):
                return True
        return False
    except ConnectionError:
        return False


def exchanged(port: int, *pieces: bytes, answers: int = 1) -> bytes:
    """What comes back while `pieces` are sent one after the other, each in a read of its own."""
    told = b""
    with socket.create_connection(("127.0.0.1", port), 10) as line:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            line.sendall(piece)
            time.sleep(0.05)
        while told.count(b"HTTP/1.1 ") < answers and (part := line.recv(65536)):
            told += part
    return told


def test_headers_have_one_limit_however_they_come(server: Running) -> None:
    for size, status in ((16_000, 200), (17_000, 431)):
        asked = get("GET /livez HTTP/1.1", f"x: {'a' * size}")
        for pieces in ([asked], [asked[:9_000], asked[9_000:]], [asked[:-2], asked[-2:]]):
            assert exchanged(server.port, *pieces).startswith(b"HTTP/1.1 %d " % status), len(pieces)


def test_requests_sent_ahead_are_answered_in_order_and_too_many_end_the_connection(
    server: Running,
) -> None:
    ahead = [get("GET /livez HTTP/1.1"), get("GET /info HTTP/1.1"), of('{"text":"good"}')] * 5
    told = exchanged(server.port, b"".join(ahead), answers=15)
    assert told.count(b"HTTP/1.1 200 OK") == 15
    order = [told.index(one) for one in (b'"alive"', b'"thresholds"', b'"prediction"')]
    assert order == sorted(order)
    assert exchanged(server.port, get("GET /livez HTTP/1.1") * 40, answers=40) == b""


def test_what_the_parser_refuses_is_counted_and_logged(bundle: Path) -> None:
    with served(bundle, bundle.parent, "--arrival", "1") as running:
        raw(running.port, b"no HTTP\r\n\r\n")
        raw(running.port, b"GET /" + b"a" * 20_000)
        raw(running.port, b"GET /livez HT")
        assert raw(running.port, post(b"{" * 50)[:-9]).endswith(b' seconds."}')
        chunked = get("POST /predict HTTP/1.1", TYPE, "transfer-encoding: chunked")
        raw(running.port, chunked + b"zz\r\n")
        ask(running, "/livez")
        log = logged(running, "GET /livez 200")
        metrics = ask(running, "/metrics")[2]
    for status, lines in ((400, 1), (408, 1), (431, 1)):
        assert log.count(f" other other {status} ") == lines, log
        assert f'undertone_requests_total{{path="other",status="{status}"}} 1.0' in metrics
    for status in (400, 408):
        assert log.count(f" POST /predict {status} ") == 1, log
    for reason, times in (("malformed", 2), ("late", 2), ("long_head", 1)):
        assert f'undertone_errors_total{{error="{reason}"}} {times}.0' in metrics


def test_a_client_that_left_before_its_answer_is_not_counted_as_answered(bundle: Path) -> None:
    with served(bundle, bundle.parent, "--threads", "1") as running:
        texts = post(json.dumps({"texts": ["good " * 200] * 200}).encode())
        with socket.create_connection(("127.0.0.1", running.port), 10) as line:
            line.sendall(texts)
        log = logged(running, "POST /predict")
        assert " POST /predict 499 " in log
        assert "undertone_texts_total 0.0" in ask(running, "/metrics")[2]


def test_a_connection_refused_before_its_body_came_is_not_kept_for_ever(bundle: Path) -> None:
    with served(bundle, bundle.parent, "--idle", "1", "--body", "10") as running:
        asked = post(b"x" * 100)
        with socket.create_connection(("127.0.0.1", running.port), 20) as line:
            line.sendall(asked[:-100])
            assert line.recv(4096).startswith(b"HTTP/1.1 413 ")
            line.sendall(asked[-100:])
            while line.recv(4096):
                pass  # the answer's rest, then the end: else this waits until it fails


def test_a_log_that_can_not_be_written_ends_nothing(bundle: Path) -> None:
    script = (
        "import os, sys; from undertone.cli import main\n"
        "os.dup2(os.open('/dev/full', os.O_WRONLY), 1); sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", script, "serve"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load, "COMMAND", command)
        with served(bundle, bundle.parent, "--grace", "0") as running:
            for _ in range(3):
                assert ask(running, "/livez")[0] == 200
                time.sleep(0.3)
            assert "undertone_log_lines_lost_total 3.0" in ask(running, "/metrics")[2]
            assert running.stop()[0] == 0
            assert "Error" not in running.log.read_text()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_server_whose_scoring_thread_ended_does_not_say_that_it_is_well(bundle: Path) -> None:
    service = Service(Predictor.load(bundle), Limits())
    with TestClient(service) as client:
        assert client.get("/livez").status_code == 200
        batcher = service.batcher
        with batcher._changed:
            batcher._waiting.append(None)  # type: ignore[arg-type]
            batcher._changed.notify()
        batcher._thread.join(10)
        assert client.get("/livez").status_code == 500
        assert client.post("/predict", json={"text": "good"}).status_code == 503


# ---- how it starts


def test_who_serves_has_no_torch_transformers_or_mlflow(bundle: Path) -> None:
    script = (
        "import sys; from undertone import cli; from undertone.deployment import serving\n"
        "serving.Server.run = lambda self, sockets: print(*sys.modules)\n"
        "sys.exit(cli.main(['serve', sys.argv[1], '--port', '0']))"
    )
    command = [sys.executable, "-c", script, str(bundle)]  # which serves for ever where it isn't reached
    loaded = subprocess.check_output(command, text=True, timeout=60).split()
    assert {"undertone.deployment.service", "fastapi", "onnxruntime"} <= {*loaded}
    heavy = {"torch", "transformers", "mlflow", "pandas", "dvc", "sklearn"}
    assert not heavy & {*loaded}


def test_a_package_that_is_missing_is_told_in_one_line(bundle: Path) -> None:
    script = (
        "import sys; sys.modules['prometheus_client'] = None\n"
        "from undertone.cli import main; sys.exit(main(['serve', sys.argv[1]]))"
    )
    done = subprocess.run([sys.executable, "-c", script, str(bundle)], stderr=subprocess.PIPE, text=True)
    told = "prometheus_client is not installed. Run `pip install -e '.[serve]'` in a clone."
    assert (done.returncode, done.stderr) == (1, f"undertone: undertone serve: {told}\n")


@pytest.mark.parametrize(
    ("given", "environment", "told"),
    [
        (["--host", "0.0.0.0"], {}, "would answer anybody. Set UNDERTONE_TOKEN"),
        (["--host", "::"], {}, "would answer anybody"),
        ([], {"UNDERTONE_TOKEN": " "}, "UNDERTONE_TOKEN: is empty"),
        ([], {"UNDERTONE_TOKEN": ""}, "UNDERTONE_TOKEN: is empty"),
        ([], {"UNDERTONE_TOKEN": "\n"}, "UNDERTONE_TOKEN: is empty"),
        (["--fd", "0"], {}, "--fd 0: no listening socket"),
        (["--fd", "9999"], {}, "--fd 9999: no listening socket"),
        (["--texts", "0"], {}, "--texts: is 0, must be above 0"),
        (["--grace", "-1"], {}, "--grace: is -1.0, must not be below 0"),
        (["--connections", "100000000"], {}, "open files are allowed here"),
        (["--variant", "int4"], {}, "no variant 'int4'"),
    ],
)
def test_what_can_not_start_says_so_in_one_line(
    given: list[str],
    environment: dict[str, str],
    told: str,
    bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(serving.Server, "run", lambda *_: pytest.fail("it has started"))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main(["serve", str(bundle), "--port", "0", *given]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line


def test_a_socket_that_others_reach_needs_a_token_or_leave(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    started = []
    monkeypatch.setattr(serving.Server, "run", lambda _, sockets: started.append(sockets[0].fileno()))
    with socket.socket() as everywhere, socket.socket() as here, socket.socket(socket.AF_UNIX) as local:
        everywhere.bind(("0.0.0.0", 0))
        here.bind(("127.0.0.1", 0))
        local.bind(str(tmp_path / "socket"))
        for one in (everywhere, here, local):
            one.listen()
        assert main(["serve", str(bundle), "--fd", str(everywhere.fileno())]) == 1
        assert "would answer anybody" in capsys.readouterr().err
        allowed = [["--exposed", "--fd", os.dup(everywhere.fileno())]]
        allowed += [["--fd", os.dup(one.fileno())] for one in (here, local)]
        for given in allowed:
            assert main(["serve", str(bundle), *map(str, given)]) == 0
        assert everywhere.getsockname()  # still open
    assert started == [given[-1] for given in allowed]


def test_a_port_in_use_is_told_in_one_line(
    server: Running,
    bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(serving.Server, "run", lambda *_: pytest.fail("it has started"))
    assert main(["serve", str(bundle), "--port", str(server.port)]) == 1
    assert "Address already in use. Choose another --port" in capsys.readouterr().err
