"""The comments table: unique ids, labels by the codebook, every row accounted for."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xlsxwriter

from stages import ingest as stage
from undertone import tables
from undertone.codebook import Codebook, Label, read_codebook
from undertone.corpus import ingest
from undertone.corpus.ledger import Ledger
from undertone.errors import Problem
from undertone.params import Source, read_params

ROOT = Path(__file__).parents[1]
REAL = ROOT.parent / "shared" / "data"


def codebook(*, many: bool = False) -> Codebook:
    labels = [
        Label(id="fair", name="Fair play", definition="-", code="1"),
        Label(id="cold", name="冷", definition="-", code="2", aliases=["chilly, or so"]),
    ]
    return Codebook(name="tiny", title="-", language="en", many=many, labels=labels)


def comments(
    folder: Path, table: str, *, many: bool = False, **source: object
) -> tuple[pd.DataFrame, Ledger, list[str]]:
    """The comments of a CSV written without its commas: `a|b` a line."""
    folder.mkdir(exist_ok=True)
    (folder / "c.csv").write_text(table.strip() + "\n")
    settings = Source.model_validate({"text": "text", "delimiter": "|", **source})
    return ingest.comments(folder, settings, "lab", codebook(many=many))


def label(table: pd.DataFrame, prefix: str = "label") -> list[list[float]]:
    rows = table[[f"{prefix}.fair", f"{prefix}.cold"]].to_numpy()
    return [["-" if np.isnan(value) else int(value) for value in row] for row in rows]


NAME = {"form": "name", "columns": ["label"]}
FLAGS = {"form": "flags"}
BOTH = {"form": "annotators", "columns": ["ann", "bob", "cy"]}


def test_the_table_has_every_column_that_the_source_names(tmp_path: Path) -> None:
    table, ledger, notes = comments(
        tmp_path,
        "nr|text|who|when|place|fold\n007|NA|u1|2020|x|dev\n8||u2|||tr",
        id="nr",
        group="who",
        time="when",
        meta=["place"],
        split={"column": "fold", "train": ["tr"], "validation": ["dev"], "test": ["te"]},
    )
    assert table.to_dict("records") == [
        {"id": "007", "text": "NA", "group": "u1", "time": "2020", "part": "validation"}
        | {"file": "c.csv", "sheet": "", "row": 2, "meta.place": "x"},
        {"id": "8", "text": "", "group": "u2", "time": "", "part": "train"}
        | {"file": "c.csv", "sheet": "", "row": 3, "meta.place": ""},
    ]
    assert (ledger, notes) == (Ledger("ingest", 2, 2, {"blank": 0}), [])


def test_without_an_id_column_a_row_is_known_by_its_place(tmp_path: Path) -> None:
    assert comments(tmp_path, "text|b\na|\nb|")[0]["id"].tolist() == ["c.csv-2", "c.csv-3"]
    with xlsxwriter.Workbook(tmp_path / "d.xlsx") as book:
        book.add_worksheet("评论").write_column(0, 0, ["text", "a"])
    source = Source(text="text", files=["*.xlsx"])
    assert ingest.comments(tmp_path, source, "lab", codebook())[0]["id"].tolist() == ["d.xlsx-评论-2"]


@pytest.mark.parametrize(
    ("cell", "labels"),
    [
        ("fair", [1, 0]),
        ("FAIR  play", [1, 0]),
        ("2", [0, 1]),
        ("２", [0, 1]),
        ("冷", [0, 1]),
        ("chilly, or so", [0, 1]),
        ("", ["-", "-"]),
        ("  ", ["-", "-"]),
    ],
)
def test_a_label_is_known_by_id_name_code_or_alias(
    tmp_path: Path, cell: str, labels: list[float]
) -> None:
    table, *_ = comments(tmp_path, f"text|label\na|{cell}\nb|fair\nc|cold", labels=NAME)
    assert label(table) == [labels, [1, 0], [0, 1]]


def test_several_labels_in_one_cell_are_split(tmp_path: Path) -> None:
    rows = "text|label\na|fair; cold\nb|2；1\nc|chilly, or so\nd|fair;"
    table, *_ = comments(tmp_path, rows, labels=NAME, many=True)
    assert label(table) == [[1, 1], [1, 1], [0, 1], [1, 0]]
    table, *_ = comments(
        tmp_path, "text|label\na|fair/cold", labels={**NAME, "separator": "/"}, many=True
    )
    assert label(table) == [[1, 1]]


def test_a_cell_can_say_that_none_of_many_labels_applies(tmp_path: Path) -> None:
    rows = "text|label\na|None\nb|\nc|none of these\nd|fair; cold"
    table, *_ = comments(tmp_path, rows, labels=NAME, many=True)
    assert label(table) == [[0, 0], ["-", "-"], [0, 0], [1, 1]]
    with pytest.raises(Problem, match="Where none applies write none"):
        comments(tmp_path, "text|label\na|fair; no", labels=NAME, many=True)
    with pytest.raises(Problem, match="no label of codebook tiny"):  # one label a comment
        comments(tmp_path, "text|label\na|none", labels=NAME)


def test_a_value_outside_the_codebook_is_refused_without_being_shown(tmp_path: Path) -> None:
    with pytest.raises(Problem) as problem:
        comments(tmp_path, "text|label\na|fair\nb|secret\nc|chilly or so", labels=NAME)
    told = str(problem.value)
    it_has = "It has Fair play (fair, 1), 冷 (cold, 2, chilly, or so)"
    assert told.splitlines()[:2] == [
        f"c.csv, row 3, column label: no label of codebook tiny. {it_has}",
        "c.csv, row 4, column label: no label of codebook tiny, the nearest is 'chilly, or so'."
        f" {it_has}",
    ]
    assert "secret" not in told
    with pytest.raises(Problem, match="row 2, column label"):  # one label a comment
        comments(tmp_path, "text|label\na|fair;cold", labels=NAME)


def test_flags_are_found_by_the_labels_names(tmp_path: Path) -> None:
    rows = "text|冷|FAIR\na|0|1\nb|true|1.0\nc||\nd|FALSE|0.0"
    table, *_ = comments(tmp_path, rows, labels=FLAGS, many=True)
    assert label(table) == [[1, 0], [1, 1], ["-", "-"], [0, 0]]


@pytest.mark.parametrize(
    ("row", "many", "told"),
    [
        ("a|2|0", True, "no flag"),
        ("a|maybe|0", True, "no flag"),
        ("a||1", True, "some flags of this row are empty"),
        ("a|1|1", False, "not exactly one flag"),
        ("a|0|0", False, "not exactly one flag"),
    ],
)
def test_other_flags_are_refused(tmp_path: Path, row: str, many: bool, told: str) -> None:
    with pytest.raises(Problem) as problem:
        comments(tmp_path, f"text|fair|cold\nb|1|0\nc|0|1\n{row}", labels=FLAGS, many=many)
    assert str(problem.value).startswith("c.csv, row 4, column ")
    assert told in str(problem.value)


def test_annotators_decide_by_majority_and_keep_their_answers(tmp_path: Path) -> None:
    rows = "text|ann|bob|cy\na|fair|fair|cold\nb|fair|cold|\nc|||\nd|cold||"
    table, _, notes = comments(tmp_path, rows, labels=BOTH)
    assert label(table) == [[1, 0], ["-", "-"], ["-", "-"], [0, 1]]
    assert label(table, "annotator.bob") == [[1, 0], [0, 1], ["-", "-"], ["-", "-"]]
    assert notes == ["1 rows whose annotators tie have no label"]


def test_annotators_of_many_labels_decide_on_each(tmp_path: Path) -> None:
    rows = "text|ann|bob|cy\na|fair;cold|cold|fair;cold\nb|fair|fair;cold|\nc|cold|cold|fair"
    table, _, notes = comments(tmp_path, rows, labels=BOTH, many=True)
    assert label(table) == [[1, 1], ["-", "-"], [0, 1]]
    assert len(notes) == 1


def test_gold_labels_stand_beside_the_labels(tmp_path: Path) -> None:
    rows = "text|label|gold\na|fair|cold\nb|cold|"
    table, *_ = comments(tmp_path, rows, labels=NAME, gold={**NAME, "columns": ["gold"]})
    assert (label(table), label(table, "gold")) == ([[1, 0], [0, 1]], [[0, 1], ["-", "-"]])


def test_an_empty_class_is_refused_unless_nothing_is_labelled(tmp_path: Path) -> None:
    with pytest.raises(Problem, match="an empty class: no comment is labelled cold"):
        comments(tmp_path, "text|label\na|fair\nb|", labels=NAME)
    assert label(comments(tmp_path, "text|label\na|", labels=NAME)[0]) == [["-", "-"]]


def test_a_value_outside_the_split_is_refused_without_being_shown(tmp_path: Path) -> None:
    split = {"column": "fold", "train": ["tr"], "test": ["te"]}
    for fold in ("secret", ""):
        with pytest.raises(Problem) as problem:
            comments(tmp_path, f"text|fold\na|tr\nb|{fold}", split=split)
        assert str(problem.value).startswith(
            "c.csv, row 3, column fold: no value of the split, which has tr, te"
        )
        assert "secret" not in str(problem.value)


def test_bad_rows_are_told_together_and_dropped_only_as_far_as_allowed(tmp_path: Path) -> None:
    rows = "id|text|label\n" + "".join(f"|t{row}|secret\n" for row in range(7)) + "1|a|fair\n\n2|b|2"
    settings: dict[str, object] = {"id": "id", "labels": NAME}
    with pytest.raises(Problem) as problem:
        comments(tmp_path, rows, **settings, max_bad_rows=6)
    lines = str(problem.value).splitlines()
    assert len(lines) == 6
    assert lines[0] == "c.csv, row 2, column id: an empty id. Fill it in"
    assert lines[5] == (
        "params.yaml: ingest.lab: 7 bad rows, 2 more than shown."
        " Correct them, or set ingest.lab.max_bad_rows to leave such rows out."
    )
    table, ledger, _ = comments(tmp_path, rows, **settings, max_bad_rows=7)
    assert table["id"].tolist() == ["1", "2"]
    assert ledger == Ledger("ingest", 10, 2, {"blank": 1, "blank id": 7})


@pytest.mark.parametrize("ids", [("x", "x"), ("0012", "0012")])
def test_an_id_that_stands_twice_is_refused(tmp_path: Path, ids: tuple[str, str]) -> None:
    with pytest.raises(Problem, match=r"c\.csv, row 2 and c\.csv, row 4: one id in 2 rows"):
        comments(tmp_path, f"id|text\n{ids[0]}|a\ny|a\n{ids[1]}|b", id="id", max_bad_rows=9)


@pytest.mark.parametrize("other", ["1", "001"])
def test_a_number_and_a_text_that_look_alike_are_one_id(tmp_path: Path, other: str) -> None:
    with xlsxwriter.Workbook(tmp_path / "c.xlsx") as book:
        sheet = book.add_worksheet()
        sheet.write_column(0, 0, ["id", 1])
        sheet.write_string(2, 0, other)
        sheet.write_column(0, 1, ["text", "a", "b"])
    with pytest.raises(Problem, match="one id in 2 rows"):
        ingest.comments(tmp_path, Source(text="text", id="id"), "lab", codebook())


def test_texts_with_and_without_leading_zeros_are_two_ids(tmp_path: Path) -> None:
    assert len(comments(tmp_path, "id|text\n1|a\n001|b", id="id")[0]) == 2


def test_a_table_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Problem, match="no rows below the header"):
        comments(tmp_path, "id|text\n\n", id="id")


def test_a_header_that_is_named_twice_is_read_once(tmp_path: Path) -> None:
    table, *_ = comments(tmp_path, "id|text\n1|a", id="id", group="id", meta=["id"])
    assert table[["id", "group", "meta.id"]].to_numpy().tolist() == [["1", "1", "1"]]


def test_the_header_can_stand_further_down(tmp_path: Path) -> None:
    table, ledger, _ = comments(tmp_path, "A study of ours|\n|\nid|text\n1|a", id="id", header=3)
    assert (table["row"].tolist(), ledger.rows_in) == ([4], 1)


def test_the_stage_gives_the_same_bytes_each_time_and_nothing_when_it_fails(tmp_path: Path) -> None:
    params = read_params(ROOT / "params.yaml")
    lab = Source(text="text", labels={"form": "name", "columns": ["label"]})  # type: ignore[arg-type]
    params = params.model_copy(update={"ingest": {"lab": lab}})
    raw = tmp_path / "raw"
    raw.mkdir()
    book = tmp_path / "tiny.yaml"
    book.write_text(
        "name: tiny\ntitle: t\nlanguage: en\nlabels:\n"
        "- id: fair\n  name: fair\n  definition: d\n- id: cold\n  name: cold\n  definition: d\n"
    )

    def run(out: Path) -> str:
        return stage.main(
            params, source="lab", raw=raw, codebook=book, out=out, ledger=out.with_suffix(".json")
        )

    (raw / "c.csv").write_text("text,label\na,fair\n\nb,cold\n")
    assert run(tmp_path / "one.parquet") == "3 rows → 2"
    run(tmp_path / "two.parquet")
    for suffix in (".parquet", ".json"):
        one, two = (tmp_path / f"{name}{suffix}" for name in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()
    assert tables.read(tmp_path / "one.parquet", tables.COMMENTS)["text"].tolist() == ["a", "b"]
    (raw / "c.csv").write_text("text,label\na,secret\n")
    with pytest.raises(Problem):
        run(tmp_path / "three.parquet")
    assert not list(tmp_path.glob("*three*"))


@pytest.mark.skipif(not REAL.is_dir(), reason="the public data are not beside the repository")
@pytest.mark.parametrize(
    ("name", "file", "rows", "counts"),
    [
        ("edos", "edos_sexism_en.xlsx", 20_000, [15_146, 2_271, 1_665, 475, 443]),
        ("swsr", "swsr_sexism_zh.xlsx", 8_969, [5_876, 1_994, 974, 85, 40]),
        ("goemotions", "goemotions_en.csv", 54_263, [21_733, 17_772, 7_022, 6_668, 4_032, 1_013, 929]),
    ],
)
def test_real_tables_come_in_whole(
    tmp_path: Path, name: str, file: str, rows: int, counts: list[int]
) -> None:
    (tmp_path / file).symlink_to(REAL / file)
    source = read_params(ROOT / "params.yaml").ingest[name]
    space = read_codebook(ROOT / "codebooks" / f"{name}.yaml")
    table, ledger, notes = ingest.comments(tmp_path, source, name, space)
    assert (ledger, notes) == (Ledger("ingest", rows, rows, {"blank": 0}), [])
    assert sorted(table.filter(like="label.").sum().astype(int), reverse=True) == counts
    other = pd.read_csv if file.endswith(".csv") else pd.read_excel
    expected = other(REAL / file, dtype=str, keep_default_na=False, na_filter=False)
    assert (table["text"].to_numpy() == expected[source.text].to_numpy()).all()


def test_a_first_row_that_holds_comments_is_never_shown(tmp_path: Path) -> None:
    canary = "zq10293847561kx my boss said so"
    (tmp_path / "c.csv").write_text(f"u1,{canary}\nu2,fine\n", "utf-8")
    with pytest.raises(Problem) as caught:
        ingest.comments(tmp_path, Source(text="comment"), "private", codebook())
    assert "row 1 has 2 cells and doesn't look like a header" in str(caught.value)
    assert "zq1029" not in str(caught.value)


def test_a_lone_carriage_return_never_cuts_a_text_in_two(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_bytes(b"text\nline one\rline two\n")
    with pytest.raises(Problem, match="a carriage return within a line"):
        ingest.comments(tmp_path, Source(text="text"), "private", codebook())
    (tmp_path / "c.csv").write_bytes(b'text\n"line one\rline two"\n')
    table, _, _ = ingest.comments(tmp_path, Source(text="text"), "private", codebook())
    assert table["text"].tolist() == ["line one\rline two"]
