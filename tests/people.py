"""People who share one repository: each with a clone, a home and a DVC cache of their own."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml
from dvc.config import Config
from dvc.utils.hydra import apply_overrides

ROOT = Path(__file__).parents[1]
UNDERTONE = (sys.executable, "-m", "undertone.cli")
DVC = (sys.executable, "-m", "dvc")

# What a source goes through before anything is learnt, and one family that learns in a second.
STAGES = (
    *("sample", "locate", "ingest", "clean", "request", "answer", "collect", "fuse"),
    *("review", "label", "split", "prompt", "generate", "augment", "pseudo"),
    *("resolve", "bases", "adapt", "instruct", "compose", "train", "predict"),
)


class Person:
    """Works in `folder`; `home` holds no more than what the test puts there."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.home = folder.with_name(f"{folder.name}-home")
        self.home.mkdir(parents=True, exist_ok=True)
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("DVC_", "MLFLOW_", "AWS_", "SSH_"))
        }
        self.environment = {
            **kept,
            "PATH": f"{Path(sys.executable).parent}:{kept['PATH']}",
            "HOME": str(self.home),
            "GIT_CONFIG_GLOBAL": os.devnull,
            **{
                f"GIT_{who}_{what}": "t@example.org"
                for who in ("AUTHOR", "COMMITTER")
                for what in ("NAME", "EMAIL")
            },
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DVC_NO_ANALYTICS": "1",
            "OMP_NUM_THREADS": "1",
            **environment,
        }

    def run(
        self, *command: str, check: bool = True, also: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command,
            cwd=self.folder,
            env={**self.environment, **(also or {})},
            capture_output=True,
            text=True,
            timeout=300,
            stdin=subprocess.DEVNULL,
        )
        assert not check or done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done

    def dvc(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run(*DVC, *arguments, check=check)

    def undertone(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run(*UNDERTONE, *arguments, check=check)

    def git(self, *arguments: str) -> str:
        return self.run("git", *arguments).stdout

    def commit(self, message: str) -> None:
        self.git("add", "-A")
        self.git("commit", "-qm", message)

    def remote(self, *, local: bool = False, **settings: object) -> None:
        """What `dvc remote modify [--local] private NAME VALUE` writes, a second for each name."""
        with Config(str(self.folder / ".dvc")).edit("local" if local else "repo") as written:
            written.setdefault("remote", {}).setdefault("private", {}).update(settings)

    def clone(self, folder: Path, **environment: str) -> "Person":
        """Somebody else, with a clone of what is committed and nothing besides."""
        other = Person(folder, **environment)
        self.git("clone", "-q", str(self.folder), str(folder))
        return other

    def cache(self) -> dict[str, Path]:
        """The objects of this clone's cache by name."""
        return objects(self.folder / ".dvc/cache/files/md5")


def objects(folder: Path) -> dict[str, Path]:
    """DVC's objects below `folder` by name; half-written ones aren't among them."""
    return {
        path.parent.name + path.name: path
        for path in sorted(folder.glob("[0-9a-f][0-9a-f]/*"))
        if not path.name.endswith(".tmp")
    }


def ran(done: "subprocess.CompletedProcess[str]") -> list[str]:
    """The stages that ran, by what DVC printed."""
    lines = done.stdout.splitlines()
    return [line.split("'")[1] for line in lines if line.startswith("Running stage")]


def pipeline(folder: Path, overrides: Sequence[str], stages: Sequence[str] = STAGES) -> Person:
    """The owner of a repository like this one, whose dvc.yaml is cut down to `stages`."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    left_out = ("reports/", "tests/", "benchmarks/", "docs/", "dvc.lock")
    for name in filter(None, listing.stdout.decode().split("\0")):
        if (ROOT / name).is_file() and not name.startswith(left_out):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
    whole = yaml.safe_load((folder / "dvc.yaml").read_text("utf-8"))["stages"]
    short = {"stages": {name: whole[name] for name in stages}}
    (folder / "dvc.yaml").write_text(yaml.safe_dump(short, sort_keys=False, allow_unicode=True), "utf-8")
    apply_overrides(folder / "params.yaml", list(overrides))
    owner = Person(folder)
    owner.git("init", "-q")
    return owner
