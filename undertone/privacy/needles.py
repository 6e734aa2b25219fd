"""What may not be found anywhere: the private rows, as windows under a keyed rolling hash, and marks.

A text is folded to its letters and digits, without case, accents or width, so that white space,
punctuation and most escapes make no difference. Every window of `WINDOW` folded units of a row is a
needle: whoever shares so much of a row is found, wherever it begins (the guarantee of Schleimer,
Wilkerson and Aiken, "Winnowing", SIGMOD 2003, without thinning). A Chinese character counts for three
units, as it says as much. Marks are short things that name a person or a row: e-mail addresses, phone
numbers, user names, ids, and a short row where it stands by itself. The hash's key is drawn anew by
each process and never written: with a plain hash anyone could try out public comments.
"""

import codecs
import csv
import functools
import hashlib
import io
import json
import re
import secrets
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from undertone.errors import Problem
from undertone.params import Source, read_params

WINDOW = 32  # units: six or seven English words, eleven Chinese characters
SHORT = 16  # units of the shortest row that is searched for as a whole
LONGEST = 64  # units of a mark that are compared
BLOCK, OVERLAP = 1 << 20, 1 << 12  # bytes or characters read at a time
CHUNK = 1 << 18  # units hashed at a time; the tables fit the processor's cache

Kind = Literal["text", "e-mail", "phone", "name", "id", "token"]
Units = NDArray[np.uint32]
Hashes = NDArray[np.uint64]
Places = NDArray[np.int64]

CHARSETS = (  # letters, first and last, and the older charsets that have them
    ("А", "я", ("cp1251", "koi8_r")),
    ("ぁ", "ゖ", ("shift_jis", "euc_jp")),
    ("一", "鿿", ("big5",)),
    ("가", "힣", ("euc_kr",)),
)

_CODES = 0x110000
_HOST = re.compile(r"https?://[^/\s]+")  # a site is named by many; what is looked at there is not
_EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+", re.ASCII)
_PHONE = re.compile(r"(?<![\w.])\+?\(?\d+(?:[ ()./-]{1,3}\d{2,})*(?!\w)")
_DATE = re.compile(r"(?:19|20)\d\d[-./]\d")
_MENTION = re.compile(r"(?<!\w)@(\w[\w.-]{6,})")
_WORD = re.compile(r"[A-Za-z0-9_]{8,64}")
_TURN = re.compile(r"(?<=[A-Za-z])(?=\d)|(?<=\d)(?=[A-Za-z])")
_CONTROL = re.compile(b"[\0-\x08\x0e-\x1a]")
_UTF32_LE = re.compile(rb"(?s)(?:..[\0-\x10]\0){5}")
_UTF32_BE = re.compile(rb"(?s)(?:\0[\0-\x10]..){5}")
_DELIMITERS = frozenset("\"'`“”‘’「」<>|")


@dataclass(frozen=True)
class Row:
    """A private row.

    `own_id`: the id is the source's own, and not a place in a file. `comment`: else it is a cell of
    another column, which is searched for where it is long, or holds an address.
    """

    source: str
    id: str
    text: str
    group: str = ""
    own_id: bool = True
    comment: bool = True


@dataclass(frozen=True)
class Hit:
    """Something of a private row stands in what was searched. Never the text."""

    source: str
    row: str
    kind: Kind
    encoding: str


@dataclass(frozen=True)
class _Mark:
    owner: int  # index of the row
    kind: Kind
    text: str


class Needles:
    """Everything that is searched for, ready for `found`."""

    def __init__(self, rows: Sequence[Row], public: Iterable[str], key: bytes) -> None:
        self._hash = _Hash(key)
        self._owners = [(row.source, row.id) for row in rows]
        self._content = hashlib.sha256()
        for row in rows:
            self._content.update(json.dumps([row.source, row.id, row.text, row.group]).encode())
        open_texts = [_folded(text)[0] for text in public]
        for units in open_texts:
            self._content.update(units.tobytes())
        segments = [(at, part) for at, row in enumerate(rows) for part in _HOST.split(row.text)]
        units, ends = _folded_all([part for _, part in segments])
        lengths = np.diff(ends, prepend=0)
        owners = np.array([at for at, _ in segments], dtype=np.int64)
        self._units, self._window_owner = units, owners
        self._ends = ends
        foreign = any(c.isalnum() and not c.isascii() for row in rows for c in {*row.text, *row.group})
        self._alphabet = _alphabet(units) if foreign else None
        self._windows(ends, lengths, open_texts)
        longest = np.zeros(len(rows), dtype=np.int64)
        np.maximum.at(longest, owners, lengths)
        self._mark(rows, longest, open_texts)

    @classmethod
    def of(cls, root: Path, sources: Sequence[str] | None = None) -> "Needles":
        """Those of all sources that are here, or of `sources`: `data/raw/<source>/` and the tables in
        `data/<source>/`. What the files of `audit.public` say is no needle."""
        known = sorted(
            {path.name for folder in ("data/raw", "data") for path in (root / folder).glob("*/")}
            - {"raw", "answers", "review", "reviews"}
        )
        params = read_params(root / "params.yaml")
        rows: list[Row] = []
        for source in known if sources is None else sources:
            settings = params.ingest.get(source)
            tables = sorted((root / "data" / source).glob("*.parquet"))
            rows += read(root / "data/raw" / source, tables, source, settings)
        return cls.made(rows, public_texts(root, params.audit.public))

    @classmethod
    def made(cls, rows: Iterable[Row], public: Iterable[str] = ()) -> "Needles":
        """Of these rows; a window or mark that stands in a `public` text is none."""
        return cls(list(rows), public, secrets.token_bytes(32))

    @property
    def empty(self) -> bool:
        return not len(self._keys) and not self._marks

    @property
    def sources(self) -> list[str]:
        return sorted({source for source, _ in self._owners})

    def digest(self, key: bytes) -> str:
        """Names these needles to who has `key`."""
        return hashlib.blake2b(self._content.digest(), key=key, digest_size=16).hexdigest()

    def found(self, content: bytes | str, *, raw: bool = False) -> list[Hit]:
        """What stands in `content`: for each row and kind one hit, the row with the most of it first.

        Bytes are read as UTF-8, and where that leaves a doubt as UTF-16, UTF-32, GB18030 and cp1252 at
        every alignment, and in the `CHARSETS` of letters that the rows have; `raw` leaves these out.
        Nothing is unpacked: see `containers`.
        """
        counts: Counter[tuple[int, Kind]] = Counter()
        first: dict[tuple[int, Kind], str] = {}
        if self.empty:
            return []
        for start in range(0, max(len(content), 1), BLOCK):
            part = content[start : start + BLOCK + OVERLAP]
            last = start + len(part) >= len(content)
            for encoding, codes in _readings(part, None if raw else self._alphabet, (start == 0, last)):
                for one, count in self._found(codes).items():
                    first.setdefault(one, encoding)
                    counts[one] += count
        return [Hit(*self._owners[at], kind, first[at, kind]) for (at, kind), _ in counts.most_common()]

    def _windows(self, ends: Places, lengths: Places, public: Sequence[Units]) -> None:
        """The sorted hashes of all windows, and where each begins in the rows' units."""
        usable = np.repeat(ends, lengths) - np.arange(len(self._units)) >= WINDOW
        hashes = np.zeros(len(self._units), dtype=np.uint64)
        for start, found in self._hash.windows(self._units, WINDOW):
            hashes[start : start + len(found)] = found
        places = np.flatnonzero(usable)
        hashes = hashes[places]
        said = [found for units in public for _, found in self._hash.windows(units, WINDOW)]
        known = np.isin(hashes, np.concatenate(said)) if said else np.zeros(len(hashes), dtype=np.bool_)
        places, hashes = places[~known], hashes[~known]
        self._searched = set(self._owner_of(places).tolist())
        self._keys, at = np.unique(hashes, return_index=True)
        self._places = places[at]
        self._window_filter = _Filter(self._keys)

    def _mark(self, rows: Sequence[Row], longest: Places, public: Sequence[Units]) -> None:
        marks: dict[tuple[str, Kind], _Mark] = {}
        comments = {row.id for row in rows if row.comment and row.text}
        short, known, unnamed, numbered = set[str](), set[str](), set[str](), set[str]()
        for at, row in enumerate(rows):
            size = int(longest[at])
            for kind, text in _marks_of(row):
                marks.setdefault((text, kind), _Mark(at, kind, text))
            if row.comment and SHORT <= size < WINDOW:
                marks.setdefault((row.text, "text"), _Mark(at, "text", row.text))
            if row.comment and row.text and size < SHORT:
                short.add(row.id)
            if row.group and not _is_name(row.group):
                unnamed.add(row.group)
            if row.comment and row.own_id and not _is_id(row.id):
                numbered.add(row.id)
            if row.comment and size >= WINDOW and at not in self._searched:
                known.add(row.id)
        self._marks = list(marks.values())
        self._index(self._marks)
        if spoken := {one for units in public for one in self._spoken(units)}:
            self._marks = [mark for at, mark in enumerate(self._marks) if at not in spoken]
            self._index(self._marks)
        kinds = Counter(mark.kind for mark in self._marks)
        self.counts = {
            "rows": len(comments),
            "rows too short": len(short),
            "rows that are public": len(known),
            "e-mails": kinds["e-mail"],
            "phones": kinds["phone"],
            "names": kinds["name"],
            "names too short": len(unnamed),
            "ids": kinds["id"],
            "ids too short": len(numbered),
            "tokens": kinds["token"],
        }

    def _index(self, marks: Sequence[_Mark]) -> None:
        """Marks by the hash of their first units: 16 where they have so many, else 8."""
        units, ends = _folded_all([mark.text for mark in marks])
        begins = np.concatenate([[0], ends[:-1]])[: len(ends)]
        self._lengths = np.minimum(ends - begins, LONGEST)
        self._wholes = self._hash.of(units, begins, self._lengths)
        self._heads: list[tuple[int, Hashes, Places, _Filter]] = []
        for size, low, high in ((8, 8, SHORT), (SHORT, SHORT, LONGEST + 1)):
            chosen = np.flatnonzero((self._lengths >= low) & (self._lengths < high))
            if len(chosen):
                heads = self._hash.of(units, begins[chosen], np.full(len(chosen), size))
                order = np.argsort(heads, kind="stable")
                self._heads.append((size, heads[order], chosen[order], _Filter(heads)))

    def _found(self, codes: NDArray[Any]) -> Counter[tuple[int, Kind]]:
        """(row, kind) → how many windows or marks."""
        found: Counter[tuple[int, Kind]] = Counter()
        standing: list[tuple[int, int]] = []
        folded, lengths = _fold_codes(codes)
        for start in range(0, max(len(folded) - 7, 0), CHUNK):
            units = folded[start : start + CHUNK + LONGEST - 1]
            sums = self._hash.sums(units)
            if len(self._keys):
                hashes = self._hash.between(sums, WINDOW)[:CHUNK]
                at = self._window_filter.passing(hashes)
                key = np.searchsorted(self._keys, hashes[at])
                same = self._keys[np.minimum(key, len(self._keys) - 1)] == hashes[at]
                at, places = at[same], self._places[key[same]]
                if len(at):  # the hash decides nothing alone
                    offsets = np.arange(WINDOW)
                    same = (units[at[:, None] + offsets] == self._units[places[:, None] + offsets]).all(
                        1
                    )
                    for owner, count in Counter(self._owner_of(places[same]).tolist()).items():
                        found[owner, "text"] += count
            standing += [
                (start + first, mark) for first, mark in self._marked(sums, len(units)) if first < CHUNK
            ]
        if standing:
            where = np.repeat(np.arange(len(codes)), lengths())
            for first, number in standing:
                mark, length = self._marks[number], int(self._lengths[number])
                if _stands(mark, codes, int(where[first]), int(where[first + length - 1])):
                    found[mark.owner, mark.kind] += 1
        return found

    def _marked(self, sums: Hashes, size: int) -> Iterator[tuple[int, int]]:
        """Where a mark's units stand, and the mark."""
        for head, keys, numbers, filtered in self._heads:
            hashes = self._hash.between(sums, head)
            at = filtered.passing(hashes)
            low = np.searchsorted(keys, hashes[at], "left")
            many = np.searchsorted(keys, hashes[at], "right") - low
            at = np.repeat(at, many)
            within = np.arange(len(at)) - np.repeat(np.cumsum(many) - many, many)
            mark = numbers[np.repeat(low, many) + within]
            fits = at + self._lengths[mark] <= size
            at, mark = at[fits], mark[fits]
            same = self._hash.at(sums, at, self._lengths[mark]) == self._wholes[mark]
            yield from zip(at[same].tolist(), mark[same].tolist(), strict=True)

    def _spoken(self, units: Units) -> set[int]:
        found: set[int] = set()
        for start in range(0, len(units), CHUNK):
            part = units[start : start + CHUNK + LONGEST]
            found |= {mark for _, mark in self._marked(self._hash.sums(part), len(part))}
        return found

    def _owner_of(self, places: Places) -> Places:
        """The rows that these places in the units belong to."""
        return self._window_owner[np.searchsorted(self._ends, places, "right")]


class _Hash:
    """Σ table[unit]·base^j modulo 2⁶⁴, table and base drawn by the key."""

    def __init__(self, key: bytes) -> None:
        rng = np.random.Generator(np.random.PCG64(int.from_bytes(key, "big")))
        self._table = rng.integers(0, 2**64, size=3 * _CODES, dtype=np.uint64)
        base = int(rng.integers(0, 2**61)) * 8 + 5  # of the longest period there is
        size = CHUNK + WINDOW + LONGEST + 1
        self._powers = np.cumprod(np.full(size, base, dtype=np.uint64)) * np.uint64(pow(base, -1, 2**64))
        inverse = np.full(size, pow(base, -1, 2**64), dtype=np.uint64)
        self._inverses = np.cumprod(inverse) * np.uint64(base)

    def sums(self, units: NDArray[Any]) -> Hashes:
        """The hashes of all beginnings, from the empty one on."""
        sums = np.zeros(len(units) + 1, dtype=np.uint64)
        values = self._table[units]
        values *= self._powers[: len(units)]
        np.cumsum(values, out=sums[1:])
        return sums

    def between(self, sums: Hashes, size: int) -> Hashes:
        """The hash of each window."""
        if len(sums) <= size:
            return np.zeros(0, dtype=np.uint64)
        found: Hashes = sums[size:] - sums[:-size]
        found *= self._inverses[: len(found)]
        return found

    def at(self, sums: Hashes, places: Places, lengths: Places) -> Hashes:
        found: Hashes = (sums[places + lengths] - sums[places]) * self._inverses[places]
        return found

    def of(self, units: Units, begins: Places, lengths: Places) -> Hashes:
        """The hash of each piece of `units`, none longer than `LONGEST`."""
        found = np.zeros(len(begins), dtype=np.uint64)
        steps, last, size = np.arange(LONGEST), max(len(units) - 1, 0), 1 << 12
        for start in range(0, len(begins), size):
            some = slice(start, start + size)
            values = self._table[units[np.minimum(begins[some, None] + steps, last)]]
            values *= self._powers[:LONGEST]
            values[steps >= lengths[some, None]] = 0
            found[some] = values.sum(axis=1)
        return found

    def windows(self, units: Units, size: int) -> Iterator[tuple[int, Hashes]]:
        for start in range(0, max(len(units) - size + 1, 0), CHUNK):
            yield start, self.between(self.sums(units[start : start + CHUNK + size - 1]), size)


class _Filter:
    """A bit for each of many more places than keys: says of most hashes that they are no key."""

    def __init__(self, keys: Hashes) -> None:
        self._shift = np.uint64(64 - min(max((64 * len(keys)).bit_length(), 16), 30))
        places = keys >> self._shift
        self._bits = np.zeros(1 << (61 - int(self._shift)), dtype=np.uint8)
        np.bitwise_or.at(self._bits, places >> np.uint64(3), _bit(places))

    def passing(self, hashes: Hashes) -> Places:
        places = hashes >> self._shift
        return np.flatnonzero(self._bits[places >> np.uint64(3)] & _bit(places))


def _bit(places: Hashes) -> NDArray[np.uint8]:
    return np.left_shift(np.uint8(1), (places & np.uint64(7)).astype(np.uint8))


def public_texts(root: Path, patterns: Sequence[str]) -> list[str]:
    """What may be seen by all: the files of `audit.public`. `Problem` where a pattern finds none."""
    found = []
    for pattern in patterns:
        if re.fullmatch("[0-9a-f]{40}", pattern):  # an object of git, see `audit.history`
            continue
        paths = sorted(path for path in root.glob(pattern) if path.is_file())
        if not paths:
            raise Problem("finds no file", where=f"params.yaml: audit.public: {pattern}")
        found += [path.read_text("utf-8") for path in paths]
    return found


def read(raw: Path, tables: Sequence[Path], source: str, settings: Source | None = None) -> list[Row]:
    """The rows of the tables that have a text, and the cells of the raw files that no table holds.

    `settings` says which raw columns are the texts and the authors, and how the files are written.
    """
    rows: list[Row] = []
    seen: set[tuple[str, str]] = set()
    for path in sorted(tables, key=lambda path: (path.stem != "comments", path.stem)):
        for row in _of_table(path, source):
            if (row.text, row.group) not in seen:
                seen.add((row.text, row.group))
                rows.append(row)
    known = {text for pair in seen for text in pair}
    for where, header, text in _cells(raw, settings):
        if text not in known:
            known.add(text)
            if settings and header == settings.group:
                rows.append(Row(source, where, "", text, own_id=False))
            else:
                comment = settings is not None and header == settings.text
                rows.append(Row(source, where, text, own_id=False, comment=comment))
    return rows


def _of_table(path: Path, source: str) -> Iterator[Row]:
    import pyarrow.parquet as pq

    try:
        names = pq.read_schema(path).names
        if not {"id", "text"} <= set(names):
            return
        columns = [name for name in ("id", "text", "group", "file", "sheet", "row") if name in names]
        table = pq.read_table(path, columns=columns).to_pydict()
    except (OSError, ValueError) as error:
        raise _unread(path, error, "Make it anew (`dvc checkout`, `dvc repro`), or remove it.") from None
    empty = [""] * len(table["id"])
    of = {name: table.get(name, empty) for name in ("id", "text", "group", "file", "sheet", "row")}
    for id_, text, name, file, sheet, number in zip(*of.values(), strict=True):
        ours = "-".join([str(file), *([sheet] if sheet else []), str(number)])
        yield Row(source, str(id_), text or "", name or "", own_id=str(id_) != ours)


def _unread(path: Path, error: Exception, remedy: str) -> Problem:
    what = f"can't be read to be searched for ({type(error).__name__})"
    return Problem(what, where=str(path), remedy=remedy)


def _cells(folder: Path, settings: Source | None) -> Iterator[tuple[str, str, str]]:
    """Place, column header and text of each cell that holds a text or a whole number, of all files in
    `folder`. Down to the header's row no cell has a header."""
    from python_calamine import CalamineError

    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith((".", "~$")) for part in path.relative_to(folder).parts)
        if path.is_file() and not hidden and path.suffix not in (".dvc", ".tmp"):
            where = path.relative_to(folder).as_posix()
            try:
                for name, start, first, rows in _tables(path, settings):
                    header: Sequence[object] = ()
                    for number, row in enumerate(rows, start=start):
                        for at, cell in enumerate(row):
                            if text := _text(cell):
                                named = str(header[at]) if at < len(header) else ""
                                yield f"{where}{name}:{number}", named, text
                        header = row if number == first else header
            except (CalamineError, OSError, ValueError, csv.Error) as error:
                raise _unread(path, error, "Remove its password, mend it, or remove it.") from None


def _tables(
    path: Path, settings: Source | None
) -> Iterator[tuple[str, int, int, Iterable[Sequence[object]]]]:
    """Each sheet's name, the number of its first row, that of the header, and the rows."""
    content = path.read_bytes()
    first = settings.header if settings else 1
    if content[:4] in (b"PK\x03\x04", b"\xd0\xcf\x11\xe0"):
        from python_calamine import load_workbook

        book = load_workbook(io.BytesIO(content))
        for sheet in map(book.get_sheet_by_name, book.sheet_names):
            yield f"!{sheet.name}", 1 + (sheet.start or (0, 0))[0], first, sheet.to_python()
    elif content[:4] == b"PAR1":
        import pyarrow.parquet as pq

        table = pq.read_table(path)
        cells = zip(*(one.to_pylist() for one in table.columns), strict=True)
        yield "", 1, 1, [table.column_names, *cells]
    elif path.suffix.lower() == ".jsonl":
        yield "", 1, 1, _objects(_decoded(content, settings))
    else:
        lines = io.StringIO(_decoded(content, settings).replace("\0", ""), newline="")
        given = settings.delimiter if settings else None
        delimiter = given or ("\t" if path.suffix.lower() in (".tsv", ".tab") else ",")
        csv.field_size_limit(2**31 - 1)
        yield "", 1, first, csv.reader(lines, delimiter=delimiter)


def _text(cell: object) -> str:
    """A cell that may name somebody: a text, or a whole number as a person reads it."""
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    return str(cell) if isinstance(cell, str | int) and not isinstance(cell, bool) else ""


def _objects(text: str) -> Iterator[list[object]]:
    """The lines of JSON as rows of a table whose header is all keys."""
    lines = [_value(line) for line in text.split("\n") if line.strip()]
    keys = list(dict.fromkeys(key for line in lines if isinstance(line, dict) for key in line))
    yield list(keys)
    for line in lines:
        yield [_flat(line.get(key)) for key in keys] if isinstance(line, dict) else [_flat(line)]


def _value(line: str) -> object:
    """What the line says; one that is no JSON is a text itself."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return line


def _flat(value: object) -> object:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _decoded(content: bytes, settings: Source | None) -> str:
    told = settings.encoding.lower().replace("_", "-") if settings else ""
    ways = [told] if told not in ("", "utf-8", "utf8") else []
    if content[:2] not in (b"\xff\xfe", b"\xfe\xff"):
        ways.append("utf-8-sig")
    if b"\0" in content:
        ways.append("utf-16")
    for encoding in ways:
        try:
            return content.decode(encoding)
        except (UnicodeError, LookupError):
            continue
    try:
        return content.decode("gb18030")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _marks_of(row: Row) -> Iterator[tuple[Kind, str]]:
    """What in a row names a person: also where it stands alone."""
    for text in (row.text, row.group):
        if "@" in text:
            yield from (("e-mail", one) for one in _EMAIL.findall(text) if _size(one) >= 8)
            yield from (("name", one) for one in _MENTION.findall(text) if _is_name(one))
        for phone in _PHONE.findall(text):
            digits = re.sub(r"\D", "", phone)
            plain = _DATE.match(phone) or digits.endswith("000000") or len(set(digits)) < 3
            if 9 <= len(digits) <= 15 and not plain:
                yield "phone", digits
                if phone.startswith("+"):  # as it is dialled at home: a country's code has 1 to 3 digits
                    yield from (("phone", digits[cut:]) for cut in (1, 2, 3) if len(digits) >= cut + 9)
    if not row.comment:
        return
    for word in _WORD.findall(row.text):
        digits = sum(c.isdigit() for c in word)
        turns = len(_TURN.findall(word))
        if digits >= 3 and (turns >= 2 or (turns and digits >= 6)):
            yield "token", word
    if _is_name(row.group):
        yield "name", row.group
    if row.own_id and _is_id(row.id):
        yield "id", row.id


@functools.lru_cache(1 << 16)
def _is_name(text: str) -> bool:
    """Whether it can be told from ordinary words: long, or with digits."""
    size = _size(text)
    digits = sum(c.isdigit() for c in text)
    return size >= 12 or (size >= 8 and 3 <= digits < size)


def _is_id(text: str) -> bool:
    return len(text) >= 10 if text.isdigit() else _is_name(text)


def _size(text: str) -> int:
    return len(_folded(text)[0])


def _stands(mark: _Mark, codes: Units, first: int, last: int) -> bool:
    """Whether the mark stands there by itself, not by chance within something longer."""

    def char(at: int) -> str:
        return chr(int(codes[at])) if 0 <= at < len(codes) else ""

    before, after = char(first - 1), char(last + 1)
    if mark.kind == "text":
        return _delimited(lambda step: char(first - step)) and _delimited(lambda step: char(last + step))
    spread = last - first + 1 - len(mark.text)
    if mark.kind == "phone":
        return spread <= 8 and not before.isdigit() and before != "." and not after.isdigit()
    if mark.kind == "e-mail":
        return spread <= 8
    return spread <= 2 and not before.isalnum() and not after.isalnum()


def _delimited(char: Callable[[int], str]) -> bool:
    """Whether a text ends here: a quote, a line's or a field's end before the next letter."""
    for step in range(1, 16):
        one = char(step)
        if not one or one < " " or one in _DELIMITERS or one in "\x7f\x85\u2028\u2029":
            return True
        if one in ",;" and char(step + 1) != " ":
            return True
        if one.isalnum():
            return False
    return False


# --- folding -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Fold:
    """code point → its units: `flat[offset : offset + length]`, none for what is no letter or digit."""

    length: NDArray[np.uint8]
    offset: Places
    flat: Units


_ASCII = bytes(ord(chr(c).lower()) if c < 128 else 0 for c in range(256))
_ASCII_DROPPED = bytes(c for c in range(256) if not (c < 128 and chr(c).isalnum()))


@functools.cache
def _fold() -> _Fold:
    length = np.zeros(_CODES, dtype=np.uint8)
    offset = np.zeros(_CODES, dtype=np.int64)
    flat: list[int] = []
    for code in range(0x20000):
        if not (0x3400 <= code <= 0x9FFF or 0xD800 <= code <= 0xF8FF):
            units = _units(chr(code))
            length[code], offset[code] = len(units), len(flat)
            flat += units
    ideographs = [*range(0x3400, 0x4DC0), *range(0x4E00, 0xA000), *range(0x20000, 0x32000)]
    length[ideographs] = 3
    offset[ideographs] = len(flat) + 3 * np.arange(len(ideographs))
    for code in range(0x2F800, 0x2FA20):  # the same character as another one
        ideographs[ideographs.index(0x20000) + code - 0x20000] = ord(
            unicodedata.normalize("NFKD", chr(code))[0]
        )
    thrice = np.array(ideographs, dtype=np.uint32)[:, None] + np.arange(3, dtype=np.uint32) * _CODES
    return _Fold(
        length,
        offset,
        np.concatenate([np.array(flat, dtype=np.uint32), thrice.ravel().astype(np.uint32)]),
    )


def _units(char: str) -> list[int]:
    """Letters and digits of the NFKD casefold; an ideograph as three units, a kana as two."""
    if unicodedata.category(char) == "Nd":
        return [ord(str(unicodedata.digit(char)))]
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", char).casefold())
    units = []
    for one in folded:
        if unicodedata.category(one)[0] in "LN":
            code = ord(one)
            weight = (
                3 if 0x3400 <= code <= 0x9FFF or code >= 0x20000 else 2 if 0x3040 <= code < 0x3100 else 1
            )
            units += [code + time * _CODES for time in range(weight)]
    return units


def _fold_codes(codes: NDArray[Any]) -> tuple[NDArray[Any], Callable[[], NDArray[np.uint8]]]:
    """The units of code points, and how many each gave. ASCII comes and goes as bytes."""
    table = _fold()
    if codes.dtype == np.uint8:
        kept = codes.tobytes().translate(_ASCII, _ASCII_DROPPED)
        return np.frombuffer(kept, dtype=np.uint8), lambda: table.length[codes]
    lengths = table.length[codes]
    kept_codes = codes[lengths > 0]
    if lengths.max(initial=0) <= 1:
        return table.flat[table.offset[kept_codes]], lambda: lengths
    many = lengths[lengths > 0].astype(np.int64)
    places = np.repeat(table.offset[kept_codes] - (np.cumsum(many) - many), many)
    places += np.arange(len(places))
    return table.flat[places], lambda: lengths


def _codes(text: str) -> Units:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


def _folded(text: str) -> tuple[Units, NDArray[np.uint8]]:
    units, lengths = _fold_codes(_codes(text))
    return units, lengths()


def _folded_all(texts: Sequence[str]) -> tuple[Units, Places]:
    """The units of all texts, one after the other, and where each text ends in them."""
    units, lengths = _folded("".join(texts))
    ends = np.array(list(accumulate(map(len, texts))), dtype=np.int64)
    return units, np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])[ends]


def _alphabet(units: Units) -> NDArray[np.bool_]:
    """Which of the first 65,536 code points the rows could be written with: all that fold to units of
    theirs, signs and white space, and the halves of surrogate pairs."""
    known = np.zeros(3 * _CODES, dtype=np.bool_)
    known[units] = True
    table = _fold()
    found = np.array([unicodedata.category(chr(code))[0] in "PSZM" for code in range(1 << 16)])
    folds = np.flatnonzero(table.length[: 1 << 16])
    found[folds] = known[table.flat[table.offset[folds]]]
    found[[9, 10, 13]] = True
    found[0xD800:0xE000] = True
    return found


def _readings(
    content: bytes | str, alphabet: NDArray[np.bool_] | None, ends: tuple[bool, bool]
) -> Iterator[tuple[str, NDArray[Any]]]:
    """`content` as code points in each encoding that could hide a needle; UTF-8 without `alphabet`.

    What isn't UTF-8 is looked at where enough units in a row are of the `alphabet`. `ends`: whether it
    is the beginning, and the end, of something, and not cut within a character.
    """
    if isinstance(content, str):
        yield "text", _codes(content)
        return
    if content.isascii():  # NULs are no letters: Latin text in UTF-16 and UTF-32 is here too
        yield "ascii", np.frombuffer(content, dtype=np.uint8)
        if b"\0" not in content:
            return
    else:
        yield "utf-8", _codes(content.decode("utf-8", "ignore"))
        if b"\0" not in content and _is_utf8(content, *ends):
            return
    if alphabet is None:
        return
    if not content.isascii():
        if len(_CONTROL.findall(content)) * 10 < len(content):
            yield "gb18030", _codes(content.decode("gb18030", "replace"))
        yield "cp1252", _runs(_cp1252()[np.frombuffer(content, dtype=np.uint8)], alphabet, SHORT // 2)
        for at in (0, 1):  # a text that begins within what looks like a character
            yield "gb18030", _runs(_pairs()[_view(content, at, ">u2")], alphabet)
        for first_, last_, names in CHARSETS:
            if alphabet[ord(first_) : ord(last_) + 1].any():
                yield from ((name, _codes(content.decode(name, "replace"))) for name in names)
    for at in (0, 1):
        yield "utf-16-le", _runs(_view(content, at, "<u2"), alphabet)
        yield "utf-16-be", _runs(_view(content, at, ">u2"), alphabet)
    for name, order, pattern in (("utf-32-le", "<u4", _UTF32_LE), ("utf-32-be", ">u4", _UTF32_BE)):
        if pattern.search(content):
            for at in range(4):
                codes = _view(content, at, order)
                yield name, codes[codes < _CODES]


def _is_utf8(content: bytes, first: bool, last: bool) -> bool:
    begin = 0
    while not first and begin < 3 and content[begin : begin + 1] >= b"\x80" and content[begin] < 0xC0:
        begin += 1
    try:
        codecs.getincrementaldecoder("utf-8")().decode(content[begin:], last)
    except UnicodeDecodeError:
        return False
    return True


def _view(content: bytes, at: int, order: str) -> Units:
    count = max((len(content) - at) // int(order[-1]), 0)
    return np.frombuffer(content, dtype=order, count=count, offset=min(at, len(content))).astype(
        np.uint32
    )


@functools.cache
def _cp1252() -> Units:
    return np.array([ord(bytes([c]).decode("cp1252", "replace")) for c in range(256)], dtype=np.uint32)


@functools.cache
def _pairs() -> Units:
    """Two bytes → their character in GBK; 0 where they are none."""
    found = np.zeros(1 << 16, dtype=np.uint32)
    for pair in range(0x8140, 0xFF00):
        char = pair.to_bytes(2, "big").decode("gb18030", "replace")
        found[pair] = ord(char) if len(char) == 1 and char != "\ufffd" else 0
    return found


def _runs(units: Units, alphabet: NDArray[np.bool_], least: int = 5) -> Units:
    """The runs of at least `least` units of the alphabet, a 0 before each. Surrogate pairs are one."""
    edges = np.concatenate([[-1], np.flatnonzero(~alphabet[units]), [len(units)]])
    kept = np.flatnonzero(np.diff(edges) > least)
    starts, sizes = edges[kept], np.diff(edges)[kept]
    begin = np.cumsum(sizes) - sizes
    places = np.repeat(starts - begin, sizes) + np.arange(int(sizes.sum()))
    codes = units[places]
    codes[begin] = 0  # what stood between, which may be before the first
    high = np.flatnonzero((codes[:-1] >> 10 == 0x36) & (codes[1:] >> 10 == 0x37))
    codes[high] = 0x10000 + ((codes[high] & 0x3FF) << 10) + (codes[high + 1] & 0x3FF)
    codes[high + 1] = 0
    return codes
