"""What may not go into git: private data, workbooks under any name, weights, keys, encoded texts.

    python -m undertone.privacy.guard              what is staged (the hook pre-commit)
    python -m undertone.privacy.guard --message F  that, the message in F and its author (commit-msg)
    python -m undertone.privacy.guard --push R     what a push to R publishes, which git tells (pre-push)
    python -m undertone.privacy.guard --tracked    all that git tracks
    python -m undertone.privacy.guard --history    every file, message and name of every ref (CI)

It names files, never what stands in them. Standard library only, so that it runs anywhere; where the
private texts are, `hook` looks for them besides.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from undertone.privacy import kinds

_RAW = "--raw --no-renames --no-abbrev --diff-filter=d -z"
_WHO = "%an <%ae>%n%cn <%ce>"
_CUT = " ------------------------ >8 ------------------------\n"  # below: what `git commit -v` shows
_SIGNATURE = re.compile(
    r"-----BEGIN (PGP|SSH) SIGNATURE-----\n(Version: \S+ \S+\n)?([\w+/=]*\n)+-----END .*\n", re.ASCII
)


class Entry(NamedTuple):
    """A file in git; `commit` is empty for what is staged or tracked."""

    path: str
    blob: str
    mode: str
    commit: str = ""


class Message(NamedTuple):
    """What a commit or a tag says, its author included; `of` names it."""

    of: str
    text: str


@dataclass(frozen=True)
class Change:
    """What is looked at, and what to do where some of it may not be there; `names` of branches, tags."""

    entries: Sequence[Entry]
    messages: Sequence[Message]
    names: Sequence[str]
    remedy: str


def asked(arguments: Sequence[str]) -> Change:
    """What the command's arguments name; for a push git tells it on standard input."""
    rewrite = "Take it out before it is pushed (`git rebase`, `git filter-repo`, `git tag -d`)."
    unstage = (
        "Unstage it: `git restore --staged FILE`; tables come in by `undertone private add`, and a"
        " quotation is taken out."
    )
    if "--message" in arguments:
        path = Path(arguments[arguments.index("--message") + 1])
        remedy = f"{unstage} A message says what changed and why."
        return Change(staged(), [next_message(path)], [], remedy)
    if "--push" in arguments:
        pushed = [line.split() for line in sys.stdin]
        new = {name: commit for _, commit, name, _ in pushed if int(commit, 16)}
        only = [*new.values(), "--not", f"--remotes={arguments[arguments.index('--push') + 1]}"]
        return Change(history(*only), messages(*only), list(new), rewrite) if new else _NOTHING
    if "--history" in arguments:
        return Change(history("--all"), messages("--all"), _refs(), rewrite)
    entries = tracked() if "--tracked" in arguments else staged()
    return Change(entries, [], [], unstage)


_NOTHING = Change([], [], [], "")


def staged() -> list[Entry]:
    """What the next commit adds or changes; a renamed file is a new one."""
    return list(_changes(_git("diff", "--cached", *_RAW.split())))


def tracked() -> list[Entry]:
    parts = [line.partition("\t") for line in _git("ls-files", "--stage", "-z").split("\0") if line]
    return [Entry(path, told.split(" ")[1], told.split(" ")[0]) for told, _, path in parts]


def history(*revisions: str) -> list[Entry]:
    """Every file that a commit of `revisions` brought, once for each path, with the newest commit that
    did, and blobs to which a ref leads without a commit."""
    found: dict[tuple[str, str], Entry] = {}
    for entry in _changes(
        _git("log", *_RAW.split(), "-m", "--root", "--format=%x00%H", *revisions, "--")
    ):
        found.setdefault((entry.path, entry.blob), entry)
    known = {blob for _, blob in found}
    for kind, blob, path in _reached(*revisions):
        if kind == "blob" and blob not in known:
            found[path, blob] = Entry(path or "no name", blob, "100644", "a tag")
    return list(found.values())


def messages(*revisions: str) -> list[Message]:
    """What the commits of `revisions` say, and the tags that lead to them."""
    told = _git("log", "-z", f"--format=%H%n{_WHO}%n%B", *revisions, "--").split("\0")
    said = [Message(*one.split("\n", 1)) for one in told if "\n" in one]
    return said + [_tag(one) for kind, one, _ in _reached(*revisions) if kind == "tag"]


def next_message(path: Path) -> Message:
    """What the commit that is being made will say."""
    text = path.read_text("utf-8", "replace")
    if os.environ.get("GIT_EDITOR") != ":":  # git says so where there's no editor; then `#` lines stay
        text = _git("stripspace", "--strip-comments", given=text.partition(_CUT)[0])
    who = [_git("var", f"GIT_{one}_IDENT").rsplit(" ", 2)[0] for one in ("AUTHOR", "COMMITTER")]
    return Message("this commit", "\n".join([*who, text]))


def _tag(one: str) -> Message:
    """Name, tagger and message of a tag's object, without the signature."""
    head, _, text = _git("cat-file", "tag", one).partition("\n\n")
    of = {name: value for name, _, value in (line.partition(" ") for line in head.splitlines())}
    tagger = of.get("tagger", "").rsplit(" ", 2)[0]
    return Message(f"tag {of['tag']}", "\n".join([of["tag"], tagger, _SIGNATURE.sub("", text)]))


def _reached(*revisions: str) -> list[list[str]]:
    """Type, id and path of each object to which `revisions` lead."""
    objects = _git("rev-list", "--objects", *revisions, "--")
    told = _git("cat-file", "--batch-check=%(objecttype) %(objectname) %(rest)", given=objects)
    return [line.split(" ", 2) for line in told.splitlines()]


def contents(entries: Iterable[Entry]) -> Iterator[tuple[Entry, bytes, int]]:
    """Each entry's bytes, cut above `kinds.LIMIT`, and how many there are; none of a submodule."""
    with subprocess.Popen(
        ["git", "cat-file", "--batch"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as git:
        assert git.stdin is not None
        assert git.stdout is not None
        for entry in entries:
            if entry.mode == kinds.MODULE:
                yield entry, b"", 0
                continue
            git.stdin.write(f"{entry.blob}\n".encode())
            git.stdin.flush()
            size = int(git.stdout.readline().split()[2])
            content = git.stdout.read(min(size, kinds.LIMIT))
            left = size + 1 - len(content)
            while left:
                left -= len(git.stdout.read(min(left, 1 << 20)))
            yield entry, content, size
        git.stdin.close()


def faults(change: Change) -> list[str]:
    """A line for each file, message and name that may not be there."""
    found = []
    for entry, content, size in contents(change.entries):
        if reason := kinds.of_file(entry.path, content, mode=entry.mode, size=size):
            found.append(f"{place(entry)}: {reason}")
    for message in change.messages:
        if reason := kinds.of_text(message.text):
            found.append(f"the message of {kinds.shown(message.of)}: {reason}")
    for name in change.names:
        if reason := kinds.of_name(name):
            found.append(f"{kinds.shown(name)}: {reason}")
    return found


def place(entry: Entry) -> str:
    """Path and commit for people."""
    return kinds.shown(entry.path) + (f" in {entry.commit[:10]}" if entry.commit else "")


def told(found: Sequence[str], remedy: str) -> int:
    """Say what is refused; the exit code."""
    for line in found:
        print(f"not to be committed: {line}", file=sys.stderr)
    if found:
        print(remedy, file=sys.stderr)
    return 1 if found else 0


def main(arguments: Sequence[str]) -> int:
    began = time.perf_counter()
    change = asked(arguments)
    found = faults(change)
    if "--history" in arguments:
        if not change.entries:
            return told(["nothing was looked at, there is no commit here"], "Clone it with git.")
        shallow = _git("rev-parse", "--is-shallow-repository").strip() == "true"
        print(
            f"guard: {len(change.messages)} messages, {len(change.entries)} files, "
            f"{len(change.names)} refs; {len(found)} refused ({time.perf_counter() - began:.1f} s)"
            + ("; a shallow clone, older commits are not here" if shallow else ""),
            file=sys.stderr,
        )
    return told(found, change.remedy)


def _refs() -> list[str]:
    return _git("for-each-ref", "--format=%(refname)").splitlines()


def _changes(raw: str) -> Iterator[Entry]:
    """The entries of `git diff --raw -z`, or of `git log --raw -z --format=%x00%H`."""
    commit = ""
    parts = iter(raw.split("\0"))
    for part in parts:
        line = part.strip("\n")
        if line.startswith(":"):
            _, mode, _, blob, _ = line.split(" ")
            yield Entry(next(parts), blob, mode, commit)
        elif line:
            commit = line


def _git(*arguments: str, given: str = "") -> str:
    sent = given.encode("utf-8", "surrogateescape")
    done = subprocess.run(["git", *arguments], check=True, stdout=subprocess.PIPE, input=sent)
    return done.stdout.decode("utf-8", "surrogateescape")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
