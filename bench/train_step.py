"""What a training step takes: HCMI's beside that of CLIP's bare towers and of mean-pooled CLIP, and the limit.

    python bench/train_step.py [--device cuda] [--model b32] [--batch 128] [--frames 12] [--json FILE]

Random weights, synthetic uint8 frames and texts of up to 32 tokens. Four ways, each in a process of its own, so that
its peak memory is its own: CLIP's bare towers (frames ready as floats, the mean of each video's, plain InfoNCE, forward
and backward alone); mean-pooled CLIP as a whole step (uint8 frames, clipping, AdamW); HCMI with one view; and HCMI with
label denoising, whose second view passes the video tower once more without gradient. The FLOPs are those of the
mathematics (`flops.py`), the backward counted as twice the forward; the limit is what HCMI's take at the speed of a
large matrix product in the same type, measured between the steps. "step s" is the median on the clock; "CPU s" is the
least time that the processor worked on a step, which other programs on the machine disturb less: on a CPU all shares
and comparisons are of that time. With other programs beside it, --threads 1 measures best: threads that wait for each
other count as working.
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
from steps import ATTENTION, MODELS, WAYS, Settings, Stopwatch

from hcmi.train.cores import usable_cores
from hcmi.train.results import hardware, versions

# Few enough to finish in about two minutes on two cores.
CPU_DEFAULTS = {"batch": 4, "dtype": "float32", "warmup": 1, "repeats": 3, "matrix": 2048}
GPU_DEFAULTS = {"batch": 128, "dtype": "bfloat16", "warmup": 5, "repeats": 20, "matrix": 8192}


def main() -> int:
    settings, file = parse()
    ways = {way: in_own_process(way, settings) for way in WAYS}
    report = {"settings": asdict(settings), **compared(ways, settings)}
    report |= {"hardware": hardware(settings.device), "versions": versions()}
    print(table(report))
    if file:
        file.write_text(json.dumps(report, indent=2) + "\n")
    return 0


def parse() -> tuple[Settings, Path | None]:
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
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    arguments = vars(parser.parse_args())
    file = arguments.pop("json")
    given: dict[str, Any] = {name: value for name, value in arguments.items() if value is not None}
    on_cpu = torch.device(given["device"]).type == "cpu"
    defaults: dict[str, Any] = CPU_DEFAULTS if on_cpu else GPU_DEFAULTS
    return Settings(**defaults | given), file


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


def compared(ways: dict[str, dict[str, Any]], settings: Settings) -> dict[str, Any]:
    """The ways, and what HCMI adds: in time, and in FLOPs."""
    clock = "cpu_seconds" if settings.on_cpu else "seconds"
    bare, mean, one, whole = (ways[way] for way in WAYS)
    rate = max(way["matrix_flop_per_second"] for way in ways.values())
    return {
        "ways": ways,
        "clock": clock,
        "limit_seconds": whole["flop"] / rate,
        "head_and_objective": {
            "added": (one[clock] - mean[clock]) / mean[clock],
            "of_bare_towers": (one[clock] - mean[clock]) / bare[clock],
            "flop_added": (one["flop"] - mean["flop"]) / mean["flop"],
        },
        "second_view": {
            "added": (whole[clock] - one[clock]) / one[clock],
            "flop_added": (whole["flop"] - one["flop"]) / one["flop"],
        },
        # What the same FLOPs take at the speed of the bare towers.
        "beyond_its_flop": {
            "whole_step": whole[clock] / whole["flop"] * bare["flop"] / bare[clock] - 1,
            "without_optimizer": _without_optimizer(whole, clock) / whole["flop"] * bare["flop"] / bare[clock] - 1,
        },
    }


def _without_optimizer(way: dict[str, Any], clock: str) -> float:
    return way[clock] * (1 - sum(way["breakdown"].get(part, 0.0) for part in ("clipping", "optimizer")))


def table(report: dict[str, Any]) -> str:
    """For people."""
    ways, settings = report["ways"], report["settings"]
    columns = ("step s", "CPU s", "samples/s", "TFLOP", "TFLOP/s", "of matrix rate", "peak GB")
    lines = [f"{'':18s}" + "".join(f"{column:>15s}" for column in columns)]
    for way, row in ways.items():
        figures = [row["seconds"], row["cpu_seconds"], row["samples_per_second"], row["flop"] / 1e12]
        figures += [row["flop_per_second"] / 1e12]
        cells = [f"{figure:15.3f}" for figure in figures]
        cells += [f"{row['share_of_matrix_rate']:15.1%}", f"{row['gigabytes']:15.2f}"]
        lines.append(f"{way:18s}" + "".join(cells))
    hcmi = ways["HCMI"]
    limit = report["limit_seconds"]
    figures = [f"{limit:15.3f}", " " * 15, f"{settings['batch'] / limit:15.3f}", f"{hcmi['flop'] / 1e12:15.3f}"]
    lines.append(f"{'limit of HCMI':18s}" + "".join(figures) + f"{hcmi['flop'] / limit / 1e12:15.3f}")

    lines += ["", "the step by its parts, in milliseconds:"]
    parts = sorted({part for row in ways.values() for part in row["breakdown"]}, key=_BREAKDOWN.index)
    lines.append(f"{'':18s}" + "".join(f"{part:>13s}" for part in parts))
    for way, row in ways.items():
        taken = (row["breakdown"].get(part, 0.0) * row["seconds"] * 1000 for part in parts)
        lines.append(f"{way:18s}" + "".join(f"{milliseconds:13.1f}" for milliseconds in taken))

    clock = "of time on the clock" if report["clock"] == "seconds" else "of processor time"
    head, second, beyond = (report[name] for name in ("head_and_objective", "second_view", "beyond_its_flop"))
    lines += [
        "",
        f"HCMI's head and objective add {head['added']:.1%} {clock} to mean-pooled CLIP ({head['of_bare_towers']:.1%} "
        f"of the bare towers'); their FLOPs are {head['flop_added']:.1%} of it",
        f"the second view adds {second['added']:.1%}; its FLOPs are {second['flop_added']:.1%}",
        f"HCMI's step takes {beyond['whole_step']:+.1%} beside its FLOPs at the bare towers' speed "
        f"({beyond['without_optimizer']:+.1%} without clipping and optimizer)",
        "{model}, {batch} pairs, {frames} frames of {image_size} pixels, {words} words, {dtype}, "
        "{attention} attention, {threads} threads".format(**settings),
        f"{report['hardware']}, torch {torch.__version__}",
    ]
    return "\n".join(lines)


_BREAKDOWN = [
    "video tower",
    "no gradient",
    "text tower",
    "hierarchy",
    "objective",
    "backward",
    "clipping",
    "optimizer",
    "other",
]


if __name__ == "__main__":
    sys.exit(main())
