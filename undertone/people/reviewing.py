"""`undertone review`: from the pipeline's tables to a workbook for people, and back.

What is asked lies in data/review/<source>/, what was answered in data/raw/reviews/<source>/given/; DVC
tracks both, and sends them to the remote `private` alone.
"""

from collections.abc import Mapping, Sequence
from contextlib import chdir
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from undertone import files, tables
from undertone.annotation import agreement, queues
from undertone.codebook import Codebook, read_codebook
from undertone.errors import Problem, counted
from undertone.labels import LabelSpace
from undertone.measures import metrics
from undertone.params import Params
from undertone.people import labelstudio, review, reviewbook, suspects
from undertone.people.review import Asked, Review
from undertone.privacy import sharing

Judges = Mapping[str, tuple[LabelSpace, pd.DataFrame]]
SUGGESTION = "suggestion"


@dataclass(frozen=True)
class Wish:
    """What `undertone review` was asked for: `rows` by criteria and `random` others, or what `queue`
    holds; `test`: the criteria may choose from the test part too; `out`: a name, .xlsx or .json."""

    rows: int
    random: int
    reviewers: Sequence[str]
    show: bool
    queue: Path | None
    candidates: Sequence[str]
    test: bool
    out: Path | None


def ask(wish: Wish, params: Params) -> str:
    """Writes the workbook (or Label Studio's tasks) and its record, and says what is in it.

    Rows that people have labelled, or were asked about already, are not asked about again, unless their
    text or the labels are others by now.
    """
    given = wish.queue and wish.queue.absolute()
    with chdir(files.root()):
        source = params.data.source
        book = _codebook(params)
        folder = _folder(source)
        sharing.check_complete(folder)
        known = _known(folder)
        path = _target(wish.out, folder, known)
        comments = tables.read(Path("data") / source / "clean.parquet", ("id", "text"))
        done = _labelled(comments, source, book) | {
            one
            for question in known.values()
            if (question.labels, question.many) == (book.space.labels, book.many)
            for one in question.about(comments)
        }
        judges = _judges(params, wish) if not given or wish.show else {}
        table = _split(source)
        if given is None:
            rng = np.random.default_rng([params.seed, len(known)])
            queue, short = _queue(comments, table, judges, done, wish, rng)
        else:
            queue, short = _queued(given, comments, done)
        if queue.empty:
            raise Problem("no row is left to ask about", where=str(folder))
        said = _suggested(table, judges) if judges else {}
        texts = dict(zip(comments["id"], comments["text"], strict=True))
        question = _question(path.stem, source, queue, texts, wish.reviewers, book, said)
        told = _write(question, texts, book, path, {SUGGESTION: said} if wish.show else {})
        question.save(path.with_suffix(".parquet"))
        counts = queue["arm"].value_counts(sort=False)
        drawn = queue.loc[queue["arm"] == queues.RANDOM, "inclusion"]
        lines = [
            f"{path}: {len(queue):,} rows for {' and '.join(question.reviewers)}{told}",
            "; ".join(f"{arm} {count:,}" for arm, count in sorted(counts.items()))
            + (f" (each of the others with a probability of {drawn.iloc[0]:.4f})" if len(drawn) else ""),
            *short,
            *_chosen_to_judge_by(queue, table),
            *_tracked(folder),
        ]
    return "\n".join(lines)


def take(given: Sequence[Path], deciders: Sequence[str], params: Params) -> str:
    """Takes filled-in workbooks and exports in, all of them or none, and writes a follow-up of the rows
    on which they differ.

    The workbooks may be those that lie in the review's folder, filled in there. `Problem` with a line
    for each thing that is wrong in any of them.
    """
    if len(deciders) > 1:
        raise Problem(
            "several who decide, and nobody above them", where="--reviewer", remedy="Name one."
        )
    paths = [path.absolute() for path in given]
    with chdir(files.root()):
        source = params.data.source
        book = _codebook(params)
        folder, results = _folder(source), sharing.REVIEWS / source / review.GIVEN
        sharing.check_complete(folder)
        sharing.check_folder(results)
        known = _known(folder)
        new, faults = _answers(paths, known, book)
        if faults:
            count = f"{counted(len(faults), 'fault')} in {counted(len(paths), 'file')}"
            raise Problem.together([*faults, Problem(f"{count}, so nothing was taken over")])
        comments = tables.read(Path("data") / source / "clean.parquet", ("id", "text", "group"))
        lines: list[str] = []
        taken: dict[Path, Review] = {}
        for name, answers in new.items():
            path = results / f"{name}.parquet"
            before = Review.load(path) if path.exists() else Review(known[name], answers[:0])
            now = taken[path] = before.with_answers(answers)
            lines += _counted(now, comments, book, params)
            if not now.asked.decides:
                lines += _followed(now, known, comments, book, folder, deciders or [review.DECISION])
            if replaced := now.replaced(before):
                lines += [f"{name}: {replaced:,} answers replace others that were given before"]
        for path, now in taken.items():
            now.save(path)
        lines += [*_tracked(results, folder), "then `dvc repro` makes gold labels of them"]
    return "\n".join(lines)


def _answers(
    paths: Sequence[Path], known: Mapping[str, Asked], book: Codebook
) -> tuple[dict[str, pd.DataFrame], list[Problem]]:
    """The answers to each review, of all files together, and all that is wrong."""
    today = datetime.now(UTC).date().isoformat()
    new: dict[str, pd.DataFrame] = {}
    faults: list[Problem] = []
    for path in paths:
        try:
            question, lines, wrong = (
                labelstudio.read(path, known)
                if path.suffix == ".json"
                else reviewbook.read(path, known, book)
            )
            # Label Studio exports only tasks with an annotation, unless told otherwise
            whole = path.suffix != ".json"
            answers, more = review.answers(question, lines, book, path.name, today=today, whole=whole)
        except Problem as problem:
            faults.append(problem)
            continue
        faults += [*wrong, *more]
        if question.name in new:
            both = pd.concat([new[question.name], answers], ignore_index=True)
            both = both.drop_duplicates(["id", "reviewer", *question.labels])
            for one, reviewer in both[both.duplicated(["id", "reviewer"])][
                ["id", "reviewer"]
            ].to_numpy():
                faults.append(
                    Problem(
                        "another answer than in a file before it",
                        where=f"{path.name}, id {one}, {reviewer}",
                    )
                )
            answers = both
        new[question.name] = answers
    return new, faults


def _codebook(params: Params) -> Codebook:
    """The one that people label by."""
    return read_codebook(Path(f"codebooks/{params.data.codebook}.yaml")).asked(params.data.scheme)


def _folder(source: str) -> Path:
    return Path("data/review") / source


def _known(folder: Path) -> dict[str, Asked]:
    return {path.stem: Asked.load(path) for path in sorted(folder.glob("*.parquet"))}


def _target(out: Path | None, folder: Path, known: Mapping[str, Asked]) -> Path:
    """Where to write; `Problem` where others might see it, and for a name that is taken."""
    if out is None:
        number = next(one for one in range(1, len(known) + 2) if f"review-{one}" not in known)
        return folder / f"review-{number}.xlsx"
    if out.suffix not in (".xlsx", ".json"):
        raise Problem(
            f"'{out.suffix}' is no format to write", where=str(out), remedy="Take .xlsx or .json."
        )
    if out.parent not in (Path(), folder):
        remedy = f"Give a mere name: it is written to {folder}, which git ignores and DVC tracks."
        raise Problem("the texts are private", where=str(out), remedy=remedy)
    if out.stem in known:
        raise Problem("a review has this name already", where=str(out), remedy="Choose another.")
    if review.is_follow_up(out.stem):
        raise Problem("a name of what decides on a review", where=str(out), remedy="Choose another.")
    return folder / out.name


def _labelled(comments: pd.DataFrame, source: str, book: Codebook) -> set[str]:
    """The rows that people have labelled: in the source's table, and in what was reviewed."""
    path = Path("data") / source / "reviewed.parquet"
    labelled = [comments, *([tables.read(path)] if path.exists() else [])]
    return {
        one
        for table in labelled
        for one, gold in zip(table["id"], tables.judged(table, "gold", book.space), strict=True)
        if np.isfinite(gold).all()
    }


def _judges(params: Params, wish: Wish) -> Judges:
    """Candidates with what they say of rows that they haven't learnt: those asked for, else the champion
    and the best of the others."""
    source = params.data.source
    if not wish.rows and not wish.show:
        return {}
    names = list(wish.candidates)
    if not names:
        chosen = files.read_json(Path("reports") / source / "selection.json")
        values = {name: value for name, value in chosen["values"].items() if name != chosen["champion"]}
        names = [chosen["champion"], *sorted(values, key=lambda name: -values[name])[:1]]
    if unknown := [name for name in names if name not in params.models]:
        raise Problem(
            f"no candidate '{unknown[0]}'; there are {', '.join(params.models)}", where="--candidate"
        )
    table, data = _split(source), Path("data") / source
    found = {}
    for name in names:
        space = LabelSpace.load(Path("models/candidates") / source / name / "labels.json")
        scores = tables.read(data / "scores" / f"{name}.parquet", ("id", *space.labels))
        folds = pd.read_parquet(data / "folds" / f"{name}.parquet")
        found[name] = (space, suspects.held_out(table, scores, folds, space))
    return found


def _split(source: str) -> pd.DataFrame:
    path = Path("data") / source / "split.parquet"
    return tables.read(path, ("id", "part")) if path.exists() else pd.DataFrame({"id": [], "part": []})


def _suggested(table: pd.DataFrame, judges: Judges) -> dict[str, str]:
    judge = next(iter(judges.values()))
    return suspects.suggestions(table, judge, judge[0])


def _queue(
    comments: pd.DataFrame,
    table: pd.DataFrame,
    judges: Judges,
    done: set[str],
    wish: Wish,
    rng: np.random.Generator,
) -> tuple[pd.DataFrame, list[str]]:
    """Who is asked about, and why they are fewer than was wished."""
    arms: dict[str, list[str]] = {}
    short: list[str] = []
    if wish.rows:
        space = next(iter(judges.values()))[0]
        may = table[wish.test | (table["part"] != "test")]
        open_ = may[~may["id"].isin(done)]
        voters = f"silver.{space.labels[0]}" in table
        arms = suspects.arms(open_, judges, space, wish.rows, voters=voters)
        chosen = sum(map(len, arms.values()))
        if chosen < wish.rows:
            short.append(_why_fewer(chosen, wish.rows, may, judges, done))
    others = [one for one in comments["id"] if one not in done]
    queue = queues.queue(others, arms, wish.random, rng)
    drawn = int((queue["arm"] == queues.RANDOM).sum())
    if drawn < wish.random:
        short.append(f"of {wish.random:,} wanted at random {drawn:,} are drawn: no other row is left")
    return queue, short


def _why_fewer(chosen: int, wanted: int, table: pd.DataFrame, judges: Judges, done: set[str]) -> str:
    ids = set(table["id"]).intersection(*(scores["id"] for _, scores in judges.values()))
    parts = " and ".join(sorted(set(table.loc[table["id"].isin(ids), "part"]))) or "none"
    before = f", {len(ids & done):,} of them asked about or labelled before" if ids & done else ""
    return (
        f"of {wanted:,} wanted {chosen:,} can be chosen: only rows that the models haven't learnt from"
        f" count, which are {len(ids):,} of {parts}{before}"
    )


def _chosen_to_judge_by(queue: pd.DataFrame, table: pd.DataFrame) -> list[str]:
    """A line where rows of validation are chosen, as no mix is judged by such (docs/mixes.md)."""
    validation = table.loc[table["part"] == "validation", "id"]
    chosen = queue[(queue["arm"] != queues.RANDOM) & queue["id"].isin(validation)]
    if chosen.empty:
        return []
    return [
        f"{len(chosen):,} chosen rows are validation's: once people have labelled them, no mix can be"
        " judged (docs/mixes.md). `undertone review --rows 0 --random N` draws rows by which it can"
    ]


def _queued(path: Path, comments: pd.DataFrame, done: set[str]) -> tuple[pd.DataFrame, list[str]]:
    """As `_queue`, of one that was made elsewhere; `Problem` where its rows can't be asked about."""
    queue = tables.read(path, ("id", "arm", "inclusion"))[["id", "arm", "inclusion"]]
    unknown = int((~queue["id"].isin(comments["id"])).sum())
    if unknown:
        raise Problem(f"{unknown:,} of {len(queue):,} rows are not among the comments", where=str(path))
    if not queue["inclusion"].between(0, 1, inclusive="right").all():
        raise Problem("an inclusion probability outside 0..1", where=str(path))
    if queue.loc[queue["arm"] == queues.RANDOM, "inclusion"].nunique() > 1:  # whose is any other row's?
        raise Problem("random rows of several inclusion probabilities", where=str(path))
    left = queue[~queue["id"].isin(done)].reset_index(drop=True)
    gone = len(queue) - len(left)
    short = f"{gone:,} of its {len(queue):,} rows left out: asked about or labelled before"
    return left, [short] if gone else []


def _question(
    name: str,
    source: str,
    queue: pd.DataFrame,
    texts: Mapping[str, str],
    reviewers: Sequence[str],
    book: Codebook,
    said: Mapping[str, str],
    decides: str = "",
) -> Asked:
    digests = reviewbook.digests(queue["id"].map(texts))
    rows = pd.concat([queue, digests], axis=1).assign(suggestion=queue["id"].map(said).fillna(""))
    return review.asked(name, source, rows, reviewers, book.space, decides=decides)


def _write(
    question: Asked,
    texts: Mapping[str, str],
    book: Codebook,
    path: Path,
    context: Mapping[str, Mapping[str, str]],
) -> str:
    if path.suffix == ".json":
        labelstudio.write(question, texts, book, path, suggestions=context.get(SUGGESTION))
        return f"; the labelling interface is {path.with_suffix('.xml').name}"
    count = reviewbook.write(question, texts, book, path, context=context)
    return f"; {count:,} texts are too long for a cell and cut in it" if count else ""


def _counted(now: Review, comments: pd.DataFrame, book: Codebook, params: Params) -> list[str]:
    """How much each reviewer filled in, and how far they agree."""
    asked, answers = now.asked, now.answers
    filled = answers["reviewer"].value_counts()
    lines = [
        f"{asked.name}: {answers['id'].nunique():,} of {len(asked.rows):,} rows reviewed"
        f" ({'; '.join(f'{one} {filled.get(one, 0):,}' for one in asked.reviewers)})"
    ]
    ids, people, votes = review.votes_of(answers, book.space)
    if len(people) > 1:
        found = agreement.agreement(
            votes,
            people,
            book.space,
            groups=tables.groups(
                comments.set_index("id", drop=False).reindex(ids).reset_index(drop=True)
            ),
            draws=params.evaluate.draws,
            rng=np.random.default_rng(params.seed),
        )
        shown = {"raw agreement": "raw", "Cohen's κ": "kappa", "Krippendorff's α": "alpha"}
        lines += [
            f"{' and '.join(pair['between'])}, {pair['n']:,} rows of both: "
            + ", ".join(
                f"{name} {metrics.told(pair[key]) or 'undefined'}" for name, key in shown.items()
            )
            for pair in found["pairs"]
        ]
        lines += [f"Krippendorff's α over all: {metrics.told(found['alpha']) or 'undefined'}"]
    return lines


def _followed(
    now: Review,
    known: Mapping[str, Asked],
    comments: pd.DataFrame,
    book: Codebook,
    folder: Path,
    deciders: Sequence[str],
) -> list[str]:
    """A workbook of the rows on which reviewers differ, and that no earlier one asks to decide; without
    those whose text is gone or another by now."""
    name = now.asked.name
    earlier = [one for one in known.values() if one.decides == name]
    asked = {one for question in earlier for one in question.rows["id"]}
    open_ = now.asked.about(comments) - asked
    differing = [one for one in now.differing if one in open_]
    if not differing:
        return []
    path = folder / f"{name}-decide{f'-{len(earlier) + 1}' if earlier else ''}.xlsx"
    texts = dict(zip(comments["id"], comments["text"], strict=True))
    queue = now.asked.rows.set_index("id").loc[differing, ["arm", "inclusion"]].reset_index()
    question = _question(path.stem, now.asked.source, queue, texts, deciders, book, {}, decides=name)
    said = now.answers[now.answers["id"].isin(differing)]
    _write(question, texts, book, path, reviewbook.answered(now.asked, said, book))
    question.save(path.with_suffix(".parquet"))
    return [
        f"{path}: {counted(len(differing), 'row')} on which they differ,"
        f" for {' and '.join(deciders)} to decide"
    ]


def _tracked(*folders: Path) -> list[str]:
    lines = []
    for folder, remote in zip(folders, sharing.track(*folders), strict=True):
        pointer = sharing.pointer_of(folder)
        to = f"the remote '{remote}'" if remote else "the default remote"
        lines += [
            f"{folder} is tracked by DVC: `git add {pointer}`, and `dvc push {pointer}` sends it to {to}"
        ]
    return lines
