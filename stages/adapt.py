"""A base that has read on in the comments that neither validation nor test holds, if that is wanted."""

import math
from pathlib import Path

from undertone import stage, tables
from undertone.files import read_json, whole, write_json
from undertone.params import Adapt, Params


def main(params: Params, *, wanted: Path, base: Path, comments: Path, split: Path, out: Path) -> str:
    content = read_json(wanted)["adapt"]
    with whole(out) as folder:
        folder.mkdir()
        if content is None:
            write_json(folder / "adapted.json", {"adapted": False})
            return "the base as it is"
        from undertone.tuning import adapt

        table = tables.read(comments, ("id", "text", "group", "part", "repeat"))
        texts = adapt.readable(table, tables.read(split, ("id", "part")), params.clean)
        settings = Adapt.model_validate(content)
        told = adapt.adapt(base, texts, settings, seed=params.seed, out=folder)
    before, after = (math.exp(told[f"loss_{when}"]) for when in ("before", "after"))
    return (
        f"{len(texts):,} texts of {len(table):,} rows, {told['steps']} steps; "
        f"perplexity {before:,.1f} → {after:,.1f} on {told['held_out']}"
    )


if __name__ == "__main__":
    stage.run(main)
