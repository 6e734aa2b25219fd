"""Kinds of data, known by path and content alone: why a file or a message may not go into git.

Nothing here knows the private texts; what only looks like code or prose is found by the text search
(`undertone audit`), where the data are. Standard library only, so that it runs anywhere.
"""

import base64
import binascii
import csv
import json
import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from pathlib import PurePosixPath

LIMIT = 1_000_000  # bytes; the largest source file here is far below
LINK, MODULE = "120000", "160000"  # git's modes

_PRIVATE = {"data", "models", "mlartifacts", "mlruns", "dvc_plots"}
_OWN = {".server", "unsent", ".cache"}
_KEPT = {"data/README.md", "data/raw/answers/README.md", "models/README.md", "reports/runs.jsonl"}
_KEPT |= {"data/raw/reviews/README.md"}
_EMPTY = re.compile(r"data/raw/(answers|reviews)/[a-z][a-z0-9_]*/\.gitkeep")
# the page of `undertone serve`, here and where git's past has it
_KEPT |= {"undertone/deployment/service.html", "undertone/service.html"}
_SUFFIXES = {
    **dict.fromkeys(
        ".xlsx .xlsm .xlsb .xls .ods .csv .tsv .jsonl .ndjson .parquet .feather .arrow .avro .orc "
        ".db .sqlite .sqlite3 .duckdb .h5 .hdf5 .sav .dta .rds .rdata .doc .docx .pdf".split(),
        "files hold data",
    ),
    **dict.fromkeys(
        ".safetensors .onnx .bin .pt .pth .ckpt .gguf .pkl .pickle .joblib .npy .npz .msgpack".split(),
        "files hold weights or arrays, or run code when they are loaded",
    ),
    **dict.fromkeys(".zip .gz .tgz .bz2 .xz .zst .7z .tar .rar .whl".split(), "archives can't be read"),
    **dict.fromkeys(".tmp .swp .bak .orig .log .out .err".split(), "files are left behind by programs"),
    **dict.fromkeys(".html .htm .mht".split(), "pages are made from results, and may show rows"),
    **dict.fromkeys(".pem .key .p12 .pfx .kdbx .env".split(), "files hold keys"),
}
_KEYS = {".env", ".netrc", ".pypirc", "id_rsa", "id_ecdsa", "id_ed25519", "authorized_keys"}
_KEYS |= {"credentials", "credentials.json", ".git-credentials", ".pgpass", ".htpasswd"}
_PLAIN = {"requirements.txt", "LICENSE.txt", "robots.txt"}
# A file keeps its first bytes when it is renamed.
_MAGIC = {
    b"PK\x03\x04": "a zip archive or workbook",
    b"\xd0\xcf\x11\xe0": "an old or encrypted Office file",
    b"PAR1": "a parquet table",
    b"ARROW1": "an Arrow table",
    b"SQLite format 3\0": "a database",
    b"\x1f\x8b": "a gzip archive",
    b"\xfd7zXZ\0": "an xz archive",
    b"BZh": "a bzip2 archive",
    b"\x28\xb5\x2f\xfd": "a zstd archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"\x93NUMPY": "an array",
    b"\x89HDF": "an HDF5 file",
    b"%PDF": "a PDF",
    **{b"\x80" + bytes([protocol]): "a pickle" for protocol in (2, 3, 4, 5)},
}
# Where sentences are meant to stand in JSON: path, and the names of what holds them.
_SENTENCES: Mapping[str, set[str]] = {
    "reports/*/request.json": {"rendered"},  # a prompt about an example of the codebook
    "reports/*/prompt.json": {"rendered"},  # the same of what writes new rows
    "reports/*/rows/*.json": {"dropped"},  # for which reasons
    "reports/*/pseudo.json": {"left_out"},  # the same
    "reports/*/selection.json": {"why", "encoder_why"},
    "reports/*/release.json": {"refused"},  # by which numbers
    "reports/*/latency.json": {"machine"},  # a processor has a long name
    "tests/published.json": {"source", "report", "experiments"},
}
_TEXTS = {"text", "texts", "comment", "comments", "sentence", "content", "body", "post", "tweet"}
_TEXTS |= {"message", "评论", "文本", "内容", "正文", "评论内容"}

_LETTERS = re.compile(r"[^\W\d_]{2}")
_WITHOUT_SPACES = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\u0e00-\u0e7f]")
_RUN = re.compile(r"[A-Za-z0-9+/_-]{40,}")
_HEX = re.compile(r"(?:[0-9a-fA-F]{2}){24,}|(?:\\x[0-9a-fA-F]{2}){12,}")
_ESCAPED = re.compile(
    r"(?:\\u[0-9a-fA-F]{4}[ !,.?]{0,2}){12,}|(?:%[0-9a-fA-F]{2}){12,}|(?:&#x?[0-9a-fA-F]{2,6};){12,}"
)
_KEY = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----|\bAKIA[0-9A-Z]{16}\b(?<!EXAMPLE)|\bhf_[A-Za-z]{34}\b"
    r"|\bgh[pousr]_[A-Za-z0-9]{36}\b|\bsk-[A-Za-z0-9_-]{40,}\b"
)
# A setting that is secret, and has a value that is no placeholder.
_SECRET = re.compile(
    r"^[ \t]*(?!ask_)(\w*(?:password|passphrase|secret\w*|token|account_key|connection_string"
    r"|access_key_id|customer_key|api_key))[ \t]*[=:][ \t]*[^\s<$%{]",
    re.MULTILINE | re.IGNORECASE,
)
_ADDRESS = re.compile(r"://[^\s/@:\[]*:(?!\d+/)[^\s<${]\S*@")  # user:password@; a port is none
_POINTER = re.compile(
    r"outs:|[ -]*(md5: [0-9a-f]{32}(\.dir)?|(size|nfiles): \d+|hash: md5|path: .{1,100}"
    r"|remote: [\w-]+|isexec: true|push: false)"
)
_HEADER = re.compile(r'"?\w[\w. -]{0,30}"?([,;\t|])(?! )(?:"?\w[\w. -]{0,30}"?\1)*"?\w[\w. -]{0,30}"?')
_NUMBERED = re.compile(r'"?[A-Za-z]{0,12}[-_]?\d{1,20}"?([,;\t|])\S')
_PNG = b"\x89PNG\r\n\x1a\n"
_DRAWN = {*b"IHDR PLTE IDAT IEND gAMA cHRM sRGB pHYs iCCP tRNS bKGD sBIT tIME".split()}


def of_file(path: str, content: bytes, *, mode: str = "100644", size: int | None = None) -> str | None:
    """Why the file may not be committed, or None.

    `content` may be cut where `size` is above `LIMIT`; of a link it is where it leads.
    """
    if found := _of_path(path) or _of_mode(path, content, mode):
        return found
    if _EMPTY.fullmatch(path):
        return "what keeps a folder of data/ has to be empty" if content else None
    if mode == LINK:
        return None
    for magic, name in _MAGIC.items():
        if content.startswith(magic):
            return f"it is {name} under another name"
    size = len(content) if size is None else size
    if size > LIMIT:
        return f"{size / 1e6:.1f} MB is more than a source file should have"
    if path.endswith(".png"):
        return _of_picture(path, content)
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        return "it is neither UTF-8 text nor a picture in docs/"
    return _of_form(path, text) or of_text(text)


def of_text(text: str) -> str | None:
    """Why a text may not be committed as a part of a file or as a message, or None."""
    if _KEY.search(text):
        return "it holds a private key or an access token"
    return _encoded(text) or _table(text)


def secrets_in(settings: str) -> list[str]:
    """The names of what is secret in a file of settings; never a value."""
    found = sorted({match[1].lower() for match in _SECRET.finditer(settings)})
    return found + ["a password in a url"] * bool(_ADDRESS.search(settings))


def of_name(path: str) -> str | None:
    """Why a name of a file, a branch or a tag is no name, or None."""
    for part in PurePosixPath(path).parts:
        if len(part) > 100 or part.count(" ") > 4 or len(_WITHOUT_SPACES.findall(part)) > 15:
            return "the name is as long as a text"
        if not part.isprintable():
            return "the name holds control characters or no UTF-8"
    return None


def shown(path: str) -> str:
    """`path` for people; a name that may be a text is cut."""
    if of_name(path) is None:
        return path
    return "/".join(f"{part[:8]}…" if of_name(part) else part for part in PurePosixPath(path).parts)


def _of_path(path: str) -> str | None:
    pure = PurePosixPath(path)
    name, suffix = pure.name, pure.suffix.lower()
    if path in _KEPT or _EMPTY.fullmatch(path):
        return None
    if pure.parts[0] in _PRIVATE and suffix != ".dvc":
        return f"{pure.parts[0]}/ holds private data; DVC tracks it, git only the .dvc files"
    if pure.parts[0] in _OWN:
        return f"{pure.parts[0]}/ is this machine's own: passwords, or runs that wait for the server"
    if pure.parts[0] == ".dvc" and path not in (".dvc/config", ".dvc/.gitignore", ".dvcignore"):
        return "of .dvc/ only config goes into git: the rest holds keys, data and logs"
    if name.lower() in _KEYS or {".ssh", ".aws"} & set(pure.parts):
        return "it is a place for keys"
    if suffix in _SUFFIXES or name in _SUFFIXES:
        return f"{suffix or name} {_SUFFIXES[suffix or name]}"
    if (
        name.endswith("~")
        or name.startswith((".~lock.", "~$"))
        or re.search(r"\.(db|sqlite)-\w+$", name)
    ):
        return "a program left it behind, with a part of what it was reading"
    if suffix == ".txt" and name not in _PLAIN:
        return "plain .txt is how texts are kept; documentation is .md"
    return of_name(path)


def _of_mode(path: str, content: bytes, mode: str) -> str | None:
    if mode == MODULE:
        return "a repository within this one, which no check looks into"
    if mode == LINK:
        leads = PurePosixPath(content.decode(errors="replace"))
        inside = (PurePosixPath(path).parent / leads).as_posix()
        if leads.is_absolute() or ".." in leads.parts or _of_path(inside):
            return "a link out of the repository or to private data"
    return None


def _of_form(path: str, text: str) -> str | None:
    """What only files of some kinds can have wrong."""
    pure = PurePosixPath(path)
    if pure.suffix == ".dvc":
        strange = [line for line in text.splitlines() if not _POINTER.fullmatch(line)]
        return "more than a pointer of DVC holds" if strange or not text.strip() else None
    if pure.suffix in (".json", ".jsonl", ".ipynb", ".dvcplot"):
        return _of_json(path, text)
    if path == ".dvc/config" or pure.suffix in (".ini", ".cfg", ".conf"):
        if secret := secrets_in(text):
            return f"it holds {', '.join(secret)}; put that into .dvc/config.local or the environment"
    if pure.suffix == ".md":
        if re.match(r"---\n(.*\n)*?(library_name|base_model|tags|widget|license):", text):
            return "a model card, which repeats texts of the training"
    return None


def _of_json(path: str, text: str) -> str | None:
    try:
        documents = (
            [json.loads(line) for line in text.splitlines() if line.strip()]
            if path.endswith(".jsonl")
            else [json.loads(text)]
        )
    except (ValueError, RecursionError):
        return "it can't be read as JSON"
    if path.endswith(".ipynb"):
        cells = documents[0].get("cells", []) if isinstance(documents[0], dict) else []
        if any(cell.get("outputs") or cell.get("attachments") for cell in cells):
            return "a notebook with outputs; clear them (`jupyter nbconvert --clear-output --inplace`)"
        return None
    allowed = {name for place, names in _SENTENCES.items() if fnmatch(path, place) for name in names}
    if any(_told(document, allowed, words=6) for document in documents):
        return "JSON with sentences in it; results are numbers and names"
    return None


def _told(document: object, allowed: set[str], *, words: int) -> bool:
    """Whether a key or a string is a text: has so many words, or two where its name says text."""
    return any(
        _prose(text, 2 if name.lower() in _TEXTS else words)
        for name, text in _strings(document, "", allowed)
    )


def _strings(value: object, name: str, allowed: set[str]) -> Iterator[tuple[str, str]]:
    """All keys, and strings with the names they stand under, but nothing below a name of `allowed`."""
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, list):
        for one in value:
            yield from _strings(one, name, allowed)
    elif isinstance(value, dict):
        for key, one in value.items():
            if key not in allowed:
                yield "", key
                yield from _strings(one, key, allowed)


def _prose(text: str, words: int = 6) -> bool:
    """Whether it has so many words, or twice as many characters of a script without spaces.

    Names, paths and digests are one word."""
    spaced = sum(_LETTERS.search(word) is not None for word in text.split())
    return spaced >= words or len(_WITHOUT_SPACES.findall(text)) >= 2 * words


def _encoded(text: str) -> str | None:
    if _ESCAPED.search(text):
        return "text in escapes"
    for match in _HEX.finditer(text):
        digits = match[0].replace("\\x", "")
        if _reads(bytes.fromhex(digits)):
            return "text in hex"
        if len(digits) >= 256 and len(set(digits)) > 8:
            return "a long run of hex"
    lines = 0  # one after the other that are base64 and nothing else
    for line in text.splitlines():
        whole = line.strip(" \t\"'`,+\\()#;=")
        lines = lines + 1 if _RUN.fullmatch(whole) and _mixed(whole) else 0
        if lines == 4:
            return "lines of base64"
        for match in _RUN.finditer(line):
            run = match[0]
            if len(run) >= 200 and _mixed(run):
                return "a long run of base64"
            for start in range(4):  # a run may begin within another word
                piece = run[start : start + (len(run) - start) // 4 * 4].translate(_STANDARD)
                try:
                    decoded = base64.b64decode(piece)
                except binascii.Error:
                    continue
                if start == 0 and any(decoded.startswith(magic) for magic in _MAGIC if len(magic) > 3):
                    return "an archive, table or pickle in base64"
                if _reads(decoded):
                    return "text in base64"
    return None


_STANDARD = str.maketrans("-_", "+/")


def _mixed(run: str) -> bool:
    """Whether it has what base64 of anything long has, and a digest, a path or a ruler hasn't."""
    kinds = (str.isupper, str.islower, str.isdigit)
    return all(sum(map(kind, run)) >= len(run) / 32 for kind in kinds) and run.count("/") < len(run) / 8


def _reads(data: bytes) -> bool:
    """Whether bytes, cut anywhere, are text."""
    for start in range(min(4, len(data))):
        if data[start] & 0xC0 != 0x80:
            data = data[start:]
            break
    text = data.decode("utf-8", "replace").removesuffix("\ufffd")
    plain = text.translate(_BLANKS)
    return len(plain) >= 8 and plain.isprintable() and "\ufffd" not in plain and len(set(plain)) > 4


_BLANKS = str.maketrans("\n\r\t", "   ")


def _table(text: str) -> str | None:
    lines = [line.strip() for line in text.splitlines()]
    numbered = objects = 0
    for at, line in enumerate(lines):
        if (header := _HEADER.fullmatch(line)) and _rows(lines[at + 1 : at + 4], header[1], line) >= 2:
            return "a table of texts"
        match = _NUMBERED.match(line)
        numbered = numbered + 1 if match and _prose(line, 4) else 0
        objects += line.startswith("{") and line.endswith("}") and _object(line)
        if numbered == 4 or objects == 2:
            return "rows of texts"
        cells = {cell.strip(" *`").lower() for cell in line.strip("|").split("|")}
        if (
            line.startswith("|")
            and cells & _TEXTS
            and any(_prose(one, 4) for one in lines[at + 2 : at + 5])
        ):
            return "a table of texts"
    return None


def _rows(lines: list[str], delimiter: str, header: str) -> int:
    """How many of the lines have as many cells as the header, and a text in one of them."""
    names = [cell.strip('" ').lower() for cell in header.split(delimiter)]
    words = 1 if _TEXTS & set(names) else 3
    try:
        rows = list(csv.reader(lines, delimiter=delimiter))
    except csv.Error:
        return 0
    return sum(len(row) == len(names) and any(_prose(cell, words) for cell in row) for row in rows)


def _object(line: str) -> bool:
    try:
        return _told(json.loads(line), set(), words=4)
    except (ValueError, RecursionError):
        return False


def _of_picture(path: str, content: bytes) -> str | None:
    """A PNG holds its picture only: no texts beside it, and nothing after its end."""
    if not path.startswith("docs/"):
        return "pictures stand in docs/; others are drawn from results"
    if not content.startswith(_PNG):
        return "no PNG under a PNG's name"
    at = len(_PNG)
    while at < len(content):
        kind, size = content[at + 4 : at + 8], int.from_bytes(content[at : at + 4], "big")
        if kind not in _DRAWN and size > 100:
            return "a PNG with more than its picture"
        at += 12 + size
        if kind == b"IEND":
            break
    return None if at == len(content) else "a PNG with something after its end"
