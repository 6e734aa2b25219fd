"""A fully fine-tuned encoder, trained with the Hugging Face Trainer.

Warm-up, early stopping on validation macro-F1, batches of like length padded to their longest row,
class weights; bf16 where the machine has it.
"""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    DataCollatorWithPadding,
    EvalPrediction,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from undertone import encoder, metrics
from undertone.heads import class_weights
from undertone.labels import Flags, LabelSpace, Scores
from undertone.models import Examples, Graph, Log
from undertone.params import BertSettings, ClassWeights, Settings


class Model:
    def __init__(self, settings: Settings, space: LabelSpace, *, base: Path | None, seed: int) -> None:
        assert isinstance(settings, BertSettings)
        assert base is not None
        self.settings: Settings = settings
        self.space = space
        self._own = settings
        self._base = base
        self._seed = seed
        self._tokenizer = encoder.load_tokenizer(base)
        set_seed(seed)  # the new head is random
        self._model = encoder.PooledClassifier(
            encoder.load_backbone(base, max_length=settings.max_length),
            len(space.labels),
            pooling=settings.pooling,
            normalise=False,
        )
        self._model.eval().to(encoder.device())

    def fit(self, train: Examples, validation: Examples, log: Log) -> None:
        own = self._own
        best = _Best(own.patience)
        trainer = _WeightedTrainer(
            model=self._model,
            args=TrainingArguments(
                output_dir=tempfile.gettempdir(),  # nothing is written: the best weights stay in memory
                seed=self._seed,
                num_train_epochs=own.epochs,
                per_device_train_batch_size=own.batch,
                per_device_eval_batch_size=4 * own.batch,
                learning_rate=own.lr,
                warmup_ratio=own.warmup,
                weight_decay=own.weight_decay,
                # these three are worth 3x on a CPU
                group_by_length=True,
                bf16=encoder.bf16() if own.precision == "auto" else own.precision == "bf16",
                optim="adamw_torch_fused",
                eval_strategy="epoch",
                save_strategy="no",
                logging_steps=10,
                report_to="none",  # by default it is every tracker that is installed
                disable_tqdm=not sys.stderr.isatty(),
                use_cpu=encoder.device().type == "cpu",
                dataloader_pin_memory=False,
                # the labels go to our loss, not to the model
                remove_unused_columns=False,
                label_names=["labels"],
            ),
            train_dataset=self._rows(train),
            eval_dataset=self._rows(validation),
            data_collator=DataCollatorWithPadding(self._tokenizer, pad_to_multiple_of=None),
            compute_metrics=self._validate,
            callbacks=[best, _Curves(log)],
        )
        trainer.remove_callback(_printer())
        trainer.loss_weights = _loss_weights(train.truth, self.space, own.class_weights)
        trainer.train()
        self._model.load_state_dict(best.weights)
        # training wraps `forward` in bf16 autocast; what is measured is what will be saved
        self._model = trainer.accelerator.unwrap_model(self._model, keep_fp32_wrapper=False)
        self._model.eval()

    def scores(self, texts: Sequence[str]) -> Scores:
        logits = encoder.run(
            texts,
            self._tokenizer,
            lambda batch: self._model(**batch).logits,
            max_length=self._own.max_length,
            width=len(self.space.labels),
        )
        return _activated(logits, self.space)

    def save(self, folder: Path) -> None:
        self._model.backbone.save_pretrained(folder)
        self._tokenizer.save_pretrained(folder)
        head = {key: value.cpu() for key, value in self._model.linear.state_dict().items()}
        save_file(head, folder / "head.safetensors")

    @classmethod
    def load(cls, folder: Path, settings: Settings, space: LabelSpace) -> Self:
        model = cls(settings, space, base=folder, seed=0)
        model._model.linear.load_state_dict(load_file(folder / "head.safetensors"))
        return model

    def graph(self) -> Graph:
        return Graph(
            self._model,
            tokenizer=self._base / "tokenizer.json",
            prefix="",
            max_length=self._own.max_length,
        )

    def _rows(self, examples: Examples) -> list[dict[str, Any]]:
        encoded = self._tokenizer(list(examples.texts), truncation=True, max_length=self._own.max_length)
        truth: Any = (
            examples.truth.astype(np.float32) if self.space.many else examples.truth.argmax(axis=1)
        )
        return [
            {**{key: encoded[key][row] for key in encoded}, "labels": truth[row]}
            for row in range(len(examples.texts))
        ]

    def _validate(self, prediction: EvalPrediction) -> dict[str, float]:
        scores = _activated(np.asarray(prediction.predictions), self.space)
        given = np.asarray(prediction.label_ids)
        truth = given > 0.5 if self.space.many else np.eye(len(self.space.labels), dtype=bool)[given]
        decided = self.space.with_thresholds(scores, truth).decide(scores)
        return {"macro_f1": metrics.macro_f1(truth, decided)}


class _WeightedTrainer(Trainer):  # type: ignore[misc]
    loss_weights: torch.Tensor  # [labels]

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, **_: Any
    ) -> Any:
        given = inputs.pop("labels")
        outputs = model(**inputs)
        logits = outputs.logits.float()
        weights = self.loss_weights.to(logits.device)
        if given.ndim == 2:
            loss = torch.nn.functional.binary_cross_entropy_with_logits(
                logits, given.float(), pos_weight=weights
            )
        else:
            loss = torch.nn.functional.cross_entropy(logits, given, weight=weights)
        return (loss, outputs) if return_outputs else loss


class _Best(TrainerCallback):  # type: ignore[misc]
    """Keeps the weights of the best evaluation, and stops after `patience` evaluations without one.

    In memory, because a checkpoint on disk would outlive a kill, and weights may remember a text.
    """

    def __init__(self, patience: int) -> None:
        self.weights: dict[str, torch.Tensor] = {}
        self._patience = patience
        self._best = -1.0
        self._since = 0

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: Any = None, model: Any = None, **_: Any
    ) -> None:
        self._since += 1
        if metrics["eval_macro_f1"] > self._best:
            self._best, self._since = metrics["eval_macro_f1"], 0
            self.weights = {
                name: weight.detach().cpu().clone() for name, weight in model.state_dict().items()
            }
        if self._since >= self._patience:
            control.should_training_stop = True


class _Curves(TrainerCallback):  # type: ignore[misc]
    def __init__(self, log: Log) -> None:
        self._log = log

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        values = {key: float(value) for key, value in (logs or {}).items() if key in _CURVES}
        if values:
            self._log(int(state.global_step), {_CURVES[key]: value for key, value in values.items()})


_CURVES: Mapping[str, str] = {
    "loss": "loss",
    "learning_rate": "learning_rate",
    "grad_norm": "grad_norm",
    "eval_loss": "validation_loss",
    "eval_macro_f1": "validation_macro_f1",
}


def _printer() -> type[TrainerCallback]:
    from transformers.trainer_callback import PrinterCallback

    return PrinterCallback  # type: ignore[no-any-return]


def _loss_weights(truth: Flags, space: LabelSpace, kind: ClassWeights) -> torch.Tensor:
    """What a row of each label weighs; for many labels what its presence weighs against absence."""
    if space.many:
        pairs = [class_weights(np.stack([~one, one], axis=1), kind) for one in truth.T]
        weights = np.array([present / absent for absent, present in pairs])
    else:
        weights = class_weights(truth, kind)
    return torch.tensor(weights, dtype=torch.float32)


def _activated(logits: Any, space: LabelSpace) -> Scores:
    tensor = torch.as_tensor(logits, dtype=torch.float64)
    activated = torch.sigmoid(tensor) if space.many else torch.softmax(tensor, dim=-1)
    scores: Scores = activated.numpy()
    return scores
