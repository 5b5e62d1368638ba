"""Frames decoded once before training and memory-mapped: training on small videos waits for decoding otherwise."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch

from hcmi.processing.frame_sampling import segment_times

from .row_reading import read_row

# Part of the cache's name: raise it when the stored rows change.
_FORMAT = 1
_FEATURES = datasets.Features(
    {
        "frames": datasets.Value("large_binary"),
        "shape": datasets.List(datasets.Value("int32"), length=4),
        "timestamps": datasets.List(datasets.Value("float64")),
        "span": datasets.List(datasets.Value("float64"), length=2),
    }
)


def prepare_frames(
    dataset: datasets.Dataset, processor: Any, candidates: int, folder: Path, num_workers: int = 1
) -> datasets.Dataset:
    """
    Decodes the middle frame of each of `candidates` segments of every video, resized for the model.

    Args:
        dataset: rows with `video` and, where the video is a stretch of a file, `start` and `end` (seconds).
        processor: an `HCMIProcessor`; its image processor gives the size.
        candidates: number of segments; a video with fewer frames gives those it has.
        folder: gets Arrow files, one a worker, reused for the same files (path, size, time) and settings.
        num_workers: processes that decode.

    Returns:
        A memory-mapped data set with the rows of `dataset`: `frames` (raw uint8 of `shape` (f, 3, H, W)),
        `timestamps` (f, seconds) and `span` (seconds).

    Raises:
        VideoReadError: a video cannot be read.
    """

    def decode(row: dict[str, Any]) -> dict[str, Any]:
        with _one_thread():
            read = read_row(row, lambda start, end: segment_times(start, end, candidates), processor)
        return {
            "frames": read.frames.numpy().tobytes(),
            "shape": list(read.frames.shape),
            "timestamps": read.timestamps.tolist(),
            "span": list(read.span),
        }

    columns = dataset.select_columns(["video", "start", "end"])
    files = [_state(video) for video in columns["video"]]
    settings = [_FORMAT, candidates, processor.image_processor.to_dict(), columns.to_list(), files]
    name = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    return columns.map(
        decode,
        remove_columns=columns.column_names,
        features=_FEATURES,
        cache_file_name=str(folder / f"frames-{name}.arrow"),
        new_fingerprint=name,
        # Many small videos: one process is started per worker, and a batch of rows is written at once.
        num_proc=num_workers if num_workers > 1 and len(columns) > 1 else None,
        writer_batch_size=50,
        desc="preparing frames",
    )


def _state(video: str) -> tuple[int, int] | None:
    """Size and time of a file: another file under the same path is prepared anew."""
    try:
        status = os.stat(video)
    except OSError:
        return None  # a URL, or missing: reading it tells
    return status.st_size, status.st_mtime_ns


@contextmanager
def _one_thread() -> Iterator[None]:
    """Small frames are resized faster without threads, of which each worker would start its own."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def prepared_row(prepared: datasets.Dataset, row: int) -> tuple[torch.Tensor, list[float], tuple[float, float]]:
    """The candidate frames `(f, 3, H, W)` uint8 of a row, when each begins, and the span, in seconds."""
    stored = prepared[row]
    # A copy: memory-mapped bytes cannot be written, and torch tensors can.
    frames = np.frombuffer(stored["frames"], dtype=np.uint8).reshape(stored["shape"]).copy()
    return torch.from_numpy(frames), stored["timestamps"], tuple(stored["span"])
