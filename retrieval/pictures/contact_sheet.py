"""A picture of search results: every hit as a strip of frames, with the stretch that answers the query marked."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw

from hcmi.processing.frame_sampling import segment_times
from hcmi.processing.video_reading import read_frames

from .drawing import (
    ACCENT,
    INK,
    MUTED,
    PAPER,
    TRACK,
    as_image,
    blank,
    fitted,
    format_time,
    load_font,
    shortened,
    wrapped,
)

MAX_HITS = 10
"""A sheet shows at most so many hits of each query."""

_WIDTH, _MARGIN = 1280, 36
_LEFT = _MARGIN + 100  # of the frames; before them stand rank and score
_STRIP = _WIDTH - _MARGIN - _LEFT
_FRAME_HEIGHT, _GAP = 112, 4
_FEWEST_FRAMES, _MOST_FRAMES = 4, 10


class _Strip(NamedTuple):
    """Frames of a whole video, the moments they show, and where the video starts and ends (seconds)."""

    frames: list[Image.Image]
    times: list[float]
    start: float
    end: float


def draw_contact_sheet(queries: Sequence[str], rankings: Sequence[Sequence[Mapping[str, Any]]]) -> Image.Image:
    """
    Draws what the pipeline found.

    Every hit is a strip of frames at equal distances over the whole video. The bar below it is the video's time, its
    coloured part the stretch that answers the query; the frames shown from it have a coloured edge.

    Args:
        queries: the texts that were searched for.
        rankings: the hits of each query as the pipeline returns them, best first; the first `MAX_HITS` are shown. The
            `video` of a hit has to be a path or URL, since its frames are read again.

    Returns:
        An RGB image, ready to `save`.

    Raises:
        ValueError: if there are no queries, or not one ranking for each.
        VideoReadError: if a video can no longer be read.
    """
    if not queries or len(queries) != len(rankings):
        raise ValueError(f"A contact sheet needs one ranking for each query, got {len(queries)} and {len(rankings)}.")
    shown = [hits[:MAX_HITS] for hits in rankings]
    labels = _labels([hit["video"] for hits in shown for hit in hits])
    parts = []
    for query, hits in zip(queries, shown, strict=True):
        parts.append(_heading(query))
        parts += [_row(rank, hit, labels[hit["video"]]) for rank, hit in enumerate(hits, 1)]
    sheet = Image.new("RGB", (_WIDTH, sum(part.height for part in parts) + _MARGIN), PAPER)
    top = 0
    for part in parts:
        sheet.paste(part, (0, top))
        top += part.height
    return sheet


def _heading(query: str) -> Image.Image:
    """The query in quotes, on as many lines as it takes."""
    font = load_font(24, bold=True)
    lines = wrapped(f"“{' '.join(query.split())}”", font, _WIDTH - 2 * _MARGIN)
    image, draw = blank(_WIDTH, _MARGIN + 34 * len(lines) + 10)
    for number, line in enumerate(lines):
        draw.text((_MARGIN, _MARGIN + 34 * number), line, INK, font)
    draw.line((_MARGIN, image.height - 1, _WIDTH - _MARGIN, image.height - 1), TRACK, 1)
    return image


def _labels(videos: Sequence[str]) -> dict[str, str]:
    """Paths from the folder on that all files have in common; URLs as they are."""
    paths = {video: os.path.abspath(video) for video in videos if "://" not in video}
    folder = os.path.commonpath([os.path.dirname(path) for path in paths.values()]) if paths else ""
    return {video: os.path.relpath(paths[video], folder) if video in paths else video for video in videos}


def _row(rank: int, hit: Mapping[str, Any], label: str) -> Image.Image:
    """One hit: rank and score, file name, frames, and the video's time with the answer on it."""
    strip = _read_strip(hit["video"])
    width, height = strip.frames[0].size
    frames_top = 38
    bar_top = frames_top + height + 7
    image, draw = blank(_WIDTH, bar_top + 38)

    draw.text((_MARGIN, frames_top - 5), str(rank), INK, load_font(34, bold=True))
    draw.text((_MARGIN, frames_top + 38), f"{hit['score']:.3f}", INK, load_font(16))
    draw.text((_MARGIN, frames_top + 60), "similarity", MUTED, load_font(12))
    draw.text((_LEFT, 14), shortened(label, load_font(14), _STRIP), INK, load_font(14))

    answering = _answering(strip.times, hit["start"], hit["end"])
    for index, frame in enumerate(strip.frames):
        left = _LEFT + round(index * (_STRIP - width) / (len(strip.frames) - 1))
        image.paste(frame, (left, frames_top))
        colour, line = (ACCENT, 4) if index in answering else (TRACK, 1)
        draw.rectangle((left, frames_top, left + width - 1, frames_top + height - 1), outline=colour, width=line)

    places = [(time - strip.start) / (strip.end - strip.start) for time in (hit["start"], hit["end"])]
    start, end = (_LEFT + round(_STRIP * min(max(place, 0.0), 1.0)) for place in places)
    draw.rectangle((_LEFT, bar_top, _LEFT + _STRIP - 1, bar_top + 5), TRACK)
    draw.rectangle((start, bar_top, max(end, start + 3) - 1, bar_top + 5), ACCENT)
    _time_labels(draw, bar_top + 10, strip, hit, (start + end) / 2)
    return image


def _time_labels(draw: ImageDraw.ImageDraw, top: int, strip: _Strip, hit: Mapping[str, Any], middle: float) -> None:
    """Below the bar: where the video begins and ends, and the answer's span, which wins where they would meet."""
    bold, plain = load_font(13, bold=True), load_font(13)
    right = _LEFT + _STRIP
    span = f"{format_time(hit['start'])} – {format_time(hit['end'])}"
    half = bold.getlength(span) / 2
    middle = min(max(middle, _LEFT + half), right - half)
    draw.text((middle - half, top), span, ACCENT, bold)
    start, end = format_time(strip.start), format_time(strip.end)
    if _LEFT + plain.getlength(start) + 12 < middle - half:
        draw.text((_LEFT, top), start, MUTED, plain)
    if right - plain.getlength(end) - 12 > middle + half:
        draw.text((right - plain.getlength(end), top), end, MUTED, plain)


def _read_strip(video: str) -> _Strip:
    """Many frames of narrow videos, few of wide ones, so that every strip is as wide and about as high."""
    first = read_frames(video, lambda start, end: [start]).frames[0]
    aspect = first.shape[2] / first.shape[1]
    count = min(max(round(_STRIP / (_FRAME_HEIGHT * aspect)), _FEWEST_FRAMES), _MOST_FRAMES)
    width = (_STRIP - _GAP * (count - 1)) // count
    height = min(max(round(width / aspect), _FRAME_HEIGHT // 2), _FRAME_HEIGHT * 4 // 3)

    def fit(frame: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(np.array(fitted(as_image(frame), width, height))).permute(2, 0, 1)

    shot = read_frames(video, lambda start, end: segment_times(start, end, count), convert=fit)
    pictures = [as_image(frame) for frame in shot.frames]
    return _Strip([pictures[index] for index in shot.shown], segment_times(*shot.span, count), *shot.span)


def _answering(times: Sequence[float], start: float, end: float) -> set[int]:
    """Which of the times lie between start and end; the nearest one if none does."""
    inside = {index for index, time in enumerate(times) if start <= time <= end}
    middle = (start + end) / 2
    return inside or {min(range(len(times)), key=lambda index: abs(times[index] - middle))}
