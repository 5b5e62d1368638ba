"""Training pairs: a video's frames, in one or two random views, and one of its captions."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Dataset

from .frame_sources import FrameSource, VideoFrames


@dataclass
class Pair:
    """One caption and its video, as drawn for one epoch."""

    row: int
    caption: str
    views: list[VideoFrames]


class TrainingPairs(Dataset):
    """
    A data set's videos with their captions and random frames, drawn anew in every epoch.

    What is drawn depends on the seed, the epoch and the pair alone: not on workers, processes or the order.

    Args:
        captions: the captions of each row.
        frames: gives a row's frames.
        seed: of everything drawn.
        over: what an epoch goes through: "captions", each once with its video, or "videos", each once with one of its
            captions, drawn at random.
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
        self.epoch = 0
        self.views = 1

    def begin_epoch(self, epoch: int, views: int) -> None:
        """Draw for this epoch from now on: one view of the frames, or two for label denoising."""
        # Not named `set_epoch`: Accelerate's loaders would call that once more, with the epoch alone.
        self.epoch = epoch
        self.views = views

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Pair:
        row, number = self.pairs[index]
        draw = f"{self.seed}-{self.epoch}-{row}"
        if number is None:
            caption = random.Random(draw).choice(self.captions[row])
        else:
            caption, draw = self.captions[row][number], f"{draw}-{number}"
        return Pair(row, caption, self.frames.sample(row, [f"{draw}-{view}" for view in range(self.views)]))


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

    def __call__(self, pairs: list[Pair]) -> dict[str, torch.Tensor]:
        """
        Returns:
            `input_ids`, `attention_mask` (B, W), `pixel_values_videos` (B, F, 3, H, W) uint8, `video_mask` (B, F), with
            two views also `second_pixel_values_videos` and `second_video_mask`, and `video_ids` (B,), the rows.
        """
        text = self.tokenizer(
            [pair.caption for pair in pairs],
            padding=True,
            truncation=True,
            max_length=self.max_words,
            return_tensors="pt",
        )
        batch = {"input_ids": text["input_ids"], "attention_mask": text["attention_mask"]}
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
