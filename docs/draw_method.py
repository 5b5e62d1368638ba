"""Draws the picture of the method, docs/images/method.png, from the model's own code and a story of the benchmark.

python docs/draw_method.py
"""

import random
import tempfile
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from hcmi.modeling_hcmi import HCMIConfig
from hcmi.processing import read_frames
from hcmi.processing.frame_sampling import segment_times
from hcmi.train.data.shape_stories_language import describe
from hcmi.train.data.shape_stories_rendering import write_video
from hcmi.train.data.shape_stories_world import Event, Story, Subject

FRAMES = 12
BLUE, ORANGE, GREEN, GREY = "#4c78a8", "#f58518", "#54a24b", "#555555"
LEVEL_HEIGHTS = (1.35, 2.75, 4.15)
STORY = Story(
    slots=(
        (Event("right", (Subject("small", "red", "ring"),)),),
        (Event("grow", (Subject(None, "blue", "square", 2),)),),
    ),
    slot_frames=((0, 16), (16, 32)),
    frame_rate=10,
    num_frames=32,
    decoy_group=None,
)


def main() -> None:
    config = HCMIConfig()
    clips = -(-FRAMES // config.frames_per_clip)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "story.mp4"
        write_video(str(path), STORY, (0, 0, 0))
        frames = read_frames(path, lambda start, end: segment_times(start, end, FRAMES)).frames
    # The shortest of a few tellings fits its boxes.
    caption = min((describe(random.Random(seed), STORY.slots)[0] for seed in range(50)), key=len)
    words = caption.replace(",", "").split()
    phrases = -(-len(words) // config.words_per_phrase)

    figure = Figure(figsize=(13, 5.6))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 13), ylim=(-0.35, 5.25))
    axes.axis("off")

    video_x = [0.5 + 0.48 * i for i in range(FRAMES)]
    for x, frame in zip(video_x, frames.permute(0, 2, 3, 1).numpy(), strict=True):
        axes.imshow(frame, extent=(x - 0.225, x + 0.225, LEVEL_HEIGHTS[0] - 0.225, LEVEL_HEIGHTS[0] + 0.225), zorder=3)
    axes.set(xlim=(0, 13), ylim=(-0.35, 5.25), aspect="auto")
    word_x = [7.35 + (5.3 / len(words)) * (i + 0.5) for i in range(len(words))]
    for x, word in zip(word_x, words, strict=True):
        box(axes, x, LEVEL_HEIGHTS[0], 5.3 / len(words) - 0.05, 0.34, word, BLUE, size=8)

    clip_x = groups(axes, video_x, clips, "clip", 0.9, config.frames_per_clip)
    phrase_x = groups(axes, word_x, phrases, "phrase", 0.85, config.words_per_phrase)
    for xs, name in ((clip_x, "video"), (phrase_x, "sentence")):
        center = sum(xs) / len(xs)
        for x in xs:
            line(axes, (x, LEVEL_HEIGHTS[1] + 0.2), (center, LEVEL_HEIGHTS[2] - 0.22), GREEN)
        box(axes, center, LEVEL_HEIGHTS[2], 1.3, 0.42, name, GREEN)

    for x, what in ((sum(video_x) / FRAMES, "CLIP image encoder, one vector a frame"),
                    (sum(word_x) / len(words), "CLIP text encoder, one vector a word")):  # fmt: skip
        box(axes, x, 0.35, 4.9, 0.4, what, GREY)
        line(axes, (x, 0.57), (x, 0.98), GREY)
    for x in (0.12, 6.9):
        for low, name in ((LEVEL_HEIGHTS[0], "aggregation"), (LEVEL_HEIGHTS[1], "aggregation")):
            axes.text(x, low + 0.72, name, fontsize=8, color=GREY, style="italic")

    for height, colour, left, right, name, how in (
        (LEVEL_HEIGHTS[0], BLUE, video_x[-1] + 0.28, word_x[0] - 0.35, "frame-word", "token-wise"),
        (LEVEL_HEIGHTS[1], ORANGE, clip_x[-1] + 0.5, phrase_x[0] - 0.48, "clip-phrase", "token-wise"),
        (LEVEL_HEIGHTS[2], GREEN, sum(clip_x) / clips + 0.7, sum(phrase_x) / phrases - 0.7, "video-sentence", "cosine"),
    ):
        arrow = FancyArrowPatch(
            (left, height), (right, height), arrowstyle="<|-|>", mutation_scale=13, color=colour, lw=1.8
        )
        axes.add_patch(arrow)
        middle = (left + right) / 2
        axes.text(middle, height + 0.09, name, ha="center", fontsize=9, color=colour, weight="bold")
        axes.text(middle, height - 0.25, how, ha="center", fontsize=8, color=colour)

    axes.text(sum(clip_x) / clips, 4.62, "a second view of the video decides which pairs of the batch\n"
              "are hidden positives (label denoising)", ha="center", fontsize=8.5, color=GREY)  # fmt: skip
    axes.text(sum(phrase_x) / phrases, 4.62, "the hardest negatives are pushed away by a margin\n"
              "(marginal sample enhancement)", ha="center", fontsize=8.5, color=GREY)  # fmt: skip
    axes.text(6.5, -0.2, "every level is contrasted in training; a query's score is the mean of the three", ha="center",
              fontsize=9, color=GREY)  # fmt: skip
    target = Path(__file__).parent / "images" / "method.png"
    target.parent.mkdir(exist_ok=True)
    figure.savefig(target, dpi=120, facecolor="white")
    print(target)


def groups(axes, token_x: list[float], count: int, name: str, width: float, size: int) -> list[float]:
    """Boxes of one level above their tokens: soft lines from every token, strong ones from its nearest."""
    xs = [token_x[0] + (token_x[-1] - token_x[0]) * (i + 0.5) / count for i in range(count)]
    for i, x in enumerate(xs):
        for j, token in enumerate(token_x):
            strong = j // size == i
            line(axes, (token, LEVEL_HEIGHTS[0] + 0.3), (x, LEVEL_HEIGHTS[1] - 0.2), ORANGE, 0.85 if strong else 0.12)
        box(axes, x, LEVEL_HEIGHTS[1], width, 0.38, f"{name} {i + 1}", ORANGE, size=9)
    return xs


def box(axes, x: float, y: float, width: float, height: float, text: str, colour: str, size: float = 10) -> None:
    corner = (x - width / 2, y - height / 2)
    style = "round,pad=0,rounding_size=0.06"
    axes.add_patch(FancyBboxPatch(corner, width, height, boxstyle=style, facecolor=colour, edgecolor="none", zorder=4))
    axes.text(x, y - 0.015, text, ha="center", va="center", color="white", fontsize=size, zorder=5)


def line(axes, start: tuple[float, float], end: tuple[float, float], colour: str, alpha: float = 0.7) -> None:
    axes.plot([start[0], end[0]], [start[1], end[1]], color=colour, alpha=alpha, lw=1.4, zorder=1)


if __name__ == "__main__":
    main()
