import pytest
import torch
from saved_hcmi import save_tiny_hcmi
from videos import RECIPES, Recipe, write_video

from hcmi.processing import HCMIProcessor, VideoReadError, probe_video
from hcmi.retrieval.index.window import Window
from hcmi.retrieval.indexing.opened_video import OpenedVideo, open_video
from hcmi.retrieval.indexing.window_reading import read_sections, read_windows, reads_in_one_pass, sections
from hcmi.retrieval.indexing.windows import divided, numbered

LIKELY = ["h264", "h264 mkv", "h264 ts", "h264 avi", "h264 raw", "h264 long groups", "mpeg4 avi b frames", "vp9", "gif"]


@pytest.fixture(scope="module")
def processor(tmp_path_factory):
    return HCMIProcessor.from_pretrained(save_tiny_hcmi(tmp_path_factory.mktemp("model")))


@pytest.fixture(params=LIKELY)
def video(request, tmp_path) -> str:
    recipe = RECIPES[request.param]
    return str(write_video(tmp_path / f"video{recipe.suffix}", recipe))


def windows_of(video: str, seconds: float) -> list[Window]:
    info = probe_video(video)
    return numbered(divided([info.start, info.end], seconds))


def one_by_one(video: str, windows: list[Window], processor) -> dict[str, torch.Tensor]:
    """Every window with a call of its own: what the pipeline and the evaluation see."""
    calls = [
        processor(videos=[video], start=window.start, end=window.end, uint8=True, return_tensors="pt")
        for window in windows
    ]
    return {name: torch.cat([call[name] for call in calls]) for name in calls[0]}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        first[name].dtype == second[name].dtype and torch.equal(first[name].nan_to_num(-1), second[name].nan_to_num(-1))
        for name in first
    )


def test_windows_are_what_the_processor_gives_for_each(video, processor):
    windows = windows_of(video, 0.7)
    assert len(windows) > 1
    assert same(read_windows(video, windows, processor), one_by_one(video, windows, processor))


def test_the_window_of_a_whole_video_is_what_the_processor_gives_for_the_video(video, processor):
    (window,) = windows_of(video, 1000)
    whole = processor(videos=[video], uint8=True, return_tensors="pt")
    assert same(read_windows(video, [window], processor), dict(whole))


def test_pieces_are_what_they_are_together(video, processor):
    windows = windows_of(video, 0.3)
    parts = sections(windows, most=2)
    together = read_windows(video, windows, processor)
    pieces = list(read_sections(open_video(video, processor), parts, processor))
    assert [len(piece["video_mask"]) for piece in pieces] == [len(part) for part in parts]
    assert same({name: torch.cat([piece[name] for piece in pieces]) for name in together}, together)


@pytest.mark.parametrize("name", ["h264", "h264 avi"])
def test_any_number_of_windows_is_decoded_in_one_pass(name, processor, tmp_path, monkeypatch):
    video = str(write_video(tmp_path / f"video{RECIPES[name].suffix}", RECIPES[name]))
    passes = []
    monkeypatch.setattr(OpenedVideo, "scan", lambda self, real=OpenedVideo.scan: passes.append("scan") or real(self))
    monkeypatch.setattr(OpenedVideo, "read", lambda *args, real=OpenedVideo.read: passes.append("read") or real(*args))
    windows = windows_of(video, 0.2)
    read_windows(video, windows, processor)
    assert passes == ["read"]
    opened = open_video(video, processor)
    if reads_in_one_pass(opened):
        list(read_sections(opened, sections(windows, most=3), processor))
        assert passes == ["read", "scan"]


def test_only_files_without_presentation_times_have_to_be_read_from_the_beginning(processor, tmp_path):
    for name in ("h264", "h264 avi"):
        path = write_video(tmp_path / f"video{RECIPES[name].suffix}", RECIPES[name])
        assert reads_in_one_pass(open_video(str(path), processor)) == RECIPES[name].counted


def test_a_window_with_few_frames_is_padded(processor, tmp_path):
    video = str(write_video(tmp_path / "slow.mp4", Recipe(frames=8, rate=2)))
    read = read_windows(video, [Window(0, 0.0, 4.0), Window(1, 1.0, 1.2)], processor)
    assert read["video_mask"].sum(1).tolist() == [6, 1]
    assert read["timestamps"][1, 0] == 1.0
    assert read["timestamps"][1, 1:].isnan().all()
    assert not read["pixel_values_videos"][1, 1:].any()
    assert read["video_spans"].tolist() == [[0.0, 4.0], [1.0, 1.2]]


def test_sections_keep_the_order():
    windows = numbered(range(8))
    assert sections(windows, most=3) == [windows[:3], windows[3:6], windows[6:]]
    assert sections(windows) == [windows]


def test_a_file_is_listed_once_for_all_its_pieces(processor, tmp_path, monkeypatch):
    video = str(write_video(tmp_path / "video.mp4", RECIPES["h264"]))
    listed = []
    monkeypatch.setattr(
        OpenedVideo, "__init__", lambda *args, real=OpenedVideo.__init__: (listed.append(1) and None) or real(*args)
    )
    for window in windows_of(video, 0.5):
        read_windows(video, [window], processor)
    assert len(listed) == 1


def test_a_broken_file_says_so(processor, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"nothing" * 99)
    with pytest.raises(VideoReadError, match=r"broken\.mp4: not a video"):
        read_windows(str(tmp_path / "broken.mp4"), [Window(0, 0.0, 1.0)], processor)
