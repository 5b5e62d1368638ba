"""Where a row's frames come from: the video file, or frames prepared before. Both draw the same way."""

from typing import Any, NamedTuple

import datasets
import torch

from hcmi.processing.frame_sampling import distinct, frames_at, segment_times

from .prepared_frames import prepared_row
from .row_reading import read_row


class VideoFrames(NamedTuple):
    """
    Frames of one video.

    Attributes:
        frames: (f, 3, H, W) uint8, real frames only, of the model's size.
        timestamps: (f,) float64, when each begins, in seconds.
        span: start and end in seconds of the stretch that the frames stand for.
    """

    frames: torch.Tensor
    timestamps: torch.Tensor
    span: tuple[float, float]


class FileFrames:
    """
    Frames decoded from a data set's files.

    Args:
        processor: an `HCMIProcessor`.
        dataset: rows with the column `video` and optionally `start` and `end` in seconds.
        num_frames: frames a video; fewer where the video has fewer.
    """

    def __init__(self, processor: Any, dataset: datasets.Dataset, num_frames: int) -> None:
        self.processor = processor
        self.dataset = dataset
        self.num_frames = num_frames

    def __call__(self, row: int) -> VideoFrames:
        """The middle frame of each segment."""
        return self.sample(row, [None])[0]

    def sample(self, row: int, seeds: list[str | None]) -> list[VideoFrames]:
        """One random frame of each segment, once for each seed; `None` takes the middle ones. Decoded in one pass."""

        def times(start: float, end: float) -> list[float]:
            return [time for seed in seeds for time in _times((start, end), self.num_frames, seed)]

        read = read_row(self.dataset[row], times, self.processor)
        views = []
        for first in range(0, len(read.shown), self.num_frames):
            chosen = distinct(read.shown[first : first + self.num_frames].tolist())
            views.append(VideoFrames(read.frames[chosen], read.timestamps[chosen], read.span))
        return views


class PreparedFrames:
    """
    Frames out of `prepare_frames`.

    Args:
        prepared: what `prepare_frames` gave.
        num_frames: frames a video; fewer where fewer are stored.
    """

    def __init__(self, prepared: datasets.Dataset, num_frames: int) -> None:
        self.prepared = prepared
        self.num_frames = num_frames

    def __call__(self, row: int) -> VideoFrames:
        """The stored frame shown in the middle of each segment."""
        return self.sample(row, [None])[0]

    def sample(self, row: int, seeds: list[str | None]) -> list[VideoFrames]:
        """The stored frame shown at one random time of each segment, once for each seed; `None` takes the middles."""
        frames, timestamps, span = prepared_row(self.prepared, row)
        views = []
        for seed in seeds:
            chosen = distinct(frames_at(timestamps, _times(span, self.num_frames, seed)))
            views.append(VideoFrames(frames[chosen], torch.tensor(timestamps, dtype=torch.float64)[chosen], span))
        return views


FrameSource = FileFrames | PreparedFrames


def _times(span: tuple[float, float], count: int, seed: str | None) -> list[float]:
    return segment_times(*span, count, "uniform" if seed is None else "random", seed)
