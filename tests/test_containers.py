"""A planted text is found in every container and encoding, two deep, and a bomb is bounded."""

import base64
import bz2
import gzip
import html
import io
import json
import lzma
import pickle
import quopri
import sqlite3
import struct
import tarfile
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xlsxwriter

from undertone.privacy import containers
from undertone.privacy.needles import Needles, Row

ENGLISH = "My neighbour Édith said the crèche would never again take her café-owner's second child."
CHINESE = "楼下小卖部的老板说他女儿再也不想去那个单位上班了，𠮷野家旁边的。"
FIRST, LAST = Row("lab", "row-1", ENGLISH), Row("lab", "row-9", CHINESE)


@pytest.fixture(scope="module")
def needles() -> Needles:
    return Needles.made(
        [FIRST, Row("lab", "row-2", "Something else was written here by another."), LAST]
    )


def zipped(name: str, content: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return out.getvalue()


def tarred(content: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        member = tarfile.TarInfo("notes.txt")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def workbook(text: str, *, rich: bool, constant: bool = False) -> bytes:
    out = io.BytesIO()
    with xlsxwriter.Workbook(out, {"in_memory": True, "constant_memory": constant}) as book:
        sheet, bold = book.add_worksheet(), book.add_format({"bold": True})
        half = len(text) // 2
        if rich:
            sheet.write_rich_string(0, 0, text[:half], bold, text[half:])
        else:
            sheet.write_string(0, 0, text)
    return out.getvalue()


def parquet(text: str, column: Callable[[list[str]], pa.Array] = pa.array) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"n": [1, 2], "x": column(["nothing", text])}), out, compression="zstd")
    return out.getvalue()


def arrow(text: str, *, stream: bool) -> bytes:
    table = pa.table({"x": pa.array(["nothing", text]).dictionary_encode()})
    out = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(
        out, table.schema, options=options
    ) as writer:
        writer.write_table(table)
    return out.getvalue()


def compressed(content: bytes, codec: str) -> bytes:
    out = pa.BufferOutputStream()
    with pa.CompressedOutputStream(out, codec) as stream:
        stream.write(content)
    return bytes(out.getvalue())


def database(text: str, folder: Path, *, deleted: bool = False, wal: bool = False) -> bytes:
    path = folder / "a.db"
    path.unlink(missing_ok=True)
    with sqlite3.connect(path) as connection:
        if wal:
            connection.execute("PRAGMA journal_mode=wal")
        connection.execute("CREATE TABLE t (a TEXT, b BLOB)")
        connection.execute("INSERT INTO t VALUES (?, ?)", (text, zlib.compress(text.encode())))
        connection.commit()
        if deleted:
            connection.execute("PRAGMA secure_delete=off")
            connection.execute("DELETE FROM t")
    connection.close()
    return path.read_bytes()


def npy(array: object, *, archive: bool = False) -> bytes:
    out = io.BytesIO()
    (np.savez_compressed if archive else np.save)(out, np.asarray(array))
    return out.getvalue()


def safetensors(text: str, *, header: bool) -> bytes:
    data = b"" if header else text.encode()
    fields: dict[str, object] = {
        "t": {"dtype": "U8", "shape": [len(data)], "data_offsets": [0, len(data)]}
    }
    if header:
        fields["__metadata__"] = {"note": text}
    head = json.dumps(fields).encode()
    return struct.pack("<Q", len(head)) + head + data


def png(kind: bytes, data: bytes) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content))
            + name
            + content
            + struct.pack(">I", zlib.crc32(name + content))
        )

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", bytes(13)) + chunk(kind, data) + chunk(b"IEND", b"")


def pdf(content: bytes) -> bytes:
    return b"%PDF-1.4\n1 0 obj<<>>stream\n" + zlib.compress(content) + b"\nendstream\nendobj\n"


WAYS: dict[str, Callable[[str, Path], bytes]] = {
    "utf-8": lambda text, _: text.encode(),
    "utf-8 in capitals, other white space": lambda text, _: text.upper().replace(" ", "\n\t ").encode(),
    "utf-8 full width": lambda text, _: "".join(
        chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text
    ).encode(),
    "utf-8 with invisible signs": lambda text, _: "\u200b".join(text).encode(),
    "utf-16 le": lambda text, _: text.encode("utf-16-le"),
    "utf-16 be": lambda text, _: text.encode("utf-16-be"),
    "utf-16 with mark": lambda text, _: text.encode("utf-16"),
    "utf-16 at an odd place": lambda text, _: b"\xff\x00\x81" + text.encode("utf-16-le"),
    "utf-32 le": lambda text, _: b"\xfe\x00\x81" + text.encode("utf-32-le"),
    "utf-32 be": lambda text, _: b"\xfe" + text.encode("utf-32-be"),
    "gb18030": lambda text, _: text.encode("gb18030"),
    "gb18030 at an odd place": lambda text, _: b"\x00\x01\xb0" + text.encode("gb18030"),
    "base64": lambda text, _: base64.b64encode(text.encode()),
    "base64 at 1": lambda text, _: b"q" + base64.b64encode(text.encode()),
    "base64 of something before it": lambda text, _: base64.b64encode(b"to" + text.encode()),
    "base64 url": lambda text, _: b"x=" + base64.urlsafe_b64encode(text.encode()).rstrip(b"="),
    "base64 lines": lambda text, _: base64.encodebytes((text * 3).encode()),
    "base64 short lines in json": lambda text, _: json.dumps(
        {
            "a": "\n".join(
                base64.b64encode(text.encode()).decode()[at : at + 20] for at in range(0, 160, 20)
            )
        }
    ).encode(),
    "base64 of utf-16": lambda text, _: base64.b64encode(text.encode("utf-16-le")),
    "hex": lambda text, _: text.encode().hex().encode(),
    "hex in capitals, at 1": lambda text, _: b"f" + text.encode().hex().upper().encode(),
    "hex with blanks": lambda text, _: text.encode().hex(" ").encode(),
    "hex as c writes it": lambda text, _: ", ".join(f"0x{c:02x}" for c in text.encode()).encode(),
    "json": lambda text, _: json.dumps({"a": [text]}).encode(),
    "json in json": lambda text, _: json.dumps({"a": json.dumps([text])}).encode(),
    "python str": lambda text, _: ascii(f"{text}\n").encode(),
    "python bytes": lambda text, _: repr(text.encode()).encode(),
    "octal as git writes names": lambda text, _: "".join(
        chr(c) if c < 128 else f"\\{c:03o}" for c in text.encode()
    ).encode(),
    "url": lambda text, _: quote(text).encode(),
    "html": lambda text, _: f"<p>{text.encode('ascii', 'xmlcharrefreplace').decode()}</p>".encode(),
    "html names": lambda text, _: html.escape(text).replace("É", "&Eacute;").encode(),
    "html tags within words": lambda text, _: "<b>x</b>".join(["", "<i></i>".join(text), ""]).encode(),
    "quoted-printable": lambda text, _: quopri.encodestring(text.encode()),
    "gzip": lambda text, _: gzip.compress(text.encode()),
    "gzip, cut short": lambda text, _: gzip.compress(text.encode() + bytes(range(256)) * 40)[:-30],
    "two gzips": lambda text, _: gzip.compress(b"first") + gzip.compress(text.encode()),
    "bz2": lambda text, _: bz2.compress(text.encode()),
    "xz": lambda text, _: lzma.compress(text.encode()),
    "zlib, as git's loose objects": lambda text, _: zlib.compress(b"blob 99\0" + text.encode()),
    "zstd": lambda text, _: compressed(text.encode(), "zstd"),
    "lz4": lambda text, _: compressed(text.encode(), "lz4"),
    "zip": lambda text, _: zipped("a.txt", text.encode()),
    "zip, its file's name": lambda text, _: zipped(text.replace("/", "") + ".txt", b""),
    "zip after a program": lambda text, _: b"#!/bin/sh\nexit\n" + zipped("a.txt", text.encode()),
    "xlsx": lambda text, _: workbook(text, rich=False),
    "xlsx rich text": lambda text, _: workbook(text, rich=True),
    "xlsx inline": lambda text, _: workbook(text, rich=False, constant=True),
    "tar": lambda text, _: tarred(text.encode()),
    "parquet": lambda text, _: parquet(text),
    "parquet of lists": lambda text, _: parquet(
        text, lambda texts: pa.array([[text] for text in texts])
    ),
    "parquet of dictionaries": lambda text, _: parquet(
        text, lambda texts: pa.array(texts).dictionary_encode()
    ),
    "parquet of bytes": lambda text, _: parquet(
        text, lambda texts: pa.array([text.encode() for text in texts])
    ),
    "arrow file": lambda text, _: arrow(text, stream=False),
    "arrow stream": lambda text, _: arrow(text, stream=True),
    "sqlite": lambda text, folder: database(text * 400, folder),
    "sqlite with a log": lambda text, folder: database(text, folder, wal=True),
    "sqlite, deleted": lambda text, folder: database(text, folder, deleted=True),
    "pickle": lambda text, _: pickle.dumps({"a": [text]}),
    "pickle 0": lambda text, _: pickle.dumps([text], protocol=0),
    "pickle of arrays": lambda text, _: pickle.dumps(np.array([text])),
    "npy of texts": lambda text, _: npy([text, "b"]),
    "npy of objects": lambda text, _: npy(np.array([text, 1], dtype=object)),
    "npz": lambda text, _: npy([text], archive=True),
    "safetensors metadata": lambda text, _: safetensors(text, header=True),
    "safetensors bytes": lambda text, _: safetensors(text, header=False),
    "png zTXt": lambda text, _: png(b"zTXt", b"Comment\0\0" + zlib.compress(text.encode())),
    "png iTXt": lambda text, _: png(b"iTXt", b"Title\0\1\0\0\0" + zlib.compress(text.encode())),
    "png tEXt": lambda text, _: png(b"tEXt", b"Comment\0" + text.encode()),
    "after a png": lambda text, _: png(b"tEXt", b"") + gzip.compress(text.encode()),
    "svg": lambda text, _: f"<svg><!-- {html.escape(text)} --></svg>".encode(),
    "notebook": lambda text, _: json.dumps({"cells": [{"outputs": [{"text": [text + "\n"]}]}]}).encode(),
    "markdown": lambda text, _: f"| 1 | {text} |\n|---|---|".encode(),
}
ASCII_ONLY: dict[str, Callable[[str, Path], bytes]] = {
    "cp1252": lambda text, _: text.encode("cp1252"),
    "cp1252 among bytes": lambda text, _: bytes(range(20)) * 9 + text.encode("cp1252") + bytes(40),
    "pdf": lambda text, _: pdf(
        b"BT " + b" ".join(b"(%s) Tj" % w for w in text.encode("cp1252").split()) + b" ET"
    ),
}


def rows_of(content: bytes, needles: Needles) -> set[str]:
    return {hit.row for part in containers.unpacked("a", content) for hit in needles.found(part.content)}


@pytest.mark.parametrize("row", [FIRST, LAST], ids=["english", "chinese"])
@pytest.mark.parametrize("way", WAYS)
def test_a_planted_row_is_found(way: str, row: Row, needles: Needles, tmp_path: Path) -> None:
    assert rows_of(WAYS[way](row.text, tmp_path), needles) == {row.id}


@pytest.mark.parametrize("way", ASCII_ONLY)
def test_a_planted_row_in_western_encodings_is_found(way: str, needles: Needles, tmp_path: Path) -> None:
    assert rows_of(ASCII_ONLY[way](FIRST.text, tmp_path), needles) == {"row-1"}


OUTER: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zip": lambda content: zipped("b", content),
    "tar": tarred,
    "base64": lambda content: b'{"data": "' + base64.b64encode(content) + b'"}',
    "hex": lambda content: content.hex().encode(),
    "pickle": pickle.dumps,
    "parquet": lambda content: parquet("", lambda _: pa.array([b"", content])),
    "png": lambda content: png(b"zTXt", b"k\0\0" + zlib.compress(content)),
    "python bytes": lambda content: repr(content).encode(),
}
INNER = (
    "xlsx",
    "json",
    "gzip",
    "utf-16 le",
    "sqlite",
    "pickle",
    "parquet",
    "base64 at 1",
    "npy of texts",
)


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("outer", OUTER)
def test_a_container_in_a_container_is_opened(
    outer: str, inner: str, needles: Needles, tmp_path: Path
) -> None:
    for row in (FIRST, LAST):
        assert rows_of(OUTER[outer](WAYS[inner](row.text, tmp_path)), needles) == {row.id}


def test_nothing_is_found_where_nothing_is(needles: Needles, tmp_path: Path) -> None:
    for way in WAYS.values():
        assert not rows_of(
            way("The article says nothing of all this, and so it is, says everybody here.", tmp_path),
            needles,
        )


def test_a_dictionary_entry_that_no_row_uses_is_found(needles: Needles) -> None:
    unused = pa.DictionaryArray.from_arrays(pa.array([0, 0]), pa.array(["nothing", FIRST.text]))
    out = io.BytesIO()
    with pa.ipc.new_file(out, pa.schema([("x", unused.type)])) as writer:
        writer.write_batch(pa.record_batch([unused], names=["x"]))
    assert rows_of(out.getvalue(), needles) == {"row-1"}


def test_a_bomb_is_told_and_not_unfolded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "LIMIT", 2**24)
    many = io.BytesIO()
    with zipfile.ZipFile(many, "w", zipfile.ZIP_DEFLATED) as archive:
        for at in range(10):
            archive.writestr(f"{at}", bytes(2**23))
    for bomb in (many.getvalue(), bz2.compress(bytes(2**26)), gzip.compress(many.getvalue())):
        tracemalloc.start()
        faults = [part.fault for part in containers.unpacked("a", bomb) if part.fault]
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert faults == ["unfolds to more than 16 MB or 100,000 parts"]
        assert peak < 2**27


@pytest.mark.parametrize(
    "unit",
    [b"<a", b"\\", b"%4", b"a", b"=", b"A" * 17 + b"\n", b"ab ", b"&a", b"(", b"stream\n", b"1,0x"],
)
def test_no_text_takes_more_than_its_length(unit: bytes) -> None:
    """A search that tried every beginning of every line would take hours, not seconds."""
    started = time.process_time()
    assert list(containers.unpacked("a", b"q" + unit * (1_000_000 // len(unit))))
    assert time.process_time() - started < 20


def test_a_locked_archive_is_told() -> None:
    content = bytearray(zipped("a.txt", b"secret"))
    content[6] |= 1  # the flag in the member's header, and in the directory's
    content[content.index(b"PK\x01\x02") + 8] |= 1
    assert [part.fault for part in containers.unpacked("a", bytes(content)) if part.fault] == [
        "encrypted"
    ]


def faults(content: bytes) -> list[str]:
    return [part.fault for part in containers.unpacked("a", content) if part.fault]


def test_what_nothing_here_can_open_is_told() -> None:
    assert faults(b"7z\xbc\xaf\x27\x1c" + bytes(99)) == ["7z archive, which isn't opened"]
    assert faults(b"Rar!\x1a\x07\1\0" + bytes(99)) == ["RAR archive, which isn't opened"]
    document = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(512)
    assert faults(document + "Workbook".encode("utf-16-le")) == []
    assert faults(document + "EncryptedPackage".encode("utf-16-le")) == ["encrypted"]
    assert faults(pdf(b"(a) Tj")) == []
    assert faults(pdf(b"(a) Tj") + b"trailer <</Encrypt 5 0 R>>") == ["encrypted"]


def test_more_packed_parts_than_are_opened_are_told(needles: Needles) -> None:
    part = b"\0" + gzip.compress(b"nothing")
    assert faults(part * containers.EMBEDDED) == []
    secret = gzip.compress(ENGLISH.encode())
    (fault,) = faults(part * containers.EMBEDDED + secret)
    assert fault == "more than 20 packed parts one after the other"
    assert faults(tarred(part * containers.EMBEDDED + secret)) == [fault]  # told once, of the member
    assert rows_of(secret + part * 30, needles) == {"row-1"}


def test_what_only_looks_like_a_container_is_searched_as_it_is(needles: Needles) -> None:
    for head in (
        b"PK\x03\x04",
        b"\x1f\x8b\x08",
        b"PAR1",
        b"SQLite format 3\0",
        b"\x89PNG\r\n\x1a\n",
        b"\x80\x04\x95",
    ):
        assert rows_of(head + b"\0\1 " + ENGLISH.encode(), needles) == {"row-1"}


def test_a_pickle_is_read_and_never_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    assert list(containers.unpacked("a", pickle.dumps(Trap())))
    assert not (tmp_path / "sprung").exists()
