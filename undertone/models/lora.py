"""A language model tuned by low-rank adapters, on 4-bit weights (QLoRA) or full ones.

The trainer is the one that encoders use, with rows made here: TRL's cuts a long row's answer off, can't
share the instruction between rows, and in 4 bit rounds adapters to bf16 on any machine.
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from peft import (
    LoraConfig,
    get_peft_model,
    get_peft_model_state_dict,
    prepare_model_for_kbit_training,
    set_peft_model_state_dict,
)
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file
from transformers import DataCollatorWithPadding, set_seed

from undertone.labels import Flags, LabelSpace, Scores
from undertone.measures import metrics
from undertone.models import Examples, Log, Start
from undertone.networks import chat, decoder, encoder, language, packing
from undertone.networks.chat import Builder, Row
from undertone.params import LoraSettings, Preference, Settings
from undertone.tuning import imbalance, losses, training


class Model:
    def __init__(self, settings: Settings, space: LabelSpace, start: Start) -> None:
        assert isinstance(settings, LoraSettings)
        assert start.base is not None
        assert start.instruction is not None
        self.settings: Settings = settings
        self.space = space
        self._own = settings
        self._seed = start.seed
        self._base, self._instruction = start.base, start.instruction
        self._offset: NDArray[np.float64] = np.zeros(len(space.labels))  # of the labels' logits
        self._sets = language.answerable(space)
        self._tokenizer = encoder.load_tokenizer(start.base)
        classify = settings.objective == "classify"
        if not classify:
            self._builder = Builder(self._tokenizer, start.instruction, settings.max_length)
        set_seed(start.seed)  # a new head and the adapters are random
        model = decoder.load(
            start.base,
            four_bit=settings.load == "nf4",
            classes=len(space.labels) if classify else None,
            pad=self._pad(),
        )
        language.fits(model, settings.max_length)
        if not classify:
            language.check(model, self._builder, settings, closes=True)
        if settings.load == "nf4":
            model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
        self._model = get_peft_model(
            model,
            LoraConfig(
                r=settings.r,
                lora_alpha=settings.alpha,
                lora_dropout=settings.dropout,
                target_modules=settings.target_modules,
                task_type="SEQ_CLS" if classify else "CAUSAL_LM",  # the former tunes the head as a whole
            ),
        ).eval()

    def fit(self, train: Examples, validation: Examples, log: Log, state: Path) -> None:
        print(decoder.told(self._model), file=sys.stderr)
        if self._own.objective == "classify":
            self._fit_head(train, validation, log, state)
        else:
            self._fit_answers(train, validation, log, state)

    def scores(self, texts: Sequence[str]) -> Scores:
        if self._own.objective == "classify":
            logits = encoder.run(
                [self._read(text) for text in texts],
                self._tokenizer,
                lambda batch: self._model(**batch).logits,
                max_length=self._own.max_length,
                width=len(self.space.labels),
            )
            return losses.activated(logits, self.space.many)
        return language.scores(
            self._model, self._builder, texts, self.space, self._own, self._sets, self._offset
        )

    def save(self, folder: Path) -> None:
        weights = get_peft_model_state_dict(self._model)
        save_file(
            {name: weight.cpu().contiguous() for name, weight in weights.items()},
            folder / "adapter.safetensors",
        )
        save_arrays({"offset": self._offset, "sets": self._sets}, folder / "answers.safetensors")
        language.keep_start(folder, self._base, self._instruction)

    @classmethod
    def load(cls, folder: Path, settings: Settings, space: LabelSpace) -> Self:
        base, instruction = language.kept_start(folder)
        model = cls(settings, space, Start(0, base, instruction))
        model._take(load_file(folder / "adapter.safetensors"))
        arrays = load_arrays(folder / "answers.safetensors")
        model._offset, model._sets = arrays["offset"], arrays["sets"]
        return model

    def _fit_answers(self, train: Examples, validation: Examples, log: Log, state: Path) -> None:
        own = self._own
        self._sets = language.answerable(self.space, train.truth)
        drawn = imbalance.epoch(train.truth, own, seed=0, number=0)
        prior = imbalance.prior(train.truth[drawn], self.space.many, train.weights[drawn])
        self._offset = -own.logit_adjustment * prior
        rows = [self._row(text, flags) for text, flags in zip(train.texts, train.truth, strict=True)]
        prefix = packing.shared(rows)
        weights = losses.row_weights(train.truth, own, self.space.many, train.weights)
        judge, job = self._judge(train, validation), self._job(validation)
        training.train(
            self._model,
            [
                {"ids": np.array(row.ids), "start": row.start, "weight": weight}
                for row, weight in zip(rows, weights.tolist(), strict=True)
            ],
            own=own,
            truth=train.truth,
            labels=self.space.labels,
            lengths=[len(row.ids) - prefix for row in rows],
            collate=lambda batch: packing.pack(
                [Row(one["ids"], one["start"]) for one in batch],
                [one["weight"] for one in batch],
                prefix,
                everything=own.loss_on == "all",
            ),
            loss=lambda model, batch: packing.answer_loss(model, batch, own.focal),
            weigh=lambda batch: batch["weight"].sum(),
            judge=judge,
            seed=self._seed,
            job=job,
            state=state / "answers",
            log=log,
        )
        if own.preference is not None:
            self._prefer(own.preference, train, rows, prefix, judge, job, log, state / "preference")

    def _prefer(
        self,
        wanted: Preference,
        train: Examples,
        rows: Sequence[Row],
        prefix: int,
        judge: Callable[[], Mapping[str, float]],
        job: bytes,
        log: Log,
        state: Path,
    ) -> None:
        """Prefer each right answer to the likeliest wrong one; kept only if validation gains."""
        own = self._own
        before = judge()["validation_macro_f1"]
        tuned = {name: weight.clone() for name, weight in get_peft_model_state_dict(self._model).items()}
        wrong = self._likeliest_wrong(train)
        pairs = [
            {"right": np.array(row.ids), "wrong": np.array(other.ids), "start": row.start, "ahead": 0.0}
            for row, other in zip(rows, wrong, strict=True)
        ]

        def collate(batch: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
            both = [Row(one[side], one["start"]) for one in batch for side in ("right", "wrong")]
            packed = packing.pack(both, [1.0] * len(both), prefix, everything=False)
            return {**packed, "ahead": torch.tensor([one["ahead"] for one in batch])}

        for start in range(0, len(pairs), own.batch):
            batch = pairs[start : start + own.batch]
            given = {name: one.to(self._model.device) for name, one in collate(batch).items()}
            with torch.inference_mode():
                ahead = packing.ahead(self._model, given)
            for one, value in zip(batch, ahead.tolist(), strict=True):
                one["ahead"] = value
        settings = {"epochs": wanted.epochs, "lr": wanted.lr, "steps": None, "evaluate_every": None}
        training.train(
            self._model,
            pairs,
            own=own.model_copy(update=settings),
            truth=train.truth,
            labels=self.space.labels,
            lengths=[len(row.ids) - prefix for row in rows],
            collate=collate,
            loss=lambda model, batch: packing.preference_loss(model, batch, wanted.beta),
            weigh=lambda batch: len(batch["ahead"]),
            judge=judge,
            seed=self._seed,
            job=job,
            state=state,
            log=lambda step, values: log(
                step, {f"preference_{key}": one for key, one in values.items()}
            ),
        )
        kept = judge()["validation_macro_f1"] > before
        if not kept:
            self._take(tuned)
        log(0, {"preference_kept": float(kept)})

    def _likeliest_wrong(self, train: Examples) -> list[Row]:
        """For each row the row with the likeliest answer that is another one."""
        found = language.log_probabilities(
            self._model, self._builder, train.texts, self.space, self._sets
        )
        same = (train.truth[:, None, :] == self._sets[None, :, :]).all(axis=2)
        chosen = np.where(same, -np.inf, found).argmax(axis=1)
        return [self._row(text, self._sets[one]) for text, one in zip(train.texts, chosen, strict=True)]

    def _fit_head(self, train: Examples, validation: Examples, log: Log, state: Path) -> None:
        own = self._own
        told = [self._read(text) for text in train.texts]
        encoded = self._tokenizer(told, truncation=True, max_length=own.max_length)
        truth = train.truth.astype(np.float32)
        loss = losses.Loss(own, train.truth, self.space.many, train.weights)
        apart = ("truth", "weight")  # what a batch holds that the model isn't given
        training.train(
            self._model,
            [
                {**{key: encoded[key][row] for key in encoded}, "truth": truth[row], "weight": weight}
                for row, weight in enumerate(train.weights.tolist())
            ],
            own=own,
            truth=train.truth,
            labels=self.space.labels,
            lengths=[len(ids) for ids in encoded["input_ids"]],
            collate=DataCollatorWithPadding(self._tokenizer),
            loss=lambda model, batch: loss(
                model(**{key: batch[key] for key in batch if key not in apart}).logits,
                batch["truth"],
                batch["weight"],
            ),
            weigh=lambda batch: loss.weight(batch["truth"], batch["weight"]),
            judge=self._judge(train, validation),
            seed=self._seed,
            job=self._job(validation),
            state=state / "head",
            log=log,
        )

    def _judge(self, train: Examples, validation: Examples) -> Callable[[], Mapping[str, float]]:
        drawn = training.watched(len(train.texts), self._seed)
        watched = Examples([train.texts[one] for one in drawn], train.truth[drawn])

        def judge() -> dict[str, float]:
            reached = {}
            for name, on in (("validation", validation), ("train", watched)):
                scores = self._closed(on.texts)
                space = self.space.with_thresholds(scores, on.truth)
                reached[f"{name}_macro_f1"] = metrics.macro_f1(on.truth, space.decide(scores))
                reached[f"{name}_loss"] = metrics.log_loss(on.truth, scores, many=space.many)
            return reached

        return judge

    def _job(self, validation: Examples) -> bytes:
        told = [list(validation.texts), validation.truth.tolist(), self._instruction.to_json()]
        return json.dumps(told).encode()

    def _closed(self, texts: Sequence[str]) -> Scores:
        """Scores by closed labels, whatever prediction is to be: a look at validation must be quick."""
        if self._own.objective == "classify":
            return self.scores(texts)
        own = self._own.model_copy(update={"predict": "closed"})
        return language.scores(
            self._model, self._builder, texts, self.space, own, self._sets, self._offset
        )

    def _read(self, text: str) -> str:
        """What the head reads of a comment: a line, so that it is never nothing."""
        return f"{chat.readable(text)}\n"

    def _row(self, text: str, flags: Flags) -> Row:
        return self._builder.row(text, language.named(flags, self.space))

    def _take(self, weights: Mapping[str, torch.Tensor]) -> None:
        set_peft_model_state_dict(self._model, dict(weights))

    def _pad(self) -> int:
        # a comment that spells a special token must not become one, least of all the padding's
        self._tokenizer.split_special_tokens = True
        if self._tokenizer.pad_token_id is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        return int(self._tokenizer.pad_token_id)
