"""The OpenAI batch shape: lines of requests and of what comes back, one JSON object each.

Requests: `custom_id`, `method`, `url`, `body`. Answers and errors: `custom_id`, `response` (with
`status_code` and `body`), `error`.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from undertone.errors import Problem

URL = "/v1/chat/completions"

Record = Mapping[str, Any]


def read_folder(folder: Path) -> Iterator[tuple[str, Record]]:
    """Each line of each .jsonl file below `folder` with its `custom_id`; `Problem` on a broken one."""
    for path in sorted(folder.rglob("*.jsonl")):
        if path.is_file():
            yield from read(path)


def read(path: Path) -> Iterator[tuple[str, Record]]:
    """Each line with its `custom_id`; `Problem` with its number on one that is broken or has none."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            where = f"{path}, line {number}"
            try:
                content = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                record = json.loads(content) if content else None
            except (ValueError, RecursionError):
                raise Problem(
                    "not a line of JSON in UTF-8, perhaps the file is only half written",
                    where=where,
                    remedy="Fetch the file again, or delete the line: what it answers is then missing.",
                ) from None
            if record is None and not content:
                continue
            if not isinstance(record, dict) or not isinstance(record.get("custom_id"), str):
                raise Problem(
                    "no `custom_id`; an answer file holds what a batch service gave back",
                    where=where,
                    remedy="Take the file away if it holds something else.",
                )
            yield record["custom_id"], record


def choice(record: Record) -> Mapping[str, Any] | None:
    """The first choice of an answer, which holds a message; None where the provider gives an error."""
    response = record.get("response")
    body = response.get("body") if isinstance(response, Mapping) else None
    if record.get("error") or not isinstance(body, Mapping) or body.get("error"):
        return None
    status = response.get("status_code", 200) if isinstance(response, Mapping) else None
    choices = body.get("choices")
    if not isinstance(status, int) or status >= 400 or not isinstance(choices, list) or not choices:
        return None
    first = choices[0]
    if not isinstance(first, Mapping) or not isinstance(first.get("message"), Mapping):
        return None
    return first


def created(record: Record) -> float | None:
    """When the answer was made, in seconds since 1970, where the provider says so."""
    response = record.get("response")
    body = response.get("body") if isinstance(response, Mapping) else None
    stamp = body.get("created") if isinstance(body, Mapping) else None
    if isinstance(stamp, bool) or not isinstance(stamp, int | float) or not 0 < stamp < 2**33:
        return None
    return stamp
