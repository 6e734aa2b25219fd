"""What came out, on one page: rows, leaderboard, champion, release and latency; no text of a comment."""

from pathlib import Path

from undertone import report, stage
from undertone.files import read_json, whole
from undertone.ledger import chain
from undertone.params import Params


def main(
    params: Params,
    *,
    source: str,
    ledgers: Path,
    asked: Path,
    collected: Path,
    fused: Path,
    split: Path,
    evaluated: Path,
    selection: Path,
    release: Path,
    latency: Path,
    out: Path,
) -> str:
    page = report.page(
        source=source,
        ledgers=chain(ledgers),
        asked=read_json(asked),
        collected=read_json(collected),
        fused=read_json(fused),
        split=read_json(split),
        evaluated=read_json(evaluated),
        selection=read_json(selection),
        manifest=read_json(release / "manifest.json"),
        latency=read_json(latency),
    )
    with whole(out) as beside:
        beside.write_text(page, encoding="utf-8")
    return f"{out}"


if __name__ == "__main__":
    stage.run(main)
