"""Bytes, and everything that lies within them: archives, tables, databases, pictures, encoded texts.

Nothing is executed: a pickle's opcodes are read, not run. Nested to `DEPTH`, and bounded: what would
unfold to more than `LIMIT` bytes, is encrypted, or is 7z or RAR, is told as a fault instead of being
opened. Something that only looks like a container, or is broken, is as much as could be read of it, and
its own bytes.
Not looked at: pictures' pixels, sound, fonts, token numbers, base32, base85 and uuencoding.
"""

import base64
import bz2
import io
import json
import lzma
import pickletools
import re
import sqlite3
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from hashlib import blake2b
from html import unescape
from typing import Any

DEPTH = 5  # containers within containers
LIMIT = 256 * 2**20  # bytes that one item may unfold to, all its parts together
MEMBERS = 100_000  # parts of one item
EMBEDDED = 20  # packed parts that are looked for in one part whose form isn't known
WEIGHTS = 8 * 2**20  # bytes above which what is no text and no container is searched as it is

_CODED = re.compile(rb"[A-Za-z0-9+/_-]{16,}={0,2}")
_WRAPPED = re.compile(  # possessive: each byte is looked at once
    rb"(?<![A-Za-z0-9+/_-])(?:[A-Za-z0-9+/_-]{16,}+[ \t]*+\r?\n[ \t]*+)++[A-Za-z0-9+/_-]*={0,2}"
)
_HEX = re.compile(rb"(?:[0-9A-Fa-f]{2}(?:[ :,]|, ?0x|0x)?){12,}")
_BACKSLASH = (
    rb"\\u([dD][89abAB]..)\\u([dD][c-fC-F]..)"
    rb"|\\(?:u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|x([0-9A-Fa-f]{2})|([0-7]{3})|([abfnrtv0\"'/\\]))"
)
_ESCAPE = re.compile(_BACKSLASH)
_MARKUP = re.compile(
    _BACKSLASH
    + rb"|%([0-9A-Fa-f]{2})|(&(?:#\d{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z]{2,31}\d*);)|(<[^<>]{0,2000}>)"
)
_LETTERS = dict(zip(b"abfnrtv0", b"\a\b\f\n\r\t\v\0", strict=True))
_EMBEDDED = re.compile(rb"\x1f\x8b\x08[\0-\x1f]|BZh[1-9]1AY&SY|\xfd7zXZ\0|\x28\xb5\x2f\xfd")
_QUOTED = re.compile(rb"=(?:([0-9A-F]{2})|[ \t]*\r?\n)")
_CONTROLS = re.compile(rb"[\0-\x08\x0e-\x1a]")
_PRINTED = re.compile(rb"[\t\n\r -~]{16,}")
_PDF_TEXT = re.compile(rb"\(((?:[^()\\]|\\.){0,2000}+)\)")


@dataclass(frozen=True)
class Part:
    """`path`: empty for the bytes themselves, else the way in, as in `zip:a.csv/base64`. `fault`: why
    this could not be opened; `content` is empty then."""

    path: str
    content: bytes
    fault: str = ""


_Inflating = type(zlib.decompressobj())


class _Full(Exception):
    """The item unfolds to more than is looked at."""


def unpacked(name: str, content: bytes) -> Iterator[Part]:
    """`content`, then all that is in it, from the outside in, each once. `name` says what the bytes
    don't: ONNX graphs have no mark of their own."""
    yield Part("", content)
    if raw_only(name, content):
        return
    budget = _Budget(len(content))
    seen = {_digest(content)}
    waiting: list[tuple[str, bytes, int]] = [("", content, 0)]
    while waiting:
        path, outer, depth = waiting.pop(0)
        if depth == DEPTH:
            continue
        inner = _inner(outer, budget)
        while True:
            try:
                step, found = next(inner)
                budget.spend(len(found))
            except StopIteration:
                break
            except _Full:
                what = f"unfolds to more than {LIMIT >> 20} MB or {MEMBERS:,} parts"
                yield Part(path, b"", what)
                return
            except _Shut as shut:
                yield Part(path, b"", str(shut))
                continue
            way = f"{path}/{step}" if path else step
            if len(found) >= 5 and (digest := _digest(found)) not in seen:
                seen.add(digest)
                yield Part(way, found)
                waiting.append((way, found, depth + 1))


def raw_only(name: str, content: bytes) -> bool:
    """Whether these are weights, which are searched as they are and not for encoded text."""
    return name.endswith(".onnx") or (
        len(content) > WEIGHTS and not _magic(content) and not _is_text(content)
    )


def needs_whole(head: bytes, tail: bytes) -> bool:
    """Whether a file that begins and ends so can't be searched piece by piece."""
    opener = _magic(head + tail)
    return opener is not None and opener not in _CLEAR


class _Shut(Exception):
    """Something that isn't opened, and why; what could be was given before."""


class _Budget:
    def __init__(self, size: int) -> None:
        # a text comes back in several other readings, none longer than itself
        self.left, self.parts = LIMIT + 8 * size, MEMBERS

    def spend(self, size: int) -> None:
        self.left -= size
        self.parts -= 1
        if self.left < 0 or self.parts < 0:
            raise _Full


def _digest(content: bytes) -> bytes:
    return blake2b(content, digest_size=16).digest()


def _inner(content: bytes, budget: _Budget) -> Iterator[tuple[str, bytes]]:
    """What lies one step within `content`; what is broken ends silently."""
    opener = _magic(content)
    if opener:
        # the readers of damaged files raise nearly anything, as their formats were never meant for it
        try:
            yield from opener(content, budget)
        except (_Full, _Shut, MemoryError):
            raise
        except Exception:
            pass
    if opener not in _PACKED:
        yield from _texts(content)
        for number, match in enumerate(_EMBEDDED.finditer(content, 1), start=1):
            if number > EMBEDDED:
                if opener in _OPENED:
                    return
                raise _Shut(f"more than {EMBEDDED} packed parts one after the other")
            yield f"at {match.start()}", content[match.start() :]


def _magic(content: bytes) -> "Callable[[bytes, _Budget], Iterator[tuple[str, bytes]]] | None":
    """Who opens what begins so."""
    for start, opener in _OPENERS:
        if content.startswith(start):
            return opener
    if content[257:262] == b"ustar":
        return _tar
    if content[:1] == b"\x80" and content[1:2] in b"\2\3\4\5":
        return _pickle
    if content[:1] == b"\x78" and content[1:2] in b"\x01\x5e\x9c\xda":
        return _zlib
    if len(content) > 8 and content[8:9] == b"{":
        size = struct.unpack("<Q", content[:8])[0]
        if 2 <= size <= len(content) - 8:
            return _safetensors
    if b"PK\x05\x06" in content[-70_000:]:
        return _zip  # with something before it
    return None


_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, lzma.LZMAError)


def _zip(content: bytes, budget: _Budget) -> Iterator[tuple[str, bytes]]:
    locked = False
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        yield "zip comment", archive.comment
        for member in archive.infolist():
            yield "zip name", member.filename.encode()
            if member.flag_bits & 1:
                locked = True
            elif not member.is_dir():
                with suppress(*_BROKEN), archive.open(member) as file:
                    yield f"zip:{member.filename}", _bounded(file.read, budget)
    if locked:
        raise _Shut("encrypted")


def _tar(content: bytes, budget: _Budget) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
        for member in archive:
            yield "tar name", f"{member.name} {member.linkname} {member.pax_headers}".encode()
            if member.isfile() and (file := archive.extractfile(member)):
                yield f"tar:{member.name}", _bounded(file.read, budget)


def _stream(
    name: str, make: Callable[[], Any]
) -> Callable[[bytes, _Budget], Iterator[tuple[str, bytes]]]:
    """An opener for one compressed stream after the other, as far as they can be read."""

    def opened(content: bytes, budget: _Budget) -> Iterator[tuple[str, bytes]]:
        parts: list[bytes] = []
        size = 0
        while content:
            engine = make()
            try:
                while not engine.eof and (content or not getattr(engine, "needs_input", True)):
                    # zlib's keep what they didn't take, the others by themselves
                    parts.append(engine.decompress(content, 1 << 20))
                    content = getattr(engine, "unconsumed_tail", b"")
                    size += len(parts[-1])
                    if size > budget.left:
                        raise _Full
                    if not parts[-1] and not content:
                        break
                if not engine.eof and isinstance(engine, _Inflating):
                    parts.append(engine.flush(1 << 16))
            except (zlib.error, OSError, EOFError, ValueError, lzma.LZMAError):
                break
            content = engine.unused_data if engine.eof else b""
        yield name, b"".join(parts)

    return opened


_gzip = _stream("gzip", lambda: zlib.decompressobj(31))
_zlib = _stream("zlib", zlib.decompressobj)
_bz2 = _stream("bz2", bz2.BZ2Decompressor)
_xz = _stream("xz", lzma.LZMADecompressor)


def _arrow_stream(name: str) -> Callable[[bytes, _Budget], Iterator[tuple[str, bytes]]]:
    """An opener by pyarrow's own codecs."""

    def opened(content: bytes, budget: _Budget) -> Iterator[tuple[str, bytes]]:
        import pyarrow as pa

        with pa.input_stream(pa.py_buffer(content), compression=name, buffer_size=1 << 16) as file:
            yield name, _bounded(file.read, budget)

    return opened


def _bounded(read: Callable[[int], bytes], budget: _Budget) -> bytes:
    found = io.BytesIO()
    while part := read(1 << 20):
        found.write(part)
        if found.tell() > budget.left:
            raise _Full
    return found.getvalue()


def _parquet(content: bytes, _: _Budget) -> Iterator[tuple[str, bytes]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    plain = pq.ParquetFile(pa.BufferReader(content))
    names = [field.name for field in plain.schema_arrow if _holds_text(field.type)]
    flat = [
        name for name in names if plain.schema_arrow.field(name).type in (pa.string(), pa.large_string())
    ]
    # as dictionaries, so that an entry that no row uses is seen too
    file = pq.ParquetFile(pa.BufferReader(content), read_dictionary=flat)
    for batch in file.iter_batches(batch_size=8192, columns=names):
        yield from _columns("parquet", batch)
    yield from _metadata("parquet", file.schema_arrow)


def _arrow(content: bytes, _: _Budget) -> Iterator[tuple[str, bytes]]:
    import pyarrow as pa

    opened = pa.ipc.open_file if content.startswith(b"ARROW1") else pa.ipc.open_stream
    with opened(pa.BufferReader(content)) as reader:
        yield from _metadata("arrow", reader.schema)
        batches = (
            map(reader.get_batch, range(reader.num_record_batches))
            if content.startswith(b"ARROW1")
            else reader
        )
        for batch in batches:
            yield from _columns("arrow", batch)


def _holds_text(kind: Any) -> bool:
    """Whether this Arrow type holds texts or bytes, at any depth."""
    import pyarrow.types as t

    if t.is_dictionary(kind):
        return _holds_text(kind.value_type)
    if t.is_nested(kind):
        return any(_holds_text(kind.field(at).type) for at in range(kind.num_fields))
    return bool(
        t.is_string(kind)
        or t.is_large_string(kind)
        or t.is_binary(kind)
        or t.is_large_binary(kind)
        or t.is_fixed_size_binary(kind)
        or t.is_string_view(kind)
        or t.is_binary_view(kind)
    )


def _columns(name: str, batch: Any) -> Iterator[tuple[str, bytes]]:
    import pyarrow as pa

    for column, values in zip(batch.schema.names, batch.columns, strict=True):
        if not _holds_text(values.type):
            continue
        if isinstance(values, pa.DictionaryArray):
            values = values.dictionary
        cells = values.to_pylist()
        yield f"{name}:{column}", _joined(cells)
        yield from _contained(f"{name}:{column} cell", cells)


def _metadata(name: str, schema: Any) -> Iterator[tuple[str, bytes]]:
    tables = [schema.metadata or {}, *(field.metadata or {} for field in schema)]
    yield f"{name} metadata", b"\n".join(part for one in tables for pair in one.items() for part in pair)


def _joined(values: Iterable[object]) -> bytes:
    """Values a line each; what is nested is unrolled."""
    found: list[bytes] = []
    waiting = list(values)[::-1]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += [part for pair in value.items() for part in pair][::-1]
        elif isinstance(value, list | tuple):
            waiting += list(value)[::-1]
        elif isinstance(value, bytes):
            found.append(value)
        elif isinstance(value, str):
            found.append(value.encode("utf-8", "surrogatepass"))
    return b"\n".join(found)


def _contained(name: str, values: Iterable[object]) -> Iterator[tuple[str, bytes]]:
    """Those values that are containers, each by itself."""
    for value in values:
        if isinstance(value, bytes) and len(value) > 16 and _magic(value):
            yield name, value


def _sqlite(content: bytes, _: _Budget) -> Iterator[tuple[str, bytes]]:
    with closing(sqlite3.connect(":memory:")) as database:
        # in memory there is no write-ahead log: its two bytes say that there is none
        database.deserialize(content[:18] + b"\1\1" + content[20:])
        database.text_factory = bytes
        tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (raw,) in tables:
            table = raw.decode("utf-8", "replace")
            quoted = table.replace('"', '""')
            rows = database.execute(f'SELECT * FROM "{quoted}"')
            while part := rows.fetchmany(20_000):
                cells = [cell for row in part for cell in row if isinstance(cell, bytes)]
                yield f"sqlite:{table}", b"\n".join(cells)
                yield from _contained(f"sqlite:{table} cell", cells)


def _pickle(content: bytes, _: _Budget) -> Iterator[tuple[str, bytes]]:
    texts: list[object] = []
    with suppress(Exception):  # a broken pickle ends in any way
        for _opcode, argument, _place in pickletools.genops(content):
            if isinstance(argument, str | bytes | bytearray):
                texts.append(bytes(argument) if isinstance(argument, bytearray) else argument)
    yield "pickle", _joined(texts)
    yield from _contained("pickle bytes", texts)


def _npy(content: bytes, _: _Budget) -> Iterator[tuple[str, bytes]]:
    size = struct.unpack("<H", content[8:10])[0] + 10
    if content[6:7] != b"\1":
        size = struct.unpack("<I", content[8:12])[0] + 12
    yield "npy", content[size:]


def _safetensors(content: bytes, _: _Budget) -> Iterator[tuple[str, bytes]]:
    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + size])
    yield "safetensors metadata", json.dumps(header, ensure_ascii=False).encode()
    for name, tensor in header.items():
        begin, end = tensor.get("data_offsets", (0, 0)) if isinstance(tensor, dict) else (0, 0)
        if (
            isinstance(tensor, dict)
            and tensor.get("dtype") in ("U8", "I8")
            and 16 <= end - begin <= WEIGHTS
        ):
            yield f"safetensors:{name}", content[8 + size + begin : 8 + size + end]


def _png(content: bytes, budget: _Budget) -> Iterator[tuple[str, bytes]]:
    at = 8
    while at + 8 <= len(content):
        size, kind = struct.unpack(">I4s", content[at : at + 8])
        data = content[at + 8 : at + 8 + size]
        at += size + 12
        if kind == b"IEND":
            break
        if kind == b"tEXt":
            yield "png tEXt", data.partition(b"\0")[2]
        elif kind == b"zTXt":
            yield "png zTXt", _inflated(data.partition(b"\0")[2][1:], budget)
        elif kind == b"iTXt":
            rest = data.partition(b"\0")[2]
            text = rest[2:].split(b"\0", 2)[-1]
            yield "png iTXt", _inflated(text, budget) if rest[:1] == b"\1" else text
        elif kind not in (b"IDAT", b"IHDR", b"PLTE"):
            yield f"png {kind.decode('latin-1')}", data
    if at < len(content):
        yield "after the png", content[at:]


def _inflated(content: bytes, budget: _Budget) -> bytes:
    return next(_zlib(content, budget))[1]


def _pdf(content: bytes, budget: _Budget) -> Iterator[tuple[str, bytes]]:
    for piece in content.split(b"endstream"):
        drawn = piece.rpartition(b"stream")[2].lstrip(b"\r\n")
        if drawn[:1] == b"\x78":
            drawn = _inflated(drawn, budget)
            yield "pdf stream", drawn
        yield "pdf text", b"".join(_PDF_TEXT.findall(drawn))
    if b"/Encrypt" in content:
        raise _Shut("encrypted")


def _utf16(content: bytes, _: _Budget) -> Iterator[tuple[str, bytes]]:
    yield "utf-16", content.decode("utf-16", "ignore").encode("utf-8", "surrogatepass")


def _office(content: bytes, _: _Budget) -> Iterator[tuple[str, bytes]]:
    """Old workbooks and documents are searched as they are; a password puts a new one into this form."""
    yield from ()
    if "EncryptedPackage".encode("utf-16-le") in content:
        raise _Shut("encrypted")


def _foreign(name: str) -> Callable[[bytes, _Budget], Iterator[tuple[str, bytes]]]:
    """For an archive that nothing here can open."""

    def opened(_: bytes, __: _Budget) -> Iterator[tuple[str, bytes]]:
        yield from ()
        raise _Shut(f"{name} archive, which isn't opened")

    return opened


_OPENERS: list[tuple[bytes, Callable[[bytes, _Budget], Iterator[tuple[str, bytes]]]]] = [
    (b"PK\x03\x04", _zip),
    (b"PK\x05\x06", _zip),
    (b"\x1f\x8b", _gzip),
    (b"BZh", _bz2),
    (b"\xfd7zXZ\0", _xz),
    (b"\x5d\0\0", _xz),
    (b"\x28\xb5\x2f\xfd", _arrow_stream("zstd")),
    (b"\x04\x22\x4d\x18", _arrow_stream("lz4")),
    (b"PAR1", _parquet),
    (b"ARROW1", _arrow),
    (b"\xff\xff\xff\xff", _arrow),
    (b"SQLite format 3\0", _sqlite),
    (b"\x93NUMPY", _npy),
    (b"\x89PNG\r\n\x1a\n", _png),
    (b"%PDF-", _pdf),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", _office),
    (b"7z\xbc\xaf\x27\x1c", _foreign("7z")),
    (b"Rar!\x1a\x07", _foreign("RAR")),
    (b"\xff\xfe", _utf16),
    (b"\xfe\xff", _utf16),
]
# what is compressed as a whole holds no encoded text outside
_PACKED = {_gzip, _zlib, _bz2, _xz, _zip, _npy}
_CLEAR = {_npy, _safetensors, _utf16}  # a piece of these is searched as well as the whole
_OPENED = {
    _parquet,
    _arrow,
    _sqlite,
    _tar,
    _pickle,
}  # what is packed within is opened by these themselves


def _texts(content: bytes) -> Iterator[tuple[str, bytes]]:
    """`content` decoded, where parts of it are text that is written in another form."""
    if not _is_text(content):
        content = b"\n".join(_PRINTED.findall(content))
    # a program's escapes alone, which may stand for any bytes; then with the marks of text
    readings = [_ESCAPE.sub(_unescaped, content)] if b"\\" in content else []
    if b"\\x" in content:
        readings.append(_ESCAPE.sub(_as_latin, content))
    if any(sign in content for sign in (b"%", b"&", b"<")):
        readings.append(_MARKUP.sub(_unescaped, content))
    yield from (("escapes", reading) for reading in readings if reading != content)
    if b"=" in content:
        quoted = _QUOTED.sub(
            lambda match: bytes.fromhex(match[1].decode()) if match[1] else b"", content
        )
        if quoted != content:
            yield "quoted-printable", quoted
    for name, decode, pieces in (
        ("base64", _base64, [*_CODED.findall(content), *map(_unwrapped, _WRAPPED.findall(content))]),
        ("hex", _hex, _HEX.findall(content)),
    ):
        # something glued to the front shifts the rest: every alignment is tried
        for at in range(4 if name == "base64" else 2):
            decoded = [decode(piece, at) for piece in pieces]
            if any(decoded):
                yield name, b"\n\0".join(part for part in decoded if part)
            if at == 0:  # a container is only one if it stands by itself
                yield from _contained(name, decoded)


def _is_text(content: bytes) -> bool:
    sample = content[:65_536]
    return len(_CONTROLS.findall(sample)) * 50 <= len(sample)


def _unescaped(match: re.Match[bytes]) -> bytes:
    parts: list[bytes] = [part or b"" for part in match.groups()]
    high, low, four, eight, two, octal, letter, percent, entity, _ = (*parts, b"", b"", b"")[:10]
    try:
        if high:
            return _utf8(0x10000 + ((int(high, 16) & 0x3FF) << 10) + (int(low, 16) & 0x3FF))
        if four or eight:
            return _utf8(int(four or eight, 16))
        if two or percent:
            return bytes([int(two or percent, 16)])
        if octal:
            return bytes([int(octal, 8) & 255])
    except (ValueError, OverflowError):  # no such character
        return match[0]
    if letter:
        return bytes([_LETTERS.get(letter[0], letter[0])])
    if entity:
        return unescape(entity.decode()).encode("utf-8", "surrogatepass")
    return b""  # a tag, which may stand within a word


def _as_latin(match: re.Match[bytes]) -> bytes:
    r"""Python's `\xe9` is a character, not a byte."""
    return _utf8(int(match[5], 16)) if match[5] else _unescaped(match)


def _utf8(code: int) -> bytes:
    return chr(code).encode("utf-8", "surrogatepass")


def _unwrapped(piece: bytes) -> bytes:
    return b"".join(piece.split())


def _base64(piece: bytes, at: int) -> bytes:
    piece = piece[at:].rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
    piece = piece[: len(piece) - (len(piece) % 4 == 1)]
    return base64.b64decode(piece + b"=" * (-len(piece) % 4))


def _hex(piece: bytes, at: int) -> bytes:
    digits = re.sub(rb"0x|[ :,]", b"", piece)[at:]
    return bytes.fromhex(digits[: len(digits) // 2 * 2].decode())
