"""Which moments of a video are looked at. Pure functions of times in seconds: nothing here knows what a file is."""

import bisect
import random
from collections.abc import Iterable, Sequence
from typing import Literal

Sampling = Literal["uniform", "random"]


def segment_times(
    start: float, end: float, count: int, sampling: Sampling = "uniform", seed: int | str | None = None
) -> list[float]:
    """One moment of each of `count` equal segments of the stretch from `start` to `end`.

    Args:
        start, end: the stretch, in seconds; `start` < `end`.
        count: number of segments, at least 1.
        sampling: `"uniform"` takes the middle of each segment, `"random"` a moment drawn evenly from each segment.
        seed: of the draw; without one the draw differs from call to call.

    Returns:
        A list of `count` increasing times in seconds, each inside its own segment.

    Raises:
        ValueError: for an empty stretch, a count below 1 or an unknown sampling.

    >>> segment_times(0.0, 12.0, 3)
    [2.0, 6.0, 10.0]
    """
    if not start < end:
        raise ValueError(f"the stretch from {start} s to {end} s is empty")
    if count < 1:
        raise ValueError(f"the number of frames must be at least 1, not {count}")
    if sampling == "uniform":
        places = [0.5] * count
    elif sampling == "random":
        draw = random.Random(seed)
        places = [draw.random() for _ in range(count)]
    else:
        raise ValueError(f'sampling must be "uniform" or "random", not {sampling!r}')
    width = (end - start) / count
    return [start + (segment + place) * width for segment, place in enumerate(places)]


def frames_at(timestamps: Sequence[float], times: Iterable[float]) -> list[int]:
    """The frame that is on the screen at each time: the last one that began at or before it.

    Args:
        timestamps: when each frame begins, in seconds, increasing, at least one.
        times: the moments asked for, in seconds, in any order.

    Returns:
        One index into `timestamps` for each time; 0 (the first frame) for a time before the first frame.

    >>> frames_at([0.0, 0.5, 2.0], [-1.0, 0.5, 1.9, 7.0])
    [0, 1, 1, 2]
    """
    return [max(bisect.bisect_right(timestamps, time) - 1, 0) for time in times]


def distinct(indices: Iterable[int]) -> list[int]:
    """The indices without repetitions, in the order of their first appearance.

    Several moments that fall on one and the same frame make one frame: a short clip gives fewer frames, not copies.

    >>> distinct([0, 0, 1, 3, 3])
    [0, 1, 3]
    """
    return list(dict.fromkeys(indices))
