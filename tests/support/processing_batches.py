"""What the tests of the processor share."""

import os

import torch
from videos import picture

CLIPS, TOKENIZER = os.environ.get("HCMI_CLIPS"), os.environ.get("HCMI_TOKENIZER")
FRAMES = 6
VIDEO_OUTPUTS = {"pixel_values_videos", "video_mask", "timestamps", "video_spans"}


def frames(count: int, size: tuple[int, int] = (32, 24)) -> torch.Tensor:
    """Pictures that differ, `(count, 3, height, width)` uint8."""
    return torch.stack([torch.from_numpy(picture(number, size)).permute(2, 0, 1) for number in range(count)])
