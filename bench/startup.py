"""Time and memory until there is a model: importing the package, and loading a model of CLIP ViT-B/32's size.

    python bench/startup.py [--repeats 5] [--threads N] [--out JSON]

Every measurement runs in a process of its own; the ways take turns, so that a busy machine is busy for all of them, and
the best of the repeats counts. Weights are random, made on the spot, and read from a warm disk. Three rows:

import   old: `import transformers`; new: `import hcmi`, and both. New may take 50 ms more than old.
classes  old: `from transformers import CLIPModel`; new: that and `from hcmi import HCMIModel`.
load     old: `CLIPModel.from_pretrained`; new: `HCMIModel.from_pretrained` of HCMI around that CLIP, the classes being
         imported; limit: the latter's file read with safetensors, nothing else. New may take 1.2 times old, in time and
         memory. from_pretrained maps the file and reads nothing, so every weight is read once within the time.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

SLOWER_IMPORT_SECONDS = 0.05
LOADING_FACTOR = 1.2

IMPORTS = {"old": "import transformers", "new": "import hcmi", "both": "import transformers, hcmi"}
"""What is imported."""

CLASSES = {
    "old": "from transformers import CLIPModel",
    "new": "from transformers import CLIPModel; from hcmi import HCMIModel",
}
"""What is imported."""

LOADERS = {
    "old": ("CLIPModel.from_pretrained(folder).state_dict()", "clip"),
    "new": ("HCMIModel.from_pretrained(folder).state_dict()", "hcmi"),
    "limit": ("load_file(folder + '/model.safetensors')", "hcmi"),
}
"""What gives the weights, and the folder that it reads."""

PROGRAM = """
import json, resource, sys, time
folder = sys.argv[1]
{before}
started, cpu_started = time.perf_counter(), time.process_time()
{timed}
seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
{after}
print(json.dumps(dict(seconds=seconds, cpu_seconds=cpu_seconds, gigabytes=peak_gigabytes)))
"""

READ_ALL = "sink = [float(tensor.float().sum()) for tensor in {weights}.values()]"

PEAK = """
# Not getrusage's, which begins with what the starting process had.
try:
    line = next(line for line in open("/proc/self/status") if line.startswith("VmHWM:"))
    peak_gigabytes = int(line.split()[1]) * 1024 / 1e9
except OSError:
    peak_gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--out", type=Path, metavar="JSON", help="write the figures to this file")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        parameters = write_models(Path(folder))
        rows = {
            "import": measure(import_programs(IMPORTS), arguments.repeats, arguments.threads),
            "classes": measure(import_programs(CLASSES), arguments.repeats, arguments.threads),
            "load": measure(load_programs(folder), arguments.repeats, arguments.threads),
        }
    verdicts = judge(rows)
    for name, row in rows.items():
        print(table_row(name, row), flush=True)
    for verdict, kept in verdicts.items():
        print(f"{'kept    ' if kept else 'MISSED  '} {verdict}")
    from hcmi.train.results import hardware, versions

    print(f"{hardware('cpu')}, {arguments.threads} threads, parameters {parameters}")
    if arguments.out:
        report = {"settings": {**vars(arguments), "out": str(arguments.out)}, "parameters": parameters, "rows": rows}
        report |= {"targets": verdicts, "hardware": hardware("cpu"), "versions": versions()}
        arguments.out.write_text(json.dumps(report, indent=2) + "\n")
    return 0 if all(verdicts.values()) else 1


def write_models(folder: Path) -> dict[str, int]:
    """`clip` and `hcmi` in `folder`, with random weights; their numbers of parameters."""
    import torch
    from transformers import CLIPConfig, CLIPModel

    from hcmi import HCMIConfig, HCMIModel

    torch.manual_seed(0)
    made = {"clip": CLIPModel(CLIPConfig()), "hcmi": HCMIModel(HCMIConfig())}
    for name, model in made.items():
        model.save_pretrained(folder / name)
    return {name: model.num_parameters() for name, model in made.items()}


def import_programs(statements: dict[str, str]) -> dict[str, tuple[str, str]]:
    """Program and its folder, by way."""
    return {way: (PROGRAM.format(before="", timed=code, after=PEAK), "") for way, code in statements.items()}


def load_programs(folder: str) -> dict[str, tuple[str, str]]:
    """Program and its folder, by way."""
    before = "import torch; from safetensors.torch import load_file; " + CLASSES["new"]
    return {
        way: (
            PROGRAM.format(before=before, timed=READ_ALL.format(weights=weights), after=PEAK),
            str(Path(folder, model)),
        )
        for way, (weights, model) in LOADERS.items()
    }


def measure(programs: dict[str, tuple[str, str]], repeats: int, threads: int) -> dict[str, dict[str, float]]:
    """The least of each program's seconds, CPU seconds and gigabytes in so many runs, after one to warm the disk."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    best: dict[str, dict[str, float]] = {}
    for repeat in range(repeats + 1):
        for way, (program, folder) in programs.items():
            # -P: `import hcmi` is to find the installed package, not a folder of that name here.
            command = [sys.executable, "-P", "-c", program, folder]
            done = subprocess.run(command, capture_output=True, text=True, env=environment)
            if done.returncode:
                raise SystemExit(f"{way} fails:\n{done.stderr}")
            found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
            if repeat > 0:
                earlier = best.get(way, found)
                best[way] = {name: min(earlier[name], value) for name, value in found.items()}
    return best


def judge(rows: dict[str, dict[str, dict[str, float]]]) -> dict[str, bool]:
    """Each target with what was measured, and whether it is kept."""
    imported, loaded = rows["import"], rows["load"]
    verdicts = {}
    for way in ("new", "both"):
        more = imported[way]["seconds"] - imported["old"]["seconds"]
        target = f"at most {SLOWER_IMPORT_SECONDS * 1000:.0f} ms more than {IMPORTS['old']}"
        verdicts[f"{IMPORTS[way]}: {more * 1000:+.0f} ms ({target})"] = more <= SLOWER_IMPORT_SECONDS
    for quantity, name in (("seconds", "time"), ("gigabytes", "memory")):
        factor = loaded["new"][quantity] / loaded["old"][quantity]
        verdicts[f"loading: {factor:.2f} x CLIPModel's {name} (at most {LOADING_FACTOR})"] = factor <= LOADING_FACTOR
    return verdicts


def table_row(name: str, row: dict[str, dict[str, float]]) -> str:
    """One line: old, new and limit side by side."""
    cells = [
        f"{way} {found['seconds']:6.3f} s (CPU {found['cpu_seconds']:.3f}), peak {found['gigabytes']:.2f} GB"
        for way, found in row.items()
    ]
    return f"{name:8s} {'   '.join(cells)}"


if __name__ == "__main__":
    sys.exit(main())
