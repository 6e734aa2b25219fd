"""The guard, and where the private texts are, a search for them: what the git hooks run.

Arguments are the guard's. Findings name file, kind and row, never a text.
"""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from undertone.errors import Problem
from undertone.privacy import audit, guard
from undertone.privacy.needles import Needles


def items(change: guard.Change) -> Iterator[tuple[str, bytes]]:
    """All that is looked at, by name."""
    for entry, content, _ in guard.contents(change.entries):
        yield guard.place(entry), content
    for message in change.messages:
        yield f"the message of {message.of}", message.text.encode("utf-8", "surrogateescape")
    for name in change.names:
        yield name, b""


def roots() -> list[Path]:
    """Here, and where a linked working tree (`git worktree`) comes from: the data may lie there."""
    told = subprocess.run(["git", "rev-parse", "--git-common-dir"], check=True, stdout=subprocess.PIPE)
    main = Path(told.stdout.decode().strip()).resolve().parent
    return [one for one in dict.fromkeys([Path.cwd(), main]) if (one / "params.yaml").exists()]


def main(arguments: Sequence[str]) -> int:
    change = guard.asked(arguments)
    found = guard.faults(change)
    anything = change.entries or change.messages or change.names
    if anything and not found:  # what is refused anyway needs no search
        try:
            for root in roots():
                found += [str(one) for one in audit.searched(items(change), Needles.of(root))]
        except Problem as problem:
            print(problem, file=sys.stderr)
            return 1
    return guard.told(list(dict.fromkeys(found)), change.remedy)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
