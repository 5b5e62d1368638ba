"""The frames of a video's windows, decoded in one pass and in pieces that fit into memory."""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice

import torch

from hcmi.processing import HCMIProcessor
from hcmi.processing.frame_resizing import FrameSettings, resize_frames
from hcmi.processing.frame_sampling import segment_times
from hcmi.processing.video_decoding import Shots
from hcmi.retrieval.index.window import Window

from .opened_video import OpenedVideo, open_video

WINDOWS_AT_ONCE = 32
"""Windows whose frames are held at a time: some 60 MB with 12 frames of 224 pixels each."""


def sections(windows: Sequence[Window], most: int = WINDOWS_AT_ONCE) -> list[list[Window]]:
    """The windows in their order, in pieces of at most `most`."""
    return [list(windows[first : first + most]) for first in range(0, len(windows), most)]


def read_windows(video: str, windows: Sequence[Window], processor: HCMIProcessor) -> dict[str, torch.Tensor]:
    """
    The frames of some windows of a file.

    Returns:
        For `V` windows what `processor(videos=[video], start=…, end=…, uint8=True)` gives for each of them:
        `pixel_values_videos` `(V, F, 3, h, w)` uint8, `video_mask` `(V, F)`, `timestamps` `(V, F)`, `video_spans`
        `(V, 2)`.

    Raises:
        VideoReadError: the file cannot be read.
    """
    (frames,) = read_sections(open_video(video, processor), [windows], processor)
    return frames


def read_sections(
    video: OpenedVideo, parts: Sequence[Sequence[Window]], processor: HCMIProcessor
) -> Iterator[dict[str, torch.Tensor]]:
    """
    What `read_windows` gives for each of several pieces of a plan, one after another; held are those of one.

    Raises:
        VideoReadError: the file cannot be read.
    """
    convert = partial(resize_frames, settings=FrameSettings.of(processor.image_processor))
    times = [[segment_times(w.start, w.end, processor.frames_per_video) for w in part] for part in parts]
    if reads_in_one_pass(video) and len(parts) > 1:
        frames = video.stream((time for part in times for window in part for time in window), convert)
        for part, own in zip(parts, times, strict=True):
            yield _stacked(part, own, dict(islice(frames, sum(map(len, own)))))
    else:
        for part, own in zip(parts, times, strict=True):
            yield _stacked(part, own, video.read([time for window in own for time in window], convert))


def reads_in_one_pass(video: OpenedVideo) -> bool:
    """Whether any frame can only be reached by decoding all before it, so that reading pieces is better not divided."""
    return video.index.counted


def _stacked(windows: Sequence[Window], times: Sequence[Sequence[float]], shots: Shots) -> dict[str, torch.Tensor]:
    """A row for each window: the distinct frames that its times show, and padding."""
    size = next(iter(shots.values()))[1].shape
    frames = torch.zeros(len(windows), len(times[0]), *size, dtype=torch.uint8)
    timestamps = torch.full(frames.shape[:2], torch.nan, dtype=torch.float64)
    for row, own in enumerate(times):
        shown = dict(shots[time] for time in own)
        frames[row, : len(shown)] = torch.stack(list(shown.values()))
        timestamps[row, : len(shown)] = torch.tensor(list(shown), dtype=torch.float64)
    return {
        "pixel_values_videos": frames,
        "video_mask": ~timestamps.isnan(),
        "timestamps": timestamps,
        "video_spans": torch.tensor([(window.start, window.end) for window in windows], dtype=torch.float64),
    }
