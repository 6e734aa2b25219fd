"""The comments that are most like the known examples of a rare label, for people to label next.

Known examples are the codebook's, and rows of the training part that are labelled. A text's score is its
mean cosine to the label's examples less that to the others': Rocchio's query (1971), one vector and so
one inner product a text. docs/search.md says what else was measured.

Rows of validation and test are no examples and are not found, nor are their repeats. Their labels would
choose what is learnt from, and the test would no longer be strange to the model; and those found would
join the gold labels there, by which models are judged as if they had been drawn by chance.
"""

from collections.abc import Callable, Sequence
from typing import Any

import faiss
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from undertone import params, tables
from undertone.annotation import queues
from undertone.codebook import Codebook
from undertone.errors import Problem
from undertone.labels import LabelSpace

NEEDS = ("id", "text", "repeat")
Vectors = NDArray[np.float32]  # [n, width], each of length one
Rows = NDArray[np.bool_]  # [n]


def search(
    table: pd.DataFrame,
    labels: Sequence[str],
    flags: NDArray[np.float64],
    *,
    people: Rows,
    held: Rows,
    book: Codebook,
    settings: params.Search,
    embed: Callable[[Sequence[str]], Vectors],
    rng: np.random.Generator,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The next queue (see `queues.queue`), an arm for each of `labels` and the random one; its counts.

    `flags` [n, labels of `book`]: the labels of rows, whoever gave them, NaN of others. `people`: rows
    that somebody has looked at; all others are the pool. `held`: rows of validation and test.
    An arm has no row that is known to have its label, and of rows that repeat each other one. The random
    arm is drawn from all of the pool that is in no other arm, or it would speak for a part only.
    `Problem` for a label that the codebook doesn't have, or of which there is no example.
    """
    space = book.space
    if unknown := [label for label in labels if label not in space.labels]:
        what = f"no label {', '.join(unknown)}; the codebook has {', '.join(space.labels)}"
        raise Problem(what, where="params.yaml: search.labels")
    ids, repeat = table["id"].to_numpy(), table["repeat"].to_numpy()
    given = [(label.id, text) for label in book.labels for text in label.examples]
    owner = np.array([label for label, _ in given], dtype=object)
    pool = ~people
    arms: dict[str, list[str]] = {}
    told: dict[str, Any] = {}
    if labels and pool.any():
        vectors = embed([*table["text"], *(text for _, text in given)])
        of_rows, of_book = vectors[: len(table)], vectors[len(table) :]
        tied = np.isin(repeat, repeat[held])
        usable = ~np.isnan(flags).any(axis=1) & ~tied
        taken = people | tied
        shares = np.array_split(np.arange(settings.rows - settings.random), len(labels))
        for label, share in zip(labels, shares, strict=True):
            has = flags[:, space.labels.index(label)] == 1
            examples = np.concatenate([of_book[owner == label], of_rows[usable & has]])
            others = np.concatenate([of_book[owner != label], of_rows[usable & ~has]])
            wanted = query(examples, others, label)
            free = np.flatnonzero(pool & ~np.isin(repeat, repeat[taken | has]))
            free = free[np.sort(np.unique(repeat[free], return_index=True)[1])]
            places, scores = nearest(wanted, of_rows[free], len(share))
            rows = free[places]
            arms[label] = ids[rows].tolist()
            taken[rows] = True
            told[label] = {
                "examples_of_the_codebook": int((owner == label).sum()),
                "examples_of_the_training_part": int((usable & has).sum()),
                "other_examples": len(others),
                "looked_through": len(free),
                "found": len(rows),
                "score": _spread(scores),
                "score_of_examples": _spread(examples @ wanted),
            }
    drawn = settings.random if labels else 0
    queue = queues.queue(ids[pool].tolist(), arms, drawn, rng)
    random = queue.loc[queue["arm"] == queues.RANDOM, "inclusion"]
    counts = {
        "pool": int(pool.sum()),
        "labels": told,
        "random": {"rows": len(random), "inclusion": float(random.iloc[0]) if len(random) else None},
    }
    return queue, counts


def seen(table: pd.DataFrame, asked: Sequence[str]) -> Rows:
    """Rows of a cleaned table that a person has labelled, even if people couldn't agree on them, and
    those that a review `asked` about, even if they were left open: nobody is asked twice."""
    own = [name for name in table if str(name).startswith(("gold.", "label.", "annotator."))]
    return np.asarray(table[own].notna().any(axis=1) | table["id"].isin(asked))


def held(table: pd.DataFrame, parts: pd.DataFrame) -> Rows:
    """Rows that are validation or test, in the split `parts` or by the table's own word."""
    ids = parts.loc[parts["part"] != "train", "id"]
    return np.asarray(table["id"].isin(ids) | table["part"].isin(tables.PARTS[1:]))


def known(table: pd.DataFrame, labelled: pd.DataFrame, space: LabelSpace) -> NDArray[np.float64]:
    """The labels [n, labels] of a cleaned table: people's gold, or else those in `labelled`, the voters'
    or the table's own; NaN all along a row without any."""
    learnt = tables.judged(labelled, "label", space)
    # a last row of NaN, which is that of those that `labelled` lacks (-1)
    padded = np.vstack([learnt, np.full(len(space.labels), np.nan)])
    others = padded[pd.Index(labelled["id"]).get_indexer(pd.Index(table["id"]))]
    gold = tables.judged(table, "gold", space)
    return np.where(np.isnan(gold).any(axis=1, keepdims=True), others, gold)


def query(examples: Vectors, others: Vectors, label: str) -> Vectors:
    """The vector [width] whose inner product with a text's is the text's score.

    Others are left out where none is known; `Problem` where no example is.
    """
    if not len(examples):
        raise Problem(
            f"no example of '{label}', in the codebook or in the training part",
            where="search",
            remedy="Write some into the codebook's `examples`.",
        )
    wanted: Vectors = examples.mean(axis=0)
    return wanted - others.mean(axis=0) if len(others) else wanted


def nearest(wanted: Vectors, vectors: Vectors, count: int) -> tuple[NDArray[np.int64], Vectors]:
    """The rows of `vectors` with the highest inner product with `wanted`, best first, and these.

    Exact: of 180,000 rows it takes 0.16 s, as long as embedding 16 texts (benchmarks/search.py).
    """
    count = min(count, len(vectors))
    if not count:
        return np.empty(0, np.int64), np.empty(0, np.float32)
    index = faiss.IndexFlatIP(len(wanted))
    index.add(np.ascontiguousarray(vectors))
    scores, rows = index.search(wanted[None], count)
    return rows[0], scores[0]


def line(counts: dict[str, Any]) -> str:
    """What the log says."""
    found = "; ".join(
        f"'{label}' {one['found']} by {one['examples_of_the_codebook']} examples of the codebook and"
        f" {one['examples_of_the_training_part']} rows"
        for label, one in counts["labels"].items()
    )
    chance = f"{counts['random']['rows']} by chance"
    return f"{counts['pool']:,} rows in the pool; {found or 'no label is looked for'}; {chance}"


def _spread(scores: Vectors) -> dict[str, float | None]:
    names = {"lowest": 0.0, "median": 0.5, "highest": 1.0}
    return {
        name: round(float(np.quantile(scores, at)), 4) if len(scores) else None
        for name, at in names.items()
    }
