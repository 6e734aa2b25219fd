"""One silver label a comment from all voters, their agreement, and how right they are by people's."""

from pathlib import Path

from undertone import stage, tables
from undertone.codebook import read_codebook
from undertone.files import read_json, write_json
from undertone.params import Params
from undertone.voters import silver


def main(
    params: Params,
    *,
    codebook: Path,
    comments: Path,
    plan: Path,
    votes: Path,
    out: Path,
    summary: Path,
    ledger: Path,
) -> str:
    table = tables.read(comments, ("id", "text", "group"))
    found = silver.fused(
        tables.read(votes, ("custom_id", "id", "voter", "outcome"), key="custom_id"),
        table,
        {one["voter"]: one["prompt_sha256"] for one in read_json(plan)["voters"]},
        read_codebook(codebook),
        params.data.scheme,
        params.fuse,
        draws=params.evaluate.draws,
        seed=params.seed,
    )
    tables.write(found.table, out)
    write_json(summary, found.told)
    found.ledger.save(ledger)
    return f"{found.ledger.rows_in:,} rows → {found.ledger.rows_out:,}; {silver.line(found.told)}"


if __name__ == "__main__":
    stage.run(main)
