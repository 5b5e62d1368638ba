"""The frames that the model sees of a row: any of its video file, or drawn among a few candidates."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import datasets
import torch

from hcmi.processing.frame_sampling import distinct, frames_at, segment_times

from .candidates import Candidates
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
    Frames decoded from a data set's files, any of them.

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

    def sample(self, row: int, seeds: Sequence[str | None]) -> list[VideoFrames]:
        """One random frame of each segment, once for each seed; `None` takes the middle ones. Decoded in one pass."""

        def times(start: float, end: float) -> list[float]:
            return [time for seed in seeds for time in _times((start, end), self.num_frames, seed)]

        read = read_row(self.dataset[row], times, self.processor)
        views = []
        for first in range(0, len(read.shown), self.num_frames):
            chosen = distinct(read.shown[first : first + self.num_frames].tolist())
            views.append(VideoFrames(read.frames[chosen], read.timestamps[chosen], read.span))
        return views


class CandidateFrames:
    """
    Frames drawn among a few candidates of each row. The same candidates give the same draws, wherever they come from.

    Args:
        candidates: `DecodedCandidates` or `PreparedCandidates`; row -> its candidates.
        num_frames: frames a video; fewer where there are fewer candidates.
    """

    def __init__(self, candidates: Callable[[int], Candidates], num_frames: int) -> None:
        self.candidates = candidates
        self.num_frames = num_frames

    def __call__(self, row: int) -> VideoFrames:
        """The candidate shown in the middle of each segment."""
        return self.sample(row, [None])[0]

    def sample(self, row: int, seeds: Sequence[str | None]) -> list[VideoFrames]:
        """The candidate shown at one random time of each segment, once for each seed; `None` takes the middles."""
        frames, timestamps, span = self.candidates(row)
        views = [distinct(frames_at(timestamps, _times(span, self.num_frames, seed))) for seed in seeds]
        taken = sorted({index for chosen in views for index in chosen})
        pictures, times = frames[taken], torch.tensor(timestamps, dtype=torch.float64)
        return [
            VideoFrames(pictures[[taken.index(index) for index in chosen]], times[chosen], span) for chosen in views
        ]


FrameSource = FileFrames | CandidateFrames


def _times(span: tuple[float, float], count: int, seed: str | None) -> list[float]:
    return segment_times(*span, count, "uniform" if seed is None else "random", seed)
