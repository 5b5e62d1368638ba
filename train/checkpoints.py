"""Saving models and checkpoints so that a folder is either whole or not there."""

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import gather_object
from safetensors import SafetensorError

from hcmi.modeling_hcmi import HCMIModel
from hcmi.processing import HCMIProcessor

MANIFEST = "manifest.json"
"""File of a checkpoint with the sizes and hashes of the others, written after them."""

# torch and safetensors do not tell of a full disk by an OSError.
_UNWRITABLE = (OSError, RuntimeError, SafetensorError)


def save_model(model: HCMIModel, processor: HCMIProcessor, folder: Path) -> None:
    """
    Weights (safetensors), configuration and processor, as `from_pretrained` takes them.

    Written to the side and renamed: a reader of `folder` never sees half a model. A run that is killed between the two
    renames leaves the older model under another name, which `recover_model` gives back.

    Raises:
        OSError: the disk is full or not writable; what was in `folder` before is still there.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    recover_model(folder)
    part = _beside(folder, "new")
    try:
        model.save_pretrained(part)
        processor.save_pretrained(part)
        _put_on_disk(part)
        _replace(folder, part)
    except SafetensorError as error:
        raise OSError(f"the model cannot be written to {folder}: {error}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def recover_model(folder: Path) -> None:
    """Undoes what a `save_model` to this folder left behind when it was killed."""
    old = _beside(folder, "old")
    if old.exists() and not folder.exists():
        old.rename(folder)
    for name in ("old", "new"):
        shutil.rmtree(_beside(folder, name), ignore_errors=True)


class Checkpoints:
    """
    The checkpoints of a run: folders `step-00000123` with a manifest. All processes call `write`, one the others.

    Args:
        folder: where they are.
        keep: the newest that are kept.
        accelerator: of this process.
    """

    def __init__(self, folder: Path, keep: int, accelerator: Accelerator) -> None:
        self.folder = folder
        self.keep = keep
        self.accelerator = accelerator

    def write(self, step: int, save: Callable[[Path], None]) -> str | None:
        """
        One more checkpoint, in place of the oldest.

        Written to the side, put on the disk and renamed: one that is there is whole.

        Args:
            step: number of the last step that is in it.
            save: called in every process with a folder to write to.

        Returns:
            `None`, or in every process why it could not be written; the older ones are then all there.
        """
        folder = self.folder / f"step-{step:08d}"
        part = _beside(folder, "part")
        failure = (
            self._failure(lambda: self._begin(part))
            or self._failure(lambda: save(part))
            or self._failure(lambda: self._finish(part, folder))
        )
        if failure and self.accelerator.is_main_process:
            shutil.rmtree(part, ignore_errors=True)
        return failure

    def all(self) -> list[Path]:
        """Oldest first; also damaged ones."""
        return sorted(self.folder.glob("step-*"))

    def newest_good(self) -> Path | None:
        """The newest whole one; damaged ones are passed over with a warning."""
        for folder in reversed(self.all()):
            if (damage := damage_of(folder)) is None:
                return folder
            warnings.warn(f"the checkpoint {folder} is damaged and passed over: {damage}", stacklevel=2)
        return None

    def discard_after(self, folder: Path) -> None:
        """Removes what was written after a checkpoint, finished or not: a run that goes on from there repeats it."""
        for newer in self.all():
            if newer.name > folder.name:
                _discard(newer)
        for unfinished in self.folder.glob(".step-*"):
            shutil.rmtree(unfinished, ignore_errors=True)

    def _failure(self, action: Callable[[], None]) -> str | None:
        """Does something; what went wrong in the first process where anything did, in all of them."""
        try:
            action()
            own = None
        except _UNWRITABLE as error:
            own = " ".join(str(error).split()) or type(error).__name__
        return next(filter(None, gather_object([own])), None)

    def _begin(self, part: Path) -> None:
        if self.accelerator.is_main_process:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)

    def _finish(self, part: Path, folder: Path) -> None:
        if not self.accelerator.is_main_process:
            return
        files = {str(file.relative_to(part)): _facts(file) for file in sorted(part.rglob("*")) if file.is_file()}
        (part / MANIFEST).write_text(json.dumps(files, indent=1))
        _put_on_disk(part)
        _replace(folder, part)
        for older in self.all()[: -self.keep]:
            _discard(older)


def damage_of(folder: Path) -> str | None:
    """What is wrong with the files of a checkpoint; `None` if they are as they were written."""
    try:
        files = json.loads((folder / MANIFEST).read_text())
        for name, facts in files.items():
            if _facts(folder / name) != facts:
                return f"{name} is not as it was written"
    except (OSError, ValueError, AttributeError) as error:
        return str(error)
    return None


def _facts(file: Path) -> dict[str, Any]:
    with file.open("rb") as content:
        return {"bytes": file.stat().st_size, "sha256": hashlib.file_digest(content, "sha256").hexdigest()}


def _beside(folder: Path, suffix: str) -> Path:
    return folder.with_name(f".{folder.name}.{suffix}")


def _put_on_disk(folder: Path) -> None:
    """Else a machine that fails may know the folder's new name and not what is in it."""
    for path in (*folder.rglob("*"), folder):
        _synchronize(path)


def _synchronize(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _replace(folder: Path, part: Path) -> None:
    """Gives `part` the name `folder`; what had it is put back if that fails, and else removed."""
    old = _beside(folder, "old")
    if folder.exists():
        folder.rename(old)
    try:
        part.rename(folder)
    except OSError:
        if old.exists():
            old.rename(folder)
        raise
    _synchronize(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _discard(folder: Path) -> None:
    """Renamed first: no reader takes what is half removed for a checkpoint."""
    part = _beside(folder, "part")
    shutil.rmtree(part, ignore_errors=True)
    folder.rename(part)
    shutil.rmtree(part, ignore_errors=True)
