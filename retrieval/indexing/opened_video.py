"""A video file that is read more than once, or from beginning to end: its frames are listed at the first time only."""

import itertools
import math
import os
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

import torch

from hcmi.processing import HCMIProcessor, VideoReadError
from hcmi.processing.video_decoding import Convert, EncodedReader, all_frames
from hcmi.processing.video_index import allocation_limit, open_stream
from hcmi.processing.video_sources import EncodedVideo, open_source


class OpenedVideo(EncodedReader):
    """A reader that can go through the whole file in one pass, beside fetching single frames (see `EncodedReader`)."""

    def scan(self, every: bool = True, threads: int | None = None) -> Iterator[tuple[float, Any]]:
        """
        The frames in the order in which they are shown, each with the second at which it begins. What cannot be decoded
        is passed over.

        Args:
            every: all frames; otherwise without those to which no other one refers, which takes less time.
            threads: of the decoder; default: those of torch.
        """
        with open_stream(self.source, self.max_frame_pixels) as (container, stream):
            decoder = stream.codec_context
            decoder.options = {"max_pixels": allocation_limit(self.max_frame_pixels)}
            decoder.thread_type, decoder.thread_count = "AUTO", threads or torch.get_num_threads()
            if not (every or self.index.counted):
                decoder.skip_frame = "NONREF"
            yield from self._timed_frames(all_frames(container, stream))

    def stream(self, times: Iterable[float], convert: Convert) -> Iterator[tuple[float, tuple[float, torch.Tensor]]]:
        """
        As `read`, in one pass for any number of times, one after another: each with when the frame shown then begins,
        and `convert` of it.

        Args:
            times: ascending, in seconds.

        Raises:
            VideoReadError: no frame can be decoded.
        """
        frames = itertools.chain(self.scan(), [(math.inf, None)])
        (begin, frame), shot = next(frames), None
        if frame is None:
            raise VideoReadError(self.name, f"no frame could be decoded ({self.damage or 'unknown reason'})")
        following = next(frames)
        for time in times:
            while following[0] <= time:
                (begin, frame), shot = following, None
                following = next(frames)
            if shot is None:
                shot = begin, convert(self._rgb(frame))
            yield time, shot


def open_video(path: str, processor: HCMIProcessor) -> OpenedVideo:
    """
    Opens a file within the processor's limits. The last one is kept, for whoever reads more of it.

    Raises:
        VideoReadError: it cannot be read.
    """
    source = open_source(path)
    status = os.stat(path)
    return _opened(source, status.st_size, status.st_mtime_ns, processor.max_frame_pixels, processor.max_duration)


@lru_cache(maxsize=1)
def _opened(source: EncodedVideo, size: int, mtime_ns: int, max_frame_pixels: int, max_duration: float) -> OpenedVideo:
    return OpenedVideo(source, False, max_frame_pixels, max_duration)
