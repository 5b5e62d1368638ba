"""How many processes are worth starting, and threads."""

import os
from collections.abc import Iterator
from contextlib import contextmanager


def usable_cores() -> int:
    """The CPU cores that this process may run on, which containers and schedulers limit."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def local_processes(processes: int) -> int:
    """How many of a run's processes are on this machine: launchers tell it; otherwise all."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", processes))


@contextmanager
def one_thread() -> Iterator[None]:
    """Small frames are resized faster without threads, which wait for each other longer than they work."""
    import torch  # takes seconds, in which a new reader process would not listen to its lifeline yet

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
