"""What happened in a run, step by step and epoch by epoch: a JSON-lines file, read again for the curves."""

import json
import os
from pathlib import Path
from typing import Any


class History:
    """
    Records of kind "step" (losses) and "epoch" (validation), appended to a file as they come.

    Args:
        path: the file.
        length: bytes of it that are kept, as `secure` told them; what follows is cut off. 0: a new file.

    Raises:
        ValueError: the file does not hold that much.
    """

    def __init__(self, path: Path, length: int = 0) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        if path.stat().st_size < length:
            raise ValueError(
                f"{path} has {path.stat().st_size} bytes, the run that goes on had written {length}: put the whole "
                "file back, or begin again in another output folder"
            )
        os.truncate(path, length)
        self.records: list[dict[str, Any]] = [json.loads(line) for line in path.read_text().splitlines()]

    def add(self, kind: str, **values: Any) -> None:
        """One more line; it is in the file when this returns."""
        record = {"kind": kind, **values}
        self.records.append(record)
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")

    def secure(self) -> int:
        """Puts all records on the disk, so that a machine that fails keeps them; the length of the file in bytes."""
        with self.path.open("a") as file:
            os.fsync(file.fileno())
            return file.tell()

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        """The records of one kind, in order."""
        return [record for record in self.records if record["kind"] == kind]
