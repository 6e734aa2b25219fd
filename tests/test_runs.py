import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from undertone.errors import Problem
from undertone.records import runs
from undertone.records.journal import Point, Record
from undertone.records.runs import LEDGER, Ledger, Line

CANARY = "zq48213907715kx is what somebody wrote"
RECORD = Record(
    id="a" * 32,
    name="bert",
    experiment="gender",
    start=1000,
    params={"lr": "0.1"},
    tags={"source": "standin", "model.md5": "1" * 32, "seed": "13"},
    data={"comments": "0" * 32},
    status="FINISHED",
    end=9000,
    points=(Point("loss", 0.5, 2000, 1), Point("loss", 0.25, 3000, 2), Point("f1", 0.75, 9000, 0)),
)
VERSION = Line(
    model="gender",
    number=1,
    aliases=("bert", "champion"),
    run="a" * 32,
    registered=9500,
    tags={
        "role": "candidate",
        "candidate": "bert",
        "model.md5": "1" * 32,
        "dvc.path": "models/candidates/standin/bert",
        "test_macro_f1": "0.7500",
    },
)


def ledger(*ones: Record | Line) -> Ledger:
    return Ledger(
        {one.id: one for one in ones if isinstance(one, Record)},
        {one.key: one for one in ones if isinstance(one, Line)},
    )


def test_a_ledger_is_read_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / LEDGER
    assert runs.write(file, ledger(RECORD, VERSION))
    found = runs.read(file)
    (run,) = found.runs.values()
    assert replace(run, points=()) == replace(RECORD, points=())
    assert set(run.points) == set(RECORD.points)
    assert found.versions == {VERSION.key: VERSION}
    assert not runs.write(file, found)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert lines[0]["metrics"] == {"loss": 0.25, "f1": 0.75}
    assert runs.read(tmp_path / "none.jsonl") == Ledger()


def test_a_curve_keeps_at_most_a_hundred_points_the_first_and_the_last_among_them() -> None:
    points = [Point("loss", 1 / (step + 1), 1000 + step, step) for step in range(12_345)]
    kept = runs.thinned(reversed(points))
    assert len(kept) == 100
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    steps = [point.step for point in kept]
    assert steps == sorted(set(steps))
    assert runs.thinned(points[:100]) == points[:100]


def test_numbers_that_are_none_come_back_too(tmp_path: Path) -> None:
    points = (Point("loss", math.inf, 2000, 1), Point("loss", math.nan, 3000, 2))
    runs.write(tmp_path / LEDGER, ledger(replace(RECORD, points=points)))
    (run,) = runs.read(tmp_path / LEDGER).runs.values()
    assert run.points[0].value == math.inf
    assert math.isnan(run.points[1].value)


@pytest.mark.parametrize(
    "tags",
    [
        {"comment": CANARY},
        {"mlflow.note.content": CANARY},
        {"process.host": CANARY},
        {"source": f"{CANARY}\n{CANARY}"},
        {"source": CANARY * 10},
        {CANARY: "0.5000"},
        {"data.comments\n": CANARY},
    ],
)
def test_no_text_gets_in_by_a_tag(tmp_path: Path, tags: dict[str, str]) -> None:
    for one in (replace(RECORD, tags=tags), replace(VERSION, tags={**VERSION.tags, **tags})):
        runs.write(tmp_path / LEDGER, ledger(one))
        assert CANARY[:15] not in (tmp_path / LEDGER).read_text("utf-8")


def test_joining_is_a_union_that_a_second_time_changes_nothing() -> None:
    other = replace(RECORD, id="b" * 32)
    later = replace(VERSION, number=2, tags={**VERSION.tags, "model.md5": "2" * 32})
    both = ledger(RECORD, VERSION).joined(ledger(other, later))
    assert set(both.runs) == {"a" * 32, "b" * 32}
    assert both.joined(ledger(other, later)) == both


def test_an_alias_has_one_holder_and_the_newer_word_counts() -> None:
    later = replace(
        VERSION, number=2, aliases=("champion",), tags={**VERSION.tags, "model.md5": "2" * 32}
    )
    found = ledger(VERSION).joined(ledger(later)).versions
    assert (found[VERSION.key].aliases, found[later.key].aliases) == (("bert",), ("champion",))


def test_a_version_keeps_the_number_that_it_had_first() -> None:
    elsewhere = replace(VERSION, number=7, registered=99_000, run="c" * 32)
    assert ledger(VERSION).joined(ledger(elsewhere)).versions == {VERSION.key: VERSION}
    planned = replace(VERSION, number=0, registered=0, run="")
    assert ledger(planned).joined(ledger(VERSION)).versions == {VERSION.key: VERSION}
    assert ledger(VERSION).joined(ledger(planned)).versions == {VERSION.key: VERSION}


def test_git_merges_two_ledgers_and_what_it_doubles_is_one_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*arguments: str) -> None:
        who = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
        subprocess.run(["git", *who, *arguments], check=True, capture_output=True)

    monkeypatch.chdir(tmp_path)
    attributes = (Path(__file__).parents[1] / ".gitattributes").read_text("utf-8")
    assert f"{LEDGER} merge=union" in attributes
    git("init", "--quiet", "--initial-branch", "ours")
    Path(".gitattributes").write_text(attributes)
    runs.write(LEDGER, ledger(RECORD, VERSION))
    git("add", "--all")
    git("commit", "--quiet", "--message", "start")
    for branch, letter in (("theirs", "b"), ("ours", "c")):
        git("checkout", "--quiet", *(["-b"] if branch == "theirs" else []), branch)
        newer = replace(
            VERSION,
            number=2,
            registered=10_000 + ord(letter),
            aliases=("champion",),
            tags={**VERSION.tags, "model.md5": letter * 32},
        )
        now = runs.read(LEDGER).joined(ledger(replace(RECORD, id=letter * 32), newer))
        runs.write(LEDGER, now)
        git("commit", "--quiet", "--all", "--message", branch)
    git("merge", "--quiet", "--no-edit", "theirs")
    found = runs.read(LEDGER)
    assert set(found.runs) == {"a" * 32, "b" * 32, "c" * 32}
    assert len(found.versions) == 3
    holders = [key[2][0] for key, line in found.versions.items() if "champion" in line.aliases]
    assert holders == ["c"]
    runs.write(LEDGER, found)
    assert len(LEDGER.read_text().splitlines()) == 6


@pytest.mark.parametrize(
    "line",
    [
        b"<<<<<<< HEAD",
        b'"an id"',
        b"\xff\xfe",
        b'{"id": "a", "start": 1, "curves": [], "metrics": {}}',
        b'{"model": "gender", "number": 1, "aliases": [], "run": "", "registered": 1,'
        b' "tags": {"role": "candidate", "model.md5": "1"}}',  # and no dvc.path
    ],
)
def test_a_line_that_is_none_is_named(tmp_path: Path, line: bytes) -> None:
    file = tmp_path / LEDGER
    runs.write(file, ledger(RECORD))
    file.write_bytes(file.read_bytes() + line + b"\n")
    with pytest.raises(Problem, match=r"line 2: is no run and no version\. Resolve a merge"):
        runs.read(file)


def test_two_who_write_at_once_lose_no_line(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from undertone.records import journal, runs\n"
        "for number in range(40):\n"
        "    one = journal.Record(f'{sys.argv[2]}{number}', 'n', 'e', number, {}, {}, {})\n"
        "    with runs.opened(Path(sys.argv[1])) as ledger:\n"
        "        runs.write(Path(sys.argv[1]), ledger.joined(runs.Ledger({one.id: one})))\n"
    )
    file = tmp_path / LEDGER
    both = [subprocess.Popen([sys.executable, "-c", program, str(file), name]) for name in "ab"]
    assert [one.wait(60) for one in both] == [0, 0]
    assert len(runs.read(file).runs) == 80
