"""What reader processes do for indexing: hash files, cut videos into windows, and read the windows' frames."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hcmi.processing import HCMIProcessor
from hcmi.retrieval.index.window import Window

from .opened_video import open_video
from .reader_process import Allow
from .window_reading import read_sections, reads_in_one_pass, sections
from .windows import WindowRule, cut

# The slowest disk or network that is still no reason to give a file up.
_BYTES_A_SECOND = 10_000_000


@dataclass(frozen=True)
class HashJob:
    """Finds the digest of a file's content, a `str`."""

    path: str


@dataclass(frozen=True)
class ReadJob:
    """
    Gives a `Plan`, then `Frames`, and a `Damage` where there is one.

    Args:
        path: of the video.
        windows: to read; None cuts the video.
        threads: that look for shots.
    """

    path: str
    windows: tuple[Window, ...] | None = None
    threads: int = 1


class Plan(NamedTuple):
    """
    Args:
        windows: of the job.
        duration: seconds of the video.
        later: windows that this job does not read, in pieces for jobs of their own.
    """

    windows: list[Window]
    duration: float
    later: list[list[Window]]


class Frames(NamedTuple):
    """
    Args:
        windows: that were read.
        arrays: what `read_windows` gives for them.
    """

    windows: list[Window]
    arrays: dict[str, np.ndarray]


class Damage(NamedTuple):
    """
    Args:
        reason: what is wrong with a file that could be read all the same.
    """

    reason: str


def seconds_to_open(size: int, timeout: float) -> float:
    """What a job may take until it knows how long the video lasts, for a file of `size` bytes."""
    return timeout + size / _BYTES_A_SECOND


def do_job(
    shared: tuple[HCMIProcessor, WindowRule], job: HashJob | ReadJob, allow: Allow
) -> Iterator[str | Plan | Frames | Damage]:
    """
    Does a job for the `ReaderPool`. Decoding may take as long as the video lasts, beside the time to open it.

    Raises:
        VideoReadError: the video cannot be read.
        OSError: nor can the file.
    """
    if isinstance(job, HashJob):
        with open(job.path, "rb") as file:
            yield hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=32)).hexdigest()
        return
    processor, rule = shared
    video = open_video(job.path, processor)
    duration = video.end - video.start
    allow(duration)
    windows = cut(job.path, rule, processor, job.threads) if job.windows is None else list(job.windows)
    parts = sections(windows)
    own = parts if reads_in_one_pass(video) else parts[:1]
    yield Plan(windows, duration, parts[len(own) :])
    for part, frames in zip(own, read_sections(video, own, processor), strict=True):
        yield Frames(part, {name: tensor.numpy() for name, tensor in frames.items()})
    if video.damage:
        yield Damage(video.damage)
