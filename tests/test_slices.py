"""Slices: where the decisions are worse, and when that is more than chance."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from undertone.errors import Problem
from undertone.labels import LabelSpace
from undertone.measures import slices

SPACE = LabelSpace.of("c", ["a", "b", "c"])


def comments(rows: int, **columns: object) -> pd.DataFrame:
    ids = [str(at) for at in range(rows)]
    return pd.DataFrame({"id": ids, "group": "", "text": "x", "time": "", **columns})


def by_column(
    table: pd.DataFrame,
    truth: np.ndarray,
    decided: np.ndarray,
    *columns: str,
    min_rows: int = 10,
    answered: np.ndarray | None = None,
) -> dict:
    return slices.by_column(
        table,
        np.eye(3, dtype=bool)[truth],
        np.eye(3, dtype=bool)[decided],
        SPACE,
        columns,
        answered=answered,
        min_rows=min_rows,
        draws=200,
        rng=np.random.default_rng(0),
    )


def some_right(rows: int, share: object, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    truth = rng.integers(0, 3, rows)
    return truth, np.where(rng.random(rows) < share, truth, (truth + 1) % 3)


def test_a_slice_has_the_figures_of_its_rows_alone() -> None:
    rng = np.random.default_rng(1)
    source = rng.choice(["weibo", "zhihu", "bili"], 300)
    truth, decided = some_right(300, 0.7, rng)
    answered = rng.random(300) < 0.9
    table = comments(300, **{"meta.source": source})
    found = by_column(table, truth, decided, "meta.source", answered=answered)["meta.source"]
    assert list(found) == ["bili", "weibo", "zhihu"]
    decided = np.where(answered, decided, 3)
    for name, one in found.items():
        own = source == name
        assert one["n"] == one["groups"] == own.sum()
        right = truth == decided
        assert one["accuracy"]["value"] == pytest.approx(right[own].mean(), abs=1e-6)
        apart = right[own].mean() - right[~own].mean()
        assert one["difference"]["value"] == pytest.approx(apart, abs=1e-6)
        f1 = sk.f1_score(truth[own], decided[own], average="macro", labels=[0, 1, 2])
        assert one["macro_f1"]["value"] == pytest.approx(f1, abs=1e-6)
        for figure in ("accuracy", "macro_f1", "difference"):
            assert one[figure]["low"] < one[figure]["value"] < one[figure]["high"]
    json.dumps(found, allow_nan=False)


def test_a_label_that_a_slice_has_nowhere_is_no_part_of_its_macro_f1() -> None:
    truth = np.repeat([0, 1, 2], 20)
    table = comments(60, **{"meta.s": np.repeat(["x", "y"], [40, 20])})
    found = by_column(table, truth, truth, "meta.s")["meta.s"]
    assert found["x"]["macro_f1"] == found["y"]["macro_f1"] == {"value": 1.0, "low": 1.0, "high": 1.0}


def test_a_slice_that_is_worse_is_marked_and_others_are_not() -> None:
    rng = np.random.default_rng(2)
    source = rng.choice(["good", "bad", "fine", "well"], 600, p=[0.4, 0.2, 0.2, 0.2])
    truth, decided = some_right(600, np.where(source == "bad", 0.5, 0.85), rng)
    month = [f"2024-{at:02}-11" for at in rng.integers(1, 7, 600)]
    table = comments(600, **{"meta.source": source, "time": month})
    found = by_column(table, truth, decided, "meta.source", "month")
    assert found["meta.source"]["bad"]["significant"] is True
    assert found["meta.source"]["bad"]["difference"]["high"] < 0
    assert not any(one["significant"] for one in found["month"].values())
    everything = [one for column in found.values() for one in column.values()]
    ranked = sorted(everything, key=lambda one: one["p"])
    assert ranked[0]["p_holm"] == pytest.approx(len(everything) * ranked[0]["p"], abs=1e-5)


def test_one_author_who_fills_a_slice_is_no_evidence_against_it() -> None:
    rng = np.random.default_rng(3)
    hard = np.arange(400) < 60  # all wrong
    truth, decided = some_right(400, np.where(hard, 0.2, 0.85), rng)
    table = comments(400, **{"meta.s": np.where(hard, "hard", "easy")})
    alone = by_column(table, truth, decided, "meta.s")["meta.s"]["hard"]
    table["group"] = np.where(hard, "one author", [f"u{at}" for at in range(400)])
    together = by_column(table, truth, decided, "meta.s")["meta.s"]["hard"]
    assert alone["significant"]
    assert not together["significant"]
    assert together["difference"]["value"] == alone["difference"]["value"]


@pytest.mark.parametrize("within", [False, True])
def test_without_a_difference_one_slice_in_twenty_has_p_below_5_percent(
    within: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Authors differ in how hard they are to read; a slice has whole authors, or some of each's rows."""
    monkeypatch.setattr(slices, "PERMUTATIONS", 399)
    below = []
    for seed in range(1000):
        rng = np.random.default_rng(seed)
        author = np.repeat(np.arange(60), rng.geometric(0.25, 60))
        right = rng.random(len(author)) < rng.beta(3, 1, 60)[author]
        codes = rng.integers(0, 2, len(author)) if within else rng.integers(0, 2, 60)[author]
        below.append(slices._p_values(right, codes, author, rng)[0] <= 0.05)
    assert 0.03 <= np.mean(below) <= 0.07


def test_a_difference_within_authors_of_several_slices_is_found() -> None:
    rng = np.random.default_rng(4)
    author = np.repeat(np.arange(40), 15)
    late = rng.random(600) < 0.4
    truth, decided = some_right(600, np.where(late, 0.6, 0.9), rng)
    table = comments(600, group=[f"u{at}" for at in author])
    table["time"] = np.where(late, "2024/5/1 8:00", "2024年4月30日")
    found = by_column(table, truth, decided, "month")["month"]
    assert list(found) == ["2024-04", "2024-05"]
    assert found["2024-05"]["significant"]
    assert found["2024-05"]["groups"] == 40


def test_small_values_are_pooled_and_missing_ones_stand_alone() -> None:
    source = ["big"] * 30 + ["s1"] * 5 + ["s2"] * 6 + [""] * 3 + [None] * 2
    truth = np.arange(46) % 3
    found = by_column(comments(46, **{"meta.s": source}), truth, truth, "meta.s")["meta.s"]
    assert {name: one["n"] for name, one in found.items()} == {"big": 30, "other": 11, "missing": 5}
    assert list(found) == ["big", "other", "missing"]


def test_many_numbers_are_cut_at_their_quartiles_and_few_are_not() -> None:
    truth = np.arange(400) % 3
    likes = [str(at) for at in range(400)]
    likes[7] = ""
    stars = [str(at % 10) for at in range(400)]
    table = comments(400, **{"meta.likes": likes, "meta.stars": stars})
    table["text"] = ["x" * (1 + at // 100) for at in range(400)]
    found = by_column(table, truth, truth, "meta.likes", "meta.stars", "length")
    quarters = [
        f"quarter {at + 1}, about {middle}" for at, middle in enumerate((50.5, 150.5, 250, 349.5))
    ]
    assert list(found["meta.likes"]) == [*quarters, "missing"]
    assert [one["n"] for one in found["meta.likes"].values()] == [100, 100, 99, 100, 1]
    assert list(found["meta.stars"]) == [str(at) for at in range(10)]
    assert list(found["length"]) == ["1", "2", "3", "4"]


def test_a_time_without_year_and_month_at_its_beginning_is_missing() -> None:
    times = ["2024-01-05"] * 10 + ["05.06.2024"] * 5 + ["2024-13-01"] * 5
    truth = np.arange(20) % 3
    found = by_column(comments(20, time=times), truth, truth, "month")["month"]
    assert {name: one["n"] for name, one in found.items()} == {"2024-01": 10, "missing": 10}


def test_a_slice_that_holds_all_rows_is_compared_with_nothing() -> None:
    truth = np.arange(30) % 3
    one = by_column(comments(30, **{"meta.s": "x"}), truth, truth, "meta.s")["meta.s"]["x"]
    assert one["difference"] == {"value": None, "low": None, "high": None}
    assert one["p"] is one["p_holm"] is one["significant"] is None


def test_free_text_is_refused_by_the_columns_name_alone() -> None:
    secret = [f"secret {at}" for at in range(60)]
    truth = np.arange(60) % 3
    with pytest.raises(Problem, match=r"'meta\.note': 60 different values") as raised:
        by_column(comments(60, **{"meta.note": secret}), truth, truth, "meta.note")
    assert "secret" not in str(raised.value)


def test_a_column_that_the_table_lacks_is_named() -> None:
    truth = np.arange(6) % 3
    with pytest.raises(Problem, match=r"no column 'meta\.sauce'"):
        by_column(comments(6), truth, truth, "meta.sauce")


def test_no_rows_are_refused() -> None:
    none = np.zeros(0, dtype=int)
    with pytest.raises(Problem, match="no rows to slice"):
        by_column(comments(0), none, none, "length")
