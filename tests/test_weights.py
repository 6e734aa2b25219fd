"""What a row weighs in training: 1 changes nothing, 0 leaves it out, 2 is the row twice."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from tests import tiny
from tests.test_losses import LOGITS, MANY, ONE, TRUTH, settings
from undertone import learning, models, params
from undertone.errors import Problem
from undertone.models import Examples
from undertone.params import Sampled
from undertone.tuning import imbalance, losses
from undertone.tuning.heads import LogisticHead

CALIBRATE = params.Calibrate(temperature=True, max_error=None)
RARE: dict[str, Any] = {"class_weights": "balanced", "logit_adjustment": 1.0}
TAUGHT = sorted(tiny.LEARNING)


def learnt(family: str, folder: Path, train: Examples, **changed: Any) -> np.ndarray:
    """Validation scores of what a candidate learns from `train`."""
    own = tiny.SETTINGS[family].model_copy(update=changed)
    start = tiny.start(family, folder)
    learner = learning.Learner(own, tiny.space(), start, CALIBRATE, folder / "state")
    validation = tiny.examples(30, seed=1)
    model, _ = learner.learn(train, validation, f"{len(train.texts)} {train.weights.sum()}", print)
    return model.scores(validation.texts)


@pytest.mark.parametrize("family", TAUGHT)
def test_a_row_of_weight_0_is_a_row_left_out_to_the_bit(family: str, tmp_path: Path) -> None:
    given = tiny.examples(64)
    weights = np.where(np.arange(64) % 4 == 0, 0.0, 1.0)
    rows = np.flatnonzero(weights)
    fewer = Examples([given.texts[row] for row in rows], given.truth[rows])
    weighed = learnt(family, tmp_path, Examples(given.texts, given.truth, weights), **RARE)
    np.testing.assert_array_equal(weighed, learnt(family, tmp_path, fewer, **RARE))
    assert not np.array_equal(weighed, learnt(family, tmp_path, given, **RARE))


@pytest.mark.parametrize("family", TAUGHT)
def test_a_weight_moves_what_is_learnt(family: str, tmp_path: Path) -> None:
    given = tiny.examples(64)
    heavy = np.where(given.truth[:, 0], 9.0, 1.0)
    plain = learnt(family, tmp_path, given, class_weights="none")
    weighed = learnt(family, tmp_path, Examples(given.texts, given.truth, heavy), class_weights="none")
    assert weighed[:, 0].mean() > plain[:, 0].mean()


@pytest.mark.parametrize("many", [False, True])
def test_a_logistic_head_takes_weight_2_for_a_row_that_stands_twice(many: bool) -> None:
    given = tiny.examples(80, many=many)
    features = np.random.default_rng(0).normal(size=(80, 5)) + given.truth @ np.ones((3, 5))
    weights = np.where(np.arange(80) % 3 == 0, 2.0, 1.0)
    twice = np.repeat(np.arange(80), weights.astype(int))
    own = Sampled.model_validate({**tiny.PLAIN, **RARE})
    heads = [LogisticHead(many, own, c=1.0, seed=0) for _ in range(2)]
    heads[0].fit(features, given.truth, weights)
    heads[1].fit(features[twice], given.truth[twice])
    np.testing.assert_allclose(heads[0].weight, heads[1].weight, atol=2e-3)
    np.testing.assert_allclose(heads[0].bias, heads[1].bias, atol=2e-3)


@pytest.mark.parametrize("many", [False, True])
def test_weights_of_1_change_no_bit_of_a_head_or_a_loss(many: bool) -> None:
    given = tiny.examples(80, many=many)
    features = np.random.default_rng(0).normal(size=(80, 5))
    own = Sampled.model_validate({**tiny.PLAIN, **RARE})
    heads = [LogisticHead(many, own, c=1.0, seed=0) for _ in range(2)]
    heads[0].fit(features, given.truth)
    heads[1].fit(features, given.truth, np.ones(80))
    np.testing.assert_array_equal(heads[0].weight, heads[1].weight)
    np.testing.assert_array_equal(heads[0].bias, heads[1].bias)
    truth = MANY if many else ONE
    loss = losses.Loss(settings(**RARE, focal=1.0), TRUTH, many)
    weighed = losses.Loss(settings(**RARE, focal=1.0), TRUTH, many, np.ones(len(TRUTH)))
    assert torch.equal(loss(LOGITS, truth), weighed(LOGITS, truth, torch.ones(4)))
    assert torch.equal(loss.weight(truth), weighed.weight(truth, torch.ones(4)))


@pytest.mark.parametrize("many", [False, True])
def test_a_loss_takes_weights_for_rows_that_stand_so_often(many: bool) -> None:
    weights = np.resize([2.0, 1.0, 3.0], len(TRUTH))
    often = np.repeat(np.arange(len(TRUTH)), weights.astype(int))
    batch = torch.tensor([1.0, 2.0, 1.0, 3.0])
    rows = np.repeat(np.arange(4), [1, 2, 1, 3])
    truth = MANY if many else ONE
    weighed = losses.Loss(settings(**RARE, focal=1.0), TRUTH, many, weights)
    plain = losses.Loss(settings(**RARE, focal=1.0), TRUTH[often], many)
    torch.testing.assert_close(weighed(LOGITS, truth, batch), plain(LOGITS[rows], truth[rows]))
    torch.testing.assert_close(weighed.weight(truth, batch), plain.weight(truth[rows]))
    own = settings(class_weights="balanced")
    each = losses.row_weights(TRUTH, own, many, weights)
    np.testing.assert_allclose(
        each / weights,
        losses.row_weights(TRUTH[often], own, many)[np.unique(often, return_index=True)[1]],
    )


def test_class_weights_count_rows_by_their_weight() -> None:
    truth = np.array([[1, 0], [1, 0], [0, 1]], dtype=bool)
    found = imbalance.class_weights(truth, "balanced", np.array([0.5, 0.5, 1.0]))
    np.testing.assert_allclose(found, [1, 1])
    light = imbalance.class_weights(truth, "balanced", np.array([0.1, 0.1, 0.1]))
    np.testing.assert_allclose(light, imbalance.class_weights(truth, "balanced"))


@pytest.mark.parametrize("wrong", [[1.0, -0.5], [1.0, np.nan], [np.inf, 1.0], [1.0]])
def test_what_is_no_weight_is_refused(wrong: list[float]) -> None:
    with pytest.raises(Problem, match="for 2 texts are no weights"):
        Examples(["a", "b"], np.eye(2, dtype=bool), np.array(wrong))


def test_examples_read_their_weights_where_there_are_any() -> None:
    table = pd.DataFrame({"text": ["a", "b"], "part": "train"})
    for at, label in enumerate(tiny.space().labels):
        table[f"label.{label}"] = [float(at == 0), float(at == 1)]
    assert models.examples(table, "train", tiny.space()).weights.tolist() == [1, 1]
    found = models.examples(table.assign(weight=[0.0, 0.5]), "train", tiny.space())
    assert found.weights.tolist() == [0, 0.5]
    assert found.weighing().texts == ["b"]
