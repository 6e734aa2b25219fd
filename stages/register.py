"""Every candidate, the champion and the release as versions of one registered model a codebook."""

from pathlib import Path

from undertone import stage
from undertone.files import read_json, write_json
from undertone.params import Params
from undertone.records import registry


def main(
    params: Params,
    *,
    source: str,
    candidates: Path,
    release: Path,
    comments: Path,
    codebook: Path,
    pictures: Path,
    selection: Path,
    released: Path,
    evaluated: Path,
    out: Path,
) -> str:
    registered = registry.register(
        source=source,
        candidates={name: candidates / name for name in params.models},
        release=release,
        comments=comments,
        codebook=codebook,
        pictures=pictures,
        selection=read_json(selection),
        target=read_json(released)["target"],
        summary=read_json(evaluated),
    )
    # version numbers belong to one registry; the same inputs must give the same output in another
    write_json(out, {key: registered[key] for key in ("model", "champion", "released")})
    return registry.told(registered)


if __name__ == "__main__":
    stage.run(main)
