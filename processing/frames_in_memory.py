"""Videos that are frames already: a list of PIL images, or an array or tensor of frames."""

import math
from typing import Any

import numpy as np
import torch
from PIL import Image


def is_frames(video: Any) -> bool:
    """Whether `video` is frames in memory: an array or tensor, or a list or tuple of PIL images, arrays or tensors."""
    if isinstance(video, (list, tuple)):
        return len(video) > 0 and all(isinstance(frame, (Image.Image, np.ndarray, torch.Tensor)) for frame in video)
    return isinstance(video, (np.ndarray, torch.Tensor))


class FramesInMemory:
    """Frames with a clock: frame i is shown from i / `fps` to (i + 1) / `fps` seconds.

    Args:
        video: a list of PIL images (any mode, any sizes); or frames as one array or tensor, or a list of them, in the
            layout (F, 3, H, W) or (F, H, W, 3), uint8 or float with values from 0 to 1. Where both layouts fit (W = 3),
            it is (F, 3, H, W).
        fps: frames a second.

    Raises:
        ValueError: for another layout, type or range of values.
    """

    def __init__(self, video: Any, fps: float):
        if not 0 < fps < math.inf:
            raise ValueError(f"frames a second must be more than 0, not {fps}")
        self.fps = float(fps)
        if isinstance(video, (list, tuple)) and isinstance(video[0], Image.Image):
            if not all(isinstance(frame, Image.Image) for frame in video):
                raise ValueError("a list of PIL images and of something else")
            self._frames: Any = list(video)
            self.name = f"list of {len(video)} PIL images"
        else:
            self._frames = _channels_first(_as_tensor(video))
            self.name = f"frames of shape {tuple(self._frames.shape)}"
        if len(self._frames) == 0:
            raise ValueError("no frames")

    def __len__(self) -> int:
        return len(self._frames)

    def size(self, index: int) -> tuple[int, int]:
        """(width, height) in pixels of frame `index`."""
        frame = self._frames[index]
        return frame.size if isinstance(frame, Image.Image) else (frame.shape[-1], frame.shape[-2])

    def frame(self, index: int) -> torch.Tensor:
        """Frame `index` as (3, H, W) uint8."""
        frame = self._frames[index]
        if isinstance(frame, Image.Image):
            try:
                return torch.from_numpy(np.array(frame.convert("RGB"))).permute(2, 0, 1)
            except OSError as error:  # images are often loaded only now
                raise ValueError(f"image {index}: {error}") from error
        if frame.dtype == torch.uint8:
            return frame
        if not (frame.amin() >= 0 and frame.amax() <= 1):
            raise ValueError("frames of floating-point values must lie between 0 and 1")
        return (frame.to(torch.float32) * 255).round().to(torch.uint8)


def _as_tensor(video: Any) -> torch.Tensor:
    if isinstance(video, (list, tuple)):
        frames = [_as_tensor(frame) for frame in video]
        if len({(frame.shape, frame.dtype) for frame in frames}) != 1:
            raise ValueError("frames of different shapes or types")
        return torch.stack(frames)
    if isinstance(video, Image.Image):
        raise ValueError("a list of PIL images and of something else")
    if isinstance(video, torch.Tensor):
        return video.detach().cpu()
    if np.issubdtype(video.dtype, np.floating):
        video = video.astype(np.float32)  # torch has no long double, and no foreign byte order
    elif video.dtype != np.uint8:
        raise ValueError(f"frames must be uint8 or floating-point, not {video.dtype}")
    return torch.from_numpy(np.require(video, requirements=["C", "W"]))


def _channels_first(frames: torch.Tensor) -> torch.Tensor:
    if frames.dtype != torch.uint8 and not frames.is_floating_point():
        raise ValueError(f"frames must be uint8 or floating-point, not {frames.dtype}")
    if frames.ndim == 4 and 0 not in frames.shape[1:]:
        if frames.shape[1] == 3:
            return frames
        if frames.shape[-1] == 3:
            return frames.permute(0, 3, 1, 2)
    raise ValueError(f"frames must have the layout (F, 3, H, W) or (F, H, W, 3), not {tuple(frames.shape)}")
