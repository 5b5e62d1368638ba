"""A stretch of a video as a new file, packet by packet, without decoding."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from hcmi.processing.video_index import FrameIndex, open_stream
from hcmi.processing.video_reading import MAX_FRAME_PIXELS
from hcmi.processing.video_sources import EncodedVideo

# Only in these formats a seek can be relied on to end before the moment it was asked for.
_SEEK_FORMATS = {"mov", "matroska"}
_MICROSECOND = Fraction(1, 1_000_000)
_SEEK_EARLIER = Fraction(1)  # seconds: a packet of sound may be stored before the picture it belongs to


def copy_clip(source: EncodedVideo, index: FrameIndex, key: int, stop: int, end: float, target: Path) -> bool | None:
    """
    Copies the packets of picture and sound from a key frame on.

    Args:
        index: of the source; its presentation times are all there and different.
        key, stop: positions of the first and the last packet of the picture.
        end: second of the source at which the sound ends.

    Returns:
        Whether there is sound; None if not all can be copied into the new file.

    Raises:
        FFmpegError: reading or writing fails.
    """
    places = {pts: position for position, pts in enumerate(index.pts)}
    with open_stream(source, MAX_FRAME_PIXELS) as (container, stream), av.open(str(target), "w") as writing:
        sound = sound_stream(container)
        streams = [stream] if sound is None else [stream, sound]
        if any(each.codec_context.codec.canonical_name not in writing.supported_codecs for each in streams):
            return None
        copies = {each.index: writing.add_stream_from_template(each) for each in streams}
        first: Any = index.pts[key]
        begin = first * stream.time_base
        finish = begin + Fraction(end - index.times[key])
        seek(container, stream, begin - _SEEK_EARLIER)
        left, unfinished = set(range(key, stop + 1)), set(copies)
        for packet in packets_of(container, streams):
            if packet.stream.index == stream.index:
                place = places[packet.pts]
                # Frames stored behind the key frame and shown before it may need frames from before it.
                wanted, over = place in left and packet.pts >= first, place >= stop
                left.discard(place)
            else:
                time = packet.pts * packet.time_base
                wanted, over = begin <= time < finish, time >= finish
            if over:
                unfinished.discard(packet.stream.index)
            if wanted:
                _mux(writing, packet, copies[packet.stream.index], begin)
            if not unfinished:
                break
    return None if left else sound is not None


def _mux(writing: Any, packet: Any, stream: Any, zero: Fraction) -> None:
    """Writes a packet, with its times counted from `zero` seconds on."""
    ticks = round(zero / packet.time_base)
    packet.pts -= ticks
    if packet.dts is not None:
        packet.dts -= ticks
    packet.stream = stream
    writing.mux(packet)


def sound_stream(container: Any) -> Any:
    """The best stream of sound that can be decoded; None if there is none."""
    best = container.streams.best("audio")
    return best if best is not None and best.codec_context is not None else None


def beginning(container: Any) -> Fraction:
    """Second 0 of the file on the clock of its packets."""
    return (container.start_time or 0) * _MICROSECOND


def seek(container: Any, stream: Any, time: Fraction) -> None:
    """Moves to a packet of `stream` before `time` on the clock of packets; it may be the file's first."""
    if time > beginning(container) and _SEEK_FORMATS & set(container.format.name.split(",")):
        container.seek(round(time / stream.time_base), stream=stream)


def packets_of(container: Any, streams: Any) -> Iterator[Any]:
    """The packets that hold something, with their times."""
    try:
        for packet in container.demux(streams):
            if packet.size:
                yield packet
    except IndexError:
        return  # the end: there PyAV can stumble over a stream that appeared on the way
