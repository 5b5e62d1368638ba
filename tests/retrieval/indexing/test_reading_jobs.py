import hashlib

import pytest
import torch
from saved_hcmi import save_tiny_hcmi
from videos import RECIPES, Recipe, write_video

from hcmi.processing import HCMIProcessor, VideoReadError
from hcmi.retrieval.index.window import Window
from hcmi.retrieval.indexing import window_reading
from hcmi.retrieval.indexing.reading_jobs import Damage, Frames, HashJob, Plan, ReadJob, do_job, seconds_to_open
from hcmi.retrieval.indexing.window_reading import read_windows
from hcmi.retrieval.indexing.windows import WindowRule, cut

RULE = WindowRule("fixed", 0.4, least=0.0, whole_up_to=0)


@pytest.fixture(scope="module")
def processor(tmp_path_factory):
    return HCMIProcessor.from_pretrained(save_tiny_hcmi(tmp_path_factory.mktemp("model")))


def done(processor, job, allowed=None) -> list:
    return list(do_job((processor, RULE), job, (allowed if allowed is not None else []).append))


def test_the_digest_is_that_of_the_content(processor, tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"some bytes" * 1000)
    expected = hashlib.blake2b(b"some bytes" * 1000, digest_size=32).hexdigest()
    assert done(processor, HashJob(str(tmp_path / "a.mp4"))) == [expected]


def test_a_video_is_planned_and_read(processor, tmp_path):
    path, allowed = str(write_video(tmp_path / "a.mp4", RECIPES["h264"])), []
    plan, frames = done(processor, ReadJob(path), allowed)
    windows = cut(path, RULE, processor)
    assert plan == Plan(windows, pytest.approx(2.4), [])
    assert allowed == [pytest.approx(2.4)]
    assert frames.windows == windows
    for name, tensor in read_windows(path, windows, processor).items():
        assert torch.equal(torch.from_numpy(frames.arrays[name]).nan_to_num(-1), tensor.nan_to_num(-1))


def test_windows_that_are_given_are_read_and_not_cut(processor, tmp_path):
    path = str(write_video(tmp_path / "a.mp4", RECIPES["h264"]))
    windows = (Window(3, 1.0, 1.5), Window(7, 2.0, 2.4))
    plan, frames = done(processor, ReadJob(path, windows))
    assert (plan.windows, plan.later, frames.windows) == (list(windows), [], list(windows))


@pytest.mark.parametrize("name", ["h264", "h264 avi"])
def test_many_windows_are_left_for_other_jobs_unless_that_means_to_begin_anew(name, processor, tmp_path, monkeypatch):
    monkeypatch.setattr(window_reading.sections, "__defaults__", (2,))
    path = str(write_video(tmp_path / f"a{RECIPES[name].suffix}", RECIPES[name]))
    plan, *pieces = done(processor, ReadJob(path))
    assert len(plan.windows) == 6
    if RECIPES[name].counted:
        assert plan.later == []
        assert [piece.windows for piece in pieces] == [plan.windows[:2], plan.windows[2:4], plan.windows[4:]]
    else:
        assert [piece.windows for piece in pieces] == [plan.windows[:2]]
        assert plan.later == [plan.windows[2:4], plan.windows[4:]]
    assert all(isinstance(piece, Frames) for piece in pieces)


def test_damage_is_told_after_what_can_be_read(processor, tmp_path):
    path = write_video(tmp_path / "a.avi", Recipe(".avi", codec="mpeg4", b_frames=0))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    plan, frames, damage = done(processor, ReadJob(str(path)))
    assert isinstance(frames, Frames) and plan.duration < 2.4
    assert isinstance(damage, Damage) and "corrupt" in damage.reason


def test_what_cannot_be_read_raises(processor, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"nothing" * 99)
    with pytest.raises(VideoReadError, match="not a video"):
        done(processor, ReadJob(str(tmp_path / "broken.mp4")))
    with pytest.raises(FileNotFoundError):
        done(processor, HashJob(str(tmp_path / "missing.mp4")))


def test_large_files_may_take_longer_to_open():
    assert seconds_to_open(0, 120.0) == 120.0
    assert seconds_to_open(4 * 10**9, 120.0) == 520.0
