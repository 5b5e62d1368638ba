"""Is a benchmark all there? Annotations, counts, video files and, if asked for, whether the files can be read."""

import os
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from tqdm.auto import tqdm

from hcmi.processing.frame_sampling import segment_times
from hcmi.processing.video_reading import VideoReadError, read_frames

from .annotation import Annotation
from .benchmark_builder import find_videos
from .benchmark_info import BenchmarkInfo
from .benchmarks import BENCHMARKS, protocols, read_annotations
from .video_files import VideoFiles
from .worker_pool import run_jobs


def check_benchmark(
    name: str,
    *,
    annotations: str | os.PathLike | None = None,
    videos: str | os.PathLike | None = None,
    protocol: str | None = None,
    splits: Sequence[str] | None = None,
    decode: int = 0,
    num_workers: int = 1,
) -> dict[str, Any]:
    """
    Looks for everything that a benchmark should have, and goes on where something is amiss.

    Args:
        name, annotations, videos, protocol: as for `load_benchmark`.
        splits: those to check; default: all that the protocol has.
        decode: so many frames of every video are read, from the middles of equal segments; 0: none are.
        num_workers: processes that read.

    Returns:
        The names, the folder and number of files looked through, whether all is `complete`, and `splits`: name ->
        `complete` and `error`, where its annotations or videos cannot be told, or else the counts found and expected,
        what is wrong with them, the ids of the videos `without_file` and `without_caption`, captions that occur more
        than once and, with `decode`, `decoded`: the videos that are `unreadable`, and why, and those that are
        `damaged`, of which training and evaluation read what they can.

    Raises:
        ValueError: an unknown benchmark or protocol, or a place that is not told.
    """
    known = protocols(name)
    protocol = next(iter(known)) if protocol is None else protocol
    if protocol not in known:
        raise ValueError(f"{name} has no protocol {protocol!r}: choose one of {', '.join(known)}")
    annotations, videos = BENCHMARKS[name].code.places(annotations, videos)

    report: dict[str, Any] = {
        "benchmark": name,
        "protocol": protocol,
        "protocol_description": known[protocol].description,
        "annotations": str(annotations),
        "videos": os.path.abspath(videos),
        "files": 0,
        "splits": {},
    }
    files = None
    for split in splits or known[protocol].splits:
        rows: list[dict[str, Any]] = []
        try:
            read = read_annotations(name, split, annotations, protocol)
            files = VideoFiles(videos) if files is None else files
            checked, rows = _check(read, files, name, split, protocol)
        except (ValueError, OSError) as error:  # another split may be all right
            checked = {"complete": False, "error": str(error)}
        if decode and rows:
            checked["decoded"] = _decode(rows, decode, num_workers, f"reading {name} {split}")
            checked["complete"] = checked["complete"] and not checked["decoded"]["unreadable"]
        report["splits"][split] = checked
    report["files"] = 0 if files is None else len(files)
    report["complete"] = all(checked["complete"] for checked in report["splits"].values())
    return report


def _check(
    annotations: list[Annotation], files: VideoFiles, name: str, split: str, protocol: str
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A split's part of the report but for what decoding shows, and its rows."""
    found = find_videos(annotations, files)
    known = protocols(name)[protocol]
    expected, without_file = known.splits[split], set(found.without_file)
    info = BenchmarkInfo(
        name,
        split,
        protocol,
        known.description,
        videos=len(found.rows),
        captions=sum(len(row["captions"]) for row in found.rows),
        expected_videos=expected.videos,
        expected_captions=expected.captions,
        missing=len(found.without_file) + len(found.without_caption),
    )
    checked = {
        "complete": info.complete,
        "videos": info.videos,
        "captions": info.captions,
        "expected": {"videos": expected.videos, "captions": expected.captions},
        "wrong_counts": info.wrong_counts,
        "without_file": found.without_file,
        "without_caption": found.without_caption,
        "captions_without_video": sum(len(one.captions) for one in annotations if one.video_id in without_file),
        **_repeated(annotations),
    }
    return checked, found.rows


def _repeated(annotations: Iterable[Annotation]) -> dict[str, Any]:
    """Captions that several videos share, with the number of these videos, and how many repeat another of their own."""
    videos_of = Counter(caption for annotation in annotations for caption in set(annotation.captions))
    within = sum(len(annotation.captions) - len(set(annotation.captions)) for annotation in annotations)
    shared = {caption: count for caption, count in videos_of.items() if count > 1}
    return {"captions_of_several_videos": shared, "captions_repeated_for_their_video": within}


def _decode(rows: list[dict[str, Any]], frames: int, num_workers: int, what: str) -> dict[str, Any]:
    problems: dict[str, dict[int, dict[str, Any]]] = {"unreadable": {}, "damaged": {}}
    with tqdm(total=len(rows), desc=what, unit="video") as bar:

        def finished(outcome: tuple[int, str | None, str]) -> None:
            place, kind, reason = outcome
            if kind is not None:
                row = rows[place]
                problems[kind][place] = {"video_id": row["video_id"], "video": row["video"], "reason": reason}
                bar.set_postfix({kind: len(found) for kind, found in problems.items() if found}, refresh=False)
            bar.update()

        run_jobs(_try_to_read, frames, enumerate(rows), num_workers=num_workers, finished=finished)
    # In the order of the rows, whichever process was first.
    listed = {kind: [found[place] for place in sorted(found)] for kind, found in problems.items()}
    return {"frames": frames, "videos": len(rows), **listed}


def _try_to_read(frames: int, job: tuple[int, dict[str, Any]]) -> tuple[int, str | None, str]:
    """The row's place, what is wrong with its video and why; "damaged" is one of which training reads what it can."""
    place, row = job
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", UserWarning)
        try:
            read_frames(
                row["video"],
                lambda start, end: segment_times(start, end, frames),
                start=row["start"],
                end=row["end"],
                convert=lambda frame: frame[:, :1, :1],
            )
        except (VideoReadError, OSError) as error:
            return place, "unreadable", getattr(error, "reason", None) or str(error)
    reasons = [str(warning.message).removeprefix(f"{row['video']}: ") for warning in told]
    return place, "damaged" if reasons else None, "; ".join(reasons)
