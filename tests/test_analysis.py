"""Label rates, and what planned filters do to them."""

import itertools
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xlsxwriter
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp

from undertone import tables
from undertone.codebook import Codebook, read_codebook
from undertone.corpus import analysis
from undertone.errors import Problem
from undertone.labels import Flags, LabelSpace

CODEBOOKS = Path(__file__).parents[1] / "codebooks"
CANARY = "zq48151623420kx"

# A study's table of Japanese texts (LLM-jp Toxicity Dataset v2), as its authors counted it.
CATEGORIES = ("obscene", "discriminatory", "violent", "illegal", "personal", "corporate", "others")
YES = (1193, 418, 169, 61, 41, 423, 29)
YES_COUNTS = [1965, 1468, 382, 28, 3, 0, 1, 0]
ANY_OF = {  # rows that are yes in at least one of these
    ("obscene", "discriminatory", "violent", "corporate"): 1839,
    ("obscene", "discriminatory", "corporate"): 1802,
    ("discriminatory", "corporate"): 828,
}
ALL_YES = "drop-all-no"
FOUR = ["drop-category:illegal", "drop-category:personal", "drop-category:others", ALL_YES]
THREE = [*FOUR, "drop-category:violent", ALL_YES]


def toxicity(seed: int) -> Flags:
    """3,847 rows with exactly the study's counts: how often each pattern stands is solved for."""
    patterns = np.array(list(itertools.product([False, True], repeat=len(CATEGORIES))))
    at = {name: place for place, name in enumerate(CATEGORIES)}
    equations = [
        *(patterns.sum(axis=1) == count for count in range(len(YES_COUNTS))),
        *patterns.T,
        *(patterns[:, [at[name] for name in names]].any(axis=1) for names in ANY_OF),
    ]
    totals = [*YES_COUNTS, *YES, *ANY_OF.values()]
    solved = milp(
        np.zeros(len(patterns)),
        integrality=1,
        bounds=Bounds(0, 3847),
        constraints=LinearConstraint(np.array(equations, dtype=float), totals, totals),
    )
    flags = np.repeat(patterns, np.round(solved.x).astype(int), axis=0)
    shuffled: Flags = np.random.default_rng(seed).permutation(flags)
    return shuffled


@pytest.fixture(scope="module")
def study() -> analysis.Marks:
    flags = toxicity(seed=5)
    space = read_codebook(CODEBOOKS / "toxicity.yaml").space
    assert space.labels == CATEGORIES
    return analysis.Marks(space, np.arange(len(flags)), flags)


def filtered(marks: analysis.Marks, *filters: str, seed: int = 0) -> analysis.Marks:
    *_, last = analysis.steps(marks, filters, seed=seed)
    return last.after


def sides(marks: analysis.Marks) -> dict[str, tuple[int, int]]:
    yes = marks.flags.sum(axis=0).tolist()
    return {
        name: (count, len(marks.rows) - count)
        for name, count in zip(marks.space.labels, yes, strict=True)
    }


def test_the_tables_counts_are_the_studys(study: analysis.Marks) -> None:
    assert len(study.rows) == 3847
    assert analysis.yes_counts(study.flags) == YES_COUNTS
    assert tuple(study.flags.sum(axis=0).tolist()) == YES


DERIVED = {
    1882: (
        [ALL_YES],
        {
            "obscene": (1193, 689), "discriminatory": (418, 1464), "violent": (169, 1713),
            "illegal": (61, 1821), "personal": (41, 1841), "corporate": (423, 1459),
            "others": (29, 1853),
        },
        "63.39 22.21 8.98 3.24 2.18 22.48 1.54",
    ),
    1839: (
        FOUR,
        {
            "obscene": (1193, 646), "discriminatory": (418, 1421), "violent": (169, 1670),
            "corporate": (423, 1416),
        },
        "64.87 22.73 9.19 23.00",
    ),
    1802: (
        THREE,
        {"obscene": (1193, 609), "discriminatory": (418, 1384), "corporate": (423, 1379)},
        "66.20 23.20 23.47",
    ),
    828: (
        [*THREE, "drop-no:discriminatory+corporate"],
        {"obscene": (219, 609), "discriminatory": (418, 410), "corporate": (423, 405)},
        "26.45 50.48 51.09",
    ),
    1218: (
        [*THREE, "balance:obscene"],
        {"obscene": (609, 609), "discriminatory": (418, 800), "corporate": (423, 795)},
        "50.00 34.32 34.73",
    ),
}  # fmt: skip


@pytest.mark.parametrize("rows", DERIVED)
def test_the_filters_give_the_studys_derived_sets(study: analysis.Marks, rows: int) -> None:
    filters, counts, percents = DERIVED[rows]
    left = filtered(study, *filters)
    assert len(left.rows) == rows
    assert sides(left) == counts
    shares = 100 * left.flags.sum(axis=0) / rows
    assert [f"{share:.2f}" for share in shares] == percents.split()
    at = [CATEGORIES.index(name) for name in left.space.labels]
    assert (left.flags == study.flags[left.rows][:, at]).all()  # the rows are still themselves


def test_balancing_drops_first_what_no_other_category_needs(study: analysis.Marks) -> None:
    three = filtered(study, *THREE)
    (step,) = analysis.steps(three, ["balance:obscene"], seed=3)
    assert (len(step.before.rows) - len(step.after.rows), step.note) == (584, "")
    gone = ~np.isin(three.rows, step.after.rows)
    assert not three.flags[gone][:, 1:].any()


def marked(rows: list[str], labels: str = "abc", *, many: bool = True) -> analysis.Marks:
    """A row for each string: the labels it holds."""
    flags = np.array([[label in row for label in labels] for row in rows])
    return analysis.Marks(LabelSpace.of("letters", list(labels), many=many), np.arange(len(rows)), flags)


def test_balancing_says_what_others_lose_where_it_cannot_be_helped() -> None:
    (step,) = analysis.steps(marked(["a", "ab", "ab", "ac", ""]), ["balance:a"], seed=0)
    assert sides(step.after)["a"] == (1, 1)
    assert step.note == "2 of the 3 rows to drop have another label"
    assert 0 not in step.after.rows
    assert step.note in analysis.told(step)


def test_a_category_with_few_yes_loses_its_no() -> None:
    left = filtered(marked(["a", "b", "b", "bc", "", ""]), "balance:a")
    assert sides(left)["a"] == (1, 1)
    assert left.rows[0] == 0
    assert left.rows[1] in (1, 2, 3)  # rows without any label went first


def test_the_seed_decides_which_rows_are_drawn(study: analysis.Marks) -> None:
    drawn = [filtered(study, "balance:obscene", seed=seed).rows.tolist() for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_dropped_category_leaves_its_rows() -> None:
    left = filtered(marked(["a", "b", "ab", ""]), "drop-category:a")
    assert (left.space.labels, left.rows.tolist()) == (("b", "c"), [0, 1, 2, 3])
    assert filtered(left, ALL_YES).rows.tolist() == [1, 2]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sets(st.sampled_from("abc")).map("".join), min_size=1, max_size=40),
    st.sampled_from("abc"),
    st.integers(0, 99),
)
def test_a_balanced_category_is_half_yes_and_no_more_rows_go_than_must(
    rows: list[str], label: str, seed: int
) -> None:
    marks = marked(rows)
    yes = sum(label in row for row in rows)
    if yes in (0, len(rows)):
        with pytest.raises(Problem, match="in every row"):
            filtered(marks, f"balance:{label}")
        return
    left = filtered(marks, f"balance:{label}", seed=seed)
    smaller = min(yes, len(rows) - yes)
    assert sides(left)[label] == (smaller, smaller)


def test_one_label_a_text_is_brought_down_to_the_rarest() -> None:
    left = filtered(marked(["a"] * 9 + ["b"] * 5 + ["c"] * 2, many=False), "balance")
    assert left.flags.sum(axis=0).tolist() == [2, 2, 2]


def test_one_label_is_brought_to_half_of_the_rows() -> None:
    left = filtered(marked(["a"] * 9 + ["b"] * 5 + ["c"] * 2, many=False), "balance:a")
    assert left.flags.sum(axis=0).tolist() == [7, 5, 2]


def test_a_dropped_label_takes_its_rows_along() -> None:
    left = filtered(marked(["a", "b", "c", "b"], many=False), "drop-label:b")
    assert (left.space.labels, left.rows.tolist()) == (("a", "c"), [0, 2])


@pytest.mark.parametrize(
    ("many", "wanted", "told"),
    [
        (True, "drop-category:d", "no label 'd'; there are a, b, c"),
        (True, "drop-no:a+d", "no label 'd'; there are a, b, c"),
        (True, "drop-no:", "no label ''; there are a, b, c"),
        (True, "balance", "no filter 'balance' .* many labels.* drop-no:NAME"),
        (True, "drop-all-no:a", "no filter 'drop-all-no:a'"),
        (False, "drop-category:a", "no filter 'drop-category:a' .* one label.* drop-label:NAME"),
        (False, "balance", "no row is 'c'. First drop-label:c"),
        (True, "balance:c", "'c' is no in every row"),
    ],
)
def test_a_filter_that_cannot_be_is_refused(many: bool, wanted: str, told: str) -> None:
    with pytest.raises(Problem, match=told):
        filtered(marked(["a", "b", "a"], many=many), wanted)


def test_the_last_category_stays() -> None:
    with pytest.raises(Problem, match="'c' is the only label left"):
        filtered(marked(["a", "c"]), "drop-category:a", "drop-category:b", "drop-category:c")


def test_a_step_tells_every_category_before_and_after() -> None:
    told = [
        analysis.told(step)
        for step in analysis.steps(marked(["a", "ab", "", ""]), ["drop-category:b", ALL_YES], seed=0)
    ]
    assert told[0].splitlines()[0] == "drop-category:b: 4 → 4 rows, 0 dropped"
    assert [" ".join(line.split()) for line in told[1].splitlines()] == [
        "drop-all-no: 4 → 2 rows, 2 dropped",
        "yes no rate",
        "a 2 → 2 2 → 0 50.00% → 100.00% (+50.00)",
        "c 0 → 0 4 → 2 0.00% → 0.00% (+0.00)",
    ]
    assert "1 → gone" in told[0]


def test_filters_that_leave_nothing_are_told_without_a_rate() -> None:
    (step,) = analysis.steps(marked(["", ""]), [ALL_YES], seed=0)
    assert "2 → 0 rows" in analysis.told(step)
    assert "0.00% → -" in analysis.told(step)


def test_rates_tell_the_yes_counts_and_each_category(study: analysis.Marks) -> None:
    table = analysis.Table(study, 3850, ["a note"], lambda _: pd.DataFrame())
    lines = [" ".join(line.split()) for line in analysis.rates(table).splitlines()]
    assert lines[:2] == ["a note", "3,850 rows, 3 without a label"]
    assert "yes-counts: {0: 1965, 1: 1468, 2: 382, 3: 28, 4: 3, 5: 0, 6: 1, 7: 0}" in lines
    assert "two or more: 414 rows, 10.76%" in lines
    assert "obscene 1,193 2,654 31.01%" in lines


def test_rates_of_one_label_a_text_are_counts_and_shares() -> None:
    marks = marked(["a", "a", "b", "c"], many=False)
    told = analysis.rates(analysis.Table(marks, 4, [], lambda _: pd.DataFrame()))
    assert "yes-counts" not in told
    assert "a    2  50.00%" in told


# Tables in files


def gun() -> Codebook:
    return read_codebook(CODEBOOKS / "gun_control.yaml")


def letters(*, many: bool = True) -> Codebook:
    labels = [{"id": label, "name": f"Letter {label}"} for label in "abc"]
    return Codebook.model_validate(
        {"name": "letters", "title": "-", "language": "en", "many": many, "labels": labels}
    )


def held(table: analysis.Table) -> list[str]:
    """The labels of each labelled row."""
    labels = table.marks.space.labels
    return ["+".join(np.array(labels)[row].tolist()) for row in table.marks.flags]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet", ".xlsx"])
def test_flags_are_read_from_any_table(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"in[1]{suffix}"
    table = pd.DataFrame({"b": ["no", "Yes", ""], "a": ["1", "0", ""], "Letter C": ["YES", "no", ""]})
    table.insert(0, "text", [CANARY, "-", "-"])
    if suffix == ".csv":
        table.to_csv(path, index=False)
    elif suffix == ".jsonl":
        table.to_json(path, orient="records", lines=True)
    elif suffix == ".parquet":
        table.to_parquet(path)
    else:
        with xlsxwriter.Workbook(path) as book:
            sheet = book.add_worksheet()
            for at, row in enumerate([list(table.columns), *table.to_numpy().tolist()]):
                sheet.write_row(at, 0, row)
    read = analysis.of_file(path, letters(), None, None)
    assert (held(read), read.total) == (["a+c", "b"], 3)
    assert read.rows_of(read.marks).to_dict("list") == {
        "text": [CANARY, "-"], "a": [1, 0], "b": [0, 1], "c": [1, 0],
    }  # fmt: skip


def csv(folder: Path, table: str) -> Path:
    path = folder / "in.csv"
    path.write_text(table.strip() + "\n", "utf-8")
    return path


def test_a_column_of_names_is_read_and_written_back_as_ids(tmp_path: Path) -> None:
    path = csv(tmp_path, "id,label\n007,Letter A\n8,\n9,B")
    read = analysis.of_file(path, letters(many=False), None, "label")
    assert (held(read), read.total) == (["a", "b"], 3)
    assert read.rows_of(read.marks).to_dict("list") == {"id": ["007", "9"], "label": ["a", "b"]}


def test_names_of_many_labels_are_written_as_flags_without_the_dropped(tmp_path: Path) -> None:
    path = csv(tmp_path, "id,all\n1,a;b\n2,c\n3,b")
    read = analysis.of_file(path, letters(), None, "all")
    left = filtered(read.marks, "drop-category:c", ALL_YES)
    assert read.rows_of(left).to_dict("list") == {"id": ["1", "3"], "a": [1, 0], "b": [1, 1]}


def test_labels_are_merged_unless_they_are_already(tmp_path: Path) -> None:
    path = csv(tmp_path, "label\nSupport Gun Polarized\nNot Sure\nanti_gun_non_polarized")
    asked = analysis.of_file(path, gun(), "polarization", "label")
    path = csv(tmp_path, "label\nPolarized\nOther\nUnpolarized")
    merged = analysis.of_file(path, gun(), "polarization", "label")
    assert held(asked) == held(merged) == ["polarized", "other", "unpolarized"]
    assert len(asked.marks.space.labels) == 3


def test_the_written_table_can_be_analysed_again(tmp_path: Path) -> None:
    read = analysis.of_file(
        csv(tmp_path, "A,B,C\nyes,no,no\nno,no,no\nno,yes,yes"), letters(), None, None
    )
    out = tmp_path / "out.jsonl"
    tables.share(read.rows_of(filtered(read.marks, ALL_YES)), out)
    assert held(analysis.of_file(out, letters(), None, None)) == ["a", "b+c"]


def test_a_table_of_the_stage_is_read_and_keeps_its_columns(tmp_path: Path) -> None:
    flags = {"label.a": [1.0, None, 0.0], "label.b": [0.0, None, 0.0], "label.c": [0.0, None, 1.0]}
    path = tmp_path / "labelled.parquet"
    pd.DataFrame({"id": ["x", "y", "z"], "repeat": [4, 5, 6]} | flags).to_parquet(path)
    read = analysis.of_stage(path, letters().space)
    assert (held(read), read.total) == (["a", "c"], 3)
    left = read.rows_of(filtered(read.marks, "drop-category:b"))
    assert left.to_dict("list") == {
        "id": ["x", "z"], "repeat": [4, 6], "label.a": [1.0, 0.0], "label.c": [0.0, 1.0],
    }  # fmt: skip
    assert held(analysis.of_file(path, letters(), None, None)) == ["a", "c"]


def test_sheets_are_read_together_and_those_without_labels_are_named(tmp_path: Path) -> None:
    path = tmp_path / "in.xlsx"
    with xlsxwriter.Workbook(path) as book:
        for name, rows in {"one": [["t", "label"], ["-", "a"]], "two": [["label"], ["b"]]}.items():
            sheet = book.add_worksheet(name)
            for at, row in enumerate(rows):
                sheet.write_row(at, 0, row)
        book.add_worksheet("notes").write_row(0, 0, ["to do"])
    read = analysis.of_file(path, letters(many=False), None, "label")
    assert held(read) == ["a", "b"]
    assert [note for note in read.notes if "notes" in note and "not read" in note]
    with pytest.raises(Problem, match="different columns"):
        read.rows_of(read.marks)


@pytest.mark.parametrize(
    ("table", "column", "told"),
    [
        (f"text,a,b,c\n{CANARY},1,0,maybe", None, "1 cells can't be read.*row 2, column c: no flag"),
        (f"text,a,b,c\n{CANARY},1,,0", None, "some flags of this row are empty"),
        (f"text,a,b\n{CANARY},1,0", None, "no column 'c'"),
        (f"text,label\n{CANARY},a", None, "no column is called a or b or c.*--column"),
        (f"text,label\n-,{CANARY}", "label", "no label of codebook letters"),
        (f"text,label\n{CANARY},a", "lable", "no column 'lable'.*nearest: 'label'"),
    ],
)
def test_what_is_no_label_is_refused_without_a_text(
    table: str, column: str | None, told: str, tmp_path: Path
) -> None:
    with pytest.raises(Problem, match=told) as caught:
        analysis.of_file(csv(tmp_path, table), letters(), None, column)
    assert CANARY not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_column_named_like_a_label_is_not_overwritten(tmp_path: Path) -> None:
    read = analysis.of_file(csv(tmp_path, "a,all\nx,a;b\ny,c"), letters(), None, "all")
    with pytest.raises(Problem, match="column 'a' would stand twice"):
        read.rows_of(read.marks)


# Pictures


@pytest.mark.parametrize("suffix", analysis.PICTURES)
def test_a_picture_is_drawn(suffix: str, study: analysis.Marks, tmp_path: Path) -> None:
    out = tmp_path / f"rates{suffix}"
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # also: a character that the font lacks
        analysis.plot(study, filtered(study, *THREE), out)
    head = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}[suffix]
    assert out.read_bytes().startswith(head)


def test_one_label_is_drawn_without_filters(tmp_path: Path) -> None:
    marks = marked(["a", "b"], many=False)
    analysis.plot(marks, marks, tmp_path / "rates.png")
    assert (tmp_path / "rates.png").stat().st_size > 1000


def test_names_that_the_usual_font_lacks_are_drawn_with_one_that_has_them() -> None:
    names, font = analysis.tick_names(LabelSpace.of("signs", ["a", "b"], ["plain", "Ⓑ sign"]))
    assert names == ("plain", "Ⓑ sign")
    assert analysis.tick_names(LabelSpace.of("signs", ["a", "b"]))[1] != font


def test_names_that_no_font_has_are_drawn_as_ids() -> None:
    # U+0378 is assigned to no character
    names, _ = analysis.tick_names(LabelSpace.of("signs", ["a", "b"], ["plain", "\u0378"]))
    assert names == ("a", "b")
