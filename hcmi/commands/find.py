"""Rank videos for each query, and say which seconds of them answer it.

hcmi find "a dog catches a ball" "two people dance" --model my_model --videos clips/ --contact-sheet hits.png
"""

import argparse
import json
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("queries", nargs="*", metavar="query", help="what the video shows, in quotes; one or more")
    parser.add_argument("--model", required=True, help="a model's folder or its name on the Hub")
    parser.add_argument(
        "--videos",
        required=True,
        nargs="+",
        metavar="PATH",
        help="files, URLs, or folders, which are searched for videos with all their sub-folders",
    )
    parser.add_argument("--top", type=int, default=5, metavar="K", help="hits of each query (default: %(default)s)")
    parser.add_argument("--contact-sheet", type=Path, metavar="PNG", help="draw the hits' frames into this picture")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the hits to this file")
    parser.add_argument(
        "--batch-size", type=int, default=8, metavar="N", help="videos encoded at a time (default: %(default)s)"
    )
    parser.add_argument("--device", help='such as "cpu" or "cuda:1" (default: an accelerator if there is one)')
    parser.add_argument(
        "--num-workers", type=int, default=0, metavar="N", help="processes that read videos (default: %(default)s)"
    )


def run(arguments: argparse.Namespace) -> int:
    """
    Searches, prints a table for each query and writes the files that were asked for. Videos that cannot be read are
    left out with a warning.

    Raises:
        ValueError: no query, no video, or an impossible number.
        VideoReadError: none of the videos can be read.
    """
    if not arguments.queries:
        raise ValueError('There is no query. Put it before --videos, or after "--": --videos PATH -- "a query".')
    for name in ("top", "batch_size"):
        if getattr(arguments, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} has to be at least 1, got {getattr(arguments, name)}.")
    from hcmi.retrieval.indexing.video_files import find_videos

    videos = find_videos(arguments.videos)
    pipe = _pipeline(arguments)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        encoded = pipe.encode_videos(videos, on_error="skip")
    for warning in caught:
        print(f"hcmi find: warning: {warning.message}", file=sys.stderr)
    rankings = pipe(arguments.queries, videos=encoded, top_k=arguments.top)
    for query, hits in zip(arguments.queries, rankings, strict=True):
        print(table(query, hits), end="\n\n")
    if arguments.json:
        results = [{"query": query, "hits": hits} for query, hits in zip(arguments.queries, rankings, strict=True)]
        left_out = sorted(set(videos) - set(encoded.names))
        report = {"model": arguments.model, "videos": len(encoded), "left_out": left_out, "results": results}
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"hits: {arguments.json}")
    if arguments.contact_sheet:
        from hcmi.retrieval.pictures.contact_sheet import draw_contact_sheet

        arguments.contact_sheet.parent.mkdir(parents=True, exist_ok=True)
        draw_contact_sheet(arguments.queries, rankings).save(arguments.contact_sheet, format="PNG")
        print(f"contact sheet: {arguments.contact_sheet}")
    return 0


def _pipeline(arguments: argparse.Namespace) -> Any:
    folder = arguments.model.startswith((".", "/", "~")) or arguments.model.count("/") > 1
    if folder and not os.path.isdir(arguments.model):
        raise ValueError(f"There is no model folder {arguments.model}.")
    # Loaded only now, because it takes seconds, which `--help` and a wrong argument need not wait for.
    from transformers import pipeline

    try:
        return pipeline(  # type: ignore[call-overload]
            "text-video-retrieval",
            model=arguments.model,
            device=arguments.device,
            batch_size=arguments.batch_size,
            num_workers=arguments.num_workers,
        )
    except (RuntimeError, AssertionError) as error:  # torch's, for a device that it does not know or have
        if arguments.device is None:
            raise
        raise ValueError(f"The model cannot be put on --device {arguments.device}: {error}") from error


def table(query: str, hits: Sequence[dict[str, Any]]) -> str:
    """The hits of one query as lines of rank, score, time span and file."""
    from hcmi.retrieval.pictures.contact_sheet import format_time

    spans = [f"{format_time(hit['start'])} - {format_time(hit['end'])}" for hit in hits]
    width = max(len(span) for span in spans)
    lines = [f'"{query}"', f"  rank   score  {'time':{width}}  video"]
    for rank, (hit, span) in enumerate(zip(hits, spans, strict=True), 1):
        lines.append(f"  {rank:4d}  {hit['score']:6.3f}  {span:{width}}  {hit['video']}")
    return "\n".join(lines)
