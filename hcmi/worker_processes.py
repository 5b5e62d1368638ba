"""Processes that work for this one: they end when it does, however it ends, and leave Ctrl-C to it."""

import os
import pickle
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Processes started inside never see a Ctrl-C, of which each would print a traceback; this one does right after."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # It comes with the first process that is started, and would let interrupts through in the middle of that.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def begin(lifeline: Connection, task: bytes) -> Any:
    """
    What such a process does first: from now on it ends with the one that has started it, and has one torch thread.

    Args:
        lifeline: of a pipe whose other end the starting process holds, and which nobody writes to.
        task: what there is to do, pickled.

    Returns:
        The task.
    """
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
    # Unpickling imports for seconds, in which the process can be ended already.
    unpickled = pickle.loads(task)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    return unpickled


def _end_with(lifeline: Connection) -> None:
    """Ends this process when the other side closes the pipe, which also happens when the other process is killed."""
    with suppress(EOFError, OSError):
        lifeline.recv_bytes()
    os._exit(1)
