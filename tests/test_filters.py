"""What is generated becomes a training row only if it is new, nobody's, and what was asked for."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stages import augment, generate, prompt
from tests.test_writing import asked
from undertone import tables
from undertone.augmentation import filters, jury
from undertone.augmentation.writing import Written
from undertone.codebook import read_codebook
from undertone.corpus import sample, split
from undertone.errors import Problem
from undertone.files import read_json
from undertone.labels import Flags, LabelSpace
from undertone.params import Accept, Bundle, Clean, Generate, Params, read_params

BOOK = Path("codebooks/gender.yaml")
SPACE = read_codebook(BOOK).space
ALIKE = Clean(similarity=0.8, shingle=5)
ACCEPT = Accept.model_validate(
    {"length": [0.0, 1.0], "strange": 0.0, "copied": 32, "forbidden": [r"as an ai\b"], "judge": None}
)
LONG = "My boss says that the new quota is a gift to people who could not make it on merit."
SECRET = "Nobody at the works asks me what I think of the leave for fathers, and that is how I like it."


def real(rows: int = 240) -> pd.DataFrame:
    """A split table by the stand-in's grammar; r000 (train) is LONG, r005 (test) SECRET."""
    rng = np.random.default_rng(5)
    write = sample.writer(read_codebook(BOOK))
    labels = np.resize(SPACE.labels, rows)
    texts = [write((str(label),), rng) for label in labels]
    texts[0], texts[5] = LONG, SECRET
    flags = {f"label.{label}": (labels == label).astype(float) for label in SPACE.labels}
    return pd.DataFrame(
        {
            "id": [f"r{row:03d}" for row in range(rows)],
            "text": texts,
            "group": None,
            "part": np.resize([*["train"] * 4, "validation", "test", "train"], rows),
            "repeat": range(rows),
            **flags,
        }
    )


def written(*texts: str, parent: str = "r000;r001", label: str = "negative") -> pd.DataFrame:
    own = {"custom_id": "q0", "label": label, "parent": parent, "answered": ""}
    return pd.DataFrame([{**own, "text": text} for text in texts])


def always(label: str) -> filters.Judge:
    def decide(texts: Sequence[str]) -> Flags:
        return np.tile(np.array(SPACE.labels) == label, (len(texts), 1))

    return decide


def why(*texts: str, pool: Sequence[str] = (), said: str = "negative", **of: str) -> list[str]:
    table = real()
    unlabelled = pd.DataFrame({"id": [f"p{at}" for at in range(len(pool))], "text": list(pool)})
    return filters.reasons(
        written(*texts, **of), table, unlabelled, SPACE, ACCEPT, ALIKE, always(said), seed=0
    )


FRESH = "Scrap the mentoring post, it only helps those who shout loudest in the canteen."


def test_a_new_text_is_accepted() -> None:
    assert why(FRESH) == [""]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (SECRET, filters.REPEATS),
        (SECRET.upper().replace(",", " -"), filters.REPEATS),
        (f"{SECRET} Really", filters.NEAR),
        (f"Quite so: my BOSS says - that the new quota is a gift. {FRESH}", filters.QUOTES),
        (f"{FRESH} Write to quill@example.org", filters.ADDRESS),
        (f"{FRESH} See www.example.org", filters.ADDRESS),
        (f"{FRESH} Ask @quillreader", filters.ADDRESS),
        (f"{FRESH} Call 020 7946 0958", filters.ADDRESS),
        (f"As an AI I say: {FRESH}", filters.FORBIDDEN),
        ("Aye", filters.LENGTH),
        ("", filters.LENGTH),
        (FRESH * 12, filters.LENGTH),
        ("Niemand kann mir erzählen, dass ein Vorstand ohne Frauen ein Zufall ist.", filters.LANGUAGE),
        ("Nadie puede decirme que un consejo sin mujeres es una casualidad.", filters.LANGUAGE),
        ("同工同酬三十年前就应该成为规则，现在还有人反对。" * 3, filters.LANGUAGE),
    ],
)
def test_each_fault_has_its_reason(text: str, reason: str) -> None:
    assert why(text, FRESH) == [reason, ""]


def test_a_row_of_the_pool_that_nobody_labelled_is_real_too() -> None:
    assert why(FRESH, pool=[f"{FRESH}!!"]) == [filters.REPEATS]
    assert why(FRESH, pool=[f"So {FRESH}"]) == [filters.NEAR]


def test_another_label_for_the_judge_is_a_reason_and_so_is_one_label_more() -> None:
    assert why(FRESH, said="mild") == [filters.LABEL]
    both = filters.reasons(
        written(FRESH), real(), real(), SPACE, ACCEPT, ALIKE,
        lambda texts: np.ones((len(texts), 4), dtype=bool), seed=0,
    )  # fmt: skip
    assert both == [filters.LABEL]


def test_of_texts_that_repeat_each_other_the_first_that_is_good_stays() -> None:
    texts = (f"{FRESH} www.example.org", FRESH, f"{FRESH} Yes", FRESH.lower())
    assert why(*texts) == [filters.ADDRESS, "", filters.AGAIN, filters.AGAIN]


@pytest.mark.parametrize("parent", ["r005", "r000;r005", "r004", "r000;gone", "", "gone"])
def test_no_row_has_a_parent_in_validation_or_test_or_none_at_all(parent: str) -> None:
    assert real().set_index("id").loc[["r004", "r005"], "part"].tolist() == ["validation", "test"]
    assert why(FRESH, parent=parent) == [filters.PARENT]


def test_rows_have_the_label_their_parents_and_where_they_came_from() -> None:
    made = filters.rows(written(FRESH, LONG), SPACE, "m")
    assert made["id"].is_unique
    assert made["id"].str.fullmatch(r"generated-[0-9a-f]{20}").all()
    assert made[[f"label.{one}" for one in SPACE.labels]].to_numpy().tolist() == [[0, 0, 1, 0]] * 2
    assert set(made["parent"]) == {"r000;r001"}
    assert set(made["origin"]) == {"generated"}
    table = pd.concat([real(), made.assign(part="train", repeat=[900, 901])], ignore_index=True)
    assert split.synthetic(table).sum() == 2
    assert not split.orphans(table, (table["part"] == "train").to_numpy()).any()


def test_the_account_has_every_text_once_in_all_and_by_label() -> None:
    questions = asked(3, 3, 2).assign(label=["cold", "cold", "kind"])
    texts = pd.DataFrame(
        [("q0", "cold", "p", "", f"t{at}") for at in range(3)] + [("q2", "kind", "p", "", "t3")],
        columns=["custom_id", "label", "parent", "answered", "text"],
    )
    unread = pd.DataFrame(
        [("q1", "cold", "missing", 3, ""), ("q2", "kind", "too_few", 1, "[]")],
        columns=["custom_id", "label", "reason", "count", "text"],
    )
    given = ["", filters.NEAR, filters.LABEL, ""]
    found = filters.account(questions, Written(texts, unread), given, draws=200, seed=0)
    for one in (found, *found["labels"].values()):
        gone = sum(one["rejected"].values()) + sum(one["unread"].values())
        assert one["asked"] == one["accepted"] + gone
    assert (found["asked"], found["accepted"]) == (8, 2)
    assert found["labels"]["cold"]["rate"]["value"] == pytest.approx(1 / 6, abs=1e-6)
    assert 0 <= found["rate"]["low"] < 0.25 < found["rate"]["high"] <= 1
    refused = filters.refused(Written(texts, unread), given)
    assert refused["reason"].tolist() == [filters.NEAR, filters.LABEL, "too_few"]


# From here on the stages themselves, on a small table.


def run(folder: Path, changed: Generate | None, table: pd.DataFrame | None = None) -> Params:
    given = read_params()
    own = given.model_copy(update={"generate": {"standin": changed}})
    tables.write(real() if table is None else table, folder / "split.parquet", split.NEEDS)
    SPACE.save(folder / "space.json")
    from_split = {"labels": folder / "space.json", "comments": folder / "split.parquet"}
    prompt.main(
        own, source="standin", codebook=BOOK, **from_split, out=folder / "prompts",
        plan=folder / "prompt.json",
    )  # fmt: skip
    generate.main(
        own, source="standin", codebook=BOOK, **from_split, requests=folder / "prompts",
        files=folder / "answers", out=folder / "written", sent=folder / "sent_generate.json",
    )  # fmt: skip
    augment.main(
        own, source="standin", pool=folder / "split.parquet", **from_split, requests=folder / "prompts",
        answers=folder / "written", out=folder / "generated.parquet",
        rejected=folder / "rejected.parquet", counts=folder / "generated.json",
    )  # fmt: skip
    return own


def repository(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`folder` as a repository, in which the doors keep their record."""
    (folder / ".dvc").mkdir()
    (folder / "codebooks").symlink_to(Path("codebooks").resolve())
    (folder / "params.yaml").symlink_to(Path("params.yaml").resolve())
    monkeypatch.chdir(folder)
    return folder


def test_the_standins_writer_errs_in_every_way_and_every_text_is_accounted_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = repository(tmp_path, monkeypatch)
    settings = read_params().generate["standin"]
    assert settings is not None
    run(folder, settings)
    counts = read_json(folder / "generated.json")
    assert counts["asked"] == sum(settings.labels.values())
    gone = sum(counts["rejected"].values()) + sum(counts["unread"].values())
    assert counts["asked"] == counts["accepted"] + gone
    assert counts["accepted"] > 0
    assert all(counts["unread"].values())
    planted = {
        filters.REPEATS, filters.NEAR, filters.QUOTES, filters.ADDRESS, filters.FORBIDDEN,
        filters.LENGTH, filters.LANGUAGE, filters.LABEL,
    }  # fmt: skip
    assert not planted - {reason for reason, count in counts["rejected"].items() if count}
    assert counts["unknown_ids"] == counts["repeated"] == 1
    made = pd.read_parquet(folder / "generated.parquet")
    assert len(made) == counts["accepted"]
    table = real()
    parents = {one for ids in made["parent"] for one in ids.split(";")}
    assert parents <= set(table["id"][table["part"] == "train"])
    assert not set(made["text"]) & set(table["text"])
    told = (folder / "generated.json").read_text() + (folder / "prompt.json").read_text()
    assert not [text for text in (*table["text"], *made["text"]) if len(text) > 20 and text in told]


def test_nothing_is_asked_written_or_generated_where_nothing_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = repository(tmp_path, monkeypatch)
    run(folder, None)
    assert sorted(path.name for path in (folder / "prompts").iterdir()) == ["asked.parquet"]
    assert read_json(folder / "generated.json")["asked"] == 0
    made = tables.read(folder / "generated.parquet", ("id", "text", "parent", "origin"))
    assert not len(made)
    assert set(made) >= {f"label.{label}" for label in SPACE.labels}


def test_a_provider_that_may_not_read_the_source_gets_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = repository(tmp_path, monkeypatch)
    settings = read_params().generate["standin"]
    assert settings is not None
    away = settings.model_copy(update={"door": "endpoint", "provider": "openai"})
    with pytest.raises(Problem, match=r"openai may not read the comments of 'standin'.*may_read"):
        run(folder, away)
    assert not (folder / "data/.batches").exists()
    assert read_json(folder / "sent_generate.json") == {"sent": []}


def test_dropped_files_have_a_folder_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = repository(tmp_path, monkeypatch)
    settings = read_params().generate["standin"]
    assert settings is not None
    with pytest.raises(Problem, match=r"Send data/standin/prompts/\*\.jsonl .*answers/writer"):
        run(folder, settings.model_copy(update={"door": "files"}))


def test_the_judge_learns_from_the_training_part_and_never_from_the_test() -> None:
    params, table = read_params(), real()
    texts = table["text"][table["part"] == "test"].tolist()
    spoilt = table.assign(text=table["text"].where(table["part"] != "test", "another text"))
    ask, told = jury.judge(None, table, SPACE, params.tfidf, params.calibrate, seed=1)
    again, same = jury.judge(None, spoilt, SPACE, params.tfidf, params.calibrate, seed=1)
    assert told == same
    assert told["validation_macro_f1"] > 0.3
    assert (ask(texts) == again(texts)).all()


def test_only_the_bundle_that_was_named_judges_and_only_of_its_own_labels(tmp_path: Path) -> None:
    from tests import registered  # here, since it takes torch and MLflow seconds to load

    folder, own, params = tmp_path / "bundle", registered.SPACE, read_params()
    registered.release(folder, encoder="md5")
    table = pd.DataFrame({"text": registered.TEXTS, "part": np.resize(["train", "validation"], 4)})
    table[[f"label.{one}" for one in own.labels]] = registered.TRUTH.astype(float)

    def judged(digest: str, space: LabelSpace) -> tuple[filters.Judge, dict[str, object]]:
        named = Bundle(folder=str(folder), digest=digest)
        return jury.judge(named, table, space, params.tfidf, params.calibrate, seed=1)

    digest = read_json(folder / "manifest.json")["digest"]
    ask, told = judged(digest, own)
    assert told == {"family": "release", "digest": digest, "validation_macro_f1": 1.0}
    assert ask(["good night", "bad day"]).tolist() == [[True, False], [False, True]]
    with pytest.raises(Problem, match=f"digest is {digest}, not the one in generate"):
        judged("0" * 64, own)
    with pytest.raises(Problem, match="has the labels"):
        judged(digest, LabelSpace.of(own.codebook, own.labels[::-1]))
