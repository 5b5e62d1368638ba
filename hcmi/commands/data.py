"""Look after a benchmark's data before hours are spent on it.

  hcmi data check msrvtt --annotations msrvtt --videos videos --decode
  hcmi data prepare msrvtt --annotations msrvtt --videos videos --model openai/clip-vit-base-patch32 --encoding jpeg

check: are all annotations, captions and videos there, in the numbers that the protocol wants? Ends with status 0 only
if they are. prepare: decode every video once and store frames, which training then takes instead of the videos.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from hcmi.train.cores import usable_cores
from hcmi.train.data.benchmarks import BENCHMARKS, SPLITS, load_benchmark, protocols

from .benchmark_options import add_benchmark_options, benchmark_place
from .numbers import positive

# As in hcmi.train.data.frame_encoding, which imports torch: seconds that a help need not wait for.
_ENCODINGS = ("raw", "jpeg")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `hcmi data check` and `hcmi data prepare`."""
    actions = parser.add_subparsers(title="what to do", dest="action", required=True, metavar="check|prepare")
    check = _action(actions, "check", "say what is missing or cannot be read", "all that the protocol has")
    check.add_argument("--decode", action="store_true", help="read frames of every video too")
    check.add_argument(
        "--frames", type=positive, default=12, metavar="N", help="with --decode: of each video (default: %(default)s)"
    )
    check.add_argument("--report", metavar="JSON", help="write everything that was found to this file")

    line = "decode frames of all videos and store them for training"
    prepare = _action(actions, "prepare", line, "train and validation; a test reads the videos")
    prepare.add_argument(
        "--model", required=True, help="a CLIP or HCMI checkpoint, folder or Hub name: the frames get the size it wants"
    )
    prepare.add_argument(
        "--candidates",
        type=positive,
        default=24,
        metavar="N",
        help="frames stored of each video, among which training draws (default: %(default)s)",
    )
    prepare.add_argument(
        "--encoding",
        choices=_ENCODINGS,
        default="raw",
        help="raw: exact; jpeg: nearly, in a fraction of the space (default: %(default)s)",
    )
    prepare.add_argument("--folder", help="where they go (default: where training looks, beside the data set's cache)")


def run(arguments: argparse.Namespace) -> int:
    """
    Runs `hcmi data`.

    Returns:
        0; for a check 1 where something is missing or unreadable.

    Raises:
        ValueError: an unknown protocol or split, a folder that is not there; for `prepare` anything missing.
        VideoReadError: a video to prepare cannot be read.
    """
    return _check(arguments) if arguments.action == "check" else _prepare(arguments)


def _action(actions: Any, name: str, line: str, splits: str) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=line, description=line)
    parser.add_argument("benchmark", metavar="NAME", choices=sorted(BENCHMARKS), help=", ".join(sorted(BENCHMARKS)))
    add_benchmark_options(parser)
    parser.add_argument(
        "--split",
        choices=SPLITS,
        action="append",
        help=f"one split; may be repeated (default: {splits})",
    )
    parser.add_argument(
        "--num-workers",
        type=positive,
        default=usable_cores(),
        metavar="N",
        help="processes that read videos (default here: %(default)s)",
    )
    parser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="as before the verb")
    return parser


def _check(arguments: argparse.Namespace) -> int:
    from hcmi.train.data.check_report import format_check
    from hcmi.train.data.checking import check_benchmark

    place = benchmark_place(arguments)
    if place.pop("allow_missing"):
        raise ValueError("--allow-missing has no meaning here: a check goes on and says what is missing")
    report = check_benchmark(
        arguments.benchmark,
        **place,
        splits=arguments.split,
        decode=arguments.frames if arguments.decode else 0,
        num_workers=arguments.num_workers,
    )
    print(format_check(report))
    if arguments.report:
        path = Path(arguments.report)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"written: {path}")
    return 0 if report["complete"] else 1


def _prepare(arguments: argparse.Namespace) -> int:
    from hcmi.processing import HCMIProcessor, VideoReadError
    from hcmi.train.data.benchmark_info import benchmark_info

    # First the model, whose name may be mistyped, and all splits, of which one may be missing: later takes hours.
    processor = HCMIProcessor.from_pretrained(arguments.model)
    known = protocols(arguments.benchmark)
    protocol = known.get(arguments.protocol, next(iter(known.values())))  # loading tells an unknown one
    splits = arguments.split or [split for split in ("train", "validation") if split in protocol.splits]
    place = benchmark_place(arguments)
    loaded = [load_benchmark(arguments.benchmark, split, **place) for split in dict.fromkeys(splits)]
    for dataset in loaded:
        print(benchmark_info(dataset))
    for dataset in loaded:
        try:
            _prepare_split(dataset, processor, arguments)
        except VideoReadError as error:
            hint = f"`hcmi data check {arguments.benchmark} --decode` names every such video"
            raise VideoReadError(error.name, f"{error.reason}; what is prepared is kept, and {hint}") from error
    return 0


def _prepare_split(dataset: Any, processor: Any, arguments: argparse.Namespace) -> None:
    from tqdm import tqdm

    from hcmi.train.data.benchmark_info import benchmark_info
    from hcmi.train.data.prepared_frames import frame_folder, frame_size, prepare_frames

    folder = Path(arguments.folder) if arguments.folder else frame_folder(dataset)
    folder.mkdir(parents=True, exist_ok=True)
    frame = frame_size(dataset, processor, arguments.candidates, arguments.encoding)
    most = len(dataset) * arguments.candidates * frame
    sizes = [tqdm.format_sizeof(size, "B") for size in (frame, most, shutil.disk_usage(folder).free)]
    print(
        f"{benchmark_info(dataset).split}: {len(dataset):,} videos x {arguments.candidates} frames x {sizes[0]} "
        f"({arguments.encoding}) = up to {sizes[1]}; {sizes[2]} are free in {folder}",
        flush=True,
    )
    prepare_frames(
        dataset,
        processor,
        arguments.candidates,
        folder,
        encoding=arguments.encoding,
        num_workers=arguments.num_workers,
    )
