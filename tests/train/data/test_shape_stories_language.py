import random

import pytest

from hcmi.train.data.shape_stories_language import describe, describe_event
from hcmi.train.data.shape_stories_world import Event, Subject

RING = Event("left", (Subject("small", "red", "ring"),))
SQUARES = Event("grow", (Subject(None, "blue", "square", 2),))
SWAP = Event("swap", (Subject("big", "purple", "cross"), Subject("small", "white", "circle")))


def captions(slots, number=300):
    return [describe(random.Random(seed), slots) for seed in range(number)]


def test_words_of_single_events():
    ring = {describe_event(random.Random(seed), RING) for seed in range(2000)}
    assert "a small red ring slides left" in ring and "one tiny red hoop glides to the left" in ring
    assert len(ring) > 100
    squares = {describe_event(random.Random(seed), SQUARES) for seed in range(500)}
    assert {"two blue squares grow", "a pair of blue boxes get bigger"} <= squares
    swap = {describe_event(random.Random(seed), SWAP) for seed in range(5000)}
    assert "a big purple cross and a small white circle swap places" in swap
    assert any(" and a huge violet plus sign " in caption for caption in swap)
    assert describe_event(random.Random(0), SWAP, name_size=False).split()[1] in ("purple", "violet", "white")


def test_single_events_always_name_the_size():
    for caption, spans in captions(((RING,),)):
        assert any(size in caption.split() for size in ("small", "little", "tiny"))
        assert spans == [(0, len(caption))]


@pytest.mark.parametrize("name_sizes", [False, True])
def test_sizes_are_left_out_only_where_allowed(name_sizes):
    told = [describe(random.Random(seed), ((RING,), (SQUARES,)), name_sizes)[0] for seed in range(500)]
    unsized = sum(not any(size in caption.split() for size in ("small", "little", "tiny")) for caption in told)
    assert unsized == 0 if name_sizes else 20 < unsized < 120


def test_order_in_the_sentence_is_the_order_in_time_unless_it_says_after():
    reverse = 0
    for caption, ((ring, ring_end), (squares, squares_end)) in captions(((RING,), (SQUARES,)), 1000):
        assert " red " in caption[ring:ring_end] and " blue " in caption[squares:squares_end]
        middle = caption[min(ring_end, squares_end) : max(ring, squares)]
        if middle == " after ":
            reverse += 1
            assert squares < ring
        else:
            assert ring < squares
            assert middle in (", then ", " and then ", ", after that ", ", next ", " before ") or (
                middle == ", " and caption.startswith("after ")
            )
    assert 5 < reverse < 60


def test_at_once_is_said_in_either_order():
    told = captions(((RING, SQUARES),))
    middles = {caption[min(a[1], b[1]) : max(a[0], b[0])] for caption, (a, b) in told}
    assert middles == {" while ", " as ", " and at the same time "}
    assert {a < b for _, (a, b) in told} == {True, False}


def test_four_events_with_two_at_once():
    spin = Event("spin", (Subject("big", "green", "triangle"),))
    for caption, spans in captions(((SWAP,), (RING, SQUARES), (spin,))):
        swap, ring, squares, last = (caption[slice(*span)] for span in spans)
        assert "white" in swap and " red " in ring and " blue " in squares and " green " in last
        assert spans[0] < min(spans[1:3]) and max(spans[1:3]) < spans[3]
        assert " before " not in caption and caption.count("after") == caption.count("after that")
