"""SetFit: a few rows a label, pairs of them, either head, and that a kill changes nothing."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tests import tiny
from undertone import models
from undertone.files import md5
from undertone.models import Classifier, Examples, Exportable, Recipe
from undertone.models._embedded import Embedded
from undertone.models.setfit import TorchHead
from undertone.networks import encoder
from undertone.params import SetfitSettings
from undertone.tuning import pairs

VALIDATION = tiny.examples(40, seed=1)
HEADS = ["logistic", "torch"]
Point = tuple[int, dict[str, float]]


def settings(**changed: Any) -> SetfitSettings:
    return SetfitSettings.model_validate({**tiny.SETTINGS["setfit"].model_dump(), **changed})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("setfit")


def created(folder: Path, *, many: bool = False, **changed: Any) -> Classifier:
    return models.create(settings(**changed), tiny.space(many=many), tiny.start("setfit", folder))


def fitted(
    folder: Path, state: Path, train: Examples, *, many: bool = False, **changed: Any
) -> tuple[Classifier, list[Point]]:
    model = created(folder, many=many, **changed)
    points: list[Point] = []
    validation = tiny.examples(40, many=many, seed=1)
    model.fit(train, validation, lambda step, values: points.append((step, dict(values))), state)
    return model, points


def saved(model: Classifier, folder: Path) -> str:
    models.save(model, folder, Recipe("tiny", model.settings, "code"))
    return md5(folder)


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("head", HEADS)
def test_either_head_learns_is_saved_and_is_one_linear_layer_of_the_graph(
    head: str, many: bool, folder: Path, tmp_path: Path
) -> None:
    train = tiny.examples(300, many=many)
    wanted = {"head": head, "shots": 48, "pairs": 256}
    model, points = fitted(folder, tmp_path / "state", train, many=many, **wanted)
    validation = tiny.examples(40, many=many, seed=1)
    scores = model.scores(validation.texts)
    space = model.space.with_thresholds(scores, validation.truth)
    reached = models.macro_f1(space, scores, validation)
    assert reached > 0.6  # always the commonest label: 0.24
    told = {name: value for _, values in points for name, value in values.items()}
    assert told["validation_macro_f1"] == pytest.approx(reached)
    assert {"loss", "validation_loss", "train_macro_f1", "gap"} <= set(told)

    saved(model, tmp_path / "model")
    loaded = models.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.scores(validation.texts), scores)
    assert isinstance(loaded, Exportable)
    module: Any = loaded.graph().module
    tokenizer = encoder.load_tokenizer(tmp_path / "model")
    with torch.inference_mode():
        logits = module(**tokenizer(validation.texts, padding=True, return_tensors="pt")).logits
    through = torch.sigmoid(logits) if many else torch.softmax(logits, dim=-1)
    np.testing.assert_allclose(through, scores, atol=1e-5)


def test_the_heads_differ_and_each_is_the_same_twice(folder: Path, tmp_path: Path) -> None:
    train, digests = tiny.examples(160), []
    for at, head in enumerate(HEADS * 2):
        model, _ = fitted(folder, tmp_path / f"state{at}", train, head=head)
        digests.append(saved(model, tmp_path / f"model{at}"))
    assert digests[:2] == digests[2:]
    assert digests[0] != digests[1]


def test_only_the_drawn_rows_are_learnt_from_and_the_others_are_counted(
    folder: Path, tmp_path: Path
) -> None:
    train = tiny.examples(160)
    rows, _ = pairs.few(train.truth, 8, weights=train.weights, seed=tiny.start("setfit", folder).seed)
    model, points = fitted(folder, tmp_path / "one", train, shots=8)
    counts = train.truth.sum(axis=0) - 8
    named = zip(tiny.space().labels, counts.tolist(), strict=True)
    assert points[0] == (0, {f"rows_left_out.{label}": float(count) for label, count in named})
    few = Examples([train.texts[row] for row in rows], train.truth[rows])
    other, points = fitted(folder, tmp_path / "two", few, shots=None)
    assert points[0] == (0, {})
    np.testing.assert_array_equal(model.scores(VALIDATION.texts), other.scores(VALIDATION.texts))


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("head", HEADS)
def test_a_label_with_one_row_is_enough(head: str, many: bool, folder: Path, tmp_path: Path) -> None:
    texts = ["a fair boss", "fair pay", "the cold office", "a meeting", "the team"]
    truth = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]], dtype=bool)
    model, _ = fitted(folder, tmp_path / "state", Examples(texts, truth), many=many, head=head)
    scores = model.scores(VALIDATION.texts)
    model.space.check(scores)
    assert np.ptp(scores[:, 1]) > 1e-4


def test_tuning_brings_together_what_shares_a_label(folder: Path, tmp_path: Path) -> None:
    train = tiny.examples(200)
    truth = VALIDATION.truth
    alike = (truth[:, None] & truth[None]).any(axis=2) & ~np.eye(len(truth), dtype=bool)
    unlike = ~(truth[:, None] & truth[None]).any(axis=2)
    nearer = []
    for model in (created(folder), fitted(folder, tmp_path / "state", train, pairs=512)[0]):
        vectors = vars(Embedded)["_embed"](model, VALIDATION.texts)
        cosine = vectors @ vectors.T
        nearer.append(cosine[alike].mean() - cosine[unlike].mean())
    assert nearer[1] > 5 * abs(nearer[0])


def test_a_killed_training_goes_on_to_the_same_bytes_and_curves(folder: Path, tmp_path: Path) -> None:
    train, changed = tiny.examples(160), {"evaluate_every": 2, "pairs": 96, "head": "torch"}
    straight, points = fitted(folder, tmp_path / "one", train, **changed)

    class Stop(Exception):
        pass

    def stop(step: int, values: Mapping[str, float]) -> None:
        if step == 4 and "validation_macro_f1" in values:
            raise Stop

    model = created(folder, **changed)
    with pytest.raises(Stop):
        model.fit(train, VALIDATION, stop, tmp_path / "two")
    assert [path.name for path in (tmp_path / "two").glob("checkpoint-*")] == ["checkpoint-2"]
    again, told = fitted(folder, tmp_path / "two", train, **changed)
    assert saved(again, tmp_path / "again") == saved(straight, tmp_path / "straight")
    assert [curves(one) for one in told] == [curves(one) for one in points]


def curves(point: Point) -> Point:
    taken = ("tokens_per_second", "wall_seconds", "peak_memory_gib")
    return point[0], {name: value for name, value in point[1].items() if name not in taken}


def test_only_the_torch_head_takes_focal_and_it_changes_what_it_learns() -> None:
    with pytest.raises(ValidationError, match="focal is of a head that learns by gradient"):
        settings(focal=2.0)
    rng = np.random.default_rng(0)
    truth = np.eye(3, dtype=bool)[rng.integers(0, 3, 60)]
    features = (truth @ np.eye(3, 4) + rng.normal(size=(60, 4))).astype(np.float32)
    heads = []
    for focal in (0.0, 2.0):
        heads.append(TorchHead(False, settings(head="torch", focal=focal)))
        heads[-1].fit(features, truth)
        assert (heads[-1].scores(features).argmax(axis=1) == truth.argmax(axis=1)).mean() > 0.5
    assert np.abs(heads[0].weight - heads[1].weight).max() > 0.01


@pytest.mark.parametrize("changed", [{"downsample": 1.0}, {"mixing": 0.5}])
def test_shots_and_another_draw_of_the_rows_are_refused_together(
    changed: dict[str, float], folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValidationError, match="shots, downsample and mixing all draw the rows"):
        settings(**changed)
    model, points = fitted(folder, tmp_path, tiny.examples(100), shots=None, **changed)
    assert any(name.startswith("rows_left_out") for name in points[0][1])
    model.space.check(model.scores(VALIDATION.texts))
