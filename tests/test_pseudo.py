"""Labels by an ensemble: accepted where it agrees, given to people where it doesn't."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from stages.pseudo import main as stage
from undertone import models, tables
from undertone.augmentation import pseudo
from undertone.files import md5, read_json, write_json
from undertone.labels import LabelSpace, Scores
from undertone.params import Calibrate, Clean, Mix, Pseudo, Queue, read_params

SPACE = LabelSpace.of("c", ["a", "b"])
CALIBRATE = Calibrate(temperature=True, max_error=None)
MANY = LabelSpace.of("c", ["a", "b"], many=True)


def how(combine: Any = "mean", threshold: float = 0.9, disagreed: int = 9, random: int = 0) -> Pseudo:
    queue = Queue(disagreed=disagreed, random=random)
    return Pseudo(candidates=["x", "y"], combine=combine, threshold=threshold, queue=queue)


def scores(*a: float) -> Scores:
    return np.array([[one, 1 - one] for one in a])


def table(rows: int) -> pd.DataFrame:
    found = pd.DataFrame({"id": [f"p{at}" for at in range(rows)], "text": "t", "group": ""})
    found["repeat"] = np.arange(rows)
    return found.assign(part="")


def said(settings: Pseudo, *each: Scores, space: LabelSpace = SPACE) -> pseudo.Said:
    return pseudo.combined(each, [space] * len(each), settings, space)


def test_the_mean_is_as_confident_as_the_mean_of_the_scores() -> None:
    found = said(how(), scores(0.95, 0.99, 0.2), scores(0.9, 0.4, 0.1))
    np.testing.assert_allclose(found.confidence, [0.925, 0.695, 0.85])
    assert found.decided.argmax(axis=1).tolist() == [0, 0, 1]
    assert found.alike.tolist() == [True, False, True]
    assert found.accepted(0.9).tolist() == [True, False, False]


def test_a_vote_is_as_confident_as_its_share_however_sure_the_others_are() -> None:
    found = said(how("vote"), scores(0.51, 0.99), scores(0.6, 0.4), scores(0.01, 0.3))
    np.testing.assert_allclose(found.confidence, [2 / 3, 2 / 3])
    assert found.decided.argmax(axis=1).tolist() == [0, 1]
    assert found.accepted(2 / 3).all()
    assert not found.accepted(0.7).any()


def test_of_equally_many_votes_the_likelier_label_wins() -> None:
    found = said(how("vote", 0.5), scores(0.6, 0.9), scores(0.1, 0.4))
    assert found.decided.argmax(axis=1).tolist() == [1, 0]
    assert found.accepted(0.5).all()


def test_a_text_that_one_gave_no_valid_answer_has_no_label_and_no_queue() -> None:
    mute = np.array([[np.nan, np.nan], [0.99, 0.01]])
    for combine in ("mean", "vote"):
        settings = how(combine)
        found = said(settings, mute, scores(0.99, 0.99))
        assert found.accepted(0.9).tolist() == [False, True]
        assert found.decided.any(axis=1).tolist() == [False, True]
        assert pseudo.queue(table(2), found, ["p0", "p1"], settings, seed=0).empty


def test_of_many_labels_the_least_sure_one_counts_and_none_is_an_answer() -> None:
    both, none = np.array([[0.95, 0.97]]), np.array([[0.02, 0.1]])
    found = said(how(), np.vstack([both, none]), np.vstack([both, none]), space=MANY)
    assert found.decided.tolist() == [[True, True], [False, False]]
    np.testing.assert_allclose(found.confidence, [0.95, 0.9])
    found = said(how("vote"), both, np.array([[0.95, 0.2]]), both, space=MANY)
    assert found.decided.tolist() == [[True, True]]
    np.testing.assert_allclose(found.confidence, [2 / 3])


def test_the_queue_holds_the_most_doubtful_disagreement_and_a_random_part_of_the_rest() -> None:
    one = scores(0.9, 0.8, 0.7, 0.99, 0.99, 0.55)
    other = scores(0.4, 0.45, 0.4, 0.99, 0.98, 0.55)
    settings = how(disagreed=2, random=2)
    ids = [f"p{at}" for at in range(6)]
    found = pseudo.queue(table(6), said(settings, one, other), ids, settings, seed=3)
    arms = found.groupby("arm")["id"].apply(set)
    assert arms["disagreed"] == {"p2", "p1"}  # 0.55 and 0.625; the third, 0.65, is one of the others
    assert arms["random"] <= {"p0", "p3", "p4", "p5"}
    assert found.set_index("arm")["inclusion"].to_dict() == {"disagreed": 1.0, "random": 0.5}


def test_the_random_part_is_of_all_comments_and_nobody_is_asked_twice() -> None:
    one, other = scores(0.9, 0.8, 0.7), scores(0.4, 0.45, 0.4)
    settings = how(disagreed=2, random=4)
    open_ = ["p0", "p2", *(f"labelled by voters {at}" for at in range(8))]  # p1 was asked about
    found = pseudo.queue(table(3), said(settings, one, other), open_, settings, seed=3)
    assert set(found.loc[found["arm"] == "disagreed", "id"]) == {"p0", "p2"}
    drawn = found[found["arm"] == "random"]
    assert drawn["id"].str.startswith("labelled").all()
    assert drawn["inclusion"].tolist() == [0.5] * 4


def labelled(
    pool: pd.DataFrame, checked: pd.DataFrame, each: list[tuple[Scores, Scores]], *, left_out: int = 0
) -> pseudo.Labelled:
    """By an ensemble of two, whose scores of `pool` and of validation `each` holds."""
    return pseudo.labelled(
        pool, checked, each, [SPACE, SPACE], how(), SPACE, CALIBRATE,
        left_out=left_out, open_=pool["id"].tolist(), draws=100, seed=0,
    )  # fmt: skip


def test_rows_and_counts_say_the_same() -> None:
    pool, checked = table(4), table(2).assign(**{"label.a": [1.0, 0.0], "label.b": [0.0, 1.0]})
    each = [(scores(0.99, 0.1, 0.7, 0.02), scores(0.95, 0.95)) for _ in range(2)]
    found = labelled(pool, checked, each, left_out=7)
    assert found.rows["id"].tolist() == ["p0", "p1", "p3"]
    assert found.rows[["label.a", "label.b"]].to_numpy().tolist() == [[1, 0], [0, 1], [0, 1]]
    assert found.rows["confidence"].min() == pytest.approx(0.9)
    told = found.told
    assert (told["pool"], told["accepted"], told["disagreed"], told["in_doubt"]) == (4, 3, 0, 1)
    assert told["labels"] == {"a": {"accepted": 1, "rejected": 1}, "b": {"accepted": 2, "rejected": 0}}
    assert list(told["left_out"].values()) == [7]
    right = told["accuracy"]["label"]
    assert (right["value"], right["n"], right["of"]) == (0.5, 2, 2)
    assert told["accuracy"]["gold"] is None
    assert found.line().startswith("4 rows without a label → 3 accepted, right in 0.500 [")


def test_people_s_labels_of_validation_judge_what_is_accepted() -> None:
    checked = table(3).assign(**{"gold.a": [1.0, np.nan, 1.0], "gold.b": [0.0, np.nan, 0.0]})
    each = [(scores(0.9), scores(0.99, 0.99, 0.6))] * 2
    found = labelled(table(1), checked, each)
    right = found.told["accuracy"]["gold"]
    assert (right["value"], right["n"], right["of"]) == (1.0, 1, 2)
    checked["inclusion"] = [1.0, np.nan, 0.1]  # the first was chosen, as models erred there
    found = labelled(table(1), checked, each)
    assert found.told["accuracy"]["gold"] is None


def test_how_often_the_accepted_is_right_is_told_by_thresholds_of_other_rows() -> None:
    rng = np.random.default_rng(0)
    flags = rng.random((60, 2)) < 0.5
    checked = table(60).assign(**{f"label.{name}": flags[:, at] for at, name in enumerate("ab")})
    checked["group"] = [f"author {at // 3}" for at in range(60)]
    noise = rng.random((60, 2))  # says nothing of the labels, but thresholds find what they can
    own = MANY.with_thresholds(noise, flags)
    same = (own.decide(noise) == flags).all(axis=1).mean()
    found = pseudo.crossfitted(checked, [noise], how(threshold=0.5), MANY, CALIBRATE, seed=1)
    apart = (found.decided == flags).all(axis=1).mean()
    assert apart < same
    assert len(found.confidence) == 60


def test_without_an_ensemble_nothing_has_a_label() -> None:
    found = pseudo.labelled(
        table(3), table(2), [], [], how(), SPACE, CALIBRATE, left_out=0, open_=["p0"], draws=100, seed=0
    )
    assert list(found.rows.columns) == [
        "id",
        "text",
        "group",
        "repeat",
        "label.a",
        "label.b",
        "confidence",
    ]
    assert list(found.queue.columns) == ["id", "arm", "inclusion"]
    assert found.rows.empty
    assert found.queue.empty
    assert found.told == {}
    assert found.line().startswith("no ensemble")


def test_the_pool_has_no_label_and_nothing_of_validation_or_test() -> None:
    comments = table(6).assign(text=[f"{at}{at} {'lorem' * at}" for at in range(6)])
    comments["group"] = ["v", "t", "", "", "V ", ""]
    comments["repeat"] = [0, 1, 2, 3, 4, 1]
    labelled = comments.assign(**{"label.a": [1.0, 0.0, 1.0, np.nan, np.nan, np.nan]})
    parts = pd.DataFrame({"id": ["p0", "p1", "p2"], "part": ["validation", "test", "train"]})
    alike = Clean(similarity=0.8, shingle=5)
    nobody, drawn = comments[:0], read_params().split

    def pool(given: pd.DataFrame = comments, known: pd.DataFrame = labelled) -> list[str]:
        return pseudo.pool(given, known, nobody, parts, drawn, alike)[0]["id"].tolist()

    assert pool() == pool(known=labelled[:3]) == ["p3"]  # p4 is by the author of p0, p5 repeats p1
    assert pseudo.pool(comments, labelled, nobody, parts, drawn, alike)[1] == 2
    assert pool(comments[:3]) == []
    assert pseudo.pool(comments, labelled, comments[3:4], parts, drawn, alike)[0].empty  # people's


def test_in_time_order_the_pool_holds_nothing_of_after_the_training_part() -> None:
    comments = table(6).assign(text=[f"{at}{at} {'lorem' * at}" for at in range(6)], part="")
    comments["repeat"] = range(6)
    comments["time"] = ["2022-03-01", "2022-02-01", "2022-01-05", "2022-01-05", "2022-01-06", ""]
    labelled = comments[:3].assign(**{"label.a": 1.0})
    parts = pd.DataFrame({"id": ["p0", "p1", "p2"], "part": ["test", "validation", "train"]})
    drawn = read_params().split.model_copy(update={"order": "time"})
    alike = Clean(similarity=0.8, shingle=5)
    found, left_out = pseudo.pool(comments, labelled, comments[:0], parts, drawn, alike)
    assert (found["id"].tolist(), left_out) == (["p3"], 2)  # nobody knows when p5 was written


def run(folder: Path, settings: Pseudo) -> str:
    """The stage, on 160 comments of which the last 40 have no label; p0 to p9 are validation, p10 to p19
    test, and p150 is by the author of p3."""
    rng = np.random.default_rng(4)
    words = "equal pay leave office meeting boss team work never kind fair".split()
    texts = [" ".join(rng.choice(words, rng.integers(3, 12))) for _ in range(160)]
    comments = pd.DataFrame({"id": [f"p{at}" for at in range(160)], "text": texts, "part": ""})
    comments["group"] = ["author" if at in (3, 150) else "" for at in range(160)]
    comments["repeat"] = np.arange(160)
    labelled = comments.copy()
    fair = np.array(["fair" in text.split() for text in texts])
    labelled["label.a"] = np.where(comments.index < 120, fair, np.nan)
    labelled["label.b"] = 1 - labelled["label.a"]
    split = labelled[:120].assign(part=["validation"] * 10 + ["test"] * 10 + ["train"] * 100)
    for name, rows in {
        "comments": comments, "labelled": labelled, "people": comments[:0], "split": split
    }.items():  # fmt: skip
        tables.write(rows, folder / f"{name}.parquet")
    reviewed = comments[:0].copy()
    reviewed.attrs = {"others": 0.0, "asked": ["p130"]}
    tables.write(reviewed, folder / "reviewed.parquet")
    SPACE.save(folder / "space.json")
    for name, c in (("x", 50.0), ("y", 0.05)):  # the second knows little but which label is common
        own = read_params().tfidf.model_copy(update={"c": c, "class_weights": "none"})
        (folder / "recipes" / name).mkdir(parents=True, exist_ok=True)
        models.Recipe(name, own, "code").save(folder / "recipes" / name / "recipe.json")
        mix = Mix(table=1.0).model_dump()
        write_json(folder / "recipes" / name / "mix.json", {"name": "own", "weights": mix})
        write_json(folder / "instructions" / f"{name}.json", {})
    write_json(folder / "recipes" / "candidates.json", {"candidates": settings.candidates})
    return stage(
        read_params().model_copy(update={"pseudo": settings}),
        source="standin",
        recipes=folder / "recipes",
        bases=folder / "bases",
        adapted=folder / "adapted",
        instructions=folder / "instructions",
        labels=folder / "space.json",
        comments=folder / "comments.parquet",
        labelled=folder / "labelled.parquet",
        people=folder / "people.parquet",
        reviewed=folder / "reviewed.parquet",
        split=folder / "split.parquet",
        out=folder / "pseudo.parquet",
        queue=folder / "queue.parquet",
        counts=folder / "counts.json",
    )


@pytest.mark.parametrize("combine", ["mean", "vote"])
def test_an_ensemble_labels_the_pool_and_gives_people_what_it_cannot(
    combine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path.cwd()
    settings = how(combine, 0.6, disagreed=3, random=2)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text((root / "params.yaml").read_text("utf-8"), "utf-8")
    left = tmp_path / "models/.state/standin/pseudo/of a run that was killed"
    left.mkdir(parents=True)
    told = run(tmp_path, settings)
    found, counts = tables.read(tmp_path / "pseudo.parquet"), read_json(tmp_path / "counts.json")
    texts = tables.read(tmp_path / "comments.parquet").set_index("id")["text"]
    assert 0 < len(found) == counts["accepted"] < counts["pool"]
    assert told.startswith(f"{counts['pool']} rows without a label → {len(found)} accepted, right in")
    assert set(found["id"]) <= {f"p{at}" for at in range(120, 160)} - {"p150"}
    assert (found["text"] == texts[found["id"]].to_numpy()).all()
    assert (found["confidence"] >= 0.6).all()
    fair = found["text"].str.split().map(lambda words: "fair" in words)
    assert (found["label.a"] == fair).mean() > 0.7
    queue = tables.read(tmp_path / "queue.parquet", ("id", "arm", "inclusion"))
    assert not set(queue.loc[queue["arm"] == "disagreed", "id"]) & set(found["id"])
    assert len(queue) == min(3, counts["disagreed"]) + 2
    drawn = queue.loc[queue["arm"] == "random", "inclusion"]
    assert drawn.tolist() == [2 / (159 - (len(queue) - 2))] * 2  # of all comments but p130
    before = [md5(tmp_path / name) for name in ("pseudo.parquet", "queue.parquet", "counts.json")]
    run(tmp_path, settings)
    assert before == [
        md5(tmp_path / name) for name in ("pseudo.parquet", "queue.parquet", "counts.json")
    ]
    assert not left.exists()


def test_no_candidates_switch_it_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "params.yaml").write_text(Path("params.yaml").read_text("utf-8"), "utf-8")
    monkeypatch.chdir(tmp_path)
    off = how().model_copy(update={"candidates": []})
    assert run(tmp_path, off).startswith("no ensemble, or no comment without a label")
    assert tables.read(tmp_path / "pseudo.parquet").empty
    assert tables.read(tmp_path / "queue.parquet").empty
    assert read_json(tmp_path / "counts.json") == {}
