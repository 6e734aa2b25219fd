"""Candidates are judged on the same rows, and the cheapest of the best is chosen, on validation."""

import copy
import json
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from undertone.errors import Problem
from undertone.labels import LabelSpace
from undertone.measures import comparison, evaluation

SPACE = LabelSpace.of("c", ["a", "b"])


def table(rows: int = 60) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, rows)
    gold = np.where(np.arange(rows) % 4 == 1, 1 - label, np.nan)  # gold says the contrary
    judged = {"label": label, "gold": gold}
    return pd.DataFrame(
        {
            "id": [f"{at:03d}" for at in range(rows)],
            "group": ["" if at % 5 else "x" for at in range(rows)],
            "part": np.resize(["train", "validation", "test"], rows),
            **{
                f"{reference}.{name}": np.where(np.isnan(given), np.nan, given == place)
                for reference, given in judged.items()
                for place, name in enumerate("ab")
            },
        }
    )


def scores(rows: pd.DataFrame, *, right: float) -> pd.DataFrame:
    a = np.where(rows["label.a"] == 1, right, 1 - right)
    return pd.DataFrame({"id": rows["id"], "a": a, "b": 1 - a})


def evaluated(rows: pd.DataFrame, judges: evaluation.Judges) -> dict[str, Any]:
    return evaluation.evaluate_all(rows, judges, SPACE, draws=100, seed=0)


def compared(rows: pd.DataFrame, judges: evaluation.Judges) -> dict[str, Any]:
    return evaluation.compare_all(rows, judges, SPACE, metric="macro_f1", draws=100, seed=0)


def test_labels_and_gold_are_never_mixed() -> None:
    rows = table()
    rows.loc[rows["part"] == "test", ["gold.a", "gold.b"]] = [[0.0, 1.0]]
    found = evaluated(rows, {"good": (SPACE, scores(rows, right=0.9))})
    assert found["test"]["label"]["good"]["overall"]["accuracy"]["value"] == 1
    share = (rows[rows["part"] == "test"]["label.b"] == 1).mean()
    assert found["test"]["gold"]["good"]["overall"]["accuracy"]["value"] == pytest.approx(share)
    assert found["test"]["gold"]["good"]["n"] == 20


def test_rows_that_people_saw_because_models_erred_are_no_gold_of_validation() -> None:
    rows = table()
    part = rows["part"] == "validation"
    rows.loc[part, ["gold.a", "gold.b"]] = [[0.0, 1.0]]
    rows.loc[part, "inclusion"] = 0.02
    assert "gold" in evaluated(rows, {"m": (SPACE, scores(rows, right=0.9))})["validation"]
    rows.loc[rows.index[part][0], "inclusion"] = 1.0
    assert "gold" not in evaluated(rows, {"m": (SPACE, scores(rows, right=0.9))})["validation"]


def test_rows_that_stand_for_themselves_alone_are_no_gold_of_validation() -> None:
    rows = table(180)
    rows["inclusion"] = np.where(rows["gold.a"].isna(), np.nan, 0.25)  # as many have gold
    assert "gold" in evaluated(rows, {"m": (SPACE, scores(rows, right=0.9))})["validation"]
    rows["inclusion"] *= 4  # nobody could be asked about the others
    assert "gold" not in evaluated(rows, {"m": (SPACE, scores(rows, right=0.9))})["validation"]


def test_the_order_of_rows_is_no_matter() -> None:
    rows = table()
    given = scores(rows, right=0.9)
    assert evaluated(rows, {"m": (SPACE, given)}) == evaluated(rows, {"m": (SPACE, given[::-1])})


def test_baselines_are_in_every_table_and_teachers_in_golds() -> None:
    rows = table()
    rows["silver.a"], rows["silver.b"] = rows["label.a"], rows["label.b"]
    found = evaluated(rows, {"m": (SPACE, scores(rows, right=0.9))})
    for part in ("validation", "test"):
        assert set(found[part]["label"]) == {"majority", "stratified", "m"}
        assert set(found[part]["gold"]) == {"majority", "stratified", "m", "teachers"}
        assert found[part]["gold"]["teachers"]["overall"]["accuracy"]["value"] == 0


def test_stratified_draws_labels_as_often_as_training_has_them() -> None:
    rows = table(3000)
    rows[["label.a", "label.b"]] = np.eye(2)[(np.arange(3000) % 30 < 3).astype(int)]
    found = evaluated(rows, {})["test"]["label"]
    assert found["stratified"]["labels"]["b"]["decided"] == pytest.approx(100, abs=30)
    assert found["majority"]["labels"]["b"]["decided"] == 0
    assert found["stratified"]["overall"]["accuracy"]["value"] == pytest.approx(0.82, abs=0.03)


def test_scores_are_judged_as_probabilities_and_baselines_without_scores_are_not() -> None:
    rows = table()
    found = evaluated(rows, {"m": (SPACE, scores(rows, right=0.9))})["test"]["label"]
    assert found["m"]["overall"]["log_loss"]["value"] == pytest.approx(-np.log(0.9), abs=1e-6)
    assert found["majority"]["overall"]["log_loss"]["value"] is None


def test_every_candidate_is_compared_with_every_other_and_with_majority() -> None:
    rows = table(300)
    judges = {
        name: (SPACE, scores(rows, right=right))
        for name, right in zip("xyz", (0.9, 0.8, 0.2), strict=True)
    }
    rows["silver.a"], rows["silver.b"] = rows["label.b"], rows["label.a"]
    found = compared(rows, judges)
    assert {part: set(found[part]) for part in found} == {
        "validation": {"label", "gold"},
        "test": {"label", "gold"},
    }
    pairs = {tuple(pair["between"]): pair for pair in found["test"]["label"]}
    assert list(pairs) == [
        *(("x", "y"), ("x", "z"), ("y", "z")),
        *((name, "majority") for name in "xyz"),
    ]
    assert pairs["x", "y"]["verdict"] == "no difference shown"  # they decide alike
    assert pairs["x", "z"]["verdict"] == "better"
    assert pairs["z", "majority"]["verdict"] == "worse"
    on_gold = {tuple(pair["between"]): pair["verdict"] for pair in found["test"]["gold"]}
    assert on_gold["x", "teachers"] == "worse"
    assert on_gold["z", "teachers"] == "no difference shown"
    json.dumps(found, allow_nan=False)


def test_two_are_compared_without_correction_for_others() -> None:
    rows = table(300)
    judges = {"x": (SPACE, scores(rows, right=0.9)), "z": (SPACE, scores(rows, right=0.2))}
    how: dict[str, Any] = {"metric": "accuracy", "draws": 100, "seed": 0}
    pair = evaluation.compare_two(rows, judges, SPACE, part="test", reference="label", **how)
    assert pair["p"] == pair["p_holm"]
    assert comparison.told(pair).startswith(
        "x is better than z: accuracy +1.000 [1.000, 1.000], p < 0.001"
    )
    with pytest.raises(Problem, match="x and z: no row of part 'train' has a gold"):
        evaluation.compare_two(rows, judges, SPACE, part="train", reference="gold", **how)


def test_an_answer_missing_on_gold_makes_teachers_wrong() -> None:
    rows = table()
    rows[["gold.a", "gold.b"]] = rows[["label.a", "label.b"]].to_numpy()
    rows["silver.a"], rows["silver.b"] = rows["label.a"], rows["label.b"]
    rows.loc[rows["part"] == "test", ["silver.a", "silver.b"]] = np.nan
    found = evaluated(rows, {})["test"]["gold"]["teachers"]
    assert (found["valid"]["n"], found["overall"]["accuracy"]["value"]) == (0, 0)


def refused(rows: pd.DataFrame, given: pd.DataFrame, space: LabelSpace = SPACE) -> str:
    """The one line of trouble."""
    with pytest.raises(Problem) as caught:
        evaluation.evaluate_all(rows, {"m": (space, given)}, space, draws=100, seed=0)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_scores_that_do_not_fit_the_rows_are_refused_and_named() -> None:
    rows = table()
    good = scores(rows, right=0.9)
    assert refused(rows, good[:-1]) == "scores of m: 1 of 20 rows have no score"
    others = good.assign(id="x" + good["id"])
    assert refused(rows, others) == "scores of m: 20 of 20 rows have no score"
    twice = pd.concat([good, good[:1]])
    assert refused(rows, twice) == "scores of m: 1 ids stand twice"
    assert refused(rows, good.drop(columns="b")) == "scores of m: no column b"
    for value in (1.5, -0.1, np.nan, np.inf):
        assert re.fullmatch(
            r"scores of m: codebook c: row \d+ has a score outside 0..1 or not a number",
            refused(rows, good.assign(a=value)),
        )
    assert refused(rows, good.assign(a="high")) == "scores of m: a score is not a number"


def test_labels_that_nothing_can_be_said_of_are_refused_and_named() -> None:
    rows = table()
    given = scores(rows, right=0.9)
    one = rows.copy()
    one.loc[one["part"] == "validation", ["label.a", "label.b"]] = [[1.0, 0.0]]
    assert refused(one, given).startswith("label of the validation part: no row of b, so nothing can be")
    three = LabelSpace.of("c", ["a", "b", "c"])
    assert refused(
        rows.assign(**{"label.c": 0.0, "gold.c": 0.0 * rows["gold.a"]}), given.assign(c=0.0), three
    ).startswith("label of the validation part: no row of c")


def test_gold_that_does_not_fit_the_codebook_is_refused_and_named() -> None:
    rows = table()
    given = scores(rows, right=0.9)
    unknown = rows.assign(**{"gold.z": np.nan})
    assert refused(unknown, given) == "gold of codebook c: labels it doesn't have: z"
    assert refused(rows.drop(columns="gold.b"), given) == "gold of codebook c: no column for b"
    known = rows["gold.a"].notna()
    none = rows.assign(
        **{"gold.a": np.where(known, 0.0, np.nan), "gold.b": np.where(known, 0.0, np.nan)}
    )
    assert refused(none, given) == "gold of the validation part: 5 of 5 rows have not exactly one label"
    half = rows.assign(**{"gold.a": np.where(known, 0.0, np.nan), "gold.b": np.nan})
    assert refused(half, given).startswith(
        "gold of the validation part: 5 of 5 rows have a label neither"
    )
    two = rows.assign(**{"gold.a": np.where(known, 2.0, np.nan)})
    assert refused(two, given).startswith(
        "gold of the validation part: 5 of 5 rows have a label neither"
    )


def test_gold_may_lack_a_label_and_many_labels_a_row() -> None:
    rows = table()
    many = LabelSpace.of("c", ["a", "b"], many=True)
    rows.loc[rows["gold.a"].notna(), ["gold.a", "gold.b"]] = [[0.0, 0.0]]
    found = evaluation.evaluate_all(
        rows, {"m": (many, scores(rows, right=0.9))}, many, draws=100, seed=0
    )
    assert found["test"]["gold"]["m"]["overall"]["accuracy"]["value"] == 0


# Selection


def leaderboard(values: dict[str, float], shown: dict[frozenset[str], float]) -> tuple[dict, dict]:
    """What evaluation and comparisons say on validation; p is 0.0001 where `shown` doesn't name it."""
    values = {"majority": 0.2, "stratified": 0.3, **values}
    figures = {name: {"overall": {"macro_f1": {"value": value}}} for name, value in values.items()}
    names = [name for name in values if name != "stratified"]
    pairs = [
        {"between": [a, b], "metric": "macro_f1", "p": shown.get(frozenset((a, b)), 0.0001)}
        for at, a in enumerate(names)
        for b in names[at + 1 :]
    ]
    return {"validation": {"label": figures}}, {"validation": {"label": pairs}}


VALUES = {"tfidf": 0.75, "e5": 0.86, "bert": 0.88, "lora": 0.87}
COSTS = {
    "tfidf": {"ms": 0.1, "bytes": 1e6},
    "e5": {"ms": 1.2, "bytes": 9e7},
    "bert": {"ms": 5.1, "bytes": 9e7},
    "lora": {"ms": 80.0, "bytes": 1e9},
}


def pairs(p: dict[str, float]) -> dict[frozenset[str], float]:
    return {frozenset(names.split()): value for names, value in p.items()}


def chosen(
    p: dict[str, float],
    *,
    values: dict[str, float] = VALUES,
    costs: evaluation.Costs = COSTS,
    exportable: tuple[str, ...] = ("e5", "bert"),
) -> dict[str, Any]:
    figures, compared = leaderboard(values, pairs(p))
    return evaluation.select(figures, compared, costs, exportable, "macro_f1")


def test_who_is_shown_to_be_best_wins_whatever_it_costs() -> None:
    found = chosen({}, values={**VALUES, "lora": 0.95})
    assert (found["champion"], found["equals"]) == ("lora", ["lora"])
    assert found["why"] == "lora is best (0.950), and shown to be better than tfidf, e5 and bert"
    assert (found["encoder"], found["encoder_equals"]) == ("bert", ["bert"])
    assert found["encoder_why"] == "bert is best (0.880), and shown to be better than e5"
    assert found["metric"] == "macro_f1"
    assert found["values"] == {**VALUES, "lora": 0.95}  # no baseline


def test_the_cheaper_one_wins_where_no_difference_is_shown() -> None:
    found = chosen({"bert e5": 0.3})
    assert (found["champion"], found["encoder"]) == ("e5", "e5")
    assert found["equals"] == found["encoder_equals"] == ["bert", "e5"]
    assert found["why"] == (
        "bert is best (0.880); no difference shown to e5, which is cheaper (1.2 ms against 5.1 ms)"
    )


def test_a_slow_model_s_time_is_written_out() -> None:
    shown = [evaluation.two_digits(one) for one in (0.0961, 1.23, 5.1, 80.0, 441.0, 12345.0)]
    assert shown == ["0.096", "1.2", "5.1", "80", "440", "12,000"]


def test_the_best_wins_where_its_equal_is_not_cheaper() -> None:
    found = chosen({"bert lora": 0.3})
    assert (found["champion"], found["equals"]) == ("bert", ["bert", "lora"])
    assert found["why"] == (
        "bert is best (0.880); no difference shown to lora, which is not cheaper (5.1 ms against 80 ms)"
    )


def test_of_several_equals_the_cheapest_wins_and_they_stand_best_first() -> None:
    found = chosen({"bert e5": 0.3, "bert lora": 0.4, "bert tfidf": 0.2})
    assert found["equals"] == ["bert", "lora", "e5", "tfidf"]
    assert found["champion"] == "tfidf"
    assert found["why"] == (
        "bert is best (0.880); no difference shown to tfidf, e5 and lora, of which tfidf is cheapest "
        "(0.1 ms against 5.1 ms)"
    )
    assert found["encoder"] == "e5"


def test_only_the_best_has_equals_and_equals_of_equals_do_not_count() -> None:
    found = chosen({"bert e5": 0.3, "e5 tfidf": 0.9})
    assert (found["champion"], found["equals"]) == ("e5", ["bert", "e5"])


def test_p_is_corrected_for_the_comparisons_with_the_best_alone() -> None:
    # three comparisons: 0.02 × 2 and 0.03 × 1, then at least the one before
    assert chosen({"bert e5": 0.03, "bert lora": 0.02})["equals"] == ["bert"]
    assert chosen({"bert e5": 0.03, "bert lora": 0.026})["equals"] == ["bert", "lora", "e5"]
    # the encoder is compared with one other only, so 0.03 counts
    assert chosen({"bert e5": 0.03, "bert lora": 0.026})["encoder_equals"] == ["bert"]


@pytest.mark.parametrize(("ms", "champion"), [(4.3, "bert"), (4.2, "e5"), (5.9, "bert"), (6.2, "bert")])
def test_noise_of_a_latency_does_not_decide(ms: float, champion: str) -> None:
    costs = {**COSTS, "e5": {"ms": ms, "bytes": 9.1e7}}  # a little larger than bert
    assert chosen({"bert e5": 0.3}, costs=costs)["champion"] == champion


def test_of_those_about_as_fast_the_smaller_wins_then_the_better() -> None:
    smaller = {**COSTS, "e5": {"ms": 5.5, "bytes": 3e7}}
    found = chosen({"bert e5": 0.3}, costs=smaller)
    assert found["champion"] == "e5"
    assert found["why"].endswith("which is cheaper (about as fast, 30 MB against 90 MB)")
    alike = {**COSTS, "e5": {"ms": 4.9, "bytes": 9e7}}
    assert chosen({"bert e5": 0.3}, costs=alike)["champion"] == "bert"


def test_who_is_not_above_majority_never_wins_unless_nobody_is() -> None:
    p = {"bert tfidf": 0.5, "bert e5": 0.5}
    values = {"tfidf": 0.2, "e5": 0.19, "bert": 0.25}
    found = chosen(p, values=values)
    assert (found["champion"], found["equals"]) == ("bert", ["bert"])
    assert found["why"] == "bert is best (0.250); not above majority (0.200): tfidf and e5"
    below = chosen(p, values={"tfidf": 0.2, "e5": 0.19, "bert": 0.1})
    assert below["champion"] == "tfidf"
    assert below["why"].endswith("; none is above majority (0.200)")


def test_no_baseline_is_chosen_though_it_be_best() -> None:
    found = chosen(
        {},
        values={"stratified": 0.9, "majority": 0.8, "teachers": 0.99, "bert": 0.7},
        exportable=("bert",),
    )
    assert (found["champion"], found["encoder"]) == ("bert", "bert")
    assert found["values"] == {"bert": 0.7}
    assert found["why"] == "bert is best (0.700); none is above majority (0.800)"


def test_the_encoder_is_one_that_can_be_exported() -> None:
    found = chosen({}, values={**VALUES, "lora": 0.99}, exportable=("e5",))
    assert (found["champion"], found["encoder"], found["encoder_equals"]) == ("lora", "e5", ["e5"])
    with pytest.raises(Problem, match="no candidate can be exported"):
        chosen({}, exportable=())


def test_the_test_part_and_gold_do_not_choose() -> None:
    rows = table(300)
    judges = {"good": (SPACE, scores(rows, right=0.9)), "bad": (SPACE, scores(rows, right=0.1))}
    figures, pairs = evaluated(rows, judges), compared(rows, judges)
    costs = {name: {"ms": 1.0, "bytes": 1e6} for name in judges}
    found = evaluation.select(figures, pairs, costs, ["bad"], "macro_f1")
    assert (found["champion"], found["encoder"]) == ("good", "bad")
    turned, without = copy.deepcopy(figures), copy.deepcopy(pairs)
    turned["test"]["label"]["bad"]["overall"]["macro_f1"]["value"] = 2.0
    turned["validation"]["gold"]["bad"]["overall"]["macro_f1"]["value"] = 2.0
    without["test"] = {}
    assert evaluation.select(turned, without, costs, ["bad"], "macro_f1") == found
    json.dumps(found, allow_nan=False)


def test_a_comparison_or_a_cost_that_is_missing_is_named() -> None:
    figures, found = leaderboard(VALUES, {})
    with pytest.raises(Problem, match=r"^comparisons: bert was not compared with tfidf. Run"):
        evaluation.select(figures, {"validation": {"label": []}}, COSTS, ["bert"], "macro_f1")
    with pytest.raises(Problem, match=r"^cost.json: no cost of bert"):
        evaluation.select(figures, found, {"e5": COSTS["e5"]}, ["bert"], "macro_f1")


@pytest.mark.parametrize(
    ("p", "difference", "better"), [(0.01, 0.2, True), (0.01, -0.2, False), (0.2, 0.2, False)]
)
@pytest.mark.parametrize("turned", [False, True])
def test_a_mix_is_kept_only_where_it_is_shown_to_be_better_on_gold(
    p: float, difference: float, better: bool, turned: bool
) -> None:
    values = {**VALUES, "wide": 0.99}
    figures, found = leaderboard(values, pairs({}))
    one = {
        "between": ["bert", "wide"] if turned else ["wide", "bert"],
        "metric": "macro_f1",
        "difference": {"value": difference, "low": difference - 0.1, "high": difference + 0.15},
        "p": p,
        "n": 77,
    }
    if turned:
        one["difference"] = {"value": -difference, "low": -difference - 0.15, "high": -difference + 0.1}
    found["validation"]["gold"] = [one]
    costs = {**COSTS, "wide": {"ms": 0.001, "bytes": 1}}
    exportable = ["e5", "bert", "wide"]
    made = evaluation.select(figures, found, costs, exportable, "macro_f1", {"wide": "bert"})
    assert made["mixes"]["wide"]["kept"] is better
    assert (made["champion"] == made["encoder"] == "wide") is better
    assert "wide" not in made["why"] or better
    told = made["mixes"]["wide"]["difference"]
    assert [told[key] for key in ("value", "low", "high")] == pytest.approx(
        [difference, difference - 0.1, difference + 0.15]
    )


def test_a_twin_that_people_s_labels_showed_to_be_worse_can_not_win_by_being_cheaper() -> None:
    figures, found = leaderboard({**VALUES, "bert": 0.99, "wide": 0.99}, pairs({"bert wide": 0.9}))
    difference = {"value": 0.08, "low": 0.03, "high": 0.13}
    found["validation"]["gold"] = [
        {
            "between": ["wide", "bert"],
            "metric": "macro_f1",
            "difference": difference,
            "p": 0.001,
            "n": 77,
        }
    ]
    costs = {**COSTS, "wide": {"ms": 50.0, "bytes": 1e9}}
    made = evaluation.select(figures, found, costs, ["bert", "wide"], "macro_f1", {"wide": "bert"})
    assert made["champion"] == made["encoder"] == "wide"


def test_nothing_is_kept_where_people_labelled_nothing() -> None:
    figures, found = leaderboard({**VALUES, "wide": 0.99}, pairs({}))
    made = evaluation.select(figures, found, COSTS, ["e5", "bert"], "macro_f1", {"wide": "bert"})
    assert made["mixes"]["wide"] == {
        "twin": "bert", "difference": None, "p": None, "p_holm": None, "n": 0, "kept": False
    }  # fmt: skip
    assert made["champion"] != "wide"


def test_the_more_mixes_are_tried_the_clearer_one_has_to_be() -> None:
    def pair(name: str, p: float) -> dict[str, Any]:
        difference = {"value": 0.1, "low": 0.0, "high": 0.2}
        return {
            "between": [name, "bert"], "metric": "macro_f1", "difference": difference, "p": p, "n": 9
        }  # fmt: skip

    compared = {"validation": {"gold": [pair("one", 0.03), pair("other", 0.04)]}}
    assert evaluation.kept(compared, {"one": "bert"}, "macro_f1")["one"]["kept"]
    both = evaluation.kept(compared, {"one": "bert", "other": "bert"}, "macro_f1")
    assert [one["kept"] for one in both.values()] == [False, False]
    assert both["one"]["p_holm"] == pytest.approx(0.06)
