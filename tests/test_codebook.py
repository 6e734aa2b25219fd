"""The codebooks that ship, and what a codebook refuses."""

from pathlib import Path

import pytest

from undertone.codebook import Codebook, label_of, read_codebook
from undertone.errors import Problem

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
    assert {path.stem for path in SHIPPED} >= {"gender", "edos", "swsr", "goemotions"}


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
