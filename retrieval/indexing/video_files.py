"""Which files are videos: those that were named, and those in folders."""

import os
from collections.abc import Iterable
from pathlib import Path

VIDEO_EXTENSIONS = frozenset(
    ".3gp .avi .flv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .webm .wmv".split()  # noqa: SIM905
)
"""What counts as a video inside a folder; a file given by name may be called anything."""


def find_videos(paths: Iterable[str]) -> list[str]:
    """
    Files and URLs as they are, folders as the videos in them and their sub-folders, in the order of their names; each
    once. Names that begin with a dot are passed over.

    Raises:
        ValueError: a path does not exist, or a folder has no videos.
    """
    videos: list[str] = []
    for path in paths:
        if os.path.isdir(path):
            found = _in_folder(Path(path))
            if not found:
                kinds = " ".join(sorted(VIDEO_EXTENSIONS))
                raise ValueError(f"The folder {path} has no videos ({kinds}). Files called otherwise have to be named.")
            videos += found
        elif "://" in path or os.path.exists(path):
            videos.append(path)
        else:
            raise ValueError(f"There is no file or folder {path}.")
    return list(dict.fromkeys(videos))


def _in_folder(folder: Path) -> list[str]:
    found = []
    for file in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
        if not hidden and file.suffix.lower() in VIDEO_EXTENSIONS and file.is_file():
            found.append(str(file))
    return found
