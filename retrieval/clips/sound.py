"""The sound of a stretch of a video, encoded again."""

import itertools
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import numpy as np

from .packets import beginning, packets_of, seek, sound_stream

_RATE = 48_000  # where the encoder does not know the source's
_LEAD = Fraction(1)  # seconds decoded ahead: some decoders need a run-up
_JITTER = Fraction(1, 20)  # seconds by which times may be off without a gap


def write_sound(writing: Any, container: Any, begin: float, end: float) -> bool:
    """
    Adds a stream of AAC to a new file, with the sound of another one between two seconds; silence where it cannot be
    decoded.

    Returns:
        Whether there is any.
    """
    source = sound_stream(container)
    if source is None:
        return False
    known = source.codec_context.sample_rate in av.Codec("aac", "w").audio_rates
    rate = source.codec_context.sample_rate if known else _RATE
    layout = "mono" if source.codec_context.layout.nb_channels == 1 else "stereo"
    zero = beginning(container) + Fraction(begin)
    seek(container, source, zero - _LEAD)
    frames = _decoded(container, source, av.AudioResampler("fltp", layout, rate))
    blocks = _blocks(frames, zero, rate, round((end - begin) * rate))
    first = next(blocks, None)
    if first is None:
        return False
    sound = writing.add_stream("aac", rate=rate, layout=layout)
    for place, samples in itertools.chain([first], blocks):
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=layout)
        frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), place
        writing.mux(sound.encode(frame))
    writing.mux(sound.encode(None))
    return True


def _decoded(container: Any, source: Any, resampler: Any) -> Iterator[Any]:
    for packet in packets_of(container, source):
        try:
            frames = [part for frame in source.codec_context.decode(packet) for part in resampler.resample(frame)]
        except (av.error.FFmpegError, ValueError):
            continue
        yield from (frame for frame in frames if frame.pts is not None)


def _blocks(frames: Iterator[Any], zero: Fraction, rate: int, total: int) -> Iterator[tuple[int, np.ndarray]]:
    """Samples `(channels, n)` without gaps between the first and the last, each block with its place from 0 on."""
    written = 0
    for frame in frames:
        place = round((frame.pts * frame.time_base - zero) * rate)
        if place >= total:
            return
        if written and abs(place - written) < _JITTER * rate:
            place = written
        samples = np.pad(frame.to_ndarray(), ((0, 0), (max(place - written, 0), 0)))
        samples = samples[:, max(written - place, 0) : total - written + max(written - place, 0)]
        if samples.shape[1]:
            yield written, samples
            written += samples.shape[1]
