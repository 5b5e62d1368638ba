"""Work for a `ReaderPool`, in a module that its processes can import."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np


def work(folder: str, job: tuple, allow: Callable[[float], None]) -> Iterator[Any]:
    """
    Jobs are `(what, number)`:

    "count" gives 0, 1, … up to the number; "raise", "die", "exit" and "hang" give one piece, and do that then; "slow"
    takes that many seconds, and says so; "large" gives that many megabytes three times, and leaves a file each time it
    begins; "note" leaves a file with the process's number.
    """
    what, number = job
    if what == "count":
        yield from range(number)
    elif what == "slow":
        allow(number)
        time.sleep(number)
        yield "slow"
    elif what == "large":
        for piece in range(3):
            Path(folder, f"large-{piece}").touch()
            yield np.full(number * 2**20, piece, np.uint8)
    elif what == "note":
        Path(folder, f"{os.getpid()}").touch()
        time.sleep(number)
        yield os.getpid()
    else:
        yield "first"
        if what == "raise":
            raise OSError(5, "Input/output error")
        if what == "die":
            os.kill(os.getpid(), signal.SIGSEGV)
        if what == "exit":
            os._exit(7)
        if what == "hang":
            time.sleep(3600)


def run_and_wait(folder: str) -> None:
    """A program: two processes begin jobs that take for ever."""
    from hcmi.retrieval.indexing.reader_pool import ReaderPool

    with ReaderPool(work, folder, 2) as pool:
        pool.submit([("note", 3600), ("note", 3600)], 3600.0)
        list(pool)
