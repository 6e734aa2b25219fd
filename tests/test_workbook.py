"""Each file and each cell comes out exactly as it is written, or as a problem that says where."""

import io
import json
import random
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import openpyxl
import pandas as pd
import pytest
import xlsxwriter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from undertone.corpus import prescan, sheetxml
from undertone.corpus.cells import Column, Wanted
from undertone.corpus.workbook import Raw, read_files
from undertone.errors import Problem
from undertone.params import Source

MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
REL = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006/relationships"
_CELLS = "".join(f'<c r="{letter}1" t="s"><v>{at}</v></c>' for at, letter in enumerate("ABC"))
HEADER = f'<row r="1">{_CELLS}</row>'
# styles 1 to 7: a date, a percentage, padding, words around a number, text, 0, hours beyond 24
STYLES = (
    f'<styleSheet xmlns="{MAIN}"><numFmts><numFmt numFmtId="164" formatCode="00000"/>'
    '<numFmt numFmtId="165" formatCode="&quot;Case day &quot;0"/>'
    '<numFmt numFmtId="166" formatCode="[h]:mm"/></numFmts><fills><fill/></fills><cellXfs>'
    + "".join(f'<xf numFmtId="{number}"/>' for number in (0, 14, 9, 164, 165, 49, 1, 166))
    + "</cellXfs></styleSheet>"
)
_TEXTS = "".join(f"<si><t>{text}</t></si>" for text in ("id", "text", "posted", "words"))
SHARED = f'<sst xmlns="{MAIN}">{_TEXTS}</sst>'


def parts(
    rows: str = "",
    *,
    sheet: str = "",
    shared: str = SHARED,
    book: str = "",
    names: tuple[str, ...] = ("评论",),
) -> dict[str, bytes]:
    """The parts of a workbook whose sheets all have these rows below HEADER."""
    data = sheet or f'<worksheet xmlns="{MAIN}"><sheetData>{HEADER}{rows}</sheetData></worksheet>'
    sheets = "".join(
        f'<sheet name="{name}" sheetId="{at}" r:id="rId{at}"/>' for at, name in enumerate(names, 1)
    )
    links = "".join(
        f'<Relationship Id="rId{at}" Type="{REL}/worksheet" Target="worksheets/sheet{at}.xml"/>'
        for at in range(1, len(names) + 1)
    )
    content = {
        "[Content_Types].xml": "<Types/>",
        "_rels/.rels": f'<Relationships xmlns="{PACKAGE}"><Relationship Id="r"'
        f' Type="{REL}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{MAIN}" xmlns:r="{REL}">{book}'
        f"<sheets>{sheets}</sheets></workbook>",
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{PACKAGE}">{links}'
        f'<Relationship Id="s" Type="{REL}/styles" Target="styles.xml"/>'
        f'<Relationship Id="t" Type="{REL}/sharedStrings" Target="/xl/sharedStrings.xml"/>'
        "</Relationships>",
        "xl/styles.xml": STYLES,
        "xl/sharedStrings.xml": shared,
        **{f"xl/worksheets/sheet{at}.xml": data for at in range(1, len(names) + 1)},
    }
    return {name: part.encode() for name, part in content.items()}


def pack(path: Path, content: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, part in content.items():
            archive.writestr(name, part)
    return path


def wanted(*, id: str | None = "id", header: int = 1) -> Wanted:
    columns = [Column("text", "ingest.lab.text", exact=True), Column("posted", "ingest.lab.time")]
    if id:
        columns.append(Column(id, "ingest.lab.id", exact=True))
    return Wanted(tuple(columns), id, header)


def read(folder: Path, **source: object) -> Raw:
    return read_files(folder, Source.model_validate({"text": "text", **source}), wanted(), "ingest.lab")


def of_rows(folder: Path, rows: str, **changes: str) -> Raw:
    pack(folder / "c.xlsx", parts(rows, **changes))
    return read(folder)


def of_cell(folder: Path, cell: str, column: str = "B") -> Raw:
    """A sheet of one row whose cell in `column` is written as `cell`, less its address."""
    cells = {"A": '<c r="A2" t="s"><v>3</v></c>', "B": '<c r="B2" t="s"><v>3</v></c>'}
    cells[column] = f'<c r="{column}2"{cell}'
    return of_rows(folder, f'<row r="2">{"".join(cells[at] for at in sorted(cells))}</row>')


def inline(text: str) -> str:
    return f' t="inlineStr"><is><t>{text}</t></is></c>'


# ---- cells of a workbook


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (inline("0012"), "0012"),
        (inline("NA"), "NA"),
        (inline("null"), "null"),
        (inline("1e5"), "1e5"),
        (inline("#N/A"), "#N/A"),
        (inline("=1+1"), "=1+1"),
        (inline("123456789012345678"), "123456789012345678"),
        (inline("one\ntwo"), "one\ntwo"),
        (inline("one\r\ntwo&#13;"), "one\ntwo\r"),
        (inline("one_x000D_\ntwo"), "one\r\ntwo"),
        (inline("_x0041__x005F_x0041_"), "A_x0041_"),
        (inline("_xD83D__xDE00_"), "\U0001f600"),
        (inline("\U0001f600\u200d\ufeff\u3000"), "\U0001f600\u200d\ufeff\u3000"),
        (inline("&lt;b&gt; &amp;amp; &#128; &#x4e2d;"), "<b> &amp; \x80 中"),
        (inline("  both ends  "), "  both ends  "),
        (inline("x" * 40_000), "x" * 40_000),
        (' t="inlineStr"><is><r><t>ri</t></r><r><rPr><b/></rPr><t>ch</t></r></is></c>', "rich"),
        (' t="inlineStr"><is><t>漢</t><rPh sb="0" eb="1"><t>kan</t></rPh></is></c>', "漢"),
        (' t="inlineStr"><is><t><![CDATA[<c r="B2">]]></t></is></c>', '<c r="B2">'),
        ("><v>42</v></c>", "42"),
        ("><v>0.5</v></c>", "0.5"),
        ("><v>0.30000000000000004</v></c>", "0.3"),
        ("><v>4.2E1</v></c>", "42"),
        ("><v>-0</v></c>", "0"),
        (' s="5"><v>7</v></c>', "7"),
        (' s="6"><v>7</v></c>', "7"),
        (' t="b"><v>1</v></c>', "TRUE"),
        (' t="str"><f>A1&amp;"x"</f><v>idx</v></c>', "idx"),
        (' t="str"><f>IF(1,"","")</f><v></v></c>', ""),
        ("/>", ""),
        ("><v/></c>", ""),
        (' t="inlineStr"><is><t></t></is></c>', ""),
    ],
)
def test_a_cell_comes_out_as_it_was_typed(tmp_path: Path, cell: str, text: str) -> None:
    raw = of_cell(tmp_path, cell)
    assert (raw.cells["cell.text"].tolist(), raw.bad) == ([text], [])


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        (' t="e"><v>#N/A</v></c>', "error cell"),
        (' t="e"><f>1/0</f><v>#DIV/0!</v></c>', "error cell"),
        ("><f>1+1</f></c>", "formula without a result"),
        ("><f>1+1</f><v></v></c>", "formula without a result"),
        (' t="str"><f>A1</f></c>', "formula without a result"),
        (' s="1"><v>45000</v></c>', "date"),
        (' t="d"><v>2023-03-15</v></c>', "date"),
        (' s="2"><v>0.5</v></c>', "formatted number"),
        (' s="3"><v>7</v></c>', "formatted number"),
        (' s="4"><v>7</v></c>', "formatted number"),
        (' s="6"><v>7.5</v></c>', "formatted number"),
        (' s="7"><v>1.5</v></c>', "formatted number"),
        ("><v>1E-7</v></c>", "formatted number"),
        ("><v>12345678901234567</v></c>", "long number"),
        ("><v>1E+15</v></c>", "long number"),
        (inline("_xD83D_"), "broken character"),
        (inline("a_x0000_b"), "broken character"),
    ],
)
def test_a_cell_that_would_be_changed_is_refused_by_address(
    tmp_path: Path, cell: str, reason: str
) -> None:
    (bad,) = of_cell(tmp_path, cell).bad
    assert bad.reason == reason
    assert str(bad).startswith("c.xlsx, sheet 评论, row 2, column text: ")


@pytest.mark.parametrize(
    ("cell", "moment"),
    [
        (' s="1"><v>45000</v></c>', "2023-03-15"),
        (' s="1"><v>45000.5</v></c>', "2023-03-15T12:00:00"),
        (' s="1"><v>45000.000011574</v></c>', "2023-03-15T00:00:01"),
        (' s="1"><v>59</v></c>', "1900-02-28"),
        (' s="1"><v>61</v></c>', "1900-03-01"),
        (' s="1"><v>2958465</v></c>', "9999-12-31"),
        (' t="d"><v>2023-03-15T10:00:00</v></c>', "2023-03-15T10:00:00"),
        ("><v>1678838400</v></c>", "1678838400"),
        (inline("last week"), "last week"),
    ],
)
def test_a_date_column_gives_iso_dates(tmp_path: Path, cell: str, moment: str) -> None:
    raw = of_cell(tmp_path, cell, "C")
    assert (raw.cells["cell.posted"].tolist(), raw.bad) == ([moment], [])


@pytest.mark.parametrize("serial", ["60", "0.5", "-1", "2958466", "1E9"])
def test_a_number_outside_the_calendar_is_no_date(tmp_path: Path, serial: str) -> None:
    (bad,) = of_cell(tmp_path, f' s="1"><v>{serial}</v></c>', "C").bad
    assert (bad.reason, bad.column) == ("no date", "posted")


def test_a_workbook_that_counts_from_1904_gives_the_same_dates(tmp_path: Path) -> None:
    row = '<row r="2"><c r="A2"><v>1</v></c><c r="C2" s="1"><v>43538</v></c></row>'
    raw = of_rows(tmp_path, row, book='<workbookPr date1904="1"/>')
    assert raw.cells["cell.posted"].tolist() == ["2023-03-15"]


# ---- rows and sheets of a workbook


def test_blank_rows_are_counted_and_row_numbers_are_those_of_excel(tmp_path: Path) -> None:
    trailing = "".join(f'<row r="{row}" ht="20"><c r="B{row}" s="1"/></row>' for row in range(6, 1006))
    rows = (
        f'<row r="3"><c r="B3" t="s"><v>3</v></c></row><row r="5"><c r="B5"><v>7</v></c></row>{trailing}'
    )
    raw = of_rows(tmp_path, rows)
    assert raw.cells["row"].tolist() == [3, 5]
    assert raw.blank == 1002


def test_the_dimension_is_not_believed(tmp_path: Path) -> None:
    rows = "".join(f'<row r="{row}"><c r="B{row}"><v>7</v></c></row>' for row in range(2, 6))
    sheet = (
        f'<worksheet xmlns="{MAIN}"><dimension ref="A1:C2"/>'
        f"<sheetData>{HEADER}{rows}</sheetData></worksheet>"
    )
    assert len(of_rows(tmp_path, "", sheet=sheet).cells) == 4


def test_hidden_rows_columns_and_sheets_are_read_and_said(tmp_path: Path) -> None:
    rows = '<row r="2" hidden="1"><c r="B2"><v>7</v></c></row>'
    sheet = (
        f'<worksheet xmlns="{MAIN}"><cols><col min="2" max="2" hidden="1"/></cols>'
        f"<sheetData>{HEADER}{rows}</sheetData></worksheet>"
    )
    content = parts(sheet=sheet)
    content["xl/workbook.xml"] = content["xl/workbook.xml"].replace(
        b"sheetId", b'state="hidden" sheetId'
    )
    pack(tmp_path / "c.xlsx", content)
    raw = read(tmp_path)
    assert len(raw.cells) == 1
    assert raw.notes == [
        "c.xlsx, sheet 评论 is hidden in Excel",
        "1 rows hidden in Excel",
        "1 columns hidden in Excel",
    ]


def test_formulas_with_results_are_taken_and_counted(tmp_path: Path) -> None:
    raw = of_cell(tmp_path, "><f>6*7</f><v>42</v></c>")
    assert raw.notes == ["1 formula cells, taken at their stored results"]


def _swap(content: dict[str, bytes], part: str, old: str, new: str) -> dict[str, bytes]:
    assert old.encode() in content[part]
    return {**content, part: content[part].replace(old.encode(), new.encode())}


MERGED = '</sheetData><mergeCells><mergeCell ref="B2:B3"/></mergeCells>'
EMPTY = f'<worksheet xmlns="{MAIN}"><sheetData/></worksheet>'
ONE = '<row r="2"><c r="A2"><v>1</v></c><c r="B2"><v>7</v></c></row>'
TWO = '<row r="3"><c r="A3"><v>2</v></c><c r="B3"><v>8</v></c></row>'
MISNAMED = parts(ONE, shared=SHARED.replace("text", "Text "))
SHEET = "xl/worksheets/sheet1.xml"


@pytest.mark.parametrize(
    ("told", "content"),
    [
        ("damaged", parts(TWO + ONE)),
        ("damaged", parts(ONE + ONE)),
        ("damaged", parts('<row r="2"><c r="B2"><v>7</v></c><c r="A2"><v>1</v></c></row>')),
        ("damaged", parts('<row r="2"><c r="A3"><v>7</v></c></row>')),
        ("damaged", parts('<row r="2"><c r="B2" t="s"><v>99</v></c></row>')),
        ("damaged", parts('<row r="2"><c r="B2" t="s"><v>-1</v></c></row>')),
        ("damaged", parts('<row r="2"><c r="B2" s="99"><v>1</v></c></row>')),
        ("damaged", parts('<row r="2"><c r="B2"><v>1_000</v></c></row>')),
        ("damaged", parts('<row r="2"><c r="B2" t="zz"><v>1</v></c></row>')),
        ("damaged", parts('<row r="3000000000"><c r="B3000000000"><v>7</v></c></row>')),
        ("damaged", parts('<row r="2"><c r="XFE2"><v>7</v></c></row>')),
        ("row 1048576 is filled", parts('<row r="1048576"><c r="B1048576"><v>7</v></c></row>')),
        ("damaged", parts("<row r='2'><c r='B2'>")),
        ("damaged", {**parts(ONE), SHEET: b""}),
        ("damaged", {name: part for name, part in parts(ONE).items() if name != "xl/styles.xml"}),
        ("damaged", {name: part for name, part in parts(ONE).items() if name != SHEET}),
        ("damaged", parts(ONE, names=("a", "a"))),
        ("DTD", {**parts(ONE), SHEET: b'<!DOCTYPE x [<!ENTITY a "b">]>' + parts(ONE)[SHEET]}),
        ("damaged", _swap(parts(ONE), SHEET, MAIN, "http://purl.oclc.org/ooxml/spreadsheetml/main")),
        ("Strict", _swap(parts(ONE), "_rels/.rels", REL, "http://purl.oclc.org/ooxml/x/relationships")),
        ("merged cells B2:B3", _swap(parts(ONE + TWO), SHEET, "</sheetData>", MERGED)),
        ("unpacks to", parts(f'<row r="2"><c r="B2"{inline("x" * 3_000_000)}</row>')),
        ("unpacks to", parts(ONE, shared=f'<sst xmlns="{MAIN}">{"<si/>" * 500_000}</sst>')),
        ("several sheets: a, b", parts(ONE, names=("a", "b"))),
        ("no column 'text'; row 1 is empty", parts(sheet=EMPTY)),
        ("row 1 has id, Text , posted (nearest: 'Text '). Set ingest.lab.text.", MISNAMED),
        ("column 'text' stands 2 times", parts(ONE, shared=SHARED.replace("posted", "text"))),
    ],
)  # fmt: skip
def test_a_workbook_that_could_be_misread_is_refused(
    tmp_path: Path, told: str, content: dict[str, bytes]
) -> None:
    pack(tmp_path / "c.xlsx", content)
    with pytest.raises(Problem) as problem:
        read(tmp_path)
    assert told in str(problem.value)
    assert str(problem.value).startswith("c.xlsx")


@pytest.mark.parametrize(
    ("header", "named"),
    [(" text", "text"), ("text\u00a0", "text"), ("cafe\u0301", "caf\u00e9"), ("text", "text ")],
)
def test_a_header_that_differs_in_what_nobody_sees_is_the_column(
    tmp_path: Path, header: str, named: str
) -> None:
    columns = Wanted((Column(named, "ingest.lab.text", exact=True),), None)
    source = Source(text=named)
    pack(tmp_path / "c.xlsx", parts(ONE, shared=SHARED.replace("<t>text", f"<t>{header}")))
    (tmp_path / "d.csv").write_text(f"id,{header}\n1,7\n", "utf-8")
    (tmp_path / "e.jsonl").write_text(json.dumps({header: "7"}) + "\n", "utf-8")
    pd.DataFrame({header: ["7"]}).to_parquet(tmp_path / "f.parquet")
    found = read_files(tmp_path, source, columns, "ingest.lab").cells
    assert found[f"cell.{named}"].tolist() == ["7"] * 4


def test_a_header_that_fits_exactly_comes_before_one_that_nearly_does(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("id,text ,text,posted\n1,a,b,\n", "utf-8")
    assert read(tmp_path).cells["cell.text"].tolist() == ["b"]
    (tmp_path / "d.csv").write_text("id,text , text,posted\n1,a,b,\n", "utf-8")
    with pytest.raises(Problem, match="column 'text' stands 2 times"):
        read(tmp_path)


def test_all_wrong_names_of_columns_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("number,comment,posted\n1,a,\n", "utf-8")
    with pytest.raises(Problem) as problem:
        read(tmp_path)
    assert [line.partition(";")[0] for line in str(problem.value).splitlines()] == [
        *("d.csv: no column 'text'", "d.csv: no column 'id'")
    ]


def test_a_title_above_the_header_is_told_by_the_row_of_the_header(tmp_path: Path) -> None:
    title = '<row r="1"><c r="A1" t="str"><v>Comments of June</v></c></row>'
    header = HEADER.replace('1"', '3"')
    sheet = f'<worksheet xmlns="{MAIN}"><sheetData>{title}{header}</sheetData></worksheet>'
    pack(tmp_path / "c.xlsx", parts(sheet=sheet))
    with pytest.raises(Problem) as problem:
        read(tmp_path)
    assert str(problem.value) == (
        "c.xlsx, sheet 评论: the wanted columns are not in row 1, but in row 3."
        " Set ingest.lab.header: 3."
    )
    (tmp_path / "c.xlsx").unlink()
    (tmp_path / "d.csv").write_text("Comments of June\nid,text,posted\n1,a,\n", "utf-8")
    with pytest.raises(Problem, match=r"^d\.csv: .* Set ingest\.lab\.header: 2\.$"):
        read(tmp_path)


def test_merged_cells_beside_the_wanted_columns_do_no_harm(tmp_path: Path) -> None:
    merged = '</sheetData><mergeCells><mergeCell ref="E2:F9"/></mergeCells>'
    pack(tmp_path / "c.xlsx", _swap(parts(ONE), SHEET, "</sheetData>", merged))
    assert len(read(tmp_path).cells) == 1


def test_a_cell_in_the_last_corner_outside_the_table_costs_nothing(tmp_path: Path) -> None:
    raw = of_rows(tmp_path, ONE + '<row r="1048576"><c r="XFD1048576"><v>1</v></c></row>')
    assert (len(raw.cells), raw.blank) == (1, 1)


def test_two_parts_of_one_name_are_refused(tmp_path: Path) -> None:
    path = pack(tmp_path / "c.xlsx", parts(ONE))
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(SHEET, parts(TWO)[SHEET])
    with pytest.raises(Problem, match="stands twice"):
        read(tmp_path)


def test_an_archive_is_refused_by_its_table_of_contents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(tmp_path / "c.xlsx", parts(ONE))
    for limit, told in (("MAX_FILE", "MB"), ("MAX_UNZIPPED", "GiB"), ("MAX_ENTRIES", "parts")):
        with monkeypatch.context() as changed:
            changed.setattr(prescan, limit, 3)
            with pytest.raises(Problem, match=told):
                read(tmp_path)


def test_sheets_can_be_named_and_all_of_them_read(tmp_path: Path) -> None:
    content = parts(ONE, names=("a", "b", "notes", "empty"))
    content["xl/worksheets/sheet3.xml"] = content[SHEET].replace(b"<v>1</v>", b"<v>3</v>")
    content["xl/worksheets/sheet4.xml"] = EMPTY.encode()
    pack(tmp_path / "c.xlsx", content)
    assert read(tmp_path, sheets=["b"]).cells["sheet"].tolist() == ["b"]
    everything = read(tmp_path, sheets="all")
    assert everything.cells["sheet"].tolist() == ["a", "b"]
    assert everything.notes == ["c.xlsx, sheet notes not read: no column 'text'"]
    with pytest.raises(Problem, match=r"no sheet 'B'; it has a, b, notes, empty\. Set ingest\.lab\."):
        read(tmp_path, sheets=["B"])


# ---- the two ways of taking XML apart agree


@pytest.mark.parametrize(
    "rewrite",
    [
        lambda xml: xml.replace('"', "'"),
        lambda xml: xml.replace("<row", "<!-- <c r='Z9'> --><row"),
        lambda xml: xml.replace("><", ">\n <"),
        lambda xml: xml.replace("<c ", '<c cm="1" '),
        lambda xml: xml.replace("<", "<x:").replace("<x:/", "</x:").replace("xmlns=", "xmlns:x="),
        lambda xml: f'<?xml version="1.0" encoding="UTF-16"?>{xml}',
        lambda xml: xml.replace(' r="A2"', "").replace(' r="B2"', "").replace(' r="2"', ""),
    ],
)  # fmt: skip
def test_other_writings_of_a_sheet_give_the_same_cells(
    tmp_path: Path, rewrite: Callable[[str], str]
) -> None:
    rows = f'<row r="2"><c r="A2" s="0"><v>1</v></c><c r="B2"{inline("&lt;a&gt;")}</row>'
    plain = of_rows(tmp_path, rows)
    xml = rewrite(parts(rows)[SHEET].decode())
    encoded = xml.encode("utf-16" if "UTF-16" in xml else "utf-8")
    pack(tmp_path / "c.xlsx", {**parts(), SHEET: encoded})
    pd.testing.assert_frame_equal(read(tmp_path).cells, plain.cells)
    with pytest.raises(sheetxml.Unusual):
        list(sheetxml.frame_of(encoded, "", usual=True).rows)


XML_TEXT = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], include_characters="\t\n"), max_size=20
)
VALUE = st.one_of(st.none(), st.booleans(), st.integers(-(10**9), 10**9), st.floats(-1e9, 1e9), XML_TEXT)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(VALUE, VALUE, VALUE), max_size=6))
def test_fast_and_slow_reading_agree_on_what_openpyxl_writes(rows: list[tuple[object, ...]]) -> None:
    book = openpyxl.Workbook()
    for row in rows:
        try:
            book.active.append(row)
        except openpyxl.utils.exceptions.IllegalCharacterError:
            return
    file = io.BytesIO()
    book.save(file)
    with zipfile.ZipFile(file) as archive:
        sheet = archive.read("xl/worksheets/sheet1.xml")
    try:
        fast = list(sheetxml.frame_of(sheet, "", usual=True).rows)
    except sheetxml.Unusual:
        assert not any(row != (None, None, None) for row in rows)
        return
    slow = list(sheetxml.frame_of(sheet, "", usual=False).rows)
    assert [(row[0], row[2][0], tuple(row[3])) for row in fast] == [
        (row[0], row[2][0], tuple(row[3])) for row in slow
    ]


# ---- round trip and damage


ANY_TEXT = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=60
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(ANY_TEXT | st.sampled_from(["=1+1", "_x000D_", "a\r\nb"]), min_size=1, max_size=5))
def test_texts_written_by_xlsxwriter_come_back_equal(tmp_path: Path, texts: list[str]) -> None:
    as_text = {"strings_to_formulas": False, "strings_to_urls": False, "strings_to_numbers": False}
    with xlsxwriter.Workbook(tmp_path / "c.xlsx", as_text) as book:
        sheet = book.add_worksheet()
        sheet.write_row(0, 0, ["id", "text", "posted"])
        for row, text in enumerate(texts, start=1):
            sheet.write_number(row, 0, row)
            sheet.write_string(row, 1, text)
    raw = read(tmp_path)
    assert raw.cells["cell.text"].tolist() == texts
    assert raw.notes == []


def test_a_damaged_workbook_gives_the_right_table_or_a_problem(tmp_path: Path) -> None:
    path = pack(tmp_path / "c.xlsx", parts(ONE + TWO))
    whole = path.read_bytes()
    right = read(tmp_path).cells
    rng = random.Random(0)
    refused = 0
    for _ in range(400):
        broken = bytearray(whole)
        for _ in range(rng.choice([1, 1, 3])):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        if rng.random() < 0.2:
            del broken[rng.randrange(len(broken)) :]
        path.write_bytes(broken)
        try:
            pd.testing.assert_frame_equal(read(tmp_path).cells, right)
        except Problem:
            refused += 1
    assert 200 < refused < 400


def test_damaged_xml_gives_a_table_or_a_problem(tmp_path: Path) -> None:
    content = parts(ONE + TWO)
    names = [name for name in content if name != "[Content_Types].xml"]
    rng = random.Random(1)
    refused = 0
    for _ in range(400):
        name = rng.choice(names)
        broken = bytearray(content[name])
        at = rng.randrange(len(broken))
        if rng.random() < 0.5:
            broken[at] = rng.choice(b'<>/"=&; 0123ABCrst')
        else:
            del broken[at : at + rng.randrange(1, 30)]
        pack(tmp_path / "c.xlsx", {**content, name: bytes(broken)})
        try:
            read(tmp_path)
        except Problem:
            refused += 1
    assert 100 < refused < 400


# ---- what a file is


OLE = bytes.fromhex("d0cf11e0a1b11ae1")


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.xlsx", b"id,text\n1,x\n", "plain text, perhaps CSV, not a workbook as its name says"),
        ("a.xlsx", b'{"text": "x"}\n', "JSON, not a workbook"),
        ("a.xlsx", b"<html><table></table></html>", "an HTML page"),
        ("a.xls", b"\n <!DOCTYPE html><html>", "an HTML page"),
        ("a.xls", b"<?xml version='1.0'?><Workbook/>", "a bare XML file"),
        ("a.xlsx", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        ("a.xlsx.dvc", b"outs:\n- md5: 0123\n  path: a.xlsx\n", "Run `dvc pull`"),
        ("a.xlsx", b"outs:\n- md5: 0123\n  path: a.xlsx\n", "Run `dvc pull`"),
        ("a.csv", b"", "an empty file"),
        ("a.csv", b"\x1f\x8b\x08rest", "compressed"),
        ("a.csv", b"%PDF-1.4", "not a table of any known kind"),
        ("a.json", b'[{"text": "x"}]', "a JSON list"),
        ("README.md", b"# notes\n", "not a table, going by its ending '.md'"),
        ("a.xlsx", b"PK\x03\x04rest", "damaged"),
        ("a.xls", OLE + bytes(600), "not readable"),
        ("a.xlsx", OLE + "EncryptedPackage".encode("utf-16-le"), "password-protected"),
        ("a.parquet", b"PAR1 and no more", "not a readable parquet table"),
    ],
)  # fmt: skip
def test_what_is_no_table_is_told_by_its_content(
    tmp_path: Path, name: str, content: bytes, told: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Problem) as problem:
        read(tmp_path)
    assert told in str(problem.value)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("xl/workbook.bin", "_rels/.rels"), "xlsb"),
        (("word/document.xml", "_rels/.rels"), "a Word document"),
        (("photo.jpg",), "a zip archive"),
        (("../evil", "_rels/.rels"), "leads out"),
    ],
)
def test_other_archives_are_told_apart(tmp_path: Path, names: tuple[str, ...], told: str) -> None:
    pack(tmp_path / "a.xlsx", dict.fromkeys(names, b"x"))
    with pytest.raises(Problem, match=told):
        read(tmp_path)


def test_a_workbook_is_read_whatever_its_name(tmp_path: Path) -> None:
    pack(tmp_path / "c.xls", parts(ONE))
    assert len(read(tmp_path).cells) == 1


def test_only_the_files_that_match_are_read_in_order(tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv"):
        (tmp_path / name).write_text(f"id,text,posted\n{name},x,\n")
    for name in (".hidden.csv", "~$b.csv", ".gitignore", "a.csv.dvc"):
        (tmp_path / name).write_text("outs:\n- md5: 1\n")
    assert read(tmp_path).cells["file"].tolist() == ["a.csv", "b.csv"]
    assert read(tmp_path, files=["b.*"]).cells["file"].tolist() == ["b.csv"]
    with pytest.raises(Problem, match=r"no file matches \*\.xlsx; it has a\.csv"):
        read(tmp_path, files=["*.xlsx"])
    with pytest.raises(Problem, match="leads out of the source's folder"):
        read(tmp_path, files=["../*"])
    with pytest.raises(Problem, match="no such folder"):
        read(tmp_path / "none")


# ---- CSV, JSON Lines, parquet


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        (b"id,text,posted\n0012,NA,\n", ["NA"]),
        (b"\xef\xbb\xbfid,text,posted\r\n1,=x,\r\n", ["=x"]),
        (b'id,text,posted\n1,"a, ""b""\nc",\n\n2,x,\n', ['a, "b"\nc', "x"]),
        ("id,text,posted\n1,a\u2028b\u0085c,\n".encode(), ["a\u2028b\u0085c"]),
        (b"posted,other,text,id\n,2,x,1\n", ["x"]),
        (b"id,text,posted\n1," + b"x" * 200_000 + b",\n", ["x" * 200_000]),
    ],
)
def test_csv_fields_stay_as_written(tmp_path: Path, content: bytes, texts: list[str]) -> None:
    (tmp_path / "c.csv").write_bytes(content)
    raw = read(tmp_path)
    assert (raw.cells["cell.text"].tolist(), raw.bad) == (texts, [])


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'id,text,posted\n1,"a,\n2,b,\n', "unexpected end of data"),
        (b"id,text,posted\n1,a,\n2,b", "cut off"),
        (b'id,text,posted\n1,"a" b,\n', "line 2"),
        (b"id;text;posted\n1;a;\n", "no ',', but has ';'. Set the source's `delimiter` to ';'."),
        (b"id,text,posted\n1,\xd6\xd0,\n", "byte 18, in line 2, is not utf-8"),
        (b"id,text,posted,text\n1,a,,b\n", "column 'text' stands 2 times"),
    ],
)
def test_a_csv_that_could_be_misread_is_refused(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "c.csv").write_bytes(content)
    with pytest.raises(Problem) as problem:
        read(tmp_path)
    assert told in str(problem.value)


def test_csv_rows_with_too_many_or_too_few_fields_are_bad(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("id,text,posted\n1,a,b,c\n2,b\n3,c,\n")
    assert [(bad.row, bad.reason) for bad in read(tmp_path).bad] == [
        (2, "number of fields"),
        (3, "number of fields"),
    ]


def test_a_csv_cut_at_any_byte_is_refused_or_ends_at_a_line(tmp_path: Path) -> None:
    whole = b"id,text,posted\n" + b"".join(b"%d,some words,2020\n" % row for row in range(20))
    refused = 0
    for cut in range(1, len(whole)):
        (tmp_path / "c.csv").write_bytes(whole[:cut])
        try:
            refused += bool(read(tmp_path).bad)
        except Problem:
            refused += 1
    assert refused == len(whole) - 1 - whole[:-1].count(b"\n")


def test_encoding_and_delimiter_can_be_set(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_bytes("id;text;posted\n1;中文;\n".encode("gb18030"))
    raw = read(tmp_path, encoding="gb18030", delimiter=";")
    assert raw.cells["cell.text"].tolist() == ["中文"]
    (tmp_path / "c.csv").write_bytes("id,text,posted\n1,中文,\n".encode("utf-16"))
    assert read(tmp_path, encoding="utf-16").cells["cell.text"].tolist() == ["中文"]
    with pytest.raises(Problem, match="no encoding is called 'utf-99'"):
        read(tmp_path, encoding="utf-99")


def test_json_lines_keep_numbers_and_texts_as_written(tmp_path: Path) -> None:
    lines = [
        '{"id": 123456789012345678, "text": "NA\u2028", "posted": 1e5}',
        "",
        '{"id": "007", "text": "\\ud83d\\ude00", "posted": null}',
    ]
    (tmp_path / "c.jsonl").write_text("\ufeff" + "\r\n".join(lines), "utf-8")
    raw = read(tmp_path)
    assert raw.cells["cell.id"].tolist() == ["123456789012345678", "007"]
    assert raw.cells["cell.text"].tolist() == ["NA\u2028", "\U0001f600"]
    assert raw.cells["cell.posted"].tolist() == ["1e5", ""]
    assert (raw.cells["row"].tolist(), raw.blank) == ([1, 3], 1)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"id": 1, "text": "a", "posted": ""', "not JSON"),
        ('{"id": 1, "id": 2, "text": "a", "posted": ""}', "a key stands twice"),
        ('{"id": 1, "text": "a", "posted": NaN}', "NaN is no JSON"),
        ('{"id": 1, "text": ' + "[" * 100_000, "not JSON"),
        ('["a"]', "not a JSON object"),
    ],
)  # fmt: skip
def test_a_line_that_is_no_json_object_is_refused(tmp_path: Path, line: str, told: str) -> None:
    (tmp_path / "c.jsonl").write_text('{"id": 0, "text": "a", "posted": ""}\n' + line + "\n")
    with pytest.raises(Problem) as problem:
        read(tmp_path)
    assert str(problem.value).startswith("c.jsonl, line 2: ")
    assert told in str(problem.value)


def test_json_cells_that_are_no_text_are_bad(tmp_path: Path) -> None:
    rows = [{"id": 1, "text": ["a"], "posted": ""}, {"id": 2, "text": "\ud83d", "posted": ""}]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [bad.reason for bad in read(tmp_path).bad] == ["not a value", "broken character"]


def test_parquet_values_stay_what_they_are(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"id": ["007", "8"], "text": ["NA", ""], "posted": pd.to_datetime(["2020-01-02", None])}
    )
    frame.to_parquet(tmp_path / "c.parquet")
    raw = read(tmp_path)
    assert raw.cells["cell.id"].tolist() == ["007", "8"]
    assert raw.cells["cell.text"].tolist() == ["NA", ""]
    assert raw.cells["cell.posted"].tolist() == ["2020-01-02", ""]


# ---- .ods, and .xls by the same way


def ods(path: Path, rows: str) -> None:
    office = "urn:oasis:names:tc:opendocument:xmlns:"
    content = (
        f'<office:document-content xmlns:office="{office}office:1.0" xmlns:table="{office}table:1.0" '
        f'xmlns:text="{office}text:1.0"><office:body><office:spreadsheet><table:table table:name="s">'
        f"{rows}</table:table></office:spreadsheet></office:body></office:document-content>"
    )
    pack(
        path,
        {
            "mimetype": b"application/vnd.oasis.opendocument.spreadsheet",
            "content.xml": content.encode(),
            "META-INF/manifest.xml": b"<manifest/>",
        },
    )


def ods_row(*cells: str) -> str:
    return "<table:table-row>" + "".join(
        cell if cell.startswith("<") else
        f'<table:table-cell office:value-type="string"><text:p>{cell}</text:p></table:table-cell>'
        for cell in cells
    ) + "</table:table-row>"  # fmt: skip


def test_texts_of_an_ods_come_out_and_numbers_are_refused(tmp_path: Path) -> None:
    number = (
        '<table:table-cell office:value-type="float" office:value="7">'
        "<text:p>00007</text:p></table:table-cell>"
    )
    rows = ods_row("id", "text", "posted") + ods_row("007", "NA 中", "x") + ods_row(number, "b", "y")
    ods(tmp_path / "c.ods", rows)
    raw = read(tmp_path)
    assert raw.cells["cell.text"].tolist() == ["NA 中", "b"]
    assert [(bad.row, bad.column, bad.reason) for bad in raw.bad] == [(3, "id", "number or blank")]


def test_an_ods_that_would_fill_the_memory_is_a_problem(tmp_path: Path) -> None:
    far = (
        '<table:table-row table:number-rows-repeated="1048575"><table:table-cell office:value-type='
        '"string" table:number-columns-repeated="16384"><text:p>x</text:p></table:table-cell>'
        "</table:table-row>"
    )
    ods(tmp_path / "c.ods", ods_row("id", "text", "posted") + far)
    with pytest.raises(Problem, match=r"^c\.ods: not readable"):
        read(tmp_path)


def test_reading_workbooks_loads_no_torch() -> None:
    code = "import sys, undertone.corpus.ingest; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
