from pathlib import Path

import pytest
from saved_hcmi import write_mixed_folder

from hcmi.retrieval.indexing.video_files import find_videos


@pytest.fixture
def clips(tmp_path) -> Path:
    return write_mixed_folder(tmp_path / "clips")


def test_folders_are_searched_in_order_and_each_video_is_taken_once(clips):
    b, a, broken = (str(clips / name) for name in ("b.mp4", "deeper/a.MP4", "deeper/broken.avi"))
    assert find_videos([str(clips)]) == [b, a, broken]
    assert find_videos([a, str(clips)]) == [a, b, broken]
    assert find_videos([str(clips / "notes.txt"), "https://example.org/a.mp4"]) == [
        str(clips / "notes.txt"),
        "https://example.org/a.mp4",
    ]


def test_paths_without_videos_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no file or folder .*missing"):
        find_videos([str(tmp_path / "missing")])
    with pytest.raises(ValueError, match="has no videos"):
        find_videos([str(tmp_path)])
