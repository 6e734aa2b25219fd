"""Digests of a split's parts over every row, which a table written anew by another library keeps."""

import hashlib
import json
from pathlib import Path

import numpy as np

from undertone import tables
from undertone.labels import LabelSpace


def parts(comments: Path, space: LabelSpace) -> dict[str, str]:
    """Part → sha256 over all its rows, in the order of their ids' Unicode code points.

    A row is the line `["id", "text", [label, …]]` as JSON in ASCII, ended by a line feed; labels are 0
    or 1 in the order of `space`, null in a row without any. MLflow's own digest reads 10,000 rows.
    """
    table = tables.read(comments, ("id", "text", "part"))
    marks = tables.judged(table, "label", space)
    lines: dict[str, list[tuple[str, str]]] = {part: [] for part in tables.PARTS}
    for id_, text, part, row in zip(table["id"], table["text"], table["part"], marks, strict=True):
        if part not in lines:
            continue
        labels = [None if np.isnan(one) else int(one) for one in row]
        lines[part].append((id_, json.dumps([id_, text, labels]) + "\n"))
    return {
        part: hashlib.sha256("".join(line for _, line in sorted(rows)).encode()).hexdigest()
        for part, rows in lines.items()
    }
