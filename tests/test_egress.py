"""MLflow's page and the team's server run on a network that leads nowhere, and try to reach nobody.

The pipeline itself, and `undertone predict`, run there in test_repro.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.network import NotHere, Nowhere

pytestmark = pytest.mark.services

ROOT = Path(__file__).parents[1]
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true"}  # as the README has it
ASK = """
import json, sys, time
from urllib.request import Request, urlopen
site = "http://127.0.0.1:" + sys.argv[1]
for _ in range(120):
    try:
        urlopen(f"{site}/health", timeout=2)
        break
    except OSError:
        time.sleep(0.5)
assert b"MLflow" in urlopen(site).read()
def post(path, content):
    head = {"Content-Type": "application/json"}
    place = f"{site}/api/2.0/mlflow/{path}"
    return json.load(urlopen(Request(place, json.dumps(content).encode(), head)))
made = post("experiments/create", {"name": "egress"})["experiment_id"]
run = post("runs/create", {"experiment_id": made})["run"]["info"]["run_id"]
post("runs/log-metric", {"run_id": run, "key": "loss", "value": 1.0, "timestamp": 1})
assert len(post("experiments/search", {"max_results": 9})["experiments"]) == 2
time.sleep(float(sys.argv[2]))
"""


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Nowhere]:
    nowhere = Nowhere(tmp_path / "network")
    try:
        nowhere.__enter__()
    except NotHere as reason:
        pytest.skip(str(reason))
    yield nowhere
    nowhere.__exit__(None, None, None)


def environment(home: Path) -> dict[str, str]:
    """Without all that would tell MLflow that it is tested, or must keep quiet."""
    told = ("MLFLOW_", "DVC_", "PYTEST_")
    alone = ("CI", "GITHUB_ACTIONS", "GITLAB_CI", "DO_NOT_TRACK")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(told)}
    return {name: value for name, value in kept.items() if name not in alone} | {"HOME": str(home)}


def shown(
    network: Nowhere, folder: Path, template: Path, quiet: dict[str, str], wait: float
) -> list[str]:
    """What `mlflow ui` tried to reach while it was used."""
    shutil.copyfile(template, folder / "mlflow.db")
    own = environment(folder) | quiet
    port = "5001"  # the network is its own: nobody else has it
    command = [sys.executable, "-m", "mlflow", "ui", "--port", port, "--workers", "1"]
    with (folder / "page.log").open("w") as log:
        page = subprocess.Popen(
            [*network.prefix(folder), *command],
            env=own,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            asking = [sys.executable, "-c", ASK, port, str(wait)]
            subprocess.run([*network.prefix(folder), *asking], env=own, check=True, timeout=180)
        finally:
            os.killpg(page.pid, signal.SIGKILL)
            page.wait()
    return network.tried


def test_mlflows_page_reaches_for_nobody(network: Nowhere, tmp_path: Path, template: Path) -> None:
    assert shown(network, tmp_path, template, QUIET, wait=5) == []
    assert network.packets == 0


def test_without_its_variable_the_page_would_report_home(
    network: Nowhere, tmp_path: Path, template: Path
) -> None:
    """What shows that the other could have failed."""
    tried = shown(network, tmp_path, template, {}, wait=15)
    assert [one for one in tried if "telemetry" in one]
    assert network.packets == len(tried)


SERVER = """
import sys, time
from pathlib import Path
from tests.mlflow_server import postgresql, server
with postgresql() as database, server(database, Path(sys.argv[1])) as running:
    admin = running.admin
    made = admin.ask("POST", "2.0/mlflow/experiments/create", name="egress")
    found = admin.ask("GET", "2.0/mlflow/experiments/search", max_results=9)
    assert len(found["experiments"]) == 2
    time.sleep(5)
print("used")
"""


def test_the_teams_server_reaches_for_nobody(network: Nowhere, tmp_path: Path) -> None:
    done = subprocess.run(
        [*network.prefix(ROOT), sys.executable, "-c", SERVER, str(tmp_path / "server")],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=300,
    )
    if "is not installed" in done.stderr:
        pytest.skip(done.stderr.splitlines()[-1])
    assert done.stdout.endswith("used\n"), done.stderr[-2000:]
    assert network.tried == []
    assert network.packets == 0
