"""What lint finds in a codebook, and that it finds nothing in those that ship."""

import json
from collections.abc import Callable
from copy import deepcopy
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from undertone.annotation.lint import Finding, findings, near
from undertone.codebook import read_codebook

SHIPPED = sorted((Path(__file__).parents[1] / "codebooks").glob("*.yaml"))

Content = dict[str, Any]
FOR = "Is in favour of the new bridge across the river and of what it costs the town."
AGAINST = "Would rather keep the old ferry, since the trees on the bank and the quiet matter more."
HEALTHY: Content = {
    "name": "bridge",
    "title": "A bridge",
    "language": "en",
    "labels": [
        {"id": "pro", "name": "For it", "code": 0, "definition": FOR, "examples": ["Build it."]},
        {"id": "contra", "name": "Against", "code": 1, "definition": AGAINST, "examples": ["Never."]},
        {
            "id": "beside", "name": "Not relevant", "code": 2, "definition": "Another subject.",
            "aliases": ["elsewhere"], "examples": ["Rain again."],
        },
    ],
    "merges": {
        "opinion": {
            "Some": {"labels": ["pro", "contra"], "definition": "Takes a side."},
            "None": {"labels": ["beside"], "definition": "Takes no side."},
        }
    },
    "prompts": {
        "plain": {
            "system": "Say which of {labels} it is.\n{definitions}",
            "each_label": "'{name}' [{code}]",
            "user": "Comment: {text}",
            "answer": "[{code}]",
        },
        "older": {
            "system": "Say whether it is 'For it', 'Against' or 'Not relevant'.{definitions}",
            "definitions": {"For it": FOR, "Against": AGAINST, "Not relevant": "Something else."},
            "user": "{text}",
            "answer": "{name}",
            "template": "[INST] {system} {user} [/INST] {answer}",
        },
        "merged": {
            "scheme": "opinion",
            "system": "{labels}\n{definitions}",
            "user": "{text}",
            "answer": "{name}",
        },
    },
}  # fmt: skip


def found(folder: Path, content: Content) -> list[Finding]:
    path = folder / "bridge.yaml"
    path.write_text(json.dumps(content), "utf-8")  # JSON is YAML
    return findings(path)


def changed(*changes: Callable[[Content], object]) -> Content:
    content = deepcopy(HEALTHY)
    for change in changes:
        change(content)
    return content


def label(content: Content, place: int, **values: object) -> None:
    content["labels"][place].update(values)


def prompt(content: Content, name: str, **values: object) -> None:
    content["prompts"][name].update(values)


def swap(content: Content) -> None:
    given = content["prompts"]["older"]["definitions"]
    given["For it"], given["Against"] = given["Against"], given["For it"]


PLANTED: list[tuple[str, str, str, Callable[[Content], object]]] = [
    ("definition-contradicts", "prompt older", "'For it'", swap),
    ("near-names", "labels", "'contra'", lambda c: label(c, 2, aliases=["contrra"])),
    ("near-names", "labels", "'For it'", lambda c: label(c, 2, aliases=["for-it"])),
    ("near-names", "prompt plain", "'Not Relevant'",
     lambda c: prompt(c, "plain", system="{labels}. Not Relevant: the rest. {definitions}")),
    ("near-names", "prompt plain", "'Not relevent'",
     lambda c: prompt(c, "plain", system="{labels}. Take 'Not relevent' if you don't know.")),
    ("near-names", "prompt plain", "'Not_Relevant'",
     lambda c: prompt(c, "plain", system="{labels}, and when in doubt Not_Relevant.")),
    ("near-names", "prompt older", "'Not Relevant'",
     lambda c: prompt(c, "older", definitions={"For it": FOR, "Against": AGAINST, "Not Relevant": "-"})),
    ("no-definition", "labels", "'Against'", lambda c: label(c, 1, definition=" ")),
    ("no-definition", "prompt older", "'Not relevant'",
     lambda c: prompt(c, "older", definitions={"For it": FOR, "Against": AGAINST})),
    ("no-definition", "prompt merged", "'None'",
     lambda c: c["merges"]["opinion"].update({"None": ["beside"]})),
    ("merge-overlap", "merge opinion", "'Against'",
     lambda c: c["merges"]["opinion"]["None"].update(labels=["contra", "beside"])),
    ("merge-incomplete", "merge opinion", "'Against'",
     lambda c: c["merges"]["opinion"]["Some"].update(labels=["pro"])),
    ("code-prefix", "labels", "'Against'", lambda c: label(c, 2, code="10")),
    ("code-prefix", "prompt plain", "'Against'",
     lambda c: (label(c, 2, name="Against all"), prompt(c, "plain", answer="{name}"),
                prompt(c, "older", system="{labels} {codes}", definitions={}, answer="{code}"))),
    ("literal-special-token", "prompt plain", "'</s>'",
     lambda c: prompt(c, "plain", user="{text}</s>")),
    ("literal-special-token", "prompt plain", "'[INST]'",
     lambda c: prompt(c, "plain", system="[INST] {labels}{definitions}")),
    ("literal-special-token", "prompt plain", "'<|im_end|>'",
     lambda c: prompt(c, "plain", answer="[{code}]<|im_end|>")),
    ("literal-special-token", "prompt older", "'<s>'",
     lambda c: prompt(c, "older", template="<s>{system} {user} {answer}")),
    ("literal-special-token", "prompt older", "'<|endoftext|>'",
     lambda c: prompt(c, "older", template="{user} {answer}<|endoftext|>")),
    ("code-missing", "prompt plain", "never shows 0, 1, 2",
     lambda c: c["prompts"]["plain"].pop("each_label")),
    ("label-missing", "prompt plain", "does not name For it, Against, Not relevant",
     lambda c: prompt(c, "plain", system="What is it?", answer="{name}")),
    ("label-missing", "prompt older", "does not name Against",
     lambda c: prompt(c, "older", system="Is it 'For it' or 'Not relevant'?", definitions={})),
    ("ambiguous-answer", "prompt plain", "'Against'", lambda c: prompt(c, "plain", answer="[code]")),
    ("unknown-fault", "prompt plain", "'label-missing'",
     lambda c: prompt(c, "plain", faults=["label-missing"])),
    ("unknown-name", "prompt older", "'Maybe'",
     lambda c: c["prompts"]["older"]["definitions"].update(Maybe="Can't decide.")),
    ("unreadable", "bridge.yaml", "title is missing", lambda c: c.pop("title")),
    ("unreadable", "merge opinion", "no id can be made of '无'",
     lambda c: c["merges"]["opinion"].update({"无": c["merges"]["opinion"].pop("None")})),
    ("unreadable", "merge opinion", "at least 2",
     lambda c: c["merges"].update(opinion={"All": ["pro", "contra", "beside"]})),
]  # fmt: skip


def test_the_shipped_codebooks_are_found() -> None:
    assert len(SHIPPED) >= 8


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_codebook_has_only_faults_that_it_owns_up_to(path: Path) -> None:
    assert [one for one in findings(path) if not one.known] == []


def test_the_published_swap_of_support_and_anti_gun_is_found_in_that_prompt_alone() -> None:
    path = next(path for path in SHIPPED if path.stem == "gun_control")
    swaps = [one for one in findings(path) if one.kind == "definition-contradicts"]
    assert {(one.where, one.what.partition(" is ")[0]) for one in swaps} == {
        ("prompt published", "'Support Gun'"), ("prompt published", "'Anti Gun'"),
    }  # fmt: skip


def test_nothing_is_found_in_a_healthy_codebook(tmp_path: Path) -> None:
    assert found(tmp_path, HEALTHY) == []


@pytest.mark.parametrize(("kind", "where", "what", "plant"), PLANTED)
def test_what_is_planted_is_found_and_nothing_else(
    tmp_path: Path, kind: str, where: str, what: str, plant: Callable[[Content], object]
) -> None:
    seen = found(tmp_path, changed(plant))
    assert {one.kind for one in seen} == {kind}
    assert any(one.where == where and what in one.what for one in seen)
    assert not any(one.known for one in seen)


def test_every_kind_is_planted() -> None:
    assert {kind for kind, *_ in PLANTED} == {
        "definition-contradicts", "near-names", "no-definition", "merge-overlap", "merge-incomplete",
        "code-prefix", "code-missing", "literal-special-token", "label-missing", "ambiguous-answer",
        "unknown-fault", "unknown-name", "unreadable",
    }  # fmt: skip


def test_an_acknowledged_finding_is_known_and_one_of_another_subject_is_not(tmp_path: Path) -> None:
    def plant(content: Content) -> None:
        prompt(content, "plain", user="<s>{text}</s>", faults=["literal-special-token: <s>"])

    known = {one.what.split("'")[1]: one.known for one in found(tmp_path, changed(plant))}
    assert known == {"<s>": True, "</s>": False}


def test_an_acknowledgement_counts_for_its_own_prompt_only(tmp_path: Path) -> None:
    def plant(content: Content) -> None:
        prompt(content, "plain", user="<s>{text}")
        prompt(content, "older", faults=["literal-special-token: <s>"])

    assert [(one.kind, one.known) for one in found(tmp_path, changed(plant))] == [
        ("literal-special-token", False), ("unknown-fault", False),
    ]  # fmt: skip


@pytest.mark.parametrize("swapped", ["first", "second", "third"])
def test_the_variant_that_contradicts_most_others_is_to_blame(tmp_path: Path, swapped: str) -> None:
    def plant(content: Content) -> None:
        for given in content["labels"]:
            given["definition"] = "x"
        older = content["prompts"].pop("older")
        for name in ("first", "second", "third"):
            content["prompts"][name] = deepcopy(older)
        content["prompts"]["older"] = content["prompts"][swapped]
        swap(content)
        del content["prompts"]["older"]

    seen = found(tmp_path, changed(plant))
    assert {(one.kind, one.where) for one in seen} == {("definition-contradicts", f"prompt {swapped}")}
    assert len(seen) == 2


def test_of_two_variants_that_contradict_each_other_the_one_that_owns_up_is_to_blame(
    tmp_path: Path,
) -> None:
    def plant(content: Content) -> None:
        swap(content)
        faults = ["definition-contradicts: For it", "definition-contradicts: Against"]
        prompt(content, "older", faults=faults)
        later = deepcopy(HEALTHY["prompts"]["older"])
        content["prompts"] |= {"latest": later}

    assert [(one.where, one.known) for one in found(tmp_path, changed(plant))] == [
        ("prompt older", True), ("prompt older", True),
    ]  # fmt: skip


def test_a_merge_that_contradicts_its_labels_is_found(tmp_path: Path) -> None:
    def plant(content: Content) -> None:
        content["merges"]["opinion"] = {
            "Pros": {"labels": ["pro"], "definition": AGAINST},
            "Cons": {"labels": ["contra"], "definition": FOR},
            "Rest": {"labels": ["beside"], "definition": "Another subject."},
        }

    assert {one.kind for one in found(tmp_path, changed(plant))} == {"definition-contradicts"}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_any_two_definitions_swapped_are_found_and_none_in_a_true_copy(
    path: Path, tmp_path: Path
) -> None:
    codebook = read_codebook(path)
    own = {given.name: given.definition for given in codebook.labels}
    content = json.loads(codebook.model_dump_json())
    content["prompts"] = {}
    copy = {"system": "{labels}{definitions}", "user": "{text}", "answer": "{id}"}

    def contradictions(definitions: dict[str, str]) -> str:
        content["prompts"] = {"copy": {**copy, "definitions": definitions}}
        seen = found(tmp_path, content)
        return "\n".join(one.what for one in seen if one.kind == "definition-contradicts")

    assert contradictions(own) == ""
    for one, other in combinations(own, 2):
        told = contradictions({**own, one: own[other], other: own[one]})
        assert f"'{one}' is defined in the words of '{other}'" in told
        assert f"'{other}' is defined in the words of '{one}'" in told


def test_no_finding_shows_an_example(tmp_path: Path) -> None:
    secret = "Marigold"
    for _, _, _, plant in PLANTED:
        content = changed(plant)
        for given in content["labels"]:
            given["examples"] = [f"{secret}: {given['id']}"]
        seen = found(tmp_path, content)
        assert seen
        assert not any(secret in one.what + one.where for one in seen)


def test_a_missing_codebook_is_a_finding(tmp_path: Path) -> None:
    assert findings(tmp_path / "nowhere.yaml") == [
        Finding("unreadable", "nowhere.yaml", "no such file", False)
    ]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Not relevant", "Not Relevant"), ("not relevant", "not relevent"),
        ("pro-Russian", "pro russian"),
        ("nonpolarized", "non-polarized"), ("modéré", "modere"), ("Suport Gun", "Support Gun"),
        ("neutral", "nuetral"), ("obscene", "obscène"), ("discriminatory", "discriminatary"),
    ],
)  # fmt: skip
def test_names_that_differ_in_spelling_are_near(one: str, other: str) -> None:
    assert near(one, other)
    assert near(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("relevant", "irrelevant"), ("toxic", "nontoxic"), ("polarized", "unpolarized"),
        ("Support Gun", "Anti Gun"), ("positive", "negative"), ("SO", "SA"), ("class 1", "class 2"),
        ("正面", "负面"), ("支持性别平等", "反对性别平等"),
        ("Support Gun Polarized", "Support Gun non-Polarized"),
        ("+", "-"), ("political", "apolitical"), ("joy", "boy"),
    ],
)  # fmt: skip
def test_names_of_different_meaning_are_not_near(one: str, other: str) -> None:
    assert not near(one, other)
    assert not near(other, one)
