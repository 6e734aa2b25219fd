"""A registered release's files, fetched by a process of its own: who serves them needs no MLflow."""

import os
import subprocess
import sys
from pathlib import Path

from undertone.errors import Problem

_PROBLEM = 3  # the exit status after one, which is then the last line


def fetched(name: str, folder: Path) -> tuple[Path, str]:
    """Its files in `folder`, and which version it is; `Problem` unless it is a release, and the bytes
    that were registered."""
    done = subprocess.run(
        [sys.executable, "-m", __name__, name, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"},
    )
    if done.returncode == _PROBLEM:
        raise Problem(done.stdout.splitlines()[-1])
    if done.returncode:
        raise Problem("was not fetched", where=name, remedy="What is said above is why.")
    path, version = done.stdout.splitlines()[-2:]
    return Path(path), version


def _main(name: str, folder: str) -> int:
    from undertone.records import registry

    try:
        version = registry.find(name)
        if version.tags["role"] != "release":
            remedy = f"Write models:/{version.model}@release."
            raise Problem("is a candidate, and no release", where=name, remedy=remedy)
        print(registry.copy(version, Path(folder)))
        print(f"{version.model}/{version.number}")
    except Problem as problem:
        print(problem)
        return _PROBLEM
    return 0


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
