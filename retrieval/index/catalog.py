"""The index's catalogue: which files it knows, into which windows they are cut, and in which row each window lies."""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import VideoIndexError
from .window import Window

FORMAT = 1
"""Of the index on disk: a newer one than this is refused."""

_PATIENCE = 60.0
"""Seconds that a writer waits for readers to look something up, and the other way round; both take milliseconds."""

_TABLES = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE files (
    id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, size INTEGER NOT NULL, modified INTEGER NOT NULL, digest TEXT,
    duration REAL, reason TEXT, planned INTEGER NOT NULL DEFAULT 0, encoded INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX digests ON files (digest);
CREATE TABLE windows (
    file INTEGER NOT NULL, number INTEGER NOT NULL, start REAL NOT NULL, end REAL NOT NULL, row INTEGER UNIQUE,
    PRIMARY KEY (file, number)
) WITHOUT ROWID;
CREATE TABLE dead_rows (row INTEGER PRIMARY KEY);
"""


@dataclass(frozen=True)
class FileState:
    """
    What a video's file was when it was read.

    Args:
        size: bytes.
        mtime_ns: when it was last modified.
        digest: of its content, where that was asked for.
        duration: seconds, where it could be read.
    """

    size: int
    mtime_ns: int
    digest: str | None = None
    duration: float | None = None


@dataclass(frozen=True)
class IndexedVideo:
    """
    A file that an index knows.

    Args:
        path: of the file, absolute.
        state: `"indexed"`; `"partial"`, while some windows are not encoded yet; or `"unreadable"`.
        reason: why it cannot be read.
        windows: into how many it is cut.
        file: its size, time, digest and duration.
    """

    path: str
    state: str
    reason: str | None
    windows: int
    file: FileState


@dataclass(frozen=True)
class Version:
    """Which rows a reader may look at: those below `rows` of this generation of the files, but for the dead ones."""

    generation: int
    rows: int


class Catalog:
    """
    An SQLite database in a folder. Every method that changes something is one transaction: it is on the disk when the
    method returns, or has not happened.

    Raises:
        VideoIndexError: at opening, if there is no catalogue, a newer one, or a damaged one.
    """

    def __init__(self, folder: Path):
        self.path = self.location(folder)
        if not self.path.exists():
            raise VideoIndexError(f"There is no index in {folder}. `hcmi index` makes one.")
        self._database = sqlite3.connect(self.path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
        with self._explained():
            self._database.execute("PRAGMA synchronous = FULL")
            form = self.facts().get("format")
        if form != FORMAT:
            self.close()
            raise VideoIndexError(
                f"The index {folder} has format {form}, this version of hcmi reads {FORMAT}: update it."
            )

    @staticmethod
    def location(folder: Path) -> Path:
        """Where a folder's catalogue lies."""
        return folder / "catalog.sqlite"

    @classmethod
    def create(cls, folder: Path, facts: dict[str, Any]) -> "Catalog":
        """Makes an empty catalogue; under its name there is none, or a whole one."""
        path = cls.location(folder)
        unfinished = path.with_suffix(".new")
        unfinished.unlink(missing_ok=True)
        with closing(sqlite3.connect(unfinished)) as database:
            database.executescript(_TABLES)
            rows = {"format": FORMAT, "generation": 1, "rows": 0, **facts}
            database.executemany("INSERT INTO facts VALUES (?, ?)", [(k, json.dumps(v)) for k, v in rows.items()])
            database.commit()
        unfinished.rename(path)
        return cls(folder)

    def close(self) -> None:
        """Gives the database back."""
        self._database.close()

    def facts(self) -> dict[str, Any]:
        """What the index as a whole is: its format, model, shape, generation and number of rows."""
        return {name: json.loads(value) for name, value in self._rows("SELECT name, value FROM facts")}

    def version(self) -> Version:
        """What there is to look at now."""
        wanted = dict(self._rows("SELECT name, value FROM facts WHERE name IN ('generation', 'rows')"))
        return Version(int(wanted["generation"]), int(wanted["rows"]))

    def changes(self) -> tuple[int, int]:
        """Differs from what it was before if anything has been changed since, here or by another process."""
        (row,) = self._rows("PRAGMA data_version")
        return row[0], self._database.total_changes

    # ── looking up ──

    def dead_rows(self) -> list[int]:
        """Rows whose windows were deleted."""
        return [row for (row,) in self._rows("SELECT row FROM dead_rows")]

    def live_rows(self) -> list[int]:
        """Rows of all windows that can be found, ascending."""
        return [row for (row,) in self._rows("SELECT row FROM windows WHERE row IS NOT NULL ORDER BY row")]

    def videos(self) -> Iterator[IndexedVideo]:
        """All files, by their paths."""
        return map(_video, self._rows(f"SELECT {_VIDEO} FROM files ORDER BY path"))

    def find(self, path: str) -> IndexedVideo | None:
        """The file of this path."""
        return next(map(_video, self._rows(f"SELECT {_VIDEO} FROM files WHERE path = ?", path)), None)

    def find_digest(self, digest: str) -> IndexedVideo | None:
        """A file of this content."""
        return next(map(_video, self._rows(f"SELECT {_VIDEO} FROM files WHERE digest = ? ORDER BY path", digest)), None)

    def counts(self) -> dict[str, int]:
        """How many videos can be found, are partial and unreadable, and how many windows can be found."""
        query = """SELECT COALESCE(SUM(encoded > 0), 0), COALESCE(SUM(reason IS NULL AND encoded < planned), 0),
                   COALESCE(SUM(reason IS NOT NULL), 0), COALESCE(SUM(encoded), 0) FROM files"""
        (row,) = self._rows(query)
        return dict(zip(("videos", "partial", "unreadable", "windows"), row, strict=True))

    def planned(self, path: str, missing: bool = False) -> list[Window]:
        """The windows of a file; only those that are not encoded yet, if those are asked for."""
        query = f"""SELECT number, start, end FROM windows WHERE file = (SELECT id FROM files WHERE path = ?)
                    {"AND row IS NULL" if missing else ""} ORDER BY number"""
        return [Window(*row) for row in self._rows(query, path)]

    def rows_of(self, path: str) -> list[tuple[int, int]]:
        """Number and row of a file's encoded windows."""
        query = "SELECT number, row FROM windows WHERE file = (SELECT id FROM files WHERE path = ?) AND row IS NOT NULL"
        return list(self._rows(query, path))

    def locate(self, rows: Sequence[int]) -> dict[int, tuple[str, Window]]:
        """Path and window of rows; without those that have been deleted meanwhile."""
        query = f"""SELECT row, path, number, start, end FROM windows JOIN files ON id = file
                    WHERE row IN ({", ".join(str(int(row)) for row in rows)})"""
        return {row: (path, Window(*window)) for row, path, *window in self._rows(query)}

    # ── changing ──

    def begin_file(self, path: str, state: FileState, windows: Sequence[Window], reason: str | None = None) -> None:
        """Notes a file and the windows that are to be encoded; what was known under its path is forgotten."""
        with self.transaction():
            self._forget(path)
            file = (path, state.size, state.mtime_ns, state.digest, state.duration, reason, len(windows))
            columns = "path, size, modified, digest, duration, reason, planned"
            cursor = self._database.execute(f"INSERT INTO files ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)", file)
            self._database.executemany(
                "INSERT INTO windows (file, number, start, end) VALUES (?, ?, ?, ?)",
                [(cursor.lastrowid, window.number, window.start, window.end) for window in windows],
            )

    def place(self, first: int, places: Iterable[tuple[str, int]]) -> None:
        """
        Notes that the windows `(path, number)` lie in the rows from `first` on.

        Raises:
            VideoIndexError: one of them was not planned, or has a row already.
        """
        with self.transaction():
            row = first
            for path, number in places:
                (file,) = next(self._rows("SELECT id FROM files WHERE path = ?", path), (None,))
                changed = self._database.execute(
                    "UPDATE windows SET row = ? WHERE file = ? AND number = ? AND row IS NULL", (row, file, number)
                ).rowcount
                if not changed:
                    raise VideoIndexError(f"Window {number} of {path} is not waiting to be encoded.")
                self._database.execute("UPDATE files SET encoded = encoded + 1 WHERE id = ?", (file,))
                row += 1
            self._set(rows=row)

    def update_file(self, path: str, new_path: str, state: FileState) -> None:
        """The same content under another time, name or both."""
        with self.transaction():
            if new_path != path:
                self._forget(new_path)
            self._database.execute(
                "UPDATE files SET path = ?, size = ?, modified = ?, digest = ? WHERE path = ?",
                (new_path, state.size, state.mtime_ns, state.digest, path),
            )

    def delete(self, paths: Iterable[str]) -> int:
        """Forgets files; how many of them were known."""
        with self.transaction():
            return sum(self._forget(path) for path in paths)

    def renumber(self, generation: int, old_rows: Iterable[int]) -> None:
        """The live rows, in this ascending order, are now 0, 1, 2, … of the given generation."""
        with self.transaction():
            count = 0
            for new, old in enumerate(old_rows):
                self._database.execute("UPDATE windows SET row = ? WHERE row = ?", (new, old))
                count = new + 1
            self._database.execute("DELETE FROM dead_rows")
            self._set(generation=generation, rows=count)

    def forget_dead_rows(self, rows: Iterable[int]) -> None:
        """These are gone; the others keep their numbers."""
        with self.transaction():
            self._database.executemany("DELETE FROM dead_rows WHERE row = ?", [(row,) for row in rows])

    def check(self) -> None:
        """
        Raises:
            VideoIndexError: the database is damaged.
        """
        (found,) = next(self._rows("PRAGMA integrity_check"))
        if found != "ok":
            raise VideoIndexError(f"The index is damaged: {self.path}: {found}")

    def _forget(self, path: str) -> bool:
        (file,) = next(self._rows("SELECT id FROM files WHERE path = ?", path), (None,))
        if file is None:
            return False
        self._database.execute(
            "INSERT INTO dead_rows SELECT row FROM windows WHERE file = ? AND row IS NOT NULL", (file,)
        )
        self._database.execute("DELETE FROM windows WHERE file = ?", (file,))
        self._database.execute("DELETE FROM files WHERE id = ?", (file,))
        return True

    def _set(self, **facts: int) -> None:
        self._database.executemany("UPDATE facts SET value = ? WHERE name = ?", [(v, k) for k, v in facts.items()])

    def _rows(self, query: str, *values: Any) -> Iterator[tuple]:
        with self._explained():
            return iter(self._database.execute(query, values).fetchall())

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All changes inside are one; each costs the disk's patience otherwise, which at thousands a second is much."""
        if self._database.in_transaction:
            yield
            return
        with self._explained():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """SQLite's errors, as those of the index."""
        try:
            yield
        except sqlite3.OperationalError as error:
            if "full" in str(error):
                raise OSError(
                    f"The disk is full: {self.path} cannot be written. What was committed is safe."
                ) from error
            raise VideoIndexError(f"The catalogue {self.path} cannot be used: {error}") from error
        except sqlite3.DatabaseError as error:
            raise VideoIndexError(
                f"The index is damaged: {self.path}: {error}. Make the index anew, or restore it from a copy."
            ) from error


_VIDEO = "path, planned, encoded, reason, size, modified, digest, duration"


def _video(row: tuple) -> IndexedVideo:
    path, planned, encoded, reason, *state = row
    found = "unreadable" if reason is not None else "indexed" if encoded == planned else "partial"
    return IndexedVideo(path, found, reason, planned, FileState(*state))
