"""The embeddings of an index in files of its own: the search's first two stages, by brute force over memory maps."""

from collections.abc import Sequence

import numpy as np
import torch

from hcmi.one_thread import one_thread
from hcmi.retrieval.encoded_videos import EncodedVideos

from .search import QueryVectors, SearchDepth
from .vector_files import VectorFiles

_VECTORS_AT_ONCE = 2**18
"""Vectors that are compared at a time: as many scores are held in half precision."""

_CLIPS_AT_ONCE = 64
"""Windows whose clips are compared at a time: they stay in the cache, and in memory that is not given back between."""


class EmbeddedStore:
    """
    A snapshot of an index's rows for searching. Nothing in it changes, whatever a writer does meanwhile.

    Args:
        files: mapped.
        dead: rows whose windows were deleted.
    """

    def __init__(self, files: VectorFiles, dead: Sequence[int]):
        self.files = files
        self.dead = torch.tensor(sorted(dead), dtype=torch.long)

    def __len__(self) -> int:
        return len(self.files) - len(self.dead)

    def live_rows(self) -> np.ndarray:
        """The rows of all windows that can be found, ascending."""
        live = np.ones(len(self.files), bool)
        live[self.dead.numpy()] = False
        return live.nonzero()[0]

    def nearest(self, query: QueryVectors, depth: SearchDepth) -> np.ndarray:
        """
        Rows of the windows that come next to a query: first by the cosine of video and sentence vector, then by that
        and every phrase's best clip, each level weighted as in the score. The levels that weigh nothing count nothing;
        where only frames and words count, video vectors stand in for them.

        Returns:
            `(rescored,)` rows or fewer, best first.
        """
        cosines, rows = self._nearest_vectors(query.sentence, min(depth.nearest, len(self)))
        phrase_weight = query.level_weights["clip_phrase"]
        if len(rows) > depth.rescored and phrase_weight > 0:
            with one_thread():
                clips = self._best_clips(query, rows)
            cosines = query.level_weights["video_sentence"] * cosines + phrase_weight * clips
        order = torch.sort(cosines, descending=True, stable=True).indices[: depth.rescored]
        return rows[order].numpy()

    def read(self, rows: np.ndarray) -> EncodedVideos:
        """
        Embeddings of some rows, in their order.

        Raises:
            VideoIndexError: a row is not as it was written.
        """
        return self.files.shape.decode(*self.files.read(rows), names=[""] * len(rows))

    def _nearest_vectors(self, sentence: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and rows `(count,)`, best first."""
        vectors = torch.from_numpy(self.files.vectors)
        scores = torch.empty(len(vectors))
        for first in range(0, len(vectors), _VECTORS_AT_ONCE):
            some = slice(first, first + _VECTORS_AT_ONCE)
            scores[some] = vectors[some] @ sentence.to(vectors.dtype)
        scores[self.dead] = -torch.inf
        return torch.topk(scores, count)

    def _best_clips(self, query: QueryVectors, rows: torch.Tensor) -> torch.Tensor:
        """`(R,)`: the cosine of every phrase with its best clip, weighted."""
        return torch.cat([self._best_of(query, some.numpy()) for some in rows.split(_CLIPS_AT_ONCE)])

    def _best_of(self, query: QueryVectors, rows: np.ndarray) -> torch.Tensor:
        clips = torch.from_numpy(self.files.records["clips"][rows]).float()
        real = torch.from_numpy(self.files.records["num_clips"][rows].astype(np.int64))
        cosines = clips @ query.phrases.T / torch.linalg.vector_norm(clips, dim=-1, keepdim=True)  # (R, C, P)
        padding = torch.arange(clips.shape[1]) >= real[:, None]
        return cosines.masked_fill(padding[..., None], -torch.inf).amax(1) @ query.phrase_weights
