import itertools

import pytest
from saved_hcmi import save_tiny_hcmi
from stitched_videos import bench_windows, stories

from hcmi.processing import probe_video
from hcmi.retrieval.indexing.windows import WindowRule

bench = bench_windows()


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return stories(tmp_path_factory.mktemp("stories"), 5)


def test_films_hold_every_video_once_and_each_caption_knows_its_place(rows, tmp_path):
    asked = bench.films(rows, tmp_path, 2, seed=0)
    assert sorted(caption for caption, _, _ in asked) == sorted(caption for row in rows for caption in row["captions"])
    films = sorted(tmp_path.iterdir())
    assert len(films) == 3
    for film in films:
        spans = sorted({span for _, place, span in asked if place == str(film)})
        assert len(spans) == (1 if film == films[-1] else 2)
        assert spans[0][0] == 0.0
        assert spans[-1][1] == pytest.approx(probe_video(film).end, abs=0.1)
        assert all(first[1] == second[0] for first, second in itertools.pairwise(spans))


def test_what_is_found_is_measured(rows, tmp_path):
    asked = bench.films(rows, tmp_path, 5, seed=0)
    figures = bench.measure(save_tiny_hcmi(tmp_path / "model"), WindowRule("whole", whole_up_to=0), asked, "cpu")
    assert (figures["count"], figures["film"]) == (1, 100.0)  # there is one film
    length = max(end for _, _, (_, end) in asked)
    shares = [(end - begin) / length for _, _, (begin, end) in asked]
    assert figures["window_iou"] == pytest.approx(100 * sum(shares) / len(shares), abs=0.5)
    line = bench.table([{"windows": "whole films", **figures}]).splitlines()[-1]
    assert line.startswith("| whole films | 1 | ")


def test_figures_are_means_over_the_seeds():
    assert bench.mean([{"film": 1.0, "count": 2}, {"film": 3.0, "count": 4}]) == {"film": 2.0, "count": 3.0}
