"""Whether files still hold the bytes that dvc.lock and the .dvc pointers name.

DVC trusts its cache: a flipped byte there reaches the workspace with exit code 0.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from undertone.errors import Problem
from undertone.files import md5

LOCK = Path("dvc.lock")
SHOWN = 5  # broken paths named in a problem


@dataclass(frozen=True)
class Record:
    """`by` says that `path` hashes to `md5` (with .dir at its end for a folder): a stage's name,
    or a pointer's path."""

    path: Path
    md5: str
    by: str


def locked(lock: Path = LOCK) -> list[Record]:
    """What each stage wrote when it ran last; nothing where none has run yet."""
    return _outputs(_stages(lock))


def pointed(pointer: Path) -> list[Record]:
    """What a .dvc file points to, as paths from the folder that the pointer's own path starts at."""
    outs = _read(pointer).get("outs") or []
    return [
        Record(pointer.parent / out["path"], out["md5"], str(pointer)) for out in outs if "md5" in out
    ]


def refuse_broken(paths: Iterable[Path], *, stage: str, items: Iterable[str]) -> None:
    """`Problem` where one of a stage's paths holds other bytes than its maker is said to have written.

    `stage` is the one about to run, whose own outputs may hold anything. Of the other stages count
    those without an item and those for one of `items` (`train@standin-bert` is for standin-bert):
    dvc.lock also has what other sources and former candidates left. A file in a recorded folder
    stands for the whole folder, a folder for every recorded path in it. What is absent is DVC's
    business.
    """
    wanted = set(items)
    stages = _stages(LOCK)
    used = {path for path in paths if not path.is_absolute()}
    # what it took when it ran last, such as a base that its command line doesn't name
    used |= {Path(dep["path"]) for dep in stages.get(stage, {}).get("deps") or []}
    records = [
        one
        for one in _outputs(stages)
        if one.by != stage and ("@" not in one.by or one.by.partition("@")[2] in wanted)
    ]
    records += [record for pointer in _pointers(used) for record in pointed(pointer)]
    touched = {
        one.path: one
        for one in records
        for path in used
        if path == one.path or path in one.path.parents or one.path in path.parents
    }
    broken = [one for one in touched.values() if one.path.exists() and md5(one.path) != one.md5]
    if not broken:
        return
    named = ", ".join(str(one.path) for one in broken[:SHOWN])
    more = f" and {len(broken) - SHOWN} more" if len(broken) > SHOWN else ""
    raise Problem(
        f"not the bytes that {broken[0].by} recorded",
        where=f"{named}{more}",
        remedy=f"`dvc checkout --force {broken[0].path}` brings back what was recorded, after"
        " `undertone verify --repair` and `dvc pull` where the cache is damaged too;"
        " what was changed on purpose has to go through its stage, or `dvc add`.",
    )


def _pointers(paths: Iterable[Path]) -> set[Path]:
    """The .dvc files of these paths, of the folders above them, and of what is in them."""
    beside = {
        pointer
        for path in paths
        for one in (path, *path.parents)
        if one.name and (pointer := one.with_name(f"{one.name}.dvc")).is_file()
    }
    return beside | {pointer for path in paths for pointer in path.rglob("*.dvc") if pointer.is_file()}


def _stages(lock: Path) -> dict[str, Any]:
    return _read(lock).get("stages") or {} if lock.exists() else {}


def _outputs(stages: dict[str, Any]) -> list[Record]:
    return [
        Record(Path(out["path"]), out["md5"], name)
        for name, stage in stages.items()
        for out in stage.get("outs") or []
        if "md5" in out
    ]


def _read(path: Path) -> dict[str, Any]:
    # the C loader, as each stage waits for it; no types, as 7e12 would be a number
    try:
        content = yaml.load(path.read_bytes(), yaml.CBaseLoader)
    except yaml.YAMLError:
        content = None
    if not isinstance(content, dict):
        raise Problem("not readable", where=str(path), remedy=f"Run `git checkout {path}`.")
    return content
