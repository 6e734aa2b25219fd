"""The workbook in which people review, and what they made of it.

Control characters, and what else a program may drop when it saves the file, are shown as Excel writes
them in its files (`_x000D_`, ECMA-376 22.9.2.19), and restored on reading. Every cell is a string with a
quote prefix, so that `=1+1` and `007` stay what they are, also after somebody has pressed Enter in them.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import xlsxwriter

from undertone.codebook import Codebook
from undertone.corpus.cells import Column, Place, Wanted
from undertone.corpus.prescan import kind_of
from undertone.corpus.xlsx import Workbook
from undertone.errors import Problem
from undertone.files import whole
from undertone.people import review
from undertone.people.review import NONE, Asked, Line

DEFINITIONS = "codebook"  # the second sheet
YES, NO = ("yes", "y", "1", "true", "x"), ("no", "n", "0", "false")
LONGEST = 32_767  # UTF-16 units that a cell holds
_CUT = " […] [cut for Excel: {left:,} more characters; judge it by what is here, or leave it empty]"

# Control characters but line feed, DEL and C1, line and paragraph separators, half pairs, and what XML
# may not hold.
_HIDDEN = "[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]"
# Besides them an x by which what follows would read as an escape: the underscore before it stays one.
_ESCAPED = re.compile(f"{_HIDDEN}|(?:(?<=_)|(?<={_HIDDEN}))x(?=[0-9A-Fa-f]{{4}})")
_ESCAPE = re.compile("_x([0-9A-Fa-f]{4})_")


def displayed(text: str) -> str:
    """What the cell shows of a text, whole."""
    shown = _ESCAPED.sub(lambda match: f"_x{ord(match[0]):04X}_", text)
    # XlsxWriter would take it for XML of its own
    return f"_x003C_{shown[1:]}" if shown.startswith("<r>") and shown.endswith("</r>") else shown


def restored(shown: str) -> str:
    """The text that a cell shows: what `displayed` is the inverse of."""
    return _ESCAPE.sub(lambda match: chr(int(match[1], 16)), shown)


def cut(text: str) -> str:
    """What stands in the cell: what is displayed, and where that is too long its beginning, and how much
    is missing."""
    shown = displayed(text)
    if _units(shown) <= LONGEST:
        return shown
    room = LONGEST - len(_CUT) - 12  # for the number
    kept = shown.encode("utf-16-le")[: 2 * room].decode("utf-16-le", "ignore")
    return kept + _CUT.format(left=len(shown) - len(kept))


def digests(texts: "pd.Series[str]") -> pd.DataFrame:
    """`digest` and `shown` of each text, as a review's record keeps them."""
    shown = [review.digest(restored(cut(text))) for text in texts]
    return pd.DataFrame({"digest": texts.map(review.digest), "shown": shown}, index=texts.index)


def _units(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


class Cell(NamedTuple):
    """What a column asks: whom, and of many labels which (an id, or NONE)."""

    reviewer: str
    label: str = ""


def columns(question: Asked, codebook: Codebook) -> dict[str, Cell]:
    """The headers that are filled in.

    A cell holds one choice of a list. So many labels have a column each: with several columns for "a
    label", an empty one would say both "no other" and "not judged yet".
    """
    if not codebook.many:
        return {reviewer: Cell(reviewer) for reviewer in question.reviewers}
    names = {label.id: label.name for label in codebook.labels} | {NONE: NONE}
    return {
        f"{reviewer}: {name}": Cell(reviewer, label)
        for reviewer in question.reviewers
        for label, name in names.items()
    }


def write(
    question: Asked,
    texts: Mapping[str, str],
    codebook: Codebook,
    path: Path,
    *,
    context: Mapping[str, Mapping[str, str]] | None = None,
) -> int:
    """Write the workbook; how many texts are cut in it.

    `context`: header → id → what else is shown, such as the model's suggestion. `codebook`: the one that
    people label by.
    """
    also = context or {}
    headers = ["id", "text", *also, *columns(question, codebook)]
    asked = set(columns(question, codebook))
    taken = [one for one in headers if headers.count(one) > 1]
    if taken:
        raise Problem(
            f"two columns called '{taken[0]}'", where=question.name, remedy="Rename the reviewer."
        )
    count = 0
    with whole(path) as beside:
        book = xlsxwriter.Workbook(beside, {"strings_to_urls": False, "in_memory": True})
        book.set_properties({"created": datetime(2000, 1, 1)})  # the clock's time otherwise
        of_head = book.add_format(
            {"bold": True, "text_wrap": True, "valign": "top", "bottom": 1, **_STRING}
        )
        of_cell = book.add_format({"text_wrap": True, "valign": "top", **_STRING})
        sheet = book.add_worksheet(question.name)
        sheet.freeze_panes(1, 2)
        for at, header in enumerate(headers):
            width = 80 if header == "text" else 12 if header == "id" else 18
            sheet.set_column(at, at, width, of_cell)
            sheet.write_string(0, at, header, of_head)
        for number, one in enumerate(question.rows["id"], start=1):
            cell = cut(texts[one])
            count += cell != displayed(texts[one])
            shown = [displayed(one), cell, *(displayed(values.get(one, "")) for values in also.values())]
            for at, value in enumerate(shown):
                if value:
                    sheet.write_string(number, at, value, of_cell)
        last = max(len(question.rows), 1)
        sheet.autofilter(0, 0, last, len(headers) - 1)
        choices = f"={DEFINITIONS}!$A$2:$A${len(codebook.labels) + 1}"
        for at, header in enumerate(headers):
            if header in asked:
                source = [YES[0], NO[0]] if codebook.many else choices
                told = {"error_title": "Not in the list", "error_message": "Choose from the list."}
                sheet.data_validation(1, at, last, at, {"validate": "list", "source": source, **told})
        _define(book, codebook, of_head, of_cell)
        book.close()
    return count


_STRING = {"num_format": 49, "quote_prefix": True}  # 49: text


def _define(book: xlsxwriter.Workbook, codebook: Codebook, of_head: object, of_cell: object) -> None:
    sheet = book.add_worksheet(DEFINITIONS)
    sheet.freeze_panes(1, 1)
    widths = {"label": 20, "definition": 80, "examples": 80}
    for at, (header, width) in enumerate(widths.items()):
        sheet.set_column(at, at, width, of_cell)
        sheet.write_string(0, at, header, of_head)
    for number, label in enumerate(codebook.labels, start=1):
        for at, value in enumerate((label.name, label.definition, "\n".join(label.examples))):
            sheet.write_string(number, at, cut(value), of_cell)


def read(
    path: Path, known: Mapping[str, Asked], codebook: Codebook
) -> tuple[Asked, list[Line], list[Problem]]:
    """Which question it answers, its rows in the sheet's order, and what is wrong with single cells.

    `known`: the questions by name, one of which its sheet bears. `Problem` where it is no workbook, the
    sheet or one of its first two columns is gone, or another sheet has come in.
    """
    where = path.name
    if not path.is_file():
        raise Problem("no such file", where=str(path))
    if kind_of(path, where) != "xlsx":
        raise Problem("no Excel workbook", where=where, remedy="Save it as Excel Workbook (.xlsx).")
    with Workbook(path, where) as book:
        names = [name for name in book.sheets if name in known]
        if len(names) != 1:
            told = "no sheet bears" if not names else f"{len(names)} sheets bear"
            raise Problem(
                f"{told} the name of a review",
                where=where,
                remedy=f"The reviews are {', '.join(known) or 'none'}; name the sheet as it was.",
            )
        if more := len(set(book.sheets) - {names[0], DEFINITIONS}):
            remedy = "What was answered there isn't read: take it over, and take the sheet out."
            raise Problem(f"{more} sheets that were not sent", where=where, remedy=remedy)
        question = known[names[0]]
        review.check_labels(question, codebook, where)
        place = Place(where, names[0])
        header = book.header(names[0])
        for one in ("id", "text"):
            if one not in header.values():  # what else stands there may be a comment
                raise Problem(
                    f"no column '{one}'", where=str(place), remedy="Write the header row back."
                )
        filled = columns(question, codebook)
        faults = _strangers(header, filled, question, place) + [
            Problem(
                f"no column '{one}'", where=str(place), remedy="Put it back; its cells may stay empty."
            )
            for one in filled
            if one not in header.values()
        ]
        wanted = ["id", "text", *(one for one in header.values() if one in filled)]
        headers = tuple(Column(one, "", exact=one in ("id", "text")) for one in wanted)
        grid = book.grid(names[0], Wanted(headers, "id"))
    # bad cells first, as an error cell would else read as a label
    faults += [Problem(bad.what, where=str(bad).partition(": ")[0]) for bad in grid.bad]
    without = sum(bad.reason == "formula without a result" for bad in grid.bad)
    if formulas := grid.seen[_FORMULAS] - without:
        remedy = "Copy them, and paste their values."
        faults.append(Problem(f"{formulas:,} cells hold formulas", where=str(place), remedy=remedy))
    bad = {(one.row, one.column) for one in grid.bad}
    cells = grid.cells
    rows = question.rows[["digest", "shown"]].itertuples(index=False, name=None)
    asked = dict(zip(question.rows["id"], rows, strict=True))
    lines = []
    for at, row in enumerate(grid.rows):
        values = {one: cells[one][at].strip() for one in wanted[2:] if (row, one) not in bad}
        given, wrong = _given({filled[one]: value for one, value in values.items()}, codebook)
        faults += [Problem(one, where=f"{place}, row {row}") for one in wrong]
        one = _among(cells["id"][at], asked.__contains__)
        text = _among(cells["text"][at], partial(_is_of, asked.get(one, ())))
        lines.append(Line(row, one, text, given))
    return question, lines, faults


_FORMULAS = "formula cells, taken at their stored results"  # as `xlsx` counts them


def _is_of(digests: Sequence[str], text: str) -> bool:
    return review.digest(text) in digests


def _among(cell: str, fits: Callable[[str], bool]) -> str:
    """What the cell stands for, also where a program has saved it that takes an underscore's escape away
    (openpyxl: `_x005F_x0001_` comes back as `_x0001_`)."""
    text = restored(cell)
    return cell if not fits(text) and fits(cell) else text


def _strangers(
    header: Mapping[str, str], filled: Mapping[str, Cell], question: Asked, place: Place
) -> list[Problem]:
    """Columns of nobody who was asked; the header itself isn't told, as anything may stand in it."""
    known = ("id", "text", "suggestion", *filled)
    of = question.decides and tuple(one for one in header.values() if one.endswith(SAID))
    strangers = [letters for letters, text in header.items() if text not in (*known, *(of or ()))]
    return [
        Problem(
            f"a reviewer who was not asked; {', '.join(question.reviewers)} were",
            where=f"{place}, column {letters}",
            remedy="Put the column's header back, or take the column out.",
        )
        for letters in strangers
    ]


SAID = " said"  # ends the header of what a reviewer answered, where that is to be decided on


def _given(
    cells: Mapping[Cell, str], codebook: Codebook
) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """What each reviewer chose, and what is wrong with it."""
    if not codebook.many:
        return {cell.reviewer: (value,) for cell, value in cells.items() if value}, []
    given: dict[str, tuple[str, ...]] = {}
    wrong: list[str] = []
    by: dict[str, dict[str, str]] = {}
    for cell, value in cells.items():
        if value:
            by.setdefault(cell.reviewer, {})[cell.label] = value.casefold()
    for reviewer, values in by.items():
        said = {label for label, value in values.items() if value in YES}
        strange = [label for label, value in values.items() if value not in (*YES, *NO)]
        denied = {label for label, value in values.items() if value in NO}
        if strange:
            wrong.append(f"neither yes nor no under {reviewer}: {', '.join(strange)}")
        elif said:
            given[reviewer] = tuple(sorted(said))
        elif denied >= set(codebook.space.labels):
            given[reviewer] = (NONE,)
        else:
            wrong.append(
                f"{reviewer} says no to some labels and yes to none: say yes to '{NONE}', or to one"
            )
    return given, wrong


def answered(question: Asked, answers: pd.DataFrame, codebook: Codebook) -> dict[str, dict[str, str]]:
    """Header → id → the labels that each reviewer gave, for those who decide where they differ."""
    names = [label.name for label in codebook.labels]
    found: dict[str, dict[str, str]] = {}
    for reviewer, own in answers.groupby("reviewer", sort=True):
        flags = (own[list(question.labels)].to_numpy(np.float64) > 0.5).tolist()
        said = ["; ".join(name for name, flag in zip(names, row, strict=True) if flag) for row in flags]
        found[f"{reviewer}{SAID}"] = dict(zip(own["id"], [one or NONE for one in said], strict=True))
    return found
