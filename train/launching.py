"""A run on fewer processes than were asked for trains with fewer negatives, or twice side by side: it is refused."""

import os
from collections.abc import Mapping

from accelerate import Accelerator

# torchrun's comes first: below Slurm or mpirun the others count the launchers.
_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


def require_processes(accelerator: Accelerator, expected: int | None = None) -> None:
    """
    Refuses a run that does not have the processes that were asked for.

    Args:
        accelerator: of this process.
        expected: how many there have to be; default: what the launcher has left in the environment, if anything.

    Raises:
        ValueError: their number is another one; in every process, with the commands that start so many.
    """
    started = accelerator.num_processes
    if expected is None:
        expected = _launched(os.environ)
    if expected is None:
        if started > 1 or not _told_of_others(os.environ):
            return
        asked, number = "several processes were asked for", "N"
    elif expected == started:
        return
    else:
        asked, number = f"{expected} process{'es were' if expected > 1 else ' was'} asked for", str(expected)
    raise ValueError(
        f"{asked}, but this run has {started}. `accelerate launch` starts one process on a machine without several "
        "GPUs, whatever --num_processes and its configuration file say, and processes without --cpu true do not find "
        f"each other without GPUs. On the CPU: torchrun --nproc_per_node {number} train/run.py … --cpu true. "
        f"On GPUs: accelerate launch --multi_gpu --num_processes {number} train/run.py …"
    )


def _launched(environment: Mapping[str, str]) -> int | None:
    """How many processes torchrun or MPI has started."""
    return next((int(environment[name]) for name in _SIZES if name in environment), None)


def _told_of_others(environment: Mapping[str, str]) -> bool:
    """
    Whether `accelerate launch` was asked for several processes and has started one: only its launcher of single
    processes sets the first name, and it adds the second for more than one process. It does not say how many.
    """
    return "ACCELERATE_USE_CPU" in environment and "MASTER_ADDR" in environment
