"""Training by gradient, shared by the families: one loop that a kill can't spoil.

transformers' Trainer does the steps. What is ours: which rows an epoch holds and in which batches, how
validation is looked at, and checkpoints that are whole or not there. A killed Trainer may leave half a
checkpoint, and then fails when it goes on; here a checkpoint gets its name only when all of it is on
the disk. Called again with the same arguments, training goes on from the newest one; on a CPU with as
many threads it ends in the same weights and curves, bit for bit, as if nothing had happened.

Several processes, see `launcher`, learn as one: each takes its rows of every batch, and the mean is over
the batch. All of them look at validation, but the first one's figures decide.
"""

import hashlib
import json
import math
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.data_loader import DataLoaderShard
from accelerate.utils import broadcast_object_list
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch.utils.data import Sampler
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
    set_seed,
)

from undertone.files import remove, whole
from undertone.labels import Flags
from undertone.networks import encoder
from undertone.params import Trained
from undertone.tuning import imbalance

Log = Callable[[int, Mapping[str, float]], None]  # step, values
Batch = dict[str, Any]

WATCHED = 500  # training rows that are scored at each look at validation: enough to see the gap

_CURVES = {"loss", "learning_rate", "grad_norm"}
_KEPT = {"seconds", "judging", "epoch", "step"}  # in what is known of a look, but no curves
_STATE, _WEIGHTS, _JOB = "trainer_state.json", "weights.safetensors", "job"


class Batches(Sampler[list[int]]):
    """The order of the rows: each epoch draws them anew, and every `batch` of them are of like length,
    so that little is padding. The longest come first: what doesn't fit into memory fails at once.

    Process number `process` of `processes` takes its part of every batch; a batch of fewer rows than
    processes is learnt by each of them.
    """

    def __init__(
        self,
        own: Trained,
        truth: Flags,
        lengths: Sequence[int],
        seed: int,
        *,
        process: int = 0,
        processes: int = 1,
    ) -> None:
        self._own, self._truth, self._seed = own, truth, seed
        self._process, self._processes = process, processes
        self._lengths = np.asarray(lengths)
        self._number = 0
        self._size = len(imbalance.epoch(truth, own, seed=seed, number=0))
        self.steps = math.ceil(math.ceil(self._size / own.batch) / own.accumulate)  # of an epoch

    def set_epoch(self, number: int) -> None:
        self._number = number

    def __len__(self) -> int:
        return math.ceil(self._size / self._own.batch)

    def __iter__(self) -> Iterator[list[int]]:
        rows = self.order(self._number).tolist()
        for at in range(0, len(rows), self._own.batch):
            batch = rows[at : at + self._own.batch]
            alone = len(batch) < self._processes
            # rows lie by length, so that every one of so many gives each process a like share
            yield batch if alone else batch[self._process :: self._processes]

    def order(self, number: int) -> imbalance.Rows:
        """All rows of an epoch."""
        rows = imbalance.epoch(self._truth, self._own, seed=self._seed, number=number)
        size = self._own.batch
        pool = size * max(1, min(50, len(rows) // (4 * size)))  # sorted apart, so that epochs differ
        pools = [rows[at : at + pool] for at in range(0, len(rows), pool)]
        rows = np.concatenate([one[np.argsort(-self._lengths[one], kind="stable")] for one in pools])
        full = rows[: len(rows) // size * size].reshape(-1, size)
        full = np.random.default_rng((self._seed, number, 1)).permutation(full)
        if len(full):
            longest = self._lengths[full].max(axis=1).argmax()
            full[[0, longest]] = full[[longest, 0]]
        return np.concatenate([full.ravel(), rows[full.size :]])

    def tokens(self, steps: int) -> int:
        """How many tokens the first `steps` updates read, padding not counted."""
        epochs, rest = divmod(steps, self.steps)
        taken = [self.order(number) for number in range(epochs)]
        taken.append(self.order(epochs)[: rest * self._own.batch * self._own.accumulate])
        return int(sum(self._lengths[rows].sum() for rows in taken))


@dataclass(frozen=True)
class Plan:
    """What `Loop` is told besides what Trainer knows."""

    batches: Batches
    loss: Callable[[Any, Batch], torch.Tensor]
    weigh: Callable[[Batch], float | torch.Tensor]
    judge: Callable[[], Mapping[str, float]]
    log: Log
    state: Path
    steps: int
    every: int  # steps between two looks at validation
    patience: int  # looks without a better one


class Loop(Trainer):  # type: ignore[misc]
    """Trainer with our rows, looks at validation and checkpoints.

    A checkpoint holds only weights
    that learn, so that a large base isn't copied.
    """

    control: Any  # where callbacks say what is to come

    def __init__(self, *, plan: Plan, **given: Any) -> None:
        self._plan = plan
        super().__init__(callbacks=[_Pace(plan)], **given)
        self.remove_callback(PrinterCallback)
        self.model_accepts_loss_kwargs = False  # our means are per batch, so accumulation averages
        self._started = time.perf_counter()
        self._judging = 0.0

    def run(self) -> dict[str, float]:
        """Train from the newest checkpoint or from the beginning, and end with the best weights."""
        self._reseed()
        newest = max(self._plan.state.glob("checkpoint-*"), key=_step, default=None)
        if newest is not None:
            self.state = TrainerState.load_from_json(str(newest / _STATE))
            self._started -= self._looks[-1]["seconds"]
            self._judging = self._looks[-1]["judging"]
            for entry in self.state.log_history:
                self._tell(entry)
        if newest is None or not self._ends:
            self.train(resume_from_checkpoint=str(newest) if newest else None)
        best = self._looks[self._best]["step"]
        self._load_from_checkpoint(self._folder(best))
        self._wait()  # the caller may remove it
        learning = self._looks[-1]["seconds"] - self._looks[-1]["judging"]
        tokens = self._plan.batches.tokens(self.state.global_step)
        return {
            "tokens_per_second": tokens / learning,
            "wall_seconds": self._looks[-1]["seconds"],
            "best_step": best,
        }

    @property
    def _looks(self) -> list[dict[str, float]]:
        """What was found at each look at validation."""
        return [entry for entry in self.state.log_history if "seconds" in entry]

    @property
    def _best(self) -> int:
        """The number of the best look, of equal ones the first."""
        return int(np.argmax([look["validation_macro_f1"] for look in self._looks]))

    @property
    def _ends(self) -> bool:
        since = len(self._looks) - 1 - self._best
        return since >= self._plan.patience or self.state.global_step >= self._plan.steps

    def get_train_dataloader(self) -> DataLoaderShard:
        return DataLoaderShard(
            self.train_dataset,
            device=self.accelerator.device,
            batch_sampler=self._plan.batches,
            collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory,
        )

    def compute_loss(self, model: Any, inputs: Batch, *others: Any, **named: Any) -> Any:
        if self.args.world_size == 1:
            return self._plan.loss(model, inputs)
        weight = torch.as_tensor(self._plan.weigh(inputs), device=self.args.device).float()
        # the gradients of the processes are averaged, as if all had as much to say
        share = weight / self.accelerator.reduce(weight, "mean")
        return self._plan.loss(model, inputs) * share

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        began = time.perf_counter()
        self.model.eval()
        judged = {name: float(value) for name, value in self._plan.judge().items()}
        # on a GPU the others' may differ in the last bits, and so in when to stop
        found: dict[str, float] = broadcast_object_list([judged])[0]
        found["gap"] = found["train_macro_f1"] - found["validation_macro_f1"]
        now = time.perf_counter()
        self._judging += now - began
        self.log({**found, "seconds": now - self._started, "judging": self._judging})
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, found)
        self.control.should_training_stop |= self._ends
        return found

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        super().log(logs, start_time)
        self._tell(self.state.log_history[-1])

    def _tell(self, entry: Mapping[str, float]) -> None:
        curves = entry.keys() - _KEPT if "seconds" in entry else entry.keys() & _CURVES
        if curves:
            self._plan.log(int(entry["step"]), {name: entry[name] for name in sorted(curves)})

    def _folder(self, step: float) -> Path:
        return self._plan.state / f"checkpoint-{step:.0f}"

    def _wait(self) -> None:
        self.accelerator.wait_for_everyone()

    def _reseed(self) -> None:
        """The first process keeps its random state; the others draw theirs anew at each checkpoint, and
        all differ: they have other rows, and get other dropout."""
        if self.args.process_index:
            step = self.state.global_step * self.args.world_size + self.args.process_index
            set_seed((self.args.seed + step) % 2**32)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        super()._load_rng_state(checkpoint)
        self._reseed()

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        if self.is_world_process_zero():
            self._write_checkpoint()
        self._reseed()
        self._wait()

    def _write_checkpoint(self) -> None:
        newest = self._folder(self.state.global_step)
        with whole(newest) as beside:
            beside.mkdir()
            save_file(
                {name: one.detach().cpu().contiguous() for name, one in _learning(self.model)},
                beside / _WEIGHTS,
            )
            if not self._ends:  # else nobody goes on from here
                self._save_optimizer_and_scheduler(str(beside))
                self._save_scaler(str(beside))
                self._save_rng_state(str(beside))
            self.state.save_to_json(str(beside / _STATE))
        kept = {newest, self._folder(self._looks[self._best]["step"])}
        for old in set(self._plan.state.glob("checkpoint-*")) - kept:
            shutil.rmtree(old)  # a kill may leave half of it, which nothing reads: it is not the newest

    def _load_from_checkpoint(self, checkpoint: str | Path, model: Any = None) -> None:
        weights = load_file(Path(checkpoint) / _WEIGHTS)
        with torch.no_grad():
            for name, one in _learning(self.model):
                one.copy_(weights[name])


class _Pace(TrainerCallback):  # type: ignore[misc]
    """When to look at validation: each look logs before it and saves after it, so that a checkpoint
    never lies between two points of a curve."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step % self._plan.every == 0 or state.global_step >= self._plan.steps:
            control.should_log = control.should_evaluate = control.should_save = True


def train(
    model: Any,
    rows: Sequence[Mapping[str, Any]],
    *,
    own: Trained,
    truth: Flags,
    labels: Sequence[str],
    lengths: Sequence[int],
    collate: Callable[[list[Any]], Any],
    loss: Callable[[Any, Batch], torch.Tensor],
    weigh: Callable[[Batch], float | torch.Tensor],
    judge: Callable[[], Mapping[str, float]],
    seed: int,
    job: bytes,
    state: Path,
    log: Log,
) -> None:
    """`model` learns in place; it ends in eval mode, with its weights of the best look at validation.

    `truth` [n, labels] and `lengths` [n], in tokens, are those of `rows`; `collate` makes a batch of
    some of them, `loss` its mean loss, and `weigh` what its sum was divided by for that: where several
    processes learn, so much has each to say. `judge` returns at
    least `validation_macro_f1`, which decides, and `train_macro_f1`. `log` gets the curves, all of them
    again where training goes on, and at the end what it took.

    `state` is a folder of this training's own, for the caller to remove once what was learnt is kept;
    till then a second call only takes the best weights. It holds weights, and of the rows only a digest.
    What another training left there is thrown away: one with other rows, settings, seed,
    first weights, versions, or another `job`, which stands for all that only `judge` knows.
    """
    arguments = TrainingArguments(
        output_dir=str(state),
        seed=seed,
        per_device_train_batch_size=own.batch,
        gradient_accumulation_steps=own.accumulate,
        learning_rate=own.lr,
        warmup_ratio=own.warmup,
        weight_decay=own.weight_decay,
        # with batches of like length these two are worth 3x on a CPU
        bf16=encoder.bf16() if own.precision == "auto" else own.precision == "bf16",
        optim="adamw_torch_fused",
        eval_strategy="no",  # `_Pace` says when
        save_strategy="no",
        logging_steps=10,
        logging_nan_inf_filter=False,  # a loss that is no number shows as such
        report_to="none",  # by default it is every tracker that is installed
        disable_tqdm=not sys.stderr.isatty(),
        use_cpu=encoder.device().type == "cpu",
        dataloader_pin_memory=encoder.device().type == "cuda",
        remove_unused_columns=False,
        gradient_checkpointing=False,  # Trainer's switch works for its own models only
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # several would each get a part of a small batch
    process, processes = arguments.process_index, arguments.world_size
    batches = Batches(own, truth, lengths, seed, process=process, processes=processes)
    steps = arguments.max_steps = own.steps or math.ceil(own.epochs * batches.steps)
    fingerprint = _fingerprint(model, rows, own, truth, seed, job, processes)
    if not process:
        _claim(state, fingerprint)
    arguments.distributed_state.wait_for_everyone()
    plan = Plan(
        batches=batches,
        loss=loss,
        weigh=weigh,
        judge=judge,
        log=log,
        state=state,
        steps=steps,
        every=own.evaluate_every or batches.steps,
        patience=own.patience,
    )
    loop = Loop(plan=plan, model=model, args=arguments, train_dataset=rows, data_collator=collate)
    pretrained = next((part for part in model.modules() if isinstance(part, PreTrainedModel)), None)
    if own.checkpointing and pretrained is not None:
        pretrained.gradient_checkpointing_enable({"use_reentrant": False})
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    taken = loop.run()
    if own.checkpointing and pretrained is not None:
        pretrained.gradient_checkpointing_disable()
    # training wraps `forward` in bf16 autocast; what is measured is what will be saved
    loop.accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    if torch.cuda.is_available():
        loop.accelerator.free_memory()  # the optimizer's; nobody else can have it before
    model.eval()
    trainable, total = parameters(model)
    taken |= {"trainable_parameters": trainable, "total_parameters": total, "peak_memory_gib": _peak()}
    log(loop.state.global_step, taken | imbalance.lost(truth, batches.order(0), labels))


def watched(rows: int, seed: int) -> NDArray[np.int64]:
    """Which of so many training rows `judge` scores to see the gap."""
    return np.random.default_rng(seed).permutation(rows)[:WATCHED]


def parameters(model: torch.nn.Module) -> tuple[int, int]:
    """How many weights learn, and how many there are; those packed to 4 bits count as unpacked."""
    counts = [
        (one.numel() * (2 * one.element_size() if type(one).__name__ == "Params4bit" else 1), one)
        for one in model.parameters()
    ]
    return sum(count for count, one in counts if one.requires_grad), sum(count for count, _ in counts)


def _learning(model: torch.nn.Module) -> list[tuple[str, torch.nn.Parameter]]:
    return [(name, one) for name, one in model.named_parameters() if one.requires_grad]


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _claim(state: Path, fingerprint: str) -> None:
    """Leave in `state` what belongs to this training, and nothing else."""
    job = state / _JOB
    if not (job.is_file() and job.read_text() == fingerprint):
        remove(state)
        with whole(job) as beside:
            beside.write_text(fingerprint)


def _fingerprint(
    model: torch.nn.Module,
    rows: Sequence[Mapping[str, Any]],
    own: Trained,
    truth: Flags,
    seed: int,
    job: bytes,
    processes: int,
) -> str:
    total = hashlib.sha256(job)
    versions = [version(name) for name in ("torch", "transformers", "peft", "bitsandbytes")]
    device = encoder.device().type
    total.update(json.dumps([own.model_dump_json(), seed, device, processes, *versions]).encode())
    total.update(truth.tobytes())
    for row in rows:
        for name in sorted(row):
            total.update(f"\n{name} ".encode())
            total.update(np.asarray(row[name]).tobytes())
    for name, one in model.named_parameters():
        # a sum over the bytes is made where the weights lie, and tells one base from another
        content = one.detach().reshape(-1).view(torch.uint8).sum(dtype=torch.int64).item()
        total.update(f"\n{name} {tuple(one.shape)} {content}".encode())
    return total.hexdigest()


def _peak() -> float:
    """The most memory in use, GiB: on the GPU, or of this process."""
    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated() / 2**30)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
