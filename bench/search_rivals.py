"""What the package's own index is compared with: the least that a search can take, FAISS, and Qdrant Edge."""

import math
import time
from abc import abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from search_engines import AT_ONCE, DEPTH, LEVEL_WEIGHTS, TOP, Engine
from synthetic_windows import CLIPS, FRAMES, WIDTH, SyntheticWindows
from torch.nn.functional import normalize

from hcmi.modeling_hcmi import HCMITextFeatures, HCMIVideoFeatures
from hcmi.modeling_hcmi.interaction_hcmi import blockwise_similarity
from hcmi.retrieval import EncodedVideos
from hcmi.retrieval.index.row_codec import RowShape
from hcmi.retrieval.index.search import query_vectors


class InMemory(Engine):
    """Windows as an int8 index keeps them, but in memory, of which `candidates` are scored exactly."""

    stored = False

    def __init__(self, folder: Path, variant: str):
        super().__init__(folder, variant)
        self.shape = RowShape(WIDTH, FRAMES, CLIPS, "int8")
        self.vectors: list[np.ndarray] = []
        self.records: list[np.ndarray] = []

    def add(self, some: EncodedVideos) -> None:
        vectors, records = self.shape.encode(some)
        self.vectors.append(vectors)
        self.records.append(records)

    def search(self, text: HCMITextFeatures) -> list[int]:
        started = time.perf_counter()
        rows = self.candidates(normalize(text.pooler_output, dim=-1))
        found = time.perf_counter()
        parts = [(*divmod(row, AT_ONCE),) for row in rows]
        vectors = np.stack([self.vectors[part][row] for part, row in parts])
        records = np.stack([self.records[part][row] for part, row in parts])
        windows = self.shape.decode(vectors, records, [""] * len(rows))
        scores = blockwise_similarity(text, windows.features, LEVEL_WEIGHTS).combined[0]
        best = torch.topk(scores, TOP).indices.tolist()
        self.stages = {"vectors": found - started, "exact score": time.perf_counter() - found}
        return [rows[index] for index in best]

    @abstractmethod
    def candidates(self, sentence: torch.Tensor) -> list[int]:
        """`DEPTH.rescored` windows for a sentence vector `(1, D)`."""


class Matrix(InMemory):
    """The product of a float16 matrix with a vector: the least that finding the nearest exactly can take."""

    def finish(self) -> None:
        self.matrix = torch.from_numpy(np.concatenate(self.vectors))

    def candidates(self, sentence: torch.Tensor) -> list[int]:
        return torch.topk(self.matrix @ sentence[0].half(), DEPTH.rescored).indices.tolist()


class Faiss(InMemory):
    """FAISS for the video vectors; the variant is its index."""

    packages = ("faiss",)

    def finish(self) -> None:
        import faiss

        vectors = np.concatenate(self.vectors).astype(np.float32)
        factory = {"flat": "Flat", "ivf": f"IVF{4 * math.isqrt(len(vectors))},SQ8", "hnsw": "HNSW32,SQ8"}[self.variant]
        self.index = faiss.index_factory(WIDTH, factory, faiss.METRIC_INNER_PRODUCT)
        self.index.train(vectors[:: max(1, len(vectors) // 100_000)])
        self.index.add(vectors)
        if self.variant == "ivf":
            self.index.nprobe = 32
        if self.variant == "hnsw":
            self.index.hnsw.efSearch = 2 * DEPTH.rescored

    def candidates(self, sentence: torch.Tensor) -> list[int]:
        _, rows = self.index.search(sentence.numpy(), DEPTH.rescored)
        return [row for row in rows[0].tolist() if row >= 0]


class Edge(Engine):
    """Qdrant in this process: nearest video vectors and MaxSim of clips in one query; the best ones are fetched."""

    packages = ("qdrant_edge",)
    shard: Any

    def build(self, windows: SyntheticWindows) -> None:
        import qdrant_edge as edge

        self.folder.mkdir(parents=True)
        multi = edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim)
        kind = {"float16": edge.VectorStorageDatatype.Float16, "int8": edge.VectorStorageDatatype.Turbo8}[self.variant]
        no_graph = edge.HnswIndexConfig(0, 0, 0)
        params = [
            edge.EdgeVectorParams(WIDTH, edge.Distance.Dot, datatype=kind, hnsw_config=no_graph, multivector_config=m)
            for m in (None, multi, multi)
        ]
        config = edge.EdgeConfig(vectors=dict(zip(("video", "clips", "frames"), params, strict=True)))
        self.shard = edge.EdgeShard.create(str(self.folder), config)
        super().build(windows)

    def add(self, some: EncodedVideos) -> None:
        import qdrant_edge as edge

        features = some.features
        video, clips, frames = (
            normalize(tokens, dim=-1).numpy() for tokens in (features.pooler_output, features.clips, features.frames)
        )
        payloads = [
            {"path": f"/videos/{name}.mp4", "frame_weights": f, "clip_weights": c, "timestamps": t}
            for name, f, c, t in zip(
                some.names,
                features.frame_weights.tolist(),
                features.clip_weights.tolist(),
                some.timestamps.tolist(),
                strict=True,
            )
        ]
        points = [
            edge.Point(int(name), {"video": v, "clips": c, "frames": f}, payload)
            for name, v, c, f, payload in zip(some.names, video, clips, frames, payloads, strict=True)
        ]
        self.shard.update(edge.UpdateOperation.upsert_points(points))

    def finish(self) -> None:
        self.shard.flush()
        while self.shard.optimize():
            pass
        self.shard.close()

    def open(self) -> None:
        import qdrant_edge as edge

        self.shard = edge.EdgeShard.load(str(self.folder))

    def search(self, text: HCMITextFeatures) -> list[int]:
        import qdrant_edge as edge

        query = query_vectors(text, LEVEL_WEIGHTS)
        started = time.perf_counter()
        near = edge.Prefetch(DEPTH.nearest, edge.Query.Nearest(query.sentence.numpy(), using="video"))
        phrases = (query.phrases * query.phrase_weights[:, None]).numpy()
        request = edge.QueryRequest(DEPTH.rescored, query=edge.Query.Nearest(phrases, using="clips"), prefetches=[near])
        rows = [point.id for point in self.shard.query(request)]
        found = time.perf_counter()
        windows = self._fetch(rows)
        fetched = time.perf_counter()
        scores = blockwise_similarity(text, windows, LEVEL_WEIGHTS).combined[0]
        best = torch.topk(scores, TOP).indices.tolist()
        self.stages = {
            "vectors, clips": found - started,
            "fetching": fetched - found,
            "exact score": time.perf_counter() - fetched,
        }
        return [rows[index] for index in best]

    def _fetch(self, rows: list[int]) -> HCMIVideoFeatures:
        points = {point.id: point for point in self.shard.retrieve(rows, with_payload=True, with_vector=True)}

        def tensor(values: list) -> torch.Tensor:
            return torch.from_numpy(np.array(values, np.float32))

        vectors = [points[row].vector for row in rows]
        payloads = [points[row].payload for row in rows]
        frames, clips = (tensor([vector[name] for vector in vectors]) for name in ("frames", "clips"))
        return HCMIVideoFeatures(
            pooler_output=tensor([vector["video"] for vector in vectors]),
            frames=frames,
            clips=clips,
            frame_mask=torch.ones(frames.shape[:2], dtype=torch.bool),
            clip_mask=torch.ones(clips.shape[:2], dtype=torch.bool),
            frame_weights=tensor([payload["frame_weights"] for payload in payloads]),
            clip_weights=tensor([payload["clip_weights"] for payload in payloads]),
            clip_frame_weights=torch.zeros(len(rows), CLIPS, FRAMES),  # plays no part in a score
        )
