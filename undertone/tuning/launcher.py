"""One stage in several processes, which `accelerate launch` starts: on GPUs, machines or a CPU's cores.

All of them learn, and the first alone writes. Of what fails, whatever fails with it, one process tells;
and none outlives a launcher that was killed.
"""

import contextlib
import logging
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from undertone.errors import Problem, first_line

WHERE = "params.yaml: train.launcher"

_LAUNCHER = "UNDERTONE_LAUNCHER"  # its process id, for those it starts
_ECHO = 3.0  # seconds in which the launcher ends all when one of them died
_POLL = 0.1  # seconds


@contextlib.contextmanager
def processes(arguments: str | None) -> Iterator[int]:
    """The block runs in each process that `accelerate launch` starts for `arguments`, here for None.

    It gets the process's number: 0 for the one that writes, and all others have to reach the same
    trainings in the same order. The caller's own process only waits, and exits as they do; `Problem`
    where they can't be started, or one was ended from outside.
    """
    if "LOCAL_RANK" in os.environ:
        with _member() as number:
            yield number
    elif arguments is None:
        yield 0
    else:
        _launch(arguments)


def _launch(arguments: str) -> NoReturn:
    """This process's own command line again, in each process of the launcher."""
    import torch
    from accelerate.commands.launch import launch_command, launch_command_parser
    from accelerate.utils import patch_environment
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    parser = launch_command_parser()
    setattr(parser, "error", _refuse)  # it would print two pages  # noqa: B010
    given = parser.parse_args([*shlex.split(arguments), "--module", _module(), *sys.argv[1:]])
    # torchrun, whatever the number; accelerate leaves several processes on a CPU to MPI
    given.multi_gpu, given.cpu = True, False
    if not torch.cuda.is_available() and given.num_processes is None and given.config_file is None:
        _refuse("without a GPU it needs --num_processes")
    if given.main_process_port is None and (given.num_machines or 1) == 1:
        given.main_process_port = 0  # a free one, as DVC may run several trainings
    logging.disable()  # what they tell belongs to no stage's one line
    try:
        with patch_environment(**{_LAUNCHER: os.getpid()}):
            launch_command(given)
    except ChildFailedError as failed:
        number, first = failed.get_first_failure()
        if first.exitcode != 1:  # else it has told why
            killed = first.exitcode < 0
            code = signal.Signals(-first.exitcode).name if killed else f"exit code {first.exitcode}"
            raise Problem(
                f"process {number} ended with {code}",
                where=WHERE,
                remedy="Where memory was short, lower `batch` or start fewer.",
            ) from None
        sys.exit(1)
    except SignalException as stop:
        sys.exit(128 + int(stop.sigval))
    except (ValueError, AssertionError, OSError, RuntimeError) as error:
        _refuse(first_line(error))
    finally:
        logging.disable(logging.NOTSET)
    sys.exit(0)


def _refuse(what: str) -> NoReturn:
    remedy = "Write what `accelerate launch --help` lists, or leave it empty."
    raise Problem(what, where=WHERE, remedy=remedy)


def _module() -> str:
    own = sys.modules["__main__"].__spec__
    assert own is not None  # python -m
    return own.name


@contextlib.contextmanager
def _member() -> Iterator[int]:
    # it may have died while this process was still importing; where a person called `accelerate launch`,
    # on another machine, nobody named it
    launcher = int(os.environ.get(_LAUNCHER, os.getppid()))
    threading.Thread(target=_end_with, args=(launcher,), daemon=True).start()
    try:
        number = _join()
        with contextlib.ExitStack() as stack:
            if number:
                nowhere = stack.enter_context(Path(os.devnull).open("w"))
                stack.enter_context(contextlib.redirect_stderr(nowhere))
            yield number
    except Problem:
        _tell_once()
        raise
    except Exception:
        time.sleep(_ECHO)  # where another's death broke the connection, SIGTERM comes now
        _tell_once()
        raise
    import torch

    torch.distributed.destroy_process_group()


def _join() -> int:
    """Meet the others, on this process's own GPU where there are any."""
    import torch
    from accelerate import PartialState

    kinds = ("FSDP", "DEEPSPEED", "MEGATRON_LM")
    if any(os.environ.get(f"ACCELERATE_USE_{kind}") == "true" for kind in kinds):
        _refuse(f"{', '.join(kinds)} would split the weights, which checkpoints hold whole")
    # how precise a candidate computes is part of its recipe, and not of a machine's configuration
    os.environ["ACCELERATE_MIXED_PRECISION"] = "no"
    if not torch.cuda.is_available():
        os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"  # it would be cpu:1, where torch loads nothing
    return int(PartialState(cpu=not torch.cuda.is_available()).process_index)


def _end_with(launcher: int) -> None:
    while os.getppid() == launcher:
        time.sleep(_POLL)
    os._exit(1)


def _tell_once() -> None:
    """Leave in silence where another process of this machine has told already."""
    shared = os.environ.get("TORCHELASTIC_ERROR_FILE")  # each has its own, in one folder
    if shared is None:
        return
    try:
        (Path(shared).parents[1] / "told").touch(exist_ok=False)
    except FileExistsError:
        sys.exit(1)
