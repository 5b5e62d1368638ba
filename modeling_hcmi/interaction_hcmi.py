"""Similarity of texts and videos on the three levels: the one place where it is computed, whoever asks."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import reduce

import torch
from torch.nn.functional import normalize
from transformers.utils import ModelOutput

from .configuration_hcmi import LEVELS
from .features_hcmi import HCMITextFeatures, HCMIVideoFeatures


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


def token_wise_similarity(
    text_tokens: torch.Tensor,
    video_tokens: torch.Tensor,
    text_mask: torch.Tensor,
    video_mask: torch.Tensor,
    text_weights: torch.Tensor,
    video_weights: torch.Tensor,
) -> torch.Tensor:
    """
    Weighted token-wise interaction (Wang et al., arXiv 2203.07111) [C]:
    `1/2 [ sum_w a_w max_f <w, f> + sum_f b_f max_w <w, f> ]` over L2-normalised tokens. Padding never wins a maximum,
    whatever the sign of the similarities.

    Args:
        text_tokens (`(T, W, D)`), video_tokens (`(V, F, D)`): not normalised.
        text_mask (`(T, W)`), video_mask (`(V, F)`): bool; every row has a real token.
        text_weights (`(T, W)`), video_weights (`(V, F)`): `a` and `b`, zero on padding.

    Returns:
        `(T, V)`. The whole `(T, V, W, F)` array is built on the way.

    Example:
        One word (1, 0) against the frames (1, 0) and (0, -1), weighing 3/4 and 1/4: the word's best frame gives 1, the
        frames' best words give 1 and 0, so `1/2 [1 · 1 + (3/4 · 1 + 1/4 · 0)] = 0.875`.

        >>> one = torch.ones(1, 1)
        >>> token_wise_similarity(
        ...     torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[1.0, 0.0], [0.0, -1.0]]]),
        ...     one.bool(), torch.ones(1, 2).bool(), one, torch.tensor([[0.75, 0.25]]),
        ... ).item()
        0.875
    """
    (t, w, d), (v, f, _) = text_tokens.shape, video_tokens.shape
    pairs = normalize(text_tokens, dim=-1).reshape(t * w, d) @ normalize(video_tokens, dim=-1).reshape(v * f, d).T
    pairs = pairs.view(t, w, v, f)
    lowest = torch.finfo(pairs.dtype).min
    best_frame = pairs.masked_fill(~video_mask, lowest).amax(3)  # (T, W, V)
    best_word = pairs.masked_fill(~text_mask[:, :, None, None], lowest).amax(1)  # (T, V, F)
    return (
        torch.einsum("tw,twv->tv", text_weights, best_frame) + torch.einsum("vf,tvf->tv", video_weights, best_word)
    ) / 2


def full_precision(device: torch.device) -> AbstractContextManager:
    """Switches automatic mixed precision off inside: it would round cosines to 8 bits before the logit scale."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def level_similarity(level: str, text: HCMITextFeatures, video: HCMIVideoFeatures) -> torch.Tensor:
    """
    The `(T, V)` similarity of one of `LEVELS`, at once and differentiable, in the features' own type, also under
    automatic mixed precision.
    """
    with full_precision(text.pooler_output.device):
        if level == "video_sentence":
            return normalize(text.pooler_output, dim=-1) @ normalize(video.pooler_output, dim=-1).T
        if level == "clip_phrase":
            return token_wise_similarity(
                text.phrases, video.clips, text.phrase_mask, video.clip_mask, text.phrase_weights, video.clip_weights
            )
        return token_wise_similarity(
            text.words, video.frames, text.word_mask, video.frame_mask, text.word_weights, video.frame_weights
        )


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
    max_block_elements: int = 2**24,
) -> HCMISimilarity:
    """
    Similarities of any number of texts and videos, in blocks of at most `max_block_elements` token pairs, in float32.

    Args:
        text, video: features of `T` texts and `V` videos on one device.
        weights: weight of each level in the combination.
        levels: the levels to compute.
        max_block_elements: bound on the `(texts × words × videos × frames)` array of one block (4 bytes each).
    """
    unknown = set(levels) - set(LEVELS)
    if unknown or not levels:
        raise ValueError(f"`levels` has to be a choice of {LEVELS}, got {tuple(levels)}.")
    text, video = text.to(torch.float32), video.to(torch.float32)
    num_texts, num_videos = len(text.pooler_output), len(video.pooler_output)
    words, frames = text.words.shape[1], video.frames.shape[1]
    # Square-ish blocks read each side the fewest times.
    texts_at_once = max(1, min(num_texts, int((max_block_elements / (words * frames)) ** 0.5)))
    videos_at_once = max(1, max_block_elements // (texts_at_once * words * frames))

    scores = {level: text.pooler_output.new_empty(num_texts, num_videos) for level in levels}
    for first_text in range(0, num_texts, texts_at_once):
        rows = slice(first_text, first_text + texts_at_once)
        some_texts = text.select(rows)
        for first_video in range(0, num_videos, videos_at_once):
            columns = slice(first_video, first_video + videos_at_once)
            some_videos = video.select(columns)
            for level in levels:
                scores[level][rows, columns] = level_similarity(level, some_texts, some_videos)
    return HCMISimilarity(combined=combine_levels(scores, weights), **scores)
