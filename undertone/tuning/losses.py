"""What training minimises: cross-entropy over the labels, or a binary one for each of many."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from undertone.labels import Flags, Scores
from undertone.params import Trained
from undertone.tuning import imbalance


class Loss:
    """Weighted, focal (Lin et al. 2017) and logit-adjusted (Menon et al. 2021) as `settings` say.

    Without these, torch's `cross_entropy`, or `binary_cross_entropy_with_logits` for many labels; their
    means are torch's too, so that rows of one label a text are averaged by weight. A row's own weight
    multiplies its label's.
    """

    def __init__(
        self, settings: Trained, truth: Flags, many: bool, rows: imbalance.Weights | None = None
    ) -> None:
        """`truth` [n, labels]: of all training rows; `rows` [n]: what they weigh, 1 without it."""
        self._many = many
        self._gamma = settings.focal
        drawn = _drawn(truth, settings)
        own = None if rows is None else rows[drawn]
        weigh = imbalance.presence_weights if many else imbalance.class_weights
        weights = weigh(truth[drawn], settings.class_weights, own)
        self._weights = torch.tensor(weights, dtype=torch.float32)
        offset = settings.logit_adjustment * imbalance.prior(truth[drawn], many, own)
        self._offset = torch.tensor(offset, dtype=torch.float32)

    def __call__(
        self, logits: torch.Tensor, truth: torch.Tensor, rows: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The mean over `logits` [b, labels], whose truth [b, labels] is 0 or 1; `rows` [b]: what each
        weighs, 1 without it."""
        weights = self._weights = self._weights.to(logits.device)
        offset = self._offset = self._offset.to(logits.device)
        adjusted, truth = logits.float() + offset, truth.float()
        own = torch.ones(len(truth), device=logits.device) if rows is None else rows.float()
        if self._many:
            plain = torch.nn.functional.binary_cross_entropy_with_logits(
                adjusted, truth, reduction="none"
            )
            each = own[:, None] * torch.where(truth > 0, weights, 1.0)
            return (each * self._focused(plain)).mean() * (len(own) / own.sum())
        plain = -(torch.log_softmax(adjusted, dim=-1) * truth).sum(dim=-1)
        each = own * (truth @ weights)
        return (each * self._focused(plain)).sum() / each.sum()

    def weight(self, truth: torch.Tensor, rows: torch.Tensor | None = None) -> torch.Tensor:
        """By what the sum over rows of this truth [b, labels] is divided for their mean."""
        own = torch.ones(len(truth), device=truth.device) if rows is None else rows.float()
        if self._many:
            return own.sum()
        return (own * (truth.float() @ self._weights.to(truth.device))).sum()

    def _focused(self, plain: torch.Tensor) -> torch.Tensor:
        """`plain` is -log p of what is true; p is 1 - surprise."""
        if not self._gamma:
            return plain
        surprise = -torch.expm1(-plain)
        return surprise.clamp(min=1e-8) ** self._gamma * plain  # the slope of 0 ** gamma may be infinite


def row_weights(
    truth: Flags, settings: Trained, many: bool, rows: imbalance.Weights | None = None
) -> NDArray[np.float64]:
    """What each row [n] weighs: as its label does, of many labels its rarest, times its own weight."""
    drawn = _drawn(truth, settings)
    classes = np.arange(truth.shape[1] + many)  # of many labels there may be none
    each = np.ones(len(truth)) if rows is None else rows
    weights = imbalance.class_weights(
        imbalance.groups(truth[drawn])[:, None] == classes, settings.class_weights, each[drawn]
    )
    return weights[imbalance.groups(truth)] * each


def activated(logits: Any, many: bool) -> Scores:
    """Scores from logits [n, labels]: a softmax, or a sigmoid for each of many labels."""
    tensor = torch.as_tensor(logits, dtype=torch.float64)
    scores: Scores = (torch.sigmoid(tensor) if many else torch.softmax(tensor, dim=-1)).numpy()
    return scores


def _drawn(truth: Flags, settings: Trained) -> imbalance.Rows:
    # what an epoch holds is what is to be evened out; all epochs hold about the same of each label
    return imbalance.epoch(truth, settings, seed=0, number=0)
