"""How many videos a second training gets: from files and from prepared frames, with more and more reader processes.

    python bench/loading.py [--videos FOLDER] [--workers 0 1 2 4] [--views 2] [--json FILE]

Two CPU cores take some minutes. Without a folder it writes H.264 files. The batches come through the loader of
training. "CPU ms" is the processor's time for one video in this process and all readers; the limit beside it is what
cannot be left out: for files the decoding alone, of packets that lie in memory, up to the last wanted frame of each
group; for raw frames one copy of their bytes at the speed of a large copy; for JPEG frames the decompression alone. All
on one core, and all files come from the system's cache, not from the disk. "limit/s" is the videos per second that this
gives on as many cores as there are readers. Reading from files can pass its limit: it leaves out frames that no other
one needs. The first epoch is not timed. Without readers this process reads with --threads threads, as training does on
a CPU; threads that wait for each other count as working.
"""

import argparse
import gc
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import torch
from accelerate import Accelerator, DataLoaderConfiguration
from transformers import CLIPImageProcessor
from video_reading import decode_packets, packets_needed, write_video

from hcmi.freed_memory import keep_freed_memory
from hcmi.processing import HCMIProcessor
from hcmi.processing.frame_sampling import frames_at, segment_times
from hcmi.train.cores import usable_cores
from hcmi.train.data.candidates import PreparedCandidates
from hcmi.train.data.frame_sources import CandidateFrames, FileFrames, FrameSource
from hcmi.train.data.loading import TrainingBatches
from hcmi.train.data.pairs import PairCollator, TrainingPairs
from hcmi.train.data.prepared_frames import prepare_frames
from hcmi.train.data.tokenizer import train_tokenizer
from hcmi.train.data.unreadable import UnreadableVideos
from hcmi.train.results import hardware, versions

SUFFIXES = {".mp4", ".mkv", ".webm", ".avi", ".mov"}
CAPTION = "a camera moves over a large picture"
GROUP = 250  # frames from one key frame to the next, as most encoders have it


@dataclass(frozen=True)
class Settings:
    """What is read; `count`, `size` and `seconds` are of the files that are written."""

    count: int = 16
    size: tuple[int, int] = (320, 240)
    seconds: int = 10
    frames: int = 12
    views: int = 2
    candidates: int = 24
    image_size: int = 224
    batch: int = 8
    least_seconds: float = 5.0
    threads: int = 1
    seed: int = 0
    device: str = "cpu"


def main() -> int:
    keep_freed_memory()  # as `hcmi` does
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, metavar="FOLDER", help="read these files instead of written ones")
    parser.add_argument("--count", type=int, default=16, help="videos at most (default: %(default)s)")
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        default=(320, 240),
        metavar=("WIDTH", "HEIGHT"),
        help="of each written video, multiples of 20 (default: 320 240)",
    )
    parser.add_argument("--seconds", type=int, default=10, help="of each written video (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=12, help="of every view (default: %(default)s)")
    parser.add_argument("--views", type=int, choices=(1, 2), default=2, help="2: label denoising (the default)")
    parser.add_argument("--candidates", type=int, default=24, help="prepared frames a video (default: %(default)s)")
    parser.add_argument("--image-size", type=int, default=224, help="pixels (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=8, help="pairs (default: %(default)s)")
    parser.add_argument("--least-seconds", type=float, default=5.0, help="of each row (default: %(default)s)")
    parser.add_argument("--workers", type=int, nargs="+", help="reader processes (default: 0 1 2 and all cores)")
    parser.add_argument("--threads", type=int, default=usable_cores(), help="of this process (default: all cores)")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn (default: %(default)s)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    arguments = vars(parser.parse_args())
    if any(side % 20 for side in arguments["size"]):
        parser.error("--size takes multiples of 20")
    file, folder = arguments.pop("json"), arguments.pop("videos")
    workers = arguments.pop("workers") or sorted({0, 1, 2, usable_cores()})
    settings = Settings(**arguments | {"size": tuple(arguments["size"])})

    with tempfile.TemporaryDirectory() as own:
        files = written(Path(own), settings) if folder is None else found(folder, settings.count)
        rows = measure(files, Path(own), settings, workers)
    print(table(rows))
    packages = ", ".join(f"{package} {version}" for package, version in versions().items())
    print(f"{len(files)} videos, {settings}\n{hardware(settings.device)}; {packages}")
    if file:
        report = {"settings": asdict(settings), "rows": rows}
        report |= {"hardware": hardware(settings.device), "versions": versions()}
        file.write_text(json.dumps(report, indent=2) + "\n")
    return 0


def written(folder: Path, settings: Settings) -> list[Path]:
    """Copies of one file: each takes as long to read as any other."""
    first = write_video(folder / "0.mp4", settings.size, settings.seconds, GROUP)
    copies = [folder / f"{number}.mp4" for number in range(1, settings.count)]
    for copy in copies:
        copy.write_bytes(first.read_bytes())
    return [first, *copies]


def found(folder: Path, count: int) -> list[Path]:
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)[:count]
    if not files:
        raise SystemExit(f"{folder}: no file ends with {', '.join(sorted(SUFFIXES))}")
    return files


def measure(files: list[Path], folder: Path, settings: Settings, workers: list[int]) -> list[dict[str, Any]]:
    """A row for each source and number of workers."""
    side = settings.image_size
    image_processor = CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    processor = HCMIProcessor(image_processor, train_tokenizer([CAPTION], 200))
    dataset = datasets.Dataset.from_dict({"video": [str(path) for path in files]})
    sources: dict[str, FrameSource] = {"files": FileFrames(processor, dataset, settings.frames)}
    for encoding in ("raw", "jpeg"):
        prepared = prepare_frames(
            dataset, processor, settings.candidates, folder, usable_cores(), encoding=encoding, progress=False
        )
        sources[encoding] = CandidateFrames(PreparedCandidates(prepared), settings.frames)
    rows = []
    for name, source in sources.items():
        limit = least(LIMITS[name](source, files, settings))
        for number in workers:
            figures = loaded(source, processor.tokenizer, len(files), number, settings)
            # Without readers this process is one; more of them than cores do not decode more.
            limits = {"limit_cpu_milliseconds": limit * 1000}
            limits["limit_videos_per_second"] = min(max(number, 1), usable_cores()) / limit
            rows.append({"source": name, "workers": number, **figures, **limits})
    return rows


def loaded(source: FrameSource, tokenizer: Any, videos: int, workers: int, settings: Settings) -> dict[str, float]:
    """Videos and frames a second, and processor time of a video, through the loader of training."""
    configuration = DataLoaderConfiguration(split_batches=True, use_seedable_sampler=True)
    accelerator = Accelerator(cpu=settings.device == "cpu", dataloader_config=configuration)
    names = [str(row) for row in range(videos)]
    batches = TrainingBatches(
        accelerator,
        TrainingPairs([[CAPTION]] * videos, source, settings.seed),
        PairCollator(tokenizer, settings.frames, 32),
        UnreadableVideos(names),
        batch_size=min(settings.batch, videos),
        num_workers=workers,
    )
    torch.set_num_threads(settings.threads)
    worked = processor_seconds()
    seconds, untimed, timed, epoch = 0.0, one_epoch(batches, 0, settings)[1], 0, 0
    while seconds < settings.least_seconds or not timed:
        epoch += 1
        taken, count = one_epoch(batches, epoch, settings)
        seconds, timed = seconds + taken, timed + count
    # Only readers that have ended are counted: these end with the loader.
    del batches
    accelerator.free_memory()
    gc.collect()
    worked = processor_seconds() - worked
    return {
        "videos_per_second": timed / seconds,
        "frames_per_second": timed / seconds * settings.frames * settings.views,
        "cpu_milliseconds": worked / (timed + untimed) * 1000,
    }


def one_epoch(batches: TrainingBatches, epoch: int, settings: Settings) -> tuple[float, int]:
    """Seconds, and videos."""
    videos, since = 0, time.perf_counter()
    with batches.epoch(epoch, settings.views) as loader:
        for batch in loader:
            videos += len(batch["video_ids"])
    if settings.device != "cpu":
        torch.cuda.synchronize(settings.device)
    return time.perf_counter() - since, videos


def processor_seconds() -> float:
    """Of this process and of those it started that have ended."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in usage)


def decoding(source: FileFrames, files: list[Path], settings: Settings) -> list[Callable[[], Any]]:
    """For some files, the decoding of the packets that a random draw needs."""
    works: list[Callable[[], Any]] = []
    for row, path in enumerate(files[:4]):
        span = source(row).span
        views = (segment_times(*span, settings.frames, "random", view) for view in range(settings.views))
        packets = packets_needed(path, sorted(time for times in views for time in times))
        works.append(partial(decode_packets, path, packets))
    return works


def copying(source: CandidateFrames, files: list[Path], settings: Settings) -> list[Callable[[], Any]]:
    """One copy of the bytes of a video's frames, out of a tensor that no cache holds."""
    size = settings.views * settings.frames * 3 * settings.image_size**2
    pictures = torch.zeros(max(1, 2**28 // size), size, dtype=torch.uint8)
    places = iter(range(10**9))
    target = torch.empty(len(pictures), size, dtype=torch.uint8)

    def work() -> None:
        place = next(places) % len(pictures)
        target[place].copy_(pictures[place])

    for _ in pictures:
        work()
    return [work]


def decompressing(source: CandidateFrames, files: list[Path], settings: Settings) -> list[Callable[[], Any]]:
    """Decompression of as many frames as a draw among the candidates takes, each once."""
    frames, timestamps, span = source.candidates(0)
    views = (segment_times(*span, settings.frames, "random", view) for view in range(settings.views))
    taken = {index for times in views for index in frames_at(timestamps, times)}
    return [lambda: [frames[[index]] for index in taken]]


LIMITS: dict[str, Callable] = {"files": decoding, "raw": copying, "jpeg": decompressing}


def least(works: list[Callable[[], Any]], repeats: int = 5) -> float:
    """Mean over the works of the least processor seconds of each, on one core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    best = []
    for work in works:
        taken = []
        for _ in range(repeats):
            since = time.process_time()
            work()
            taken.append(time.process_time() - since)
        best.append(min(taken))
    torch.set_num_threads(threads)
    return sum(best) / len(best)


def table(rows: list[dict[str, Any]]) -> str:
    """For people."""
    columns = ("workers", "videos/s", "frames/s", "limit/s", "CPU ms/video", "limit ms", "of the limit")
    lines = [f"{'frames from':12s}" + "".join(f"{column:>14s}" for column in columns)]
    for row in rows:
        share = row["limit_cpu_milliseconds"] / row["cpu_milliseconds"]
        cells = [f"{row['workers']:14d}", f"{row['videos_per_second']:14.1f}", f"{row['frames_per_second']:14.0f}"]
        cells += [f"{row['limit_videos_per_second']:14.1f}", f"{row['cpu_milliseconds']:14.2f}"]
        cells += [f"{row['limit_cpu_milliseconds']:14.2f}", f"{share:14.0%}"]
        lines.append(f"{row['source']:12s}" + "".join(cells))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
