"""A stage for the tests of the launcher, which fails in every way or learns as `--how` says."""

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from undertone import stage
from undertone.errors import Problem
from undertone.files import write_json
from undertone.params import Params
from undertone.tuning import launcher

# one label a text or many; 24 rows, of which a last batch holds 4, 2 or 1
KINDS: dict[str, tuple[bool, dict[str, Any]]] = {
    "weighed": (False, {"batch": 5, "class_weights": "balanced", "focal": 1.0}),
    "accumulated": (False, {"batch": 11, "accumulate": 2, "class_weights": "sqrt", "epochs": 3.0}),
    "many": (True, {"batch": 23, "class_weights": "sqrt", "epochs": 3.0}),
}


def learn(out: Path, state: Path) -> None:
    """Train a net without dropout in every kind; curves, weights and what it would drop go to `out`."""
    from tests import test_training  # seconds, which those that fail needn't wait
    from undertone.tuning import losses, training

    told: dict[str, Any] = {}
    for kind, (many, changed) in KINDS.items():
        own = test_training.settings(**changed)
        mean = losses.Loss(own, test_training.TRUTH, many)
        model = test_training.Net()
        model.dropout.p = 0.0
        points: list[tuple[int, Mapping[str, float]]] = []
        taken: list[int] = []
        masks: list[list[float]] = []

        def collate(chosen: list[Any], taken: list[int] = taken) -> dict[str, torch.Tensor]:
            taken.append(len(chosen))
            return test_training.collate(chosen)

        def loss(net: Any, batch: Any, mean: Any = mean, masks: Any = masks) -> torch.Tensor:
            masks.append(torch.nn.functional.dropout(torch.ones(64)).tolist())
            value: torch.Tensor = mean(net(batch["input_ids"]), batch["labels"])
            return value

        training.train(
            model,
            test_training.rows(),
            own=own,
            truth=test_training.TRUTH,
            labels=test_training.LABELS,
            lengths=test_training.LENGTHS,
            collate=collate,
            loss=loss,
            weigh=lambda batch, mean=mean: mean.weight(batch["labels"]),
            judge=lambda model=model: test_training.judged(model),
            seed=5,
            job=b"",
            state=state / kind,
            log=lambda step, values, points=points: points.append((step, dict(values))),
        )
        told[kind] = {
            "rows": taken,
            "masks": masks,
            "curves": [[step, values] for step, values in points],
            "weights": [weight.detach().ravel().tolist() for weight in model.parameters()],
        }
    write_json(out, told)


def main(params: Params, *, how: str, out: Path) -> str:
    with launcher.processes(params.train.launcher) as number:
        (out / f"began-{number}").write_text(str(os.getpid()))
        if how == "learns":
            learn(out / f"learnt-{number}.json", out / "state")
        elif how == "all refuse":
            raise Problem("the pay is no number", where="here", remedy="Write one.")
        elif number == 1 and how == "one refuses":
            raise Problem("the pay is no number", where="here", remedy="Write one.")
        elif number == 1 and how == "one is killed":
            os.kill(os.getpid(), signal.SIGKILL)
        torch.distributed.all_reduce(torch.zeros(1))  # the others wait here for the one
        if number:
            sys.exit()
    return how


if __name__ == "__main__":
    stage.run(main)
