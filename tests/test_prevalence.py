"""Shares of a corpus: intervals cover what they claim, and refuse what would make them lie."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from stages.prevalence import main as stage
from tests import tiny
from undertone import models, tables
from undertone.codebook import read_codebook
from undertone.errors import Problem
from undertone.files import read_json, write_json
from undertone.labels import LabelSpace
from undertone.measures import prevalence
from undertone.measures.prevalence import Pilot
from undertone.params import Params, read_params

CODEBOOK = Path("codebooks/gender.yaml")
SAMPLES = 2000  # each a column of its own: a simulated corpus with one label
Found = dict[str, np.ndarray]


def space(labels: int) -> LabelSpace:
    return LabelSpace.of("c", [f"l{at}" for at in range(labels)], many=True)


def shares(scores: np.ndarray, truth: np.ndarray, known: np.ndarray, **given: Any) -> Found:
    """Every figure of `prevalence` as an array over the simulated samples."""
    gold = np.where(known[:, None], truth, np.nan)
    labels = prevalence.prevalence(scores, gold, space(scores.shape[1]), **given)["labels"].values()
    found = {
        f"{name}_{end}": np.array([one[name][end] for one in labels])
        for name in ("corrected", "by_hand")
        for end in ("value", "low", "high")
    }
    return found | {
        name: np.array([one[name] for one in labels]) for name in ("naive", "power", "worth")
    }


def coverage(found: Found, share: float, name: str = "corrected") -> float:
    return float(((found[f"{name}_low"] <= share) & (share <= found[f"{name}_high"])).mean())


def width(found: Found, name: str = "corrected") -> np.ndarray:
    return found[f"{name}_high"] - found[f"{name}_low"]


def drawn(
    rng: np.random.Generator, rows: int, share: float, hit: float, false: float, samples: int = SAMPLES
) -> tuple[np.ndarray, np.ndarray]:
    """Truth, and scores of 0 or 1 of a classifier that finds `hit` of a label, `false` of the others."""
    truth = rng.random((rows, samples)) < share
    return truth.astype(float), (rng.random((rows, samples)) < np.where(truth, hit, false)).astype(float)


def graded(
    rng: np.random.Generator, rows: int, share: float, apart: float, scale: float
) -> tuple[np.ndarray, np.ndarray]:
    """Truth, and its probability given a normal cue, `apart` standard deviations away for the label;
    times `scale`, below 1 a classifier that says too little."""
    truth = rng.random((rows, SAMPLES)) < share
    cue = rng.normal(size=truth.shape) + apart * truth
    odds = share / (1 - share) * np.exp(apart * cue - apart**2 / 2)
    return truth.astype(float), scale * odds / (1 + odds)


def first(count: int, rows: int) -> np.ndarray:
    return np.arange(rows) < count


@pytest.mark.parametrize(
    ("share", "by_hand", "hit", "false"),
    [
        (0.3, 300, 0.9, 0.1),
        (0.3, 300, 0.5, 0.5),  # knows nothing
        (0.5, 150, 0.2, 0.7),  # worse than nothing
        (0.03, 200, 0.9, 0.005),
        (0.03, 300, 0.8, 0.01),
        (0.03, 300, 0.05, 0.05),
        (0.02, 400, 0.95, 0.002),
        (0.05, 200, 0.6, 0.02),
    ],
)
def test_intervals_cover_the_share_in_95_of_100_samples(
    share: float, by_hand: int, hit: float, false: float
) -> None:
    rng = np.random.default_rng(1)
    truth, scores = drawn(rng, 1600, share, hit, false)
    found = shares(scores, truth, first(by_hand, 1600))
    assert 0.93 <= coverage(found, share) <= 0.97
    assert 0.93 <= coverage(found, share, "by_hand") <= 0.97
    assert abs(found["corrected_value"].mean() - share) < 0.05 * share
    assert (width(found) <= 1.05 * width(found, "by_hand")).mean() > 0.99
    informative = hit > 2 * false
    assert (width(found).mean() < 0.9 * width(found, "by_hand").mean()) == informative


@pytest.mark.parametrize(
    ("share", "by_hand", "apart", "scale"),
    [(0.03, 200, 3.0, 1.0), (0.03, 200, 3.0, 0.5), (0.05, 400, 4.0, 1.0), (0.4, 100, 1.0, 0.7)],
)
def test_intervals_from_graded_scores_cover_too(
    share: float, by_hand: int, apart: float, scale: float
) -> None:
    truth, scores = graded(np.random.default_rng(2), 1600, share, apart, scale)
    found = shares(scores, truth, first(by_hand, 1600))
    assert 0.93 <= coverage(found, share) <= 0.97
    assert width(found).mean() < 0.95 * width(found, "by_hand").mean()


def test_counting_decisions_is_wrong_where_the_corrected_share_is_right() -> None:
    truth, scores = drawn(np.random.default_rng(3), 1600, 0.05, 0.7, 0.08)
    found = shares(scores, truth, first(300, 1600))
    assert found["naive"].mean() > 2 * 0.05
    assert found["corrected_value"].mean() == pytest.approx(0.05, abs=0.002)


def test_rows_drawn_with_unlike_probabilities_are_weighed() -> None:
    rng = np.random.default_rng(4)
    runs: dict[str, list[Found]] = {"weighed": [], "not": []}
    for _ in range(8):
        suspect = rng.random(2500) < 0.2  # say, a keyword; such rows are labelled more often
        share = np.where(suspect, 0.4, 0.05)[:, None]
        truth = (rng.random((2500, 250)) < share).astype(float)
        scores = (rng.random(truth.shape) < np.where(truth, 0.8, 0.1)).astype(float)
        probability = np.where(suspect, 0.4, 0.08)
        known = rng.random(2500) < probability
        nowhere_else = np.where(known, probability, np.nan)
        runs["weighed"].append(shares(scores, truth, known, inclusion=nowhere_else))
        runs["not"].append(shares(scores, truth, known))
    all_of = {
        name: {key: np.concatenate([one[key] for one in some]) for key in some[0]}
        for name, some in runs.items()
    }
    assert 0.93 <= coverage(all_of["weighed"], 0.12) <= 0.97
    assert 0.93 <= coverage(all_of["weighed"], 0.12, "by_hand") <= 0.97
    assert width(all_of["weighed"]).mean() < 0.9 * width(all_of["weighed"], "by_hand").mean()
    assert coverage(all_of["not"], 0.12) < 0.5


def test_comments_of_one_author_are_not_taken_for_independent() -> None:
    rng = np.random.default_rng(5)
    author = np.repeat(np.arange(400), 6)
    habit = rng.beta(0.6, 1.4, (400, SAMPLES))[author]  # 0.3 on average, and authors differ much
    truth = (rng.random(habit.shape) < habit).astype(float)
    scores = (rng.random(truth.shape) < np.where(truth, 0.8, 0.15)).astype(float)
    known = author < 60
    found = shares(scores, truth, known, groups=author)
    assert 0.93 <= coverage(found, 0.3) <= 0.97
    assert 0.93 <= coverage(found, 0.3, "by_hand") <= 0.97
    assert width(found).mean() < 0.9 * width(found, "by_hand").mean()
    assert coverage(shares(scores, truth, known), 0.3, "by_hand") < 0.88


def test_a_learnt_corpus_may_be_corrected_unless_the_hand_labels_were_learnt() -> None:
    # a model that knows its training rows' labels by heart, and elsewhere is of little use
    rng = np.random.default_rng(6)
    truth, silver = drawn(rng, 1600, 0.2, 0.85, 0.1)
    elsewhere = (rng.random(truth.shape) < np.where(truth, 0.6, 0.25)).astype(float)
    trained, known = rng.random(1600) < 0.7, rng.random(1600) < 0.15
    scores = np.where(trained[:, None], silver, elsewhere)
    assert 0.93 <= coverage(shares(scores, truth, known), 0.2) <= 0.97
    knows = np.where((trained & known)[:, None], truth, scores)
    assert coverage(shares(knows, truth, known), 0.2) < 0.8
    unseen = ~trained
    found = shares(knows[unseen], truth[unseen], known[unseen])
    assert 0.93 <= coverage(found, 0.2) <= 0.97


def test_the_share_is_that_of_ppi_plus_plus() -> None:
    # as published: labelled and unlabelled rows apart, and the power from their covariance
    rng = np.random.default_rng(7)
    truth, scores = drawn(rng, 20000, 0.3, 0.8, 0.2, samples=5)
    labelled, rest = scores[:5000], scores[5000:]
    found = shares(scores, truth, first(5000, 20000))
    for at in range(5):
        both = np.cov(truth[:5000, at], labelled[:, at])
        power = both[0, 1] / (1 + 5000 / 15000) / np.var(scores[:, at])
        share = truth[:5000, at].mean() + power * (rest[:, at].mean() - labelled[:, at].mean())
        assert found["corrected_value"][at] == pytest.approx(share, abs=2e-4)
        residual = truth[:5000, at] - power * labelled[:, at]
        error = np.sqrt(np.var(residual) / 5000 + power**2 * np.var(rest[:, at]) / 15000)
        assert width(found)[at] == pytest.approx(2 * 1.96 * error, rel=0.01)


def test_adjusted_counts_undo_known_errors() -> None:
    # 10 rows by hand: 3 of 4 found, 1 of 6 wrongly; 7 of 20 decided → (0.35 - 1/6) / (3/4 - 1/6)
    scores = np.array([1, 1, 1, 0, 1, 0, 0, 0, 0, 0] + [1, 1, 1] + [0] * 7, dtype=float)[:, None]
    gold = np.array([1] * 4 + [0] * 6 + [np.nan] * 10)[:, None]
    one = prevalence.prevalence(scores * 0.8 + 0.1, gold, space(1))["labels"]["l0"]
    assert one["naive"] == pytest.approx(0.35)
    assert one["adjusted_counts"] == pytest.approx((0.35 - 1 / 6) / (3 / 4 - 1 / 6), abs=1e-6)
    assert one["adjusted_scores"] == pytest.approx(one["adjusted_counts"], abs=1e-6)
    useless = prevalence.prevalence(np.zeros((20, 1)), gold, space(1))["labels"]["l0"]
    assert useless["adjusted_counts"] is None
    assert useless["corrected"] == useless["by_hand"]


def test_a_label_that_no_one_found_by_hand_has_an_interval_from_0() -> None:
    scores = np.random.default_rng(8).random((1000, 1)) * 0.6
    gold = np.where(np.arange(1000) < 100, 0.0, np.nan)[:, None]
    one = prevalence.prevalence(scores, gold, space(1))["labels"]["l0"]
    assert (one["corrected"]["value"], one["corrected"]["low"]) == (0, 0)
    assert one["corrected"]["high"] == pytest.approx(0.038, abs=0.001)  # Wilson's: t² / (n + t²)
    assert one["adjusted_counts"] is None


def test_intervals_stay_within_0_and_1_in_tiny_samples() -> None:
    for share in (0.01, 0.5, 0.99):
        truth, scores = drawn(np.random.default_rng(9), 60, share, 0.9, 0.1)
        found = shares(scores, truth, first(8, 60))
        assert (found["corrected_low"] >= 0).all()
        assert (found["corrected_high"] <= 1).all()
        assert (found["corrected_low"] <= found["corrected_value"]).all()
        assert (found["corrected_value"] <= found["corrected_high"]).all()


def test_a_text_without_a_valid_answer_has_no_label_and_is_corrected() -> None:
    truth, scores = drawn(np.random.default_rng(10), 2000, 0.3, 1.0, 0.0, samples=2)
    silent = np.arange(2000) % 4 == 0
    scores[silent] = np.nan
    found = shares(scores, truth, first(500, 2000))
    np.testing.assert_allclose(found["naive"], truth[~silent].sum(axis=0) / 2000, atol=1e-6)
    assert (found["naive"] < 0.25).all()
    assert (found["corrected_low"] > 0.25).all()


def test_weights_count_as_rows() -> None:
    truth, scores = drawn(np.random.default_rng(11), 400, 0.3, 0.8, 0.2, samples=3)
    known = first(100, 400)
    weights = np.where(np.arange(400) % 2, 3.0, 1.0)
    weighed = shares(scores, truth, known, weights=weights)
    rows = np.repeat(np.arange(400), weights.astype(int))
    repeated = shares(scores[rows], truth[rows], known[rows], groups=rows)
    for name, values in weighed.items():
        np.testing.assert_allclose(values, repeated[name], atol=1.01 if name == "worth" else 2e-6)


@pytest.mark.parametrize(
    ("wanted", "share", "f1"), [(0.08, 0.3, 0.8), (0.05, 0.06, 0.7), (0.03, 0.03, 0.85), (0.1, 0.4, 0.3)]
)
def test_a_planned_number_of_rows_gives_the_wanted_width(wanted: float, share: float, f1: float) -> None:
    rows = 4000
    needed = prevalence.rows_needed(wanted, Pilot.assumed(share, f1, rows))
    assert needed["by_hand"] is not None
    assert needed["corrected"] is not None
    assert needed["corrected"] < needed["by_hand"] or f1 <= share
    truth, scores = drawn(
        np.random.default_rng(12), rows, share, f1, share * (1 - f1) / (1 - share), samples=300
    )
    for name, count in needed.items():
        found = shares(scores, truth, first(count, rows))
        assert width(found, name).mean() == pytest.approx(wanted, rel=0.1)


def test_a_pilot_plans_as_well_as_known_figures() -> None:
    rng = np.random.default_rng(13)
    truth, scores = drawn(rng, 4000, 0.15, 0.8, 0.04, samples=200)
    gold = np.where(first(300, 4000)[:, None], truth, np.nan)
    pilots = prevalence.pilots(prevalence.prevalence(scores, gold, space(200)))
    planned = [prevalence.rows_needed(0.05, pilot) for pilot in pilots.values()]
    for name in ("by_hand", "corrected"):
        count = int(np.median([one[name] for one in planned]))
        found = shares(scores, truth, first(count, 4000))
        assert width(found, name).mean() == pytest.approx(0.05, rel=0.1)


def test_a_pilot_of_few_authors_asks_for_more_rows() -> None:
    rng = np.random.default_rng(14)
    author = np.repeat(np.arange(500), 4)
    truth = np.repeat(rng.random((500, 1)) < 0.3, 4, axis=0).astype(float)  # each author of one mind
    gold = np.where((author < 100)[:, None], truth, np.nan)
    by_author, alone = (
        prevalence.pilots(prevalence.prevalence(np.full((2000, 1), 0.3), gold, space(1), groups=groups))
        for groups in (author, None)
    )
    counts = [prevalence.rows_needed(0.12, one["l0"])["by_hand"] for one in (by_author, alone)]
    assert None not in counts
    assert counts[0] == pytest.approx(4 * counts[1], rel=0.02)


def test_a_width_that_the_corpus_is_too_small_for_is_said_so() -> None:
    pilot = Pilot.assumed(0.3, 0.9, 500)
    assert prevalence.rows_needed(0.01, pilot) == {"by_hand": None, "corrected": None}
    assert "more than the 500 there are" in prevalence.plan(0.01, {"mild": pilot})
    few, many = (
        prevalence.rows_needed(0.06, Pilot.assumed(0.3, 0.9, rows))["corrected"]
        for rows in (100_000, 3000)
    )
    assert few is not None
    assert many is not None
    assert few < many


@pytest.mark.parametrize("width", [0.0, 1.0, -0.1])
def test_a_width_outside_0_to_1_is_a_problem(width: float) -> None:
    with pytest.raises(Problem, match="Choose one between 0 and 1"):
        prevalence.rows_needed(width, Pilot.assumed(0.3, 0.8, 1000))
    with pytest.raises(Problem, match="above 0 and below 1"):
        Pilot.assumed(0.0, 0.8, 1000)


def test_hand_labelled_rows_without_a_probability_are_a_problem() -> None:
    truth, scores = drawn(np.random.default_rng(15), 100, 0.3, 0.8, 0.2, samples=1)
    for wrong in (np.nan, 0.0, 1.5):
        inclusion = np.full(100, 0.2)
        inclusion[3] = wrong
        with pytest.raises(Problem, match="1 of 20 hand-labelled rows have no inclusion probability"):
            shares(scores, truth, first(20, 100), inclusion=inclusion)


def test_one_author_gives_no_interval() -> None:
    truth, scores = drawn(np.random.default_rng(16), 100, 0.3, 0.8, 0.2, samples=1)
    with pytest.raises(Problem, match="1 authors' comments"):
        shares(scores, truth, first(20, 100), groups=np.arange(100) // 50)


SPLIT = read_params().split
PARTS = pd.DataFrame({"id": list("abcdefg"), "part": ["train"] * 4 + ["validation"] + ["test"] * 2})


PEOPLE = ("train", "validation")  # what taught the model where the labels are people's


def comments(labelled: Sequence[int], by_hand: Sequence[int]) -> pd.DataFrame:
    """Ten comments; labels of the rows `labelled`, gold of the rows `by_hand`."""
    table = pd.DataFrame({"id": list("abcdefghij")})
    for name, rows in (("label", labelled), ("gold", by_hand)):
        for label in ("l0", "l1"):
            table[f"{name}.{label}"] = np.where(table.index.isin(rows), float(label == "l1"), np.nan)
    return table


def counted(table: pd.DataFrame, *, taught: Sequence[str], **changed: Any) -> prevalence.Corpus:
    settings = SPLIT.model_copy(update=changed)
    return prevalence.corpus(table, PARTS, space(2), space(2), settings, taught=taught)


def by_hand(found: prevalence.Corpus) -> list[int]:
    return found.rows[~np.isnan(found.gold).any(axis=1)].tolist()


def test_where_voters_taught_the_model_every_row_counts() -> None:
    found = counted(comments([], [0, 4, 9]), taught=())
    np.testing.assert_array_equal(found.rows, np.arange(10))
    np.testing.assert_array_equal(found.weights, np.ones(10))
    assert by_hand(found) == [0, 4, 9]


def test_where_people_taught_it_the_test_part_stands_for_the_labelled_rows() -> None:
    # h is labelled, but was dropped by the split; i and j have no label
    found = counted(comments(range(8), [0, 4, 5, 9]), taught=PEOPLE)
    np.testing.assert_array_equal(found.rows, [5, 6, 8, 9])
    np.testing.assert_array_equal(found.weights, [4, 4, 1, 1])
    assert by_hand(found) == [5, 9]


def test_where_voters_and_people_taught_it_validation_and_test_stand_for_training() -> None:
    found = counted(comments([], [0, 4, 5, 9]), taught=("train",))
    np.testing.assert_array_equal(found.rows, [4, 5, 6, 7, 8, 9])
    np.testing.assert_allclose(found.weights, [7 / 3] * 3 + [1] * 3)
    assert by_hand(found) == [4, 5, 9]


def test_hand_labels_that_taught_the_model_are_refused() -> None:
    with pytest.raises(Problem, match="none of 2 hand-labelled rows is in the test part"):
        counted(comments(range(8), [0, 4]), taught=PEOPLE)
    with pytest.raises(Problem, match="no row is labelled by hand"):
        counted(comments([], []), taught=())
    with pytest.raises(Problem, match="the latest rows"):
        counted(comments(range(8), [5]), taught=PEOPLE, order="time")
    assert len(counted(comments([], [5]), taught=(), order="time").rows) == 10


def test_synthetic_rows_are_no_part_of_the_corpus() -> None:
    table = comments([], [0, 4]).assign(parent=["", "a", None, *[""] * 7])
    np.testing.assert_array_equal(counted(table, taught=()).rows, [0, *range(2, 10)])


def test_rows_of_a_rare_label_stay_in_the_corpus() -> None:
    two, one = space(2), LabelSpace.of("c", ["l0", "other"])
    table = comments([], [0, 4])
    merge = SPLIT.model_copy(update={"rare": "merge", "merge_into": "other"})
    merged = prevalence.corpus(table, PARTS, two, one, merge, taught=())
    np.testing.assert_array_equal(merged.gold[[0, 4]], [[0, 1], [0, 1]])
    drop = SPLIT.model_copy(update={"rare": "drop"})
    dropped = prevalence.corpus(table, PARTS, two, LabelSpace.of("c", ["l0"]), drop, taught=())
    np.testing.assert_array_equal(dropped.gold[[0, 4]], [[0], [0]])
    assert np.isnan(dropped.gold[1])


def test_probabilities_are_read_from_a_meta_column() -> None:
    table = pd.DataFrame({"meta.drawn": ["0.5", "", None, "often"]})
    np.testing.assert_array_equal(prevalence.probabilities(table, "drawn"), [0.5, *[np.nan] * 3])
    with pytest.raises(Problem, match="no column 'other'"):
        prevalence.probabilities(table, "other")


def test_the_table_has_a_line_for_each_label() -> None:
    truth, scores = drawn(np.random.default_rng(17), 1000, 0.3, 0.8, 0.2, samples=2)
    found = prevalence.prevalence(scores, np.where(first(200, 1000)[:, None], truth, np.nan), space(2))
    head, rule, *lines = prevalence.table(found).splitlines()
    assert head == "| label | naïve | corrected | by hand alone | adjusted counts | n by hand |"
    assert rule == "| --- | --- | --- | --- | --- | --- |"
    one = found["labels"]["l0"]
    low, high = one["corrected"]["low"], one["corrected"]["high"]
    assert f"| {one['corrected']['value']:.3f} [{low:.3f}, {high:.3f}] |" in lines[0]
    assert lines[0].startswith(f"| l0 | {one['naive']:.3f} |")
    assert lines[0].endswith(f"| {one['adjusted_counts']:.3f} | {int(truth[:200, 0].sum())} of 200 |")
    assert len(lines) == 2


def test_rows_that_cannot_be_a_random_draw_are_told() -> None:
    rng = np.random.default_rng(18)
    truth, scores = drawn(rng, 2000, 0.3, 0.8, 0.2, samples=1)
    at_random = np.where(first(300, 2000)[:, None], truth, np.nan)
    assert "random draw" not in prevalence.told(prevalence.prevalence(scores, at_random, space(1)))
    picked = np.where(((rng.random(2000) < 0.3) & (scores[:, 0] > 0))[:, None], truth, np.nan)
    assert "not a random draw by the scores of l0" in prevalence.told(
        prevalence.prevalence(scores, picked, space(1))
    )


@pytest.fixture
def staged(tmp_path: Path) -> dict[str, Any]:
    """What the stage is given: 300 comments, 100 of them labelled by hand, and a trained champion."""
    space = read_codebook(CODEBOOK).learnt(None).space
    rng = np.random.default_rng(19)
    found = rng.integers(0, len(space.labels), 300)
    table = pd.DataFrame(
        {
            "id": [f"c{at}" for at in range(300)],
            "text": [f"{tiny.WORDS[at]} {rng.choice(tiny.WORDS[8:])}" for at in found],
            "group": [f"a{at // 2}" for at in range(300)],
            "meta.drawn": ["0.3"] * 300,
            "meta.uneven": ["0.9" if at == 0 else "0.1" for at in found],
        }
    )
    truth = np.eye(len(space.labels))[found]
    for at, label in enumerate(space.labels):
        table[f"gold.{label}"] = np.where(np.arange(300) % 3 == 0, truth[:, at], np.nan)
    tables.write(table, tmp_path / "clean.parquet")
    tables.write(pd.DataFrame({"id": pd.Series(dtype="str")}), tmp_path / "reviewed.parquet")
    tables.write(table[["id"]][:200].assign(part="train"), tmp_path / "split.parquet")
    training = table[["id"]][:200].assign(part="train", origin="silver")
    tables.write(training, tmp_path / "training" / "tfidf.parquet")
    learnt = models.Examples(table["text"].tolist(), truth > 0)
    model = models.create(tiny.SETTINGS["tfidf"], space, models.Start(seed=0))
    model.fit(learnt, learnt, lambda *_: None, tmp_path / "state")
    recipe = models.Recipe("tfidf", tiny.SETTINGS["tfidf"], "0")
    models.save(model, tmp_path / "trained" / "tfidf", recipe)
    write_json(tmp_path / "selection.json", {"champion": "tfidf", "encoder": "none"})
    return {
        "source": "standin",
        "codebook": CODEBOOK,
        "comments": tmp_path / "clean.parquet",
        "reviewed": tmp_path / "reviewed.parquet",
        "split": tmp_path / "split.parquet",
        "selection": tmp_path / "selection.json",
        "trained": tmp_path / "trained",
        "training": tmp_path / "training",
        "out": tmp_path / "prevalence.json",
    }


def settings(**changed: Any) -> Params:
    params = read_params()
    return params.model_copy(update={"prevalence": params.prevalence.model_copy(update=changed)})


def test_the_stage_scores_the_whole_corpus(staged: dict[str, Any]) -> None:
    line = stage(settings(), **staged)
    assert line.startswith("tfidf on 300 rows, 100 by hand: ")
    found = read_json(staged["out"])
    assert (found["judge"], found["rows"], found["n"], found["groups"]) == ("tfidf", 300, 100, 100)
    assert sum(one["n"] for one in found["labels"].values()) == 100
    by_draw = stage(settings(inclusion={"standin": "drawn"}), **staged)
    assert by_draw == line  # one probability for all changes nothing
    stage(settings(inclusion={"standin": "uneven"}), **staged)
    first, weighted = next(iter(found["labels"])), read_json(staged["out"])
    shares = [one["labels"][first]["by_hand"]["value"] for one in (found, weighted)]
    assert shares[1] < shares[0] / 3  # drawn nine times as often, so each stands for fewer
    with pytest.raises(Problem, match="no column 'keyword'"):
        stage(settings(inclusion={"standin": "keyword"}), **staged)


def test_hand_labelled_rows_that_were_learnt_from_correct_nothing(staged: dict[str, Any]) -> None:
    learnt = tables.read(staged["training"] / "tfidf.parquet").assign(origin="gold")
    tables.write(learnt, staged["training"] / "tfidf.parquet")
    parts = tables.read(staged["split"]).assign(
        part=["train"] * 180 + ["validation"] * 10 + ["test"] * 10
    )
    tables.write(parts, staged["split"])
    stage(settings(), **staged)
    found = read_json(staged["out"])
    assert (found["rows"], found["n"]) == (120, 40)  # validation, test, and what was never split


def test_a_row_outside_the_split_that_was_learnt_from_corrects_nothing(staged: dict[str, Any]) -> None:
    learnt = tables.read(staged["training"] / "tfidf.parquet")
    found = pd.DataFrame({"id": ["c201", "c204"], "part": "train", "origin": "gold"})
    tables.write(pd.concat([learnt, found]), staged["training"] / "tfidf.parquet")
    parts = tables.read(staged["split"]).assign(part=["train"] * 180 + ["test"] * 20)
    tables.write(parts, staged["split"])
    stage(settings(), **staged)
    assert read_json(staged["out"])["n"] == 7 + 33 - 2  # test, and what was never split, without these


def test_rows_that_were_all_chosen_speak_for_nobody(staged: dict[str, Any]) -> None:
    table = tables.read(staged["comments"])
    gold = [name for name in table if name.startswith("gold.")]
    reviewed = table.loc[table[gold].notna().all(axis=1), ["id", *gold]].assign(
        reviewers="anna", reviewed="2025-01-01", inclusion=1.0
    )
    reviewed.attrs = {"others": 0.0}
    tables.write(reviewed, staged["reviewed"])
    tables.write(table.assign(**dict.fromkeys(gold, np.nan)), staged["comments"])
    assert "people saw chosen rows alone" in stage(settings(), **staged)
    assert read_json(staged["out"]) == {}


def test_the_stage_corrects_nothing_without_hand_labels(staged: dict[str, Any]) -> None:
    table = tables.read(staged["comments"])
    tables.write(table[["id", "text", "group"]], staged["comments"])
    assert "nothing is corrected" in stage(settings(), **staged)
    assert read_json(staged["out"]) == {}


def test_the_stage_weighs_reviewed_rows_by_their_inclusion(staged: dict[str, Any]) -> None:
    stage(settings(), **staged)
    before = read_json(staged["out"])
    first = next(iter(before["labels"]))
    labels = list(before["labels"])
    # rows that a review chose for certain, all of the first label, though they were of any
    table = pd.DataFrame({"id": [f"c{at}" for at in range(1, 300, 3)]})
    table[[f"gold.{label}" for label in labels]] = np.eye(len(labels))[[0] * 100]
    reviewed = table.assign(reviewers="anna", reviewed="2025-01-01", inclusion=1.0)
    reviewed.attrs = {"others": 0.5}
    tables.write(reviewed, staged["reviewed"])
    stage(settings(), **staged)
    after = read_json(staged["out"])
    assert (before["n"], after["n"]) == (100, 200)
    share = before["labels"][first]["by_hand"]["value"]
    # 100 rows of 1 / 1, and those that came with gold, one in three, or by the review's other half
    own = 100 / (1 - (1 - 1 / 3) * (1 - 0.5))
    found = after["labels"][first]["by_hand"]["value"]
    assert found == pytest.approx((100 + own * share) / (100 + own), abs=1e-5)
