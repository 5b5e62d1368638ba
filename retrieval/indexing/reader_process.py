"""What a reader process does, and how it ends with the process that has started it."""

import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

Allow = Callable[[float], None]
"""Given to a job's work: says that it may take so many seconds longer."""


class Outcome(NamedTuple):
    """
    What a job has given, one piece of it at a time.

    Args:
        job: as it was submitted.
        value: a piece; None where there is none.
        failure: why the job has failed, in words; None if it has not.
        finished: whether nothing more comes of it.
    """

    job: Any
    value: Any = None
    failure: str | None = None
    finished: bool = False


def done(work: Callable, shared: Any, job: Any, allow: Allow) -> Iterator[Outcome]:
    """Does a job."""
    try:
        for value in work(shared, job, allow):
            yield Outcome(job, value)
    except Exception as error:
        reason = getattr(error, "reason", None) or f"{type(error).__name__}: {error}"
        yield Outcome(job, failure=str(reason), finished=True)
    else:
        yield Outcome(job, finished=True)


def serve(lifeline: Connection, connection: Any, task: bytes) -> None:
    """What a process does: says None when it can begin, then for every job the pieces, or how much longer it takes."""
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
    # Unpickling imports for seconds, in which the process can be ended already.
    work, shared = pickle.loads(task)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)

    def say(message: Any) -> None:
        connection.send_bytes(pickle.dumps(message, protocol=5))

    with suppress(EOFError, OSError):  # nobody listens any more
        say(None)
        while True:
            for outcome in done(work, shared, connection.recv(), lambda seconds: say(float(seconds))):
                say(tuple(outcome[1:]))


def _end_with(lifeline: Connection) -> None:
    """Ends this process when the other side closes the pipe, which also happens when the other process is killed."""
    with suppress(EOFError, OSError):
        lifeline.recv_bytes()
    os._exit(1)


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Processes started inside never see a Ctrl-C, of which each would print a traceback; this one does right after."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
