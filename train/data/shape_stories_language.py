"""English captions of shape stories, with the characters that name each event."""

import random

from .shape_stories_world import DIRECTIONS, Event, Slots, Subject

_SIZES = {"small": ("small", "little", "tiny"), "big": ("big", "large", "huge")}
_COLOURS = {"purple": ("purple", "violet")}
_SHAPES = {
    "circle": (("circle", "circles"), ("disc", "discs"), ("dot", "dots")),
    "square": (("square", "squares"), ("box", "boxes")),
    "triangle": (("triangle", "triangles"),),
    "ring": (("ring", "rings"), ("hoop", "hoops")),
    "cross": (("cross", "crosses"), ("plus sign", "plus signs")),
}
_COUNTS = {1: ("a", "a", "a", "one"), 2: ("two", "two", "a pair of")}
# (what one does, what two do)
_MOVES = (("slides", "slide"), ("moves", "move"), ("glides", "glide"), ("drifts", "drift"), ("travels", "travel"))
_WAYS = {
    "left": ("left", "to the left", "leftwards"),
    "right": ("right", "to the right", "rightwards"),
    "up": ("up", "upwards", "to the top"),
    "down": ("down", "downwards", "to the bottom"),
}
_VERBS = {
    "appear": (("appears", "appear"), ("shows up", "show up"), ("fades in", "fade in"), ("emerges", "emerge")),
    "grow": (("grows", "grow"), ("gets bigger", "get bigger"), ("expands", "expand"), ("gets larger", "get larger")),
    "shrink": (("shrinks", "shrink"), ("gets smaller", "get smaller"), ("becomes smaller", "become smaller")),
    "spin": (("spins", "spin"), ("rotates", "rotate"), ("turns around", "turn around")),
    "swap": (("", "swap places"), ("", "trade places"), ("", "change places"), ("", "switch positions")),
}
_AT_ONCE = (" while ", " and at the same time ", " as ")
_THEN = (", then ", ", then ", " and then ", ", after that ", ", next ")
# A caption leaves the sizes of an event out now and then: queries do not always name everything.
_SIZE_OMISSION = 0.12
_REVERSED_SHARE = 0.05


def _noun_phrase(rng: random.Random, subject: Subject, name_size: bool) -> str:
    words = [rng.choice(_COUNTS[subject.count])]
    if subject.size is not None and name_size:
        words.append(rng.choice(_SIZES[subject.size]))
    words.append(rng.choice(_COLOURS.get(subject.colour, (subject.colour,))))
    # The first noun is the common one, the others are its synonyms.
    nouns = _SHAPES[subject.shape]
    noun = nouns[0] if rng.random() < 0.6 else rng.choice(nouns)
    return " ".join([*words, noun[subject.count - 1]])


def describe_event(rng: random.Random, event: Event, name_size: bool = True) -> str:
    """One clause, e.g. "a small red ring slides left"."""
    subjects = list(event.subjects)
    rng.shuffle(subjects)
    nouns = " and ".join(_noun_phrase(rng, subject, name_size) for subject in subjects)
    plural = len(subjects) > 1 or subjects[0].count > 1
    if event.action in DIRECTIONS:
        return f"{nouns} {rng.choice(_MOVES)[plural]} {rng.choice(_WAYS[event.action])}"
    return f"{nouns} {rng.choice(_VERBS[event.action])[plural]}"


def _join(rng: random.Random, slots: list[list[str]]) -> str:
    """Connect slots of placeholders (one character each) to a sentence."""
    simple = all(len(slot) == 1 for slot in slots)
    parts = []
    for slot in slots:
        at_once = list(slot)
        rng.shuffle(at_once)
        parts.append(rng.choice(_AT_ONCE).join(at_once))
    if len(parts) == 1:
        return parts[0]
    if len(parts) == 2 and simple:  # "before" and "after" beside "while" would be ambiguous
        if rng.random() < _REVERSED_SHARE:
            return rng.choice(("after {0}, {1}", "{1} after {0}")).format(*parts)
        if rng.random() < 0.12:
            return " before ".join(parts)
    sentence = ("first " if rng.random() < 0.2 else "") + parts[0]
    for index, part in enumerate(parts[1:], start=1):
        last = len(parts) > 2 and index == len(parts) - 1
        sentence += (", finally " if last and rng.random() < 0.2 else rng.choice(_THEN)) + part
    return sentence


def describe(rng: random.Random, slots: Slots, name_sizes: bool = False) -> tuple[str, list[tuple[int, int]]]:
    """Tell a story in one lower-case sentence.

    Args:
        rng: source of the wording.
        slots: the events in order of time.
        name_sizes: name every size; by default a story of several events leaves a few of them out.

    Returns:
        The caption and, for every event in order of time, the characters [first, last) of the clause that names it.
    """
    events = [event for slot in slots for event in slot]
    clauses = [
        describe_event(rng, event, name_sizes or len(events) == 1 or rng.random() >= _SIZE_OMISSION) for event in events
    ]
    # Placeholders are characters that no word has, so that a clause's place is known while the sentence is built.
    marks = iter(range(len(events)))
    sentence = _join(rng, [[chr(next(marks)) for _ in slot] for slot in slots])
    caption, spans = "", [(0, 0)] * len(events)
    for character in sentence:
        if (index := ord(character)) < len(events):
            spans[index] = (len(caption), len(caption) + len(clauses[index]))
            caption += clauses[index]
        else:
            caption += character
    return caption, spans
