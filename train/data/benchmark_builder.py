"""What the loaders of the benchmarks share: annotations, the videos they belong to, the counts, and the Arrow cache."""

import hashlib
import json
import os
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import datasets

from .annotation import Annotation
from .annotation_files import AnnotationFolder
from .benchmark_info import BenchmarkInfo, Protocol, choose_protocol
from .video_files import VideoFiles

HUB_PREFIX = "hf://"

FEATURES = datasets.Features(
    {
        "video_id": datasets.Value("string"),
        "video": datasets.Value("string"),
        "captions": datasets.List(datasets.Value("string")),
        "start": datasets.Value("float64"),
        "end": datasets.Value("float64"),
    }
)
# Part of the cache's name: raise it when the same annotations give other rows.
_FORMAT = 1
# Streams are divided among processes and workers by these.
_SHARDS = 16


@dataclass
class FoundVideos:
    """
    The videos of a split that have a file and a caption, and those that do not.

    Attributes:
        rows: with the columns of the data set.
        without_file, without_caption: ids of the others.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    without_file: list[str] = field(default_factory=list)
    without_caption: list[str] = field(default_factory=list)


def find_videos(annotations: Iterable[Annotation], files: VideoFiles) -> FoundVideos:
    """
    Looks for the file of every video.

    Raises:
        ValueError: several files may be one video, or one file several videos.
    """
    found = FoundVideos()
    # Several stretches of one file are several videos.
    owners: dict[tuple[str, float | None, float | None], str] = {}
    for annotation in annotations:
        video_id, path = annotation.video_id, files.find(annotation.file_names)
        stretch = (path or "", annotation.start, annotation.end)
        if path is not None and (owner := owners.setdefault(stretch, video_id)) != video_id:
            raise ValueError(
                f"{path} would be both the videos {owner} and {video_id}: name a folder with one file each"
            )
        if not annotation.captions:
            found.without_caption.append(video_id)
        elif path is None:
            found.without_file.append(video_id)
        else:
            values = (video_id, path, list(annotation.captions), annotation.start, annotation.end)
            found.rows.append(dict(zip(FEATURES, values, strict=True)))
    return found


class BenchmarkBuilder(datasets.GeneratorBasedBuilder):
    """
    Builder of one split of a benchmark, named after the protocol; a subclass says what the annotation files mean.

    The annotation files are read and the videos looked for at construction. The Arrow files in the cache are reused
    for the same rows.

    Args:
        split: "train", "validation" or "test", as far as the protocol has it.
        annotations: folder with the annotation files, or "hf://owner/name".
        videos: folder with the video files; default that of the annotations.
        protocol: one of `PROTOCOLS`; default the first.
        allow_missing: leave out videos without file or caption and take other counts than the protocol's.
        cache_dir: where the Arrow files go; default the cache of `datasets`.

    Raises:
        ValueError: there is no such protocol or split, annotation files are absent or broken, videos are missing, or
            the counts are not the protocol's.
    """

    NAME: ClassVar[str]
    PROTOCOLS: ClassVar[Mapping[str, Protocol]]

    def __init__(
        self,
        *,
        split: str,
        annotations: str | os.PathLike | None = None,
        videos: str | os.PathLike | None = None,
        protocol: str | None = None,
        allow_missing: bool = False,
        cache_dir: str | os.PathLike | None = None,
    ) -> None:
        protocol = choose_protocol(self.NAME, self.PROTOCOLS, split, protocol)
        annotations, videos = self.places(annotations, videos)
        files = VideoFiles(videos)
        found = find_videos(self.read(split, annotations=annotations, protocol=protocol), files)
        self.split = split
        self.rows = found.rows
        expected = self.PROTOCOLS[protocol].splits[split]
        self.benchmark_info = BenchmarkInfo(
            benchmark=self.NAME,
            split=split,
            protocol=protocol,
            description=self.PROTOCOLS[protocol].description,
            videos=len(found.rows),
            captions=sum(len(row["captions"]) for row in found.rows),
            expected_videos=expected.videos,
            expected_captions=expected.captions,
            missing=len(found.without_file) + len(found.without_caption),
        )
        if not self.rows or not (allow_missing or self.benchmark_info.complete):
            raise ValueError(_problems(self.benchmark_info, found, files, annotations))
        contents = json.dumps([_FORMAT, self.benchmark_info.to_json(), self.rows])
        super().__init__(
            cache_dir=None if cache_dir is None else str(cache_dir),
            config_name=protocol,
            config_id=f"{protocol}-{hashlib.sha256(contents.encode()).hexdigest()[:16]}",
        )

    @staticmethod
    @abstractmethod
    def read_files(folder: AnnotationFolder, split: str, protocol: str) -> Iterator[Annotation]:
        """The split's videos in the order of its list; a video without captions where none are found."""

    @classmethod
    def places(
        cls, annotations: str | os.PathLike | None, videos: str | os.PathLike | None
    ) -> tuple[str | os.PathLike, str | os.PathLike]:
        """
        Where the annotations and the videos are, of which the one may stand for the other.

        Raises:
            ValueError: not enough is given.
        """
        if annotations is None:
            raise ValueError(f"{cls.NAME} needs its annotation files: name their folder (annotations)")
        if videos is None and is_on_hub(annotations):
            raise ValueError(f"{annotations} holds annotations: name the folder of the video files too (videos)")
        return annotations, annotations if videos is None else videos

    @classmethod
    def read(cls, split: str, *, annotations: str | os.PathLike | None, protocol: str) -> list[Annotation]:
        """As `read_annotations`."""
        if annotations is None:
            raise ValueError(f"{cls.NAME} needs its annotation files: name their folder (annotations)")
        if is_on_hub(annotations):
            from .hub_copies import read_hub_copy

            found = list(read_hub_copy(cls.NAME, str(annotations).removeprefix(HUB_PREFIX), split, protocol))
        else:
            found = list(cls.read_files(AnnotationFolder(annotations), split, protocol))
        counts = Counter(annotation.video_id for annotation in found)
        if repeated := [video_id for video_id, count in counts.items() if count > 1]:
            raise ValueError(f"{cls.NAME} {split} in {annotations} lists {_some(repeated)} more than once")
        return found

    @classmethod
    def load(
        cls, split: str, *, streaming: bool, annotations: str | os.PathLike | None, **place: Any
    ) -> datasets.Dataset | datasets.IterableDataset:
        """As `load_benchmark`."""
        builder = cls(split=split, annotations=annotations, **place)
        if streaming:
            return builder.as_streaming_dataset(split=split)
        builder.download_and_prepare()
        return builder.as_dataset(split=split)

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(description=self.benchmark_info.to_json(), features=FEATURES)

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        size = -(-len(self.rows) // _SHARDS)
        shards = [self.rows[first : first + size] for first in range(0, len(self.rows), size)]
        return [datasets.SplitGenerator(name=self.split, gen_kwargs={"shards": shards})]

    def _generate_examples(self, shards: list[list[dict[str, Any]]]) -> Iterator[tuple[str, dict[str, Any]]]:
        for shard in shards:
            for row in shard:
                yield row["video_id"], row


def is_on_hub(annotations: str | os.PathLike) -> bool:
    """Whether annotations are a copy on the Hub and no folder."""
    return str(annotations).startswith(HUB_PREFIX)


def _problems(info: BenchmarkInfo, found: FoundVideos, files: VideoFiles, annotations: str | os.PathLike) -> str:
    total = info.videos + info.missing
    lines = []
    if found.without_caption:
        count = len(found.without_caption)
        lines.append(f"{count:,} of {total:,} videos have no caption in {annotations}: {_some(found.without_caption)}")
    if found.without_file:
        count = len(found.without_file)
        lines.append(
            f"{count:,} of {total:,} videos have no file among the {len(files):,} files in {files.folder} and the "
            f"folders below it: {_some(found.without_file)}"
        )
    lines += info.wrong_counts
    way_out = "To go on with what is there, which every result will say, allow it: allow_missing, --allow-missing."
    if not found.rows:
        way_out = "Name the folder of the video files (videos, --videos)." if total else "The list is empty."
    return f"{info.benchmark} {info.split}, {info.protocol}, read from {annotations}: {'; '.join(lines)}. {way_out}"


def _some(names: list[str]) -> str:
    return ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
