"""The objective as pure functions of embeddings: multi-positive contrast, label denoising, marginal samples."""

from dataclasses import dataclass
from functools import reduce

import torch
from torch.nn.functional import normalize
from transformers.utils import ModelOutput

from .configuration_hcmi import LEVELS, HCMIConfig
from .features_hcmi import HCMITextFeatures, HCMIVideoFeatures
from .interaction_hcmi import level_similarity
from .token_wise_hcmi import full_precision


@dataclass
class HCMIObjective(ModelOutput):
    """
    Scalars of one batch.

    Args:
        loss: the weighted sum of the parts, differentiable.
        frame_word, clip_phrase, video_sentence: contrast of each level, unweighted; `None` where its weight is 0.
        marginal: the marginal sample loss, unweighted; `None` where its weight is 0.
        mined_pairs: number of positives that label denoising found beyond the known ones (an integer).
    """

    loss: torch.Tensor | None = None
    frame_word: torch.Tensor | None = None
    clip_phrase: torch.Tensor | None = None
    video_sentence: torch.Tensor | None = None
    marginal: torch.Tensor | None = None
    mined_pairs: torch.Tensor | None = None


def same_video(video_ids: torch.Tensor) -> torch.Tensor:
    """`(B,)` ids → `(B, B)` bool: pairs known to be positive, the diagonal among them."""
    return video_ids[:, None] == video_ids[None, :]


def denoised_positives(first_view: torch.Tensor, second_view: torch.Tensor) -> torch.Tensor:
    """
    Adaptive label denoising [A]: `(i, j)` counts as a positive pair when
    `1/4 sum_{k,l in {1,2}} cos(v_i^k, v_j^l) >= cos(v_i^1, v_i^2)`. The threshold belongs to row `i`, so the relation
    is not symmetric. The diagonal is always positive [C]; no gradient passes [C].

    Args:
        first_view, second_view (`(B, D)`): video vectors of two views of the same videos.

    Returns:
        `(B, B)` bool, rows are the videos `i`.

    Example:
        Views at 0° and 60° (cosine 0.5), at 30° and 30° (cosine 1), and at 180° twice (cosine 1). For `i = 0`,
        `j = 1` all four cosines are cos 30° = 0.866, their mean is at least 0.5: positive. For `i = 1`, `j = 0` the
        same 0.866 is below 1: negative.

        >>> angles = torch.tensor([[0.0, 60.0], [30.0, 30.0], [180.0, 180.0]]).deg2rad()
        >>> views = torch.stack([angles.cos(), angles.sin()], dim=-1)
        >>> denoised_positives(views[:, 0], views[:, 1]).int().tolist()
        [[1, 1, 0], [0, 1, 0], [0, 0, 1]]
    """
    with torch.no_grad(), full_precision(first_view.device):
        first, second = normalize(first_view.float(), dim=-1), normalize(second_view.float(), dim=-1)
        # The mean of four cosines is the product of the mean views.
        middle = (first + second) / 2
        positives = middle @ middle.T >= (first * second).sum(-1, keepdim=True)
        return positives | torch.eye(len(first), dtype=torch.bool, device=first.device)


def multi_positive_contrast(logits: torch.Tensor, positives: torch.Tensor) -> torch.Tensor:
    """
    InfoNCE with any number of positives a row: `-mean_i log sum_{k in P_i} softmax_i(k)` [C] (the form of EgoNCE,
    Lin et al., arXiv 2206.01670); with one positive a row it is cross-entropy.

    Args:
        logits (`(N, M)`): scaled similarities. positives (`(N, M)`, bool): `P`, at least one in each row.

    Example:
        Logits 0, 0, 0 with the first two positive: `-log(2/3) = 0.4055`.

        >>> round(multi_positive_contrast(torch.zeros(1, 3), torch.tensor([[True, True, False]])).item(), 4)
        0.4055
    """
    return _contrast(logits, _positive_logits(logits, positives), dim=1)


def _positive_logits(logits: torch.Tensor, positives: torch.Tensor) -> torch.Tensor:
    """The logits of `positives`; the others the lowest number there is."""
    return logits.masked_fill(~positives, torch.finfo(logits.dtype).min)


def _contrast(logits: torch.Tensor, positive_logits: torch.Tensor, dim: int) -> torch.Tensor:
    return (logits.logsumexp(dim) - positive_logits.logsumexp(dim)).mean()


def symmetric_contrast(similarity: torch.Tensor, positives: torch.Tensor, logit_scale: torch.Tensor) -> torch.Tensor:
    """
    The mean of the contrasts in both directions: video → text with the mask, text → video with its transpose [C].

    Args:
        similarity (`(B texts, B videos)`), positives (`(B videos, B texts)`, bool), logit_scale (scalar).
    """
    logits = logit_scale * similarity
    # One masked copy for both directions: at thousands of pairs such a table takes tens of megabytes.
    positive_logits = _positive_logits(logits, positives.T)
    return (_contrast(logits, positive_logits, dim=0) + _contrast(logits, positive_logits, dim=1)) / 2


def marginal_sample_loss(similarity: torch.Tensor, positives: torch.Tensor, margin: float) -> torch.Tensor:
    """
    Marginal sample enhancement [A]: with `j` and `k` the hardest negatives of video `i` and of text `i`,
    `mean_i 1/2 [ max(s(t_j, v_i) − s(t_i, v_i) + margin, 0) + max(s(t_i, v_k) − s(t_i, v_i) + margin, 0) ]`. Positives,
    mined ones too, are never chosen as negatives; an item without negatives adds nothing [C].

    Args:
        similarity (`(B texts, B videos)`): cosines. positives (`(B videos, B texts)`, bool). margin: `θ`.

    Example:
        Two pairs with own similarities 0.9 and 0.5; text 0 and video 1 have 0.6, text 1 and video 0 have 0.1. Video 0
        meets text 1 (0.1): 0; text 0 meets video 1 (0.6): 0; video 1 meets text 0: 0.6 − 0.5 + 0.2 = 0.3; text 1
        meets video 0: 0. The mean over both of half the sums is 0.075.

        >>> s = torch.tensor([[0.9, 0.6], [0.1, 0.5]])
        >>> round(marginal_sample_loss(s, torch.eye(2).bool(), 0.2).item(), 4)
        0.075
    """
    own = similarity.diagonal()
    # An item with no negative meets -inf, which the hinge turns into 0.
    negatives = similarity.masked_fill(positives.T, -torch.inf)
    hardest_text, hardest_video = negatives.amax(0), negatives.amax(1)
    return ((hardest_text - own + margin).clamp(min=0) + (hardest_video - own + margin).clamp(min=0)).mean() / 2


def hcmi_objective(
    text: HCMITextFeatures,
    video: HCMIVideoFeatures,
    logit_scale: torch.Tensor,
    config: HCMIConfig,
    second_view: torch.Tensor | None = None,
    video_ids: torch.Tensor | None = None,
) -> HCMIObjective:
    """
    The whole objective over a batch of `B` pairs: the sum of the levels' symmetric contrasts and the marginal sample
    loss, weighted as `config` says; computed in float32.

    Args:
        text, video: features; text `i` describes video `i`.
        logit_scale: the (exponentiated, clamped) scale, a scalar tensor.
        config: weights, label denoising and margin.
        second_view (`(B, D)`, *optional*): video vectors of a second view of each video. With label denoising on, it
            decides the mined positives; without it only known positives count.
        video_ids (`(B,)`, *optional*): equal ids are the same video, whose captions are all positives [C].
    """
    text, video = text.to(torch.float32), video.to(torch.float32)
    logit_scale = logit_scale.float()
    if video_ids is None:
        video_ids = torch.arange(len(video.pooler_output), device=video.pooler_output.device)
    known = same_video(video_ids)
    positives = known
    if config.label_denoising and second_view is not None:
        positives = known | denoised_positives(video.pooler_output, second_view)

    levels = [level for level in LEVELS if config.loss_weights[level] > 0]
    similarities = {level: level_similarity(level, text, video) for level in levels}
    parts = {level: symmetric_contrast(similarities[level], positives, logit_scale) for level in levels}
    loss = reduce(torch.add, (config.loss_weights[level] * parts[level] for level in levels))
    if config.marginal_weight > 0:
        cosines = similarities.get("video_sentence")
        if cosines is None:
            cosines = level_similarity("video_sentence", text, video)
        parts["marginal"] = marginal_sample_loss(cosines, positives, config.marginal_margin)
        loss = loss + config.marginal_weight * parts["marginal"]
    return HCMIObjective(loss=loss, mined_pairs=(positives & ~known).sum(), **parts)
