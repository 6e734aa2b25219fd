"""The contract that every family keeps, found from the folder, tiny and offline."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from tests import tiny
from undertone import models
from undertone.errors import Problem
from undertone.files import md5, remove
from undertone.models import Classifier, Examples, Exportable, Recipe
from undertone.params import FAMILIES

FOUND = sorted(path.stem for path in Path("undertone/models").glob("[!_]*.py"))
TRAIN, VALIDATION = tiny.examples(160), tiny.examples(40, seed=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the families' bases are made, once."""
    return tmp_path_factory.mktemp("families")


def fitted(
    family: str, folder: Path, *, many: bool = False, train: Examples | None = None
) -> Classifier:
    start = tiny.start(family, folder, many=many)
    model = models.create(tiny.SETTINGS[family], tiny.space(many=many), start)
    model.fit(
        train or tiny.examples(160, many=many),
        tiny.examples(40, many=many, seed=1),
        lambda *_: None,
        folder / "state",
    )
    remove(folder / "state")
    return model


@pytest.fixture(scope="module")
def trained(folder: Path) -> Callable[[str], Classifier]:
    """A family's model, trained once for all the tests that only ask it."""
    return cache(lambda family: fitted(family, folder))


def test_every_family_in_the_folder_has_settings_and_is_tested() -> None:
    assert len(FOUND) >= 3
    assert set(FOUND) == set(FAMILIES) == set(tiny.SETTINGS)
    assert set(FOUND) > set(tiny.LEARNING)


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("family", FOUND)
def test_scores_have_the_shape_and_range_of_the_label_space(
    family: str, many: bool, folder: Path, trained: Callable[[str], Classifier]
) -> None:
    model = fitted(family, folder, many=True) if many else trained(family)
    scores = model.scores(VALIDATION.texts)
    assert scores.shape == (len(VALIDATION.texts), 3)
    model.space.check(scores)
    assert many or np.allclose(scores.sum(axis=1), 1)
    assert model.scores([]).shape == (0, 3)


@pytest.mark.parametrize("family", FOUND)
def test_a_saved_model_scores_as_before(
    family: str, trained: Callable[[str], Classifier], tmp_path: Path
) -> None:
    model = trained(family)
    models.save(model, tmp_path / "model", Recipe("tiny", model.settings, "code"))
    loaded = models.load(tmp_path / "model")
    assert loaded.settings == model.settings
    assert loaded.space == model.space
    np.testing.assert_array_equal(loaded.scores(VALIDATION.texts), model.scores(VALIDATION.texts))


@pytest.mark.parametrize("family", FOUND)
def test_the_same_seed_gives_the_same_bytes(
    family: str, folder: Path, trained: Callable[[str], Classifier], tmp_path: Path
) -> None:
    digests = set()
    for attempt, model in (("one", trained(family)), ("two", fitted(family, folder))):
        models.save(model, tmp_path / attempt, Recipe("tiny", model.settings, "code"))
        digests.add(md5(tmp_path / attempt))
    assert len(digests) == 1


@pytest.mark.parametrize("family", FOUND)
def test_a_saved_model_holds_no_pickle_no_code_and_no_text(
    family: str, folder: Path, tmp_path: Path
) -> None:
    canary = "zq73519462085kx"
    train = Examples([f"{text} {canary}" for text in TRAIN.texts], TRAIN.truth)
    model = fitted(family, folder, train=train)
    models.save(model, tmp_path / "model", Recipe("tiny", model.settings, "code"))
    files = [path for path in (tmp_path / "model").rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert path.suffix in {".json", ".safetensors", ".txt"}
        assert canary.encode() not in path.read_bytes()


@pytest.mark.parametrize("family", FOUND)
def test_a_score_does_not_depend_on_the_other_texts_or_their_order(
    family: str, trained: Callable[[str], Classifier]
) -> None:
    model = trained(family)
    together = model.scores(VALIDATION.texts)
    backwards = model.scores(VALIDATION.texts[::-1])[::-1]
    alone = np.concatenate([model.scores([text]) for text in VALIDATION.texts[:10]])
    np.testing.assert_allclose(backwards, together, atol=1e-5)
    np.testing.assert_allclose(alone, together[:10], atol=1e-5)


@pytest.mark.parametrize("family", FOUND)
def test_odd_texts_get_a_row_of_scores(family: str, trained: Callable[[str], Classifier]) -> None:
    odd = ["", "   ", "🙂🙂", "=1+1", "fair\n\ncold", "not " * 5000, "\u202eabc", "\x00\x07"]
    scores = trained(family).scores(odd)
    assert scores.shape == (len(odd), 3)
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("family", tiny.LEARNING)
def test_a_family_learns_more_than_the_commonest_label(family: str, folder: Path) -> None:
    settings = tiny.SETTINGS[family].model_copy(update=tiny.LEARNING[family])
    model = models.create(settings, tiny.space(), tiny.start(family, folder))
    model.fit(tiny.examples(600), VALIDATION, lambda *_: None, folder / "state")
    reached = models.macro_f1(model.space, model.scores(VALIDATION.texts), VALIDATION)
    assert reached > 0.5  # always the commonest label: 0.24


@pytest.mark.parametrize("family", FOUND)
def test_a_family_that_says_it_can_be_exported_has_a_graph(
    family: str, trained: Callable[[str], Classifier]
) -> None:
    assert isinstance(trained(family), Exportable) == FAMILIES[family].exportable


@pytest.mark.parametrize("family", ["e5", "bert", "setfit"])
def test_more_tokens_than_the_base_has_positions_for_are_refused(family: str, folder: Path) -> None:
    settings = tiny.SETTINGS[family].model_copy(update={"max_length": 65})
    with pytest.raises(Problem, match="max_length is 65, but the base reads at most 64 tokens"):
        models.create(settings, tiny.space(), tiny.start(family, folder))


@pytest.mark.parametrize("family", FOUND)
def test_training_writes_nowhere_but_into_its_state(
    family: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = tiny.start(family, folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    model = models.create(tiny.SETTINGS[family], tiny.space(), start)
    model.fit(TRAIN, VALIDATION, lambda *_: None, tmp_path / "state")
    assert {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*")} <= {"state"}


def test_a_folder_without_a_model_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(Problem, match="no model here"):
        models.load(tmp_path)
