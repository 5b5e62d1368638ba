"""Training runs in processes of their own, which can be killed; forked off one that has imported everything."""

import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

_IMPORTED = ["hcmi.train.loop", "hcmi.train.data.shape_stories", "transformers.models.clip.modeling_clip"]


def start(fields: dict[str, Any], prepare: Callable[..., None] | None = None, *arguments: Any) -> BaseProcess:
    """
    Begins a run.

    Args:
        fields: its arguments.
        prepare: called in its process beforehand, with the rest of the arguments.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_IMPORTED)
    process = context.Process(target=_run, args=(fields, Path(fields["output"]) / "log.txt", prepare, *arguments))
    process.start()
    return process


def finish(process: BaseProcess) -> int:
    """Waits for the end of a run: its exit status, -9 if it was killed."""
    process.join(300)
    assert process.exitcode is not None
    return process.exitcode


def _run(fields: dict[str, Any], log: Path, prepare: Callable[..., None] | None, *arguments: Any) -> None:
    from hcmi.train import loop
    from hcmi.train.arguments import TrainingArguments

    log.parent.mkdir(parents=True, exist_ok=True)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    # Longer than the run, and not what is killed here.
    loop.draw_curves = lambda *_: None
    if prepare is not None:
        prepare(*arguments)
    loop.train(TrainingArguments(**fields))


def write_slowly(seconds: float) -> None:
    """Every file and folder of checkpoints and models takes so long to get to the disk."""
    from hcmi.train import checkpoints

    real = checkpoints._synchronize

    def synchronize(path: Path) -> None:
        time.sleep(seconds)
        real(path)

    checkpoints._synchronize = synchronize


def die_at(call: str, number: int) -> None:
    """
    The process kills itself at the beginning of that call.

    Args:
        call: "rename" or "fsync" of the checkpoints and models.
        number: of the call, from 0.
    """
    calls = iter(range(number + 1))
    owner: Any = {"rename": Path, "fsync": os}[call]
    real = getattr(owner, call)

    def dying(*arguments: Any) -> Any:
        if next(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments)

    setattr(owner, call, dying)


def fill_disk(step: int, size: int) -> None:
    """From that step on no file gets larger than so many bytes: the libraries fail as on a full disk."""
    from hcmi.train.recording import Recorder

    real = Recorder.add

    def add(self: Any, objective: Any) -> None:
        if self.progress.steps == step:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        real(self, objective)

    Recorder.add = add
