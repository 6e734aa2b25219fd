"""The results on one page, as Markdown and as HTML, from the JSON that stages left; numbers only, never
a text."""

import base64
import html as markup
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt

from undertone.annotation import agreement, fuse
from undertone.augmentation import compose, filters, pseudo
from undertone.corpus import certificate, ledger
from undertone.corpus.ledger import Ledger
from undertone.deployment import latency, release
from undertone.errors import Problem
from undertone.files import read_json
from undertone.measures import calibration, comparison, evaluation, exact, metrics, prevalence, slices
from undertone.params import Hourly, read_params
from undertone.people import review, search
from undertone.records import runs
from undertone.records.provenance import COMMIT
from undertone.reporting import pictures
from undertone.voters import collect, request

Row = Sequence[object]

UNANSWERED = (
    "A language model may write something that is no label. Such a text has no valid answer, and counts"
    " as wrong in all figures but the accuracy of the valid answers."
)


# what the README shows is in these
BOARD = ("evaluation", "comparisons", "selection", "cost", "latency", "release", "request")
# System, ms a text, study and machine, as the studies publish them.
PUBLISHED: Sequence[Row] = (
    ("SetFit", 5, "comments on the war in Ukraine (gentilrenard)", "not stated"),
    ("multilingual-e5-base, ONNX, quantised", 80, "the same", "not stated"),
    ("Mistral-7B, QLoRA", 900, "the same", "not stated"),
    (
        "Qwen2.5-0.5B, LoRA; bfloat16, FlashAttention 2",
        56,
        "financial news (CHEN HAO, AIDF)",
        "a GPU, not stated which",  # FlashAttention runs on nothing else
    ),
)
UNLIKE = (
    "Published elsewhere, for other texts and models and on other machines, so that no figure of the one"
    " table can be compared with one of the other:"
)
PICTURES = f"pictures/{pictures.SENTENCES}"
HALF = 0.5  # of what label noise takes: what doubting labels is to give back
PACKAGE = __name__.partition(".")[0]
CODE = Path(metrics.__file__).parents[metrics.__name__.count(".")]  # the repository's folder
REFERENCES = {"label": "labels", "gold": "gold"}  # reference → as headings have it
INTERVALS = (
    "Intervals are 95 % expanded percentile bootstrap (Hesterberg 2015); the rows of a group (an"
    " author) are drawn together. A share of 0 or 1 has the exact interval of Clopper & Pearson (1934)"
    " for as many texts as there are groups, for the bootstrap then knows none. p50, p95 and p99 are"
    " what was measured in so many calls; how they would differ in another run is not known from one."
)
FEW = "No p95 of fewer than 20 calls and no p99 of fewer than 100: it would be the slowest call."
SLICED = (
    "Difference: in accuracy, from all other rows, with its interval. p (a permutation test, Holm 1979)"
    " asks whether the slices differ beyond what their authors' other texts explain, so one author who"
    " fills a slice is no evidence. Numbers are cut at their quartiles; `other` pools small slices. An"
    " interval (a bootstrap) and the first p are those of one slice looked at alone, and near 0.05 may"
    " disagree; the verdict is that of p (Holm), for among many slices some seem to differ. Where all"
    " rows of a slice are right, or none, its interval is exact (Clopper & Pearson 1934, each group one"
    " text), and the difference has it from both sides' (Newcombe 1998)."
)
COMPARED = (
    "The verdict is that of a paired randomisation test that swaps whole groups, p corrected for all"
    " pairs of a table (Holm 1979). McNemar: texts that only the first and only the second has right."
)
MIXED = (
    "The weight of rows is 1 where no other is told. Difference: in the deciding metric, from the same"
    " candidate on the mix `own`, by people's labels of validation. A mix is kept only where that is"
    " shown to be better (paired test, Holm over all mixes); test figures have no say."
)
UNSURE = (
    "The calibration error's interval is the least sure one here: in simulations it covers 89 to 91 %"
    " of scores that are not calibrated, not 95 %."
)
UNCORRECTED = (
    "Naïve: the decisions on all rows, counted, so nothing is drawn, and what is wrong with it is no"
    " matter of chance. Adjusted counts (Forman 2008) is there to compare, without an interval:"
    " corrected has one."
)
OLDER = "No evaluation is committed yet, so there is nothing to compare with."
SAME = "Nothing: every figure is the committed one."
STYLE = """
body { color: #111; background: #fff; font: 16px/1.5 system-ui, sans-serif; max-width: 72rem;
  margin: 0 auto; padding: 1rem; }
table { border-collapse: collapse; margin: 1rem 0; font-size: 0.85rem;
  font-variant-numeric: tabular-nums; display: block; overflow-x: auto; }
th, td { border-bottom: 1px solid #ccc; padding: 0.2rem 0.6rem; text-align: left; vertical-align: top; }
pre { overflow-x: auto; background: #f5f5f5; padding: 0.6rem; }
figure { margin: 1.5rem 0; max-width: 700px; overflow-x: auto; break-inside: avoid; }
figure img { width: 100%; min-width: 32rem; }
figcaption { font-size: 0.9rem; }
a { color: #0050a0; }
summary { cursor: pointer; font-size: 1.2rem; font-weight: bold; margin: 1rem 0; }
@media print {
  table { display: table; font-size: 0.6rem; } th, td { padding: 0.1rem 0.3rem; }
  tr { break-inside: avoid; } h2, h3 { break-after: avoid; }
  details::details-content { content-visibility: visible; display: block; }
}
""".strip()


# where a line may not break: within an interval, and after "less than"
_TOGETHER = re.compile(r"(\[[-+]?[\d.]+%?,|&lt;) (?=[-+]?\d)")


@dataclass(frozen=True, kw_only=True)
class Results:
    """What the stages of one source left, each as its JSON file holds it."""

    source: str
    ledgers: Sequence[Ledger]
    asked: Mapping[str, Any]
    collected: Mapping[str, Any]
    fused: Mapping[str, Any]
    split: Mapping[str, Any]
    generated: Mapping[str, Any]
    evaluated: Mapping[str, Any]
    compared: Mapping[str, Any]
    curves: Mapping[str, Any]
    slices: Mapping[str, Any]
    selection: Mapping[str, Any]
    cost: Mapping[str, Any]
    prevalence: Mapping[str, Any]
    reviewed: Mapping[str, Any]
    manifest: Mapping[str, Any]
    latency: Mapping[str, Any]
    released: Mapping[str, Any]
    price: Hourly | None
    mixes: Mapping[str, Any]  # candidate → what the stage compose left
    pseudo: Mapping[str, Any]
    doubt: Mapping[str, Any]
    searched: Mapping[str, Any]
    newest: Mapping[str, str]  # what `newest_run` returned


@dataclass(frozen=True)
class Made:
    """Where numbers are: a file beside the page, the place in its JSON (empty: all of it), the library's
    function that made them (none: the stage itself), and the stage that called it."""

    file: str
    key: str
    by: Callable[..., Any] | None
    stage: str


@dataclass(frozen=True)
class Section:
    """A part of both pages: Markdown, what made its numbers, the pictures that the HTML page shows
    below; `folded`: there the reader opens it first."""

    title: str
    blocks: Sequence[str]
    made: Sequence[Made] = ()
    pictures: Sequence[str] = ()
    folded: bool = False


def page(results: Results) -> str:
    """The Markdown page; each heading begins with the stage that made its numbers."""
    found = [_title(results), _told(results)]
    for section in _sections(results):
        found += [section.title and f"## {section.title}", *_blocks(section)]
    found.append("[report.html](report.html) is this page with pictures, for any browser.")
    return "\n\n".join(block for block in found if block) + "\n"


def html(results: Results, drawn: Path, before: Mapping[str, Any]) -> str:
    """The HTML page: the same sections with the pictures of the folder `drawn`, each with its sentence,
    and what changed since the evaluation `before` (empty: none). It needs no other file, no network
    and no JavaScript."""
    said = read_json(drawn / pictures.SENTENCES)
    changed = changes(before, results.evaluated)
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    found = [markdown.render(f"{_title(results)}\n\n{_told(results)}")]
    for section in _sections(results, said, changed):
        text = markdown.render("\n\n".join(_blocks(section)))
        text = _TOGETHER.sub("\\1\u00a0", text)
        shown = [_figure(drawn / path, said[path]) for path in section.pictures if path in said]
        body = "\n".join([text, *shown])
        title = markup.escape(section.title)
        if section.folded:
            body = f"<details><summary>{title}</summary>\n{body}\n</details>"
        elif title:
            body = f"<h2>{title}</h2>\n{body}"
        found.append(f"<section>\n{body}\n</section>")
    title = markup.escape(_title(results).removeprefix("# "))
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<style>\n{STYLE}\n</style>\n</head>\n<body>\n" + "\n".join(found) + "\n</body>\n</html>\n"
    )


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Macro-F1 and accuracy of each candidate in two evaluations, as a table of those that differ."""
    if not before:
        return OLDER
    lines: list[Row] = []
    told_before, told_now = _headline(before), _headline(now)
    for place in dict.fromkeys([*told_now, *told_before]):
        old, new = told_before.get(place, ""), told_now.get(place, "")
        if old != new:
            lines.append((*place, old, new))
    return _table(("candidate", "on", "figure", "before", "now"), lines) if lines else SAME


def _headline(evaluated: Mapping[str, Any]) -> dict[tuple[str, str, str], str]:
    """(candidate, part and reference, figure) → as shown."""
    return {
        (name, f"{part}, {REFERENCES[reference]}", shown): f"{exact.told(figure)} (n={one['n']:,})"
        for part, references in evaluated.items()
        for reference, candidates in references.items()
        for name, one in candidates.items()
        for shown, figure in (
            ("macro-F1", one["overall"]["macro_f1"]),
            ("accuracy", one["overall"]["accuracy"]),
        )
    }


def _title(results: Results) -> str:
    return f"# {results.manifest['codebook']} on {results.source}"


def newest_run(known: runs.Ledger, digests: Iterable[str]) -> dict[str, str]:
    """`name`, `commit`, `date` (UTC) and `dirty` of the newest run among those that made the models of
    these `digests`; empty where the ledger has none of them.

    Of runs that made the same bytes it is the first, so that one that is repeated later changes nothing.
    """
    first: dict[str, Any] = {}
    for record in sorted(known.runs.values(), key=lambda one: (one.end, one.id)):
        first.setdefault(record.tags.get("model.md5", ""), record)
    made = [first[one] for one in digests if one in first]
    if not made:
        return {}
    newest = max(made, key=lambda one: (one.end, one.id))
    return {
        "name": newest.name,
        "commit": newest.tags.get(COMMIT, "")[:8],
        "date": f"{datetime.fromtimestamp(newest.end / 1000, UTC):%Y-%m-%d}",
        "dirty": newest.tags.get("git.dirty", "false"),
    }


def _told(results: Results) -> str:
    """What the page is of: source, data, newest run and machine."""
    told = [f"Source: {results.source}"]
    data = results.manifest["data"]["comments"]
    told.append(f"data: split.parquet, md5 `{data[:8]}`")
    if run := results.newest:
        changed = " and changes that were not committed" if run["dirty"] == "true" else ""
        commit = f", commit `{run['commit']}`{changed}" if run["commit"] else ""
        told.append(f"newest run behind a model on it: {run['name']} of {run['date']}{commit}")
    else:
        told.append(f"no run behind its models is in {runs.LEDGER} yet")
    machines = dict.fromkeys(_hardware(one) for one in (results.latency, results.cost))
    told.append(f"latencies: of {' and of '.join(machines)}, and of no other machine")
    return "; ".join(told) + "."


def _hardware(measured: Mapping[str, Any]) -> str:
    machine = measured["machine"]
    gpu = f" and {machine['gpu']}" if machine["gpu"] else ""
    return f"{machine['processor']}{gpu}, {_count(machine['threads'], 'thread')}, {machine['system']}"


def _count(number: int, what: str) -> str:
    """`1 row`, `2,000 rows`"""
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def _sections(
    results: Results, said: Mapping[str, str] | None = None, changed: str | None = None
) -> Iterator[Section]:
    """All sections; those of pictures and changes where there are any to show."""
    evaluated, chosen = results.evaluated, results.selection
    champion = chosen["champion"]
    judged = [Made("evaluation.json", "test", metrics.evaluate, "evaluate")]
    asked = results.asked
    yield Section(
        "",
        [leaderboard(evaluated, results.compared, chosen, results.cost)],
        [
            *judged,
            Made("comparisons.json", "test.label", comparison.compare, "evaluate"),
            Made("selection.json", "champion", evaluation.select, "select"),
            Made("cost.json", "candidates", latency.measure, "cost"),
            Made(PICTURES, "pareto.svg", pictures.pareto, "plot"),
        ],
        ["pareto.svg"],
    )
    if changed is not None:
        yield Section("What changed since the last run", [changed], judged)
    yield from _comparisons(results.compared, chosen["part"])
    for reference, title in REFERENCES.items():
        if reference in evaluated["test"]:
            yield _by_label(evaluated["test"][reference], champion, title, reference)
    yield Section(
        "evaluate: scores as probabilities (test)",
        [_probabilities(evaluated["test"]), UNSURE],
        [Made("evaluation.json", f"test.label.{champion}.overall", metrics.evaluate, "evaluate")],
    )
    rules = {
        name: one["answered"] for name, one in results.curves.items() if one["answered"] is not None
    }
    if rules:
        name = next(iter(rules))
        made = Made("curves.json", f"{name}.answered", calibration.answered_error, "evaluate")
        yield Section("evaluate: abstention (test)", [_abstention(rules)], [made])
    yield from _pictures(evaluated["test"]["label"], chosen, said or {})
    if results.prevalence:
        yield Section(
            f"prevalence: by the scores of {results.prevalence['judge']}",
            [prevalence.table(results.prevalence), UNCORRECTED],
            [
                Made("prevalence.json", "labels", prevalence.prevalence, "prevalence"),
                Made(PICTURES, "prevalence.svg", pictures.corrected, "plot"),
            ],
            ["prevalence.svg"],
        )
    if results.slices[champion]:
        yield Section(
            f"evaluate: slices of {champion} (test)",
            [SLICED, _slices(results.slices[champion])],
            [Made("slices.json", champion, slices.by_column, "evaluate")],
        )
    yield Section(
        "Rows",
        [_rows(results.ledgers)],
        [Made(f"rows/{one.stage}.json", "dropped", ledger.Ledger, one.stage) for one in results.ledgers],
    )
    yield Section(
        "split",
        [_parts(results.split), certificate.told(results.split) + ".", _promises(results.split)],
        [
            Made("split.json", "rows", certificate.certificate, "split"),
            Made(PICTURES, "parts.svg", pictures.parts, "plot"),
        ],
        ["parts.svg"],
    )
    if results.generated["asked"]:
        yield Section(
            "augment: generated texts",
            [_generated(results.generated), _judge(results.generated)],
            [Made("generated.json", "labels", filters.account, "augment")],
        )
    if asked["voters"]:
        yield from _silver(asked, results.collected, results.fused, evaluated, champion)
    if chosen["mixes"]:
        yield Section(
            "compose: mixes",
            [MIXED, _mixes(results.mixes, evaluated, chosen)],
            [
                *(Made(f"mixes/{name}.json", "rows", compose.told, "compose") for name in results.mixes),
                *judged,
                Made("selection.json", "mixes", evaluation.kept, "select"),
            ],
        )
    if results.pseudo:
        made = Made("pseudo.json", "labels", pseudo.labelled, "pseudo")
        yield Section("pseudo", [_pseudo(results.pseudo)], [made])
    if results.doubt["planted"]:
        made = Made("doubt.json", "planted", None, "doubt")
        yield Section("doubt: label noise", _doubt(results.doubt, results.mixes), [made])
    if results.searched:
        made = Made("search.json", "labels", search.search, "search")
        yield Section("search", _searched(results.searched), [made])
    if results.reviewed:
        yield Section(
            "review",
            _reviewed(results.reviewed),
            [
                Made("review.json", "arms", review.settled, "review"),
                Made("review.json", "agreement", agreement.agreement, "review"),
            ],
        )
    yield Section(
        f"release: {results.released['variant']}",
        [_variants(results.latency["encoder"], results.released)],
        [Made("release.json", "variants", release.choose, "release")],
    )
    yield Section(
        "bench",
        [speed(results.latency, results.released, asked, results.price)],
        [
            Made("latency.json", "rows", latency.measure, "bench"),
            Made("release.json", "variant", release.choose, "release"),
            *([Made("request.json", "voters", request.plan, "request")] if asked["voters"] else []),
        ],
    )
    yield Section(
        "bench: every length and batch",
        [_latency(results.latency), FEW],
        [Made("latency.json", "rows", latency.measure, "bench")],
        folded=True,
    )
    yield Section(
        "Where the numbers come from",
        [
            "`dvc repro` wrote them; the line below each table names its file, the place in it, the"
            f" function that made it, with its line, and the stage that called that. {INTERVALS}",
        ],
    )


def _blocks(section: Section) -> list[str]:
    """What a section says, what its mark means where it has one, and where its numbers are."""
    marked = [exact.MARKED] if any(exact.MARK in block for block in section.blocks) else []
    return [block for block in (*section.blocks, *marked, _made(section)) if block]


def _made(section: Section) -> str:
    """Links to each file of a section, to the function that made it and to the stage that called that;
    files that one function made together."""
    lines: dict[tuple[str, Callable[..., Any] | None], list[Made]] = {}
    for one in section.made:
        lines.setdefault((one.key, one.by), []).append(one)
    told = []
    for (key, by), ones in lines.items():
        files = ", ".join(dict.fromkeys(f"[{Path(one.file).name}]({one.file})" for one in ones))
        stages = ", ".join(
            dict.fromkeys(f"[stages/{one.stage}.py](../../stages/{one.stage}.py)" for one in ones)
        )
        at = f" at `{key}`" if key else ""
        function = f" by {_linked(by)}" if by else ""
        told.append(f"{files}{at}, made{function} in {stages}")
    return f"From {'; '.join(told)}." if told else ""


def _linked(function: Callable[..., Any]) -> str:
    path, line = place(function)
    name = f"{function.__module__.removeprefix(f'{PACKAGE}.')}.{function.__qualname__}"
    return f"[{name}](../../{path}#L{line})"


def place(function: Callable[..., Any]) -> tuple[str, int]:
    """The file of a function or class, relative to the repository, and the line that names it."""
    path = Path(inspect.getfile(function)).resolve().relative_to(CODE.resolve())
    lines, first = inspect.getsourcelines(function)
    above = next(at for at, line in enumerate(lines) if re.match(r"\s*(async def|def|class) ", line))
    return path.as_posix(), first + above


def _figure(path: Path, sentence: str) -> str:
    """As an image, so that one SVG's styles and ids reach no other."""
    data, told = base64.b64encode(path.read_bytes()).decode(), markup.escape(sentence)
    image = f'<img src="data:image/svg+xml;base64,{data}" alt="{told}">'
    return f"<figure>\n{image}\n<figcaption>{told}</figcaption>\n</figure>"


def _pictures(
    found: Mapping[str, Any], chosen: Mapping[str, Any], said: Mapping[str, str]
) -> Iterator[Section]:
    """A section for each candidate that has pictures, champion and encoder first and open."""
    first = dict.fromkeys((chosen["champion"], chosen["encoder"]))
    for name in dict.fromkeys([*first, *found]):
        drawn = [f"{name}/{kind}.svg" for kind in pictures.OF_CANDIDATE]
        if not any(path in said for path in drawn):
            continue
        made = [
            Made("evaluation.json", f"test.label.{name}", metrics.evaluate, "evaluate"),
            Made("curves.json", f"{name}.reliability", calibration.reliability, "evaluate"),
            Made("curves.json", f"{name}.coverage_risk", calibration.coverage_risk, "evaluate"),
            Made(PICTURES, f"{name}/confusion.svg", pictures.draw_all, "plot"),
        ]
        if f"{name}/learning.svg" in said:
            made.append(Made(f"learning/{name}.json", "", None, "train"))
        yield Section(f"plot: {name}", [], made, drawn, folded=name not in first)


def _rows_judged(found: Mapping[str, Any]) -> str:
    """`897`, or `113 × 2` where each row was judged twice."""
    repeats = found.get("repeats", 1)
    return f"{found['n'] // repeats:,}" + (f" × {repeats}" if repeats > 1 else "")


def leaderboard(
    evaluated: Mapping[str, Any],
    compared: Mapping[str, Any],
    selection: Mapping[str, Any],
    cost: Mapping[str, Any],
) -> str:
    """One line a candidate, best on validation (or the folds) first, and why the champion is; the README
    embeds it.

    `verdict`: against the champion, on test. Valid answers have columns where any are missing, and a
    sentence on what is missing.
    """
    part = selection["part"]
    deciding, test = evaluated[part]["label"], evaluated["test"]["label"]
    gold = evaluated["test"].get("gold", {})
    costs, metric = cost["candidates"], selection["metric"]
    verdicts = _verdicts(compared["test"]["label"], selection["champion"])
    order = sorted(deciding, key=lambda name: -deciding[name]["overall"][metric]["value"])
    floor = test["majority"]["overall"]["accuracy"]["value"]
    invalid = any(metrics.unanswered(found[name]) for found in (deciding, test) for name in order)
    lines: list[Row] = []
    for name in order:
        mark = ", ".join(word for word in ("champion", "encoder") if selection[word] == name)
        if not selection.get("mixes", {}).get(name, {"kept": True})["kept"]:
            mark = "mix not kept"
        accuracy = test[name]["overall"]["accuracy"]
        below = " (below majority)" if accuracy["value"] < floor else ""
        lines.append(
            (
                f"**{name}**" if name in (selection["champion"], selection["encoder"]) else name,
                mark,
                exact.told(deciding[name]["overall"]["macro_f1"]),
                exact.told(test[name]["overall"]["macro_f1"]),
                verdicts.get(name, ""),
                exact.told(accuracy) + below,
                *(
                    (metrics.told_valid(test[name]), exact.told(test[name]["valid_accuracy"]))
                    if invalid
                    else ()
                ),
                *([exact.told(gold[name]["overall"]["macro_f1"])] if gold else []),
                f"{costs[name]['ms']:.1f}" if name in costs else "",
            )
        )
    if "teachers" in gold:
        empty = [""] * (7 if invalid else 5)
        f1 = exact.told(gold["teachers"]["overall"]["macro_f1"])
        lines.append(("teachers", *empty, f1, ""))
    table = _table(
        (
            "candidate",
            "",
            f"macro-F1, {part} (n={_rows_judged(deciding['majority'])})",
            f"macro-F1, test (n={test['majority']['n']:,})",
            "verdict",
            "accuracy, test",
            *(("valid answers, test", "their accuracy") if invalid else ()),
            *([f"macro-F1, gold (n={gold['majority']['n']:,})"] if gold else []),
            f"ms a text of {cost['words']} words",
        ),
        lines,
    )
    return "\n\n".join([table, _why(selection), *([UNANSWERED] if invalid else [])])


def _verdicts(pairs: Sequence[Mapping[str, Any]], champion: str) -> dict[str, str]:
    """Candidate → what it is against the champion."""
    other_way = {"better": "worse", "worse": "better"}
    found = {}
    for pair in pairs:
        one, other = pair["between"]
        if other == champion:
            found[one] = pair["verdict"]
        elif one == champion:
            found[other] = other_way.get(pair["verdict"], pair["verdict"])
    return found


def _why(selection: Mapping[str, Any]) -> str:
    champion, encoder = selection["champion"], selection["encoder"]
    metric = comparison.SHOWN[selection["metric"]]
    told = f"Chosen on {selection['part']} by {metric}. Champion **{champion}**: {selection['why']}. "
    told += f"Encoder for the release **{encoder}**"
    if (encoder, selection["encoder_why"]) != (champion, selection["why"]):
        told += f": {selection['encoder_why']}"
    return f"{told}. Test figures were not used for it; the verdict is against the champion, on test."


def _comparisons(compared: Mapping[str, Any], deciding: str) -> Iterator[Section]:
    for part, reference in (("test", "label"), ("test", "gold"), (deciding, "label")):
        pairs = compared[part].get(reference, [])
        if not pairs:
            continue
        lines = [
            (
                " and ".join(pair["between"]),
                exact.signed(pair["difference"]),
                _p(pair["p_holm"]),
                f"{pair['mcnemar']['b']}:{pair['mcnemar']['c']}",
                _p(pair["mcnemar"]["p"]),
                f"**{pair['verdict']}**" if pair["p_holm"] <= comparison.LEVEL else pair["verdict"],
            )
            for pair in pairs
        ]
        first = pairs[0]
        head = (
            "first and second",
            f"difference in {comparison.SHOWN[first['metric']]}",
            "p (Holm)",
            "McNemar",
            "its p",
            "the first is",
        )
        title = f"{part}, {REFERENCES[reference]}, n={first['n']:,}, {first['groups']:,} groups"
        said = [COMPARED] if (part, reference) == ("test", "label") else []
        yield Section(
            f"evaluate: comparisons ({title})",
            [*said, _table(head, lines)],
            [Made("comparisons.json", f"{part}.{reference}", comparison.compare, "evaluate")],
        )


def _p(p: float | None) -> str:
    if p is None:
        return ""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _probabilities(references: Mapping[str, Any]) -> str:
    """Of every candidate that has scores."""
    names = ("log_loss", "brier_score", "expected_calibration_error")
    lines = [
        (name, REFERENCES[reference], *(exact.told(one["overall"][figure]) for figure in names))
        for reference, candidates in references.items()
        for name, one in candidates.items()
        if one["overall"]["log_loss"]["value"] is not None
    ]
    return _table(
        ("candidate", "against", "log loss (nats)", "Brier score", "expected calibration error"), lines
    )


def _abstention(rules: Mapping[str, Any]) -> str:
    lines = [
        (
            name,
            f"{one['answered']:,} of {one['n']:,}",
            exact.told(one["coverage"]),
            f"{one['wrong']:,}",
            exact.told(one["error"]),
        )
        for name, one in rules.items()
    ]
    return _table(("candidate", "answered", "coverage", "of these wrong", "error"), lines)


def _slices(columns: Mapping[str, Any]) -> str:
    lines = [
        (
            column,
            name,
            f"{one['n']:,}",
            f"{one['groups']:,}",
            exact.told(one["accuracy"]),
            exact.told(one["macro_f1"]),
            exact.signed(one["difference"]),
            _p(one["p"]),
            _p(one["p_holm"]),
            ("**lower**" if one["difference"]["value"] < 0 else "**higher**")
            if one["significant"]
            else "",
        )
        for column, found in columns.items()
        for name, one in found.items()
    ]
    head = (
        "rows",
        "groups",
        "accuracy",
        "macro-F1",
        "accuracy less that of the others",
        "p",
        "p (Holm)",
        "",
    )
    return _table(("column", "slice", *head), lines)


def _by_label(candidates: Mapping[str, Any], champion: str, title: str, reference: str) -> Section:
    found = candidates[champion]
    # for one label a text the confusion shows where each row went
    missing = ["no valid answer"] if metrics.unanswered(found) else []
    beside = missing if found["confusion"] is None else []
    lines = [
        (
            label,
            one["support"],
            *(one["unanswered"] for _ in beside),
            *(exact.told(one[name]) for name in ("precision", "recall", "f1", "accuracy")),
        )
        for label, one in found["labels"].items()
    ]
    # F1 is not that of the averages beside it, and an average of yes or no over labels says little
    lines += [
        (
            f"{average} average",
            found["n"],
            *("" for _ in beside),
            *(
                exact.told(found["overall"][f"{average}_{name}"])
                for name in ("precision", "recall", "f1")
            ),
            "",
        )
        for average in ("macro", "weighted")
    ]
    blocks = [_table(("label", "rows", *beside, "precision", "recall", "F1", "accuracy"), lines)]
    if found["confusion"] is not None:
        confusion = [
            (f"**{label}**", *row, *(one["unanswered"] for _ in missing))
            for (label, one), row in zip(found["labels"].items(), found["confusion"], strict=True)
        ]
        blocks += [
            "Confusion (rows: what is true, columns: what was decided):",
            _table(("", *found["labels"], *missing), confusion),
        ]
    return Section(
        f"evaluate: {champion} against the {title} (test, n={found['n']:,}, {found['groups']:,} groups)",
        blocks,
        [Made("evaluation.json", f"test.{reference}.{champion}", metrics.evaluate, "evaluate")],
    )


def _silver(
    asked: Mapping[str, Any],
    collected: Mapping[str, Any],
    fused: Mapping[str, Any],
    evaluated: Mapping[str, Any],
    champion: str,
) -> Iterator[Section]:
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
            exact.told(fused["teachers"][name]["accuracy"]) if name in fused["teachers"] else "",
            exact.told(metrics.right(gold[name], many=fused["many"])),
            exact.told(gold[name]["overall"]["macro_f1"]),
            f"{gold[name]['n']:,}",
        )
        for name in gold
    ] or [(name, exact.told(one["accuracy"])) for name, one in fused["teachers"].items()]
    share = "accuracy a label" if fused["many"] else "accuracy"
    head = ("voter", f"{share}, estimated from the votes alone")
    agreed = fused["agreement"]
    pairs = [
        (
            " and ".join(pair["between"]),
            f"{pair['n']:,}",
            *(exact.told(pair[figure]) for figure in ("raw", "kappa", "alpha")),
        )
        for pair in agreed["pairs"]
    ]
    yield Section(
        "collect",
        [
            _table(
                (
                    *("voter", "model", "prompt", "hash", "asked"),
                    *(one.replace("_", " ") for one in outcomes),
                ),
                answers,
            ),
            f"Answers to unknown ids: {collected['unknown_ids']:,}.",
        ],
        [
            Made("request.json", "voters", request.plan, "request"),
            Made("collect.json", "voters", collect.collect, "collect"),
        ],
    )
    blocks = [_table((*head, f"{share} by people", "macro-F1 by people", "n") if gold else head, people)]
    if "teachers" in evaluated["test"].get("gold", {}):
        taught, judged = evaluated["test"]["label"][champion], evaluated["test"]["gold"]
        by_teachers, teachers, model = (
            exact.told(one["overall"]["accuracy"])
            for one in (taught, judged["teachers"], judged[champion])
        )
        blocks.append(
            f"Silver is not gold. On test, {champion} agrees with its teachers in {by_teachers} of "
            f"{taught['n']:,} comments. People agree with the teachers in {teachers} of "
            f"{judged['teachers']['n']:,}, and with {champion} in {model}."
        )
    blocks += [
        f"Krippendorff's alpha over all annotators: {exact.told(agreed['alpha'])}.",
        _table(("annotators", "n", "raw agreement", "Cohen's kappa", "Krippendorff's alpha"), pairs),
    ]
    yield Section(
        f"fuse: {fused['method'].replace('_', ' ')}",
        blocks,
        [
            Made("fuse.json", "teachers", fuse.fuse, "fuse"),
            Made("fuse.json", "agreement", agreement.agreement, "fuse"),
            *(
                [Made("evaluation.json", "test.gold.teachers", metrics.evaluate, "evaluate")]
                if "teachers" in evaluated["test"].get("gold", {})
                else []
            ),
        ],
    )


def _reviewed(found: Mapping[str, Any]) -> list[str]:
    """What people were asked about and why, what came of it, and how far they agree."""
    arms = [
        (arm, f"{one['asked']:,}", f"{one['reviewed']:,}", f"{one['gold']:,}")
        for arm, one in found["arms"].items()
    ]
    blocks = [
        f"Rows asked about: {found['asked']:,}; reviewed {found['reviewed']:,}, not yet"
        f" {found['unfilled']:,}, gone or with another text by now {found['gone']:,}. Rows on which"
        f" reviewers differ: {found['differing']:,}; decided on {found['settled']:,}, a tie without a"
        f" gold label {found['undecided']:,}.",
        _table(("chosen for", "asked", "reviewed", "gold"), arms),
    ]
    if agreed := found["agreement"]:
        pairs = [
            (
                " and ".join(pair["between"]),
                f"{pair['n']:,}",
                *(exact.told(pair[figure]) for figure in ("raw", "kappa", "alpha")),
            )
            for pair in agreed["pairs"]
        ]
        head = ("reviewers", "n", "raw agreement", "Cohen's kappa", "Krippendorff's alpha")
        blocks += [f"Krippendorff's alpha over all reviewers: {exact.told(agreed['alpha'])}. By pair:"]
        blocks += [_table(head, pairs)]
    return blocks


def _searched(found: Mapping[str, Any]) -> list[str]:
    """Which rows people label next, and how near they are to the examples they were looked for by."""
    by_chance = found["random"]["rows"]
    told = (
        f"{_count(found['pool'], 'row')} in the pool that nobody has looked at; {by_chance:,} by chance"
    )
    if found["random"]["inclusion"] is not None:
        told += f", each with probability {found['random']['inclusion']:.4f}"
    lines = [
        (
            label,
            f"{one['examples_of_the_codebook']:,}",
            f"{one['examples_of_the_training_part']:,}",
            f"{one['looked_through']:,}",
            f"{one['found']:,}",
            _range(one["score"]),
            _range(one["score_of_examples"]),
        )
        for label, one in found["labels"].items()
    ]
    if not lines:
        return [f"{told}; no label is looked for."]
    head = ("label", "examples: codebook", "training part", "looked through", "found")
    scored = ("score of those found", "score of the examples")
    why = (
        "A score is the mean cosine to the label's examples less that to the others'; shown are lowest,"
        " median and highest, which are no estimates."
    )
    return [f"{told}.", _table((*head, *scored), lines), why]


def _range(scores: Mapping[str, float | None]) -> str:
    """`0.062, 0.066, 0.080`: lowest, median and highest; empty without any."""
    return ", ".join(f"{one:.3f}" for one in scores.values() if one is not None)


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


def _mixes(mixes: Mapping[str, Any], evaluated: Mapping[str, Any], chosen: Mapping[str, Any]) -> str:
    """A line a candidate: what it learnt from, its macro-F1, and what its mix is worth."""
    columns = [
        (part, reference)
        for part in ("validation", "test")
        for reference in ("gold", "label")
        if reference in evaluated[part]
    ]
    lines: list[Row] = []
    for name, one in mixes.items():
        kept = chosen["mixes"].get(name)
        lines.append(
            (
                name,
                one["name"],
                metrics.told_rows(one["rows"]),
                *(
                    exact.told(evaluated[part][reference][name]["overall"]["macro_f1"])
                    for part, reference in columns
                ),
                exact.signed(kept["difference"]) if kept and kept["difference"] else "",
                _p(kept["p_holm"]) if kept else "",
                _kept(kept) if kept else "",
            )
        )
    figures = (
        f"macro-F1, {part}, {REFERENCES[reference]} (n={evaluated[part][reference]['majority']['n']:,})"
        for part, reference in columns
    )
    head = ("candidate", "mix", "training rows", *figures, "difference", "p (Holm)", "")
    return _table(head, lines)


def _kept(mix: Mapping[str, Any]) -> str:
    if mix["difference"] is None:
        return "not kept: validation has no people's labels to judge it by"
    return "**kept**" if mix["kept"] else "not kept"


def _pseudo(told: Mapping[str, Any]) -> str:
    members = f"the {told['combine']} of {' and '.join(told['candidates'])}"
    found = [
        f"{_count(told['pool'], 'comment')} without a label (beside"
        f" {sum(told['left_out'].values()):,} that are too near validation or test):"
        f" {told['accepted']:,} accepted by {members} at"
        f" {told['threshold']:g}, {told['disagreed']:,} disagreed on, {told['in_doubt']:,} in doubt."
    ]
    shown = {"label": "validation's labels", "gold": "validation's gold"}
    right = [
        f"{exact.told(one)} of {one['n']:,} accepted of {_count(one['of'], 'row')} by {shown[by]}"
        for by, one in told["accuracy"].items()
        if one
    ]
    if right:
        found.append(f"What they accept is right in {'; '.join(right)}.")
    lines = [
        (label, f"{one['accepted']:,}", f"{one['rejected']:,}") for label, one in told["labels"].items()
    ]
    return "\n\n".join([" ".join(found), _table(("label", "accepted", "rejected"), lines)])


def _doubt(found: Mapping[str, Any], mixes: Mapping[str, Any]) -> list[str]:
    """What planted noise costs, which way gives back half of it, and who doubts labels."""
    rates = [one for one in found["planted"] if one["rate"]]
    ways = [way for way in found["planted"][0]["macro_f1"] if way not in ("clean", "noisy", "oracle")]
    lines: list[Row] = []
    for one in found["planted"]:
        figures, recovered = one["macro_f1"], one["recovered"]
        lines.append(
            (
                f"{one['rate']:.0%}",
                *(metrics.told(figures[way]) for way in ("clean", "noisy")),
                *(
                    shown
                    for way in ways
                    for shown in (
                        metrics.told(figures[way]),
                        metrics.told(recovered[way]) if recovered else "",
                    )
                ),
                metrics.told(recovered["oracle"]) if recovered else "",
            )
        )
    enough = {
        way: [
            f"{one['rate']:.0%}"
            for one in rates
            if not one["recovered"] or one["recovered"][way]["value"] >= HALF
        ]
        for way in ways
    }
    reach = "; ".join(
        f"`{way}` at {', '.join(at) if at else 'none of these rates'}" for way, at in enough.items()
    )
    doubting = {name: one["weights"]["noise"] for name, one in mixes.items()}
    heeded = ", ".join(f"{name} (`{way}`)" for name, way in doubting.items() if way != "none")
    cells = (cell for way in ways for cell in (f"`{way}`", "gives back"))
    head = ("flipped", "clean", "noisy", *cells, "flipped ones dropped: gives back")
    draws = f"{found['draws']} draws" if found["draws"] > 1 else "one draw"
    return [
        f"So many of the training labels were changed by chance ({draws}). {found['candidate']} learnt"
        f" from them as they were, noisy, and as a mix's `noise` cleans them; macro-F1 on"
        f" {found['part']}, by its labels (n={found['planted'][0]['n']:,}). Gives back: of what noise"
        " took, with its interval; the last column is what could be known at best by dropping.",
        _table(head, lines),
        f"At least half of what noise takes comes back with {reach}."
        + (f" Labels are doubted for {heeded}." if heeded else " No candidate's mix doubts labels."),
    ]


def _generated(found: Mapping[str, Any]) -> str:
    """What became of the texts that were asked for: a column a label, a line a reason that any has."""
    columns = {**found["labels"], **({"all": found} if len(found["labels"]) > 1 else {})}
    lines: list[Row] = [("asked", *(f"{one['asked']:,}" for one in columns.values()))]
    for kind in ("unread", "rejected"):
        for reason, count in found[kind].items():
            if count:
                name = reason.replace("_", " ")
                lines.append((name, *(f"{one[kind][reason]:,}" for one in columns.values())))
    lines.append(("**accepted**", *(f"{one['accepted']:,}" for one in columns.values())))
    lines.append(("of those asked", *(exact.told(one["rate"]) for one in columns.values())))
    return _table(("generated texts", *columns), lines)


def _judge(found: Mapping[str, Any]) -> str:
    judge = found["judge"]
    who = {"tfidf": "a TF-IDF model of the training part", "release": "a release of before"}
    return (
        f"Written by {found['model']} after {_count(found['parents'], 'training row')}, in "
        f"{_count(found['requests'], 'request')}. A reason counts texts that those above it let by."
        f" Another label: by {who[judge['family']]}, macro-F1 {judge['validation_macro_f1']:.3f} on"
        " validation."
    )


def _parts(split: Mapping[str, Any]) -> str:
    labels = list(split["labels"]["train"])
    lines = [
        (part, f"{count:,}", *(f"{split['labels'][part][label]:,}" for label in labels))
        for part, count in split["rows"].items()
    ]
    return _table(("part", "rows", *labels), lines)


def _promises(split: Mapping[str, Any]) -> str:
    """The certificate's counts for each pair of parts, the labels that were too rare, and the digest
    that a test part is known by."""
    lines = [
        (
            pair,
            f"{authors:,}",
            f"{split['shared_repeats'][pair]:,}",
            f"{split['alike_rows'][pair]:,}",
            f"below {split['similarity_floor']:g}" if largest is None else f"{largest:.3f}",
        )
        for pair, authors in split["shared_groups"].items()
        for largest in [split["largest_similarity"][pair]]
    ]
    told = f"The test part's digest begins with `{split['test_digest'][:16]}`."
    if split["rare"]["labels"]:
        rare = ", ".join(f"{label} {rows:,}" for label, rows in split["rare"]["labels"].items())
        into = split["rare"]["into"]
        told += f" Too rare, with their rows: {rare}; {f'merged into {into}' if into else 'dropped'}."
    head = ("between", "authors in both", "repeats in both", "rows like one of the other", "most alike")
    return _table(head, lines) + f"\n\n{told}"


def speed(
    measured: Mapping[str, Any],
    released: Mapping[str, Any],
    asked: Mapping[str, Any],
    price: Hourly | None,
) -> str:
    """Each candidate and variant on the machine that is named, and what it costs there; beside it what
    is published. The README embeds it."""
    rows = measured["rows"]
    lengths = sorted({row["tokens"] for row in rows})
    usual = lengths[len(lengths) // 2]
    single = {(row["model"], row["tokens"]): row for row in rows if row["batch"] == 1}
    lines: list[Row] = []
    for name, one in measured["models"].items():
        best = latency.fastest_batch(rows, name, usual)
        chosen = name == f"onnx-{released['variant']}"
        lines.append(
            (
                f"**{name}**" if chosen else name,
                "release" if chosen else "",
                *(_taken(single[name, at]) for at in lengths),
                f"{best['comments_per_second']:,.0f} ({best['batch']})",
                *([_cost(price.hour / 3.6e-3 / best["comments_per_second"])] if price else []),
                f"{one['cold_start_ms'] / 1000:.1f}" if one["starts"] else "",
                _memory(one),
                _megabytes(one["bytes"]),
            )
        )
    head = (
        "model",
        "",
        *(f"ms a text of {length} tokens" for length in lengths),
        f"texts/s of {usual} tokens (batch)",
        *([f"{price.currency} a million"] if price else []),
        "cold start, s",
        "memory, MB",
        "size, MB",
    )
    told = (
        "ms: one text at a time, p50 (p95) of the calls of one run, not a value and its interval. A"
        " length is in tokens of the release here and in words in the table of candidates, as not every"
        " candidate has tokens; of these texts nearly each word is one token. texts/s: in the batch that"
        " answers most. Cold start: from a new process to its first answer. Memory: the process's, at"
        " most (when loaded)."
    )
    if price:
        told += f" Cost: this machine busy without a pause, at {price.hour:g} {price.currency} an hour."
    return "\n\n".join(
        [
            _machine(measured),
            _table(head, lines),
            told + _voters(asked) + _target(released),
            UNLIKE,
            _table(("published", "ms a text", "study", "machine"), PUBLISHED),
        ]
    )


def _taken(row: Mapping[str, Any]) -> str:
    """p50, and p95 where so many calls have one (`FEW`)."""
    p50, p95 = (f"{row[name]:.{2 if row[name] < 10 else 1}f}" for name in ("p50_ms", "p95_ms"))
    return f"{p50} ({p95})" if row["calls"] >= 20 else p50


def _cost(amount: float) -> str:
    return f"{amount:,.2f}" if amount >= 0.1 else f"{amount:.2g}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f}" if size > 99.5e6 else f"{size / 1e6:.2g}"


def _memory(one: Mapping[str, Any]) -> str:
    if one["peak_bytes"] is None:
        return ""
    return f"{_megabytes(one['peak_bytes'])} ({_megabytes(one['loaded_bytes'])})"


def _voters(asked: Mapping[str, Any]) -> str:
    """What those voters that have a price ask for a million comments."""
    told = [
        f"{one['voter']} ({one['model']}) at most "
        f"{_cost(one['price_at_most'] / one['rows'] * 1e6)} {one['currency']}"
        for one in asked["voters"]
        if one["price_at_most"] is not None and one["rows"]
    ]
    return f" A million comments would cost from the voters: {', '.join(told)}." if told else ""


def _target(released: Mapping[str, Any]) -> str:
    target = released["target"]
    if target is None:
        return ""
    outcome = "met" if target["passed"] else "MISSED"
    return f" Target p95 ≤ {target['p95_ms']} ms at batch 1: {outcome} ({target['slowest_p95_ms']} ms)."


def _variants(candidate: str, released: Mapping[str, Any]) -> str:
    """What became of each variant on this machine's kind of CPU and on others, and why."""
    lines = []
    for name, one in released["variants"].items():
        parity = one["parity"]
        change = {"value": 0 - parity["drop"], "low": 0 - parity["high"], "high": 0 - parity["low"]}
        outcome = f"refused: {one['refused']}" if one["refused"] else ", ".join(one["released_for"])
        lines.append(
            (
                f"**{name}**" if name == released["variant"] else name,
                f"{one['ms']:.2f}",
                f"{one['bytes'] / 1e6:.1f}",
                f"{parity['max_difference']:.4f}",
                f"{parity['agreement']:.1%}",
                f"{parity['macro_f1']:.4f}",
                exact.signed(change),
                f"{parity['alone']:.4f}",
                outcome,
            )
        )
    head = (
        "variant",
        "ms",
        "MB",
        "largest score difference",
        "decided alike",
        "macro-F1",
        "change",
        "alone or not",
        "released for",
    )
    rule = released["rule"]
    told = (
        f"{candidate}, each variant against PyTorch on validation. Released for each kind of CPU (here "
        f"{released['family']}): the fastest that it can run of those that lose at most "
        f"{rule['max_drop']:g} macro-F1, are not shown to be worse, and decide at least "
        f"{rule['min_agreement']:.0%} alike; within {rule['near'] - 1:.0%} of it the smallest, then who "
        "decides most alike. ms: one text at a time, geometric mean over the lengths. Alone or not: how"
        f" far a score moves with the texts beside it, at most {rule['alone']:g}."
    )
    return f"{told}\n\n{_table(head, lines)}"


def _latency(measured: Mapping[str, Any]) -> str:
    lines = [
        (
            row["model"],
            row["tokens"],
            row["batch"],
            row["calls"],
            f"{row['p50_ms']:.2f}",
            f"{row['p95_ms']:.2f}" if row["calls"] >= 20 else "",
            f"{row['p99_ms']:.2f}" if row["calls"] >= 100 else "",
            f"{row['comments_per_second']:,.0f}",
        )
        for row in measured["rows"]
    ]
    return _table(("model", "tokens", "batch", "calls", "p50 ms", "p95 ms", "p99 ms", "texts/s"), lines)


def _machine(measured: Mapping[str, Any]) -> str:
    machine = measured["machine"]
    versions = ", ".join(f"{name} {one}" for name, one in machine["versions"].items())
    gpu = f" and {machine['gpu']} for PyTorch" if machine["gpu"] else ""
    return (
        f"Text to scores, measured in turns in one run on {machine['processor']}{gpu}, "
        f"{_count(machine['threads'], 'thread')}, {machine['system']}, Python {machine['python']};"
        f" {versions}."
    )


def _table(head: Row, lines: Iterable[Row]) -> str:
    shown = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in shown)


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


def for_readme(folder: Path, price: Hourly | None) -> str:
    """The leaderboard and the speeds of the results in `folder`."""
    evaluated, compared, chosen, cost, measured, released, asked = (
        read_json(folder / f"{name}.json") for name in BOARD
    )
    board = leaderboard(evaluated, compared, chosen, cost)
    marked = [exact.MARKED] if exact.MARK in board else []
    return "\n\n".join([board, *marked, speed(measured, released, asked, price)])


def main() -> None:
    """Put the stand-in's results into README.md (`make docs`)."""
    table = for_readme(Path("reports/standin"), read_params().bench.price)
    readme = Path("README.md")
    readme.write_text(embed(readme.read_text("utf-8"), table), "utf-8")


if __name__ == "__main__":
    main()
