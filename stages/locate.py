"""The source's files are here, or one line says whom to ask and how to run the stand-in instead."""

from pathlib import Path

from undertone import stage
from undertone.errors import Problem
from undertone.files import write_json
from undertone.params import Params


def main(params: Params, *, source: str, out: Path) -> str:
    # `raw` is no argument: as a dependency DVC would refuse it, without these words, when it is missing
    raw = Path("data/raw") / source
    names = sorted(path.name for path in raw.glob("*") if not path.name.startswith("."))
    if not names:
        raise Problem(
            f"no files of the source '{source}'",
            where=str(raw),
            remedy=f"Put your table there and `dvc add {raw}`; with granted access `dvc pull {raw}`;"
            f" for access ask {params.data.contact}; the stand-in runs with `-S data.source=standin`.",
        )
    write_json(out, {"source": source})
    return f"{len(names)} files of {source}"


if __name__ == "__main__":
    stage.run(main)
