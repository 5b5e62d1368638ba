import itertools
import random
from pathlib import Path

import pytest
from saved_hcmi import save_tiny_hcmi, write_video
from stitched_videos import stitch, stories

from hcmi.processing import HCMIProcessor, VideoReadError, probe_video
from hcmi.retrieval.index.window import Window
from hcmi.retrieval.indexing.windows import WindowRule, cut, divided, joined, numbered


@pytest.fixture(scope="module")
def processor(tmp_path_factory):
    return HCMIProcessor.from_pretrained(save_tiny_hcmi(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> tuple[str, list]:
    folder = tmp_path_factory.mktemp("stories")
    spans = stitch([row["video"] for row in stories(folder, 12)], folder / "film.mp4")
    return str(folder / "film.mp4"), spans


def tiles(windows: list[Window], start: float, end: float) -> bool:
    """Whether windows follow each other from start to end, and are counted."""
    edges = [window.start for window in windows] + [windows[-1].end]
    joints = all(before.end == after.start for before, after in itertools.pairwise(windows))
    return (
        joints
        and edges == sorted(set(edges))
        and (edges[0], edges[-1]) == (start, end)
        and [window.number for window in windows] == list(range(len(windows)))
    )


@pytest.mark.parametrize(
    ("edges", "least", "expected"),
    [
        ([0, 5, 6, 20], 2, [0, 6, 20]),  # with the shorter neighbour
        ([0, 9, 10, 12], 2, [0, 9, 12]),
        ([0, 1, 30], 2, [0, 30]),  # the first and the last have one neighbour
        ([0, 29, 30], 2, [0, 30]),
        ([0, 1, 2, 3, 4, 5], 2, [0, 2, 5]),
        ([0, 1], 2, [0, 1]),  # nothing to join
        ([0, 2, 4], 2, [0, 2, 4]),
    ],
)
def test_short_stretches_join_a_neighbour(edges, least, expected):
    assert joined(edges, least) == expected


@pytest.mark.parametrize(
    ("edges", "expected"),
    [
        ([0, 10], [0, 10]),
        ([0, 11], [0, 5.5, 11]),
        ([0, 30.0000001], [0, 10.00000003, 20.00000007, 30.0000001]),  # a rounding error is no part
        ([0, 4, 29, 30], [0, 4, 4 + 25 / 3, 4 + 50 / 3, 29, 30]),
    ],
)
def test_long_stretches_are_divided_evenly(edges, expected):
    assert divided(edges, 10) == pytest.approx(expected)


def test_any_edges_give_windows_that_keep_the_rule():
    draw = random.Random(0)
    for _ in range(300):
        edges = sorted({0.0, *(draw.uniform(0, 120) for _ in range(draw.randrange(40))), 120.0})
        windows = numbered(divided(joined(edges, 2.0), 10.0))
        assert tiles(windows, 0.0, 120.0)
        assert all(2.0 <= window.end - window.start <= 10.0 + 1e-6 for window in windows)


@pytest.mark.parametrize("kind", ["shots", "fixed", "whole"])
def test_a_short_video_is_one_window_whatever_the_kind(kind, processor, film):
    path, _ = film
    info = probe_video(path)
    assert cut(path, WindowRule(kind), processor) == [Window(0, info.start, info.end)]


def test_equal_parts_cover_the_video(processor, film):
    path, _ = film
    info = probe_video(path)
    windows = cut(path, WindowRule("fixed", 7.0, whole_up_to=0), processor)
    assert tiles(windows, info.start, info.end)
    assert len(windows) == -(-info.duration // 7)
    assert len({round(window.end - window.start, 6) for window in windows}) == 1


def test_shots_are_windows_of_their_own(processor, film):
    path, spans = film
    info = probe_video(path)
    windows = cut(path, WindowRule("shots", whole_up_to=0), processor)
    assert tiles(windows, info.start, info.end)
    edges = [window.start for window in windows]
    near = [begin for begin, _ in spans if any(-0.01 <= edge - begin <= 0.3 for edge in edges)]
    assert len(near) >= 0.8 * len(spans)


def test_whole_videos_are_not_cut(processor, film):
    path, _ = film
    assert len(cut(path, WindowRule("whole", whole_up_to=0), processor)) == 1


def test_a_video_that_cannot_be_read_says_so(processor, tmp_path):
    Path(tmp_path, "broken.mp4").write_bytes(b"nothing" * 99)
    with pytest.raises(VideoReadError, match="not a video"):
        cut(str(tmp_path / "broken.mp4"), WindowRule(), processor)


def test_a_file_that_has_changed_is_cut_anew(processor, tmp_path):
    path = write_video(tmp_path / "a.mp4", frames=10)
    (before,) = cut(path, WindowRule(), processor)
    write_video(tmp_path / "a.mp4", frames=30)
    (after,) = cut(path, WindowRule(), processor)
    assert (before.end, after.end) == (1.0, 3.0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "scenes"}, "'scenes'"),
        ({"seconds": 0}, "more than 0 seconds"),
        ({"seconds": float("inf")}, "more than 0 seconds"),
        ({"least": 11}, "`least`"),
        ({"least": -1}, "`least`"),
        ({"whole_up_to": -1}, "`whole_up_to`"),
        ({"whole_up_to": float("nan")}, "`whole_up_to`"),
    ],
)
def test_impossible_rules_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        WindowRule(**fields)
