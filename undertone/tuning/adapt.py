"""Adapting a base: more pre-training on a source's own comments, before labels are learnt.

Domain- and task-adaptive pre-training (Gururangan et al. 2020). Decoders learn by the loss of the next
token, encoders by masked-language modelling (Devlin et al. 2019). All weights learn, in fp32 with two
moments each: 16 bytes a parameter, and the activations.
"""

import hashlib
import math
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    DataCollatorForLanguageModeling,
    GenerationConfig,
    Trainer,
    TrainingArguments,
    set_seed,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)
from transformers.trainer_callback import PrinterCallback

from undertone import params
from undertone.corpus import held
from undertone.errors import Problem
from undertone.files import sha256, write_json
from undertone.networks import encoder

TOLD = "adapted.json"
HELD_OUT = 0.02  # of the texts, to measure what was gained
MASKED = 0.15  # of an encoder's tokens: 80 % of them hidden, 10 % replaced, 10 % left as they are
WARMUP, DECAY = 0.06, 0.01  # Gururangan et al. 2020, table 13
NOT_LEARNT = -100  # where there is nothing to predict

Row = dict[str, list[int]]
Batch = dict[str, torch.Tensor]  # input_ids, labels, …: [rows, tokens]


@dataclass(frozen=True)
class _Task:
    """What is trained on what, and measured on what."""

    module: Any  # token ids → logits
    kept: Any  # the part of it that is saved
    dtype: torch.dtype  # of the weights in the base's file
    rows: list[Row]
    epochs: float  # over `rows`
    batched: Callable[[list[Row]], Batch]
    held: list[Batch]


def readable(comments: pd.DataFrame, parts: pd.DataFrame, alike: params.Clean) -> list[str]:
    """The texts of the cleaned `comments`, labelled or not, that a base may read, each once.

    Only of rows that `held.free` says nothing against.
    """
    kept = held.free(comments, parts, alike)
    return list(dict.fromkeys(comments.loc[kept, "text"]))


def adapt(
    base: Path, texts: Sequence[str], settings: params.Adapt, *, seed: int, out: Path
) -> dict[str, Any]:
    """Train the model in `base` on `texts`; into the existing folder `out` come its files, the weights
    new, and `adapted.json`, whose content is returned.

    It counts texts and steps, and gives the loss in nats a token before and after, on texts held out.
    The order of the texts decides nothing. `Problem` where they are fewer than two, or where the base
    is neither kind of model.
    """
    if len(texts) < 2:
        raise Problem(
            f"{len(texts)} comments are free of validation and test, too few to adapt a base to",
            where="adapt",
            remedy="Set the candidate's adapt to null.",
        )
    ordered = sorted(texts, key=lambda text: hashlib.sha256(text.encode()).digest())
    count = math.ceil(HELD_OUT * len(ordered))
    set_seed(seed)  # an encoder's new head is random
    build = _unmasking if _is_encoder(base) else _continuing
    task = build(base, ordered[count:], ordered[:count], settings, seed)
    before = _loss(task)
    steps = _train(task, settings, seed)
    after = _loss(task)
    for path in base.iterdir():
        # base.json tells of the weights that were
        if path.name != "base.json" and ".safetensors" not in path.name:
            shutil.copyfile(path, out / path.name)
    _save(task, out)
    told = {
        "adapted": True,
        "texts": len(ordered) - count,
        "held_out": count,
        "steps": steps,
        "loss_before": before,
        "loss_after": after,
        "sha256": {path.name: sha256(path) for path in sorted(out.glob("*.safetensors"))},
    }
    write_json(out / TOLD, told)
    return told


def _is_encoder(base: Path) -> bool:
    config = AutoConfig.from_pretrained(base, local_files_only=True, trust_remote_code=False)
    kind = config.model_type
    encodes = kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not config.is_decoder
    decodes = kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not encodes
    if config.is_encoder_decoder or not (encodes or decodes):
        raise Problem(
            f"a model of type {kind} is neither an encoder nor a decoder alone, so it can't be adapted",
            where=str(base),
            remedy="Set the candidate's adapt to null.",
        )
    return encodes


def _continuing(
    base: Path, texts: Sequence[str], held: Sequence[str], settings: params.Adapt, seed: int
) -> _Task:
    """A decoder's task. Each text ends with the end token; they are shuffled for each epoch and packed
    into full rows, in which a text sees those before it (as do those of Brown et al. 2020). What a text
    says in the shape of a special token is read as letters."""
    module, dtype = _loaded(AutoModelForCausalLM, base)
    tokenizer = encoder.load_tokenizer(base)
    end = tokenizer.eos_token_id
    if end is None:
        raise Problem("its tokenizer has no end token", where=str(base), remedy="Choose another base.")

    def documents(some: Sequence[str]) -> list[list[int]]:
        found = tokenizer(list(some), split_special_tokens=True)["input_ids"]
        return [ids if ids[-1:] == [end] else [*ids, end] for ids in found]

    rng = np.random.default_rng(seed)
    learnt = documents(texts)
    total = max(2, round(settings.epochs * sum(map(len, learnt))))
    stream: list[int] = []
    while len(stream) < total:
        for at in rng.permutation(len(learnt)):
            stream += learnt[at]
    positions = getattr(module.config, "max_position_embeddings", None) or settings.max_length
    width = min(settings.max_length, positions, total)
    starts = range(0, total - width + 1, width)
    rows = [{"input_ids": stream[at : at + width]} for at in starts]

    def batched(some: list[Row]) -> Batch:
        ids = [torch.tensor(row["input_ids"]) for row in some]
        following = [torch.cat([one[1:], torch.tensor([NOT_LEARNT])]) for one in ids]
        labels = pad_sequence(following, batch_first=True, padding_value=NOT_LEARNT)
        return {"input_ids": pad_sequence(ids, batch_first=True), "labels": labels}

    measured = [{"input_ids": ids[:positions]} for ids in documents(held)]
    return _Task(module, module, dtype, rows, 1.0, batched, _in_batches(measured, batched))


def _unmasking(
    base: Path, texts: Sequence[str], held: Sequence[str], settings: params.Adapt, seed: int
) -> _Task:
    """An encoder's task, a row a text, cut at `max_length`. The head that names hidden tokens is left
    behind, and may be a new one, where the base came without."""
    tokenizer = encoder.load_tokenizer(base)
    if tokenizer.mask_token is None:
        raise Problem(
            "its tokenizer has no mask token, so it can't be adapted",
            where=str(base),
            remedy="Set the candidate's adapt to null.",
        )
    module, dtype = _loaded(AutoModelForMaskedLM, base)
    # the family's own backbone in the place of the module's, which lacks what hidden tokens don't need
    backbone = encoder.load_backbone(base, max_length=settings.max_length)
    setattr(module, module.base_model_prefix, backbone)
    module.tie_weights()

    def rows(some: Sequence[str]) -> list[Row]:
        encoded = tokenizer(
            list(some),
            truncation=True,
            max_length=settings.max_length,
            return_special_tokens_mask=True,
            split_special_tokens=True,
        )
        return [{key: encoded[key][row] for key in encoded} for row in range(len(some))]

    def masking(generator: int) -> DataCollatorForLanguageModeling:
        return DataCollatorForLanguageModeling(tokenizer, mlm_probability=MASKED, seed=generator)

    measured = _in_batches(rows(held), masking(1))
    return _Task(module, backbone, dtype, rows(texts), settings.epochs, masking(seed), measured)


def _in_batches(rows: Sequence[Row], batched: Callable[[list[Row]], Batch]) -> list[Batch]:
    order = encoder.batches([len(row["input_ids"]) for row in rows])
    return [batched([rows[at] for at in some]) for some in order]


def _loaded(kind: Any, base: Path) -> tuple[Any, torch.dtype]:
    """The model in fp32 on this machine's device, and the type in which its file holds it."""
    module, told = kind.from_pretrained(
        base,
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
        dtype="auto",
        output_loading_info=True,
    )
    if kind is AutoModelForCausalLM and (missing := told["missing_keys"]):  # they would be random
        raise Problem(
            f"its weights lack {len(missing)} of the model's tensors",
            where=str(base),
            remedy="Choose a base with a language model's head, or fetch it anew.",
        )
    dtype = module.dtype
    return module.float().to(encoder.device()), dtype


def _train(task: _Task, settings: params.Adapt, seed: int) -> int:
    """Train `task.module` in place, and return how many steps that took."""
    arguments = TrainingArguments(
        output_dir=tempfile.gettempdir(),  # nothing is written
        seed=seed,
        num_train_epochs=task.epochs,
        per_device_train_batch_size=settings.batch,
        learning_rate=settings.lr,
        lr_scheduler_type="cosine",
        warmup_ratio=WARMUP,
        weight_decay=DECAY,
        group_by_length=True,
        bf16=encoder.bf16(),
        optim="adamw_torch_fused",
        save_strategy="no",
        logging_strategy="no",
        report_to="none",  # by default it is every tracker that is installed
        disable_tqdm=not sys.stderr.isatty(),
        use_cpu=encoder.device().type == "cpu",
        dataloader_pin_memory=False,
        remove_unused_columns=False,
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # several would each get a part of a small batch
    trainer = Trainer(
        model=task.module,
        args=arguments,
        train_dataset=task.rows,
        data_collator=task.batched,
        # a batch in which nothing is hidden has no mean
        compute_loss_func=lambda outputs, labels, **_: (
            _summed(outputs.logits, labels) / (labels != NOT_LEARNT).sum().clamp(min=1)
        ),
    )
    trainer.remove_callback(PrinterCallback)
    try:
        trainer.train()
    except torch.OutOfMemoryError:
        raise Problem(
            f"{settings.batch} rows of {settings.max_length} tokens don't fit into this GPU's memory",
            where="adapt",
            remedy="Lower adapt.batch or adapt.max_length, or choose a smaller base.",
        ) from None
    # training wraps `forward` in bf16 autocast; what is measured is what will be saved
    trainer.accelerator.unwrap_model(task.module, keep_fp32_wrapper=False).eval()
    return int(trainer.state.global_step)


def _loss(task: _Task) -> float:
    """The mean over the tokens held out, in nats."""
    total, count = 0.0, 0
    with torch.inference_mode():
        for batch in task.held:
            inputs = {key: value.to(encoder.device()) for key, value in batch.items()}
            labels = inputs.pop("labels")
            total += float(_summed(task.module.eval()(**inputs).logits, labels))
            count += int((labels != NOT_LEARNT).sum())
    return total / max(count, 1)


def _summed(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return cross_entropy(
        logits.flatten(0, 1).float(), labels.flatten(), ignore_index=NOT_LEARNT, reduction="sum"
    )


def _save(task: _Task, out: Path) -> None:
    """The weights alone, in the type that they came in: all else is the base's own, byte for byte."""
    if task.kept.can_generate():
        task.kept.generation_config = GenerationConfig()  # a faulty one can't be saved
    with tempfile.TemporaryDirectory(dir=out) as beside:
        task.kept.to(task.dtype).save_pretrained(beside)
        for path in Path(beside).glob("*.safetensors*"):
            path.rename(out / path.name)
