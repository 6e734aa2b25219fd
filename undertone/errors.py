"""Expected trouble: what, where, remedy, on one line, and never a comment's text."""

from collections.abc import Sequence


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
