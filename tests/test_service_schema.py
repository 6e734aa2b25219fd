"""Thousands of requests that schemathesis makes of the server's own OpenAPI: none is its fault."""

import re
import subprocess
import sys
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from benchmarks.load import served
from tests import registered

pytestmark = pytest.mark.services

COUNTED = re.compile(r'undertone_requests_total\{path="[^"]+",status="(\d+)"\} (\S+)')
SETTINGS = """
[checks]
negative_data_rejection.expected-statuses = ["400", "401", "405", "413", "415", "422"]
"""


@pytest.mark.parametrize(("token", "cases"), [("", 2_000), ("a token", 100)])
def test_generated_requests_find_no_fault(token: str, cases: int, tmp_path: Path) -> None:
    registered.release(tmp_path / "bundle", encoder="md5")
    (tmp_path / "schemathesis.toml").write_text(SETTINGS)
    environment = {"UNDERTONE_TOKEN": token} if token else {}
    given = {"Authorization": f"Bearer {token}"} if token else {}
    headers = [word for name, one in given.items() for word in ("--header", f"{name}:{one}")]
    # few texts a request, as schemathesis takes long to write many
    with served(tmp_path / "bundle", tmp_path, "--texts", "4", environment=environment) as server:
        address = f"http://127.0.0.1:{server.port}"
        with urlopen(Request(f"{address}/openapi.json", headers=given)) as answer:
            (tmp_path / "openapi.json").write_bytes(answer.read())
        done = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli", "run", "openapi.json", "--url", address),
                *("--checks", "all", "--phases", "coverage,fuzzing", "--max-examples", str(cases)),
                # an empty text has the right shape, and is refused all the same
                *("--exclude-checks", "positive_data_acceptance", "--continue-on-failure"),
                *("--seed", "7", "--no-color", *headers),
            ],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        with urlopen(Request(f"{address}/metrics", headers=given)) as answer:
            counted = COUNTED.findall(answer.read().decode())
        log = server.log.read_text()
    assert done.returncode == 0, done.stdout[-3000:]
    assert sum(float(count) for _, count in counted) >= cases
    assert [status for status, _ in counted if status.startswith("5")] == []
    assert "Traceback" not in log
