"""Several rows as one sequence behind the instruction that they share.

The rows of a codebook begin alike, with an instruction that is often ten times as long as the comment.
It is computed once a sequence, and its gradient is the sum over the rows: positions count from where
the instruction ends, and a row sees the instruction and itself. The result is that of single rows.
"""

from collections.abc import Sequence
from typing import Any

import torch

from undertone.networks.chat import Row
from undertone.networks.closed import Reads

BUDGET = 2048  # tokens a sequence: attention over longer ones costs more than the sharing saves


def shared(rows: Sequence[Row]) -> int:
    """How many tokens all rows begin with, before the first of their answers."""
    shortest = min(row.start for row in rows)
    first = rows[0].ids
    return next(
        (at for at in range(shortest) if any(row.ids[at] != first[at] for row in rows)), shortest
    )


def pack(
    rows: Sequence[Row], weights: Sequence[float], prefix: int, *, everything: bool
) -> dict[str, torch.Tensor]:
    """What `losses` needs, for rows that begin with the same `prefix` tokens.

    `input_ids`, `position_ids` [sequences, tokens]; `seen` [sequences, tokens, tokens], true
    where a token sees another. For each token that is learnt: `learnt` [n, 2], the sequence and the
    place that predicts it, `target` [n], `row` [n] and `weight` [n], its row and that row's weight.
    `everything` learns the prompt too, where a row's weight counts for the shared part as well.
    """
    sequences: list[list[int]] = [[]]
    room = 0
    for number, row in enumerate(rows):
        room += len(row.ids) - prefix
        if sequences[-1] and prefix + room > BUDGET:
            sequences.append([])
            room = len(row.ids) - prefix
        sequences[-1].append(number)
    width = max(prefix + sum(len(rows[one].ids) - prefix for one in inside) for inside in sequences)
    shape = (len(sequences), width)
    ids, places = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    owner = torch.full(shape, -1)  # 0 the shared part, else the row's number from 1, -1 padding
    learnt: list[tuple[int, int, int, int, float]] = []
    for at, inside in enumerate(sequences):
        ids[at, :prefix] = torch.as_tensor(rows[0].ids[:prefix])
        places[at, :prefix] = torch.arange(prefix)
        owner[at, :prefix] = 0
        if everything:
            total = sum(weights[one] for one in inside)
            learnt += [(at, place, int(ids[at, place + 1]), -1, total) for place in range(prefix - 1)]
        end = prefix
        for number in inside:
            row = rows[number]
            tail = row.ids[prefix:]
            ids[at, end : end + len(tail)] = torch.as_tensor(tail)
            places[at, end : end + len(tail)] = torch.arange(prefix, len(row.ids))
            owner[at, end : end + len(tail)] = number + 1
            first = prefix if everything else row.start
            for place in range(max(first, 1), len(row.ids)):
                # the first token of a row follows the shared part, not the row before it
                before = prefix - 1 if place == prefix else end + place - prefix - 1
                learnt.append((at, before, int(row.ids[place]), number, weights[number]))
            end += len(tail)
    here, there = owner[:, :, None], owner[:, None, :]
    order = torch.ones(width, width, dtype=torch.bool).tril()
    # padding sees itself, since a softmax over nothing is no number
    seen = order & ((there == 0) | (here == there))
    targets = torch.tensor([one[:4] for one in learnt])
    return {
        "input_ids": ids,
        "position_ids": places,
        "seen": seen,
        "learnt": targets[:, :2],
        "target": targets[:, 2],
        "row": targets[:, 3],
        "weight": torch.tensor([one[4] for one in learnt]),
    }


def answer_loss(model: Any, batch: dict[str, torch.Tensor], focal: float = 0.0) -> torch.Tensor:
    """The weighted mean of -log P over the tokens of `pack` that are learnt.

    `focal` (gamma of Lin et al. 2017) weighs a row down the surer its whole answer is.
    """
    losses, weight = _token_losses(model, batch), batch["weight"]
    total = weight.sum()
    if focal:
        surprise = -torch.expm1(-_by_row(losses, batch["row"]))
        weight = weight * surprise.clamp(min=1e-8)[batch["row"]] ** focal
    return (weight * losses).sum() / total


def ahead(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """log P(right answer) - log P(wrong answer) [pairs], for rows that are right, wrong, right, …"""
    answers = -_by_row(_token_losses(model, batch), batch["row"])
    return answers[0::2] - answers[1::2]


def preference_loss(model: Any, batch: dict[str, torch.Tensor], beta: float) -> torch.Tensor:
    """The DPO loss (Rafailov et al. 2023); `batch` holds what `ahead` was before, under that name."""
    gained = ahead(model, batch) - batch["ahead"]
    return -torch.nn.functional.logsigmoid(beta * gained).mean()


def _token_losses(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """-log P of each token that is learnt [n]; logits are made only for the places before them."""
    places, at = torch.unique(batch["learnt"][:, 1], return_inverse=True)
    positions = batch["position_ids"]
    # several processes learn from it in a wrapper
    reads = Reads.of(getattr(model, "module", model), int(positions.max()) + 1)
    logits = model(
        input_ids=batch["input_ids"],
        attention_mask=reads.mask(batch["seen"], positions, 0),
        position_ids=positions,
        logits_to_keep=places,
        use_cache=False,
    ).logits
    return torch.nn.functional.cross_entropy(
        logits[batch["learnt"][:, 0], at].float(), batch["target"], reduction="none"
    )


def _by_row(losses: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
    sums = torch.zeros(int(row.max()) + 1, device=losses.device)
    return sums.index_add(0, row, losses)
