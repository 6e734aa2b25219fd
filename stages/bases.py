"""The pretrained weights a candidate starts from, pinned, checked, and there for colleagues to pull."""

from pathlib import Path

from undertone import stage
from undertone.files import read_json, size, whole
from undertone.networks import bases
from undertone.params import Params


def main(params: Params, *, wanted: Path, out: Path) -> str:
    base = read_json(wanted)["base"]
    assert base is None or isinstance(base, str)
    with whole(out) as folder:
        bases.materialise(base, folder)
    return f"{base or 'none'} ({size(out) / 1e6:.0f} MB)"


if __name__ == "__main__":
    stage.run(main)
