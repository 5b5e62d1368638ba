"""Reading frames from any source by time, without the processor: what training caches and other tools call."""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from .frame_sampling import frames_at
from .frames_in_memory import FramesInMemory
from .video_decoding import Convert, EncodedReader, Shots
from .video_index import check_frame_size, reason_of
from .video_sources import EncodedVideo, VideoReadError, open_source
from .video_torchcodec import DecoderReader, TorchcodecReader, torchcodec_usable

__all__ = [
    "MAX_DURATION",
    "MAX_FRAME_PIXELS",
    "VideoFrames",
    "VideoInfo",
    "VideoReadError",
    "probe_video",
    "read_frames",
]

Backend = Literal["auto", "pyav", "torchcodec"]
MAX_FRAME_PIXELS = 40_000_000  # a little above 8K UHD
MAX_DURATION = 12 * 3600.0  # seconds
# Annotations are often rounded up to full seconds: an end by up to so much after the video's own end means that end.
_END_TOLERANCE = 1.0


@dataclass(frozen=True)
class VideoInfo:
    """What a video is, from going through it without decoding.

    Attributes:
        name: path, URL or description.
        start: when its first frame is shown, in seconds; second 0 is where a player's clock begins.
        end: when its last frame ends, in seconds.
        frames: number of frames.
        size: (width, height) in pixels as stored, before any turning; None for frames in memory and decoders.
        codec, container: names by FFmpeg; None likewise.
    """

    name: str
    start: float
    end: float
    frames: int
    size: tuple[int, int] | None = None
    codec: str | None = None
    container: str | None = None

    @property
    def duration(self) -> float:
        """Seconds from the first frame's beginning to the last frame's end."""
        return self.end - self.start

    @property
    def frame_rate(self) -> float:
        """Frames a second on average."""
        return self.frames / self.duration


@dataclass(frozen=True)
class VideoFrames:
    """Frames read from a video.

    Attributes:
        frames: (F, 3, H, W) uint8, the distinct frames in the order in which they are shown.
        timestamps: (F,) float64, when each of them begins, in seconds.
        shown: (T,) long, for each time that was asked for the index of the frame shown then.
        span: start and end of the stretch that was looked at, in seconds.
        info: the whole video.
    """

    frames: torch.Tensor
    timestamps: torch.Tensor
    shown: torch.Tensor
    span: tuple[float, float]
    info: VideoInfo


def probe_video(
    video: Any, *, input_fps: float = 1.0, max_frame_pixels: int = MAX_FRAME_PIXELS, max_duration: float = MAX_DURATION
) -> VideoInfo:
    """Duration, number of frames and kind of a video (any source `HCMIProcessor` takes), without decoding it.

    Raises:
        VideoReadError: as `read_frames`.
    """
    source = open_source(video, input_fps)
    try:
        return _info(_reader(source, "pyav", False, max_frame_pixels, max_duration))
    finally:
        _close(source)


def read_frames(
    video: Any,
    times: Sequence[float] | Callable[[float, float], Sequence[float]],
    *,
    start: float | None = None,
    end: float | None = None,
    convert: Convert | None = None,
    backend: Backend = "auto",
    strict: bool = False,
    input_fps: float = 1.0,
    max_frame_pixels: int = MAX_FRAME_PIXELS,
    max_duration: float = MAX_DURATION,
) -> VideoFrames:
    """The frames shown at the given times: of all frames that begin at or before a time, the last; before the first
    frame, the first. A frame asked for more than once is read once.

    Args:
        video: any source that `HCMIProcessor` takes.
        times: seconds, in any order; or a function of the stretch's start and end that gives them.
        start, end: the stretch looked at, in seconds; by default the whole video. An `end` up to one second after the
            video's end means the video's end.
        convert: applied to each frame (3, H, W) uint8 as soon as it is decoded, so that only one full-size frame is
            held at a time; gives (3, h, w) uint8. Without it frames are returned in full size.
        backend: "pyav", "torchcodec", or "auto": torchcodec where it is installed and usable. What torchcodec cannot
            read is read by PyAV; also with `strict`, since torchcodec keeps quiet about much damage.
        strict: whether a file that is broken in the middle raises; otherwise what can be read is returned, with a
            warning. Damage is seen in what has to be decoded, as far as the container and the codec let it be seen,
            and where the file ends before its header says so.
        input_fps: frames a second for a video given as frames, which carries no clock.
        max_frame_pixels, max_duration: limits, in pixels and seconds; larger videos are refused.

    Raises:
        VideoReadError: for a video that cannot be read, exceeds a limit or does not contain the stretch.
        ValueError: for times that are none or not finite.
    """
    source = open_source(video, input_fps)
    try:
        reader = _reader(source, backend, strict, max_frame_pixels, max_duration)
        info = _info(reader)
        span = _span(info, start, end)
        moments = [float(time) for time in (times(*span) if callable(times) else times)]
        if not moments or not all(map(math.isfinite, moments)):
            raise ValueError(f"times must be finite numbers of seconds, at least one, not {moments}")
        try:
            shots = reader.read(moments, convert or _unchanged)
        except OSError as error:
            raise VideoReadError(info.name, f"reading fails ({reason_of(error)})") from error
    finally:
        _close(source)
    if reader.damage:
        warnings.warn(f"{info.name}: broken: {reader.damage}; going on with the frames that can be read", stacklevel=2)
    return _collect(info, span, moments, shots)


class _MemoryReader:
    """Reads from frames in memory, as the readers of files do."""

    damage = None

    def __init__(self, frames: FramesInMemory, max_frame_pixels: int):
        self.name, self._frames, self._max_frame_pixels = frames.name, frames, max_frame_pixels
        self.timestamps = [index / frames.fps for index in range(len(frames))]
        self.start, self.end, self.count = 0.0, len(frames) / frames.fps, len(frames)

    def read(self, times: Sequence[float], convert: Convert) -> Shots:
        wanted = frames_at(self.timestamps, times)
        frames = {index: convert(self._frame(index)) for index in sorted(set(wanted))}
        return {t: (self.timestamps[i], frames[i]) for t, i in zip(times, wanted, strict=True)}

    def _frame(self, index: int) -> torch.Tensor:
        check_frame_size(self.name, *self._frames.size(index), self._max_frame_pixels)
        try:
            return self._frames.frame(index)
        except ValueError as error:
            raise VideoReadError(self.name, str(error)) from error


def _reader(source: Any, backend: Backend, strict: bool, max_frame_pixels: int, max_duration: float) -> Any:
    if backend not in ("auto", "pyav", "torchcodec"):
        raise ValueError(f'backend must be "auto", "pyav" or "torchcodec", not {backend!r}')
    if isinstance(source, FramesInMemory):
        return _MemoryReader(source, max_frame_pixels)
    if not isinstance(source, EncodedVideo):
        return DecoderReader(source, max_frame_pixels, max_duration)
    if backend == "torchcodec" and not torchcodec_usable():
        raise ImportError('backend="torchcodec" needs the package torchcodec and FFmpeg\'s libraries; or use "pyav"')
    kind = EncodedReader if backend == "pyav" or not torchcodec_usable() else TorchcodecReader
    return kind(source, strict, max_frame_pixels, max_duration)


def _info(reader: Any) -> VideoInfo:
    facts = {name: getattr(reader, name, None) for name in ("size", "codec", "container")}
    return VideoInfo(reader.name, reader.start, reader.end, reader.count, **facts)


def _span(info: VideoInfo, start: float | None, end: float | None) -> tuple[float, float]:
    begin = info.start if start is None else float(start)
    finish = info.end if end is None else float(end)
    if not (math.isfinite(begin) and math.isfinite(finish)):
        raise VideoReadError(info.name, f"start={start} and end={end} must be finite numbers of seconds")
    if begin >= finish and end is not None:
        raise VideoReadError(info.name, f"start={begin:g} s is not before end={finish:g} s")
    if begin < min(info.start, 0.0) or begin >= info.end or finish > info.end + _END_TOLERANCE:
        asked = f"from {begin:g} s to {finish:g} s" if end is not None else f"from {begin:g} s on"
        raise VideoReadError(
            info.name, f"asked for the part {asked}, but it lasts from {info.start:g} s to {info.end:g} s"
        )
    return begin, min(finish, info.end)


def _collect(info: VideoInfo, span: tuple[float, float], times: list[float], shots: Shots) -> VideoFrames:
    distinct = dict(sorted(shots.values(), key=lambda shot: shot[0]))
    timestamps = list(distinct)
    if len({frame.shape for frame in distinct.values()}) > 1:
        raise VideoReadError(info.name, "its frames change their size; pass a `convert` that makes them equal")
    shown = torch.tensor([timestamps.index(shots[time][0]) for time in times], dtype=torch.long)
    return VideoFrames(
        torch.stack(list(distinct.values())), torch.tensor(timestamps, dtype=torch.float64), shown, span, info
    )


def _unchanged(frame: torch.Tensor) -> torch.Tensor:
    return frame


def _close(source: Any) -> None:
    if isinstance(source, EncodedVideo) and source.temporary and not isinstance(source.target, str):
        source.target.close()
