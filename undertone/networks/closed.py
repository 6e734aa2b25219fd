"""Closed-label scoring: how likely a causal language model is to write each of a few answers.

One forward pass a batch tells all of them. The instruction that all prompts begin with is run once and
its keys and values are shared; the answers follow each prompt as a tree, whose branches don't see each
other (the attention mask of SpecInfer, Miao et al. 2024).
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from undertone.errors import Problem
from undertone.networks import encoder

# Tokens a batch. Larger ones are slower on a CPU, whose caches they leave, and full of padding; on a GPU
# the answers' logits over a vocabulary of 150,000 then take 1 to 3 GB.
BUDGET = {"cpu": 768, "cuda": 8192}


def log_probabilities(
    model: Any,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    *,
    budget: int | None = None,
) -> NDArray[np.float64]:
    """[n, answers]: the natural logarithm of P(the whole answer | prompt), the sum over its tokens.

    Prompts and answers are token ids, one at least; answers may begin alike, or be the beginning of
    another. `model` is in eval mode. A batch has at most `budget` tokens. `Problem` where the model
    can't be scored so, where a prompt with its answer is longer than it reads, or memory is short.
    """
    tree = _Tree.of(answers)
    unique = list(dict.fromkeys(tuple(prompt) for prompt in prompts))
    if not unique:
        return np.zeros((0, len(answers)))
    assert not model.training
    longest = max(len(prompt) for prompt in unique)
    reads = Reads.of(model, longest + tree.depth)
    shared = _shared(unique)
    rows = [prompt[shared:] for prompt in unique]
    found = np.zeros((len(unique), len(answers)))
    cut = budget or BUDGET[model.device.type]
    try:
        with torch.inference_mode():
            cache = _run_once(model, unique[0][:shared])
            for batch in encoder.batches([len(row) + len(tree.tokens) for row in rows], cut):
                found[batch] = _scored(model, reads, cache, shared, [rows[at] for at in batch], tree)
    except torch.OutOfMemoryError:
        raise Problem(
            f"{cut} tokens at once, the longest text {longest}, are more than this GPU's memory holds",
            remedy="Choose a smaller base, or load it in 4 bit.",
        ) from None
    place = {prompt: at for at, prompt in enumerate(unique)}
    return found[[place[tuple(prompt)] for prompt in prompts]]


@dataclass(frozen=True)
class _Tree:
    """The answers as a trie. The model reads its inner nodes, parents first; node 0 is the prompt's last
    token, which the prompt itself brings along."""

    tokens: list[int]  # of the inner nodes but node 0
    depths: list[int]
    sees: torch.Tensor  # [inner nodes but 0, the same], bool: the node itself and what leads to it
    depth: int  # tokens of the longest answer
    parents: list[int]  # of all nodes but 0: the inner node that predicts it, and its token
    predicted: list[int]
    paths: NDArray[np.float64]  # [all nodes but 0, answers]: 1 where the answer holds the node

    @classmethod
    def of(cls, answers: Sequence[Sequence[int]]) -> Self:
        whole = [tuple(answer) for answer in answers]
        assert all(whole)
        begun = {answer[:end] for answer in whole for end in range(len(answer))}
        inner = sorted(begun, key=lambda node: (len(node), node))
        place = {node: at for at, node in enumerate(inner)}
        nodes = sorted({answer[:end] for answer in whole for end in range(1, len(answer) + 1)})
        fed = inner[1:]
        return cls(
            tokens=[node[-1] for node in fed],
            depths=[len(node) for node in fed],
            sees=torch.tensor(
                [[node[: len(other)] == other for other in fed] for node in fed], dtype=torch.bool
            ).reshape(len(fed), len(fed)),
            depth=max(len(answer) for answer in whole),
            parents=[place[node[:-1]] for node in nodes],
            predicted=[node[-1] for node in nodes],
            paths=np.array(
                [[answer[: len(node)] == node for answer in whole] for node in nodes], dtype=np.float64
            ),
        )


@dataclass(frozen=True)
class Reads:
    """How a model wants its attention mask, for sequences that aren't in the order of their columns."""

    additive: torch.dtype | None  # None: it takes a bool
    window: int | None  # how many tokens back a layer sees, where that is less than the longest row
    mixed: bool  # other layers see all of them

    @classmethod
    def of(cls, model: Any, longest: int) -> Self:
        """`Problem` where rows of up to `longest` tokens can't be scored with this model."""
        base = model.get_base_model() if hasattr(model, "get_base_model") else model  # PEFT's
        config = base.config.get_text_config()
        kinds = set(getattr(config, "layer_types", None) or ())
        taken = inspect.signature(base.forward).parameters
        chunk = getattr(config, "attention_chunk_size", None)
        implementation = base.config._attn_implementation
        if (
            not {"position_ids", "past_key_values", "logits_to_keep"} <= set(taken)
            or kinds - {"full_attention", "sliding_attention", "chunked_attention"}
            or base._is_stateful  # a state instead of keys and values
            or getattr(config, "alibi", False)  # positions that follow from the mask
            or getattr(config, "num_kv_shared_layers", 0)
            or implementation not in ("sdpa", "eager")
            or (chunk is not None and longest > chunk)
        ):
            raise Problem(
                f"a {config.model_type} model (attention: {implementation}) can't be scored on closed"
                f" answers of up to {longest} tokens with their prompt",
                remedy="Set predict: generate, or choose a base of another kind.",
            )
        limit = positions(config)
        if limit is not None and longest > limit:
            raise Problem(
                f"a prompt with its answer has {longest} tokens; the model reads {limit}",
                remedy="Lower max_length.",
            )
        window = getattr(config, "sliding_window", None)
        narrow = window is not None and longest > window and kinds != {"full_attention"}
        return cls(
            additive=base.dtype if implementation == "eager" else None,
            window=window if narrow else None,
            mixed=bool(kinds),
        )

    def mask(self, seen: torch.Tensor, positions: torch.Tensor, shared: int) -> Any:
        """`seen` [rows, queries, keys], bool, keys being `shared` tokens and the queries themselves, at
        `positions` [rows, queries] → what `forward` takes."""
        if self.window is None:
            return self._formed(seen)
        before = torch.arange(shared, device=seen.device).expand(len(seen), -1)
        keys = torch.cat([before, positions], dim=1)
        near = seen & (positions[:, :, None] - keys[:, None, :] < self.window)
        if not self.mixed:
            return self._formed(near)
        return {"full_attention": self._formed(seen), "sliding_attention": self._formed(near)}

    def _formed(self, seen: torch.Tensor) -> torch.Tensor:
        seen = seen[:, None]
        if self.additive is None:
            return seen
        least = torch.finfo(self.additive).min
        return torch.zeros(seen.shape, dtype=self.additive, device=seen.device).masked_fill_(
            ~seen, least
        )


def positions(config: Any) -> int | None:
    """How many tokens a model reads as it does one; beyond, it has no positions or scales all anew."""
    limits = [getattr(config, "max_position_embeddings", None)]
    scaling = getattr(config, "rope_scaling", None) or {}
    if scaling.get("rope_type", scaling.get("type")) == "longrope":
        limits.append(getattr(config, "original_max_position_embeddings", None))
    return min((limit for limit in limits if limit is not None), default=None)


def _shared(prompts: Sequence[tuple[int, ...]]) -> int:
    """How many tokens all of the different `prompts` begin with, one at least being left of each. None
    where there is but one: to run it in two parts would gain nothing."""
    if len(prompts) == 1:
        return 0
    least, most = min(prompts), max(prompts)  # in the order of their tokens, so these differ first
    common = 0
    while common < min(len(least), len(most)) and least[common] == most[common]:
        common += 1
    return min(common, min(len(prompt) for prompt in prompts) - 1)


class _Shared(DynamicLayer):  # type: ignore[misc]
    """One layer's keys and values of what all rows begin with; what follows is not kept, so that it
    serves every batch, and no batch's memory outlasts its layer."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, cache_kwargs: Any = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rows = len(key_states)
        return (
            torch.cat([self.keys.expand(rows, -1, -1, -1), key_states], dim=-2),
            torch.cat([self.values.expand(rows, -1, -1, -1), value_states], dim=-2),
        )


def _run_once(model: Any, tokens: Sequence[int]) -> Cache | None:
    if not tokens:
        return None
    ran = DynamicCache()
    ids = torch.tensor([tokens], device=model.device)
    model(input_ids=ids, past_key_values=ran, use_cache=True, logits_to_keep=1)
    layers = []
    for layer in ran.layers:
        kept = _Shared()
        kept.lazy_initialization(layer.keys)
        kept.keys, kept.values = layer.keys, layer.values
        layers.append(kept)
    return Cache(layers=layers)


def _scored(
    model: Any,
    reads: Reads,
    cache: Cache | None,
    shared: int,
    rows: Sequence[Sequence[int]],
    tree: _Tree,
) -> NDArray[np.float64]:
    """[rows, answers]. The columns: padding, the row, the tree."""
    device = model.device
    fed = len(tree.tokens)
    width = max(len(row) for row in rows)
    ids = torch.zeros((len(rows), width + fed), dtype=torch.long)
    for at, row in enumerate(rows):
        ids[at, width - len(row) : width] = torch.tensor(row)
    ids[:, width:] = torch.tensor(tree.tokens, dtype=torch.long)
    lengths = torch.tensor([len(row) for row in rows], device=device)
    columns = torch.arange(width, device=device)
    within = columns - (width - lengths)[:, None]  # [rows, width], negative in the padding
    beyond = lengths[:, None] - 1 + torch.tensor(tree.depths, dtype=torch.long, device=device)
    positions = shared + torch.cat([within.clamp(min=0), beyond], dim=1)

    sees = torch.ones((width + fed, width + fed), dtype=torch.bool, device=device).tril_()
    sees[width:, width:] = tree.sees.to(device)
    real = torch.nn.functional.pad(within >= 0, (0, fed), value=True)
    # padding sees itself, since a softmax over nothing is no number
    own = (sees & real[:, None, :]) | torch.eye(width + fed, dtype=torch.bool, device=device)
    seen = torch.nn.functional.pad(own, (shared, 0), value=True)

    logits = model(
        input_ids=ids.to(device),
        attention_mask=reads.mask(seen, positions, shared),
        position_ids=positions,
        past_key_values=cache,
        use_cache=cache is not None,
        logits_to_keep=fed + 1,
    ).logits  # [rows, fed + 1, vocabulary]
    # column by column, since in fp32 they would take twice the memory
    whole = torch.stack([one.float().logsumexp(dim=-1) for one in logits.unbind(dim=1)], dim=1)
    likely = logits[:, tree.parents, tree.predicted].float() - whole[:, tree.parents]
    scored: NDArray[np.float64] = likely.double().cpu().numpy() @ tree.paths
    return scored
