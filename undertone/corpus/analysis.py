"""Label rates of a table, and what planned filters do to every label before they are applied."""

import glob
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from undertone import tables
from undertone.codebook import Codebook, label_of
from undertone.corpus import ingest
from undertone.corpus.cells import Column, NoColumn, Place, Wanted
from undertone.corpus.workbook import Raw, read_files
from undertone.errors import Problem
from undertone.files import whole
from undertone.labels import Flags, LabelSpace
from undertone.params import LabelColumns, Source

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Numbers = NDArray[np.int64]

PICTURES = (".png", ".svg", ".pdf")
FILTERS = {  # by whether a text may have many labels
    True: ("drop-all-no", "drop-category:NAME", "drop-no:NAME+NAME", "balance:NAME"),
    False: ("balance", "balance:NAME", "drop-label:NAME"),
}


@dataclass(frozen=True)
class Marks:
    """The labelled rows of a table: their places in it [n], and which labels they have [n, labels]."""

    space: LabelSpace
    rows: Numbers
    flags: Flags

    def kept(self, which: NDArray[np.bool_]) -> "Marks":
        return Marks(self.space, self.rows[which], self.flags[which])

    def without(self, at: int) -> "Marks":
        """The same rows without a label; `Problem` where it is the only one."""
        if len(self.space.labels) == 1:
            raise Problem(f"'{self.space.labels[0]}' is the only label left")
        labels, names = list(self.space.labels), list(self.space.names)
        del labels[at], names[at]
        space = LabelSpace.of(self.space.codebook, labels, names, many=self.space.many)
        return Marks(space, self.rows, np.delete(self.flags, at, axis=1))


@dataclass(frozen=True)
class Step:
    """One filter: the rows as they are, and as it would leave them; `note`: what it costs besides."""

    filter: str
    before: Marks
    after: Marks
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table's labels. `total` counts all its rows; `notes` say what wasn't read.

    `rows_of` gives the whole rows that some of its marks stand for, in their order.
    """

    marks: Marks
    total: int
    notes: list[str]
    rows_of: Callable[[Marks], pd.DataFrame]


def of_stage(path: Path, space: LabelSpace) -> Table:
    """The table that the stage `label` wrote."""
    columns = {label: f"label.{label}" for label in space.labels}
    table = tables.read(path, ("id", *columns.values()))

    def rows_of(marks: Marks) -> pd.DataFrame:
        gone = [column for label, column in columns.items() if label not in marks.space.labels]
        return table.drop(columns=gone).iloc[marks.rows]

    return Table(_marks(tables.judged(table, "label", space), space), len(table), [], rows_of)


def of_file(path: Path, codebook: Codebook, scheme: str | None, column: str | None) -> Table:
    """A table in any format that ingest reads, with the labels that the scheme asks for or learns.

    A column a label, called like it, of 0/1 or yes/no; or `column`, which names labels. `Problem` on
    a cell that is none of these. A row whose label columns are empty has no label.
    """
    if not path.is_file():
        raise Problem("no such file", where=str(path))
    try:
        return _of_file(path, codebook.asked(scheme), codebook, scheme, column)
    except Problem:
        if scheme not in codebook.merges:
            raise
        try:  # the labels may have been merged before
            return _of_file(path, codebook.learnt(scheme), codebook, None, column)
        except Problem:
            pass
        raise


def _of_file(
    path: Path, written: Codebook, codebook: Codebook, scheme: str | None, column: str | None
) -> Table:
    """The labels of `written` as those of the scheme of `codebook`."""
    spellings = written.spellings

    def means(label: str) -> Callable[[str], bool]:
        return lambda header: label_of(header.removeprefix("label."), spellings) == label

    if column is None:
        form = LabelColumns(form="flags")
        named = [Column(label, "--column", means=means(label)) for label in written.space.labels]
    else:
        form = LabelColumns(form="name", columns=[column])
        named = [Column(column, "--column", exact=True)]
    wanted = _Heard(tuple(named), None)
    try:
        raw = _read(path, wanted)
    except NoColumn as problem:
        if column is not None or len(problem.headers) < len(named):
            raise
        what = f"no column is called {' or '.join(written.space.labels)}"
        remedy = "Name the column that holds the labels' names: --column."
        raise Problem(what, where=str(path), remedy=remedy) from None
    labelled, wrong, _ = ingest.labelled(raw.cells, form, "label", written)
    if bad := [*raw.bad, *wrong]:
        raise Problem(f"{len(bad):,} cells can't be read, the first is {bad[0]}", where=str(path))
    judged = tables.judged(labelled, "label", written.space)
    space = written.space if scheme is None else codebook.learnt(scheme).space
    places = raw.cells[["file", "sheet", "row"]]

    def rows_of(marks: Marks) -> pd.DataFrame:
        return _whole_rows(path, wanted, places.iloc[marks.rows], marks, column)

    marks = _marks(codebook.merged(judged, scheme), space)
    return Table(marks, len(raw.cells) + raw.blank, raw.notes, rows_of)


@dataclass(frozen=True)
class _Heard(Wanted):
    """Wanted columns; `sheets` hears of each sheet all its headers, and where the wanted ones are."""

    sheets: list[tuple[list[str], list[int]]] = field(default_factory=list)

    def among(self, headers: Sequence[str], place: Place) -> list[int]:
        at = super().among(headers, place)
        self.sheets.append((list(headers), at))
        return at


def _read(path: Path, wanted: Wanted) -> Raw:
    source = Source(files=[glob.escape(path.name)], sheets="all", text=wanted.columns[0].header)
    return read_files(path.parent, source, wanted, "analyse")


def _whole_rows(
    path: Path, wanted: _Heard, places: pd.DataFrame, marks: Marks, column: str | None
) -> pd.DataFrame:
    """All columns of some of a file's rows, as texts (dates in ISO 8601, numbers unformatted).

    In place of the label columns come those of the labels that are left: `column` with ids where a
    text has one label, else a column of 0 and 1 for each id.
    """
    beside = {
        tuple(header for place, header in enumerate(headers) if header.strip() and place not in at)
        for headers, at in wanted.sheets
    }
    if len(beside) > 1:
        raise Problem(
            "its sheets have different columns, which make no one table",
            where=str(path),
            remedy="Leave out --write, or give the sheets the same columns.",
        )
    others = next(iter(beside))
    named = (column,) if column is not None and not marks.space.many else marks.space.labels
    if twice := set(named) & set(others):
        raise Problem(
            f"column '{min(twice)}' would stand twice", where=str(path), remedy="Rename it in the file."
        )
    everything = Wanted((*wanted.columns, *(Column(header, "--write") for header in others)), None)
    raw = _read(path, everything)
    if raw.bad:
        raise Problem(
            f"{len(raw.bad):,} cells can't be read, the first is {raw.bad[0]}", where=str(path)
        )
    rows = places.merge(raw.cells, how="left", on=["file", "sheet", "row"], validate="1:1")
    table = pd.DataFrame({header: rows[f"cell.{header}"] for header in others})
    if column is not None and not marks.space.many:
        table[column] = np.array(marks.space.labels)[marks.flags.argmax(axis=1)]
    else:
        table[list(marks.space.labels)] = marks.flags.astype(np.int8)
    return table


def _marks(judged: NDArray[np.float64], space: LabelSpace) -> Marks:
    rows = np.flatnonzero(~np.isnan(judged).any(axis=1))
    return Marks(space, rows, judged[rows] > 0)


def yes_counts(flags: Flags) -> list[int]:
    """How many rows have no label, one, …, all of them."""
    counts: list[int] = np.bincount(flags.sum(axis=1), minlength=flags.shape[1] + 1).tolist()
    return counts


def steps(marks: Marks, filters: Sequence[str], *, seed: int) -> Iterator[Step]:
    """What each filter does to what the one before it leaves; see `planned`."""
    rng = np.random.default_rng(seed)
    for wanted in filters:
        step = planned(marks, wanted, rng)
        yield step
        marks = step.after


def planned(marks: Marks, wanted: str, rng: np.random.Generator) -> Step:
    """What a filter (see `FILTERS`) does; `Problem` where there is no such filter or label.

    `drop-all-no`: rows without any label go. `drop-category`: the label goes, its rows stay.
    `drop-no`: rows that have none of the named go. `balance:NAME`: rows of its larger side go until
    it holds for half of them, first those without any other label. `balance`: all labels down to
    the rarest. `drop-label`: the label goes with its rows. `rng` decides which rows are drawn.
    """
    many, labels = marks.space.many, marks.space.labels
    kind, colon, argument = wanted.partition(":")
    if f"{kind}{colon}" not in {form.partition("NAME")[0] for form in FILTERS[many]}:
        what = f"no filter '{wanted}' where a text has {'many labels' if many else 'one label'}"
        raise Problem(what, remedy=f"Write {', '.join(FILTERS[many])}.")
    names = argument.split("+") if kind == "drop-no" else [argument] if colon else []
    if unknown := [name for name in names if name not in labels]:
        what = f"no label '{unknown[0]}'; there are {', '.join(labels)}"
        raise Problem(what, where=f"filter {wanted}")
    at = [labels.index(name) for name in names]
    note = ""
    if kind == "drop-category":
        after = marks.without(at[0])
    elif kind == "drop-label":
        after = marks.kept(~marks.flags[:, at[0]]).without(at[0])
    elif kind == "drop-all-no":
        after = marks.kept(marks.flags.sum(axis=1) > 0)
    elif kind == "drop-no":
        after = marks.kept(marks.flags[:, at].sum(axis=1) > 0)
    elif at:
        balanced, note = _balanced(marks, at[0], rng)
        after = marks.kept(balanced)
    else:
        after = marks.kept(_levelled(marks, rng))
    return Step(wanted, marks, after, note)


def _balanced(marks: Marks, at: int, rng: np.random.Generator) -> tuple[NDArray[np.bool_], str]:
    """The rows to keep, and a word on dropped rows that had another label."""
    yes = marks.flags[:, at]
    count = int(yes.sum())
    if count in (0, len(yes)):
        what = f"'{marks.space.labels[at]}' is {'yes' if count else 'no'} in every row"
        raise Problem(what, where=f"filter balance:{marks.space.labels[at]}")
    surplus = abs(2 * count - len(yes))
    larger = yes if 2 * count > len(yes) else ~yes
    labelled = np.delete(marks.flags, at, axis=1).any(axis=1)
    alone = rng.permutation(np.flatnonzero(larger & ~labelled))[:surplus]
    others = rng.permutation(np.flatnonzero(larger & labelled))[: surplus - len(alone)]
    kept = np.ones(len(yes), dtype=bool)
    kept[np.concatenate([alone, others])] = False
    if not len(others):
        return kept, ""
    return kept, f"{len(others):,} of the {surplus:,} rows to drop have another label"


def _levelled(marks: Marks, rng: np.random.Generator) -> NDArray[np.bool_]:
    """The rows to keep: of each label as many as the rarest has."""
    counts = marks.flags.sum(axis=0)
    if not counts.all():
        none = marks.space.labels[int(counts.argmin())]
        raise Problem(f"no row is '{none}'", where="filter balance", remedy=f"First drop-label:{none}.")
    kept = np.zeros(len(marks.rows), dtype=bool)
    for column in marks.flags.T:
        kept[rng.permutation(np.flatnonzero(column))[: counts.min()]] = True
    return kept


def rates(table: Table) -> str:
    """Rows, and the count and share of each label; for many labels also how many a row has."""
    marks = table.marks
    counts = marks.flags.sum(axis=0)
    lines = [
        *table.notes,
        f"{table.total:,} rows, {table.total - len(marks.rows):,} without a label",
    ]
    shares = [_percent(int(count), len(marks.rows)) for count in counts]
    columns = {"rows": [f"{count:,}" for count in counts], "share": shares}
    if marks.space.many:
        histogram = yes_counts(marks.flags)
        several = sum(histogram[2:])
        lines += [
            f"yes-counts: {dict(enumerate(histogram))}",
            f"two or more: {several:,} rows, {_percent(several, len(marks.rows))}",
        ]
        left = [f"{len(marks.rows) - count:,}" for count in counts]
        columns = {"yes": columns["rows"], "no": left, "rate": shares}
    return "\n".join([*lines, "", _aligned(marks.space.labels, columns)])


def told(step: Step) -> str:
    """What the filter does to the rows and to every label, before → after."""
    before, after = step.before, step.after
    lost = len(before.rows) - len(after.rows)
    head = f"{step.filter}: {len(before.rows):,} → {len(after.rows):,} rows, {lost:,} dropped"
    had = before.flags.sum(axis=0).tolist()
    left = dict(zip(after.space.labels, after.flags.sum(axis=0).tolist(), strict=True))
    yes, no, rate = [], [], []
    for label, count in zip(before.space.labels, had, strict=True):
        rest, share = len(before.rows) - count, _percent(count, len(before.rows))
        if label in left:
            now = left[label]
            yes.append(f"{count:,} → {now:,}")
            no.append(f"{rest:,} → {len(after.rows) - now:,}")
            rate.append(f"{share} → {_percent(now, len(after.rows))}")
            if len(before.rows) and len(after.rows):
                change = now / len(after.rows) - count / len(before.rows)
                rate[-1] += f" ({100 * change:+.2f})"
        else:
            for column, value in ((yes, f"{count:,}"), (no, f"{rest:,}"), (rate, share)):
                column.append(f"{value} → gone")
    many = before.space.many
    columns = {"yes": yes, "no": no, "rate": rate} if many else {"rows": yes, "share": rate}
    lines = [f"{head}; {step.note}" if step.note else head, _aligned(before.space.labels, columns)]
    return "\n".join(lines)


def _aligned(labels: Sequence[str], columns: dict[str, list[str]]) -> str:
    return pd.DataFrame(columns, index=pd.Index(labels)).to_string()


def _percent(count: int, total: int) -> str:
    return f"{count / total:.2%}" if total else "-"


def check_outputs(file: Path | None, out: Path | None, picture: Path | None) -> None:
    """`Problem` where a file can't be written in the format that its name asks for."""
    for path, formats in ((out, tables.FORMATS), (picture, PICTURES)):
        if path is not None and path.suffix not in formats:
            what = f"'{path.suffix}' is no format to write"
            raise Problem(what, where=str(path), remedy=", ".join(formats))
    if file is not None and out is not None and out.resolve() == file.resolve():
        raise Problem("would take the place of the table itself", where=str(out))


def plot(before: Marks, after: Marks, out: Path) -> None:
    """Rows per label before and after the filters; for many labels also the labels per row."""
    from matplotlib.figure import Figure  # without pyplot: no window, no state

    space = before.space
    spread = 1.5 + 0.7 * len(space.labels)
    sizes = [spread, 1.5 + 0.5 * len(space.labels)] if space.many else [spread]
    figure = Figure(figsize=(2 + sum(sizes), 4.5), layout="constrained")
    axes = figure.subplots(1, len(sizes), squeeze=False, width_ratios=sizes)[0]
    left = dict(zip(after.space.labels, after.flags.sum(axis=0).tolist(), strict=True))
    counts = [before.flags.sum(axis=0).tolist(), [left.get(label, 0) for label in space.labels]]
    names, font = tick_names(space)
    same = after is before
    _bars(axes[0], counts[:1] if same else counts, [len(before.rows), len(after.rows)])
    axes[0].set_xticks(range(len(names)), names, rotation=30, ha="right", font=font)
    axes[0].set_ylabel("rows")
    axes[0].legend()
    if space.many:
        histograms = [yes_counts(marks.flags) for marks in (before, after)]
        histograms[1] += [0] * (len(histograms[0]) - len(histograms[1]))
        _bars(axes[1], histograms[:1] if same else histograms, [len(before.rows), len(after.rows)])
        axes[1].set_xticks(range(len(histograms[0])))
        axes[1].set_xlabel("labels a row")
    with whole(out) as beside:
        figure.savefig(beside, format=out.suffix[1:], dpi=150)


def _bars(axes: "Axes", series: Sequence[Sequence[int]], rows: Sequence[int]) -> None:
    width = 0.8 / len(series)
    for number, (heights, total) in enumerate(zip(series, rows, strict=False)):
        at = np.arange(len(heights)) + (number - (len(series) - 1) / 2) * width
        word = ("before", "after")[number] if len(series) > 1 else "all"
        axes.bar(at, heights, width, label=f"{word}: {total:,} rows")


def tick_names(space: LabelSpace) -> tuple[tuple[str, ...], Path]:
    """The labels' names and a font that has all their characters; their ids where no font has."""
    from matplotlib import font_manager, ft2font

    needed = {ord(character) for name in space.names for character in name if character != " "}
    usual = str(font_manager.findfont(font_manager.FontProperties()))
    for path in (usual, *sorted(str(font.fname) for font in font_manager.fontManager.ttflist)):
        font = ft2font.FT2Font(path)
        # Last Resort "has" every character, as a box
        if not font.family_name.startswith("Last Resort") and needed <= set(font.get_charmap()):
            return space.names, Path(path)
    return space.labels, Path(usual)
