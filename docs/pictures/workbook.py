"""Draws a review's workbook as a page of HTML, for docs/review.md: no office program is needed for it.

    python docs/pictures/workbook.py data/review/standin/review-1.xlsx docs/pictures

What it shows is read from the file: cells, widths, frozen panes, and the list behind a drop-down.
"""

import html
import sys
from pathlib import Path

import openpyxl
from openpyxl.utils import get_column_letter
from openpyxl.worksheet.worksheet import Worksheet
from playwright.sync_api import sync_playwright

NAMES = ("review", "definitions")
STYLE = """body { margin: 0; font: 13px/1.35 Calibri, Carlito, sans-serif; width: max-content; }
table { border-collapse: collapse; table-layout: fixed; }
td { border: 1px solid #d4d4d4; padding: 1px 4px; vertical-align: top; white-space: pre-wrap;
  overflow-wrap: anywhere; position: relative; }
.edge { background: #eee; color: #555; text-align: center; }
.head { font-weight: bold; border-bottom: 2px solid #444; }
.open { outline: 2px solid #107c41; overflow: visible; }
ul { position: absolute; top: 100%; left: -2px; margin: 0; padding: 2px 0; list-style: none; z-index: 1;
  background: #fff; border: 1px solid #888; box-shadow: 2px 2px 4px #aaa; min-width: 100%; }
li { padding: 1px 8px; } li:first-child { background: #107c41; color: #fff; }
p { margin: 0; padding: 3px 8px; background: #eee; } b { background: #fff; padding: 3px 10px; }"""


def drawn(book: openpyxl.Workbook, sheet: Worksheet, rows: int, opened: str) -> str:
    """The first rows of a sheet, with the drop-down of one cell open."""
    letters = [get_column_letter(at) for at in range(1, sheet.max_column + 1)]
    widths = {
        at: one.width for one in sheet.column_dimensions.values() for at in range(one.min, one.max + 1)
    }
    wide = [round(7 * widths.get(at, 9) + 5) for at, _ in enumerate(letters, start=1)]
    lines = ["<tr><td class=edge></td>" + "".join(f"<td class=edge>{one}</td>" for one in letters)]
    for row in range(1, min(rows, sheet.max_row) + 1):
        cells = [f"<td class=edge>{row}</td>"]
        for letter in letters:
            at = f"{letter}{row}"
            kind = "open" if at == opened else "head" if row == 1 else ""
            menu = "".join(f"<li>{html.escape(one)}</li>" for one in choices(book, sheet, at))
            shown = html.escape(str(sheet[at].value or ""))
            cells.append(f"<td class='{kind}'>{shown}{f'<ul>{menu}</ul>' * (kind == 'open')}</td>")
        lines.append("<tr>" + "".join(cells))
    columns = "<col width=32>" + "".join(f"<col width={one}>" for one in wide)
    tabs = " ".join(f"<b>{one}</b>" if one == sheet.title else one for one in book.sheetnames)
    return (
        f"<!doctype html><meta charset=utf-8><style>{STYLE}</style>"
        f"<table style='width:{sum(wide) + 32}px'>{columns}{''.join(lines)}</table><p>{tabs}</p>"
    )


def choices(book: openpyxl.Workbook, sheet: Worksheet, cell: str) -> list[str]:
    for rule in sheet.data_validations.dataValidation:
        if cell in rule.sqref:
            name, _, cells = rule.formula1.partition("!")
            return [str(one.value) for (one,) in book[name][cells.replace("$", "")]]
    return []


def main(path: Path, out: Path) -> None:
    book = openpyxl.load_workbook(path)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(device_scale_factor=1)
        for sheet, name, cell in zip(book.worksheets, NAMES, ("C5", ""), strict=True):
            page.set_content(drawn(book, sheet, 10, cell))
            page.locator("body").screenshot(path=out / f"{name}.png")
        browser.close()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
