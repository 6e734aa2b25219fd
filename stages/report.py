"""What came out, on one page, as Markdown and as HTML with pictures; no text of a comment."""

import json
from pathlib import Path

from undertone import stage
from undertone.corpus.ledger import chain
from undertone.files import md5, read_json, whole
from undertone.params import Params
from undertone.records import provenance, runs
from undertone.reporting import report


def main(
    params: Params,
    *,
    source: str,
    ledgers: Path,
    asked: Path,
    collected: Path,
    fused: Path,
    split: Path,
    generated: Path,
    evaluated: Path,
    comparisons: Path,
    curves: Path,
    slices: Path,
    selection: Path,
    cost: Path,
    prevalence: Path,
    reviewed: Path,
    release: Path,
    latency: Path,
    released: Path,
    mixes: Path,
    pseudo: Path,
    doubt: Path,
    searched: Path,
    trained: Path,
    ledger: Path,
    pictures: Path,
    out: Path,
    page: Path,
) -> str:
    figures = read_json(evaluated)
    models = [trained / name for name in figures["test"]["label"]]
    learnt = {name: mixes / f"{name}.json" for name in figures["test"]["label"]}
    results = report.Results(
        source=source,
        ledgers=chain(ledgers),
        asked=read_json(asked),
        collected=read_json(collected),
        fused=read_json(fused),
        split=read_json(split),
        evaluated=figures,
        generated=read_json(generated),
        compared=read_json(comparisons),
        curves=read_json(curves),
        slices=read_json(slices),
        selection=read_json(selection),
        cost=read_json(cost),
        prevalence=read_json(prevalence),
        reviewed=read_json(reviewed),
        manifest=read_json(release / "manifest.json"),
        latency=read_json(latency),
        released=read_json(released),
        price=params.bench.price,
        # one that is no candidate any more has left its file behind
        mixes={name: read_json(file) for name, file in learnt.items() if file.is_file()},
        pseudo=read_json(pseudo),
        doubt=read_json(doubt),
        searched=read_json(searched),
        newest=report.newest_run(runs.read(ledger), [md5(one) for one in models if one.is_dir()]),
    )
    before = json.loads(provenance.git("show", f"HEAD:./{evaluated.as_posix()}") or "{}")
    with whole(out) as beside:
        beside.write_text(report.page(results), encoding="utf-8")
    with whole(page) as beside:
        beside.write_text(report.html(results, pictures, before), encoding="utf-8")
    print(report.leaderboard(results.evaluated, results.compared, results.selection, results.cost))
    return f"{out}, {page}"


if __name__ == "__main__":
    stage.run(main)
