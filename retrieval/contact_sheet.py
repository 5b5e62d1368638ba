"""A picture of search results: every hit as a strip of frames, with the stretch that answers the query marked."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from hcmi.processing.frame_sampling import segment_times
from hcmi.processing.video_reading import read_frames

MAX_HITS = 10
"""A sheet shows at most so many hits of each query."""

_WIDTH, _MARGIN = 1280, 36
_LEFT = _MARGIN + 100  # of the frames; before them stand rank and score
_STRIP = _WIDTH - _MARGIN - _LEFT
_FRAME_HEIGHT, _GAP = 112, 4
_FEWEST_FRAMES, _MOST_FRAMES = 4, 10
_PAPER, _INK, _MUTED, _TRACK, _ACCENT = "white", "#16191d", "#6c737c", "#dfe2e6", "#e8590c"


class _Strip(NamedTuple):
    """Frames of a whole video, the moments they show, and where the video starts and ends (seconds)."""

    frames: list[Image.Image]
    times: list[float]
    start: float
    end: float


def format_time(seconds: float) -> str:
    """`mm:ss.s`, as in 02:07.5; minutes go beyond 59."""
    minutes, tenths = divmod(round(seconds * 10), 600)
    return f"{minutes:02d}:{tenths / 10:04.1f}"


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
    sheet = Image.new("RGB", (_WIDTH, sum(part.height for part in parts) + _MARGIN), _PAPER)
    top = 0
    for part in parts:
        sheet.paste(part, (0, top))
        top += part.height
    return sheet


def _heading(query: str) -> Image.Image:
    """The query in quotes, on as many lines as it takes."""
    font = _font(24, bold=True)
    lines = _wrapped(f"“{' '.join(query.split())}”", font, _WIDTH - 2 * _MARGIN)
    image, draw = _canvas(_MARGIN + 34 * len(lines) + 10)
    for number, line in enumerate(lines):
        draw.text((_MARGIN, _MARGIN + 34 * number), line, _INK, font)
    draw.line((_MARGIN, image.height - 1, _WIDTH - _MARGIN, image.height - 1), _TRACK, 1)
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
    image, draw = _canvas(bar_top + 38)

    draw.text((_MARGIN, frames_top - 5), str(rank), _INK, _font(34, bold=True))
    draw.text((_MARGIN, frames_top + 38), f"{hit['score']:.3f}", _INK, _font(16))
    draw.text((_MARGIN, frames_top + 60), "similarity", _MUTED, _font(12))
    draw.text((_LEFT, 14), _shortened(label, _font(14), _STRIP), _INK, _font(14))

    answering = _answering(strip.times, hit["start"], hit["end"])
    for index, frame in enumerate(strip.frames):
        left = _LEFT + round(index * (_STRIP - width) / (len(strip.frames) - 1))
        image.paste(frame, (left, frames_top))
        colour, line = (_ACCENT, 4) if index in answering else (_TRACK, 1)
        draw.rectangle((left, frames_top, left + width - 1, frames_top + height - 1), outline=colour, width=line)

    places = [(time - strip.start) / (strip.end - strip.start) for time in (hit["start"], hit["end"])]
    start, end = (_LEFT + round(_STRIP * min(max(place, 0.0), 1.0)) for place in places)
    draw.rectangle((_LEFT, bar_top, _LEFT + _STRIP - 1, bar_top + 5), _TRACK)
    draw.rectangle((start, bar_top, max(end, start + 3) - 1, bar_top + 5), _ACCENT)
    _time_labels(draw, bar_top + 10, strip, hit, (start + end) / 2)
    return image


def _time_labels(draw: ImageDraw.ImageDraw, top: int, strip: _Strip, hit: Mapping[str, Any], middle: float) -> None:
    """Below the bar: where the video begins and ends, and the answer's span, which wins where they would meet."""
    bold, plain = _font(13, bold=True), _font(13)
    right = _LEFT + _STRIP
    span = f"{format_time(hit['start'])} – {format_time(hit['end'])}"
    half = bold.getlength(span) / 2
    middle = min(max(middle, _LEFT + half), right - half)
    draw.text((middle - half, top), span, _ACCENT, bold)
    start, end = format_time(strip.start), format_time(strip.end)
    if _LEFT + plain.getlength(start) + 12 < middle - half:
        draw.text((_LEFT, top), start, _MUTED, plain)
    if right - plain.getlength(end) - 12 > middle + half:
        draw.text((right - plain.getlength(end), top), end, _MUTED, plain)


def _read_strip(video: str) -> _Strip:
    """Many frames of narrow videos, few of wide ones, so that every strip is as wide and about as high."""
    first = read_frames(video, lambda start, end: [start]).frames[0]
    aspect = first.shape[2] / first.shape[1]
    count = min(max(round(_STRIP / (_FRAME_HEIGHT * aspect)), _FEWEST_FRAMES), _MOST_FRAMES)
    width = (_STRIP - _GAP * (count - 1)) // count
    height = min(max(round(width / aspect), _FRAME_HEIGHT // 2), _FRAME_HEIGHT * 4 // 3)

    def fit(frame: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(np.array(_fitted(_picture(frame), width, height))).permute(2, 0, 1)

    shot = read_frames(video, lambda start, end: segment_times(start, end, count), convert=fit)
    pictures = [_picture(frame) for frame in shot.frames]
    return _Strip([pictures[index] for index in shot.shown], segment_times(*shot.span, count), *shot.span)


def _picture(frame: torch.Tensor) -> Image.Image:
    return Image.fromarray(frame.permute(1, 2, 0).contiguous().numpy())


def _answering(times: Sequence[float], start: float, end: float) -> set[int]:
    """Which of the times lie between start and end; the nearest one if none does."""
    inside = {index for index, time in enumerate(times) if start <= time <= end}
    middle = (start + end) / 2
    return inside or {min(range(len(times)), key=lambda index: abs(times[index] - middle))}


def _fitted(frame: Image.Image, width: int, height: int) -> Image.Image:
    """The whole frame in the middle of a cell; without margins where they would be hair-thin."""
    scale = min(width / frame.width, height / frame.height)
    size = (max(1, round(frame.width * scale)), max(1, round(frame.height * scale)))
    if max(width - size[0], height - size[1]) <= 2:
        return frame.resize((width, height), Image.Resampling.LANCZOS)
    cell = Image.new("RGB", (width, height), _TRACK)
    cell.paste(frame.resize(size, Image.Resampling.LANCZOS), ((width - size[0]) // 2, (height - size[1]) // 2))
    return cell


def _canvas(height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", (_WIDTH, height), _PAPER)
    return image, ImageDraw.Draw(image)


def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib: Latin, Greek and Cyrillic letters, but no Chinese or Japanese ones."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", name), size)


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: float) -> list[str]:
    """`text` in lines of at most `width` pixels; a longer word stays whole."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if not lines[-1] or font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _shortened(path: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """`path` without as much of its beginning as does not fit."""
    if font.getlength(path) <= width:
        return path
    while path and font.getlength("…" + path) > width:
        path = path[1:]
    return "…" + path
