"""Searching an index of windows: how fast, how large, how near to scoring everything, beside other ways.

    python bench/search.py [--windows 10000 100000] [--engines hcmi,matrix,…] [--queries 1000] [--json FILE]

Synthetic windows of 12 frames, 4 clips and width 512, spread as a trained model's (`synthetic_windows.py`), each the
only one of its video; every query belongs to one of them. The times are end to end from a text's features to hits,
without the text encoder. Old: every window is scored, in float32 (`brute`). New: the package's index (`hcmi`). Limit: a
float16 matrix in memory, and the exact score of what it finds (`matrix`). Beside them FAISS and Qdrant Edge, where they
are installed (pip install faiss-cpu qdrant-edge-py).

Every engine is built in one process and searched in a fresh one; those that keep nothing on the disk do both in one.
"open" is from the call to a usable index, without Python's imports, "first" the first query after it, both with the
engine's files dropped from the system's cache. Then they are read into it, and p50 and p95 are of all later queries.
"own" and "mapped" are the memory that the searching process holds at the end itself, and of files. "overlap" is the
share of the ten best windows by the exhaustive score of the float32 originals that are among the ten best hits, for the
first --checked queries; "R@1" how often a query's own window comes first.

A million windows need 11 GB of disk for `hcmi` and 12 GB of memory for `matrix`:

    python bench/search.py --windows 1000000 --engines hcmi,matrix
"""

import argparse
import importlib.util
import json
import multiprocessing
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from search_engines import LEVEL_WEIGHTS, TOP, Brute, Engine, Hcmi, pieces
from search_rivals import Edge, Faiss, Matrix
from synthetic_windows import SyntheticWindows
from system import drop_from_cache, memory, read_all

from hcmi.modeling_hcmi import HCMITextFeatures
from hcmi.modeling_hcmi.interaction_hcmi import blockwise_similarity
from hcmi.train.cores import usable_cores
from hcmi.train.results import hardware, versions

ENGINES: dict[str, tuple[type[Engine], str]] = {
    "brute": (Brute, "float32"),
    "hcmi": (Hcmi, "int8"),
    "hcmi-float16": (Hcmi, "float16"),
    "hcmi-float32": (Hcmi, "float32"),
    "matrix": (Matrix, "float16"),
    "faiss-flat": (Faiss, "flat"),
    "faiss-ivf": (Faiss, "ivf"),
    "edge": (Edge, "int8"),
    "edge-float16": (Edge, "float16"),
}
FEW = 10
"""Queries for an engine that is slow."""
CHECKED_PAIRS = 5e7
"""As many pairs of a query and a window are scored exhaustively by default, but of 50 to 200 queries."""


@dataclass(frozen=True)
class Task:
    """What all engines are given."""

    windows: int
    queries: int
    checked: int
    threads: int
    seed: int
    scratch: Path

    def drawn(self) -> SyntheticWindows:
        return SyntheticWindows(self.windows, self.seed)

    def rows(self) -> list[int]:
        """The windows that the queries belong to."""
        generator = torch.Generator().manual_seed(self.seed + 1)
        return torch.randint(self.windows, (self.queries,), generator=generator).tolist()

    def texts(self) -> HCMITextFeatures:
        """The queries."""
        return self.drawn().queries(self.rows())


def main() -> int:
    arguments = parse()
    reports = []
    for windows in arguments.windows:
        checked = arguments.checked or int(min(200, max(50, CHECKED_PAIRS / windows)))
        checked = min(checked, arguments.queries)
        with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
            task = Task(windows, arguments.queries, checked, arguments.threads, arguments.seed, Path(scratch))
            best = in_own_process(exhaustive, task)
            print(f"\n{windows:,} windows, {task.queries} queries, {checked} of them checked", flush=True)
            print(HEADER, flush=True)
            rows = []
            for name in arguments.engines:
                rows.append({"engine": name, **measured(name, task, best)})
                print(table_row(rows[-1]), flush=True)
        reports.append({"windows": windows, "checked": checked, "rows": rows})
    print(f"\n{hardware('cpu')}, {arguments.threads} threads, torch {torch.__version__}")
    if arguments.json:
        report = {"settings": {**vars(arguments), "json": str(arguments.json), "scratch": str(arguments.scratch)}}
        report |= {"results": reports, "hardware": hardware("cpu"), "versions": versions()}
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, nargs="+", default=[10_000, 100_000], help="default: %(default)s")
    parser.add_argument("--engines", type=names, default=list(ENGINES), help=f"of {','.join(ENGINES)} (default: all)")
    parser.add_argument("--queries", type=int, default=1000, help="default: %(default)s")
    parser.add_argument("--checked", type=int, help="queries that are also searched exhaustively (default: 50 to 200)")
    parser.add_argument("--threads", type=int, default=usable_cores(), help="default: all cores")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument(
        "--scratch", type=Path, help="folder for the indexes, which are deleted (default: the system's)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    return parser.parse_args()


def names(text: str) -> list[str]:
    """Engines, with commas between."""
    chosen = text.split(",")
    if unknown := set(chosen) - ENGINES.keys():
        raise argparse.ArgumentTypeError(f"no such engine: {', '.join(sorted(unknown))}")
    return chosen


def measured(name: str, task: Task, best: list[list[int]]) -> dict[str, Any]:
    """The figures of an engine; only what is missing, where a package is."""
    kind, _ = ENGINES[name]
    missing = [package for package in kind.packages if importlib.util.find_spec(package) is None]
    if missing:
        return {"missing": missing}
    folder = task.scratch / name
    if kind.stored:
        figures = in_own_process(build, name, task)
        drop_from_cache(folder)
        figures |= in_own_process(search, name, task)
        shutil.rmtree(folder)
    else:
        figures = in_own_process(build_and_search, name, task)
    return figures | found(figures.pop("hits"), task, best)


def build(name: str, task: Task) -> dict[str, Any]:
    """Insertion rate and size."""
    engine = _engine(name, task)
    engine.build(task.drawn())
    # What is allocated, not what the files could hold.
    size = sum(file.lstat().st_blocks * 512 for file in engine.folder.rglob("*") if file.is_file())
    return {"inserted_per_second": task.windows / engine.inserting, "bytes_per_window": size / task.windows}


def search(name: str, task: Task) -> dict[str, Any]:
    """Opens what `build` has left, and searches."""
    engine = _engine(name, task)
    started = time.perf_counter()
    engine.open()
    opened = time.perf_counter() - started
    return {"open_ms": opened * 1000, **timed(engine, task)}


def build_and_search(name: str, task: Task) -> dict[str, Any]:
    engine = _engine(name, task)
    engine.build(task.drawn())
    inserted = None if engine.slow else task.windows / engine.inserting
    return {"inserted_per_second": inserted, **timed(engine, task)}


def timed(engine: Engine, task: Task) -> dict[str, Any]:
    """Milliseconds of the queries, of each stage the median, and what was found."""
    texts = task.texts()
    times, stages, hits = [], [], []
    for number in range(min(FEW, task.queries) if engine.slow else task.queries):
        if number == 1:
            read_all(engine.folder)
        text = texts.select(slice(number, number + 1))
        started = time.perf_counter()
        hits.append(engine.search(text))
        times.append((time.perf_counter() - started) * 1000)
        stages.append(dict(engine.stages))
    return {
        "first_ms": times[0],
        "p50_ms": float(np.quantile(times[1:], 0.5)),
        "p95_ms": float(np.quantile(times[1:], 0.95)),
        "min_ms": min(times),
        "stages_ms": {stage: float(np.median([s[stage] for s in stages])) * 1000 for stage in stages[0]},
        "memory_gb": memory(),
        "hits": hits,
    }


def exhaustive(task: Task) -> list[list[int]]:
    """The `TOP` windows of each checked query by the exact score of the float32 originals."""
    texts = task.texts().select(slice(task.checked))
    best = (torch.empty(task.checked, 0), torch.empty(task.checked, 0, dtype=torch.long))
    for some in pieces(task.drawn()):
        scores = blockwise_similarity(texts, some.features, LEVEL_WEIGHTS).combined
        top, first = torch.topk(scores, min(TOP, len(some))), int(some.names[0])
        values, rows = torch.cat([best[0], top.values], 1), torch.cat([best[1], top.indices + first], 1)
        order = torch.topk(values, min(TOP, values.shape[1])).indices
        best = (values.gather(1, order), rows.gather(1, order))
    return best[1].tolist()


def found(hits: list[list[int]], task: Task, best: list[list[int]]) -> dict[str, float]:
    """How the hits compare with those of the exhaustive search, and with what was asked for."""
    pairs = list(zip(hits, best, strict=False))
    overlap = sum(len(set(some) & set(right)) for some, right in pairs) / sum(len(right) for _, right in pairs)
    own = [bool(some) and some[0] == row for some, row in zip(hits, task.rows(), strict=False)]
    return {"overlap": overlap, "recall_at_1": sum(own) / len(own), "asked": len(own)}


HEADER = (
    f"{'engine':13s}{'insert/s':>9s}{'KB each':>9s}{'open ms':>9s}{'first ms':>9s}"
    f"{'p50 ms':>8s}{'p95 ms':>8s}{'overlap':>9s}{'R@1 %':>7s}{'own GB':>8s}{'mapped':>8s}  stages, median ms"
)


def table_row(row: dict[str, Any]) -> str:
    """One engine."""
    if "missing" in row:
        return f"{row['engine']:13s}not installed: {', '.join(row['missing'])}"
    kilobytes = row["bytes_per_window"] / 1000 if "bytes_per_window" in row else None
    own, mapped = row["memory_gb"]
    cells = [
        _cell(row["inserted_per_second"], 9, 0),
        _cell(kilobytes, 9, 2),
        _cell(row.get("open_ms"), 9, 1),
        _cell(row["first_ms"], 9, 1),
        _cell(row["p50_ms"], 8, 1),
        _cell(row["p95_ms"], 8, 1),
        _cell(row["overlap"], 9, 4),
        _cell(None if row["asked"] == FEW else 100 * row["recall_at_1"], 7, 1),  # of so few it says nothing
        _cell(own, 8, 2),
        _cell(mapped, 8, 2),
    ]
    stages = ", ".join(f"{stage} {ms:.1f}" for stage, ms in row["stages_ms"].items())
    return f"{row['engine']:13s}{''.join(cells)}  {stages}"


def _cell(value: float | None, width: int, digits: int) -> str:
    return "-".rjust(width) if value is None else f"{value:{width},.{digits}f}"


def _engine(name: str, task: Task) -> Engine:
    kind, variant = ENGINES[name]
    return kind(task.scratch / name, variant)


def in_own_process(work: Callable, *arguments: Any) -> Any:
    """What `work` returns in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_run, work, arguments).result()


@torch.inference_mode()
def _run(work: Callable, arguments: tuple) -> Any:
    (task,) = (argument for argument in arguments if isinstance(argument, Task))
    torch.set_num_threads(task.threads)
    return work(*arguments)


if __name__ == "__main__":
    sys.exit(main())
