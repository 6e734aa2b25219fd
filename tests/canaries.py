"""Canaries: texts that nothing else holds, put into a private table, and a search for them.

The search is the audit's rival: it shares no line with it. It takes whatever begins like a canary for
one, in any of `ENCODINGS`, in files as they are and in what is packed in them.
"""

import base64
import gzip
import html
import io
import json
import random
import sqlite3
import subprocess
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import pandas as pd

# what every canary begins with, and no other text holds
STEM, HAN, PHONE = "zqxkjwvq", "龘靐齉爩", "199 0731 77"
_PEOPLE = "zqpwkxjv"  # begins every id and author of the table

ENCODINGS: dict[str, Callable[[str], bytes]] = {
    "utf-8": lambda text: text.encode(),
    "utf-16-le": lambda text: text.encode("utf-16-le"),
    "utf-16-be": lambda text: text.encode("utf-16-be"),
    "utf-32-le": lambda text: text.encode("utf-32-le"),
    "gb18030": lambda text: text.encode("gb18030"),
    "hex": lambda text: text.encode().hex().encode(),
    "base64": lambda text: base64.b64encode(text.encode()),
    "json": lambda text: json.dumps(text).encode(),
    "url": lambda text: quote(text).encode(),
    "html": lambda text: html.escape(text).encode("ascii", "xmlcharrefreplace"),
    "backwards": lambda text: text[::-1].encode(),
}
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zlib": zlib.compress,
    "zip": lambda content: _zipped(content),
}


def plain(seed: int = 6) -> list[str]:
    """100 in Latin letters."""
    return [f"{STEM}{number}" for number in _numbers(seed, 100)]


def chinese(seed: int = 7) -> list[str]:
    """50 in Chinese."""
    rng = random.Random(seed)
    return [HAN + "".join(chr(rng.randrange(0x4E00, 0x9F00)) for _ in range(12)) for _ in range(50)]


def addresses(seed: int = 8) -> list[str]:
    """20 e-mail addresses."""
    return [f"{STEM}.{number}@{STEM}.example" for number in _numbers(seed, 20)]


def phones(seed: int = 9) -> list[str]:
    """20 telephone numbers."""
    return [f"+86 {PHONE}{number:02d}" for number in random.Random(seed).sample(range(100), 20)]


def planted(table: pd.DataFrame) -> pd.DataFrame:
    """A stand-in's rows: the first 190 with a label begin with a canary; ids and authors are some."""
    canaries = [*plain(), *chinese(), *addresses(), *phones()]
    at = table.index[table["truth"].notna()][: len(canaries)]
    assert len(at) == len(canaries) == 190
    texts = table["comment"].copy()
    texts[at] = [f"{one} {text}" for one, text in zip(canaries, texts[at], strict=True)]
    return table.assign(
        comment=texts,
        comment_id=f"{_PEOPLE}-" + table["comment_id"],
        author=_PEOPLE + table["author"],
    )


def found(name: str, content: bytes) -> set[str]:
    """The places in `content`, itself or something packed in it, where something is like a canary."""
    places = set()
    for place, blob in _unpacked(name, content):
        lowered = blob.replace(b"\\\\", b"\\").lower()
        if any(one in lowered for one in _WANTED) or any(one in blob for one in _CODED):
            places.add(place)
    return places


def shareable(repository: Path) -> Iterator[tuple[str, bytes]]:
    """All that may leave a repository: git, MLflow's store, reports, models and what DVC keeps of runs.

    Left out are the private folder `data`, and DVC's cache of it.
    """
    every = ["git", "cat-file", "--batch-all-objects", "--batch"]
    yield "git's objects", subprocess.run(every, cwd=repository, capture_output=True, check=True).stdout
    private = ("data", ".git/objects", ".dvc/cache", "unused")
    for path in files(repository):
        name = path.relative_to(repository).as_posix()
        if not name.startswith(tuple(f"{one}/" for one in private)):
            yield name, path.read_bytes()


def files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield path


def _numbers(seed: int, count: int) -> list[str]:
    rng = random.Random(seed)
    return [str(number) for number in rng.sample(range(10**10, 10**11), count)]


_STEMS = (STEM, _PEOPLE, HAN, PHONE, PHONE.replace(" ", ""))
_WANTED = {
    encode(stem).strip(b'"').lower()
    for stem in _STEMS
    for name, encode in ENCODINGS.items()
    if name != "base64"
}
# of base64 only the middle is the same wherever the text begins
_CODED = {
    base64.b64encode(b"\0" * shift + stem.encode()).rstrip(b"=")[4 if shift else 0 : -1]
    for stem in _STEMS
    for shift in range(3)
}


def _unpacked(name: str, content: bytes, depth: int = 0) -> Iterator[tuple[str, bytes]]:
    yield name, content
    for path, inner in _inside(content) if depth < 4 else ():
        yield from _unpacked(f"{name} → {path}", inner, depth + 1)


def _inside(content: bytes) -> Iterable[tuple[str, bytes]]:
    if content.startswith(b"\x1f\x8b"):
        with suppress(OSError, EOFError, zlib.error):
            return [("gzip", gzip.decompress(content))]
    if content.startswith((b"x\x01", b"x\x9c", b"x\xda")):
        with suppress(zlib.error):
            return [("zlib", zlib.decompress(content))]
    if content.startswith(b"PK\x03\x04"):
        with suppress(zipfile.BadZipFile), zipfile.ZipFile(io.BytesIO(content)) as archive:
            return [(one, archive.read(one)) for one in archive.namelist()]
    if content.startswith(b"PAR1"):
        return [("parquet", pd.read_parquet(io.BytesIO(content)).to_csv().encode())]
    if content.startswith(b"SQLite format 3\0"):
        with tempfile.NamedTemporaryFile() as copy:
            copy.write(content)
            copy.flush()
            with sqlite3.connect(copy.name) as store:
                return [("sqlite", "\n".join(store.iterdump()).encode("utf-8", "surrogateescape"))]
    return []


def _zipped(content: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("notes.txt", content)
    return out.getvalue()
