import io
from itertools import pairwise

import av
import numpy as np
import pytest

from hcmi.train.data.shape_stories_rendering import RGB, _coverage, encode, render, write_video
from hcmi.train.data.shape_stories_world import COLOURS, SHAPES, Event, Story, Subject

FIRST, LAST = 3, 15


def tell(*events: Event, frame_rate: int = 10) -> Story:
    return Story((events,), ((FIRST, LAST),), frame_rate, LAST + 2, None)


def one(action: str, size: str | None = "small", colour: str = "red", shape: str = "circle", count: int = 1) -> Event:
    return Event(action, (Subject(size, colour, shape, count),))


def play(story: Story, seed: int = 0) -> np.ndarray:
    """(frames, 96, 96, 3) as a player shows them."""
    data = encode(render(story, np.random.default_rng(seed)), story.frame_rate)
    with av.open(io.BytesIO(data), "r") as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def masks(frames: np.ndarray, colour: str = "red") -> np.ndarray:
    """Where an event's frames show the colour: (frames of the event, 96, 96) bool."""
    return np.abs(frames[FIRST:LAST].astype(int) - RGB[colour]).max(-1) < 70


def centres(mask: np.ndarray) -> np.ndarray:
    """(frames, 2): mean x and y."""
    return np.array([[np.nonzero(m)[1].mean(), np.nonzero(m)[0].mean()] for m in mask])


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_and_colour_is_seen_during_its_event_only(shape, colour):
    frames = play(tell(one("right", "big", colour, shape)), seed=1)
    assert frames.shape == (LAST + 2, 96, 96, 3)
    assert masks(frames, colour).sum((1, 2)).min() > 250
    close = np.abs(frames.astype(int) - RGB[colour]).max(-1) < 70
    assert not close[:FIRST].any() and not close[LAST:].any()
    others = [other for other in COLOURS if other != colour]
    assert all(masks(frames, other).sum((1, 2)).max() < 60 for other in others)


@pytest.mark.parametrize(("action", "axis", "sign"), [("left", 0, -1), ("right", 0, 1), ("up", 1, -1), ("down", 1, 1)])
@pytest.mark.parametrize(("size", "count"), [("small", 1), ("big", 1), ("small", 2), ("big", 2)])
def test_moves(action, axis, sign, size, count):
    path = centres(masks(play(tell(one(action, size, count=count)), seed=2)))
    steps = np.diff(path, axis=0)
    assert (sign * steps[:, axis] > 0.5).all()
    assert np.abs(steps[:, 1 - axis]).max() < 1.0
    assert sign * (path[-1] - path[0])[axis] > 35


@pytest.mark.parametrize("shape", SHAPES)
def test_growing_and_shrinking_change_the_area(shape):
    grown = masks(play(tell(one("grow", None, shape=shape)))).sum((1, 2))
    shrunk = masks(play(tell(one("shrink", None, shape=shape)))).sum((1, 2))
    assert (np.diff(grown) > 0).all() and grown[-1] > 3 * grown[0]
    assert (np.diff(shrunk) < 0).all() and shrunk[0] > 3 * shrunk[-1]


@pytest.mark.parametrize("shape", ["square", "triangle", "cross"])
@pytest.mark.parametrize("size", ["small", "big"])
def test_spinning_turns_in_place(shape, size):
    mask = masks(play(tell(one("spin", size, shape=shape))))
    assert np.abs(centres(mask) - centres(mask).mean(0)).max() < 2.5
    changed = (mask[1:] != mask[:-1]).sum((1, 2)) / mask.sum((1, 2)).mean()
    assert np.median(changed) > 0.08


def test_appearing_fades_in_and_stays():
    frames = play(tell(one("appear", "big")))
    mask = masks(frames).sum((1, 2))
    assert mask[0] == 0 and mask[-4:].min() > 900
    assert np.ptp(centres(masks(frames)[-4:]), axis=0).max() < 0.5


@pytest.mark.parametrize("size", ["small", "big"])
def test_swapping_exchanges_the_places(size):
    event = Event("swap", (Subject("small", "blue", "square"), Subject(size, "red", "circle")))
    frames = play(tell(event), seed=4)
    red, blue = centres(masks(frames)[[0, -1]]), centres(masks(frames, "blue")[[0, -1]])
    assert np.abs(red[0] - blue[1]).max() < 3 and np.abs(red[1] - blue[0]).max() < 3
    assert np.abs(red[0] - blue[0]).max() > 40


@pytest.mark.parametrize("seed", range(4))
def test_two_at_once_share_the_span_in_different_halves(seed):
    frames = play(tell(one("left"), one("grow", None, "blue", count=2)), seed)
    red, blue = masks(frames), masks(frames, "blue")
    assert red.any((1, 2)).all() and blue.any((1, 2)).all()
    upper, lower = sorted((np.nonzero(mask.any((0, 2)))[0] for mask in (red, blue)), key=np.mean)
    assert upper.max() < 49 and lower.min() > 46


def test_counts_and_sizes():
    for size, low, high in (("small", 15, 24), ("big", 34, 46)):
        mask = masks(play(tell(one("up", size))))[5]
        across = [np.ptp(np.nonzero(mask)[axis]) + 1 for axis in (0, 1)]
        assert all(low <= length <= high for length in across)
        two = masks(play(tell(one("up", size, count=2))))[5]
        assert two.sum() == pytest.approx(2 * mask.sum(), rel=0.35)


@pytest.mark.parametrize("shape", SHAPES)
def test_coverage_is_the_share_of_fine_samples_inside(shape):
    def inside(x: np.ndarray, y: np.ndarray, r: float) -> np.ndarray:
        if shape == "circle":
            return x**2 + y**2 < r**2
        if shape == "ring":
            return (x**2 + y**2 < r**2) & (x**2 + y**2 > (0.6 * r) ** 2)
        if shape == "square":
            return (np.abs(x) < 0.85 * r) & (np.abs(y) < 0.85 * r)
        if shape == "triangle":  # apex up, y downwards, centroid in the origin
            return (y < 0.55 * r) & (y > -1.1 * r + np.sqrt(3) * np.abs(x))
        long, thin = np.maximum(np.abs(x), np.abs(y)), np.minimum(np.abs(x), np.abs(y))
        return (long < r) & (thin < 0.32 * r)

    grid = np.arange(-14.5, 15)
    fine = (np.arange(300) + 0.5) / 10 - 15
    found = _coverage(shape, grid[None, :], grid[:, None], np.float64(11.0))
    expected = inside(fine[None, :], fine[:, None], 11.0).reshape(30, 10, 30, 10).mean((1, 3))
    assert found.sum() == pytest.approx(expected.sum(), rel=0.02)
    assert np.abs(found - expected).max() < 0.36  # at corners the distance is no exact coverage


def test_unknown_shape_is_refused():
    with pytest.raises(ValueError, match="hexagon"):
        _coverage("hexagon", np.zeros((1, 1)), np.zeros((1, 1)), np.float64(1.0))


def test_backgrounds_differ_and_are_dim():
    pictures = [play(tell(one("left")), seed)[0] for seed in range(4)]
    assert max(picture.mean() for picture in pictures) < 110
    assert all(np.abs(a.astype(int) - b).mean() > 3 for a, b in pairwise(pictures))


@pytest.mark.parametrize("frame_rate", [8, 10, 12, 15])
def test_file_has_exact_times(tmp_path, frame_rate):
    path = tmp_path / "story.mp4"
    write_video(path, tell(one("left"), frame_rate=frame_rate), (0, 1, 2))
    assert [file.name for file in tmp_path.iterdir()] == ["story.mp4"]
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == frame_rate and stream.frames == LAST + 2
        assert container.duration is not None
        assert container.duration / av.time_base == pytest.approx((LAST + 2) / frame_rate, abs=1e-3)
        times = [frame.time for frame in container.decode(stream)]
    assert times == pytest.approx([index / frame_rate for index in range(LAST + 2)], abs=1e-4)


def test_seed_decides_every_byte(tmp_path):
    story = tell(one("left"))
    for name, seed in (("a", (0, 1)), ("b", (0, 1)), ("c", (0, 2))):
        write_video(tmp_path / f"{name}.mp4", story, seed)
    a, b, c = ((tmp_path / f"{name}.mp4").read_bytes() for name in "abc")
    assert a == b != c
