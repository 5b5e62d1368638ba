"""One's own videos: a folder with video files, and a table of captions.

Annotations: a .csv, .tsv, .json or .jsonl file (see `caption_files`), or a folder with one, or one in the manner of
`videofolder`: `metadata.csv` or `metadata.jsonl` beside the videos, or one in each of its folders. Columns: the video's
file, its caption or captions, and, if they are there, `video_id`, `split`, and `start` and `end` in seconds, when the
captions describe a stretch of the file only. Other columns are not read. Rows of the same file (or `video_id`) and
stretch are one video with several captions, in the order of the rows; a video's id is its `video_id`, else its file's
path without the extension, and the stretch.

A file is named with its path from the table's folder or from any folder below that of the videos, with or without its
extension. An absolute path that is not there, since the table comes from another machine, is looked for by the file's
name, if that belongs to one path only.

Splits: the `split` column, else folders called train, validation and test with a `metadata` file each, else a hash of
the file's name: 8 of 10 files to train, 1 to validate, 1 to test, at least one each. A file keeps its split when others
are added (unless it had to fill an empty split), and stretches of one file stay together.
"""

import hashlib
import os
import posixpath
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from .annotation import Annotation
from .annotation_files import AnnotationFolder
from .benchmark_builder import BenchmarkBuilder
from .benchmark_info import SPLITS, Counts, Protocol
from .caption_files import SUFFIXES, Entry, read_entries, split_named
from .video_files import walk_files, without_video_extension

_METADATA, _CAPTIONS = "metadata", "captions"


class OwnVideos(BenchmarkBuilder):
    """
    See the module.

    Args:
        annotations: the file or folder; default that of the videos.
        videos: their folder; default that of the annotations.
    """

    NAME = "folder"
    PROTOCOLS = {
        "own": Protocol(
            "own videos, split as annotated or else by a hash of their names: every caption is a query in its split",
            {split: Counts() for split in SPLITS},
        )
    }

    @classmethod
    def places(
        cls, annotations: str | os.PathLike | None, videos: str | os.PathLike | None
    ) -> tuple[str | os.PathLike, str | os.PathLike]:
        """
        The annotations and the folder of the videos, where one of them may stand for both.

        Raises:
            ValueError: neither is given.
        """
        annotations = videos if annotations is None else annotations
        if annotations is None:
            raise ValueError("name the folder of the videos (videos), and the file with their captions (annotations)")
        if videos is None:
            path = os.path.expanduser(annotations)
            videos = os.path.dirname(os.path.abspath(path)) if os.path.isfile(path) else annotations
        return annotations, videos

    @classmethod
    def read(cls, split: str, *, annotations: str | os.PathLike | None, protocol: str) -> list[Annotation]:
        """As `read_annotations`; `annotations` may be a file."""
        if annotations is not None and os.path.isfile(path := os.path.expanduser(annotations)):
            return list(_annotations([Path(os.path.abspath(path))], split))
        return super().read(split, annotations=annotations, protocol=protocol)

    @staticmethod
    def read_files(folder: AnnotationFolder, split: str, protocol: str) -> Iterator[Annotation]:
        return _annotations(_tables(folder.folder), split)


@dataclass
class _Video:
    """A stretch of a file, and what is said about it."""

    first: Entry
    table: Path
    captions: list[str] = field(default_factory=list)

    @property
    def file(self) -> tuple[Path, str]:
        """What stretches of one file share: a table's folder, and the path from there."""
        return self.table.parent, _stem(self.first.file)


def _tables(folder: Path) -> list[Path]:
    """The files with captions: all `metadata` files, or `captions`, or else the only one."""
    paths = [Path(path) for path in sorted(walk_files(folder)) if path.lower().endswith(SUFFIXES)]
    if metadata := [path for path in paths if path.stem.lower() == _METADATA]:
        for parent, count in Counter(path.parent for path in metadata).items():
            if count > 1:
                raise ValueError(f"{parent} has {count} files called {_METADATA}: keep one, or name it (annotations)")
        return metadata
    here = [path for path in paths if path.parent == folder]
    found = [path for path in here if path.stem.lower() == _CAPTIONS] or here
    if len(found) != 1:
        there = f"has {', '.join(path.name for path in found[:5])}" if found else "has no table of captions"
        raise ValueError(
            f"{folder} {there}: name one file with columns for video and caption (annotations, --annotations), or call "
            f"it {_CAPTIONS}.csv, or {_METADATA}.csv beside the videos"
        )
    return found


def _annotations(tables: Sequence[Path], split: str) -> Iterator[Annotation]:
    videos: dict[str, _Video] = {}
    for table in tables:
        entries = read_entries(table)
        for entry in _in_split_folder(table, entries) if len(tables) > 1 else entries:
            video = videos.setdefault(_video_id(entry, table, tables), _Video(entry, table))
            _refuse_another(video, entry, table)
            video.captions.extend(entry.captions)
    splits = _splits(list(videos.values()))
    if split not in splits:
        own = ", ".join(sorted(set(splits)))
        fixed = "; or train for epochs fixed beforehand (--choose last)" if split == "validation" else ""
        raise ValueError(
            f"{tables[0]}: no row belongs to the split {split}, only to {own}: name it in some rows, or leave the "
            f"column out, so that the videos are divided by a hash of their names{fixed}"
        )
    names = Counter(posixpath.basename(file) for _, file in {video.file for video in videos.values()})
    for (video_id, video), own in zip(videos.items(), splits, strict=True):
        if own == split:
            captions, start, end = tuple(video.captions), video.first.start, video.first.end
            yield Annotation(video_id, captions, _file_names(video, names), start, end)


def _in_split_folder(table: Path, entries: list[Entry]) -> list[Entry]:
    """Entries of one of several `metadata` files: its folder may be named like a split; a split column goes first."""
    return [replace(entry, split=entry.split or split_named(table.parent.name)) for entry in entries]


def _path(file: str) -> str:
    """With forward slashes, and without "./"."""
    return posixpath.normpath(file.replace("\\", "/"))


def _stem(file: str) -> str:
    """A path without a video file's extension."""
    file = _path(file)
    return posixpath.join(posixpath.dirname(file), without_video_extension(posixpath.basename(file)))


def _video_id(entry: Entry, table: Path, tables: Sequence[Path]) -> str:
    name = _stem(entry.file) if entry.video_id is None else entry.video_id
    if len(tables) > 1 and entry.video_id is None:
        top = os.path.commonpath([other.parent for other in tables])
        name = posixpath.join(table.parent.relative_to(top).as_posix(), name).removeprefix("./")
    if entry.start is None and entry.end is None:
        return name
    return f"{name}_{entry.start or 0:g}_{'end' if entry.end is None else f'{entry.end:g}'}"


def _refuse_another(video: _Video, entry: Entry, table: Path) -> None:
    """A row has to agree with the first one of its video."""
    first = video.first
    for what, known, told in (
        ("file", _path(first.file), _path(entry.file)),
        ("folder", str(video.table.parent), str(table.parent)),
        ("split", first.split, entry.split),
    ):
        if known != told:
            raise ValueError(
                f"{entry.where}: the {what} is {told}, but in {first.where}, which is about the same video, {known}; "
                "give different videos different names (a column video_id), and all rows of one the same"
            )


def _splits(videos: Sequence[_Video]) -> list[str]:
    """Each video's split, told or drawn."""
    told = [video.first.split for video in videos if video.first.split is not None]
    if len(told) == len(videos):
        return told
    if told:
        where = next(video.first.where for video in videos if video.first.split is None)
        raise ValueError(f"{where}: no split, while other rows have one: all of them need it, or none")
    drawn = _drawn_splits(list(dict.fromkeys(video.file for video in videos)))
    return [drawn[video.file] for video in videos]


def _drawn_splits(files: Sequence[tuple[Path, str]]) -> dict[tuple[Path, str], str]:
    """Splits by a hash of the file's path, the same on every machine and for every order of the rows."""
    if len(files) < len(SPLITS):
        raise ValueError("three videos are the least that can be divided into train, validation and test")
    numbers = {file: int(hashlib.sha256(file[1].encode()).hexdigest(), 16) for file in files}
    splits = {file: {0: "test", 1: "validation"}.get(number % 10, "train") for file, number in numbers.items()}
    for split in SPLITS:
        if split not in splits.values():
            largest = Counter(splits.values()).most_common(1)[0][0]
            splits[min((file for file in files if splits[file] == largest), key=numbers.__getitem__)] = split
    return splits


def _file_names(video: _Video, names: Counter[str]) -> tuple[str, ...]:
    folder, name = video.file
    beside = posixpath.normpath(posixpath.join(folder.as_posix(), name)).lstrip("/")
    outward = name.removeprefix("/")
    while outward.startswith("../"):
        outward = outward.removeprefix("../")
    base = posixpath.basename(name)
    return tuple(dict.fromkeys((beside, outward, *[base] * (posixpath.isabs(name) and names[base] == 1))))
