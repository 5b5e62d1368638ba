"""The built-in benchmark: short stories of coloured shapes as real MP4 files, captions and exact ground truth.

A story has one to four events ("a small red ring slides left, then two blue squares grow"), one after another or two
at once. The galleries hold order decoys: the same events in another arrangement. Everything follows from the seed.
"""

import json
import os
import random
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, ClassVar

import datasets
from huggingface_hub.constants import HF_HOME
from tqdm.auto import tqdm

from hcmi.train.cores import usable_cores

from .annotation import Annotation
from .benchmark_info import BenchmarkInfo, Counts, Protocol
from .shape_stories_language import describe
from .shape_stories_rendering import write_video
from .shape_stories_world import Story, sample_stories

VERSION = "1.0.0"
DEFAULT_SIZES = {"train": 4000, "validation": 300, "test": 300}
CAPTIONS_PER_VIDEO = 3

# The splits draw unique stories in this order: the test split does not depend on the size of the others.
_SPLITS = ("test", "validation", "train")
_SETTINGS_FILE = "dataset.json"
_UNFINISHED_FILE = "unfinished.json"
_DESCRIPTION = (
    "shape_stories: short stories of moving coloured shapes with order decoys; three captions a video, and for every "
    "event its time span and the words that name it."
)


def default_folder(seed: int = 0) -> Path:
    """Where the benchmark of a seed is kept unless a folder is given: inside the Hugging Face cache."""
    return Path(HF_HOME) / "hcmi" / f"shape_stories-{seed}"


def write_shape_stories(
    folder: str | os.PathLike,
    seed: int = 0,
    sizes: Mapping[str, int] | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> Path:
    """Write the benchmark into a folder, or finish or reuse what is there.

    The folder gets `videos/<split>/<video_id>.mp4`, `<split>.jsonl` and, last, `dataset.json`. The files depend on
    the seed and the sizes only, not on the number of workers.

    Args:
        folder: a new or empty folder, or one that an earlier call with the same settings wrote or began to write.
        seed: everything is drawn from it.
        sizes: number of videos of each of the splits "train", "validation" and "test"; default 4000, 300 and 300.
        workers: processes that render; default one a usable CPU core. 1 renders in this process.
        progress: show a progress bar.

    Returns:
        The folder.

    Raises:
        ValueError: the folder belongs to other settings or to something else, a split is unknown, or there are not
            as many different stories as asked for.
    """
    folder = Path(folder)
    sizes = dict(DEFAULT_SIZES if sizes is None else sizes)
    if unknown := set(sizes) - set(_SPLITS):
        raise ValueError(f"unknown splits {sorted(unknown)}: sizes may name {', '.join(sorted(_SPLITS))}")
    if wrong := {split: size for split, size in sizes.items() if size < 1}:
        raise ValueError(f"every split needs at least one video, got {wrong}")
    sizes = {split: sizes[split] for split in _SPLITS if split in sizes}
    settings = {"version": VERSION, "seed": seed, "sizes": sizes}
    complete = _check_folder(folder, settings)
    missing = [(split, index) for split, size in sizes.items() for index in _missing_videos(folder, split, size)]
    annotated = all((folder / f"{split}.jsonl").is_file() for split in sizes)
    if complete and annotated and not missing:
        return folder

    folder.mkdir(parents=True, exist_ok=True)
    if not complete:
        _write_text(folder / _UNFINISHED_FILE, json.dumps(settings, indent=2) + "\n")
    stories = _sample_all(seed, sizes)
    for split, lines in _annotate_all(seed, stories).items():
        (folder / "videos" / split).mkdir(parents=True, exist_ok=True)
        _write_text(folder / f"{split}.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    jobs = [
        (str(folder / _video_path(split, index)), stories[split][index], (seed, _SPLITS.index(split), index))
        for split, index in missing
    ]
    _write_videos(jobs, workers, progress)
    _write_text(folder / _SETTINGS_FILE, json.dumps(settings, indent=2) + "\n")
    (folder / _UNFINISHED_FILE).unlink(missing_ok=True)
    return folder


def load_shape_stories(
    folder: str | os.PathLike, split: str, *, streaming: bool = False, cache_dir: str | os.PathLike | None = None
) -> datasets.Dataset | datasets.IterableDataset:
    """Load a written split as a `datasets.Dataset`, cached as Arrow in `folder/.cache`.

    Args:
        folder: a folder that `write_shape_stories` has completed.
        split: "train", "validation" or "test".
        streaming: give an `IterableDataset`.
        cache_dir: where the Arrow files go instead.

    Returns:
        One row a video: `video_id`, `video` (absolute path), `captions`, `start` and `end` (None: the whole video) and
        `events`: a list of `start` and `end` in seconds, `phrases` (the words of caption k that name the event) and
        `spans` (their characters [first, last) in caption k). `benchmark_info` tells the counts.

    Raises:
        ValueError: the folder is not a complete benchmark or has no such split.
    """
    builder = ShapeStories(cache_dir=str(cache_dir or Path(folder) / ".cache"), data_dir=str(Path(folder).resolve()))
    rows = builder.read_split(split)
    if streaming:
        dataset = builder.as_streaming_dataset(split=split)
    else:
        builder.download_and_prepare()
        dataset = builder.as_dataset(split=split)
    (name, protocol), *_ = ShapeStories.PROTOCOLS.items()
    captions = sum(len(row["captions"]) for row in rows)
    info = BenchmarkInfo("shape_stories", split, name, protocol.description, len(rows), captions)
    dataset.info.description = info.to_json()
    dataset.info.config_name = name
    return dataset


class ShapeStories(datasets.GeneratorBasedBuilder):
    """Builder over a written folder: `ShapeStories(data_dir=folder).as_streaming_dataset(split="test")`."""

    VERSION = datasets.Version(VERSION)
    PROTOCOLS: ClassVar[Mapping[str, Protocol]] = {
        "decoys": Protocol(
            "every caption is a query, the gallery holds all videos of the split, order decoys among them",
            {split: Counts() for split in reversed(_SPLITS)},
        )
    }

    @classmethod
    def load(
        cls,
        split: str,
        *,
        annotations: str | os.PathLike | None,
        videos: str | os.PathLike | None,
        protocol: str,
        allow_missing: bool,
        streaming: bool,
        cache_dir: str | os.PathLike | None,
    ) -> datasets.Dataset | datasets.IterableDataset:
        """As `load_benchmark`; the folder is complete when it is written, so that nothing can be missing."""
        annotations, _ = cls.places(annotations, videos)
        return load_shape_stories(_written(annotations), split, streaming=streaming, cache_dir=cache_dir)

    @classmethod
    def places(
        cls, annotations: str | os.PathLike | None, videos: str | os.PathLike | None
    ) -> tuple[str | os.PathLike, str | os.PathLike]:
        """The benchmark's folder, twice: its own in the cache unless one is given."""
        if videos is not None:
            raise ValueError("shape_stories has its videos beside its annotations: give no other folder (videos)")
        folder = default_folder() if annotations is None else annotations
        return folder, folder

    @classmethod
    def read(cls, split: str, *, annotations: str | os.PathLike | None, protocol: str) -> list[Annotation]:
        """As `read_annotations`."""
        folder = _written(annotations)
        rows = cls(cache_dir=str(folder / ".cache"), data_dir=str(folder)).read_split(split)
        return [Annotation(row["video_id"], tuple(row["captions"]), (row["video_id"],)) for row in rows]

    @property
    def folder(self) -> Path:
        if self.config.data_dir is None:
            raise ValueError("ShapeStories needs data_dir, the folder that write_shape_stories wrote")
        return Path(self.config.data_dir)

    @property
    def split_sizes(self) -> dict[str, int]:
        """Number of videos of every split that the folder has."""
        path = self.folder / _SETTINGS_FILE
        if not path.is_file():
            raise ValueError(f"{self.folder} holds no complete shape stories: call write_shape_stories on it first")
        return json.loads(path.read_text())["sizes"]

    def read_split(self, split: str) -> list[dict[str, Any]]:
        """The rows of a split's annotation file."""
        if split not in self.split_sizes:
            raise ValueError(f"{self.folder} has the splits {', '.join(self.split_sizes)}, not {split!r}")
        return [json.loads(line) for line in (self.folder / f"{split}.jsonl").read_text("utf-8").splitlines()]

    def _info(self) -> datasets.DatasetInfo:
        event = {
            "start": datasets.Value("float64"),
            "end": datasets.Value("float64"),
            "phrases": datasets.List(datasets.Value("string")),
            "spans": datasets.List(datasets.List(datasets.Value("int64"), length=2)),
        }
        features = {
            "video_id": datasets.Value("string"),
            "video": datasets.Value("string"),
            "captions": datasets.List(datasets.Value("string")),
            "start": datasets.Value("float64"),
            "end": datasets.Value("float64"),
            "events": datasets.List(event),
        }
        return datasets.DatasetInfo(description=_DESCRIPTION, features=datasets.Features(features))

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        return [datasets.SplitGenerator(name=split, gen_kwargs={"split": split}) for split in self.split_sizes]

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict]]:
        for row in self.read_split(split):
            row["video"] = str(self.folder / row["video"])
            yield row["video_id"], {column: row[column] for column in self.info.features}


def _written(folder: str | os.PathLike | None) -> Path:
    """The folder, or the default one; written where it is not complete, else taken whatever its seed and sizes."""
    folder = default_folder() if folder is None else Path(folder)
    return folder if (folder / _SETTINGS_FILE).is_file() else write_shape_stories(folder)


def _video_path(split: str, index: int) -> str:
    return f"videos/{split}/{split}_{index:05d}.mp4"


def _missing_videos(folder: Path, split: str, size: int) -> list[int]:
    """The videos of a split that are not there, or were cut short to nothing by a crash of the machine."""
    present: set[str] = set()
    if (directory := folder / "videos" / split).is_dir():
        with os.scandir(directory) as entries:
            present = {entry.name for entry in entries if entry.stat().st_size > 0}
    return [index for index in range(size) if Path(_video_path(split, index)).name not in present]


def _check_folder(folder: Path, settings: dict) -> bool:
    """Whether the folder is complete; raise if it is something else than these settings' benchmark."""
    for name in (_SETTINGS_FILE, _UNFINISHED_FILE):
        if (folder / name).is_file():
            found = json.loads((folder / name).read_text())
            if found != settings:
                raise ValueError(
                    f"{folder} holds shape stories of other settings ({json.dumps(found)}) than those asked for "
                    f"({json.dumps(settings)}): choose another folder, or delete this one to write it anew"
                )
            return name == _SETTINGS_FILE
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty and holds no shape stories: choose a new folder")
    return False


def _write_text(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def _sample_all(seed: int, sizes: Mapping[str, int]) -> dict[str, list[Story]]:
    used: set = set()
    return {
        split: sample_stories(random.Random(f"stories {seed} {split}"), size, used) for split, size in sizes.items()
    }


def _annotate_all(seed: int, stories: Mapping[str, list[Story]]) -> dict[str, list[dict]]:
    """The lines of every split's annotation file. No caption occurs twice, in one split or in two."""
    taken: set[str] = set()
    lines = {}
    for split in stories:
        rng = random.Random(f"captions {seed} {split}")
        lines[split] = [_annotate(rng, story, split, index, taken) for index, story in enumerate(stories[split])]
    return lines


def _annotate(rng: random.Random, story: Story, split: str, index: int, taken: set[str]) -> dict:
    captions: list[str] = []
    spans: list[list[tuple[int, int]]] = []
    tries = 0
    while len(captions) < CAPTIONS_PER_VIDEO:
        # Captions with all sizes tell different stories apart, so that a few tries always suffice.
        caption, places = describe(rng, story.slots, name_sizes=tries > CAPTIONS_PER_VIDEO)
        tries += 1
        if caption not in taken:
            taken.add(caption)
            captions.append(caption)
            spans.append(places)
    events = [
        {
            "start": start,
            "end": end,
            "phrases": [caption[slice(*places[k])] for caption, places in zip(captions, spans, strict=True)],
            "spans": [list(places[k]) for places in spans],
        }
        for k, (_, start, end) in enumerate(story.events)
    ]
    return {
        "video_id": f"{split}_{index:05d}",
        "video": _video_path(split, index),
        "captions": captions,
        "start": None,
        "end": None,
        "events": events,
        "decoy_group": story.decoy_group,
    }


def _write_videos(jobs: list, workers: int | None, progress: bool) -> None:
    if workers is None:
        workers = usable_cores()
    workers = min(workers, len(jobs))
    with tqdm(total=len(jobs), desc="shape stories", unit="video", disable=not progress) as bar:
        if workers < 2:
            for job in jobs:
                write_video(*job)
                bar.update()
            return
        # Spawned, because the caller may have threads (torch), which a fork would break.
        pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
        try:
            chunk = max(1, min(16, len(jobs) // (4 * workers)))
            for _ in pool.map(write_video, *zip(*jobs, strict=True), chunksize=chunk):
                bar.update()
        finally:
            pool.shutdown(cancel_futures=True)
