from types import SimpleNamespace

import pytest

from hcmi.processing import VideoReadError
from hcmi.train.data import unreadable
from hcmi.train.data.unreadable import Unreadable, UnreadableVideos

NAMES = ["sea", "hill", "town", "wood"]


def test_refused_is_the_first_with_its_name():
    with pytest.raises(VideoReadError) as error:
        UnreadableVideos(NAMES).add([Unreadable(1, "not a video"), Unreadable(2, "gone")])
    assert str(error.value) == "video 'hill' (row 1): not a video"


def test_skipped_videos_are_told_once_and_kept(capsys):
    videos = UnreadableVideos(NAMES, "skip", 2)
    videos.add([Unreadable(1, "not a video")])
    videos.add([Unreadable(1, "not a video"), Unreadable(3, "gone")])
    videos.add([])
    told = capsys.readouterr().out.splitlines()
    assert [line for line in told if "'hill'" in line and "not a video" in line] == told[:1] and len(told) == 2
    assert videos.found == {"hill": "not a video", "wood": "gone"}
    listed = [{"video": "hill", "reason": "not a video"}, {"video": "wood", "reason": "gone"}]
    assert videos.summary() == {"policy": "skip", "count": 2, "videos": listed}


def test_too_many_end_the_run_and_are_all_named():
    videos = UnreadableVideos(NAMES, "skip", 1)
    videos.add([Unreadable(1, "not a video")])
    with pytest.raises(VideoReadError) as error:
        videos.add([Unreadable(1, "not a video"), Unreadable(3, "gone")])
    assert "2 videos cannot be read" in str(error.value) and "allows 1" in str(error.value)
    assert "'hill': not a video" in str(error.value) and "'wood': gone" in str(error.value)


def test_a_run_that_goes_on_counts_what_it_had_met():
    videos = UnreadableVideos(NAMES, "skip", 1)
    videos.found = {"hill": "not a video"}
    with pytest.raises(VideoReadError, match="sea"):
        videos.add([Unreadable(0, "gone")])


def test_processes_tell_each_other(monkeypatch):
    others = {"sea": "gone", "hill": "as another process saw it"}
    monkeypatch.setattr(unreadable, "gather_object", lambda own: [*own, others])
    videos = UnreadableVideos(NAMES, "skip", 3)
    videos.add([Unreadable(3, "gone")])
    videos.share(SimpleNamespace(num_processes=2))
    assert set(videos.found) == {"wood", "sea", "hill"}
    few = UnreadableVideos(NAMES, "skip", 2)
    few.add([Unreadable(3, "gone")])
    with pytest.raises(VideoReadError, match="3 videos cannot be read"):
        few.share(SimpleNamespace(num_processes=2))


def test_one_process_has_nobody_to_tell():
    videos = UnreadableVideos(NAMES, "skip", 3)
    videos.add([Unreadable(3, "gone")])
    videos.share(SimpleNamespace(num_processes=1))
    assert videos.found == {"wood": "gone"}
