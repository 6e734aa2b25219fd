"""What may be loaded: the bytes that were registered, data and no code, on the base that was tuned."""

from collections.abc import Iterator
from pathlib import Path

from undertone.errors import Problem
from undertone.files import md5, read_json, sha256

START = "start.json"  # names the base of a language model, which lies outside
DATA = {".json", ".safetensors", ".onnx", ".txt", ".jinja", ".model"}
# For a config that names it, transformers would run a folder's own code, or fetch some (CVE-2026-4372).
CODE = {"auto_map", "custom_generate", "_attn_implementation", "_attn_implementation_internal"}


def check(folder: Path, digest: str) -> None:
    """`Problem`, before anything is loaded, unless `folder` has this md5 and holds data only, and so has
    and does the base that it names."""
    if md5(folder) != digest:
        raise Problem(
            "not the bytes that were registered",
            where=str(folder),
            remedy="Delete this version in MLflow and run `dvc repro --force register`.",
        )
    _refuse_code(folder)
    if (folder / START).is_file():
        # looked for as `language.kept_start` does, which needs torch and says where there is none
        named = read_json(folder / START)["base"]
        for base in [above / named for above in folder.resolve().parents]:
            if base.is_dir():
                _refuse_code(base)
                _refuse_changed(base)


def code_in(config: Path) -> list[str]:
    """The entries of a config, at any depth, for which transformers would run code that comes along."""
    return sorted(CODE & set(_names(read_json(config))))


def _refuse_code(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or (path.is_file() and path.suffix not in DATA):
            raise Problem(
                "a link, or no kind of file that is loaded", where=str(path), remedy="Remove it."
            )
        if path.name.endswith("config.json") and (found := code_in(path)):
            raise Problem(
                f"it names code to run ({', '.join(found)}), which is never done",
                where=str(path),
                remedy="Choose another base.",
            )


def _refuse_changed(base: Path) -> None:
    """A base lies outside of what is registered; what it held stands beside it."""
    beside = [base / name for name in ("base.json", "adapted.json") if (base / name).is_file()]
    digests = {name: one for path in beside for name, one in read_json(path).get("sha256", {}).items()}
    for name, one in digests.items():
        if not (base / name).is_file() or sha256(base / name) != one:
            raise Problem(
                "not the bytes that the model was tuned on",
                where=str(base / name),
                remedy="Run `dvc checkout --force`, or `dvc pull` the bases.",
            )
    if not any(name.endswith(".safetensors") for name in digests):
        raise Problem("no digest of its weights", where=str(base), remedy="Run `dvc pull`.")


def _names(value: object) -> Iterator[str]:
    """All keys of JSON, at any depth."""
    if isinstance(value, dict):
        yield from value
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from _names(one)
