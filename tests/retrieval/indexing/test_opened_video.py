from types import SimpleNamespace

import pytest
import torch
from videos import RECIPES, decode_everything, shown_at, write_video

from hcmi.processing import VideoReadError
from hcmi.retrieval.indexing.opened_video import open_video

LIMITS = SimpleNamespace(max_frame_pixels=10**8, max_duration=10**5)
LIKELY = ["h264", "h264 mkv", "h264 ts", "h264 avi", "h264 uneven times", "mpeg4 avi b frames", "vp9", "gif", "mpeg2"]


@pytest.fixture(params=LIKELY)
def recipe(request):
    return RECIPES[request.param]


def decoded(path, recipe):
    return decode_everything(path, recipe.rate if recipe.counted else None)


def test_a_scan_gives_every_frame_and_when_it_begins(recipe, tmp_path):
    path = write_video(tmp_path / f"video{recipe.suffix}", recipe)
    scanned = list(open_video(str(path), LIMITS).scan())
    expected = decoded(path, recipe)
    assert [begin for begin, _ in scanned] == pytest.approx([begin for begin, _ in expected], abs=1e-3)
    for (_, frame), (_, pixels) in zip(scanned, expected, strict=True):
        given = frame.to_ndarray(format="rgb24", interpolation="BICUBIC")
        assert torch.equal(torch.from_numpy(given).permute(2, 0, 1), pixels)


def test_a_quick_scan_gives_some_of_them_at_their_times(recipe, tmp_path):
    path = write_video(tmp_path / f"video{recipe.suffix}", recipe)
    video = open_video(str(path), LIMITS)
    every = [begin for begin, _ in video.scan()]
    some = [begin for begin, _ in video.scan(every=False)]
    assert some[0] == every[0] and set(some) <= set(every)
    assert some == every if recipe.counted else len(some) >= 5
    if recipe is RECIPES["h264"]:  # three B frames in a row
        assert len(some) < 0.7 * len(every)


def test_a_stream_of_times_gives_what_is_shown_then(recipe, tmp_path):
    path = write_video(tmp_path / f"video{recipe.suffix}", recipe)
    video = open_video(str(path), LIMITS)
    times = torch.linspace(-0.5, video.end + 1, 40).tolist()
    converted = []

    def convert(frame):
        converted.append(1)
        return frame

    streamed = list(video.stream(times, convert))
    assert [time for time, _ in streamed] == times
    expected = decoded(path, recipe)
    for time, (begin, frame) in streamed:
        begins, pixels = shown_at(expected, time + 1e-3)
        if abs(begin - begins) < 1e-2:  # not exactly on the edge of two frames
            assert torch.equal(frame, pixels)
    assert len(converted) == len({begin for _, (begin, _) in streamed})


def test_what_cannot_be_decoded_is_passed_over(tmp_path):
    path = write_video(tmp_path / "video.mp4", RECIPES["h264"])
    data = bytearray(path.read_bytes())
    half = len(data) // 2
    data[half : half + 400] = bytes(400)
    path.write_bytes(data)
    scanned = list(open_video(str(path), LIMITS).scan())
    assert 20 < len(scanned) <= 60


def test_a_file_of_which_nothing_can_be_decoded_says_so(tmp_path, monkeypatch):
    path = write_video(tmp_path / "video.avi", RECIPES["h264 avi"])
    video = open_video(str(path), LIMITS)
    monkeypatch.setattr(type(video), "scan", lambda self: iter([]))
    with pytest.raises(VideoReadError, match="no frame could be decoded"):
        list(video.stream([0.0], lambda frame: frame))


def test_the_last_file_stays_open_until_it_changes(tmp_path):
    first, second = (write_video(tmp_path / f"{name}.mp4", RECIPES["h264"]) for name in "ab")
    opened = open_video(str(first), LIMITS)
    assert open_video(str(first), LIMITS) is opened
    assert open_video(str(second), LIMITS) is not opened
    again = open_video(str(second), LIMITS)
    second.write_bytes(first.read_bytes() + bytes(1))
    assert open_video(str(second), LIMITS) is not again


def test_the_processors_limits_hold(tmp_path):
    path = str(write_video(tmp_path / "video.mp4", RECIPES["h264"]))
    with pytest.raises(VideoReadError, match="longer than the limit of 1 s"):
        open_video(path, SimpleNamespace(max_frame_pixels=10**8, max_duration=1))
    with pytest.raises(VideoReadError, match="pixels"):
        open_video(path, SimpleNamespace(max_frame_pixels=100, max_duration=10**5))
