"""What each part of HCMI brings on the built-in benchmark: the same budget and seeds for every variant.

    python bench/ablation.py [--output runs/ablation] [--seeds 0 1 2] [--epochs N] [--threads N] [--parallel N]

Trains every variant with every seed through `hcmi train`, then prints a table of test R@1 with mean and standard
deviation, and writes it as JSON and Markdown. A run whose result is there already is not repeated, so an interrupted
ablation goes on where it stopped.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hcmi.modeling_hcmi import LEVELS

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "train" / "configs" / "shape_stories.yaml"


def variant(*levels: str, denoising: bool = False, marginal: float = 0.0, freeze: str = "") -> dict[str, Any]:
    """Options of `hcmi train` for HCMI with these levels in the loss and at inference, and nothing else of it."""
    weights = {level: float(level in levels) for level in LEVELS}
    overrides = {
        "loss_weights": weights,
        "inference_weights": weights,
        "label_denoising": denoising,
        "marginal_weight": marginal,
    }
    return {"config_overrides": json.dumps(overrides)} | ({"freeze": freeze} if freeze else {})


VARIANTS = {
    # With the hierarchy frozen its residual adds exactly nothing: the mean of CLIP's frames against its sentence.
    "mean-pooled CLIP (as CLIP4Clip)": variant("video_sentence", freeze="hierarchy"),
    "frame-word alone": variant("frame_word"),
    "clip-phrase alone": variant("clip_phrase"),
    "video-sentence alone": variant("video_sentence"),
    "all three levels": variant(*LEVELS),
    "+ label denoising": variant(*LEVELS, denoising=True),
    "+ marginal samples (HCMI)": variant(*LEVELS, denoising=True, marginal=1.0),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/ablation"), help="default: %(default)s")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument("--epochs", type=int, help="of every run; default: those of the demo's configuration")
    parser.add_argument("--data", type=Path, help="the benchmark's folder; default: its own in the cache")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of each run (default: %(default)s)")
    parser.add_argument("--parallel", type=int, default=1, help="runs at a time (default: %(default)s)")
    arguments = parser.parse_args()

    runs = [(name, seed) for seed in arguments.seeds for name in VARIANTS]
    with ThreadPoolExecutor(arguments.parallel) as pool:
        results = dict(zip(runs, pool.map(lambda run: train(*run, arguments), runs), strict=True))
    rows = [row(name, [results[name, seed] for seed in arguments.seeds]) for name in VARIANTS]
    table = markdown(rows)
    print(table)
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "ablation.json").write_text(
        json.dumps({"seeds": arguments.seeds, "rows": rows}, indent=2) + "\n"
    )
    (arguments.output / "ablation.md").write_text(table + "\n")
    return 0


def train(name: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """The result of one run, from its file where it is there."""
    folder = (arguments.output / f"{list(VARIANTS).index(name)}-seed-{seed}").resolve()
    result = folder / "result.json"
    if not result.is_file():
        options = {"config": CONFIG, "output": folder, "seed": seed, "tracker": "none", **VARIANTS[name]}
        options |= {"cpu_threads": arguments.threads}
        options |= {"epochs": arguments.epochs} if arguments.epochs else {}
        options |= {"annotations": arguments.data} if arguments.data else {}
        command = [str(Path(sys.executable).parent / "hcmi"), "train"]
        command += [word for option, value in options.items() for word in (f"--{option}", str(value))]
        folder.mkdir(parents=True, exist_ok=True)
        print(f"{name}, seed {seed}: log in {folder / 'log.txt'}", flush=True)
        with (folder / "log.txt").open("w") as log:
            status = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT).returncode
        if status:
            raise SystemExit(f"{name}, seed {seed}: failed with status {status}; see {folder / 'log.txt'}")
    return json.loads(result.read_text())


def row(name: str, results: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation over seeds of the combined similarity's test figures."""
    figures: dict[str, Any] = {"variant": name, "runs": len(results), "epochs": results[0]["training"]["epochs"]}
    directions = {"text_to_video": ("R@1", "R@5", "MdR"), "video_to_text_group": ("R@1",)}
    for direction, metrics in directions.items():
        for metric in metrics:
            values = [result["levels"]["combined"][direction][metric] for result in results]
            figures[f"{direction} {metric}"] = {"mean": statistics.mean(values), "deviation": deviation(values)}
    values = [result["moments"]["videos_with_several_events"]["predicted"]["mIoU"] for result in results]
    figures["moment IoU"] = {"mean": statistics.mean(values), "deviation": deviation(values)}
    figures["seconds"] = statistics.mean(result["training"]["seconds"] for result in results)
    return figures


def deviation(values: list[float]) -> float:
    """Sample standard deviation; 0 for one value."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table for people."""
    columns = ["text_to_video R@1", "text_to_video R@5", "video_to_text_group R@1", "moment IoU"]
    lines = [
        "| variant | text→video R@1 | R@5 | video→text R@1 | moment IoU |",
        "|---|---|---|---|---|",
    ]
    for figures in rows:
        cells = [f"{figures[column]['mean']:.1f} ± {figures[column]['deviation']:.1f}" for column in columns]
        lines.append(f"| {figures['variant']} | {' | '.join(cells)} |")
    lines.append("")
    lines.append(
        f"Test split of shape_stories; mean ± standard deviation of {rows[0]['runs']} seeds, "
        f"{rows[0]['epochs']} epochs each."
    )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
