"""Label Studio's JSON, as a second door for reviews: tasks out, annotations in.

Its formats: https://labelstud.io/guide/tasks (`data`, `predictions`) and /guide/export (`annotations`
with `completed_by`, `created_at` and `result`). JSON holds any text, so none is shown escaped or cut.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from undertone.codebook import Codebook
from undertone.errors import Problem
from undertone.files import whole
from undertone.people.review import NONE, Asked, Line

_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_FROM, _TO = "label", "text"  # the names of the choices and of the text in its labelling interface


def write(
    question: Asked,
    texts: Mapping[str, str],
    codebook: Codebook,
    path: Path,
    *,
    suggestions: Mapping[str, str] | None = None,
) -> None:
    """The tasks, and beside them as .xml the labelling interface that a project needs."""
    tasks = []
    for one in question.rows["id"]:
        task: dict[str, Any] = {"data": {"id": one, "text": texts[one], "review": question.name}}
        said = (suggestions or {}).get(one)
        if said:
            choices = {"choices": said.split("; ")}
            result = {"from_name": _FROM, "to_name": _TO, "type": "choices", "value": choices}
            task["predictions"] = [{"model_version": "suggestion", "result": [result]}]
        tasks.append(task)
    with whole(path) as beside:
        beside.write_text(json.dumps(tasks, indent=1) + "\n", "utf-8")
    names = [label.name for label in codebook.labels] + [NONE] * codebook.many
    hints = {label.name: label.definition for label in codebook.labels}
    each = "".join(
        f"  <Choice value={quoteattr(one)} hint={quoteattr(hints.get(one, ''))}/>\n" for one in names
    )
    choice = "multiple" if codebook.many else "single"
    with whole(path.with_suffix(".xml")) as beside:
        beside.write_text(
            f'<View>\n <Text name="{_TO}" value="$text"/>\n'
            f' <Choices name="{_FROM}" toName="{_TO}" choice="{choice}" required="true">\n{each}'
            " </Choices>\n</View>\n",
            "utf-8",
        )


def read(path: Path, known: Mapping[str, Asked]) -> tuple[Asked, list[Line], list[Problem]]:
    """Which question it answers, its tasks in order (their place is the row's number), and what is wrong
    with single annotations.

    A reviewer is who `completed_by` names, by e-mail address or number; `Problem` where it is no export.
    """
    try:
        tasks = json.loads(path.read_bytes())
        data = [(task["data"], task.get("annotations") or []) for task in tasks]
        named = {one["review"] for one, _ in data}
        texts = [(one["id"], one["text"]) for one, _ in data]
        sound = all(isinstance(value, str) for pair in texts for value in pair)
    except FileNotFoundError:
        raise Problem("no such file", where=str(path)) from None
    except (ValueError, TypeError, KeyError, AttributeError):
        named, sound = set(), False
    if not sound or len(named) != 1 or (name := named.pop()) not in known:
        raise Problem(
            "no export of a review's tasks",
            where=path.name,
            remedy="Export the project as JSON (not JSON-MIN), with the tasks as they were imported.",
        )
    question = known[name]
    lines, faults = [], []
    for number, (one, annotations) in enumerate(data, start=1):
        given: dict[str, tuple[str, ...]] = {}
        days: dict[str, str] = {}
        where = f"{path.name}, row {number}"
        try:
            said = list(_annotations(annotations))
        except (TypeError, KeyError, AttributeError):
            faults.append(Problem("an annotation of another form", where=where))
            said = []
        for reviewer, day, choices in said:
            if reviewer not in question.reviewers:
                told = f"a reviewer who was not asked; {', '.join(question.reviewers)} were"
                faults.append(Problem(told, where=where))
            elif not choices:
                faults.append(Problem("submitted without a choice", where=f"{where}, {reviewer}"))
            elif given.get(reviewer, choices) != choices:
                faults.append(Problem("two different answers", where=f"{where}, {reviewer}"))
            else:
                given[reviewer], days[reviewer] = choices, day
        lines.append(Line(number, one["id"], one["text"], given, days))
    return question, lines, faults


def _annotations(given: Any) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Who, on which day, and what they chose; those that were cancelled (skipped) are none."""
    for one in given:
        if one.get("was_cancelled"):
            continue
        by = one.get("completed_by")
        who = by.get("email") or by.get("id") if isinstance(by, dict) else by
        chosen = [
            str(value)
            for part in one.get("result") or []
            if part.get("type") == "choices" and part.get("from_name") == _FROM
            for value in part["value"]["choices"]
        ]
        day = str(one.get("updated_at") or one.get("created_at") or "")[:10]
        if day and not _DAY.fullmatch(day):
            raise TypeError("no date")
        yield str(who), day, tuple(sorted(chosen))
