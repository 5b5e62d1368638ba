"""Work of torch that is done sooner on one thread than on many."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_alone = threading.RLock()


@contextmanager
def one_thread() -> Iterator[None]:
    """
    For work so small, such as resizing small frames or scoring a few windows, that threads wait for each other longer
    than they work; on a busy machine much longer.
    """
    import torch  # takes seconds, in which a new reader process would not listen to its lifeline yet

    with _alone:  # the number is a thread's own, but each new thread begins with the one that was set last
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)
