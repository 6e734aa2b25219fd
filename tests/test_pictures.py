"""Pictures are the same for the same numbers, hold no text, and their sentences say what is shown."""

import json
import re
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from tests import outcomes
from undertone.labels import LabelSpace
from undertone.measures import exact, metrics
from undertone.reporting import pictures


def drawn(folder: Path, *, many: bool = False, **others: object) -> dict[str, str]:
    found = outcomes.results(many=many)
    given = {
        "evaluated": found.evaluated,
        "curves": found.curves,
        "learning": {"good": outcomes.LEARNT, "fair": [], "mute": []},
        "latency": found.latency,
        "released": found.released,
        "split": found.split,
        "prevalence": found.prevalence,
    }
    folder.mkdir()
    return pictures.draw_all(**(given | others), folder=folder)


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    folder = tmp_path_factory.mktemp("drawn") / "one"
    return folder, drawn(folder)


def words(path: Path) -> str:
    """The text of an SVG; it must be one."""
    return "\n".join(ElementTree.parse(path).getroot().itertext())


def test_every_candidate_has_its_pictures_and_each_a_sentence(said: tuple[Path, dict[str, str]]) -> None:
    folder, sentences = said
    assert json.loads((folder / "sentences.json").read_text("utf-8")) == sentences
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*.svg")}
    assert files == set(sentences)
    usual = {"confusion", "labels", "reliability", "coverage_risk"}
    assert files == {
        *(f"{name}/{kind}.svg" for name in ("good", "fair", "mute") for kind in usual),
        *("good/learning.svg", "pareto.svg", "parts.svg", "prevalence.svg"),
    }
    assert all(
        one.endswith(".") and "nan" not in one and "None" not in one for one in sentences.values()
    )
    for path in files:
        assert words(folder / path).strip()


def test_the_same_numbers_give_the_same_bytes(said: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    folder, sentences = said
    drawn(tmp_path / "again")
    for path in (*sentences, "sentences.json"):
        assert (folder / path).read_bytes() == (tmp_path / "again" / path).read_bytes(), path


def test_no_text_of_a_comment_is_in_a_picture(said: tuple[Path, dict[str, str]]) -> None:
    folder, sentences = said
    assert outcomes.SECRET in outcomes.table()["text"][0]
    for path in sentences:
        assert outcomes.SECRET not in (folder / path).read_text("utf-8")


def test_many_labels_show_counts_of_right_missed_and_false(tmp_path: Path) -> None:
    sentences = drawn(tmp_path / "many", many=True, prevalence={})
    shown = words(tmp_path / "many" / "fair" / "confusion.svg")
    assert "missed" in shown
    assert "false" in shown
    own = outcomes.results(many=True).evaluated["test"]["label"]["fair"]["labels"]
    worst = max(own, key=lambda label: own[label]["support"] - own[label]["hits"])
    missed, rows = own[worst]["support"] - own[worst]["hits"], own[worst]["support"]
    assert f"misses '{worst}' most ({missed} of {rows})" in sentences["fair/confusion.svg"]
    assert "prevalence.svg" not in sentences


def judged(truth: list[int], decided: list[int]) -> dict:
    """Of labels a, 乙 and c; -1: no valid answer."""
    space = LabelSpace.of("x", ["a", "乙", "c"])
    flags = [np.array(one)[:, None] == np.arange(3) for one in (truth, decided)]
    return metrics.evaluate(
        *flags,
        space,
        answered=np.array(decided) >= 0,
        groups=np.arange(len(truth)),
        draws=20,
        rng=np.random.default_rng(0),
    )


def test_the_commonest_confusion_is_named_with_its_rows(tmp_path: Path) -> None:
    out = tmp_path / "x.svg"
    found = judged([0, 0, 0, 1, 1, 1, 2], [0, 1, 0, 2, 2, 1, 2])
    assert pictures.confusion("m", found, out) == "m confuses '乙' with 'c' most: 2 of 3."
    assert "乙" in words(out)
    silent = judged([0, 1, 2], [0, -1, 2])
    expected = "m confuses no two labels; it gives no valid answer to 1 of 3."
    assert pictures.confusion("m", silent, out) == expected
    assert "no valid answer" in words(out)


def test_the_best_and_the_worst_label_are_named(tmp_path: Path) -> None:
    found = judged([0, 0, 1, 1, 2, 2], [0, 0, 1, 2, 2, 1])
    sentence = pictures.by_label("m", found, tmp_path / "x.svg")
    assert sentence.startswith("m finds 'a' best (F1 1.000 without an interval)")
    assert re.search(r"'(乙|c)' worst \(0\.500 \[", sentence)
    alike = judged([0, 1, 2], [0, 1, 2])
    assert pictures.by_label("m", alike, tmp_path / "x.svg") == "m finds all labels alike (F1 1.000)."


def test_scores_that_are_too_high_are_said_to_be(tmp_path: Path) -> None:
    found = {"overall": {"expected_calibration_error": {"value": 0.2, "low": 0.1, "high": 0.3}}}
    bins = [
        {"confidence": 0.6, "accuracy": 0.5, "n": 10},
        {"confidence": 0.9, "accuracy": 0.7, "n": 30},
    ]
    sentence = pictures.reliability("m", found, bins, tmp_path / "x.svg")
    assert "0.825 on average and right in 0.650, so 0.175 too high" in sentence
    assert "0.200 [0.100, 0.300]" in sentence
    low = [one | {"accuracy": 1.0} for one in bins]
    assert "too low" in pictures.reliability("m", found, low, tmp_path / "x.svg")


def test_learning_curves_name_the_best_step_and_the_gap(said: tuple[Path, dict[str, str]]) -> None:
    assert said[1]["good/learning.svg"] == (
        "good's macro-F1 on validation is highest at step 20 (0.700); "
        "on training rows it is 0.100 higher then."
    )


def test_learning_curves_without_a_look_at_validation_name_the_loss(tmp_path: Path) -> None:
    points = [{"step": 10, "loss": 2.0}, {"step": 20, "loss": 1.5}]
    sentence = pictures.learning_curves("m", points, tmp_path / "x.svg")
    assert sentence == "m's training loss goes from 2.000 to 1.500."


def test_abstaining_is_shown_where_there_is_a_rule(said: tuple[Path, dict[str, str]]) -> None:
    _, sentences = said
    rule = outcomes.results().curves["fair"]["answered"]
    coverage, error = (
        "{value:.1%} [{low:.1%}, {high:.1%}]".format(**rule[name]) for name in ("coverage", "error")
    )
    told = f"answers {coverage}, of which {error} are wrong"
    assert told in sentences["fair/coverage_risk.svg"]
    assert "least confidence" not in sentences["good/coverage_risk.svg"]
    assert "the surest 50% of" in sentences["good/coverage_risk.svg"]


def test_only_those_that_nobody_beats_in_both_are_on_the_front(
    said: tuple[Path, dict[str, str]],
) -> None:
    sentence = said[1]["pareto.svg"]
    figure = r"\d\.\d+ \[[^]]+\]"
    both = rf"fair \({figure} at 0\.5 ms, 0\.3 MB\), onnx-int8 \(estimated {figure} at 2 ms, 2 MB\)"
    said_first = rf"No model is both better and faster than {both}\. The release is onnx-int8\. No ONNX"
    assert re.match(said_first, sentence)


def test_a_variant_stands_below_the_encoder_by_what_it_loses(tmp_path: Path) -> None:
    found = outcomes.results()
    for one in found.released["variants"].values():
        one["parity"] |= {"drop": 0.25, "low": 0.2, "high": 0.35}
    judged = found.evaluated["test"]["label"]
    sentence = pictures.pareto(judged, found.latency, found.released, tmp_path / "x.svg")
    encoder = judged["good"]["overall"]["macro_f1"]
    estimated = exact.difference(encoder, {"value": 0.25, "low": 0.2, "high": 0.35})
    assert estimated["low"] < encoder["low"] - 0.25
    assert f"onnx-bad (estimated {exact.told(estimated)} at 1 ms, 2 MB)" in sentence
    assert f"good ({pictures._told(encoder)} at 8 ms, 9 MB)" in sentence
    assert f"The release is onnx-int8 (estimated {exact.told(estimated)} at 2 ms, 2 MB)." in sentence


def test_names_that_would_run_into_each_other_are_moved_apart(tmp_path: Path) -> None:
    found = outcomes.results()
    names = ("onnx-int8", "onnx-fp32", "onnx-bad", "good")
    for row in found.latency["rows"]:
        row["p50_ms"] = 1 + 0.01 * names.index(row["model"]) if row["model"] in names else 9.0
    out = tmp_path / "x.svg"
    pictures.pareto(found.evaluated["test"]["label"], found.latency, found.released, out)
    texts = ElementTree.parse(out).getroot().iter("{http://www.w3.org/2000/svg}text")
    boxes = [
        (float(str(one.get("x"))), float(str(one.get("y"))), 4.5 * len(str(one.text)))
        for one in texts
        if str(one.text).partition(",")[0] in (*names, "fair", "mute")
    ]
    assert len(boxes) == 6
    for (x, y, wide), (other, at, its) in combinations(boxes, 2):
        # letters are 8 pixels high
        assert abs(y - at) > 8 or x + wide < other or other + its < x


def test_bins_of_few_scores_are_pooled_with_the_next() -> None:
    bins = [
        {"confidence": 0.1, "accuracy": 0.0, "n": 4},
        {"confidence": 0.3, "accuracy": 0.5, "n": 12},
        {"confidence": 0.6, "accuracy": 0.5, "n": 20},
        {"confidence": 0.9, "accuracy": 1.0, "n": 5},
    ]
    assert pictures.pooled(bins).tolist() == [
        [pytest.approx(0.25), pytest.approx(0.375), 16],
        [pytest.approx(0.66), pytest.approx(0.6), 25],
    ]
    assert pictures.pooled(bins[3:]).tolist() == [[0.9, 1.0, 5]]


def test_the_label_whose_share_differs_most_between_parts_is_named(tmp_path: Path) -> None:
    split = {
        "rows": {"train": 10, "validation": 10, "test": 10},
        "labels": {
            "train": {"a": 5, "b": 5},
            "validation": {"a": 5, "b": 5},
            "test": {"a": 4, "b": 8},
        },
    }
    sentence = pictures.parts(split, tmp_path / "x.svg")
    assert sentence == (
        "The parts differ most in 'b': 50.0% of train, 50.0% of validation, 80.0% of test."
    )


def test_the_sentence_on_prevalence_counts_labels_off_their_interval(tmp_path: Path) -> None:
    def one(naive: float, value: float) -> dict:
        return {"naive": naive, "corrected": {"value": value, "low": value - 0.1, "high": value + 0.1}}

    found = {"rows": 100, "n": 10, "labels": {"a": one(0.5, 0.45), "b": one(0.6, 0.3)}}
    sentence = pictures.corrected(found, tmp_path / "x.svg")
    assert sentence.startswith("Correction moves 'b' most, from 0.600 to 0.300 [0.200, 0.400];")
    assert sentence.endswith("for 1 of 2 labels.")
