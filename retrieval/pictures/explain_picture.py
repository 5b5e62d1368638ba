"""A picture of an `Explanation`: frames in a row, what each word found in them, and which phrases found which clips."""

import os
from collections.abc import Sequence
from itertools import pairwise

from PIL import Image, ImageDraw

from .drawing import ACCENT, INK, MUTED, PAPER, TRACK, blank, fitted, format_time, load_font, shortened, wrapped
from .explain import Explanation
from .explain_columns import GAP, MARGIN, TITLE, Columns, strengths
from .explain_grid import draw_grid
from .explain_links import draw_links
from .thumbnails import thumbnails

LEVEL_NAMES = {
    "frame_word": "words and frames",
    "clip_phrase": "phrases and clips",
    "video_sentence": "sentence and video",
}
"""What the levels of similarity are called where people read them."""

_LEAST_PICTURE = 84
_LOWEST, _HIGHEST = 40, 150
_CURVE = 48


def picture_of(explanation: Explanation) -> Image.Image:
    """
    Draws an explanation with the frames of its video, which are read once more.

    Raises:
        VideoReadError: the video is not there any more, or cannot be read.
    """
    return draw_explanation(explanation, thumbnails(explanation.video, explanation.times))


def draw_explanation(explanation: Explanation, frames: Sequence[Image.Image]) -> Image.Image:
    """
    Draws why a video answers a query.

    From top to bottom: the query with its similarity on each level; the frames, those of the moment with a coloured
    edge; how similar each is to the whole sentence; the cosines of words and frames, with what each word finds and
    adds to the similarity; the clips that the frames make, linked with the phrases that the words make. Where frames
    are many, of several neighbours the one most similar to the sentence is shown.

    Args:
        explanation: of `explain_hit` or `explain`.
        frames: pictures of all its frames, in their order, of any size.

    Returns:
        An RGB image, ready to `save`.

    Raises:
        ValueError: another number of frames than the explanation has.
    """
    if len(frames) != len(explanation.times):
        raise ValueError(f"The explanation is of {len(explanation.times)} frames, got {len(frames)}.")
    columns = Columns.of(explanation)
    parts = [
        _header(explanation, columns),
        _frames(explanation, columns, frames),
        draw_grid(explanation, columns),
        draw_links(explanation, columns),
    ]
    image = Image.new("RGB", (columns.picture, sum(part.height for part in parts)), PAPER)
    top = 0
    for part in parts:
        image.paste(part, (0, top))
        top += part.height
    return image


def _header(explanation: Explanation, columns: Columns) -> Image.Image:
    """The query in quotes, the video's name, and the similarity on each level."""
    big, small, bold = load_font(24, bold=True), load_font(14), load_font(15, bold=True)
    width = columns.picture - 2 * MARGIN
    lines = wrapped(f"“{' '.join(explanation.query.split())}”", big, width)
    image, draw = blank(columns.picture, MARGIN + 34 * len(lines) + 76)
    for row, line in enumerate(lines):
        draw.text((MARGIN, MARGIN + 34 * row), line, INK, big)
    top = MARGIN + 34 * len(lines) + 4
    name = f"{os.path.basename(explanation.video)}, {_stretch(*explanation.span)}"
    draw.text((MARGIN, top), shortened(name, small, width), MUTED, small)
    x: float = MARGIN
    for value, text in _scores(explanation):
        draw.text((x, top + 28), number := f"{value:z.3f}", INK, bold)
        x += bold.getlength(number) + 7
        draw.text((x, top + 29), text, MUTED, small)
        x += small.getlength(text) + 20
    draw.line((MARGIN, image.height - 8, columns.picture - MARGIN, image.height - 8), TRACK, 1)
    return image


def _scores(explanation: Explanation) -> list[tuple[float, str]]:
    """The score and what it is the mean of; the levels' weights where they are not all the same."""
    weights = explanation.level_weights
    alike = len(set(weights.values())) == 1
    levels = [
        (explanation.level_scores[level], name if alike else f"{name} (weight {weights[level]:g})")
        for level, name in LEVEL_NAMES.items()
    ]
    return [(explanation.score, "similarity, the mean of"), *levels]


def _frames(explanation: Explanation, columns: Columns, frames: Sequence[Image.Image]) -> Image.Image:
    """The frames with their times, the moment, and every frame's similarity to the sentence."""
    count = min(max(columns.count * columns.width // _LEAST_PICTURE, 1), columns.count)
    edges = [group * columns.count // count for group in range(count + 1)]
    width = columns.count // count * columns.width - 3
    height = min(max(round(width * frames[0].height / frames[0].width), _LOWEST), _HIGHEST)
    top = TITLE + 30
    low, high = explanation.relevance.min().item(), explanation.relevance.max().item()
    text = (
        f"orange: the moment that answers, where the cosine with the whole sentence ({low:z.2f} … {high:z.2f}) stays "
        "above its middle"
    )
    image, draw, _ = columns.part(top + height + 30 + _CURVE + GAP, "Frames", text)
    inside = set(explanation.moment_frames)
    for first, end in pairwise(edges):
        shown = max(range(first, end), key=lambda frame: explanation.relevance[frame].item())
        middle = (columns.x(first) + columns.x(end)) // 2 - 1
        left = middle - width // 2
        image.paste(fitted(frames[shown], width, height), (left, top))
        colour, line = (ACCENT, 3) if shown in inside else (TRACK, 1)
        draw.rectangle((left, top, left + width - 1, top + height - 1), outline=colour, width=line)
        draw.text((middle, top + height + 4), format_time(explanation.times[shown]), MUTED, load_font(12), anchor="ma")
    _draw_moment(draw, explanation, columns, top - 9)
    _draw_relevance(draw, explanation, columns, top + height + 26)
    return image


def _draw_moment(draw: ImageDraw.ImageDraw, explanation: Explanation, columns: Columns, y: int) -> None:
    """A bar over the frames of the moment, and its times."""
    inside = explanation.moment_frames
    left, right = columns.x(inside[0]), columns.x(inside[-1] + 1) - 4
    draw.rectangle((left, y, right, y + 4), ACCENT)
    font, text = load_font(13, bold=True), _stretch(*explanation.moment)
    draw.text(
        (max((left + right) / 2, columns.left + font.getlength(text) / 2), y - 18), text, ACCENT, font, anchor="ma"
    )


def _draw_relevance(draw: ImageDraw.ImageDraw, explanation: Explanation, columns: Columns, top: int) -> None:
    """Bars from the least to the most similar frame, and the line above which the moment lies."""
    bottom, inside = top + _CURVE, set(explanation.moment_frames)
    draw.text((columns.left - 8, bottom - 16), "whole sentence", MUTED, load_font(14), anchor="ra")
    for frame, strength in enumerate(strengths(explanation.relevance).tolist()):
        left = columns.x(frame)
        box = (left, bottom - 3 - round((_CURVE - 3) * strength), left + columns.width - 3, bottom)
        draw.rectangle(box, ACCENT if frame in inside else TRACK)
    middle = bottom - 3 - (_CURVE - 3) // 2
    for x in range(columns.left, columns.right, 8):
        draw.line((x, middle, x + 3, middle), INK, 1)


def _stretch(start: float, end: float) -> str:
    return f"{format_time(start)} – {format_time(end)}"
