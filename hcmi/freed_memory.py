"""What a process frees stays with it, instead of going back to the system and coming anew, page by page."""

import ctypes
import sys

# Of glibc's <malloc.h>.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def keep_freed_memory() -> None:
    """
    For the whole process, so only for programs to call; where the C library is not glibc, nothing happens.

    By default glibc gives large blocks, and what is free at the end of its heap, back at once. A training step on a CPU
    frees gigabytes, which the system has to clear page by page when the next one wants them again: a fifth of the time
    (`bench/train_step.py --give-back`). What is held at most grows by a few blocks, and is held until the process ends.
    """
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(library, "mallopt"):
        library.mallopt(_MMAP_MAX, 0)  # large blocks come from the heap, too,
        library.mallopt(_TRIM_THRESHOLD, -1)  # which never shrinks
