"""Frames decoded once before training and memory-mapped: training on small videos waits for decoding otherwise."""

import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import datasets
from datasets.arrow_writer import ArrowWriter
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from hcmi.processing.frame_resizing import FrameSettings

from .frame_encoding import ENCODINGS, JPEG_QUALITY, encode_frame
from .row_reading import decode_candidates
from .worker_pool import run_jobs

# Part of the settings: raise it when the stored rows change.
_FORMAT = 2
_FEATURES = datasets.Features(
    {
        "frames": datasets.List(datasets.Value("large_binary")),
        "encoding": datasets.Value("string"),
        "shape": datasets.List(datasets.Value("int32"), length=3),
        "timestamps": datasets.List(datasets.Value("float64")),
        "span": datasets.List(datasets.Value("float64"), length=2),
    }
)
# A kill loses the shards under way: as few rows as the number of files allows.
_ROWS_PER_SHARD = 16
_MOST_SHARDS = 1024
_ROWS_AT_ONCE = 4  # written at a time: a row of 24 frames of 224 x 224 pixels has 3.6 MB


def prepare_frames(
    dataset: datasets.Dataset,
    processor: Any,
    candidates: int,
    folder: str | os.PathLike,
    num_workers: int = 1,
    *,
    encoding: str = "raw",
    progress: bool = True,
) -> datasets.Dataset:
    """
    Decodes the middle frame of each of `candidates` segments of every video, resized and cropped for the model.

    The frames go to a sub-folder named after the rows (path, `start`, `end`) and the settings, which its
    `settings.json` tells. What an earlier call has stored there is kept, also when it was interrupted, but for the rows
    next to a video file that has another size or time of change since. Two calls at a time take turns.

    Args:
        dataset: rows with `video` and, where the video is a stretch of a file, `start` and `end` (seconds).
        processor: an `HCMIProcessor`; its image processor gives the size.
        candidates: number of segments; a video with fewer frames gives those it has.
        folder: gets the sub-folder.
        num_workers: processes that decode.
        encoding: "raw" keeps the frames exactly, "jpeg" in a fraction of the space.
        progress: show a bar with the speed and the size, and a line at the end.

    Returns:
        A memory-mapped data set with the rows of `dataset`: `frames` (bytes of each of the f frames), their `encoding`
        and `shape` (3, H, W), `timestamps` (f, seconds) and `span` (seconds). `PreparedCandidates` reads it.

    Raises:
        VideoReadError: a video cannot be read.
        ValueError: an unknown encoding, no candidates or no rows.
    """
    if encoding not in ENCODINGS:
        raise ValueError(f"encoding must be one of {', '.join(ENCODINGS)}, not {encoding!r}")
    if candidates < 1 or len(dataset) < 1:
        raise ValueError(f"at least 1 candidate frame of 1 video is needed, not {candidates} of {len(dataset)}")
    started = time.perf_counter()
    rows = _rows(dataset)
    per_shard = max(_ROWS_PER_SHARD, -(-len(rows) // _MOST_SHARDS))
    settings = {
        "format": _FORMAT,
        "candidates": candidates,
        "encoding": encoding,
        "jpeg_quality": JPEG_QUALITY if encoding == "jpeg" else None,
        "frames": _frame_settings(processor),
        "rows": len(rows),
        "rows_per_shard": per_shard,
        "fingerprint": _digest(rows),
    }
    place = Path(folder) / f"frames-{candidates}-{encoding}-{_digest(settings)[:16]}"
    shards = []
    for first in range(0, len(rows), per_shard):
        own = rows[first : first + per_shard]
        state = _digest([_state(row["video"]) for row in own])[:12]
        shards.append(_Shard(str(place / f"rows-{first:07d}-{state}.arrow"), own))
    if not all(os.path.exists(shard.path) for shard in shards):
        place.mkdir(parents=True, exist_ok=True)
        with _turn(place):
            (place / "settings.json").write_text(json.dumps(settings, indent=2) + "\n")
            _write_missing(place, shards, _Decoding(processor, candidates, encoding), num_workers, progress)
    if progress:
        size, seconds = _readable(_size(place)), time.perf_counter() - started
        tqdm.write(f"prepared frames: {len(rows)} rows, {size} on disk, {seconds:.1f} s: {place}")
    return datasets.concatenate_datasets([datasets.Dataset.from_file(shard.path) for shard in shards])


def frame_folder(dataset: datasets.Dataset) -> Path:
    """Where a data set's prepared frames go unless a folder is given: beside its cached Arrow files.

    Raises:
        ValueError: the data set has no files.
    """
    if not dataset.cache_files:
        raise ValueError("this data set lies in memory alone: name a folder for its prepared frames")
    return Path(dataset.cache_files[0]["filename"]).parent


def frame_size(dataset: datasets.Dataset, processor: Any, candidates: int, encoding: str) -> float:
    """Mean bytes of a stored frame, measured on up to four rows spread over the data set.

    Raises:
        VideoReadError: one of them cannot be read.
    """
    rows = _rows(dataset)
    count = min(4, len(rows))
    stored = [
        _stored(rows[len(rows) * k // count], _Decoding(processor, candidates, encoding))["frames"]
        for k in range(count)
    ]
    return sum(len(frame) for frames in stored for frame in frames) / sum(map(len, stored))


class _Decoding(NamedTuple):
    processor: Any
    candidates: int
    encoding: str


class _Shard(NamedTuple):
    path: str
    rows: list[dict[str, Any]]


def _write_missing(place: Path, shards: list[_Shard], decoding: _Decoding, num_workers: int, progress: bool) -> None:
    for leftover in place.glob("*.part"):
        leftover.unlink()
    missing = [shard for shard in shards if not os.path.exists(shard.path)]
    rows, to_do = (sum(len(shard.rows) for shard in some) for some in (shards, missing))
    before, started = _size(place), time.perf_counter()
    with tqdm(total=rows, initial=rows - to_do, desc="preparing frames", unit="video", disable=not progress) as bar:

        def show_size() -> None:
            size = _size(place)
            speed = (size - before) / (time.perf_counter() - started)
            bar.set_postfix_str(f"{_readable(speed)}/s, {_readable(size)}")

        run_jobs(_write_shard, decoding, missing, num_workers=num_workers, finished=bar.update, meanwhile=show_size)
    for of_another_file in {str(path) for path in place.glob("rows-*.arrow")} - {shard.path for shard in shards}:
        os.unlink(of_another_file)


def _write_shard(decoding: _Decoding, shard: _Shard) -> int:
    """Writes the shard's rows, all or none; how many there are."""
    partial = f"{shard.path}.part"
    with ArrowWriter(path=partial, features=_FEATURES, writer_batch_size=_ROWS_AT_ONCE) as writer:
        for row in shard.rows:
            writer.write(_stored(row, decoding))
        writer.finalize()
    with open(partial, "rb+") as file:
        os.fsync(file.fileno())  # a crash of the machine must not leave a renamed file without its content
    os.replace(partial, shard.path)
    return len(shard.rows)


def _stored(row: dict[str, Any], decoding: _Decoding) -> dict[str, Any]:
    read = decode_candidates(row, decoding.candidates, decoding.processor)
    return {
        "frames": [encode_frame(frame, decoding.encoding) for frame in read.frames],
        "encoding": decoding.encoding,
        "shape": list(read.frames.shape[1:]),
        "timestamps": read.timestamps.tolist(),
        "span": list(read.span),
    }


def _rows(dataset: datasets.Dataset) -> list[dict[str, Any]]:
    names = [name for name in ("video", "start", "end") if name in dataset.column_names]
    return dataset.select_columns(names).to_list()


def _frame_settings(processor: Any) -> dict[str, Any]:
    """What decides a frame's pixels; mean and deviation do not."""
    settings = asdict(FrameSettings.of(processor.image_processor))
    return {name: settings[name] for name in ("shortest_edge", "size", "mode", "crop")}


def _state(video: str) -> tuple[int, int] | None:
    """Size and time of a file: another file under the same path is prepared anew."""
    try:
        status = os.stat(video)
    except OSError:
        return None  # a URL, or missing: reading it tells
    return status.st_size, status.st_mtime_ns


@contextmanager
def _turn(place: Path) -> Iterator[None]:
    """One process at a time writes into a folder: seeds of one experiment are often started together."""
    lock = FileLock(place / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        tqdm.write(f"waiting for the process that prepares these frames already: {place}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _size(place: Path) -> int:
    """Bytes of the files in a folder."""
    total = 0
    with os.scandir(place) as entries:
        for entry in entries:
            try:
                total += entry.stat().st_size
            except FileNotFoundError:
                continue  # renamed a moment ago
    return total


def _readable(size: float) -> str:
    return tqdm.format_sizeof(size, "B")
