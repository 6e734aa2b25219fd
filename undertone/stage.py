"""Runs a stage: its command line from the signature of `main`, and its one line of log."""

import argparse
import inspect
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NoReturn

from undertone.errors import Problem
from undertone.params import Params, read_params
from undertone.privacy import integrity


def run(main: Callable[..., str]) -> NoReturn:
    """Run `main(params, *, name: Path or str, …)` with `--name value` for each argument, and exit.

    Where DVC runs it, nothing is done before each input holds the bytes that were recorded for it.
    `main` returns the counts that its line of log shows. A `Problem` is one line on standard error
    and exit code 1, SIGTERM exit code 143. Anything unforeseen keeps its traceback, but not its words:
    a library's may quote a comment, and DVC's queue keeps all that a stage prints. $UNDERTONE_WORDS
    shows them.
    """
    name = Path(inspect.getfile(main)).stem
    signal.signal(signal.SIGTERM, _terminated)
    started = time.perf_counter()
    try:
        arguments = _arguments(main, name)
        params = read_params()
        _refuse_broken(params, arguments)
        counts = main(params, **arguments)
    except Problem as problem:
        for line in str(problem).splitlines():
            print(f"{name}: {line}", file=sys.stderr)
        sys.exit(1)
    except Exception as error:
        if os.environ.get("UNDERTONE_WORDS"):
            raise
        print(_wordless(error), file=sys.stderr)
        sys.exit(1)
    print(f"{name}: {counts} ({time.perf_counter() - started:.1f} s)")
    sys.exit(0)


def _wordless(error: BaseException) -> str:
    """The traceback of an exception, and of those that it came from, with their types alone."""
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    frames = "".join(traceback.format_tb(error.__traceback__))
    return (
        (f"{_wordless(before)}\n\nwhich led to\n\n" if before else "")
        + f"Traceback (most recent call last):\n{frames}{type(error).__name__}: its words are withheld,"
        " as they may quote a comment; UNDERTONE_WORDS=1 shows them"
    )


def _arguments(main: Callable[..., str], name: str) -> dict[str, Path | str]:
    parser = argparse.ArgumentParser(prog=f"python -m stages.{name}", description=main.__doc__)
    for parameter in inspect.signature(main).parameters.values():
        if parameter.annotation is not Params:
            parser.add_argument(
                f"--{parameter.name.replace('_', '-')}", type=parameter.annotation, required=True
            )
    return vars(parser.parse_args())


def _refuse_broken(params: Params, arguments: dict[str, Path | str]) -> None:
    stage = os.environ.get("DVC_STAGE")
    if stage is None:
        return
    source, candidates = params.data.source, list(params.models)
    integrity.refuse_broken(
        [value for value in arguments.values() if isinstance(value, Path)],
        stage=stage,
        items=[source, *candidates, *(f"{source}-{candidate}" for candidate in candidates)],
    )


def _terminated(signum: int, _frame: FrameType | None) -> NoReturn:
    # A plain SIGTERM would skip every `finally`, and leave the MLflow run RUNNING for ever.
    sys.exit(128 + signum)
