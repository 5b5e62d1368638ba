"""Weights that arrive from the Hub are those that it has."""

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.file_download import repo_folder_name


@contextmanager
def checked_downloads(name: str | os.PathLike | None, cache_dir: str | os.PathLike | None) -> Iterator[None]:
    """
    Compares every large file of a model's repository that is downloaded meanwhile with its SHA-256, by which the cache
    names it. The Hub's client compares lengths alone. What the cache has had before is not read.

    Args:
        name: of the repository; a folder, or None, downloads nothing.
        cache_dir: as for `from_pretrained`; default: the client's own.

    Raises:
        ValueError: a file is another one than the Hub's; it is removed from the cache.
    """
    if name is None or os.path.isdir(name):
        yield
        return
    cache = Path(cache_dir or constants.HF_HUB_CACHE)
    blobs = cache / repo_folder_name(repo_id=str(name), repo_type="model") / "blobs"
    before = _large_files(blobs)
    try:
        yield
    finally:
        wrong = [file for file in _large_files(blobs) - before if _sha256(file) != file.name]
        for file in wrong:
            file.unlink()
        if wrong:
            raise ValueError(
                f"{name}: what was downloaded is not what the Hub has (a file's SHA-256 is not {wrong[0].name}), and "
                "was removed from the cache. If loading once more ends the same, the repository or the way to it is "
                "not to be trusted."
            )


def _large_files(blobs: Path) -> set[Path]:
    """Those that the cache names by their SHA-256; small ones have another hash."""
    return {file for file in blobs.glob("*") if re.fullmatch("[0-9a-f]{64}", file.name)}


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
