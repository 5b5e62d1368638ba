import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hcmi.processing import frame_sampling
from hcmi.processing.frame_sampling import distinct, frames_at, segment_times

starts = st.floats(-100, 10_000)
lengths = st.floats(1e-3, 10_000)
counts = st.integers(1, 40)
seeds = st.one_of(st.integers(), st.text(max_size=8))


@given(starts, lengths, counts)
def test_uniform_times_are_the_middles_of_equal_segments(start, length, count):
    end = start + length
    times = segment_times(start, end, count)
    assert len(times) == count
    for segment, time in enumerate(times):
        left = start + segment * (end - start) / count
        right = start + (segment + 1) * (end - start) / count
        assert time == pytest.approx((left + right) / 2, rel=1e-9, abs=1e-9)


@given(starts, lengths, counts, seeds)
def test_random_times_lie_in_their_segments_and_repeat_by_their_seed(start, length, count, seed):
    end = start + length
    times = segment_times(start, end, count, "random", seed)
    assert times == segment_times(start, end, count, "random", seed)
    assert times == sorted(times)
    width = (end - start) / count
    for segment, time in enumerate(times):
        rounding = 1e-9 * (1 + abs(end))
        assert start + segment * width - rounding <= time <= start + (segment + 1) * width + rounding


def test_random_times_fill_their_segments_evenly():
    times = [segment_times(0.0, 4.0, 4, "random", seed) for seed in range(2000)]
    for segment in range(4):
        inside = sorted(row[segment] - segment for row in times)
        assert inside[0] < 0.01
        assert inside[-1] > 0.99
        assert sum(inside) / len(inside) == pytest.approx(0.5, abs=0.03)


def test_random_times_differ_from_seed_to_seed_and_from_call_to_call():
    draws = [segment_times(0.0, 1.0, 8, "random", seed) for seed in (0, 1, "0-0", "0-1", None, None)]
    assert len({tuple(draw) for draw in draws}) == len(draws)


@given(st.lists(st.floats(-10, 1000), min_size=1, max_size=30, unique=True), st.lists(st.floats(-20, 1100)))
def test_the_frame_at_a_time_is_the_last_that_began(begins, times):
    begins.sort()
    for time, index in zip(times, frames_at(begins, times), strict=True):
        begun = [i for i, begin in enumerate(begins) if begin <= time]
        assert index == (begun[-1] if begun else 0)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=30, unique=True))
def test_a_frame_is_there_from_the_very_moment_it_begins(begins):
    begins.sort()
    assert frames_at(begins, begins) == list(range(len(begins)))


@given(st.lists(st.integers(0, 9)))
def test_distinct_keeps_the_first_of_each(indices):
    kept = distinct(indices)
    assert sorted(kept) == sorted(set(indices))
    assert [indices.index(index) for index in kept] == sorted(indices.index(index) for index in kept)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1.0, 1.0, 4), "is empty"),
        ((2.0, 1.0, 4), "is empty"),
        ((float("nan"), 1.0, 4), "is empty"),
        ((0.0, 1.0, 0), "at least 1"),
        ((0.0, 1.0, 4, "first"), "uniform"),
    ],
)
def test_what_cannot_be_sampled_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        segment_times(*arguments)


def test_the_examples_are_right():
    assert doctest.testmod(frame_sampling).failed == 0
