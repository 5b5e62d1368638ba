"""Saved models as they are measured: on a device, whole, and with what their training noted."""

import os
from pathlib import Path
from typing import Any

import torch
import yaml

from hcmi.modeling_hcmi import HCMIModel


def find_device(name: str) -> torch.device:
    """The device of that name; "auto": a GPU if there is one.

    Raises:
        ValueError: torch knows no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"there is no device {name!r}: {error}") from error


def load_whole_model(name: str, device: torch.device, dtype: str = "auto") -> HCMIModel:
    """The model of a folder or of the Hub, in evaluation mode.

    Raises:
        ValueError: some of its weights were not saved, which is so for a CLIP checkpoint.
        OSError: there is no model of that name.
    """
    loaded: Any = HCMIModel.from_pretrained(name, dtype=dtype, output_loading_info=True)
    model, loading = loaded
    if missing := sorted(loading["missing_keys"]):
        raise ValueError(
            f"{name} lacks {len(missing)} weights of HCMIModel (first: {missing[0]}): random ones are not measured. "
            "HCMIModel.from_clip_pretrained starts from a CLIP checkpoint."
        )
    return model.to(device)


def training_seed(name: str) -> int | None:
    """The seed in the `arguments.yaml` that a training run leaves beside the folder of its model; None: not known."""
    file = Path(name).absolute().parent / "arguments.yaml"
    if not os.path.isdir(name) or not file.is_file():
        return None
    try:
        noted = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError:
        return None  # not from a training run
    seed = noted.get("seed") if isinstance(noted, dict) else None
    return seed if isinstance(seed, int) else None
