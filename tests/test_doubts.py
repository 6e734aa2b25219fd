"""A judge that hasn't seen a row's author says what it holds of its label; heeding it has to pay."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests import tiny
from undertone import doubts, learning, noise, params, split, tables

SPACE = tiny.space()
CALIBRATE = params.Calibrate(temperature=True, max_error=None)
HOW, ALIKE = params.Folds(k=4, repeats=1), params.Clean(similarity=0.99, shingle=50)


def judge(folder: Path, **changed: object) -> learning.Learner:
    start = tiny.start("tfidf", folder)
    settings = tiny.SETTINGS["tfidf"].model_copy(update=changed)
    return learning.Learner(settings, SPACE, start, CALIBRATE, folder / "state")


def rows(count: int, seed: int) -> pd.DataFrame:
    """Texts that name their label, two of an author; each is made different by a number of its own."""
    rng = np.random.default_rng(seed)
    label = rng.integers(len(SPACE.labels), size=count)
    filler = [" ".join(rng.choice(tiny.WORDS, size=2)) for _ in range(count)]
    texts = [
        f"{SPACE.labels[one]} {words} {at}"
        for at, (one, words) in enumerate(zip(label, filler, strict=True))
    ]
    table = pd.DataFrame({"id": [f"{seed}-{at}" for at in range(count)], "text": texts})
    table["group"] = [f"{seed} author {at // 2}" for at in range(count)]
    table["repeat"] = np.arange(count) + 1000 * seed
    table["part"] = "train"
    for at, name in enumerate(SPACE.labels):
        table[f"label.{name}"] = (label == at).astype(float)
    return table


def flipped(table: pd.DataFrame, share: float) -> tuple[pd.DataFrame, np.ndarray]:
    """The first rows with each label taken for the next one, and which they are."""
    columns = [f"label.{name}" for name in SPACE.labels]
    wrong = np.arange(len(table)) < share * len(table)
    given = table.copy()
    given.loc[wrong, columns] = np.roll(table.loc[wrong, columns].to_numpy(), 1, axis=1)
    return given, wrong


def test_flips_are_found_by_a_judge_that_has_not_seen_them(tmp_path: Path) -> None:
    given, planted = flipped(rows(160, 1), 0.15)
    scores = doubts.out_of_fold(given, judge(tmp_path), HOW, ALIKE, seed=5)
    assert scores.shape == (160, len(SPACE.labels))
    truth = tables.judged(given, "label", SPACE) > 0.5
    wrong, _ = noise.quality(truth, scores, SPACE)
    assert (wrong & planted).sum() / planted.sum() > 0.6  # by chance 0.15
    assert (wrong & planted).sum() / wrong.sum() > 0.5
    again = doubts.out_of_fold(given, judge(tmp_path), HOW, ALIKE, seed=5)
    assert (scores == again).all()
    assert (scores != doubts.out_of_fold(given, judge(tmp_path), HOW, ALIKE, seed=6)).any()


def test_no_author_and_no_repeat_is_learnt_from_and_held_out_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = rows(80, 2)
    table["repeat"] //= 4  # two authors share a text's repeats
    table["fold.1.1"] = "test"  # the split's own folds are not these
    seen: list[pd.DataFrame] = []
    own = learning.Learner.out_of_fold

    def watched(self: learning.Learner, given: pd.DataFrame) -> pd.DataFrame:
        seen.append(given)
        return own(self, given)

    monkeypatch.setattr(learning.Learner, "out_of_fold", watched)
    doubts.out_of_fold(table, judge(tmp_path), HOW, ALIKE, seed=5)
    (given,) = seen
    assert len(tables.folds(given)) == HOW.k
    unit = split.units(given)
    assert len(np.unique(unit)) < 40
    for fold in tables.folds(given):
        held = (given[fold] == "test").to_numpy()
        assert held.any()
        assert not set(unit[held]) & set(unit[~held])


def test_a_judge_learns_labels_as_often_as_they_are(tmp_path: Path) -> None:
    table = rows(80, 10)
    table = table[(table[f"label.{SPACE.labels[0]}"] == 0) | (np.arange(80) % 2 == 0)]
    plain, weighed = (
        doubts.out_of_fold(table, judge(tmp_path, class_weights=kind), HOW, ALIKE, seed=5)
        for kind in ("none", "balanced")
    )
    assert (plain == weighed).all()


def test_a_row_made_from_others_is_not_doubted(tmp_path: Path) -> None:
    table = rows(80, 3).assign(parent="")
    made = table.iloc[:5].assign(id=[f"made {at}" for at in range(5)], parent=table["id"][:5])
    both = pd.concat([table, made], ignore_index=True)
    scores = doubts.out_of_fold(both, judge(tmp_path), HOW, ALIKE, seed=5)
    assert np.isnan(scores[80:]).all()
    assert not np.isnan(scores[:80]).any()


def pays(folder: Path, ways: dict[str, np.ndarray], train: pd.DataFrame, on: pd.DataFrame) -> dict:
    return doubts.pays(train, on, ways, judge(folder), draws=200, seed=5)


def test_weights_are_kept_only_where_validation_shows_that_they_are_better(tmp_path: Path) -> None:
    given, wrong = flipped(rows(200, 4), 0.45)
    on = rows(100, 5)
    ones = np.ones(200)
    found = pays(tmp_path, {"none": ones, "right": (~wrong).astype(float)}, given, on)
    assert found["kept"] == "right"
    assert found["reference"] == "label"
    assert (found["n"], found["rows"]["right"]["n"]) == (100, 110)
    assert found["comparisons"][0]["verdict"] == "better"
    assert found["macro_f1"]["right"]["value"] > found["macro_f1"]["none"]["value"]
    worse = pays(tmp_path, {"none": ones, "wrong": np.where(wrong, 1.0, 0.2)}, given, on)
    assert worse["kept"] == "none"
    same = pays(tmp_path, {"none": ones, "the same": ones}, given, on)
    assert same["kept"] == "none"
    assert same["comparisons"][0]["difference"]["value"] == 0


def test_people_s_labels_decide_where_validation_has_them(tmp_path: Path) -> None:
    given, wrong = flipped(rows(200, 6), 0.45)
    on = rows(100, 7)
    for name in SPACE.labels:
        on[f"gold.{name}"] = on[f"label.{name}"].where(np.arange(100) < 70)
    on, _ = flipped(on, 1.0)  # as wrong as can be, but people know
    found = pays(tmp_path, {"none": np.ones(200), "right": (~wrong).astype(float)}, given, on)
    assert (found["reference"], found["n"], found["kept"]) == ("gold", 70, "right")


def test_without_another_way_the_first_is_kept(tmp_path: Path) -> None:
    found = pays(tmp_path, {"none": np.ones(80)}, rows(80, 8), rows(40, 9))
    assert (found["kept"], found["comparisons"]) == ("none", [])
