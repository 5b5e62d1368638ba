"""What the parts of an explanation's picture have in common: columns, titles and shades."""

from dataclasses import dataclass

import torch
from PIL import Image, ImageDraw

from .drawing import INK, MUTED, blank, load_font
from .explain import Explanation

MARGIN, GAP = 36, 14
ROW = 22
"""Height of a word's row, and of a clip's."""
PHRASE = 20
"""Width of a phrase's column."""
LABELS = 150
"""Width of the words' labels."""
TITLE = 34
"""Height of a part's title."""

_BARS = 150
_GRID, _NARROWEST, _WIDEST = 1040, 18, 130
_LEAST_TITLE = 1080
_WHITE = (255, 255, 255)


@dataclass(frozen=True)
class Columns:
    """
    From left to right: the phrases, the words' labels, one column for each frame, and what each word adds.

    Args:
        left: where the frames' columns begin, in pixels.
        width: of a frame's column.
        count: number of frames.
    """

    left: int
    width: int
    count: int

    @classmethod
    def of(cls, explanation: Explanation) -> "Columns":
        """Narrower ones for more frames."""
        phrases, frames = len(explanation.phrases), len(explanation.times)
        width = min(max(_GRID // frames, _NARROWEST), _WIDEST)
        return cls(MARGIN + phrases * PHRASE + LABELS + GAP, width, frames)

    @property
    def right(self) -> int:
        """Where the frames' columns end."""
        return self.left + self.count * self.width

    @property
    def picture(self) -> int:
        """Width of the whole picture."""
        return max(self.right + GAP + _BARS, self.left + _LEAST_TITLE) + MARGIN

    def x(self, frame: int) -> int:
        """Where a frame's column begins."""
        return self.left + frame * self.width

    def part(self, height: int, title: str, text: str) -> tuple[Image.Image, ImageDraw.ImageDraw, float]:
        """A part of the picture that is empty below its title; what draws on it; and where the title's text ends."""
        image, draw = blank(self.picture, height)
        bold, plain = load_font(16, bold=True), load_font(13)
        draw.text((self.left, 6), title, INK, bold)
        begin = self.left + bold.getlength(title) + 12
        draw.text((begin, 9), text, MUTED, plain)
        return image, draw, begin + plain.getlength(text)


def strengths(values: torch.Tensor) -> torch.Tensor:
    """0..1 from the lowest to the highest value; 1 where all are the same."""
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else torch.ones_like(values)


def shade(colour: tuple[int, ...], strength: float, ground: tuple[int, ...] = _WHITE) -> tuple[int, ...]:
    """A colour on a ground of another: 0 is the ground, 1 the colour."""
    return tuple(round(below + (own - below) * strength) for own, below in zip(colour, ground, strict=True))
