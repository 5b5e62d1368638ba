import random
from collections import Counter

import pytest

from hcmi.train.data import shape_stories_world as world
from hcmi.train.data.shape_stories_world import Event, Story, Subject, arrange, can_be_at_once, sample_stories


def story_key(story: Story) -> tuple:
    return tuple(frozenset(slot) for slot in story.slots)


def event(action: str, colour: str, size: str | None = "small", count: int = 1, shape: str = "square") -> Event:
    return Event(action, (Subject(size, colour, shape, count),))


@pytest.mark.parametrize("seed", [0, 1])
def test_shares_of_event_counts_decoys_and_events_at_once(seed):
    stories = sample_stories(random.Random(seed), 2000, set())
    assert len(stories) == 2000
    counts = Counter(len(story.events) for story in stories)
    assert counts == {1: 300, 2: 800, 3: 600, 4: 300}
    assert sum(story.decoy_group is not None for story in stories) == pytest.approx(800, abs=10)
    assert sum(len(slot) == 2 for s in stories for slot in s.slots) == pytest.approx(300, abs=60)
    assert 28 < sum(story.num_frames for story in stories) / 2000 < 38


def test_stories_are_unique_and_decoys_share_their_events():
    used: set = set()
    splits = [sample_stories(random.Random(seed), 500, used) for seed in (0, 1)]
    assert len({story_key(story) for split in splits for story in split}) == 1000
    for split in splits:
        groups: dict[int, list[Story]] = {}
        for story in split:
            if story.decoy_group is not None:
                groups.setdefault(story.decoy_group, []).append(story)
        for group in groups.values():
            assert len(group) in (2, 3)
            assert len({frozenset(e for e, _, _ in story.events) for story in group}) == 1
        alone = [frozenset(e for e, _, _ in story.events) for story in split if story.decoy_group is None]
        assert len(alone) == len(set(alone))
    sets = [{frozenset(e for e, _, _ in story.events) for story in split} for split in splits]
    assert not sets[0] & sets[1]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 20])
def test_small_splits_have_their_size(size):
    assert len(sample_stories(random.Random(0), size, set())) == size


def test_events_are_sensible():
    for story in sample_stories(random.Random(3), 800, set()):
        assert 0.7 < story.num_frames / story.frame_rate < 8
        before = 0
        for slot, (first, last) in zip(story.slots, story.slot_frames, strict=True):
            assert before <= first <= before + 0.3 * story.frame_rate + 0.5
            assert 0.8 * story.frame_rate - 0.5 <= last - first <= 1.6 * story.frame_rate + 0.5
            before = last
            assert len(slot) == 1 or can_be_at_once(*slot)
        assert before <= story.num_frames
        for told, _, _ in story.events:
            assert len(told.subjects) == (2 if told.action == "swap" else 1)
            assert told.action != "swap" or len(told.colours) == 2
            for subject in told.subjects:
                assert told.action != "spin" or subject.shape not in ("circle", "ring")
                assert (subject.size is None) == (told.action in ("grow", "shrink"))
        assert len({told.name_without_size for told, _, _ in story.events}) == len(story.events)


def test_events_in_seconds():
    first, second = event("left", "red"), event("spin", "blue")
    story = Story(((first,), (second,)), ((2, 10), (12, 20)), 8, 21, None)
    assert story.events == [(first, 0.25, 1.25), (second, 1.5, 2.5)]


def test_what_can_be_at_once():
    assert can_be_at_once(event("left", "red"), event("right", "blue"))
    assert can_be_at_once(event("left", "red"), event("grow", "blue", None, 2))
    assert not can_be_at_once(event("left", "red"), event("right", "red"))
    assert not can_be_at_once(event("left", "red"), event("up", "blue"))
    assert not can_be_at_once(event("left", "red", "big", 2), event("spin", "blue"))


def test_arrange_keeps_every_event_once():
    events = [event("left", "red"), event("right", "blue"), event("spin", "green")]
    for seed in range(50):
        slots = arrange(random.Random(seed), events, at_once=seed % 2 == 0)
        assert sorted(map(str, (e for slot in slots for e in slot))) == sorted(map(str, events))
        assert len(slots) == (2 if seed % 2 == 0 else 3)
    clash = [event("left", "red"), event("up", "blue")]
    assert len(arrange(random.Random(0), clash, at_once=True)) == 2


def test_too_many_stories_are_refused(monkeypatch):
    monkeypatch.setattr(world, "sample_event", lambda rng: event("left", "red"))
    with pytest.raises(ValueError, match="ask for smaller sizes"):
        sample_stories(random.Random(0), 20, set())
