"""Which modules a file reaches, wherever the import stands."""

from pathlib import Path

from undertone.code import digest, reached


def written(folder: Path, **files: str) -> None:
    (folder / "undertone").mkdir(exist_ok=True)
    for name, content in {"__init__": "", **files}.items():
        (folder / "undertone" / f"{name}.py").write_text(content)


def test_imports_are_followed_through_functions_and_other_modules(tmp_path: Path) -> None:
    written(
        tmp_path,
        a="from undertone import b\nimport numpy",
        b="def f():\n    from undertone.c import x",
        c="x = 1",
        d="import undertone.a",
    )
    found = reached(Path("undertone/a.py"), tmp_path)
    assert found == {Path(f"undertone/{name}.py") for name in ("__init__", "b", "c")}


def test_a_digest_changes_with_any_byte_of_any_file(tmp_path: Path) -> None:
    written(tmp_path, a="x = 1", b="y = 1")
    paths = {Path("undertone/a.py"), Path("undertone/b.py")}
    before = digest(paths, tmp_path)
    assert before == digest(sorted(paths, reverse=True), tmp_path)
    written(tmp_path, b="y = 2")
    assert digest(paths, tmp_path) != before
