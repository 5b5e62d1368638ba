"""Cutting videos into windows: the stretches that are encoded, found and scored one by one."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from hcmi.processing import HCMIProcessor
from hcmi.retrieval.index.window import Window

from .opened_video import open_video
from .shots import find_shot_changes

Kind = Literal["whole", "fixed", "shots"]


@dataclass(frozen=True)
class WindowRule:
    """
    How videos are cut. The windows of a video follow each other without a gap, from its beginning to its end.

    Args:
        kind: `"shots"`, where the picture changes; `"fixed"`, in equal parts; `"whole"`, not at all.
        seconds: the longest window; longer shots are divided into equal parts.
        least: shots shorter than this join a neighbour.
        whole_up_to: a video up to so many seconds is one window whatever the kind. That is what models are trained on:
            its score and moment are those of the evaluation.
    """

    kind: Kind = "shots"
    seconds: float = 10.0
    least: float = 1.0
    whole_up_to: float = 60.0

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"Windows are one of {', '.join(get_args(Kind))}, not {self.kind!r}.")
        if not (0 < self.seconds < math.inf):
            raise ValueError(f"The longest window has to last more than 0 seconds, got {self.seconds}.")
        if not 0 <= self.least <= self.seconds:
            raise ValueError(f"`least` has to be between 0 and `seconds` ({self.seconds:g}), got {self.least}.")
        if not self.whole_up_to >= 0:
            raise ValueError(f"`whole_up_to` has to be 0 seconds or more, got {self.whole_up_to}.")


def cut(video: str, rule: WindowRule, processor: HCMIProcessor, threads: int | None = None) -> list[Window]:
    """
    The windows of a video file. Only looking for shots decodes it.

    Args:
        processor: its limits hold.
        threads: that look for shots; default: those of torch.

    Raises:
        VideoReadError: it cannot be read.
    """
    opened = open_video(video, processor)
    start, end = opened.start, opened.end
    if rule.kind == "whole" or end - start <= rule.whole_up_to:
        return numbered([start, end])
    if rule.kind == "fixed":
        return numbered(divided([start, end], rule.seconds))
    changes = [time for time in find_shot_changes(opened, threads) if start < time < end]
    return numbered(divided(joined([start, *changes, end], rule.least), rule.seconds))


def joined(edges: Sequence[float], least: float) -> list[float]:
    """The edges of stretches after the shortest one below `least` has joined its shorter neighbour, again and again."""
    edges = list(edges)
    while len(edges) > 2:
        lengths = [after - before for before, after in itertools.pairwise(edges)]
        place = min(range(len(lengths)), key=lengths.__getitem__)
        if lengths[place] >= least:
            break
        before = lengths[place - 1] if place > 0 else math.inf
        after = lengths[place + 1] if place + 1 < len(lengths) else math.inf
        del edges[place if before <= after else place + 1]
    return edges


def divided(edges: Sequence[float], seconds: float) -> list[float]:
    """The edges of stretches after each that is longer than `seconds` has been divided into as few equal parts."""
    parts = []
    for before, after in itertools.pairwise(edges):
        # A rounding error more than a whole number of parts is no part.
        count = max(1, math.ceil((after - before) / seconds - 1e-6))
        parts += [before + (after - before) * part / count for part in range(count)]
    return [*parts, edges[-1]]


def numbered(edges: Sequence[float]) -> list[Window]:
    """The windows between edges."""
    return [Window(number, *span) for number, span in enumerate(itertools.pairwise(edges))]
