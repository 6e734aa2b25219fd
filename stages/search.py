"""The rows that people label next: those most like a rare label's examples, and some by chance."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from undertone import stage, tables
from undertone.codebook import read_codebook
from undertone.files import root, write_json
from undertone.params import Params
from undertone.people import review, search
from undertone.voters import silver


def main(
    params: Params,
    *,
    source: str,
    codebook: Path,
    comments: Path,
    reviewed: Path,
    labelled: Path,
    split: Path,
    out: Path,
    summary: Path,
) -> str:
    book = read_codebook(codebook)
    asked = book.asked(params.data.scheme).space
    people = tables.read(reviewed)
    given = review.merged(tables.read(comments, (*search.NEEDS, "part")), people, asked)
    table, _ = silver.labelled(given, None, book, params.data.scheme)
    parts = tables.read(split, ("id", "part"))

    def embed(texts: Sequence[str]) -> search.Vectors:
        # torch: seconds, which a source without rare labels needn't wait
        from undertone.networks import embeddings

        return embeddings.embed(texts, settings=params.search, kept=root() / embeddings.KEPT)

    queue, counts = search.search(
        table,
        params.search.labels.get(source, []),
        search.known(table, tables.read(labelled), book.learnt(params.data.scheme).space),
        people=search.seen(table, people.attrs["asked"]),
        held=search.held(table, parts),
        book=book.learnt(params.data.scheme),
        settings=params.search,
        embed=embed,
        rng=np.random.default_rng(params.seed),
    )
    tables.write(queue, out, ("id", "arm", "inclusion"))
    write_json(summary, counts)
    return search.line(counts)


if __name__ == "__main__":
    stage.run(main)
