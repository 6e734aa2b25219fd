"""`undertone`: what `dvc repro` isn't asked for. Starts without torch, pandas or mlflow."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from undertone.errors import Problem

if TYPE_CHECKING:
    from undertone.analysis import Table


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0, or 1 after a `Problem`, told in one line, or a finding of `lint`."""
    parser = argparse.ArgumentParser(
        prog="undertone", description="Looks at what `dvc repro` made, and uses it."
    )
    commands = parser.add_subparsers(required=True, title="commands", metavar="COMMAND")

    lint = commands.add_parser("lint", help="faults of codebooks: labels, merges, prompts")
    lint.add_argument("codebooks", type=Path, nargs="+", metavar="CODEBOOK", help="a .yaml file")
    lint.set_defaults(run=_lint)

    ledger = commands.add_parser("ledger", help="what became of every row, stage by stage")
    ledger.add_argument("source", nargs="?", metavar="SOURCE", help="by default data.source of params")
    ledger.set_defaults(run=_ledger)

    analyse = commands.add_parser("analyse", help="label rates of a table, and what filters would do")
    analyse.add_argument(
        "file",
        type=Path,
        nargs="?",
        metavar="FILE",
        help="a table with columns called like the labels (0/1, yes/no); by default the labelled"
        " comments of data.source",
    )
    analyse.add_argument("--codebook", type=Path, help="a .yaml file; by default data.codebook")
    analyse.add_argument(
        "--scheme",
        help="a merge or question of the codebook; by default data.scheme, or none of --codebook's",
    )
    analyse.add_argument("--column", help="FILE's column that holds the labels' names")
    analyse.add_argument(
        "--filter",
        metavar="FILTER",
        action="append",
        default=[],
        dest="filters",
        help="shown before it is applied; may be given several times, in order. Many labels a text:"
        " drop-all-no, drop-category:NAME, drop-no:NAME+NAME, balance:NAME. One: balance,"
        " balance:NAME, drop-label:NAME",
    )
    analyse.add_argument("--seed", type=int, default=0, help="of the rows that balance draws")
    analyse.add_argument("--plot", type=Path, metavar="PICTURE", help="a .png, .svg or .pdf to write")
    analyse.add_argument(
        "--write", type=Path, metavar="OUT", help="a .parquet, .csv or .jsonl for the rows that are left"
    )
    analyse.set_defaults(run=_analyse)

    compare = commands.add_parser("compare", help="who of two is better; or several experiments")
    compare.add_argument(
        "experiments",
        nargs="*",
        metavar="EXPERIMENT",
        help="of `dvc exp list`, or a git revision, or workspace; by default all of HEAD's, and HEAD."
        " Two that judge texts are compared row by row: candidates, EXPERIMENT:CANDIDATE, registered"
        " versions (gender/3, models:/gender@champion), ids of MLflow runs",
    )
    compare.add_argument("--source", help="by default data.source of params")
    compare.add_argument(
        "--candidate",
        metavar="NAME",
        action="append",
        default=[],
        dest="candidates",
        help="may be given several times; by default those whose figures differ",
    )
    compare.add_argument("--part", choices=["validation", "test"], default="test")
    compare.add_argument("--reference", choices=["label", "gold"], default="label")
    compare.add_argument("--out", type=Path, metavar="PAGE", help="a .md file for the table")
    compare.set_defaults(run=_compare)

    predict = commands.add_parser("predict", help="labels and scores for texts, from a release bundle")
    given = predict.add_mutually_exclusive_group()
    given.add_argument("--text", action="append", help="a text (may be given several times)")
    given.add_argument("--file", type=Path, help="a table: .csv, .tsv, .jsonl, .parquet, .xlsx")
    predict.add_argument("--column", default="text", help="the table's column of texts")
    predict.add_argument("--id", help="the table's column of ids; by default its row numbers")
    predict.add_argument(
        "--out", type=Path, help="a .parquet, .csv or .jsonl file for the table's scores"
    )
    predict.add_argument(
        "--bundle", type=Path, help="a release bundle; by default models/release/<data.source>"
    )
    predict.add_argument("--variant", help="another variant of the bundle than its own choice")
    predict.set_defaults(run=_predict)

    plan = commands.add_parser("plan", help="how many rows to label by hand for a share")
    plan.add_argument(
        "--width",
        type=float,
        required=True,
        help="of the 95 %% interval, from low to high: 0.04 is ±2 points",
    )
    plan.add_argument("--source", help="whose prevalence.json is the pilot; by default data.source")
    plan.add_argument("--share", type=float, help="assumed, without a pilot; with --f1 and --rows")
    plan.add_argument("--f1", type=float, help="of the classifier, on the label")
    plan.add_argument("--rows", type=int, help="of the corpus")
    plan.set_defaults(run=_plan)

    verify = commands.add_parser("verify-split", help="whether its certificate still holds")
    verify.add_argument("source", nargs="?", metavar="SOURCE", help="by default data.source of params")
    verify.set_defaults(run=_verify_split)

    lineage = commands.add_parser("lineage", help="where a registered version came from")
    lineage.add_argument("version", help="gender/3, models:/gender@champion, or a version's number")
    lineage.set_defaults(run=_lineage)

    relocate = commands.add_parser("relocate", help="repair mlflow.db after the repository was moved")
    relocate.set_defaults(run=_relocate)

    chosen = parser.parse_args(arguments)
    try:
        return int(chosen.run(chosen) or 0)
    except Problem as problem:
        for line in str(problem).splitlines():
            print(f"undertone: {line}", file=sys.stderr)
        return 1


def _lint(given: argparse.Namespace) -> int:
    from undertone.lint import findings

    found = {path: findings(path) for path in given.codebooks}
    for path, faults in found.items():
        file = f"{path}: " if len(found) > 1 else ""
        for one in faults:
            known = " (as published)" if one.known else ""
            print(f"{file}{one.where}: {one.kind}: {one.what}{known}")
        if not faults:
            print(f"{file}no findings")
    return int(not all(one.known for faults in found.values() for one in faults))


def _ledger(given: argparse.Namespace) -> None:
    from undertone import ledger
    from undertone.params import read_params

    source = given.source or read_params().data.source
    print(ledger.told(ledger.begun(Path("reports") / source / "rows")))


def _analyse(given: argparse.Namespace) -> None:
    from undertone import analysis, tables

    analysis.check_outputs(given.file, given.write, given.plot)
    table = _table(given)
    print(analysis.rates(table))
    marks = table.marks
    for step in analysis.steps(marks, given.filters, seed=given.seed):
        print(f"\n{analysis.told(step)}")
        marks = step.after
    if given.plot:
        analysis.plot(table.marks, marks, given.plot)
        print(f"\ndrawn into {given.plot}")
    if given.write:
        tables.share(table.rows_of(marks), given.write)
        print(f"\n{len(marks.rows):,} rows written to {given.write}, none without a label")
    elif given.filters:
        print("\nnothing written; --write OUT would")


def _table(given: argparse.Namespace) -> "Table":
    from undertone import analysis
    from undertone.codebook import read_codebook
    from undertone.params import read_params

    if given.file and given.codebook:
        return analysis.of_file(given.file, read_codebook(given.codebook), given.scheme, given.column)
    data = read_params().data
    codebook = read_codebook(given.codebook or Path("codebooks") / f"{data.codebook}.yaml")
    scheme = given.scheme or (None if given.codebook else data.scheme)
    if given.file:
        return analysis.of_file(given.file, codebook, scheme, given.column)
    if given.column:
        raise Problem("--column needs FILE", remedy="The labelled comments have a column a label.")
    return analysis.of_stage(
        Path("data") / data.source / "labelled.parquet", codebook.learnt(scheme).space
    )


def _compare(given: argparse.Namespace) -> None:
    from undertone import compare
    from undertone.files import root, whole
    from undertone.params import read_params

    if given.out and given.out.suffix != ".md":
        raise Problem(f"'{given.out.suffix}' is no format to write", where=str(given.out), remedy=".md")
    source = given.source or read_params(root() / "params.yaml").data.source
    names = given.experiments
    candidates = {path.name for path in (root() / "models/candidates" / source).glob("*")}
    asked = [name for name in names if compare.judges(name, candidates)]
    if len(names) == 2 and len(asked) == 2:
        from undertone import judges

        if given.candidates:
            raise Problem("--candidate is for experiments, and these are candidates already")
        params = read_params(root() / "params.yaml")
        one, other = names
        table = judges.compared((one, other), params, source, part=given.part, reference=given.reference)
    elif asked:
        known = ", ".join(sorted(candidates))
        raise Problem(
            "two that judge texts are compared with each other",
            where=" ".join(names),
            remedy=f"Name two: of the candidates ({known}), of an experiment (EXPERIMENT:CANDIDATE), a"
            " registered version or an MLflow run. The report compares all with the baselines.",
        )
    else:
        table = compare.table(
            names,
            source,
            candidates=given.candidates,
            part=given.part,
            reference=given.reference,
        )
    print(table)
    if given.out:
        with whole(given.out) as beside:
            beside.write_text(f"{table}\n", "utf-8")
        print(f"\nwritten to {given.out}")


def _predict(given: argparse.Namespace) -> None:
    from undertone.predictor import Predictor

    if given.file and not given.out:
        raise Problem("--file needs --out", remedy="Name a .parquet, .csv or .jsonl file.")
    predictor = Predictor.load(given.bundle or _own_bundle(), variant=given.variant)
    if given.file:
        from undertone import scoring

        print(scoring.score_file(predictor, given.file, given.out, text=given.column, id_=given.id))
        return
    # only the line feed ends a text: splitlines would also cut at U+2028
    texts = given.text or [line.rstrip("\r") for line in sys.stdin.read().split("\n") if line.strip()]
    if not texts:
        raise Problem(
            "no text given", remedy="Use --text, --file, or standard input with a text a line."
        )
    for one in predictor.predict(texts):
        print(json.dumps(one, ensure_ascii=False))


def _own_bundle() -> Path:
    from undertone.params import read_params

    return Path("models/release") / read_params().data.source


def _verify_split(given: argparse.Namespace) -> int:
    from undertone import certificate, tables
    from undertone.files import read_json
    from undertone.labels import LabelSpace
    from undertone.params import read_params

    source = given.source or read_params().data.source
    folder = Path("data") / source
    proof = read_json(Path("reports") / source / "split.json")
    table = tables.read(folder / "split.parquet")
    broken = certificate.verify(table, LabelSpace.load(folder / "space.json"), proof)
    if not broken:
        print(f"holds: {certificate.told(proof)}")
        return 0
    file = folder / "split.parquet"
    print("\n".join(broken))
    remedy = f"`dvc checkout {file}` brings back the one that it was written for."
    raise Problem("is not the split that its certificate describes", where=str(file), remedy=remedy)


def _plan(given: argparse.Namespace) -> None:
    from undertone import prevalence
    from undertone.files import read_json
    from undertone.params import read_params

    assumed = (given.share, given.f1, given.rows)
    if None not in assumed:
        print(prevalence.plan(given.width, {"assumed": prevalence.Pilot.assumed(*assumed)}))
        return
    if assumed != (None, None, None):
        raise Problem("a plan without a pilot needs --share, --f1 and --rows")
    source = given.source or read_params().data.source
    found = read_json(Path("reports") / source / "prevalence.json")
    if not found:
        raise Problem(
            f"nothing of {source} is labelled by hand", remedy="Assume --share, --f1 and --rows."
        )
    print(prevalence.plan(given.width, prevalence.pilots(found)))


def _lineage(given: argparse.Namespace) -> None:
    from undertone.lineage import describe

    print(describe(given.version))


def _relocate(_: argparse.Namespace) -> None:
    from undertone.tracking import relocate

    print(relocate())


if __name__ == "__main__":
    sys.exit(main())
