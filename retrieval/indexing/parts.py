"""Indexes inside an index: what the other processes of a launcher have made, until it is joined to theirs."""

import shutil
from pathlib import Path

from hcmi.retrieval.index.catalog import Catalog
from hcmi.retrieval.index.stored_index import StoredIndex

from .report import IndexReport


def part_folder(folder: Path, rank: int) -> Path:
    """Where a process puts what it adds to the index of that folder."""
    return folder / "parts" / str(rank)


def join_parts(index: StoredIndex) -> list[IndexReport]:
    """
    Moves everything from the parts of an index, which is open for writing, into it.

    Returns:
        The report of every part whose process has come to an end.

    Raises:
        VideoIndexError: a process still writes to a part, or it was made with another model.
    """
    reports = []
    parts = part_folder(index.path, 0).parent
    for folder in sorted(parts.glob("*")):
        if Catalog.location(folder).exists():
            with StoredIndex(folder, write=True) as part:
                index.merge(part)
            reports += IndexReport.load(folder)
        shutil.rmtree(folder)
    shutil.rmtree(parts, ignore_errors=True)
    return reports
