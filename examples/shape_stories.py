"""The demo, from nothing to found videos: writes the built-in benchmark, trains on it, tests, and asks three questions.

    python examples/shape_stories.py [--output runs/shape_stories] [--seed 0]

Every step is a command that works on its own; it is printed before it runs.
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/shape_stories"), help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the training; default: %(default)s")
    arguments = parser.parse_args()
    # Quiet where nobody can act on it: launch defaults, and the progress bars of loading a few small files.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    started = time.perf_counter()

    print("1/4  the benchmark: short stories of coloured shapes, as MP4 files with captions", flush=True)
    from hcmi.train.data.shape_stories import default_folder, write_shape_stories

    data = write_shape_stories(default_folder())
    queries = three_queries(data)

    print("\n2/4  training, validation after each epoch, and the test", flush=True)
    run = arguments.output
    launch = [BIN / "accelerate", "launch", "--num_processes", "1", "--num_machines", "1", "--mixed_precision", "no"]
    launch += ["--dynamo_backend", "no", "train/run.py", "--config", "train/configs/shape_stories.yaml"]
    call([*launch, "--annotations", data, "--output", run.resolve(), "--seed", arguments.seed])

    print("\n3/4  three questions to the 300 test videos", flush=True)
    found, sheet = run / "found.json", run / "contact_sheet.png"
    find = [BIN / "hcmi", "find", *queries, "--model", run.resolve() / "model", "--videos", data / "videos" / "test"]
    call([*find, "--top", 3, "--json", found.resolve(), "--contact-sheet", sheet.resolve()])

    print("\n4/4  summary")
    summarise(run, data, time.perf_counter() - started)
    return 0


def three_queries(data: Path) -> list[str]:
    """Captions of test videos: one, two and three events long."""
    rows = [json.loads(line) for line in (data / "test.jsonl").read_text().splitlines()]
    return [next(row["captions"][0] for row in rows if len(row["events"]) == count) for count in (1, 2, 3)]


def call(command: list) -> None:
    """Runs a command in the repository's folder, after printing it; ends the demo where it fails."""
    words = [str(word) for word in command]
    print("$ " + shlex.join([Path(words[0]).name, *words[1:]]), flush=True)
    status = subprocess.run(words, cwd=ROOT).returncode
    if status:
        sys.exit(status)


def summarise(run: Path, data: Path, seconds: float) -> None:
    """What was measured and where everything is."""
    result = json.loads((run / "result.json").read_text())
    recall = {level: values["text_to_video"] for level, values in result["levels"].items()}
    combined = recall["combined"]
    moments = result["moments"]["videos_with_several_events"]
    low, high = combined["R@1_95"]
    print(
        f"text to video on {result['counts']['videos']} test videos, {result['counts']['texts']} captions "
        f"(chance R@1 {100 / result['counts']['videos']:.2f} %):\n"
        f"  R@1 {combined['R@1']:.1f} % (95 % interval {low:.1f} to {high:.1f}), R@5 {combined['R@5']:.1f} %, "
        f"R@10 {combined['R@10']:.1f} %, median rank {combined['MdR']:g}\n"
        f"  R@1 by level: "
        + ", ".join(f"{level} {recall[level]['R@1']:.1f}" for level in recall if level != "combined")
    )
    print(
        f"moments in videos with several events: mean IoU {moments['predicted']['mIoU']:.1f} % "
        f"(whole video {moments['whole_video']['mIoU']:.1f} %, random span {moments['random_span']['mIoU']:.1f} %)"
    )
    paths = {
        "videos and captions": data,
        "model": run / "model",
        "result": run / "result.json",
        "training curves": run / "curves.png",
        "answers": run / "found.json",
        "contact sheet": run / "contact_sheet.png",
    }
    width = shutil.get_terminal_size().columns
    print("-" * min(width, 100))
    for name, path in paths.items():
        print(f"  {name:20} {path}")
    print(f"done in {seconds / 60:.1f} minutes")


if __name__ == "__main__":
    sys.exit(main())
