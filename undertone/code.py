"""Which of the project's own modules a file reaches, and one digest over them."""

import ast
import hashlib
from collections.abc import Iterable
from pathlib import Path

PACKAGES = ("undertone", "stages")
# A change here can't change an output, or concerns every stage alike: it re-runs nothing.
_PLUMBING = (
    "__init__ errors files params stage privacy/integrity records/journal records/provenance"
    " records/tracking tuning/launcher"
)
PLUMBING = {
    Path("stages/__init__.py"),
    *(Path(f"undertone/{name}.py") for name in _PLUMBING.split()),
}


def reached(start: Path, root: Path = Path()) -> set[Path]:
    """The project's modules that `start` imports, directly or not, wherever in the file the import
    stands; paths relative to `root`. `start` itself is left out, and so is what
    only says what its package is."""
    found: set[Path] = set()
    waiting = [start]
    while waiting:
        for path in _imported(root / waiting.pop(), root):
            if path not in found:
                found.add(path)
                waiting.append(path)
    return found - {start}


def digest(paths: Iterable[Path], root: Path = Path()) -> str:
    """A sha256 over the names and contents of source files."""
    total = hashlib.sha256()
    for path in sorted(paths):
        total.update(f"{path.as_posix()}\n".encode())
        total.update((root / path).read_bytes())
    return total.hexdigest()


def _imported(path: Path, root: Path) -> set[Path]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    found: set[Path] = set()
    for name in names:
        parts = name.split(".")
        if parts[0] not in PACKAGES:
            continue
        for depth in range(1, len(parts) + 1):
            place = Path(*parts[:depth])
            for candidate in (place.with_suffix(".py"), place / "__init__.py"):
                if (root / candidate).is_file() and not _says_only(root / candidate):
                    found.add(candidate)
    return found


def _says_only(path: Path) -> bool:
    """Whether a package's `__init__.py` holds its docstring and nothing else: no change of it counts."""
    body = ast.parse(path.read_text("utf-8")).body if path.stem == "__init__" else [None]
    return len(body) == 1 and isinstance(body[0], ast.Expr)
