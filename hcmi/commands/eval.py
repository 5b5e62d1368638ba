"""Measure a saved model on a split of a benchmark: retrieval in both directions on every level, and moments where the
benchmark has them. Prints a table and writes a JSON file with the protocol, the counts and the versions.

  hcmi eval runs/shape_stories --benchmark shape_stories --split test
"""

import argparse
import os
from pathlib import Path
from typing import Any

from hcmi.train.data.benchmarks import BENCHMARKS, SPLITS, load_benchmark

_DTYPES = ("auto", "float32", "bfloat16", "float16")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `hcmi eval`."""
    parser.add_argument("model", metavar="MODEL", help="folder or Hub name of an HCMI model with its processor")
    parser.add_argument("--benchmark", choices=sorted(BENCHMARKS), default="shape_stories", help="default: %(default)s")
    parser.add_argument("--split", choices=SPLITS, default="test", help="default: %(default)s")
    parser.add_argument("--data", metavar="FOLDER", help="the benchmark's folder (default: its own in the cache)")
    parser.add_argument("--frames", type=_positive, metavar="N", help="frames a video (default: the processor's)")
    parser.add_argument(
        "--max-words", type=_positive, metavar="N", help="tokens a text, longer ones are cut (default: the tokenizer's)"
    )
    parser.add_argument("--batch-size", type=_positive, default=32, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--num-workers",
        type=_not_negative,
        default=min(8, os.cpu_count() or 1),
        metavar="N",
        help="processes that decode videos, 0 for none of their own (default here: %(default)s)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, … (default: a GPU if there is one)")
    parser.add_argument("--dtype", choices=_DTYPES, default="auto", help="of the model (default: as it was saved)")
    parser.add_argument(
        "--out",
        metavar="JSON",
        help="the result file (default: eval_BENCHMARK_SPLIT.json in the model's folder; here for a model of the Hub)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs `hcmi eval`."""
    from hcmi.train.evaluation import evaluate
    from hcmi.train.results import complete_result, format_result, save_result

    # The model first: a mistyped name is told before a benchmark is read, or the built-in one written.
    model, processor = _load(arguments.model, arguments.device, arguments.dtype)
    dataset = load_benchmark(arguments.benchmark, arguments.split, arguments.data)
    measured = evaluate(
        model,
        processor,
        dataset,
        batch_size=arguments.batch_size,
        num_workers=arguments.num_workers,
        num_frames=arguments.frames,
        max_words=arguments.max_words,
    )
    result = complete_result(
        measured,
        model=arguments.model,
        benchmark=arguments.benchmark,
        split=arguments.split,
        protocol=BENCHMARKS[arguments.benchmark].protocol,
        seed=None,
        device=model.device,
        dtype=model.dtype,
    )
    print(format_result(result))
    print(f"written: {save_result(result, arguments.out or _default_out(arguments))}")
    return 0


def _load(name: str, device: str, dtype: str) -> tuple[Any, Any]:
    import torch

    from hcmi.modeling_hcmi import HCMIModel
    from hcmi.processing import HCMIProcessor

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch_device = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"--device {device}: {error}") from error
    processor = HCMIProcessor.from_pretrained(name)
    loaded: Any = HCMIModel.from_pretrained(name, dtype=dtype, output_loading_info=True)
    model, loading = loaded
    if missing := sorted(loading["missing_keys"]):
        raise ValueError(
            f"{name} lacks {len(missing)} weights of HCMIModel (first: {missing[0]}): random ones are not measured. "
            "HCMIModel.from_clip_pretrained starts from a CLIP checkpoint."
        )
    return model.to(torch_device), processor


def _default_out(arguments: argparse.Namespace) -> Path:
    name = f"{arguments.benchmark}_{arguments.split}.json"
    if os.path.isdir(arguments.model):
        return Path(arguments.model) / f"eval_{name}"
    return Path(f"eval_{arguments.model.replace('/', '_')}_{name}")


def _positive(text: str) -> int:
    number = _not_negative(text)
    if number == 0:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _not_negative(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None
    if number < 0:
        raise argparse.ArgumentTypeError("must not be negative")
    return number
