"""Several experiments' figures in one table, read from what each left in git.

DVC keeps an experiment as a commit under refs/exps/<its baseline, cut in two>/<its name>.
"""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from undertone.errors import Problem
from undertone.files import root
from undertone.measures import metrics
from undertone.records.provenance import git

WORKSPACE = "workspace"
PARAMS = "params.yaml"
COLUMNS = (
    *("candidate", "experiment", "n", "macro-F1", "accuracy"),
    *("valid answers", "training rows", "params"),
)


RUN = re.compile(r"[0-9a-f]{32}")
VERSION = re.compile(r"models:/.+|[\w-]+/\d+|[\w-]+@[\w-]+")
_OF = re.compile(r"(?!models:).+:[\w-]+")  # EXPERIMENT:CANDIDATE


@dataclass(frozen=True)
class Experiment:
    """`commit` is empty for the workspace: what its files hold now."""

    name: str
    commit: str = ""

    def read(self, file: str, folder: Path) -> str:
        """A file's text, empty where there is none; `folder` is the repository's."""
        if self.commit:
            return git("show", f"{self.commit}:./{file}", at=folder)
        return (folder / file).read_text("utf-8") if (folder / file).is_file() else ""


@dataclass(frozen=True)
class Result:
    """What one experiment came to. `figures`: candidate → what `metrics.evaluate` returned; `params`:
    what differs from HEAD's; `learnt`: candidate → of how many rows, by origin and weight where there
    are mixes; `judged`: the same where the rows are."""

    name: str
    figures: Mapping[str, Any]
    params: Sequence[str]
    learnt: Mapping[str, str]
    judged: object

    def as_in(self, other: "Result") -> bool:
        return self.figures == other.figures and self.params == other.params

    def overall(self, candidate: str) -> object:
        return self.figures.get(candidate, {}).get("overall")


def table(
    names: Sequence[str], source: str, *, candidates: Sequence[str], part: str, reference: str
) -> str:
    """A Markdown table with a row for each candidate and experiment, and what there is to say of it.

    `names`: experiments, git revisions or `workspace`; none stands for HEAD, its experiments, oldest
    first, and the workspace where it is like none of them. No `candidates`: those whose figures differ.
    `Problem` on a name that means nothing, and on a named experiment without a result.
    """
    folder = root()
    head = git("rev-parse", "--verify", "--quiet", "HEAD", at=folder)
    if not head:
        raise Problem(
            "git has no commit here", where=str(folder), remedy="Commit, then run experiments."
        )
    baseline = Experiment("HEAD", head)
    asked = [_found(name, head, folder) for name in names]
    asked = asked or [baseline, *_based_on(head, folder), Experiment(WORKSPACE)]
    before = _settings(baseline, folder)
    results = {one.name: _result(one, source, part, reference, before, folder) for one in asked}
    shown = [one for one in results.values() if one is not None]
    without = ", ".join(name for name, one in results.items() if one is None)
    missing = f"no result of {source} on {part} against {reference}"
    if without and (names or not shown):
        there = sorted(path.parent.name for path in folder.glob("reports/*/evaluation.json"))
        known = ", ".join(there) or "no source"
        raise Problem(missing, where=without, remedy=f"The workspace has reports of {known}.")
    notes = [
        f"{source}, {part} against {reference}, with 95 % intervals; params: what differs from HEAD's"
        f" ({head[:7]})."
    ]
    if without:
        notes.append(f"Left out, {missing}: {without}.")
    if not names and shown[-1].name == WORKSPACE:
        if same := [one.name for one in shown[:-1] if one.as_in(shown[-1])]:
            notes.append(f"The workspace is as in {same[-1]}.")
            shown.pop()
    if others := _not_comparable(shown):
        notes.append(f"Not comparable, for the rows or what is true of them are others: {others}.")
    chosen = _chosen(shown, candidates)
    lines = [_line(one, name) for name in chosen for one in shown if name in one.figures]
    return "\n\n".join([_aligned([COLUMNS, *lines]), *notes])


def judges(name: str, candidates: Collection[str]) -> bool:
    """Whether `name` is that of a judge: a candidate, `EXPERIMENT:CANDIDATE`, a registered version
    (`gender/3`, `models:/gender@champion`) or the id of an MLflow run."""
    return name in candidates or any(form.fullmatch(name) for form in (_OF, VERSION, RUN))


def commit_of(name: str, folder: Path) -> str:
    """The commit of an experiment or git revision; `Problem` where there is none."""
    return _found(name, git("rev-parse", "--verify", "--quiet", "HEAD", at=folder), folder).commit


def _based_on(head: str, folder: Path) -> list[Experiment]:
    return [one for one, baseline in _experiments(folder) if baseline == head]


def _experiments(folder: Path) -> Iterator[tuple[Experiment, str]]:
    """Each experiment, oldest first, and its baseline; DVC keeps refs of its own beside them."""
    form = "--format=%(objectname) %(refname:lstrip=2)"
    for line in git("for-each-ref", "--sort=committerdate", form, "refs/exps/", at=folder).splitlines():
        commit, _, ref = line.partition(" ")
        parts = ref.split("/")
        if len(parts) == 3 and len(parts[0] + parts[1]) == len(commit):
            yield Experiment(parts[2], commit), parts[0] + parts[1]


def _found(name: str, head: str, folder: Path) -> Experiment:
    """HEAD's experiment of this name, else the only one, else a git revision."""
    if name == WORKSPACE:
        return Experiment(WORKSPACE)
    called = [(one, baseline) for one, baseline in _experiments(folder) if one.name == name]
    called = [pair for pair in called if pair[1] == head] or called
    if len(called) > 1:
        commits = ", ".join(one.commit[:7] for one, _ in called)
        raise Problem(
            f"{len(called)} experiments are called so", where=name, remedy=f"Name one of {commits}."
        )
    if called:
        return called[0][0]
    commit = git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}", at=folder)
    if not commit:
        there = ", ".join(one.name for one in _based_on(head, folder)) or "none"
        raise Problem(
            "no such experiment or git revision", where=name, remedy=f"HEAD's experiments: {there}."
        )
    return Experiment(name, commit)


def _result(
    experiment: Experiment, source: str, part: str, reference: str, before: object, folder: Path
) -> Result | None:
    """None where the experiment has no such result."""
    evaluated, split = (
        _json(experiment, f"reports/{source}/{name}.json", folder) for name in ("evaluation", "split")
    )
    figures = evaluated.get(part, {}).get(reference, {})
    if not figures or not split:
        return None
    one = next(iter(figures.values()))
    support = tuple((label, counts["support"]) for label, counts in one["labels"].items())
    learnt = {}
    for name in figures:
        mixed = _json(experiment, f"reports/{source}/mixes/{name}.json", folder).get("rows", {})
        # one before there were mixes learnt from the training part
        learnt[name] = metrics.told_rows(mixed) or f"{split['rows']['train']:,}"
    return Result(
        experiment.name,
        figures,
        list(_differences(before, _settings(experiment, folder))),
        learnt,
        (split["test_digest"], support),
    )


def _json(experiment: Experiment, file: str, folder: Path) -> dict[str, Any]:
    text = experiment.read(file, folder)
    try:
        content: dict[str, Any] = json.loads(text or "{}")
    except ValueError:
        raise Problem("not readable as JSON", where=f"{experiment.name}: {file}") from None
    return content


def _settings(experiment: Experiment, folder: Path) -> object:
    try:
        return YAML(typ="safe", pure=True).load(experiment.read(PARAMS, folder)) or {}
    except YAMLError as error:
        what = f"not valid YAML ({type(error).__name__})"
        raise Problem(what, where=f"{experiment.name}: {PARAMS}") from None


def _differences(before: object, after: object, at: str = "") -> Iterator[str]:
    """`lora.r=16`, and `-lora.r` for what is gone, in the order of `after`."""
    if not isinstance(before, Mapping) or not isinstance(after, Mapping):
        if before != after:
            yield f"{at}={_written(after)}"
        return
    for key, value in after.items():
        place = f"{at}.{key}" if at else str(key)
        if key in before:
            yield from _differences(before[key], value, place)
        else:
            yield f"{place}={_written(value)}"
    yield from (f"-{at}.{key}" if at else f"-{key}" for key in before if key not in after)


def _written(value: object) -> str:
    if isinstance(value, str) and value and value.isprintable():
        return value
    return json.dumps(value, ensure_ascii=False, default=str)


def _chosen(results: Sequence[Result], wanted: Sequence[str]) -> list[str]:
    """Candidates in the order they come; without `wanted` those that are not the same everywhere."""
    there = {name: [one.overall(name) for one in results] for one in results for name in one.figures}
    if unknown := [name for name in wanted if name not in there]:
        raise Problem(f"no candidate '{unknown[0]}'", remedy=f"There are {', '.join(there)}.")
    differing = [name for name, found in there.items() if any(one != found[0] for one in found)]
    return list(wanted) or differing or list(there)


def _not_comparable(results: Sequence[Result]) -> str:
    """`a, b; c` where c was judged by others than a and b; empty where all were judged alike."""
    alike: dict[object, list[str]] = {}
    for one in results:
        alike.setdefault(one.judged, []).append(one.name)
    return "; ".join(", ".join(names) for names in alike.values()) if len(alike) > 1 else ""


def _line(result: Result, candidate: str) -> tuple[str, ...]:
    found = result.figures[candidate]
    return (
        candidate,
        result.name,
        f"{found['n']:,}",
        metrics.told(found["overall"]["macro_f1"]),
        metrics.told(found["overall"]["accuracy"]),
        metrics.told_valid(found),
        result.learnt[candidate],
        ", ".join(result.params),
    )


def _aligned(lines: Sequence[Iterable[str]]) -> str:
    cells = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    widths[-1] = len(cells[0][-1])  # the last column is ragged, for it can be long
    cells.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in cells
    )
