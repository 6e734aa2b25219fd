"""The rows that are drawn, the weights and the priors, for one label a text and for many."""

from pathlib import Path

import numpy as np
import pytest

from tests import tiny
from undertone import models
from undertone.labels import Flags
from undertone.params import Sampled
from undertone.tuning import imbalance
from undertone.tuning.heads import LogisticHead

SIZES = [60, 30, 10]


def sampled(**settings: object) -> Sampled:
    return Sampled.model_validate({"class_weights": "none", **tiny.PLAIN, **settings})


def one_label(sizes: list[int] = SIZES) -> Flags:
    return np.eye(len(sizes), dtype=bool)[np.repeat(np.arange(len(sizes)), sizes)]


def drawn(truth: Flags, number: int = 0, **settings: object) -> imbalance.Rows:
    return imbalance.epoch(truth, sampled(**settings), seed=3, number=number)


def test_without_settings_an_epoch_is_all_rows_in_another_order_each_time() -> None:
    truth = one_label()
    first, second = drawn(truth), drawn(truth, number=1)
    assert sorted(first) == sorted(second) == list(range(100))
    assert list(first) != list(second) != list(range(100))
    np.testing.assert_array_equal(first, drawn(truth))


@pytest.mark.parametrize(("times", "sizes"), [(1, [10, 10, 10]), (2.5, [25, 25, 10]), (9, SIZES)])
def test_downsampling_keeps_so_many_times_the_rarest_label_and_draws_anew(
    times: float, sizes: list[int]
) -> None:
    truth = one_label()
    rows, others = drawn(truth, downsample=times), drawn(truth, number=1, downsample=times)
    assert len(set(rows)) == len(rows)
    assert truth[rows].sum(axis=0).tolist() == truth[others].sum(axis=0).tolist() == sizes
    assert (set(rows) == set(others)) == (sizes == SIZES)


def test_a_label_without_rows_is_not_the_rarest() -> None:
    truth = np.hstack([one_label(), np.zeros((100, 1), dtype=bool)])
    assert len(drawn(truth, downsample=1.0)) == 30


def test_of_many_labels_a_row_belongs_to_its_rarest_and_one_without_any_is_kept_in_turn() -> None:
    common, rare = [True, False], [False, True]
    both, none = [True, True], [False, False]
    truth = np.array([common] * 40 + [both] * 6 + [rare] * 4 + [none] * 50)
    assert imbalance.groups(truth)[[0, 40, 46, 50]].tolist() == [0, 1, 1, 2]
    rows = drawn(truth, downsample=2.0)
    assert truth[rows].tolist().count(common) == 20
    assert truth[rows].tolist().count(none) == 20
    assert truth[rows, 1].sum() == 10  # every row of the rarest


def test_mixing_draws_its_share_from_labels_alike_and_repeats_no_more_than_it_must() -> None:
    truth = one_label()
    rows = drawn(truth, mixing=0.6)
    assert len(rows) == 100
    balanced, counts = 20, np.bincount(rows, minlength=100)
    plain = truth[rows].sum(axis=0) - balanced
    assert plain.sum() == 40
    assert plain[0] > plain[1] > plain[2] >= 0  # as the data are
    assert counts[:60].max() <= 2  # once as itself, once for its label
    assert counts[90:].min() >= 2  # ten rows fill twenty places, each of them twice
    assert counts[90:].max() <= 3
    assert list(drawn(truth, number=1, mixing=0.6)) != list(rows)


def test_all_mixed_is_balanced_to_a_row_and_a_label_s_rows_come_in_turn() -> None:
    rows = drawn(one_label(), mixing=1.0)
    assert sorted(one_label()[rows].sum(axis=0)) == [33, 33, 34]
    counts = np.bincount(rows, minlength=100)
    assert set(counts[:60]) == {0, 1}
    assert set(counts[60:90]) == {1, 2}
    assert set(counts[90:]) == {3, 4}


def test_each_epoch_is_as_long_as_the_first() -> None:
    truth = tiny.examples(90, many=True).truth
    for settings in ({}, {"downsample": 1.5}, {"mixing": 0.3}):
        assert len({len(drawn(truth, number=number, **settings)) for number in range(20)}) == 1


def test_what_an_epoch_leaves_out_is_counted_by_label() -> None:
    truth = one_label()
    labels = ["many", "some", "few"]
    rows = drawn(truth, downsample=1.0)
    assert imbalance.lost(truth, rows, labels) == {
        "rows_left_out.many": 50.0,
        "rows_left_out.some": 20.0,
    }
    assert imbalance.lost(truth, drawn(truth), labels) == {}
    twice = np.array([*range(100), *range(100)])
    assert imbalance.lost(truth, twice[3:], labels) == {}
    assert imbalance.lost(truth, np.r_[twice[:50], twice[:99]], labels) == {"rows_left_out.few": 1.0}


def test_who_sees_the_rows_once_sees_them_in_the_order_of_the_data() -> None:
    truth = one_label()
    np.testing.assert_array_equal(imbalance.once(truth, sampled(), seed=3), np.arange(100))
    rows = imbalance.once(truth, sampled(downsample=1.0), seed=3)
    assert sorted(rows) == sorted(drawn(truth, downsample=1.0)) == list(rows)


def test_weights_grow_with_rarity() -> None:
    truth = one_label()
    np.testing.assert_allclose(
        imbalance.class_weights(truth, "balanced"), [100 / 180, 100 / 90, 100 / 30]
    )
    np.testing.assert_allclose(
        imbalance.class_weights(truth, "sqrt"), np.sqrt([100 / 180, 100 / 90, 100 / 30])
    )
    np.testing.assert_allclose(imbalance.class_weights(truth, "none"), [1, 1, 1])
    np.testing.assert_allclose(
        imbalance.presence_weights(truth, "balanced"), [40 / 60, 70 / 30, 90 / 10]
    )


def test_priors_are_log_frequencies_and_for_many_labels_log_odds() -> None:
    truth = one_label([6000, 3000, 1000])
    np.testing.assert_allclose(imbalance.prior(truth, many=False), np.log([0.6, 0.3, 0.1]), atol=2e-3)
    np.testing.assert_allclose(np.exp(imbalance.prior(truth, many=False)).sum(), 1)
    odds = np.log([6 / 4, 3 / 7, 1 / 9])
    np.testing.assert_allclose(imbalance.prior(truth, many=True), odds, atol=2e-3)
    nowhere = np.zeros((10, 2), dtype=bool)
    assert np.isfinite([imbalance.prior(nowhere, many) for many in (False, True)]).all()


@pytest.mark.parametrize("many", [False, True])
def test_a_logistic_head_takes_tau_priors_off_its_logits(many: bool) -> None:
    rng = np.random.default_rng(0)
    truth = one_label()
    features = truth + rng.normal(size=truth.shape)
    heads = []
    for tau in (0.0, 1.5):
        heads.append(LogisticHead(many, sampled(logit_adjustment=tau), c=1.0, seed=0))
        heads[-1].fit(features, truth)
    np.testing.assert_array_equal(heads[0].weight, heads[1].weight)
    shift = heads[1].bias - heads[0].bias
    np.testing.assert_allclose(shift, -1.5 * imbalance.prior(truth, many), rtol=1e-5)
    assert (heads[1].scores(features)[:, 2] > heads[0].scores(features)[:, 2]).all()  # the rarest


@pytest.mark.parametrize("family", ["tfidf", "e5"])
def test_a_family_that_sees_rows_once_learns_from_the_drawn_ones_alone(
    family: str, tmp_path: Path
) -> None:
    train, own = tiny.examples(160), tiny.SETTINGS[family].model_copy(update={"downsample": 1.0})
    start = tiny.start(family, tmp_path)
    logged: dict[str, float] = {}
    model = models.create(own, tiny.space(), start)
    model.fit(train, train, lambda _, values: logged.update(values), tmp_path / "state")
    assert isinstance(own, Sampled)
    rows = imbalance.once(train.truth, own, seed=start.seed)
    assert logged == imbalance.lost(train.truth, rows, tiny.space().labels) != {}
    few = models.Examples([train.texts[row] for row in rows], train.truth[rows])
    other = models.create(tiny.SETTINGS[family], tiny.space(), start)
    other.fit(few, few, lambda *_: None, tmp_path / "state")
    np.testing.assert_array_equal(model.scores(train.texts), other.scores(train.texts))


@pytest.mark.parametrize("family", ["tfidf", "e5"])
def test_adjusted_logits_come_back_from_disk(family: str, tmp_path: Path) -> None:
    train, own = tiny.examples(160), tiny.SETTINGS[family].model_copy(update={"logit_adjustment": 2.0})
    model = models.create(own, tiny.space(), tiny.start(family, tmp_path))
    model.fit(train, train, lambda *_: None, tmp_path / "state")
    models.save(model, tmp_path / "model", models.Recipe("tiny", own, "code"))
    scores = models.load(tmp_path / "model").scores(train.texts)
    np.testing.assert_array_equal(scores, model.scores(train.texts))
