"""How many of a rare label's rows are among 100 that people are asked about, beside 100 by chance.

A table whose every row people have labelled, such as EDOS (Kirk et al. 2023), plays the pool: of its
rarest label a few rows are known, and of the other rows as many as a labelled random sample would hold
beside them. Labels of all others are looked at only to count what was found, or as the answer of people
who label a round. By chance 100 rows hold 100 x the label's share; at best they are all of the label,
1 / share times as many: the ceiling of what any search can reach.

The physics of a search: a text's score is one inner product, 2 x 384 operations on 1.5 kB. 180,000 texts
are 276 MB, read once: 11 ms at 25 GB/s. A text of 30 tokens takes MiniLM's 10.6 M parameters 0.66 GOP, 5
to 10 ms on a core, so 180,000 of them half an hour: what has to be kept is the vectors, and an index
that looks at fewer of them has nothing to save.

    python -m benchmarks.search FILE [--codebook codebooks/edos.yaml] [--draws 20]

Ways, by what a text is scored with: `mean` cosine to the known rows; `max`, to the nearest one; `turns`,
each known row's nearest in turns; `contrast`, max less max to the others; `rocchio`, mean less mean of
the others; `logistic`, a logistic regression on the vectors; `search`, this project's: rocchio with the
codebook's examples among the known. `rounds`: 4 of 25 rows each, learning from people's answers between
them (active search, Garnett et al. 2012); `queue`: the stage's, of which 20 in 100 are drawn by chance.
Prints a table (mean over the draws of known rows, lowest and highest) and one JSON line.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from undertone.codebook import label_of, read_codebook
from undertone.corpus import repeats
from undertone.networks import embeddings
from undertone.params import read_params
from undertone.people import search

KNOWN = (0, 1, 2, 5, 10, 20, 50)
ROWS, ROUND = 100, 25
TIMED = 2_000  # texts, for the time that embedding takes
LARGE = 180_000  # rows, for the time that a search takes
Vectors = NDArray[np.float32]
Rows = NDArray[np.int64]


def logistic(examples: Vectors, others: Vectors) -> Vectors:
    model = LogisticRegression(class_weight="balanced", max_iter=500)
    truth = np.repeat([1, 0], [len(examples), len(others)])
    return np.asarray(model.fit(np.vstack([examples, others]), truth).coef_[0], dtype=np.float32)


def best(scores: Vectors, free: Rows, count: int = ROWS) -> Rows:
    return free[np.argsort(-scores[free], kind="stable")[:count]]


def in_turns(vectors: Vectors, known: Rows, free: Rows) -> Rows:
    order = np.argsort(-(vectors[free] @ vectors[known].T), axis=0, kind="stable")
    return free[list(dict.fromkeys(order[: ROWS + 1].ravel()))[:ROWS]]


def rounds(
    vectors: Vectors,
    truth: NDArray[np.bool_],
    free: Rows,
    query: Callable[[Vectors, Vectors], Vectors],
    examples: Vectors,
    others: Vectors,
) -> Rows:
    """What is found when the answers to each 25 rows are known before the next are chosen."""
    found = np.empty(0, dtype=np.int64)
    for _ in range(ROWS // ROUND):
        right, wrong = found[truth[found]], found[~truth[found]]
        wanted = query(np.vstack([examples, vectors[right]]), np.vstack([others, vectors[wrong]]))
        found = np.append(found, best(vectors @ wanted, np.setdiff1d(free, found), ROUND))
    return found


def ms(job: Callable[[], object], times: int = 7) -> float:
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        job()
        taken.append(1000 * (time.perf_counter() - started))
    return float(np.median(taken))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--codebook", type=Path, default=Path("codebooks/edos.yaml"))
    parser.add_argument("--text", default="text")
    parser.add_argument("--label", default="label")
    parser.add_argument("--wanted", help="a label's id; by default the rarest")
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--kept", type=Path, default=embeddings.KEPT)
    given = parser.parse_args()
    params = read_params()
    book, settings = read_codebook(given.codebook), params.search
    table = pd.read_excel(given.file, dtype=str, engine="calamine")
    labels = np.array([label_of(one, book.spellings) for one in table[given.label]])
    shares = pd.Series(labels).value_counts(normalize=True)
    wanted = given.wanted or shares.index[-1]
    truth = labels == wanted
    marks = labels[:, None] == np.array([label.id for label in book.labels])
    texts = table[given.text].tolist()

    with tempfile.TemporaryDirectory() as folder:
        cold = ms(lambda: embeddings.embed(texts[:TIMED], settings, Path(folder)), 1)
        cached = ms(lambda: embeddings.embed(texts[:TIMED], settings, Path(folder)), 1)
    vectors = embeddings.embed(texts, settings, given.kept)
    again = ms(lambda: embeddings.embed(texts, settings, given.kept), 1)
    book_texts = [(label.id == wanted, text) for label in book.labels for text in label.examples]
    of_book = embeddings.embed([text for _, text in book_texts], settings, given.kept)
    own = np.array([mine for mine, _ in book_texts])

    table = pd.DataFrame({"id": [str(row) for row in range(len(table))], "text": texts})
    alike = params.clean
    table["repeat"] = repeats.groups(
        texts, similarity=alike.similarity, shingle=alike.shingle, seed=params.seed
    )
    lifts: dict[tuple[int, str], list[float]] = {}
    for count in KNOWN:
        for draw in range(given.draws):
            rng = np.random.default_rng(draw)
            known = rng.choice(np.flatnonzero(truth), count, replace=False)
            others = rng.choice(np.flatnonzero(~truth), round(count / shares[wanted]), replace=False)
            free = np.setdiff1d(np.arange(len(truth)), np.concatenate([known, others]))
            examples, rest = vectors[known], vectors[others]
            with_book = np.vstack([examples, of_book[own]]), np.vstack([rest, of_book[~own]])
            found = {
                "search": best(vectors @ search.query(*with_book, wanted), free),
                "search in rounds": rounds(
                    vectors, truth, free, lambda *of: search.query(*of, wanted), *with_book
                ),
                "logistic in rounds": rounds(vectors, truth, free, logistic, *with_book),
            }
            if count:
                near = vectors @ examples.T
                found |= {
                    "mean": best(near.mean(axis=1), free),
                    "max": best(near.max(axis=1), free),
                    "turns": in_turns(vectors, known, free),
                    "contrast": best(near.max(axis=1) - (vectors @ rest.T).max(axis=1), free),
                    "rocchio": best(vectors @ search.query(examples, rest, wanted), free),
                    "logistic": best(vectors @ logistic(examples, rest), free),
                }
            flags = np.full((len(truth), len(book.labels)), np.nan)
            labelled = np.concatenate([known, others])
            flags[labelled] = marks[labelled]
            queue, _ = search.search(
                table,
                [wanted],
                flags,
                people=~np.isin(np.arange(len(truth)), free),
                held=np.zeros(len(truth), dtype=bool),
                book=book,
                settings=settings.model_copy(update={"rows": ROWS, "random": ROWS // 5}),
                embed=lambda _: np.vstack([vectors, of_book]),
                rng=rng,
            )
            found["queue"] = queue["id"].astype(int).to_numpy()
            for way, rows in found.items():
                assert len(set(rows.tolist())) == ROWS
                lift = truth[rows].mean() / truth[free].mean()
                lifts.setdefault((count, way), []).append(float(lift))

    ways = list(dict.fromkeys(way for _, way in lifts))
    print(
        f"'{wanted}' is {shares[wanted]:.2%} of {len(truth):,} rows; times as many in {ROWS} rows as by"
        f" chance, mean of {given.draws} draws of known rows (lowest, highest); at best"
        f" {1 / shares[wanted]:.0f}\n"
    )
    print("| way |", " | ".join(f"{count} known" for count in KNOWN), "|")
    print("| --- |", " | ".join("---" for _ in KNOWN), "|")
    for way in ways:
        cells = []
        for count in KNOWN:
            own_lifts = lifts.get((count, way))
            cells.append(
                f"{np.mean(own_lifts):.1f} ({min(own_lifts):.1f}, {max(own_lifts):.1f})"
                if own_lifts
                else ""
            )
        print(f"| {way} |", " | ".join(cells), "|")

    large = np.resize(vectors, (LARGE, vectors.shape[1]))
    query = search.query(of_book[own], of_book[~own], wanted)
    index = faiss.IndexFlatIP(large.shape[1])
    index.add(large)
    searched = {
        "faiss, flat": ms(lambda: index.search(query[None], ROWS)),
        "with the index made": ms(lambda: search.nearest(query, large, ROWS)),
        "numpy": ms(lambda: np.argpartition(-(large @ query), ROWS)),
    }
    print(f"\nms to search {LARGE:,} rows:", ", ".join(f"{way} {t:.0f}" for way, t in searched.items()))
    print(
        f"s to embed {TIMED:,} texts: {cold / 1000:.1f} ({cold / TIMED:.1f} ms a text), kept ones"
        f" {cached / 1000:.2f}; {len(texts):,} kept ones {again / 1000:.2f}"
        f" ({torch.get_num_threads()} threads; the base's folder made each time)"
    )
    print(
        json.dumps(
            {
                "benchmark": "search",
                "label": wanted,
                "share": round(float(shares[wanted]), 4),
                "rows": len(truth),
                "draws": given.draws,
                "lift": {
                    f"{way}, {count}": [round(float(f(own)), 2) for f in (np.mean, min, max)]
                    for (count, way), own in lifts.items()
                },
                "search_ms": {way: round(value, 1) for way, value in searched.items()},
                "embed_ms_a_text": round(cold / TIMED, 2),
                "kept_s": round(again / 1000, 3),
                "threads": torch.get_num_threads(),
            }
        )
    )


if __name__ == "__main__":
    main()
