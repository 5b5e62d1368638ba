"""The writing side of an index's own files: rows are appended, and moved together when many are dead."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hcmi.retrieval.encoded_videos import EncodedVideos

from .catalog import Catalog, Version
from .embedded_store import EmbeddedStore
from .row_codec import RowShape
from .search import VectorStore
from .vector_files import VectorFiles

_COPIED_AT_ONCE = 4096
"""Rows: some ten megabytes."""


class EmbeddedVectors:
    """
    The embeddings of an index in its own folder. Each compaction makes a new generation of files in a sub-folder of its
    own, so that whoever still reads the old one is not disturbed.

    Args:
        folder: the index's.
        shape: of the rows.
        catalog: notes which row is whose.
    """

    def __init__(self, folder: Path, shape: RowShape, catalog: Catalog):
        self.folder = folder
        self.shape = shape
        self._catalog = catalog

    def append(self, version: Version, windows: EncodedVideos, places: Sequence[tuple[str, int]]) -> None:
        """Writes windows behind the rows that there are; they count when the catalogue says so."""
        self._files(version.generation).write(version.rows, *self.shape.encode(windows))

    def copy(self, version: Version, source: VectorStore, rows: np.ndarray, places: Sequence[tuple[str, int]]) -> None:
        """Writes rows of another index of the same shape behind those that there are."""
        first = version.rows
        for start in range(0, len(rows), _COPIED_AT_ONCE):
            some = rows[start : start + _COPIED_AT_ONCE]
            if isinstance(source, EmbeddedStore):
                encoded = source.files.read(some)  # as they are
            else:
                encoded = self.shape.encode(source.read(some))
            self._files(version.generation).write(first, *encoded)
            first += len(some)

    def snapshot(self, version: Version, dead: Sequence[int]) -> EmbeddedStore:
        """
        What there is to search.

        Raises:
            FileNotFoundError: the generation has been replaced meanwhile.
            VideoIndexError: the files are damaged.
        """
        return EmbeddedStore(self._mapped(version), dead)

    def compact(self, version: Version, store: VectorStore) -> None:
        """Moves the live rows together, in their order. Until the catalogue has noted it, the old files count."""
        generation, live = version.generation + 1, store.live_rows()
        self.remove_leftovers(version.generation)
        self.copy(Version(generation, 0), store, live, places=())
        self._catalog.renumber(generation, live.tolist())
        self.remove_leftovers(generation)

    def remove_leftovers(self, generation: int) -> None:
        """Removes all generations but this one: of a compaction that was cut off, or from before one."""
        for folder in self.folder.glob("vectors-*"):
            if folder != self._files(generation).folder:
                shutil.rmtree(folder)

    def bytes(self, generation: int) -> int:
        """What the files take on the disk."""
        return sum(path.stat().st_size for path in self._files(generation).paths if path.exists())

    def _mapped(self, version: Version) -> VectorFiles:
        files = self._files(version.generation)
        files.map(version.rows)
        return files

    def _files(self, generation: int) -> VectorFiles:
        return VectorFiles(self.folder / f"vectors-{generation:06d}", self.shape)
