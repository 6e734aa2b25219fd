"""Every request ends in one outcome: a readable answer, or a counted reason why there is none."""

from pathlib import Path

from undertone import stage, tables
from undertone.codebook import read_codebook
from undertone.corpus.ledger import Ledger
from undertone.files import whole, write_json
from undertone.params import Params
from undertone.voters import collect
from undertone.voters.request import ASKED


def main(
    params: Params,
    *,
    source: str,
    codebook: Path,
    comments: Path,
    requests: Path,
    answers: Path,
    out: Path,
    counts: Path,
    ledger: Path,
) -> str:
    table = tables.read(comments, ("id", "text"))
    asked = tables.read(requests / "asked.parquet", ASKED, key="custom_id")
    voters = params.request[source].voters
    book = read_codebook(codebook).asked(params.data.scheme)
    found = collect.collect(asked, answers, book, voters)
    with whole(out) as folder:
        collect.write(found, requests, table, book, params.collect, folder)
    write_json(counts, {"voters": found.counts, "unknown_ids": found.unknown})
    rows = collect.rows(found.votes) if voters else Ledger("collect", len(table), len(table))
    rows.save(ledger)
    told = [collect.told(found.counts, found.unknown), collect.again(out)] if voters else ["no voters"]
    return "\n".join([f"{rows.rows_in:,} rows → {rows.rows_out:,}", *filter(None, told)])


if __name__ == "__main__":
    stage.run(main)
