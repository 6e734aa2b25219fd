"""What may not go into git: private data, workbooks under any name, model weights, large files.

`python -m undertone.guard` looks at what is staged (the pre-commit hook), with `--tracked` at all that
git tracks. It names files, never what stands in them. Standard library only, so that it runs anywhere.
"""

import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

LIMIT = 1_000_000  # bytes; the largest source file here is far below
_PRIVATE = ("data", "models", "mlartifacts")
_SUFFIXES = {
    *(".xlsx", ".xlsm", ".xls", ".ods", ".csv", ".tsv", ".jsonl", ".parquet", ".feather", ".db"),
    *(".safetensors", ".onnx", ".bin", ".pt", ".pkl", ".joblib", ".npy", ".npz"),
}
# A file keeps its first bytes when it is renamed.
_MAGIC = {
    b"PK\x03\x04": "a zip archive or workbook",
    b"\xd0\xcf\x11\xe0": "an old or encrypted Office file",
    b"PAR1": "a parquet table",
    b"ARROW1": "an Arrow table",
    b"SQLite format 3\0": "a database",
    b"\x1f\x8b": "a gzip archive",
    b"\x80\x04\x95": "a pickle",
    b"UEsDB": "a workbook in base64",
}


def fault(path: str, size: int, head: bytes) -> str | None:
    """Why `path` may not be committed, or None; `head` holds its first bytes."""
    pure = PurePosixPath(path)
    if pure.parts[0] in _PRIVATE and not (pure.suffix == ".dvc" or pure.name == "README.md"):
        return f"{pure.parts[0]}/ holds private data; DVC tracks it, git only the .dvc files"
    if pure.suffix.lower() in _SUFFIXES:
        return f"{pure.suffix} files hold data or weights"
    for magic, name in _MAGIC.items():
        if head.startswith(magic):
            return f"it is {name} under another name"
    if size > LIMIT:
        return f"{size / 1e6:.1f} MB is more than a source file should have"
    return None


def faults(revision: str, paths: Iterable[str]) -> list[str]:
    """A line for each of `paths` that may not be committed; `revision` is `:` for what is staged."""
    found = []
    for path in paths:
        content = _git("cat-file", "blob", f"{revision}{path}")
        if reason := fault(path, len(content), content[:16]):
            found.append(f"{path}: {reason}")
    return found


def main(arguments: Sequence[str]) -> int:
    listing = (
        _git("ls-files", "-z")
        if "--tracked" in arguments
        else _git("diff", "--cached", "--name-only", "--diff-filter=ACMRT", "-z")
    )
    found = faults(":", [path for path in listing.decode().split("\0") if path])
    for line in found:
        print(f"not to be committed: {line}", file=sys.stderr)
    if found:
        print("Unstage with `git restore --staged FILE`; track data with `dvc add`.", file=sys.stderr)
    return 1 if found else 0


def _git(*arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], check=True, stdout=subprocess.PIPE).stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
