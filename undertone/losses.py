"""What training minimises: cross-entropy over the labels, or a binary one for each of many."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from undertone import imbalance
from undertone.labels import Flags, Scores
from undertone.params import Trained


class Loss:
    """Weighted, focal (Lin et al. 2017) and logit-adjusted (Menon et al. 2021) as `settings` say.

    Without these, torch's `cross_entropy`, or `binary_cross_entropy_with_logits` for many labels; their
    means are torch's too, so that rows of one label a text are averaged by weight.
    """

    def __init__(self, settings: Trained, truth: Flags, many: bool) -> None:
        """`truth` [n, labels]: of all training rows."""
        self._many = many
        self._gamma = settings.focal
        drawn = _drawn(truth, settings)
        weigh = imbalance.presence_weights if many else imbalance.class_weights
        self._weights = torch.tensor(weigh(drawn, settings.class_weights), dtype=torch.float32)
        offset = settings.logit_adjustment * imbalance.prior(drawn, many)
        self._offset = torch.tensor(offset, dtype=torch.float32)

    def __call__(self, logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """The mean over `logits` [b, labels], whose truth [b, labels] is 0 or 1."""
        weights = self._weights = self._weights.to(logits.device)
        offset = self._offset = self._offset.to(logits.device)
        adjusted, truth = logits.float() + offset, truth.float()
        if self._many:
            plain = torch.nn.functional.binary_cross_entropy_with_logits(
                adjusted, truth, reduction="none"
            )
            return (torch.where(truth > 0, weights, 1.0) * self._focused(plain)).mean()
        plain = -(torch.log_softmax(adjusted, dim=-1) * truth).sum(dim=-1)
        each = truth @ weights
        return (each * self._focused(plain)).sum() / each.sum()

    def weight(self, truth: torch.Tensor) -> torch.Tensor:
        """By what the sum over rows of this truth [b, labels] is divided for their mean."""
        if self._many:
            return torch.tensor(float(len(truth)))
        return (truth.float() @ self._weights.to(truth.device)).sum()

    def _focused(self, plain: torch.Tensor) -> torch.Tensor:
        """`plain` is -log p of what is true; p is 1 - surprise."""
        if not self._gamma:
            return plain
        surprise = -torch.expm1(-plain)
        return surprise.clamp(min=1e-8) ** self._gamma * plain  # the slope of 0 ** gamma may be infinite


def row_weights(truth: Flags, settings: Trained, many: bool) -> NDArray[np.float64]:
    """What each row [n] weighs: as its label does, of many labels its rarest."""
    drawn = _drawn(truth, settings)
    classes = np.arange(truth.shape[1] + many)  # of many labels there may be none
    weights = imbalance.class_weights(
        imbalance.groups(drawn)[:, None] == classes, settings.class_weights
    )
    return weights[imbalance.groups(truth)]


def activated(logits: Any, many: bool) -> Scores:
    """Scores from logits [n, labels]: a softmax, or a sigmoid for each of many labels."""
    tensor = torch.as_tensor(logits, dtype=torch.float64)
    scores: Scores = (torch.sigmoid(tensor) if many else torch.softmax(tensor, dim=-1)).numpy()
    return scores


def _drawn(truth: Flags, settings: Trained) -> Flags:
    # what an epoch holds is what is to be evened out; all epochs hold about the same of each label
    return truth[imbalance.epoch(truth, settings, seed=0, number=0)]
