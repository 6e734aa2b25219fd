"""The training loop: its steps, batches and curves, and that a kill at any moment changes nothing."""

import gc
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel, set_seed

from tests import tiny
from undertone import models
from undertone.files import md5, remove
from undertone.labels import Flags
from undertone.params import Trained
from undertone.tuning import training

LABELS = ("fair", "cold", "other")
TRUTH: Flags = np.eye(3, dtype=bool)[np.repeat([0, 1, 2], [12, 8, 4])]
LENGTHS = [2 + (7 * row) % 11 for row in range(24)]
TIMES = {"tokens_per_second", "wall_seconds", "peak_memory_gib"}
Point = tuple[int, dict[str, float]]


class Net(torch.nn.Module):
    """As small as learns; its dropout needs the random state."""

    def __init__(self) -> None:
        super().__init__()
        set_seed(1)
        self.embedding = torch.nn.Embedding(20, 4)
        self.linear = torch.nn.Linear(4, 3)
        self.dropout = torch.nn.Dropout(0.2)
        self.began = self.linear.weight.detach().clone()

    def forward(self, input_ids: torch.Tensor, **_: Any) -> torch.Tensor:
        kept = (input_ids > 0).unsqueeze(-1)
        mean = (self.embedding(input_ids) * kept).sum(dim=1) / kept.sum(dim=1)
        logits: torch.Tensor = self.linear(self.dropout(mean))
        return logits


@pytest.fixture(scope="module", autouse=True)
def _little_garbage() -> Iterator[None]:
    """Trainer collects garbage before it begins; what is there already needn't be looked at again."""
    gc.freeze()
    yield
    gc.unfreeze()


def settings(**changed: Any) -> Trained:
    own = tiny.SETTINGS["bert"]
    assert isinstance(own, Trained)
    plain = {"class_weights": "none", "batch": 4, "epochs": 2.0, "lr": 0.05, "patience": 99}
    return own.model_copy(update={**plain, **changed})


def rows() -> list[dict[str, Any]]:
    return [
        {
            "input_ids": [1 + (row + at) % 19 for at in range(length)],
            "labels": TRUTH[row].astype(np.float32),
        }
        for row, length in enumerate(LENGTHS)
    ]


def collate(chosen: list[Any]) -> dict[str, torch.Tensor]:
    longest = max(len(row["input_ids"]) for row in chosen)
    padded = [row["input_ids"] + [0] * (longest - len(row["input_ids"])) for row in chosen]
    return {
        "input_ids": torch.tensor(padded),
        "labels": torch.tensor(np.stack([row["labels"] for row in chosen])),
    }


def loss(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(model(batch["input_ids"]), batch["labels"])


def judged(model: Net) -> dict[str, float]:
    """Made from the weights: the nearer to the first ones, the better, so the first look is the best."""
    way = float((model.linear.weight.detach() - model.began).abs().sum())
    return {"validation_loss": way, "validation_macro_f1": 1 / (1 + way), "train_macro_f1": 0.9}


def trained(state: Path, model: Net | None = None, **changed: Any) -> tuple[Net, list[Point]]:
    """A model after training, and all that was logged."""
    model = model or Net()
    points: list[Point] = []
    own = changed.pop("own", settings())
    given: dict[str, Any] = {
        "rows": rows(),
        "truth": TRUTH,
        "labels": LABELS,
        "lengths": LENGTHS,
        "collate": collate,
        "loss": loss,
        "weigh": lambda batch: len(batch["labels"]),
        "judge": lambda: judged(model),
        "seed": 5,
        "job": b"",
        "state": state,
        "log": lambda step, values: points.append((step, dict(values))),
        **changed,
    }
    training.train(model, given.pop("rows"), own=own, **given)
    remove(state)
    return model, points


def unexpected(*_: Any) -> torch.Tensor:
    raise AssertionError("nothing is left to learn")


def curve(points: list[Point], name: str) -> list[tuple[int, float]]:
    return [(step, values[name]) for step, values in points if name in values]


def content(model: torch.nn.Module) -> list[bytes]:
    return [weight.detach().numpy().tobytes() for weight in model.parameters()]


# what is done when


@pytest.mark.parametrize(
    ("changed", "updates", "looks"),
    [
        ({}, 12, [6, 12]),
        ({"epochs": 1.5}, 9, [6, 9]),
        ({"accumulate": 4}, 4, [2, 4]),
        ({"steps": 8, "epochs": 99.0}, 8, [6, 8]),
        ({"evaluate_every": 5}, 12, [5, 10, 12]),
        ({"downsample": 1.0}, 6, [3, 6]),  # 4 rows of each label, 3 batches
        ({"downsample": 1.0, "accumulate": 2}, 4, [2, 4]),
        ({"mixing": 0.5}, 12, [6, 12]),
    ],
)
def test_it_takes_so_many_steps_and_looks_at_validation_then(
    changed: dict[str, Any], updates: int, looks: list[int], tmp_path: Path
) -> None:
    _, points = trained(tmp_path / "state", own=settings(**changed))
    assert [step for step, _ in curve(points, "validation_macro_f1")] == looks
    assert points[-1][0] == updates


def test_every_epoch_has_all_rows_once_or_those_drawn_anew(tmp_path: Path) -> None:
    seen: list[list[int]] = []

    def noted(chosen: list[Any]) -> dict[str, torch.Tensor]:
        seen.append([LENGTHS.index(len(row["input_ids"])) for row in chosen])
        return collate(chosen)

    known = [LENGTHS.index(length) for length in LENGTHS]
    trained(tmp_path / "state", collate=noted)
    one, two = [*chain(*seen[:6])], [*chain(*seen[6:])]
    assert sorted(one) == sorted(two) == sorted(known)
    assert one != two
    seen.clear()
    trained(tmp_path / "state", collate=noted, own=settings(downsample=1.0))
    one, two = [*chain(*seen[:3])], [*chain(*seen[3:])]
    assert len(one) == len(two) == 12
    assert sorted(one) != sorted(two)


def test_batches_hold_rows_of_like_length_in_another_order_each_epoch_the_longest_first() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 100, 1003).tolist()
    truth = np.eye(3, dtype=bool)[rng.integers(0, 3, 1003)]
    own = settings(batch=8)
    batches = training.Batches(own, truth, lengths, seed=5)
    one, two = batches.order(0), batches.order(1)
    assert sorted(one) == sorted(two) == list(range(1003))
    assert (one != two).any()
    np.testing.assert_array_equal(one, training.Batches(own, truth, lengths, seed=5).order(0))
    cut = [[lengths[row] for row in one[at : at + 8]] for at in range(0, 1003, 8)]
    assert max(lengths) in cut[0]
    padded = sum(len(batch) * max(batch) for batch in cut)
    assert padded < 1.1 * sum(lengths)  # in the data's order: 1.8
    tops = [max(batch) for batch in cut]
    assert abs(np.corrcoef(tops[1:], tops[:-1])[0, 1]) < 0.3  # the batches aren't sorted
    assert batches.tokens(batches.steps) == sum(lengths)
    assert batches.tokens(batches.steps + 1) == sum(lengths) + sum(lengths[row] for row in two[:8])


def test_two_half_batches_are_learnt_from_as_one(tmp_path: Path) -> None:
    whole = settings(batch=24, steps=3)
    halves = settings(batch=12, accumulate=2, steps=3)
    ends, curves = [], []
    for own in (whole, halves):
        model = Net()
        model.dropout.p = 0.0
        _, points = trained(tmp_path / "state", model, own=own)
        ends.append(list(model.parameters()))
        curves.append(curve(points, "loss") + curve(points, "grad_norm"))
    torch.testing.assert_close(*ends)
    np.testing.assert_allclose(*curves, atol=2e-4)


def test_the_best_weights_are_in_the_model_at_the_end_and_patience_ends_it(tmp_path: Path) -> None:
    reached = iter([0.3, 0.5, 0.5, 0.4, 0.9])
    then: list[list[bytes]] = []
    model = Net()

    def judge() -> dict[str, float]:
        assert not model.training
        then.append(content(model))
        return {"validation_macro_f1": next(reached), "train_macro_f1": 0.75}

    own = settings(epochs=9.0, patience=2)
    _, points = trained(tmp_path / "state", model, own=own, judge=judge)
    assert curve(points, "validation_macro_f1") == [(6, 0.3), (12, 0.5), (18, 0.5), (24, 0.4)]
    assert curve(points, "gap") == [(6, 0.45), (12, 0.25), (18, 0.25), (24, 0.35)]
    assert curve(points, "best_step") == [(24, 12)]
    assert content(model) == then[1] != then[3]
    assert not model.training


# what is told


def test_the_curves_and_what_it_took(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = Net()
    model.embedding.weight.requires_grad_(False)
    own = settings(downsample=2.0, epochs=5.0, evaluate_every=12)
    _, points = trained(tmp_path / "state", model, own=own)
    assert capfd.readouterr() == ("", "")
    for name in ("loss", "learning_rate", "grad_norm"):
        assert [step for step, _ in curve(points, name)] == [10, 12, 20, 24, 25]
    assert all(np.isfinite(value) for _, values in points for value in values.values())
    step, last = points[-1]
    assert step == 25
    assert last["trainable_parameters"] == 4 * 3 + 3
    assert last["total_parameters"] == 4 * 3 + 3 + 80
    assert last["rows_left_out.fair"] == 4
    assert "rows_left_out.other" not in last
    assert last["wall_seconds"] > 0
    assert last["peak_memory_gib"] > 0.01
    assert last["tokens_per_second"] > 5 * 20 * 2 / last["wall_seconds"]


def test_a_loss_that_is_no_number_is_shown(tmp_path: Path) -> None:
    def broken(model: Any, batch: dict[str, Any]) -> torch.Tensor:
        return loss(model, batch) * float("nan")

    _, points = trained(tmp_path / "state", loss=broken)
    assert np.isnan([value for _, value in curve(points, "loss")]).all()


def test_packed_weights_are_counted_unpacked() -> None:
    packed = type("Params4bit", (torch.nn.Parameter,), {})
    model = torch.nn.Linear(6, 4)
    model.weight = packed(torch.zeros(12, 1, dtype=torch.uint8), requires_grad=False)
    assert training.parameters(model) == (4, 28)


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_the_model_comes_back_as_it_was_without_autocast(precision: str, tmp_path: Path) -> None:
    narrow: list[bool] = []

    def noted(model: Any, batch: dict[str, Any]) -> torch.Tensor:
        narrow.append(torch.is_autocast_enabled("cpu"))
        return loss(model, batch)

    model, _ = trained(tmp_path / "state", own=settings(precision=precision), loss=noted)
    fresh = Net()
    fresh.load_state_dict(model.state_dict())
    batch = collate(rows())["input_ids"]
    assert torch.equal(model(batch), fresh.eval()(batch))
    assert model(batch).dtype == torch.float32
    assert any(narrow) == (precision == "bf16")


def test_checkpointed_activations_change_nothing_but_memory(tmp_path: Path) -> None:
    saved = []
    for checkpointing in (False, True):
        own = tiny.SETTINGS["bert"].model_copy(update={"checkpointing": checkpointing})
        model = models.create(own, tiny.space(), tiny.start("bert", tmp_path))
        backbone = next(
            part for part in vars(model)["_model"].modules() if isinstance(part, PreTrainedModel)
        )
        during: list[bool] = []

        def log(*_: Any, backbone: Any = backbone, during: list[bool] = during) -> None:
            during.append(backbone.is_gradient_checkpointing)

        model.fit(tiny.examples(64), tiny.examples(20, seed=1), log, tmp_path / "state")
        assert during[0] == checkpointing
        assert not backbone.is_gradient_checkpointing
        saved.append(model.scores(tiny.examples(20).texts))
    np.testing.assert_allclose(*saved, atol=1e-6)


# going on after a kill


class Stop(Exception):
    pass


def stopped(state: Path, after: int = 2, **changed: Any) -> None:
    """A training that ends in an exception at its look number `after`."""
    model, left = Net(), count(after - 1, -1)

    def judge() -> dict[str, float]:
        if not next(left):
            raise Stop
        return judged(model)

    with pytest.raises(Stop):
        trained(state, model, judge=judge, **changed)


def steps_of(state: Path, **changed: Any) -> int:
    """How many batches are learnt from until the end."""
    calls: list[None] = []

    def noted(model: Any, batch: dict[str, Any]) -> torch.Tensor:
        calls.append(None)
        return loss(model, batch)

    trained(state, loss=noted, **changed)
    return len(calls)


def test_what_was_left_by_the_same_training_is_used_and_by_another_is_not(tmp_path: Path) -> None:
    state = tmp_path / "state"
    stopped(state)
    assert steps_of(state) == 6
    other = rows()
    other[3]["input_ids"] = [19]
    grown = Net()
    grown.linear.weight.data[0, 0] += 1
    another: list[dict[str, Any]] = [
        {"own": settings(lr=0.04)},
        {"seed": 6},
        {"rows": other},
        {"truth": TRUTH[::-1].copy()},
        {"job": b"other validation rows"},
        {"model": grown},
    ]
    for changed in another:
        stopped(state)
        assert steps_of(state, **changed) == 12


def test_a_training_that_was_done_when_killed_only_takes_its_best_weights(tmp_path: Path) -> None:
    for own in (settings(), settings(epochs=9.0, patience=1)):  # at its last step; patience at an end
        straight, points = trained(tmp_path / "straight", own=own)

        def late(_: int, values: Mapping[str, float]) -> None:
            if "best_step" in values:
                raise Stop

        with pytest.raises(Stop):
            trained(tmp_path / "state", own=own, log=late)
        model, again = trained(tmp_path / "state", own=own, loss=unexpected)
        assert not model.training
        assert content(model) == content(straight)
        assert curve(again, "loss") == curve(points, "loss")


def test_the_time_before_a_kill_counts(tmp_path: Path) -> None:
    model, once = Net(), iter([0.5])

    def slow() -> dict[str, float]:
        for wait in once:
            time.sleep(wait)
            return judged(model)
        raise Stop

    with pytest.raises(Stop):
        trained(tmp_path / "state", model, judge=slow)
    _, points = trained(tmp_path / "state")
    assert points[-1][1]["wall_seconds"] > 0.5


def test_only_the_newest_and_the_best_checkpoint_are_kept_and_none_holds_rows(tmp_path: Path) -> None:
    stopped(tmp_path, after=6, own=settings(evaluate_every=2))
    kept = sorted(path.name for path in tmp_path.glob("*"))
    assert kept == ["checkpoint-10", "checkpoint-2", "job"]
    for path in tmp_path.rglob("*"):
        if path.is_file():
            for row in rows():
                for kind in (np.int32, np.int64, np.float32):
                    ids = np.array(row["input_ids"][:4], dtype=kind).tobytes()
                    assert len(row["input_ids"]) < 4 or ids not in path.read_bytes()


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """How often each of these functions killed a training that ended as if it was not, in a process that
    ran nothing yet, so may fork."""
    folders = [tmp_path_factory.mktemp(name) for name in ("touched", "bert")]
    tiny.start("bert", folders[1])
    done = subprocess.run(
        [sys.executable, "-c", "from tests import test_training as t; t._driver()", *folders],
        env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(("touches", "moments"), map(int, done.stdout.split()[-2:]), strict=True))


@pytest.mark.slow
def test_a_training_killed_at_any_touch_of_its_folder_ends_as_if_it_was_not(
    killed: dict[str, int],
) -> None:
    assert killed["touches"] > 30


@pytest.mark.slow
def test_a_bert_killed_at_random_moments_ends_as_if_it_was_not(killed: dict[str, int]) -> None:
    assert killed["moments"] == 4


def _driver() -> None:
    gc.freeze()
    touched, bert = map(Path, sys.argv[1:])
    print(_die_at_every_touch(touched), _kill_at_random(bert))


def _fork(work: Callable[[], None]) -> int:
    child = os.fork()
    if child:
        return child
    try:
        work()
        os._exit(0)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)


def _done(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _write(path: Path, weights: object, points: list[Point]) -> None:
    told = [(step, {name: values[name] for name in values.keys() - TIMES}) for step, values in points]
    path.write_text(json.dumps([weights, told], sort_keys=True))


def _small(folder: Path, out: str) -> None:
    # looks at steps 2, 4, 6 in the midst of epochs; the first is the best, so patience ends it at 6
    own = settings(evaluate_every=2, patience=2, accumulate=2, batch=3, epochs=9.0)
    model, points = trained(folder / "state", own=own)
    _write(folder / out, [one.hex() for one in content(model)], points)


def _die_at_every_touch(folder: Path) -> int:
    assert _done(_fork(lambda: _small(folder, "straight"))) == 0
    straight = (folder / "straight").read_text()
    assert '"best_step": 2' in straight

    def dying(at: int) -> None:
        touched = count(1)

        def touch(event: str, arguments: tuple[Any, ...]) -> None:
            if event not in ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir"):
                return
            path = Path(str(arguments[0]))
            if event in ("os.remove", "os.rmdir") and arguments[1] >= 0:  # a name within an open folder
                path = Path(f"/proc/self/fd/{arguments[1]}").readlink() / path
            if not path.is_relative_to(folder / "state"):
                return
            if event == "open" or path.exists() == (event != "os.mkdir"):  # else nothing is changed
                if next(touched) == at:
                    os._exit(9)

        sys.addaudithook(touch)
        _small(folder, "whole")

    for at in count(1):
        code = _done(_fork(lambda at=at: dying(at)))  # type: ignore[misc]
        if code == 0:
            assert (folder / "whole").read_text() == straight
            return at - 1
        assert code == 9, f"at touch {at}: {code}"
        assert _done(_fork(lambda: _small(folder, "again"))) == 0, f"after touch {at}"
        assert (folder / "again").read_text() == straight, f"after touch {at}"
    raise AssertionError


def _bert(folder: Path, out: str) -> None:
    settings = tiny.SETTINGS["bert"].model_copy(update={"evaluate_every": 4})
    model = models.create(settings, tiny.space(), tiny.start("bert", folder))
    points: list[Point] = []
    model.fit(
        tiny.examples(160),
        tiny.examples(40, seed=1),
        lambda step, values: points.append((step, dict(values))),
        folder / "state",
    )
    (folder / out).mkdir()
    models.save(model, folder / out / "model", models.Recipe("tiny", settings, "code"))
    _write(folder / out / "told", md5(folder / out / "model"), points)
    remove(folder / "state")


def _kill_at_random(folder: Path) -> int:
    began = time.perf_counter()
    assert _done(_fork(lambda: _bert(folder, "straight"))) == 0
    took = time.perf_counter() - began
    chance = random.Random(0)
    killed = 0
    while killed < 4:
        shutil.rmtree(folder / "again", ignore_errors=True)
        child = _fork(lambda: _bert(folder, "again"))
        while not any((folder / "state").glob("checkpoint-*")) and not os.waitpid(child, os.WNOHANG)[0]:
            time.sleep(0.01)
        time.sleep(took * chance.uniform(0, 0.5))
        os.kill(child, signal.SIGKILL)
        if _done(child) == 0:
            continue
        killed += 1
        shutil.rmtree(folder / "again", ignore_errors=True)
        assert _done(_fork(lambda: _bert(folder, "again"))) == 0
        told = [(folder / out / "told").read_text() for out in ("straight", "again")]
        assert told[0] == told[1]
    return killed
