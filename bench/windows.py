"""How long videos are best cut: into shots, into equal parts, or not at all.

    python bench/windows.py MODEL [--stories 20] [--seeds 0 1 2] [--device cpu] [--json FILE]

Films are put together from the videos of the built-in benchmark's test split, in random order, each with a number of
them one after another. Every caption of a video is searched for in an index of the films. "Film" is the share of
captions whose film comes first, "film and place" of those whose moment in it also has its middle in the video's own
stretch. The mean IoU is that of the moment with that stretch, 0 in a wrong film; that of the window likewise. Figures
are means over the seeds. In the last row the videos have not been put together: what can be reached at most.
"""

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import torch

from hcmi.processing import probe_video
from hcmi.retrieval import VideoIndex
from hcmi.retrieval.indexing.windows import WindowRule
from hcmi.train.data.benchmarks import load_benchmark
from hcmi.train.results import hardware, versions
from hcmi.train.span_metrics import temporal_iou

RULES = {
    "whole films": WindowRule("whole", whole_up_to=0),
    "equal parts of 10 s": WindowRule("fixed", 10.0, whole_up_to=0),
    "equal parts of 5 s": WindowRule("fixed", 5.0, whole_up_to=0),
    "shots of 2 to 10 s": WindowRule("shots", 10.0, 2.0, whole_up_to=0),
    "shots of 1 to 10 s": WindowRule("shots", 10.0, 1.0, whole_up_to=0),
}
_MILLISECOND = Fraction(1, 1000)
Span = tuple[float, float]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="of the built-in benchmark: a folder, or a name on the Hub")
    parser.add_argument("--stories", type=int, default=20, help="videos a film (default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of their order (default: 0 1 2)")
    parser.add_argument("--device", help="default: an accelerator if there is one")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    arguments = parser.parse_args()
    rows = list(load_benchmark("shape_stories", "test"))
    runs = [in_films(rows, arguments.model, arguments.stories, seed, arguments.device) for seed in arguments.seeds]
    results = [{"windows": name, **mean([run[name] for run in runs])} for name in RULES]
    spans = {row["video"]: (0.0, probe_video(row["video"]).end) for row in rows}
    asked = [(caption, row["video"], spans[row["video"]]) for row in rows for caption in row["captions"]]
    results.append({"windows": "the single videos", **measure(arguments.model, WindowRule(), asked, arguments.device)})
    print(table(results))
    if arguments.json:
        report = {"settings": {**vars(arguments), "json": None}, "rules": {n: asdict(r) for n, r in RULES.items()}}
        report |= {"rows": results, "versions": versions(), "hardware": hardware(arguments.device or "cpu")}
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


def in_films(
    rows: Sequence[dict[str, Any]], model: str, stories: int, seed: int, device: str | None
) -> dict[str, dict[str, float]]:
    """The figures of every rule, for films in one order."""
    with tempfile.TemporaryDirectory() as folder:
        asked = films(rows, Path(folder), stories, seed)
        return {name: measure(model, rule, asked, device) for name, rule in RULES.items()}


def mean(figures: Sequence[dict[str, float]]) -> dict[str, float]:
    """Of the figures of the same names."""
    return {name: sum(one[name] for one in figures) / len(figures) for name in figures[0]}


def films(rows: Sequence[dict[str, Any]], folder: Path, stories: int, seed: int) -> list[tuple[str, str, Span]]:
    """Writes the films; for every caption of `rows`, it and the film and stretch where its video is."""
    order = random.Random(seed).sample(range(len(rows)), len(rows))
    queries = []
    for number, first in enumerate(range(0, len(order), stories)):
        chosen = [rows[index] for index in order[first : first + stories]]
        film = folder / f"{number:03d}.mp4"
        for row, span in zip(chosen, stitch([row["video"] for row in chosen], film), strict=True):
            queries += [(caption, str(film), span) for caption in row["captions"]]
    return queries


def stitch(videos: Sequence[str], film: Path) -> list[Span]:
    """Writes one video of several of the same size, one after another; where each begins and ends, in seconds."""
    spans: list[Span] = []
    with av.open(str(film), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25, options={"preset": "veryfast", "crf": "18"})
        stream.width, stream.height = probe_video(videos[0]).size
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", _MILLISECOND
        for video in videos:
            info = probe_video(video)
            begin = spans[-1][1] if spans else 0.0
            with av.open(video) as source:
                for frame in source.decode(video=0):
                    frame.pts = round((begin + float(frame.pts * frame.time_base)) * 1000)
                    frame.time_base, frame.pict_type = _MILLISECOND, 0
                    container.mux(stream.encode(frame))
            spans.append((begin, round(begin + info.end, 3)))
        container.mux(stream.encode())
    return spans


def measure(
    model: str, rule: WindowRule, queries: Sequence[tuple[str, str, Span]], device: str | None
) -> dict[str, float]:
    """An index of the films, and what is found in it."""
    with tempfile.TemporaryDirectory() as place, VideoIndex.create(place, model, device=device) as index:
        report = index.add(sorted({film for _, film, _ in queries}), rule=rule)
        hits = [index.search(caption, top_k=1).hits[0] for caption, _, _ in queries]
        size = index.info.bytes
    right = torch.tensor([hit.video == film for hit, (_, film, _) in zip(hits, queries, strict=True)])
    stretches = torch.tensor([span for _, _, span in queries])
    moments = right * temporal_iou(torch.tensor([(hit.start, hit.end) for hit in hits]), stretches)
    windows = right * temporal_iou(torch.tensor([(hit.window.start, hit.window.end) for hit in hits]), stretches)
    middles = torch.tensor([(hit.start + hit.end) / 2 for hit in hits])
    inside = right & (stretches[:, 0] <= middles) & (middles < stretches[:, 1])
    return {
        "count": report.windows,
        "kilobytes": size / 1000,
        "film": 100 * right.double().mean().item(),
        "film_and_place": 100 * inside.double().mean().item(),
        "moment_iou": 100 * moments.mean().item(),
        "window_iou": 100 * windows.mean().item(),
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """For people, in Markdown."""
    columns = ["windows", "number", "index KB", "film R@1", "film and place R@1", "mean IoU", "of window"]
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for row in rows:
        figures = [row[name] for name in ("film", "film_and_place", "moment_iou", "window_iou")]
        cells = [row["windows"], f"{row['count']:.0f}", f"{row['kilobytes']:.0f}"]
        lines.append("| " + " | ".join(map(str, [*cells, *(f"{figure:.1f}" for figure in figures)])) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
