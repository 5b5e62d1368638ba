"""The optional second way to decode: torchcodec, for files and for decoder objects that the caller brings along."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from .frame_sampling import frames_at
from .video_decoding import Convert, EncodedReader, Shots
from .video_index import check_duration, check_frame_size
from .video_sources import VideoReadError

try:
    from torchcodec.decoders import VideoDecoder
except Exception:  # not installed, or FFmpeg's libraries are missing, or it was built for another torch
    VideoDecoder = None

_BYTES_AT_A_TIME = 2**28
_ERRORS = (RuntimeError, ValueError, IndexError)


def torchcodec_usable() -> bool:
    """Whether torchcodec is installed and its libraries load."""
    return VideoDecoder is not None


class TorchcodecReader(EncodedReader):
    """Chooses the frames as `EncodedReader` does, from its own list of them, and lets torchcodec decode them.

    What torchcodec cannot read, the base class reads; so it does where every damage has to be seen (`strict`), since
    torchcodec gives what the decoder makes up in place of a broken frame without a word.
    """

    def read(self, times: Sequence[float], convert: Convert) -> Shots:
        """As `EncodedReader.read`."""
        if not (self.index.counted or self.damage or self.strict):
            wanted = frames_at(self.timestamps, times)
            try:
                frames = self._decode(sorted(set(wanted)), convert)
                return {t: (self.timestamps[i], frames[i]) for t, i in zip(times, wanted, strict=True)}
            except _ERRORS as error:
                if isinstance(error, VideoReadError):
                    raise
        return super().read(times, convert)

    def _decode(self, wanted: list[int], convert: Convert) -> dict[int, torch.Tensor]:
        target = self.source.target
        if not isinstance(target, str):
            target.seek(0)
        decoder = VideoDecoder(target, stream_index=self.stream_number, num_ffmpeg_threads=torch.get_num_threads())
        ticks = [self.index.pts[position] for position in self.shown]
        begins = [float(tick * self.time_base) for tick in ticks]
        # The middle of a frame's time on the screen names it whatever the rounding.
        middles = [
            (a + b) / 2 for a, b in zip(begins, [*begins[1:], begins[-1] + self.end - self.timestamps[-1]], strict=True)
        ]
        frames: dict[int, torch.Tensor] = {}
        for i, (begin, frame) in zip(wanted, _frames_at(decoder, [middles[i] for i in wanted]), strict=True):
            if abs(begin - begins[i]) > self.time_base / 2:
                raise ValueError("torchcodec sees other frames than PyAV")
            frames[i] = convert(frame)
        return frames


class DecoderReader:
    """Reads from a torchcodec `VideoDecoder`, such as a `datasets` Video column gives. Second 0 is its first frame."""

    damage = None

    def __init__(self, decoder: Any, max_frame_pixels: int, max_duration: float):
        self.name = f"torchcodec decoder of {getattr(decoder.metadata, 'path', None) or 'a video'}"
        self._decoder = decoder
        facts = decoder.metadata
        check_frame_size(self.name, facts.width or 0, facts.height or 0, max_frame_pixels)
        self._zero, self._end = facts.begin_stream_seconds or 0.0, facts.end_stream_seconds or 0.0
        self.start, self.end, self.count = 0.0, self._end - self._zero, facts.num_frames or 0
        check_duration(self.name, 0.0, self.end, max_duration)
        self.size, self.codec = (facts.width, facts.height), facts.codec

    def read(self, times: Sequence[float], convert: Convert) -> Shots:
        """As `EncodedReader.read`."""
        last = math.nextafter(self._end, 0.0)
        seconds = {t: min(max(self._zero + t, self._zero), last) for t in times}
        shots: Shots = {}
        try:
            for t, (begin, frame) in zip(seconds, _frames_at(self._decoder, list(seconds.values())), strict=True):
                shots[t] = begin - self._zero, convert(frame)
        except _ERRORS as error:
            raise VideoReadError(self.name, str(error)) from error
        return shots


def _frames_at(decoder: Any, seconds: list[float]) -> Iterator[tuple[float, torch.Tensor]]:
    """When the frame shown at each of the seconds begins, and the frame as (3, H, W) uint8; a few at a time."""
    facts = decoder.metadata
    step = max(1, _BYTES_AT_A_TIME // (3 * (facts.width or 1) * (facts.height or 1)))
    for first in range(0, len(seconds), step):
        batch = decoder.get_frames_played_at(seconds[first : first + step])
        for begin, frame in zip(batch.pts_seconds.tolist(), batch.data.cpu(), strict=True):
            yield begin, frame if frame.shape[0] == 3 else frame.permute(2, 0, 1)
