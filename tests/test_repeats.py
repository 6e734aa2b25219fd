"""Exact and near repeats."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from undertone.corpus import repeats


def groups(texts: list[str], similarity: float = 0.8, shingle: int = 5, seed: int = 0) -> list[int]:
    return repeats.groups(texts, similarity=similarity, shingle=shingle, seed=seed).tolist()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ok", "ok!"),
        ("What?  NO way...", "what no way"),
        ("ＦＵＬＬ width", "full WIDTH"),
        ("Straße", "STRASSE"),
        ("这个不对。", "这个不对！！"),
        ("👍🏽", "👍"),
        ("❤\ufe0f", "❤"),
        ("שלום, עולם", "שלום עולם"),
        ("soft\u00adly", "softly"),
    ],
)
def test_case_punctuation_and_width_do_not_tell_texts_apart(one: str, other: str) -> None:
    assert groups([one, other]) == [0, 0]


@pytest.mark.parametrize(
    ("one", "other"),
    [("ok", "no"), ("?!", "..."), ("👍", "👎"), ("हिंदी", "हद"), ("对", "不对"), ("", "a")],
)
def test_different_short_texts_are_no_repeats(one: str, other: str) -> None:
    assert groups([one, other]) == [0, 1]


def test_a_changed_letter_in_a_long_text_is_a_near_repeat() -> None:
    text = "the quick brown fox jumps over the lazy dog while seven wizards brew a potion at dawn"
    assert groups([text, "something else entirely", text.replace("quick", "quack")]) == [0, 1, 0]


def test_a_near_repeat_without_spaces_between_words_is_found() -> None:
    text = "".join(chr(0x4E00 + 7 * at) for at in range(60))
    assert groups([text, text + "吗", text[::-1]]) == [0, 0, 1]


def test_pairs_below_the_similarity_stay_apart_however_often_they_meet() -> None:
    # 20 characters in common of 30: Jaccard 2/3.
    base = "".join(chr(0x4E00 + at) for at in range(20))
    texts = [base + "".join(chr(0x6000 + 5 * at + row * 50) for at in range(5)) for row in range(200)]
    assert len(set(groups(texts, similarity=0.7, shingle=1))) == 200


def test_repeats_of_repeats_are_repeats() -> None:
    words = [chr(0x4E00 + at) for at in range(110)]
    chain = ["".join(words[start : start + 100]) for start in (0, 5, 10)]
    apart = repeats.groups([chain[0], chain[2]], similarity=0.85, shingle=1, seed=0)
    assert apart.tolist() == [0, 1]
    assert groups(chain, similarity=0.85, shingle=1) == [0, 0, 0]


@pytest.mark.parametrize("similarity", [0.3, 0.5, 0.8, 0.9])
def test_the_bands_find_a_pair_at_the_threshold_with_99_percent(similarity: float) -> None:
    bands, rows = repeats.banding(similarity)
    assert 1 - (1 - similarity**rows) ** bands >= 0.99
    assert 1 - (1 - similarity**rows) ** (bands - 1) < 0.99
    assert bands * rows <= repeats.HASHES


def test_pairs_at_the_threshold_are_found_as_often_as_promised() -> None:
    rng = np.random.default_rng(0)
    texts = []
    for _ in range(2000):  # 80 characters in common of 100: a set of shingles of length 1
        drawn = [chr(code) for code in rng.choice(20_000, size=100, replace=False) + 0x4E00]
        texts += ["".join(drawn[:90]), "".join(drawn[:80] + drawn[90:])]
    found = repeats.groups(texts, similarity=0.8, shingle=1, seed=0)
    assert (found[::2] == found[1::2]).mean() >= 0.985  # 0.99 less two standard errors


def test_ten_thousand_copies_with_another_ending_are_one_group_in_seconds() -> None:
    text = (
        "everybody pastes these same seventeen words under their own comment and nobody ever asks why "
    )
    assert set(groups([f"{text}{row}" for row in range(10_000)])) == {0}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text("abc ", min_size=1, max_size=12), min_size=1, max_size=12), st.randoms())
def test_the_order_of_the_rows_does_not_change_which_repeat(texts: list[str], random) -> None:  # type: ignore[no-untyped-def]
    order = list(range(len(texts)))
    random.shuffle(order)
    straight = repeats.groups(texts, similarity=0.5, shingle=2, seed=0)
    shuffled = repeats.groups([texts[at] for at in order], similarity=0.5, shingle=2, seed=0)
    assert repeats.numbered(straight[order]).tolist() == shuffled.tolist()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text("abcd", min_size=3, max_size=14), min_size=2, max_size=14))
def test_no_group_holds_a_text_that_is_similar_to_none_of_it(texts: list[str]) -> None:
    def similar(one: str, other: str) -> bool:
        a, b = ({text[at : at + 2] for at in range(len(text) - 1)} for text in (one, other))
        return len(a & b) >= 0.6 * len(a | b)

    found = groups(texts, similarity=0.6, shingle=2)
    for group in set(found):
        members = [text for text, at in zip(texts, found, strict=True) if at == group]
        linked = {0}
        while more := {
            other
            for one, other in [*combinations(range(len(members)), 2)]
            + [pair[::-1] for pair in combinations(range(len(members)), 2)]
            if one in linked and other not in linked and similar(members[one], members[other])
        }:
            linked |= more
        assert len(linked) == len(members)


def test_groups_are_numbered_as_they_appear() -> None:
    assert groups(["z", "a", "z", "m"]) == [0, 1, 0, 2]


def test_no_text_has_no_group() -> None:
    assert groups([]) == []


def jaccard(one: str, other: str, shingle: int) -> float:
    a, b = (
        {key[at : at + shingle] for at in range(max(len(key) - shingle, 0) + 1)}
        for key in map(repeats.key, (one, other))
    )
    return len(a & b) / len(a | b)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.text("abc ", max_size=14), st.integers(-1, 2)), max_size=14),
    st.sampled_from([0.3, 0.5, 0.8, 1.0]),
)
def test_what_is_most_similar_across_sides_is_found_without_chance(
    rows: list[tuple[str, int]], floor: float
) -> None:
    texts, side = [text for text, _ in rows], np.array([of for _, of in rows], dtype=np.int64)
    found = repeats.across(texts, side, 3, floor=floor, shingle=2)
    expected = np.zeros((len(rows), 3))
    for one, other in [*combinations(range(len(rows)), 2)]:
        value = jaccard(texts[one], texts[other], 2)
        if side[one] != side[other] and min(side[one], side[other]) >= 0 and value >= floor - 1e-9:
            expected[one, side[other]] = max(expected[one, side[other]], value)
            expected[other, side[one]] = max(expected[other, side[one]], value)
    assert found == pytest.approx(expected)


def test_one_planted_near_repeat_among_thousands_is_found_across_sides() -> None:
    rng = np.random.default_rng(0)
    texts = ["".join(chr(code) for code in rng.integers(97, 123, size=80)) for _ in range(4000)]
    texts[3999] = texts[17][:40] + "x" + texts[17][41:]
    side = np.repeat([0, 1], [3000, 1000])
    found = repeats.across(texts, side, 2, floor=0.7, shingle=5)
    assert np.flatnonzero(found.any(axis=1)).tolist() == [17, 3999]
    assert found[17, 1] == found[3999, 0] == pytest.approx(jaccard(texts[17], texts[3999], 5))


def test_a_text_that_thousands_repeat_on_both_sides_is_looked_at_once() -> None:
    texts = ["everybody says thank you very much"] * 40_000
    side = np.arange(40_000) % 2
    found = repeats.across(texts, side, 2, floor=0.8, shingle=5)
    assert (found[side == 0] == [0, 1]).all()
    assert (found[side == 1] == [1, 0]).all()
