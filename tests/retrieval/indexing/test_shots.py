import weakref
from types import SimpleNamespace

import numpy as np
import pytest
from stitched_videos import stitch, stories

from hcmi.retrieval.indexing.opened_video import open_video
from hcmi.retrieval.indexing.shots import SAMPLES_A_SECOND, change_scores, find_shot_changes, shot_changes

PIXELS = 32 * 24
LIMITS = SimpleNamespace(max_frame_pixels=10**8, max_duration=10**5)


def scene(seed: int, count: int, noise: float = 2.0) -> list[np.ndarray]:
    """Pictures of one still scene with noise."""
    draw = np.random.default_rng(seed)
    still = np.kron(draw.uniform(30, 220, (3, 6, 8)), np.ones((1, 4, 4))).reshape(3, PIXELS)
    return [(still + draw.normal(0, noise, still.shape)).astype(np.float32) for _ in range(count)]


def test_cuts_are_found_at_the_first_picture_of_the_new_scene():
    pictures = [picture for seed, count in enumerate((12, 5, 9, 20)) for picture in scene(seed, count)]
    assert shot_changes(change_scores(pictures)) == [12, 17, 26]


def test_the_score_of_a_picture_is_what_lies_between_it_and_the_one_before():
    pictures = [*scene(0, 6, noise=0.0), *scene(1, 6, noise=0.0)]
    scores = change_scores(pictures)
    assert scores.shape == (12,)
    assert np.flatnonzero(scores).tolist() == [6]
    weights = np.array([1, 2, 2]) / 3
    pixels = np.median(weights @ np.abs(pictures[5] - pictures[6]))
    colours = weights @ np.abs(np.sort(pictures[5]) - np.sort(pictures[6])).mean(1)
    assert scores[6] == pytest.approx(np.sqrt(pixels * colours), rel=1e-5)


def test_a_flash_is_no_change():
    pictures = scene(0, 20)
    pictures[9] = pictures[9] + 120
    assert shot_changes(change_scores(pictures)) == []


def test_what_moves_through_a_still_scene_is_no_change():
    pictures = [picture.reshape(3, 24, 32).copy() for picture in scene(0, 20)]
    for number, picture in enumerate(pictures):
        picture[:, 4:20, number : number + 10] = np.array([240, 30, 200])[:, None, None]
    assert shot_changes(change_scores([picture.reshape(3, PIXELS) for picture in pictures])) == []


def test_a_camera_that_turns_makes_the_neighbourhood_restless_and_is_no_change():
    wide = np.random.default_rng(0).uniform(30, 220, (3, 6, 40)).repeat(4, 1).repeat(4, 2)
    pictures = [wide[:, :, 3 * n : 3 * n + 32].reshape(3, PIXELS).astype(np.float32) for n in range(40)]
    assert shot_changes(change_scores(pictures)) == []


def test_a_small_picture_between_black_bars_is_looked_at_alone():
    pictures = [picture.reshape(3, 24, 32).copy() for seed in (0, 1) for picture in scene(seed, 10)]
    for picture in pictures:
        picture[0, :, :10] = picture[0, :, 22:] = 16
        picture[1:, :, :10] = picture[1:, :, 22:] = 128
    assert shot_changes(change_scores([picture.reshape(3, PIXELS) for picture in pictures])) == [10]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_pictures_have_no_changes(count):
    assert shot_changes(change_scores(scene(0, count))) == []


def test_no_more_than_a_few_pictures_are_held_at_a_time():
    given, most = [], 0

    def pictures():
        nonlocal most
        for number in range(200):
            picture = np.full((3, PIXELS), float(number), np.float32)
            given.append(weakref.ref(picture))
            most = max(most, sum(one() is not None for one in given))
            yield picture

    change_scores(pictures())
    assert most <= 4


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """40 stories, one after another, and where each begins and ends."""
    folder = tmp_path_factory.mktemp("stories")
    videos = [row["video"] for row in stories(folder, 40)]
    return str(folder / "film.mp4"), stitch(videos, folder / "film.mp4")


def test_changes_of_a_film_are_found_to_a_sampling_step(film):
    path, spans = film
    cuts = [begin for begin, _ in spans[1:]]
    found = find_shot_changes(open_video(path, LIMITS))
    right = [cut for cut in cuts if any(0 <= time - cut <= 1 / SAMPLES_A_SECOND + 0.05 for time in found)]
    assert len(right) / len(cuts) >= 0.9
    assert len(right) / len(found) >= 0.9
    assert found == sorted(set(found))
