"""Many jobs in processes of their own, which end when this one does."""

import math
import multiprocessing
import pickle
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from hcmi.one_thread import one_thread
from hcmi.worker_processes import begin, interrupts_held

Shared = TypeVar("Shared")
Job = TypeVar("Job")
Result = TypeVar("Result")

# What importing torch and transformers takes in a new process: less work than that is done sooner without.
_START_SECONDS = 4.0
_TICK = 1.0  # seconds


def run_jobs(
    work: Callable[[Shared, Job], Result],
    shared: Shared,
    jobs: Iterable[Job],
    *,
    num_workers: int,
    finished: Callable[[Result], object],
    meanwhile: Callable[[], None] = lambda: None,
) -> None:
    """
    Calls `work(shared, job)` for every job, each with one torch thread: for some seconds here, then in processes.

    Ctrl-C, or any way in which this process ends, ends the others at once. When a job raises, no further one is handed
    out, those that processes have are finished, and the exception arrives as it was raised.

    Args:
        work: a function of a module; with `shared` and the jobs it has to be picklable where processes are started.
        shared: goes to each process once.
        jobs: in the order in which they are begun.
        num_workers: processes; with 1 this process does everything.
        finished: is given each result, in the order in which the jobs finish.
        meanwhile: is called after every job and, while processes work, about every second.

    Raises:
        ChildProcessError: a process ended without a result, such as when the system kills it for its memory.
    """
    waiting = deque(jobs)
    alone_until = time.monotonic() + _START_SECONDS if num_workers > 1 else math.inf
    with one_thread():
        while waiting and (time.monotonic() < alone_until or len(waiting) == 1):
            finished(work(shared, waiting.popleft()))
            meanwhile()
    if waiting:
        _run_in_processes(pickle.dumps((work, shared)), waiting, min(num_workers, len(waiting)), finished, meanwhile)


def _run_in_processes(
    task: bytes, waiting: deque[Any], processes: int, finished: Callable[[Any], object], meanwhile: Callable[[], None]
) -> None:
    # Spawned, because the caller may have threads (torch), which a fork would break.
    context = multiprocessing.get_context("spawn")
    lifeline, held = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(processes, context, initializer=_begin, initargs=(lifeline, task))
    running: set[Future] = set()
    try:
        while waiting or running:
            # Few at a time: what is handed over is done even after an error, and waiting takes time for each.
            with interrupts_held():
                while waiting and len(running) < 2 * processes:
                    running.add(pool.submit(_work, waiting.popleft()))
            done, running = wait(running, _TICK, FIRST_COMPLETED)
            for future in done:
                finished(future.result())
            meanwhile()
    except BrokenProcessPool as error:
        raise ChildProcessError(
            f"one of {processes} worker processes ended without a result: too little memory is the usual reason, and "
            "fewer workers need less (num_workers, --num-workers)"
        ) from error
    except Exception:
        pool.shutdown(cancel_futures=True)
        raise
    finally:
        held.close()
        pool.shutdown(cancel_futures=True)


_task: Callable[[Any], Any]


def _begin(lifeline: Connection, task: bytes) -> None:
    """What a new process does first."""
    global _task
    _task = partial(*begin(lifeline, task))


def _work(job: Any) -> Any:
    return _task(job)
