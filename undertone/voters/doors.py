"""The doors by which answers come in; each leaves files as a batch service gives them back."""

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from undertone import params, tables
from undertone.annotation import batch
from undertone.codebook import Codebook
from undertone.errors import Problem, counted
from undertone.files import read_json, root, write_json
from undertone.networks import bases
from undertone.voters import endpoint, local, simulated
from undertone.voters.request import ASKED, shards

STATE = Path("data/.batches")  # what was paid for; no output of DVC's, so it outlives a killed stage
RECORD = "sent.jsonl"  # in it: what left this machine, a line an upload
_WHOM = ("voter", "provider", "host", "model", "prompt", "prompt_sha256")

ANSWER = "answer"  # the stage that asks voters

Voters = Mapping[str, params.Voter]


def from_files(source: str, folder: Path, out: Path, *, requests: str = "requests") -> str:
    """Copies of the files that lie in `folder`; `Problem` where there is none, or of another kind.

    `requests`: the folder in the source's data that holds what is asked.
    """
    found = sorted(path for path in folder.rglob("*") if path.is_file() and _visible(path, folder))
    strangers = [path for path in found if path.suffix != ".jsonl"]
    if strangers:
        raise Problem(
            f"{len(strangers)} files are no .jsonl, the first is {strangers[0].name}",
            where=str(folder),
            remedy="Unpack or take them away; what a batch service gives back is .jsonl.",
        )
    if not found:
        astray = [path for path in folder.parent.glob("*.jsonl") if path.is_file()]
        hint = f"; {len(astray)} lie in the folder above" if astray else ""
        raise Problem(
            f"no answers to the requests of '{source}'{hint}",
            where=str(folder),
            remedy=f"Send data/{source}/{requests}/*.jsonl to your provider, put what comes back into "
            f"that folder (any names, error files too), `dvc add {folder}`, and run `dvc repro` again.",
        )
    for path in found:
        for _ in batch.read(path):  # told here, where the file can be mended
            pass
        copy = out / path.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    return counted(len(found), "file")


def from_endpoint(
    source: str,
    requests: Path,
    voters: Voters,
    providers: Mapping[str, params.Provider],
    settings: params.Endpoint,
    allowed: Collection[str],
    before: Path,
    sent: Path,
    out: Path,
    *,
    stage: str = ANSWER,
    joined: str | None = None,
) -> str:
    """What each voter's batch service gives back; `before` holds the answers so far, if there are any.

    Whatever is submitted is noted first: with its ids beside the state, and without them in `sent`.
    `joined`: what stands between the ids of a request that holds several comments. `Problem` where a
    provider may not read the source, or its host isn't among `allowed`.
    """
    for name, voter in voters.items():
        if source not in providers[voter.provider].may_read:
            raise Problem(
                f"voter {name}: {voter.provider} may not read the comments of '{source}'",
                where="params.yaml",
                remedy=f"If they may go there, add {source} to providers.{voter.provider}.may_read.",
            )
    ballots = {
        name: (shards(requests, name), providers[voter.provider]) for name, voter in voters.items()
    }
    asked = tables.read(requests / "asked.parquet", ASKED, key="custom_id")
    held = [one.split(joined) if joined else [one] for one in asked["id"]]
    ids = dict(zip(asked["custom_id"], held, strict=True))
    planned = {one["voter"]: one for one in read_json(requests / "egress.json")["voters"]}

    def note(voter: str, leaving: frozenset[str]) -> None:
        _note(
            {
                "source": source,
                "stage": stage,
                **{key: planned[voter][key] for key in _WHOM},
                "at": datetime.now(UTC).isoformat(timespec="seconds"),
                "requests": len(leaving),
                "ids": sorted(id_ for one in leaving for id_ in ids[one]),
            }
        )
        summarise(source, sent, stage=stage)

    return endpoint.answers(
        ballots,
        settings,
        allowed=allowed,
        note=note,
        state=root() / STATE,
        before=before,
        out=out,
    )


def from_local_model(
    source: str, requests: Path, voters: Voters, settings: params.Local, out: Path
) -> str:
    """What a language model on this machine answers; a voter's model is a base, see `bases`."""
    state = root() / STATE / source
    told = []
    for name, voter in voters.items():
        base = state / "bases" / hashlib.sha256(voter.model.encode()).hexdigest()[:16]
        # a folder may hold another model by now; a hub's commit can't
        if voter.model.startswith("path:") or not (base / "base.json").exists():
            shutil.rmtree(base, ignore_errors=True)
            bases.materialise(voter.model, base)
        told.append(
            local.answers(
                shards(requests, name),
                name,
                base,
                batch=settings.batch,
                seed=settings.seed,
                state=state / name,
                out=out,
            )
        )
    return "; ".join(told)


def from_simulation(
    source: str,
    requests: Path,
    voters: Voters,
    comments: pd.DataFrame,
    codebook: Codebook,
    seed: int,
    out: Path,
) -> str:
    """What the stand-in's voters answer; `Problem` where the comments come without a truth."""
    if "meta.truth" not in comments:
        raise Problem(
            "simulated voters answer only about the stand-in, which holds a column `truth`",
            where=f"params.yaml: answer.{source}",
            remedy="Choose files, endpoint or local.",
        )
    truth = dict(zip(comments["id"], comments["meta.truth"].fillna(""), strict=True))
    asked = tables.read(requests / "asked.parquet", ASKED, key="custom_id")
    return simulated.answers(asked, truth, voters, codebook, seed=seed, out=out)


def summarise(source: str, sent: Path, *, stage: str = ANSWER) -> None:
    """Write what a stage ever sent of a source, and to whom, into `sent`: counts and days, no ids.

    An entry stands for what one clone sent to one model under one prompt. `record_sha256` is over that
    clone's record of it, whose random `nonce` keeps the ids from being guessed. What `sent` says of
    other clones stays. `Problem` where the record is damaged.
    """
    lines = _recorded()
    clone = hashlib.sha256(lines[0][0]).hexdigest()[:12] if lines else ""
    parts: dict[tuple[str, ...], list[tuple[bytes, dict[str, Any]]]] = {}
    for line, one in lines:
        if one["source"] == source and one.get("stage", ANSWER) == stage:
            parts.setdefault(tuple(str(one[key]) for key in _WHOM), []).append((line, one))
    entries = [one for one in _entries(sent) if one["clone"] != clone]
    for whom, noted in sorted(parts.items()):
        told = [one for _, one in noted]
        entries.append(
            {
                **dict(zip(_WHOM, whom, strict=True)),
                "clone": clone,
                "uploads": len(told),
                "requests": sum(one["requests"] for one in told),
                "comments": len({id_ for one in told for id_ in one["ids"]}),
                "first": told[0]["at"][:10],
                "last": told[-1]["at"][:10],
                "record_sha256": hashlib.sha256(b"\n".join(line for line, _ in noted)).hexdigest(),
            }
        )
    write_json(sent, {"sent": entries})


def _entries(sent: Path) -> list[dict[str, Any]]:
    found = read_json(sent)["sent"] if sent.exists() else []
    assert isinstance(found, list)
    return found


def _recorded() -> list[tuple[bytes, dict[str, Any]]]:
    """This clone's record, each line as it stands and read. A last one without its end was cut off
    before anything left, see `_note`, and doesn't count."""
    record = root() / STATE / RECORD
    *lines, _ = record.read_bytes().split(b"\n") if record.exists() else [b""]
    found = []
    for number, line in enumerate(lines, 1):
        try:
            one = json.loads(line)
            missing = {"source", "at", "requests", "ids", *_WHOM} - one.keys()
        except (ValueError, AttributeError):
            missing = {"all"}
        if missing:
            raise Problem(
                "not a line of this record any more",
                where=f"{STATE / RECORD}, line {number}",
                remedy="Restore it from a backup, or move it away: what sent.json says of it stays.",
            )
        found.append((line, one))
    return found


def _note(sending: Mapping[str, Any]) -> None:
    """Add a line to this clone's record of all that it ever sent, before it is sent."""
    record = root() / STATE / RECORD
    record.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps({**sending, "nonce": secrets.token_hex(16)}, ensure_ascii=False)
    with record.open("ab+") as file:
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)  # what a killed run, or a full disk, cut off
        file.write(f"{line}\n".encode())
        file.flush()
        os.fsync(file.fileno())


def nobody(out: Path) -> str:
    """No voters, for the labels came with the table; or no writer, for no rows are wanted."""
    write_json(out / "none.json", {"voters": []})  # DVC keeps no empty folder apart from a missing one
    return "nobody is asked"


def _visible(path: Path, folder: Path) -> bool:
    names = path.relative_to(folder).parts
    return not any(name.startswith(".") for name in names) and path.name != "README.md"
