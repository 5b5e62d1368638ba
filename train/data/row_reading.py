"""A data set's row from its video file, as the model takes it: the one place where training and evaluation decode."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hcmi.processing.frame_sampling import segment_times
from hcmi.processing.video_reading import VideoFrames, read_frames


def read_row(row: Mapping[str, Any], times: Callable[[float, float], Sequence[float]], processor: Any) -> VideoFrames:
    """
    The frames shown at some times of a row's video, resized for the model, within the processor's limits.

    Args:
        row: has `video` and optionally `start` and `end`, the stretch in seconds.
        times: gives the times, in seconds, from the stretch's start and end.
        processor: an `HCMIProcessor`.

    Raises:
        VideoReadError: the video cannot be read.
    """
    return read_frames(
        row["video"],
        times,
        start=row.get("start"),
        end=row.get("end"),
        convert=processor.resize_frames,
        max_frame_pixels=processor.max_frame_pixels,
        max_duration=processor.max_duration,
    )


def decode_candidates(row: Mapping[str, Any], candidates: int, processor: Any) -> VideoFrames:
    """The middle frame of each of `candidates` equal segments of a row; fewer where the video has fewer frames."""
    return read_row(row, lambda start, end: segment_times(start, end, candidates), processor)
