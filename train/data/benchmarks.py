"""The benchmarks by name. One entry a benchmark; its loader is imported when it is asked for."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # seconds of import, which a command line that only lists the names does not want to wait for
    from datasets import Dataset

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Benchmark:
    """What is known of a benchmark before any of it is read.

    Attributes:
        protocol: how its numbers are to be read; goes into every result.
        load: (split, folder or None for the default one) -> data set with a row a video.
    """

    protocol: str
    load: Callable[[str, Path | None], "Dataset"]


def _load_shape_stories(split: str, folder: Path | None) -> "Dataset":
    from .shape_stories import default_folder, load_shape_stories, write_shape_stories

    # A given folder that is complete is taken as it is, whatever its seed and sizes.
    if folder is None or not (folder / "dataset.json").is_file():
        folder = write_shape_stories(folder or default_folder())
    return load_shape_stories(folder, split)


BENCHMARKS = {
    "shape_stories": Benchmark(
        protocol="every caption is a query, the gallery holds all videos of the split, order decoys among them",
        load=_load_shape_stories,
    ),
}


def load_benchmark(name: str, split: str, folder: str | os.PathLike | None = None) -> "Dataset":
    """One split of a benchmark.

    Args:
        name: one of `BENCHMARKS`.
        split: one of `SPLITS`.
        folder: where its files are. Default: the benchmark's own folder in the Hugging Face cache; the built-in one
            is written there when it is not there yet.

    Returns:
        One row a video: `video_id`, `video` (path), `captions`, `start` and `end` (seconds, None: the whole file) and,
        where the benchmark has them, `events`.

    Raises:
        ValueError: an unknown name or split, or a folder that holds something else.
    """
    if name not in BENCHMARKS:
        raise ValueError(f"there is no benchmark {name!r}: choose one of {', '.join(sorted(BENCHMARKS))}")
    if split not in SPLITS:
        raise ValueError(f"there is no split {split!r}: choose one of {', '.join(SPLITS)}")
    return BENCHMARKS[name].load(split, None if folder is None else Path(folder))
