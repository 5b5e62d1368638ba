"""Saving models so that a folder is either whole or not there."""

import os
import shutil
from pathlib import Path

from hcmi.modeling_hcmi import HCMIModel
from hcmi.processing import HCMIProcessor


def save_model(model: HCMIModel, processor: HCMIProcessor, folder: Path) -> None:
    """
    Weights (safetensors), configuration and processor, as `from_pretrained` takes them.

    Written to the side and renamed: a reader of `folder`, or a run that dies, never sees half a model.

    Raises:
        OSError: the disk is full or not writable; what was in `folder` before is still there.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = folder.with_name(f".{folder.name}.new-{os.getpid()}")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        model.save_pretrained(beside)
        processor.save_pretrained(beside)
        if folder.exists():
            old = folder.with_name(f".{folder.name}.old-{os.getpid()}")
            folder.rename(old)
            try:
                beside.rename(folder)
            except OSError:
                old.rename(folder)
                raise
            shutil.rmtree(old)
        else:
            beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
