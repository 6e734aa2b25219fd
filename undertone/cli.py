"""`undertone`: what `dvc repro` isn't asked for. Starts without torch, pandas or mlflow."""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from undertone.deployment.limits import HELP as LIMITS
from undertone.deployment.limits import Limits
from undertone.errors import Problem

if TYPE_CHECKING:
    from undertone.corpus.analysis import Table


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0, or 1 after a `Problem`, told in one line, or a finding of `lint`."""
    parser = argparse.ArgumentParser(
        prog="undertone", description="Looks at what `dvc repro` made, and uses it."
    )
    commands = parser.add_subparsers(required=True, title="commands", metavar="COMMAND")

    lint = _command(commands, "lint", help="faults of codebooks: labels, merges, prompts")
    lint.add_argument("codebooks", type=Path, nargs="+", metavar="CODEBOOK", help="a .yaml file")
    lint.set_defaults(run=_lint)

    ledger = _command(commands, "ledger", help="what became of every row, stage by stage")
    ledger.add_argument("source", nargs="?", metavar="SOURCE", help="by default data.source of params")
    ledger.set_defaults(run=_ledger)

    analyse = _command(commands, "analyse", help="label rates of a table, and what filters would do")
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

    review = _command(commands, "review", help="a workbook of rows for people to label, and back")
    review.add_argument(
        "--read",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="take filled-in workbooks, or Label Studio's exports, in",
    )
    review.add_argument(
        "--rows",
        type=int,
        metavar="N",
        help="chosen as likely errors, by disagreement, low confidence or rare labels; by default 200",
    )
    review.add_argument(
        "--random",
        type=int,
        metavar="N",
        help="drawn from all others, for estimates; by default 100",
    )
    review.add_argument(
        "--reviewer",
        action="append",
        metavar="NAME",
        help="each has a column; may be given several times, by default 'reviewer'. With --read: who"
        " decides where they differ (one)",
    )
    review.add_argument("--show", action="store_true", help="the model's suggestion as well")
    review.add_argument(
        "--queue", type=Path, metavar="FILE", help="a .parquet of rows (id, arm, inclusion) instead"
    )
    review.add_argument(
        "--candidate",
        action="append",
        metavar="NAME",
        dest="candidates",
        help="whose scores choose, the first most; by default the champion and the next best",
    )
    review.add_argument(
        "--test", action="store_true", help="let them choose from the test part too (docs/review.md)"
    )
    review.add_argument("--out", type=Path, metavar="NAME", help="an .xlsx, or a .json for Label Studio")
    review.set_defaults(run=_review)

    compare = _command(commands, "compare", help="who of two is better; or several experiments")
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

    bundle = "a release bundle, or models:/NAME@ALIAS; by default models/release/<data.source>"
    predict = _command(commands, "predict", help="labels and scores for texts, from a release bundle")
    predict.add_argument(
        "--text",
        action="append",
        help="may be given several times; by default a line each of standard input",
    )
    predict.add_argument("--bundle", metavar="BUNDLE", help=bundle)
    predict.add_argument("--variant", help="another variant of the bundle than its own choice")
    predict.set_defaults(run=_predict)

    score = _command(commands, "score", help="labels and scores for every row of tables of any size")
    score.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="a .parquet, .csv, .tsv, .jsonl or .xlsx, or a pattern in quotes",
    )
    score.add_argument(
        "--out", type=Path, required=True, help="a folder for the scores; a killed run goes on in it"
    )
    score.add_argument("--bundle", metavar="BUNDLE", help=bundle)
    score.add_argument("--text", default="text", metavar="COLUMN", help="of texts; by default text")
    score.add_argument("--id", metavar="COLUMN", help="of ids; by default the file and the row's number")
    score.add_argument("--sheet", metavar="NAME", help="of a workbook in which several hold something")
    score.add_argument("--delimiter", metavar="C", help="of .csv; by default a comma, of .tsv a tab")
    score.add_argument("--engine", choices=["local", "ray"], default="local")
    score.add_argument("--address", help="of a Ray cluster; by default one on this machine, for as long")
    score.add_argument("--workers", type=int, help="cores here, or processes of a core each on Ray")
    score.add_argument("--rows-per-part", type=int, help="by default 20,000")
    score.set_defaults(run=_score)

    serve = _command(commands, "serve", help="answer over HTTP, from a release bundle")
    serve.add_argument("bundle", nargs="?", metavar="BUNDLE", help=bundle)
    serve.add_argument("--host", default="127.0.0.1", help="by default %(default)s")
    serve.add_argument("--port", type=int, default=8000, help="by default %(default)s; 0: a free one")
    serve.add_argument("--fd", type=int, metavar="N", help="an open, listening socket instead")
    serve.add_argument("--exposed", action="store_true", help="answer others without UNDERTONE_TOKEN")
    serve.add_argument("--variant", help="another variant of the bundle than its own choice")
    serve.add_argument("--threads", type=int, help="to score with; by default one a core")
    serve.add_argument(
        "--long",
        choices=["cut", "refuse"],
        default="cut",
        help="what to do with a text of more tokens than the model reads; by default %(default)s",
    )
    serve.add_argument("--echo", action="store_true", help="repeat a single text in its answer")
    for name, limit in Limits._field_defaults.items():
        serve.add_argument(
            f"--{name.replace('_', '-')}",
            type=type(limit),
            default=limit,
            metavar="N",
            help=f"{LIMITS[name]}; by default %(default)s",
        )
    serve.set_defaults(run=_serve)

    plan = _command(commands, "plan", help="how many rows to label by hand for a share")
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

    verify = _command(commands, "verify-split", help="whether its certificate still holds")
    verify.add_argument("source", nargs="?", metavar="SOURCE", help="by default data.source of params")
    verify.set_defaults(run=_verify_split)

    lineage = _command(commands, "lineage", help="where a registered version came from")
    lineage.add_argument("version", help="gender/3, models:/gender@champion, or a version's number")
    lineage.add_argument(
        "--verify", action="store_true", help="hash again what of it is here: equal or not"
    )
    lineage.set_defaults(run=_lineage)

    sync = _command(
        commands,
        "sync",
        help="send runs recorded offline; make MLflow and reports/runs.jsonl hold the same",
    )
    sync.add_argument("--missing", action="store_true", help="how to fetch older versions' models")
    sync.set_defaults(run=_sync)

    relocate = _command(commands, "relocate", help="repair mlflow.db after the repository was moved")
    relocate.set_defaults(run=_relocate)

    server = _command(commands, "team-server", help="start the team's MLflow server")
    server.add_argument(
        "--home",
        type=Path,
        default=Path(".server"),
        help="of settings and secrets; by default %(default)s",
    )
    server.add_argument("--host", default="127.0.0.1", help="by default %(default)s")
    server.add_argument("--port", type=int, default=5000)
    server.add_argument("--exposed", action="store_true", help="allow a --host that others can reach")
    server.add_argument("--upgrade", action="store_true", help="first the tables, for a newer MLflow")
    server.set_defaults(run=_server)

    grant = _command(commands, "grant", help="let somebody see or change a codebook on the server")
    grant.add_argument("user", metavar="USER")
    grant.add_argument("codebook", metavar="CODEBOOK", help="its runs and its registered models")
    grant.add_argument("level", choices=["read", "edit", "manage"], help="manage: may grant as well")
    grant.add_argument("--new", action="store_true", help="make the account, and print its password")
    grant.add_argument("--stdin", action="store_true", help="with --new: read the password instead")
    grant.set_defaults(run=_grant)

    revoke = _command(commands, "revoke", help="take rights on the server away")
    revoke.add_argument("user", metavar="USER")
    revoke.add_argument("codebook", nargs="?", metavar="CODEBOOK", help="by default the account goes")
    revoke.set_defaults(run=_revoke)

    password = _command(commands, "password", help="another password on the server; asks for it")
    password.add_argument("user", nargs="?", metavar="USER", help="by default oneself")
    password.set_defaults(run=_password)

    grants = _command(commands, "grants", help="who may see and change what on the server")
    grants.set_defaults(run=_grants)

    private = _command(commands, "private", help="bring private files under DVC")
    private_commands = private.add_subparsers(required=True, metavar="add")
    add = _command(private_commands, "add", help="tables into data/raw/<source>, tracked, not in git")
    add.add_argument("files", type=Path, nargs="+", metavar="FILE")
    add.add_argument("--source", default="private", help="by default private")
    add.add_argument("--replace", action="store_true", help="a file of the same name")
    add.add_argument("--push", action="store_true", help="send them to the private remote as well")
    add.set_defaults(run=_private_add)

    audit = _command(commands, "audit", help="whether private text stands where others may see it")
    audit.add_argument("files", type=Path, nargs="*", metavar="FILE", help="look at these alone")
    audit.add_argument("--history", action="store_true", help="look at git's objects and messages")
    audit.add_argument(
        "--place", action="append", metavar="NAME", help="of those that `undertone audit` lists"
    )
    audit.add_argument(
        "--source", action="append", metavar="SOURCE", help="whose rows; by default all that are here"
    )
    audit.set_defaults(run=_audit)

    intact = _command(commands, "verify", help="whether cache and remote hold the bytes they name")
    intact.add_argument(
        "--remote", nargs="?", const="", metavar="NAME", help="also of a remote, by default the default"
    )
    intact.add_argument(
        "--repair", action="store_true", help="set damaged files of the cache and workspace aside"
    )
    intact.set_defaults(run=_verify)

    access = _command(commands, "access", help="what is missing to reach data and MLflow's server")
    access.add_argument("--remote", metavar="NAME", help="by default the default remote")
    access.set_defaults(run=_access)

    chosen = parser.parse_args(arguments)
    try:
        code = int(chosen.run(chosen) or 0)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # `| head` has seen enough; Python would complain again at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Problem as problem:
        for line in str(problem).splitlines():
            print(f"undertone: {line}", file=sys.stderr)
        return 1


def _command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, help: str
) -> argparse.ArgumentParser:
    return commands.add_parser(name, help=help, description=f"{help[0].upper()}{help[1:]}.")


def _lint(given: argparse.Namespace) -> int:
    from undertone.annotation.lint import findings

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
    from undertone.corpus import ledger
    from undertone.params import read_params

    params = read_params()
    source = given.source or params.data.source
    asked = params.request.get(source)
    without = () if asked is None or asked.voters else ledger.VOTED
    print(ledger.told(ledger.begun(Path("reports") / source / "rows"), without))


def _analyse(given: argparse.Namespace) -> None:
    from undertone import tables
    from undertone.corpus import analysis

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
    from undertone.codebook import read_codebook
    from undertone.corpus import analysis
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


def _review(given: argparse.Namespace) -> None:
    from undertone.files import root
    from undertone.params import read_params
    from undertone.people import reviewing

    params = read_params(root() / "params.yaml")
    if given.read:
        asking = ("rows", "random", "show", "queue", "candidates", "test", "out")
        _refuse_also(given, "read", asking)
        print(reviewing.take(given.read, given.reviewer or [], params))
        return
    if given.queue:  # --candidate says whose suggestions to show
        _refuse_also(
            given, "queue", ("rows", "random", "test", *(() if given.show else ("candidates",)))
        )
    rows, drawn = (
        default if count is None else count
        for count, default in ((given.rows, 200), (given.random, 100))
    )
    if min(rows, drawn) < 0:
        raise Problem(f"{min(rows, drawn)} rows", where="--rows, --random", remedy="Give 0 or more.")
    wish = reviewing.Wish(
        rows=rows,
        random=drawn,
        reviewers=given.reviewer or ["reviewer"],
        show=given.show,
        queue=given.queue,
        candidates=given.candidates or [],
        test=given.test,
        out=given.out,
    )
    print(reviewing.ask(wish, params))


def _refuse_also(given: argparse.Namespace, one: str, others: Sequence[str]) -> None:
    values = {name: getattr(given, name) for name in others}
    if astray := [name for name, value in values.items() if value is not None and value is not False]:
        option = {"candidates": "candidate"}.get(astray[0], astray[0])
        raise Problem(f"--{one} and --{option} are two commands")


def _compare(given: argparse.Namespace) -> None:
    from undertone.files import root, whole
    from undertone.params import read_params
    from undertone.reporting import compare

    if given.out and given.out.suffix != ".md":
        raise Problem(f"'{given.out.suffix}' is no format to write", where=str(given.out), remedy=".md")
    source = given.source or read_params(root() / "params.yaml").data.source
    names = given.experiments
    candidates = {path.name for path in (root() / "models/candidates" / source).glob("*")}
    asked = [name for name in names if compare.judges(name, candidates)]
    if len(names) == 2 and len(asked) == 2:
        from undertone.reporting import judges

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
    from undertone.deployment.predictor import Predictor

    texts = given.text or _lines(sys.stdin.buffer.read())
    if not texts:
        raise Problem("no text given", remedy="Use --text, or standard input with a text a line.")
    with _bundle(given.bundle) as (folder, _):
        for one in Predictor.load(folder, variant=given.variant).predict(texts):
            print(json.dumps(one, ensure_ascii=False))


def _lines(given: bytes) -> list[str]:
    """A text a line, an empty line too: the answers stand beside them."""
    try:
        read = given.decode("utf-8")
    except UnicodeDecodeError as error:
        line = given.count(b"\n", 0, error.start) + 1
        raise Problem("not UTF-8", where=f"standard input, line {line}") from None
    # only the line feed ends a text: splitlines would also cut at U+2028
    return [line.rstrip("\r") for line in read.removesuffix("\n").split("\n")] if read.strip() else []


def _score(given: argparse.Namespace) -> None:
    from undertone.deployment import scoring

    _above_0({"--workers": given.workers, "--rows-per-part": given.rows_per_part})
    if given.delimiter is not None and len(given.delimiter) != 1:
        raise Problem("--delimiter is not one character", remedy="A tab is typed as $'\\t'.")
    if given.engine == "ray":
        from undertone.deployment import cluster

        engine, threads = cluster.engine(given.address, given.workers), 1
    elif given.address:
        raise Problem("--address needs --engine ray")
    else:
        engine, threads = scoring.local, given.workers
    with _bundle(given.bundle) as (folder, _):
        print(
            scoring.score(
                given.inputs,
                given.out,
                folder,
                engine,
                text=given.text,
                id_=given.id,
                sheet=given.sheet,
                delimiter=given.delimiter,
                rows_per_part=given.rows_per_part or scoring.ROWS_PER_PART,
                threads=threads,
            )
        )


def _above_0(given: dict[str, int | None]) -> None:
    for name, value in given.items():
        if value is not None and value < 1:
            raise Problem(f"{name} is {value}, must be above 0")


def _serve(given: argparse.Namespace) -> None:
    try:
        from undertone.deployment import serving
        from undertone.deployment.service import Service
    except ModuleNotFoundError as error:
        remedy = "Run `pip install -e '.[serve]'` in a clone."
        raise Problem(f"{error.name} is not installed", where="undertone serve", remedy=remedy) from None
    from undertone.deployment.predictor import Predictor

    limits = Limits(**{name: getattr(given, name) for name in Limits._fields})
    for name, limit in limits._asdict().items():
        if (isinstance(limit, int) and limit < 1) or not limit >= 0:
            least = "must be above 0" if isinstance(limit, int) else "must not be below 0"
            raise Problem(f"is {limit}, {least}", where=f"--{name.replace('_', '-')}")
    _above_0({"--threads": given.threads})
    token = os.environ.get("UNDERTONE_TOKEN")
    if token is not None and not (token := token.strip()):  # a file's last line has an end
        raise Problem("is empty", where="UNDERTONE_TOKEN", remedy="Unset it, or give it a value.")
    guarded = bool(token) or given.exposed
    if given.fd is not None:
        listening = serving.handed(given.fd, guarded=guarded)
    else:
        listening = serving.bound(given.host, given.port, guarded=guarded)
    with _bundle(given.bundle) as (folder, version):
        predictor = Predictor.load(folder, variant=given.variant, threads=given.threads, long=given.long)
        service = Service(predictor, limits, echo=given.echo, token=token, version=version)
        serving.run(service, listening)


@contextmanager
def _bundle(named: str | None) -> Iterator[tuple[Path, str]]:
    """A bundle's folder, and the registry's version if it came from there; by default the own one."""
    if named is None:
        from undertone.params import read_params

        yield Path("models/release") / read_params().data.source, ""
    elif named.startswith("models:/"):
        import tempfile

        from undertone.records import fetch

        with tempfile.TemporaryDirectory(prefix="undertone-") as beside:
            yield fetch.fetched(named, Path(beside))
    else:
        yield Path(named), ""


def _verify_split(given: argparse.Namespace) -> int:
    from undertone import tables
    from undertone.corpus import certificate
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
    from undertone.files import read_json
    from undertone.measures import prevalence
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
    from undertone.records import lineage

    if not given.verify:
        print(lineage.describe(given.version))
        return
    told, differs, here = lineage.verify(given.version)
    print(told)
    if differs:
        raise Problem(
            f"{len(differs)} not as they were: {'; '.join(differs)}",
            where=given.version,
            remedy="`undertone lineage` without --verify says how to bring them back.",
        )
    if not here:
        raise Problem(
            "the model is not here, so that it is not verified",
            where=given.version,
            remedy="`undertone lineage` without --verify says how to bring it back.",
        )


def _sync(given: argparse.Namespace) -> int:
    from undertone.records.sync import sync

    done, trouble = sync(missing=given.missing)
    print("\n".join(done))
    for line in trouble:
        print(f"undertone: {line}", file=sys.stderr)
    return int(bool(trouble))


def _relocate(_: argparse.Namespace) -> None:
    from undertone.records.tracking import relocate

    changed = relocate()
    print(
        f"{changed} paths in mlflow.db now lead to the artifacts in this folder"
        if changed
        else "every path in mlflow.db leads to this folder already"
    )


def _server(given: argparse.Namespace) -> None:
    from undertone.records.team import serve

    serve(
        given.home,
        host=given.host,
        port=given.port,
        exposed=given.exposed,
        upgrade=given.upgrade,
    )


def _grant(given: argparse.Namespace) -> None:
    from undertone.records import team

    server = team.Server.found()
    if given.stdin and not given.new:
        raise Problem("--stdin needs --new", remedy="It reads the password of a new account.")
    if given.new:
        said = sys.stdin.readline().rstrip("\n") if given.stdin else None
        password = team.create(server, given.user, said)
        if not said:
            print(f"{given.user}'s password, shown only now: {password}")
    team.grant(server, given.user, given.codebook, given.level)
    print(f"{given.user} may {given.level} {given.codebook}: runs and models")


def _password(given: argparse.Namespace) -> None:
    from getpass import getpass

    from undertone.records import team

    server = team.Server.found()
    typed = getpass("New password: ") if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
    team.change(server, typed, given.user)
    print(f"{given.user or server.username} has a new password; write it where the old one stands")


def _revoke(given: argparse.Namespace) -> None:
    from undertone.records import team

    team.revoke(team.Server.found(), given.user, given.codebook)
    gone = f"may no longer see {given.codebook}" if given.codebook else "has no account any more"
    print(f"{given.user} {gone}")


def _grants(_: argparse.Namespace) -> None:
    from undertone.records import team

    print(team.grants(team.Server.found()))


def _private_add(given: argparse.Namespace) -> None:
    from undertone.params import read_params
    from undertone.privacy import sharing

    settings = read_params().ingest.get(given.source)
    done = sharing.add(given.files, given.source, settings, replace=given.replace, push=given.push)
    print(done)


def _verify(given: argparse.Namespace) -> int:
    from undertone.privacy import sharing

    found = sharing.verify(remote=given.remote, repair=given.repair)
    print(found.told())
    if found.bad and not given.repair:
        print(
            "undertone verify --repair sets aside what is wrong here; its owner mends a remote"
            " (docs/access.md)"
        )
    return int(bool(found.bad))


def _audit(given: argparse.Namespace) -> int:
    from undertone.files import root
    from undertone.privacy import audit
    from undertone.privacy.needles import Needles

    repository = root()
    needles = Needles.of(repository, given.source)
    if needles.empty:
        remedy = "Run `dvc pull`; without the data there is nothing to search for."
        raise Problem("no private rows are here", where="data", remedy=remedy)
    also, names = [], list(given.place or [])
    if missing := [path for path in given.files if not os.path.lexists(path)]:
        raise Problem("no such file", where=str(missing[0]))
    if given.files:
        here = [path.absolute() for path in given.files]  # not taken for patterns
        also.append(audit.Place("files given", lambda: audit.files(Path.cwd(), here)))
    if given.history:
        names += ["git objects", "git's own files"]
    names += [place.name for place in also]
    done = []
    for one in audit.reports(repository, needles, names, also):
        print(one, flush=True)
        done.append(one)
    print(audit.told(done, needles))
    for source in [] if given.source else audit.absent(repository):
        print(f"not searched for, as it isn't here: {source} (`dvc pull data/raw/{source}`)")
    return int(any(one.findings for one in done))


def _access(given: argparse.Namespace) -> int:
    from undertone.privacy import access

    failed = 0
    for check in access.examine(given.remote):
        print(check, flush=True)
        failed += not check.ok
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
