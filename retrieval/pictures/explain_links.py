"""The lower end of an explanation's picture: which phrases found which clips."""

from PIL import Image, ImageColor, ImageDraw

from .drawing import MUTED, PAPER, load_font
from .explain import Explanation
from .explain_columns import GAP, MARGIN, PHRASE, ROW, TITLE, Columns, shade, strengths

_PHRASES = "#c2255c #2f9e44 #7048e8 #e67700 #1098ad #a61e4d #5c940d #1971c2 #d9480f #862e9c".split()  # noqa: SIM905
_CLIP = (70, 78, 90)
_THINNEST, _THICKEST = 1.5, 10.0
_SHARPER = 4
"""Curves are drawn so many times as large and then reduced, which smooths their edges."""

Point = tuple[float, float]


def phrase_colour(number: int) -> tuple[int, ...]:
    """Of a phrase, in all parts of the picture."""
    return ImageColor.getrgb(_PHRASES[number % len(_PHRASES)])


def draw_links(explanation: Explanation, columns: Columns) -> Image.Image:
    """
    The clips as rows below the frames that they are made of, and curves to them from the phrases' columns, which end
    where this part of the picture begins.
    """
    low, high = explanation.clip_cosines.min().item(), explanation.clip_cosines.max().item()
    text = (
        f"similarity {explanation.level_scores['clip_phrase']:z.3f}         phrases are made of words (coloured), "
        f"clips of frames (grey); the thicker a link, the higher the cosine, {low:z.2f} … {high:z.2f}"
    )
    # Beside many phrases there has to be room for their curves.
    spacing = max(ROW + 6, (len(explanation.phrases) * 8 + 30) // len(explanation.clips))
    centres = [GAP + TITLE + round((clip + 0.5) * spacing) for clip in range(len(explanation.clips))]
    part, _, _ = columns.part(centres[-1] + spacing // 2 + MARGIN - GAP, "Phrases and clips", text)
    image = Image.new("RGB", (part.width, part.height + GAP), PAPER)
    image.paste(part, (0, GAP))
    _draw_clips(ImageDraw.Draw(image), explanation, columns, centres)
    _draw_curves(image, explanation, columns, centres)
    return image


def _draw_clips(draw: ImageDraw.ImageDraw, explanation: Explanation, columns: Columns, centres: list[int]) -> None:
    """A row for each clip, dark where its frames are, and at its end the phrase that it found."""
    font = load_font(12)
    for clip, weights in enumerate(explanation.clips):
        top = centres[clip] - ROW // 2
        for frame, strength in enumerate((weights / weights.max()).tolist()):
            left = columns.x(frame)
            draw.rectangle((left, top, left + columns.width - 2, top + ROW - 2), shade(_CLIP, 0.06 + 0.94 * strength))
        phrase = int(explanation.clip_cosines[:, clip].argmax())
        x = columns.right + GAP
        draw.text((x, top + 3), text := f"clip {clip + 1}: ", MUTED, font)
        x += round(font.getlength(text))
        text = f"phrase {phrase + 1}, {explanation.clip_cosines[phrase, clip].item():z.3f}"
        draw.text((x, top + 3), text, phrase_colour(phrase), font)


def _draw_curves(image: Image.Image, explanation: Explanation, columns: Columns, centres: list[int]) -> None:
    widths = _THINNEST + (_THICKEST - _THINNEST) * strengths(explanation.clip_cosines)
    layer = Image.new("RGBA", (columns.left * _SHARPER, image.height * _SHARPER))
    draw = ImageDraw.Draw(layer)
    for link in sorted(explanation.links, key=lambda link: link.cosine):
        x, y = MARGIN + link.phrase * PHRASE + (PHRASE - 4) / 2, centres[link.clip] - 1
        points = [(a * _SHARPER, b * _SHARPER) for a, b in _curve((x, 0), (x, y), (x + 10, y), (columns.left - 4, y))]
        width = round(widths[link.phrase, link.clip].item() * _SHARPER)
        draw.line(points, (*phrase_colour(link.phrase), 215), width, joint="curve")
    layer = layer.resize((columns.left, image.height), Image.Resampling.LANCZOS)
    image.paste(layer, (0, 0), layer)


def _curve(begin: Point, towards: Point, coming_from: Point, end: Point, steps: int = 40) -> list[Point]:
    """Points on a cubic Bezier curve."""
    points = []
    for t in (step / steps for step in range(steps + 1)):
        shares = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3)
        corners = zip(shares, (begin, towards, coming_from, end), strict=True)
        x, y = zip(*((share * x, share * y) for share, (x, y) in corners), strict=True)
        points.append((sum(x), sum(y)))
    return points
