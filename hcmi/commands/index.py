"""Make an index of the videos in some folders, or add to one; only what is new or has changed is read.

  hcmi index my_videos/ --model my_model --index my_index
  hcmi search my_index "a dog jumps into a pool"

The same command goes on after Ctrl-C, exactly where it stopped. Videos that cannot be read are listed at the end and in
INDEX/report.json, and stop nothing. Several processes share the work, on one machine or on many that see the same
folders: torchrun --nproc_per_node N -m hcmi.cli index …, or accelerate launch --multi_gpu -m hcmi.cli index …
"""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .numbers import positive

if TYPE_CHECKING:
    from hcmi.retrieval import VideoIndex
    from hcmi.retrieval.indexing.report import IndexReport

_PATIENCE = timedelta(days=30)  # that a process waits for another which has more to do


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `hcmi index`."""
    parser.add_argument(
        "videos", nargs="+", metavar="PATH", help="folders, which are searched with all their sub-folders, or files"
    )
    parser.add_argument("--index", required=True, type=Path, metavar="INDEX", help="the index's folder")
    parser.add_argument("--model", help="a model's folder or its name on the Hub; an index that is there knows its own")
    parser.add_argument(
        "--windows",
        choices=("shots", "fixed", "whole"),
        default="shots",
        help="how videos of more than a minute are cut: where shots change, in equal parts, or not (default: shots)",
    )
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="the longest window of those (default: %(default)g)"
    )
    parser.add_argument(
        "--precision",
        choices=("int8", "float16", "float32"),
        help="of a new index: about 9.5, 18 or 36 KB a window with 12 frames of width 512 (default: int8)",
    )
    parser.add_argument(
        "--url",
        help="of a new index: a Qdrant server or cluster that keeps the embeddings, such as http://localhost:6333; its "
        "key, if it needs one, is taken from the environment variable QDRANT_API_KEY",
    )
    parser.add_argument(
        "--collection", metavar="NAME", help="of a new index: its collection on that server (default: INDEX's name)"
    )
    parser.add_argument(
        "--batch-size", type=positive, default=8, metavar="N", help="windows encoded at a time (default: %(default)s)"
    )
    parser.add_argument("--num-workers", type=int, metavar="N", help="processes that read videos (default: all cores)")
    parser.add_argument("--device", help='such as "cpu" or "cuda:1" (default: an accelerator if there is one)')
    parser.add_argument(
        "--hash", action="store_true", help="tell files by their content, too: those renamed are not encoded again"
    )
    parser.add_argument(
        "--remove-missing", action="store_true", help="delete what is not in the folders any more from the index"
    )
    parser.add_argument("--retry", action="store_true", help="read again what could not be read before")
    parser.add_argument(
        "--reader-timeout",
        type=float,
        default=120.0,
        metavar="SECONDS",
        help="that a video may take beyond its own length before it is given up (default: %(default)g)",
    )


def run(arguments: argparse.Namespace) -> int:
    """
    Runs `hcmi index`.

    Returns:
        0; 1 if none of the files can be read.

    Raises:
        ValueError: an impossible argument, or an index that cannot be used.
        OSError: there is no such model, or the disk is full.
    """
    import torch
    from accelerate import PartialState

    from hcmi.retrieval.indexing.shared import index_in_processes
    from hcmi.retrieval.indexing.windows import WindowRule

    # Without an accelerator processes find each other only if they are told that they compute on the CPU.
    cpu = arguments.device == "cpu" or not torch.accelerator.is_available()
    state = PartialState(cpu=cpu, timeout=_PATIENCE)
    device = arguments.device or state.device
    try:
        report = index_in_processes(
            state,
            arguments.index,
            arguments.videos,
            partial(_open_or_create, arguments, device),
            partial(_create_part, arguments, device),
            rule=WindowRule(arguments.windows, arguments.seconds, least=min(WindowRule.least, arguments.seconds)),
            batch_size=arguments.batch_size,
            num_workers=arguments.num_workers,
            hash=arguments.hash,
            retry=arguments.retry,
            remove_missing=arguments.remove_missing,
            progress=state.is_main_process,
            reader_timeout=arguments.reader_timeout,
        )
    except KeyboardInterrupt:
        if state.is_main_process:
            print(
                "hcmi index: interrupted; what is encoded is in the index. The same command goes on from here.",
                file=sys.stderr,
            )
        raise
    if report is None:
        return 0
    print("\n".join(summary(report, arguments.index)))
    return int(len(report.unreadable) == report.videos)


def _open_or_create(arguments: argparse.Namespace, device: Any) -> "VideoIndex":
    from hcmi.retrieval import VideoIndex
    from hcmi.retrieval.index.catalog import Catalog

    with _device_explained(arguments.device):
        if not Catalog.location(arguments.index).exists():
            if arguments.model is None:
                raise ValueError(
                    f"There is no index in {arguments.index} yet: name the model to make it with, --model M."
                )
            return VideoIndex.create(
                arguments.index,
                arguments.model,
                precision=arguments.precision or "int8",
                url=arguments.url,
                collection=arguments.collection,
                device=device,
            )
        index = VideoIndex.open(arguments.index, model=arguments.model, device=device, write=True)
    server = index.info.server
    kept = {
        "precision": index.shape.precision,
        "url": server.url if server else "none",
        "collection": server.collection if server else "none",
    }
    for option, value in kept.items():
        asked = getattr(arguments, option)
        if asked not in (None, value):
            index.close()
            raise ValueError(
                f"The index {arguments.index} was made with {option} {value}: leave out --{option} {asked}, or make "
                "another index."
            )
    return index


def _create_part(arguments: argparse.Namespace, device: Any, folder: Path) -> "VideoIndex":
    from hcmi.retrieval import VideoIndex
    from hcmi.retrieval.index.stored_index import StoredIndex

    with StoredIndex(arguments.index) as whole:
        model, precision = arguments.model or whole.info.model, whole.shape.precision
    return VideoIndex.create(folder, model, precision=precision, device=device)


@contextmanager
def _device_explained(device: str | None) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, AssertionError) as error:  # torch's, for a device that it does not know or have
        if device is None:
            raise
        raise ValueError(f"The model cannot be put on --device {device}: {error}") from error


def summary(report: "IndexReport", index: Path) -> Iterator[str]:
    """What became of the files, in lines."""
    kinds = {"new": report.new, "changed": report.changed, "begun earlier": report.continued}
    told = ", ".join(f"{count} {kind}" for kind, count in kinds.items() if count)
    yield (
        f"{index}: {_count(report.encoded, 'video')} indexed{f' ({told})' if told else ''}, "
        f"{_count(report.windows, 'window')} in {report.seconds:.0f} s; {report.unchanged} unchanged"
    )
    renamed = [f"{update.new}: was {update.old}" for update in report.updates if update.old != update.new]
    yield from _listed("with another name", renamed)
    touched = [update.new for update in report.updates if update.old == update.new]
    yield from _listed("with another time and the same content", touched)
    yield from _listed("left out as copies", [f"{path}: is {other}" for path, other in report.copies.items()])
    gone = "gone from the folders, and now from the index" if report.deleted else "gone from the folders"
    yield from _listed(gone, report.removed)
    if report.removed and not report.deleted:
        yield "  --remove-missing deletes them from the index"
    yield from _listed("damaged, and indexed as far as they can be read", _pairs(report.damaged))
    yield from _listed("that cannot be read", _pairs(report.unreadable))
    if report.not_tried:
        yield f"  {report.not_tried} of them were known, and not tried again; --retry does"


def _listed(what: str, lines: list[str]) -> Iterator[str]:
    if lines:
        yield f"{_count(len(lines), 'video')} {what}:"
        yield from (f"  {line}" for line in lines)


def _pairs(reasons: dict[str, str]) -> list[str]:
    return [f"{path}: {reason}" for path, reason in reasons.items()]


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number != 1 else ''}"
