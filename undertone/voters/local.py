"""The local door: a Hugging Face causal model on this machine answers the shards.

A row's answer doesn't depend on the rows beside it: greedy, or drawn with noise of its own (see
`_Drawn`). Up to rounding, that is: on a GPU in bf16 the size of a batch can tip a tie, so batches are
cut alike whether a run was killed before or not.
"""

import hashlib
import itertools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from undertone import files
from undertone.errors import Problem
from undertone.files import whole
from undertone.networks.chat import Chat

if TYPE_CHECKING:
    import torch

Line = dict[str, Any]


@dataclass(frozen=True)
class _Row:
    key: str  # of model, seed and request
    custom_id: str
    model: str
    messages: list[dict[str, str]]
    temperature: float
    max_tokens: int


def answers(
    shards: Sequence[Path], voter: str, base: Path, *, batch: int, seed: int, state: Path, out: Path
) -> str:
    """Have the shards answered by the model in the folder `base`, `batch` texts at once; into `out`
    comes `<shard>.output.jsonl` for each, in the shard's order, and the counts are returned.

    A request that, with its answer, is longer than the model reads is an error line. What is done is
    kept in `state`; another call goes on there, and the same call makes the same bytes. `Problem`
    where the folder holds no model that can be loaded, or memory is short.
    """
    from undertone.networks import decoder  # here, since it takes torch seconds to load

    decoder.check(base)
    digest = f"{files.md5(base)}\n{seed}"
    rows = {path: list(_rows(path, digest)) for path in shards}
    progress = state / f"{voter}.jsonl"
    wanted = {row.key for own in rows.values() for row in own}
    done = {key: line for key, line in _progress(progress) if key in wanted}
    waiting = len(wanted) - len(done)
    if waiting:
        state.mkdir(parents=True, exist_ok=True)
        model = _Model(base, seed)
        with progress.open("ab") as file, tqdm(total=waiting, desc=voter, disable=None) as bar:
            if file.tell():
                file.write(b"\n")  # ends the line in which the last run was killed, if it was
            for own in rows.values():
                for answered in model.answered(own, batch, done):
                    # one write a batch, so that a kill leaves whole batches
                    file.write(
                        b"".join(_json({"key": key, "line": line}) for key, line in answered.items())
                    )
                    file.flush()
                    done.update(answered)
                    bar.update(len(answered))
    for path, own in rows.items():
        with whole(out / f"{path.stem}.output.jsonl") as beside:
            beside.write_bytes(b"".join(_json(done[row.key]) for row in own))
    lines = [done[row.key] for own in rows.values() for row in own]
    too_long = sum(line["error"] is not None for line in lines)
    return (
        f"{voter}: {len(lines):,} asked → {len(lines) - too_long:,} answered, {waiting:,} of them now, "
        f"{too_long:,} too long"
    )


class _Model:
    """A causal model and its tokenizer, loaded from a folder."""

    def __init__(self, base: Path, seed: int) -> None:
        from undertone.networks import decoder, encoder

        self._seed = seed
        self._model = decoder.load(base, four_bit=False)
        try:
            self._tokenizer: Any = encoder.load_tokenizer(base)
        except Problem:
            raise
        except Exception as error:  # what a broken one makes transformers raise has no common kind
            raise Problem(
                f"its tokenizer can't be loaded ({type(error).__name__})",
                where=str(base),
                remedy="Check tokenizer.json, or fetch the base anew.",
            ) from None
        config = self._model.config.get_text_config()
        self._positions = getattr(config, "max_position_embeddings", None)
        self._chat = Chat(self._tokenizer)
        self._ends = _ids(self._model.generation_config.eos_token_id) | self._chat.ends
        pad = self._tokenizer.pad_token_id
        self._pad = pad if pad is not None else min(self._ends, default=0)

    def answered(
        self, rows: Sequence[_Row], batch: int, done: Mapping[str, Line]
    ) -> Iterator[dict[str, Line]]:
        """Key → output line of the rows that aren't in `done`, a batch at a time.

        Batches are cut from all rows, longest first, so that they are the same in every run.
        """
        if all(row.key in done for row in rows):
            return
        prompts = {row.key: self._chat.prompt(row.messages) for row in rows}
        unique = list({row.key: row for row in rows}.values())
        fits = {row.key: self._fits(prompts[row.key], row) for row in unique}
        too_long = [row for row in unique if not fits[row.key] and row.key not in done]
        if too_long:
            yield {row.key: self._refusal(row, len(prompts[row.key])) for row in too_long}
        order = sorted(
            (row for row in unique if fits[row.key]),
            key=lambda row: (-row.max_tokens, -len(prompts[row.key]), row.custom_id),
        )
        for _, group in itertools.groupby(order, key=lambda row: row.max_tokens):
            alike = list(group)
            for start in range(0, len(alike), batch):
                left = [row for row in alike[start : start + batch] if row.key not in done]
                if left:
                    yield self._generated(left, [prompts[row.key] for row in left])

    def _fits(self, prompt: NDArray[np.int32], row: _Row) -> bool:
        return self._positions is None or len(prompt) + row.max_tokens <= self._positions

    def _refusal(self, row: _Row, length: int) -> Line:
        what = f"{length} tokens and {row.max_tokens} for the answer; the model reads {self._positions}"
        fault = {"code": "context_length_exceeded", "message": what}
        return {"id": _name(row), "custom_id": row.custom_id, "response": None, "error": fault}

    def _generated(self, rows: Sequence[_Row], prompts: Sequence[NDArray[np.int32]]) -> dict[str, Line]:
        from undertone.networks import generation

        answers = generation.generate(
            self._model,
            [prompt.tolist() for prompt in prompts],
            max_new_tokens=rows[0].max_tokens,
            ends=self._ends,
            pad=self._pad,
            batch=len(rows),
            logits_processor=lambda places: _Drawn([rows[at] for at in places], self._seed),
        )
        return {
            row.key: self._line(row, len(prompt), answer)
            for row, prompt, answer in zip(rows, prompts, answers, strict=True)
        }

    def _line(self, row: _Row, length: int, answer: list[int]) -> Line:
        ended = answer[-1] in self._ends
        text = self._tokenizer.decode(
            answer[:-1] if ended else answer,
            skip_special_tokens=True,
            clean_up_tokenization_spaces=False,
        )
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text},
            "finish_reason": "stop" if ended else "length",
        }
        body = {
            "id": _name(row),
            "object": "chat.completion",
            # the day alone; `state` keeps it, so that a run that goes on writes the same
            "created": int(time.time()) // 86_400 * 86_400,
            "model": row.model,
            "choices": [choice],
            "usage": {
                "prompt_tokens": length,
                "completion_tokens": len(answer),
                "total_tokens": length + len(answer),
            },
        }
        response = {"status_code": 200, "request_id": _name(row), "body": body}
        return {"id": _name(row), "custom_id": row.custom_id, "response": response, "error": None}


class _Drawn:
    """Makes the largest logit of each row a draw from its softmax at the row's temperature, by noise
    from a generator of the row's own (the Gumbel-max trick; Gumbel 1954); at 0 it stays as it is."""

    def __init__(self, rows: Sequence[_Row], seed: int) -> None:
        import torch

        self._noises: list[tuple[float, torch.Generator]] = []
        for row in rows:
            digest = hashlib.sha256(f"{seed}\n{row.custom_id}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:8]) >> 1)
            self._noises.append((row.temperature, generator))

    def __call__(self, input_ids: "torch.Tensor", scores: "torch.Tensor") -> "torch.Tensor":
        """`scores` [rows, vocabulary] → the same shape."""
        import torch

        drawn = scores.clone()
        for at, (temperature, generator) in enumerate(self._noises):
            if temperature > 0:
                # on the CPU, so that any device draws alike
                noise = -torch.empty(scores.shape[1]).exponential_(generator=generator).log()
                drawn[at] = scores[at] / temperature + noise.to(scores.device)
        return drawn


def _rows(path: Path, digest: str) -> Iterator[_Row]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                request = json.loads(line)
                body = request["body"]
                row = _Row(
                    hashlib.sha256(f"{digest}\n".encode() + line.strip()).hexdigest(),
                    _text(request["custom_id"]),
                    _text(body["model"]),
                    [{key: _text(one[key]) for key in ("role", "content")} for one in body["messages"]],
                    float(body["temperature"]),
                    int(body["max_tokens"]),
                )
            except (ValueError, LookupError, TypeError, RecursionError):
                raise Problem(
                    "no request",
                    where=f"{path}, line {number}",
                    remedy="Run `dvc repro --force request`.",
                ) from None
            yield row


def _progress(path: Path) -> Iterator[tuple[str, Line]]:
    """Key and output line of what is done; a line that a kill cut off is skipped."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            try:
                one = json.loads(line)
                yield one["key"], one["line"]
            except (ValueError, LookupError, TypeError):
                continue


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _ids(value: int | Sequence[int] | None) -> set[int]:
    if value is None:
        return set()
    return {value} if isinstance(value, int) else set(value)


def _name(row: _Row) -> str:
    return f"local-{row.key[:24]}"


def _json(content: object) -> bytes:
    return (json.dumps(content, ensure_ascii=False) + "\n").encode()
