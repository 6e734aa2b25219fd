"""Where a result comes from: commit, DVC experiment, library versions, process; as tags of texts."""

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

COMMIT = "mlflow.source.git.commit"  # the tag that MLflow's pages show as the version
EXPERIMENT = "dvc.experiment"
HOST = "process.host"
CODE = ("stages", "undertone", "codebooks", "params.yaml", "dvc.yaml")
PACKAGES = (
    *("mlflow", "dvc", "numpy", "pandas", "scikit-learn", "torch", "transformers"),
    *("tokenizers", "sentence-transformers", "onnxruntime"),
)


def here() -> dict[str, str]:
    """All there is to say of this moment."""
    return {**source(), **versions(), **process()}


def source() -> dict[str, str]:
    """What git and DVC say; a dirty commit doesn't hold the code that runs."""
    found = {
        COMMIT: git("rev-parse", "--verify", "--quiet", "HEAD"),
        "dvc.stage": os.environ.get("DVC_STAGE"),
        EXPERIMENT: os.environ.get("DVC_EXP_NAME"),
        "dvc.baseline": os.environ.get("DVC_EXP_BASELINE_REV"),
    }
    changed = git("status", "--porcelain", "--", *CODE)  # not dvc.lock: every stage changes it
    return {
        **{key: value for key, value in found.items() if value},
        "git.dirty": str(bool(changed)).lower(),
    }


def versions() -> dict[str, str]:
    found = {"version.python": sys.version.split()[0]}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[f"version.{package}"] = version(package)
    return found


def process() -> dict[str, str]:
    """This process, told apart from a later one with the same number by its start."""
    this = psutil.Process()
    return {
        HOST: socket.gethostname(),
        "process.pid": str(this.pid),
        "process.started": f"{this.create_time():.2f}",
    }


def alive(tags: Mapping[str, str]) -> bool:
    """Whether the process of these tags, of this machine, still runs."""
    try:
        other = psutil.Process(int(tags["process.pid"]))
        if other.status() == psutil.STATUS_ZOMBIE:
            return False
        started = other.create_time()
    except psutil.NoSuchProcess:
        return False
    # the clock may be corrected meanwhile, by less than it takes for a number to come round again
    return abs(started - float(tags["process.started"])) < 2


def threads() -> int:
    """Those of torch where it is loaded, else the machine's cores."""
    torch = sys.modules.get("torch")
    return int(torch.get_num_threads()) if torch else os.cpu_count() or 1


def git(*arguments: str, at: Path | None = None) -> str:
    """What git prints; empty when it fails, or isn't there."""
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=at,
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
        )
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
