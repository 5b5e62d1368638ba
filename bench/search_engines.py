"""A way of searching, as `search.py` compares them; the package's own, and scoring everything."""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from synthetic_windows import CLIPS, FRAMES, WIDTH, SyntheticWindows

from hcmi.modeling_hcmi import LEVELS, HCMIConfig, HCMIModel, HCMITextFeatures
from hcmi.modeling_hcmi.interaction_hcmi import blockwise_similarity
from hcmi.retrieval import EncodedVideos, VideoIndex
from hcmi.retrieval.index.catalog import FileState
from hcmi.retrieval.index.embedded_store import EmbeddedStore
from hcmi.retrieval.index.search import SearchDepth
from hcmi.retrieval.index.window import Window

TOP = 10
DEPTH = SearchDepth()
LEVEL_WEIGHTS = dict.fromkeys(LEVELS, 1.0)
AT_ONCE = 1000
"""Windows that are added at a time, and scored at a time where all are."""


class Engine(ABC):
    """
    One way of searching.

    Args:
        folder: where it keeps its files, if it has any.
        variant: of the way.
    """

    stored = True  # in files, which another process then opens
    packages: tuple[str, ...] = ()
    slow = False  # so slow that a few queries have to do

    def __init__(self, folder: Path, variant: str):
        self.folder, self.variant = folder, variant
        self.stages: dict[str, float] = {}  # seconds of the last search
        self.inserting = 0.0  # seconds, without drawing the windows

    def build(self, windows: SyntheticWindows) -> None:
        """Takes all windows."""
        for some in pieces(windows):
            started = time.perf_counter()
            self.add(some)
            self.inserting += time.perf_counter() - started
        started = time.perf_counter()
        self.finish()
        self.inserting += time.perf_counter() - started

    @abstractmethod
    def add(self, some: EncodedVideos) -> None:
        """Takes some."""

    def finish(self) -> None:  # noqa: B027 (most have nothing left to do)
        """What is left to do after the last window."""

    def open(self) -> None:  # noqa: B027 (those that are not stored are open)
        """In a fresh process: makes ready what `build` has left in the folder."""

    @abstractmethod
    def search(self, text: HCMITextFeatures) -> list[int]:
        """The numbers of the best windows, best first."""


class Hcmi(Engine):
    """The package's own index; the variant is its precision."""

    index: VideoIndex

    def build(self, windows: SyntheticWindows) -> None:
        tower = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
        config = HCMIConfig(
            text_config=tower | {"vocab_size": 8, "bos_token_id": 1, "eos_token_id": 2},
            vision_config=tower | {"image_size": 16, "patch_size": 8},
            projection_dim=WIDTH,
            max_frames=FRAMES,
            frames_per_clip=FRAMES // CLIPS,
        )
        processor = SimpleNamespace(frames_per_video=FRAMES)
        with VideoIndex.create(self.folder, HCMIModel(config), processor, precision=self.variant) as self.index:
            super().build(windows)

    def add(self, some: EncodedVideos) -> None:
        paths = [f"/videos/{name}.mp4" for name in some.names]
        with self.index.together():
            for path in paths:
                self.index.begin_file(path, FileState(1, 1), [Window(0, 0.0, float(FRAMES))])
        self.index.append(some, [(path, 0) for path in paths])

    def open(self) -> None:
        self.index = VideoIndex.open(self.folder)
        len(self.index)
        for stage, method in (("vectors", "_nearest_vectors"), ("clips", "_best_clips")):
            self._time(stage, method)

    def search(self, text: HCMITextFeatures) -> list[int]:
        result = self.index.search_features(text, top_k=TOP, depth=DEPTH)
        self.stages["exact score, hits"] = result.seconds["rescore"]
        return [int(Path(hit.video).stem) for hit in result.hits]

    def _time(self, stage: str, method: str) -> None:
        original = getattr(EmbeddedStore, method)

        def timed(*arguments: Any) -> Any:
            started = time.perf_counter()
            result = original(*arguments)
            self.stages[stage] = time.perf_counter() - started
            return result

        setattr(EmbeddedStore, method, timed)


class Brute(Engine):
    """Every window scored exactly, in float32, all in memory."""

    stored, slow = False, True

    def __init__(self, folder: Path, variant: str):
        super().__init__(folder, variant)
        self.parts: list[Any] = []

    def add(self, some: EncodedVideos) -> None:
        self.parts.append(some.features)

    def search(self, text: HCMITextFeatures) -> list[int]:
        scores = [blockwise_similarity(text, part, LEVEL_WEIGHTS).combined[0] for part in self.parts]
        return torch.topk(torch.cat(scores), TOP).indices.tolist()


def pieces(windows: SyntheticWindows) -> Iterator[EncodedVideos]:
    """All windows, `AT_ONCE` at a time."""
    for chunk in windows.chunks():
        for first in range(0, len(chunk), AT_ONCE):
            some = slice(first, first + AT_ONCE)
            yield EncodedVideos(
                chunk.names[some], chunk.features.select(some), chunk.timestamps[some], chunk.video_spans[some]
            )
