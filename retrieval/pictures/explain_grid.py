"""The middle of an explanation's picture: how similar every word is to every frame, and what each word adds."""

import itertools

from PIL import Image, ImageDraw

from .drawing import INK, MUTED, load_font, shortened
from .explain import Explanation
from .explain_columns import GAP, LABELS, MARGIN, PHRASE, ROW, TITLE, Columns, shade, strengths
from .explain_links import phrase_colour

_TOP = TITLE + 26
_MIDDLE, _DARK = (107, 174, 214), (8, 48, 107)
_BAR, _NUMBER = 80, 50
_LEGEND = 120


def draw_grid(explanation: Explanation, columns: Columns) -> Image.Image:
    """Words and frames, the phrases that the words make on the left, and what each word adds on the right."""
    score = f"similarity {explanation.level_scores['frame_word']:z.3f}"
    image, draw, x = columns.part(_TOP + len(explanation.words) * ROW, "Words and frames", score)
    _draw_legend(draw, explanation, x + 28)
    _draw_cells(draw, explanation, columns)
    _draw_labels(draw, explanation, columns)
    _draw_phrases(draw, explanation)
    _draw_shares(draw, explanation, columns)
    return image


def _heat(strength: float) -> tuple[int, ...]:
    """From white over light to dark blue."""
    return shade(_MIDDLE, 2 * strength) if strength < 0.5 else shade(_DARK, 2 * strength - 1, ground=_MIDDLE)


def _draw_cells(draw: ImageDraw.ImageDraw, explanation: Explanation, columns: Columns) -> None:
    heat = strengths(explanation.cosines).tolist()
    for word, frame in itertools.product(range(len(heat)), range(columns.count)):
        left, top = columns.x(frame), _TOP + word * ROW
        draw.rectangle((left, top, left + columns.width - 2, top + ROW - 2), _heat(heat[word][frame]))
    for word, frame in enumerate(explanation.word_frames.tolist()):
        _draw_outline(draw, columns.x(frame) - 1, _TOP + word * ROW - 1, columns.width, ROW)
    for frame, word in enumerate(explanation.frame_words.tolist()):
        _draw_dot(draw, columns.x(frame) + columns.width / 2 - 1, _TOP + word * ROW + ROW / 2 - 1)


def _draw_outline(draw: ImageDraw.ImageDraw, left: float, top: float, width: float, height: float) -> None:
    """Dark and light, to be seen on every shade."""
    draw.rectangle((left, top, left + width, top + height), outline=INK, width=2)
    draw.rectangle((left + 2, top + 2, left + width - 2, top + height - 2), outline="white", width=1)


def _draw_dot(draw: ImageDraw.ImageDraw, x: float, y: float) -> None:
    draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill="white", outline=INK, width=1)


def _draw_labels(draw: ImageDraw.ImageDraw, explanation: Explanation, columns: Columns) -> None:
    font = load_font(14)
    for number, word in enumerate(explanation.words):
        place = (columns.left - 8, _TOP + number * ROW + 2)
        draw.text(place, shortened(word.label, font, LABELS), MUTED if word.special else INK, font, anchor="ra")


def _draw_phrases(draw: ImageDraw.ImageDraw, explanation: Explanation) -> None:
    """A column for each phrase, coloured where its words are."""
    draw.text((MARGIN, _TOP - 40), "phrases", MUTED, load_font(12))
    bold = load_font(12, bold=True)
    for number, weights in enumerate(explanation.phrases):
        left, colour = MARGIN + number * PHRASE, phrase_colour(number)
        draw.text((left + (PHRASE - 4) / 2, _TOP - 12), str(number + 1), colour, bold, anchor="mm")
        for word, strength in enumerate((weights / weights.max()).tolist()):
            top = _TOP + word * ROW
            draw.rectangle((left, top, left + PHRASE - 4, top + ROW - 2), shade(colour, 0.06 + 0.94 * strength))


def _draw_shares(draw: ImageDraw.ImageDraw, explanation: Explanation, columns: Columns) -> None:
    """What each word adds to the similarity, as a bar and a number."""
    left, font = columns.right + GAP, load_font(12)
    draw.text((left, _TOP - 21), "adds to the similarity", MUTED, font)
    most = explanation.word_shares.abs().max().item() or 1.0
    for number, share in enumerate(explanation.word_shares.tolist()):
        top = _TOP + number * ROW + 3
        right = left + max(round(_BAR * abs(share) / most), 1)
        draw.rectangle((left, top, right, top + ROW - 9), _heat(0.7) if share > 0 else MUTED)
        draw.text((left + _BAR + _NUMBER, top), f"{share:z.3f}", INK, font, anchor="ra")


def _draw_legend(draw: ImageDraw.ImageDraw, explanation: Explanation, x: float) -> None:
    """What shades, outlines and dots mean."""
    font, y = load_font(12), 9
    low, high = (f"{value:z.2f}" for value in (explanation.cosines.min().item(), explanation.cosines.max().item()))
    draw.text((x, y), text := f"cosine {low}", MUTED, font)
    x += font.getlength(text) + 6
    for step in range(_LEGEND):
        draw.line((x + step, y + 1, x + step, y + 13), _heat(step / _LEGEND))
    x += _LEGEND + 6
    draw.text((x, y), high, MUTED, font)
    x += font.getlength(high) + 28
    _draw_outline(draw, x, y, 20, 14)
    draw.text((x + 27, y), text := "the frame that a word finds", MUTED, font)
    x += font.getlength(text) + 27 + 28
    _draw_dot(draw, x + 4, y + 7)
    draw.text((x + 14, y), "the word that a frame finds", MUTED, font)
