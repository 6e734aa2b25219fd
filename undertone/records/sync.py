"""Journals, ledger and MLflow's store brought to the same state: what one has, the others get."""

from pathlib import Path

from undertone.errors import Problem, counted
from undertone.files import md5, root
from undertone.records import lineage, registry, runs, tracking
from undertone.records.runs import Ledger, Line


def sync(*, missing: bool = False) -> tuple[list[str], list[str]]:
    """What was done, and what could not be, a line each.

    Runs that were recorded while the store was away are sent, runs of the ledger that the store lacks
    are made in it, versions whose model is here are registered, and the ledger gets what the store has.
    A second time in a row there is nothing to do. Older versions, whose models need not be here, are
    counted; with `missing` it is told how to fetch each.
    """
    folder = root()
    with (
        runs.opened(folder / runs.LEDGER) as ledger,
        tracking.told(),
        tracking.locked("register"),
    ):
        store = tracking.client()
        sent, trouble = tracking.send_unsent(store)
        made, refused = _runs(store, ledger)
        registered, absent = _versions(store, ledger, folder)
        joined = ledger.joined(registry.mirrored(store, ledger))
        anything = bool(joined.runs or joined.versions)
        changed = anything and runs.write(folder / runs.LEDGER, joined)
    new = len(joined.runs) - len(ledger.runs), len(joined.versions) - len(ledger.versions)
    done = [
        *([f"sent what was recorded of {', '.join(sent)}"] if sent else []),
        *([f"{counted(made, 'run')} of {runs.LEDGER} made in MLflow"] if made else []),
        *registered,
        *(
            [f"{runs.LEDGER}: {counted(new[0], 'run')} and {counted(new[1], 'version')} more"]
            if any(new)
            else [f"{runs.LEDGER} brought up to date"]
            if changed
            else []
        ),
    ]
    if not done:
        there = len(joined.versions) - len(absent)
        same = f"{counted(len(joined.runs), 'run')} and {counted(there, 'version')}"
        done = [f"nothing to do: MLflow and {runs.LEDGER} hold the same {same}"]
    lock = (folder / "dvc.lock").read_text("utf-8") if (folder / "dvc.lock").is_file() else ""
    current = [line.tags["dvc.path"] for line in absent if line.tags["model.md5"] in lock]
    older = [line for line in absent if line.tags["model.md5"] not in lock]
    if older and missing:
        done += [f"{_shown(line)}: its model is not here. {_fetch(line, folder)}" for line in older]
    elif older:
        what = f"{counted(len(older), 'older version')} not registered here, without the models"
        done.append(f"{what}: `undertone sync --missing` says how to fetch them")
    if current:
        what = f"{counted(len(current), 'version')} not registered, as the models are not here"
        trouble.append(f"{what}. `dvc pull {' '.join(sorted(set(current)))}`, then `undertone sync`")
    return done, [*trouble, *refused]


def _runs(store: tracking.Store, ledger: Ledger) -> tuple[int, list[str]]:
    """Runs of the ledger that the store lacks, or has in part, made in it; and what could not be."""
    there = tracking.ours(store)
    made, trouble = 0, []
    for record in sorted(ledger.runs.values(), key=lambda one: (one.start, one.id)):
        if record.id in there and (there[record.id].info.end_time or tracking.lives(there[record.id])):
            continue
        try:
            with tracking.told():
                tracking.send(store, record)
        except tracking.Unreachable:
            raise
        except Problem as problem:
            trouble.append(f"run {record.name}: {problem}")
            continue
        made += 1
    return made, trouble


def _versions(store: tracking.Store, ledger: Ledger, folder: Path) -> tuple[list[str], list[Line]]:
    """Versions that the registry lacks, registered where their bytes are here; and those that aren't."""
    there = registry.mirrored(store, ledger).versions
    done, absent = [], []
    for key, line in sorted(ledger.versions.items(), key=lambda one: (one[1].number or 10**9, one[0])):
        if key in there:
            continue
        place = folder / line.tags["dvc.path"]
        if not place.is_dir() or md5(place) != line.tags["model.md5"]:
            absent.append(line)
            continue
        entry = registry.Entry.of(place, line.tags["role"], line.tags["candidate"])
        number = registry.add(store, entry, line.tags, ledger)
        done.append(f"{line.model}/{number} registered: {_shown(line)}")
    for line in ledger.versions.values():
        done += registry.alias(store, line)
    return done, absent


def _shown(line: Line) -> str:
    return f"{line.tags['role']} {line.tags['candidate']} of {line.model}"


def _fetch(line: Line, folder: Path) -> str:
    """The commands that bring an older version's folder back."""
    path, digest = line.tags["dvc.path"], line.tags["model.md5"]
    commit = lineage.holder(digest, folder)
    if not commit:
        return "No commit's dvc.lock holds it."
    return f"`git checkout {commit}`, `dvc pull {path}`, then `undertone sync`"
