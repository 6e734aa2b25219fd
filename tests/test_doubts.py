"""A judge that hasn't seen a row's author says what it holds of its label; heeding it has to pay."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stages import doubt as stage
from tests import tiny
from undertone import learning, params, tables
from undertone.annotation import noise
from undertone.augmentation import doubts
from undertone.corpus import split
from undertone.files import read_json

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


@pytest.mark.parametrize("kind", ["uniform", "class"])
@pytest.mark.parametrize("many", [False, True])
def test_flips_change_the_labels_of_about_so_many_rows(kind: doubts.Kind, many: bool) -> None:
    truth = tiny.examples(1000, many=many).truth
    noisy = doubts.flipped(truth, kind, 0.2, np.random.default_rng(3))
    changed = (noisy != truth).any(axis=1)
    assert 150 < changed.sum() < 250
    np.testing.assert_array_equal(
        noisy.sum(axis=1)[truth.sum(axis=1) > 0], truth.sum(axis=1)[truth.sum(axis=1) > 0]
    )
    if kind == "class" and not many:
        to = [set(noisy[changed & truth[:, at]].argmax(axis=1)) for at in range(3)]
        assert all(len(one) == 1 for one in to)


def test_a_text_with_all_labels_loses_one_and_keeps_the_others() -> None:
    noisy = doubts.flipped(np.ones((50, 3), dtype=bool), "uniform", 1.0, np.random.default_rng(3))
    assert (noisy.sum(axis=1) == 2).all()


def planted(folder: Path, rate: float, candidate: learning.Learner | None = None) -> dict:
    own = judge(folder)
    parts = {"train": rows(200, 4), "validation": rows(100, 5).assign(part="validation")}
    return doubts.planted(
        parts,
        "validation",
        own,
        candidate or own,
        kind="uniform",
        rate=rate,
        draws=2,
        how=HOW,
        alike=ALIKE,
        resamples=200,
        seed=5,
    )


def test_what_planted_noise_costs_and_what_each_way_gives_back_is_told(tmp_path: Path) -> None:
    found = planted(tmp_path, 0.5)
    figures = {way: one["value"] for way, one in found["macro_f1"].items()}
    assert list(figures) == ["clean", "noisy", *doubts.WAYS, "oracle"]
    assert figures["noisy"] < figures["oracle"]
    lost = figures["clean"] - figures["noisy"]
    assert found["lost"]["value"] == pytest.approx(lost, abs=2e-6)
    for way, one in found["recovered"].items():
        assert one["value"] == pytest.approx((figures[way] - figures["noisy"]) / lost, abs=1e-3)
    assert found["recovered"]["oracle"]["value"] > 0.5
    assert 150 < found["found"]["flipped"] < 250  # of both draws' 400 rows
    assert 0 < found["found"]["both"] <= found["found"]["flipped"]
    assert doubts.line(found).startswith(f"50% flipped: {figures['clean']:.3f} → ")
    assert planted(tmp_path, 0.5) == found


def test_where_nothing_is_planted_nothing_is_lost_or_given_back(tmp_path: Path) -> None:
    found = planted(tmp_path, 0.0)
    assert found["macro_f1"]["noisy"] == found["macro_f1"]["clean"] == found["macro_f1"]["oracle"]
    assert (found["lost"]["value"], found["recovered"], found["found"]["flipped"]) == (0.0, {}, 0)


def run(folder: Path, count: int) -> tuple[str, dict]:
    """The stage, on so many training rows; its line, and what it wrote."""
    table = pd.concat([rows(count, 6), rows(60, 7).assign(part="validation")], ignore_index=True)
    tables.write(table.assign(parent=""), folder / "split.parquet")
    SPACE.save(folder / "space.json")
    own = params.read_params()
    line = stage.main(
        own.model_copy(update={"doubt": params.Doubt(rates=[0.0, 0.4], draws=1)}),
        labels=folder / "space.json",
        comments=folder / "split.parquet",
        out=folder / "doubt.json",
    )
    return line, read_json(folder / "doubt.json")


def test_the_stage_plants_at_each_rate(tmp_path: Path) -> None:
    line, told = run(tmp_path, 120)
    assert [(one["rate"], one["n"]) for one in told["planted"]] == [(0.0, 60), (0.4, 60)]
    assert (told["candidate"], told["part"], told["draws"]) == ("tfidf", "validation", 1)
    assert line.startswith("0% flipped: ")


def test_too_few_rows_for_the_folds_stop_nobody(tmp_path: Path) -> None:
    line, told = run(tmp_path, 8)
    assert line.startswith("nothing is planted: ")
    assert told["planted"] == []
