"""
A trained model, and test videos of the built-in benchmark that it has never seen.

The demo's own model where `make demo` has run in this checkout. Otherwise one that is trained by the demo's recipe on
fewer videos, in smaller batches: about three minutes of one core, once, as long as neither the recipe nor the model's
code changes. It is kept with what pytest keeps; `pytest --cache-clear` removes it.
"""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

from filelock import FileLock

from hcmi.train.data.shape_stories import write_shape_stories

_ROOT = Path(__file__).parents[2]
_DEMO = _ROOT / "runs" / "shape_stories"
_KEPT = _ROOT / ".pytest_cache" / "d" / "demo_model"
_RECIPE = _ROOT / "train" / "configs" / "shape_stories.yaml"
_SHAPE = _ROOT / "train" / "configs" / "shape_stories_model.json"
_SIZES = {"train": 2000, "validation": 60, "test": 300}
"""As many test videos as the real benchmark has: then they are the same ones, and in nobody's training split."""
_BUDGET = {"epochs": 9, "batch_size": 32, "learning_rate": 7e-4, "tower_learning_rate": 7e-4, "cpu_threads": 1}
"""One thread: beside other tests, two wait for each other most of the time."""


@cache
def demo_model() -> Path:
    """The model's folder. It lies in that of its run, with the result and the arguments."""
    if (_DEMO / "result.json").is_file():
        return _DEMO / "model"
    run = _KEPT / f"run-{_fingerprint()}"
    with FileLock(_made(_KEPT) / "training.lock"):
        if not (run / "result.json").is_file():
            for old in _KEPT.glob("run-*"):
                shutil.rmtree(old)
            _train(run)
    return run / "model"


@cache
def demo_stories() -> Path:
    """The benchmark's folder: `test.jsonl`, and the videos `videos/test/*.mp4`."""
    sizes = {"test": _SIZES["test"]} if (_DEMO / "result.json").is_file() else _SIZES
    with FileLock(_made(_KEPT) / "videos.lock"):
        return write_shape_stories(_KEPT / f"stories-{sum(sizes.values())}", sizes=sizes, progress=False)


def ten_stories() -> dict[str, str]:
    """
    Ten test videos that differ clearly, each with a caption: the first ones that tell three events or more in two
    colours, no two of them in the same two.
    """
    chosen: dict[frozenset[str], tuple[str, str]] = {}
    for line in (demo_stories() / "test.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        caption = row["captions"][0]
        colours = frozenset(re.findall("red|green|blue|yellow|purple|white", caption.replace("violet", "purple")))
        if len(row["events"]) > 2 and len(colours) == 2:
            chosen.setdefault(colours, (str(demo_stories() / row["video"]), caption))
    return dict(list(chosen.values())[:10])


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _fingerprint() -> str:
    """Of everything that decides what the model is and whether it loads."""
    code = (*sorted((_ROOT / "modeling_hcmi").glob("*.py")), *sorted((_ROOT / "processing").glob("*.py")))
    contents = b"".join(file.read_bytes() for file in (*code, _RECIPE, _SHAPE, Path(__file__)))
    return hashlib.sha256(contents).hexdigest()[:12]


def _train(run: Path) -> None:
    options = {"config": _RECIPE, "annotations": demo_stories(), "output": run, "tracker": "none", **_BUDGET}
    words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    done = subprocess.run(
        [sys.executable, _ROOT / "train" / "run.py", *words],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    shutil.rmtree(run / "checkpoints")
