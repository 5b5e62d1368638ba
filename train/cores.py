"""How many processes are worth starting."""

import os


def usable_cores() -> int:
    """The CPU cores that this process may run on, which containers and schedulers limit."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
