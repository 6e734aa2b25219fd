"""The results as one Markdown page, from the JSON that stages left; numbers only, never a text."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from undertone import metrics
from undertone.errors import Problem
from undertone.files import read_json
from undertone.ledger import Ledger

Row = Sequence[object]

UNANSWERED = (
    "A language model may write something that is no label. Such a text has no valid answer, and counts"
    " as wrong in all figures but the accuracy of the valid answers."
)


def page(
    *,
    source: str,
    ledgers: Sequence[Ledger],
    asked: Mapping[str, Any],
    collected: Mapping[str, Any],
    fused: Mapping[str, Any],
    split: Mapping[str, Any],
    evaluated: Mapping[str, Any],
    selection: Mapping[str, Any],
    manifest: Mapping[str, Any],
    latency: Mapping[str, Any],
) -> str:
    """The whole page; each heading is the name of the stage that made its numbers."""
    champion, encoder = selection["champion"], selection["encoder"]
    sections = [
        f"# {manifest['codebook']} on {source}",
        leaderboard(evaluated, latency, selection),
        f"Chosen on validation by {selection['metric']}: champion **{champion}**, encoder for the "
        f"release **{encoder}**. Test figures were not used for it.",
        *(
            section
            for reference, title in (("label", "labels"), ("gold", "gold"))
            if reference in evaluated["test"]
            for section in _by_label(evaluated["test"][reference], champion, title)
        ),
        *(_silver(asked, collected, fused, evaluated, champion) if asked["voters"] else ()),
        "## Rows",
        _rows(ledgers),
        _parts(split),
        "## export",
        _parity(manifest),
        "## bench",
        _latency(latency),
        _machine(latency),
        "## Where the numbers come from",
        f"`dvc repro` wrote them: `reports/{source}/evaluation.json` (stage evaluate), "
        f"`selection.json` (select), `latency.json` (bench), `collect.json`, `fuse.json`, `split.json` "
        f"and `rows/` (each stage up to split), `models/release/{source}/manifest.json` (export). "
        f"Intervals are 95 % percentile bootstrap intervals; the rows of a group (an author) are drawn "
        f"together.",
    ]
    return "\n\n".join(sections) + "\n"


def leaderboard(
    evaluated: Mapping[str, Any], latency: Mapping[str, Any], selection: Mapping[str, Any]
) -> str:
    """One line a candidate, best on validation first; also what the README embeds.

    Valid answers have columns where any are missing, and a sentence on what is missing.
    """
    validation, test = evaluated["validation"]["label"], evaluated["test"]["label"]
    gold = evaluated["test"].get("gold", {})
    length = sorted({row["tokens"] for row in latency["rows"]})[0]
    speed = {
        row["model"]: row["p50_ms"]
        for row in latency["rows"]
        if row["batch"] == 1 and row["tokens"] == length
    }
    metric = selection["metric"]
    order = sorted(validation, key=lambda name: -validation[name]["overall"][metric]["value"])
    floor = test["majority"]["overall"]["accuracy"]["value"]
    invalid = any(metrics.unanswered(part[name]) for part in (validation, test) for name in order)
    lines: list[Row] = []
    for name in order:
        mark = ", ".join(word for word in ("champion", "encoder") if selection[word] == name)
        accuracy = test[name]["overall"]["accuracy"]
        below = " (below majority)" if accuracy["value"] < floor else ""
        lines.append(
            (
                f"**{name}**" if mark else name,
                mark,
                _value(validation[name]["overall"]["macro_f1"]),
                metrics.told(test[name]["overall"]["macro_f1"]),
                metrics.told(accuracy) + below,
                *(
                    (metrics.told_valid(test[name]), metrics.told(test[name]["valid_accuracy"]))
                    if invalid
                    else ()
                ),
                *([metrics.told(gold[name]["overall"]["macro_f1"])] if gold else []),
                f"{speed[name]:.1f}" if name in speed else "",
            )
        )
    if "teachers" in gold:
        empty = [""] * (6 if invalid else 4)
        f1 = metrics.told(gold["teachers"]["overall"]["macro_f1"])
        lines.append(("teachers", *empty, f1, ""))
    n = test["majority"]["n"]
    table = _table(
        (
            "candidate",
            "",
            f"macro-F1, validation (n={validation['majority']['n']:,})",
            f"macro-F1, test (n={n:,})",
            "accuracy, test",
            *(("valid answers, test", "their accuracy") if invalid else ()),
            *([f"macro-F1, gold (n={gold['majority']['n']:,})"] if gold else []),
            f"ms a text ({length} tokens)",
        ),
        lines,
    )
    return f"{table}\n\n{UNANSWERED}" if invalid else table


def _by_label(candidates: Mapping[str, Any], champion: str, title: str) -> list[str]:
    found = candidates[champion]
    # for one label a text the confusion shows where each row went
    missing = ["no valid answer"] if metrics.unanswered(found) else []
    beside = missing if found["confusion"] is None else []
    lines = [
        (
            label,
            one["support"],
            *(one["unanswered"] for _ in beside),
            *(metrics.told(one[name]) for name in ("precision", "recall", "f1")),
        )
        for label, one in found["labels"].items()
    ]
    sections = [
        f"## evaluate: {champion} against the {title} (test, n={found['n']:,}, "
        f"{found['groups']:,} groups)",
        _table(("label", "rows", *beside, "precision", "recall", "F1"), lines),
    ]
    if found["confusion"] is not None:
        confusion = [
            (f"**{label}**", *row, *(one["unanswered"] for _ in missing))
            for (label, one), row in zip(found["labels"].items(), found["confusion"], strict=True)
        ]
        sections += [
            "Confusion (rows: what is true, columns: what was decided):",
            _table(("", *found["labels"], *missing), confusion),
        ]
    return sections


def _silver(
    asked: Mapping[str, Any],
    collected: Mapping[str, Any],
    fused: Mapping[str, Any],
    evaluated: Mapping[str, Any],
    champion: str,
) -> list[str]:
    """The voters: what came back of each, how far they agree, how right they are; silver isn't gold."""
    outcomes = list(next(iter(collected["voters"].values())))
    answers = [
        (
            one["voter"],
            one["model"],
            one["prompt"] + ("" if one["definitions"] else " without definitions"),
            f"`{one['prompt_sha256'][:8]}`",
            f"{one['rows']:,}",
            *(f"{collected['voters'][one['voter']][outcome]:,}" for outcome in outcomes),
        )
        for one in asked["voters"]
    ]
    gold = fused["gold"] or {}
    people: list[Row] = [
        (
            f"**{name}**" if name == "silver" else name,
            metrics.told(fused["teachers"][name]["accuracy"]) if name in fused["teachers"] else "",
            metrics.told(metrics.right(gold[name], many=fused["many"])),
            metrics.told(gold[name]["overall"]["macro_f1"]),
            f"{gold[name]['n']:,}",
        )
        for name in gold
    ] or [(name, metrics.told(one["accuracy"])) for name, one in fused["teachers"].items()]
    share = "accuracy a label" if fused["many"] else "accuracy"
    head = ("voter", f"{share}, estimated from the votes alone")
    agreement = fused["agreement"]
    pairs = [
        (
            " and ".join(pair["between"]),
            f"{pair['n']:,}",
            *(metrics.told(pair[figure]) for figure in ("raw", "kappa", "alpha")),
        )
        for pair in agreement["pairs"]
    ]
    sections = [
        "## collect",
        _table(
            ("voter", "model", "prompt", "hash", "asked", *(one.replace("_", " ") for one in outcomes)),
            answers,
        ),
        f"Answers to unknown ids: {collected['unknown_ids']:,}.",
        f"## fuse: {fused['method'].replace('_', ' ')}",
        _table((*head, f"{share} by people", "macro-F1 by people", "n") if gold else head, people),
    ]
    if "teachers" in evaluated["test"].get("gold", {}):
        taught, judged = evaluated["test"]["label"][champion], evaluated["test"]["gold"]
        by_teachers, teachers, model = (
            metrics.told(one["overall"]["accuracy"])
            for one in (taught, judged["teachers"], judged[champion])
        )
        sections.append(
            f"Silver is not gold. On test, {champion} agrees with its teachers in {by_teachers} of "
            f"{taught['n']:,} comments. People agree with the teachers in {teachers} of "
            f"{judged['teachers']['n']:,}, and with {champion} in {model}."
        )
    return [
        *sections,
        f"Krippendorff's alpha over all annotators: {metrics.told(agreement['alpha'])}.",
        _table(("annotators", "n", "raw agreement", "Cohen's kappa", "Krippendorff's alpha"), pairs),
    ]


def _rows(ledgers: Sequence[Ledger]) -> str:
    lines = [
        (
            one.stage,
            f"{one.rows_in:,}",
            f"{one.rows_out:,}",
            ", ".join(f"{reason} {count:,}" for reason, count in one.dropped.items()),
        )
        for one in ledgers
    ]
    return _table(("stage", "rows in", "rows out", "dropped"), lines)


def _parts(split: Mapping[str, Any]) -> str:
    labels = list(split["labels"]["train"])
    lines = [
        (part, f"{count:,}", *(f"{split['labels'][part][label]:,}" for label in labels))
        for part, count in split["rows"].items()
    ]
    digest = str(split["test_digest"])[:16]
    return (
        _table(("part", "rows", *labels), lines) + f"\n\nThe test part's digest begins with `{digest}`."
    )


def _parity(manifest: Mapping[str, Any]) -> str:
    lines = [
        (
            f"**{name}**" if name == manifest["variant"] else name,
            f"{one['bytes'] / 1e6:.1f}",
            f"{one['parity']['max_difference']:.4f}",
            f"{one['parity']['agreement']:.1%}",
            f"{one['parity']['macro_f1']:.4f}",
            f"{-one['parity']['drop']:+.4f}",
        )
        for name, one in manifest["variants"].items()
    ]
    return f"{manifest['candidate']}, each variant against PyTorch on validation:\n\n" + _table(
        ("variant", "MB", "largest score difference", "decided alike", "macro-F1", "change"), lines
    )


def _latency(latency: Mapping[str, Any]) -> str:
    lines = [
        (
            row["model"],
            row["tokens"],
            row["batch"],
            f"{row['p50_ms']:.2f}",
            f"{row['p95_ms']:.2f}",
            f"{row['p99_ms']:.2f}",
            f"{row['comments_per_second']:,.0f}",
            f"{latency['bytes'][row['model']] / 1e6:.1f}",
        )
        for row in latency["rows"]
    ]
    return _table(("model", "tokens", "batch", "p50 ms", "p95 ms", "p99 ms", "comments/s", "MB"), lines)


def _machine(latency: Mapping[str, Any]) -> str:
    machine, target = latency["machine"], latency["target"]
    versions = ", ".join(f"{name} {one}" for name, one in machine["versions"].items())
    told = (
        f"Text to scores, measured in turns in one run on {machine['processor']}, "
        f"{machine['threads']} threads, {machine['system']}, Python {machine['python']}; {versions}."
    )
    if target is not None:
        outcome = "met" if target["passed"] else "MISSED"
        told += (
            f" Target p95 ≤ {target['p95_ms']} ms at batch 1: {outcome} ({target['slowest_p95_ms']} ms)."
        )
    return told


def _table(head: Row, lines: Iterable[Row]) -> str:
    shown = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in shown)


def _value(one: Mapping[str, float]) -> str:
    return f"{one['value']:.3f}"


def embed(document: str, table: str) -> str:
    """`document` with `table` between its leaderboard markers; `Problem` where it has none."""
    start, end = "<!-- leaderboard -->\n", "<!-- /leaderboard -->"
    before, found, rest = document.partition(start)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise Problem(
            "no leaderboard markers", where="README.md", remedy=f"Add {start.strip()} and {end}."
        )
    return f"{before}{start}\n{table}\n\n{end}{after}"


def main() -> None:
    """Put the stand-in's leaderboard into README.md (`make docs`)."""
    folder = Path("reports/standin")
    evaluated, latency, selection = (
        read_json(folder / f"{name}.json") for name in ("evaluation", "latency", "selection")
    )
    readme = Path("README.md")
    table = leaderboard(evaluated, latency, selection)
    readme.write_text(embed(readme.read_text("utf-8"), table), "utf-8")


if __name__ == "__main__":
    main()
