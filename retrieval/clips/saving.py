"""A stretch of a video as a file of its own: its packets copied where that can be done, encoded again otherwise."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import torch

from hcmi.processing.frame_sampling import frames_at
from hcmi.processing.video_index import FrameIndex, build_index, open_stream
from hcmi.processing.video_reading import MAX_DURATION, MAX_FRAME_PIXELS, VideoReadError, read_frames
from hcmi.processing.video_sources import EncodedVideo, open_source

from .encoding import encode_clip
from .packets import copy_clip

CONTAINERS = (".mp4", ".mov", ".mkv")
"""What a clip can be written as: containers that players know, and that can hold H.264 and a turned picture."""

NEAR = 2.0
"""Packets are copied if a key frame is at most so many seconds before the start."""


@dataclass(frozen=True)
class SavedClip:
    """
    A file with a stretch of a video.

    Args:
        path: of the file.
        start, end: seconds of the video between which it lies: from its first frame's beginning to its last one's end.
        copied: whether picture and sound were copied as they are, from the last key frame before the start on.
            Otherwise they were encoded again, from the frame shown at the start to the one shown before the end.
        sound: whether there is sound in it.
    """

    path: Path
    start: float
    end: float
    copied: bool
    sound: bool


def save_clip(
    video: str | os.PathLike, start: float, end: float, out: str | os.PathLike, *, copy: bool = True
) -> SavedClip:
    """
    Writes a stretch of a video as a file, with its sound.

    The packets are copied as they are if there is a key frame at most `NEAR` seconds before the start, and the new file
    can hold them: quickly and without loss; the clip then begins at that key frame, and ends with the first
    frame from which on none is missing, at the end or a few frames behind it. Otherwise the frames from start to end
    are encoded as H.264, the sound as AAC, and the clip is exact.

    Args:
        video: path of the file.
        start, end: seconds.
        out: the file to write, `.mp4`, `.mov` or `.mkv`. It appears when it is complete.
        copy: whether packets may be copied.

    Raises:
        ValueError: `out` is there already or of another kind, or the stretch is none.
        VideoReadError: the video cannot be read, is broken there, or does not contain the stretch.
        OSError: `out` cannot be written.
    """
    target = Path(out)
    _check_target(target)
    if not (math.isfinite(start) and math.isfinite(end) and start < end):
        raise ValueError(f"A clip needs a start before its end in seconds, got {start} and {end}.")
    source: Any = open_source(os.fspath(video))
    with open_stream(source, MAX_FRAME_PIXELS) as (container, stream):
        index = build_index(source.name, container, stream, MAX_DURATION)
    wanted = _frames_between(source.name, index, start, end)
    with _new_file(target) as partial:
        copied = _copy(source, index, wanted, partial) if copy else None
        if copied is not None:
            (begin, finish), sound = copied
        else:
            begin, finish = index.times[wanted[0]], _end_of(index, index.times[wanted[-1]])
            sound = encode_clip(source, index, wanted, finish, partial)
    return SavedClip(target, begin, finish, copied is not None, sound)


def _frames_between(name: str, index: FrameIndex, start: float, end: float) -> list[int]:
    """Positions of the frames shown between start and end, in the order in which they are shown."""
    shown = index.shown
    times = [index.times[position] for position in shown]
    if start >= index.end or end <= times[0]:
        raise VideoReadError(
            name,
            f"asked for the part from {start:g} s to {end:g} s, but it lasts from {times[0]:g} s to {index.end:g} s",
        )
    (first,) = frames_at(times, [start])
    return [position for position, time in zip(shown[first:], times[first:], strict=True) if time < end]


def _end_of(index: FrameIndex, time: float) -> float:
    """When the frame ends that begins at `time`."""
    return min((index.times[i] for i in index.shown if index.times[i] > time), default=index.end)


def _copy(
    source: EncodedVideo, index: FrameIndex, wanted: list[int], target: Path
) -> tuple[tuple[float, float], bool] | None:
    """Copies the packets: the stretch and whether there is sound; or None where that cannot be done."""
    span = _span_to_copy(index, wanted)
    if span is None:
        return None
    key, stop = span
    begin = index.times[key]
    times = [time - begin for time in index.times[key : stop + 1] if time >= begin]
    finish = _end_of(index, begin + max(times))
    try:
        sound = copy_clip(source, index, key, stop, finish, target)
        if sound is None:
            return None
        # What is broken is not to be passed on; and some streams call frames key frames from which none can be decoded.
        read_frames(target, times, convert=_one_pixel, strict=True, backend="pyav")
    except (av.error.FFmpegError, VideoReadError):
        return None
    return (begin, finish), sound


def _one_pixel(frame: torch.Tensor) -> torch.Tensor:
    return frame[:, :1, :1]


def _span_to_copy(index: FrameIndex, wanted: list[int]) -> tuple[int, int] | None:
    """Positions of the first and the last packet to copy, if that can be done."""
    if index.counted or None in index.pts or len(set(index.pts)) < len(index.pts):
        return None
    key, stop = index.entry_point(wanted[0]), max(wanted)
    if not index.keys[key] or not 0 <= index.times[wanted[0]] - index.times[key] <= NEAR:
        return None
    # A frame may be stored before frames that are shown earlier: it is only copied along with these.
    while True:
        latest = max(index.times[key : stop + 1])
        needed = max(position for position, time in enumerate(index.times) if time <= latest)
        if needed <= stop:
            break
        stop = needed
    return (key, stop) if all(index.visible[key : stop + 1]) else None


def _check_target(target: Path) -> None:
    if target.suffix.lower() not in CONTAINERS:
        raise ValueError(f"A clip is written as {', '.join(CONTAINERS)}, not as {target.name}.")
    if target.exists():
        raise ValueError(f"{target} is already there: name another file, or remove it first.")


@contextmanager
def _new_file(target: Path) -> Iterator[Path]:
    """A file beside `target` to write into, which takes its place when everything is written, and goes when not."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.stem}.partial-{os.getpid()}{target.suffix}")
    try:
        yield partial
        _check_target(target)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
