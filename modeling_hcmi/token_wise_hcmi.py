"""Token-wise interaction of two sets of tokens in blocks: the array of all pairs of tokens never exists at once."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn.functional import normalize

CPU_BLOCK_ELEMENTS = 2**21
"""8 MB of token pairs: they stay in the cache between the product and the two maxima."""

ACCELERATOR_BLOCK_ELEMENTS = 2**27
"""512 MB of token pairs."""


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
    whatever the sign of the similarities. Differentiable once, with respect to tokens and weights; tied tokens share a
    maximum's gradient.

    Args:
        text_tokens (`(T, W, D)`), video_tokens (`(V, F, D)`): not normalised.
        text_mask (`(T, W)`), video_mask (`(V, F)`): bool; every row has a real token.
        text_weights (`(T, W)`), video_weights (`(V, F)`): `a` and `b`, zero on padding.

    Returns:
        `(T, V)`. Blocks of the `(T, V, W, F)` array are built on the way, and once more for the gradient.

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
    words, frames = _normalized(text_tokens, text_mask), _normalized(video_tokens, video_mask)
    return _Interaction.apply(words, frames, text_weights, video_weights)


def token_wise_scores(
    text: tuple[torch.Tensor, ...], video: tuple[torch.Tensor, ...], max_elements: int
) -> torch.Tensor:
    """
    `token_wise_similarity` of any number of texts and videos in float32, for when no gradient is asked for.

    Texts of about the same length share a block, which is as wide as its longest: padding costs little.

    Args:
        text, video: tokens, mask and weights, as `token_wise_similarity` takes them.
        max_elements: how many pairs of tokens a block has at most.
    """
    words, word_mask, word_weights = text
    video_tokens, video_mask, video_weights = video
    scores = torch.empty(len(words), len(video_tokens), device=words.device)
    # Nothing is longest among none, and the meta device knows no lengths.
    if not scores.numel() or scores.is_meta:
        return scores
    num_frames = int(_lengths(video_mask).max())
    frames = _normalized(video_tokens[:, :num_frames].float(), video_mask[:, :num_frames])
    frame_weights = video_weights[:, :num_frames].float()

    lengths, order = _lengths(word_mask).sort(descending=True)
    longest = lengths.tolist()
    first = 0
    while first < len(order):
        texts = _texts_per_block(len(order) - first, longest[first] * num_frames, max_elements)
        rows, columns = order[first : first + texts], slice(0, longest[first])
        some_words = _normalized(words[rows, columns].float(), word_mask[rows, columns])
        some_weights = word_weights[rows, columns].float()
        scores[rows] = _interact(some_words, frames, some_weights, frame_weights, max_elements)
        first += texts
    return scores


def _lengths(mask: torch.Tensor) -> torch.Tensor:
    """`(B,)`: how many tokens of each row there are up to its last real one."""
    return (mask * torch.arange(1, mask.shape[1] + 1, device=mask.device)).amax(1)


def _normalized(tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """
    L2-normalised tokens `(B, N, D)`; in the place of padding stands the row's first real token once more, which changes
    no maximum and spares every pair of tokens the mask. It ties with its repetitions, whose gradient is its own.
    """
    first = mask.to(torch.int8).argmax(-1)[:, None, None].expand(-1, 1, tokens.shape[-1])
    return normalize(torch.where(mask[..., None], tokens, tokens.gather(1, first)), dim=-1)


def full_precision(device: torch.device) -> AbstractContextManager:
    """Switches automatic mixed precision off inside: it would round cosines to 8 bits before the logit scale."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def block_elements(device: torch.device) -> int:
    """How many pairs of tokens a block has at most."""
    return CPU_BLOCK_ELEMENTS if device.type == "cpu" else ACCELERATOR_BLOCK_ELEMENTS


def _interact(
    words: torch.Tensor,
    frames: torch.Tensor,
    word_weights: torch.Tensor,
    frame_weights: torch.Tensor,
    max_elements: int,
) -> torch.Tensor:
    """`(T, V)` of normalised tokens without padding; weights of repeated tokens are zero."""
    scores = words.new_empty(len(words), len(frames))
    for rows, columns in _blocks(words, frames, max_elements):
        pairs = _pairs(words[rows], _frames_first(frames[columns]), frames.shape[1])
        best_frame, best_word = pairs.amax(2), pairs.amax(1)  # (T, W, V), (T, F, V)
        by_words = torch.bmm(word_weights[rows, None], best_frame).squeeze(1)
        scores[rows, columns] = (by_words + (frame_weights[columns].T * best_word).sum(1)) / 2
    return scores


class _Interaction(torch.autograd.Function):
    """`_interact` with a gradient; keeps its inputs alone and builds each block's pairs again in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        words: torch.Tensor,
        frames: torch.Tensor,
        word_weights: torch.Tensor,
        frame_weights: torch.Tensor,
    ) -> torch.Tensor:
        ctx.save_for_backward(words, frames, word_weights, frame_weights)
        return _interact(words, frames, word_weights, frame_weights, block_elements(words.device))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        with full_precision(gradient.device):
            return _gradients(ctx.saved_tensors, gradient / 2, ctx.needs_input_grad)


def _gradients(
    inputs: tuple[torch.Tensor, ...], halves: torch.Tensor, needed: tuple[bool, ...]
) -> tuple[torch.Tensor | None, ...]:
    """Gradients of those inputs of `_Interaction` that need one; `halves` `(T, V)` is half the result's gradient."""
    words, frames, word_weights, frame_weights = inputs
    gradients = tuple(torch.zeros_like(x) if wanted else None for x, wanted in zip(inputs, needed, strict=True))
    for_words, for_frames, for_word_weights, for_frame_weights = gradients
    for rows, columns in _blocks(words, frames, block_elements(words.device)):
        some_words, some_frames, half = words[rows], _frames_first(frames[columns]), halves[rows, columns]
        pairs = _pairs(some_words, some_frames, frames.shape[1])
        best_frame, best_word = pairs.amax(2), pairs.amax(1)
        if for_word_weights is not None:
            for_word_weights[rows] += torch.bmm(best_frame, half[..., None]).squeeze(2)
        if for_frame_weights is not None:
            for_frame_weights[columns] += (best_word * half[:, None]).sum(0).T
        if for_words is None and for_frames is None:
            continue
        for_best_frame, for_best_word = (
            word_weights[rows, :, None] * half[:, None],
            frame_weights[columns].T * half[:, None],
        )
        for_pairs = _pairs_gradient(pairs, best_frame, best_word, for_best_frame, for_best_word)
        if for_words is not None:
            for_words[rows] += (for_pairs @ some_frames).view_as(some_words)
        if for_frames is not None:
            products = for_pairs.T @ some_words.flatten(0, 1)
            for_frames[columns] += products.unflatten(0, (frames.shape[1], -1)).transpose(0, 1)
    return gradients


def _pairs_gradient(
    pairs: torch.Tensor,
    best_frame: torch.Tensor,
    best_word: torch.Tensor,
    for_best_frame: torch.Tensor,
    for_best_word: torch.Tensor,
) -> torch.Tensor:
    """
    `(T · W, F · V)`: the gradient of a block's pairs `(T, W, F, V)`, which it overwrites, from the gradients of both
    maxima. Tied tokens share theirs.
    """
    # Comparing in place gives ones and zeros of the pairs' own type: much faster on CPU than booleans or indices.
    is_best = pairs.clone().eq_(best_frame[:, :, None])
    gradient = is_best.mul_((for_best_frame / is_best.sum(2))[:, :, None])
    is_best = pairs.eq_(best_word[:, None])
    gradient.addcmul_(is_best, (for_best_word / is_best.sum(1))[:, None])
    return gradient.flatten(2).flatten(0, 1)


def _blocks(words: torch.Tensor, frames: torch.Tensor, max_elements: int) -> Iterator[tuple[slice, slice]]:
    """Texts and videos of each block."""
    pairs = words.shape[1] * frames.shape[1]
    texts = _texts_per_block(len(words), pairs, max_elements)
    videos = max(1, max_elements // (pairs * texts))
    for text in range(0, len(words), texts):
        for video in range(0, len(frames), videos):
            yield slice(text, text + texts), slice(video, video + videos)


def _texts_per_block(num_texts: int, pairs: int, max_elements: int) -> int:
    """How many texts share a block, where one text and one video have `pairs` pairs of tokens."""
    # Square-ish blocks read each side the fewest times.
    return max(1, min(num_texts, int((max_elements / pairs) ** 0.5)))


def _frames_first(frames: torch.Tensor) -> torch.Tensor:
    """`(V, F, D)` → `(F · V, D)`: both maxima then run over rows of contiguous videos, which vectorises."""
    return frames.transpose(0, 1).flatten(0, 1)


def _pairs(words: torch.Tensor, frames: torch.Tensor, num_frames: int) -> torch.Tensor:
    """`(T, W, D)` and `(F · V, D)` → `(T, W, F, V)`."""
    pairs = words.flatten(0, 1) @ frames.T
    return pairs.view(*words.shape[:2], num_frames, -1)
