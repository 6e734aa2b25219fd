"""The row ledger: every row that a stage was given is either written or dropped for a named reason."""

from dataclasses import dataclass, field
from pathlib import Path

from undertone.errors import Problem
from undertone.files import read_json, write_json


@dataclass(frozen=True)
class Ledger:
    """Rows in, rows out, and rows dropped by reason; `Problem` where they don't add up."""

    stage: str
    rows_in: int
    rows_out: int
    dropped: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        gone = sum(self.dropped.values())
        negative = min(self.rows_in, self.rows_out, *self.dropped.values(), 0) < 0
        if negative or self.rows_in != self.rows_out + gone:
            raise Problem(
                f"{self.rows_in} rows in, but {self.rows_out} out and {gone} dropped",
                where=f"{self.stage} ledger",
            )

    def save(self, path: Path) -> None:
        """A JSON file of counts; reasons in the order given, those that met no row left out."""
        dropped = {reason: count for reason, count in self.dropped.items() if count}
        write_json(
            path,
            {"stage": self.stage, "in": self.rows_in, "out": self.rows_out, "dropped": dropped},
        )

    @classmethod
    def load(cls, path: Path) -> "Ledger":
        """What `save` wrote; `Problem` where the file is no ledger or doesn't add up."""
        content = read_json(path)
        stage, rows_in, rows_out = content.get("stage"), content.get("in"), content.get("out")
        dropped = content.get("dropped")
        if not (
            isinstance(stage, str)
            and isinstance(rows_in, int)
            and isinstance(rows_out, int)
            and isinstance(dropped, dict)
            and all(isinstance(count, int) for count in dropped.values())
        ):
            raise Problem("not a row ledger", where=str(path), remedy="Run `dvc repro`.")
        return cls(stage, rows_in, rows_out, dropped)
