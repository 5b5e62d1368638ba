"""Frames become pictures of the size a model takes: one path for all of them, in torch, on uint8.

It follows the stock image processor (resize of the shortest edge with antialiasing, centre crop), whose settings it
reads. `transformers` has one such processor that needs torchvision and one that goes through PIL picture by picture;
this path needs neither, keeps a batch of frames in uint8, and is tested against the PIL one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

# What an image processor may say about a picture and has no meaning for frames that are RGB uint8 tensors already.
_WITHOUT_EFFECT = {
    "auto_map",
    "data_format",
    "default_to_square",
    "device",
    "disable_grouping",
    "do_convert_rgb",
    "feature_extractor_type",
    "image_processor_type",
    "image_seq_length",
    "input_data_format",
    "processor_class",
    "return_tensors",
}
_RESAMPLING = {2: "bilinear", 3: "bicubic"}  # the numbers are PIL's


@dataclass(frozen=True)
class FrameSettings:
    """What happens to a frame, as an image processor's settings say it.

    Attributes:
        shortest_edge: length in pixels that the shortest edge is resized to, or None.
        size: (height, width) in pixels that a frame is resized to, or None.
        mode: "bilinear" or "bicubic"; both with antialiasing.
        crop: (height, width) in pixels cut from the middle, or None.
        scale: factor from levels 0..255 to the values that mean and standard deviation are of.
        mean, std: one a channel.
    """

    shortest_edge: int | None = None
    size: tuple[int, int] | None = None
    mode: str = "bicubic"
    crop: tuple[int, int] | None = None
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)

    @classmethod
    def of(cls, image_processor: Any, overrides: Mapping[str, Any] | None = None) -> "FrameSettings":
        """The settings of an image processor, with those in `overrides` (same names, None means unset) before its own.

        Raises:
            ValueError: for a setting that this path does not know, by its name; dropping it would change the pictures.
        """
        settings = dict(image_processor.to_dict())
        settings.update({name: value for name, value in (overrides or {}).items() if value is not None})
        settings = {name: value for name, value in settings.items() if name not in _WITHOUT_EFFECT}
        read: dict[str, Any] = {}
        do = {name: bool(settings.pop(name, False)) for name in _STEPS}
        size, crop, resample = settings.pop("size", None), settings.pop("crop_size", None), settings.pop("resample", 2)
        scale, mean, std = (settings.pop(name, None) for name in ("rescale_factor", "image_mean", "image_std"))
        unknown = sorted(name for name, value in settings.items() if value not in (None, False))
        if unknown:
            raise ValueError(
                f"frames cannot be prepared with the image processor's {', '.join(unknown)}: not supported"
            )
        if do["do_resize"]:
            if resample not in _RESAMPLING:
                raise ValueError(f"resample={resample!r} is not supported for frames: 2 (bilinear) or 3 (bicubic)")
            square = getattr(image_processor, "default_to_square", True)
            read.update(_resize_target(size, square), mode=_RESAMPLING[resample])
        if do["do_center_crop"]:
            read["crop"] = _height_and_width("crop_size", crop)
        if do["do_rescale"]:
            read["scale"] = float(scale)
        if do["do_normalize"]:
            read["mean"], read["std"] = _per_channel("image_mean", mean), _per_channel("image_std", std)
        return cls(**read)


_STEPS = ("do_resize", "do_center_crop", "do_rescale", "do_normalize")


def resize_frames(frames: torch.Tensor, settings: FrameSettings) -> torch.Tensor:
    """Resizes and crops frames.

    Args:
        frames: (..., 3, H, W) uint8.

    Returns:
        (..., 3, h, w) uint8. A frame smaller than the crop is padded with black on all sides, as the stock one does.
    """
    *leading, channels, height, width = frames.shape
    target = _target_size(height, width, settings)
    if target != (height, width):
        pictures = frames.reshape(-1, channels, height, width)
        pictures = functional.interpolate(pictures, size=target, mode=settings.mode, antialias=True)
        frames = pictures.reshape(*leading, channels, *target)
    return frames if settings.crop is None else _center_crop(frames, *settings.crop)


def normalize_frames(frames: torch.Tensor, settings: FrameSettings) -> torch.Tensor:
    """(x * scale - mean) / std in float32 for frames (..., 3, H, W) uint8: what the model does itself with uint8."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (settings.mean, settings.std))
    return (frames.to(torch.float32) * settings.scale - mean) / std


def _target_size(height: int, width: int, settings: FrameSettings) -> tuple[int, int]:
    if settings.size is not None:
        return settings.size
    if settings.shortest_edge is None:
        return height, width
    longest = int(settings.shortest_edge * max(height, width) / min(height, width))
    return (longest, settings.shortest_edge) if height > width else (settings.shortest_edge, longest)


def _center_crop(frames: torch.Tensor, crop_height: int, crop_width: int) -> torch.Tensor:
    height, width = frames.shape[-2:]
    missing_rows, missing_columns = max(crop_height - height, 0), max(crop_width - width, 0)
    if missing_rows or missing_columns:
        # The odd row or column goes before the picture, where the stock image processor puts it.
        before_rows, before_columns = (missing_rows + 1) // 2, (missing_columns + 1) // 2
        sides = (before_columns, missing_columns - before_columns, before_rows, missing_rows - before_rows)
        frames = functional.pad(frames, sides)
    top, left = max(height - crop_height, 0) // 2, max(width - crop_width, 0) // 2
    return frames[..., top : top + crop_height, left : left + crop_width]


def _resize_target(size: Any, default_to_square: bool) -> dict[str, Any]:
    if isinstance(size, int):
        return {"size": (size, size)} if default_to_square else {"shortest_edge": size}
    given = {name for name, value in size.items() if value is not None} if isinstance(size, Mapping) else set()
    if given == {"shortest_edge"}:
        return {"shortest_edge": size["shortest_edge"]}
    return {"size": _height_and_width("size", size)}


def _height_and_width(name: str, value: Any) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    if isinstance(value, Mapping) and {key for key in value if value[key] is not None} == {"height", "width"}:
        return value["height"], value["width"]
    raise ValueError(
        f"{name}={value!r} is not supported for frames: shortest_edge alone (size only), or height and width"
    )


def _per_channel(name: str, value: float | Sequence[float] | None) -> tuple[float, ...]:
    values = (value,) * 3 if isinstance(value, (int, float)) else tuple(value or ())
    if len(values) != 3:
        raise ValueError(f"{name}={value!r}: frames have three channels")
    return values
