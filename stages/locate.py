"""The source's files are here, or one line says whom to ask and how to run the stand-in instead."""

from pathlib import Path

from undertone import stage
from undertone.errors import Problem, counted
from undertone.files import write_json
from undertone.params import Params


def main(params: Params, *, source: str, out: Path) -> str:
    # `raw` is no argument: as a dependency DVC would refuse it, without these words, when it is missing
    raw = Path("data/raw") / source
    names = sorted(path.name for path in raw.glob("*") if not path.name.startswith("."))
    if not names:
        pointer = raw.with_name(f"{raw.name}.dvc")
        there = f"only their pointer {pointer}" if pointer.exists() else "not even a pointer to them"
        raise Problem(
            f"the files of the source '{source}' are not on this machine, {there}",
            where=str(raw),
            remedy=f"With granted access `dvc pull {raw}` (`undertone access` says what is missing);"
            f" for access ask {params.data.contact}; the stand-in runs with `-S data.source=standin`;"
            f" your own table comes in by `undertone private add FILE --source {source}`.",
        )
    for folder in (Path("data/raw") / kind / source for kind in ("answers", "reviews")):
        if not folder.is_dir():
            remedy = f"`mkdir -p {folder} && touch {folder}/.gitkeep`, and commit it."
            raise Problem("stages read it, and it isn't there", where=str(folder), remedy=remedy)
    write_json(out, {"source": source})
    return f"{counted(len(names), 'file')} of {source}"


if __name__ == "__main__":
    stage.run(main)
