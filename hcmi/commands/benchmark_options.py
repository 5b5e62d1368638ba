"""Where a benchmark lies and which of its protocols is meant: the options that every verb that reads one shares."""

import argparse
from typing import Any

_KEYWORDS = ("annotations", "videos", "protocol", "allow_missing")


def add_benchmark_options(parser: argparse.ArgumentParser) -> None:
    """Adds `--annotations`, `--videos`, `--protocol` and `--allow-missing`, in a group of their own."""
    group = parser.add_argument_group("where the benchmark lies")
    group.add_argument(
        "--annotations",
        metavar="PLACE",
        help="folder of the benchmark's annotation files, or hf://OWNER/NAME for a copy on the Hub (shape_stories: "
        "its own folder, written when it is not there; default: in the cache; folder: the captions' file)",
    )
    group.add_argument(
        "--videos",
        metavar="FOLDER",
        help="folder of the video files, in any folders below it, of any extension (default: the annotations' folder)",
    )
    group.add_argument(
        "--protocol",
        metavar="NAME",
        help="which of the benchmark's protocols, such as 1k-A-7k of msrvtt or val_2 of activitynet (default: the "
        "benchmark's usual one)",
    )
    group.add_argument(
        "--allow-missing",
        action="store_true",
        help="go on without videos that are missing and with other counts than the protocol's; the result says so "
        "(default: refuse, and name them)",
    )


def benchmark_place(arguments: argparse.Namespace) -> dict[str, Any]:
    """The keywords of `load_benchmark` that `add_benchmark_options` reads, by the same names."""
    return {keyword: getattr(arguments, keyword) for keyword in _KEYWORDS}
