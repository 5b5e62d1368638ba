"""The few frames of each row that training draws from: decoded now, or taken from those prepared before."""

from typing import Any, NamedTuple

import datasets
import numpy as np
import torch

from .frame_encoding import decode_frame
from .row_reading import decode_candidates


class StoredFrames:
    """
    Frames (3, H, W) that are decoded when they are taken.

    Args:
        encoded: an Arrow array with the bytes of each.
        encoding, shape: of all of them.
    """

    def __init__(self, encoded: Any, encoding: str, shape: tuple[int, int, int]) -> None:
        self.encoded = encoded
        self.encoding = encoding
        self.shape = shape

    def __getitem__(self, indices: list[int]) -> torch.Tensor:
        frames = [decode_frame(self.encoded[index].as_buffer(), self.encoding, self.shape) for index in indices]
        return torch.from_numpy(np.stack(frames, out=np.empty((len(frames), *self.shape), np.uint8)))


class Candidates(NamedTuple):
    """
    The candidate frames of one row.

    Attributes:
        frames: of f frames; `frames[[0, 2]]` gives (2, 3, H, W) uint8.
        timestamps: when each of the f begins, in seconds, increasing.
        span: start and end in seconds of the stretch that they stand for.
    """

    frames: torch.Tensor | StoredFrames
    timestamps: list[float]
    span: tuple[float, float]


class DecodedCandidates:
    """
    Candidates decoded from a data set's files whenever they are asked for.

    Args:
        processor: an `HCMIProcessor`.
        dataset: rows as for `FileFrames`.
        count: of segments; the middle frame of each is a candidate.
    """

    def __init__(self, processor: Any, dataset: datasets.Dataset, count: int) -> None:
        self.processor = processor
        self.dataset = dataset
        self.count = count

    def __call__(self, row: int) -> Candidates:
        read = decode_candidates(self.dataset[row], self.count, self.processor)
        return Candidates(read.frames, read.timestamps.tolist(), read.span)


class PreparedCandidates:
    """
    Candidates out of what `prepare_frames` stored.

    Args:
        prepared: what it gave, or a selection of its rows.
    """

    def __init__(self, prepared: datasets.Dataset) -> None:
        # As Arrow a row's bytes stay in the file until a frame is taken.
        self.prepared = prepared.with_format("arrow")

    def __call__(self, row: int) -> Candidates:
        table = self.prepared[row]
        stored = {name: table.column(name)[0] for name in table.column_names}
        frames = StoredFrames(stored["frames"].values, stored["encoding"].as_py(), tuple(stored["shape"].as_py()))
        return Candidates(frames, stored["timestamps"].as_py(), tuple(stored["span"].as_py()))
