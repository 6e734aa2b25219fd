"""Votes become labels: tie rules by hand, Dawid-Skene as crowd-kit's, planted accuracies found again."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from undertone.annotation import fuse
from undertone.annotation.fuse import Fused, Votes
from undertone.errors import Problem
from undertone.labels import LabelSpace
from undertone.params import Fuse

ABC = LabelSpace.of("tiny", ["a", "b", "c"])
MANY = LabelSpace.of("tiny", ["a", "b", "c"], many=True)
FOUR = LabelSpace.of("four", ["a", "b", "c", "d"])
SHARES = (0.43, 0.35, 0.13, 0.09)
NAN = np.nan


def how(method: str = "majority", **changes: object) -> Fuse:
    plain: dict[str, object] = {"method": method, "tie": "none", "min_votes": 1, "weights": {}}
    return Fuse.model_validate(plain | changes)


def cast(*voters: str, labels: str = "abc") -> Votes:
    """One string a voter, one label a row; `.` where it gave no valid answer."""
    flags = {label: list(row) for label, row in zip(labels, np.eye(len(labels)), strict=True)}
    return np.array([[flags.get(said, [NAN] * len(labels)) for said in row] for row in voters])


def ticked(*voters: str) -> Votes:
    """One string a voter, rows of 0 and 1 a label, `...` where it gave no valid answer."""
    flags = {"0": 0.0, "1": 1.0, ".": NAN}
    return np.array([[[flags[flag] for flag in row] for row in one.split()] for one in voters])


def fused(
    votes: Votes,
    settings: Fuse,
    space: LabelSpace,
    *,
    voters: Sequence[str] = (),
    groups: np.ndarray | None = None,
    draws: int = 100,
) -> Fused:
    return fuse.fuse(
        votes,
        voters or [f"v{at}" for at in range(len(votes))],
        settings,
        space,
        groups=np.arange(votes.shape[1]) if groups is None else groups,
        draws=draws,
        rng=np.random.default_rng(0),
    )


def said(scores: np.ndarray, labels: str = "abc") -> str:
    """What `LabelSpace.decide` makes of scores, one letter a row, `.` for a row without."""
    space = LabelSpace.of("tiny", list(labels))
    return "".join(
        "." if np.isnan(row).any() else labels[space.decide(row[None]).argmax()] for row in scores
    )


def ticks(scores: np.ndarray) -> str:
    rows = ["..." if np.isnan(row).any() else MANY.decide(row[None])[0].astype(int) for row in scores]
    return " ".join("".join(str(flag) for flag in row) for row in rows)


def simulated(
    seed: int,
    rows: int,
    accuracies: Sequence[float],
    *,
    missing: float = 0.0,
    shares: Sequence[float] = SHARES,
) -> tuple[Votes, np.ndarray]:
    """Votes [voters, rows, labels] with errors that fall evenly on the other labels, and the truth."""
    rng = np.random.default_rng(seed)
    labels = len(shares)
    truth = rng.choice(labels, rows, p=shares)
    votes = np.empty((len(accuracies), rows, labels))
    for at, accuracy in enumerate(accuracies):
        wrong = (truth + rng.integers(1, labels, rows)) % labels
        votes[at] = np.eye(labels)[np.where(rng.random(rows) < accuracy, truth, wrong)]
        votes[at, rng.random(rows) < missing] = NAN
    return votes[:, ~np.isnan(votes).all(axis=(0, 2))], truth[~np.isnan(votes).all(axis=(0, 2))]


def simulated_many(
    seed: int, rows: int, rates: Sequence[tuple[float, float]]
) -> tuple[Votes, np.ndarray]:
    """Votes on three labels by voters with a sensitivity and a specificity, and the truth."""
    rng = np.random.default_rng(seed)
    truth = rng.random((rows, 3)) < (0.5, 0.25, 0.12)
    votes = [
        np.where(truth, rng.random(truth.shape) < sensitivity, rng.random(truth.shape) >= specificity)
        for sensitivity, specificity in rates
    ]
    return np.array(votes, dtype=np.float64), truth


def crowd_kits(votes: Votes) -> np.ndarray:
    """Posteriors [n, labels] of crowd-kit's Dawid-Skene, run on long after it would stop."""
    from crowdkit.aggregation import DawidSkene  # seconds, and each worker collects

    voter, row = np.nonzero(~np.isnan(votes[:, :, 0]))
    answer = votes[voter, row].argmax(axis=1)
    table = pd.DataFrame({"task": row, "worker": voter, "label": answer})
    found = DawidSkene(n_iter=80, tol=-1).fit_predict_proba(table)
    return (
        found.reindex(range(votes.shape[1]))
        .reindex(columns=range(votes.shape[2]), fill_value=0)
        .to_numpy()
    )


def accuracy(fused: Fused, voter: str) -> float:
    value = fused.teachers[voter]["accuracy"]["value"]
    assert value is not None
    return float(value)


def covered(fused: Fused, planted: Sequence[float]) -> list[bool]:
    shown = [teacher["accuracy"] for teacher in fused.teachers.values()]
    return [one["low"] <= true <= one["high"] for one, true in zip(shown, planted, strict=True)]


@pytest.mark.parametrize(("tie", "labels"), [("none", "a..c"), ("commonest", "accc")])
def test_each_tie_rule_decides_as_it_says(tie: str, labels: str) -> None:
    votes = cast("acbc", "abcc", "c..b")  # the middle rows tie b and c; in all rows b has 3 votes, c 5
    result = fused(votes, how(tie=tie), ABC)
    assert said(result.scores) == labels
    assert result.dropped == ({"tie": 2} if tie == "none" else {})
    assert fuse.majority(votes, many=False, tie=tie)[1].tolist() == [False, True, True, False]


def test_labels_as_common_as_each_other_go_by_the_codebook() -> None:
    assert said(fused(cast("c", "b"), how(tie="commonest"), ABC).scores) == "b"


@pytest.mark.parametrize(("tie", "labels"), [("none", ".."), ("commonest", "aa")])
def test_a_posterior_without_a_winner_is_a_tie_too(tie: str, labels: str) -> None:
    votes = cast("a" * 50 + "b" * 50 + "a" * 10 + "b" * 10, "a" * 50 + "b" * 50 + "b" * 10 + "a" * 10)
    result = fused(votes, how("dawid_skene", tie=tie), ABC)
    assert said(result.scores[[100, 110]]) == labels
    assert result.dropped == ({"tie": 20} if tie == "none" else {})


@pytest.mark.parametrize(("tie", "flags"), [("none", "110 ... 100"), ("commonest", "110 110 100")])
def test_of_many_labels_each_ties_by_itself(tie: str, flags: str) -> None:
    # in the middle row b and c tie; in all rows 5 of 9 have b, 1 of 9 has c
    votes = ticked("110 101 100", "110 110 100", "110 ... 100", "010 ... ...")
    result = fused(votes, how(tie=tie), MANY)
    assert ticks(result.scores) == flags
    assert result.dropped == ({"tie": 1} if tie == "none" else {})


def test_none_of_many_labels_is_an_answer() -> None:
    result = fused(ticked("000 100", "000 100", "100 100"), how(), MANY)
    assert ticks(result.scores) == "000 100"
    np.testing.assert_allclose(result.scores[0], [1 / 3, 0, 0])


def test_scores_are_the_shares_of_the_votes() -> None:
    scores = fused(cast("aab", "aac", "bac"), how(), ABC).scores
    np.testing.assert_allclose(scores, [[2 / 3, 1 / 3, 0], [1, 0, 0], [0, 1 / 3, 2 / 3]])


def test_a_weighty_voter_overrules_two_others_and_makes_ties() -> None:
    votes = cast("aa", "bb", "bc")
    assert said(fused(votes, how("weighted", weights={"v0": 2.5}), ABC).scores) == "aa"
    assert said(fused(votes, how("weighted", weights={"v1": 0.1, "v2": 0.2}), ABC).scores) == "aa"
    tied = fused(votes, how("weighted", weights={"v0": 0.3, "v1": 0.1, "v2": 0.2}), ABC)
    assert (said(tied.scores), tied.dropped) == (".a", {"tie": 1})  # 0.1 + 0.2 is 0.3 here
    assert said(fused(votes, how("majority", weights={"v0": 2.5}), ABC).scores) == "b."


def test_a_weight_of_no_voter_is_refused() -> None:
    with pytest.raises(Problem, match=r"fuse\.weights: weights of no voter: v9; the voters are v0, v1"):
        fused(cast("a", "b"), how("weighted", weights={"v9": 2.0}), ABC)


@pytest.mark.parametrize("method", ["majority", "dawid_skene"])
def test_rows_with_too_few_votes_have_no_label(method: str) -> None:
    votes = cast("aab.", "a.b.", "a...")
    result = fused(votes, how(method, min_votes=2), ABC)
    assert said(result.scores) == "a.b."
    assert result.dropped == {"too few votes": 2}
    assert [teacher["n"] for teacher in result.teachers.values()] == [2, 2, 1]
    assert said(fused(votes, how(method), ABC).scores) == "aab."
    with pytest.raises(Problem, match="no row has 4 valid votes"):
        fused(votes, how(method, min_votes=4), ABC)


def test_a_row_that_ties_among_too_few_votes_is_counted_once() -> None:
    assert fused(cast("aa", "bb", "b."), how(min_votes=3), ABC).dropped == {"too few votes": 1}


@given(
    st.lists(st.tuples(*[st.sampled_from("abc.")] * 4), min_size=1, max_size=6),
    st.sampled_from(["none", "commonest"]),
)
@effort(deadline=None, max_examples=150)
def test_the_majority_is_what_counting_by_hand_gives(rows: list[tuple[str, ...]], tie: str) -> None:
    scores, ties = fuse.majority(cast(*zip(*rows, strict=True)), many=False, tie=tie)  # type: ignore[arg-type]
    everywhere = "".join("".join(row) for row in rows)
    for row, score, tied in zip(rows, scores, ties, strict=True):
        counts = {label: row.count(label) for label in "abc"}
        best = [label for label in "abc" if counts[label] == max(counts.values())]
        by_rule = {
            "none": ".",
            "commonest": max(best, key=everywhere.count),
        }
        silent = set(row) == {"."}
        expected = "." if silent else best[0] if len(best) == 1 else by_rule[tie]
        assert said(score[None]) == expected
        assert tied == (len(best) > 1 and not silent)


@pytest.mark.parametrize("seed", range(2))
def test_dawid_skene_is_crowd_kits(seed: int) -> None:
    votes, _ = simulated(seed, 500, [0.9, 0.8, 0.75, 0.85, 0.8], missing=0.1)
    scores = fused(votes, how("dawid_skene"), FOUR).scores
    np.testing.assert_allclose(scores, crowd_kits(votes), atol=1e-6)


def test_dawid_skene_of_many_labels_is_crowd_kits_by_label() -> None:
    votes, _ = simulated_many(1, 500, [(0.9, 0.95), (0.85, 0.9), (0.9, 0.9), (0.8, 0.9), (0.9, 0.85)])
    votes[2, :40] = NAN
    scores = fused(votes, how("dawid_skene"), MANY).scores
    for label in range(3):
        yes_no = np.stack([1 - votes[:, :, label], votes[:, :, label]], axis=2)
        np.testing.assert_allclose(scores[:, label], crowd_kits(yes_no)[:, 1], atol=1e-6)


def test_a_label_that_nobody_gave_gets_no_posterior() -> None:
    votes, _ = simulated(0, 200, [0.9, 0.8, 0.7], shares=(0.5, 0.3, 0.2))
    wider = np.insert(votes, 1, 0, axis=2)
    scores = fused(wider, how("dawid_skene"), FOUR).scores
    assert (scores[:, 1] == 0).all()
    narrow = fused(votes, how("dawid_skene"), ABC).scores
    np.testing.assert_array_equal(np.delete(scores, 1, axis=1), narrow)


def test_a_thousand_voters_do_not_underflow() -> None:
    votes, truth = simulated(0, 40, [0.5] * 1000)
    scores = fused(votes, how("dawid_skene"), FOUR, draws=5).scores
    np.testing.assert_allclose(scores.sum(axis=1), 1)
    assert (scores.argmax(axis=1) == truth).mean() > 0.95


PANELS = {
    "a bad voter": [0.92, 0.85, 0.4],
    "two bad voters": [0.93, 0.88, 0.85, 0.45, 0.4],
    "five of a kind": [0.9, 0.85, 0.8, 0.75, 0.7],
}


@pytest.mark.parametrize("panel", PANELS)
def test_dawid_skene_beats_the_majority(panel: str) -> None:
    gains = []
    for seed in range(5):
        votes, truth = simulated(seed, 4000, PANELS[panel])
        fit = fused(votes, how("dawid_skene"), FOUR, draws=2).scores
        vote = fused(votes, how(tie="commonest"), FOUR, draws=2).scores
        gains.append((fit.argmax(axis=1) == truth).mean() - (vote.argmax(axis=1) == truth).mean())
    assert min(gains) > 0
    assert np.mean(gains) > (0.01 if "bad" in panel else 0.001)


def biased(votes: Votes, truth: np.ndarray, seed: int) -> tuple[Votes, float]:
    """The votes, but a last voter who is right, save that it calls a third of the commonest label's
    rows by the rarest's name; and its accuracy."""
    third = np.random.default_rng([seed, 1]).random(len(truth)) < 1 / 3
    said = np.where((truth == 0) & third, 3, truth)
    return np.concatenate([votes[:-1], np.eye(4)[said][None]]), 1 - SHARES[0] / 3


def test_dawid_skene_beats_the_majority_where_a_voter_is_biased() -> None:
    for seed in range(5):
        votes, truth = simulated(seed, 1500, [0.85, 0.75, 0.9])
        votes, _ = biased(votes, truth, seed)
        fit = fused(votes, how("dawid_skene"), FOUR, draws=2).scores
        vote = fused(votes, how(tie="commonest"), FOUR, draws=2).scores
        assert (fit.argmax(axis=1) == truth).mean() > (vote.argmax(axis=1) == truth).mean() + 0.01


# sensitivity and specificity: two of them see labels everywhere
MIXED = [(0.92, 0.95), (0.95, 0.6), (0.9, 0.55), (0.85, 0.9), (0.8, 0.65)]


def test_dawid_skene_beats_the_majority_on_many_labels() -> None:
    for seed in range(5):
        votes, truth = simulated_many(seed, 1500, MIXED)
        fit = fused(votes, how("dawid_skene"), MANY, draws=2).scores
        vote = fused(votes, how(), MANY, draws=2).scores
        assert ((fit >= 0.5) == truth).mean() > ((vote >= 0.5) == truth).mean() + 0.005


def test_planted_accuracies_lie_in_their_intervals_nineteen_times_of_twenty() -> None:
    """Errors fall evenly on the other labels here, as the accuracies beside a majority need it."""
    for method in ("dawid_skene", "majority"):
        hits = []
        for planted, seeds in (([0.92, 0.87, 0.82], 30), ([0.92, 0.87, 0.83, 0.79, 0.45], 12)):
            for seed in range(seeds):
                votes, _ = simulated(seed, 600, planted, missing=0.05)
                hits += covered(fused(votes, how(method), FOUR, draws=200), planted)
        assert 0.9 <= np.mean(hits) <= 0.99, method


def test_dawid_skene_finds_the_accuracy_of_a_biased_voter() -> None:
    hits = []
    for seed in range(25):
        votes, truth = simulated(seed, 900, [0.9, 0.85, 0.9])
        votes, last = biased(votes, truth, seed)
        hits += covered(fused(votes, how("dawid_skene"), FOUR, draws=200), [0.9, 0.85, last])
    assert 0.87 <= np.mean(hits) <= 1


def test_planted_accuracies_of_many_labels_lie_in_their_intervals() -> None:
    rates = (0.5, 0.25, 0.12)
    planted = [np.mean([rate * a + (1 - rate) * b for rate in rates]) for a, b in MIXED]
    hits = []
    for seed in range(20):
        votes, _ = simulated_many(seed, 900, MIXED)
        hits += covered(fused(votes, how("dawid_skene"), MANY, draws=200), planted)
    assert 0.87 <= np.mean(hits) <= 1


def test_agreement_with_the_majority_would_flatter_and_the_accuracy_does_not() -> None:
    votes, _ = simulated(0, 4000, [0.8, 0.8, 0.8])
    result = fused(votes, how(), FOUR)
    for voter, teacher in result.teachers.items():
        confusion = np.array(teacher["confusion"])
        assert np.trace(confusion) / confusion.sum() > 0.84
        assert accuracy(result, voter) == pytest.approx(0.8, abs=0.025)


@pytest.mark.parametrize("method", ["majority", "dawid_skene"])
@pytest.mark.parametrize("others", [2, 4])
def test_who_is_always_wrong_in_the_same_way_turns_nothing_round(method: str, others: int) -> None:
    votes, truth = simulated(5, 1500, [0.88, 0.85, 0.85, 0.82][:others])
    liar = np.eye(4)[(truth + 1) % 4]
    votes = np.concatenate([liar[None], votes])
    result = fused(votes, how(method, tie="commonest"), FOUR)
    vote = fused(votes, how(tie="commonest"), FOUR).scores.argmax(axis=1)
    label = result.scores.argmax(axis=1)
    assert (label == truth).mean() >= (vote == truth).mean()
    at_one = (votes[1:] == votes[1]).all(axis=(0, 2)) & (vote == truth)
    assert at_one.any()
    assert (label == truth)[at_one].all()
    assert accuracy(result, "v0") < 0.1  # and it is told
    assert all(accuracy(result, f"v{at}") > 0.78 for at in range(1, others + 1))


def test_confusions_have_the_fused_label_in_their_rows() -> None:
    teachers = fused(cast("aab", "aab", "acb"), how(), ABC).teachers
    assert teachers["v2"]["confusion"] == [[1, 0, 1], [0, 1, 0], [0, 0, 0]]
    many = fused(ticked("110 000", "110 000", "011 000"), how(), MANY).teachers["v2"]["labels"]
    assert many["a"]["confusion"] == [[1, 0], [1, 0]]
    assert many["c"]["confusion"] == [[1, 1], [0, 0]]


@pytest.mark.parametrize("method", ["majority", "dawid_skene"])
@pytest.mark.parametrize("voters", [1, 2])
def test_of_one_or_two_voters_nobody_knows_the_accuracy(method: str, voters: int) -> None:
    votes, _ = simulated(0, 100, [0.9, 0.8][:voters])
    result = fused(votes, how(method, tie="commonest"), FOUR)
    for teacher in result.teachers.values():
        assert teacher["accuracy"] == {"value": None, "low": None, "high": None}
        assert teacher["n"] == 100
    if voters == 1:
        np.testing.assert_allclose(result.scores, votes[0], atol=1e-9)


def test_a_voter_who_never_meets_two_others_has_no_accuracy() -> None:
    votes, _ = simulated(0, 300, [0.9, 0.8, 0.7, 0.9])
    votes[:3, 200:] = NAN
    votes[3, :200] = NAN
    teachers = fused(votes, how("dawid_skene"), FOUR).teachers
    assert teachers["v3"]["accuracy"]["value"] is None
    assert all(teachers[f"v{at}"]["accuracy"]["value"] is not None for at in range(3))


@pytest.mark.parametrize("method", ["majority", "dawid_skene"])
@pytest.mark.parametrize("many", [False, True])
def test_the_order_of_rows_and_voters_decides_nothing(method: str, many: bool) -> None:
    votes, _ = simulated_many(2, 300, MIXED) if many else simulated(2, 300, [0.9, 0.7, 0.6, 0.8, 0.5])
    space, rng = (MANY if many else FOUR), np.random.default_rng(1)
    voters, rows = rng.permutation(5), rng.permutation(300)
    plain = fused(votes, how(method), space)
    names = [f"v{at}" for at in voters]
    turned = fused(votes[voters][:, rows], how(method), space, voters=names, groups=rows)
    np.testing.assert_array_equal(turned.scores, plain.scores[rows])  # to the last digit
    assert list(turned.teachers) == names
    for name in names:
        assert turned.teachers[name]["accuracy"] == plain.teachers[name]["accuracy"]


def test_rows_of_one_author_are_drawn_together() -> None:
    votes, _ = simulated(0, 60, [0.9, 0.8, 0.8])
    repeated = np.repeat(votes, 20, axis=1)  # an author writes one thing twenty times
    widths = []
    for groups in (np.arange(1200), np.repeat(np.arange(60), 20)):
        shown = fused(repeated, how(), FOUR, groups=groups).teachers["v1"]["accuracy"]
        widths.append(shown["high"] - shown["low"])
    assert widths[1] > 2 * widths[0]


def test_many_steps_of_the_bootstrap_are_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    votes, _ = simulated(0, 100, [0.9, 0.8, 0.7])
    plain = fused(votes, how("dawid_skene"), FOUR)
    monkeypatch.setattr(fuse, "CELLS", 700)
    stepped = fused(votes, how("dawid_skene"), FOUR)
    for name, teacher in plain.teachers.items():
        for bound, value in teacher["accuracy"].items():
            assert stepped.teachers[name]["accuracy"][bound] == pytest.approx(value, abs=2e-6)


def test_no_votes_and_voters_without_any_are_refused_by_name() -> None:
    with pytest.raises(Problem, match="no votes at all"):
        fused(cast("..", ".."), how(), ABC)
    with pytest.raises(Problem, match="no votes at all"):
        fused(np.zeros((2, 0, 3)), how(), ABC)
    with pytest.raises(Problem, match="no valid answer of late, mute") as problem:
        fused(cast("..", "ab", ".."), how(), ABC, voters=["late", "fast", "mute"])
    assert "\n" not in str(problem.value)


@pytest.mark.parametrize("row", [[0.5, 0.5, 0], [2, -1, 0], [1, 1, 0], [0, 0, 0], [1, 0, NAN]])
def test_votes_outside_zero_and_one_are_refused(row: list[float]) -> None:
    votes = cast("ab", "bc")
    votes[1, 1] = row
    with pytest.raises(Problem, match="votes outside 0/1: row 1 of voter 'v1'"):
        fused(votes, how(), ABC)
    if set(row) == {0, 1} or not any(row):
        fused(votes, how(), MANY)


def test_votes_of_another_shape_are_refused() -> None:
    with pytest.raises(Problem, match=r"shape \(2, 2, 3\), expected \(2, n, 4\)"):
        fused(cast("ab", "bc"), how(), FOUR)
