"""Where a bootstrap knows no doubt, the interval is exact, and a number without one is marked."""

import numpy as np
import pytest
from scipy.stats import binomtest

from undertone.labels import LabelSpace
from undertone.measures import evaluation, exact, metrics

SPACE = LabelSpace.of("c", ["a", "b"])


@pytest.mark.parametrize("groups", [1, 9, 35, 300])
@pytest.mark.parametrize("value", [0, 1])
def test_a_share_of_none_or_all_has_the_interval_of_clopper_and_pearson(value: int, groups: int) -> None:
    found = exact.share({"value": value, "low": value, "high": value}, groups)
    theirs = binomtest(value * groups, groups).proportion_ci(0.95, method="exact")
    assert (found["low"], found["high"]) == pytest.approx((theirs.low, theirs.high), abs=1e-6)


def test_a_share_between_keeps_the_interval_that_it_has() -> None:
    one = {"value": 0.5, "low": 0.4, "high": 0.6}
    assert exact.share(one, 9) == one
    nothing = {"value": None, "low": None, "high": None}
    assert exact.share(nothing, 9) == nothing
    alone = {"value": 0.5, "low": 0.5, "high": 0.5}
    assert exact.told(exact.share(alone, 1)) == "0.500†"


def test_only_groups_with_a_row_of_the_label_speak_for_its_recall() -> None:
    groups = np.array([0, 0, 1, 1, 2, 3, 4, 5])
    truth = np.eye(2, dtype=bool)[[0, 0, 0, 0, 1, 1, 1, 1]]
    found = metrics.evaluate(truth, truth, SPACE, groups=groups, draws=50, rng=np.random.default_rng(0))
    assert found["labels"]["a"]["recall"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    own = exact.shares(found, truth, truth, np.ones(8, dtype=bool), groups)
    assert own["labels"]["a"]["recall"]["low"] == pytest.approx(0.025 ** (1 / 2), abs=1e-6)
    assert own["labels"]["b"]["precision"]["low"] == pytest.approx(0.025 ** (1 / 4), abs=1e-6)
    assert own["overall"]["accuracy"]["low"] == pytest.approx(0.025 ** (1 / 6), abs=1e-6)
    assert own["overall"]["macro_f1"] == found["overall"]["macro_f1"]


def test_exact_shares_cover_what_is_true_as_often_as_they_promise() -> None:
    """Authors of one mind each: what is seen of n of them covers a share in at least 95 of 100 samples,
    while a bootstrap of a sample without an error never does."""
    rng, share, covered = np.random.default_rng(0), 0.95, []
    for _ in range(400):
        of_group = rng.random(30) < share
        groups = np.repeat(np.arange(30), rng.integers(1, 4, 30))
        right = of_group[groups].mean()
        if right in (0, 1):
            found = exact.share({"value": right, "low": right, "high": right}, 30)
            covered.append(found["low"] <= share <= found["high"])
    assert len(covered) > 40
    assert np.mean(covered) >= 0.95


def test_a_difference_has_the_intervals_of_both_its_parts() -> None:
    # Newcombe 1998, table II, (a): 56/70 less 48/80, method 10 of Wilson's intervals
    def wilson(count: int, rows: int) -> dict[str, float]:
        ends = binomtest(count, rows).proportion_ci(0.95, method="wilson")
        return {"value": count / rows, "low": ends.low, "high": ends.high}

    found = exact.difference(wilson(56, 70), wilson(48, 80))
    assert found == {
        "value": 0.2,
        "low": pytest.approx(0.0524, abs=1e-4),
        "high": pytest.approx(0.3339, abs=1e-4),
    }
    unknown = {"value": None, "low": None, "high": None}
    assert exact.difference(wilson(1, 2), unknown) == unknown


def test_figures_are_told_with_their_interval_or_the_mark() -> None:
    wide, narrow = {"value": 0.5, "low": 0.4, "high": 0.6}, {"value": 1.0, "low": 1.0, "high": 1.0}
    assert (exact.told(wide), exact.told(narrow)) == ("0.500 [0.400, 0.600]", "1.000†")
    assert (exact.signed(wide), exact.signed(narrow)) == ("+0.500 [+0.400, +0.600]", "+1.000†")
    nothing = {"value": None, "low": None, "high": None}
    assert exact.told(nothing) == exact.signed(nothing) == ""


def test_a_rule_that_answers_every_text_has_a_coverage_with_an_interval() -> None:
    from tests import outcomes

    rows = outcomes.table()
    always = outcomes.space(abstain=0.0)
    found = evaluation.curves(
        rows, {"good": (always, outcomes.judges(rows)["good"][1])}, always, draws=50, seed=0
    )["good"]["answered"]
    assert found["coverage"]["value"] == 1
    assert found["coverage"]["low"] == pytest.approx(0.025 ** (1 / 60), abs=1e-6)
