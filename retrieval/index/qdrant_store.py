"""The embeddings of an index on a Qdrant server or cluster: one point a window, by the number of its row."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.functional import normalize

from hcmi.modeling_hcmi import HCMIVideoFeatures
from hcmi.retrieval.encoded_videos import EncodedVideos

from .catalog import Catalog, Version
from .errors import VideoIndexError
from .qdrant_server import QdrantServer
from .row_codec import RowShape
from .search import QueryVectors, SearchDepth, VectorStore

_POINTS_AT_ONCE = 64
"""Points of a message: two megabytes."""

_FIELDS = ["frame_weights", "clip_weights", "clip_frame_weights", "timestamps", "video_span"]
"""Of a point's payload, those that its window is made of again."""


class QdrantVectors:
    """
    The writing side. What the catalogue does not know is overwritten by the next rows of the same numbers.

    Args:
        server: the collection.
        shape: of the rows.
        catalog: tells what the windows are windows of.
    """

    def __init__(self, server: QdrantServer, shape: RowShape, catalog: Catalog):
        self.server = server
        self.shape = shape
        self._catalog = catalog

    def append(self, version: Version, windows: EncodedVideos, places: Sequence[tuple[str, int]]) -> None:
        """Sends windows for the rows from `version.rows` on; they count when the catalogue says so."""
        from qdrant_client import models

        vectors, payloads = _points_vectors(windows), self._payloads(windows, places)
        points = [
            models.PointStruct(id=row, vector=vector, payload=payload)
            for row, (vector, payload) in enumerate(zip(vectors, payloads, strict=True), version.rows)
        ]
        with self.server.client() as client:
            for first in range(0, len(points), _POINTS_AT_ONCE):
                client.upsert(self.server.collection, points[first : first + _POINTS_AT_ONCE], wait=True)

    def copy(self, version: Version, source: VectorStore, rows: np.ndarray, places: Sequence[tuple[str, int]]) -> None:
        """Sends rows of another index."""
        for first in range(0, len(rows), _POINTS_AT_ONCE):
            some = slice(first, first + _POINTS_AT_ONCE)
            self.append(Version(version.generation, version.rows + first), source.read(rows[some]), places[some])

    def snapshot(self, version: Version, dead: Sequence[int]) -> "QdrantStore":
        """What there is to search."""
        return QdrantStore(self.server, self.shape, self._catalog, dead)

    def compact(self, version: Version, store: VectorStore) -> None:
        """Deletes the dead points."""
        from qdrant_client import models

        dead = self._catalog.dead_rows()
        with self.server.client() as client:
            client.delete(self.server.collection, models.PointIdsList(points=[*dead]), wait=True)
        self._catalog.forget_dead_rows(dead)

    def remove_leftovers(self, generation: int) -> None:
        """There are none: rows keep their numbers."""

    def bytes(self, generation: int) -> int:
        """On this machine's disk."""
        return 0

    def _payloads(self, windows: EncodedVideos, places: Sequence[tuple[str, int]]) -> Iterator[dict[str, Any]]:
        files = {path: self._catalog.find(path) for path, _ in places}
        planned = {(path, window.number): window for path in files for window in self._catalog.planned(path)}
        features = windows.features
        for i, place in enumerate(places):
            if place not in planned:
                raise VideoIndexError(f"Window {place[1]} of {place[0]} is not waiting to be encoded.")
            window, state = planned[place], files[place[0]].file
            frames, clips = int(features.frame_mask[i].sum()), int(features.clip_mask[i].sum())
            yield {
                "path": place[0],
                "number": window.number,
                "start": window.start,
                "end": window.end,
                "size": state.size,
                "mtime_ns": state.mtime_ns,
                "frame_weights": features.frame_weights[i, :frames].tolist(),
                "clip_weights": features.clip_weights[i, :clips].tolist(),
                "clip_frame_weights": features.clip_frame_weights[i, :clips, :frames].tolist(),
                "timestamps": windows.timestamps[i, :frames].tolist(),
                "video_span": windows.video_spans[i].tolist(),
            }


class QdrantStore:
    """
    What there is to search. Points that the catalogue does not know are dropped by whoever locates them.

    Args:
        server: the collection.
        shape: of the rows.
        catalog: knows which rows there are.
        dead: rows of windows that were deleted and are still there.
    """

    def __init__(self, server: QdrantServer, shape: RowShape, catalog: Catalog, dead: Sequence[int]):
        self.server = server
        self.shape = shape
        self._catalog = catalog
        self._count = catalog.counts()["windows"]
        self._dead = dead

    def __len__(self) -> int:
        return self._count

    def live_rows(self) -> np.ndarray:
        """The rows of all windows that can be found, ascending."""
        return np.array(self._catalog.live_rows(), dtype=np.int64)

    def nearest(self, query: QueryVectors, depth: SearchDepth) -> np.ndarray:
        """
        Rows of the windows that come next to a query, both stages in one request: those whose video vectors are
        nearest, then by every phrase's best clip, weighted. Where phrases count nothing, only the first.

        Returns:
            `(rescored,)` rows or fewer, best first.
        """
        from qdrant_client import models

        live = models.Filter(must_not=[models.HasIdCondition(has_id=list(self._dead))]) if self._dead else None
        sentence: dict[str, Any] = {"query": query.sentence.tolist(), "using": "video"}
        request: dict[str, Any] = {**sentence, "query_filter": live}
        if query.level_weights["clip_phrase"] > 0:
            # No weight is negative: it may as well be in the vector before the maximum as behind it.
            phrases = (query.phrases * query.phrase_weights[:, None]).tolist()
            near = models.Prefetch(**sentence, filter=live, limit=depth.nearest)
            request = {"query": phrases, "using": "clips", "prefetch": near}
        with self.server.client() as client:
            found = client.query_points(self.server.collection, limit=depth.rescored, with_payload=False, **request)
        return np.array([point.id for point in found.points], dtype=np.int64)

    def read(self, rows: np.ndarray) -> EncodedVideos:
        """
        Embeddings of some rows, in their order.

        Raises:
            VideoIndexError: the server does not have them all.
        """
        with self.server.client() as client:
            found = client.retrieve(self.server.collection, rows.tolist(), with_payload=_FIELDS, with_vectors=True)
        points = {point.id: point for point in found}
        if missing := len(rows) - len(points):
            raise VideoIndexError(
                f"The index is damaged: the collection {self.server.collection} on {self.server.url} lacks {missing} "
                f"of {len(rows)} windows. Make the index anew, or restore the collection."
            )
        return self._decode([points[row] for row in rows.tolist()])

    def _decode(self, points: Sequence[Any]) -> EncodedVideos:
        values = [{**point.vector, **point.payload} for point in points]
        width, frames, clips = self.shape.width, self.shape.frames, self.shape.clips

        def stacked(name: str, *size: int, filler: float = 0.0) -> torch.Tensor:
            """`(V, *size)` float64, with the filler behind what a window has."""
            array = np.full((len(values), *size), filler)
            for row, value in zip(array, values, strict=True):
                real = np.asarray(value[name])
                row[tuple(map(slice, real.shape))] = real
            return torch.from_numpy(array)

        def mask(name: str, size: int) -> torch.Tensor:
            return torch.arange(size) < torch.tensor([len(value[name]) for value in values])[:, None]

        features = HCMIVideoFeatures(
            pooler_output=stacked("video", width).float(),
            frames=stacked("frames", frames, width).float(),
            clips=stacked("clips", clips, width).float(),
            frame_mask=mask("frames", frames),
            clip_mask=mask("clips", clips),
            frame_weights=stacked("frame_weights", frames).float(),
            clip_weights=stacked("clip_weights", clips).float(),
            clip_frame_weights=stacked("clip_frame_weights", clips, frames).float(),
        )
        times = stacked("timestamps", frames, filler=np.nan)
        return EncodedVideos([""] * len(values), features, times, stacked("video_span", 2))


def _points_vectors(windows: EncodedVideos) -> Iterator[Any]:
    """Of each window its vectors, of length 1, without padding."""
    features = windows.features
    video, clips, frames = (normalize(features[name].float(), dim=-1) for name in ("pooler_output", "clips", "frames"))
    for i in range(len(windows)):
        yield {
            "video": video[i].tolist(),
            "clips": clips[i, features.clip_mask[i]].tolist(),
            "frames": frames[i, features.frame_mask[i]].tolist(),
        }
