"""The unit of an index."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """
    A stretch of a video.

    Args:
        number: counts from 0 within the file.
        start, end: seconds of the file.
    """

    number: int
    start: float
    end: float
