"""Small pictures of single moments of a video."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from hcmi.processing.video_reading import read_frames

from .drawing import as_image


def thumbnail(video: Any, time: float, height: int = 180) -> Image.Image:
    """
    The frame that a player shows at a time, upright.

    Args:
        video: anything that `HCMIProcessor` takes as a video.
        time: seconds; before the first frame begins it is the first one, after the last one the last.
        height: of the picture in pixels; the width follows from the frame's shape.

    Returns:
        An RGB image.

    Raises:
        VideoReadError: the video cannot be read.
        ValueError: an impossible time or height.
    """
    return thumbnails(video, [time], height)[0]


def thumbnails(video: Any, times: Sequence[float], height: int = 180) -> list[Image.Image]:
    """The same for any number of times, in one pass through the video."""
    if height < 1:
        raise ValueError(f"`height` has to be at least 1 pixel, got {height}.")

    def shrink(frame: torch.Tensor) -> torch.Tensor:
        width = max(1, round(frame.shape[2] * height / frame.shape[1]))
        small = as_image(frame).resize((width, height), Image.Resampling.LANCZOS)
        return torch.from_numpy(np.array(small)).permute(2, 0, 1)

    shots = read_frames(video, times, convert=shrink)
    return [as_image(shots.frames[index]) for index in shots.shown.tolist()]
