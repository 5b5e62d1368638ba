"""The flat files of an index: one row a window, appended to, mapped into memory, never changed in place."""

import os
from pathlib import Path

import numpy as np

from .errors import VideoIndexError
from .row_codec import RowShape, checksums


class VectorFiles:
    """
    Two files in a folder: `vectors.bin`, the video vectors one after another, and `records.bin`, all else of the rows.

    Which of the rows count is for the catalogue to say: rows beyond its number are left over from a write that was cut
    off, and overwritten by the next one.

    Args:
        folder: is made if it is not there.
        shape: of the rows.
    """

    def __init__(self, folder: Path, shape: RowShape):
        self.folder = folder
        self.shape = shape
        self.vectors = np.zeros((0, shape.width), shape.vectors)
        self.records = np.zeros(0, shape.records)

    @property
    def paths(self) -> tuple[Path, Path]:
        """Of the vectors and of the records."""
        return self.folder / "vectors.bin", self.folder / "records.bin"

    def __len__(self) -> int:
        return len(self.records)

    def map(self, rows: int) -> None:
        """
        Maps the first `rows` rows; pages are read when they are looked at.

        Raises:
            FileNotFoundError: the folder is gone, as after a compaction.
            VideoIndexError: the files are shorter than that.
        """
        if rows == 0:
            return
        vectors, records = self.paths
        for path, size in ((vectors, rows * self._vector_bytes), (records, rows * self.shape.records.itemsize)):
            if (found := path.stat().st_size) < size:
                raise VideoIndexError(
                    f"The index is damaged: {path} has {found} bytes, where {rows} windows need {size}. "
                    "Make the index anew, or restore it from a copy."
                )
        # "c": torch warns of read-only arrays; nobody writes, and if somebody did, it would not reach the file.
        self.vectors = np.memmap(vectors, self.shape.vectors, "c", shape=(rows, self.shape.width))
        self.records = np.memmap(records, self.shape.records, "c", shape=(rows,))

    def write(self, first: int, vectors: np.ndarray, records: np.ndarray) -> None:
        """
        Writes rows from `first` on, and returns when the disk has them.

        Raises:
            OSError: the disk is full, or fails.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        parts = ((vectors, self._vector_bytes), (records, self.shape.records.itemsize))
        for path, (array, size) in zip(self.paths, parts, strict=True):
            with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as file:
                file.truncate(first * size)  # what a write that was cut off has left
                file.seek(first * size)
                file.write(np.ascontiguousarray(array).tobytes())
                file.flush()
                os.fsync(file.fileno())

    def read(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """
        Vectors and records of some rows, as copies.

        Raises:
            VideoIndexError: a row's checksum is wrong.
        """
        vectors, records = self.vectors[rows], self.records[rows]
        wrong = checksums(vectors, records) != records["checksum"]
        if wrong.any():
            raise VideoIndexError(
                f"The index is damaged: {int(wrong.sum())} of {len(rows)} windows just read from {self.folder} are not "
                "as they were written. Make the index anew, or restore it from a copy."
            )
        return vectors, records

    @property
    def _vector_bytes(self) -> int:
        return self.shape.width * self.shape.vectors.itemsize
