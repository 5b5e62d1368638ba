"""Finding the videos of a benchmark in a folder: one walk, whatever the extensions and however the files are nested."""

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

_USUAL = frozenset({"avi", "flv", "m4v", "mkv", "mov", "mp4", "mpeg", "mpg", "webm", "wmv"})
# What people once uploaded to Flickr, where DiDeMo's videos come from.
_UNUSUAL = frozenset({"3g2", "3gp", "3gpp", "asf", "divx", "f4v", "gif", "m2ts", "mts", "ogv", "qt", "ts", "vob"})
VIDEO_EXTENSIONS = _USUAL | _UNUSUAL


def walk_files(folder: str | os.PathLike) -> Iterator[str]:
    """
    Absolute paths of all files in a folder and below it, in no particular order.

    Links are followed, each folder is entered once; hidden files and folders are passed over.

    Raises:
        ValueError: there is no such folder.
    """
    folder = os.path.abspath(os.path.expanduser(folder))
    if not os.path.isdir(folder):
        raise ValueError(f"there is no folder {folder}")
    waiting, entered = [folder], set()
    while waiting:
        current = waiting.pop()
        status = os.stat(current)
        if (status.st_dev, status.st_ino) in entered:
            continue
        entered.add((status.st_dev, status.st_ino))
        with os.scandir(current) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    waiting.append(entry.path)
                elif entry.is_file():
                    yield entry.path


class VideoFiles:
    """
    The files of a folder by their names without the extension of a video file.

    "clip.mov.mp4" is found as "clip.mov", "clip.mp4" and "clip." as "clip", and "clip_00.01.886", where 886 is no
    extension, as itself.

    Args:
        folder: is walked once.

    Raises:
        ValueError: there is no such folder.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self.folder = Path(os.path.abspath(os.path.expanduser(folder)))
        self._paths: dict[str, list[str]] = defaultdict(list)
        for path in walk_files(folder):
            self._paths[without_video_extension(os.path.basename(path))].append(path)

    def __len__(self) -> int:
        """Number of files, videos or not."""
        return sum(map(len, self._paths.values()))

    def find(self, names: Sequence[str]) -> str | None:
        """
        The absolute path of the file that has the first of the names that any file has; None where no file has one.

        Args:
            names: without extension; "folder/name" asks for the folder too.

        Raises:
            ValueError: several files have the name.
        """
        for name in names:
            parent, _, stem = name.rpartition("/")
            paths = self._paths.get(stem, [])
            if parent:
                paths = [path for path in paths if os.path.dirname(path).endswith(os.sep + parent.replace("/", os.sep))]
            if len(paths) > 1:
                raise ValueError(
                    f"{len(paths)} files in {self.folder} may be the video {stem}: {', '.join(sorted(paths)[:3])}; "
                    "name a folder with one file a video"
                )
            if paths:
                return paths[0]
        return None


def without_video_extension(name: str) -> str:
    """A file's name without a video file's extension, or without the dot where nothing follows it."""
    stem, dot, extension = name.rpartition(".")
    return stem if dot and (not extension or extension.lower() in VIDEO_EXTENSIONS) else name
