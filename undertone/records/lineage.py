"""From a registered version back to its commit, settings and data, and how to get them again; and
whether what is here still is what it was made from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from undertone import files
from undertone.corpus import digests
from undertone.errors import Problem
from undertone.labels import LabelSpace
from undertone.records import registry
from undertone.records.provenance import git

DIFFERS = "differs"


def lineage(name: str) -> dict[str, Any]:
    """All that leads to the version called `models:/gender@champion`, `gender/3` or `3`.

    `commit` is the first whose dvc.lock holds the model's bytes. It comes after `trained_on`, the
    commit on which training started, whose dvc.lock still names the model before; it is empty while
    dvc.lock isn't committed. `digests` maps what is behind the model to its md5, `parts` the split's
    parts to sha256 (see `digests.parts`); `commands` bring model and data back.
    """
    version = registry.find(name)
    tags = {**version.run_tags, **version.tags}
    root = files.root()
    commit = holder(tags["model.md5"], root)
    return {
        "version": f"{version.model}/{version.number}",
        "aliases": list(version.aliases),
        "role": tags["role"],
        "candidate": tags["candidate"],
        "family": tags["family"],
        "source": tags["source"],
        "path": tags["dvc.path"],
        "md5": tags["model.md5"],
        "run": version.run_id,
        "run_name": version.run_name,
        "experiment": version.tags["experiment"],
        "trained_on": version.tags["commit"],
        "dirty": version.run_tags.get("git.dirty") == "true",
        "commit": commit,
        "base": tags.get("base", ""),
        "seed": tags.get("seed", ""),
        "codebook": tags.get("codebook", ""),
        "codebook_md5": tags.get("codebook.md5", ""),
        "data": _under(tags, "data."),
        "parts": _under(tags, "digest."),
        # a run that stands in has those of the machine that registered
        "libraries": _under({} if registry.RESTORED in tags else tags, "version."),
        "params": dict(version.params),
        "metrics": dict(version.metrics),
        "commands": commands(
            commit,
            _yaml_at(commit, "dvc.lock", root),
            path=tags["dvc.path"],
            source=tags["source"],
            current=str(_yaml_at(commit, "params.yaml", root).get("data", {}).get("source", "")),
        ),
    }


def describe(name: str) -> str:
    """`lineage` for a reader."""
    found = lineage(name)
    changes = ", with changes that no commit holds" if found["dirty"] else ""
    ran = f"commit {found['trained_on'][:12]}{changes}: the code that ran" if found["trained_on"] else ""
    held = found["commit"][:12]
    libraries = ", ".join(f"{key} {value}" for key, value in sorted(found["libraries"].items()))
    shown = {
        "model": f"{found['version']} ({', '.join(found['aliases']) or 'no alias'})",
        "made by": f"{found['role']} {found['candidate']} ({found['family']}) on {found['source']}",
        "run": f"{found['run_name']} ({found['run']})",
        "experiment of DVC": found["experiment"] or "none",
        "trained on": ran or "unknown here: DVC brought the model from its cache",
        "kept by": f"commit {held}: the first whose dvc.lock holds the model" if held else "no commit",
        "base": found["base"] or "none",
        "seed": found["seed"] or "unknown",
        "libraries": libraries or "unknown",
        **{where: f"{kind} {digest}" for where, (kind, digest) in _behind(found).items()},
        **found["params"],
        **{key: f"{value:.4f}" for key, value in found["metrics"].items()},
    }
    width = max(len(key) for key in shown)
    ending = (
        ["", "To bring it back:", *(f"  {line}" for line in found["commands"])]
        if found["commands"]
        else [
            "",
            "No commit's dvc.lock holds this model: commit dvc.lock, after `dvc exp apply` if it came"
            " from an experiment.",
        ]
    )
    return "\n".join([*(f"{key:{width}}  {value}" for key, value in shown.items()), *ending])


def verify(name: str) -> tuple[str, list[str], bool]:
    """A line for each thing in a version's lineage (equal, differs or not here), what differs, and
    whether the model itself is here.

    The model, all that it was made from, and the registry's own copy where that lies on this machine.
    """
    found = lineage(name)
    root = files.root()
    known = _behind(found)
    here = {where: files.md5(root / where) for where in known if (root / where).exists()}
    here |= _parts(found, root)
    lines = {where: _judged(digest, here.get(where)) for where, (_, digest) in known.items()}
    copy = registry.copy_of(name)
    if copy is not None:
        lines["the registry's copy"] = _judged(found["md5"], files.md5(copy))
    width = max(map(len, lines))
    told = "\n".join(f"{where:{width}}  {judged}" for where, judged in lines.items())
    differs = [where for where, judged in lines.items() if judged == DIFFERS]
    return told, differs, copy is not None or found["path"] in here


def _judged(digest: str, now: str | None) -> str:
    return "not here" if now is None else "equal" if now == digest else DIFFERS


def _parts(found: Mapping[str, Any], root: Path) -> dict[str, str]:
    """The parts' digests now, named as by `_behind`; empty where the table isn't here."""
    comments = _comments(found)
    labels = root / found["path"] / "labels.json"
    space = labels if labels.is_file() else root / f"data/{found['source']}/space.json"
    if not (root / comments).is_file() or not space.is_file():
        return {}
    try:
        now = digests.parts(root / comments, LabelSpace.load(space))
    except Problem:  # a table that can't be read any more is another one
        now = dict.fromkeys(found["parts"], "")
    return {f"{comments}, {part}": digest for part, digest in now.items()}


def _comments(found: Mapping[str, Any]) -> str:
    return f"data/{found['source']}/split.parquet"


def _behind(found: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """What a version is and was made from: where it lies → how it was hashed, digest."""
    source, candidate = found["source"], found["candidate"]
    places = {
        "comments": _comments(found),
        "labels": f"data/{source}/space.json",
        "base": f"models/bases/{candidate}",
        "adapted": f"models/adapted/{source}/{candidate}",
        "instruction": f"models/instructions/{source}/{candidate}.json",
        "encoder": f"models/encoder/{source}",
    }
    return {
        found["path"]: ("md5", found["md5"]),
        **{places.get(key, key): ("md5", digest) for key, digest in found["data"].items()},
        **({found["codebook"]: ("md5", found["codebook_md5"])} if found["codebook"] else {}),
        **{f"{_comments(found)}, {part}": ("sha256", digest) for part, digest in found["parts"].items()},
    }


def holder(digest: str, root: Path) -> str:
    """The first commit whose dvc.lock holds this md5, of this branch if one does; empty if none.

    Experiments of DVC are commits too, beside the branches.
    """
    for reach in ([], ["--all"]):
        search = ["log", *reach, "--reverse", "--format=%H", f"-S{digest}", "--", "dvc.lock"]
        for commit in git(*search, at=root).split():
            if digest in git("show", f"{commit}:./dvc.lock", at=root):  # not the one that removed it
                return commit
    return ""


def commands(commit: str, lock: Mapping[str, Any], *, path: str, source: str, current: str) -> list[str]:
    """What to type for the code, the settings, the data and the model in `path` as of `commit`.

    `lock` is its dvc.lock. DVC pulls only what dvc.yaml unfolds to, so params.yaml has to name the
    model's source. Not `dvc exp run --pull -S`: it trains anew where other settings have changed
    since, and then brings back another model.
    """
    stages: Mapping[str, Any] = lock.get("stages", {})
    made = {out["path"]: name for name, one in stages.items() for out in one.get("outs", [])}
    if path not in made:
        return []
    needs: list[str] = [dep["path"] for dep in stages[made[path]].get("deps", [])]
    # what no stage made is code, which comes with the commit
    pulled = [dep for dep in needs if any(Path(dep).is_relative_to(out) for out in made)]
    switch = f"perl -pi -e 's/^  source: {current}$/  source: {source}/' params.yaml"
    return [
        f"git checkout {commit}",
        *([switch] if source != current else []),
        " ".join(["dvc pull", path, *pulled]),
    ]


def _yaml_at(commit: str, file: str, root: Path) -> Mapping[str, Any]:
    text = git("show", f"{commit}:./{file}", at=root) if commit else ""
    content: Mapping[str, Any] | None = YAML(typ="safe", pure=True).load(text)
    return content or {}


def _under(tags: Mapping[str, str], prefix: str) -> dict[str, str]:
    return {key.removeprefix(prefix): value for key, value in tags.items() if key.startswith(prefix)}
