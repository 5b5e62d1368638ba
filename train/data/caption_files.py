"""Reading people's own lists of videos and captions: CSV, TSV, JSON and JSON lines, columns by their usual names."""

import ast
import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .annotation_files import read_text

SUFFIXES = (".csv", ".tsv", ".json", ".jsonl")

# The first that is there is taken: they name the same video, those in front as a file.
_FILES = ("file_name", "filename", "file", "video_file", "video_path", "path", "video", "video_name", "video_id")
_ID = "video_id"
_CAPTIONS = ("caption", "captions", "text", "texts", "sentence", "sentences", "description", "descriptions")
_SPLIT, _START, _END = "split", "start", "end"
_SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "validate", "valid", "val", "dev", "development"),
    "test": ("test", "testing"),
}
_SIGNS = {",": "a comma", ";": "a semicolon", "\t": "a tab"}
_WANTED = 'an entry is to look like {"video": "a.mp4", "caption": "a dog runs"}'
_SPLITS = {name: split for split, names in _SPLIT_NAMES.items() for name in names}


@dataclass(frozen=True)
class Entry:
    """
    What one row says.

    Attributes:
        where: file and row, for errors.
        file: of the video, as it stands there.
        video_id: None where no column but the file's tells it.
        captions: without blank ones.
        start, end: seconds of the file; None: its beginning and end.
        split: "train", "validation" or "test"; None where there is no such column.
    """

    where: str
    file: str
    video_id: str | None
    captions: tuple[str, ...]
    start: float | None = None
    end: float | None = None
    split: str | None = None


def split_named(name: str) -> str | None:
    """The split that a word such as "val" stands for; None for any other word."""
    return _SPLITS.get(name.strip().lower())


def read_entries(path: Path) -> list[Entry]:
    """
    The rows of a file. Blanks around values and upper case in the names of columns do not matter.

    - .csv, .tsv: the first line names the columns; they are separated by commas, semicolons or tabs, whichever the
      first line has most of. A value of a column of several captions may be a list in JSON or Python.
    - .json: a list of objects, or an object from each file to its caption, its list of captions or an object.
    - .jsonl: an object a line.

    Raises:
        ValueError: the file cannot be read, or lacks a column, or a row has something that does not belong there.
    """
    kind = path.suffix.lower()
    if kind not in SUFFIXES:
        raise ValueError(f"{path} is none of {', '.join(SUFFIXES)}: write the captions as one of them")
    rows = list({".json": _read_json, ".jsonl": _read_json_lines}.get(kind, _read_table)(path))
    if not rows:
        raise ValueError(f"{path} has no rows: write one for each caption, with the columns video and caption")
    names = list(dict.fromkeys(name for _, row in rows for name in row))
    columns = _columns(path, names)
    return [_entry(where, row, columns) for where, row in rows]


def _read_table(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    text = read_text(path)
    header = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=header.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = 1
    try:
        names = [name.strip().lower() for name in reader.fieldnames or ()]
        if repeated := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
            raise ValueError(f"{path} has several columns called {', '.join(map(repr, repeated))}: rename them")
        for row in reader:
            line = reader.line_num
            where = f"{path}, line {line}"
            # Key and value None: what csv makes of too many and of too few fields.
            if None in row or None in row.values():
                raise ValueError(
                    f"{where}: not as many values as the first line has columns ({len(reader.fieldnames or ())}); "
                    f"a caption with {_SIGNS[delimiter]} in it needs quotes around it"
                )
            yield where, _lower(row)
    except csv.Error as error:
        raise ValueError(f"{path}, in the row after line {line}: {error}; quotes in quotes are doubled") from error


def _read_json(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    contents = _parsed(str(path), read_text(path))
    if isinstance(contents, list):
        rows = {f"{path}, entry {number}": row for number, row in enumerate(contents)}
    elif isinstance(contents, dict):
        rows = {
            f"{path}, {file}": {"file": file, **(said if isinstance(said, dict) else {"captions": said})}
            for file, said in contents.items()
        }
    else:
        raise ValueError(f"{path} holds neither a list nor an object: {_WANTED}")
    for where, row in rows.items():
        yield where, _lower(_object(where, row))


def _read_json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line.strip():
            where = f"{path}, line {number}"
            yield where, _lower(_object(where, _parsed(where, line)))


def _parsed(where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is no JSON: {error}") from error


def _object(where: str, row: Any) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise ValueError(f"{where} is no object: {_WANTED}")
    return row


def _lower(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name.strip().lower(): value for name, value in row.items()}


def _columns(path: Path, names: Sequence[str]) -> dict[str, str]:
    """What each column is for -> its name."""
    found = f"{path} has the columns {', '.join(map(repr, names))}"
    file = next((name for name in _FILES if name in names), None)
    captions = [name for name in _CAPTIONS if name in names]
    if file is None or not captions:
        lacking = "the video's file" if file is None else "the caption"
        raise ValueError(
            f"{found}, and none for {lacking}: one has to be called {', '.join(_FILES)} (the file) and one "
            f"{', '.join(_CAPTIONS)}"
        )
    if len(captions) > 1:
        raise ValueError(f"{found}: {' and '.join(captions)} may both be the caption; rename or remove one")
    columns = {"file": file, "captions": captions[0]}
    return columns | {name: name for name in (_ID, _SPLIT, _START, _END) if name in names and name != file}


def _entry(where: str, row: Mapping[str, Any], columns: Mapping[str, str]) -> Entry:
    file = _text(where, row, columns["file"])
    start, end = (_seconds(where, row, name) if name in columns else None for name in (_START, _END))
    if end is not None and end <= (start or 0.0):
        raise ValueError(f"{where}: the video would end ({end:g} s) before it starts ({start or 0:g} s)")
    return Entry(
        where,
        file,
        _text(where, row, _ID) if _ID in columns else None,
        _captions(where, row.get(columns["captions"]), columns["captions"]),
        start,
        end,
        _split(where, row) if _SPLIT in columns else None,
    )


def _text(where: str, row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if isinstance(value, int) and not isinstance(value, bool):  # an id that JSON holds as a number
        return str(value)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{where}: {name} is {value!r}; it has to name the video")
    return value.strip()


def _captions(where: str, value: Any, name: str) -> tuple[str, ...]:
    if isinstance(value, str) and name.endswith("s") and value.strip().startswith("["):
        value = _listed(where, value.strip(), name)
    values = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(text, str) for text in values):
        raise ValueError(f"{where}: {name} is {str(value)[:60]!r}; it has to be a text or a list of texts")
    return tuple(text.strip() for text in values if text.strip())


def _listed(where: str, text: str, name: str) -> Any:
    """A list written into one value of a table."""
    for parse in (json.loads, ast.literal_eval):  # both build values and run nothing
        try:
            return parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            pass
    raise ValueError(f'{where}: {name} begins as a list and is none: {text[:60]!r}; write ["one", "another"]')


def _seconds(where: str, row: Mapping[str, Any], name: str) -> float | None:
    value = row.get(name)
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        seconds = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ValueError(f"{where}: {name} is {value!r}; it has to be a number of seconds from the file's beginning")
    return seconds


def _split(where: str, row: Mapping[str, Any]) -> str:
    value = row.get(_SPLIT)
    split = split_named(value) if isinstance(value, str) else None
    if split is None:
        known = "; ".join(", ".join(names) for names in _SPLIT_NAMES.values())
        raise ValueError(f"{where}: {_SPLIT} is {value!r}; it has to be one of {known}")
    return split
