"""A result: what was measured, of what, by what and where; as a JSON file and as a table for the terminal."""

import json
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from .cores import usable_cores
from .data.benchmark_info import BenchmarkInfo
from .metrics import DIRECTIONS

_PACKAGES = ("hcmi", "torch", "transformers", "datasets", "accelerate", "av", "numpy")
_DIRECTION_NAMES = dict(
    zip(
        DIRECTIONS,
        ("text -> video", "video -> text (group protocol)", "video -> text (sentence protocol)"),
        strict=True,
    )
)
_POST_PROCESSING_NAMES = {"dsl": "DSL", "qb_norm": "QB-Norm"}
_SPAN_ROWS = {
    "predicted": "moment found",
    "answering_clip": "answering clip",
    "whole_video": "whole video",
    "random_span": "random span",
}


def complete_result(
    measured: Mapping[str, Any],
    *,
    model: str,
    info: BenchmarkInfo,
    seed: int | None,
    device: torch.device | str,
    dtype: torch.dtype | str,
) -> dict[str, Any]:
    """What `evaluation.evaluate` measured, with everything that the numbers mean something by.

    Args:
        measured: the return value of `evaluate`.
        model: name or folder of the model.
        info: of the data set that it was measured on (`benchmark_info`).
        seed: that the model was trained with; None: not known.
        device, dtype: where and in which precision the model ran.

    Returns:
        `measured` and beside it, among others: `protocol` and `protocol_description`; `expected`, [lowest, highest]
        number of `videos` and of `captions` that the protocol wants, None where it fixes none; `missing_videos`; and
        `complete`, whether the numbers are of the whole benchmark: nothing is missing, the counts are as expected, and
        all of it was measured.
    """
    counts = measured["counts"]
    whole = (counts["videos"], counts["texts"]) == (info.videos, info.captions)
    return {
        "benchmark": info.benchmark,
        "split": info.split,
        "protocol": info.protocol,
        "protocol_description": info.description,
        "expected": {
            "videos": info.expected_videos and list(info.expected_videos),
            "captions": info.expected_captions and list(info.expected_captions),
        },
        "missing_videos": info.missing,
        "complete": info.complete and whole,
        "model": model,
        "seed": seed,
        **measured,
        "hardware": hardware(device),
        "dtype": str(dtype).removeprefix("torch."),
        "versions": versions(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def versions() -> dict[str, str]:
    """Python's version and those of the packages that a number may depend on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def hardware(device: torch.device | str) -> str:
    """The device in words: the GPU's name, or the processor's with the number of usable cores."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    processor = f"{_processor_name()}, {usable_cores()} cores"
    return processor if device.type == "cpu" else f"{device.type} beside {processor}"


def save_result(result: Mapping[str, Any], path: str | os.PathLike) -> Path:
    """Writes a result as JSON, whole or not at all; missing folders are made.

    Raises:
        ValueError: a number is NaN or infinite, which JSON does not have.
        OSError: the file cannot be written.
    """
    path = Path(path)
    text = json.dumps(result, indent=2, allow_nan=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def load_result(path: str | os.PathLike) -> dict[str, Any]:
    """Reads what `save_result` wrote.

    Raises:
        ValueError: the file is no result.
        OSError: the file cannot be read.
    """
    try:
        result = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no result file: {error}") from error
    if not isinstance(result, dict) or "levels" not in result:
        raise ValueError(f"{path} is no result file: it has no levels")
    return result


def format_result(result: Mapping[str, Any]) -> str:
    """A readable table of a complete result: what was measured on what, every level in both directions with what
    post-processing makes of it, and moments.
    """
    lines = _head(result)
    counts, levels = result["counts"], result["levels"]
    directions = list(DIRECTIONS)
    if counts["texts"] == counts["videos"] == levels["combined"][directions[1]]["queries"]:
        directions.pop()  # one text a video: both protocols are the same
    for direction in directions:
        rows = {level: numbers[direction] for level, numbers in levels.items()}
        for name, processed in result["post_processing"].items():
            if direction in processed:
                rows[f"combined + {_POST_PROCESSING_NAMES[name]}"] = processed[direction]
        lines += ["", *_direction_table(rows, _DIRECTION_NAMES[direction])]
    if result["post_processing"]:
        lines.append("")
        lines += [f"{_POST_PROCESSING_NAMES[name]}: {own['note']}" for name, own in result["post_processing"].items()]
    if "moments" in result:
        lines += ["", *_moments_table(result["moments"])]
    lines += ["", f"{result['seconds']['total']:.1f} s on {result['hardware']}, {result['dtype']}"]
    return "\n".join(lines)


def _head(result: Mapping[str, Any]) -> list[str]:
    counts, frames, tokens, expected = (result[key] for key in ("counts", "frames", "tokens", "expected"))
    distinct = "" if counts["distinct_texts"] == counts["texts"] else f", {counts['distinct_texts']} of them distinct,"
    fewer = f" ({frames['videos_with_fewer']} videos have fewer)" if frames["videos_with_fewer"] else ""
    lines = [
        f"{result['benchmark']}, {result['split']} split, {result['model']}",
        f"protocol {result['protocol']}: {result['protocol_description']}",
        f"{counts['videos']} videos{_expected(expected['videos'])} of {frames['per_video']} frames{fewer}; "
        f"{counts['texts']} texts{_expected(expected['captions'])}{distinct} of at most {tokens['max_words']} tokens, "
        f"{tokens['texts_cut']} cut ({tokens['share_cut']:.1f} %)",
        f"post-processing: {_post_processing(result['post_processing'])}",
    ]
    if not result["complete"]:
        missing = f"{result['missing_videos']} videos are missing" if result["missing_videos"] else "the counts differ"
        lines.append(f"*** NOT THE WHOLE BENCHMARK: {missing}. These numbers do not compare with others. ***")
    return lines


def _expected(bounds: list[int] | None) -> str:
    if bounds is None:
        return ""
    low, high = bounds
    return f" (expected: {low})" if low == high else f" (expected: {low}-{high})"


def _post_processing(processed: Mapping[str, Any]) -> str:
    if not processed:
        return "none"
    named = []
    for name, own in processed.items():
        bank = f", a bank of {own['bank_texts']} texts" if "bank_texts" in own else ""
        named.append(f"{_POST_PROCESSING_NAMES[name]} (temperature {own['temperature']:g}{bank})")
    return f"{', '.join(named)}, of the combined scores, beside the plain ones"


def _direction_table(summaries: Mapping[str, Any], name: str) -> list[str]:
    sample = summaries["combined"]
    title = f"{name}: {sample['queries']} queries, {sample['gallery']} to rank"
    recalls = [key for key in sample if key.startswith("R@") and key[2:].isdigit()]
    rows = [["level", *recalls, "MdR", "MnR", "95 % of R@1", "R@1 with ties"]]
    for label, numbers in summaries.items():
        ties = [numbers.get("R@1_pessimistic"), numbers.get("R@1_optimistic")]
        rows.append(
            [
                label,
                *(f"{numbers[key]:.1f}" for key in recalls),
                f"{numbers['MdR']:.1f}",
                f"{numbers['MnR']:.1f}",
                _interval(numbers["R@1_95"]),
                "" if ties[0] is None else _interval(ties),
            ]
        )
    if not any(row[-1] for row in rows[1:]):
        rows = [row[:-1] for row in rows]
    return [title, *_aligned(rows)]


def _moments_table(moments: Mapping[str, Any]) -> list[str]:
    metrics = list(moments["all"]["predicted"])
    titles = [metric.replace("_", " ") for metric in metrics]
    rows = []
    for name, suffix in (("all", ""), ("videos_with_several_events", " with several")):
        if group := moments.get(name):
            rows.append([f"{group['events']} events, {group['videos']} videos{suffix}", *titles])
            rows += [[label, *(f"{group[key][m]:.1f}" for m in metrics)] for key, label in _SPAN_ROWS.items()]
    return [f"moments: the time span that answers {moments['query']}", *_aligned(rows)]


def _interval(bounds: list[float]) -> str:
    return f"{bounds[0]:.1f}-{bounds[1]:.1f}"


def _aligned(rows: list[list[str]]) -> list[str]:
    """The rows as lines: the first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  "
        + "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]


def _processor_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass  # no Linux
    return platform.processor() or platform.machine()
