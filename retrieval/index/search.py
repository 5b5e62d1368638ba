"""From a query to hits: nearest windows first, the exact score of the last few, one hit a video."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import normalize

from hcmi.modeling_hcmi import LEVELS, HCMITextFeatures
from hcmi.modeling_hcmi.interaction_hcmi import blockwise_similarity
from hcmi.modeling_hcmi.moments_hcmi import frame_relevance, relevant_span
from hcmi.one_thread import one_thread
from hcmi.retrieval.encoded_videos import EncodedVideos

from .window import Window

MOST_OTHERS = 10
"""A hit tells at most so many further windows of its video."""

_ROWS_AT_ONCE = 64
_LOCATED_AT_ONCE = 512
_DEEPER = 4
"""How many times deeper a search goes when its windows were of too few videos."""


@dataclass(frozen=True)
class SearchDepth:
    """
    How many windows each stage leaves to the next.

    Args:
        nearest: by their video vectors, of all.
        rescored: by their clips, of the nearest; these get their exact score.
    """

    nearest: int = 1000
    rescored: int = 100

    def __post_init__(self) -> None:
        if not 1 <= self.rescored <= self.nearest:
            raise ValueError(
                f"`rescored` has to be between 1 and `nearest`, got {self.rescored} and {self.nearest} windows."
            )


@dataclass(frozen=True)
class Hit:
    """
    A video that answers a query, by the best of its windows.

    Args:
        video: its path.
        start, end: seconds in the file: the moment that answers.
        score: the combined similarity, -1..1.
        level_scores: similarity on the levels frame_word, clip_phrase, video_sentence.
        window: the stretch of the video that was scored.
        others: further windows of the same video that were scored, best first; they have none themselves.
    """

    video: str
    start: float
    end: float
    score: float
    level_scores: dict[str, float]
    window: Window
    others: tuple["Hit", ...] = ()

    def thumbnail(self, height: int = 180) -> Image.Image:
        """
        The frame in the middle of the moment.

        Raises:
            VideoReadError: the video is not there any more, or cannot be read.
        """
        from hcmi.retrieval.pictures.thumbnails import (
            thumbnail,  # draws with matplotlib's fonts, which a search need not wait for
        )

        return thumbnail(self.video, (self.start + self.end) / 2, height)

    def to_dict(self) -> dict[str, Any]:
        """The same as dictionaries and lists."""
        return asdict(self)


@dataclass(frozen=True)
class SearchResult:
    """
    What a search has found, and how deep it went.

    Args:
        hits: best first, one a video.
        windows: in the index.
        nearest, rescored: how many of them the first stage has left, and how many were scored exactly.
        exact: whether all of them were.
        seconds: what finding the nearest and scoring them took: `nearest`, `rescore`.
    """

    hits: list[Hit]
    windows: int
    nearest: int
    rescored: int
    exact: bool
    seconds: dict[str, float]


class QueryVectors(NamedTuple):
    """What the stages before the exact score look at: L2-normalised float32, real tokens only."""

    sentence: torch.Tensor  # (D,)
    phrases: torch.Tensor  # (P, D)
    phrase_weights: torch.Tensor  # (P,)
    words: torch.Tensor  # (W, D)
    word_weights: torch.Tensor  # (W,)
    level_weights: Mapping[str, float]


class VectorStore(Protocol):
    """Where an index keeps its windows' embeddings: files of its own, or a server's."""

    def __len__(self) -> int:
        """Windows that can be found."""

    def nearest(self, query: QueryVectors, depth: SearchDepth) -> np.ndarray:
        """Stages one and two: rows `(rescored,)` or fewer, best first."""

    def live_rows(self) -> np.ndarray:
        """The rows of all windows that can be found, ascending."""

    def read(self, rows: np.ndarray) -> EncodedVideos:
        """Embeddings of some rows, in their order."""


def query_vectors(text: HCMITextFeatures, level_weights: Mapping[str, float]) -> QueryVectors:
    """Those of one text."""
    words, phrases = text.word_mask[0], text.phrase_mask[0]
    return QueryVectors(
        sentence=normalize(text.pooler_output[0].float(), dim=-1),
        phrases=normalize(text.phrases[0, phrases].float(), dim=-1),
        phrase_weights=text.phrase_weights[0, phrases].float(),
        words=normalize(text.words[0, words].float(), dim=-1),
        word_weights=text.word_weights[0, words].float(),
        level_weights=level_weights,
    )


def search_store(
    store: VectorStore,
    locate: Callable[[Sequence[int]], Mapping[int, tuple[str, Window]]],
    text: HCMITextFeatures,
    level_weights: dict[str, float],
    top_k: int,
    depth: SearchDepth | None,
) -> SearchResult:
    """
    The `top_k` videos that answer one text best.

    Where the windows that were scored are of fewer videos, all stages go deeper until they are not.

    Args:
        locate: path and window of rows; rows that it leaves out have been deleted meanwhile.
        text: features of the one text.
        level_weights: `inference_weights` of the model.
        depth: how many windows each stage leaves to the next; `None` scores all of them exactly.
    """
    began = time.perf_counter()
    rows = store.live_rows() if depth is None else store.nearest(query_vectors(text, level_weights), depth)
    found = time.perf_counter()
    with nullcontext() if depth is None else one_thread():
        scores = _score(store, text, rows, level_weights)
    groups = _grouped(rows, scores["combined"], locate, top_k)
    if depth is not None and len(groups) < top_k and depth.rescored < len(store):
        deeper = SearchDepth(depth.nearest * _DEEPER, depth.rescored * _DEEPER)
        return search_store(store, locate, text, level_weights, top_k, deeper)

    with one_thread():
        hits = _hits(store, text, rows, scores, groups)
    nearest = len(store) if depth is None else min(depth.nearest, len(store))
    seconds = {"nearest": found - began, "rescore": time.perf_counter() - found}
    return SearchResult(hits, len(store), nearest, len(rows), depth is None, seconds)


def _score(
    store: VectorStore, text: HCMITextFeatures, rows: np.ndarray, level_weights: dict[str, float]
) -> dict[str, torch.Tensor]:
    """The exact similarities `(R,)` of rows, per level and combined."""
    parts = [torch.empty(4, 0)]
    for first in range(0, len(rows), _ROWS_AT_ONCE):
        windows = store.read(rows[first : first + _ROWS_AT_ONCE])
        scores = blockwise_similarity(text, windows.features, level_weights)
        parts.append(torch.stack([scores[name][0] for name in ("combined", *LEVELS)]))
    return dict(zip(("combined", *LEVELS), torch.cat(parts, dim=1), strict=True))


class _Place(NamedTuple):
    rank: int  # of its row, among the scored ones
    video: str
    window: Window


def _grouped(rows: np.ndarray, scores: torch.Tensor, locate: Callable, top_k: int) -> list[list[_Place]]:
    """The places of the best windows, best first, by their videos, the best of those first."""
    groups: dict[str, list[_Place]] = {}
    order = torch.sort(scores, descending=True, stable=True).indices.tolist()
    for first in range(0, len(order), _LOCATED_AT_ONCE):
        some = order[first : first + _LOCATED_AT_ONCE]
        places = locate([int(rows[index]) for index in some])
        for index in some:
            if int(rows[index]) in places:
                place = _Place(index, *places[int(rows[index])])
                groups.setdefault(place.video, []).append(place)
        if len(groups) >= top_k:
            break
    return [group[: MOST_OTHERS + 1] for group in list(groups.values())[:top_k]]


def _hits(
    store: VectorStore,
    text: HCMITextFeatures,
    rows: np.ndarray,
    scores: dict[str, torch.Tensor],
    groups: list[list[_Place]],
) -> list[Hit]:
    if not groups:
        return []
    chosen = [place.rank for group in groups for place in group]
    windows = store.read(rows[chosen])
    relevance = frame_relevance(text, windows.features)[0]
    spans = iter(
        [
            relevant_span(relevance[i], windows.features.frame_mask[i], windows.timestamps[i], *span)
            for i, span in enumerate(windows.video_spans.tolist())
        ]
    )

    def hit(place: _Place) -> Hit:
        levels = {level: scores[level][place.rank].item() for level in LEVELS}
        return Hit(place.video, *next(spans), scores["combined"][place.rank].item(), levels, place.window)

    hits = []
    for group in groups:
        best, *others = map(hit, group)
        hits.append(replace(best, others=tuple(others)))
    return hits
