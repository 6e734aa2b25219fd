"""The row ledger: every row that a stage was given is either written or dropped for a named reason."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, takewhile
from pathlib import Path

from undertone.errors import Problem
from undertone.files import read_json, write_json

STAGES = ("ingest", "clean", "request", "collect", "fuse", "label", "split")  # in the order of the rows
VOTED = ("request", "collect", "fuse")  # those of them that are the voters'


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
        try:
            return cls(stage, rows_in, rows_out, dropped)
        except Problem as problem:
            raise Problem(str(problem), where=str(path), remedy="Run `dvc repro`.") from None


def chain(folder: Path, stages: Sequence[str] = STAGES) -> list[Ledger]:
    """The ledgers of `stages` in `folder`, in their order.

    `Problem` where one is missing or doesn't add up, and where a stage was given other rows than
    the stage before it left.
    """
    ledgers = [Ledger.load(folder / f"{stage}.json") for stage in stages]
    for stage, ledger in zip(stages, ledgers, strict=True):
        if ledger.stage != stage:
            raise Problem(
                f"the ledger of '{ledger.stage}', not of '{stage}'",
                where=str(folder / f"{stage}.json"),
                remedy="Run `dvc repro`.",
            )
    for before, after in pairwise(ledgers):
        if after.rows_in != before.rows_out:
            raise Problem(
                f"{before.stage} left {before.rows_out} rows, {after.stage} was given {after.rows_in}",
                where=str(folder),
                remedy="Run `dvc repro`.",
            )
    return ledgers


def begun(folder: Path) -> list[Ledger]:
    """As `chain`, of the stages up to the first that hasn't run yet; `Problem` where none has."""
    done = list(takewhile(lambda stage: (folder / f"{stage}.json").exists(), STAGES))
    return chain(folder, done or STAGES)


def told(ledgers: Sequence[Ledger], without: Collection[str] = ()) -> str:
    """An aligned table, a line a stage, of a chain; its last line says what is left of all rows.

    `without`: stages that had nothing to do here.
    """
    lines = [("stage", "rows in", "rows out", "dropped")]
    for one in ledgers:
        if one.stage in without and not one.dropped:
            continue
        dropped = ", ".join(f"{reason} {count:,}" for reason, count in one.dropped.items())
        lines.append((one.stage, f"{one.rows_in:,}", f"{one.rows_out:,}", dropped))
    name, given, left = (max(len(line[column]) for line in lines) for column in range(3))
    table = [f"{a:<{name}}  {b:>{given}}  {c:>{left}}  {d}".rstrip() for a, b, c, d in lines]
    first, last = ledgers[0], ledgers[-1]
    waiting = STAGES[len(ledgers) :]
    table += [f"not run yet: {', '.join(waiting)}"] if waiting else []
    end = f"from {first.rows_in:,} rows in the files to {last.rows_out:,} left by {last.stage}"
    return "\n".join([*table, end])
