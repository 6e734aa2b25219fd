"""The lab's files as one typed table. Each cell exactly as it stands there, or refused by address."""

from pathlib import Path

from undertone import stage, tables
from undertone.codebook import read_codebook
from undertone.corpus import ingest
from undertone.params import Params


def main(params: Params, *, source: str, raw: Path, codebook: Path, out: Path, ledger: Path) -> str:
    book = read_codebook(codebook).asked(params.data.scheme)
    table, counts, notes = ingest.comments(raw, params.ingest[source], source, book)
    tables.write(table, out, tables.COMMENTS)
    counts.save(ledger)
    return "; ".join([f"{counts.rows_in:,} rows → {counts.rows_out:,}", *notes])


if __name__ == "__main__":
    stage.run(main)
