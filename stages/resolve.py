"""Each candidate's complete recipe, so that a change re-trains only the candidates it concerns."""

import shutil
from pathlib import Path

from undertone import code, stage
from undertone.errors import counted
from undertone.files import whole, write_json
from undertone.models import Recipe
from undertone.networks.bases import check_name
from undertone.params import Params

PSEUDO = "pseudo"  # no candidate is called so
COMMON = {Path("undertone/models/__init__.py")}  # what train depends on for every family


def main(params: Params, *, out: Path) -> str:
    candidates = params.candidates()
    with whole(out) as folder:
        for name, settings in candidates.items():
            if settings.base is not None:
                check_name(settings.base)
            family = Path(f"undertone/models/{settings.family}.py")
            reached = code.reached(family) - COMMON - code.PLUMBING
            write_json(folder / name / "base.json", {"base": settings.base})
            adapt = settings.adapt.model_dump() if settings.adapt else None
            write_json(folder / name / "adapt.json", {"adapt": adapt})
            mix = params.mixes[settings.mix].model_dump()
            write_json(folder / name / "mix.json", {"name": settings.mix, "weights": mix})
            Recipe(name, settings, code.digest({family, *reached})).save(folder / name / "recipe.json")
        # what labels the pool, in a place of its own: another candidate's change is none of it
        write_json(folder / PSEUDO / "candidates.json", {"candidates": params.ensemble()})
        for name in params.ensemble():
            shutil.copytree(folder / name, folder / PSEUDO / name)
    absent = [name for name in params.pseudo.candidates if name not in candidates]
    nobody = f"; no pseudo-labels, as models has no {absent[0]}" if absent else ""
    return f"{counted(len(candidates), 'candidate')}: {', '.join(candidates)}{nobody}"


if __name__ == "__main__":
    stage.run(main)
