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

CPU_BLOCK_ELEMENTS = 2**21
"""8 MB of token pairs: they stay in the cache between the product and the two maxima."""

ACCELERATOR_BLOCK_ELEMENTS = 2**27
"""512 MB of token pairs."""


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
    return _interact(
        _normalized(text_tokens, text_mask), _normalized(video_tokens, video_mask), text_weights, video_weights
    )


def _normalized(tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """
    L2-normalised tokens `(B, N, D)`; in the place of padding stands the row's first real token once more, which changes
    no maximum and spares every pair of tokens the mask.
    """
    first = mask.to(torch.int8).argmax(-1)[:, None, None].expand(-1, 1, tokens.shape[-1])
    return normalize(torch.where(mask[..., None], tokens, tokens.gather(1, first)), dim=-1)


def _interact(
    words: torch.Tensor, frames: torch.Tensor, word_weights: torch.Tensor, frame_weights: torch.Tensor
) -> torch.Tensor:
    """`(T, V)` of normalised tokens without padding; weights of repeated tokens are zero."""
    (t, w, d), (v, f, _) = words.shape, frames.shape
    # Frames before videos: both maxima then run over rows of contiguous videos, which vectorises.
    pairs = words.reshape(t * w, d) @ frames.transpose(0, 1).reshape(f * v, d).T
    pairs = pairs.view(t, w, f, v)
    best_frame, best_word = pairs.amax(2), pairs.amax(1)  # (T, W, V), (T, F, V)
    by_words = torch.bmm(word_weights[:, None], best_frame).squeeze(1)
    return (by_words + (frame_weights.T * best_word).sum(1)) / 2


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
        (words, word_mask, a), (frames, frame_mask, b) = _tokens(level, text, video)
        return token_wise_similarity(words, frames, word_mask, frame_mask, a, b)


def batch_similarity(text: HCMITextFeatures, video: HCMIVideoFeatures, weights: dict[str, float]) -> HCMISimilarity:
    """Similarities of the texts and videos of one batch on all levels, at once and differentiable, in float32."""
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
    Similarities of any number of texts and videos, in blocks of at most `max_block_elements` token pairs, in float32.

    Texts of about the same length share a block, which is as wide as its longest: padding costs little.

    Args:
        text, video: features of `T` texts and `V` videos on one device.
        weights: weight of each level in the combination.
        levels: the levels to compute.
        max_block_elements: bound on the `(texts × words × videos × frames)` array of one block (4 bytes each). Default:
            `CPU_BLOCK_ELEMENTS` or `ACCELERATOR_BLOCK_ELEMENTS`.
    """
    unknown = set(levels) - set(LEVELS)
    if unknown or not levels:
        raise ValueError(f"`levels` has to be a choice of {LEVELS}, got {tuple(levels)}.")
    device = text.pooler_output.device
    if max_block_elements is None:
        max_block_elements = CPU_BLOCK_ELEMENTS if device.type == "cpu" else ACCELERATOR_BLOCK_ELEMENTS
    num_texts, num_videos = len(text.pooler_output), len(video.pooler_output)

    scores = {}
    with full_precision(device):
        for level in levels:
            if level == "video_sentence":
                sentences, vectors = (normalize(side.pooler_output.float(), dim=-1) for side in (text, video))
                scores[level] = sentences @ vectors.T
            else:
                scores[level] = torch.empty(num_texts, num_videos, device=device)
                if scores[level].numel() and device.type != "meta":
                    _score_blocks(*_tokens(level, text, video), scores[level], max_block_elements)
    return HCMISimilarity(combined=combine_levels(scores, weights), **scores)


def _score_blocks(text: tuple, video: tuple, scores: torch.Tensor, max_block_elements: int) -> None:
    """Fills `scores` `(T, V)` with the similarities of one token-wise level; a side is its tokens, mask and weights."""
    words, word_mask, word_weights = text
    video_tokens, video_mask, video_weights = video
    num_frames = int(_lengths(video_mask).max())
    frames = _normalized(video_tokens[:, :num_frames].float(), video_mask[:, :num_frames])
    frame_weights = video_weights[:, :num_frames].float()

    lengths, order = _lengths(word_mask).sort(descending=True)
    longest = lengths.tolist()
    first = 0
    while first < len(order):
        # Square-ish blocks read each side the fewest times.
        pairs = longest[first] * num_frames
        texts_at_once = max(1, int((max_block_elements / pairs) ** 0.5))
        videos_at_once = max(1, max_block_elements // (pairs * min(texts_at_once, len(order) - first)))
        rows, columns = order[first : first + texts_at_once], slice(0, longest[first])
        some_words = _normalized(words[rows, columns].float(), word_mask[rows, columns])
        some_weights = word_weights[rows, columns].float()
        for start in range(0, len(frames), videos_at_once):
            some = slice(start, start + videos_at_once)
            scores[rows, some] = _interact(some_words, frames[some], some_weights, frame_weights[some])
        first += texts_at_once


def _lengths(mask: torch.Tensor) -> torch.Tensor:
    """`(B,)`: how many tokens of each row there are up to its last real one."""
    return (mask * torch.arange(1, mask.shape[1] + 1, device=mask.device)).amax(1)
