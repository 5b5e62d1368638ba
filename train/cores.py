"""How many processes are worth starting, and threads."""

import os


def usable_cores() -> int:
    """The CPU cores that this process may run on, which containers and schedulers limit."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def local_processes(processes: int) -> int:
    """How many of a run's processes are on this machine: launchers tell it; otherwise all."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", processes))
