"""Cleaning texts, and the table that cleaning leaves."""

import unicodedata
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages import clean as stage
from undertone import tables
from undertone.codebook import Categories
from undertone.corpus import clean
from undertone.corpus.ledger import Ledger
from undertone.errors import Problem
from undertone.params import Clean, read_params
from undertone.text import cleaned

SETTINGS = Clean(similarity=0.8, shingle=5)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("  two  words ", "two words"),
        ("one\r\n\r\n \ttwo\x85three\u2028four", "one\ntwo\nthree\nfour"),
        ("a\u00a0b\u3000c\td", "a b c d"),
        ("in\u200bvi\u00adsi\u2060ble\ufeff", "invisible"),
        ("bell\x07 and \x9cmore", "bell and more"),
        ("\u202eturned\u202c", "turned"),
        ("cafe\u0301", "café"),
        ("e\u200b\u0301", "é"),
        ("\u3164\u2800", ""),
        ("half \ud83d", "half \ufffd"),
        ("pair \ud83d\ude00", "pair 😀"),
        ("tag\U000e0068\U000e0069", "tag"),
    ],
)
def test_what_cannot_be_seen_goes(raw: str, expected: str) -> None:
    assert cleaned(raw) == expected


@pytest.mark.parametrize(
    "kept",
    [
        "SHOUTED, and Punctuated!!! ...",
        "Ⅷ ﬁ ½ fullwidth：ＡＢＣ",  # compatibility characters: NFC, not NFKC
        "我觉得这个不对。",
        "👩\u200d💻 👍🏽 ❤\ufe0f\u200d🔥 🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
        "می\u200cخواهم",
        "ක්\u200dරි",
        "അവൻ അവന്\u200d",
        "שלום עולם",
    ],
)
def test_what_the_author_wrote_stays(kept: str) -> None:
    assert cleaned(kept) == kept


@pytest.mark.parametrize(
    "raw", ["a\u200db", "a\u200cb", "می\u200c خواهم", "😀\u200d", "\u200d😀", "中\u200d文"]
)
def test_joiners_that_join_nothing_go(raw: str) -> None:
    assert cleaned(raw) == raw.replace("\u200d", "").replace("\u200c", "")


@given(st.text(st.one_of(st.characters(), st.sampled_from("\u200c\u200d\u0301\ud83d\ude00می 😀\r\n"))))
def test_cleaning_twice_changes_nothing_more(raw: str) -> None:
    once = cleaned(raw)
    assert cleaned(once) == once
    assert unicodedata.is_normalized("NFC", once)
    assert once == once.strip()
    once.encode("utf-8")  # a lone surrogate would raise


def test_a_long_run_of_blanks_takes_no_time() -> None:
    assert cleaned("a" + " " * 200_000 + "b") == "a b"


def test_empty_texts_are_dropped_and_counted() -> None:
    table = pd.DataFrame({"id": ["a", "b", "c", "d"], "text": ["hello", " \u200b ", None, "x"]})
    kept, ledger = clean.clean(table, SETTINGS, None, seed=0)
    assert kept["id"].tolist() == ["a", "d"]
    assert ledger == Ledger("clean", 4, 2, {"empty": 2})


def test_repeats_are_numbered_and_none_is_dropped() -> None:
    table = pd.DataFrame({"id": ["a", "b", "c"], "text": ["ok!", "something else", " OK "]})
    kept, _ = clean.clean(table, SETTINGS, None, seed=0)
    assert kept["repeat"].tolist() == [0, 1, 0]
    assert kept["repeat"].dtype == "int64"


def test_a_table_without_rows_stays_without_rows() -> None:
    kept, ledger = clean.clean(pd.DataFrame({"id": [], "text": []}), SETTINGS, None, seed=0)
    assert len(kept) == 0
    assert "repeat" in kept.columns
    assert ledger.rows_out == 0


def test_only_the_categories_of_the_study_stay_and_the_others_are_counted() -> None:
    categories = Categories(
        column="section",
        include=["Tech", "Business"],
        exclude=["Sports"],
        aliases={"Tech": ["Technology"]},
    )
    sections = ["Tech", "technology ", "Sports", "Weather", "Business", "Sports"]
    table = pd.DataFrame({"id": list("abcdef"), "text": [*"vwxyz", ""], "meta.section": sections})
    kept, ledger = clean.clean(table, SETTINGS, categories, seed=0)
    assert kept["id"].tolist() == ["a", "b", "e"]
    assert ledger.dropped == {
        "empty": 1,
        "category excluded": 1,
        "category unknown to the codebook": 1,
    }
    with pytest.raises(Problem, match="chooses rows by the column 'section', which was not read"):
        clean.clean(table.drop(columns="meta.section"), SETTINGS, categories, seed=0)


def test_cleaning_leaves_the_table_it_was_given_alone() -> None:
    table = pd.DataFrame({"id": ["a"], "text": [" x "]})
    clean.clean(table, SETTINGS, None, seed=0)
    assert table.to_dict("list") == {"id": ["a"], "text": [" x "]}


def test_the_stage_writes_the_same_bytes_twice(tmp_path: Path) -> None:
    table = pd.DataFrame({"id": ["a", "b"], "text": ["x", ""]})
    tables.write(table, tmp_path / "in.parquet")
    written = []
    for name in ("one", "two"):
        out, ledger = tmp_path / f"{name}.parquet", tmp_path / f"{name}.json"
        counts = stage.main(
            read_params(),
            codebook=Path("codebooks/gender.yaml"),
            comments=tmp_path / "in.parquet",
            out=out,
            ledger=ledger,
        )
        assert counts.startswith("2 rows → 1;")
        written.append((out.read_bytes(), ledger.read_bytes()))
    assert written[0] == written[1]
