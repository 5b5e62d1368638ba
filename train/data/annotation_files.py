"""Finding and reading annotation files: JSON, CSV, tab-separated and plain lists, with errors that name the file."""

import csv
import json
import os
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from .video_files import walk_files

_EXTENSIONS = (".json", ".csv", ".tsv", ".txt", ".pkl")


class AnnotationFolder:
    """
    The annotation files in a folder and below it.

    Args:
        folder: is walked once.

    Raises:
        ValueError: there is no such folder.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self.folder = Path(os.path.abspath(os.path.expanduser(folder)))
        self._files = [Path(path) for path in walk_files(folder) if path.lower().endswith(_EXTENSIONS)]

    def find(self, *patterns: str) -> Path:
        """
        The file whose name fits the first pattern that any name fits; of several the one that is nested least.

        Args:
            patterns: names, in any case, possibly with `*`.

        Raises:
            ValueError: no file fits, or several that are nested equally.
        """
        if found := self.find_if_there(*patterns):
            return found
        raise ValueError(f"{self.folder} and the folders below it have no {' or '.join(patterns)}")

    def find_if_there(self, *patterns: str) -> Path | None:
        """
        As `find`; None where no file fits.

        Raises:
            ValueError: several files that are nested equally fit.
        """
        for pattern in patterns:
            paths = [path for path in self._files if fnmatchcase(path.name.lower(), pattern.lower())]
            depth = min((len(path.parts) for path in paths), default=0)
            paths = sorted(path for path in paths if len(path.parts) == depth)
            if len(paths) > 1:
                raise ValueError(f"{' and '.join(map(str, paths[:3]))} may both be {pattern}: name a folder with one")
            if paths:
                return paths[0]
        return None


def read_json(path: Path, kind: type) -> Any:
    """
    The contents of a JSON file.

    Args:
        path: of the file.
        kind: `dict` or `list`, what the file must hold.

    Raises:
        ValueError: it is no JSON or holds something else.
    """
    try:
        contents = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON file ({error}): fetch it anew") from error
    if not isinstance(contents, kind):
        raise ValueError(f"{path} holds a {type(contents).__name__}, not a {kind.__name__}: it is another file")
    return contents


def read_strings(path: Path, entry: Any, *names: str) -> tuple[str, ...]:
    """
    Fields of one entry of a JSON file.

    Raises:
        ValueError: the entry is no dictionary, or one of the fields is no string.
    """
    if not isinstance(entry, dict) or not all(isinstance(entry.get(name), str) for name in names):
        raise ValueError(f"{path} has an entry without {', '.join(names)}: {str(entry)[:80]}")
    return tuple(entry[name] for name in names)


def read_text(path: Path) -> str:
    """A file's text, in UTF-8 or else, as older annotation files come, in Latin-1."""
    contents = path.read_bytes()
    try:
        return contents.decode("utf-8-sig")
    except UnicodeDecodeError:
        return contents.decode("latin-1")


def read_lines(path: Path) -> list[str]:
    """The lines of a list, without blanks around them, empty ones and comments, which begin with "#"."""
    lines = (line.strip() for line in read_text(path).split("\n"))
    return [line for line in lines if line and not line.startswith("#")]


def read_csv(path: Path, columns: Sequence[str]) -> list[tuple[str, ...]]:
    """
    Columns of a comma-separated file whose first line names them.

    Returns:
        The values of `columns`, in this order, of each row.

    Raises:
        ValueError: a column is missing, or a row is too short.
    """
    reader = csv.DictReader(read_text(path).splitlines())
    if missing := set(columns) - set(reader.fieldnames or ()):
        raise ValueError(
            f"{path} has no column {', '.join(sorted(missing))}, only {', '.join(reader.fieldnames or ())}"
        )
    rows = []
    for row in reader:
        if any(row[column] is None for column in columns):
            raise ValueError(f"{path}, line {reader.line_num}: a row without {', '.join(columns)}")
        rows.append(tuple(row[column] for column in columns))
    return rows


def read_tab_separated(path: Path, fields: int) -> list[list[str]]:
    """
    Rows of a tab-separated file without quoting; empty lines are passed over.

    Raises:
        ValueError: a row has another number of fields.
    """
    rows = []
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line.strip():
            row = line.rstrip("\r").split("\t")
            if len(row) != fields:
                raise ValueError(f"{path}, line {number}: {len(row)} fields between tabs instead of {fields}")
            rows.append(row)
    return rows
