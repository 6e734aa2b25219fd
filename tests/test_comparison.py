"""A verdict "better" is false in at most one table of twenty, and comes where there is a difference."""

import itertools
from typing import Any

import numpy as np
import pytest
from scipy import stats

from undertone.errors import Problem
from undertone.labels import LabelSpace
from undertone.measures import comparison, metrics

METRICS: list[comparison.Metric] = ["macro_f1", "micro_f1", "accuracy"]
SHARES = np.array([0.6, 0.25, 0.15])
EYE = np.eye(3, dtype=bool)


def confusion(right: float) -> np.ndarray:
    """[true, decided]: errors fall on the other labels alike."""
    return np.where(EYE, right, (1 - right) / 2)


def sample(
    rng: np.random.Generator, rows: int, confusions: list[np.ndarray], *, authors: int, alike: float = 0
) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """Truth, decisions and groups; `alike`: the share of rows on which an author's topic, and what a
    candidate makes of the author, decide."""
    groups = np.arange(rows) % authors

    def chance() -> np.ndarray:
        return np.where(rng.random(rows) < alike, rng.random(authors)[groups], rng.random(rows))

    def label(shares: np.ndarray) -> np.ndarray:
        return (chance()[:, None] > np.cumsum(shares, axis=-1)[..., :-1]).sum(axis=1)

    truth = label(np.broadcast_to(SHARES, (rows, 3)))
    decided = {f"m{at}": EYE[label(one[truth])] for at, one in enumerate(confusions)}
    return EYE[truth], decided, groups


def compared(
    truth: np.ndarray, decided: dict[str, np.ndarray], groups: np.ndarray, **given: Any
) -> list[dict]:
    given = {"metric": "macro_f1", "answered": {}, "draws": 100, "seed": 0, **given}
    pairs = given.pop("pairs", list(itertools.pairwise(decided)))
    rng = np.random.default_rng(given.pop("seed"))
    return comparison.compare(truth, decided, pairs, groups=groups, rng=rng, **given)


def equally_good(metric: comparison.Metric) -> list[np.ndarray]:
    """Twelve with equal population figures; every second one makes other errors than the rest, which
    for macro-F1 can't be swapped: it leans to the rarest label, the others to the commonest."""
    if metric == "accuracy":
        first, second = confusion(0.7), np.where(EYE, 0.7, np.roll(EYE, 1, axis=1) * 0.3)
        return [first, second] * 6

    def leaning(label: int, share: float) -> np.ndarray:
        return (1 - share) * confusion(0.7) + share * EYE[label]

    def macro_f1(one: np.ndarray) -> float:
        return float((2 * SHARES * np.diag(one) / (SHARES + SHARES @ one)).mean())

    first = leaning(0, 0.25)
    shares = np.linspace(0, 1, 10_001)
    far = [abs(macro_f1(leaning(2, share)) - macro_f1(first)) for share in shares]
    return [first, leaning(2, shares[int(np.argmin(far))])] * 6


DISJOINT = [(f"m{at}", f"m{at + 1}") for at in range(0, 12, 2)]


@pytest.mark.parametrize(("authors", "alike"), [(200, 0), (40, 0.5)])
@pytest.mark.parametrize("metric", ["macro_f1", "accuracy"])
def test_equally_good_candidates_are_told_apart_in_one_case_of_twenty(
    metric: comparison.Metric, authors: int, alike: float
) -> None:
    rng = np.random.default_rng(7)
    confusions = equally_good(metric)
    p, tables = [], []
    for seed in range(100):
        truth, decided, groups = sample(rng, 200, confusions, authors=authors, alike=alike)
        found = compared(truth, decided, groups, metric=metric, pairs=DISJOINT, seed=seed)
        p += [pair["p"] for pair in found]
        tables.append(any(pair["verdict"] != "no difference shown" for pair in found))
    assert 0.02 <= np.mean(np.array(p) <= 0.05) <= 0.07
    assert np.mean(tables) <= 0.10  # two standard errors above 5 %


def test_rows_of_one_author_do_not_count_as_independent() -> None:
    rng = np.random.default_rng(3)
    together, apart = [], []
    for seed in range(40):
        truth, decided, groups = sample(rng, 400, [confusion(0.7)] * 12, authors=40, alike=0.9)
        for found, of in ((together, groups), (apart, np.arange(400))):
            pairs = compared(truth, decided, of, metric="accuracy", pairs=DISJOINT, seed=seed)
            found += [(pair["p"] <= 0.05, pair["mcnemar"]["p"] <= 0.05) for pair in pairs]
    assert np.all(np.mean(apart, axis=0) > 0.2)  # the swap test and McNemar's, wrongly used
    assert np.all(np.mean(together, axis=0) < 0.09)


@pytest.mark.parametrize("metric", METRICS)
def test_a_real_difference_is_shown(metric: comparison.Metric) -> None:
    rng = np.random.default_rng(1)
    better = 0
    for seed in range(25):
        truth, decided, groups = sample(
            rng, 500, [confusion(0.82), confusion(0.7)], authors=150, alike=0.2
        )
        (pair,) = compared(truth, decided, groups, metric=metric, seed=seed)
        better += pair["verdict"] == "better"
    assert better >= 22


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("metric", METRICS)
def test_the_difference_is_that_of_the_tables_figures(metric: comparison.Metric, many: bool) -> None:
    rng = np.random.default_rng(2)
    truth, decided, groups = sample(rng, 150, [confusion(0.8), confusion(0.6)], authors=50)
    if many:
        truth, decided = (
            truth | (rng.random(truth.shape) < 0.2),
            {name: flags | (rng.random(flags.shape) < 0.2) for name, flags in decided.items()},
        )
    answered = {"m0": rng.random(150) < 0.8}
    (pair,) = compared(truth, decided, groups, metric=metric, answered=answered)
    value = {
        name: metrics.evaluate(
            truth,
            flags,
            LabelSpace.of("c", ["a", "b", "c"], many=many),
            answered=answered.get(name),
            groups=groups,
            draws=100,
            rng=np.random.default_rng(0),
        )["overall"][metric]["value"]
        for name, flags in decided.items()
    }
    assert pair["difference"]["value"] == pytest.approx(value["m0"] - value["m1"], abs=2e-6)
    assert pair["difference"]["low"] < pair["difference"]["value"] < pair["difference"]["high"]
    assert (pair["n"], pair["groups"]) == (150, 50)


def test_the_interval_is_of_the_difference_also_where_no_row_has_a_label() -> None:
    truth = EYE[[0, 1] * 20]
    decided = {"right": truth, "wrong": EYE[[1, 0] * 20]}
    (found,) = compared(truth, decided, np.arange(40))
    assert found["difference"] == {"value": 0.666667, "low": 0.666667, "high": 0.666667}


def test_the_interval_of_a_difference_covers_it_and_is_narrower_than_two_unpaired_ones() -> None:
    rng = np.random.default_rng(5)
    covered, narrower = 0, 0
    for seed in range(100):
        truth, decided, groups = sample(rng, 300, [confusion(0.6)], authors=60, alike=0.3)
        # corrects what the first has wrong in a third of the cases
        mended = np.where((rng.random(300) < 1 / 3)[:, None], truth, decided["m0"])
        decided = {"better": mended, **decided}
        (pair,) = compared(truth, decided, groups, metric="accuracy", draws=300, seed=seed)
        low, high = pair["difference"]["low"], pair["difference"]["high"]
        covered += low <= 0.4 / 3 <= high
        alone = metrics.evaluate(
            truth,
            mended,
            LabelSpace.of("c", ["a", "b", "c"]),
            groups=groups,
            draws=300,
            rng=np.random.default_rng(seed),
        )["overall"]["accuracy"]
        narrower += high - low < alone["high"] - alone["low"]
    assert covered >= 90
    assert narrower >= 90


def test_p_is_that_of_all_swaps_where_they_can_be_counted() -> None:
    # 8 authors; the first candidate is right on 6 that the second has wrong, the second on 1
    truth = EYE[np.zeros(8, dtype=int)]
    first = EYE[[0, 0, 0, 0, 0, 0, 1, 0]]
    second = EYE[[1, 1, 1, 1, 1, 1, 0, 0]]
    (pair,) = compared(truth, {"a": first, "b": second}, np.arange(8), metric="accuracy")
    assert pair["p"] == pytest.approx(stats.binomtest(1, 7).pvalue, abs=0.01)
    assert pair["difference"]["value"] == 5 / 8


def test_who_decides_alike_or_on_few_authors_is_not_told_apart() -> None:
    rng = np.random.default_rng(4)
    truth, decided, groups = sample(rng, 100, [confusion(0.7)], authors=50)
    (pair,) = compared(truth, {"a": decided["m0"], "b": decided["m0"].copy()}, groups)
    assert (pair["p"], pair["p_holm"], pair["verdict"]) == (1, 1, "no difference shown")
    assert pair["difference"] == {"value": 0, "low": 0, "high": 0}
    assert pair["mcnemar"] == {"b": 0, "c": 0, "p": 1, "method": "clustered"}
    # wholly right against wholly wrong, but all of it by four authors
    (pair,) = compared(truth, {"a": truth, "b": ~truth}, np.arange(100) % 4)
    assert pair["verdict"] == "no difference shown"


def test_the_other_way_round_all_is_turned_round() -> None:
    rng = np.random.default_rng(6)
    truth, decided, groups = sample(rng, 300, [confusion(0.85), confusion(0.6)], authors=100)
    (one,) = compared(truth, decided, groups, pairs=[("m0", "m1")])
    (other,) = compared(truth, decided, groups, pairs=[("m1", "m0")])
    assert (one["verdict"], other["verdict"]) == ("better", "worse")
    assert one["difference"]["value"] == -other["difference"]["value"]
    assert one["difference"]["low"] == pytest.approx(-other["difference"]["high"], abs=1e-6)
    assert (one["mcnemar"]["b"], one["mcnemar"]["c"]) == (other["mcnemar"]["c"], other["mcnemar"]["b"])


def test_no_valid_answer_is_wrong_also_where_the_truth_is_no_label() -> None:
    truth = np.zeros((40, 3), dtype=bool)
    decided = {"answers": truth, "silent": truth}
    answered = {"silent": np.arange(40) < 10}
    (pair,) = compared(truth, decided, np.arange(40), metric="accuracy", answered=answered)
    assert (pair["mcnemar"]["b"], pair["mcnemar"]["c"]) == (30, 0)
    assert pair["verdict"] == "better"
    assert pair["difference"]["value"] == 0.75


def test_mcnemars_mid_p_is_the_published_one() -> None:
    # Fagerland, Lydersen & Laake 2013, table 1 (airway hyper-responsiveness): 1 and 7 of 21 pairs
    one, other = np.arange(21) < 1, (np.arange(21) >= 1) & (np.arange(21) < 8)
    found = comparison.mcnemar(one, other, np.arange(21))
    assert found == {"b": 1, "c": 7, "p": pytest.approx(0.0391, abs=5e-5), "method": "mid-p"}


def test_mcnemars_clustered_test_is_mcnemars_where_no_group_has_two_that_differ() -> None:
    rng = np.random.default_rng(8)
    one, other = rng.random(600) < 0.8, rng.random(600) < 0.7
    groups = np.arange(600)
    same = np.flatnonzero(one == other)
    groups[same[1]] = same[0]  # one author has two rows, and says nothing
    found = comparison.mcnemar(one, other, groups)
    b, c = found["b"], found["c"]
    assert found["method"] == "clustered"
    assert found["p"] == pytest.approx(stats.chi2.sf((b - c) ** 2 / (b + c), 1), rel=1e-3)


def test_holms_correction_is_his() -> None:
    assert comparison.holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert comparison.holm([0.9, 0.8]).tolist() == [1, 1]
    assert comparison.holm([]).tolist() == []


def test_p_is_corrected_for_all_pairs_of_the_table() -> None:
    rng = np.random.default_rng(9)
    truth, decided, groups = sample(rng, 200, [confusion(0.7)] * 4 + [confusion(0.5)], authors=200)
    found = compared(truth, decided, groups, pairs=list(itertools.combinations(decided, 2)))
    p = [pair["p"] for pair in found]
    assert len(p) == 10
    np.testing.assert_allclose([pair["p_holm"] for pair in found], comparison.holm(p), rtol=1e-3)
    for pair in found:
        assert (pair["verdict"] == "no difference shown") == (pair["p_holm"] > 0.05)
    assert {pair["verdict"] for pair in found} == {"better", "no difference shown"}


def test_a_clear_difference_is_shown_also_in_a_table_of_a_hundred_pairs() -> None:
    rng = np.random.default_rng(10)
    truth, decided, groups = sample(
        rng, 200, [confusion(0.7)] * 13 + [confusion(0.99), confusion(0.3)], authors=200
    )
    found = compared(truth, decided, groups, pairs=list(itertools.combinations(decided, 2)))
    assert len(found) == 105
    assert found[-1]["between"] == ["m13", "m14"]
    assert found[-1]["verdict"] == "better"


def test_the_same_seed_gives_the_same_figures() -> None:
    rng = np.random.default_rng(11)
    truth, decided, groups = sample(rng, 100, [confusion(0.8), confusion(0.7)], authors=30)
    assert compared(truth, decided, groups) == compared(truth, decided, groups)
    assert compared(truth, decided, groups + 1000) == compared(truth, decided, groups)


def test_a_comparison_is_told_in_a_line() -> None:
    found = {
        "between": ["bert", "tfidf"],
        "metric": "macro_f1",
        "difference": {"value": 0.132, "low": 0.101, "high": 0.164},
        "p_holm": 0.0001,
        "verdict": "better",
        "mcnemar": {"b": 112, "c": 31},
        "n": 897,
        "groups": 412,
    }
    assert comparison.told(found) == (
        "bert is better than tfidf: macro-F1 +0.132 [0.101, 0.164], p < 0.001 (McNemar 112:31), "
        "897 texts of 412 authors"
    )
    unclear = {**found, "verdict": "no difference shown", "p_holm": 0.21, "groups": 897}
    assert comparison.told(unclear) == (
        "no difference shown between bert and tfidf: macro-F1 +0.132 [0.101, 0.164], p = 0.210 "
        "(McNemar 112:31), 897 texts"
    )


def test_what_can_not_be_compared_is_refused_by_name() -> None:
    none = np.zeros((0, 3), dtype=bool)
    with pytest.raises(Problem, match="no rows to compare"):
        compared(none, {"a": none, "b": none}, np.arange(0))
    rows = np.zeros((4, 3), dtype=bool)
    with pytest.raises(Problem, match=r"^short: decisions \(3, 3\) on a truth of \(4, 3\)"):
        compared(rows, {"a": rows, "short": rows[1:]}, np.arange(4))
