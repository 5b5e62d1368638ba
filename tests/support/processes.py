"""A script as two processes that find each other through a file, and what each of them has found."""

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

PROCESSES = 2


def join(folder: str) -> int:
    """In one of the processes: meets the other (gloo) and returns the own rank."""
    rank = int(os.environ["RANK"])
    # A process that waits for another in vain shall say so.
    meeting = {"init_method": f"file://{folder}/meeting", "timeout": timedelta(seconds=60)}
    dist.init_process_group("gloo", rank=rank, world_size=PROCESSES, **meeting)
    return rank


def leave(folder: str, found: Any) -> None:
    """In one of the processes: hands over what it has found, and ends the meeting."""
    torch.save(found, f"{folder}/{dist.get_rank()}.pt")
    dist.destroy_process_group()


def run_two(script: str, folder: Path) -> list[Any]:
    """
    Runs `python script folder` twice at the same time, with the environment that a launcher makes.

    Returns:
        What the processes have left, by rank.
    """
    shared = {"WORLD_SIZE": str(PROCESSES), "LOCAL_WORLD_SIZE": str(PROCESSES), "OMP_NUM_THREADS": "1"}
    shared |= {"PYTHONPATH": os.pathsep.join(sys.path), "MASTER_ADDR": "localhost"}
    started = [
        subprocess.Popen(
            [sys.executable, script, str(folder)],
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(PROCESSES)
    ]  # fmt: skip
    try:
        for process in started:
            output, _ = process.communicate(timeout=120)
            assert process.returncode == 0, output
    finally:
        for process in started:
            process.kill()
            process.wait()
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(PROCESSES)]
