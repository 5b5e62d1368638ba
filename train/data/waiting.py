"""Whether a run waits for its data."""

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

Batch = TypeVar("Batch")


class WaitClock:
    """
    The share of the time that goes by waiting for the next batch, in windows that the caller names.

    Waiting is what this process spends in `next(loader)`, everything else is the step. A GPU may still be computing
    meanwhile what it was given before: then the share is the most that it can have been idle for want of data.
    """

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._waited = 0.0
        self._marks: dict[str, tuple[float, float]] = {}

    def over(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches, with the time that each took to come."""
        iterator = iter(batches)
        while True:
            asked = time.perf_counter()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            finally:
                self._waited += time.perf_counter() - asked
            yield batch
            del batch  # the next one shall not need memory beside it

    def share(self, window: str) -> float:
        """The part, 0..1, of the time since this window's last call, or else since the clock was made."""
        now, waited = time.perf_counter(), self._waited
        before, waited_before = self._marks.get(window, (self._started, 0.0))
        self._marks[window] = now, waited
        return (waited - waited_before) / max(now - before, 1e-9)
