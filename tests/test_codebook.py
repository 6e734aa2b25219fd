"""The codebooks that ship, and what a codebook refuses."""

from pathlib import Path

import numpy as np
import pytest

from undertone.annotation.prompts import Instruction
from undertone.codebook import Codebook, label_of, read_codebook
from undertone.errors import Problem
from undertone.labels import LabelSpace

SHIPPED = sorted((Path(__file__).parents[1] / "codebooks").glob("*.yaml"))
TWO_LABELS = """
name: tiny
title: Two labels
language: en
labels:
- id: not_sure
  name: Not sure
  code: 7
  definition: no idea
  aliases:
  - 不确定
- id: sure
  name: Sure
  definition: an idea
"""


def read(tmp_path: Path, text: str) -> Codebook:
    path = tmp_path / "tiny.yaml"
    path.write_text(text, "utf-8")
    return read_codebook(path)


def test_the_shipped_codebooks_are_found() -> None:
    assert {path.stem for path in SHIPPED} >= {
        "gender", "edos", "swsr", "goemotions",
        "gender_zh", "gun_control", "toxicity", "news", "ukraine",
    }  # fmt: skip


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_codebook_is_named_like_its_file_and_gives_examples(path: Path) -> None:
    codebook = read_codebook(path)
    assert codebook.name == path.stem
    examples = [example for label in codebook.labels for example in label.examples]
    assert len(examples) == len(set(examples))
    assert min(len(label.examples) for label in codebook.labels) >= 3


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_spelling_of_a_shipped_codebook_finds_its_label(path: Path) -> None:
    codebook = read_codebook(path)
    for label in codebook.labels:
        for spelling in [label.id, label.name, label.code or label.id, *label.aliases]:
            assert label_of(spelling, codebook.spellings) == label.id


@pytest.mark.parametrize(
    "value",
    ["not_sure", "Not sure", "  NOT   SURE ", "7", "\uff17", "不确定", "not sure\n"],  # ７
)
def test_a_label_is_known_by_any_of_its_spellings(tmp_path: Path, value: str) -> None:
    assert label_of(value, read(tmp_path, TWO_LABELS).spellings) == "not_sure"


@pytest.mark.parametrize("value", ["", "not", "notsure", "8", "sure, not sure"])
def test_what_is_no_spelling_is_no_label(tmp_path: Path, value: str) -> None:
    assert label_of(value, read(tmp_path, TWO_LABELS).spellings) is None


def test_a_spelling_that_means_two_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Problem, match=r"'[Ss]ure' stands for both not_sure and sure"):
        read(tmp_path, TWO_LABELS.replace("不确定", "SURE"))


def test_every_fault_of_a_codebook_is_told_at_once(tmp_path: Path) -> None:
    broken = (
        TWO_LABELS.replace("title:", "titel:")
        .replace("id: sure", "id: Sure")
        .replace("code: 7", "code: 1.5")
    )
    with pytest.raises(Problem) as caught:
        read(tmp_path, broken)
    lines = str(caught.value).splitlines()
    assert len(lines) == 4
    assert all(line.startswith(str(tmp_path / "tiny.yaml")) for line in lines)
    for fault in ["title is missing", "titel is not a known key", "labels.1.id", "labels.0.code"]:
        assert any(fault in line for line in lines)


def test_a_label_named_like_a_column_of_the_scores_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Problem, match="'id' is the name of another column"):
        read(tmp_path, TWO_LABELS.replace("id: sure", "id: id"))


def test_one_label_is_no_codebook(tmp_path: Path) -> None:
    with pytest.raises(Problem, match="labels"):
        read(tmp_path, TWO_LABELS.partition("- id: sure")[0])


def test_a_missing_codebook_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(Problem, match=r"nowhere\.yaml: no such file$"):
        read_codebook(tmp_path / "nowhere.yaml")


def test_the_label_space_keeps_the_order_of_the_file(tmp_path: Path) -> None:
    space = read(tmp_path, TWO_LABELS).space
    assert (space.labels, space.names, space.many) == (("not_sure", "sure"), ("Not sure", "Sure"), False)


def test_two_labels_of_one_id_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Problem, match="two labels have the same id"):
        read(tmp_path, TWO_LABELS.replace("id: sure", "id: not_sure"))


THREE_AND_MORE = (
    TWO_LABELS
    + """
- id: unsaid
  name: Unsaid
  definition: nothing
  examples: [Hm.]
merges:
  told:
    Told: {labels: [sure], code: yes, aliases: [stated], definition: an idea}
    Not told: [not_sure, unsaid]
questions:
  tone:
    title: Tone
    many: true
    labels:
    - {id: loud, name: Loud}
    - {id: rude, name: Rude}
prompts:
  plain: {system: '{labels}', user: '{text}', answer: '{code}'}
  told: {scheme: told, system: '{labels}', user: '{text}', answer: '{code}'}
  tone: {scheme: tone, system: '{labels}', user: '{text}', answer: '{id}'}
categories:
  column: section
  include: [Tech, Economy]
  exclude: [Life & Arts]
  aliases: {Tech: [Technology]}
"""
)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_merge_and_question_of_a_shipped_codebook_is_whole(path: Path) -> None:
    codebook = read_codebook(path)
    for merge in codebook.merges:
        assert codebook.merge_faults(merge) == []
    for scheme in (*codebook.merges, *codebook.questions):
        learnt = codebook.learnt(scheme)
        assert len(learnt.labels) == 3
        assert min(len(label.examples) for label in learnt.labels) >= 4
        assert learnt.prompts
    for label in codebook.labels:
        assert label.definition
        assert len(label.examples) >= 4


def test_the_labels_asked_for_and_learnt_are_the_codebooks_own_without_a_scheme(tmp_path: Path) -> None:
    codebook = read(tmp_path, THREE_AND_MORE)
    assert codebook.asked(None) is codebook
    assert codebook.learnt(None) is codebook


def test_people_are_asked_for_all_labels_of_a_merge_and_models_learn_the_merged_ones(
    tmp_path: Path,
) -> None:
    codebook = read(tmp_path, THREE_AND_MORE)
    assert codebook.asked("told") is codebook
    learnt = codebook.learnt("told")
    assert learnt.name == "tiny_told"
    assert learnt.space.labels == ("told", "not_told")
    assert learnt.space.names == ("Told", "Not told")
    assert [label.answer for label in learnt.labels] == ["yes", "not_told"]
    assert learnt.labels[0].aliases == ["stated"]
    assert learnt.labels[1].examples == ["Hm."]
    assert list(learnt.prompts) == ["told"]
    assert learnt.prompt("told").scheme is None


def test_a_question_has_its_own_labels_for_people_and_for_models(tmp_path: Path) -> None:
    codebook = read(tmp_path, THREE_AND_MORE)
    for tone in (codebook.asked("tone"), codebook.learnt("tone")):
        assert (tone.name, tone.many, tone.space.labels) == ("tiny_tone", True, ("loud", "rude"))
        assert list(tone.prompts) == ["tone"]


def test_an_unknown_scheme_is_told_with_those_there_are(tmp_path: Path) -> None:
    codebook = read(tmp_path, THREE_AND_MORE)
    for ask in (codebook.asked, codebook.learnt):
        with pytest.raises(Problem, match="no merge or question 'mood'; it has told, tone"):
            ask("mood")


@pytest.mark.parametrize(
    ("groups", "fault"),
    [
        ("[not_sure]", "unsaid is in no group"),
        ("[not_sure, unsaid, sure]", "sure is in Told and Not told"),
        ("[not_sure, unsaid, unsaid]", "unsaid is in Not told and Not told"),
    ],
)
def test_an_incomplete_or_overlapping_merge_is_not_learnt(
    tmp_path: Path, groups: str, fault: str
) -> None:
    codebook = read(tmp_path, THREE_AND_MORE.replace("[not_sure, unsaid]", groups))
    assert codebook.merge_faults("told") == [fault]
    with pytest.raises(Problem, match=f"merge told: {fault}"):
        codebook.learnt("told")
    with pytest.raises(Problem, match=f"merge told: {fault}"):
        codebook.asked("told")  # before anybody is asked and paid


@pytest.mark.parametrize(
    ("was", "becomes", "fault"),
    [
        ("[not_sure, unsaid]", "[not_sure, unheard]", "Not told holds no label unheard"),
        ("scheme: tone", "scheme: mood", "prompt tone: no merge or question 'mood'"),
        ("  tone:\n    title", "  told:\n    title", "told is both a merge and a question"),
        ("user: '{text}', answer: '{id}'", "user: '{id}', answer: '{id}'", "the comment's place is"),
        ("[Technology]", "[life & arts]", "'Life & Arts' stands for two categories"),
        ("[Life & Arts]", "[Life & Arts, TECH]", "tech is both included and excluded"),
        ("{Tech: [", "{Sport: [", "aliases of no category: Sport"),
    ],
)
def test_what_a_codebook_refuses_is_told(tmp_path: Path, was: str, becomes: str, fault: str) -> None:
    assert was in THREE_AND_MORE
    with pytest.raises(Problem) as caught:
        read(tmp_path, THREE_AND_MORE.replace(was, becomes))
    assert fault in str(caught.value)


def test_a_merge_into_one_label_or_into_labels_of_one_spelling_is_one_clear_problem(
    tmp_path: Path,
) -> None:
    one = "    Told: {labels: [sure, not_sure, unsaid]}\n"
    start, end = THREE_AND_MORE.index("    Told:"), THREE_AND_MORE.index("questions:")
    codebook = read(tmp_path, THREE_AND_MORE[:start] + one + THREE_AND_MORE[end:])
    with pytest.raises(Problem, match=r"codebook tiny, told: labels .* at least 2 entries"):
        codebook.learnt("told")
    codebook = read(tmp_path, THREE_AND_MORE.replace("aliases: [stated]", "aliases: [not told]"))
    with pytest.raises(Problem, match="stands for both"):
        codebook.learnt("told")


def test_a_merged_label_that_gives_no_id_needs_one(tmp_path: Path) -> None:
    codebook = read(tmp_path, THREE_AND_MORE.replace("    Not told:", "    没说:"))
    with pytest.raises(Problem, match="no id can be made of '没说'"):
        codebook.learnt("told")


def test_merged_scores_are_summed_where_labels_exclude_each_other(tmp_path: Path) -> None:
    codebook = read(tmp_path, THREE_AND_MORE)
    scores = np.array([[0.2, 0.5, 0.3], [np.nan] * 3])
    merged = codebook.merged(scores, "told")
    assert merged[0] == pytest.approx([0.5, 0.5])
    assert np.isnan(merged[1]).all()
    assert codebook.merged(scores, None) is scores
    assert codebook.merged(scores, "tone") is scores


def test_merged_scores_of_many_labels_are_the_highest(tmp_path: Path) -> None:
    codebook = read(tmp_path, THREE_AND_MORE.replace("language: en", "language: en\nmany: true"))
    merged = codebook.merged(np.array([[0.7, 0.4, 0.9]]), "told")
    assert merged.tolist() == [[0.4, 0.9]]


@pytest.mark.parametrize(
    ("category", "kept"),
    [
        ("Tech", True), ("technology", True), (" ECONOMY ", True),
        ("life  & arts", False), ("Sports", None), ("", None),
    ],
)  # fmt: skip
def test_a_category_is_known_by_any_of_its_spellings(
    tmp_path: Path, category: str, kept: bool | None
) -> None:
    categories = read(tmp_path, THREE_AND_MORE).categories
    assert categories is not None
    assert categories.kept(category) is kept


def test_the_news_study_keeps_technology_as_tech() -> None:
    categories = read_codebook(next(path for path in SHIPPED if path.stem == "news")).categories
    assert categories is not None
    kept = {
        name: categories.kept(name) for name in ("Tech", "Technology", "Climate", "Life & Arts", "Top")
    }
    assert list(kept.values()) == [True, True, True, False, None]


def test_a_missing_prompt_is_told_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(Problem, match="no prompt 'best'; it has plain, told, tone"):
        read(tmp_path, THREE_AND_MORE).prompt("best")


def test_of_labels_that_a_split_left_the_codebook_keeps_what_it_says_of_them() -> None:
    book = read_codebook(Path("codebooks/gender.yaml"))
    assert book.within(book.space) is book
    left = LabelSpace.of("gender", ["mild", "other"], ["Mild", "Everything else"])
    kept = book.within(left)
    assert kept.space.labels == ("mild", "other")
    assert kept.labels[0] == next(one for one in book.labels if one.id == "mild")
    assert kept.labels[1].name == "Everything else"
    assert not kept.prompts  # they name the labels that are gone
    asked = Instruction.of(kept, None, definitions=False, shots=0)
    assert "Everything else" in str(asked.to_json())
    assert "irrelevant" not in str(asked.to_json()).lower()
