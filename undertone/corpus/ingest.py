"""Raw cells → the comments table: unique ids, labels by the codebook, every row accounted for."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from undertone.annotation import fuse
from undertone.annotation.fuse import Votes
from undertone.codebook import Codebook, label_of, misspelt
from undertone.corpus.cells import FAULTS, Bad, Column, Place, Wanted
from undertone.corpus.ledger import Ledger
from undertone.corpus.workbook import read_files
from undertone.errors import Problem
from undertone.labels import LabelSpace
from undertone.params import LabelColumns, Source, SplitColumn
from undertone.tables import PARTS, Reference

SHOWN = 5  # bad cells named in a problem
SEPARATOR = ";"  # between several labels in one cell; ； counts as the same
NONE = ("none", "none of these")  # of many labels, as voters and reviewers say it; a blank says nothing

Matrix = NDArray[np.float64]  # [n, labels]: 0 or 1, NaN all along a row without labels
_FLAGS = {
    **dict.fromkeys(("0", "0.0", "false", "no"), 0.0),
    **dict.fromkeys(("1", "1.0", "true", "yes"), 1.0),
    "": np.nan,
}


def comments(
    folder: Path, source: Source, name: str, codebook: Codebook
) -> tuple[pd.DataFrame, Ledger, list[str]]:
    """The source's comments (see `tables`), the ledger of their rows, and notes for the log.

    `name` is the source's key in params.yaml. Besides the columns of `tables`, `annotator.<column>.
    <label>` holds each annotator's own answers. A row with a bad cell is dropped where
    `max_bad_rows` allows for it; `Problem` otherwise, on a repeated id, and on a codebook label
    that no row has.
    """
    setting = f"ingest.{name}"
    wanted = wanted_of(source, setting, codebook)
    raw = read_files(folder, source, wanted, setting)
    if raw.cells.empty:
        raise Problem("no rows below the header", where=str(folder), remedy=f"Set {setting}.header.")
    cells = raw.cells
    table, bad = _described(cells, source)
    notes = list(raw.notes)
    references: tuple[tuple[Reference, LabelColumns | None], ...] = (
        ("label", source.labels),
        ("gold", source.gold),
    )
    for reference, columns in references:
        if columns is not None:
            found, wrong, ties = labelled(cells, columns, reference, codebook)
            table = pd.concat([table, found], axis=1)
            bad += wrong
            if ties:
                notes.append(f"{ties:,} rows whose annotators tie have no {reference}")
    table, dropped = _without_bad(table, [*raw.bad, *bad], source.max_bad_rows, setting)
    _refuse_repeated_ids(table, cells["number_id"][table.index])
    if source.labels is not None:
        _refuse_empty_class(table, codebook.space, folder)
    out = table.reset_index(drop=True)
    rows_in = len(cells) + raw.blank
    return out, Ledger("ingest", rows_in, len(out), {"blank": raw.blank, **dropped}), notes


def wanted_of(source: Source, setting: str, codebook: Codebook) -> Wanted:
    """The columns that a source names; a header that is named twice is read once."""
    named = [
        Column(source.text, f"{setting}.text", exact=True),
        *([Column(source.id, f"{setting}.id", exact=True)] if source.id else []),
        *([Column(source.group, f"{setting}.group", exact=True)] if source.group else []),
        *([Column(source.time, f"{setting}.time")] if source.time else []),
        *(Column(header, f"{setting}.meta") for header in source.meta),
        *([Column(source.split.column, f"{setting}.split.column")] if source.split else []),
        *_label_columns(source.labels, f"{setting}.labels.columns", codebook),
        *_label_columns(source.gold, f"{setting}.gold.columns", codebook),
    ]
    once: dict[str, Column] = {}
    for column in named:
        once.setdefault(column.header, column)
    return Wanted(tuple(once.values()), source.id, source.header)


def _label_columns(columns: LabelColumns | None, setting: str, codebook: Codebook) -> list[Column]:
    if columns is None:
        return []
    if columns.columns or columns.form != "flags":
        return [Column(header, setting) for header in columns.columns]
    spellings = codebook.spellings

    def means(label: str) -> Callable[[str], bool]:
        return lambda header: label_of(header, spellings) == label

    return [Column(label, setting, means=means(label)) for label in codebook.space.labels]


def _described(cells: pd.DataFrame, source: Source) -> tuple[pd.DataFrame, list[Bad]]:
    """All columns but the labels', and what is wrong with ids and parts."""
    bad: list[Bad] = []
    empty = pd.Series("", index=cells.index, dtype="str")

    def column(header: str | None) -> "pd.Series[str]":
        return cells[f"cell.{header}"] if header else empty

    ids = column(source.id)
    if source.id:
        bad += _bad(cells, ids == "", source.id, "blank id", FAULTS["blank id"])
    else:
        ids = pd.Series(
            [
                "-".join([file, *([sheet] if sheet else []), str(row)])
                for file, sheet, row in zip(cells["file"], cells["sheet"], cells["row"], strict=True)
            ],
            index=cells.index,
        )
    part = empty
    if source.split:
        parts = _parts(source.split)
        part = column(source.split.column).map(parts)
        what = f"no value of the split, which has {', '.join(parts)}. Correct it, or name it in `split`"
        bad += _bad(cells, part.isna(), source.split.column, "value outside the split", what)
    table = pd.DataFrame(
        {
            "id": ids,
            "text": column(source.text),
            "group": column(source.group),
            "time": column(source.time),
            "part": part.fillna(""),
            **{place: cells[place] for place in ("file", "sheet", "row")},
            **{f"meta.{header}": column(header) for header in source.meta},
        }
    )
    return table, bad


def _parts(split: SplitColumn) -> dict[str, str]:
    values = (split.train, split.validation, split.test)
    return {value: part for part, named in zip(PARTS, values, strict=True) for value in named}


def labelled(
    cells: pd.DataFrame, columns: LabelColumns, reference: Reference, codebook: Codebook
) -> tuple[pd.DataFrame, list[Bad], int]:
    """The labels as columns, the cells that hold none of the codebook's, and how many rows tie."""
    space = codebook.space
    answers: dict[str, pd.DataFrame] = {}
    bad: list[Bad] = []
    ties = 0
    if columns.form == "flags":
        matrix, wrong = _from_flags(cells, columns, codebook)
        bad += wrong
    else:
        matrices = []
        for header in columns.columns:
            one, faults = _from_names(cells[f"cell.{header}"], columns.separator, codebook)
            bad += _bad(cells, faults != "", header, "value outside the codebook", faults)
            matrices.append(one)
            answers[header] = _columns(one, f"annotator.{header}", space, cells.index)
        matrix = matrices[0]
        if columns.form == "annotators":
            matrix, ties = majority(np.stack(matrices), space)
    joined = [_columns(matrix, reference, space, cells.index)]
    if columns.form == "annotators":
        joined += answers.values()
    return pd.concat(joined, axis=1), bad, ties


def _columns(matrix: Matrix, prefix: str, space: LabelSpace, index: pd.Index) -> pd.DataFrame:
    return pd.DataFrame(matrix, columns=[f"{prefix}.{label}" for label in space.labels], index=index)


def _from_names(
    cells: "pd.Series[str]", separator: str | None, codebook: Codebook
) -> tuple[Matrix, NDArray[np.object_]]:
    """Labels [n, labels] of cells that name them, and what is wrong with each cell that names something
    else, empty for the others."""
    codes, values = pd.factorize(cells)
    space, spellings = codebook.space, codebook.spellings
    each = np.full((len(values), len(space.labels)), np.nan)
    wrong = np.full(len(values), "", dtype=object)
    split_at = f"[{re.escape(separator or SEPARATOR)}{'；' if separator in (None, ';') else ''}]"
    for place, value in enumerate(values):
        if not value.strip():
            continue
        pieces = [value]
        if space.many and label_of(value, spellings) is None:
            if value.strip().casefold() in NONE:
                each[place] = 0
                continue
            pieces = [piece for piece in re.split(split_at, value) if piece.strip()]
        found = [label_of(piece, spellings) for piece in pieces]
        if not found or None in found:
            first = next((one for one, is_ in zip(pieces, found, strict=True) if is_ is None), value)
            wrong[place] = misspelt(first, codebook)
            wrong[place] += f". Where none applies write {NONE[0]}" * space.many
        each[place] = [label in found for label in space.labels]
    return each[codes], wrong[codes]


def _from_flags(
    cells: pd.DataFrame, columns: LabelColumns, codebook: Codebook
) -> tuple[Matrix, list[Bad]]:
    space, spellings = codebook.space, codebook.spellings
    bad: list[Bad] = []
    matrix = np.zeros((len(cells), len(space.labels)))
    headers = columns.columns or list(space.labels)
    values = np.zeros((len(cells), len(headers)))
    for place, header in enumerate(headers):
        label = label_of(header, spellings)
        if label is None:
            raise Problem(
                f"column '{header}' is {misspelt(header, codebook)}",
                where="params.yaml",
                remedy="Name it among a label's `aliases`, and the `columns` of labels and gold each.",
            )
        folded = cells[f"cell.{header}"].str.strip().str.casefold()
        values[:, place] = folded.map(_FLAGS)
        wrong = ~folded.isin(list(_FLAGS))
        bad += _bad(cells, wrong, header, "value that is no flag", "no flag. Write 0 or 1, or no or yes")
        matrix[:, space.labels.index(label)] = values[:, place]
    blank = np.isnan(values)
    some = blank.any(axis=1) & ~blank.all(axis=1)
    told = "some flags of this row are empty, others not. Write 0 or 1 in each, or none"
    bad += _bad(cells, some & ~_rows_of(bad, cells), headers[0], "flags partly empty", told)
    matrix[blank.any(axis=1)] = np.nan
    if not space.many:
        several = ~blank.any(axis=1) & (np.nansum(values, axis=1) != 1)
        told = f"not exactly one flag, but codebook {codebook.name} has one label a comment"
        bad += _bad(cells, several, headers[0], "not one flag", told)
    return matrix, bad


def majority(answers: Votes, space: LabelSpace) -> tuple[Matrix, int]:
    """What most annotators say, for answers [annotators, n, labels], and the number of ties.

    One label a comment: the label that more annotators gave than any other. Many: each label that
    more than half of those who answered gave. A row with a tie, be it over one label of many, has
    no label.
    """
    shares, tied = fuse.majority(answers, many=space.many)
    return fuse.decided(shares, space), int(tied.sum())


def _bad(
    cells: pd.DataFrame,
    where: "pd.Series[bool] | NDArray[np.bool_]",
    column: str,
    reason: str,
    what: str | NDArray[np.object_],
) -> list[Bad]:
    """`what`: one for all, or each cell's."""
    rows = cells.loc[np.asarray(where), ["file", "sheet", "row"]].to_numpy()
    told = np.broadcast_to(np.asarray(what, dtype=object), len(cells))[np.asarray(where)]
    return [
        Bad(Place(file, sheet), row, column, reason, one)
        for (file, sheet, row), one in zip(rows, told, strict=True)
    ]


def _key(bad: Bad) -> tuple[str, str, int]:
    return bad.place.file, bad.place.sheet, bad.row


def _rows_of(bad: Sequence[Bad], cells: pd.DataFrame) -> NDArray[np.bool_]:
    keys = {_key(one) for one in bad}
    places = zip(cells["file"], cells["sheet"], cells["row"], strict=True)
    return np.array([place in keys for place in places], dtype=bool)


def _without_bad(
    table: pd.DataFrame, bad: Sequence[Bad], allowed: int, setting: str
) -> tuple[pd.DataFrame, dict[str, int]]:
    """`table` without its bad rows, counted by the first thing wrong; `Problem` on too many."""
    first: dict[tuple[str, str, int], Bad] = {}
    for one in bad:
        first.setdefault(_key(one), one)
    if len(first) > allowed:
        told = [Problem(str(one)) for one in list(first.values())[:SHOWN]]
        more = f", {len(first) - SHOWN:,} more than shown" if len(first) > SHOWN else ""
        raise Problem.together(
            [
                *told,
                Problem(
                    f"{len(first):,} bad rows{more}",
                    where=f"params.yaml: {setting}",
                    remedy=f"Correct them, or set {setting}.max_bad_rows to leave such rows out.",
                ),
            ]
        )
    dropped: dict[str, int] = {}
    for one in first.values():
        dropped[one.reason] = dropped.get(one.reason, 0) + 1
    return (table[~_rows_of(list(first.values()), table)] if first else table), dropped


def _refuse_repeated_ids(table: pd.DataFrame, number: "pd.Series[bool]") -> None:
    """`Problem` where an id stands twice, also as the number 1 and the text 001."""
    ids = table["id"]
    if number.any() and not number.all():
        ids = ids.where(~ids.str.fullmatch("[0-9]+"), ids.str.lstrip("0"))
    repeated = ids.duplicated(keep=False)
    if not repeated.any():
        return
    same = ids == ids[repeated].iloc[0]
    told = [
        f"{Place(file, sheet)}, row {row}"
        for file, sheet, row in table.loc[same, ["file", "sheet", "row"]].to_numpy()[:SHOWN]
    ]
    raise Problem(
        f"one id in {int(same.sum())} rows; {int(ids.duplicated().sum()):,} ids in all stand again",
        where=" and ".join(told),
        remedy="Give each comment an id of its own.",
    )


def _refuse_empty_class(table: pd.DataFrame, space: LabelSpace, folder: Path) -> None:
    counts = {label: table[f"label.{label}"].sum() for label in space.labels}
    empty = [label for label, count in counts.items() if not count]
    if empty and len(empty) < len(space.labels):
        raise Problem(
            f"an empty class: no comment is labelled {', '.join(empty)}",
            where=str(folder),
            remedy=f"Label some, or take it out of codebook {space.codebook}.",
        )
