"""The page shows the numbers of the JSON files, and the README the stand-in's."""

import dataclasses
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stages import plot
from stages import report as report_stage
from tests import outcomes
from undertone.corpus.ledger import STAGES, Ledger
from undertone.deployment import latency
from undertone.files import write_json
from undertone.labels import LabelSpace
from undertone.measures import evaluation, exact, metrics
from undertone.params import read_params
from undertone.records import runs
from undertone.records.journal import Record
from undertone.records.provenance import COMMIT
from undertone.reporting import pictures, report

SPACE = LabelSpace.of("c", ["a", "b"])


def table(rows: int = 60) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, rows)
    gold = np.where(np.arange(rows) % 3 == 0, 1 - label, np.nan)  # gold says the contrary
    return pd.DataFrame(
        {
            "id": [f"{at:03d}" for at in range(rows)],
            "group": ["" if at % 5 else "x" for at in range(rows)],
            "part": np.resize(["train", "validation", "test"], rows),
            "label.a": label == 0,
            "label.b": label == 1,
            "gold.a": np.where(np.isnan(gold), np.nan, gold == 0),
            "gold.b": np.where(np.isnan(gold), np.nan, gold == 1),
        }
    ).astype({f"{reference}.{label}": float for reference in ("label", "gold") for label in "ab"})


def scores(rows: pd.DataFrame, *, right: float) -> pd.DataFrame:
    a = np.where(rows["label.a"] == 1, right, 1 - right)
    return pd.DataFrame({"id": rows["id"], "a": a, "b": 1 - a})


def board(evaluated: dict, **chosen: str) -> str:
    """The leaderboard of candidates that weren't compared."""
    selection = {"metric": "macro_f1", "part": "validation", "why": "so", "encoder_why": "so", **chosen}
    cost = {"words": 12, "candidates": {"good": {"ms": 1.23, "bytes": 1}}}
    return report.leaderboard(evaluated, {"test": {"label": []}}, selection, cost)


def cells(table: str) -> tuple[list[str], list[list[str]]]:
    head, _, *lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    assert {len(line) for line in lines} == {len(head)}
    return head, lines


def test_rows_below_the_majority_are_marked() -> None:
    rows = table()
    judges = {
        "good": (SPACE, scores(rows[::-1], right=0.9)),  # another order of rows
        "bad": (SPACE, scores(rows, right=0.1)),
    }
    found = evaluation.evaluate_all(rows, judges, SPACE, draws=100, seed=0)
    shown = board(found, champion="good", encoder="good").splitlines()
    assert shown[2].startswith("| **good** | champion, encoder | 1.000† | 1.000† |")
    assert shown[2].endswith("| 1.2 |")
    assert [line for line in shown if "(below majority)" in line] == [
        line for line in shown if line.startswith(("| bad |", "| stratified |"))
    ]


def test_the_verdict_is_the_rows_against_the_champion() -> None:
    found = outcomes.results()
    pairs = {tuple(one["between"]): one["verdict"] for one in found.compared["test"]["label"]}
    assert pairs["good", "fair"] == "better"
    selection = found.selection | {"champion": "fair"}  # one that some are better than
    shown = report.leaderboard(found.evaluated, found.compared, selection, found.cost)
    head, lines = cells(shown.split("\n\n")[0])
    at = head.index("verdict")
    assert {line[0].strip("*"): line[at] for line in lines} == {
        "good": "better",
        "fair": "",
        "mute": {"better": "worse"}.get(pairs["fair", "mute"], pairs["fair", "mute"]),
        "majority": "worse",
        "stratified": "",  # nobody is compared with it
    }


def test_the_board_says_why_the_champion_is() -> None:
    found = outcomes.results()
    shown = report.leaderboard(found.evaluated, found.compared, found.selection, found.cost)
    assert f"Champion **good**: {found.selection['why']}." in shown
    assert "Chosen on validation by macro-F1" in shown


def test_folds_stand_in_validations_place_where_they_decided() -> None:
    found = outcomes.results().evaluated
    found["folds"] = found.pop("validation")
    shown = board(found, champion="good", encoder="good", part="folds")
    assert "macro-F1, folds (n=120)" in shown
    assert "Chosen on folds by" in shown


def test_teachers_are_compared_with_people_only_and_stand_last_on_the_board() -> None:
    rows = table()
    rows.loc[rows["part"] == "test", ["gold.a", "gold.b"]] = [[0.0, 1.0]]
    rows["silver.a"], rows["silver.b"] = rows["gold.b"].fillna(0.5), rows["gold.a"].fillna(0.5)
    judges = {"good": (SPACE, scores(rows, right=0.9))}
    found = evaluation.evaluate_all(rows, judges, SPACE, draws=100, seed=0)
    assert "teachers" not in found["test"]["label"]
    assert found["test"]["gold"]["teachers"]["overall"]["accuracy"]["value"] == 0
    shown = board(found, champion="good", encoder="good").split("\n\n")[0]
    assert shown.splitlines()[-1] == "| teachers |  |  |  |  |  | 0.000† |  |"


def test_voters_are_shown_with_outcomes_agreement_and_what_people_think_of_them() -> None:
    figure = {"value": 0.5, "low": 0.4, "high": 0.6}
    nothing = {"value": None, "low": None, "high": None}
    overall = {"accuracy": figure, "macro_f1": figure}
    voter = {
        "voter": "v",
        "model": "m",
        "prompt": "p",
        "definitions": False,
        "prompt_sha256": "abcdef0123",
        "rows": 9,
    }
    pair = {"between": ["v", "ann"], "n": 3, "raw": figure, "kappa": nothing, "alpha": figure}
    fused = {
        "method": "dawid_skene",
        "many": False,
        "teachers": {"v": {"accuracy": nothing}},
        "gold": {"v": {"overall": overall, "n": 3}, "silver": {"overall": overall, "n": 3}},
        "agreement": {"alpha": figure, "pairs": [pair]},
    }
    one, other = {"overall": overall, "n": 7}, {"overall": overall, "n": 3}
    learnt = {"test": {"label": {"bert": one}, "gold": {"teachers": other, "bert": other}}}
    collected = {"voters": {"v": {"ok": 8, "out_of_schema": 1}}, "unknown_ids": 2}
    sections = report._silver({"voters": [voter]}, collected, fused, learnt, "bert")
    page = "\n".join(block for section in sections for block in section.blocks)
    assert "| v | m | p without definitions | `abcdef01` | 9 | 8 | 1 |" in page
    assert "| v |  | 0.500 [0.400, 0.600] | 0.500 [0.400, 0.600] | 3 |" in page
    assert "| v and ann | 3 | 0.500 [0.400, 0.600] |  | 0.500 [0.400, 0.600] |" in page
    assert "bert agrees with its teachers in 0.500 [0.400, 0.600] of 7 comments" in page
    assert "People agree with the teachers in 0.500 [0.400, 0.600] of 3" in page
    assert "unknown ids: 2" in page


def test_generated_texts_are_shown_by_label_and_reason_where_any_were_asked_for() -> None:
    found = outcomes.results()
    assert "generated" not in report.page(found)
    rate = {"value": 0.5, "low": 0.25, "high": 0.75}
    one = {
        "asked": 4,
        "accepted": 2,
        "rate": rate,
        "unread": {"missing": 0, "too_few": 1},
        "rejected": {"another label": 1, "quotes a parent": 0},
    }
    both = {
        **one,
        "labels": {"calm": one, "wry": one},
        "model": "m",
        "parents": 7,
        "requests": 3,
        "judge": {"family": "tfidf", "validation_macro_f1": 0.5},
    }
    page = report.page(replace(found, generated=both))
    assert "## augment: generated texts" in page
    assert "| generated texts | calm | wry | all |" in page
    assert "| another label | 1 | 1 | 1 |" in page
    assert "| too few | 1 | 1 | 1 |" in page
    assert "| of those asked | 0.500 [0.250, 0.750] |" in page
    assert "quotes a parent" not in page
    assert "a TF-IDF model of the training part, macro-F1 0.500 on validation" in page


def with_a_silent_candidate(*, many: bool = False) -> dict:
    """What comes out where the better candidate gives no valid answer to every fifth text."""
    space = LabelSpace.of("c", ["a", "b"], many=many)
    rows = table(300)
    rows[["gold.a", "gold.b"]] = rows[["label.a", "label.b"]].to_numpy()
    silent = scores(rows, right=0.9)
    silent.loc[rows.index % 5 == 0, ["a", "b"]] = np.nan
    judges = {"silent": (space, silent), "bad": (space, scores(rows, right=0.1))}
    return evaluation.evaluate_all(rows, judges, space, draws=100, seed=0)


def test_an_invalid_answer_is_wrong_and_the_valid_ones_are_counted() -> None:
    found = with_a_silent_candidate()["test"]["label"]
    assert found["silent"]["valid"]["n"] == 80
    assert found["silent"]["overall"]["accuracy"]["value"] == 0.8
    assert found["silent"]["valid_accuracy"]["value"] == 1
    for name in ("majority", "bad"):
        assert found[name]["valid"]["n"] == found[name]["n"] == 100


def test_the_board_shows_valid_answers_where_some_are_missing() -> None:
    found = with_a_silent_candidate()
    shown, _, said = board(found, champion="silent", encoder="bad").split("\n\n")
    assert said == report.UNANSWERED
    head, lines = cells(shown)
    by_name = {line[0]: dict(zip(head, line, strict=True)) for line in lines}
    accuracy = found["test"]["label"]["silent"]["overall"]["accuracy"]
    told = f"0.800 [{accuracy['low']:.3f}, {accuracy['high']:.3f}]"
    assert by_name["**silent**"]["accuracy, test"] == told
    assert by_name["**silent**"]["valid answers, test"] == "80 (80.0%)"
    groups = found["test"]["label"]["silent"]["groups"]
    assert by_name["**silent**"]["their accuracy"].startswith("1.000 [0.9")
    assert groups > 60
    assert by_name["majority"]["valid answers, test"] == "100 (100.0%)"


def test_the_board_says_nothing_of_valid_answers_where_all_are() -> None:
    found = with_a_silent_candidate()
    for part in found.values():
        for candidates in part.values():
            del candidates["silent"]
    assert "valid answers" not in board(found, champion="bad", encoder="bad")


def test_teachers_stand_in_the_column_of_gold_also_beside_valid_answers() -> None:
    found = with_a_silent_candidate()
    found["test"]["gold"]["teachers"] = found["test"]["gold"]["majority"]
    head, lines = cells(board(found, champion="silent", encoder="bad").split("\n\n")[0])
    assert [cell for cell in lines[-1] if cell] == [
        "teachers",
        lines[-1][next(at for at, name in enumerate(head) if "gold" in name)],
    ]


def test_the_page_shows_which_labels_got_no_valid_answer() -> None:
    one = with_a_silent_candidate()["test"]["label"]
    blocks = report._by_label(one, "silent", "x", "label").blocks
    of, confusion = (blocks[at].splitlines() for at in (0, 2))
    assert of[0] == "| label | rows | precision | recall | F1 | accuracy |"
    assert confusion[0] == "|  | a | b | no valid answer |"
    for label, line in zip("ab", confusion[2:], strict=True):
        counts = [int(cell) for cell in line.split("|")[2:-1]]
        assert sum(counts) == one["silent"]["labels"][label]["support"]
        assert counts[-1] > 0
    assert "no valid answer" not in "".join(report._by_label(one, "bad", "x", "label").blocks)
    many = with_a_silent_candidate(many=True)["test"]["label"]
    shown = report._by_label(many, "silent", "x", "label").blocks[0]
    assert shown.startswith("| label | rows | no valid answer | precision | recall | F1 | accuracy |")
    a = table(300)["label.a"].astype(int)
    assert f"| a | {a[2::3].sum()} | {a[5::15].sum()} | 1.000" in shown


def test_the_champions_labels_and_averages_have_intervals() -> None:
    found = outcomes.results()
    own = found.evaluated["test"]["label"]["fair"]
    _, lines = cells(report._by_label({"fair": own}, "fair", "x", "label").blocks[0])
    assert [line[0] for line in lines] == [*own["labels"], "macro average", "weighted average"]
    names = ("precision", "recall", "f1")
    assert lines[-2][2:5] == [metrics.told(own["overall"][f"macro_{name}"]) for name in names]
    assert all("[" in cell for line in lines for cell in line[2:5])


def test_a_number_without_an_interval_is_marked_and_the_mark_told_below_it() -> None:
    page = report.page(outcomes.results())
    marked = [part for part in page.split("\n## ") if "†" in part]
    assert marked
    assert all(part.count(exact.MARKED) == 1 for part in marked)
    assert not re.search(r"([-+]?\d\.\d{3}) \[\1, \1\]", page)


def test_the_first_line_says_source_data_run_and_machine() -> None:
    found = outcomes.results()
    assert report.page(found).split("\n\n")[1] == (
        "Source: somewhere; data: split.parquet, md5 `01234567`; newest run behind a model on it: good"
        " of 2026-01-02, commit `abcdef01` and changes that were not committed; latencies: of p,"
        " 2 threads, s, and of no other machine."
    )
    assert "no run behind its models" in report.page(replace(found, newest={}))


def test_the_newest_run_is_of_those_that_made_the_models_and_a_repeated_one_changes_nothing() -> None:
    def record(run: str, end: int, digest: str) -> Record:
        tags = {"model.md5": digest, COMMIT: f"{run}{'0' * 39}", "git.dirty": "false"}
        return Record(
            id=run, experiment="x", name=run, start=0, end=end, status="FINISHED", params={}, tags=tags,
            data={}, points=(),
        )  # fmt: skip

    day = 86_400_000
    known = [record("a", day, "one"), record("b", 2 * day, "two"), record("c", 3 * day, "one")]
    known += [record("d", 4 * day, "another")]
    ledger = runs.Ledger({one.id: one for one in known})
    assert report.newest_run(ledger, ["one", "two"]) == {
        "name": "b", "commit": "b0000000", "date": "1970-01-03", "dirty": "false",
    }  # fmt: skip
    assert report.newest_run(ledger, ["one"])["name"] == "a"
    assert report.newest_run(ledger, ["unknown"]) == {}


def test_what_people_label_next_is_shown_with_how_it_was_found() -> None:
    found = outcomes.results()
    (section,) = [one for one in report.page(found).split("\n## ") if one.startswith("search\n")]
    assert "1 row in the pool that nobody has looked at; 0 by chance." in section
    assert "| wry | 3 | 12 | 1 | 1 | 0.100, 0.100, 0.100 | -0.100, 0.200, 0.300 |" in section
    nothing = {**outcomes.SEARCHED, "labels": {}}
    assert "no label is looked for" in report.page(replace(found, searched=nothing))


def test_figures_that_need_scores_are_shown_of_those_who_have_them() -> None:
    found = outcomes.results().evaluated["test"]
    _, lines = cells(report._probabilities(found))
    assert [line[:2] for line in lines] == [
        [name, against] for against in ("labels", "gold") for name in ("good", "fair", "mute")
    ]
    assert lines[0][3] == metrics.told(found["label"]["good"]["overall"]["brier_score"])


def test_a_slice_that_differs_is_marked_with_the_direction() -> None:
    one = dict(outcomes.results().slices["fair"]["meta.site"]["left"])
    marks = []
    for value, significant in ((-0.1, True), (0.1, True), (0.1, False)):
        difference = {"value": value, "low": value, "high": value}
        found = {
            "c": {"s": one | {"difference": difference, "significant": significant, "p_holm": 0.01}}
        }
        marks.append(cells(report._slices(found))[1][0][-1])
    assert marks == ["**lower**", "**higher**", ""]
    alone = one | {"difference": {"value": None, "low": None, "high": None}, "p_holm": None}
    assert cells(report._slices({"c": {"s": alone | {"significant": None}}}))[1][0][-2:] == ["", ""]


def test_every_section_links_to_files_and_stages_that_exist() -> None:
    page = report.page(outcomes.results())
    links = set(re.findall(r"\]\(([^)]+)\)", page))
    stages = {link for link in links if link.endswith(".py")}
    assert len(stages) > 5
    here = Path(__file__).parents[1] / "reports" / "somewhere"
    assert all((here / link).resolve().is_file() for link in stages)
    functions = re.findall(r"made by \[[\w.]*?(\w+)\]\(([^)#]+)#L(\d+)\)", page)
    assert len({name for name, _, _ in functions}) > 8
    for name, file, line in functions:
        (text,) = (here / file).resolve().read_text("utf-8").splitlines()[int(line) - 1 : int(line)]
        assert re.match(rf"(def|class) {name}\b", text)
    for name in (
        *("evaluation", "comparisons", "slices", "split", "prevalence", "review", "latency", "cost"),
    ):
        assert f"{name}.json" in links
    for section in page.split("\n## ")[1:-1]:
        assert "\nFrom [" in section


def test_every_key_beside_a_file_is_in_it() -> None:
    found, checked = outcomes.results(), 0
    files = {
        "evaluation": found.evaluated, "comparisons": found.compared, "curves": found.curves,
        "slices": found.slices, "selection": found.selection, "cost": found.cost,
        "prevalence": found.prevalence, "review": found.reviewed, "search": found.searched,
        "split": found.split, "latency": found.latency, "release": found.released,
    }  # fmt: skip
    for name, key in re.findall(r"\[(\w+)\.json\]\(\w+\.json\) at `([^`]+)`", report.page(found)):
        place = files[name]
        for part in key.split("."):
            place = place[part]
        checked += 1
    assert checked > 15


def test_only_what_differs_is_told_as_changed() -> None:
    now = outcomes.results().evaluated
    assert report.changes({}, now) == report.OLDER
    assert report.changes(now, now) == report.SAME
    before = json.loads(json.dumps(now))
    before["test"]["label"]["fair"]["overall"]["accuracy"] = {"value": 0.5, "low": 0.4, "high": 0.6}
    del before["test"]["label"]["mute"]
    _, lines = cells(report.changes(before, now))
    accuracy = metrics.told(now["test"]["label"]["fair"]["overall"]["accuracy"])
    assert lines[0] == [
        "fair",
        "test, labels",
        "accuracy",
        "0.500 [0.400, 0.600] (n=120)",
        f"{accuracy} (n=120)",
    ]
    assert [line[:4] for line in lines[1:]] == [
        ["mute", "test, labels", figure, ""] for figure in ("macro-F1", "accuracy")
    ]


class Page(HTMLParser):
    """What a browser would fetch, run and show; every element that is opened is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.tags: list[str] = []
        self.folded: list[str] = []  # pictures' captions within <details>
        self.captions: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [value or "" for name, value in attrs if name in ("src", "srcset", "data")]
        if tag not in ("meta", "img", "br", "hr"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "figcaption":
            (self.folded if "details" in self._open else self.captions).append(data)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, str]]:
    """The HTML page, and its pictures' sentences."""
    found, folder = outcomes.results(), tmp_path_factory.mktemp("pictures")
    said = pictures.draw_all(
        evaluated=found.evaluated,
        curves=found.curves,
        learning={"good": outcomes.LEARNT},
        latency=found.latency,
        released=found.released,
        split=found.split,
        prevalence=found.prevalence,
        folder=folder,
    )
    return report.html(found, folder, {}), said


def test_the_html_page_needs_no_other_file_and_no_script(whole: tuple[str, dict[str, str]]) -> None:
    text, said = whole
    page = Page(text)
    assert len(page.fetched) == len(said)
    assert all(one.startswith("data:image/svg+xml;base64,") for one in page.fetched)
    assert not {"script", "link", "iframe", "object", "embed"} & set(page.tags)
    assert "@import" not in text
    assert "url(" not in text


def test_every_picture_has_its_sentence_and_the_others_are_folded(
    whole: tuple[str, dict[str, str]],
) -> None:
    text, said = whole
    page = Page(text)
    others = {path for path in said if path.startswith(("fair/", "mute/"))}
    assert sorted(page.folded) == sorted(said[path] for path in others)
    assert sorted(page.captions) == sorted(said[path] for path in said if path not in others)


def test_both_pages_have_the_same_tables(whole: tuple[str, dict[str, str]]) -> None:
    lines = report.page(outcomes.results()).splitlines()
    tables = sum(line.startswith("| ---") for line in lines)
    assert tables > 8
    assert whole[0].count("<table>") == tables
    headings = [line[3:] for line in lines if line.startswith("## ")]
    titles = re.sub("<(/?)summary>", r"<\1h2>", whole[0])  # of what the reader opens first
    positions = [titles.index(f"<h2>{heading}</h2>") for heading in headings]
    assert positions == sorted(positions)
    assert titles.index("<table>") < titles.index("What changed since") < positions[0]


def test_an_interval_stays_on_one_line(whole: tuple[str, dict[str, str]]) -> None:
    cells = re.findall(r"<td>([^<]*\[.*?\][^<]*)</td>", whole[0])
    assert len(cells) > 50
    assert [
        cell for cell in cells if not re.search(r"\[[-+]?[\d.]+%?,\u00a0[-+]?[\d.]+%?\]", cell)
    ] == []


def test_no_text_of_a_comment_is_on_a_page(whole: tuple[str, dict[str, str]]) -> None:
    assert outcomes.SECRET not in whole[0]
    assert outcomes.SECRET not in report.page(outcomes.results())


def test_mixes_are_shown_with_what_they_are_worth_and_pseudo_labels_with_how_often_they_are_right() -> (
    None
):
    found = outcomes.results()
    mixes = evaluation.kept(found.compared, {"fair": "good", "mute": "good"}, "macro_f1")
    rows = {"gold": {"rows": 40, "weight": 40.0}, "pseudo": {"rows": 412, "weight": 206.0}}
    figure = {"value": 0.9, "low": 0.8, "high": 0.95, "n": 30, "of": 50}
    labels = {"calm": {"accepted": 400, "rejected": 9}, "wry": {"accepted": 12, "rejected": 1_000}}
    shown = report.page(
        dataclasses.replace(
            found,
            mixes={**outcomes.MIXES, "fair": {**outcomes.MIXES["fair"], "name": "wide", "rows": rows}},
            selection=found.selection | {"mixes": mixes},
            pseudo={
                "candidates": ["x", "y"], "combine": "mean", "threshold": 0.9, "pool": 2_000,
                "left_out": {"near": 70}, "accepted": 412, "disagreed": 588, "in_doubt": 1_000,
                "labels": labels, "accuracy": {"label": figure, "gold": None, "pool_gold": None},
            },
        )
    )  # fmt: skip
    (table,) = re.findall(r"## compose: mixes\n\n.*?\n\n(\|.*?)\n\n", shown, re.DOTALL)
    head, lines = cells(table)
    assert [line[:3] for line in lines] == [
        ["good", "own", "table 120"],
        ["fair", "wide", "gold 40, pseudo 412 × 0.5"],
        ["mute", "own", "table 120"],
    ]
    gold = found.evaluated["validation"]["gold"]
    assert head[3] == f"macro-F1, validation, gold (n={gold['majority']['n']:,})"
    assert [line[3] for line in lines] == [
        exact.told(gold[name]["overall"]["macro_f1"]) for name in outcomes.MIXES
    ]
    assert [line[-1] for line in lines] == ["", "not kept", "not kept"]
    assert lines[1][-3].startswith(f"{mixes['fair']['difference']['value']:+.3f} [")
    assert (
        "2,000 comments without a label (beside 70 that are too near validation or test): 412" in shown
    )
    assert "right in 0.900 [0.800, 0.950] of 30 accepted of 50 rows by validation's labels." in shown
    assert "| wry | 12 | 1,000 |" in shown


def test_what_label_noise_costs_is_told_and_that_no_way_gives_back_half_of_it() -> None:
    def at(rate: float, **values: float) -> dict:
        figures = {way: {"value": one, "low": one, "high": one} for way, one in values.items()}
        lost = values["clean"] - values["noisy"]
        back = {
            way: dict.fromkeys(("value", "low", "high"), (values[way] - values["noisy"]) / lost)
            for way in ("drop", "weigh", "oracle")
            if lost
        }
        return {"rate": rate, "n": 40, "macro_f1": figures, "recovered": back}

    planted = [
        at(0.0, clean=0.8, noisy=0.8, drop=0.7, weigh=0.8, oracle=0.8),
        at(0.1, clean=0.8, noisy=0.7, drop=0.69, weigh=0.76, oracle=0.8),
        at(0.3, clean=0.8, noisy=0.6, drop=0.64, weigh=0.68, oracle=0.8),
    ]
    found = outcomes.results()
    own = {**found.doubt, "planted": planted}
    (section,) = re.findall(
        r"## doubt: label noise\n\n(.*?)\n\nFrom",
        report.page(dataclasses.replace(found, doubt=own)),
        re.DOTALL,
    )
    head, lines = cells(re.findall(r"(\|.*\|)", section, re.DOTALL)[0])
    assert head[:6] == ["flipped", "clean", "noisy", "`drop`", "gives back", "`weigh`"]
    assert [line[0] for line in lines] == ["0%", "10%", "30%"]
    assert lines[0][4] == ""
    assert lines[2][6].startswith("0.400")
    assert "comes back with `drop` at none of these rates; `weigh` at 10%." in section
    assert "No candidate's mix doubts labels." in section
    doubting = {**outcomes.MIXES["good"], "weights": {"table": 1.0, "noise": "weigh"}}
    shown = report.page(dataclasses.replace(found, doubt=own, mixes={"good": doubting}))
    assert "Labels are doubted for good (`weigh`)." in shown
    assert "doubt: label noise" not in report.page(found)


def test_a_mix_that_nobody_could_judge_is_told_from_one_that_is_not_better() -> None:
    found = outcomes.results()
    mixes = evaluation.kept({"validation": {}}, {"fair": "good"}, "macro_f1")
    shown = report.page(dataclasses.replace(found, selection=found.selection | {"mixes": mixes}))
    assert "| not kept: validation has no people's labels to judge it by |" in shown


def test_the_stages_write_what_they_read_as_both_pages(tmp_path: Path) -> None:
    found, at, params = outcomes.results(), tmp_path / "reports", read_params()
    for name, content in {
        "asked": found.asked, "collected": {}, "fused": {}, "split": found.split,
        "generated": found.generated, "evaluated": found.evaluated, "comparisons": found.compared,
        "curves": found.curves,
        "slices": found.slices, "selection": found.selection, "cost": found.cost,
        "prevalence": {}, "reviewed": found.reviewed, "latency": found.latency,
        "released": found.released, "release/manifest": found.manifest, "searched": found.searched,
    }.items():  # fmt: skip
        write_json(at / f"{name}.json", content)
    for name, content in [*found.mixes.items(), ("gone", {"name": "own", "rows": {}})]:
        write_json(at / "mixes" / f"{name}.json", content)
    write_json(at / "pseudo.json", {})
    write_json(at / "doubt.json", found.doubt)
    (at / "learning").mkdir()
    (at / "learning" / "good.json").write_text(json.dumps(outcomes.LEARNT), "utf-8")
    for stage in STAGES:
        Ledger(stage, 360, 360).save(at / "rows" / f"{stage}.json")

    def files(*names: str) -> dict[str, Path]:
        return {name: at / f"{name}.json" for name in names}

    told = plot.main(
        params,
        **files("evaluated", "curves", "latency", "released", "split", "prevalence"),
        learning=at / "learning",
        out=at / "pictures",
    )
    said = json.loads((at / "pictures" / "sentences.json").read_text("utf-8"))
    assert told.startswith(f"{len(said)} pictures")
    assert "good/learning.svg" in said
    assert "prevalence.svg" not in said
    report_stage.main(
        params,
        source="somewhere",
        ledgers=at / "rows",
        **files(
            "asked", "collected", "fused", "split", "generated", "evaluated", "comparisons", "curves"
        ),
        **files("slices", "selection", "cost", "prevalence", "reviewed", "latency", "released"),
        release=at / "release",
        mixes=at / "mixes",
        pseudo=at / "pseudo.json",
        doubt=at / "doubt.json",
        searched=at / "searched.json",
        trained=at / "trained",
        ledger=at / "runs.jsonl",
        pictures=at / "pictures",
        out=at / "report.md",
        page=at / "report.html",
    )
    written = (at / "report.md").read_text("utf-8")
    assert written.startswith("# moods on somewhere\n")
    assert "## prevalence" not in written
    assert "](report.html)" in written
    assert "no run behind its models is in reports/runs.jsonl yet" in written
    assert 'href="report.html"' not in (at / "report.html").read_text("utf-8")
    shown = Page((at / "report.html").read_text("utf-8"))
    assert sorted(shown.captions + shown.folded) == sorted(said.values())


def test_reviews_are_shown_with_their_counts_and_agreement_and_only_where_there_are_any() -> None:
    found = outcomes.results()
    (section,) = [one for one in report.page(found).split("\n## ") if one.startswith("review\n")]
    assert "Rows asked about: 60; reviewed 57, not yet 1, gone or with another text by now 2." in section
    assert "| low confidence | 20 | 20 | 19 |" in section
    assert "Krippendorff's alpha over all reviewers: 0.800 [0.700, 0.900]." in section
    assert "\n## review\n" not in report.page(replace(found, reviewed={}))


def test_names_are_escaped_in_html() -> None:
    figure = report._figure(Path(__file__), 'a "<b>" & c')
    assert "<b>" not in figure
    assert "&lt;b&gt;" in figure


def test_the_summary_has_the_share_of_valid_answers_only_of_those_who_gave_invalid_ones() -> None:
    found = with_a_silent_candidate()
    told = evaluation.summary(found)
    assert told["silent"]["test_valid"] == 0.8
    assert {name for name in told["silent"] if name.endswith("valid")} == {
        *("validation_valid", "test_valid", "validation_gold_valid", "test_gold_valid"),
    }
    assert not [name for one in ("bad", "majority") for name in told[one] if "valid" in name.split("_")]
    assert evaluation.told(found).startswith("macro-F1 on 100 test rows: majority 0.3")
    f1 = found["test"]["label"]["silent"]["overall"]["macro_f1"]
    assert f"silent {f1['value']:.3f} [{f1['low']:.3f}, {f1['high']:.3f}]" in evaluation.told(found)


def speeds(**others: object) -> tuple[str, dict[str, dict[str, str]]]:
    """The text on speed, and its table: model → column → cell."""
    found = outcomes.results()
    given = {
        "measured": found.latency,
        "released": found.released,
        "asked": found.asked,
        "price": found.price,
    }
    text = report.speed(**(given | others))
    head, lines = cells(text.split("\n\n")[1])
    return text, {line[0].strip("*"): dict(zip(head, line, strict=True)) for line in lines}


def test_every_candidate_and_variant_has_its_speed_memory_and_cost() -> None:
    text, table = speeds()
    assert list(table) == ["good", "fair", "mute", "onnx-int8", "onnx-fp32", "onnx-bad"]
    assert table["onnx-int8"] == {
        "model": "**onnx-int8**",
        "": "release",
        "ms a text of 12 tokens": "2.00 (24.0)",
        "ms a text of 128 tokens": "21.3 (256.0)",
        "texts/s of 128 tokens (batch)": "94 (8)",
        "EUR a million": "1.07",  # 0.36 an hour is 0.0001 a second, in which it answers 93.75
        "cold start, s": "1.2",
        "memory, MB": "4 (2)",
        "size, MB": "2",
    }
    assert "at 0.36 EUR an hour" in text
    assert "on p, 2 threads" in text
    assert "voters" not in text


def test_no_cost_is_shown_without_a_price() -> None:
    text, table = speeds(price=None)
    assert "EUR" not in text
    assert "a million" not in str(table["good"])


def test_what_voters_would_cost_stands_beside_it() -> None:
    voter = {"voter": "v", "model": "m", "rows": 2_000, "price_at_most": 0.5, "currency": "USD"}
    free = voter | {"voter": "w", "price_at_most": None, "currency": None}
    text, _ = speeds(asked={"voters": [voter, free]})
    assert text.count("A million comments would cost from the voters: v (m) at most 250.00 USD.") == 1


def test_a_percentile_of_few_calls_is_not_shown() -> None:
    found = outcomes.results().latency
    for row in found["rows"]:
        row["calls"] = {1: 19, 8: 99}[row["batch"]]
    assert speeds(measured=found)[1]["good"]["ms a text of 12 tokens"] == "8.00"
    head, lines = cells(report._latency(found))
    p95, p99 = head.index("p95 ms"), head.index("p99 ms")
    assert {(line[2], bool(line[p95]), bool(line[p99])) for line in lines} == {
        ("1", False, False),
        ("8", True, False),
    }


def test_published_times_are_told_to_be_of_other_machines() -> None:
    text, _ = speeds()
    _, lines = cells(text.split("\n\n")[-1])
    assert {line[1] for line in lines} == {"5", "56", "80", "900"}
    assert all(line[2] and line[3] for line in lines)
    assert f"{report.UNLIKE}\n\n| published |" in text
    assert "compared" in report.UNLIKE


def test_a_missed_target_is_said_on_the_page() -> None:
    found = outcomes.results()
    judged = latency.verdict(found.latency["rows"], "onnx-int8", 100.0)
    text, _ = speeds(released=found.released | {"target": judged})
    assert "Target p95 ≤ 100.0 ms at batch 1: MISSED (256.0 ms)." in text


def test_a_refused_variant_stands_beside_the_release_with_its_numbers_and_the_reason() -> None:
    found = outcomes.results()
    text = report._variants("good", found.released)
    assert "lose at most 0.01 macro-F1" in text
    _, lines = cells(text.split("\n\n")[1])
    assert [(line[0], line[-1]) for line in lines] == [
        ("**int8**", "avx2, arm64"),
        ("fp32", ""),
        ("bad", "refused: macro-F1 0.3000 is 0.6000 below"),
    ]
    assert lines[2][5:7] == ["0.3000", "-0.600 [-0.700, -0.500]"]


def test_the_readme_shows_the_standins_leaderboard_and_speeds() -> None:
    shown = report.for_readme(Path("reports/standin"), read_params().bench.price)
    readme = Path("README.md").read_text("utf-8")
    assert shown in readme, "run `make docs`"
    assert report.embed(readme, shown) == readme
