"""What there is to do: files on the disk beside those that an index knows."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import NamedTuple

from hcmi.retrieval.index.catalog import FileState, IndexedVideo
from hcmi.retrieval.index.video_index import VideoIndex


class Share(NamedTuple):
    """Which of several processes this one is."""

    rank: int = 0
    processes: int = 1

    def takes(self, path: str, known: IndexedVideo | None) -> bool:
        """
        Whether a file is this process's: by its path alone, so that it is in every run. What an earlier run has left
        unfinished is the first process's, which writes to the index that has the other windows.
        """
        if known is not None and known.state == "partial":
            return self.rank == 0
        return int.from_bytes(blake2b(os.fsencode(path), digest_size=8).digest()) % self.processes == self.rank


@dataclass
class FileChanges:
    """
    A process's files, by path.

    Args:
        new: the index does not know.
        changed: have another size or time than the index knows.
        unfinished: are as the index knows them, and lack windows.
        unreadable: file -> why it cannot be read.
        not_tried: how many of these are known to be, and have not changed since.
        unchanged: how many are as the index knows them.
    """

    new: dict[str, FileState] = field(default_factory=dict)
    changed: dict[str, FileState] = field(default_factory=dict)
    unfinished: dict[str, FileState] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    not_tried: int = 0
    unchanged: int = 0

    @property
    def states(self) -> dict[str, FileState]:
        """Of all files that are to be read."""
        return self.unfinished | self.changed | self.new


def compare(paths: Iterable[str], index: VideoIndex, share: Share, retry: bool) -> FileChanges:
    """
    Sorts files by what is to be done about them.

    Args:
        paths: absolute.
        index: that may know them.
        share: the others' files are left out.
        retry: whether to read again what could not be read and has not changed since.
    """
    changes = FileChanges()
    for path in paths:
        try:
            path.encode()
            status = os.stat(path)
        except UnicodeEncodeError:
            if share.takes(path, None):
                changes.unreadable[os.fsencode(path).decode(errors="replace")] = "its name is not UTF-8: rename it"
            continue
        except OSError as error:
            if share.takes(path, None):
                changes.unreadable[path] = error.strerror
            continue
        known = index.get(path)
        if not share.takes(path, known):
            continue
        state = FileState(status.st_size, status.st_mtime_ns)
        if known is None:
            changes.new[path] = state
        elif (known.file.size, known.file.mtime_ns) != (state.size, state.mtime_ns):
            changes.changed[path] = state
        elif known.state == "partial":
            changes.unfinished[path] = state
        elif known.state == "unreadable" and not retry:
            changes.unreadable[path] = known.reason
            changes.not_tried += 1
        elif known.state == "unreadable":
            changes.changed[path] = state
        else:
            changes.unchanged += 1
    return changes


def removed(folders: Iterable[str], index: VideoIndex) -> list[str]:
    """Files that an index knows to be in one of the folders, and that are not there any more; absolute paths."""
    inside = tuple(os.path.join(os.path.abspath(folder), "") for folder in folders)
    paths = (index.resolve(video.path) for video in index)
    return [path for path in paths if path.startswith(inside) and not os.path.lexists(path)]
