"""The stand-in workbook: the same for the same seed, and as faulty as a private one."""

import re
from pathlib import Path

import numpy as np
import openpyxl
import pandas as pd
import pytest

from undertone.codebook import Codebook, read_codebook
from undertone.corpus import sample
from undertone.corpus.sample_words import ASIDES, FRAMES, FRAMINGS, SHARES, STANCES, WORDS
from undertone.errors import Problem

CODEBOOKS = Path(__file__).parents[1] / "codebooks"
SHIPPED = sorted(path.stem for path in CODEBOOKS.glob("*.yaml"))


def rows(name: str = "gender", count: int = 1500, gold: int = 200, seed: int = 13) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return sample.rows(read_codebook(CODEBOOKS / f"{name}.yaml"), count, gold, rng)


def texts(frame: pd.DataFrame) -> list[str]:
    return [cell for cell in frame["comment"] if isinstance(cell, str)]


@pytest.fixture(scope="module")
def standin() -> pd.DataFrame:
    return rows()


def test_equal_seeds_give_equal_bytes_and_others_do_not(tmp_path: Path) -> None:
    for name, seed in (("one", 13), ("same", 13), ("other", 14)):
        sample.write_workbook(rows(count=200, gold=20, seed=seed), tmp_path / name)
    one, same, other = ((tmp_path / name).read_bytes() for name in ("one", "same", "other"))
    assert one == same
    assert one != other


def test_the_frame_has_as_many_rows_and_gold_labels_as_asked_for(standin: pd.DataFrame) -> None:
    assert (len(standin), tuple(standin.columns)) == (1500, sample.COLUMNS)
    assert standin[list(sample.CODERS)].notna().all(axis=1).sum() == 200
    assert standin[list(sample.CODERS)].notna().any(axis=1).sum() == 200


def test_the_labels_are_as_frequent_as_they_should_be(standin: pd.DataFrame) -> None:
    shares = standin["truth"].value_counts(normalize=True)
    assert set(shares.index) == set(SHARES)
    for label, share in SHARES.items():
        assert shares[label] == pytest.approx(share, abs=0.04)


def test_coders_mostly_see_the_truth_and_not_always_alike() -> None:
    coded = rows(count=3000, gold=2900).dropna(subset=["coder_a"])
    for coder in sample.CODERS:
        assert (coded[coder] == coded["truth"]).mean() == pytest.approx(sample.CARE, abs=0.02)
    assert (coded["coder_a"] != coded["coder_b"]).mean() > 0.05


def test_some_rows_and_some_comments_are_empty(standin: pd.DataFrame) -> None:
    empty = standin.isna().all(axis=1)
    assert empty.sum() == 3
    assert (standin["comment"].isna() & ~empty).sum() == 3


def test_some_comments_are_numbers_and_some_look_like_formulas(standin: pd.DataFrame) -> None:
    assert sum(isinstance(cell, int) for cell in standin["comment"]) == 1
    assert sum(text.startswith("=") for text in texts(standin)) == 4


def test_a_row_without_a_text_has_no_label(standin: pd.DataFrame) -> None:
    wordless = standin[[not isinstance(cell, str) for cell in standin["comment"]]]
    assert len(wordless) > 0
    assert wordless[["truth", *sample.CODERS]].isna().all(axis=None)


def test_exact_repeats_are_as_frequent_as_stated(standin: pd.DataFrame) -> None:
    repeated = pd.Series(texts(standin)).duplicated().sum()
    assert repeated == pytest.approx(sample.EXACT_REPEATS * len(standin), abs=8)


def test_comments_have_emoji_and_line_breaks(standin: pd.DataFrame) -> None:
    assert any("🙂" in text for text in texts(standin))
    assert any("\n" in text for text in texts(standin))


def test_comments_are_of_a_usual_length(standin: pd.DataFrame) -> None:
    words = np.array([len(text.split()) for text in texts(standin)])
    assert 15 < np.median(words) < 40
    assert np.mean((words >= 5) & (words <= 60)) > 0.93


def test_few_authors_write_much_and_many_write_little(standin: pd.DataFrame) -> None:
    written = standin["author"].value_counts()
    assert written.iloc[0] > 20 * written.median()


def test_ids_are_texts_that_keep_their_zeros(standin: pd.DataFrame) -> None:
    ids = standin["comment_id"].dropna()
    assert ids.is_unique
    assert ids.iloc[0] == "00001"


def test_no_label_has_words_of_its_own() -> None:
    """Else a list of words would do what the stand-in asks of a model."""
    frame = rows(count=6000).dropna(subset=["truth"])
    words = pd.Series([set(re.findall(r"\w+", str(text).lower())) for text in frame["comment"]])
    used = words.groupby(frame["truth"].to_numpy()).agg(lambda part: set().union(*part))
    common = words.explode().value_counts()
    common = common[common > 250]
    assert len(used) == len(SHARES)
    assert len(common) > 50
    assert {word: list(used.index) for word in common.index} == {
        word: [label for label in used.index if word in used[label]] for word in common.index
    }


def test_every_slot_of_the_grammar_has_phrases() -> None:
    stances = {slot for stance in STANCES.values() for one in stance for slot in vars(one).values()}
    phrases = [p for group in (FRAMES, ASIDES, WORDS) for several in group.values() for p in several]
    named = {slot for phrase in phrases for slot in sample._SLOT.findall(phrase)} | stances
    assert named - set(WORDS) == {"same", "other", "about", "besides"}
    assert set(STANCES) == set(FRAMINGS) == set(SHARES)
    for framings in FRAMINGS.values():
        assert set(framings) <= set(FRAMES)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_codebook_gives_a_workbook_of_its_labels(name: str, tmp_path: Path) -> None:
    codebook = read_codebook(CODEBOOKS / f"{name}.yaml")
    frame = rows(name, count=1000)
    told = {part for cell in frame["truth"].dropna() for part in cell.split(sample.SEPARATOR)}
    assert told == {label.name for label in codebook.labels}
    assert frame["truth"].str.contains(sample.SEPARATOR).any() == codebook.many
    assert pd.Series(texts(frame)).nunique() > 900
    sample.write_workbook(frame, tmp_path / "comments.xlsx")
    assert (tmp_path / "comments.xlsx").stat().st_size > 10_000


def test_a_workbook_holds_what_the_frame_holds(standin: pd.DataFrame, tmp_path: Path) -> None:
    sample.write_workbook(standin, tmp_path / "comments.xlsx")
    book = openpyxl.load_workbook(tmp_path / "comments.xlsx")
    assert book.sheetnames == list(sample.SHEETS)
    cells = [row for sheet in book for row in sheet.iter_rows(min_row=2)]
    # a trailing empty row leaves no trace in a sheet
    written = [row for row in standin["comment"] if not pd.isna(row)]
    comments = [row[4] for row in cells if row[4].value is not None]
    assert [cell.value for cell in comments] == written
    assert {cell.data_type for cell in comments} == {"s", "n"}  # no formula
    assert {cell.number_format for cell in comments} == {"General"}
    assert all(row[2].is_date for row in cells if row[2].value is not None)


def test_a_label_without_examples_is_told() -> None:
    codebook = read_codebook(CODEBOOKS / "edos.yaml")
    bare = codebook.labels[1].model_copy(update={"examples": []})
    broken: Codebook = codebook.model_copy(update={"labels": [codebook.labels[0], bare]})
    with pytest.raises(Problem, match="codebook edos: label derogation has no examples"):
        sample.rows(broken, 100, 0, np.random.default_rng(0))


def test_more_gold_than_labelled_rows_is_told() -> None:
    with pytest.raises(Problem, match=r"sample\.gold is 200, but only 97 of sample\.rows"):
        rows(count=100, gold=200)


def test_a_codebook_that_chooses_by_category_gets_its_column() -> None:
    codebook = read_codebook(Path("codebooks/news.yaml"))
    table = sample.rows(codebook, 300, 20, np.random.default_rng(0))
    assert codebook.categories is not None
    given = table["category"].dropna()
    assert {codebook.categories.kept(one) for one in given} == {True, False}
    assert table.loc[table["comment_id"].isna(), "category"].isna().all()
