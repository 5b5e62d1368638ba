"""Windows of many videos to the index, in batches: while the device encodes one, the one before is written."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from hcmi.retrieval.encoded_videos import EncodedVideos
from hcmi.retrieval.index.video_index import VideoIndex
from hcmi.retrieval.index.window import Window

Place = tuple[str, int]
"""Path of a file and number of a window in it."""


class _Row(NamedTuple):
    place: Place
    arrays: dict[str, np.ndarray]


class WindowEncoder:
    """
    Encodes windows with an index's model and appends them.

    Args:
        index: open for writing.
        batch_size: windows that the model takes at a time.
        before: is called with the places of windows right before they are appended, in the same transaction.
        after: likewise when the index has them for good.
    """

    def __init__(
        self,
        index: VideoIndex,
        batch_size: int,
        before: Callable[[Sequence[Place]], None],
        after: Callable[[Sequence[Place]], None],
    ):
        self._index = index
        self._batch_size = batch_size
        self._before, self._after = before, after
        self._waiting: deque[_Row] = deque()
        self._under_way: tuple[Any, list[_Row]] | None = None

    def add(self, path: str, windows: Sequence[Window], arrays: Mapping[str, np.ndarray]) -> None:
        """Takes windows of a file, with what `read_windows` gives for them, and encodes full batches."""
        for place, window in enumerate(windows):
            self._waiting.append(_Row((path, window.number), {name: rows[place] for name, rows in arrays.items()}))
        while len(self._waiting) >= self._batch_size:
            self._encode(self._batch_size)

    def flush(self) -> None:
        """Encodes and appends everything."""
        if self._waiting:
            self._encode(len(self._waiting))
        self.finish()

    def finish(self) -> None:
        """Appends what is encoded."""
        if self._under_way is None:
            return
        (features, rows), self._under_way = self._under_way, None
        places = [row.place for row in rows]
        times = {name: _stacked(rows, name) for name in ("timestamps", "video_spans")}
        # The copy to the CPU waits for the device.
        encoded = EncodedVideos([path for path, _ in places], features.to("cpu"), **times)
        with self._index.together():
            self._before(places)
            self._index.append(encoded, places)
        self._after(places)

    @torch.no_grad()
    def _encode(self, count: int) -> None:
        rows = [self._waiting.popleft() for _ in range(count)]
        model = self._index.model
        inputs = {name: _stacked(rows, name).to(model.device) for name in ("pixel_values_videos", "video_mask")}
        features = model.get_video_features(**inputs)
        self.finish()
        self._under_way = features, rows


def _stacked(rows: Sequence[_Row], name: str) -> torch.Tensor:
    return torch.from_numpy(np.stack([row.arrays[name] for row in rows]))
