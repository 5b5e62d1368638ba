"""Search an index of videos by text, or by an example video.

hcmi search my_index "a dog jumps into a pool"
hcmi search my_index --video example.mp4 --top 3 --save-clips found/
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .numbers import positive

if TYPE_CHECKING:
    from hcmi.retrieval.index.search import Hit, SearchResult


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("index", help="folder of the index; `hcmi index` makes one")
    parser.add_argument("query", nargs="?", help="what the video shows, in quotes")
    parser.add_argument("--video", metavar="FILE", help="instead of a text, a video that those wanted are like")
    parser.add_argument("--top", type=positive, default=10, metavar="K", help="videos to show (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the hits as JSON")
    parser.add_argument("--open", action="store_true", help="play the best hit, from its moment on where mpv or vlc is")
    parser.add_argument("--save-clips", type=Path, metavar="FOLDER", help="write the hits' moments as files into it")
    parser.add_argument(
        "--nearest", type=positive, metavar="N", help="windows that the first stage leaves (default: 1000)"
    )
    parser.add_argument("--rescored", type=positive, metavar="N", help="windows that are scored exactly (default: 100)")
    parser.add_argument("--exact", action="store_true", help="score every window of the index exactly")
    parser.add_argument("--model", help="the index's model under another name (default: as it was made)")
    parser.add_argument("--device", help='such as "cpu" or "cuda:1" (default: an accelerator if there is one)')


def run(arguments: argparse.Namespace) -> int:
    """
    Searches, prints the hits, and does with them what was asked for.

    Raises:
        ValueError: neither query nor video, or both, or an index that cannot be used.
        VideoReadError: the example, or a video whose moment is to be saved, cannot be read.
    """
    if (arguments.query is None) == (arguments.video is None):
        raise ValueError(
            'Search for a text, hcmi search INDEX "a dog", or for a video, hcmi search INDEX --video FILE.'
        )
    if arguments.exact and (arguments.nearest or arguments.rescored):
        raise ValueError("--exact scores every window: it does not go with --nearest and --rescored.")
    # Loaded only now, because it takes seconds, which `--help` and a wrong argument need not wait for.
    from hcmi.retrieval import VideoIndex
    from hcmi.retrieval.index.search import SearchDepth

    depth = None
    if arguments.nearest or arguments.rescored:
        nearest = arguments.nearest or max(SearchDepth.nearest, arguments.rescored)
        depth = SearchDepth(nearest, arguments.rescored or min(SearchDepth.rescored, nearest))
    with VideoIndex.open(arguments.index, model=arguments.model, device=arguments.device) as index:
        result = index.search(
            arguments.query, video=arguments.video, top_k=arguments.top, depth=depth, exact=arguments.exact
        )
    saved = _save(result.hits, arguments.save_clips) if arguments.save_clips else []
    query = arguments.query or arguments.video
    print(
        json.dumps(report(query, result, saved), indent=2, ensure_ascii=False)
        if arguments.json
        else table(query, result)
    )
    if not arguments.json:
        for clip in saved:
            print(f"saved: {clip}")
    if arguments.open and result.hits:
        play(result.hits[0])
    return 0


def table(query: str, result: "SearchResult") -> str:
    """The hits as lines of rank, score, moment and file, and how deep the search went."""
    from hcmi.retrieval.pictures.drawing import format_time

    lines = [f'"{query}"', f"  rank   score  {'moment':17}  video"]
    for rank, hit in enumerate(result.hits, 1):
        moment = f"{format_time(hit.start)} - {format_time(hit.end)}"
        more = f"  (and {len(hit.others)} more of its windows)" if hit.others else ""
        lines.append(f"  {rank:4d}  {hit.score:6.3f}  {moment:17}  {hit.video}{more}")
    how = "all" if result.exact else f"{result.rescored} of {result.windows}"
    took = sum(result.seconds.values()) * 1000
    lines.append(f"  {result.windows} windows, {how} scored exactly, {took:.0f} ms without the encoder")
    return "\n".join(lines)


def report(query: str, result: "SearchResult", saved: Sequence[str]) -> dict[str, Any]:
    """The same for programs."""
    hits = [hit.to_dict() for hit in result.hits]
    depth = {name: getattr(result, name) for name in ("windows", "nearest", "rescored", "exact", "seconds")}
    return {"query": query, "hits": hits, **depth, **({"saved": list(saved)} if saved else {})}


def _save(hits: Sequence["Hit"], folder: Path) -> list[str]:
    """The hits' moments as files, `01_name.mp4` and so on."""
    from hcmi.retrieval.clips.saving import CONTAINERS, save_clip

    folder.mkdir(parents=True, exist_ok=True)
    saved = []
    for rank, hit in enumerate(hits, 1):
        name = re.sub(r"[^\w.-]+", "_", Path(hit.video).stem)
        suffix = Path(hit.video).suffix.lower()
        out = folder / f"{rank:02d}_{name}_{hit.start:.0f}s{suffix if suffix in CONTAINERS else '.mp4'}"
        saved.append(str(save_clip(hit.video, hit.start, hit.end, out).path))
    return saved


def play(hit: "Hit") -> None:
    """Starts a player at the moment, or what the system opens such files with, at the beginning."""
    players = {"mpv": f"--start={hit.start:.2f}", "vlc": f"--start-time={hit.start:.2f}"}
    for player, option in players.items():
        if found := shutil.which(player):
            subprocess.Popen([found, option, hit.video], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            return
    webbrowser.open(Path(os.path.abspath(hit.video)).as_uri())
