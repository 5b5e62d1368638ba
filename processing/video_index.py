"""Opens a video file and lists its frames without decoding any: what is in it, when each frame is shown, and where
decoding can begin."""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av
import av.logging

from .video_sources import EncodedVideo, VideoReadError

# FFmpeg "demuxes" these as video, and nobody who passes one means a video by it: pictures, text as ANSI art, and
# lists of other files, which could make it open what the caller did not name.
_NOT_VIDEO = {"tty", "image2", "hls", "dash", "concat", "sdp", "rtsp", "lavfi", "ico", "bin", "xbin", "adf", "idf"}
_MICROSECOND = Fraction(1, 1_000_000)
_MAX_ASPECT = 100  # long side to short side
# Formats whose header says how long the file is, while what comes after it does not.
_DURATION_FORMATS = {"matroska", "flv"}


@dataclass
class FrameIndex:
    """The frames of a video stream, in the order in which they are stored (which is the order of decoding).

    Attributes:
        pts: presentation time stamp of each packet in ticks; None where the file has none.
        times: when each frame is shown, in seconds from the beginning of the file. Sorted if `counted`.
        keys: whether decoding can begin with this packet.
        visible: whether the packet makes a frame to be shown (an edit list can hide frames).
        counted: whether frames can be told apart only by their number in the order of display, as in AVI files with
            B frames and in raw streams: n-th frame out of the decoder, n-th time.
        end: when the last frame ends, in seconds.
        damage: what was wrong with the file while it was listed, or None.
    """

    pts: list[int | None] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    keys: list[bool] = field(default_factory=list)
    visible: list[bool] = field(default_factory=list)
    counted: bool = False
    end: float = 0.0
    damage: str | None = None

    @property
    def shown(self) -> list[int]:
        """Positions of the visible frames in the order in which they are shown."""
        return sorted((i for i, visible in enumerate(self.visible) if visible), key=lambda i: (self.times[i], i))

    def entry_point(self, position: int) -> int:
        """Position of the last key frame, stored and shown no later than the frame at `position`."""
        for i in range(position, -1, -1):
            if self.keys[i] and self.times[i] <= self.times[position]:
                return i
        return 0


class _Quiet:
    """Keeps FFmpeg silent, whatever log level other code has set, while at least one thread is inside."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._level: int | None = None

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._level = av.logging.get_level()
                av.logging.set_level(None)
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0 and self._level is not None:
                av.logging.set_level(self._level)


quiet = _Quiet()


@contextlib.contextmanager
def open_stream(source: EncodedVideo, max_frame_pixels: int) -> Iterator[tuple[Any, Any]]:
    """The open container and its best video stream.

    Raises:
        VideoReadError: for what is no video, has no video stream or frames of more than `max_frame_pixels` pixels.
    """
    if not isinstance(source.target, str):
        source.target.seek(0)
    target = f"file:{source.target}" if isinstance(source.target, str) else source.target
    # Only the file itself is read, never what a playlist in it points to.
    options = {
        "max_pixels": allocation_limit(max_frame_pixels),
        "protocol_whitelist": "file" if target is not source.target else "none",
    }
    with quiet:
        try:
            container = av.open(target, options=options, metadata_errors="replace")
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise VideoReadError(source.name, f"not a video, or broken from the start ({reason_of(error)})") from error
        with container:
            yield container, _best_stream(source.name, container, max_frame_pixels)


def _best_stream(name: str, container: Any, max_frame_pixels: int) -> Any:
    kinds = set(container.format.name.split(","))
    if kinds & _NOT_VIDEO or any(kind.endswith("_pipe") for kind in kinds):
        raise VideoReadError(
            name, f"not a video ({container.format.long_name}); pictures are passed as a list of PIL images"
        )
    streams = [
        stream for stream in container.streams.video if not stream.disposition & av.stream.Disposition.attached_pic
    ]
    if not streams:
        kinds = {"a cover picture" if stream.type == "video" else stream.type for stream in container.streams}
        found = sorted(kinds) or ["nothing"]
        raise VideoReadError(name, f"no video stream in it, only {', '.join(found)}")
    best = container.streams.best("video")
    stream = best if best in streams else streams[0]
    if stream.codec_context is None:
        raise VideoReadError(name, "no decoder for its codec")
    width, height = stream.codec_context.width, stream.codec_context.height
    if not width or not height:  # beyond its limit FFmpeg gives no size
        raise VideoReadError(name, f"frames of no size that can be found, or of more than {max_frame_pixels} pixels")
    check_frame_size(name, width, height, max_frame_pixels)
    return stream


def allocation_limit(max_frame_pixels: int) -> str:
    """FFmpeg's option `max_pixels`, with room: it counts rows that are padded to a multiple of 64 pixels."""
    return str(2 * max_frame_pixels + 2**20)


def check_frame_size(name: str, width: int, height: int, max_frame_pixels: int) -> None:
    """Raises VideoReadError for frames larger than `max_frame_pixels`, or so narrow that resizing makes them so."""
    if width * height > max_frame_pixels:
        raise VideoReadError(name, f"frames of {width} x {height} pixels; the limit is {max_frame_pixels} pixels")
    if max(width, height) > _MAX_ASPECT * min(width, height):
        raise VideoReadError(name, f"frames of {width} x {height} pixels; the limit is {_MAX_ASPECT} to 1")


def check_duration(name: str, start: float, end: float, max_duration: float) -> None:
    """Raises VideoReadError for a video of no duration or of more than `max_duration` seconds."""
    if not end > start:
        raise VideoReadError(name, "zero duration")
    if end - start > max_duration:
        raise VideoReadError(name, f"longer than the limit of {max_duration:g} s")


def build_index(name: str, container: Any, stream: Any, max_duration: float) -> FrameIndex:
    """Lists the frames of a stream by going once through its packets.

    The header is not believed: it may know no duration or number of frames (webm, raw streams), or a wrong one. Where
    it promises clearly more than there is, this is damage: a download that broke off looks like that.

    Raises:
        VideoReadError: for a stream with no frames, no duration or one longer than `max_duration` seconds.
    """
    index, clock, last_of_others = FrameIndex(), _Clock(), {}
    ticks = max_duration / stream.time_base
    try:
        for packet in container.demux():
            if packet.stream != stream:
                if packet.pts is not None:
                    last_of_others[packet.stream] = packet.pts
                continue
            if packet.dts is None and packet.pts is None and packet.size == 0:
                continue  # the empty packet that PyAV puts at the end of each stream
            index.pts.append(packet.pts)
            index.keys.append(packet.is_keyframe)
            index.visible.append(packet.size > 0 and not packet.is_discard)
            clock.add(packet)
            if packet.is_corrupt:
                index.damage = f"packet {len(index.pts)} is corrupt"
            if packet.pts is not None and index.pts[0] is not None and packet.pts - index.pts[0] > ticks:
                break
    except (av.error.FFmpegError, OSError, ValueError) as error:
        index.damage = f"reading stops after {len(index.pts)} frames ({reason_of(error)})"
    except IndexError:
        pass  # the end: there PyAV can stumble over a stream that appeared on the way
    if not any(index.visible):
        raise VideoReadError(name, f"no frames in it ({index.damage or 'truncated?'})")
    clock.set_times(index, container, stream)
    check_duration(name, index.times[index.shown[0]], index.end, max_duration)
    ends = [float(pts * other.time_base) for other, pts in last_of_others.items()]
    ends.append(index.end + float(_beginning(container, stream)))  # a header may count from before the beginning
    index.damage = index.damage or _shortfall(container, stream, len(index.pts), max(ends))
    return index


@dataclass
class _Clock:
    """What the packets say about time besides their presentation time stamps, in ticks."""

    dts: list[int | None] = field(default_factory=list)
    durations: list[int] = field(default_factory=list)
    discarded: list[bool] = field(default_factory=list)

    def add(self, packet: Any) -> None:
        self.dts.append(packet.dts)
        self.durations.append(packet.duration or 0)
        self.discarded.append(packet.is_discard)

    def set_times(self, index: FrameIndex, container: Any, stream: Any) -> None:
        rate = stream.average_rate or stream.guessed_rate
        base, durations = stream.time_base, self.durations
        zero = _beginning(container, stream)
        # AVI stores no presentation times: those that FFmpeg gives its packets are guesses; the decoding times are not.
        without_pts = None in index.pts or container.format.name == "avi"
        index.counted = None in index.pts or (without_pts and stream.codec_context.has_b_frames)
        ticks: list[Any] = index.pts
        if without_pts:
            ticks = self.dts
            if None in ticks:
                base, zero = 1 / (rate or Fraction(25)), Fraction(0)
                ticks, durations = list(range(len(ticks))), [1] * len(ticks)
        index.times = [float(tick * base - zero) for tick in ticks]
        if index.counted:
            index.times.sort()
        # Without the frames that an edit list cuts off, with AVI's empty packets, during which the last frame stays.
        last = max((i for i, discarded in enumerate(self.discarded) if not discarded), key=lambda i: ticks[i])
        length = durations[last] * base if durations[last] > 0 else 1 / rate if rate else 0
        index.end = float(ticks[last] * base + length - zero)


def _shortfall(container: Any, stream: Any, frames: int, end: float) -> str | None:
    """What the header promises and the file does not hold, with a twentieth for headers that are not exact."""
    kinds = set(container.format.name.split(","))
    if "avi" in kinds and frames < 0.95 * stream.frames:
        return f"{frames} of {stream.frames} frames are there"
    promised = float((container.duration or 0) * _MICROSECOND)
    if kinds & _DURATION_FORMATS and end < 0.95 * promised and end < promised - 1.0:
        return f"it ends after {end:.2f} of {promised:.2f} s"
    return None


def _beginning(container: Any, stream: Any) -> Fraction:
    """Second 0 of the file on the stream's clock: where a player's clock begins."""
    if container.start_time is None:
        return stream.start_time * stream.time_base if stream.start_time is not None else Fraction(0)
    beginning = container.start_time * _MICROSECOND
    if stream.start_time is not None and abs(stream.start_time * stream.time_base - beginning) <= _MICROSECOND:
        return stream.start_time * stream.time_base  # the same moment, without the rounding to microseconds
    return beginning


def reason_of(error: Exception) -> str:
    """FFmpeg's or the system's words for an error, without the path, which the caller names."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
