"""What others have published on the benchmarks, with source, backbone, protocol and post-processing of every number."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

RECALLS = ("R@1", "R@5", "R@10")
METRICS = (*RECALLS, "MdR", "MnR")

_FILE = Path(__file__).with_name("published_results.yaml")
_TEXTS = ("benchmark", "protocol", "method", "backbone", "post_processing", "paper", "reported_by")
_DIRECTIONS = ("text_to_video", "video_to_text")
_ARXIV = re.compile(r"\d{4}\.\d{5}")


@dataclass(frozen=True)
class PublishedResult:
    """A model's published numbers on the test split of one benchmark.

    Attributes:
        benchmark: its name in this package.
        protocol: name of the protocol; "1k-A" of msrvtt says that the list of training videos is not known, or that
            nothing was trained.
        method, backbone: the model, and the pretrained one that it starts from.
        post_processing: of the scores at test time; "none" for the plain similarities.
        text_to_video, video_to_text: recalls in percent and ranks under the names of `METRICS`; a metric, or a whole
            direction, that was not published is not there.
        title, arxiv: the paper that reports the numbers.
        reported_by: "its authors", or who else measured the method.
        note: what else has to be known of them.
    """

    benchmark: str
    protocol: str
    method: str
    backbone: str
    post_processing: str
    text_to_video: dict[str, float]
    video_to_text: dict[str, float]
    title: str
    arxiv: str
    reported_by: str
    note: str = ""

    @property
    def source(self) -> str:
        """The paper, who measured, and what else has to be known, in one line."""
        line = f"{self.title}, arXiv:{self.arxiv}; reported by {self.reported_by}"
        return f"{line}; {self.note}" if self.note else line


def published_results(benchmark: str) -> list[PublishedResult]:
    """The rows of one benchmark, none for one on which nothing was published."""
    return [row for row in read_published(_FILE) if row.benchmark == benchmark]


def read_published(path: str | os.PathLike) -> list[PublishedResult]:
    """All rows of a file.

    Raises:
        ValueError: a row without source, protocol, backbone or numbers, with fields that are not known, or with numbers
            that cannot be: the message names the row.
        OSError: the file cannot be read.
    """
    content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    if not isinstance(content, dict) or set(content) != {"papers", "results"}:
        raise ValueError(f"{path}: has to hold `papers` and `results`")
    rows = []
    for number, entry in enumerate(content["results"], 1):
        try:
            rows.append(_row(entry, content["papers"]))
        except ValueError as error:
            raise ValueError(f"{path}: result {number}: {error}") from error
    return rows


def _row(entry: Mapping[str, Any], papers: Mapping[str, Mapping[str, str]]) -> PublishedResult:
    unknown = sorted(set(entry) - {*_TEXTS, *_DIRECTIONS, "note"})
    if unknown:
        raise ValueError(f"unknown fields: {', '.join(unknown)}")
    for name in _TEXTS:
        if not isinstance(entry.get(name), str) or not entry[name]:
            raise ValueError(f"{name} is missing, or no text")
    paper = papers.get(entry["paper"], {})
    if not paper.get("title") or not _ARXIV.fullmatch(str(paper.get("arxiv", ""))):
        raise ValueError(f"the paper {entry['paper']!r} has no title, or no arXiv number such as 2204.03382")
    numbers = {direction: dict(entry.get(direction, {})) for direction in _DIRECTIONS}
    if not any(numbers.values()):
        raise ValueError("it has no numbers")
    for direction, values in numbers.items():
        _refuse_impossible(direction, values)
    fields: dict[str, Any] = {name: entry[name] for name in _TEXTS if name != "paper"} | numbers
    return PublishedResult(**fields, title=paper["title"], arxiv=paper["arxiv"], note=entry.get("note", ""))


def _refuse_impossible(direction: str, values: Mapping[str, Any]) -> None:
    unknown = sorted(set(values) - set(METRICS))
    if unknown:
        raise ValueError(f"{direction}: {', '.join(unknown)} is not one of {', '.join(METRICS)}")
    for metric, value in values.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not (0 <= value <= 100 if metric in RECALLS else value >= 1):
            raise ValueError(f"{direction}: {metric} cannot be {value!r}")
    recalls = [values[metric] for metric in RECALLS if metric in values]
    if recalls != sorted(recalls):
        raise ValueError(f"{direction}: the recalls {recalls} fall with K")
