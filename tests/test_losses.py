"""The loss against torch's own, against a formula by hand, and what logit adjustment does to it."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from tests import tiny
from undertone.labels import Flags
from undertone.params import Trained
from undertone.tuning import imbalance, losses

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 1.0, -3.0], [0.3, 0.2, 0.1], [-1.0, -2.0, 4.0]])
ONE = torch.tensor([[1, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0]])
MANY = torch.tensor([[1, 1, 0], [0, 0, 1], [0, 0, 0], [1, 0, 1]])
TRUTH: Flags = np.eye(3, dtype=bool)[np.repeat([0, 1, 2], [60, 30, 10])]  # of all training rows


def settings(**changed: Any) -> Trained:
    own = tiny.SETTINGS["bert"]
    assert isinstance(own, Trained)
    return own.model_copy(update={"class_weights": "none", **changed})


@pytest.mark.parametrize("kind", ["none", "sqrt", "balanced"])
def test_without_more_it_is_torch_s_own_loss(kind: Any) -> None:
    one = losses.Loss(settings(class_weights=kind), TRUTH, many=False)
    weight = torch.tensor(imbalance.class_weights(TRUTH, kind), dtype=torch.float32)
    torch.testing.assert_close(one(LOGITS, ONE), cross_entropy(LOGITS, ONE.argmax(1), weight))
    many = losses.Loss(settings(class_weights=kind), TRUTH, many=True)
    pos = torch.tensor(imbalance.presence_weights(TRUTH, kind), dtype=torch.float32)
    expected = binary_cross_entropy_with_logits(LOGITS, MANY.float(), pos_weight=pos)
    torch.testing.assert_close(many(LOGITS, MANY), expected)


def test_truth_may_come_as_flags_and_logits_in_half_the_bits() -> None:
    loss = losses.Loss(settings(), TRUTH, many=False)
    torch.testing.assert_close(loss(LOGITS, ONE.bool()), loss(LOGITS, ONE.float()))
    assert loss(LOGITS.bfloat16(), ONE).dtype == torch.float32


def test_focal_loss_is_the_published_formula() -> None:
    gamma = 2.0
    chance = torch.softmax(LOGITS, 1)[ONE.bool()].numpy()
    expected = np.mean(-((1 - chance) ** gamma) * np.log(chance))
    loss = losses.Loss(settings(focal=gamma), TRUTH, many=False)
    assert loss(LOGITS, ONE).item() == pytest.approx(expected, rel=1e-5)
    each = torch.sigmoid(LOGITS).numpy()
    chance = np.where(MANY.numpy(), each, 1 - each)
    expected = np.mean(-((1 - chance) ** gamma) * np.log(chance))
    loss = losses.Loss(settings(focal=gamma), TRUTH, many=True)
    assert loss(LOGITS, MANY).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("many", [False, True])
def test_what_is_certain_has_a_finite_gradient(many: bool) -> None:
    logits = (100.0 * (2 * ONE - 1)).requires_grad_()
    loss = losses.Loss(settings(focal=0.5, class_weights="balanced"), TRUTH, many)
    loss(logits, ONE).backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("many", [False, True])
def test_adjustment_pulls_rare_labels_up_and_common_ones_down(many: bool) -> None:
    def slope(tau: float) -> torch.Tensor:
        logits = torch.zeros(len(TRUTH), 3, requires_grad=True)
        losses.Loss(settings(logit_adjustment=tau), TRUTH, many)(logits, torch.tensor(TRUTH)).backward()
        assert logits.grad is not None
        return logits.grad.sum(dim=0)

    plain, adjusted = slope(0.0), slope(1.0)
    assert plain[0] < plain[2]  # down the slope: the commonest label gains most
    assert plain[2] > 0
    # adjusted by all of the prior, logits that know nothing are right for every label alike
    assert adjusted.abs().max() < 0.02 < plain.abs().max()
    overdone = slope(2.0)
    assert overdone[2] < 0 < overdone[0]


@pytest.mark.parametrize("changed", [{"downsample": 1.0}, {"mixing": 1.0}])
def test_what_sampling_has_evened_out_is_not_weighed_again(changed: dict[str, float]) -> None:
    truth = TRUTH[1:]  # 99 rows, a third for each label
    both = settings(class_weights="balanced", logit_adjustment=1.0, **changed)
    weighed = losses.Loss(both, truth, many=False)(LOGITS, ONE)
    torch.testing.assert_close(weighed, losses.Loss(settings(), truth, many=False)(LOGITS, ONE))
    np.testing.assert_allclose(losses.row_weights(truth, both, many=False), 1)


def test_a_row_weighs_as_its_label_does_and_of_many_as_its_rarest() -> None:
    own = settings(class_weights="balanced")
    weights = losses.row_weights(TRUTH, own, many=False)
    np.testing.assert_allclose(weights[[0, 60, 90]], imbalance.class_weights(TRUTH, "balanced"))
    truth = np.array([[True, False]] * 6 + [[True, True]] * 2 + [[False, False]] * 4)
    weights = losses.row_weights(truth, own, many=True)
    np.testing.assert_allclose(weights[[0, 6, 8]], [12 / 18, 12 / 6, 12 / 12])


def test_scores_are_what_the_logits_say() -> None:
    one, many = losses.activated(LOGITS, many=False), losses.activated(LOGITS.numpy(), many=True)
    np.testing.assert_allclose(one.sum(axis=1), 1)
    np.testing.assert_allclose(many, 1 / (1 + np.exp(-LOGITS.double().numpy())))
