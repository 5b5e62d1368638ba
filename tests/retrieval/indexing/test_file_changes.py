import os

import pytest
from saved_hcmi import save_tiny_hcmi, write_video

from hcmi.retrieval import VideoIndex
from hcmi.retrieval.index.catalog import FileState, IndexedVideo
from hcmi.retrieval.index.window import Window
from hcmi.retrieval.indexing.file_changes import Share, compare, removed


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return save_tiny_hcmi(tmp_path_factory.mktemp("model"))


@pytest.fixture
def index(model, tmp_path):
    with VideoIndex.create(tmp_path / "index", model, device="cpu") as index:
        yield index


def state(path) -> FileState:
    status = os.stat(path)
    return FileState(status.st_size, status.st_mtime_ns)


def test_every_file_is_one_processes_and_the_same_ones_in_every_run():
    paths = [f"/videos/{number}.mp4" for number in range(1000)]
    for processes in (1, 2, 5):
        takers = [[rank for rank in range(processes) if Share(rank, processes).takes(path, None)] for path in paths]
        assert all(len(one) == 1 for one in takers)
        counts = [takers.count([rank]) for rank in range(processes)]
        assert min(counts) > 0.8 * 1000 / processes
    assert [Share(1, 2).takes(path, None) for path in paths[5:9]] == [True, True, False, False]


def test_what_was_left_unfinished_is_the_first_processes():
    video = IndexedVideo("a", "partial", None, 3, FileState(1, 1))
    assert [Share(rank, 3).takes("a", video) for rank in range(3)] == [True, False, False]


def test_files_are_sorted_by_what_is_to_be_done(index, tmp_path):
    paths = [write_video(tmp_path / f"{name}.mp4", 5) for name in ("new", "changed", "partial", "broken", "known")]
    new, changed, partial, broken, known = paths
    index.begin_file(changed, FileState(1, 1), [])
    index.begin_file(partial, state(partial), [Window(0, 0.0, 0.5)])
    index.mark_unreadable(broken, state(broken), "broken")
    index.begin_file(known, state(known), [])
    gone = str(tmp_path / "gone.mp4")
    changes = compare([*paths, gone], index, Share(), retry=False)
    assert changes.new == {new: state(new)}
    assert changes.changed == {changed: state(changed)}
    assert changes.unfinished == {partial: state(partial)}
    assert changes.unreadable == {broken: "broken", gone: "No such file or directory"}
    assert (changes.not_tried, changes.unchanged) == (1, 1)
    assert list(changes.states) == [partial, changed, new]
    again = compare(paths, index, Share(), retry=True)
    assert (list(again.changed), again.not_tried) == ([changed, broken], 0)


def test_only_what_was_in_the_folders_and_is_gone_is_removed(index, tmp_path):
    here = write_video(tmp_path / "videos" / "here.mp4", 5)
    gone, elsewhere = str(tmp_path / "videos" / "gone.mp4"), str(tmp_path / "videos2" / "gone.mp4")
    for path in (here, gone, elsewhere):
        index.begin_file(path, FileState(1, 1), [])
    assert removed([str(tmp_path / "videos")], index) == [gone]
    assert removed([here], index) == []
