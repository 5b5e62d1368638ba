"""A frame as bytes: exactly, or as JPEG."""

import io
from typing import Any

import numpy as np
import torch
from PIL import Image

ENCODINGS = ("raw", "jpeg")
JPEG_QUALITY = 95


def encode_frame(frame: torch.Tensor, encoding: str) -> bytes:
    """The bytes of a frame (3, H, W) uint8; "raw" keeps every value, "jpeg" about a quarter to a tenth of the size."""
    if encoding == "raw":
        return frame.numpy().tobytes()
    buffer = io.BytesIO()
    # Colours in full resolution: halved, as by default, edges between colours would lose more than all the rest does.
    Image.fromarray(frame.permute(1, 2, 0).numpy()).save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def decode_frame(data: Any, encoding: str, shape: tuple[int, int, int]) -> np.ndarray:
    """The frame (3, H, W) uint8 of such bytes (any buffer); may be a read-only view of them."""
    if encoding == "raw":
        return np.frombuffer(data, dtype=np.uint8).reshape(shape)
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture).transpose(2, 0, 1)
