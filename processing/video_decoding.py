"""From a listed video file to the wanted frames as RGB tensors: no more than needed is decoded, or even converted."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import av
import numpy as np
import torch
from av.video.reformatter import VideoReformatter

from .frame_sampling import frames_at
from .video_index import FrameIndex, allocation_limit, build_index, check_frame_size, open_stream, reason_of
from .video_sources import EncodedVideo, VideoReadError

# So many packets ahead, a seek is cheaper than reading on and throwing away. Only these formats store the presentation
# times by which the landing place is recognised.
_SEEK_DISTANCE = 100
_SEEK_FORMATS = {"mov", "matroska"}
# Decoders that really leave out frames to which no other frame refers, and give all others unchanged; hevc in part.
_SKIPPING_CODECS = {"h264", "mpeg4", "mpeg2video", "mpeg1video"}

Convert = Callable[[torch.Tensor], torch.Tensor]
Shots = dict[float, tuple[float, torch.Tensor]]


class _PlanFailed(Exception):
    """The stream does not behave as it was listed."""


class EncodedReader:
    """Reads frames of an encoded video with PyAV. Its frames are listed once, at construction.

    Args:
        source: the video file.
        strict: whether damage raises VideoReadError; otherwise it is worked around and noted in `damage`.
        max_frame_pixels, max_duration: limits, in pixels and seconds.

    Attributes:
        timestamps: when each frame is shown, in seconds, increasing.
        start, end, count: when the first frame begins and the last one ends, in seconds; number of frames.
        damage: what was found to be wrong with the file so far, or None.
    """

    def __init__(self, source: EncodedVideo, strict: bool, max_frame_pixels: int, max_duration: float):
        self.name = source.name
        self.source = source
        self.max_frame_pixels = max_frame_pixels
        self.strict = strict
        self._reformatter = VideoReformatter()
        with open_stream(source, max_frame_pixels) as (container, stream):
            self.index = build_index(source.name, container, stream, max_duration)
            decoder = stream.codec_context
            self.size, self.codec, self.container = (decoder.width, decoder.height), decoder.name, container.format.name
            self.stream_number, self.time_base = stream.index, stream.time_base
        self.damage: str | None = None
        self._note_damage(self.index.damage)
        self.shown = self.index.shown
        self.timestamps = [self.index.times[position] for position in self.shown]
        self.start, self.end, self.count = self.timestamps[0], self.index.end, len(self.timestamps)

    def read(self, times: Sequence[float], convert: Convert) -> Shots:
        """For each time the frame shown then: when that frame begins, and `convert` of it, given (3, H, W) uint8."""
        if not self.index.counted:
            wanted = [self.shown[i] for i in frames_at(self.timestamps, times)]
            try:
                frames = self._read_planned(sorted(set(wanted)), convert)
                return {t: (self.index.times[p], frames[p]) for t, p in zip(times, wanted, strict=True)}
            except (_PlanFailed, av.error.FFmpegError):
                # Not yet a sign of damage: some streams mark frames as key frames from which decoding cannot begin.
                pass
        try:
            return self._read_everything(times, convert, explode=True)
        except av.error.FFmpegError as error:
            self._note_damage(f"decoding fails ({reason_of(error)})")
        return self._read_everything(times, convert, explode=False)

    def _note_damage(self, damage: str | None) -> None:
        if damage and self.strict:
            raise VideoReadError(self.name, f"broken: {damage}")
        self.damage = self.damage or damage

    def _read_planned(self, positions: list[int], convert: Convert) -> dict[int, torch.Tensor]:
        by_pts = {self.index.pts[position]: position for position in positions}
        frames: dict[int, torch.Tensor] = {}
        with open_stream(self.source, self.max_frame_pixels) as (container, stream):
            # Errors have to be seen: what a decoder makes up in place of a frame is not the frame asked for.
            _set_up(stream.codec_context, self.max_frame_pixels, explode=True)
            for frame in _decode_planned(container, stream, self.index, positions):
                if frame.pts in by_pts:
                    frames[by_pts[frame.pts]] = convert(self._rgb(frame))
        if len(frames) < len(positions):
            raise _PlanFailed
        return frames

    def _read_everything(self, times: Sequence[float], convert: Convert, explode: bool) -> Shots:
        """Decodes from the beginning. The frame shown at a time is the last one before a frame that begins later.

        Args:
            explode: whether to raise FFmpegError for what cannot be decoded, or to take what the decoder makes of it.
        """
        shots: Shots = {}
        pending = sorted(set(times), reverse=True)
        current: tuple[float, Any] | None = None
        with open_stream(self.source, self.max_frame_pixels) as (container, stream):
            _set_up(stream.codec_context, self.max_frame_pixels, explode)
            timed = self._timed_frames(all_frames(container, stream, explode))
            for following in itertools.chain(timed, [(float("inf"), None)]):
                if current is not None and pending and pending[-1] < following[0]:
                    shot = current[0], convert(self._rgb(current[1]))
                    while pending and pending[-1] < following[0]:
                        shots[pending.pop()] = shot
                if not pending:
                    break
                current = following
        if pending:
            raise VideoReadError(self.name, f"no frame could be decoded ({self.damage or 'unknown reason'})")
        return shots

    def _timed_frames(self, frames: Iterator[Any]) -> Iterator[tuple[float, Any]]:
        time_of = dict(zip(self.index.pts, self.index.times, strict=True))
        now = self.timestamps[0]
        for number, frame in enumerate(frames):
            if self.index.counted:
                now = self.timestamps[min(number, len(self.timestamps) - 1)]
            else:
                now = time_of.get(frame.pts, now)
            yield now, frame

    def _rgb(self, frame: Any) -> torch.Tensor:
        """A decoded frame as (3, H, W) uint8 RGB, upright."""
        check_frame_size(self.name, frame.width, frame.height, self.max_frame_pixels)
        # Bicubic for the colours' missing half of the pixels, as FFmpeg's own tools and torchcodec do.
        pixels = self._reformatter.reformat(frame, format="rgb24", interpolation="BICUBIC", threads=1).to_ndarray()
        return _upright(torch.from_numpy(pixels).permute(2, 0, 1), frame)


def all_frames(container: Any, stream: Any, explode: bool = False) -> Iterator[Any]:
    """
    All frames that the decoder gives.

    Raises:
        av.error.FFmpegError: with `explode`, what cannot be decoded; otherwise it is passed over.
    """
    decoder, packets = stream.codec_context, container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except (av.error.FFmpegError, OSError, ValueError, IndexError):
            packet = None  # listing the frames met the same end and noted it
        try:
            if packet is None:
                yield from decoder.decode(None)
                return
            if packet.size:
                yield from decoder.decode(packet)
        except av.error.FFmpegError:
            if explode:
                raise
            if packet is None:
                return


def _set_up(decoder: Any, max_frame_pixels: int, explode: bool) -> None:
    errors = {"err_detect": "explode"} if explode else {}
    decoder.options = {"max_pixels": allocation_limit(max_frame_pixels)} | errors
    decoder.thread_type = "AUTO"
    decoder.thread_count = torch.get_num_threads()  # 1 in the workers of a DataLoader


def _decode_planned(container: Any, stream: Any, index: FrameIndex, positions: list[int]) -> Iterator[Any]:
    """Decodes up to each of the positions (increasing): on from the last one, or from a key frame in between."""
    decoder = stream.codec_context
    seeks = bool(_SEEK_FORMATS & set(container.format.name.split(",")))
    skips = _leaves_out_exactly(decoder)
    # A frame stored after a key frame and shown before it may need frames from before that key frame.
    keys = list(itertools.accumulate(map(index.entry_point, reversed(positions)), min))
    packets, here, entry = container.demux(stream), 0, 0
    for position, key in zip(positions, reversed(keys), strict=True):
        if key > here:
            yield from decoder.decode(None)
            decoder.flush_buffers()
            entry = key
            if seeks and key > here + _SEEK_DISTANCE:
                packets, here = _seek(container, stream, index, key)
        for current in range(here, position + 1):
            packet = next(packets, None)
            if packet is None or packet.pts != index.pts[current]:
                raise _PlanFailed
            if current >= entry and index.times[current] >= index.times[entry] and packet.size:
                # A frame that no other frame refers to need not be decoded, unless it is the wanted one.
                decoder.skip_frame = "NONREF" if skips and current < position else "DEFAULT"
                yield from decoder.decode(packet)
        here = position + 1
    yield from decoder.decode(None)


def _leaves_out_exactly(decoder: Any) -> bool:
    """Whether the decoder can be told to leave out the frames that no other frame refers to, and no more."""
    if decoder.name == "hevc":
        # Its mark speaks of frames of the same temporal layer only; byte 21 of the header (hvcC) counts the layers.
        header = decoder.extradata or b""
        return len(header) > 21 and header[0] == 1 and header[21] >> 3 & 7 == 1
    return decoder.name in _SKIPPING_CODECS


def _seek(container: Any, stream: Any, index: FrameIndex, key: int) -> tuple[Iterator[Any], int]:
    """Moves to the key frame at position `key` or before it. Gives the packets from there and their first position."""
    container.seek(index.pts[key], stream=stream)
    packets = container.demux(stream)
    first = next(packets, None)
    if first is None or first.pts not in index.pts[: key + 1]:
        raise _PlanFailed
    return itertools.chain([first], packets), index.pts.index(first.pts)


def _upright(pixels: torch.Tensor, frame: Any) -> torch.Tensor:
    """Turns and mirrors (3, H, W) by the frame's display matrix, to the nearest right angle."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return pixels
    # A pixel at (x, y) is shown at (a x + c y, b x + d y).
    a, b, _, c, d = np.frombuffer(bytes(matrix), dtype=np.int32)[:5].tolist()
    if abs(a) + abs(d) < abs(b) + abs(c):
        pixels = pixels.transpose(1, 2)
        a, d = c, b
    turned = [dim for dim, sign in ((2, a), (1, d)) if sign < 0]
    return pixels.flip(turned) if turned else pixels
