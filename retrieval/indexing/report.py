"""What indexing a folder has come to."""

import json
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

NAME = "report.json"
"""Of the file in an index's folder that tells its last run."""


class Update(NamedTuple):
    """
    Args:
        old: the path under which a file is in the index.
        new: its path; the same one where only its time is another.
        size, mtime_ns, digest: what it is now.
    """

    old: str
    new: str
    size: int
    mtime_ns: int
    digest: str


@dataclass
class IndexReport:
    """
    What has become of the files of a run. Two reports of different files add up to one.

    Args:
        finished: whether the run came to its end.
        videos: files that were looked at.
        unchanged: of these were known, with the same size and time.
        new, changed, continued: were encoded: unknown before; known with another size or time; left unfinished by an
            earlier run.
        updates: files whose content is known under another time, or under a name that is no more (with `hash`).
        copies: file -> another one of the same content, which is the one in the index (with `hash`).
        unreadable: file -> why it cannot be read.
        not_tried: how many of the unreadable ones are known to be, and unchanged since.
        damaged: file -> what is wrong with it, though it could be read.
        removed: files of the index that are not in their folder any more.
        deleted: whether these were deleted from the index.
        windows: encoded in this run.
        seconds: that it took.
    """

    finished: bool = False
    videos: int = 0
    unchanged: int = 0
    new: int = 0
    changed: int = 0
    continued: int = 0
    updates: list[Update] = field(default_factory=list)
    copies: dict[str, str] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    not_tried: int = 0
    damaged: dict[str, str] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    deleted: bool = False
    windows: int = 0
    seconds: float = 0.0

    @property
    def encoded(self) -> int:
        """Videos that were encoded to their end."""
        return self.new + self.changed + self.continued

    def __add__(self, other: "IndexReport") -> "IndexReport":
        def joined(name: str) -> Any:
            own, its = getattr(self, name), getattr(other, name)
            if isinstance(own, bool):
                return own and its
            return own | its if isinstance(own, dict) else own + its

        total = IndexReport(**{one.name: joined(one.name) for one in fields(self)})
        total.seconds = max(self.seconds, other.seconds)
        return total

    def save(self, folder: Path) -> None:
        """Writes the report into an index's folder; there is a whole one at any time."""
        unfinished = folder / f".{NAME}.new"
        unfinished.write_text(json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(unfinished, folder / NAME)

    @classmethod
    def load(cls, folder: Path) -> list["IndexReport"]:
        """What `save` has written; nothing if it has not."""
        if not (folder / NAME).exists():
            return []
        report = cls(**json.loads((folder / NAME).read_text("utf-8")))
        report.updates = [Update(*update) for update in report.updates]
        return [report]
