"""Which rows people are asked about, what their answers become, and what is refused."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pandas as pd
import pytest

from stages import review as stage
from tests.people import ROOT
from tests.test_reviewbook import MANY, ONE, question
from undertone import cli, tables
from undertone.annotation import queues
from undertone.codebook import Codebook, read_codebook
from undertone.errors import Problem
from undertone.files import md5, read_json, remove, write_json
from undertone.labels import LabelSpace
from undertone.measures import prevalence
from undertone.params import read_params
from undertone.people import labelstudio, rehearsal, review, suspects
from undertone.people.review import Review
from undertone.privacy import integrity
from undertone.privacy.needles import Needles

SPACE = LabelSpace.of("moods", ["up", "down", "odd"])
LABELS = ["up", "down", "odd"]


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def scored(ids: Sequence[str], rows: Sequence[Sequence[float]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=LABELS).assign(id=list(ids))[["id", *LABELS]]


def labelled(labels: Sequence[str], part: str = "validation") -> pd.DataFrame:
    """Rows r0, r1, … with these labels, which are silver too."""
    table = pd.DataFrame({"id": [f"r{at}" for at in range(len(labels))], "part": part})
    for label in LABELS:
        table[f"label.{label}"] = [float(one == label) for one in labels]
        table[f"silver.{label}"] = table[f"label.{label}"]
    return table


def test_each_arm_names_the_rows_that_it_is_for() -> None:
    table = labelled(["up"] * 12 + ["down"] * 12)
    sure = {"up": [0.9, 0.06, 0.04], "down": [0.06, 0.9, 0.04]}
    first = [sure["up"]] * 12 + [sure["down"]] * 12
    other = list(first)
    first[0] = sure["down"]  # all three: a likely error, the voters' too
    other[0] = sure["down"]
    other[5] = sure["down"]  # the models differ
    first[7] = [0.36, 0.34, 0.30]  # unsure
    first[20] = [0.2, 0.2, 0.6]  # a rare label
    judges = {
        "one": (SPACE, scored(table["id"], first)),
        "other": (SPACE, scored(table["id"], other)),
    }
    found = suspects.arms(table, judges, SPACE, 4, voters=True)
    assert found[suspects.ERROR][0] == "r0"
    assert found[suspects.VOTERS] == ["r20"]  # r0 is taken
    assert found[suspects.MODELS] == ["r5"]
    assert found[suspects.UNSURE] == ["r7"]
    assert suspects.arms(table, judges, SPACE, 1, voters=True)[suspects.RARE] == []
    alone = {"one": judges["one"]}
    without = suspects.arms(table, alone, SPACE, 24, voters=False)
    assert suspects.VOTERS not in without
    assert suspects.MODELS not in without
    assert without[suspects.RARE] == ["r20"]
    assert sum(map(len, without.values())) == 24  # all are there, each once
    assert len({one for ids in without.values() for one in ids}) == 24


def test_no_score_of_a_row_that_the_model_learnt_from_is_evidence() -> None:
    table = labelled(["up"] * 6).assign(
        part=["train", "train", "validation", "validation", "test", "test"]
    )
    scores = scored(table["id"], [[1, 0, 0]] * 6)  # also of training rows, which predict never writes
    empty = scored([], np.empty((0, 3)))
    own = ["r2", "r3", "r4", "r5"]
    assert list(suspects.held_out(table, scores, empty, SPACE)["id"]) == own
    folds = scored(["r0", "r1", "r2", "r0"], [[0, 1, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1]])
    found = suspects.held_out(table, scores, folds, SPACE).set_index("id")
    assert sorted(found.index) == ["r0", "r1", *own]
    assert found.loc["r0"].tolist() == [0, 0.5, 0.5]  # the mean of two repeats
    assert found.loc["r2"].tolist() == [0, 1, 0]  # validation's own model stopped by it


def test_a_suggestion_is_the_models_where_it_has_not_learnt_from_the_row() -> None:
    table = labelled(["up"] * 4).assign(part=["train", "validation", "test", "test"])
    scores = scored(table["id"], [[0.1, 0.8, 0.1]] * 3 + [[np.nan] * 3])
    held_out = suspects.held_out(table, scores, scored([], np.empty((0, 3))), SPACE)
    said = suspects.suggestions(table, (SPACE, held_out), SPACE)
    assert said == {"r0": "up", "r1": "down", "r2": "down", "r3": ""}


def test_a_text_without_a_valid_answer_is_in_no_doubt() -> None:
    table = labelled(["up", "down", "up"])
    scores = scored(table["id"], [[np.nan] * 3, [0.1, 0.8, 0.1], [0.8, 0.1, 0.1]])
    found = suspects.arms(table, {"one": (SPACE, scores)}, SPACE, 3, voters=True)
    assert "r0" not in [one for ids in found.values() for one in ids]


def reviewed(
    said: Mapping[str, Mapping[str, str]],
    *,
    asked: Sequence[str] = (),
    codebook: Codebook = ONE,
    inclusion: float = 0.5,
    arms: Mapping[str, str] | None = None,
    day: str = "2025-01-01",
    decides: str = "",
) -> Review:
    """Reviewer → id → what they said of it; nothing of an id that isn't there."""
    ids = list(asked) or list(dict.fromkeys(one for own in said.values() for one in own))
    rows = question([f"text of {one}" for one in ids], codebook, tuple(said), ids).rows
    arm = rows["id"].map(arms or {}).fillna(queues.RANDOM)
    rows = rows.assign(arm=arm, inclusion=np.where(arm == queues.RANDOM, inclusion, 1.0))
    own = review.asked("review-1", "somewhere", rows, list(said), codebook.space, decides=decides)
    lines = [
        review.Line(
            at,
            one,
            f"text of {one}",
            {who: (given[one],) for who, given in said.items() if one in given},
        )
        for at, one in enumerate(ids, start=2)
    ]
    answers, faults = review.answers(own, lines, codebook, "book", today=day)
    assert faults == []
    return Review(own, answers)


def comments(ids: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame({"id": list(ids), "text": [f"text of {one}" for one in ids], "group": list(ids)})


def settled(reviews: Sequence[Review], ids: str, codebook: Codebook = ONE) -> review.Reviewed:
    return review.settled(reviews, comments(ids), codebook.space, draws=100, rng=rng())


def test_most_decide_a_tie_has_no_gold_and_whoever_settles_it_has_the_last_word() -> None:
    first = reviewed(
        {
            "anna": {"a": "for", "b": "for", "c": "for", "d": "against"},
            "ben": {"a": "for", "b": "for", "c": "against", "d": "for"},
            "carla": {"b": "against"},
        },
        asked="abcde",
    )
    assert first.differing == ["b", "c", "d"]
    found = settled([first], "abcde")
    assert found.table[["id", "gold.for_it"]].to_numpy().tolist() == [["a", 1], ["b", 1]]
    assert found.table["reviewers"].tolist() == ["anna;ben", "anna;ben;carla"]
    told = {
        name: found.told[name]
        for name in ("asked", "unfilled", "reviewed", "differing", "undecided", "gold")
    }
    assert told == {"asked": 5, "unfilled": 1, "reviewed": 4, "differing": 3, "undecided": 2, "gold": 2}
    last = reviewed({"dora": {"b": "against", "c": "for"}}, decides="review-1", day="2025-02-01")
    found = settled([first, last], "abcde")
    assert found.table[["id", "gold.for_it"]].to_numpy().tolist() == [["a", 1], ["b", 0], ["c", 1]]
    assert found.table["reviewers"].tolist()[1:] == ["anna;ben;carla;dora", "anna;ben;dora"]
    assert found.table["reviewed"].tolist() == ["2025-01-01", "2025-02-01", "2025-02-01"]
    assert (found.told["settled"], found.told["undecided"]) == (2, 1)
    assert "anna" not in json.dumps(found.told)  # it is committed


def test_what_a_reviewer_says_later_replaces_what_they_said() -> None:
    first = reviewed({"anna": {"a": "for"}, "ben": {"a": "for"}}, asked="ab")
    again = reviewed({"anna": {"a": "against", "b": "for"}, "ben": {}}, asked="ab")
    now = first.with_answers(again.answers)
    assert now.answers[["id", "reviewer", "for_it"]].to_numpy().tolist() == [
        ["a", "anna", 0], ["a", "ben", 1], ["b", "anna", 1],
    ]  # fmt: skip
    assert now.replaced(first) == 1


def test_the_day_of_an_answer_decides_and_not_when_it_was_read() -> None:
    first = reviewed({"anna": {"a": "for", "b": "for"}}, day="2025-01-03")
    older = reviewed({"anna": {"a": "against", "b": "for"}}, day="2025-01-02")
    assert first.with_answers(older.answers).answers.equals(first.answers)
    same = reviewed({"anna": {"a": "for", "b": "for"}}, day="2025-01-09")
    assert first.with_answers(same.answers).answers.equals(first.answers)  # read again, a week later
    newer = reviewed({"anna": {"b": "against"}}, day="2025-01-04")
    now = first.with_answers(newer.answers)
    assert now.answers["for_it"].tolist() == [1, 0]
    assert now.answers["day"].tolist() == ["2025-01-03", "2025-01-04"]
    assert now.replaced(first) == 1


def test_an_answer_to_another_text_or_to_other_labels_is_no_gold() -> None:
    one = reviewed({"anna": {"a": "for", "b": "for", "c": "for"}})
    table = comments("ab")
    table.loc[1, "text"] = "text of b, as it is cleaned by now"
    found = review.settled([one], table, ONE.space, draws=100, rng=rng())
    assert found.table["id"].tolist() == ["a"]
    assert found.told["gone"] == 2
    assert found.told["agreement"] is None
    other = review.settled([one], table, MANY.space, draws=100, rng=rng())
    assert other.table.empty
    assert list(other.table) == ["id", "gold.for_it", "gold.against", *review.GOLD]
    assert other.told["of_other_labels"] == 1


def test_agreement_is_krippendorffs_with_an_interval() -> None:
    ids = [f"c{at}" for at in range(40)]
    one = {name: "for" if at % 2 else "against" for at, name in enumerate(ids)}
    other = {**one, "c0": "for", "c1": "against"}
    table = comments(ids)
    found = review.settled(
        [reviewed({"anna": one, "ben": other})], table, ONE.space, draws=200, rng=rng()
    )
    # 2 of 40 rows differ, both values 40 times: 1 - 79 × 4 / (2 × 40 × 40)
    alpha = found.told["agreement"]["alpha"]
    assert alpha["value"] == pytest.approx(1 - 79 * 4 / 3200, abs=1e-6)
    assert alpha["low"] < alpha["value"] < alpha["high"]


def test_a_row_of_an_arm_that_was_not_filled_in_to_its_end_counts_as_drawn_for_it() -> None:
    said = {"a": "for", "b": "for", "c": "for"}
    arms = {"c": "rare label", "d": "rare label"}
    own = reviewed({"anna": said}, asked="abcdef", inclusion=0.2, arms=arms)
    found = settled([own], "abcdefgh")
    # of a, b, e, f, drawn with 0.2, a half is filled in; of c and d, chosen for certain, a half too
    assert found.table.set_index("id")["inclusion"].to_dict() == pytest.approx(
        {"a": 0.1, "b": 0.1, "c": 0.5}
    )
    assert found.table.attrs["others"] == pytest.approx(0.1)
    assert found.table.attrs["asked"] == list("abcdef")  # d, e and f were left open
    again = reviewed({"anna": {"g": "for"}}, inclusion=0.3)
    both = settled([own, again], "abcdefgh").table.set_index("id")["inclusion"]
    # the second asks about none of the first's rows, filled in or not
    assert both["a"] == both["g"] == pytest.approx(0.2 * 0.5 + (1 - 0.2) * 0.3)
    assert both["c"] == pytest.approx(0.5)


def test_the_tables_own_gold_and_the_reviewed_rows_have_one_probability_of_either(
    tmp_path: Path,
) -> None:
    found = settled([reviewed({"anna": {"a": "for", "b": "against"}}, inclusion=0.4)], "abcd")
    path = tmp_path / "reviewed.parquet"
    tables.write(found.table, path)
    table = comments("abcd")
    plain = review.merged(table, tables.read(path), ONE.space)
    assert plain["gold.for_it"].tolist()[:2] == [1, 0]
    assert plain["gold.for_it"].isna().tolist() == [False, False, True, True]
    assert plain["reviewers"].tolist() == ["anna", "anna", "", ""]
    table = table.assign(
        **{"gold.for_it": [0.0, np.nan, 1.0, np.nan], "gold.against": [1.0, np.nan, 0.0, np.nan]}
    )
    both = review.merged(table, tables.read(path), ONE.space)
    assert both["gold.for_it"].tolist()[:3] == [1, 0, 1]  # a review is the later word
    # 2 of 4 rows came with gold, drawn alike; a review had 0.4
    assert both["inclusion"].tolist()[:3] == pytest.approx([0.7, 0.7, 0.7])
    assert np.isnan(both["inclusion"][3])
    none = settled([], "abcd").table
    assert review.merged(table, none, ONE.space) is table


def test_shares_of_the_corpus_are_right_although_doubtful_rows_were_chosen() -> None:
    draw = np.random.default_rng(1)
    ids = [f"c{at}" for at in range(4000)]
    truth = dict(zip(ids, draw.random(4000) < 0.2, strict=True))
    # half of those for it, and next to none of the others, are chosen for certain
    chosen = [one for one in ids if draw.random() < (0.5 if truth[one] else 0.01)]
    queue = queues.queue(ids, {"rare label": chosen}, 600, draw)
    said = {one: "for" if truth[one] else "against" for one in queue["id"]}
    arms = dict.fromkeys(chosen, "rare label")
    likely = float(queue.loc[queue["arm"] == queues.RANDOM, "inclusion"].iloc[0])
    own = review.settled(
        [reviewed({"anna": said}, arms=arms, inclusion=likely)],
        comments(ids),
        ONE.space,
        draws=100,
        rng=rng(),
    )
    table = review.merged(comments(ids), own.table, ONE.space)
    gold = tables.judged(table, "gold", ONE.space)
    inclusion = table["inclusion"].to_numpy(np.float64)
    scores = np.full((4000, 2), 0.5)  # of no help, so that people's rows alone count
    weighed, plain = (
        prevalence.prevalence(scores, gold, ONE.space, inclusion=one)["labels"]["for_it"]["by_hand"]
        for one in (inclusion, None)
    )
    share = np.mean(list(truth.values()))
    assert weighed["low"] < share < weighed["high"]
    assert plain["low"] > share + 0.1


def exported(tasks: list[dict[str, Any]], said: Mapping[str, Any], path: Path) -> None:
    """As Label Studio exports a project: id → its annotations (who, choices)."""
    for number, task in enumerate(tasks):
        task |= {"id": 100 + number, "predictions": [], "project": 7}
        task["annotations"] = [
            {
                "id": 1, "completed_by": who, "was_cancelled": choices is None,
                "created_at": "2025-03-09T21:52:49.513742Z", "updated_at": "2025-03-10T22:16:08.746926Z",
                "result": [{"from_name": "label", "to_name": "text", "type": "choices", "id": "x",
                            "origin": "manual", "value": {"choices": choices}}] if choices else [],
            }
            for who, choices in said.get(task["data"]["id"], [])
        ]  # fmt: skip
    path.write_text(json.dumps(tasks, ensure_ascii=False))


@pytest.mark.parametrize("codebook", [ONE, MANY], ids=["one", "many"])
def test_label_studio_gets_tasks_and_gives_answers(tmp_path: Path, codebook: Codebook) -> None:
    texts = ["=1\r\n\x01_x0041_", "<b>&amp;</b>", "y" * 40_000, "skipped"]
    asked = question(texts, codebook, ("anna@example.org", "10"))
    of = dict(zip(asked.rows["id"], texts, strict=True))
    labelstudio.write(asked, of, codebook, tmp_path / "out.json", suggestions={"0000": "for"})
    tasks = json.loads((tmp_path / "out.json").read_text("utf-8"))
    assert [task["data"]["text"] for task in tasks] == texts
    assert tasks[0]["predictions"][0]["result"][0]["value"] == {"choices": ["for"]}
    assert "predictions" not in tasks[1]
    interface = (tmp_path / "out.xml").read_text("utf-8")
    assert f'choice="{"multiple" if codebook.many else "single"}"' in interface
    said = {
        "0000": [(10, ["for"]), ({"email": "anna@example.org", "id": 3}, ["against"])],
        "0002": [(10, [review.NONE] if codebook.many else ["against"])],
        "0003": [(10, None)],
    }
    exported(tasks, said, tmp_path / "in.json")
    known, lines, faults = labelstudio.read(tmp_path / "in.json", {"review-1": asked})
    answers, more = review.answers(known, lines, codebook, "in.json", today="2099-01-01")
    assert faults + more == []
    third = 0 if codebook.many else 1
    assert answers[["id", "reviewer", "day", "for_it", "against"]].to_numpy().tolist() == [
        ["0000", "10", "2025-03-10", 1, 0],
        ["0000", "anna@example.org", "2025-03-10", 0, 1],
        ["0002", "10", "2025-03-10", 0, third],
    ]


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ([(11, ["for"])], "in.json, row 1: a reviewer who was not asked; 10 were"),
        ([(10, [])], "in.json, row 1, 10: submitted without a choice"),
        ([(10, 5)], "in.json, row 1: an annotation of another form"),
        ([(10, ["for"]), (10, ["against"])], "in.json, row 1, 10: two different answers"),
        ([(10, ["for", "against"])], "in.json, row 1, id 0000, 10: two labels where one is allowed"),
        (
            [(10, ["fro"])],
            "in.json, row 1, id 0000, 10: no label of codebook stance, the nearest is 'for'",
        ),
    ],
)
def test_label_studios_answers_go_through_the_same_checks(
    tmp_path: Path, said: list[tuple[int, Any]], told: str
) -> None:
    asked = question(["a text"], ONE, ("10",))
    labelstudio.write(asked, {"0000": "a text"}, ONE, tmp_path / "out.json")
    exported(json.loads((tmp_path / "out.json").read_text()), {"0000": said}, tmp_path / "in.json")
    _, lines, faults = labelstudio.read(tmp_path / "in.json", {"review-1": asked})
    (fault,) = faults + review.answers(asked, lines, ONE, "in.json", today="2025-01-01")[1]
    assert str(fault).startswith(told)


def test_of_label_studio_the_order_of_choices_says_nothing_and_a_day_is_a_date(tmp_path: Path) -> None:
    asked = question(["text 0"], MANY, ("10",))
    known, path = {"review-1": asked}, tmp_path / "in.json"
    task = {"data": {"id": "0000", "text": "text 0", "review": "review-1"}}
    exported([task], {"0000": [(10, ["for", "against"]), (10, ["against", "for"])]}, path)
    _, (line,), faults = labelstudio.read(path, known)
    assert faults == []
    assert dict(line.given) == {"10": ("against", "for")}
    path.write_text(path.read_text().replace("2025-03-10", "last week "))
    _, (line,), (fault,) = labelstudio.read(path, known)
    assert str(fault).startswith("in.json, row 1: an annotation of another form")
    assert not line.given


def test_what_is_no_export_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "in.json"
    for content in ("", "{}", "[1]", '[{"data": {"id": "1", "text": "a"}}]', "[]", '[{"data": 1}]'):
        path.write_text(content)
        with pytest.raises(Problem, match=r"in\.json: no export of a review's tasks"):
            labelstudio.read(path, {})


def test_a_review_is_what_it_was_after_a_file(tmp_path: Path) -> None:
    own = reviewed({"anna": {"a": "for"}, "ben": {}}, asked="abc", decides="review-0")
    own.save(tmp_path / "one.parquet")
    again = Review.load(tmp_path / "one.parquet")
    assert again.answers.to_dict("records") == own.answers.to_dict("records")
    assert again.asked.rows["id"].tolist() == ["a", "b", "c"]
    assert (again.asked.reviewers, again.asked.decides) == (("anna", "ben"), "review-0")
    with pytest.raises(Problem, match="no record of a review"):
        Review.load(tmp_path / "none.parquet")


@pytest.mark.parametrize("codebook", [ONE, MANY], ids=["one", "many"])
def test_simulated_reviewers_take_every_step(tmp_path: Path, codebook: Codebook) -> None:
    table = comments([f"c{at}" for at in range(80)])
    table["meta.truth"] = ["for", "against", "against", "" if not codebook.many else "for; against"] * 20
    first, last = rehearsal.reviews(table, 40, codebook, seed=1, folder=tmp_path)
    found = review.settled([first, last], table, codebook.space, draws=100, rng=rng())
    assert found.told["asked"] == 40
    assert found.told["unfilled"] == 1
    assert found.told["differing"] == found.told["settled"] + 1 > 1
    right = dict(zip(table["id"], table["meta.truth"].str.contains("for"), strict=True))
    gold = found.table.set_index("id")["gold.for_it"]
    assert np.mean([right[one] == value for one, value in gold.items()]) > 0.85
    with pytest.raises(Problem, match="no column 'truth' that simulated reviewers could know"):
        rehearsal.reviews(comments("ab"), 2, codebook, seed=1, folder=tmp_path)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One whose pipeline has run: 60 comments, two candidates, private remote."""
    root = tmp_path / "repository"
    (root / ".dvc").mkdir(parents=True)
    for name in (
        *(".gitignore", ".dvcignore", ".dvc/config", ".dvc/.gitignore", "params.yaml"),
        *("codebooks/gender.yaml", "undertone/corpus/sample_words.py", "data/raw/reviews/README.md"),
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, root / name)
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    subprocess.run(["git", "add", "-A"], cwd=root, check=True)
    monkeypatch.chdir(root)
    labels = ["positive", "mild", "negative", "irrelevant"]
    space = LabelSpace.of("gender", labels)
    draw, data = np.random.default_rng(3), root / "data/standin"
    table = pd.DataFrame({"id": [f"{at:03d}" for at in range(60)], "group": "", "repeat": 0})
    table["text"] = [f"=a comment of its own, the {at}th of them\n" for at in range(60)]
    (data / "scores").mkdir(parents=True)
    (data / "folds").mkdir()
    tables.write(table, data / "clean.parquet")
    truth = np.eye(4)[draw.integers(4, size=60)]
    for prefix in ("label", "silver"):
        table[[f"{prefix}.{label}" for label in labels]] = truth
    table["part"] = ["train"] * 20 + ["validation"] * 20 + ["test"] * 20
    tables.write(table, data / "split.parquet")
    for name in ("bert", "tfidf"):
        scores = tables.scores_table(table["id"], draw.dirichlet([1.0] * 4, size=60), space)
        tables.write(scores[20:], data / f"scores/{name}.parquet")
        scores[:0].assign(fold="").to_parquet(data / f"folds/{name}.parquet")
        (root / "models/candidates/standin" / name).mkdir(parents=True)
        space.save(root / "models/candidates/standin" / name / "labels.json")
    selection = {"champion": "bert", "values": {"bert": 0.6, "tfidf": 0.5}}
    write_json(root / "reports/standin/selection.json", selection)
    return root


def filled(path: Path, says: Callable[[int, str], str | None], columns: Sequence[str]) -> Path:
    """A copy of a workbook on somebody's desk, with what each column's reviewer says of a row."""
    book = openpyxl.load_workbook(path)
    sheet = book.worksheets[0]
    header = {cell.value: cell.column for cell in sheet[1]}
    for row in range(2, sheet.max_row + 1):
        for column in columns:
            sheet.cell(row, header[column]).value = says(row, column)
    copy = path.parents[3].with_name(f"filled {path.name}")
    book.save(copy)
    return copy


def staged(root: Path) -> tuple[str, pd.DataFrame, dict[str, Any]]:
    """What the stage says and writes, without simulated reviewers."""
    params = read_params()
    params = params.model_copy(update={"review": params.review.model_copy(update={"simulated": {}})})
    out, summary = root / "data/standin/reviewed.parquet", root / "reports/standin/review.json"
    line = stage.main(
        params,
        source="standin",
        codebook=root / "codebooks/gender.yaml",
        comments=root / "data/standin/clean.parquet",
        reviews=root / "data/raw/reviews/standin",
        out=out,
        summary=summary,
    )
    return line, tables.read(out), read_json(summary)


def test_where_nothing_was_reviewed_the_stage_says_so(repository: Path) -> None:
    line, gold, counts = staged(repository)
    assert line == "nothing was reviewed"
    assert gold.empty
    assert counts == {}


def test_a_row_of_a_later_review_was_in_none_before_it(repository: Path) -> None:
    results = repository / "data/raw/reviews/standin/given"
    book = read_codebook(repository / "codebooks/gender.yaml")
    tables.write(comments("abc"), repository / "data/standin/clean.parquet")
    first = reviewed({"anna": {"a": "mild"}}, asked="ab", codebook=book, inclusion=0.5)
    first.save(results / "review-2.parquet")
    second = reviewed({"anna": {"c": "mild"}}, codebook=book, inclusion=1.0)
    second.save(results / "review-10.parquet")
    _, gold, _ = staged(repository)
    # half of those asked first are filled in; then all the others were asked, and are
    assert gold["inclusion"].tolist() == pytest.approx([0.5 * 0.5 + 0.5] * 2)


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout


def test_from_the_pipeline_to_people_and_back(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, results = repository / "data/review/standin", repository / "data/raw/reviews/standin/given"
    who = ["--reviewer", "anna", "--reviewer", "ben"]
    assert cli.main(["review", "--rows", "8", "--random", "12", *who]) == 0
    told = capsys.readouterr().out
    assert "data/review/standin/review-1.xlsx: 20 rows for anna and ben" in told
    assert "8 chosen rows are validation's: once people have labelled them, no mix can be judged" in told
    assert "wanted" not in told
    asked = review.Asked.load(folder / "review-1.parquet")
    chosen = asked.rows[asked.rows["inclusion"] == 1]["id"]
    assert len(chosen) == 8
    assert chosen.between("020", "039").all()  # of validation, of which the models hadn't learnt
    assert asked.rows[asked.rows["inclusion"] < 1]["inclusion"].unique() == pytest.approx([12 / 52])
    header = [cell.value for cell in openpyxl.load_workbook(folder / "review-1.xlsx").worksheets[0][1]]
    assert header == ["id", "text", "anna", "ben"]  # the suggestion is nowhere in the file

    # a fault, and nothing gets in
    wrong = filled(folder / "review-1.xlsx", lambda row, _: "mlid" if row == 4 else "mild", ["anna"])
    assert cli.main(["review", "--read", str(wrong)]) == 1
    said = capsys.readouterr()
    assert said.err.splitlines()[0].startswith("undertone: filled review-1.xlsx, row 4, id ")
    assert "the nearest is 'mild'" in said.err
    assert "1 fault in 1 file, so nothing was taken over" in said.err
    assert not results.exists()
    assert "comment of its own" not in said.out + said.err

    # half-filled, and they differ on a row
    def says(row: int, who: str) -> str | None:
        return None if row > 11 else "negative" if (row, who) == (3, "ben") else "mild"

    back = filled(folder / "review-1.xlsx", says, ["anna", "ben"])
    assert cli.main(["review", "--read", str(back)]) == 0
    told = capsys.readouterr().out
    assert "review-1: 10 of 20 rows reviewed (anna 10; ben 10)" in told
    assert "anna and ben, 10 rows of both: raw agreement 0.900" in told
    assert "Krippendorff's α over all: 0.000" in told
    assert "data/review/standin/review-1-decide.xlsx: 1 row on which they differ" in told
    sheet = openpyxl.load_workbook(folder / "review-1-decide.xlsx").worksheets[0]
    assert [cell.value for cell in sheet[1]] == ["id", "text", "anna said", "ben said", "decision"]
    assert [cell.value for cell in sheet[2]][2:4] == ["mild", "negative"]
    decided = filled(folder / "review-1-decide.xlsx", lambda *_: "negative", ["decision"])
    assert cli.main(["review", "--read", str(decided)]) == 0
    line, gold, counts = staged(repository)
    assert line.startswith("20 rows asked about, 10 reviewed, 1 differ, 1 settled → 10 gold")
    assert gold["gold.mild"].sum() == 9
    assert gold["gold.negative"].sum() == 1
    assert (counts["unfilled"], counts["gold"]) == (10, 10)

    # git sees two pointers, pinned to the private remote, and the audit no source called "review"
    new = [line[3:] for line in git("status", "--porcelain", "-uall").splitlines() if "?? " in line]
    assert sorted(one for one in new if one.startswith("data/")) == [
        "data/raw/reviews/standin/given.dvc", "data/review/standin.dvc",
    ]  # fmt: skip
    for one in ("data/raw/reviews/standin/given.dvc", "data/review/standin.dvc"):
        assert "remote: private" in Path(one).read_text()
    assert Needles.of(repository).sources == ["standin"]


@pytest.mark.usefixtures("repository")
def test_rows_are_asked_about_once_and_a_queue_of_others_is_taken(
    capsys: pytest.CaptureFixture[str],
) -> None:
    queue = pd.DataFrame(
        {"id": ["001", "002", "003"], "arm": ["near", "near", "random"], "inclusion": [1, 1, 0.1]}
    )
    queue.to_parquet("queue.parquet")
    assert cli.main(["review", "--queue", "queue.parquet", "--show", "--out", "rare.json"]) == 0
    tasks = json.loads(Path("data/review/standin/rare.json").read_text())
    assert sorted(task["data"]["id"] for task in tasks) == ["001", "002", "003"]
    assert all(len(task["predictions"]) == 1 for task in tasks)
    assert cli.main(["review", "--queue", "queue.parquet"]) == 1
    assert "no row is left to ask about" in capsys.readouterr().err
    queue.assign(id=["001", "004", "003"]).to_parquet("queue.parquet")
    assert cli.main(["review", "--queue", "queue.parquet", "--out", "more.xlsx"]) == 0
    assert "2 of its 3 rows left out: asked about or labelled before" in capsys.readouterr().out
    queue.assign(id=["001", "002", "nobody"]).to_parquet("queue.parquet")
    assert cli.main(["review", "--queue", "queue.parquet"]) == 1
    assert "1 of 3 rows are not among the comments" in capsys.readouterr().err
    queue.assign(arm="random", inclusion=[0.1, 0.1, 0.2]).to_parquet("queue.parquet")
    assert cli.main(["review", "--queue", "queue.parquet"]) == 1
    assert "random rows of several inclusion probabilities" in capsys.readouterr().err
    assert cli.main(["review", "--rows", "0", "--random", "100"]) == 0
    rest = review.Asked.load(Path("data/review/standin/review-1.parquet")).rows
    assert len(rest) == 56
    assert not rest["id"].isin(["001", "002", "003", "004"]).any()
    codebook = Path("codebooks/gender.yaml")
    codebook.write_text(codebook.read_text().replace("irrelevant", "off_topic"))
    assert cli.main(["review", "--rows", "0", "--random", "100"]) == 0  # of other labels: asked anew
    assert len(review.Asked.load(Path("data/review/standin/review-2.parquet")).rows) == 60


def locked(folder: Path, name: str) -> None:
    """As while somebody has it open in Excel, and another in LibreOffice."""
    (folder / f"~${name}").write_bytes(b"x" * 165)
    (folder / f".~lock.{name}#").write_text(",anna,desk;")


@pytest.mark.usefixtures("repository")
def test_a_workbook_that_is_shorter_than_wished_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    say = ["--reviewer", "anna"]
    assert cli.main(["review", "--rows", "5", "--random", "0", *say]) == 0
    assert "wanted" not in capsys.readouterr().out
    assert cli.main(["review", "--rows", "200", "--random", "50", *say]) == 0
    told = capsys.readouterr().out.splitlines()
    assert (
        "of 200 wanted 15 can be chosen: only rows that the models haven't learnt from count, which are"
        " 20 of validation, 5 of them asked about or labelled before"
    ) in told
    assert "of 50 wanted at random 40 are drawn: no other row is left" in told
    assert cli.main(["review", "--rows", "0", "--random", "1", *say]) == 1
    assert "no row is left to ask about" in capsys.readouterr().err


@pytest.mark.usefixtures("repository")
def test_random_rows_alone_can_judge_a_mix(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["review", "--rows", "0", "--random", "60", "--reviewer", "anna"]) == 0
    assert "mix" not in capsys.readouterr().out


def test_a_workbook_may_be_filled_in_where_it_lies_and_be_open_meanwhile(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = repository / "data/review/standin"
    assert cli.main(["review", "--rows", "0", "--random", "5", "--reviewer", "anna"]) == 0
    path = folder / "review-1.xlsx"
    locked(folder, path.name)
    os.replace(filled(path, lambda *_: "mild", ["anna"]), path)
    assert cli.main(["review", "--read", str(path)]) == 0
    assert "review-1: 5 of 5 rows reviewed" in capsys.readouterr().out
    (record,) = integrity.pointed(Path("data/review/standin.dvc"))
    assert record.md5 == md5(folder)  # neither we nor DVC count the locks
    desk = shutil.copy(path, repository.parent / "copy.xlsx")
    for gone in (path, folder):
        locked(folder, path.name)
        remove(gone)
        assert cli.main(["review", "--read", str(desk)]) == 1
        assert (
            "data/review/standin: lacks files that data/review/standin.dvc points to."
            " Run `dvc pull data/review/standin.dvc`"
        ) in capsys.readouterr().err


def test_nobody_is_asked_to_decide_on_a_text_that_has_changed_since(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, results = repository / "data/review/standin", repository / "data/raw/reviews/standin/given"
    who = ["anna", "ben"]
    asking = ["--rows", "0", "--random", "4", "--reviewer", "anna", "--reviewer", "ben"]
    assert cli.main(["review", *asking]) == 0
    gone, changed, *left = review.Asked.load(folder / "review-1.parquet").rows["id"]
    path = repository / "data/standin/clean.parquet"
    table = tables.read(path)
    table.loc[table["id"] == changed, "text"] = "another text by now"
    tables.write(table[table["id"] != gone].reset_index(drop=True), path)
    both = filled(folder / "review-1.xlsx", lambda _, one: "mild" if one == "ben" else "negative", who)
    assert cli.main(["review", "--read", str(both), "--reviewer", "a;b"]) == 1
    assert not results.exists()  # nothing is taken over before all that comes of it is written
    capsys.readouterr()
    assert cli.main(["review", "--read", str(both)]) == 0
    assert "review-1-decide.xlsx: 2 rows on which they differ" in capsys.readouterr().out
    assert review.Asked.load(folder / "review-1-decide.parquet").rows["id"].tolist() == left


@pytest.mark.usefixtures("repository")
def test_a_half_done_project_of_label_studio_is_taken_and_a_later_answer_counts(
    capsys: pytest.CaptureFixture[str],
) -> None:
    asking = ["--rows", "0", "--random", "4", "--reviewer", "10", "--out", "half.json"]
    assert cli.main(["review", *asking]) == 0
    tasks = json.loads(Path("data/review/standin/half.json").read_text())
    one, other = (task["data"]["id"] for task in tasks[:2])
    back = Path("back.json")
    exported(
        tasks[:2], {one: [(10, ["mild"])], other: [(10, ["mild"])]}, back
    )  # the others aren't in it
    assert cli.main(["review", "--read", str(back)]) == 0
    assert "half: 2 of 4 rows reviewed" in capsys.readouterr().out
    exported(tasks[:2], {one: [(10, ["negative"])], other: [(10, ["negative"])]}, back)
    content = back.read_text()
    older = content.replace("2025-03-10", "2025-03-01", 1)
    back.write_text(
        older[: older.index(other)] + older[older.index(other) :].replace("2025-03-10", "2025-03-11")
    )
    assert cli.main(["review", "--read", str(back)]) == 0
    assert "half: 1 answers replace others that were given before" in capsys.readouterr().out
    kept = Review.load(Path("data/raw/reviews/standin/given/half.parquet")).answers.set_index("id")
    assert (kept.loc[one, "mild"], kept.loc[other, "mild"]) == (1, 0)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ["--out", "/tmp/book.xlsx"],
            "the texts are private. Give a mere name: it is written to data/review",
        ),
        (["--out", "book.csv"], "'.csv' is no format to write. Take .xlsx or .json"),
        (["--out", "Book 1.xlsx"], "no name for a review: 'Book 1'"),
        (["--out", "codebook.xlsx"], "no name for a review: 'codebook'"),
        (["--out", "rare-decide.xlsx"], "a name of what decides on a review. Choose another"),
        (["--reviewer", "a;b"], "--reviewer: no name for a reviewer: 'a;b'"),
        (["--reviewer", "anna", "--reviewer", "Anna"], "two reviewers of one name"),
        (["--candidate", "nobody"], "--candidate: no candidate 'nobody'; there are tfidf, e5"),
        (["--rows", "-1"], "--rows, --random: -1 rows. Give 0 or more"),
        (["--read", "nowhere.xlsx"], "nowhere.xlsx: no such file"),
        (["--read", "nowhere.json"], "nowhere.json: no such file"),
        (["--read", "a.xlsx", "--show"], "--read and --show are two commands"),
        (["--read", "a.xlsx", "--reviewer", "x", "--reviewer", "y"], "several who decide"),
        (["--queue", "q.parquet", "--random", "0"], "--queue and --random are two commands"),
        (["--queue", "q.parquet", "--test"], "--queue and --test are two commands"),
        (["--queue", "q.parquet", "--candidate", "bert"], "--queue and --candidate are two commands"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_line(
    repository: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    assert cli.main(["review", *arguments]) == 1
    assert told in capsys.readouterr().err
    assert not (repository / "data/review").exists() or not list(
        (repository / "data/review").rglob("*.xlsx")
    )
