"""Training pairs: a video's frames, in one or two random views, and one of its captions."""

import random
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Dataset

from hcmi.one_thread import one_thread
from hcmi.processing import VideoReadError

from .frame_sources import FrameSource, VideoFrames
from .reader_watch import ReaderWatch
from .unreadable import Unreadable

_ATTEMPTS = 10  # to find a video that can be read


@dataclass
class Pair:
    """
    One caption and its video, as drawn for one epoch.

    Attributes:
        row: of the video.
        caption: one of the video's.
        views: of the video's frames; none where no video could be read.
        unreadable: the videos in whose place this one is.
    """

    row: int
    caption: str
    views: list[VideoFrames]
    unreadable: tuple[Unreadable, ...] = ()


class TrainingPairs(Dataset):
    """
    A data set's videos with their captions and random frames, drawn anew in every epoch.

    What is drawn depends on the seed, the epoch and the pair alone: not on workers, processes or the order. Where a
    video cannot be read, another pair is drawn in its place, by the same rule, and the pair tells so.

    Args:
        captions: the captions of each row.
        frames: gives a row's frames.
        seed: of everything drawn.
        over: what an epoch goes through: "captions", each once with its video, or "videos", each once with one of its
            captions, drawn at random.

    Attributes:
        watch: is told what reader processes read.
    """

    def __init__(
        self,
        captions: Sequence[Sequence[str]],
        frames: FrameSource,
        seed: int,
        over: str = "captions",
    ) -> None:
        self.captions = captions
        self.frames = frames
        self.seed = seed
        self.pairs: list[tuple[int, int | None]] = [
            (row, number)
            for row, own in enumerate(captions)
            for number in (range(len(own)) if over == "captions" else [None])
        ]
        self.watch: ReaderWatch | None = None
        # Epoch and views, where reader processes that live for many epochs see them.
        self._drawing = torch.tensor([0, 1]).share_memory_()

    def begin_epoch(self, epoch: int, views: int) -> None:
        """Draw for this epoch from now on: one view of the frames, or two for label denoising."""
        # Not named `set_epoch`: Accelerate's loaders would call that once more, with the epoch alone.
        self._drawing.copy_(torch.tensor([epoch, views]))

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Pair:
        epoch, views = self._drawing.tolist()
        row, number = self.pairs[index]
        own_draw = draw = "-".join(str(part) for part in (self.seed, epoch, row, number) if part is not None)
        unreadable: dict[int, Unreadable] = {}
        for attempt in range(1, _ATTEMPTS + 1):
            if row not in unreadable:
                try:
                    frames = self._read(row, [f"{draw}-{view}" for view in range(views)])
                except (VideoReadError, OSError) as error:
                    unreadable[row] = Unreadable(row, str(error))
                else:
                    return Pair(row, self._caption(row, number, draw), frames, tuple(unreadable.values()))
            draw = f"{own_draw}-instead-{attempt}"
            row, number = random.Random(draw).choice(self.pairs)
        return Pair(row, "", [], tuple(unreadable.values()))

    def _read(self, row: int, seeds: list[str]) -> list[VideoFrames]:
        with one_thread(), nullcontext() if self.watch is None else self.watch.reading(row):
            return self.frames.sample(row, seeds)

    def _caption(self, row: int, number: int | None, draw: str) -> str:
        own = self.captions[row]
        return random.Random(draw).choice(own) if number is None else own[number]


class PairCollator:
    """
    Pairs to the tensors that `HCMIModel` takes.

    Args:
        tokenizer: the processor's.
        num_frames: length that the frames are padded to.
        max_words: length that texts are cut to, in tokens.
    """

    def __init__(self, tokenizer: Any, num_frames: int, max_words: int) -> None:
        self.tokenizer = tokenizer
        self.num_frames = num_frames
        self.max_words = max_words

    def __call__(self, pairs: list[Pair]) -> dict[str, Any]:
        """
        Returns:
            `input_ids`, `attention_mask` (B, W), `pixel_values_videos` (B, F, 3, H, W) uint8, `video_mask` (B, F), with
            two views also `second_pixel_values_videos` and `second_video_mask`, and `video_ids` (B,), the rows.
            `unreadable`, a list, if videos could not be read; it is all there is if no other was found for one.
        """
        unreadable = [met for pair in pairs for met in pair.unreadable]
        told: dict[str, Any] = {"unreadable": unreadable} if unreadable else {}
        if not all(pair.views for pair in pairs):
            return told
        text = self.tokenizer(
            [pair.caption for pair in pairs],
            padding=True,
            truncation=True,
            max_length=self.max_words,
            return_tensors="pt",
        )
        batch = told | {"input_ids": text["input_ids"], "attention_mask": text["attention_mask"]}
        for view, prefix in enumerate(("", "second_")[: len(pairs[0].views)]):
            batch |= {f"{prefix}{name}": t for name, t in self._padded([pair.views[view] for pair in pairs]).items()}
        return batch | {"video_ids": torch.tensor([pair.row for pair in pairs])}

    def _padded(self, views: list[VideoFrames]) -> dict[str, torch.Tensor]:
        first = views[0].frames
        pixels = first.new_zeros(len(views), self.num_frames, *first.shape[1:])
        mask = torch.zeros(len(views), self.num_frames, dtype=torch.bool)
        for row, view in enumerate(views):
            pixels[row, : len(view.frames)] = view.frames
            mask[row, : len(view.frames)] = True
        return {"pixel_values_videos": pixels, "video_mask": mask}
