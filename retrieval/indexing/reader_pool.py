"""Jobs in processes of their own, of which any may crash or hang: that costs its job and nothing else."""

import multiprocessing
import pickle
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from multiprocessing.connection import wait
from typing import Any

from hcmi.worker_processes import interrupts_held

from .reader_process import Allow, Outcome, done, serve

_START_SECONDS = 300.0
"""What a process may take until it can work: importing torch from a slow disk."""

_END_SECONDS = 5.0


class ReaderPool:
    """
    Calls `work(shared, job, allow)`, a generator, for every job, in processes that end when this one does, however it
    ends. The pieces that it yields arrive one by one; a process waits until its piece is taken, so that no more than
    one for each is held.

    A job fails if its work raises, if its process dies, or if it takes longer than it may without giving a piece. What
    it gave before has arrived then.

    Args:
        work: a function of a module.
        shared: goes to each process once.
        processes: how many are started, at most; 0: this process does the work, and is not safe from it.
    """

    def __init__(self, work: Callable[[Any, Any, Allow], Iterator[Any]], shared: Any, processes: int):
        self._work, self._shared = work, shared
        self._processes = processes
        self._waiting: deque[tuple[Any, float]] = deque()
        self._readers: dict[Any, _Reader] = {}
        self._task = pickle.dumps((work, shared)) if processes else b""
        self._lifeline, self._held = multiprocessing.get_context("spawn").Pipe(duplex=False)

    def submit(self, jobs: Iterable[Any], seconds: float, first: bool = False) -> None:
        """
        Adds jobs.

        Args:
            seconds: that each may take.
            first: before those that are waiting already.
        """
        added = [(job, seconds) for job in jobs]
        if first:
            self._waiting.extendleft(reversed(added))
        else:
            self._waiting.extend(added)

    def drop(self, unwanted: Callable[[Any], bool]) -> None:
        """Takes back jobs that nobody has begun."""
        self._waiting = deque(entry for entry in self._waiting if not unwanted(entry[0]))

    def __iter__(self) -> Iterator[Outcome]:
        """What jobs give, until there are no more; jobs may be submitted meanwhile."""
        while self._waiting or self._busy():
            if self._processes == 0:
                job, _ = self._waiting.popleft()
                yield from done(self._work, self._shared, job, lambda seconds: None)
                continue
            self._hand_out()
            for reader in self._heard_of():
                outcome = reader.outcome()
                if reader.ended:
                    del self._readers[reader.connection]
                if outcome is not None:
                    yield outcome
                    self._hand_out()

    def close(self) -> None:
        """Ends all processes at once."""
        for reader in self._readers.values():
            reader.end()
        self._readers.clear()
        self._held.close()
        self._lifeline.close()

    def __enter__(self) -> "ReaderPool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _busy(self) -> list["_Reader"]:
        return [reader for reader in self._readers.values() if reader.job is not None]

    def _hand_out(self) -> None:
        idle = [reader for reader in self._readers.values() if reader.job is None]
        while self._waiting and (idle or len(self._readers) < self._processes):
            reader = idle.pop() if idle else self._start()
            reader.begin(*self._waiting.popleft())

    def _start(self) -> "_Reader":
        # Spawned, because the caller may have threads (torch), which a fork would break.
        context = multiprocessing.get_context("spawn")
        connection, other = context.Pipe()
        process = context.Process(target=serve, args=(self._lifeline, other, self._task), daemon=True)
        with interrupts_held():
            process.start()
        other.close()
        self._readers[connection] = reader = _Reader(process, connection)
        return reader

    def _heard_of(self) -> list["_Reader"]:
        """After waiting, readers that say something or have died; or those whose time is over."""
        busy = self._busy()
        soonest = min(reader.deadline for reader in busy)
        ready = wait([reader.connection for reader in busy], max(0.0, soonest - time.monotonic()))
        # What waits to be taken was in time, however late it is taken.
        return [self._readers[one] for one in ready] or [reader for reader in busy if reader.seconds_left() <= 0]


class _Reader:
    """A process, and the job that it is at."""

    def __init__(self, process: Any, connection: Any):
        self.process = process
        self.connection = connection
        self.job: Any = None
        self.deadline = 0.0
        self._seconds = 0.0
        self._works = False
        self.ended = False

    def begin(self, job: Any, seconds: float) -> None:
        self.job, self._seconds = job, seconds
        self.deadline = time.monotonic() + (seconds if self._works else _START_SECONDS)
        with suppress(OSError):  # it has died meanwhile, which shows when something is expected of it
            self.connection.send(job)

    def seconds_left(self) -> float:
        return self.deadline - time.monotonic()

    def end(self) -> None:
        self.ended = True
        self.process.kill()
        self.process.join(_END_SECONDS)
        self.connection.close()

    def outcome(self) -> Outcome | None:
        """What it says, where that is of the job; that it has died; or that its time is over, which ends it."""
        job = self.job
        if not self.connection.poll():
            self.end()
            self._require_start(f"has not begun to work after {_START_SECONDS:g} s")
            return Outcome(job, failure=f"it was not read within {self._seconds:g} s", finished=True)
        try:
            message = pickle.loads(self.connection.recv_bytes())
        except (EOFError, OSError):
            self.end()
            self._require_start(f"ended before it began to work, {_ended_by(self.process.exitcode)}")
            told = f"the process that read it ended, {_ended_by(self.process.exitcode)}: a broken file can do that, "
            return Outcome(job, failure=f"{told}or too little memory, of which fewer readers need less", finished=True)
        if isinstance(message, float):
            self._seconds, self.deadline = self._seconds + message, self.deadline + message
            return None
        self.deadline = time.monotonic() + self._seconds
        if message is None:
            self._works = True
            return None
        if message[-1]:
            self.job = None
        return Outcome(job, *message)

    def _require_start(self, what: str) -> None:
        if not self._works:
            raise ChildProcessError(
                f"A reader process {what}. A script that starts processes needs its own work below "
                '`if __name__ == "__main__":`; otherwise too little memory is the usual reason (num_workers).'
            )


def _ended_by(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        return f"by {signal.Signals(-exitcode).name}"
    return f"with status {exitcode}"
