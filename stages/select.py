"""The champion and the best encoder, chosen on validation, the cheaper one where no difference is shown;
the encoder is copied to its own place."""

import shutil
from pathlib import Path

from undertone import stage
from undertone.files import read_json, whole, write_json
from undertone.measures import evaluation
from undertone.params import FAMILIES, Params


def main(
    params: Params,
    *,
    evaluated: Path,
    comparisons: Path,
    cost: Path,
    models: Path,
    encoder: Path,
    out: Path,
) -> str:
    exportable = [name for name, entry in params.models.items() if FAMILIES[entry["family"]].exportable]
    chosen = evaluation.select(
        read_json(evaluated),
        read_json(comparisons),
        read_json(cost)["candidates"],
        exportable,
        params.select.metric,
        {name: twin for name, twin in params.twins().items() if twin},
    )
    with whole(encoder) as folder:
        shutil.copytree(models / chosen["encoder"], folder)
    write_json(out, chosen)
    value = chosen["values"]
    return (
        f"champion {chosen['champion']} ({params.select.metric} {value[chosen['champion']]:.3f}),"
        f" encoder {chosen['encoder']} ({value[chosen['encoder']]:.3f}), on {chosen['part']};"
        f" {chosen['why']}"
    )


if __name__ == "__main__":
    stage.run(main)
