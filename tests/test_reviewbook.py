"""A workbook for reviewers keeps every text, and what comes back changed is told row by row."""

import re
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import openpyxl
import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from openpyxl.worksheet.worksheet import Worksheet

from undertone.codebook import Codebook, Label
from undertone.errors import Problem
from undertone.people import review, reviewbook
from undertone.people.review import NONE, Asked, Line

LABELS = [
    Label(id="for_it", name="for", code="0", definition="Takes its side.", examples=["Yes.", "=1"]),
    Label(id="against", name="against", code="1", aliases=["contra"]),
]
ONE = Codebook(name="stance", title="Stance", language="en", labels=LABELS)
MANY = ONE.model_copy(update={"many": True})
REVIEWERS = ("anna", "ben")

HARD = [
    *("=1+1", "+1", "-1", "@SUM(A1)", "=cmd|' /C calc'!A0", "{=1}", "'quoted", "007", "1e5", "1/2"),
    *("NA", "null", "None", "nan", "#N/A", "TRUE", " ", "\t", "\n", " both "),
    *("a\nb", "a\r\nb", "\r", "a\tb"),
    *("👩‍💻 ❤️ 🏴󠁧󠁢󠁥󠁮󠁧󠁿", "zero\u200bwidth\u200c\ufeff", "\u202eturned", "\x00\x01\x0b\x1f\x7f\x85\x9f"),
    *("_x0041_", "_x005F_x0041_", "\x01x0041_", "_\x01x0041_", "_x0041\x01", "_x005f_", "__x000d_"),
    *("<r><t>rich</t></r>", "<b>&amp;", "]]>", "\u2028\u2029", "\ufffe\uffff"),
    *("https://example.org", "mailto:a@b"),
    *("e\u0301", "\u00a0", "\u3000", "评论", "x" * 255, "x" * 32_767, "\U0001f600" * 16_383),
]  # fmt: skip


def question(
    texts: list[str],
    codebook: Codebook = ONE,
    reviewers: tuple[str, ...] = REVIEWERS,
    ids: list[str] | None = None,
) -> Asked:
    ids = ids or [f"{number:04d}" for number in range(len(texts))]
    rows = pd.DataFrame({"id": ids, "arm": "random", "inclusion": 0.5, "suggestion": "for"})
    rows = pd.concat([rows, reviewbook.digests(pd.Series(texts, dtype="object"))], axis=1)
    return review.asked("review-1", "somewhere", rows, reviewers, codebook.space)


def written(path: Path, texts: list[str], codebook: Codebook = ONE) -> Asked:
    asked = question(texts, codebook)
    reviewbook.write(asked, dict(zip(asked.rows["id"], texts, strict=True)), codebook, path)
    return asked


def read(path: Path, asked: Asked, codebook: Codebook = ONE) -> tuple[list[Line], list[str]]:
    """The lines, and all faults as they are told."""
    _, lines, faults = reviewbook.read(path, {asked.name: asked}, codebook)
    _, more = review.answers(asked, lines, codebook, path.name, today="2025-01-01")
    return lines, [str(one) for one in faults + more]


def edited(path: Path, edit: Callable[[Worksheet], object]) -> None:
    book = openpyxl.load_workbook(path)
    edit(book["review-1"])
    book.save(path)


def typed(path: Path, cells: Mapping[int, str]) -> None:
    """Row → the XML of a cell at its end; all else stays as it is, which openpyxl would not keep."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name).decode() for name in archive.namelist()}
    name = "xl/worksheets/sheet1.xml"
    for row, cell in cells.items():
        before, start, after = parts[name].partition(f'<row r="{row}"')
        assert start
        parts[name] = before + start + after.replace("</row>", f"{cell}</row>", 1)
    with zipfile.ZipFile(path, "w") as archive:
        for one, content in parts.items():
            archive.writestr(one, content)


def generated(count: int) -> list[str]:
    """`count` strings of hypothesis: any at all, and those of characters that workbooks stumble over."""
    nasty = st.text(
        "_xX0041F5<r>/&='\"+-@ \n\t\r\x00\x01\x1f\x85\u2028\u200b\ufeff\ufffe😀", max_size=12
    )
    begun = st.builds("".join, st.tuples(st.sampled_from("=+-@'0 \t_"), st.text(max_size=20)))
    found: list[str] = []

    @settings(
        max_examples=2 * count,
        database=None,
        deadline=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.one_of(st.text(), nasty, begun))
    def draw(text: str) -> None:
        if len(found) < count:
            found.append(text)

    draw()
    return found


def test_of_two_thousand_generated_texts_none_is_changed(tmp_path: Path) -> None:
    texts = generated(2000)
    assert len(texts) == 2000
    assert len(set(texts)) > 1000
    path = tmp_path / "book.xlsx"
    asked = written(path, texts)
    for _ in range(2):
        lines, faults = read(path, asked)
        assert faults == []
        assert [line.text for line in lines] == texts
        edited(path, lambda _: None)  # and once more as another program saves it


def test_hard_texts_and_ids_come_back_and_a_text_too_long_is_cut_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "book.xlsx"
    ids = [text for text in HARD if len(text) < 50 and "x00" not in text]
    texts = [*HARD, "y" * 32_768, "\x01" * 5000, "\U0001f600" * 20_000]
    ids += [f"id {number}" for number in range(len(texts) - len(ids))]
    asked = question(texts, ids=ids)
    told = reviewbook.write(asked, dict(zip(ids, texts, strict=True)), ONE, path)
    assert told == 3
    for _ in range(2):
        lines, faults = read(path, asked)
        assert faults == []
        assert [line.id for line in lines] == ids
        assert [line.text for line in lines[: len(HARD)]] == HARD
        edited(path, lambda _: None)
    assert "[cut for Excel: " in lines[-1].text
    assert all(len(line.text.encode("utf-16-le")) <= 2 * 32_767 for line in lines)


def test_control_characters_are_shown(tmp_path: Path) -> None:
    path = tmp_path / "book.xlsx"
    written(path, ["bell\x07 and return\r"])
    shown = openpyxl.load_workbook(path)["review-1"]["B2"].value
    assert shown == "bell_x0007_ and return_x000D_"


def test_cells_that_begin_like_formulas_are_strings_with_a_quote_prefix(tmp_path: Path) -> None:
    path = tmp_path / "book.xlsx"
    written(path, ["=1+1", "+1", "-1", "@a", "007", "https://example.org"])
    with zipfile.ZipFile(path) as archive:
        sheet = archive.read("xl/worksheets/sheet1.xml").decode()
        styles = archive.read("xl/styles.xml").decode()
        assert not [name for name in archive.namelist() if "rels" in name and "sheet1" in name]
    cells = re.findall(r'<c r="[A-B]\d+"[^>]*>', sheet)
    assert len(cells) == 14
    assert all('t="s"' in cell for cell in cells)
    assert "<f>" not in sheet
    used = {int(found) for found in re.findall(r'<c r="[A-B]\d+" s="(\d+)"', sheet)}
    formats = re.findall(r"<xf [^>]*>", styles.partition("<cellXfs")[2].partition("</cellXfs")[0])
    assert used
    for at in used:
        assert 'quotePrefix="1"' in formats[at]
        assert 'numFmtId="49"' in formats[at]


def test_the_workbook_has_a_list_of_labels_their_definitions_and_a_frozen_header(tmp_path: Path) -> None:
    path = tmp_path / "book.xlsx"
    written(path, ["one", "two"])
    book = openpyxl.load_workbook(path)
    sheet, definitions = book["review-1"], book["codebook"]
    assert [cell.value for cell in sheet[1]] == ["id", "text", *REVIEWERS]
    assert sheet.freeze_panes == "C2"
    assert sheet["B2"].alignment.wrap_text
    lists = {str(one.sqref): one.formula1 for one in sheet.data_validations.dataValidation}
    assert lists == {"C2:C3": "codebook!$A$2:$A$3", "D2:D3": "codebook!$A$2:$A$3"}
    assert [[cell.value for cell in row] for row in definitions.iter_rows(min_row=2)] == [
        ["for", "Takes its side.", "Yes.\n=1"],
        ["against", "", ""],
    ]


def test_of_many_labels_each_has_a_column_of_yes_and_no(tmp_path: Path) -> None:
    path = tmp_path / "book.xlsx"
    asked = written(path, ["both", "one", "none", "open"], MANY)
    header = ["id", "text"] + [
        f"{one}: {name}" for one in REVIEWERS for name in ("for", "against", NONE)
    ]

    def fill(sheet: Worksheet) -> None:
        assert [cell.value for cell in sheet[1]] == header
        assert {one.formula1 for one in sheet.data_validations.dataValidation} == {'"yes,no"'}
        sheet["C2"], sheet["D2"], sheet["C3"], sheet["D3"] = "yes", "Yes", "yes", "no"
        sheet["E4"] = "yes"
        sheet["F4"], sheet["G4"] = "no", "no"

    edited(path, fill)
    lines, faults = read(path, asked, MANY)
    assert faults == []
    answers, _ = review.answers(asked, lines, MANY, "book", today="2025-01-01")
    assert answers[["reviewer", "for_it", "against"]].to_numpy().tolist() == [
        ["anna", 1, 1], ["anna", 1, 0], ["anna", 0, 0], ["ben", 0, 0],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("cells", "told"),
    [
        ({"C2": "perhaps"}, "neither yes nor no under anna: for_it"),
        ({"C2": "yes", "E2": "yes"}, f"a label, and '{NONE}' as well"),
        ({"D2": "no"}, f"anna says no to some labels and yes to none: say yes to '{NONE}', or to one"),
    ],
)
def test_faults_among_many_labels(tmp_path: Path, cells: dict[str, str], told: str) -> None:
    path = tmp_path / "book.xlsx"
    asked = written(path, ["one"], MANY)
    edited(path, lambda sheet: [sheet.__setitem__(*cell) for cell in cells.items()])
    (fault,) = read(path, asked, MANY)[1]
    assert "row 2" in fault
    assert told in fault


TEXTS = ["a text of its own", "another one here", "the third of them"]
GONE = "copy it back from the workbook"
FAULTS: dict[str, tuple[Callable[[Worksheet], object], list[str]]] = {
    "edited": (
        lambda sheet: sheet.__setitem__("B3", "another one, here"),
        ["book.xlsx, row 3, id 0001: the text was edited"],
    ),
    "deleted": (lambda sheet: sheet.delete_rows(3), ["book.xlsx, id 0001: the row was deleted"]),
    "added": (
        lambda sheet: sheet.append(["0009", "an added text", "for"]),
        ["book.xlsx, row 5: an id that this review did not ask for"],
    ),
    "without an id": (
        lambda sheet: sheet.__setitem__("A3", None),
        ["book.xlsx, row 3: no id", "book.xlsx, id 0001: the row was deleted"],
    ),
    "twice": (
        lambda sheet: sheet.append(["0001", TEXTS[1]]),
        ["book.xlsx, row 5, id 0001: the same id as row 3"],
    ),
    "misspelt": (
        lambda sheet: sheet.__setitem__("D4", "agianst"),
        ["book.xlsx, row 4, id 0002, ben: no label of codebook stance, the nearest is 'against'"],
    ),
    "no label at all": (
        lambda sheet: sheet.__setitem__("D4", "who knows"),
        ["book.xlsx, row 4, id 0002, ben: no label of codebook stance. It has for (for_it, 0), against"],
    ),
    "two labels": (
        lambda sheet: sheet.__setitem__("C2", "for, contra"),
        ["book.xlsx, row 2, id 0000, anna: two labels where one is allowed"],
    ),
    "a stranger": (
        lambda sheet: sheet.__setitem__("E1", "Carla"),
        ["book.xlsx, sheet review-1, column E: a reviewer who was not asked; anna, ben were"],
    ),
    "a header cleared": (
        lambda sheet: sheet.__setitem__("D1", None),
        ["book.xlsx, sheet review-1: no column 'ben'"],
    ),
    "a column taken out": (
        lambda sheet: sheet.delete_cols(3),
        ["book.xlsx, sheet review-1: no column 'anna'"],
    ),
    "an error": (
        lambda sheet: (sheet.__setitem__("C2", "#N/A"), setattr(sheet["C2"], "data_type", "e")),
        ["book.xlsx, sheet review-1, row 2, column anna: an error cell"],
    ),
    "a formula": (
        lambda sheet: sheet.__setitem__("C2", "=A1"),
        ["book.xlsx, sheet review-1, row 2, column anna: a formula without a stored result"],
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_told_with_its_row_and_without_a_text(tmp_path: Path, fault: str) -> None:
    edit, told = FAULTS[fault]
    path = tmp_path / "book.xlsx"
    asked = written(path, TEXTS)
    edited(path, edit)
    _, found = read(path, asked)
    assert len(found) == len(told)
    assert all(one.startswith(start) for one, start in zip(found, told, strict=True)), found
    for text in (*TEXTS, "another one, here", "an added text", "who knows", "Carla"):
        assert text not in "\n".join(found)


def test_another_order_hidden_rows_and_open_answers_are_no_faults(tmp_path: Path) -> None:
    path = tmp_path / "book.xlsx"
    asked = written(path, TEXTS)

    def sort(sheet: Worksheet) -> None:
        rows = [[cell.value for cell in row] for row in sheet.iter_rows(min_row=2)]
        for number, row in enumerate(reversed(rows), start=2):
            for column, value in enumerate(row, start=1):
                sheet.cell(number, column).value = value
        sheet["C2"], sheet["D4"] = " Against ", "contra"
        sheet.row_dimensions[3].hidden = True
        sheet.delete_cols(2 + len(REVIEWERS) + 1, 3)

    edited(path, sort)
    lines, faults = read(path, asked)
    assert faults == []
    assert {line.id: dict(line.given) for line in lines} == {
        "0002": {"anna": ("Against",)}, "0001": {}, "0000": {"ben": ("contra",)},
    }  # fmt: skip


def test_a_sheet_of_another_name_another_file_and_other_labels_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "book.xlsx"
    asked = written(path, TEXTS)
    other = {"review-2": asked}
    with pytest.raises(Problem, match=r"no sheet bears the name of a review\. The reviews are review-2"):
        reviewbook.read(path, other, ONE)
    with pytest.raises(Problem, match=r"its labels were for_it, against; now they are"):
        reviewbook.read(path, {"review-1": asked}, MANY.model_copy(update={"labels": LABELS[::-1]}))
    path.write_text("id,text\n")
    with pytest.raises(Problem, match="not a workbook as its name says"):
        reviewbook.read(path, {"review-1": asked}, ONE)


def test_a_sheet_more_and_a_header_row_less_are_refused_without_a_text(tmp_path: Path) -> None:
    path = tmp_path / "book.xlsx"
    asked = written(path, ["kill them", "you fool"])
    book = openpyxl.load_workbook(path)
    book.copy_worksheet(book["review-1"])["C2"] = "for"
    book.save(path)
    with pytest.raises(Problem, match=r"book\.xlsx: 1 sheets that were not sent"):
        read(path, asked)
    asked = written(path, ["kill them", "you fool"])
    edited(path, lambda sheet: sheet.delete_rows(1))
    with pytest.raises(Problem, match=r"no column 'id'\. Write the header row back") as raised:
        read(path, asked)
    assert "kill" not in str(raised.value)
    assert "0000" not in str(raised.value)


def test_a_formula_is_no_answer_although_its_result_is_stored(tmp_path: Path) -> None:
    path = tmp_path / "book.xlsx"
    asked = written(path, ["one", "two"])
    typed(path, {2: '<c r="C2" t="str"><f>D2</f><v>for</v></c>'})
    lines, (fault,) = read(path, asked)
    assert lines[0].given == {"anna": ("for",)}
    assert fault.startswith("book.xlsx, sheet review-1: 1 cells hold formulas. Copy them")


def test_no_text_is_written_outside_the_reviews_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))  # where temporary files go
    written(tmp_path / "book.xlsx", ["one"])
    assert [one.name for one in tmp_path.iterdir()] == ["book.xlsx"]


@pytest.mark.services
@pytest.mark.skipif(shutil.which("soffice") is None, reason="LibreOffice is not installed")
@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
def test_libreoffice_saves_it_and_every_text_and_answer_reads_back(tmp_path: Path, many: bool) -> None:
    names = "=yes 007 TRUE 1e5 @x -1 1/2 NA 评论 #N/A".split()  # which a spreadsheet likes to turn
    labels = [Label(id=f"label_{at}", name=name) for at, name in enumerate(names)]
    codebook = Codebook(name="hard", title="Hard", language="en", labels=labels, many=many)
    texts = [*HARD, *generated(300)]
    path = tmp_path / "book.xlsx"
    asked = written(path, texts, codebook)

    cell = '<c r="{}{}" s="1" t="inlineStr"><is><t>{}</t></is></c>'
    given = {2 + at: ("CDEFGHIJKL"[at * many], "yes" if many else name) for at, name in enumerate(names)}
    typed(path, {row: cell.format(column, row, value) for row, (column, value) in given.items()})
    done = subprocess.run(
        ["soffice", f"-env:UserInstallation={(tmp_path / 'home').as_uri()}", "--headless",
         "--convert-to", "xlsx:Calc MS Excel 2007 XML", "--outdir", tmp_path / "saved", path],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    path = tmp_path / "saved/book.xlsx"
    assert path.exists(), done.stderr
    with zipfile.ZipFile(path) as archive:
        sheet = archive.read("xl/worksheets/sheet1.xml").decode()
    assert re.search("<f[ >]", sheet) is None  # <formula1> is the list's
    kinds = re.findall(r'<c r="[AB]\d+"[^>]* t="(\w+)"', sheet)
    # LibreOffice leaves an empty text's cell without a kind
    assert kinds == ["s"] * (2 * (len(texts) + 1) - texts.count(""))
    lines, faults = read(path, asked, codebook)
    assert faults == []
    assert [line.text for line in lines] == texts
    chosen = [labels[at].id if many else name for at, name in enumerate(names)]
    assert [dict(line.given) for line in lines[: len(names)]] == [{"anna": (one,)} for one in chosen]
