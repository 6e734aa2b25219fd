"""Whether anything private stands where others may see it: every shareable place, and what was found.

A finding names a file or git object, the way in, and the private row; never the text. Private by
definition, and not looked at: `data/`, `models/` but for the release, DVC's cache, and the remotes
whose name begins with `private`.
"""

import hashlib
import os
import secrets
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote

from undertone.errors import Problem
from undertone.params import read_params
from undertone.privacy import containers
from undertone.privacy.needles import Hit, Needles

SHOWN = 20  # findings that are told one by one
PIECE = 512 * 2**20  # bytes of a file that are read at a time
SMALL = 8 * 2**20  # bytes; what is larger in a cache of downloads was downloaded
PROJECT = ("undertone", "mlflow", "dvc", "joblib")  # what our files in the system's folder are called by

_SEARCH = ("needles", "containers")  # a change there may find more
_OWN = ".cache/audit"  # ignored by git
_HISTORY = (
    "What no branch leads to (a refused commit leaves it) goes with `git reflog expire --expire=now"
    " --all && git gc --prune=now`. Else rewrite the history before (`pip install git-filter-repo`;"
    " `git filter-repo --invert-paths --path FILE`, or `--replace-message`). If it was pushed it is"
    " known: have the host remove it, change keys that stood there, and tell the data's owner."
)
_GITS_OWN = (
    "Delete messages under way (.git/*_MSG, .git/COMMIT_EDITMSG), rename refs, and clear reflogs by `git"
    " reflog expire --expire=now --all`."
)
_DELETE = "Remove the file, or what wrote the text into it, and run `undertone audit` again."


class Unread(bytes):
    """Stands for the content of something that is there and can't be read."""

    why = ""

    @classmethod
    def because(cls, why: str) -> "Unread":
        one = cls()
        one.why = why
        return one


class _GitFails(Exception):
    """git is here and gives no answer: what it keeps was not looked at."""


Items = Iterator[tuple[str, bytes]]


@dataclass(frozen=True)
class Finding:
    """`inner`: the way into a container. `kind`: see `needles.Hit`, or `unsearched`, with `why`."""

    place: str
    item: str
    inner: str
    kind: str
    encoding: str = ""
    source: str = ""
    row: str = ""
    why: str = ""

    def __str__(self) -> str:
        place = f"{self.place}: " if self.place else ""
        item = f"{self.item} → {self.inner}" if self.inner else self.item
        if self.kind == "unsearched":
            return f"{place}{item}: not searched: {self.why}"
        return f"{place}{item}: {self.kind} of row {self.row} of {self.source} ({self.encoding})"


@dataclass(frozen=True)
class Place:
    """Somewhere that others can look at. `unlooked`: what belongs to it and isn't searched."""

    name: str
    items: Callable[[], Items]
    remedy: str = _DELETE
    unlooked: Sequence[str] = ()


@dataclass
class Searched:
    """What was looked at in a place."""

    place: Place
    findings: list[Finding] = field(default_factory=list)
    count: int = 0
    size: int = 0

    def __str__(self) -> str:
        found = f"{len(self.findings):,} found" if self.findings else "nothing found"
        return f"{self.place.name}: {self.count:,} items, {self.size / 1e6:,.1f} MB, {found}"


class Memo:
    """What was searched for these needles before, with nothing found.

    It holds digests under a key that only this machine's user can read: nobody else can ask it whether
    a text was here.
    """

    def __init__(self, root: Path, needles: Needles) -> None:
        folder = root / _OWN
        folder.mkdir(parents=True, exist_ok=True)
        self._key = _key(folder / "key")
        code = b"".join(Path(__file__).with_name(f"{name}.py").read_bytes() for name in _SEARCH)
        self._salt = hashlib.sha256(needles.digest(self._key).encode() + code).digest()
        self._path = folder / hashlib.blake2b(self._salt, key=self._key, digest_size=8).hexdigest()
        size = 16
        known = self._path.read_bytes() if self._path.exists() else b""
        self._known = {known[at : at + size] for at in range(0, len(known) - size + 1, size)}

    def digest(self, content: bytes, *, raw: bool) -> bytes:
        salt = self._salt[:15] + bytes([raw])
        return hashlib.blake2b(content, key=self._key, salt=salt, digest_size=16).digest()

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._known

    def add(self, digest: bytes) -> None:
        if digest not in self._known:
            self._known.add(digest)
            with self._path.open("ab") as file:
                file.write(digest)


def searched(
    items: Iterable[tuple[str, bytes]],
    needles: Needles,
    *,
    place: str = "",
    memo: Memo | None = None,
) -> list[Finding]:
    """What of the rows stands in these items, their names included."""
    return _search(Place(place, lambda: iter(items)), needles, memo).findings


def reports(
    root: Path, needles: Needles, names: Sequence[str] | None = None, also: Iterable[Place] = ()
) -> Iterator[Searched]:
    """Each place once it was looked at, after those `also` asked for. `Problem` where a name is none."""
    known = {place.name: place for place in (*also, *places(root))}
    if unknown := set(names or ()) - set(known):
        raise Problem(f"no place '{min(unknown)}'", remedy=f"One of: {', '.join(known)}.")
    memo = Memo(root, needles)
    for name in names or known:
        yield _search(known[name], needles, memo)


def places(root: Path) -> Iterator[Place]:
    """Every place of this repository, and those outside that its libraries write to."""
    public = read_params(root / "params.yaml").audit.public
    yield Place("git objects", lambda: history(root, public), _HISTORY)
    yield Place("git's own files", lambda: _gits_own(root), _GITS_OWN)
    yield Place(
        "files", lambda: _listed(root), "Move it below data/, or take the text out; then commit."
    )
    stores, elsewhere = _mlflow(os.environ.get("MLFLOW_TRACKING_URI", ""))
    yield Place(
        "mlflow",
        lambda: files(root, ["mlflow.db*", "mlartifacts", *stores]),
        "Delete the run (`mlflow runs delete`, `mlflow gc`), and what is left of it in mlartifacts/.",
        elsewhere,
    )
    yield Place("journals", lambda: files(root, ["unsent"]))
    yield Place("reports", lambda: files(root, ["reports", "dvc_plots"]))
    yield Place("release", lambda: files(root, ["models/release"]))
    folders, unlooked = _public_remotes(root)
    yield Place(
        "public remotes",
        lambda: files(root, folders),
        "Delete the object there, and give the output `remote: private` in its .dvc file or dvc.yaml.",
        unlooked,
    )
    yield Place("dvc's logs", lambda: _dvc_logs(root), "`dvc queue remove --all`, then delete .dvc/tmp.")
    yield Place("caches", _caches, "Delete the folder: it is written anew where it is needed.")
    yield Place("temporary files", _temporary)


def history(root: Path, public: Sequence[str] = ()) -> Items:
    """Every object of git, reached or not: contents, names (trees), messages and authors.

    Stashes, notes, other branches and DVC's experiments are objects like any other. Those whose ids
    are among `public` are left out.
    """
    if not _git(root, "rev-parse", "--git-dir"):
        return
    try:
        listing = _git(root, "rev-list", "--all", "--objects", "--indexed-objects", "--reflog")
    except _GitFails:  # an object is missing; those that are here have no paths then
        listing = b""
    lines = listing.decode("utf-8", "surrogateescape").splitlines()
    reached = {line.partition(" ")[0] for line in lines}
    paths = dict(line.split(" ", 1) for line in lines if " " in line)
    command = ["git", "-C", str(root), "cat-file", "--batch-all-objects", "--batch", "--unordered"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as running:
        assert running.stdout
        while head := running.stdout.readline().split():
            if len(head) != 3:
                yield f"object {head[0].decode()[:12]}", Unread.because("git can't read it")
                continue
            name, kind, size = head[0].decode(), head[1].decode(), int(head[2])
            content = running.stdout.read(size)
            running.stdout.read(1)
            if name in public:
                continue
            path = paths.get(name, "" if name in reached else "no branch leads to it")
            yield f"{kind} {name[:12]}{f' ({path})' if path else ''}", content
    if running.returncode:
        raise _GitFails("cat-file")


def told(done: Sequence[Searched], needles: Needles) -> str:
    """What was searched for, and what was found, for a reader."""
    counts = needles.counts
    lines = [
        f"searched for {counts['rows']:,} rows of {', '.join(needles.sources) or 'no source'}, and "
        f"{counts['names']:,} names, {counts['e-mails']:,} e-mail addresses, {counts['phones']:,} phone"
        f" numbers, {counts['ids']:,} ids, {counts['tokens']:,} other marks; too short to be told from"
        f" ordinary language: {counts['rows too short']:,} rows, {counts['names too short']:,} names,"
        f" {counts['ids too short']:,} ids"
    ]
    lines += [f"not looked at: {what}" for what in unlooked(done)]
    found = [finding for one in done for finding in one.findings]
    lines += [str(finding) for finding in found[:SHOWN]]
    if len(found) > SHOWN:
        lines.append(f"… and {len(found) - SHOWN:,} more")
    lines += [f"{one.place.name}: {one.place.remedy}" for one in done if one.findings]
    return "\n".join(lines)


def absent(root: Path) -> list[str]:
    """Sources that are known here and whose files aren't, so that nothing of them is searched for."""
    known = {path.stem for path in (root / "data/raw").glob("*.dvc")}
    known.add(read_params(root / "params.yaml").data.source)
    known.discard("standin")  # made here, of words that are public
    return sorted(one for one in known if not any((root / "data/raw" / one).glob("*")))


def unlooked(done: Iterable[Searched]) -> list[str]:
    """What belongs to these places and wasn't looked at."""
    return [what for one in done for what in one.place.unlooked]


def _search(place: Place, needles: Needles, memo: Memo | None) -> Searched:
    done = Searched(place)
    for item, content in _told(place.items()):
        done.count += 1
        done.size += len(content)
        named = needles.found(item)
        # a name that holds what is searched for is not shown
        shown = f"something whose name holds it, number {done.count:,}" if named else item
        done.findings += [_finding(place.name, shown, "its name", hit) for hit in named]
        if isinstance(content, Unread):
            done.findings.append(Finding(place.name, shown, "", "unsearched", why=content.why))
        else:
            done.findings += _within(place.name, item, shown, content, needles, memo)
    return done


def _told(items: Items) -> Items:
    """`items`, and where git stops giving them, that."""
    try:
        yield from items
    except _GitFails as error:
        why = f"`git {error}` fails, so what git keeps wasn't looked at; see `git status` and `git fsck`"
        yield "git", Unread.because(why)


def _within(
    place: str, item: str, shown: str, content: bytes, needles: Needles, memo: Memo | None
) -> list[Finding]:
    raw = containers.raw_only(item, content)
    digest = memo.digest(content, raw=raw) if memo else b""
    if memo and digest in memo:
        return []
    found: dict[tuple[str, str, str], Finding] = {}
    for part in containers.unpacked(item, content):
        if part.fault:
            found["", "", part.path] = Finding(place, shown, part.path, "unsearched", why=part.fault)
            continue
        hits = needles.found(part.content, raw=raw)
        path = "within" if hits and needles.found(part.path) else part.path
        for hit in hits:
            found.setdefault((hit.source, hit.row, hit.kind), _finding(place, shown, path, hit))
    if memo and not found:
        memo.add(digest)
    return list(found.values())


def _finding(place: str, item: str, inner: str, hit: Hit) -> Finding:
    return Finding(place, item, inner, hit.kind, hit.encoding, hit.source, hit.row)


def _key(path: Path) -> bytes:
    """The user's own key, made when there is none."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        found = path.read_bytes()
        if len(found) == 32 and not path.stat().st_mode & 0o077:
            return found
        path.unlink()
        return _key(path)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key := secrets.token_bytes(32))
    return key


def _listed(root: Path) -> Items:
    """Files that git tracks, or would add."""
    listing = _git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in dict.fromkeys(filter(None, listing.split(b"\0"))):
        yield from _read(root / os.fsdecode(name), root)


def _gits_own(root: Path) -> Items:
    """Names of refs, reflogs, messages under way, the index; not the objects."""
    folders = {
        (root / _git(root, "rev-parse", which).decode().strip()).resolve()
        for which in ("--git-dir", "--git-common-dir")
    }
    for folder in sorted(folders):
        for top in sorted(folder.iterdir()) if (folder / "HEAD").exists() else []:
            if top.name != "objects":
                yield from _below(top, folder)


def files(root: Path, patterns: Iterable[str | Path]) -> Items:
    """Files, and all files below folders, by their paths or patterns."""
    for pattern in map(str, patterns):
        given = Path(pattern)
        tops = [given] if given.is_absolute() else sorted(root.glob(pattern))
        for top in tops:
            yield from _below(top, root)


def _below(top: Path, root: Path, keep: Callable[[Path], bool] = lambda _: True) -> Items:
    """A file, or all files below a folder; links aren't followed, where they lead is a name too."""
    if not top.is_dir() or top.is_symlink():
        if keep(top):
            yield from _read(top, root)
        return
    failed: list[OSError] = []
    for folder, folders, names in os.walk(top, onerror=failed.append):
        folders.sort()
        for name in sorted(names):
            if keep(Path(folder, name)):
                yield from _read(Path(folder, name), root)
    for error in failed:
        yield str(error.filename), Unread.because(f"can't be listed ({type(error).__name__})")


def _read(path: Path, root: Path) -> Items:
    name = str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
    try:
        if path.is_symlink():
            yield name, os.fsencode(path.readlink())
        elif path.is_file():
            with path.open("rb") as file:
                if path.stat().st_size <= PIECE:
                    yield name, file.read()
                    return
                if containers.needs_whole(*_ends(file)):
                    yield name, Unread.because(f"packed, and above the {PIECE >> 20} MB that are opened")
                start = 0
                while part := file.read(PIECE):
                    yield f"{name} from byte {start:,}", part
                    if len(part) < PIECE:
                        return
                    start = file.seek(-(1 << 20), os.SEEK_CUR)
    except FileNotFoundError:
        return  # gone meanwhile
    except OSError as error:
        yield name, Unread.because(f"can't be read ({type(error).__name__})")


def _ends(file: BinaryIO) -> tuple[bytes, bytes]:
    """The first and the last megabyte; `file` stands at its beginning after it."""
    head = file.read(1 << 20)
    file.seek(-(1 << 20), os.SEEK_END)
    tail = file.read()
    file.seek(0)
    return head, tail


def _mlflow(address: str) -> tuple[list[str], list[str]]:
    """The files of a store that isn't the repository's own, or that it can't be looked at from here."""
    kind, colon, path = address.partition(":")
    if kind == "sqlite":
        database = Path(path.removeprefix("///").partition("?")[0]).absolute()
        own = [f"{database}{end}" for end in ("", "-wal", "-shm", "-journal")]
        return [*own, str(database.parent / "mlartifacts")], []
    if not colon or kind == "file":
        folder = unquote(path).removeprefix("//") if colon else address
        return [str(Path(folder).absolute())] if folder else [], []
    return [], [f"MLflow's store ({kind}): run `undertone audit` on its machine"]


def _public_remotes(root: Path) -> tuple[list[str], list[str]]:
    """Folders of DVC's remotes that aren't private by name, and what can't be looked at from here."""
    from dvc.config import Config, ConfigError

    if not (root / ".dvc").is_dir():
        return [], []
    try:
        remotes = Config(str(root / ".dvc"))["remote"]  # this machine's own settings too
    except ConfigError as error:
        what = f"DVC's settings can't be read ({type(error).__name__})"
        raise Problem(what, where=".dvc/config", remedy="See `dvc config --list`.") from None
    folders, away = [], []
    for name, settings in sorted(remotes.items()):
        url = str(settings.get("url", ""))
        folder = unquote(url.removeprefix("file://")) if url.startswith("file://") else url
        if name.startswith("private") or not url:
            continue
        if "://" in folder:
            away.append(f"the public remote '{name}', as it is on another machine")
        elif not Path(folder).exists():
            away.append(f"the public remote '{name}', as its folder isn't here")
        else:
            folders.append(str(Path(folder).resolve()))
    return folders, away


def _dvc_logs(root: Path) -> Items:
    """What runs printed, and the queue's messages; an experiment's copy of the data isn't a log."""
    temporary = root / ".dvc/tmp"
    private = {"data", "models", ".git", "mlartifacts"}

    def keep(path: Path) -> bool:
        parts = path.relative_to(temporary).parts
        return not (parts[0] == "exps" and private & set(parts))

    if temporary.exists():
        yield from _below(temporary, root, keep)


def _caches() -> Items:
    """Where libraries keep copies: of data sets all, of what is downloaded what is small."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    hugging = Path(os.environ.get("HF_HOME") or home / "huggingface")
    data = Path(os.environ.get("HF_DATASETS_CACHE") or hugging / "datasets")
    others = [
        hugging,
        Path(os.environ.get("TORCH_HOME") or home / "torch"),
        Path(os.environ.get("SENTENCE_TRANSFORMERS_HOME") or home / "sentence_transformers"),
        Path(os.environ.get("MPLCONFIGDIR") or home / "matplotlib"),
        home / "mlflow",
    ]
    if data.exists():
        yield from _below(data, data)

    def small(path: Path) -> bool:
        return not path.is_relative_to(data) and _size(path) <= SMALL

    for folder in dict.fromkeys(others):
        if folder.exists():
            yield from _below(folder, folder, small)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _temporary() -> Items:
    """This user's files in the system's folder that carry the project's or its libraries' names."""
    folder = Path(tempfile.gettempdir())
    for top in sorted(folder.iterdir()):
        try:
            ours = top.lstat().st_uid == os.getuid()
        except OSError:
            continue
        if ours and any(name in top.name.lower() for name in PROJECT):
            yield from _below(top, folder)


def _git(root: Path, *arguments: str) -> bytes:
    """What git says; nothing where there is no repository."""
    if not any((folder / ".git").exists() for folder in (root.absolute(), *root.absolute().parents)):
        return b""
    command = ["git", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError):
        raise _GitFails(arguments[0]) from None
    return done.stdout
