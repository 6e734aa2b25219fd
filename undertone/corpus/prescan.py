"""What a file is, by its content, and whether a workbook is safe to open: before any reader sees it."""

import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from xml.parsers.expat import ExpatError

from undertone.errors import Problem

Kind = Literal["xlsx", "ods", "xls", "parquet", "jsonl", "text"]

MAX_FILE = 100 * 2**20  # bytes
MAX_UNZIPPED = 2**30
MAX_ENTRIES = 10_000
MAX_RATIO = 100  # as Apache POI's ZipSecureFile; a full workbook of a million rows is at 14
SMALL = 2**20  # unzipped, below which a ratio says nothing: long runs of equal cells

_RENAME = "Give the file the ending of what it is."
_SAVE_AS = "Open it in Excel and save it as Excel Workbook (.xlsx)."
_WORKBOOKS = {".xlsx", ".xlsm", ".xls", ".ods"}
_TEXTS = {".csv", ".tsv", ".tab", ".txt"}
_OLE = bytes.fromhex("d0cf11e0a1b11ae1")


def kind_of(path: Path, where: str) -> Kind:
    """What `path` holds, whatever its name says; `Problem` where it's nothing that can be read."""
    if path.stat().st_size > MAX_FILE:
        raise Problem(
            f"{path.stat().st_size / 2**20:.0f} MB, at most {MAX_FILE // 2**20} are read",
            where=where,
            remedy="Split it into several files.",
        )
    with path.open("rb") as file:
        head = file.read(4096)
    if head.startswith(b"PK"):
        with damaged(where):
            return _kind_of_zip(path, where)
    if head.startswith(_OLE):
        if "EncryptedPackage".encode("utf-16-le") in path.read_bytes():
            raise Problem("password-protected", where=where, remedy="Save it without a password.")
        return "xls"
    if head.startswith(b"PAR1"):
        return "parquet"
    return _kind_of_text(head, path.suffix.lower(), where)


def _kind_of_text(head: bytes, suffix: str, where: str) -> Kind:
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if not start:
        raise Problem("an empty file", where=where)
    if start.startswith(b"version https://git-lfs"):
        raise Problem("a Git LFS pointer, not the file", where=where, remedy="Run `git lfs pull`.")
    if start.startswith((b"outs:", b"md5:")) and b"md5:" in start:
        raise Problem("a DVC pointer, not the file", where=where, remedy="Run `dvc pull`.")
    if start.startswith((b"<!doctype html", b"<html", b"<table", b"<meta")):
        raise Problem("an HTML page, not a table", where=where, remedy=_SAVE_AS)
    if start.startswith(b"<?xml"):
        raise Problem("a bare XML file, not a workbook", where=where, remedy=_SAVE_AS)
    if start.startswith((b"\x1f\x8b", b"bzh", b"7z\xbc\xaf", b"rar!", b"\xfd7zxz")):
        raise Problem("a compressed file", where=where, remedy="Unpack it.")
    utf_16 = head.startswith((b"\xff\xfe", b"\xfe\xff"))
    if (b"\0" in head and not utf_16) or start.startswith(b"%pdf"):
        raise Problem("not a table of any known kind", where=where, remedy=_SAVE_AS)
    kind: Kind = "jsonl" if start.startswith(b"{") else "text"
    if suffix in _WORKBOOKS:
        told = "JSON" if kind == "jsonl" else "plain text, perhaps CSV"
        raise Problem(f"{told}, not a workbook as its name says", where=where, remedy=_RENAME)
    if kind == "text" and suffix not in _TEXTS:
        if start.startswith(b"["):
            raise Problem("a JSON list", where=where, remedy="Write one object a line (.jsonl).")
        raise Problem(
            f"not a table, going by its ending '{suffix}'",
            where=where,
            remedy="Name the tables in the source's `files`, or end a CSV file in .csv.",
        )
    return kind


def _kind_of_zip(path: Path, where: str) -> Kind:
    with open_zip(path, where) as archive:
        names = set(archive.namelist())
        if "mimetype" in names:
            if archive.read("mimetype").strip() == b"application/vnd.oasis.opendocument.spreadsheet":
                return "ods"
            raise Problem("an OpenDocument file, but no table", where=where)
    if "xl/workbook.bin" in names:
        raise Problem("a binary workbook (.xlsb)", where=where, remedy=_SAVE_AS)
    if "word/document.xml" in names:
        raise Problem("a Word document", where=where, remedy="Move the table to Excel.")
    if "_rels/.rels" not in names:
        raise Problem("a zip archive, not a workbook", where=where, remedy="Unpack it.")
    return "xlsx"


def open_zip(path: Path, where: str) -> zipfile.ZipFile:
    """The archive in `path`, once its table of contents is known to be harmless.

    zipfile reads no more of an entry than its table of contents says, and checks its CRC, so that
    what is added up here also bounds what is read.
    """
    archive = zipfile.ZipFile(path)
    entries = archive.infolist()
    names = [entry.filename.lower() for entry in entries]
    unzipped = sum(entry.file_size for entry in entries)
    packed = path.stat().st_size
    fault = ""
    if any(entry.flag_bits & 1 for entry in entries):
        fault = "password-protected"
    elif len(entries) > MAX_ENTRIES:
        fault = f"{len(entries):,} parts, more than any workbook has"
    elif len(set(names)) < len(names):
        fault = "damaged: a part stands twice in the archive"
    elif unzipped > MAX_UNZIPPED:
        fault = f"{unzipped / 2**30:.1f} GiB when unpacked, at most {MAX_UNZIPPED / 2**30:.0f} are read"
    elif unzipped > max(SMALL, MAX_RATIO * packed):
        fault = f"unpacks to {unzipped // packed} times its size, as no honest workbook does"
    elif any(name.startswith("/") or ".." in name.split("/") for name in names):
        fault = "damaged: a part's name leads out of the archive"
    if fault:
        archive.close()
        raise Problem(fault, where=where, remedy="Open it in Excel and save it again.")
    return archive


@contextmanager
def damaged(where: str) -> Iterator[None]:
    """Whatever zipfile, zlib and expat raise on a damaged workbook, as a `Problem`.

    Lookups and conversions count among it: an attribute that isn't there, a number that is none.
    """
    try:
        yield
    except (
        zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, ExpatError, EOFError,
        NotImplementedError, LookupError, ValueError, OverflowError,
    ) as error:  # fmt: skip
        raise Problem(
            f"damaged or cut off ({type(error).__name__})",
            where=where,
            remedy="Copy the file again, or open it in Excel and save it again.",
        ) from None
