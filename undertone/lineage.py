"""From a registered version back to its commit, settings and data, and how to get them again."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from undertone import files, registry
from undertone.provenance import git


def lineage(name: str) -> dict[str, Any]:
    """All that leads to the version called `models:/gender@champion`, `gender/3` or `3`.

    `commit` is the first whose dvc.lock holds the model's bytes. It comes after `trained_on`, the
    commit on which training started, whose dvc.lock still names the model before; it is empty while
    dvc.lock isn't committed. `data` maps names to md5s; `commands` bring model and data back.
    """
    version = registry.find(name)
    tags = version.tags
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
        "experiment": tags["experiment"],
        "trained_on": tags["commit"],
        "dirty": version.run_tags.get("git.dirty") == "true",
        "commit": commit,
        "data": _under(tags, "data.") | _under(version.run_tags, "data."),
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
    shown = {
        "model": f"{found['version']} ({', '.join(found['aliases']) or 'no alias'})",
        "made by": f"{found['role']} {found['candidate']} ({found['family']}) on {found['source']}",
        "run": f"{found['run_name']} ({found['run']})",
        "trained on": f"commit {found['trained_on'][:12] or 'unknown'}{changes}",
        found["path"]: f"md5 {found['md5']}",
        **{key: f"md5 {digest}" for key, digest in found["data"].items()},
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
