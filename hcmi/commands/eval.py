"""Measure saved models on a split of a benchmark: retrieval in both directions on every level, and moments where the
benchmark has them.

One model: a table, and a JSON file with the protocol, the counts and the versions.

  hcmi eval runs/mine/model --benchmark shape_stories --split test

Several (checkpoints, or seeds of one): one table with their mean and deviation, and beside it what others have
published. A finished result, the .json file of a training run or of an earlier measurement, may stand for a model.

  hcmi eval runs/seed-0/model runs/seed-1/model runs/seed-2/result.json --benchmark msrvtt --annotations msrvtt

They go into one folder: comparison.md, comparison.json, recall_curves.png and a JSON file of each model measured.
"""

import argparse
import os
import random
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hcmi.train.data.benchmarks import BENCHMARKS, SPLITS, load_benchmark, read_annotations

from .benchmark_options import add_benchmark_options, benchmark_place
from .numbers import not_negative, positive

_DTYPES = ("auto", "float32", "bfloat16", "float16")
_POST_PROCESSING = ("dsl", "qb_norm")
BANK_SIZE = 5000
"""Training captions that QB-Norm normalises with."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `hcmi eval`."""
    parser.add_argument(
        "models",
        metavar="MODEL",
        nargs="+",
        help="folder or Hub name of an HCMI model with its processor, or a .json file with a finished result",
    )
    parser.add_argument(
        "--benchmark", choices=sorted(BENCHMARKS), help="default: shape_stories; of finished results alone: theirs"
    )
    parser.add_argument("--split", choices=SPLITS, help="default: test; of finished results alone: theirs")
    add_benchmark_options(parser)
    parser.add_argument("--frames", type=positive, metavar="N", help="frames a video (default: the processor's)")
    parser.add_argument(
        "--max-words", type=positive, metavar="N", help="tokens a text, longer ones are cut (default: the tokenizer's)"
    )
    parser.add_argument(
        "--post-processing",
        nargs="+",
        choices=_POST_PROCESSING,
        default=[],
        help="measure also with dual softmax (dsl), or normalised by training captions (qb_norm); the plain numbers "
        "stand beside it. After the models (default: none)",
    )
    parser.add_argument("--batch-size", type=positive, default=32, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--num-workers",
        type=not_negative,
        default=min(8, os.cpu_count() or 1),
        metavar="N",
        help="processes that decode videos, 0 for none of their own (default here: %(default)s)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, … (default: a GPU if there is one)")
    parser.add_argument("--dtype", choices=_DTYPES, default="auto", help="of the model (default: as it was saved)")
    parser.add_argument(
        "--out",
        metavar="PATH",
        help="of one model the JSON file (default: eval_BENCHMARK_SPLIT.json in its folder; for one of the Hub here, "
        "with its name); of several the folder (default: eval_BENCHMARK_SPLIT here). --protocol adds to default names",
    )


def run(arguments: argparse.Namespace) -> int:
    """
    Runs `hcmi eval`.

    Raises:
        ValueError: a model that cannot be measured, or models and results that cannot be compared with each other.
        VideoReadError: a video cannot be read.
    """
    from hcmi.train.comparison import identities, refuse_different, short_names
    from hcmi.train.results import format_result, load_result, save_result

    names = arguments.models
    if repeated := [name for name, count in Counter(map(os.path.normpath, names)).items() if count > 1]:
        raise ValueError(f"{repeated[0]} is named more than once: it would count more than once in the mean")
    results = {name: load_result(name) for name in names if name.endswith(".json")}
    models = [name for name in names if name not in results]
    known = {"the command line": _asked(arguments, bool(models)), **identities(results)}
    refuse_different(known)
    facts = known["the command line"] if models else known[names[0]]
    labels = dict(zip(names, short_names(names), strict=True))
    out = _out(arguments, f"{facts['benchmark']}_{facts['split']}")

    files = []
    for name, result in _measure(arguments, models, known):
        results[name] = result
        refuse_different(known | identities(results))
        several = out / f"{names.index(name) + 1}_{labels[name].replace('/', '_')}.json"
        files.append(save_result(result, several if len(names) > 1 else out))
    if len(names) > 1:
        files += _compare({labels[name]: results[name] for name in names}, out)
    else:
        print(format_result(results[names[0]]))
    for file in files:
        print(f"written: {file}")
    return 0


def _asked(arguments: argparse.Namespace, measuring: bool) -> dict[str, Any]:
    """What the command line says about the results, by the names of `comparison.identities`."""
    if measuring:
        # No defaults of the options themselves: beside finished results alone they would contradict theirs.
        arguments.benchmark = arguments.benchmark or "shape_stories"
        arguments.split = arguments.split or "test"
        asked = {"post-processing": " ".join(sorted(set(arguments.post_processing))) or "none"}
    else:
        asked = {}
    named = {name: getattr(arguments, name) for name in ("benchmark", "split", "protocol")}
    return asked | {name: value for name, value in named.items() if value is not None}


def _measure(
    arguments: argparse.Namespace, models: Sequence[str], known: dict[str, dict[str, Any]]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each model's name and complete result; the data set is checked against what is `known` of finished ones first."""
    if not models:
        return
    from hcmi.processing import HCMIProcessor
    from hcmi.train.comparison import refuse_different
    from hcmi.train.data.benchmark_info import benchmark_info
    from hcmi.train.saved_models import find_device

    device = find_device(arguments.device)
    # Before anything else: a mistyped name is told before a benchmark is read, or a model measured for hours.
    processors = {name: HCMIProcessor.from_pretrained(name) for name in models}
    dataset: Any = load_benchmark(arguments.benchmark, arguments.split, **benchmark_place(arguments))
    info = benchmark_info(dataset)
    print(info, file=sys.stderr)
    counts = {"protocol": info.protocol, "number of videos": info.videos, "number of texts": info.captions}
    refuse_different(known | {"the data set": counts})
    bank = _bank(arguments) if "qb_norm" in arguments.post_processing else None
    for number, (name, processor) in enumerate(processors.items(), 1):
        if len(arguments.models) > 1:
            print(f"model {number} of {len(models)}: {name}", file=sys.stderr)
        yield name, _measure_one(arguments, name, processor, dataset, bank, device)


def _measure_one(
    arguments: argparse.Namespace, name: str, processor: Any, dataset: Any, bank: list[str] | None, device: Any
) -> dict[str, Any]:
    from hcmi.train.data.benchmark_info import benchmark_info
    from hcmi.train.evaluation import evaluate
    from hcmi.train.results import complete_result
    from hcmi.train.saved_models import load_whole_model, training_seed

    model = load_whole_model(name, device, arguments.dtype)
    measured = evaluate(
        model,
        processor,
        dataset,
        batch_size=arguments.batch_size,
        num_workers=arguments.num_workers,
        num_frames=arguments.frames,
        max_words=arguments.max_words,
        post_processing=tuple(arguments.post_processing),
        bank_texts=bank,
    )
    return complete_result(
        measured,
        model=name,
        info=benchmark_info(dataset),
        seed=training_seed(name),
        device=model.device,
        dtype=model.dtype,
    )


def _bank(arguments: argparse.Namespace) -> list[str]:
    """`BANK_SIZE` different training captions, or all there are; the same ones at every call."""
    annotations, _ = BENCHMARKS[arguments.benchmark].code.places(arguments.annotations, arguments.videos)
    training = read_annotations(arguments.benchmark, "train", annotations, arguments.protocol)
    captions = list(dict.fromkeys(caption for annotation in training for caption in annotation.captions))
    return random.Random(0).sample(captions, min(BANK_SIZE, len(captions)))


def _out(arguments: argparse.Namespace, name: str) -> Path:
    """The result file of one model, the folder of several; what cannot be that is told before anything is measured."""
    name = f"{name}_{arguments.protocol}" if arguments.protocol else name
    if len(arguments.models) > 1:
        folder = Path(arguments.out or f"eval_{name}")
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    (model,) = arguments.models
    if arguments.out:
        if os.path.isdir(arguments.out) or model.endswith(".json"):
            raise ValueError(f"--out {arguments.out}: of one model it is the result file; a finished one is only shown")
        return Path(arguments.out)
    return (
        Path(model) / f"eval_{name}.json"
        if os.path.isdir(model)
        else Path(f"eval_{model.replace('/', '_')}_{name}.json")
    )


def _compare(results: Mapping[str, dict[str, Any]], folder: Path) -> list[Path]:
    """Prints the comparison and writes it; the files."""
    from hcmi.train.comparison import compare
    from hcmi.train.comparison_tables import format_comparison, markdown_comparison
    from hcmi.train.recall_curves import draw_recall_curves
    from hcmi.train.results import save_result

    comparison = compare(results)
    print(format_comparison(comparison), end="\n\n")
    picture, markdown = folder / "recall_curves.png", folder / "comparison.md"
    title = f"{comparison['benchmark']}, {comparison['split']} split, protocol {comparison['protocol']}"
    draw_recall_curves(comparison["recall_curves"], picture, title)
    markdown.write_text(markdown_comparison(comparison, picture.name), encoding="utf-8")
    return [save_result(comparison, folder / "comparison.json"), markdown, picture]
