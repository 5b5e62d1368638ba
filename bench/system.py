"""What the operating system holds: this process's memory, and its cache of files."""

import os
from pathlib import Path


def memory() -> tuple[float, float]:
    """GB that this process holds: of its own, and of mapped files. Both are NaN where there is no /proc."""
    try:
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    except OSError:
        return float("nan"), float("nan")
    own, mapped = (int(status[name].split()[0]) * 1024 / 1e9 for name in ("RssAnon", "RssFile"))
    return own, mapped


def drop_from_cache(folder: Path) -> None:
    """Asks the system to forget what it has read of files."""
    if not hasattr(os, "posix_fadvise"):
        return
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_all(folder: Path) -> None:
    """Has the system read files into its cache."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                while file.read(2**24):
                    pass
