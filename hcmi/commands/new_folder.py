"""A folder that is there whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def refuse_used(folder: Path) -> None:
    """
    Raises:
        ValueError: `folder` is a file, or has something in it.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is already there and not empty: name another folder, or remove it first.")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """
    A folder beside `folder` to write into, which takes its place when everything is written, and goes when not.

    Raises:
        ValueError: `folder` is there and not empty.
    """
    refuse_used(folder)
    partial = folder.absolute().with_name(f".{folder.name}.partial-{os.getpid()}")
    partial.mkdir(parents=True)
    try:
        yield partial
        partial.replace(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
