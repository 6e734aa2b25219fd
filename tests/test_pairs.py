"""The few rows and the pairs that SetFit learns from, for one label a text and for many."""

import tracemalloc

import numpy as np
import pytest

from tests import tiny
from undertone.errors import Problem
from undertone.labels import Flags
from undertone.tuning import pairs

SIZES = [60, 30, 9, 1]


def few(truth: Flags, shots: int | None, *, seed: int) -> np.ndarray:
    """Of rows that weigh alike."""
    return pairs.few(truth, shots, weights=np.ones(len(truth)), seed=seed)[0]


def draw(truth: Flags, count: int, *, seed: int) -> pairs.Pairs:
    return pairs.draw(truth, count, weights=np.ones(len(truth)), seed=seed)


def one_label(sizes: list[int] = SIZES) -> Flags:
    return np.eye(len(sizes), dtype=bool)[np.repeat(np.arange(len(sizes)), sizes)]


def shared(truth: Flags, drawn: pairs.Pairs) -> Flags:
    """How many labels the two rows of each pair share."""
    found: Flags = (truth[drawn.first] & truth[drawn.second]).sum(axis=1)
    return found


@pytest.mark.parametrize(
    ("shots", "sizes"), [(1, [1, 1, 1, 1]), (8, [8, 8, 8, 1]), (16, [16, 16, 9, 1]), (None, SIZES)]
)
def test_each_label_has_so_many_rows_or_all_it_has(shots: int | None, sizes: list[int]) -> None:
    truth = one_label()
    rows = few(truth, shots, seed=3)
    assert truth[rows].sum(axis=0).tolist() == sizes
    assert sorted(set(rows)) == list(rows)


def test_the_seed_alone_decides_which_rows_and_pairs() -> None:
    truth = one_label()
    rows = [few(truth, 8, seed=seed).tolist() for seed in (3, 3, 4)]
    assert rows[0] == rows[1] != rows[2]
    drawn = [draw(truth, 40, seed=seed) for seed in (3, 3, 4)]
    firsts, seconds = ([one.tolist() for one in each] for each in zip(*map(_sides, drawn), strict=True))
    assert firsts[0] == firsts[1] != firsts[2]
    assert seconds[0] == seconds[1] != seconds[2]


def _sides(drawn: pairs.Pairs) -> tuple[np.ndarray, np.ndarray]:
    return drawn.first, drawn.second


def test_of_many_labels_each_gets_its_rows_the_rarest_first_and_none_is_taken_twice() -> None:
    common, rare, both, none = [1, 0], [0, 1], [1, 1], [0, 0]
    truth = np.array([common] * 40 + [both] * 3 + [rare] * 2 + [none] * 20, dtype=bool)
    rows = few(truth, 4, seed=3)
    taken = truth[rows].tolist()
    assert truth[rows, 1].sum() == 4
    assert truth[rows, 0].sum() == 4  # those it shares with the rare one are counted
    assert taken.count(none[:]) == 4
    assert len(set(rows)) == len(rows)


def test_half_of_the_pairs_are_alike_and_each_label_is_in_as_many() -> None:
    truth = one_label()
    drawn = draw(truth, 400, seed=3)
    assert drawn.alike.sum() == (~drawn.alike).sum() == 200
    np.testing.assert_array_equal(shared(truth, drawn) == 1, drawn.alike)
    for half in (drawn.alike, ~drawn.alike):
        assert truth[drawn.first[half]].sum(axis=0).tolist() == [50] * 4
    large = drawn.alike & ~truth[drawn.first, 3]
    assert (drawn.first[large] != drawn.second[large]).all()


def test_a_labels_rows_come_in_turn() -> None:
    truth = one_label([10, 10])
    drawn = draw(truth, 80, seed=3)
    for half in (drawn.alike, ~drawn.alike):
        assert np.bincount(drawn.first[half]).tolist() == [2] * 20


def test_a_labels_only_row_is_paired_with_itself_and_with_others() -> None:
    truth = one_label([1, 1, 1])
    drawn = draw(truth, 12, seed=3)
    np.testing.assert_array_equal(drawn.first == drawn.second, drawn.alike)
    assert drawn.alike.sum() == 6


def test_an_odd_number_of_pairs_is_kept() -> None:
    drawn = draw(one_label(), 7, seed=3)
    assert (len(drawn.first), drawn.alike.sum()) == (7, 3)


def test_of_many_labels_rows_are_alike_that_share_any() -> None:
    truth = tiny.examples(200, many=True).truth
    truth[:10] = False  # without a label
    drawn = draw(truth, 300, seed=3)
    np.testing.assert_array_equal(shared(truth, drawn) > 0, drawn.alike)
    assert set(drawn.second[~drawn.alike]) & set(range(10))  # unlike all, so among the second ones
    assert not set(drawn.first) & set(range(10))


def test_a_row_that_shares_a_label_with_all_is_in_no_unlike_pair() -> None:
    truth = np.array([[1, 1]] + [[1, 0]] * 5 + [[0, 1]] * 5, dtype=bool)
    drawn = draw(truth, 200, seed=3)
    unlike = np.concatenate([drawn.first[~drawn.alike], drawn.second[~drawn.alike]])
    assert 0 not in unlike
    assert 0 in drawn.first[drawn.alike]
    assert 60 < (~drawn.alike).sum() < 100


@pytest.mark.parametrize("truth", [one_label([5]), np.array([[1, 0], [1, 1], [1, 1]], dtype=bool)])
def test_rows_that_are_all_alike_are_refused(truth: Flags) -> None:
    with pytest.raises(Problem, match="any two training rows share a label"):
        draw(truth, 10, seed=3)


def test_a_label_without_a_row_is_refused() -> None:
    truth = np.hstack([one_label(), np.zeros((100, 1), dtype=bool)])
    with pytest.raises(Problem, match="1 labels have no training row"):
        few(truth, 8, seed=3)


@pytest.mark.parametrize("many", [False, True])
def test_memory_grows_with_rows_and_never_with_rows_squared(many: bool) -> None:
    rng = np.random.default_rng(0)
    truth = np.eye(6, dtype=bool)[rng.integers(0, 6, 30_000)]
    truth |= many & (rng.random(truth.shape) < 0.1)
    tracemalloc.start()
    drawn = draw(truth, 2000, seed=3)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(drawn.first) > 1900
    assert most < 100 * len(truth)  # bytes; all pairs would be 450 million


def test_a_row_of_more_weight_is_drawn_more_often_and_then_weighs_the_average() -> None:
    truth = one_label([40, 40])
    weights = np.tile([1.0, 3.0], 40)
    heavy = []
    for seed in range(60):
        rows, kept = pairs.few(truth, 8, weights=weights, seed=seed)
        assert (kept == 2).all()
        heavy.append((weights[rows] == 3).sum())
    assert 0.6 < np.mean(heavy) / 16 < 0.8  # 3 in 4, less what the heavy ones run short


@pytest.mark.parametrize("shots", [None, 4])
def test_rows_that_are_taken_because_all_are_keep_their_weight(shots: int | None) -> None:
    truth, weights = one_label([4, 3]), np.linspace(0.25, 1.75, 7)
    rows, kept = pairs.few(truth, shots, weights=weights, seed=3)
    assert rows.tolist() == list(range(7))
    np.testing.assert_array_equal(kept, weights)


def test_a_row_is_first_in_as_many_pairs_as_its_share_of_its_label_s_weight_is() -> None:
    truth = one_label([4, 4])
    weights = np.array([1, 1, 1, 3, 0.5, 0.5, 0.5, 0.5])
    drawn = pairs.draw(truth, 48, weights=weights, seed=3)
    for half in (drawn.alike, ~drawn.alike):
        assert np.bincount(drawn.first[half]).tolist() == [2, 2, 2, 6, 3, 3, 3, 3]
    large = drawn.first != drawn.second
    assert large[drawn.alike].all()
