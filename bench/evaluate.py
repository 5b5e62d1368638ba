"""Time and memory of the whole score matrix: the plain double loop over batches, ours, and the limit.

    python bench/evaluate.py [--texts 27763] [--videos 670] [--words 32] [--frames 12] [--width 512] [--threads N]

The default is the size of MSVD's test: random features of 27,763 captions of 32 tokens and 670 videos of 12 frames, a
phrase for every four words and a clip for every four frames, all three levels in float32. Two rows: every caption of
the full length, and captions of a quarter to the whole of it, as real ones are. The plain loop is what public code
does: a block of texts times a block of videos, padding masked in the array of all pairs of tokens. The limit is the
time that the products of all pairs of real tokens alone take at the speed of a large matrix product, measured here.
Every measurement runs in a process of its own, so that its peak memory is its own; writes JSON with --out.
"""

import argparse
import json
import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import normalize

from hcmi.modeling_hcmi import LEVELS, HCMITextFeatures, HCMIVideoFeatures
from hcmi.modeling_hcmi.interaction_hcmi import blockwise_similarity
from hcmi.train.results import hardware, versions

TOKENS_PER_GROUP = 4
PLAIN_BATCH = 64


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=27_763, help="default: %(default)s")
    parser.add_argument("--videos", type=int, default=670, help="default: %(default)s")
    parser.add_argument("--words", type=int, default=32, help="tokens of the longest text (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=12, help="of every video (default: %(default)s)")
    parser.add_argument("--width", type=int, default=512, help="of the joint space (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="default: all cores")
    parser.add_argument("--device", default="cpu", help="default: %(default)s")
    parser.add_argument("--out", type=Path, metavar="JSON", help="write the figures to this file")
    arguments = parser.parse_args()

    rows = []
    for label, shortest in (("full length", arguments.words), ("mixed lengths", max(2, arguments.words // 4))):
        options = vars(arguments) | {"shortest": shortest, "out": None}
        measured = {method.__name__: in_own_process(method, options) for method in (plain, ours, limit)}
        difference = abs(measured["plain"]["sample"] - measured["ours"]["sample"])
        rows.append({"texts": label, "difference": difference, **measured})
        print(table_row(rows[-1]), flush=True)
    print(f"{hardware(arguments.device)}, {arguments.threads} threads, torch {torch.__version__}")
    if arguments.out:
        report = {"settings": {**vars(arguments), "out": str(arguments.out)}, "rows": rows}
        report |= {"hardware": hardware(arguments.device), "versions": versions()}
        arguments.out.write_text(json.dumps(report, indent=2) + "\n")
    return 0


def table_row(row: dict[str, Any]) -> str:
    """One line: old, new and limit side by side."""
    cells = [
        f"{name} {row[name]['seconds']:6.1f} s, peak {row[name]['gigabytes']:.2f} GB" for name in ("plain", "ours")
    ]
    cells.append(f"limit {row['limit']['seconds']:6.1f} s")
    return f"{row['texts']:14s} {'   '.join(cells)}   (differ by {row['difference']:.0e})"


def plain(options: dict[str, Any]) -> Callable[[], float]:
    """Batches of texts times batches of videos, as public code does it."""
    text, video = features(options)

    def token_wise(words, word_mask, a, frames, frame_mask, b):
        pairs = torch.einsum("twd,vfd->tvwf", normalize(words, dim=-1), normalize(frames, dim=-1))
        lowest = torch.finfo(pairs.dtype).min
        real = word_mask[:, None, :, None] & frame_mask[None, :, None]
        pairs = pairs.masked_fill(~real, lowest)
        by_words = (pairs.amax(3) * a[:, None]).masked_fill(~word_mask[:, None], 0).sum(2)
        return (by_words + (pairs.amax(2) * b[None]).sum(2)) / 2

    def run() -> float:
        combined = []
        for t in range(0, options["texts"], PLAIN_BATCH):
            some_texts, row = text.select(slice(t, t + PLAIN_BATCH)), []
            for v in range(0, options["videos"], PLAIN_BATCH):
                s, o = some_texts, video.select(slice(v, v + PLAIN_BATCH))
                levels = (
                    token_wise(s.words, s.word_mask, s.word_weights, o.frames, o.frame_mask, o.frame_weights),
                    token_wise(s.phrases, s.phrase_mask, s.phrase_weights, o.clips, o.clip_mask, o.clip_weights),
                    normalize(s.pooler_output, dim=-1) @ normalize(o.pooler_output, dim=-1).T,
                )
                row.append(sum(levels) / len(levels))
            combined.append(torch.cat(row, dim=1))
        return torch.cat(combined).abs().mean().item()

    return run


def ours(options: dict[str, Any]) -> Callable[[], float]:
    """`blockwise_similarity`, as `HCMIModel.score` and `hcmi eval` call it."""
    text, video = features(options)
    return lambda: blockwise_similarity(text, video, dict.fromkeys(LEVELS, 1.0)).combined.abs().mean().item()


def limit(options: dict[str, Any]) -> Callable[[], float]:
    """The products of all pairs of real tokens at the speed of a large matrix product."""
    device, width = options["device"], options["width"]
    words = lengths(options)
    groups = -(-words // TOKENS_PER_GROUP)
    frames = options["frames"]
    pairs = int(words.sum()) * frames + int(groups.sum()) * -(-frames // TOKENS_PER_GROUP) + options["texts"]
    a, b = torch.randn(2048, width, device=device), torch.randn(width, 8192, device=device)
    repeats = max(1, round(pairs * options["videos"] / (2048 * 8192)))
    out = torch.mm(a, b)

    def run() -> float:
        for _ in range(repeats):
            torch.mm(a, b, out=out)
        return out[0, 0].item()

    return run


def lengths(options: dict[str, Any]) -> torch.Tensor:
    """Tokens of each text."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(options["shortest"], options["words"] + 1, (options["texts"],), generator=generator)


def features(options: dict[str, Any]) -> tuple[HCMITextFeatures, HCMIVideoFeatures]:
    """Random features: vectors of one row are alike to some degree, so that similarities are not all near zero."""
    torch.manual_seed(0)
    width, device = options["width"], options["device"]

    def side(names: list[str], counts: torch.Tensor) -> dict[str, torch.Tensor]:
        made = {}
        for (tokens, mask, weights), real in zip(
            (names[:3], names[3:6]), (counts, -(-counts // TOKENS_PER_GROUP)), strict=True
        ):
            longest = int(real.max())
            made[tokens] = torch.randn(len(counts), longest, width, device=device)
            made[mask] = torch.arange(longest, device=device) < real.to(device)[:, None]
            made[weights] = made[mask] / real.to(device)[:, None]
        shape = (len(counts), int(-(-counts // TOKENS_PER_GROUP).max()), int(counts.max()))
        made[names[6]] = torch.zeros(shape, device=device)  # plays no part
        made["pooler_output"] = torch.randn(len(counts), width, device=device)
        return made

    text = ["words", "word_mask", "word_weights", "phrases", "phrase_mask", "phrase_weights", "phrase_word_weights"]
    video = ["frames", "frame_mask", "frame_weights", "clips", "clip_mask", "clip_weights", "clip_frame_weights"]
    frames = torch.full((options["videos"],), options["frames"])
    return HCMITextFeatures(**side(text, lengths(options))), HCMIVideoFeatures(**side(video, frames))


def in_own_process(method: Callable, options: dict[str, Any]) -> dict[str, float]:
    """Seconds, peak memory in GB and the value that a method returns, run in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_measure, method, options).result()


@torch.inference_mode()
def _measure(method: Callable, options: dict[str, Any]) -> dict[str, float]:
    torch.set_num_threads(options["threads"])
    run = method(options)
    cuda = options["device"] != "cpu"
    if cuda:
        torch.cuda.synchronize()
    started = time.perf_counter()
    sample = run()
    seconds = time.perf_counter() - started
    gigabytes = torch.cuda.max_memory_allocated() / 1e9 if cuda else peak_gigabytes()
    return {"seconds": seconds, "gigabytes": gigabytes, "sample": sample}


def peak_gigabytes() -> float:
    """The most memory that this process has held (Linux counts in KiB, macOS in bytes)."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


if __name__ == "__main__":
    sys.exit(main())
