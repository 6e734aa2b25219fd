"""Reviewers of the stand-in: they open the workbook, fill it in, and it is read back as a real one is.

They know the truth that the stand-in's table holds of each comment, and miss it now and then.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import openpyxl
import pandas as pd

from undertone import tables
from undertone.annotation import queues
from undertone.codebook import Codebook, label_of
from undertone.errors import Problem
from undertone.people import review, reviewbook
from undertone.people.review import NONE, Asked, Review

REVIEWERS = ("reader one", "reader two")
CARE = 0.9  # how often a reviewer finds the true label
DAY = "2025-01-02"  # of all simulated reviews: an output holds no clock
SEPARATOR = ";"  # between the labels of one comment's truth


def reviews(
    comments: pd.DataFrame, rows: int, codebook: Codebook, *, seed: int, folder: Path
) -> list[Review]:
    """A review of `rows` comments without gold, drawn at random, and one that settles its differences.

    Each leaves its last row open. `codebook`: the one that people label by; `folder`: for the workbooks.
    """
    rng = np.random.default_rng(seed)
    truth = _truth(comments, codebook)
    gold = np.asarray(np.isfinite(tables.judged(comments, "gold", codebook.space)).all(axis=1))
    open_ = [one for one, known in zip(comments["id"], gold, strict=True) if not known and one in truth]
    queue = queues.queue(open_, {}, rows, rng)
    # `inclusion` is of the whole table, whose rows without a truth nobody is asked about
    first = _held(comments, queue, "rehearsal", REVIEWERS, codebook, truth, CARE, folder, rng)
    differing = queue[queue["id"].isin(first.differing)]
    if differing.empty:
        return [first]
    last = _held(
        comments, differing, "rehearsal-decide", (review.DECISION,), codebook, truth, 1.0, folder, rng,
        decides="rehearsal",
    )  # fmt: skip
    return [first, last]


def _held(
    comments: pd.DataFrame,
    queue: pd.DataFrame,
    name: str,
    reviewers: tuple[str, ...],
    codebook: Codebook,
    truth: Mapping[str, tuple[str, ...]],
    care: float,
    folder: Path,
    rng: np.random.Generator,
    *,
    decides: str = "",
) -> Review:
    texts = comments.set_index("id")["text"]
    rows = pd.concat([queue.set_index("id"), reviewbook.digests(texts[queue["id"]])], axis=1)
    rows = rows.reset_index().assign(suggestion="")
    question = review.asked(name, "standin", rows, reviewers, codebook.space, decides=decides)
    path = folder / f"{name}.xlsx"
    reviewbook.write(question, dict(zip(texts.index, texts, strict=True)), codebook, path)
    fill(path, question, codebook, truth, care, rng)
    _, lines, faults = reviewbook.read(path, {name: question}, codebook)
    answers, wrong = review.answers(question, lines, codebook, path.name, today=DAY)
    if faults + wrong:
        raise Problem.together(faults + wrong)
    return Review(question, answers)


def fill(
    path: Path,
    question: Asked,
    codebook: Codebook,
    truth: Mapping[str, tuple[str, ...]],
    care: float,
    rng: np.random.Generator,
) -> None:
    """Each reviewer's choices in all rows but the last, and the workbook saved by another program."""
    book = openpyxl.load_workbook(path)
    sheet = book[question.name]
    header = {cell.value: cell.column for cell in sheet[1]}
    labels = list(codebook.space.labels)
    names = {label.id: label.name for label in codebook.labels}
    for row in range(2, sheet.max_row):
        for reviewer in question.reviewers:
            said = truth[reviewbook.restored(sheet.cell(row, header["id"]).value)]
            if rng.random() >= care:
                said = (labels[int(rng.integers(len(labels)))],)
            for title, cell in reviewbook.columns(question, codebook).items():
                if cell.reviewer == reviewer and not codebook.many:
                    sheet.cell(row, header[title]).value = names[said[0]]
                elif cell.reviewer == reviewer and (
                    cell.label in said or (not said and cell.label == NONE)
                ):
                    sheet.cell(row, header[title]).value = reviewbook.YES[0]
    book.save(path)


def _truth(comments: pd.DataFrame, codebook: Codebook) -> dict[str, tuple[str, ...]]:
    if "meta.truth" not in comments:
        raise Problem(
            "no column 'truth' that simulated reviewers could know",
            where="params.yaml: review.simulated",
            remedy="Take the source out of it; its reviewers are people.",
        )
    spellings = codebook.spellings
    found: dict[str, tuple[str, ...]] = {}
    for one, told in zip(comments["id"], comments["meta.truth"], strict=True):
        labels = [label_of(name, spellings) for name in told.split(SEPARATOR) if name.strip()]
        known = tuple(label for label in labels if label is not None)
        if known or codebook.many:
            found[one] = known
    return found
