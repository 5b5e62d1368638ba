"""Shape stories as pictures: numpy frames in YUV 4:2:0 (BT.601) and H.264 in MP4 through PyAV."""

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import Colorspace

from .shape_stories_world import DIRECTIONS, Event, Story, Subject

PICTURE_SIZE = 96
RGB = {
    "red": (230, 25, 25),
    "green": (30, 190, 50),
    "blue": (50, 90, 255),
    "yellow": (245, 225, 30),
    "purple": (200, 50, 225),
    "white": (245, 245, 245),
}
_RADIUS = {"small": (9.0, 11.0), "big": (19.0, 22.0)}
# Half the side of the square around a shape, in radii; while it spins, its corners go further out.
_EXTENT = 1.05
_SPINNING_EXTENT = 1.2
_RGB_TO_YUV = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]]) / 255.0
_YUV_OFFSET = np.array([16.0, 128.0, 128.0])
_NOISE = 8
# Once in some hundred runs x264's macroblock tree gives other bytes for the same pictures, even with one thread.
# Without it (and the adaptive quantisation that goes with it) equal pictures give equal files.
_ENCODER = {
    "preset": "veryfast",
    "crf": "25",
    "g": "30",
    "bf": "0",
    "mbtree": "0",
    "aq-mode": "0",
    "rc-lookahead": "0",
    "threads": "1",
}


@dataclass
class _Sprite:
    """One shape during one event: centre (T, 2), radius (T,), angle (T,) in radians and opacity (T,) per frame."""

    shape: str
    yuv: np.ndarray
    centre: np.ndarray
    radius: np.ndarray
    angle: np.ndarray
    opacity: np.ndarray


def _coverage(shape: str, x: np.ndarray, y: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Share of every pixel that the shape covers, from the signed distance to its edge (negative inside), pixels."""
    if shape == "circle":
        distance = np.hypot(x, y) - radius
    elif shape == "ring":
        distance = np.abs(np.hypot(x, y) - 0.8 * radius) - 0.2 * radius
    elif shape == "square":
        distance = np.maximum(np.abs(x), np.abs(y)) - 0.85 * radius
    elif shape == "triangle":
        sides = 0.8660254 * np.abs(x) - 0.5 * y
        distance = np.maximum(sides, y) - 0.55 * radius
    elif shape == "cross":
        x, y = np.abs(x), np.abs(y)
        arm, width = radius, 0.32 * radius
        distance = np.minimum(np.maximum(x - arm, y - width), np.maximum(y - arm, x - width))
    else:
        raise ValueError(f"unknown shape {shape!r}")
    return np.clip(0.5 - distance, 0.0, 1.0)


def _line_up(rng: np.random.Generator, length: float, halves: Sequence[float]) -> list[float]:
    """Places for things of the given half-widths on a line, in random distances, without overlap where they fit."""
    slack = max(length - 2.0 * sum(halves), 0.0)
    cuts = np.sort(rng.uniform(0.0, slack, len(halves)))
    before = np.cumsum([0.0, *(2.0 * half for half in halves[:-1])])
    return [float(cut + start + half) for cut, start, half in zip(cuts, before, halves, strict=True)]


def _stage(
    rng: np.random.Generator, event: Event, num_frames: int, area: tuple[float, float, float, float]
) -> list[_Sprite]:
    """The sprites of an event inside the area (left, top, width, height)."""
    origin, extent = np.array(area[:2]), area[2:]
    time = np.linspace(0.0, 1.0, num_frames)
    action, subjects = event.action, [subject for subject in event.subjects for _ in range(subject.count)]
    # The axis that the subjects are lined up on: across their movement, otherwise along the longer side.
    if action in DIRECTIONS:
        axis = 1 if action in ("left", "right") else 0
    else:
        axis = int(rng.integers(2)) if extent[0] == extent[1] else int(extent[1] > extent[0])
    reach = _SPINNING_EXTENT if action == "spin" else _EXTENT
    room = min(extent[axis] / len(subjects), extent[1 - axis]) / (2.0 * reach)
    radii = _radii(rng, action, subjects, room, time)
    halves = [float(radius.max()) * reach for radius in radii]
    along, across = _paths(rng, action, halves, extent[axis], extent[1 - axis], time)
    turn = float(rng.choice((-1.0, 1.0)) * rng.uniform(1.4, 2.2) * np.pi) if action == "spin" else 0.0
    opacity = np.clip(time / 0.6, 0.08, 1.0) if action == "appear" else np.ones(num_frames)
    sprites = []
    for index, (subject, radius) in enumerate(zip(subjects, radii, strict=True)):
        path = (along[index], across[index]) if axis == 0 else (across[index], along[index])
        colour = np.clip(np.array(RGB[subject.colour]) + rng.uniform(-10.0, 10.0, 3), 0.0, 255.0)
        yuv = _RGB_TO_YUV @ colour + _YUV_OFFSET
        sprites.append(_Sprite(subject.shape, yuv, np.stack(path, 1) + origin, radius, turn * time, opacity))
    return sprites


def _radii(
    rng: np.random.Generator, action: str, subjects: list[Subject], room: float, time: np.ndarray
) -> list[np.ndarray]:
    """The radius (T,) of every subject, at most `room`."""
    radius_of = {size: min(float(rng.uniform(*bounds)), room) for size, bounds in _RADIUS.items()}
    if action in ("grow", "shrink"):
        small, big = float(rng.uniform(7.0, 9.0)), radius_of["big"]
        return [small + (big - small) * (time if action == "grow" else time[::-1])] * len(subjects)
    return [np.full(len(time), radius_of[subject.size]) for subject in subjects if subject.size is not None]


def _paths(
    rng: np.random.Generator, action: str, halves: list[float], length: float, width: float, time: np.ndarray
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Where every subject is (T,), along and across the axis that they are lined up on."""
    still, margin = np.zeros(len(time)), max(halves)
    if action == "swap":  # from end to end on one line, so that the exchange is seen
        ends = [margin, length - margin] if rng.random() < 0.5 else [length - margin, margin]
        travel = np.clip((time - 0.15) / 0.7, 0.0, 1.0)
        line = margin + rng.uniform(0.0, 1.0) * max(width - 2.0 * margin, 0.0)
        return [a + (b - a) * travel for a, b in (ends, ends[::-1])], [line + still] * 2
    along = [place + still for place in _line_up(rng, length, halves)]
    if action in DIRECTIONS:
        slack = 0.12 * (width - 2.0 * margin)
        start, end = margin + rng.uniform(0.0, slack), width - margin - rng.uniform(0.0, slack)
        path = start + (end - start) * (time if action in ("right", "down") else time[::-1])
        return along, [path] * len(halves)
    return along, [half + rng.uniform(0.0, 1.0) * max(width - 2.0 * half, 0.0) + still for half in halves]


def _areas(rng: np.random.Generator, slot: tuple[Event, ...]) -> list[tuple[float, float, float, float]]:
    """The whole picture for one event; the two halves, along the movement if there is one, for two at once."""
    size = float(PICTURE_SIZE)
    if len(slot) == 1:
        return [(0.0, 0.0, size, size)]
    moves = [event.action for event in slot if event.action in DIRECTIONS]
    lying = moves[0] in ("left", "right") if moves else bool(rng.integers(2))
    half = size / 2.0
    if lying:
        areas = [(0.0, 0.0, size, half), (0.0, half, size, half)]
    else:
        areas = [(0.0, 0.0, half, size), (half, 0.0, half, size)]
    return areas if rng.random() < 0.5 else areas[::-1]


def _draw(sprite: _Sprite, first: int, luma: np.ndarray, chroma: np.ndarray) -> None:
    """Blend a sprite into luma (N, H, W) and chroma (2, N, H/2, W/2), from frame `first` on."""
    num_frames, size = len(sprite.radius), PICTURE_SIZE
    # The box has even corners, so that its chroma is the mean of whole 2x2 blocks.
    side = min(2 * int(np.ceil(float(sprite.radius.max()) * _SPINNING_EXTENT) + 1), size)
    corner = np.clip(np.round((sprite.centre - side / 2.0) / 2.0).astype(int) * 2, 0, size - side)
    grid = np.arange(side) + 0.5
    x = (corner[:, :1] - sprite.centre[:, :1] + grid)[:, None, :].astype(np.float32)
    y = (corner[:, 1:] - sprite.centre[:, 1:] + grid)[:, :, None].astype(np.float32)
    if sprite.angle[-1]:
        cos = np.cos(sprite.angle).astype(np.float32)[:, None, None]
        sin = np.sin(sprite.angle).astype(np.float32)[:, None, None]
        x, y = cos * x + sin * y, cos * y - sin * x
    cover = _coverage(sprite.shape, x, y, sprite.radius.astype(np.float32)[:, None, None])
    cover *= sprite.opacity.astype(np.float32)[:, None, None]
    coarse = cover.reshape(num_frames, side // 2, 2, side // 2, 2).mean((2, 4))
    target = sprite.yuv.astype(np.float32)
    for frame in range(num_frames):
        left, top = corner[frame]
        box = luma[first + frame, top : top + side, left : left + side]
        box += cover[frame] * (target[0] - box)
        left, top, half = left // 2, top // 2, side // 2
        box = chroma[:, first + frame, top : top + half, left : left + half]
        box += coarse[frame] * (target[1:, None, None] - box)


def _smooth_basis(size: int, knots: int) -> np.ndarray:
    """(size, knots) weights that interpolate a few random values smoothly (raised cosine)."""
    place = np.linspace(0.0, knots - 1.0, size)[:, None] - np.arange(knots)
    return np.where(np.abs(place) < 1.0, 0.5 + 0.5 * np.cos(np.pi * place), 0.0).astype(np.float32)


_BASES = {
    knots: (_smooth_basis(PICTURE_SIZE, knots), _smooth_basis(PICTURE_SIZE // 2, knots)) for knots in (2, 3, 4, 5)
}


def render(story: Story, rng: np.random.Generator) -> np.ndarray:
    """Draw all frames of a story.

    Args:
        story: what happens in which frame.
        rng: source of places, colours' shades, background and noise.

    Returns:
        (frames, 144, 96) uint8 YUV 4:2:0 planes, as PyAV's "yuv420p" arrays are laid out.
    """
    size, num_frames = PICTURE_SIZE, story.num_frames
    fine, coarse = _BASES[int(rng.integers(2, 6))]
    knots = fine.shape[1]
    dark = rng.uniform(28.0, 50.0)
    luma_background = fine @ (dark + rng.uniform(0.0, 38.0, (knots, knots))).astype(np.float32) @ fine.T
    tint = rng.uniform(-12.0, 12.0, (2, 1, 1)) + rng.uniform(-8.0, 8.0, (2, knots, knots))
    chroma_background = 128.0 + coarse @ tint.astype(np.float32) @ coarse.T
    luma = np.repeat(luma_background[None], num_frames, 0)
    chroma = np.repeat(chroma_background[:, None], num_frames, 1)
    for slot, (first, last) in zip(story.slots, story.slot_frames, strict=True):
        for event, area in zip(slot, _areas(rng, slot), strict=True):
            for sprite in _stage(rng, event, last - first, area):
                _draw(sprite, first, luma, chroma)
    planes = np.empty((num_frames, size * 3 // 2, size), np.uint8)
    noise = rng.integers(0, _NOISE, (num_frames, size, size), np.uint8)
    planes[:, :size] = luma  # at most 235 + 4, so that the noise cannot wrap around
    planes[:, :size] += noise - np.uint8(_NOISE // 2)
    planes[:, size:] = (chroma + 0.5).swapaxes(0, 1).reshape(num_frames, size // 2, size)
    return planes


def encode(planes: np.ndarray, frame_rate: int) -> bytes:
    """Encode (frames, 144, 96) uint8 YUV 4:2:0 planes as an H.264 MP4 file; the same planes give the same bytes."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=frame_rate, options=_ENCODER)
        stream.width = stream.height = PICTURE_SIZE
        stream.pix_fmt = "yuv420p"
        stream.codec_context.colorspace = Colorspace.ITU601
        for index, plane in enumerate(planes):
            frame = av.VideoFrame.from_ndarray(plane, format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, frame_rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()


def write_video(path: str | os.PathLike, story: Story, seed: Sequence[int]) -> None:
    """Render and encode a story; the file appears under its name only when it is complete."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    partial.write_bytes(encode(render(story, np.random.default_rng(list(seed))), story.frame_rate))
    os.replace(partial, path)
