"""Indexing by several processes, on one machine or many with a file system in common: each fills a part of its own."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from hcmi.retrieval.index.video_index import VideoIndex

from .file_changes import Share
from .index_videos import absolute_paths, complete, index_files
from .parts import join_parts, part_folder
from .report import IndexReport
from .run import IndexOptions


def index_in_processes(
    state: PartialState,
    folder: Path,
    videos: Sequence[str],
    open_index: Callable[[], VideoIndex],
    create_part: Callable[[Path], VideoIndex],
    *,
    remove_missing: bool = False,
    **options: Any,
) -> IndexReport | None:
    """
    As `index_videos`, in every process of a launcher: each takes the files that their paths deal out to it, and the
    first one joins what all have made, also what others had made when an earlier run was ended.

    Args:
        state: of this process.
        folder: of the index, which all of them see.
        videos, remove_missing, options: as for `index_videos`.
        open_index: opens or makes the index, for writing; called in the first process.
        create_part: makes an index of the same kind in another folder; called in the others.

    Returns:
        The report on all files, in the first process; None in the others.

    Raises:
        SystemExit: in the others, if the first one cannot open the index, which raises there.
        ValueError, ChildProcessError: as for `index_videos`.
    """
    settings, paths = IndexOptions(**options), absolute_paths(videos)
    share = Share(state.process_index, state.num_processes)
    with ExitStack() as stack:
        if state.is_main_process:
            index = known = stack.enter_context(_opened(open_index))
            report = index_files(index, known, paths, share, settings)
            state.wait_for_everyone()
            for other in join_parts(index):
                report += other
            complete(index, report, videos, remove_missing)
            return report
        (failed,) = broadcast_object_list([None])
        if failed:
            raise SystemExit(1)
        known = stack.enter_context(VideoIndex.open(folder))
        with create_part(part_folder(folder, state.process_index)) as index:
            index_files(index, known, paths, share, settings)
        state.wait_for_everyone()
        return None


def _opened(open_index: Callable[[], VideoIndex]) -> VideoIndex:
    """The index with all that is left of an earlier run; the other processes wait until it is, and hear if it fails."""
    failed = True
    try:
        index = open_index()
        join_parts(index)
        failed = False
        return index
    finally:
        broadcast_object_list([failed])
