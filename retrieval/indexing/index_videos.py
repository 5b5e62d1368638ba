"""Video files into an index: what is new or has changed, and what an earlier run has left unfinished."""

import os
import time
from collections.abc import Sequence
from typing import Any

from hcmi.retrieval.index.catalog import FileState
from hcmi.retrieval.index.video_index import VideoIndex

from .file_changes import Share, compare, removed
from .parts import join_parts
from .report import IndexReport
from .run import IndexingRun, IndexOptions
from .video_files import find_videos


def index_videos(
    index: VideoIndex,
    videos: Sequence[str | os.PathLike],
    *,
    remove_missing: bool = False,
    **options: Any,
) -> IndexReport:
    """
    Adds files, and the videos in folders, to an index that is open for writing. Files that it has already are read
    again only if their size or time has changed; what an earlier call has left unfinished goes on at the same window.

    What is encoded is committed batch by batch: it can be found at once, and is kept whatever happens then, a Ctrl-C
    among it.

    Args:
        index: open for writing.
        videos: files and folders.
        remove_missing: delete from the index what is not in the folders any more; otherwise it is only reported.
        options: see [`IndexOptions`].

    Returns:
        What became of the files; it is also in the index's folder, as `report.json`. Files that cannot be read stop
        nothing: the report and the index tell them.

    Raises:
        ValueError: no videos, one that is a URL, or an impossible option.
        ChildProcessError: no process can be started that reads.
    """
    if isinstance(videos, (str, os.PathLike)):
        raise ValueError(f"`videos` has to be a list of files and folders: put {os.fspath(videos)!r} into one.")
    settings = IndexOptions(**options)
    paths = absolute_paths(videos)
    join_parts(index)
    report = index_files(index, index, paths, Share(), settings)
    complete(index, report, videos, remove_missing)
    return report


def absolute_paths(videos: Sequence[str | os.PathLike]) -> list[str]:
    """
    The files among files and folders.

    Raises:
        ValueError: there are none, a path does not exist, or is a URL.
    """
    found = find_videos([os.fspath(path) for path in videos])
    if not found:
        raise ValueError("There are no videos to index: name files or folders.")
    for path in found:
        if "://" in path:
            raise ValueError(f"{path} is a URL: an index takes files. Download it first.")
    return list(dict.fromkeys(map(os.path.abspath, found)))


def index_files(
    index: VideoIndex, known: VideoIndex, paths: Sequence[str], share: Share, options: IndexOptions
) -> IndexReport:
    """
    Encodes a process's share of files into `index`.

    Args:
        known: the index that tells which files are known; another one where several processes fill one each.
        paths: absolute.
    """
    began = time.monotonic()
    changes = compare(paths, known, share, options.retry)
    report = IndexReport(unchanged=changes.unchanged, unreadable=changes.unreadable, not_tried=changes.not_tried)
    report.videos = len(changes.states) + len(changes.unreadable) + changes.unchanged
    try:
        if changes.states:
            IndexingRun(index, known, changes, report, options).run()
        report.finished = True
    finally:
        report.seconds = time.monotonic() - began
        report.save(index.path)
    return report


def complete(index: VideoIndex, report: IndexReport, videos: Sequence[str | os.PathLike], remove_missing: bool) -> None:
    """Applies to an index what is left to do when all files have been read, and writes the report."""
    for update in report.updates:
        index.update_file(update.old, update.new, FileState(update.size, update.mtime_ns, update.digest))
    report.removed = removed([os.fspath(path) for path in videos], index)
    if remove_missing:
        index.delete(report.removed)
        report.deleted = True
    report.save(index.path)
