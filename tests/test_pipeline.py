"""dvc.yaml is honest: what a stage reads is what the pipeline says it reads."""

import ast
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from dvc.repo import Repo

from undertone.code import PLUMBING, reached
from undertone.params import FAMILIES

# Dependencies that no command names: for the order alone, or a base that a model's own folder names.
ORDER = {
    ("locate", "data/raw/standin"),
    ("ingest", "data/standin/located.json"),
    ("report", "reports/standin/registered.json"),  # registering writes the runs into their ledger
}
BASES = {
    "predict": ("models/bases/", "models/adapted/"),
    "prevalence": ("models/bases", "models/adapted/"),
    "cost": ("models/bases", "models/adapted/"),
    "bench": ("models/bases", "models/adapted/"),
}
CANDIDATES = ("tfidf", "e5", "bert", "setfit", "zeroshot", "lora", "tfidf_wide")


@pytest.fixture(scope="module")
def stages() -> dict[str, Any]:
    """Name (as in `train@standin-bert`) → the stage as DVC resolves it."""
    with Repo() as repo:
        return {stage.addressing: stage for stage in repo.index.stages}


def module_of(name: str) -> Path:
    return Path(f"stages/{name.partition('@')[0]}.py")


def wanted(module: Path) -> set[Path]:
    """The modules whose change must re-run the stage: for resolve also all that a family reaches,
    since it digests them for the stages that load a family by name."""
    found = {module, *reached(module)}
    if module.stem == "resolve":
        for family in Path("undertone/models").glob("*.py"):
            found |= reached(family)
    return found - PLUMBING


def test_every_stage_has_a_file_and_every_file_a_stage(stages: Mapping[str, Any]) -> None:
    files = {path for path in Path("stages").glob("*.py") if path.stem != "__init__"}
    assert len(files) >= 14
    assert {module_of(name) for name in stages} == files


def test_every_module_that_a_stage_imports_is_a_dependency(stages: Mapping[str, Any]) -> None:
    for name, stage in stages.items():
        module = module_of(name)
        deps = {Path(dep.def_path) for dep in stage.deps}
        missing = wanted(module) - deps
        # the families: resolve depends on their whole folder
        missing -= set(Path("undertone/models").rglob("*.py")) if module.stem == "resolve" else set()
        assert not missing, f"{name} imports {missing}"
        extra = {dep for dep in deps if dep.suffix == ".py"} - wanted(module)
        assert not extra, f"{name} needs no {extra}"


def test_every_path_of_a_stage_is_in_its_command(stages: Mapping[str, Any]) -> None:
    for name, stage in stages.items():
        words = stage.cmd.split()
        assert words[:3] == ["python", "-m", f"stages.{module_of(name).stem}"]
        inputs = {
            dep.def_path
            for dep in stage.deps
            if hasattr(dep, "def_path") and Path(dep.def_path).suffix != ".py"
        }
        inputs -= {path for stem, path in ORDER if stem == module_of(name).stem}
        inputs -= {"params.yaml", "undertone/models"}
        of_bases = BASES.get(module_of(name).stem)
        inputs -= {path for path in inputs if of_bases and path.startswith(of_bases)}
        for path in inputs | {out.def_path for out in stage.outs}:
            assert path in words, f"{name}: {path} is not in the command"


def test_every_parameter_that_a_stage_reads_is_declared(stages: Mapping[str, Any]) -> None:
    checked = 0
    for name, stage in stages.items():
        source = name.partition("@")[2].partition("-")[0]
        declared = {key for dep in stage.deps for key in getattr(dep, "params", ())}
        for read in parameters_read(module_of(name)):
            wanted = read.replace("[source]", f".{source}")
            ways = {wanted, *(wanted.rsplit(".", depth)[0] for depth in range(1, 4))}
            assert ways & declared, f"{name} reads params.{read}"
            checked += 1
    assert checked >= 10


def parameters_read(module: Path) -> set[str]:
    """`params.clean.similarity` → clean.similarity; `params.ingest[source]` → ingest[source]."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text("utf-8"))):
        if isinstance(node, ast.Attribute | ast.Subscript):
            text = ast.unparse(node)
            if match := re.fullmatch(r"params\.([\w.]+(\[source\])?)", text):
                found.add(match[1])
    longest = {
        one for one in found if not any(other.startswith((f"{one}.", f"{one}[")) for other in found)
    }
    # methods: resolve declares what they are made of
    return longest - {"candidates", "ensemble", "twins"}


def test_resolve_declares_every_family_section(stages: Mapping[str, Any]) -> None:
    declared = {key for dep in stages["resolve"].deps for key in getattr(dep, "params", ())}
    assert declared == {"models", "mixes", "pseudo.candidates", *FAMILIES}


def test_every_stage_says_in_one_sentence_what_it_promises(stages: Mapping[str, Any]) -> None:
    for name, stage in stages.items():
        assert stage.desc, name
        docstring = ast.get_docstring(ast.parse(module_of(name).read_text("utf-8")))
        assert docstring, name


def test_candidates_are_the_keys_of_models(stages: Mapping[str, Any]) -> None:
    # dvc.yaml hands the dictionary `models` to a matrix, which takes a list: DVC walks its keys
    trained = {name for name in stages if name.startswith("train@")}
    assert trained == {f"train@standin-{one}" for one in CANDIDATES}


def test_nothing_of_a_comment_is_kept_in_git_by_dvc(stages: Mapping[str, Any]) -> None:
    for name, stage in stages.items():
        for out in stage.outs:
            if not out.use_cache:
                assert out.def_path.startswith("reports/"), f"{name}: {out.def_path}"
                assert Path(out.def_path).suffix in {".json", ".md"}
