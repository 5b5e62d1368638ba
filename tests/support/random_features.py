"""Random features of videos and texts, without a model."""

import torch

from hcmi.modeling_hcmi import HCMITextFeatures, HCMIVideoFeatures


def random_video_features(
    frames: list[int], width: int = 4, seed: int = 0, padded_to: int | None = None, dtype: torch.dtype = torch.float32
) -> HCMIVideoFeatures:
    """Features of videos with so many real frames each, a clip for every two; padding holds garbage."""
    values = _levels(frames, width, seed, padded_to, dtype)
    names = ("pooler_output", "frames", "clips", "frame_mask", "clip_mask", "frame_weights", "clip_weights")
    return HCMIVideoFeatures(**dict(zip((*names, "clip_frame_weights"), values, strict=True)))


def random_text_features(
    words: list[int], width: int = 4, seed: int = 1, padded_to: int | None = None, dtype: torch.dtype = torch.float32
) -> HCMITextFeatures:
    """Features of texts with so many real words each, a phrase for every two; padding holds garbage."""
    values = _levels(words, width, seed, padded_to, dtype)
    names = ("pooler_output", "words", "phrases", "word_mask", "phrase_mask", "word_weights", "phrase_weights")
    return HCMITextFeatures(**dict(zip((*names, "phrase_word_weights"), values, strict=True)))


def _levels(counts: list[int], width: int, seed: int, padded_to: int | None, dtype: torch.dtype) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    real = torch.tensor(counts)
    rows, tokens = len(counts), padded_to or max(counts)
    groups = (tokens + 1) // 2
    token_mask = torch.arange(tokens) < real[:, None]
    group_mask = torch.arange(groups) < ((real + 1) // 2)[:, None]

    def weights(mask: torch.Tensor) -> torch.Tensor:
        return draw(*mask.shape).masked_fill(~mask, -torch.inf).softmax(-1)

    return [
        draw(rows, width),
        draw(rows, tokens, width),
        draw(rows, groups, width),
        token_mask,
        group_mask,
        weights(token_mask),
        weights(group_mask),
        weights(token_mask[:, None].expand(-1, groups, -1)),
    ]
