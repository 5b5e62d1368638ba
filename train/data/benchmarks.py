"""The benchmarks by name. One entry a benchmark; its module is imported when it is asked for."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Union

from .annotation import Annotation
from .benchmark_info import SPLITS as SPLITS
from .benchmark_info import Protocol, choose_protocol

if TYPE_CHECKING:  # seconds of import, which a command line that only lists the names does not want to wait for
    from datasets import Dataset, IterableDataset


@dataclass(frozen=True)
class Benchmark:
    """
    Where a benchmark's code is.

    Attributes:
        module: beside this one.
        builder: the `datasets` builder class in it, with `PROTOCOLS` and the class methods `load` and `read`.
    """

    module: str
    builder: str

    @property
    def code(self) -> Any:
        """The builder class."""
        return getattr(import_module(f".{self.module}", __package__), self.builder)

    @property
    def protocols(self) -> Mapping[str, Protocol]:
        """By name; the first one is the default."""
        return self.code.PROTOCOLS


BENCHMARKS = {
    "shape_stories": Benchmark("shape_stories", "ShapeStories"),
    "msrvtt": Benchmark("msrvtt", "MSRVTT"),
    "msvd": Benchmark("msvd", "MSVD"),
    "lsmdc": Benchmark("lsmdc", "LSMDC"),
    "didemo": Benchmark("didemo", "DiDeMo"),
    "activitynet": Benchmark("activitynet", "ActivityNet"),
    "folder": Benchmark("folder", "OwnVideos"),
}


def protocols(name: str) -> Mapping[str, Protocol]:
    """
    A benchmark's protocols by name; the first one is the default.

    Raises:
        ValueError: an unknown benchmark.
    """
    if name not in BENCHMARKS:
        raise ValueError(f"there is no benchmark {name!r}: choose one of {', '.join(sorted(BENCHMARKS))}")
    return BENCHMARKS[name].protocols


def load_benchmark(
    name: str,
    split: str,
    *,
    annotations: str | os.PathLike | None = None,
    videos: str | os.PathLike | None = None,
    protocol: str | None = None,
    allow_missing: bool = False,
    streaming: bool = False,
    cache_dir: str | os.PathLike | None = None,
) -> Union["Dataset", "IterableDataset"]:
    """
    One split of a benchmark. `benchmark_info` tells its protocol and counts.

    Args:
        name: one of `BENCHMARKS`.
        split: one of `SPLITS`.
        annotations: folder with the annotation files, at any depth, or "hf://owner/name", a copy on the Hub. For
            shape_stories the benchmark's folder; by default the one in the Hugging Face cache, which is written when
            it is not there.
        videos: folder with the video files, at any depth; by default the one of the annotations.
        protocol: one of `protocols(name)`; by default the first.
        allow_missing: leave videos without a file or a caption out, and take other counts than the protocol's.
        streaming: give an `IterableDataset`, which writes no cache.
        cache_dir: where the Arrow files go; by default the cache of `datasets`, for shape_stories its own folder.

    Returns:
        One row a video: `video_id`, `video` (path), `captions`, `start` and `end` (seconds, None: the whole file) and,
        where the benchmark has them, `events`. `info.config_name` is the protocol.

    Raises:
        ValueError: an unknown benchmark, protocol or split, annotation files that are absent or broken, videos that
            are missing, or other counts than the protocol's.
    """
    chosen = choose_protocol(name, protocols(name), split, protocol)
    return BENCHMARKS[name].code.load(
        split,
        annotations=annotations,
        videos=videos,
        protocol=chosen,
        allow_missing=allow_missing,
        streaming=streaming,
        cache_dir=cache_dir,
    )


def read_annotations(
    name: str, split: str, annotations: str | os.PathLike | None = None, protocol: str | None = None
) -> list[Annotation]:
    """
    What the annotation files say, without looking for videos and without a check of the counts.

    Args:
        name, split, annotations, protocol: as in `load_benchmark`.

    Returns:
        One entry a video in the order of the split's list; videos that are listed and not described have no captions.

    Raises:
        ValueError: as in `load_benchmark`, or an id that occurs twice.
    """
    chosen = choose_protocol(name, protocols(name), split, protocol)
    return BENCHMARKS[name].code.read(split, annotations=annotations, protocol=chosen)
