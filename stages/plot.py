"""The results as pictures, each with one sentence computed from its numbers; no text of a comment."""

import json
from pathlib import Path

from undertone import stage
from undertone.files import read_json, whole
from undertone.params import Params
from undertone.reporting import pictures


def main(
    params: Params,
    *,
    evaluated: Path,
    curves: Path,
    learning: Path,
    latency: Path,
    released: Path,
    split: Path,
    prevalence: Path,
    out: Path,
) -> str:
    learnt = {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(learning.glob("*.json"))}
    with whole(out) as folder:
        folder.mkdir()
        drawn = pictures.draw_all(
            evaluated=read_json(evaluated),
            curves=read_json(curves),
            learning=learnt,
            latency=read_json(latency),
            released=read_json(released),
            split=read_json(split),
            prevalence=read_json(prevalence),
            folder=folder,
        )
    return f"{len(drawn)} pictures in {out}; {drawn['pareto.svg']}"


if __name__ == "__main__":
    stage.run(main)
