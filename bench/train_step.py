"""What a training step takes: HCMI's beside that of CLIP's bare towers and of mean-pooled CLIP, and the limit.

    python bench/train_step.py [--device cuda] [--model b32] [--batch 128] [--frames 12] [--json FILE]

Two CPU cores take less than eight minutes. Whether a batch of 4,096 pairs fits a GPU of 80 GB:

    python bench/train_step.py --device cuda --ways HCMI --batch 4096 --chunk-size 64 --repeats 3

Random weights, synthetic uint8 frames and texts of up to 32 tokens. Four ways, each in a process of its own, so that
its peak memory is its own: CLIP's bare towers (frames ready as floats, the mean of each video's, plain InfoNCE, forward
and backward alone); mean-pooled CLIP as a whole step (uint8 frames, clipping, AdamW); HCMI with one view; and HCMI with
label denoising, whose second view passes the video tower once more without gradient. The FLOPs are those of the
mathematics (`flops.py`), the backward counted as twice the forward; the limit is what HCMI's take at the speed of a
large matrix product in the same type, measured between the steps. "step s" is the median on the clock; "CPU s" is the
least time that the processor worked on a step, which other programs on the machine disturb less: on a CPU all shares
and comparisons are of that time. With other programs beside it, --threads 1 measures best: threads that wait for each
other count as working. At the end HCMI's samples per second stand beside those that the bare towers' speed gives: the
batch in the time of their forward and backward, longer by what HCMI's FLOPs are more.
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from flops import PARTS, TOWERS, step_flops
from step_report import compared, table
from steps import ATTENTION, MODELS, WAYS, Settings, Stopwatch

from hcmi.freed_memory import keep_freed_memory
from hcmi.train.cores import usable_cores
from hcmi.train.results import hardware, versions

CPU_DEFAULTS = {"batch": 4, "dtype": "float32", "warmup": 1, "repeats": 3, "matrix": 2048}
GPU_DEFAULTS = {"batch": 128, "dtype": "bfloat16", "warmup": 5, "repeats": 20, "matrix": 8192}


def main() -> int:
    settings, ways, file = parse()
    figures = {way: in_own_process(way, settings) for way in ways}
    report = {"settings": asdict(settings), **compared(figures, settings)}
    report |= {"hardware": hardware(settings.device), "versions": versions()}
    print(table(report))
    if file:
        file.write_text(json.dumps(report, indent=2) + "\n")
    return 0


def parse() -> tuple[Settings, list[str], Path | None]:
    """The settings, the ways to measure, and the file for the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="default: %(default)s")
    parser.add_argument("--model", choices=MODELS, default="b32", help="default: %(default)s")
    parser.add_argument("--batch", type=int, help="pairs (default: 128, on a CPU 4)")
    parser.add_argument("--frames", type=int, default=12, help="of every video (default: %(default)s)")
    parser.add_argument("--image-size", type=int, default=224, help="pixels (default: %(default)s)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="default: bfloat16, on a CPU float32")
    parser.add_argument("--attention", choices=ATTENTION, default="sdpa", help="default: %(default)s")
    parser.add_argument("--compile", action="store_true", help="with torch.compile")
    parser.add_argument("--gradient-checkpointing", action="store_true", help="compute layers again in the backward")
    parser.add_argument("--chunk-size", type=int, default=0, help="pairs that HCMI encodes at once; 0: all of them")
    parser.add_argument("--threads", type=int, default=usable_cores(), help="default: all cores")
    parser.add_argument("--warmup", type=int, help="steps that are not measured")
    parser.add_argument("--repeats", type=int, help="steps of each way")
    parser.add_argument(
        "--give-back", action="store_true", help="let freed memory go back to the system at once, as `hcmi` does not"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the weights and the batch (default: %(default)s)")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), metavar="WAY", help="default: all four")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    arguments = vars(parser.parse_args())
    file, ways = arguments.pop("json"), arguments.pop("ways")
    given: dict[str, Any] = {name: value for name, value in arguments.items() if value is not None}
    on_cpu = torch.device(given["device"]).type == "cpu"
    defaults: dict[str, Any] = CPU_DEFAULTS if on_cpu else GPU_DEFAULTS
    return Settings(**defaults | given), ways, file


def flops_of(way: str, settings: Settings) -> dict[str, int]:
    """Of a step, by part."""
    sizes = {"batch": settings.batch, "frames": settings.frames, "words": settings.words}
    step = step_flops(settings.config(), **sizes, second_view=way == "HCMI")
    return {part: step[part] for part in (PARTS if way.startswith("HCMI") else TOWERS)}


def in_own_process(way: str, settings: Settings) -> dict[str, Any]:
    """`measure` in a fresh process; one that the system kills for its memory ends this one with an error."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure, way, settings).result()


def measure(way: str, settings: Settings) -> dict[str, Any]:
    """Times of the steps and of matrix products between them, the breakdown of a step, and the peak memory."""
    torch.set_num_threads(settings.threads)
    if not settings.give_back:
        keep_freed_memory()
    watch = Stopwatch(settings)
    step, product = WAYS[way](settings, watch), matrix_product(settings)
    for _ in range(settings.warmup):
        step()
    divided: list[dict[str, float]] = []

    def divided_step() -> None:
        divided.append(watch.divide(step))

    steps, products = [], []
    for _ in range(settings.repeats):
        # Only on a GPU does dividing a step disturb it.
        steps.append(timed(divided_step if settings.on_cpu else step, settings))
        products += [timed(product, settings) for _ in range(3)]
    if not divided:
        for _ in range(3):
            divided_step()
    parts = min(divided, key=lambda one: sum(one.values()))
    flop = sum(flops_of(way, settings).values())
    seconds, cpu_seconds = statistics.median(step[0] for step in steps), min(step[1] for step in steps)
    rate, cpu_rate = (2 * settings.matrix**3 / min(column) for column in zip(*products, strict=True))
    share = flop / cpu_seconds / cpu_rate if settings.on_cpu else flop / seconds / rate
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "samples_per_second": settings.batch / seconds,
        "flop": flop,
        "flop_per_second": flop / seconds,
        "matrix_flop_per_second": rate,
        "matrix_flop_per_cpu_second": cpu_rate,
        "share_of_matrix_rate": share,
        "gigabytes": peak_gigabytes(settings),
        "breakdown": {part: taken / sum(parts.values()) for part, taken in parts.items()},
    }


def timed(work: Callable[[], Any], settings: Settings) -> tuple[float, float]:
    """Seconds on the clock, and seconds that this process's threads worked."""
    since, worked = time.perf_counter(), time.process_time()
    work()
    if not settings.on_cpu:
        torch.cuda.synchronize(settings.device)
    return time.perf_counter() - since, time.process_time() - worked


def matrix_product(settings: Settings) -> Callable[[], Any]:
    shape = (settings.matrix, settings.matrix)
    a, b = (torch.randn(shape, device=settings.device).to(getattr(torch, settings.dtype)) for _ in range(2))
    out = a @ b
    return lambda: torch.mm(a, b, out=out)


def peak_gigabytes(settings: Settings) -> float:
    """The most memory held: of the GPU, or of this process (Linux counts in KiB, macOS in bytes)."""
    if not settings.on_cpu:
        return torch.cuda.max_memory_allocated(settings.device) / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


if __name__ == "__main__":
    sys.exit(main())
