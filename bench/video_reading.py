"""How long it takes to read 12 uniform frames of a video, beside the usual ways to do it.

    python bench/video_reading.py [--repeats 7] [--out result.json]

Writes three H.264 files into a temporary folder, reads each in every way on one thread, in turn, and prints a table of
milliseconds a video: the best of all repeats, which is least disturbed by what else the machine does, and the median.
Every way but the last gives the same frames, as RGB in full size, which is checked.
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch

from hcmi.processing import read_frames
from hcmi.processing.frame_sampling import frames_at, segment_times

FRAMES = 12
RATE = 25
# Name, (width, height), seconds, frames from one key frame to the next.
FILES = [
    ("320x240, 10 s, group of 250", (320, 240), 10, 250),
    ("1280x720, 20 s, group of 250", (1280, 720), 20, 250),
    ("1280x720, 20 s, group of 60", (1280, 720), 20, 60),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7, help="default: %(default)s")
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        rows = []
        for number, (name, size, seconds, group) in enumerate(FILES):
            path = write_video(Path(folder, f"{number}.mp4"), size, seconds, group)
            rows.append({"file": name, "milliseconds": measure(path, seconds, arguments.repeats)})
    print(table(rows))
    if arguments.out:
        versions = {"av": av.__version__, "torch": torch.__version__, "python": platform.python_version()}
        result = {"frames": FRAMES, "repeats": arguments.repeats, "versions": versions, "rows": rows}
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


def write_video(path: Path, size: tuple[int, int], seconds: int, group: int) -> Path:
    """A camera that moves over a large picture with smooth areas, edges and grain."""
    width, height = size
    draw = np.random.default_rng(0)
    coarse = draw.integers(0, 255, (height // 20, width // 20, 3), dtype=np.uint8)
    picture = np.kron(coarse, np.ones((40, 40, 1), np.uint8))
    picture = (
        picture // 2 + draw.integers(0, 24, picture.shape, dtype=np.uint8) + picture.mean(1, keepdims=True) / 3
    ).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=RATE, options={"preset": "veryfast", "sc_threshold": "0"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.gop_size, stream.max_b_frames = group, 3
        for number in range(seconds * RATE):
            left, top = (round(side * (0.5 + 0.5 * np.sin(number / 60 + side))) for side in size)
            view = np.ascontiguousarray(picture[top : top + height, left : left + width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(view, format="rgb24")))
        container.mux(stream.encode())
    return path


def measure(path: Path, seconds: int, repeats: int) -> dict[str, dict[str, float]]:
    """Best and median milliseconds of every way."""
    times = segment_times(0.0, float(seconds), FRAMES)
    packets = packets_needed(path, times)
    ways: dict[str, Callable[[], Any]] = {
        "hcmi": lambda: list(read_frames(path, times, backend="pyav").frames),
        "decode in order": lambda: decode_in_order(path, times),
        "seek to each frame": lambda: seek_to_each(path, times),
        "decoding alone": lambda: decode_packets(path, packets),
    }
    expected = decode_in_order(path, times)
    for name, way in ways.items():
        given = way()
        if name != "decoding alone" and not all(torch.equal(a, b) for a, b in zip(given, expected, strict=True)):
            raise SystemExit(f"{path.name}: {name!r} gives other frames")
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            begin = time.perf_counter()
            way()
            taken[name].append((time.perf_counter() - begin) * 1000)
    return {name: {"best": min(values), "median": statistics.median(values)} for name, values in taken.items()}


def decode_in_order(path: Path, times: list[float]) -> list[torch.Tensor]:
    """The plain way: from the beginning until the last wanted frame."""
    frames, pending = [], list(times)
    with av.open(str(path)) as container:
        stream = one_thread(container)
        last = None
        for frame in container.decode(stream):
            while pending and last is not None and seconds_of(frame) > pending[0]:
                frames.append(as_tensor(last))
                pending.pop(0)
            if not pending:
                break
            last = frame
        frames.extend(as_tensor(last) for _ in pending)
    return frames


def seek_to_each(path: Path, times: list[float]) -> list[torch.Tensor]:
    """For each frame back to the key frame before it, and from there on."""
    frames = []
    with av.open(str(path)) as container:
        stream = one_thread(container)
        for wanted in times:
            container.seek(int(wanted / stream.time_base), stream=stream)
            last = None
            for frame in container.decode(stream):
                if last is not None and seconds_of(frame) > wanted:
                    break
                last = frame
            frames.append(as_tensor(last))
    return frames


def packets_needed(path: Path, times: list[float]) -> list[list[av.Packet]]:
    """The packets from the key frame before wanted frames up to the last of these, a list for each such group."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    order = sorted(range(len(packets)), key=lambda i: packets[i].pts)
    begins = [float(packets[i].pts * packets[i].time_base) for i in order]
    wanted = [order[i] for i in frames_at(begins, times)]
    starts = [i for i, packet in enumerate(packets) if packet.is_keyframe]
    groups = [
        (start, max((i for i in wanted if start <= i < end), default=-1))
        for start, end in zip(starts, [*starts[1:], len(packets)], strict=True)
    ]
    return [packets[start : last + 1] for start, last in groups if last >= 0]


def decode_packets(path: Path, groups: list[list[av.Packet]]) -> None:
    """The floor under every way that leaves no frame out: those packets, in memory already, and nothing converted."""
    with av.open(str(path)) as container:
        decoder = one_thread(container).codec_context
        for group in groups:
            for packet in group:
                decoder.decode(packet)
            decoder.decode(None)
            decoder.flush_buffers()


def one_thread(container: Any) -> Any:
    stream = container.streams.video[0]
    stream.codec_context.thread_type, stream.codec_context.thread_count = "NONE", 1
    return stream


def seconds_of(frame: av.VideoFrame) -> Fraction:
    return frame.pts * frame.time_base


def as_tensor(frame: av.VideoFrame) -> torch.Tensor:
    return torch.from_numpy(frame.to_ndarray(format="rgb24", threads=1)).permute(2, 0, 1)


def table(rows: list[dict[str, Any]]) -> str:
    """Best (median), in milliseconds, for people."""
    ways = list(rows[0]["milliseconds"])
    lines = ["| " + " | ".join(["file", *ways]) + " |", "|---" * (len(ways) + 1) + "|"]
    for row in rows:
        cells = [f"{row['milliseconds'][way]['best']:.0f} ({row['milliseconds'][way]['median']:.0f})" for way in ways]
        lines.append("| " + " | ".join([row["file"], *cells]) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
