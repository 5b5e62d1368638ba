"""What happened in a run, step by step and epoch by epoch: a JSON-lines file, read again for the curves."""

import json
from pathlib import Path
from typing import Any


class History:
    """
    Records of kind "step" (losses) and "epoch" (validation), appended to a file as they come.

    Args:
        path: the file; an older one is replaced.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: list[dict[str, Any]] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")

    def add(self, kind: str, **values: Any) -> None:
        """One more line; it is on the disk when this returns."""
        record = {"kind": kind, **values}
        self.records.append(record)
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        """The records of one kind, in order."""
        return [record for record in self.records if record["kind"] == kind]
