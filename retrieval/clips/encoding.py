"""A stretch of a video as a new file, decoded and encoded again: exact to the frame, whatever the source is."""

import itertools
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from hcmi.processing.video_index import FrameIndex, allocation_limit, open_stream, reason_of
from hcmi.processing.video_reading import MAX_FRAME_PIXELS, VideoReadError
from hcmi.processing.video_sources import EncodedVideo

from .packets import packets_of, seek
from .sound import write_sound

_TICK = Fraction(1, 90_000)  # second; the usual frame rates are whole numbers of these, or nearly
_OPTIONS = {"crf": "18", "preset": "veryfast"}


class _DecodingFailed(Exception):
    """The frames do not come out of the decoder."""


def encode_clip(source: EncodedVideo, index: FrameIndex, wanted: list[int], end: float, target: Path) -> bool:
    """
    Writes frames as H.264 and their sound as AAC.

    Args:
        index: of the source.
        wanted: positions of the frames, in the order in which they are shown.
        end: second of the source at which the last one ends.

    Returns:
        Whether there is sound.

    Raises:
        VideoReadError: the frames cannot be decoded.
        OSError: the file cannot be written.
    """
    try:
        return _encode(_decoded(source, index, wanted, whole=False), source, index.times[wanted[0]], end, target)
    except _DecodingFailed:
        # Not yet a sign of damage: some streams call frames key frames from which decoding cannot begin.
        pass
    try:
        return _encode(_decoded(source, index, wanted, whole=True), source, index.times[wanted[0]], end, target)
    except _DecodingFailed as error:
        raise VideoReadError(source.name, f"decoding fails ({error})") from error


def _encode(frames: Iterator[tuple[float, Any]], source: EncodedVideo, begin: float, end: float, target: Path) -> bool:
    first = next(frames)
    with open_stream(source, MAX_FRAME_PIXELS) as (container, stream), av.open(str(target), "w") as writing:
        picture = _add_picture(writing, stream, first[1])
        # All streams have to be there before the first packet is written.
        sound = write_sound(writing, container, begin, end)
        shown = itertools.chain([first], frames, [(end, None)])
        for (time, frame), (following, _) in itertools.pairwise(shown):
            converted = _converted(frame, picture)
            converted.time_base = _TICK
            converted.pts = round((time - begin) / _TICK)
            converted.duration = round((following - time) / _TICK)
            writing.mux(picture.encode(converted))
        writing.mux(picture.encode(None))
    return sound


def _add_picture(writing: Any, stream: Any, frame: Any) -> Any:
    """A stream for frames like this one: their size to an even number of pixels, colours, shape and turning."""
    picture = writing.add_stream("libx264", rate=stream.average_rate or 25, options=_OPTIONS)
    picture.width, picture.height = max(2, frame.width // 2 * 2), max(2, frame.height // 2 * 2)
    picture.pix_fmt = "yuv420p"
    context = picture.codec_context
    context.time_base = _TICK
    if stream.sample_aspect_ratio:
        context.sample_aspect_ratio = stream.sample_aspect_ratio
    converted = _converted(frame, picture)
    for name in ("colorspace", "color_range", "color_primaries", "color_trc"):
        setattr(context, name, getattr(converted, name))
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is not None:
        picture.set_display_matrix(np.frombuffer(bytes(matrix), dtype=np.int32).tolist())
    return picture


def _converted(frame: Any, picture: Any) -> Any:
    return frame.reformat(picture.width, picture.height, "yuv420p", interpolation="BICUBIC")


def _decoded(source: EncodedVideo, index: FrameIndex, wanted: list[int], whole: bool) -> Iterator[tuple[float, Any]]:
    """
    The wanted frames, each with the second at which it begins.

    Args:
        whole: decode from the file's beginning, and do not mind if some frames never come; otherwise from the last key
            frame before.
    """
    if index.counted:
        numbers = {position: number for number, position in enumerate(index.shown)}
        times = {numbers[position]: index.times[position] for position in wanted}
    else:
        times = {index.pts[position]: index.times[position] for position in wanted}
    entry = 0 if whole or index.counted else min(map(index.entry_point, wanted))
    some = False
    with open_stream(source, MAX_FRAME_PIXELS) as (container, stream):
        stream.codec_context.options = {"max_pixels": allocation_limit(MAX_FRAME_PIXELS), "err_detect": "explode"}
        stream.codec_context.thread_type = "AUTO"
        try:
            for number, frame in enumerate(_frames_from(container, stream, index, entry)):
                time = times.pop(number if index.counted else frame.pts, None)
                if time is not None:
                    yield time, frame
                    some = True
                if not times:
                    return
        except av.error.FFmpegError as error:
            raise _DecodingFailed(reason_of(error)) from error
    if not (whole and some):
        raise _DecodingFailed("frames are missing")


def _frames_from(container: Any, stream: Any, index: FrameIndex, entry: int) -> Iterator[Any]:
    """What the decoder makes of the packets from position `entry` on."""
    packets, first = packets_of(container, stream), index.pts[entry]
    if entry:
        seek(container, stream, first * stream.time_base)
        packets = itertools.dropwhile(lambda packet: packet.pts != first, packets)
    for packet in packets:
        # Frames stored behind a key frame and shown before it may need frames from before it.
        if not entry or packet.pts >= first:
            yield from stream.codec_context.decode(packet)
    yield from stream.codec_context.decode(None)
