"""Similarity of texts and videos on the three levels: the one place where it is computed, whoever asks."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch.nn.functional import normalize
from transformers.utils import ModelOutput

from .configuration_hcmi import LEVELS
from .features_hcmi import HCMITextFeatures, HCMIVideoFeatures
from .token_wise_hcmi import block_elements, full_precision, token_wise_scores, token_wise_similarity


@dataclass
class HCMISimilarity(ModelOutput):
    """
    Similarities in -1..1 of `T` texts and `V` videos, float32.

    Args:
        combined (`(T, V)`): the mean of the levels, weighted by `inference_weights`.
        frame_word, clip_phrase, video_sentence (`(T, V)`): each level's own; `None` where it was not asked for.
    """

    combined: torch.Tensor | None = None
    frame_word: torch.Tensor | None = None
    clip_phrase: torch.Tensor | None = None
    video_sentence: torch.Tensor | None = None


def level_similarity(level: str, text: HCMITextFeatures, video: HCMIVideoFeatures) -> torch.Tensor:
    """
    The `(T, V)` similarity of one of `LEVELS`, differentiable, in the features' own type, also under automatic mixed
    precision.
    """
    with full_precision(text.pooler_output.device):
        if level == "video_sentence":
            return normalize(text.pooler_output, dim=-1) @ normalize(video.pooler_output, dim=-1).T
        (words, word_mask, a), (frames, frame_mask, b) = _tokens(level, text, video)
        return token_wise_similarity(words, frames, word_mask, frame_mask, a, b)


def batch_similarity(text: HCMITextFeatures, video: HCMIVideoFeatures, weights: dict[str, float]) -> HCMISimilarity:
    """Similarities of the texts and videos of one batch on all levels, differentiable, in float32."""
    text, video = text.to(torch.float32), video.to(torch.float32)
    scores = {level: level_similarity(level, text, video) for level in LEVELS}
    return HCMISimilarity(combined=combine_levels(scores, weights), **scores)


def _tokens(level: str, text: HCMITextFeatures, video: HCMIVideoFeatures) -> tuple[tuple, tuple]:
    """Tokens, mask and weights of both sides of a token-wise level."""
    if level == "clip_phrase":
        return (text.phrases, text.phrase_mask, text.phrase_weights), (video.clips, video.clip_mask, video.clip_weights)
    return (text.words, text.word_mask, text.word_weights), (video.frames, video.frame_mask, video.frame_weights)


def combine_levels(similarities: dict[str, torch.Tensor], weights: dict[str, float]) -> torch.Tensor:
    """
    The mean of the levels' similarities, weighted by `weights`.

    Raises:
        ValueError: if all given levels weigh nothing.
    """
    total = sum(weights[level] for level in similarities)
    if total <= 0:
        raise ValueError(f"The levels {sorted(similarities)} all have weight 0: there is nothing to combine.")
    weighted = (similarities[level] * (weights[level] / total) for level in similarities if weights[level] > 0)
    return reduce(torch.add, weighted)


def blockwise_similarity(
    text: HCMITextFeatures,
    video: HCMIVideoFeatures,
    weights: dict[str, float],
    levels: Sequence[str] = LEVELS,
    max_block_elements: int | None = None,
) -> HCMISimilarity:
    """
    Similarities of any number of texts and videos, in blocks of at most `max_block_elements` token pairs, in float32;
    for when no gradient is asked for.

    Args:
        text, video: features of `T` texts and `V` videos on one device.
        weights: weight of each level in the combination.
        levels: the levels to compute.
        max_block_elements: bound on the `(texts × words × videos × frames)` array of one block (4 bytes each). Default:
            what `token_wise_hcmi` takes for the device.
    """
    unknown = set(levels) - set(LEVELS)
    if unknown or not levels:
        raise ValueError(f"`levels` has to be a choice of {LEVELS}, got {tuple(levels)}.")
    device = text.pooler_output.device
    if max_block_elements is None:
        max_block_elements = block_elements(device)

    scores = {}
    with full_precision(device):
        for level in levels:
            if level == "video_sentence":
                sentences, vectors = (normalize(side.pooler_output.float(), dim=-1) for side in (text, video))
                scores[level] = sentences @ vectors.T
            else:
                scores[level] = token_wise_scores(*_tokens(level, text, video), max_block_elements)
    return HCMISimilarity(combined=combine_levels(scores, weights), **scores)
