from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ImageColor

from hcmi.processing.video_reading import VideoReadError
from hcmi.retrieval.pictures.contact_sheet import MAX_HITS, draw_contact_sheet, format_time

ACCENT = ImageColor.getrgb("#e8590c")


def write_video(path: Path, width: int, height: int, seconds: int = 4) -> str:
    """The picture turns from dark to bright, ten steps a second."""
    frames = 10 * seconds
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for i in range(frames):
            picture = np.full((height, width, 3), 20 + 200 * i // frames, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return str(path)


def hit(video: str, start: float = 1.0, end: float = 2.0, score: float = 0.5) -> dict:
    return {"video": video, "score": score, "start": start, "end": end, "level_scores": {}}


def marked_stretch(sheet) -> tuple[int, int]:
    """First and last column of the coloured part of the time bar: the longest unbroken run of the accent colour."""
    marked = (np.asarray(sheet) == ACCENT).all(-1)
    edges = np.diff(np.pad(marked, ((0, 0), (1, 1))).astype(int), axis=1)
    first, last = np.argwhere(edges == 1)[:, 1], np.argwhere(edges == -1)[:, 1]
    longest = (last - first).argmax()
    return int(first[longest]), int(last[longest]) - 1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "00:00.0"), (1.25, "00:01.2"), (59.96, "01:00.0"), (127.5, "02:07.5"), (4000, "66:40.0")],
)
def test_format_time(seconds, text):
    assert format_time(seconds) == text


@given(st.floats(0, 1e5))
def test_format_time_is_within_half_a_tenth(seconds):
    minutes, rest = format_time(seconds).split(":")
    assert float(rest) < 60
    assert abs(int(minutes) * 60 + float(rest) - seconds) <= 0.05 + 1e-6


@pytest.mark.parametrize(("width", "height"), [(96, 96), (320, 180), (90, 160), (640, 64)])
def test_the_answer_is_marked_where_it_is(tmp_path, width, height):
    video = write_video(tmp_path / "a.mp4", width, height)
    sheet = draw_contact_sheet(["a query"], [[hit(video, 1.0, 2.0)]])
    assert sheet.mode == "RGB"
    first, last = marked_stretch(sheet)
    # The strip goes from 136 to 1244: its second quarter of four is the second from 1 s to 2 s.
    assert first == pytest.approx(136 + 1108 * 0.25, abs=3)
    assert last == pytest.approx(136 + 1108 * 0.5, abs=3)


def test_frames_go_from_the_videos_beginning_to_its_end(tmp_path):
    video = write_video(tmp_path / "a.mp4", 96, 96)
    pixels = np.asarray(draw_contact_sheet(["a query"], [[hit(video, 0.0, 0.1)]]).convert("L")).astype(int)
    row = pixels.shape[0] // 2
    centres = [136 + round((i + 0.5) * 1108 / 10) for i in range(10)]
    values = [pixels[row, centre] for centre in centres]
    assert values == sorted(values)
    assert values[0] == pytest.approx(20 + 200 * 0.05, abs=8)
    assert values[-1] == pytest.approx(20 + 200 * 0.95, abs=8)


def test_one_row_a_hit_grouped_by_query(tmp_path):
    video = write_video(tmp_path / "a.mp4", 96, 96, seconds=1)
    one = draw_contact_sheet(["q"], [[hit(video)]]).height
    two = draw_contact_sheet(["q"], [[hit(video)] * 2]).height
    row = two - one
    heading = draw_contact_sheet(["q", "r"], [[hit(video)], [hit(video)]]).height - one - row
    assert row > 100
    assert heading > 0
    assert draw_contact_sheet(["q"], [[hit(video)] * (MAX_HITS + 5)]).height == one + (MAX_HITS - 1) * row
    assert draw_contact_sheet(["long " * 60], [[hit(video)]]).height > one, "a long query takes several lines"


def test_a_span_at_the_edge_and_an_endless_name_fit(tmp_path):
    folder = tmp_path / ("folder" * 30)
    folder.mkdir()
    video = write_video(folder / "a.mp4", 96, 96, seconds=1)
    for start, end in ((0.0, 0.01), (0.99, 1.0), (0.0, 1.0)):
        pixels = np.asarray(draw_contact_sheet(["q"], [[hit(video, start, end)]]))
        assert (pixels[:, -20:] == 255).all(), "the right margin stays empty"


def test_names_begin_where_the_files_folders_part(tmp_path):
    sheets = []
    for folder in ("here", "somewhere/else/entirely"):
        (tmp_path / folder / "inner").mkdir(parents=True)
        first = write_video(tmp_path / folder / "a.mp4", 96, 96, seconds=1)
        second = write_video(tmp_path / folder / "inner" / "b.mp4", 96, 96, seconds=1)
        sheets.append(draw_contact_sheet(["q"], [[hit(first, 0.0, 0.5), hit(second, 0.5, 1.0)]]))
    assert sheets[0] == sheets[1]


def test_what_cannot_be_drawn(tmp_path):
    with pytest.raises(ValueError, match="one ranking for each query"):
        draw_contact_sheet(["q"], [])
    with pytest.raises(ValueError, match="one ranking for each query"):
        draw_contact_sheet([], [])
    with pytest.raises(VideoReadError, match=r"gone\.mp4"):
        draw_contact_sheet(["q"], [[hit(str(tmp_path / "gone.mp4"))]])
