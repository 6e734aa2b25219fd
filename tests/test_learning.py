"""A candidate learns once for good, and once a fold; its course is told without what it took."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests import tiny
from undertone import learning, models, params, tables
from undertone.corpus import split
from undertone.errors import Problem
from undertone.measures import evaluation

CALIBRATE = params.Calibrate(temperature=True, max_error=None)


def learner(folder: Path, family: str = "tfidf") -> learning.Learner:
    start = tiny.start(family, folder)
    return learning.Learner(tiny.SETTINGS[family], tiny.space(), start, CALIBRATE, folder / "state")


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """113 rows of which every second repeats no other, in five folds, twice."""
    given = tiny.examples(113)
    rows = pd.DataFrame({"id": [f"c{number}" for number in range(113)], "text": given.texts})
    rows["group"] = [f"author{number}" for number in range(113)]
    rows["repeat"] = np.arange(113)
    for at, label in enumerate(tiny.space().labels):
        rows[f"label.{label}"] = given.truth[:, at].astype(float)
    rows["part"] = np.where(np.arange(113) < 70, "train", "validation")
    rows.loc[90:, "part"] = "test"
    how, alike = params.Folds(k=5, repeats=2), params.Clean(similarity=0.99, shingle=50)
    columns = split.folds(rows, tiny.space(), how, alike, seed=3)
    return pd.concat([rows, columns], axis=1)


def test_every_row_is_judged_once_a_repeat_by_a_model_that_did_not_see_it(
    table: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, set[str]] = {}
    learn = learning.Learner.learn

    def watched(self: Any, train: Any, validation: Any, name: str, log: Any) -> Any:
        seen[name] = {*train.texts, *validation.texts}
        return learn(self, train, validation, name, log)

    monkeypatch.setattr(learning.Learner, "learn", watched)
    found = learner(tmp_path).out_of_fold(table)
    assert set(seen) == set(tables.folds(table))
    repeat = found["fold"].str.split(".").str[1]
    assert found.groupby(repeat)["id"].apply(lambda ids: sorted(ids) == sorted(table["id"])).all()
    of = dict(zip(table["id"], table["text"], strict=True))
    held = {fold: {of[one] for one in rows["id"]} for fold, rows in found.groupby("fold")}
    texts = table["text"].value_counts()
    alone = set(texts[texts == 1].index)
    assert all(not (held[str(fold)] & seen[str(fold)] & alone) for fold in held)
    assert (found[[f"decided.{one}" for one in tiny.space().labels]].sum(axis=1) == 1).all()


def test_folds_are_a_part_of_their_own_and_decide_who_is_chosen(
    table: pd.DataFrame, tmp_path: Path
) -> None:
    found = learner(tmp_path).out_of_fold(table)
    space = tiny.space()
    poor = found.copy()
    for label in space.labels:
        poor[label] = 1 / len(space.labels)
        poor[f"decided.{label}"] = float(label == space.labels[0])
    rows = table[table["part"] != "train"]
    same = tables.scores_table(rows["id"], np.full((len(rows), len(space.labels)), 1 / 3), space)
    judges = dict.fromkeys(("good", "poor"), (space, same))
    folds = {"good": found, "poor": poor}
    given: dict[str, Any] = {"folds": folds, "draws": 200, "seed": 0}
    evaluated = evaluation.evaluate_all(table, judges, space, **given)
    compared = evaluation.compare_all(table, judges, space, metric="macro_f1", **given)
    board = evaluated["folds"]["label"]
    assert {"majority", "stratified", "good", "poor"} == set(board)
    assert (board["good"]["n"], board["good"]["repeats"]) == (226, 2)
    assert board["good"]["groups"] == 113  # a row's repeats are drawn together
    costs = {"good": {"ms": 9.0, "bytes": 9}, "poor": {"ms": 1.0, "bytes": 1}}
    chosen = evaluation.select(evaluated, compared, costs, ["good", "poor"], "macro_f1")
    assert (chosen["part"], chosen["champion"]) == ("folds", "good")  # on validation both are alike
    with pytest.raises(Problem, match="folds of poor: other rows or folds"):
        evaluation.evaluate_all(
            table, judges, space, folds={**folds, "poor": poor[1:]}, draws=100, seed=0
        )


def test_without_folds_there_is_no_such_part(table: pd.DataFrame, tmp_path: Path) -> None:
    plain = table.drop(columns=tables.folds(table))
    found = learner(tmp_path).out_of_fold(plain)
    assert found.empty
    assert list(found.columns[:2]) == ["id", "fold"]


def test_curves_hold_the_course_and_not_what_it_took(tmp_path: Path) -> None:
    logged: list[str] = []
    course = learning.Curves(lambda _, values: logged.extend(values))
    train, validation = tiny.examples(64), tiny.examples(40, seed=1)
    model, reached = learner(tmp_path, "bert").learn(train, validation, "all", course.log)
    assert {"tokens_per_second", "wall_seconds", "peak_memory_gib"} <= set(logged)
    names = {name for point in course.points for name in point}
    assert {"step", "loss", "validation_loss", "validation_macro_f1", "train_macro_f1", "gap"} <= names
    assert not any(name.endswith(("second", "seconds", "gib")) for name in names)
    assert course.points[-1]["validation_macro_f1"] <= 1
    assert reached == models.macro_f1(model.space, models.scored(model, validation.texts), validation)


def test_a_loss_that_is_no_number_is_an_empty_point() -> None:
    course = learning.Curves(lambda *_: None)
    course.log(3, {"loss": float("nan"), "wall_seconds": 1.0})
    course.log(4, {"wall_seconds": 1.0})
    assert course.points == [{"step": 3, "loss": None}]


def test_a_run_tells_how_many_rows_of_what_origin_it_learnt_from_and_what_they_weigh() -> None:
    rows = pd.DataFrame({"part": ["train"] * 5 + ["test"], "origin": ["gold", *["pseudo"] * 4, "gold"]})
    rows["weight"] = [1.0, 0.5, 0.5, 0.25, 0.25, 1.0]
    told = {"rows.gold": 1, "rows.pseudo": 4, "weight.gold": 1, "weight.pseudo": 0.375}
    assert learning.mixed(rows) == told
