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
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from undertone import files
from undertone.errors import Problem
from undertone.files import whole

if TYPE_CHECKING:
    import torch

# Some templates name the day, and a prompt that changes overnight is another prompt. The date is the
# one that Llama 3's template falls back on.
TODAY = date(2024, 7, 26)

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
    _check(base)
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
        import torch
        from transformers import AutoModelForCausalLM

        from undertone import encoder

        self._seed = seed
        self._where = str(base)
        self._device = encoder.device()
        try:
            self._tokenizer: Any = encoder.load_tokenizer(base)
            model, told = AutoModelForCausalLM.from_pretrained(
                base,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                dtype=torch.bfloat16 if self._device.type == "cuda" else torch.float32,
                output_loading_info=True,
            )
            self._model: Any = model.eval().to(self._device)
        except Problem:
            raise
        except torch.OutOfMemoryError:
            raise Problem(
                "the model is larger than this GPU's memory",
                where=self._where,
                remedy="Choose a smaller base, or another machine.",
            ) from None
        except Exception as error:  # what a broken folder makes transformers raise has no common kind
            raise Problem(
                f"can't be loaded as a causal language model ({type(error).__name__})",
                where=self._where,
                remedy="Check config.json, the safetensors and the tokenizer, or fetch the base anew.",
            ) from None
        if missing := told["missing_keys"]:  # would be random numbers
            raise Problem(
                f"its weights lack {len(missing)} of the model's tensors",
                where=self._where,
                remedy="Choose a base with a language model's head, or fetch it anew.",
            )
        config = self._model.config.get_text_config()
        self._positions = getattr(config, "max_position_embeddings", None)
        special = self._tokenizer.added_tokens_decoder.items()
        self._markers = {at for at, token in special if len(token.content) > 1 and token.content.strip()}
        self._ends = _ids(self._model.generation_config.eos_token_id) | _ids(
            self._tokenizer.eos_token_id
        )
        begun = self._tokenizer("a")["input_ids"][:1] == [self._tokenizer.bos_token_id]
        # a template writes the first token itself
        alone = begun and self._tokenizer.chat_template is None
        self._start = [self._tokenizer.bos_token_id] if alone else []
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
        prompts = {row.key: self.prompt(row.messages) for row in rows}
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

    def prompt(self, messages: Sequence[Mapping[str, str]]) -> NDArray[np.int32]:
        """The token ids of a conversation, up to where the answer begins.

        What a text says in the shape of a special token is read as the letters it is written with.
        """
        # what no text can hold, since it depends on all of it
        mark = hashlib.sha256(json.dumps(list(messages)).encode()).hexdigest()
        hidden: list[str] = []
        quoted = [
            {**message, "content": self._hidden(message["content"], mark, hidden)}
            for message in messages
        ]
        flat = self._rendered(quoted)
        ids: list[int] = []
        for number, piece in enumerate(flat.split(mark)):
            if number:
                at, _, piece = piece.partition(";")
                ids += self._as_letters(hidden[int(at)])
            ids += self._encoded(piece)["input_ids"]
        return np.array([*self._start, *ids], dtype=np.int32)

    def _rendered(self, messages: list[dict[str, str]]) -> str:
        from jinja2 import TemplateError

        joined = "\n\n".join(message["content"] for message in messages)
        if self._tokenizer.chat_template is None:
            return joined
        told = {
            "tokenize": False,
            "add_generation_prompt": True,
            "enable_thinking": False,  # max_tokens counts on a short answer
            "date_string": TODAY.strftime("%d %b %Y"),
            "strftime_now": TODAY.strftime,
        }
        try:
            flat: str = self._tokenizer.apply_chat_template(messages, **told)
        except TemplateError:  # Gemma's and others' know no system
            flat = self._tokenizer.apply_chat_template([{"role": "user", "content": joined}], **told)
        return flat

    def _hidden(self, text: str, mark: str, hidden: list[str]) -> str:
        """`text` with what would be read as a special token replaced by a mark and its place in
        `hidden`, to which it is added."""
        encoded = self._encoded(text)
        parts, start = [], 0
        for token, (first, last) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
            if token in self._markers and first >= start:
                parts += [text[start:first], f"{mark}{len(hidden)};"]
                hidden.append(text[first:last])
                start = last
        return "".join([*parts, text[start:]])

    def _as_letters(self, text: str) -> list[int]:
        encoded = self._encoded(text)
        for token, (first, last) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
            if token in self._markers and last - first > 1:
                return self._as_letters(text[: first + 1]) + self._as_letters(text[first + 1 :])
        ids: list[int] = encoded["input_ids"]
        return ids

    def _encoded(self, text: str) -> Any:
        return self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)

    def _fits(self, prompt: NDArray[np.int32], row: _Row) -> bool:
        return self._positions is None or len(prompt) + row.max_tokens <= self._positions

    def _refusal(self, row: _Row, length: int) -> Line:
        what = f"{length} tokens and {row.max_tokens} for the answer; the model reads {self._positions}"
        fault = {"code": "context_length_exceeded", "message": what}
        return {"id": _name(row), "custom_id": row.custom_id, "response": None, "error": fault}

    def _generated(self, rows: Sequence[_Row], prompts: Sequence[NDArray[np.int32]]) -> dict[str, Line]:
        import torch
        from transformers import GenerationConfig

        width = max(len(prompt) for prompt in prompts)
        ids = torch.full((len(rows), width), self._pad)
        mask = torch.zeros((len(rows), width), dtype=torch.long)
        for at, prompt in enumerate(prompts):
            ids[at, width - len(prompt) :] = torch.from_numpy(prompt)
            mask[at, width - len(prompt) :] = 1
        try:
            with torch.inference_mode():
                made = self._model.generate(
                    input_ids=ids.to(self._device),
                    attention_mask=mask.to(self._device),
                    logits_processor=[_Drawn(rows, self._seed)],
                    generation_config=GenerationConfig(
                        max_new_tokens=rows[0].max_tokens,
                        do_sample=False,
                        eos_token_id=sorted(self._ends) or None,
                        pad_token_id=self._pad,
                    ),
                    use_model_defaults=False,  # a penalty that a model ships with is no one's wish here
                )
        except torch.OutOfMemoryError:
            raise Problem(
                f"{len(rows)} texts of up to {width} tokens are more than this GPU's memory holds",
                where=self._where,
                remedy="Lower local.batch: what is done is kept.",
            ) from None
        answers = made[:, width:].tolist()
        return {
            row.key: self._line(row, len(prompt), answer)
            for row, prompt, answer in zip(rows, prompts, answers, strict=True)
        }

    def _line(self, row: _Row, length: int, answer: list[int]) -> Line:
        end = next((at for at, token in enumerate(answer) if token in self._ends), None)
        text = self._tokenizer.decode(
            answer[:end], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        written = len(answer) if end is None else end + 1
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text},
            "finish_reason": "length" if end is None else "stop",
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
                "completion_tokens": written,
                "total_tokens": length + written,
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


def _check(base: Path) -> None:
    if not base.is_dir():
        raise Problem("no such folder", where=str(base), remedy="Run `dvc repro`, or `dvc pull`.")
    if not any(base.glob("*.safetensors")):
        raise Problem(
            "no safetensors weights (pickled weights are never loaded)",
            where=str(base),
            remedy="Choose a base that has model.safetensors.",
        )


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
