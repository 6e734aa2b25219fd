"""The results as pictures: one SVG each, and one sentence computed from what it shows.

The same numbers give the same bytes. Text stays text, so that a browser's own fonts show labels in any
script. Colours are those of Okabe & Ito (2008), which colour-blind people can tell apart.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from undertone import files
from undertone.measures import exact, metrics
from undertone.measures.evaluation import BASELINES, two_digits

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Found = Mapping[str, Any]  # what `metrics.evaluate` returns
Points = Sequence[Mapping[str, float | None]]  # of learning curves, each with its `step`

BLUE, ORANGE, GREEN, PINK, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#999999"
FEWEST = 10  # scores in a bin of the reliability curve; fewer are pooled with the next
WIDTH = 7.0  # inches; shown 700 pixels wide its text is 12 pixels high
SENTENCES = "sentences.json"
OF_CANDIDATE = ("confusion", "labels", "reliability", "coverage_risk", "learning")

_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "undertone",
    "font.family": "sans-serif",
    # measured in the first, which matplotlib brings along; the last three have Chinese
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei"],
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "white",
}


def draw_all(
    *,
    evaluated: Mapping[str, Any],
    curves: Mapping[str, Any],
    learning: Mapping[str, Points],
    latency: Mapping[str, Any],
    released: Mapping[str, Any],
    split: Mapping[str, Any],
    prevalence: Mapping[str, Any],
    folder: Path,
) -> dict[str, str]:
    """Path within `folder` → sentence, which `sentences.json` in it holds too.

    A folder for each candidate (test part, against the labels) and the shared pictures beside them.
    There is no picture of what there is no number of: learning curves where none were kept, reliability
    without a valid answer, prevalence without hand labels.
    """
    found = evaluated["test"]["label"]
    said: dict[str, str] = {}
    for name in (name for name in found if name not in BASELINES):
        (folder / name).mkdir(parents=True, exist_ok=True)
        path = {kind: folder / name / f"{kind}.svg" for kind in OF_CANDIDATE}
        own, curve = found[name], curves[name]
        one = {
            "confusion": confusion(name, own, path["confusion"]),
            "labels": by_label(name, own, path["labels"]),
        }
        if curve["reliability"]:
            one["reliability"] = reliability(name, own, curve["reliability"], path["reliability"])
        one["coverage_risk"] = coverage_risk(
            name, curve["coverage_risk"], curve["answered"], path["coverage_risk"]
        )
        if learning.get(name):
            one["learning"] = learning_curves(name, learning[name], path["learning"])
        said |= {f"{name}/{kind}.svg": sentence for kind, sentence in one.items()}
    said["pareto.svg"] = pareto(found, latency, released, folder / "pareto.svg")
    said["parts.svg"] = parts(split, folder / "parts.svg")
    if prevalence:
        said["prevalence.svg"] = corrected(prevalence, folder / "prevalence.svg")
    files.write_json(folder / SENTENCES, said)
    return said


def confusion(name: str, found: Found, out: Path) -> str:
    """One label a text: what was decided of each label's texts; many: right, missed and false ones."""
    if found["confusion"] is None:
        return _counts(name, found, out)
    labels, silent = list(found["labels"]), metrics.unanswered(found)
    counts = np.array(found["confusion"])
    if silent:
        missing = [[one["unanswered"]] for one in found["labels"].values()]
        counts = np.hstack([counts, missing])
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    columns = [*labels, "no valid answer"] if silent else labels
    with _figure(out, 1.6 + 0.42 * len(labels)) as figure:
        axes = figure.subplots()
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for (row, column), count in np.ndenumerate(counts):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, f"{count:,}", ha="center", va="center", color=colour)
        axes.set_xticks(range(len(columns)), columns, rotation=30, ha="right")
        axes.set_yticks(range(len(labels)), labels)
        axes.set(xlabel=f"decided by {name}", ylabel="true", title=f"Test texts, n={found['n']:,}")
    wrong = np.array(found["confusion"]) * (1 - np.eye(len(labels), dtype=np.int64))
    row, column = np.unravel_index(int(wrong.argmax()), wrong.shape)
    most, rows = int(wrong[row, column]), found["labels"][labels[row]]["support"]
    said = (
        f"{name} confuses '{labels[row]}' with '{labels[column]}' most: {most:,} of {rows:,}"
        if most
        else f"{name} confuses no two labels"
    )
    return f"{said}{_silent(found)}."


def _counts(name: str, found: Found, out: Path) -> str:
    own = found["labels"]
    labels = list(own)
    hits, decided, support = (
        np.array([one[key] for one in own.values()]) for key in ("hits", "decided", "support")
    )
    missed, false = support - hits, decided - hits
    at = np.arange(len(labels))
    with _figure(out, 1.5 + 0.35 * len(labels)) as figure:
        axes = figure.subplots()
        left = np.zeros(len(labels))
        named = (("right", hits, BLUE), ("missed", missed, GREY), ("false", false, ORANGE))
        for word, counts, colour in named:
            bars = axes.barh(at, counts, left=left, color=colour, label=word)
            told = [f"{one:,}" if one else "" for one in counts]
            ink = "white" if colour == BLUE else "black"
            axes.bar_label(bars, told, label_type="center", color=ink)
            left += counts
        _rows(axes, labels)
        axes.set(xlabel=f"test texts, n={found['n']:,}")
        figure.legend(loc="outside upper center", ncols=3, frameon=False)
    most, often = int(missed.argmax()), int(false.argmax())
    said = [
        f"misses '{labels[most]}' most ({missed[most]:,} of {support[most]:,})"
        if missed[most]
        else "misses no label",
        f"sees '{labels[often]}' most where it isn't ({false[often]:,} times)"
        if false[often]
        else "sees none where it isn't",
    ]
    return f"{name} {' and '.join(said)}{_silent(found)}."


def _silent(found: Found) -> str:
    count = metrics.unanswered(found)
    return f"; it gives no valid answer to {count:,} of {found['n']:,}" if count else ""


def by_label(name: str, found: Found, out: Path) -> str:
    """Precision, recall and F1 of each label with their intervals."""
    own = found["labels"]
    at = np.arange(len(own))
    figures = (("precision", BLUE), ("recall", ORANGE), ("f1", GREEN))
    with _figure(out, 1.5 + 0.6 * len(own)) as figure:
        axes = figure.subplots()
        for place, (key, colour) in enumerate(figures):
            values = [one[key] for one in own.values()]
            value, ends = _ends(values)
            y = at + (place - 1) * 0.26
            shown = "F1" if key == "f1" else key
            axes.barh(y, value, 0.24, color=colour, label=shown, alpha=0.75)
            axes.errorbar(value, y, xerr=ends, fmt="none", ecolor="black", elinewidth=1, capsize=2)
        _rows(axes, [f"{label} ({one['support']:,})" for label, one in own.items()])
        axes.set(xlim=(0, 1.02), xlabel=f"{name} on test, n={found['n']:,}; 95 % intervals")
        figure.legend(loc="outside upper center", ncols=3, frameon=False)
    ranked = sorted(own, key=lambda label: own[label]["f1"]["value"])
    best, worst = ranked[-1], ranked[0]
    if own[best]["f1"]["value"] == own[worst]["f1"]["value"]:
        return f"{name} finds all labels alike (F1 {own[best]['f1']['value']:.3f})."
    return (
        f"{name} finds '{best}' best (F1 {_told(own[best]['f1'])}) and '{worst}' worst "
        f"({_told(own[worst]['f1'])})."
    )


def reliability(name: str, found: Found, bins: Sequence[Mapping[str, float]], out: Path) -> str:
    """How often scores are right, by how high they are, and how many there are of each height."""
    confidence, right, n = pooled(bins).T
    with _figure(out, 4.6) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1.2])
        upper.plot([0, 1], [0, 1], color=GREY, linestyle="--", label="as it should be")
        upper.plot(confidence, right, color=BLUE, marker="o", label=name)
        upper.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="share that is right")
        upper.legend(loc="upper left", frameon=False)
        bars = lower.bar(confidence, n, 0.9 / metrics.BINS, color=BLUE)
        lower.bar_label(bars, [f"{int(one):,}" for one in n], fontsize=7)
        lower.margins(y=0.25)
        lower.set(xlabel=f"score, bins of fewer than {FEWEST} pooled with the next", ylabel="how many")
    mean, share = (float(np.average(one, weights=n)) for one in (confidence, right))
    gap = round(mean, 3) - round(share, 3)
    way = f"{abs(gap):.3f} too {'high' if gap > 0 else 'low'}" if gap else "neither too high nor too low"
    error = metrics.told(found["overall"]["expected_calibration_error"])
    return (
        f"{name}'s scores are {mean:.3f} on average and right in {share:.3f}, so {way} on the whole; "
        f"the expected calibration error is {error}."
    )


def pooled(bins: Sequence[Mapping[str, float]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """[bins, (mean score, share that is right, n)]: neighbours together until they hold FEWEST scores;
    of fewer the share says nothing. What is left at the end joins the last."""
    found: list[list[float]] = [[0.0, 0.0, 0.0]]
    for one in bins:
        if found[-1][2] >= FEWEST:
            found.append([0.0, 0.0, 0.0])
        found[-1] = [
            had + more
            for had, more in zip(
                found[-1],
                (one["confidence"] * one["n"], one["accuracy"] * one["n"], one["n"]),
                strict=True,
            )
        ]
    if len(found) > 1 and found[-1][2] < FEWEST:
        *found, last = found
        found[-1] = [had + more for had, more in zip(found[-1], last, strict=True)]
    sums = np.array(found)
    return np.column_stack([sums[:, :2] / sums[:, 2:], sums[:, 2]])


def coverage_risk(name: str, curve: Mapping[str, Any], rule: Mapping[str, Any] | None, out: Path) -> str:
    """The share of wrong texts among the surest, with its band, and where `rule` puts the candidate."""
    coverage, risk, low, high = (np.array(curve[key]) for key in ("coverage", "risk", "low", "high"))
    with _figure(out, 3.4) as figure:
        axes = figure.subplots()
        axes.fill_between(coverage, low, high, color=BLUE, alpha=0.2, linewidth=0, label="95 % interval")
        axes.plot(coverage, risk, color=BLUE, label=name)
        if rule is not None and rule["error"]["value"] is not None:
            value, ends = _ends([rule["error"]])
            axes.errorbar(
                rule["coverage"]["value"],
                value,
                yerr=ends,
                fmt="D",
                color=ORANGE,
                capsize=3,
                label="its least confidence",
            )
        axes.set(xlim=(0, 1.01), xlabel="share of texts answered, the surest first")
        axes.set(ylim=(0, max(0.05, float(high.max()) * 1.05)), ylabel="share of them wrong")
        axes.legend(loc="upper center", frameon=False)
    half = int(np.abs(coverage - 0.5).argmin())

    def told(at: int) -> str:
        return _percent({"value": risk[at], "low": low[at], "high": high[at]})

    said = (
        f"Of the surest {coverage[half]:.0%} of the texts {name} has {told(half)} wrong, "
        f"of all {told(len(risk) - 1)}"
    )
    if rule is not None:
        said += f"; with its least confidence it answers {_percent(rule['coverage'])}"
        if rule["error"]["value"] is not None:
            said += f", of which {_percent(rule['error'])} are wrong"
    return f"{said}."


def learning_curves(name: str, points: Points, out: Path) -> str:
    """Loss and macro-F1 by step, of training and validation rows."""
    series = {
        key: np.array([(one["step"], one[key]) for one in points if one.get(key) is not None])
        for key in ("loss", *(f"{part}_{of}" for part in ("train", "validation") for of in _LEARNT))
    }
    with _figure(out, 3.2) as figure:
        for axes, of in zip(figure.subplots(1, 2), _LEARNT, strict=True):
            if of == "loss" and len(series["loss"]):
                axes.plot(*series["loss"].T, color=GREY, linewidth=0.8, label="training batches")
            for part, colour, mark in (("train", BLUE, "o"), ("validation", ORANGE, "s")):
                if len(series[f"{part}_{of}"]):
                    axes.plot(
                        *series[f"{part}_{of}"].T, color=colour, marker=mark, markersize=4, label=part
                    )
            axes.set(xlabel="step", ylabel=_LEARNT[of])
            axes.set_ylim(0, 1.02 if of == "macro_f1" else None)
            if axes.lines:
                axes.legend(frameon=False)
    known, seen = series["validation_macro_f1"], series["train_macro_f1"]
    if not len(known):
        losses = next((one for one in (series["loss"], series["train_loss"]) if len(one)), None)
        if losses is None:
            return f"{name} kept no loss and no macro-F1."
        return f"{name}'s training loss goes from {losses[0, 1]:.3f} to {losses[-1, 1]:.3f}."
    step, best = known[int(known[:, 1].argmax())]
    said = f"{name}'s macro-F1 on validation is highest at step {step:,.0f} ({best:.3f})"
    then = seen[seen[:, 0] == step] if len(seen) else seen
    if len(then):
        gap = then[0, 1] - best
        said += f"; on training rows it is {abs(gap):.3f} {'higher' if gap >= 0 else 'lower'} then"
    return f"{said}."


_LEARNT = {"loss": "loss", "macro_f1": "macro-F1"}


def pareto(
    found: Mapping[str, Found], latency: Mapping[str, Any], released: Mapping[str, Any], out: Path
) -> str:
    """Macro-F1 on test by milliseconds a text (the shortest, one at a time); areas are sizes.

    Nobody measured an ONNX variant on test: it stands, hollow unless it is the release, at an estimate,
    the encoder's macro-F1 less what it loses of that on validation, with the interval of both (see
    `exact.difference`; the parts share no author). The line joins those that no other is both better
    and faster than.
    """
    from matplotlib.ticker import LogLocator, NullLocator

    encoder, sizes = latency["encoder"], {name: one["bytes"] for name, one in latency["models"].items()}
    tokens = min(row["tokens"] for row in latency["rows"])
    single = [row for row in latency["rows"] if (row["tokens"], row["batch"]) == (tokens, 1)]
    ms = {row["model"]: row["p50_ms"] for row in single}
    own = {name: found[name]["overall"]["macro_f1"] for name in ms if name in found}
    figures = own | {
        f"onnx-{name}": exact.difference(own[encoder], _lost(one["parity"]))
        for name, one in released["variants"].items()
        if f"onnx-{name}" in ms
    }
    f1 = {name: float(one["value"]) for name, one in figures.items()}
    front = [name for name in sorted(f1, key=lambda name: ms[name]) if not _beaten(name, f1, ms)]
    largest = max(*(sizes[name] for name in f1), 1)
    area = {name: 12 + 300 * sizes[name] / largest for name in f1}  # square points
    with _figure(out, 5.0) as figure:
        axes = figure.subplots()
        for name, value in f1.items():
            _, ends = _ends([figures[name]])
            ink = BLUE if name in own else ORANGE
            axes.errorbar(ms[name], value, yerr=ends, fmt="none", ecolor=ink, capsize=3, elinewidth=1)
            if name in own:
                axes.scatter(ms[name], value, s=area[name], color=BLUE, alpha=0.6)
            else:
                inner = ORANGE if name == f"onnx-{released['variant']}" else "none"
                axes.scatter(ms[name], value, s=area[name], facecolor=inner, edgecolor=ORANGE, alpha=0.8)
        joined = [(ms[name], f1[name]) for name in front]
        axes.step(*zip(*joined, strict=True), where="post", color=GREY, linestyle="--", zorder=0)
        axes.set_xscale("log")
        axes.margins(0.2)
        axes.set_ylim(-0.06, 1.2)
        axes.set_yticks(np.arange(0, 1.01, 0.2))
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set(
            xlabel=f"ms a text of {tokens} tokens, one at a time",
            ylabel="macro-F1 on test, 95 % interval",
        )
        axes.set_title(
            f"areas: size; orange: ONNX variants, estimated as {encoder} less their loss on validation; "
            "filled: the release",
            fontsize=8,
        )
        figure.draw_without_rendering()  # lays out, so that it is known where on the page a point is
        _notes(
            axes,
            [
                (
                    f"{name}, {sizes[name] / 1e6:.3g} MB",
                    [(ms[name], figures[name][end]) for end in ("value", "low", "high")],
                    area[name] ** 0.5 / 2,
                )
                for name in f1
            ],
        )

    def told(name: str) -> str:
        words = "" if name in own else "estimated "
        return f"{words}{_told(figures[name])} at {two_digits(ms[name])} ms, {sizes[name] / 1e6:.3g} MB"

    release = f"onnx-{released['variant']}"
    shown = ", ".join(f"{name} ({told(name)})" for name in front)
    return (
        f"No model is both better and faster than {shown}. The release is {release}"
        + ("" if release in front or release not in f1 else f" ({told(release)})")
        + f". No ONNX variant was measured on test: estimated is {encoder}'s macro-F1 there less what"
        " the variant loses on validation."
    )


def _lost(parity: Mapping[str, float]) -> dict[str, float]:
    """What a variant loses of the encoder's macro-F1, with its interval."""
    return {"value": parity["drop"], "low": parity["low"], "high": parity["high"]}


def _percent(one: Mapping[str, float]) -> str:
    """`3.7% [1.8%, 6.0%]`"""
    if one["low"] == one["high"]:
        return f"{one['value']:.1%} without an interval"
    return f"{one['value']:.1%} [{one['low']:.1%}, {one['high']:.1%}]"


def _told(one: Mapping[str, float | None]) -> str:
    """As `metrics.told`; a caption has no footnotes."""
    return exact.told(one).replace(exact.MARK, " without an interval")


def _beaten(name: str, f1: Mapping[str, float], ms: Mapping[str, float]) -> bool:
    """Whether another is at least as good and as fast, and one of both more."""
    own = (f1[name], -ms[name])
    return any(
        f1[other] >= own[0] and -ms[other] >= own[1] and (f1[other], -ms[other]) != own for other in f1
    )


def parts(split: Mapping[str, Any], out: Path) -> str:
    """Each label's share of each part's rows."""
    labels = list(split["labels"]["train"])
    shares = {
        part: np.array([split["labels"][part][label] for label in labels]) / max(rows, 1)
        for part, rows in split["rows"].items()
    }
    at = np.arange(len(labels))
    with _figure(out, 1.5 + 0.5 * len(labels)) as figure:
        axes = figure.subplots()
        for place, (part, colour) in enumerate(zip(shares, (BLUE, ORANGE, GREEN), strict=True)):
            word = f"{part} ({split['rows'][part]:,})"
            axes.barh(at + (place - 1) * 0.26, shares[part], 0.24, color=colour, label=word)
        _rows(axes, labels)
        axes.set(xlabel="share of the part's rows")
        figure.legend(loc="outside upper center", ncols=3, frameon=False)
    every = np.stack(list(shares.values()))
    most = int(np.ptp(every, axis=0).argmax())
    told = ", ".join(f"{share[most]:.1%} of {part}" for part, share in shares.items())
    return f"The parts differ most in '{labels[most]}': {told}."


def corrected(found: Mapping[str, Any], out: Path) -> str:
    """The classifier's count of each label, and the corrected share with its interval."""
    own = found["labels"]
    labels, at = list(own), np.arange(len(own))
    naive = np.array([one["naive"] for one in own.values()])
    value, ends = _ends([one["corrected"] for one in own.values()])
    with _figure(out, 1.5 + 0.4 * len(labels)) as figure:
        axes = figure.subplots()
        axes.scatter(naive, at - 0.12, marker="x", color=ORANGE, label="classifier's count")
        axes.errorbar(value, at + 0.12, xerr=ends, fmt="o", color=BLUE, capsize=3, label="corrected")
        _rows(axes, labels)
        axes.set_xlim(left=0)
        axes.set(xlabel=f"share of {found['rows']:,} texts, {found['n']:,} of them labelled by hand")
        figure.legend(loc="outside upper center", ncols=2, frameon=False)
    most = int(np.abs(naive - value).argmax())
    outside = sum(
        not one["corrected"]["low"] <= one["naive"] <= one["corrected"]["high"] for one in own.values()
    )
    return (
        f"Correction moves '{labels[most]}' most, from {naive[most]:.3f} to "
        f"{metrics.told(own[labels[most]]['corrected'])}; the classifier's count is outside the "
        f"corrected interval for {outside:,} of {len(labels):,} labels."
    )


@contextmanager
def style() -> Iterator[None]:
    """All pictures' fonts and colours, and the same bytes for the same picture."""
    import matplotlib as mpl

    with warnings.catch_warnings(), mpl.rc_context(_STYLE):
        # only measured here; whoever shows the SVG has the font
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


@contextmanager
def _figure(out: Path, height: float) -> Iterator["Figure"]:
    """An empty picture, which is written to `out` in the end."""
    from matplotlib.figure import Figure  # without pyplot: no window, no state

    with style():
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        yield figure
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})


def _rows(axes: "Axes", labels: Sequence[str]) -> None:
    """A line a label, the first on top."""
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()


def _notes(axes: "Axes", notes: Sequence[tuple[str, Sequence[tuple[float, float]], float]]) -> None:
    """A text beside each disc (text; place, lower and upper end of its interval; radius in points), as
    near as it runs into no other text, disc or interval, and off no side."""
    points = 72 / axes.figure.dpi
    taken: list[tuple[float, float, float, float]] = []  # left, right, bottom and top, in points
    places = []
    for _, ends, radius in notes:
        middle, low, high = (axes.transData.transform(one) * points for one in ends)
        places.append(middle)
        reach = max(radius, 3)
        taken.append((middle[0] - reach, middle[0] + reach, middle[1] - radius, middle[1] + radius))
        taken.append((middle[0] - 3, middle[0] + 3, low[1] - 1, high[1] + 1))
    box = axes.get_window_extent()
    sides = (box.x0 * points, axes.figure.bbox.x1 * points, box.y0 * points, box.y1 * points)
    for at in sorted(range(len(notes)), key=lambda at: (places[at][0], places[at][1])):
        text, ends, radius = notes[at]
        wide, (x, y) = 4.9 * len(text), places[at]
        ways = [
            (side * (radius + 4 + aside) - (wide if side < 0 else 0), up)
            for aside in (0, 20, 40)
            for step in range(12)
            for up in ((0,) if not step else (10.0 * step, -10.0 * step))
            for side in (1, -1)
        ]
        across, up = next(
            (
                way
                for way in sorted(ways, key=lambda way: abs(way[1]) + _aside(way[0], wide, radius))
                if _free((x + way[0], x + way[0] + wide, y + way[1] - 5, y + way[1] + 5), taken, sides)
            ),
            ways[0],
        )
        taken.append((x + across, x + across + wide, y + up - 5, y + up + 5))
        line = {"arrowstyle": "-", "color": GREY, "linewidth": 0.5}
        line["relpos"] = (0 if across > 0 else 1, 0.5)
        axes.annotate(
            text,
            ends[0],
            (across, up),
            textcoords="offset points",
            fontsize=8,
            va="center",
            arrowprops=line if abs(up) > radius + 4 or _aside(across, wide, radius) else None,
        )


def _aside(across: float, wide: float, radius: float) -> float:
    """How much further than needed a text of this width stands to the right or left of its disc."""
    return round((across if across > 0 else -across - wide) - radius - 4, 6)


def _free(
    own: tuple[float, float, float, float],
    taken: Sequence[tuple[float, float, float, float]],
    sides: tuple[float, float, float, float],
) -> bool:
    """Whether a box (left, right, bottom, top) is within the `sides` and meets none that is `taken`."""
    left, right, bottom, top = own
    within = sides[0] <= left and right <= sides[1] and sides[2] <= bottom and top <= sides[3]
    return within and not any(
        left < other[1] and other[0] < right and bottom < other[3] and other[2] < top for other in taken
    )


def _ends(
    figures: Sequence[Mapping[str, float]],
) -> tuple[np.ndarray[Any, np.dtype[np.float64]], np.ndarray[Any, np.dtype[np.float64]]]:
    """Values [n], and how far their intervals reach below and above [2, n]."""
    value, low, high = (np.array([one[key] for one in figures]) for key in ("value", "low", "high"))
    return value, np.maximum([value - low, high - value], 0)
