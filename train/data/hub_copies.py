"""Annotations out of the copies of the benchmarks on the Hugging Face Hub: where a split is, what its columns hold.

What the copies look like, and where that was found: "by its card" is the dataset card on the Hub, "by code" public code
that reads the copy. All are JSON files with one row a video, which the card lists under `configs`.

- friedrichor/MSR-VTT, by its card: configurations train_9k and train_7k (split train), test_1k (split test). By code:
  columns video_id ("video0"), video ("video0.mp4"), caption (a list in the training files, one string in the test
  file), source, category, url, "start time", "end time", id.
- friedrichor/MSVD and its clone VLM2Vec/MSVD, by their cards: one configuration with train, validation and test. By
  code: columns video_id, video ("<video_id>.avi"), caption (a list), source.
- friedrichor/DiDeMo, by its card: one configuration with train and test; validation is said to be not there. By code:
  columns video ("test/<id>.mp4"), caption (the paragraph, one string), source; no video_id.
- friedrichor/ActivityNet_Captions, by its card: one configuration with train, val1 and val2. By code: columns video_id
  ("v_…"), video ("v_….mp4"), caption (the paragraph), source, duration, timestamps, sentences (a list).
- VLM2Vec/MSR-VTT and VLM2Vec/DiDeMo, by code: as those of friedrichor.

Assumed, for other people's copies: the further names of splits and columns below, one row a caption, and videos stored
in parquet files.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from .annotation import Annotation
from .video_files import without_video_extension

if TYPE_CHECKING:
    from datasets import Dataset

_TRAIN = ("train",)
_VALIDATION = ("validation", "val")
_TEST = ("test",)

# Benchmark, protocol and split to the configuration (None: the only one) and the names that the split may have there.
_PLACES: dict[str, dict[str, dict[str, tuple[str | None, tuple[str, ...]]]]] = {
    "msrvtt": {
        "1k-A-9k": {"train": ("train_9k", _TRAIN), "test": ("test_1k", _TEST)},
        "1k-A-7k": {"train": ("train_7k", _TRAIN), "test": ("test_1k", _TEST)},
    },
    "msvd": {"official": {"train": (None, _TRAIN), "validation": (None, _VALIDATION), "test": (None, _TEST)}},
    "didemo": {"paragraph": {"train": (None, _TRAIN), "validation": (None, _VALIDATION), "test": (None, _TEST)}},
    "activitynet": {
        "val_1": {"train": (None, _TRAIN), "test": (None, ("val1", "val_1"))},
        "val_2": {"train": (None, _TRAIN), "test": (None, ("val2", "val_2"))},
    },
}
_PARAGRAPHS = ("didemo", "activitynet")
# What ids begin with and files perhaps do not.
_PREFIXES = {"activitynet": "v_"}

# The first one that is there is taken: single sentences before the paragraph that was joined out of them. Times are
# never read: MSR-VTT's "start time" counts in the video on YouTube that the clip was cut from, and ActivityNet's
# `timestamps` belong to single sentences. The files are what the captions describe, from beginning to end.
_VIDEO_ID = ("video_id", "videoID")
_VIDEO_FILE = ("video", "video_path", "video_name", "file_name")
_CAPTIONS = ("sentences", "captions", "caption", "sentence", "text")

_WAY_OUT = "give the folder with the benchmark's own annotation files instead"


def read_hub_copy(name: str, repository: str, split: str, protocol: str) -> Iterator[Annotation]:
    """
    One split of a benchmark out of a copy on the Hub, which the `datasets` library keeps in its cache.

    Args:
        name: of the benchmark.
        repository: "owner/name", or a local folder with the same files.
        split: "train", "validation" or "test".
        protocol: one of the benchmark's.

    Returns:
        One annotation a video, in the order of the copy; rows of the same video are put together. `start` and `end`
        are None.

    Raises:
        ValueError: the benchmark has no copies, or they lack the protocol or the split; the repository cannot be
            reached or read; its columns do not fit, or a row names no video or holds something else than text.
    """
    configuration, splits = _place(name, split, protocol)
    rows = _load(repository, configuration, splits)
    return iter(_annotations(rows, repository, name in _PARAGRAPHS, _PREFIXES.get(name, "")))


def _place(name: str, split: str, protocol: str) -> tuple[str | None, tuple[str, ...]]:
    if name not in _PLACES:
        raise ValueError(f"no copy of {name} on the Hub can be read, only of {', '.join(_PLACES)}: {_WAY_OUT}")
    protocols = _PLACES[name]
    if protocol not in protocols:
        raise ValueError(
            f"the copies of {name} on the Hub lack the protocol {protocol!r}, they have {', '.join(protocols)}: "
            f"{_WAY_OUT}"
        )
    places = protocols[protocol]
    if split not in places:
        raise ValueError(
            f"the copies of {name} on the Hub lack the split {split!r} of the protocol {protocol!r}, they have "
            f"{', '.join(places)}: {_WAY_OUT}"
        )
    return places[split]


def _load(repository: str, configuration: str | None, splits: tuple[str, ...]) -> "Dataset":
    """The first of the splits that the repository has."""
    from datasets import DatasetDict, load_dataset

    try:
        # All splits: the library prepares them all anyway, and so it says which ones there are.
        loaded = load_dataset(repository, configuration)
    except Exception as error:  # comes out of half a dozen libraries, with no common class below this one
        wanted = "" if configuration is None else f", configuration {configuration!r}"
        reason = error.__cause__ or error  # of a file that does not parse the error itself says nothing
        raise ValueError(
            f"cannot read the data set {repository!r}{wanted} ({' '.join(str(reason).split())}). Check its name on "
            "https://huggingface.co/datasets and the network; a gated or private one needs `hf auth login`; or "
            f"{_WAY_OUT}"
        ) from error
    assert isinstance(loaded, DatasetDict)
    for split in splits:
        if split in loaded:
            return loaded[split]
    wanted = " or ".join(map(repr, splits))
    raise ValueError(f"the data set {repository!r} has no split {wanted}, it has {', '.join(loaded)}: {_WAY_OUT}")


def _annotations(rows: "Dataset", repository: str, paragraphs: bool, prefix: str) -> list[Annotation]:
    from datasets import Video

    video_id, video_file, captions = (_column(rows, names) for names in (_VIDEO_ID, _VIDEO_FILE, _CAPTIONS))
    if captions is None or (video_id is None and video_file is None):
        raise ValueError(
            f"the data set {repository!r} has the columns {', '.join(rows.column_names)}; needed are one of "
            f"{', '.join(_CAPTIONS)} and one of {', '.join(_VIDEO_ID + _VIDEO_FILE)}: {_WAY_OUT}"
        )
    rows = rows.select_columns([column for column in (video_id, video_file, captions) if column is not None])
    if video_file is not None and isinstance(rows.features[video_file], Video):
        rows = rows.cast_column(video_file, Video(decode=False))

    texts: dict[str, list[str]] = {}
    names: dict[str, list[str]] = {}
    for number, row in enumerate(rows):
        file_name = None if video_file is None else _file_name(row[video_file])
        key = file_name if video_id is None else row[video_id]
        own = _texts(row[captions])
        if not isinstance(key, str) or not key or own is None:
            shown = ", ".join(f"{column}: {str(value)[:60]!r}" for column, value in row.items())
            raise ValueError(
                f"row {number} of the data set {repository!r} needs a video's name and captions, all of them text, "
                f"and has {shown}: {_WAY_OUT}"
            )
        texts.setdefault(key, []).extend(own)
        names.setdefault(key, []).extend([file_name] if file_name else [])
    return [
        Annotation(
            video_id=key,
            captions=(" ".join(own),) if paragraphs and own else tuple(own),
            file_names=tuple(dict.fromkeys([*names[key], key, key.removeprefix(prefix)])),
        )
        for key, own in texts.items()
    ]


def _column(rows: "Dataset", names: Sequence[str]) -> str | None:
    return next((name for name in names if name in rows.column_names), None)


def _file_name(file: Any) -> str | None:
    """Out of a path, or out of what `datasets` makes of a stored video: a mapping with its path."""
    path = file.get("path") if isinstance(file, Mapping) else file
    return without_video_extension(PurePosixPath(path).name) if isinstance(path, str) else None


def _texts(value: Any) -> list[str] | None:
    """The caption or captions of a row, without blank ones; None where they are something else than text."""
    values = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(text, str) for text in values):
        return None
    return [text.strip() for text in values if text.strip()]
