"""What all pictures are made with: colours, letters, times, and frames as images."""

from pathlib import Path

import matplotlib
import torch
from PIL import Image, ImageDraw, ImageFont

PAPER, INK, MUTED, TRACK, ACCENT = "white", "#16191d", "#6c737c", "#dfe2e6", "#e8590c"


def format_time(seconds: float) -> str:
    """`mm:ss.s`, as in 02:07.5; minutes go beyond 59."""
    minutes, tenths = divmod(round(seconds * 10), 600)
    return f"{minutes:02d}:{tenths / 10:04.1f}"


def as_image(frame: torch.Tensor) -> Image.Image:
    """Of a frame (3, H, W) uint8."""
    return Image.fromarray(frame.permute(1, 2, 0).contiguous().numpy())


def fitted(frame: Image.Image, width: int, height: int) -> Image.Image:
    """The whole frame in the middle of a cell; without margins where they would be hair-thin."""
    scale = min(width / frame.width, height / frame.height)
    size = (max(1, round(frame.width * scale)), max(1, round(frame.height * scale)))
    if max(width - size[0], height - size[1]) <= 2:
        return frame.resize((width, height), Image.Resampling.LANCZOS)
    cell = Image.new("RGB", (width, height), TRACK)
    cell.paste(frame.resize(size, Image.Resampling.LANCZOS), ((width - size[0]) // 2, (height - size[1]) // 2))
    return cell


def blank(width: int, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """An empty picture, and what draws on it."""
    image = Image.new("RGB", (width, height), PAPER)
    return image, ImageDraw.Draw(image)


def load_font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib: Latin, Greek and Cyrillic letters, but no Chinese or Japanese ones."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", name), size)


def wrapped(text: str, font: ImageFont.FreeTypeFont, width: float) -> list[str]:
    """`text` in lines of at most `width` pixels; a longer word stays whole."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if not lines[-1] or font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def shortened(path: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """`path` without as much of its beginning as does not fit."""
    if font.getlength(path) <= width:
        return path
    while path and font.getlength("…" + path) > width:
        path = path[1:]
    return "…" + path
