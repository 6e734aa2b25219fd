"""Bringing private files under DVC, and finding objects whose bytes no longer hash to their names."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import chdir
from dataclasses import dataclass
from hashlib import md5 as new_md5
from pathlib import Path
from typing import Any, BinaryIO, Literal

from ruamel.yaml import YAML

from undertone import files
from undertone.corpus.prescan import kind_of
from undertone.errors import Problem, counted, first_line, without_password
from undertone.params import Source
from undertone.privacy import integrity

PRIVATE = "private"  # the remote that a source's files are pinned to, where .dvc/config has it
ANSWERS, REVIEWS = Path("data/raw/answers"), Path("data/raw/reviews")  # a folder in each for a source
_RESERVED = ("answers", "review", "reviews", "standin")  # folders of data/ that hold something else
_CORRUPT = Path(".dvc/tmp/corrupt")  # not known to git
_OBJECTS = 32  # hexadecimal digits of an object's name
_CHUNK = 2**20


def add(
    given: Sequence[Path], source: str, settings: Source | None, *, replace: bool, push: bool
) -> str:
    """Copies tables to data/raw/<source>, tracks them, and says what is left to do.

    `settings` is the source's section of `ingest`, None where there is none yet. `Problem`, with
    nothing changed, for a name that can't be a source's, for a file that ingest wouldn't read, for
    another file of the same name unless `replace`, and where the folder isn't what its pointer says.
    """
    if source in _RESERVED or not re.fullmatch("[a-z][a-z0-9_]*", source):
        raise Problem(
            f"no name for a source of your own: {source!r}",
            where="--source",
            remedy=f"Take small letters, digits and _, a letter first; not {' or '.join(_RESERVED)}.",
        )
    folder = Path("data/raw") / source
    pointer = pointer_of(folder)
    targets = {path: folder / path.name for path in given}
    if len(set(targets.values())) < len(given):
        raise Problem("two files of one name", where=", ".join(map(str, given)))
    for path, target in targets.items():
        _check(path, target, settings, source)
    check_folder(folder)
    new = [path for path, target in targets.items() if not _same(path, target)]
    taken = [targets[path] for path in new if targets[path].exists()]
    if taken and not replace:
        raise Problem(
            "another file of this name is tracked already",
            where=", ".join(map(str, taken)),
            remedy="Give the new one another name, or replace it with --replace: the old one stays in"
            f" the cache and the remote, and comes back with the commit of its {pointer.name}.",
        )
    for path in new:
        with files.whole(targets[path]) as beside:
            shutil.copyfile(path, beside)
    [remote] = track(folder)
    count = counted(len(_tables(folder)), "file")
    lines = [f"{folder}: {count}, {files.size(folder):,} bytes, tracked by DVC"]
    kept = kept_by_git(source)
    if push:
        _dvc("push", *(["--remote", remote] if remote else []), str(pointer))
        lines += [f"pushed to the remote '{remote}'" if remote else "pushed to the default remote"]
    all_of_it = " ".join(map(str, (pointer, *kept)))
    lines += [f"commit the pointer: git add {all_of_it} && git commit -m 'Data of {source}'"]
    if not push:
        to = f"the remote '{remote}'" if remote else "the default remote"
        lines += [f"send the files to {to}, and nowhere else: dvc push {pointer}"]
    if settings is None:
        lines += [f"name its columns under ingest.{source} in params.yaml, and set data.source"]
    return "\n".join(lines)


def kept_by_git(source: str) -> list[Path]:
    """Makes the folders of a source's answers and reviews, with a file for git in each: stages depend on
    them before anybody has answered, and DVC refuses a dependency that isn't there."""
    kept = [folder / source / ".gitkeep" for folder in (ANSWERS, REVIEWS)]
    for path in kept:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return kept


def _check(path: Path, target: Path, settings: Source | None, source: str) -> None:
    if not path.is_file():
        raise Problem("no such file", where=str(path))
    if path.name.startswith((".", "~$")) or path.suffix in (".tmp", ".dvc"):
        raise Problem("a name that ingest passes over", where=str(path), remedy="Rename it.")
    kind_of(path, str(path))
    patterns = settings.files if settings else ["*"]
    if not any(target.relative_to(target.parent).match(pattern) for pattern in patterns):
        raise Problem(
            f"ingest.{source}.files would not read it: {', '.join(patterns)}",
            where=str(path),
            remedy="Rename it, or change that setting in params.yaml.",
        )
    ignored = subprocess.run(["git", "check-ignore", "--quiet", str(target)], check=False)
    if ignored.returncode:
        raise Problem(
            "git would take it", where=str(target), remedy="Restore the repository's .gitignore."
        )


def track(*folders: Path) -> list[str | None]:
    """Has DVC track folders below data/; the remote that each goes to, None for the default."""
    # never `dvc remove` first, which forgets the remote that the output is pinned to
    _dvc("add", *map(str, folders))
    return [_pin(pointer_of(folder)) for folder in folders]


def pointer_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.dvc")


def check_folder(folder: Path) -> None:
    """`Problem` where a folder that DVC tracks is not what its pointer says."""
    pointer = pointer_of(folder)
    if not pointer.exists():
        return
    for record in integrity.pointed(pointer):
        if record.path == folder and (not folder.exists() or files.md5(folder) != record.md5):
            raise Problem(
                f"not what {pointer} points to, and adding to it would lose the rest",
                where=str(folder),
                remedy=f"Run `dvc pull {pointer}`; or `dvc add {folder}`, to take it as it is.",
            )


def check_complete(folder: Path) -> None:
    """`Problem` where a folder that DVC tracks lacks a file; it may have changed and new ones."""
    pointer = pointer_of(folder)
    recorded = [one.md5 for one in integrity.pointed(pointer)] if pointer.exists() else []
    for md5 in recorded:
        if not folder.exists() or (files.md5(folder) != md5 and not _lists_present(md5, folder)):
            raise Problem(
                f"lacks files that {pointer} points to",
                where=str(folder),
                remedy=f"Run `dvc pull {pointer}`.",
            )


def _lists_present(md5: str, folder: Path) -> bool:
    """Whether each file of a folder's listing is there; no where the cache doesn't hold the listing."""
    from dvc.repo import Repo

    with Repo() as repo:
        cache = _Store(repo.cache.local.fs, Path(repo.cache.local.path).as_posix())
    listing = cache.listing(md5)
    return bool(listing) and all((folder / entry["relpath"]).is_file() for entry in listing)


def _same(path: Path, target: Path) -> bool:
    return target.is_file() and files.md5(path) == files.md5(target)


def _tables(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]


def _pin(pointer: Path) -> str | None:
    """The remote that the pointer's files go to, whatever the default is; None: the default."""
    yaml = YAML()
    content = yaml.load(pointer.read_text("utf-8"))
    out = content["outs"][0]
    if "remote" not in out and PRIVATE in _remotes():
        out["remote"] = PRIVATE
        with files.whole(pointer) as beside, beside.open("w", encoding="utf-8") as file:
            yaml.dump(content, file)
    remote = out.get("remote")
    return str(remote) if remote else None


def _remotes() -> set[str]:
    from dvc.config import Config

    return set(Config.from_cwd()["remote"])


def _dvc(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        lines = done.stderr.split("\n")
        said = [line for line in lines if line.startswith("ERROR")] or [*filter(None, lines), "failed"]
        raise Problem(
            without_password(said[-1].removeprefix("ERROR: ")),
            where=f"dvc {arguments[0]}",
            remedy="`undertone access` says what is wrong with the remote."
            if arguments[0] == "push"
            else "",
        )


@dataclass(frozen=True)
class Bad:
    """Something that doesn't hash to its name. `paths`: what it stands for, with who recorded it."""

    kind: Literal["cache", "workspace", "remote"]
    name: str  # of an object, or the path of a file in the workspace
    paths: tuple[str, ...]


@dataclass(frozen=True)
class Found:
    bad: list[Bad]
    checked: dict[str, int]  # objects or files, by kind
    unfinished: dict[str, int]  # half-written objects that a killed push or pull left; harmless
    aside: list[Path]

    def told(self) -> str:
        lines = [f"{one.kind}: {one.name}: {'; '.join(one.paths) or _UNKNOWN}" for one in self.bad]
        for kind, count in self.checked.items():
            wrong = sum(one.kind == kind for one in self.bad)
            lines.append(f"{kind}: {count:,} checked, {wrong} do not hold their bytes")
        for kind, count in self.unfinished.items():
            if count:
                lines.append(f"{kind}: {count} unfinished by a killed transfer, never read; harmless")
        if self.aside:
            lines.append(f"{len(self.aside)} set aside in {_CORRUPT}; now run `dvc pull`")
        return "\n".join(lines)


_UNKNOWN = "of another commit, or of an experiment"


def verify(*, remote: str | None, repair: bool) -> Found:
    """Re-hashes each object of the cache, each checked out file, and with `remote` each of its objects.

    DVC itself looks at none of them. What is wrong in the cache and in the workspace `repair` moves
    to .dvc/tmp/corrupt, so that `dvc pull` brings it again; a remote is read, never changed. A file
    that somebody edited is no damage: DVC sees it, and acts on it. An empty `remote` is the default.
    """
    from dvc.repo import Repo

    # whatever folder it is called from: the records name paths from the repository's
    with chdir(files.root()), Repo() as repo:
        cache = _Store(repo.cache.local.fs, Path(repo.cache.local.path).as_posix())
        paths = _paths(cache)
        bad = [Bad("cache", name, tuple(paths.get(name, ()))) for name in cache.broken()]
        checked, unfinished = {"cache": len(cache.names)}, {"cache": cache.unfinished}
        edited, workspace = _workspace(repo)
        bad += [Bad("workspace", str(path), (by,)) for path, by in edited.items()]
        checked["workspace"] = workspace
        if remote is not None:
            odb = _opened(repo, remote)
            if not odb.fs.exists(odb.path):
                remedy = "`undertone access` says what is wrong; the owner fills it by `dvc push`."
                raise Problem("nothing is there", where=f"remote {remote}".strip(), remedy=remedy)
            far = _Store(odb.fs, odb.path)
            paths = _paths(cache, far)
            bad += [Bad("remote", name, tuple(paths.get(name, ()))) for name in far.broken()]
            checked["remote"], unfinished["remote"] = len(far.names), far.unfinished
        aside = [_set_aside(one, cache) for one in bad if one.kind != "remote"] if repair else []
    return Found(bad, checked, unfinished, aside)


class _Store:
    """Objects under one folder of a file system of DVC's. Only lists and reads."""

    def __init__(self, system: Any, folder: str) -> None:
        self.system = system
        self.folder = folder
        self.names: dict[str, str] = {}
        self.unfinished = 0
        for path in system.find(folder) if system.exists(folder) else ():
            head, tail = str(path).rsplit("/", 2)[-2:]
            if tail.endswith(".tmp"):
                self.unfinished += 1
            elif len(f"{head}{tail}".removesuffix(".dir")) == _OBJECTS and len(head) == 2:
                self.names[head + tail] = str(path)

    def broken(self) -> list[str]:
        """The objects whose bytes don't hash to their name, sorted."""
        local = self.system.protocol == "local"
        with ThreadPoolExecutor(os.cpu_count() if local else 8) as pool:
            sound = pool.map(self._sound, self.names)
            return sorted(name for name, whole in zip(self.names, sound, strict=True) if not whole)

    def _sound(self, name: str) -> bool:
        with self.system.open(self.names[name], "rb") as file:
            return _digest(file) == name.removesuffix(".dir")

    def listing(self, name: str) -> list[dict[str, str]]:
        """What a folder's object lists; nothing where it is absent or damaged."""
        if name not in self.names or not self._sound(name):
            return []
        import json

        with self.system.open(self.names[name], "rb") as file:
            entries: list[dict[str, str]] = json.load(file)
        return entries


def _digest(file: BinaryIO) -> str:
    digest = new_md5(usedforsecurity=False)
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def _records() -> list[integrity.Record]:
    pointers = sorted(Path("data").rglob("*.dvc"))
    return [
        *integrity.locked(),
        *(record for pointer in pointers for record in integrity.pointed(pointer)),
    ]


def _paths(*stores: _Store) -> Mapping[str, list[str]]:
    """For each object what it is: `data/raw/private/a.xlsx (data/raw/private.dvc)`."""
    found: dict[str, list[str]] = {}
    for record in _records():
        found.setdefault(record.md5, []).append(f"{record.path} ({record.by})")
        if not record.md5.endswith(".dir"):
            continue
        for entry in next(filter(None, (store.listing(record.md5) for store in stores)), []):
            told = f"{record.path / entry['relpath']} ({record.by})"
            found.setdefault(entry["md5"], []).append(told)
    return found


def _workspace(repo: Any) -> tuple[dict[Path, str], int]:
    """Files that DVC takes for what was recorded though they aren't, with their records' makers.

    DVC doesn't hash a file again whose time, size and inode it remembers: bytes that came out of a
    damaged cache pass for the good ones, and a pull would leave them where they are.
    """
    broken: dict[Path, str] = {}
    seen: set[Path] = set()
    for record in _records():
        for path in _files(record.path):
            if path in seen:
                continue
            seen.add(path)
            _, believed = repo.state.get(str(path.resolve()), repo.fs)
            if believed is not None and believed.value != files.md5(path):
                broken[path] = record.by
    return broken, len(seen)


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    elif path.is_dir():
        yield from (one for one in sorted(path.rglob("*")) if one.is_file())


def _opened(repo: Any, remote: str) -> Any:
    from dvc.exceptions import DvcException

    try:
        return repo.cloud.get_remote_odb(remote or None)
    except (DvcException, OSError) as error:
        raise Problem(
            f"cannot be reached: {first_line(error)}",
            where=f"remote {remote}".strip(),
            remedy="`undertone access` says what is wrong.",
        ) from None


def _set_aside(one: Bad, cache: _Store) -> Path:
    """Moved, not deleted: of a rare object the damaged bytes may be all there is."""
    path = Path(cache.names[one.name]) if one.kind == "cache" else Path(one.name)
    target = _CORRUPT / one.kind / (one.name if one.kind == "cache" else path)
    files.remove(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(path, target)
    return target
