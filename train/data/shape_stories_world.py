"""What happens in a shape story, and when: events, their arrangements in time, and unique stories for every split."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

COLOURS = ("red", "green", "blue", "yellow", "purple", "white")
SHAPES = ("circle", "square", "triangle", "ring", "cross")
SIZES = ("small", "big")
DIRECTIONS = ("left", "right", "up", "down")
ACTIONS = ("appear", *DIRECTIONS, "grow", "shrink", "spin", "swap")

# Circles and rings look the same from every angle.
SPINNING_SHAPES = ("square", "triangle", "cross")
FRAME_RATES = (8, 10, 12, 15)

EVENT_COUNT_SHARES = {1: 0.15, 2: 0.40, 3: 0.30, 4: 0.15}
AT_ONCE_SHARE = 0.17  # of the attempts: some pairs do not fit, which leaves about 15 %
DECOY_SHARE = 0.40
_SEVERAL_EVENTS_SHARE = 1.0 - EVENT_COUNT_SHARES[1]
_ATTEMPTS = 5000


@dataclass(frozen=True)
class Subject:
    """One or two equal shapes. `size` is None where the action itself is about the size."""

    size: str | None
    colour: str
    shape: str
    count: int = 1


@dataclass(frozen=True)
class Event:
    """Something that the subjects do. Only "swap" has two subjects, in no particular order (kept sorted)."""

    action: str
    subjects: tuple[Subject, ...]

    @property
    def colours(self) -> set[str]:
        return {subject.colour for subject in self.subjects}

    @property
    def name_without_size(self) -> tuple:
        """What a caption says about the event when it leaves the sizes out."""
        return self.action, tuple(sorted((s.colour, s.shape, s.count) for s in self.subjects))


Slots = tuple[tuple[Event, ...], ...]
"""The slots of a story follow each other; the events (one or two) of a slot happen at once."""


@dataclass(frozen=True)
class Story:
    """A story with its timing: slot `i` is on screen in the frames `slot_frames[i]` = [first, last)."""

    slots: Slots
    slot_frames: tuple[tuple[int, int], ...]
    frame_rate: int
    num_frames: int
    decoy_group: int | None

    @property
    def events(self) -> list[tuple[Event, float, float]]:
        """All events in order of time with start and end in seconds."""
        return [
            (event, first / self.frame_rate, last / self.frame_rate)
            for slot, (first, last) in zip(self.slots, self.slot_frames, strict=True)
            for event in slot
        ]


def sample_event(rng: random.Random) -> Event:
    """Draw one event; every action is equally likely."""
    action = rng.choice(ACTIONS)
    if action == "swap":
        colours = rng.sample(COLOURS, 2)
        subjects = [Subject(rng.choice(SIZES), colour, rng.choice(SHAPES)) for colour in colours]
        return Event(action, tuple(sorted(subjects, key=lambda subject: subject.colour)))
    size = None if action in ("grow", "shrink") else rng.choice(SIZES)
    shape = rng.choice(SPINNING_SHAPES if action == "spin" else SHAPES)
    return Event(action, (Subject(size, rng.choice(COLOURS), shape, rng.choice((1, 1, 2))),))


def can_be_at_once(first: Event, second: Event) -> bool:
    """Whether the two events fit beside each other, each in its own half of the picture."""
    if first.colours & second.colours:
        return False
    axes = {event.action in ("left", "right") for event in (first, second) if event.action in DIRECTIONS}
    if len(axes) == 2:  # the halves are lanes along the movement: both must move along the same axis
        return False
    return not any(
        event.action in DIRECTIONS and subject.count == 2 and subject.size == "big"  # wider than a lane
        for event in (first, second)
        for subject in event.subjects
    )


def arrange(rng: random.Random, events: Sequence[Event], at_once: bool) -> Slots:
    """Put the events in a random order, with one random pair at once where that is asked for and possible."""
    order = list(events)
    rng.shuffle(order)
    if at_once:
        pairs = [(a, b) for i, a in enumerate(order) for b in order[i + 1 :] if can_be_at_once(a, b)]
        if pairs:
            pair = rng.choice(pairs)
            slots: list[tuple[Event, ...]] = [(event,) for event in order if event not in pair]
            slots.insert(rng.randrange(len(slots) + 1), pair)
            return tuple(slots)
    return tuple((event,) for event in order)


def _meaning(slots: Slots) -> tuple:
    return tuple(frozenset(slot) for slot in slots)


def _sample_group(rng: random.Random, num_events: int, size: int, used: set[frozenset[Event]]) -> list[Slots]:
    """Draw `size` stories that tell the same new events in different arrangements."""
    for _ in range(_ATTEMPTS):
        events = [sample_event(rng) for _ in range(num_events)]
        # Events that differ in size only would become one when a caption leaves the size out.
        if len({event.name_without_size for event in events}) < num_events or frozenset(events) in used:
            continue
        group: dict[tuple, Slots] = {}
        for _ in range(10 * size):
            at_once = num_events > 1 and rng.random() < AT_ONCE_SHARE / _SEVERAL_EVENTS_SHARE
            slots = arrange(rng, events, at_once)
            group.setdefault(_meaning(slots), slots)
            if len(group) == size:
                used.add(frozenset(events))
                return list(group.values())
    raise ValueError(
        f"no new story with {num_events} event(s) after {_ATTEMPTS} attempts: the splits are too large for all their "
        "stories to be different; ask for smaller sizes"
    )


def _group_plan(rng: random.Random, size: int) -> list[tuple[int, int]]:
    """(number of events, number of stories) of every group of a split; a group of one has no decoys."""
    bounds, total = [0], 0.0
    for share in EVENT_COUNT_SHARES.values():
        total += share
        bounds.append(round(total * size))
    plan = []
    for num_events, low, high in zip(EVENT_COUNT_SHARES, bounds, bounds[1:], strict=False):
        decoys = round((high - low) * DECOY_SHARE / _SEVERAL_EVENTS_SHARE) if num_events > 1 else 0
        plan += [(num_events, 1)] * (high - low - max(decoys, 0))
        while decoys > 0:
            group_size = 3 if decoys == 3 or (decoys > 4 and rng.random() < 0.3) else min(2, decoys)
            plan.append((num_events, group_size))
            decoys -= group_size
    return plan


def _time(rng: random.Random, slots: Slots, decoy_group: int | None) -> Story:
    frame_rate = rng.choice(FRAME_RATES)
    longest = 1.6 if len(slots) < 3 else 1.3
    slot_frames, now = [], round(rng.uniform(0.0, 0.3) * frame_rate)
    for _ in slots:
        first, now = now, now + round(rng.uniform(0.8, longest) * frame_rate)
        slot_frames.append((first, now))
        now += round(rng.uniform(0.0, 0.3) * frame_rate)
    return Story(slots, tuple(slot_frames), frame_rate, now, decoy_group)


def sample_stories(rng: random.Random, size: int, used: set[frozenset[Event]]) -> list[Story]:
    """Sample the stories of one split.

    Args:
        rng: source of all decisions.
        size: number of stories.
        used: sets of events that are taken already, in this split or another; the new ones are added.

    Returns:
        `size` timed stories in random order. No two tell the same; those with the same `decoy_group` tell the same
        events in another arrangement.

    Raises:
        ValueError: there are not that many different stories.
    """
    stories = []
    for index, (num_events, group_size) in enumerate(_group_plan(rng, size)):
        group = _sample_group(rng, num_events, group_size, used)
        stories += [_time(rng, slots, index if group_size > 1 else None) for slots in group]
    rng.shuffle(stories)
    return stories
