"""The endpoint door: shards go to a provider's batch service, what comes back is kept as it came.

What is known of a shard lives in `state`, a folder for each provider and voter, in it one for each
shard's digest, in it one a round: the uploaded file and its batch (`batch.json`) and what came back
(`output.jsonl`, `errors.jsonl`). Every step is written down before the next is taken, so a killed run
goes on where it was. The one step that can't be undone is creating a batch, for that is paid: a run
that doesn't know whether a batch was taken on looks for it in the provider's list before it asks again.
Only a provider whose list lags behind by more than a pause between two tries can be paid twice.
"""

import hashlib
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies, proxy_bypass

from tqdm import tqdm

from undertone import params
from undertone.annotation.batch import choice
from undertone.errors import Problem
from undertone.files import read_json, sha256, whole, write_json

if TYPE_CHECKING:
    import httpx2
    import openai

ENDED = ("completed", "failed", "expired", "cancelled")
KINDS = ("output", "errors")
Note = Callable[[str, frozenset[str]], None]  # told of a voter and the custom_ids that leave now
DOWNLOADS = 3  # of a file whose end is missing
FIRST_PAUSE, MOST_PAUSE = 0.5, 8.0  # seconds; openai doubles its pauses in the same way
LONGEST_PAUSE = 120.0  # seconds; what a provider asks for beyond is left to the next run, as openai does
AGAIN = "Run `dvc repro` again: it goes on where it was."
# Of all that a provider says only what looks like this is shown: the rest may echo a comment.
_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)
_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,47}|[0-9]{1,6}")
# HTTP's own, and the key. Else openai adds this machine's system and what else the environment names.
_HEADERS = {
    "accept", "accept-encoding", "authorization", "connection", "content-length", "content-type",
    "host", "transfer-encoding", "user-agent",
}  # fmt: skip


@dataclass(frozen=True)
class _Shard:
    path: Path
    digest: str
    folder: Path  # of its state
    ids: frozenset[str]


@dataclass(frozen=True)
class _Batch:
    """`file`: the uploaded requests. `batch` is None while nobody knows whether it was created,
    `status` while it runs; `output` and `errors` are files at the provider."""

    file: str
    batch: str | None = None
    status: str | None = None
    output: str | None = None
    errors: str | None = None


def answers(
    ballots: Mapping[str, tuple[Sequence[Path], params.Provider]],
    settings: params.Endpoint,
    *,
    allowed: Collection[str],
    note: Note,
    state: Path,
    before: Path,
    out: Path,
) -> str:
    """Have each voter's shards answered, all at a time; into `out` come `<shard>.<round>.output.jsonl`
    and `.errors.jsonl`, byte for byte as the provider wrote them, and the counts are returned.

    What the voter answered in another shard, or in the files of the folder `before` (what `out` holds
    so far, perhaps a colleague's), isn't asked again; it comes into `<shard>.known.jsonl`.
    What got no answer or only errors is asked again, `settings.rounds` times at most, but for a batch
    that somebody cancelled. Only hosts in `allowed` are connected to, and `note` hears of every set of
    requests before it leaves. `Problem` for another host and for a missing key, both before any
    connection, for a refusal, a provider that can't be reached and one that takes too long; `out` is
    then as it was, and another call goes on.
    """
    jobs: dict[_Shard, _Service] = {}
    with _silence(), ExitStack() as stack:
        for voter, (shards, provider) in ballots.items():
            service = stack.enter_context(_Service(provider, voter, settings, allowed, note))
            # an edited shard is another job, another voter or provider another folder of jobs
            whom = hashlib.sha256(f"{(provider.url or '').rstrip('/')}\n{voter}".encode()).hexdigest()
            jobs |= {_shard(path, state / whom): service for path in shards}
        known = _known({job.folder.parent for job in jobs}, before)
        with tqdm(total=len(jobs), desc="batches", unit=" shards", disable=None) as bar:
            _all_rounds(jobs, known.keys(), settings, bar)
    for job in jobs:
        for source in sorted(job.folder.glob("*/*.jsonl")):
            with whole(out / f"{job.path.stem}.{source.parent.name}.{source.name}") as beside:
                shutil.copyfile(source, beside)
        if reused := sorted((job.ids & known.keys()) - _answered(job)):
            with whole(out / f"{job.path.stem}.known.jsonl") as beside:
                beside.write_bytes(b"".join(known[custom] for custom in reused))
    return "; ".join(
        _told(voter, [job for job in jobs if jobs[job].voter == voter], known.keys())
        for voter in ballots
    )


def _all_rounds(
    jobs: Mapping[_Shard, "_Service"], known: Set[str], settings: params.Endpoint, bar: Any
) -> None:
    """Until every shard's last round has ended; all shards run at their providers side by side."""
    running = {job: 0 for job in jobs if job.ids - known or (job.folder / "0").exists()}
    bar.update(len(jobs) - len(running))
    for job in running:
        _begin(job, 0, job.ids - known, jobs[job])
    progress = time.monotonic()
    while running:
        faults: list[Problem] = []
        for job, number in list(running.items()):
            try:
                status = _end(job, number, jobs[job])
            except _Refused as fault:
                faults.append(fault)
                continue
            if status is None:
                continue
            progress = time.monotonic()
            left = job.ids - known - _answered(job)
            if left and number < settings.rounds and status != "cancelled":
                _begin(job, number + 1, left, jobs[job])
                running[job] = number + 1
            else:
                del running[job]
                bar.update()
        if faults:
            raise Problem.together(faults)
        if running and time.monotonic() - progress > settings.wait:
            raise Problem(
                f"{len(running)} of {len(jobs)} batches still run, and none ended in "
                f"{settings.wait:g} seconds",
                where=" and ".join(sorted({jobs[job].where for job in running})),
                remedy=f"{AGAIN} Or raise endpoint.wait.",
            )
        if running:
            time.sleep(settings.poll)


def _begin(job: _Shard, number: int, asked: frozenset[str], service: "_Service") -> None:
    """See to it that the round's batch is created, once."""
    record = job.folder / str(number) / "batch.json"
    # The list knows a batch whose creation wasn't written down; there is none where nothing was.
    resumed = record.exists()
    if not resumed:
        write_json(record, asdict(_Batch(service.upload(job, number, asked))))
    batch = _read(record)
    if batch.batch is None:
        marks = {"sha256": job.digest, "voter": service.voter, "round": str(number)}
        try:
            found = service.create(batch.file, marks, resumed=resumed)
        except _Refused:
            record.unlink()  # nothing was taken on: the next run uploads anew
            raise
        write_json(record, asdict(replace(batch, batch=found)))


def _end(job: _Shard, number: int, service: "_Service") -> str | None:
    """The status with which the round's batch ended, its files downloaded; None while it runs.

    `_Refused` where the provider wouldn't take the shard.
    """
    folder = job.folder / str(number)
    batch = _read(folder / "batch.json")
    forget = f"To ask anew, which is paid again, remove {folder}."
    if batch.status is None:
        assert batch.batch is not None
        answer = service.retrieve(batch.batch, forget)
        status = getattr(answer, "status", None)
        if status not in ENDED:
            return None
        if status == "failed":
            (folder / "batch.json").unlink()  # costs nothing; the next run submits anew
            raise _Refused(
                f"the batch of {job.path.name} failed: {_faults(answer)}",
                where=service.where,
                remedy="Correct the requests, or wait where a quota is used up, and run `dvc repro`.",
            )
        output, errors = (getattr(answer, name, None) for name in ("output_file_id", "error_file_id"))
        batch = replace(batch, status=status, output=output or None, errors=errors or None)
        write_json(folder / "batch.json", asdict(batch))
    for kind, file in zip(KINDS, (batch.output, batch.errors), strict=True):
        path = folder / f"{kind}.jsonl"
        if file is not None and not path.exists():
            name = f"{kind} of {job.path.name}, round {number}"
            content = service.download(file, name, forget)
            with whole(path) as beside:
                beside.write_bytes(content)
    return batch.status


class _Refused(Problem):
    """The provider takes something for wrong, so it has taken nothing on."""


class _Service:
    """A provider's files and batches, with every trouble told as a `Problem` without its words."""

    def __init__(
        self,
        provider: params.Provider,
        voter: str,
        settings: params.Endpoint,
        allowed: Collection[str],
        note: Note,
    ) -> None:
        self.voter = voter
        self._settings = settings
        self._provider = provider
        self._allowed = allowed
        self._note = note
        host = urlsplit(provider.url or "").hostname
        self.where = f"voter {voter} at {host}" if host else f"voter {voter}"
        self._client = self._connected()
        # openai would repeat the creation of a batch of which only the reply was lost
        self._once = self._client.with_options(max_retries=0)

    def __enter__(self) -> "_Service":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def upload(self, job: _Shard, number: int, asked: frozenset[str]) -> str:
        """The id of a new file that holds the shard's requests whose ids are asked."""
        name = f"{job.path.stem}.{number}.jsonl"
        self._note(self.voter, asked)  # an upload that fails may have arrived
        with self._troubles(f"{job.path.name} isn't taken"):
            if asked == job.ids:
                with job.path.open("rb") as file:
                    uploaded = self._client.files.create(file=(name, file), purpose="batch")
            else:
                lines = b"".join(
                    line for at, line in _lines(job.path) if _id(line, job.path, at) in asked
                )
                uploaded = self._client.files.create(file=(name, lines), purpose="batch")
        return self._id_of(uploaded)

    def create(self, file: str, marks: dict[str, str], *, resumed: bool) -> str:
        """The id of the batch of an uploaded file. `resumed`: it may have been created before."""
        import openai

        for attempt in range(self._settings.retries + 1):
            if (resumed or attempt) and (found := self._found(file, marks)):
                return found
            with self._troubles("no batch created", refusal=_Refused):
                try:
                    created = self._once.batches.create(
                        input_file_id=file,
                        endpoint="/v1/chat/completions",
                        completion_window="24h",
                        metadata=marks,
                    )
                except (openai.APIConnectionError, openai.APIStatusError) as error:
                    pause = _pause(error, attempt)
                    if pause is None or attempt == self._settings.retries:
                        raise
                else:
                    return self._id_of(created)
            time.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    def retrieve(self, batch: str, forget: str) -> object:
        with self._troubles(f"no word of batch {batch}", forget):
            answer = self._client.batches.retrieve(batch)
        self._id_of(answer)
        return answer

    def download(self, file: str, name: str, forget: str) -> bytes:
        """The lines of a file, each a JSON object; asked for again where its end is missing."""
        if not _ID.fullmatch(file):
            raise Problem(
                f"the {name}, is named by something else than a file's id",
                where=self.where,
                remedy="Put it into data/raw/answers/ by hand and set the source's `answer: files`.",
            )
        for attempt in range(DOWNLOADS):
            if attempt:
                time.sleep(self._settings.poll)
            with self._troubles(f"no {name}", forget):
                content = self._client.files.content(file).content
            broken = _broken_line(content)
            if broken is None:
                return content
        raise Problem(
            f"the {name}, line {broken}: cut off or no JSON, {DOWNLOADS} times over",
            where=self.where,
            remedy=AGAIN,
        )

    def _found(self, file: str, marks: dict[str, str]) -> str | None:
        """The batch in the provider's list that was made of this file or bears these marks."""
        seen: set[str] = set()
        remedy = (
            "Look on the provider's page. To submit in any case, remove the batch.json that names "
            f"{file} from the endpoint's state."
        )
        with self._troubles(f"no list of batches, to see whether {file} is in one", remedy):
            for batch in self._client.batches.list(limit=100):
                if (name := self._id_of(batch)) in seen:
                    return None  # a list without pages begins again for ever
                seen.add(name)
                marked = getattr(batch, "metadata", None) or {}
                ours = getattr(batch, "input_file_id", None) == file or all(
                    marked.get(key) == value for key, value in marks.items()
                )
                if ours and getattr(batch, "status", None) != "failed":
                    return name
        return None

    def _id_of(self, answer: object) -> str:
        """The id of a file or batch that the provider speaks of."""
        inner = getattr(answer, "data", None)  # where SiliconFlow puts what it says of an upload
        name = inner.get("id") if isinstance(inner, dict) else getattr(answer, "id", None)
        if not isinstance(name, str) or not _ID.fullmatch(name):
            raise self._nonsense()
        return name

    def _nonsense(self) -> Problem:
        return Problem(
            "answered with something that is neither a file nor a batch",
            where=self.where,
            remedy="Check the provider's `url` in params.yaml; most end in /v1.",
        )

    def _connected(self) -> "openai.OpenAI":
        provider, name = self._provider, self._provider.key
        if provider.url is None:
            raise Problem(
                "the provider has no url",
                where=self.where,
                remedy="Set its `url` in params.yaml, or choose another door in `answer`.",
            )
        own = urlsplit(provider.url)
        self._permit(own.hostname or "", "comments may not be sent to")
        key = os.environ.get(name, "").strip() if name else ""
        # a key that HTTP can't carry would be quoted in the error about it
        if not re.fullmatch(r"[!-~]+", key):
            raise Problem(
                f"the environment variable {name} holds no key"
                if name
                else "the provider names no environment variable for its key",
                where=self.where,
                remedy=f"export {name}=…, in the shell that runs `dvc repro`."
                if name
                else "Set its `key` in params.yaml.",
            )
        proxy = _proxy(own)
        if proxy:
            self._permit(urlsplit(proxy).hostname or "", "the environment names a proxy at")
        import httpx2
        import openai

        def checked(request: "httpx2.Request") -> None:
            for header in set(request.headers) - _HEADERS:
                del request.headers[header]
            towards = urlsplit(str(request.url))
            if request.method != "GET" and _origin(towards) != _origin(own):
                raise Problem(
                    "sends the requests on to another host, which is refused",
                    where=self.where,
                    remedy="Check the provider's `url` in params.yaml.",
                )
            self._permit(towards.hostname or "", "sends its answers from")

        return openai.OpenAI(
            api_key=key,
            base_url=provider.url,
            timeout=self._settings.timeout,
            max_retries=self._settings.retries,
            # named here, as OPENAI_CUSTOM_HEADERS would put another in its place
            default_headers={"Authorization": f"Bearer {key}"},
            # the proxy is the one that was checked, and no other that the environment names
            http_client=openai.DefaultHttpx2Client(
                trust_env=False,
                proxy=proxy,
                verify=httpx2.create_ssl_context(),
                event_hooks={"request": [checked]},
            ),
        )

    def _permit(self, host: str, what: str) -> None:
        """`Problem` unless comments may go to this host."""
        if host not in self._allowed:
            shown = host if re.fullmatch(r"[a-z0-9.:-]{1,253}", host) else "another host"
            raise Problem(
                f"{what} {shown}, which privacy.allowed_hosts doesn't name",
                where=self.where,
                remedy=f"If that is meant, add {shown} to privacy.allowed_hosts in params.yaml.",
            )

    @contextmanager
    def _troubles(
        self, doing: str, gone: str = "", *, refusal: type[Problem] = Problem
    ) -> Iterator[None]:
        """openai's errors as one line each. `gone`: what helps where the thing asked for isn't there;
        `refusal`: what is raised where another try is of no use."""
        import openai

        try:
            yield
        except openai.APITimeoutError:
            problem = Problem(
                f"no answer within {self._settings.timeout:g} seconds", where=self.where, remedy=AGAIN
            )
        except openai.APIConnectionError as error:
            cause = type(error.__cause__).__name__
            problem = Problem(f"can't be reached ({cause})", where=self.where, remedy=AGAIN)
        except openai.APIStatusError as error:
            status = error.status_code
            code = f", {shown}" if (shown := _code(error.code)) else ""
            remedies = {
                401: f"Check the key in {self._provider.key}.",
                403: f"The key in {self._provider.key} may not do this: ask the provider for access.",
                404: gone or "Check the provider's `url` in params.yaml; most end in /v1.",
            }
            kind = Problem if _passing(status) else refusal
            remedy = remedies.get(status, "Check the model, and the provider's limits in params.yaml.")
            problem = kind(
                f"{doing} (HTTP {status}{code})",
                where=self.where,
                remedy=AGAIN if _passing(status) else remedy,
            )
        except (ValueError, AttributeError):  # what calls itself JSON, or a list, and is none
            problem = self._nonsense()
        except openai.OpenAIError as error:
            problem = Problem(f"{doing} ({type(error).__name__})", where=self.where, remedy=AGAIN)
        else:
            return
        raise problem from None  # what openai says may hold a text


def _origin(url: SplitResult) -> tuple[str, str | None, int]:
    return url.scheme, url.hostname, url.port or {"http": 80}.get(url.scheme, 443)


def _proxy(url: SplitResult) -> str | None:
    """The proxy that the environment names for this address; none for http://, that is this machine."""
    named = getproxies()
    proxy = named.get(url.scheme) or named.get("all")
    if url.scheme == "http" or not proxy or proxy_bypass(url.netloc):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _shard(path: Path, folder: Path) -> _Shard:
    digest = sha256(path)
    ids = frozenset(_id(line, path, number) for number, line in _lines(path))
    return _Shard(path, digest, folder / digest, ids)


def _known(folders: Iterable[Path], before: Path) -> dict[str, bytes]:
    """custom_id → a line that answers it, in any job's output or in the files of `before`."""
    known: dict[str, bytes] = {}
    sources = [path for folder in folders for path in sorted(folder.glob("*/*/output.jsonl"))]
    for path in (*sources, *sorted(before.glob("*.jsonl"))):
        for custom, fine, line in _outcomes(path):
            if fine:
                known.setdefault(custom, line)
    return known


def _answered(job: _Shard) -> frozenset[str]:
    """The ids that have an answer which is no provider's error, in any round."""
    return frozenset(custom for custom, fine in _heard(job) if fine)


def _heard(job: _Shard) -> Iterator[tuple[str, bool]]:
    """The custom_id of every line that came back for a request of ours, and whether it is an answer."""
    for path in sorted(job.folder.glob("*/*.jsonl")):
        for custom, fine, _ in _outcomes(path):
            if custom in job.ids:
                yield custom, fine


def _outcomes(path: Path) -> Iterator[tuple[str, bool, bytes]]:
    """Of every line with a custom_id: it, whether it is an answer and no error, and the line."""
    for _, line in _lines(path):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue  # `collect` tells of it
        custom = row.get("custom_id") if isinstance(row, dict) else None
        if isinstance(custom, str):
            yield custom, choice(row) is not None, line


def _told(voter: str, jobs: Sequence[_Shard], known: Set[str]) -> str:
    asked = sum(len(job.ids) for job in jobs)
    batches = [_read(record) for job in jobs for record in sorted(job.folder.glob("*/batch.json"))]
    outcomes = [[*_heard(job), *((one, True) for one in job.ids & known)] for job in jobs]
    answered = sum(len({custom for custom, fine in one if fine}) for one in outcomes)
    heard = sum(len({custom for custom, _ in one}) for one in outcomes)
    short = [
        f"{count} {status}"
        for status in ("expired", "cancelled")
        if (count := sum(batch.status == status for batch in batches))
    ]
    ended = f" ({', '.join(short)})" if short else ""
    return (
        f"{voter}: {asked:,} asked in {len(batches)} batches{ended} → {answered:,} answered, "
        f"{heard - answered:,} only errors, {asked - heard:,} without an answer"
    )


def _read(record: Path) -> _Batch:
    return _Batch(**read_json(record))


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a JSONL file that aren't empty, with their numbers from 1 on."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, line if line.endswith(b"\n") else line + b"\n"


def _id(line: bytes, path: Path, number: int) -> str:
    try:
        custom = json.loads(line)["custom_id"]
        assert isinstance(custom, str)
    except (ValueError, LookupError, TypeError, AssertionError, RecursionError):
        raise Problem(
            "no request", where=f"{path}, line {number}", remedy="Run `dvc repro --force request`."
        ) from None
    return custom


def _broken_line(content: bytes) -> int | None:
    """The number of the first line that holds no JSON object."""
    for number, line in enumerate(content.split(b"\n"), 1):
        if line.strip():
            try:
                fine = isinstance(json.loads(line.decode("utf-8")), dict)
            except (ValueError, RecursionError):
                fine = False
            if not fine:
                return number
    return None


def _faults(batch: object) -> str:
    """Codes and lines of a failed batch, the first three."""
    found = []
    errors = getattr(batch, "errors", None)
    listed = getattr(errors, "data", None) or []
    for one in listed[:3]:
        line = getattr(one, "line", None)
        place = f" (line {line})" if isinstance(line, int) else ""
        found.append((_code(getattr(one, "code", None)) or "a fault without a code") + place)
    more = [f"{len(listed) - 3:,} more"] if len(listed) > 3 else []
    return ", ".join([*found, *more]) or "no reason is given"


def _code(code: object) -> str:
    text = str(code)
    return text if code is not None and _CODE.fullmatch(text) else ""


def _pause(error: "openai.APIConnectionError | openai.APIStatusError", attempt: int) -> float | None:
    """Seconds until the next try, or None where there is no use in one, as openai has it: what the
    provider asks for, else one that doubles."""
    response = getattr(error, "response", None)
    if response is None:
        return min(FIRST_PAUSE * 2.0**attempt, MOST_PAUSE)
    if not _passing(response.status_code) or response.headers.get("x-should-retry") == "false":
        return None
    try:
        asked = float(response.headers.get("retry-after", 0))
    except ValueError:
        asked = 0.0  # a date, which nobody sends for a pause of seconds
    if asked > LONGEST_PAUSE:
        return None
    return float(asked) if asked > 0 else min(FIRST_PAUSE * 2.0**attempt, MOST_PAUSE)


def _passing(status: int) -> bool:
    """Whether another try may end otherwise; the request may have been taken on all the same."""
    return status in (408, 409, 429) or status >= 500


@contextmanager
def _silence() -> Iterator[None]:
    """No record of any logger: with OPENAI_LOG=debug openai logs its requests, others their headers."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
