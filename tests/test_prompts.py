"""How a prompt, a codebook and a comment become what a model reads."""

import hashlib
import json
import re
from collections.abc import Callable
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from undertone.annotation import prompts
from undertone.annotation.answers import Reader
from undertone.codebook import Codebook, Prompt, read_codebook

SHIPPED = sorted((Path(__file__).parents[1] / "codebooks").glob("*.yaml"))
SLOT = re.compile(r"\{(definitions|labels|codes|text|name|code|id|definition|each|system|user|answer)\}")


def book(name: str, scheme: str | None = None) -> Codebook:
    return read_codebook(next(path for path in SHIPPED if path.stem == name)).learnt(scheme)


def every_prompt() -> list[tuple[Codebook, str]]:
    """Each shipped prompt with the codebook of the labels that it asks for."""
    return [
        (codebook.learnt(prompt.scheme), name)
        for codebook in map(read_codebook, SHIPPED)
        for name, prompt in codebook.prompts.items()
    ]


EVERY = every_prompt()
each_prompt = pytest.mark.parametrize(
    ("codebook", "name"), EVERY, ids=[f"{codebook.name}-{name}" for codebook, name in EVERY]
)


def whole(codebook: Codebook, name: str, text: str = "COMMENT", *, definitions: bool = True) -> str:
    """Every part of the conversation in one string."""
    told = prompts.messages(codebook, codebook.prompt(name), text, definitions=definitions)
    return "\n".join(message["content"] for message in told)


def template(codebook: Codebook, name: str, label: str, *, definitions: bool) -> str:
    prompt = codebook.prompt(name)
    told = prompts.messages(codebook, prompt, "SENTENCE", definitions=definitions)
    one = next(one for one in codebook.labels if one.id == label)
    return prompts.flat(prompt, told, prompts.answered(codebook, prompt, {one.id}))


def test_every_shipped_codebook_has_a_corrected_prompt() -> None:
    assert len(SHIPPED) >= 8
    for path in SHIPPED:
        assert read_codebook(path).prompt("corrected").scheme is None


# the sha256 of the published texts, in which SENTENCE is put for the study's own sentence
@pytest.mark.parametrize(
    ("codebook", "scheme", "name", "label", "definitions", "sha256"),
    [
        ("gun_control", None, "published", "support_gun_polarized", True,
         "b543391384a853b803891bd714c7e934bb17ab0b38b48562bf120c0aa95ad167"),
        ("gun_control", None, "published", "support_gun_polarized", False,
         "ae558ac55fd633445a0217249f6daa52cdc9735f9b85450b035fd7aed787b603"),
        ("gun_control", "polarization", "polarization_published", "polarized", True,
         "7c335e543f8a60370860786b0cc04f460951d64393c290297fe8d34d4ada121b"),
        ("gun_control", "stance", "stance_published", "support_gun", True,
         "5a18cdfff6c76a76a0bacc3798022bda1319a36cd0f5ba20e2505e7a42e5b591"),
        ("news", None, "published", "positive", True,
         "05ce4d1f089c8220a0d5fc3fa07151e6b9a6e0edd225036259664f5082936a65"),
    ],
)  # fmt: skip
def test_a_published_prompt_is_as_it_was_published(
    codebook: str, scheme: str | None, name: str, label: str, definitions: bool, sha256: str
) -> None:
    made = template(book(codebook, scheme), name, label, definitions=definitions)
    assert hashlib.sha256(made.encode()).hexdigest() == sha256


def test_the_published_prompt_has_support_and_anti_gun_swapped_and_the_corrected_one_has_not() -> None:
    codebook = book("gun_control")
    published = prompts.defined(codebook, codebook.prompt("published"))
    assert "opposes gun ownership" in published["Support Gun"]
    assert "in favor of individual gun ownership" in published["Anti Gun"]
    corrected = prompts.defined(codebook, codebook.prompt("corrected"))
    for tone in ("Polarized", "non-Polarized"):
        assert "wants people to keep their guns" in corrected[f"Support Gun {tone}"]
        assert "wants fewer guns in private hands" in corrected[f"Anti Gun {tone}"]
        told = whole(codebook, "corrected")
        assert f"Support Gun {tone}: {corrected[f'Support Gun {tone}']}" in told


@pytest.mark.parametrize("name", ["corrected", "polarization_corrected", "stance_corrected"])
def test_a_corrected_llama_prompt_leaves_begin_and_end_to_the_tokenizer(name: str) -> None:
    prompt = book("gun_control").prompt(name)
    assert prompt.template is not None
    assert prompt.template.startswith("[INST] <<SYS>>\n")
    assert "<s>" not in prompt.template
    assert "</s>" not in prompt.template


@each_prompt
def test_definitions_off_leaves_out_their_paragraph_and_changes_nothing_else(
    codebook: Codebook, name: str
) -> None:
    prompt = codebook.prompt(name)
    on, off = whole(codebook, name), whole(codebook, name, definitions=False)
    if "{definitions}" not in prompt.system + prompt.user:
        assert on == off
        return
    changes = SequenceMatcher(None, on, off, autojunk=False).get_opcodes()
    left_out = [on[a:b] for what, a, b, _, _ in changes if what != "equal"]
    assert {what for what, *_ in changes} == {"equal", "delete"}
    assert len(left_out) == 1
    for text in prompts.defined(codebook, prompt).values():
        assert text in 2 * left_out[0]  # twice, as what is left out may begin a few letters earlier


@each_prompt
@pytest.mark.parametrize("definitions", [True, False])
def test_every_slot_is_filled(codebook: Codebook, name: str, definitions: bool) -> None:
    prompt = codebook.prompt(name)
    assert not SLOT.search(whole(codebook, name, definitions=definitions))
    for label in codebook.labels:
        right = prompts.answered(codebook, prompt, {label.id})
        assert not SLOT.search(right)
        if prompt.template:
            told = prompts.messages(codebook, prompt, "COMMENT", definitions=definitions)
            flat = prompts.flat(prompt, told, right)
            assert not SLOT.search(flat)
            assert flat.count("COMMENT") == 1
            assert all(message["content"] in flat for message in told)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(EVERY),
    st.text()
    | st.sampled_from(["{text}", "{labels} {definitions}", "{answer} {user}", "{label:0}", r"\1 \g<0>"]),
)  # fmt: skip
def test_a_comment_stands_in_the_prompt_as_it_was_written(
    which: tuple[Codebook, str], text: str
) -> None:
    codebook, name = which
    prompt = codebook.prompt(name)
    before, after = prompts.around(codebook, prompt, definitions=True)
    told = prompts.messages(codebook, prompt, text, definitions=True)
    assert told[-1] == {"role": "user", "content": before + text + after}
    assert told[:-1] == prompts.messages(codebook, prompt, "other", definitions=True)[:-1]
    if prompt.template:
        without = prompts.flat(prompt, prompts.messages(codebook, prompt, "", definitions=True), "A")
        assert len(prompts.flat(prompt, told, "A")) == len(without) + len(text)
        assert before + text + after in prompts.flat(prompt, told, "A")


@each_prompt
def test_no_two_labels_have_the_same_right_answer(codebook: Codebook, name: str) -> None:
    prompt = codebook.prompt(name)
    answers = [prompts.answered(codebook, prompt, {label.id}) for label in codebook.labels]
    assert len({answer.casefold() for answer in answers}) == len(answers)


@each_prompt
def test_a_right_answer_is_read_back_as_its_label(codebook: Codebook, name: str) -> None:
    prompt = codebook.prompt(name)
    reader = Reader(codebook, reasoning=prompt.reasoning, each=prompt.each_answer is not None)
    for label in codebook.labels:
        reading = reader.read(prompts.answered(codebook, prompt, {label.id}))
        assert (reading.outcome, reading.labels) == ("ok", (label.id,))


@pytest.mark.parametrize("name", ["toxicity", "goemotions"])
def test_where_many_labels_may_apply_any_set_of_them_is_read_back(name: str) -> None:
    codebook = book(name)
    prompt = codebook.prompt("corrected")
    reader = Reader(codebook, reasoning=False, each=prompt.each_answer is not None)
    labels = codebook.space.labels
    for chosen in ((), labels[:1], labels[1:3], labels[-2:], labels[:-1]):
        reading = reader.read(prompts.answered(codebook, prompt, chosen))
        assert (reading.outcome, reading.labels) == ("ok", chosen)


def test_a_yes_or_no_to_each_category_is_one_json_object() -> None:
    codebook = book("toxicity")
    told = json.loads(prompts.answered(codebook, codebook.prompt("corrected"), {"violent", "others"}))
    assert tuple(told) == codebook.space.labels
    assert {label for label, said in told.items() if said == "はい"} == {"violent", "others"}
    assert set(told.values()) == {"はい", "いいえ"}


def test_a_prompt_says_how_to_answer_for_each_label_in_both_places_or_in_none() -> None:
    for answer, each in (("{each}", None), ("{name}", ["yes", "no"])):
        with pytest.raises(ValidationError, match=r"`answer` holds \{each\}"):
            Prompt.model_validate({"user": "{text}", "answer": answer, "each_answer": each})


def test_the_answer_in_braces_keeps_its_braces() -> None:
    codebook = book("ukraine")
    for name in ("corrected", "alpaca"):
        answers = [prompts.answer(codebook.prompt(name), label) for label in codebook.labels]
        assert answers == ["{label:0}", "{label:1}", "{label:2}"]
        assert "{label:N}" in whole(codebook, name)
    assert template(codebook, "alpaca", "support_russia", definitions=False).endswith("\n{label:1}")


def test_a_prompt_without_a_system_part_is_one_message() -> None:
    codebook = book("news")
    told = prompts.messages(codebook, codebook.prompt("published"), "涨了", definitions=True)
    assert told == [{"role": "user", "content": "新闻内容：涨了"}]


def digest(codebook: Codebook, prompt: Prompt, *, definitions: bool = True) -> str:
    return prompts.digest(codebook, prompt, definitions=definitions)


def with_label(codebook: Codebook, **values: object) -> Codebook:
    first = codebook.labels[0].model_copy(update=values)
    return codebook.model_copy(update={"labels": [first, *codebook.labels[1:]]})


WORDINGS: dict[str, Callable[[Any], Any]] = {
    "system": lambda text: text + " Please.",
    "user": lambda text: "Now: " + text,
    "definitions": lambda given: {name: text + " Really." for name, text in given.items()},
    "each_definition": lambda text: "* " + text,
    "between_definitions": lambda text: text + ";",
    "definitions_as": lambda text: text + " That is all.",
    "each_label": lambda text: f"<{text}>",
    "between_labels": lambda pair: (pair[0], " and "),
}


@pytest.mark.parametrize("field", WORDINGS)
def test_the_digest_changes_with_any_wording_of_the_prompt(field: str) -> None:
    codebook = book("gun_control")
    prompt = codebook.prompt("published")
    changed = prompt.model_copy(update={field: WORDINGS[field](getattr(prompt, field))})
    assert digest(codebook, changed) != digest(codebook, prompt)


@pytest.mark.parametrize(("field", "value"), [("answer", "{id}"), ("template", None), ("source", "x")])
def test_the_digest_does_not_change_with_what_no_voter_is_told(field: str, value: str | None) -> None:
    codebook = book("gun_control")
    prompt = codebook.prompt("published")
    changed = prompt.model_copy(update={field: value})
    assert getattr(changed, field) != getattr(prompt, field)
    assert digest(codebook, changed) == digest(codebook, prompt)


@pytest.mark.parametrize(("field", "value"), [("name", "X"), ("definition", "X"), ("code", "X")])
def test_the_digest_changes_with_any_wording_of_a_label_that_is_told(field: str, value: str) -> None:
    codebook = book("gender_zh")
    prompt = codebook.prompt("corrected")
    changed = digest(with_label(codebook, **{field: value}), prompt)
    assert changed != digest(codebook, prompt)


def test_the_digest_changes_with_the_place_of_the_comment() -> None:
    codebook = book("gender_zh")
    one, other = (
        codebook.prompt("corrected").model_copy(update={"user": user})
        for user in ("{text}: A", "A{text}: ")
    )
    first = prompts.messages(codebook, one, "", definitions=True)
    assert first != prompts.messages(codebook, other, "", definitions=True)
    moved = one.model_copy(update={"user": ": {text}A"})
    assert first == prompts.messages(codebook, moved, "", definitions=True)
    assert len({digest(codebook, each) for each in (one, other, moved)}) == 3


@each_prompt
def test_the_digest_tells_definitions_on_from_off(codebook: Codebook, name: str) -> None:
    prompt = codebook.prompt(name)
    same = digest(codebook, prompt) == digest(codebook, prompt, definitions=False)
    assert same == ("{definitions}" not in prompt.system + prompt.user)


@each_prompt
def test_the_digest_leaves_out_what_no_model_is_told(codebook: Codebook, name: str) -> None:
    prompt = codebook.prompt(name)
    as_is = digest(codebook, prompt)
    assert digest(with_label(codebook, examples=["Another example"]), prompt) == as_is
    assert digest(with_label(codebook, aliases=["another spelling"]), prompt) == as_is
    assert digest(codebook, prompt.model_copy(update={"source": "elsewhere", "faults": []})) == as_is
    without = digest(codebook, prompt, definitions=False)
    reworded = with_label(codebook, definition="Another definition")
    assert digest(reworded, prompt, definitions=False) == without


def test_the_codes_of_all_labels_can_be_listed() -> None:
    codebook = book("gender_zh")
    prompt = Prompt(system="{codes}", user="{text}", answer="{code}")
    (system, _) = prompts.messages(codebook, prompt, "", definitions=True)
    assert system["content"] == "0 = 正面, 1 = 温和, 2 = 负面, 3 = 无关"
