"""Long videos of known parts: those that the built-in generator writes, one after another."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from hcmi.train.data.shape_stories import load_shape_stories, write_shape_stories


def bench_windows() -> ModuleType:
    """The script bench/windows.py, which stitches."""
    path = Path(__file__).parents[2] / "bench" / "windows.py"
    specification = importlib.util.spec_from_file_location("bench_windows", path)
    module = sys.modules["bench_windows"] = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


stitch = bench_windows().stitch


def stories(folder: Path, count: int) -> list[dict[str, Any]]:
    """The generator's test split with so many videos; each row has its `video`, `captions` and `events`."""
    write_shape_stories(folder, sizes={"test": count}, workers=1, progress=False)
    return list(load_shape_stories(folder, "test"))
