"""What a reader process does, and how it ends with the process that has started it."""

import pickle
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from hcmi.worker_processes import begin

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
    work, shared = begin(lifeline, task)

    def say(message: Any) -> None:
        connection.send_bytes(pickle.dumps(message, protocol=5))

    with suppress(EOFError, OSError):  # nobody listens any more
        say(None)
        while True:
            for outcome in done(work, shared, connection.recv(), lambda seconds: say(float(seconds))):
                say(tuple(outcome[1:]))
