"""The labels that models learn: the voters' or the table's own, merged as `data.scheme` says."""

from pathlib import Path

from undertone import stage, tables
from undertone.codebook import read_codebook
from undertone.files import whole
from undertone.params import Params
from undertone.people import review
from undertone.voters import silver


def main(
    params: Params,
    *,
    source: str,
    codebook: Path,
    comments: Path,
    fused: Path,
    reviewed: Path,
    out: Path,
    people: Path,
    labels: Path,
    ledger: Path,
) -> str:
    book = read_codebook(codebook)
    given = tables.read(fused) if params.answer[source] != "none" else None
    gold = review.merged(
        tables.read(comments, ("id", "text")),
        tables.read(reviewed),
        book.asked(params.data.scheme).space,
    )
    table, counts = silver.labelled(gold, given, book, params.data.scheme)
    space = book.learnt(params.data.scheme).space
    tables.write(table, out, ("id", "text", "repeat"))
    tables.write(silver.by_hand(gold, book, params.data.scheme), people, ("id", "text", "repeat"))
    with whole(labels) as beside:
        space.save(beside)
    counts.save(ledger)
    return (
        f"{counts.rows_in:,} rows → {counts.rows_out:,}; {len(space.labels)} labels of {space.codebook}"
    )


if __name__ == "__main__":
    stage.run(main)
