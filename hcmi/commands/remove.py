"""Remove videos from an index; the files themselves stay.

hcmi remove my_index old.mp4 holidays/
"""

import argparse
import os
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("index", help="folder of the index")
    parser.add_argument("videos", nargs="+", metavar="PATH", help="video files, and folders with all that is in them")


def run(arguments: argparse.Namespace) -> int:
    """
    Removes, and returns 1 if the index knows nothing of a path.

    Raises:
        VideoIndexError: no index, a damaged one, or one that another process is writing to.
    """
    from hcmi.retrieval.index.stored_index import StoredIndex

    with StoredIndex(arguments.index, write=True) as index:
        known = [video.path for video in index]
        chosen, unknown = set(), []
        for path in map(os.path.abspath, arguments.videos):
            found = [name for name in known if name == path or name.startswith(path + os.sep)]
            chosen.update(found)
            unknown += [] if found else [path]
        index.delete(chosen)
    print(f"removed: {len(chosen):,} videos")
    for path in unknown:
        print(f"hcmi remove: the index knows nothing of {path}", file=sys.stderr)
    return 1 if unknown else 0
