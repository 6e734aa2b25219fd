"""The doors by which answers come in; each leaves files as a batch service gives them back."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from undertone import bases, batch, endpoint, local, params, simulated, tables
from undertone.codebook import Codebook
from undertone.errors import Problem
from undertone.files import read_json, root, write_json
from undertone.request import ASKED, shards

STATE = Path("data/.batches")  # what was paid for; no output of DVC's, so it outlives a killed stage

Voters = Mapping[str, params.Voter]


def from_files(source: str, folder: Path, out: Path) -> str:
    """Copies of the files that lie in `folder`; `Problem` where there is none, or of another kind."""
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
            remedy=f"Send data/{source}/requests/*.jsonl to your provider, put the files that come back "
            f"there (any names, error files too), `dvc add {folder}`, and run `dvc repro` again.",
        )
    for path in found:
        for _ in batch.read(path):  # told here, where the file can be mended
            pass
        copy = out / path.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    return f"{len(found)} files"


def from_endpoint(
    source: str,
    requests: Path,
    voters: Voters,
    providers: Mapping[str, params.Provider],
    settings: params.Endpoint,
    before: Path,
    out: Path,
) -> str:
    """What each voter's batch service gives back; `before` holds the answers so far, if there are any.

    What is submitted is noted beside the state, whatever becomes of the requests' own record. `Problem`
    where a provider may not read the source.
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
    _note(read_json(requests / "egress.json"), source)
    return endpoint.answers(ballots, settings, state=root() / STATE, before=before, out=out)


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


def _note(egress: Mapping[str, Any], source: str) -> None:
    """Add to the record of all that was ever submitted, one line a voter and set of requests."""
    record = root() / STATE / "egress.jsonl"
    record.parent.mkdir(parents=True, exist_ok=True)
    known = set(record.read_text("utf-8").splitlines()) if record.exists() else set()
    lines = [json.dumps({"source": source, **one}, ensure_ascii=False) for one in egress["voters"]]
    with record.open("a", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines if line not in known)


def nobody(out: Path) -> str:
    """No voters: the labels came with the table."""
    write_json(out / "none.json", {"voters": []})  # DVC keeps no empty folder apart from a missing one
    return "no voters"


def _visible(path: Path, folder: Path) -> bool:
    names = path.relative_to(folder).parts
    return not any(name.startswith(".") for name in names) and path.name != "README.md"
