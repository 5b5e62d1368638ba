"""Processes that say when they are ready. They may take only so long, and nothing of them is left afterwards."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


@contextmanager
def announced(
    command: Sequence[str], said: str, log: Path, seconds: float, **how: Any
) -> Iterator[tuple[subprocess.Popen, re.Match[str]]]:
    """
    Runs a command while the block runs; then it is killed, and all that it has started.

    Args:
        command: the program and its arguments.
        said: a pattern that is found in what it prints as soon as it is ready.
        log: a file for what it prints.
        seconds: that it may take until it is ready.
        how: anything else for `subprocess.Popen`.

    Yields:
        The process, and what the pattern has matched.

    Raises:
        TimeoutError: it was not ready in time, or has ended before it was.
    """
    with open(log, "wb") as output:
        streams = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.STDOUT}
        process = subprocess.Popen(command, **streams, start_new_session=True, **how)
    try:
        yield process, _wait(process, said, log, seconds)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait(process: subprocess.Popen, said: str, log: Path, seconds: float) -> re.Match[str]:
    end = time.monotonic() + seconds
    running = True
    while running and time.monotonic() < end:
        time.sleep(0.05)
        running = process.poll() is None
        if found := re.search(said, log.read_text(encoding="utf-8")):
            return found
    told = f"has ended with {process.returncode} before" if not running else f"has run for {seconds} seconds without"
    raise TimeoutError(f"{process.args} {told} saying {said!r}:\n{log.read_text(encoding='utf-8')}")
