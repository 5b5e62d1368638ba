"""Give back the space of what was removed from an index of videos.

hcmi compact my_index
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("index", help="folder of the index; it can be searched meanwhile")


def run(arguments: argparse.Namespace) -> int:
    """
    Compacts.

    Raises:
        VideoIndexError: no index, a damaged one, or one that another process is writing to.
        OSError: the disk has no room for the new files beside the old ones.
    """
    from hcmi.retrieval.index.stored_index import StoredIndex

    with StoredIndex(arguments.index, write=True) as index:
        before = index.info.bytes
        index.compact()
        after = index.info.bytes
    print(f"{before / 1e6:,.1f} MB before, {after / 1e6:,.1f} MB now")
    return 0
