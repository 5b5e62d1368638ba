"""An index on disk without its model: the catalogue and the embeddings together, as one thing that stays whole."""

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from hcmi.retrieval.encoded_videos import EncodedVideos

from .catalog import Catalog, FileState, IndexedVideo, Version
from .embedded_vectors import EmbeddedVectors
from .errors import VideoIndexError
from .model_identity import is_same
from .qdrant_server import QdrantServer
from .row_codec import RowShape
from .search import VectorStore
from .window import Window

if TYPE_CHECKING:
    from .qdrant_store import QdrantVectors

MAX_ATTEMPTS = 10
"""How often a reader begins anew because a compaction has come between."""

_VERIFIED_AT_ONCE = 4096
_MERGED_AT_ONCE = 1000


@dataclass(frozen=True)
class IndexInfo:
    """
    What an index is and holds.

    Args:
        model: name or folder of the model that it was made with.
        shape: width of the embeddings, frames and clips a window, and how precisely they are kept.
        videos, windows: how many can be found.
        partial: videos of which some windows are still to be encoded.
        unreadable: files that could not be read.
        dead: rows of deleted windows, which `compact` gives back.
        bytes: on the disk here.
        server: where the embeddings are, if not here.
    """

    model: str
    shape: RowShape
    videos: int
    windows: int
    partial: int
    unreadable: int
    dead: int
    bytes: int
    server: QdrantServer | None = None


class StoredIndex:
    """
    The folder of an index: a catalogue, and the embeddings of every window of every video.

    One process writes at a time, any number read at the same time, and see what is committed. What a method has done
    when it returns survives whatever happens then. A context manager.

    Args:
        path: of the folder.
        write: to add and delete, too.

    Raises:
        VideoIndexError: there is no index, or a damaged one, or another process is writing to it.
    """

    def __init__(self, path: str | os.PathLike, write: bool = False):
        self.path = Path(path)
        self._catalog = Catalog(self.path)
        self._lock = threading.RLock()
        self._writing: FileLock | None = None
        self._seen: tuple[tuple[Any, Version], VectorStore] | None = None
        self._facts = self._catalog.facts()
        self.shape = RowShape(**self._facts["shape"])
        self._server = QdrantServer(**self._facts["server"]) if self._facts.get("server") else None
        self._vectors = self._open_vectors()
        if write:
            try:
                self._writing = lock_for_writing(self.path)
            except VideoIndexError:
                self.close()
                raise
            self._vectors.remove_leftovers(self._catalog.version().generation)

    def close(self) -> None:
        """Ends writing and reading. An index that is closed cannot be used any more."""
        if self._writing is not None:
            self._writing.release()
        self._seen = None
        self._catalog.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ── looking ──

    def __len__(self) -> int:
        """Videos that can be found."""
        return self._catalog.counts()["videos"]

    def __iter__(self) -> Iterator[IndexedVideo]:
        """All files that the index knows, by their paths."""
        return map(self._resolved, self._catalog.videos())

    def __contains__(self, path: str | os.PathLike) -> bool:
        return self.get(path) is not None

    def get(self, path: str | os.PathLike) -> IndexedVideo | None:
        """What is known of a file."""
        found = self._catalog.find(self._name(path))
        return None if found is None else self._resolved(found)

    def find_digest(self, digest: str) -> IndexedVideo | None:
        """A file of this content, where contents were hashed."""
        found = self._catalog.find_digest(digest)
        return None if found is None else self._resolved(found)

    def windows(self, path: str | os.PathLike, missing: bool = False) -> list[Window]:
        """Into which windows a file is cut; only those that are not encoded yet, if those are asked for."""
        return self._catalog.planned(self._name(path), missing)

    @property
    def info(self) -> IndexInfo:
        """What the index is and holds."""
        counts = self._catalog.counts()
        size = self._vectors.bytes(self._catalog.version().generation) + self._catalog.path.stat().st_size
        dead = len(self._catalog.dead_rows())
        return IndexInfo(self._facts["model"], self.shape, dead=dead, bytes=size, server=self._server, **counts)

    @property
    def level_weights(self) -> dict[str, float]:
        """How much each level counts in a score: the model's `inference_weights`."""
        return self._facts["level_weights"]

    def resolve(self, name: str) -> str:
        """Where a file of the catalogue lies: relative paths start from the index's folder."""
        return os.path.normpath(os.path.join(os.path.abspath(self.path), name))

    def locate(self, rows: Sequence[int]) -> dict[int, tuple[str, Window]]:
        """Path and window of rows; rows that were deleted are left out."""
        return {row: (self.resolve(name), window) for row, (name, window) in self._catalog.locate(rows).items()}

    def read(self, path: str | os.PathLike, numbers: Sequence[int] | None = None) -> EncodedVideos:
        """
        The embeddings of a file's encoded windows, or of some of them, in the order of their numbers.

        Raises:
            VideoIndexError: a window is not there.
        """
        name = self._name(path)
        rows = dict(self._catalog.rows_of(name))
        numbers = sorted(rows) if numbers is None else numbers
        if not numbers or not set(numbers) <= rows.keys():
            raise VideoIndexError(f"The index {self.path} has no windows {list(numbers)} of {os.fspath(path)}.")
        found = self._snapshot()[1].read(np.array([rows[number] for number in numbers]))
        return replace(found, names=[self.resolve(name)] * len(numbers))

    # ── writing ──

    @contextmanager
    def together(self) -> Iterator[None]:
        """
        What is noted inside is on the disk when the block ends, all or nothing: a thousand files in the time that one
        takes otherwise.
        """
        self._check_writing()
        with self._catalog.transaction():
            yield

    def begin_file(self, path: str | os.PathLike, state: FileState, windows: Sequence[Window]) -> None:
        """Notes a file and the windows that will be appended; what was known under its path is forgotten."""
        self._check_writing()
        self._catalog.begin_file(self._name(path), state, windows)

    def append(self, windows: EncodedVideos, places: Sequence[tuple[str, int]]) -> None:
        """
        Adds encoded windows: path and number of each. They can be found when the method returns.

        Raises:
            VideoIndexError: a window was not planned by `begin_file`, or is there already.
            OSError: the disk is full; what was there before is safe.
        """
        self._check_writing()
        version = self._catalog.version()
        named = [(self._name(path), number) for path, number in places]
        self._vectors.append(version, windows, named)
        self._catalog.place(version.rows, named)

    def mark_unreadable(self, path: str | os.PathLike, state: FileState, reason: str) -> None:
        """Notes a file that cannot be read, and why."""
        self._check_writing()
        self._catalog.begin_file(self._name(path), state, [], reason)

    def update_file(self, path: str | os.PathLike, new_path: str | os.PathLike, state: FileState) -> None:
        """Notes that the same content now has another name, another time, or both."""
        self._check_writing()
        self._catalog.update_file(self._name(path), self._name(new_path), state)

    def delete(self, paths: Iterable[str | os.PathLike]) -> int:
        """Forgets files; how many of them were known. `compact` gives their space back."""
        self._check_writing()
        return self._catalog.delete([self._name(path) for path in paths])

    def compact(self) -> None:
        """
        Gives back the space of deleted windows.

        Raises:
            OSError: the disk has no room for the new files beside the old ones; the index stays as it was.
        """
        self._check_writing()
        self._vectors.compact(*self._snapshot())

    def merge(self, other: "StoredIndex") -> int:
        """
        Takes over the files of another index, made with the same model and precision. Of a file that both know, the
        other's entry is taken.

        Returns:
            How many files.

        Raises:
            VideoIndexError: the other was made with another model, or keeps its windows differently.
        """
        self._check_writing()
        if other.shape != self.shape or not is_same(other._facts["fingerprint"], self._facts["fingerprint"]):
            raise VideoIndexError(
                f"{other.path} was made with {other._facts['model']} as {other.shape}, {self.path} with "
                f"{self._facts['model']} as {self.shape}: they cannot be joined."
            )
        videos, (_, source) = list(other), other._snapshot()
        for first in range(0, len(videos), _MERGED_AT_ONCE):
            with self.together():
                self._take_over(other, source, videos[first : first + _MERGED_AT_ONCE])
        return len(videos)

    def _take_over(self, other: "StoredIndex", source: VectorStore, videos: Sequence[IndexedVideo]) -> None:
        rows: list[int] = []
        places: list[tuple[str, int]] = []
        for video in videos:
            name = self._name(video.path)
            self._catalog.begin_file(name, video.file, other.windows(video.path), video.reason)
            for number, row in other._catalog.rows_of(other._name(video.path)):
                rows.append(row)
                places.append((name, number))
        if rows:
            version = self._catalog.version()
            self._vectors.copy(version, source, np.array(rows), places)
            self._catalog.place(version.rows, places)

    def verify(self, progress: bool = False) -> None:
        """
        Reads everything.

        Raises:
            VideoIndexError: something is not as it was written.
        """
        self._catalog.check()
        _, store = self._snapshot()
        rows = store.live_rows()
        with tqdm(total=len(rows), desc="Verifying", unit="window", disable=not progress) as bar:
            for first in range(0, len(rows), _VERIFIED_AT_ONCE):
                bar.update(len(store.read(rows[first : first + _VERIFIED_AT_ONCE])))

    # ── inside ──

    def _open_vectors(self) -> "EmbeddedVectors | QdrantVectors":
        if self._server is None:
            return EmbeddedVectors(self.path, self.shape, self._catalog)
        from .qdrant_store import QdrantVectors

        return QdrantVectors(self._server, self.shape, self._catalog)

    def _snapshot(self) -> tuple[Version, VectorStore]:
        """What is committed now; the last snapshot where nothing has changed since."""
        with self._lock:
            for _ in range(MAX_ATTEMPTS):
                changes = self._catalog.changes()
                if self._seen is not None and self._seen[0][0] == changes:
                    break
                version, dead = self._catalog.version(), self._catalog.dead_rows()
                try:
                    store: VectorStore = self._vectors.snapshot(version, dead)
                except FileNotFoundError:
                    if self._catalog.version() == version:
                        raise VideoIndexError(
                            f"The index is damaged: {self.path} lacks its files of embeddings. Make the index anew, or "
                            "restore it from a copy."
                        ) from None
                    continue
                if self._catalog.changes() == changes:
                    self._seen = (changes, version), store
            assert self._seen is not None
            (_, version), store = self._seen
            return version, store

    def _resolved(self, video: IndexedVideo) -> IndexedVideo:
        return replace(video, path=self.resolve(video.path))

    def _check_writing(self) -> None:
        if self._writing is None:
            raise VideoIndexError(f"The index {self.path} is open for reading: open it with write=True.")

    def _name(self, path: str | os.PathLike) -> str:
        """As the catalogue calls a file: its absolute path, unless it is noted relative to the index's folder."""
        absolute = os.path.abspath(path)
        return os.path.relpath(absolute, self.path.absolute()) if self._facts.get("relative") else absolute


def lock_for_writing(folder: Path) -> FileLock:
    lock = FileLock(folder / "writer.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise VideoIndexError(
            f"Another process is writing to the index {folder}: wait for it, or end it. Searching goes on meanwhile."
        ) from None
    return lock
