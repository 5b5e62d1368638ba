"""Which benchmark, split and protocol a data set holds, and whether it holds all of it. Travels with the data set."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Union

if TYPE_CHECKING:  # seconds of import, which a command line that only lists the protocols does not want to wait for
    from datasets import Dataset, IterableDataset

SPLITS = ("train", "validation", "test")
Range = tuple[int, int]
"""Lowest and highest number that is right."""


@dataclass(frozen=True)
class Counts:
    """How many videos and captions a split must have. None: not fixed."""

    videos: Range | None = None
    captions: Range | None = None


@dataclass(frozen=True)
class Protocol:
    """
    A way to measure on a benchmark.

    Attributes:
        description: how its numbers are to be read, in one sentence.
        splits: "train", "validation", "test" -> its counts; only those that the protocol has.
    """

    description: str
    splits: Mapping[str, Counts]


@dataclass(frozen=True)
class BenchmarkInfo:
    """
    What a split of a benchmark holds.

    Attributes:
        benchmark, split, protocol: their names.
        description: how numbers of the protocol are to be read, in one sentence.
        videos, captions: number of those that are there.
        expected_videos, expected_captions: (lowest, highest) number that the protocol wants. None: not fixed.
        missing: videos of the split that were left out, because they have no file or no caption.
    """

    benchmark: str
    split: str
    protocol: str
    description: str
    videos: int
    captions: int
    expected_videos: Range | None = None
    expected_captions: Range | None = None
    missing: int = 0

    @property
    def complete(self) -> bool:
        """Whether nothing is missing and the counts are the protocol's."""
        return not self.missing and not self.wrong_counts

    @property
    def wrong_counts(self) -> list[str]:
        """A phrase for each count that is not the protocol's, with what it should be."""
        counts = (
            ("videos", self.videos, self.expected_videos),
            ("captions", self.captions, self.expected_captions),
        )
        return [
            f"{found:,} {name}, expected {_range(expected)}"
            for name, found, expected in counts
            if expected is not None and not expected[0] <= found <= expected[1]
        ]

    def __str__(self) -> str:
        """One line with names and counts, and what is wrong with them."""
        line = f"{self.benchmark} {self.split}, {self.protocol}: {self.videos:,} videos, {self.captions:,} captions"
        flaws = [f"{self.missing:,} videos missing"] * bool(self.missing) + self.wrong_counts
        return f"{line}. NOT COMPLETE: {'; '.join(flaws)}" if flaws else line

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)


def benchmark_info(dataset: Union["Dataset", "IterableDataset"]) -> BenchmarkInfo:
    """
    What `load_benchmark` noted about a data set. Selections, mappings and saved copies still tell what was loaded.

    Raises:
        ValueError: it does not come from `load_benchmark`, or `to_iterable_dataset` was called, which loses the note
            (`streaming=True` does not).
    """
    try:
        fields = json.loads(dataset.info.description)
        for name in ("expected_videos", "expected_captions"):
            fields[name] = None if fields[name] is None else tuple(fields[name])
        return BenchmarkInfo(**fields)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError("this data set says nothing about its benchmark: it must come from load_benchmark") from error


def choose_protocol(name: str, protocols: Mapping[str, Protocol], split: str, protocol: str | None) -> str:
    """
    A protocol's name, by default the first, that has the split.

    Args:
        name: of the benchmark, for the error.
        protocols: of the benchmark.
        split: one of `SPLITS`.
        protocol: its name; None for the first.

    Raises:
        ValueError: there is no such split or protocol, or it has no such split.
    """
    if split not in SPLITS:
        raise ValueError(f"there is no split {split!r}: choose one of {', '.join(SPLITS)}")
    protocol = next(iter(protocols)) if protocol is None else protocol
    if protocol not in protocols:
        raise ValueError(f"{name} has no protocol {protocol!r}: choose one of {', '.join(protocols)}")
    if split not in protocols[protocol].splits:
        hint = "; train for a number of epochs fixed beforehand (--choose last)" if split == "validation" else ""
        own = ", ".join(protocols[protocol].splits)
        raise ValueError(f"{name}, {protocol} has no {split} split, only {own}{hint}")
    return protocol


def _range(expected: Range) -> str:
    low, high = expected
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
