"""What a video and a sentence are after encoding: embeddings of three levels, with their masks and weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.nn.functional import pad
from transformers.utils import ModelOutput

Rows = slice | torch.Tensor | Sequence[int]


class _Features(ModelOutput):
    """Rows (videos, or texts) that are cut, moved and joined as one. Every retrieval field has the batch first."""

    # Per field, how many of its dimensions after the batch are padded to a batch's longest row. The towers' hidden
    # states are not among them: retrieval does not need them, and they are a hundred times larger.
    retrieval_fields: ClassVar[dict[str, int]] = {}

    def select(self, rows: Rows) -> Any:
        """The given rows, without the towers' hidden states."""
        return type(self)(**{name: self[name][rows] for name in self.retrieval_fields})

    def to(self, *args: Any, **kwargs: Any) -> Any:
        """`torch.Tensor.to` on every retrieval field, without the towers' hidden states; masks stay boolean."""
        moved = {name: self[name].to(*args, **kwargs) for name in self.retrieval_fields}
        return type(self)(**{name: t.bool() if self[name].dtype == torch.bool else t for name, t in moved.items()})


@dataclass
class HCMIVideoFeatures(_Features):
    """
    `B` videos of `F` frames and `C` clips in the joint space of width `D`. No embedding is L2-normalised.

    Args:
        pooler_output (`(B, D)`): the video vector `V^v`.
        frames (`(B, F, D)`): frame embeddings `V^f`.
        clips (`(B, C, D)`): clip embeddings `V^c`.
        frame_mask (`(B, F)`, bool): which frames are real.
        clip_mask (`(B, C)`, bool): which clips are real; a video of `f` real frames has `ceil(f / frames_per_clip)`.
        frame_weights (`(B, F)`): weight of each frame in the frame-word interaction; sums to 1, zero on padding.
        clip_weights (`(B, C)`): weight of each clip in the clip-phrase interaction; sums to 1, zero on padding.
        clip_frame_weights (`(B, C, F)`): which frames make a clip; each row sums to 1, zero on padding.
        last_hidden_state (`(B, F, patches + 1, vision width)`): the vision tower's last layer.
        hidden_states, attentions: of the vision tower's layers over `B * F` frames, when asked for.
    """

    retrieval_fields: ClassVar[dict[str, int]] = {
        "pooler_output": 0,
        "frames": 1,
        "clips": 1,
        "frame_mask": 1,
        "clip_mask": 1,
        "frame_weights": 1,
        "clip_weights": 1,
        "clip_frame_weights": 2,
    }

    pooler_output: torch.Tensor | None = None
    frames: torch.Tensor | None = None
    clips: torch.Tensor | None = None
    frame_mask: torch.Tensor | None = None
    clip_mask: torch.Tensor | None = None
    frame_weights: torch.Tensor | None = None
    clip_weights: torch.Tensor | None = None
    clip_frame_weights: torch.Tensor | None = None
    last_hidden_state: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


@dataclass
class HCMITextFeatures(_Features):
    """
    `T` texts of `W` words (tokens) and `P` phrases in the joint space of width `D`. No embedding is L2-normalised.

    Args:
        pooler_output (`(T, D)`): the sentence vector `T^s`.
        words (`(T, W, D)`): word embeddings `T^w`, start and end token included.
        phrases (`(T, P, D)`): phrase embeddings `T^p`.
        word_mask (`(T, W)`, bool), phrase_mask (`(T, P)`, bool): which are real.
        word_weights (`(T, W)`), phrase_weights (`(T, P)`): weights in the interactions; sum to 1, zero on padding.
        phrase_word_weights (`(T, P, W)`): which words make a phrase; each row sums to 1, zero on padding.
        last_hidden_state (`(T, W, text width)`): the text tower's last layer.
        hidden_states, attentions: of the text tower's layers, when asked for.
    """

    retrieval_fields: ClassVar[dict[str, int]] = {
        "pooler_output": 0,
        "words": 1,
        "phrases": 1,
        "word_mask": 1,
        "phrase_mask": 1,
        "word_weights": 1,
        "phrase_weights": 1,
        "phrase_word_weights": 2,
    }

    pooler_output: torch.Tensor | None = None
    words: torch.Tensor | None = None
    phrases: torch.Tensor | None = None
    word_mask: torch.Tensor | None = None
    phrase_mask: torch.Tensor | None = None
    word_weights: torch.Tensor | None = None
    phrase_weights: torch.Tensor | None = None
    phrase_word_weights: torch.Tensor | None = None
    last_hidden_state: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


def concatenate_features(batches: Sequence[Any]) -> Any:
    """
    Joins features of several batches (all of videos, or all of texts) into one, padding to the longest.

    Raises:
        ValueError: if `batches` is empty.
    """
    if not batches:
        raise ValueError("concatenate_features needs at least one batch of features.")
    joined = {}
    for name, padded in type(batches[0]).retrieval_fields.items():
        tensors = [batch[name] for batch in batches]
        sizes = [max(t.shape[1 + d] for t in tensors) for d in range(padded)]
        joined[name] = torch.cat([_pad_to(t, sizes) for t in tensors])
    return type(batches[0])(**joined)


def _pad_to(tensor: torch.Tensor, sizes: list[int]) -> torch.Tensor:
    """Zeros (False) behind dimensions 1, 2, … of `tensor` up to `sizes`."""
    missing = [size - tensor.shape[1 + d] for d, size in enumerate(sizes)]
    if not any(missing):
        return tensor
    untouched = tensor.dim() - 1 - len(sizes)
    return pad(tensor, [0, 0] * untouched + [n for m in reversed(missing) for n in (0, m)])
