"""Rare labels are searched for: by examples that the test doesn't know, with every row's chance told."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from stages import search as stage
from tests import tiny
from undertone import params, tables
from undertone.annotation import queues
from undertone.codebook import Codebook, Label
from undertone.errors import Problem
from undertone.networks import embeddings, encoder
from undertone.params import read_params
from undertone.people import search
from undertone.privacy import kinds

NAMES = ("threat", "other")
WORDS = ("knife", "gun", "hurt", "cake", "rain", "train", "cat", "tea")


def embed(texts: Sequence[str]) -> search.Vectors:
    """Bags of words, of length one."""
    bags = np.array([[1e-3 + text.split().count(word) for word in WORDS] for text in texts], np.float32)
    vectors: search.Vectors = bags / np.linalg.norm(bags, axis=1, keepdims=True)
    return vectors


def book(*examples: str) -> Codebook:
    labels = [Label(id=NAMES[0], name=NAMES[0], examples=list(examples)), Label(id=NAMES[1], name="o")]
    return Codebook(name="tiny", title="tiny", language="en", labels=labels)


def settings(**own: Any) -> params.Search:
    return read_params().search.model_copy(update={"rows": 12, "random": 4} | own)


def corpus(rows: int = 200, threats: int = 10) -> tuple[pd.DataFrame, NDArray[np.bool_]]:
    """A table in which nothing repeats, and which of its rows are threats."""
    rng = np.random.default_rng(3)
    truth = np.arange(rows) < threats
    texts = [" ".join(rng.choice(WORDS[:3] if threat else WORDS[3:], 5)) for threat in truth]
    ids = [f"r{row}" for row in range(rows)]
    return pd.DataFrame({"id": ids, "text": texts, "repeat": np.arange(rows)}), truth


def flags(truth: NDArray[np.bool_], *known: int) -> NDArray[np.float64]:
    """The labels of the rows `known`."""
    found = np.full((len(truth), 2), np.nan)
    for row in known:
        found[row] = [truth[row], not truth[row]]
    return found


def searched(
    table: pd.DataFrame,
    known: NDArray[np.float64],
    *,
    labels: Sequence[str] = NAMES[:1],
    codebook: Codebook | None = None,
    held: Sequence[int] = (),
    **own: Any,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    return search.search(
        table,
        labels,
        known,
        people=~np.isnan(known).any(axis=1),
        held=np.isin(np.arange(len(table)), held),
        book=codebook or book(),
        settings=settings(**own),
        embed=embed,
        rng=np.random.default_rng(0),
    )


def arm(queue: pd.DataFrame, name: str = NAMES[0]) -> set[int]:
    return {int(one[1:]) for one in queue.loc[queue["arm"] == name, "id"]}


def test_rows_like_the_known_ones_are_found() -> None:
    table, truth = corpus()
    queue, counts = searched(table, flags(truth, 0, 1, 50, 51))
    assert arm(queue) == set(range(2, 10))
    assert counts["labels"]["threat"]["examples_of_the_training_part"] == 2
    assert counts["labels"]["threat"]["other_examples"] == 2
    assert kinds.of_file("reports/standin/search.json", json.dumps(counts).encode()) is None


def test_what_a_label_shares_with_others_counts_for_nothing() -> None:
    table = pd.DataFrame({"id": ["r0", "r1"], "text": ["rain rain", "gun cake"], "repeat": [0, 1]})
    labels = [
        Label(id="threat", name="threat", examples=["gun rain"]),
        Label(id="other", name="other", examples=["rain tea"]),
    ]
    codebook = Codebook(name="tiny", title="tiny", language="en", labels=labels)
    unknown = np.full((2, 2), np.nan)
    queue, _ = searched(table, unknown, codebook=codebook, rows=1, random=0)
    assert arm(queue) == {1}


def test_a_label_without_a_row_starts_from_the_codebooks_examples() -> None:
    table, truth = corpus()
    queue, _ = searched(table, flags(truth), codebook=book("gun knife", "hurt gun"))
    assert arm(queue) <= set(range(10))
    with pytest.raises(Problem, match="no example of 'threat'"):
        searched(table, flags(truth, 50))


def test_the_chances_of_a_queue_add_up_to_its_pool() -> None:
    table, truth = corpus()
    queue, counts = searched(table, flags(truth, 0, 1, 50, 51))
    assert len(queue) == 12
    assert counts["pool"] == 196
    assert (1 / queue["inclusion"]).sum() == pytest.approx(196)
    drawn = queue.loc[queue["arm"] == queues.RANDOM, "inclusion"]
    assert drawn.tolist() == [4 / 188] * 4


def test_labels_of_validation_and_test_have_no_say_and_their_rows_are_not_found() -> None:
    table, truth = corpus()
    table.loc[[5, 6], "repeat"] = table.loc[[2, 3], "repeat"].to_numpy()  # 5 repeats 2, 6 repeats 3
    known = flags(truth, 0, 1, 2, 50, 51)  # 2 is a labelled row of the test part, 3 has no label
    queue, counts = searched(table, known, held=(2, 3))
    assert arm(queue) >= {4, 7, 8, 9}
    assert not arm(queue) & {2, 3, 5, 6}
    assert counts["labels"]["threat"]["examples_of_the_training_part"] == 2
    known[2] = known[2, ::-1]  # the other label
    pd.testing.assert_frame_equal(queue, searched(table, known, held=(2, 3))[0])


def test_what_repeats_itself_is_found_once_and_what_is_known_not_at_all() -> None:
    table, truth = corpus()
    table["repeat"] = [0, 1, 2, 2, 2, 0, 6, 7, 8, 9, *range(10, 200)]  # 5 repeats 0, which is known
    known = flags(truth, 0, 1, 50, 51)
    queue, _ = searched(table, known)
    assert arm(queue) >= {2, 6, 7, 8, 9}
    assert not arm(queue) & {3, 4, 5}


def test_rows_that_voters_called_so_are_examples_and_no_longer_looked_for() -> None:
    table, truth = corpus()
    voted = flags(truth, *range(4), 50, 51)
    queue, counts = search.search(
        table,
        NAMES[:1],
        voted,
        people=np.zeros(len(table), dtype=bool),
        held=np.zeros(len(table), dtype=bool),
        book=book(),
        settings=settings(),
        embed=embed,
        rng=np.random.default_rng(0),
    )
    assert arm(queue) >= set(range(4, 10))
    assert not arm(queue) & set(range(4))
    assert counts["pool"] == 200
    assert counts["labels"]["threat"]["examples_of_the_training_part"] == 4


def test_labels_share_the_rows_and_none_is_in_for_two() -> None:
    table, truth = corpus()
    twins = [Label(id=name, name=name, examples=["gun"]) for name in NAMES]
    same = Codebook(name="tiny", title="tiny", language="en", labels=twins)
    queue, _ = searched(table, flags(truth), labels=NAMES, codebook=same, rows=13)
    assert queue["arm"].value_counts().to_dict() == {"threat": 5, "other": 4, queues.RANDOM: 4}
    assert queue["id"].is_unique


def test_a_queue_without_labels_or_pool_is_empty(tmp_path: Path) -> None:
    table, truth = corpus()
    for labels, known in (([], flags(truth)), (["threat"], flags(truth, *range(200)))):
        queue, counts = searched(table, known, labels=labels)
        assert queue.empty
        assert counts["random"] == {"rows": 0, "inclusion": None}
        tables.write(queue, tmp_path / "queue.parquet", ("id", "arm", "inclusion"))


def test_a_label_that_the_codebook_lacks_is_refused() -> None:
    table, truth = corpus()
    with pytest.raises(Problem, match=r"search\.labels: no label nix; the codebook has threat, other"):
        searched(table, flags(truth), labels=["nix"])


def test_the_nearest_are_those_of_the_highest_product() -> None:
    rng = np.random.default_rng(5)
    vectors = rng.standard_normal((500, 16)).astype(np.float32)
    wanted = rng.standard_normal(16).astype(np.float32)
    rows, scores = search.nearest(wanted, vectors, 20)
    products = vectors.astype(np.float64) @ wanted
    assert rows.tolist() == np.argsort(-products)[:20].tolist()
    assert scores == pytest.approx(products[rows], rel=1e-5)
    assert len(search.nearest(wanted, vectors[:3], 20)[0]) == 3


def test_people_are_asked_for_a_label_before_voters() -> None:
    table = pd.DataFrame(
        {
            "id": ["a", "b", "c", "d"],
            "part": ["", "", "", "test"],
            "gold.threat": [1.0, np.nan, np.nan, np.nan],
            "gold.other": [0.0, np.nan, np.nan, np.nan],
            "annotator.x.threat": [1.0, np.nan, 0.0, np.nan],  # nobody settled what c is
        }
    )
    voted = pd.DataFrame({"id": ["b", "a"], "label.threat": [1.0, 0.0], "label.other": [0.0, 1.0]})
    found = search.known(table, voted, book().space)
    assert found[:2].tolist() == [[1, 0], [1, 0]]
    assert np.isnan(found[2:]).all()
    assert search.seen(table, []).tolist() == [True, False, True, False]
    assert search.seen(table, ["d"]).tolist() == [True, False, True, True]  # d was left open
    parts = pd.DataFrame({"id": ["a", "b"], "part": ["train", "validation"]})
    assert search.held(table, parts).tolist() == [False, True, False, True]


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("  random: 20\n", "  random: 100\n", "search: random rows leave none"),
        ("  labels:\n    standin:\n    - negative", "  labels:\n    nix:\n    - a", "no such source"),
    ],
)
def test_a_search_that_could_find_nothing_is_refused(
    tmp_path: Path, before: str, after: str, told: str
) -> None:
    content = Path("params.yaml").read_text("utf-8")
    assert before in content
    (tmp_path / "params.yaml").write_text(content.replace(before, after), "utf-8")
    with pytest.raises(Problem, match=told):
        read_params(tmp_path / "params.yaml")


@pytest.fixture(scope="module")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> params.Search:
    made = tiny.base(tmp_path_factory.mktemp("base") / "base")
    return settings(base=f"path:{made}", max_length=32)


TEXTS = ["fair pay", "equal leave never", "cold office", "the boss is kind", "team work"]


def test_vectors_come_in_the_order_of_their_texts(tiny_base: params.Search, tmp_path: Path) -> None:
    given = [*TEXTS, TEXTS[1]]
    found = embeddings.embed(given, tiny_base, tmp_path)
    assert found.shape == (6, 32)
    assert np.linalg.norm(found, axis=1) == pytest.approx(1)
    assert (found[1] == found[5]).all()
    for row, text in enumerate(given):
        alone = embeddings.embed([text], tiny_base, tmp_path / str(row))
        assert found[row] == pytest.approx(alone[0], abs=1e-5)
    assert embeddings.embed([], tiny_base, tmp_path).shape == (0, 0)


def test_only_new_texts_are_read(
    tiny_base: params.Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = embeddings.embed(TEXTS, tiny_base, tmp_path)
    read: list[str] = []
    run = encoder.run

    def listening(texts: Sequence[str], *given: Any, **named: Any) -> Any:
        read.extend(texts)
        return run(texts, *given, **named)

    monkeypatch.setattr(encoder, "run", listening)
    again = embeddings.embed(["a meeting", *TEXTS], tiny_base, tmp_path)
    assert read == ["a meeting"]
    assert (again[1:] == first).all()
    for other in ({"prefix": "query: "}, {"pooling": "cls"}, {"max_length": 16}):
        read.clear()
        embeddings.embed(TEXTS, tiny_base.model_copy(update=other), tmp_path)
        assert len(read) == len(TEXTS), other


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "exchanged"])
def test_a_damaged_file_is_read_anew_and_never_believed(
    tiny_base: params.Search, tmp_path: Path, damage: str
) -> None:
    first = embeddings.embed(TEXTS, tiny_base, tmp_path)
    (path,) = tmp_path.rglob("*.npy")
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[-3] ^= 1
    path.write_bytes({"cut": content[:-7], "empty": b"", "exchanged": b"x" * 99}.get(damage, content))
    assert embeddings.embed(TEXTS, tiny_base, tmp_path) == pytest.approx(first, abs=1e-6)
    (path,) = tmp_path.rglob("*.npy")
    assert len(np.load(path)) == len(TEXTS)


def test_a_killed_run_loses_only_what_it_was_writing(
    tiny_base: params.Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embeddings, "CHUNK", 2)
    write, written = Path.write_bytes, []

    def killed(path: Path, content: bytes) -> int:
        if len(written) == 1:
            write(path, content[:50])
            raise KeyboardInterrupt
        written.append(path)
        return write(path, content)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", killed)
        with pytest.raises(KeyboardInterrupt):
            embeddings.embed(TEXTS, tiny_base, tmp_path)
    assert len(list(tmp_path.rglob("*.npy"))) == 1
    found = embeddings.embed(TEXTS, tiny_base, tmp_path)
    assert len(list(tmp_path.rglob("*.npy"))) == 3  # of two, two and one
    assert found == pytest.approx(embeddings.embed(TEXTS, tiny_base, tmp_path / "new"), abs=1e-6)


def test_no_text_is_kept(tiny_base: params.Search, tmp_path: Path) -> None:
    embeddings.embed(TEXTS, tiny_base, tmp_path)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert not any(text.encode() in path.read_bytes() for text in TEXTS)
        assert kinds.of_file(f"data/.embeddings/{path.name}", path.read_bytes())  # git refuses it
        assert kinds.of_file(path.name, path.read_bytes())


def test_the_stage_writes_a_queue_and_keeps_vectors_below_data(
    tiny_base: params.Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".dvc").mkdir()
    shutil.copytree("codebooks", tmp_path / "codebooks")
    given = read_params()
    rng = np.random.default_rng(0)
    comments = pd.DataFrame({"id": [f"r{row}" for row in range(40)], "part": "", "group": ""})
    comments["text"] = [" ".join(rng.choice(tiny.WORDS, 6)) for _ in range(40)]
    comments["repeat"] = np.arange(40)
    labels = ("positive", "mild", "negative", "irrelevant")
    for at, label in enumerate(labels):
        gold = np.where(np.arange(40) % 4 == at, 1.0, 0.0)
        comments[f"gold.{label}"] = np.where(np.arange(40) < 8, gold, np.nan)
    monkeypatch.chdir(tmp_path)
    tables.write(comments, Path("clean.parquet"))
    tables.write(comments[["id"]], Path("labelled.parquet"))
    reviewed = pd.DataFrame(
        {"id": ["r8"], "reviewers": "ann", "reviewed": "2026-01-05", "inclusion": 0.5}
    )
    reviewed[[f"gold.{label}" for label in labels]] = [0.0, 1.0, 0.0, 0.0]
    reviewed.attrs = {"others": 0.0, "asked": ["r8", "r9"]}  # r9 was left open
    tables.write(reviewed, Path("reviewed.parquet"))
    parts = comments[["id"]].assign(part=["test", *["train"] * 39])
    tables.write(parts, Path("split.parquet"))
    told = stage.main(
        given.model_copy(update={"search": tiny_base}),
        source="standin",
        codebook=Path("codebooks/gender.yaml"),
        comments=Path("clean.parquet"),
        reviewed=Path("reviewed.parquet"),
        labelled=Path("labelled.parquet"),
        split=Path("split.parquet"),
        out=Path("data/standin/queue.parquet"),
        summary=Path("search.json"),
    )
    queue = tables.read(Path("data/standin/queue.parquet"), ("id", "arm", "inclusion"))
    assert queue["arm"].value_counts().to_dict() == {"negative": 8, queues.RANDOM: 4}
    assert not set(queue["id"]) & {f"r{row}" for row in range(10)}
    assert told.startswith("30 rows in the pool; 'negative' 8 by ")
    assert list(Path("data/.embeddings").rglob("*.npy"))


def test_where_nothing_is_left_to_look_through_nothing_is_found() -> None:
    rows, found = search.nearest(np.ones(2, np.float32), np.empty((0, 2), np.float32), 3)
    assert len(rows) == len(found) == 0
    rows, _ = search.nearest(np.ones(2, np.float32), np.ones((2, 2), np.float32), 0)
    assert len(rows) == 0
