"""Small video files made with PyAV, and the plainest way to read them: decode everything, then choose by time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

VideoOf = Callable[[str], Path]
Decoded = list[tuple[float, torch.Tensor]]
_MILLISECOND = Fraction(1, 1000)


def picture(number: int, size: tuple[int, int] = (96, 64)) -> np.ndarray:
    """Frame `number`, (H, W, 3) uint8: colours that change along both sides and from frame to frame, and squares."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width]
    squares = ((x // 8 + y // 8 + number) % 2) * 200
    across, down = x * 255 // width + number * 7, y * 255 // height + number * 3
    return np.stack([across % 256, down % 256, squares], -1).astype(np.uint8)


def photograph(height: int, width: int, seed: int = 0) -> np.ndarray:
    """(H, W, 3) uint8 with what photographs have: smooth areas, fine grain, hard edges."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    waves = [np.sin(2 * np.pi * (fx * x + fy * y) + p) for fx, fy, p in draw.uniform(-4, 4, size=(6, 3))]
    mixed = np.stack([sum(w * g for w, g in zip(waves, draw.uniform(-30, 30, 6), strict=True)) for _ in range(3)], -1)
    pixels = 128 + mixed + draw.normal(0, 6, (height, width, 3))
    pixels[height // 4 : height // 2, width // 5 : width // 2] = draw.uniform(0, 255, 3)
    return pixels.clip(0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Recipe:
    """How a file is made.

    Attributes:
        suffix: of the file's name; says which container.
        codec: PyAV's name of the encoder.
        frames, size, rate: number, (width, height), frames a second.
        pixels: pixel format.
        group: frames from one key frame to the next.
        b_frames: at most so many in a row.
        options: of the encoder.
        times: when each frame begins, in milliseconds; by default evenly by `rate`.
        container: options of the container.
        rotation: degrees counter-clockwise, and whether to mirror left-right, for the display matrix.
        counted: whether the container stores no presentation times, so that frames are told apart by their number.
    """

    suffix: str = ".mp4"
    codec: str = "libx264"
    frames: int = 60
    size: tuple[int, int] = (96, 64)
    rate: int = 25
    pixels: str = "yuv420p"
    group: int = 20
    b_frames: int | None = None
    options: dict[str, str] = field(default_factory=dict)
    times: Sequence[int] | None = None
    container: dict[str, str] = field(default_factory=dict)
    rotation: tuple[int, bool] | None = None
    counted: bool = False


_X265 = "log-level=none:pools=none:frame-threads=1"
_VP = {"cpu-used": "8", "deadline": "realtime"}
_ALTREF = {"cpu-used": "5", "deadline": "good", "lag-in-frames": "16", "auto-alt-ref": "1"}
_UNEVEN = np.cumsum(np.random.default_rng(0).integers(5, 90, 60)).tolist()

# What videos come as. The first ones are what most files are.
RECIPES = {
    "h264": Recipe(b_frames=3),
    "h264 mkv": Recipe(".mkv", b_frames=3),
    "h264 fragments": Recipe(b_frames=2, container={"movflags": "frag_keyframe+empty_moov"}),
    "h264 ts": Recipe(".ts", b_frames=2),
    "h264 flv": Recipe(".flv", b_frames=2),
    "h264 raw": Recipe(".h264", b_frames=2, counted=True),
    "h264 avi": Recipe(".avi", b_frames=2, counted=True),
    "h264 open groups": Recipe(options={"x264-params": "open-gop=1:bframes=3:b-pyramid=2:keyint=20:scenecut=0"}),
    "h264 no key frames": Recipe(options={"x264-params": "intra-refresh=1:keyint=20"}),
    "h264 only key frames": Recipe(group=1, b_frames=0),
    "h264 interlaced": Recipe(options={"x264-params": "interlaced=1:tff=1"}, b_frames=2),
    "h264 10-bit": Recipe(pixels="yuv420p10le"),
    "h264 odd size": Recipe(pixels="yuv444p", size=(65, 37)),
    "h264 uneven times": Recipe(b_frames=2, times=_UNEVEN),
    "h264 long groups": Recipe(frames=400, size=(48, 32), group=150, b_frames=3),
    "h264 long groups mkv": Recipe(".mkv", frames=400, size=(48, 32), group=130, b_frames=3),
    "hevc": Recipe(codec="libx265", options={"x265-params": _X265}),
    "hevc layers": Recipe(
        codec="libx265", options={"x265-params": f"{_X265}:temporal-layers=3:b-pyramid=1:bframes=7:b-adapt=0"}
    ),
    "hevc 10-bit": Recipe(".mkv", codec="libx265", pixels="yuv420p10le", options={"x265-params": _X265}),
    "vp9": Recipe(".webm", codec="libvpx-vp9", options=_VP),
    "vp9 no duration": Recipe(".webm", codec="libvpx-vp9", options=_VP, container={"live": "1"}),
    "vp9 hidden frames": Recipe(".webm", codec="libvpx-vp9", group=40, options=_ALTREF),
    "vp8 hidden frames": Recipe(".webm", codec="libvpx", group=40, options=_ALTREF),
    "av1": Recipe(codec="libsvtav1", options={"preset": "12", "svtav1-params": "lp=1"}),
    "mpeg4 avi": Recipe(".avi", codec="mpeg4", group=12, b_frames=0),
    "mpeg4 avi b frames": Recipe(".avi", codec="mpeg4", group=12, b_frames=2, counted=True),
    "mpeg4 mp4": Recipe(codec="mpeg4", group=12, b_frames=2),
    "mpeg2": Recipe(".mpg", codec="mpeg2video", group=12, b_frames=2),
    "mjpeg odd size": Recipe(".avi", codec="mjpeg", pixels="yuvj420p", size=(65, 37)),
    "ffv1 10-bit odd size": Recipe(".mkv", codec="ffv1", pixels="yuv420p10le", size=(65, 37), frames=20),
    "prores 10-bit": Recipe(".mov", codec="prores_ks", pixels="yuv422p10le", frames=20),
    "gif": Recipe(".gif", codec="gif", pixels="rgb8", frames=20),
    "wmv": Recipe(".asf", codec="wmv2", group=12),
}


def write_video(path: Path, recipe: Recipe) -> Path:
    """Makes the file; skips the test where this build of PyAV has no such encoder."""
    if recipe.codec not in av.codecs_available:
        pytest.skip(f"this build of PyAV has no encoder {recipe.codec}")
    with av.open(str(path), "w", options=recipe.container) as container:
        stream: Any = container.add_stream(recipe.codec, rate=recipe.rate, options=recipe.options)
        stream.width, stream.height = recipe.size
        stream.pix_fmt = recipe.pixels
        stream.gop_size = recipe.group
        stream.codec_context.thread_count = 1
        if recipe.b_frames is not None:
            stream.max_b_frames = recipe.b_frames
        if recipe.times is not None:
            stream.codec_context.time_base = _MILLISECOND
        if recipe.rotation is not None:
            stream.set_display_rotation(recipe.rotation[0], hflip=recipe.rotation[1])
        for number in range(recipe.frames):
            frame = av.VideoFrame.from_ndarray(picture(number, recipe.size), format="rgb24")
            frame.pts = number if recipe.times is None else recipe.times[number]
            frame.time_base = Fraction(1, recipe.rate) if recipe.times is None else _MILLISECOND
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def copy_packets(source: Path, target: Path, shift: float, silence: int = 0, **options: str) -> Path:
    """Copies the video stream, its times `shift` seconds later; with `silence` packets of sound from second 0 on."""
    with av.open(str(source)) as reading, av.open(str(target), "w", options=options) as writing:
        stream = reading.streams.video[0]
        copied = writing.add_stream_from_template(stream)
        sound: Any = writing.add_stream("aac", rate=16000, layout="mono") if silence else None
        for packet in reading.demux(stream):
            if packet.size:
                later = round(shift / stream.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts + later, packet.dts + later, copied
                writing.mux(packet)
        for number in range(silence):
            writing.mux(sound.encode(_silence(number)))
        if silence:
            writing.mux(sound.encode())
    return target


def write_sound(path: Path, codec: str) -> Path:
    """A file with sound and no video."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=16000, layout="mono")
        for number in range(20):
            container.mux(stream.encode(_silence(number)))
        container.mux(stream.encode())
    return path


def _silence(number: int) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.int16), format="s16", layout="mono")
    frame.sample_rate, frame.pts = 16000, number * 1024
    return frame


def decode_everything(path: Path, rate: int | None = None) -> Decoded:
    """When each frame begins, in seconds, and the frame (3, H, W), by decoding from the beginning to the end.

    With `rate` the n-th frame begins at n / rate: where the file stores no such times.
    """
    frames = []
    with av.open(str(path)) as container:
        zero = (container.start_time or 0) / av.time_base
        for number, frame in enumerate(container.decode(video=0)):
            seconds = float(frame.pts * frame.time_base) - zero if rate is None else number / rate
            pixels = frame.to_ndarray(format="rgb24", interpolation="BICUBIC")
            frames.append((seconds, torch.from_numpy(pixels).permute(2, 0, 1)))
    return frames


def shown_at(frames: Decoded, time: float) -> tuple[float, torch.Tensor]:
    """The last frame that begins at or before `time`, or the first."""
    begun = [shot for shot in frames if shot[0] <= time]
    return begun[-1] if begun else frames[0]
