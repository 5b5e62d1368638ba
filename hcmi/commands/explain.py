"""Tell and draw why a video of an index answers a query: which words found which frames, which phrases which clips.

hcmi explain my_index 1 "a dog jumps into a pool"
hcmi explain my_index videos/pool.mp4 "a dog jumps into a pool" --out why.png
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hcmi.retrieval import VideoIndex
    from hcmi.retrieval.pictures.explain import Explanation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("index", help="folder of the index; `hcmi index` makes one")
    parser.add_argument("hit", help="the rank of the video among the query's hits, 1 for the first; or its path")
    parser.add_argument("query", help="what the video shows, in quotes")
    parser.add_argument(
        "--out", type=Path, default=Path("explanation.png"), metavar="PNG", help="the picture (default: %(default)s)"
    )
    parser.add_argument("--model", help="the index's model under another name (default: as it was made)")
    parser.add_argument("--device", help='such as "cpu" or "cuda:1" (default: an accelerator if there is one)')


def run(arguments: argparse.Namespace) -> int:
    """
    Prints what each word has found, and draws the picture.

    Raises:
        ValueError: no such hit, an empty query, or an index that cannot be used.
        VideoReadError: the video, whose frames are drawn, is not there any more or cannot be read.
    """
    # Loaded only now, because it takes seconds, which `--help` and a wrong argument need not wait for.
    from hcmi.retrieval import VideoIndex
    from hcmi.retrieval.pictures.explain_picture import picture_of

    with VideoIndex.open(arguments.index, model=arguments.model, device=arguments.device) as index:
        explanation = _explain(index, arguments.hit, arguments.query)
    print(table(explanation))
    image = picture_of(explanation)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    image.save(arguments.out, format="PNG")
    print(f"picture: {arguments.out}")
    return 0


def _explain(index: "VideoIndex", hit: str, query: str) -> "Explanation":
    from hcmi.retrieval.pictures.explain import explain_hit, explain_video

    if not hit.isdecimal() or hit in index:
        return explain_video(index, hit, query)
    rank = int(hit)
    hits = index.search(query, top_k=max(rank, 1)).hits
    if not 1 <= rank <= len(hits):
        raise ValueError(f'There is no hit {rank} of "{query}": the ranks are 1 to {len(hits)}.')
    return explain_hit(index, hits[rank - 1], query)


def table(explanation: "Explanation") -> str:
    """The similarities, what each word has found, and which phrases found which clips, as lines."""
    from hcmi.retrieval.pictures.drawing import format_time
    from hcmi.retrieval.pictures.explain_picture import LEVEL_NAMES

    times = [format_time(time) for time in explanation.times]
    start, end = map(format_time, explanation.moment)
    levels = ", ".join(f"{name} {explanation.level_scores[level]:.3f}" for level, name in LEVEL_NAMES.items())
    width = max(len(word.label) for word in explanation.words)
    lines = [
        f'"{explanation.query}"',
        f"  {explanation.video}, moment {start} - {end}",
        f"  similarity {explanation.score:.3f}: {levels}",
        "",
        f"  {'word':{width}}  finds frame at  cosine    adds",
    ]
    found, shares = explanation.word_frames.tolist(), explanation.word_shares.tolist()
    for word, frame, cosines, share in zip(explanation.words, found, explanation.cosines.tolist(), shares, strict=True):
        lines.append(f"  {word.label:{width}}  {times[frame]:>14}  {cosines[frame]:6.3f}  {share:z6.3f}")
    lines += ["", "  cosine    adds  phrase and clip"]
    for link in explanation.links:
        words = " ".join(explanation.words[i].label for i in explanation.main_words(link.phrase))
        frames = ", ".join(times[frame] for frame in explanation.main_frames(link.clip))
        lines.append(f'  {link.cosine:6.3f}  {link.share:z6.3f}  "{words}" and the frames at {frames}')
    return "\n".join(lines)
