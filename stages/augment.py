"""The written texts that become training rows, and of every other one that was asked for why not."""

from pathlib import Path
from typing import Any

import numpy as np

from undertone import stage, tables
from undertone.augmentation import filters, jury, writing
from undertone.corpus import split
from undertone.files import whole, write_json
from undertone.labels import LabelSpace
from undertone.params import Params


def main(
    params: Params,
    *,
    source: str,
    labels: Path,
    pool: Path,
    comments: Path,
    requests: Path,
    answers: Path,
    out: Path,
    rejected: Path,
    counts: Path,
) -> str:
    space = LabelSpace.load(labels)
    settings = params.generate[source]
    asked = tables.read(requests / "asked.parquet", writing.ASKED, key="custom_id")
    written = writing.read(asked, answers)
    why: list[str] = []
    judged: dict[str, Any] = {}
    if settings is not None:
        table = tables.read(comments, split.NEEDS)
        real = tables.read(pool, ("id", "text"))
        ask, judged = jury.judge(
            settings.accept.judge, table, space, params.tfidf, params.calibrate, seed=params.seed
        )
        why = filters.reasons(
            written.texts, table, real, space, settings.accept, params.clean, ask, seed=settings.seed
        )
    model = settings.model if settings else ""
    found = filters.account(asked, written, why, draws=params.evaluate.draws, seed=params.seed)
    accepted = written.texts[np.array([not one for one in why], dtype=bool)]
    tables.write(filters.rows(accepted, space, model), out, ("id", "text", "parent", "origin"))
    with whole(rejected) as beside:
        filters.refused(written, why).to_parquet(beside, index=False)
    write_json(counts, {"model": model, "judge": judged, **found})
    return filters.told(found)


if __name__ == "__main__":
    stage.run(main)
