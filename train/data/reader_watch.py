"""Which video each reader process of a `DataLoader` is at, so that one that dies or hangs ends the run with a name."""

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch.utils.data import get_worker_info


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
            told = self._told(names, files)
            # A loader that an error keeps alive waits for its readers, seconds for each, when it goes at last.
            self._end_readers()
            # A dead reader's data may also arrive as a broken connection.
            of_reader = told or str(error).startswith("DataLoader worker")
            if not (of_reader and isinstance(error, RuntimeError | OSError | EOFError)):
                raise
            raise ChildProcessError("; ".join(told) or f"a reader process ended between two videos: {error}") from error

    def _end_readers(self) -> None:
        noted = set(self._notes[:, 0].tolist())
        for process in multiprocessing.active_children():
            if process.pid in noted:
                process.terminate()

    def _told(self, names: Sequence[str], files: Sequence[str] | None) -> list[str]:
        """A sentence for each reader that is no more and was reading."""
        alive = {process.pid for process in multiprocessing.active_children()}
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


def _set_alarm(seconds: float) -> None:
    """The system ends this process after so long, even inside a library's code that never returns; 0: no more."""
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds)
