"""Tell what an index of videos is, and what it holds.

hcmi info my_index
hcmi info my_index --files --verify
"""

import argparse
import json
from dataclasses import asdict
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("index", help="folder of the index")
    parser.add_argument("--files", action="store_true", help="list its videos, and what could not be read")
    parser.add_argument(
        "--verify", action="store_true", help="read everything, and tell whether it is as it was written"
    )
    parser.add_argument("--json", action="store_true", help="print it as JSON")


def run(arguments: argparse.Namespace) -> int:
    """
    Prints.

    Raises:
        VideoIndexError: no index, or a damaged one.
    """
    from hcmi.retrieval.index.stored_index import StoredIndex

    with StoredIndex(arguments.index) as index:
        info = index.info
        videos = list(index) if arguments.files else []
        if arguments.verify:
            index.verify(progress=True)
    if arguments.json:
        files: dict[str, Any] = {"files": [asdict(video) for video in videos]} if arguments.files else {}
        print(json.dumps(asdict(info) | files | ({"verified": True} if arguments.verify else {}), indent=2))
        return 0
    shape = info.shape
    print(f"model:      {info.model}")
    print(f"videos:     {info.videos:,} in {info.windows:,} windows")
    print(f"unfinished: {info.partial:,} (hcmi index goes on with them)" if info.partial else "unfinished: none")
    print(f"unreadable: {info.unreadable:,}")
    print(
        f"kept:       {shape.frames} frames and {shape.clips} clips of width {shape.width} a window, {shape.precision}"
    )
    if info.server:
        print(f"server:     {info.server.url}, collection {info.server.collection}")
    each = f", {info.bytes / info.windows / 1000:.1f} KB a window" if info.windows and not info.server else ""
    print(f"on disk:    {info.bytes / 1e6:,.1f} MB{each}")
    if info.dead:
        print(f"deleted:    {info.dead:,} windows, whose space `hcmi compact` gives back")
    if arguments.verify:
        print("verified:   every window is as it was written")
    for video in videos:
        length = "" if video.file.duration is None else f"{video.file.duration:.1f} s, {video.windows} windows"
        print(f"  {video.state:10}  {video.path}  {video.reason or length}")
    return 0
