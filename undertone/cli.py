"""`undertone`: doors for users of a finished model. Starts without torch, pandas or mlflow."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from undertone.errors import Problem


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0, or 1 after a `Problem`, told in one line."""
    parser = argparse.ArgumentParser(prog="undertone", description=__doc__)
    commands = parser.add_subparsers(required=True)

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

    lineage = commands.add_parser("lineage", help="where a registered version came from")
    lineage.add_argument("version", help="gender/3, models:/gender@champion, or a version's number")
    lineage.set_defaults(run=_lineage)

    relocate = commands.add_parser("relocate", help="repair mlflow.db after the repository was moved")
    relocate.set_defaults(run=_relocate)

    chosen = parser.parse_args(arguments)
    try:
        chosen.run(chosen)
    except Problem as problem:
        print(f"undertone: {problem}", file=sys.stderr)
        return 1
    return 0


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


def _lineage(given: argparse.Namespace) -> None:
    from undertone.lineage import describe

    print(describe(given.version))


def _relocate(_: argparse.Namespace) -> None:
    from undertone.tracking import relocate

    print(relocate())


if __name__ == "__main__":
    sys.exit(main())
