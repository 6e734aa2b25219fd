"""Expected trouble: what, where, remedy, on one line, and never a comment's text."""

import re
from collections.abc import Sequence

REFUSALS = {  # of a server, by status: what, remedy
    401: (
        "wrong name or password",
        "Check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD.",
    ),
    403: (
        "permission denied",
        "Ask who runs the server for `undertone grant` (read to look, edit to train).",
    ),
    413: ("takes no file of this size", "Who runs the server raises the limit of its TLS proxy."),
    507: ("has no room left", "Ask who runs the server to make some."),
}
_NAMED = re.compile(r"(?i)([?&]\w*(?:password|secret|token|sig)=)[^&\s]*")


class Problem(Exception):
    """A wrong input. Its text is one line: `where: what. remedy`.

    Several problems found together are raised as one, see `Problem.together`; their text is one
    line each.
    """

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        line = f"{where}: {what}" if where else what
        if remedy:
            line = f"{line.rstrip('.')}. {remedy}"
        super().__init__(line)

    @classmethod
    def together(cls, problems: "Sequence[Problem]") -> "Problem":
        """One problem whose text holds each of `problems` (at least one), a line each."""
        return cls("\n".join(str(problem) for problem in problems))


def without_password(address: str) -> str:
    """Without all that stands before the host, whatever a password holds; any text may be around it."""
    return _NAMED.sub(r"\1…", re.sub(r"//\S*@", "//", address))


def counted(number: int, what: str) -> str:
    """`1 file`, `2,000 files`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def misread(address: str) -> str:
    """Why the programs that read a database's address take it apart differently; empty if none does.

    What one of them takes for a host or a port may be a part of the password, and it says so.
    """
    login, _, host = address.partition("://")[2].rpartition("@")
    if re.search(r"[@/?#\[\]\s]|%(?![0-9A-Fa-f]{2})", login) or re.search(r"\s", host):
        return "can't be read: write @ : / % in a name or password as %40 %3A %2F %25"
    return ""


def first_line(error: BaseException) -> str:
    """What another's error says, without passwords; its name where it says nothing."""
    lines = str(error).strip().splitlines()
    return without_password(lines[0]) if lines else type(error).__name__
