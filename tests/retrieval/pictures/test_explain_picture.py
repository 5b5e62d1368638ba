from dataclasses import replace

import numpy as np
import pytest
import torch
from encoded import random_encoded
from PIL import Image, ImageColor
from random_features import random_text_features

from hcmi.processing.video_reading import VideoReadError
from hcmi.retrieval.pictures.explain import Explanation, explain
from hcmi.retrieval.pictures.explain_columns import ROW, Columns
from hcmi.retrieval.pictures.explain_picture import draw_explanation, picture_of
from hcmi.retrieval.pictures.query_words import QueryWord

ACCENT = ImageColor.getrgb("#e8590c")
INK = ImageColor.getrgb("#16191d")
LEVELS = {"frame_word": 1.0, "clip_phrase": 1.0, "video_sentence": 1.0}


def explained(words: int = 6, frames: int = 8, seed: int = 0, query: str = "a query") -> Explanation:
    text = random_text_features([words], 8, seed=seed)
    names = [QueryWord(f"word{n}", special=n in (0, words - 1)) for n in range(words)]
    return explain(query, names, text, random_encoded([frames], 8, seed, name="/somewhere/a_video.mp4"), LEVELS)


def pictures(count: int, width: int = 96, height: int = 64) -> list[Image.Image]:
    """One green, the next ones greener."""
    return [Image.new("RGB", (width, height), (0, 90 + 160 * n // count, 0)) for n in range(count)]


def marked(image: Image.Image, colour: tuple[int, int, int]) -> np.ndarray:
    return (np.asarray(image) == colour).all(-1)


def first_run(row: np.ndarray) -> tuple[int, int]:
    columns = np.flatnonzero(row)
    return int(columns[0]), int(columns[-1])


@pytest.mark.parametrize("seed", range(4))
def test_the_moment_is_marked_over_its_frames(seed):
    explanation = explained(seed=seed)
    columns = Columns.of(explanation)
    image = draw_explanation(explanation, pictures(8))
    rows = marked(image, ACCENT)
    bar = int((rows.sum(1) == rows.sum(1).max()).argmax())
    inside = explanation.moment_frames
    assert first_run(rows[bar, columns.left :]) == (
        pytest.approx(columns.x(inside[0]) - columns.left, abs=4),
        pytest.approx(columns.x(inside[-1] + 1) - columns.left, abs=6),
    )


def test_frames_stand_over_their_columns_in_order():
    explanation = explained(frames=5)
    columns = Columns.of(explanation)
    pixels = np.asarray(draw_explanation(explanation, pictures(5))).astype(int)
    green = (pixels[..., 0] == 0) & (pixels[..., 2] == 0) & (pixels[..., 1] >= 90)
    row = int(green.sum(1).argmax())
    shown = [pixels[row, columns.x(frame) + columns.width // 2, 1] for frame in range(5)]
    assert shown == [picture.getpixel((0, 0))[1] for picture in pictures(5)]


def cell_rows(explanation: Explanation, image: Image.Image) -> int:
    """The row of pixels at which the words' rows begin: where the darkest cell is, less its word's place."""
    columns = Columns.of(explanation)
    word, frame = divmod(int(explanation.cosines.argmax()), columns.count)
    dark = marked(image, (8, 48, 107))[:, columns.x(frame) + 6]
    return int(dark.argmax()) - word * ROW


@pytest.mark.parametrize("seed", range(3))
def test_the_more_alike_the_darker(seed):
    explanation = explained(seed=seed)
    columns = Columns.of(explanation)
    image = draw_explanation(explanation, pictures(8))
    top = cell_rows(explanation, image)
    light = np.array(
        [[sum(image.getpixel((columns.x(frame) + 8, top + word * ROW + 5))) for frame in range(8)] for word in range(6)]
    )
    order = explanation.cosines.flatten().argsort().tolist()
    assert (np.diff(light.flatten()[order]) <= 0).all()


def test_each_words_frame_has_a_dark_outline():
    explanation = explained()
    columns = Columns.of(explanation)
    image = draw_explanation(explanation, pictures(8))
    ink, top = marked(image, INK), cell_rows(explanation, image)
    for word, best in enumerate(explanation.word_frames.tolist()):
        middle = top + word * ROW + 5
        outlined = [bool(ink[middle, columns.x(frame) - 2 : columns.x(frame) + 2].any()) for frame in range(8)]
        # The next cell's left edge is this one's right.
        assert outlined[best] and not any(outlined[:best]) and not any(outlined[best + 2 :])


@pytest.mark.parametrize(("words", "frames"), [(1, 1), (3, 2), (20, 12), (77, 64)])
def test_nothing_is_cut_off(words, frames):
    for query in ("q", "a dog jumps into a pool " * 12):
        image = draw_explanation(explained(words, frames, query=query), pictures(frames))
        assert image.mode == "RGB"
        pixels = np.asarray(image)
        for edge in (pixels[:, :20], pixels[:, -20:], pixels[:20], pixels[-8:]):
            assert (edge == 255).all()
    assert image.height > draw_explanation(explained(words, frames), pictures(frames)).height


def test_of_many_frames_those_most_like_the_sentence_are_shown():
    explanation = explained(frames=64)
    pixels = np.asarray(draw_explanation(explanation, pictures(64))).astype(int)
    green = (pixels[..., 0] == 0) & (pixels[..., 2] == 0) & (pixels[..., 1] >= 90)
    shown = set(pixels[int(green.sum(1).argmax())][green[int(green.sum(1).argmax())]][:, 1].tolist())
    assert 10 <= len(shown) <= 14
    best = int(explanation.relevance.argmax())
    assert pictures(64)[best].getpixel((0, 0))[1] in shown


def test_levels_weights_are_told_where_they_differ():
    explanation = explained()
    plain = draw_explanation(explanation, pictures(8))
    other = replace(explanation, level_weights={"frame_word": 2.0, "clip_phrase": 1.0, "video_sentence": 0.0})
    assert draw_explanation(other, pictures(8)) != plain
    assert draw_explanation(replace(explanation, level_weights=dict.fromkeys(LEVELS, 3.0)), pictures(8)) == plain


def test_the_frames_are_those_of_the_explanation():
    with pytest.raises(ValueError, match="8 frames, got 7"):
        draw_explanation(explained(), pictures(7))
    with pytest.raises(VideoReadError, match="a_video"):
        picture_of(explained())


def test_values_that_are_all_the_same_are_drawn_too():
    explanation = explained(4, 3)
    same = replace(
        explanation,
        cosines=torch.full_like(explanation.cosines, 0.5),
        clip_cosines=torch.zeros_like(explanation.clip_cosines),
        word_shares=torch.zeros_like(explanation.word_shares),
        relevance=torch.zeros_like(explanation.relevance),
    )
    assert draw_explanation(same, pictures(3)).width > 0
