"""Which video each reader process of a `DataLoader` is at, so that one that dies or hangs ends the run with a name."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import TypeVar

import torch
from torch.utils.data import get_worker_info

_SECONDS_TO_END = 1.0
"""That a process may take which ends."""

T = TypeVar("T")


class ReaderWatch:
    """
    What reader processes note while they read, in memory that they share with the process that trains.

    Args:
        num_workers: of the `DataLoader`.
        time_limit: seconds that one video may take; after them the system ends the process that reads it. 0: no limit,
            and there is none where the system has no alarm (Windows).
    """

    def __init__(self, num_workers: int, time_limit: float) -> None:
        self.time_limit = time_limit
        # A line for each reader: its process, the row that it reads plus one or else 0, since when in nanoseconds.
        self._notes = torch.zeros(num_workers, 3, dtype=torch.int64).share_memory_()

    @contextmanager
    def reading(self, row: int) -> Iterator[None]:
        """Notes that this process reads a row, if it is a reader; elsewhere nothing happens."""
        reader = get_worker_info()
        if reader is None:
            yield
            return
        note = self._notes[reader.id]
        note.copy_(torch.tensor([os.getpid(), row + 1, time.monotonic_ns()]))
        _set_alarm(self.time_limit)
        try:
            yield
        finally:
            _set_alarm(0)
            note[1] = 0

    @contextmanager
    def explained(self, names: Sequence[str], files: Sequence[str] | None = None) -> Iterator[None]:
        """
        Inside, the end of a reader process is told with what it was reading. After any error no reader is left.

        It has to hold whatever is done between two batches too: torch tells the end of a reader at any moment.

        Args:
            names: of the rows' videos.
            files: that these are in, to be told too.

        Raises:
            ChildProcessError: a reader process was ended by a signal, or by itself, or took too long.
        """
        try:
            yield
        except BaseException as error:
            # A dead reader's data may also arrive as a broken connection, even before its process is no more.
            if isinstance(error, OSError | EOFError):
                _in_spite_of_torch(self._wait_for_an_end)
            told = _in_spite_of_torch(lambda: self._told(names, files))
            _in_spite_of_torch(self._end_readers)
            of_reader = told or str(error).startswith("DataLoader worker")
            if not (of_reader and isinstance(error, RuntimeError | OSError | EOFError)):
                raise
            raise ChildProcessError("; ".join(told) or f"a reader process ended between two videos: {error}") from error

    def _readers(self) -> list[BaseProcess]:
        """Those that run still."""
        noted = set(self._notes[:, 0].tolist())
        return [process for process in multiprocessing.active_children() if process.pid in noted]

    def _wait_for_an_end(self) -> None:
        readers = self._readers()
        ended = wait([process.sentinel for process in readers], _SECONDS_TO_END)
        for process in readers:
            if process.sentinel in ended:
                process.join(_SECONDS_TO_END)

    def _end_readers(self) -> None:
        """A loader that an error keeps alive waits for its readers, seconds for each, when it goes at last."""
        readers = self._readers()
        for process in readers:
            process.terminate()
        for process in readers:
            process.join(_SECONDS_TO_END)

    def _told(self, names: Sequence[str], files: Sequence[str] | None) -> list[str]:
        """A sentence for each reader that is no more and was reading."""
        alive = {process.pid for process in self._readers()}
        told = []
        for process, noted, since in self._notes.tolist():
            if not noted or process in alive:
                continue
            row = noted - 1
            place = "" if files is None else f", file {files[row]}"
            video = f"video {str(names[row])!r} (row {row}{place})"
            seconds = (time.monotonic_ns() - since) / 1e9
            if 0 < self.time_limit <= seconds:
                told.append(f"{video} was not read within {self.time_limit:g} seconds, the limit for one video")
            else:
                told.append(
                    f"the process that read {video} ended: a broken file can do that, or too little memory or shared "
                    f"memory (/dev/shm), of which fewer readers need less (num_workers)"
                )
        return told


def _in_spite_of_torch(act: Callable[[], T]) -> T:
    """torch tells the end of a reader once, by an error wherever this process is: what that cuts off is done again."""
    try:
        return act()
    except RuntimeError:
        return act()


def _set_alarm(seconds: float) -> None:
    """The system ends this process after so long, even inside a library's code that never returns; 0: no more."""
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds)
