"""Files as DVC sees them: digests of their bytes, and writing them whole or not at all."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from undertone.errors import Problem


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path beside `path` to write a file or folder to; it takes `path`'s place on success.

    After an exception, or a kill, `path` holds what it held before. The name is fixed, so that
    what a killed run left behind is swept by the next one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.tmp")  # .*.tmp is ignored by git
    remove(beside)
    try:
        yield beside
        if not beside.exists():
            raise FileNotFoundError(f"nothing was written for {path}")
        for file in [beside, *beside.rglob("*")] if beside.is_dir() else [beside]:
            if file.is_file():
                _sync(file)
        if path.is_dir():
            remove(path)  # a folder can't be replaced in one step
        os.replace(beside, path)
    finally:
        remove(beside)


def write_json(path: Path, content: object) -> None:
    """`content` as JSON that differs only where the content does."""
    with whole(path) as beside:
        beside.write_text(
            json.dumps(content, ensure_ascii=False, indent=2, allow_nan=False) + "\n", "utf-8"
        )


def read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise Problem("no such file", where=str(path), remedy="Run `dvc repro`, or `dvc pull`.")
    try:
        content = json.loads(path.read_text("utf-8"))
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise Problem("not readable as JSON", where=str(path), remedy="Run `dvc repro`, or `dvc pull`.")
    return content


def md5(path: Path) -> str:
    """The md5 of a file's bytes or of a folder's listing, as dvc.lock holds it.

    A folder's is the md5 of the JSON list of its files, sorted by path, with the suffix `.dir`;
    without those that .dvcignore names.
    """
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest()
    if not path.is_dir():
        raise Problem("no such file or folder", where=str(path))
    listing = sorted(
        (
            {"md5": md5(file), "relpath": file.relative_to(path).as_posix()}
            for file in path.rglob("*")
            if file.is_file() and not _ignored(file.relative_to(path))
        ),
        key=lambda entry: entry["relpath"],
    )
    return hashlib.md5(json.dumps(listing, sort_keys=True).encode()).hexdigest() + ".dir"


def _ignored(inside: Path) -> bool:
    return (
        inside.suffix in (".tmp", ".pyc")
        or inside.name == ".gitignore"
        or "__pycache__" in inside.parts
        or inside.name.startswith("~$")
        or (inside.name.startswith(".~lock.") and inside.name.endswith("#"))
    )


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def root(start: Path | None = None) -> Path:
    """The repository's folder: the first one upwards that holds `.dvc`.

    An experiment's temporary copy stands for the repository it was made from, so that every way of
    running reaches one store. Not from $DVC_ROOT, which a process inherits from another repository.
    """
    here = (start or Path.cwd()).resolve()
    here = Path(str(here).partition("/.dvc/tmp/exps/")[0])
    for folder in (here, *here.parents):
        if (folder / ".dvc").is_dir():
            return folder
    raise Problem("no folder above holds .dvc", where=str(here), remedy="Work inside the repository.")


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def remove(path: Path) -> None:
    """A file, or a folder with all that is in it, is gone; a kill meanwhile leaves no half of it."""
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return
    nameless = path.with_name(f".{path.name}.gone.tmp")  # .*.tmp is ignored by git
    if nameless.exists():
        shutil.rmtree(nameless)
    shutil.rmtree(path.rename(nameless))
