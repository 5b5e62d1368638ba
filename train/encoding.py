"""Every video and every distinct text of a split through the model, once each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from accelerate.utils import gather_object
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from hcmi.modeling_hcmi import HCMITextFeatures, HCMIVideoFeatures, concatenate_features
from hcmi.processing import VideoReadError

from .data.frame_sources import VideoFrames
from .data.reader_watch import ReaderWatch

VideoSource = Callable[[int], VideoFrames]
"""Row of the data set -> its frames."""


@dataclass
class EncodedVideos:
    """Features of V videos and where in time their frames lie.

    Attributes:
        features: V rows, on the model's device.
        timestamps: (V, F) float64 seconds on the CPU, NaN on padding.
        spans: (V, 2) float64 seconds on the CPU: the stretch that each video's frames stand for.
    """

    features: HCMIVideoFeatures
    timestamps: Tensor
    spans: Tensor


@dataclass
class EncodedTexts:
    """Features of the distinct ones among T texts. Texts with the same tokens are the same, so that they tie exactly.

    Attributes:
        features: one row per distinct text, on the model's device.
        row_of_text: (T,) long on the CPU: the row of each of the texts.
        max_words: the most tokens that a text may have, start and end included.
        num_cut: how many of the T texts had more and were cut.
    """

    features: HCMITextFeatures
    row_of_text: Tensor
    max_words: int
    num_cut: int


@torch.inference_mode()
def encode_videos(
    model: Any,
    source: VideoSource,
    names: Sequence[str],
    *,
    batch_size: int,
    num_workers: int = 0,
    reader_timeout: float = 300.0,
    files: Sequence[str] | None = None,
    show_progress: bool = True,
    accelerator: Any = None,
) -> EncodedVideos:
    """Encodes the videos `source(0)` … `source(len(names) - 1)`.

    Args:
        model: an `HCMIModel`, unwrapped, in evaluation mode.
        source: gives the frames of a row; with worker processes it has to be picklable.
        names: of the videos, for messages.
        batch_size: videos encoded at once.
        num_workers: processes that run `source`; 0: this one does.
        reader_timeout: seconds that such a process may take for one video; 0: any time.
        files: of the videos, named where such a process dies or takes too long.
        show_progress: draw a bar.
        accelerator: shares the videos out to its processes. All of them have to call, and all get the whole.

    Raises:
        VideoReadError: a video cannot be read; raised in every process, with the video's name.
        ChildProcessError: a process that reads died, or took too long for a video; likewise.
    """
    rows = _share(len(names), accelerator)
    watch = ReaderWatch(num_workers, reader_timeout)
    loader: DataLoader = DataLoader(
        _Rows(source, rows, watch),
        batch_size=batch_size,
        num_workers=num_workers,
        collate_fn=_pad_videos,
        pin_memory=model.device.type == "cuda",
    )
    batches: list[_Unreadable | ChildProcessError | EncodedVideos] = []
    try:
        with _bar(len(rows), "encoding videos", show_progress, accelerator) as bar, watch.explained(names, files):
            for batch in loader:
                if isinstance(batch, _Unreadable):
                    batches = [batch]
                    break
                pixels, mask = (t.to(model.device, non_blocking=True) for t in (batch.frames, batch.mask))
                features = model.get_video_features(pixels, mask).select(slice(None))
                batches.append(EncodedVideos(features, batch.timestamps, batch.spans))
                bar.update(len(pixels))
    except ChildProcessError as error:
        # Told to the other processes, which would wait for this one.
        batches = [error]

    encoded = []
    for part in _gathered(batches, accelerator):
        if isinstance(part, _Unreadable):
            raise VideoReadError(f"video {names[part.row]!r} (row {part.row})", part.reason)
        if isinstance(part, ChildProcessError):
            raise part
        encoded.append(part)
    timestamps = [row for part in encoded for row in part.timestamps]
    return EncodedVideos(
        concatenate_features([part.features.to(model.device) for part in encoded]),
        pad_sequence(timestamps, batch_first=True, padding_value=torch.nan),
        torch.cat([part.spans for part in encoded]),
    )


@torch.inference_mode()
def encode_texts(
    model: Any,
    tokenizer: Any,
    texts: Sequence[str],
    *,
    batch_size: int,
    max_words: int | None = None,
    show_progress: bool = True,
    accelerator: Any = None,
) -> EncodedTexts:
    """Encodes each distinct text once.

    Args:
        model: an `HCMIModel`, unwrapped, in evaluation mode.
        tokenizer: the processor's.
        texts: T of them; repetitions are allowed.
        batch_size: texts encoded at once.
        max_words: cut longer texts to this many tokens, start and end included; default: the most that the tokenizer
            and the model take.
        show_progress, accelerator: as for `encode_videos`.

    Raises:
        ValueError: `max_words` exceeds what the model takes, or is less than a start, a word and an end.
    """
    most = min(tokenizer.model_max_length, model.config.text_config.max_position_embeddings)
    max_words = most if max_words is None else max_words
    if not 3 <= max_words <= most:
        raise ValueError(f"max_words must lie in 3..{most} for this model, got {max_words}")
    lengths = [len(ids) for ids in tokenizer(list(texts), verbose=False)["input_ids"]]
    tokens = [tuple(ids) for ids in tokenizer(list(texts), truncation=True, max_length=max_words)["input_ids"]]
    # Texts of one length share a batch: captions are short, and a single long one would pad all of its batch.
    distinct = sorted(dict.fromkeys(tokens), key=len)
    row_of_tokens = {ids: row for row, ids in enumerate(distinct)}

    rows = _share(len(distinct), accelerator)
    batches = []
    with _bar(len(rows), "encoding texts", show_progress, accelerator) as bar:
        for first in range(rows.start, rows.stop, batch_size):
            chosen = [list(ids) for ids in distinct[first : min(first + batch_size, rows.stop)]]
            inputs = tokenizer.pad({"input_ids": chosen}, return_tensors="pt").to(model.device)
            features = model.get_text_features(inputs["input_ids"], inputs["attention_mask"])
            batches.append(features.select(slice(None)))
            bar.update(len(chosen))
    return EncodedTexts(
        concatenate_features([batch.to(model.device) for batch in _gathered(batches, accelerator)]),
        torch.tensor([row_of_tokens[ids] for ids in tokens]),
        max_words,
        sum(length > max_words for length in lengths),
    )


class _PaddedVideos(NamedTuple):
    frames: Tensor
    mask: Tensor
    timestamps: Tensor
    spans: Tensor


class _Unreadable(NamedTuple):
    row: int
    reason: str


class _Rows(Dataset):
    """The source as a map-style data set.

    What cannot be read is returned, not raised: a worker's exception arrives as text, without the row.
    """

    def __init__(self, source: VideoSource, rows: range, watch: ReaderWatch) -> None:
        self.source = source
        self.rows = rows
        self.watch = watch

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> VideoFrames | _Unreadable:
        row = self.rows[index]
        try:
            with self.watch.reading(row):
                return self.source(row)
        except (VideoReadError, OSError) as error:
            return _Unreadable(row, str(error))


def _pad_videos(videos: list[VideoFrames | _Unreadable]) -> _PaddedVideos | _Unreadable:
    frames, masks, timestamps, spans = [], [], [], []
    for video in videos:
        if isinstance(video, _Unreadable):
            return video
        frames.append(video.frames)
        masks.append(torch.ones(len(video.frames), dtype=torch.bool))
        timestamps.append(video.timestamps)
        spans.append(video.span)
    return _PaddedVideos(
        pad_sequence(frames, batch_first=True),
        pad_sequence(masks, batch_first=True),
        pad_sequence(timestamps, batch_first=True, padding_value=torch.nan),
        torch.tensor(spans, dtype=torch.float64),
    )


def _share(count: int, accelerator: Any) -> range:
    """The consecutive rows that this process encodes."""
    if accelerator is None:
        return range(count)
    process, processes = accelerator.process_index, accelerator.num_processes
    return range(count * process // processes, count * (process + 1) // processes)


def _gathered(batches: list, accelerator: Any) -> list:
    """The batches of all processes, in the order of their rows."""
    if accelerator is None or accelerator.num_processes == 1:
        return batches
    return gather_object([_on_cpu(batch) for batch in batches])


def _on_cpu(batch: Any) -> Any:
    if isinstance(batch, _Unreadable | ChildProcessError):
        return batch
    if isinstance(batch, EncodedVideos):
        return EncodedVideos(batch.features.to("cpu"), batch.timestamps, batch.spans)
    return batch.to("cpu")


def _bar(total: int, what: str, show: bool, accelerator: Any) -> tqdm:
    show = show and (accelerator is None or accelerator.is_main_process)
    return tqdm(total=total, desc=what, leave=False, disable=not show)
