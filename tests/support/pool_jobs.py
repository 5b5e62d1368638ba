"""Jobs for worker processes, in a module that they can import."""

import os
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path


def note(folder: str, name: str) -> str:
    """Leaves a file named `name` with the process's id."""
    (Path(folder) / name).write_text(str(os.getpid()))
    return name


def note_or_fail(folder: str, name: str) -> str:
    """As `note`, after a while; "bad" raises, "dead" is a process that the system kills."""
    if name == "bad":
        raise PermissionError(13, "not yours", "bad.mp4")
    if name == "dead":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.2)
    return note(folder, name)


def note_and_wait(folder: str, name: str) -> None:
    """As `note`, and then does not come to an end."""
    note(folder, name)
    time.sleep(600)


def tell_held(connection: Connection) -> None:
    """Sends whether this process holds interrupts back."""
    connection.send(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()))
