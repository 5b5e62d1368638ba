"""Which stretch of a video answers a query: from clips' frame weights and frames' timestamps to seconds."""

import torch
from torch.nn.functional import normalize

from .features_hcmi import HCMITextFeatures, HCMIVideoFeatures


def answering_clips(text: HCMITextFeatures, video: HCMIVideoFeatures) -> torch.Tensor:
    """
    For each text and video the index of the clip that answers the query's best phrase, the phrase and clip of highest
    cosine among the real ones [C].

    Args:
        text, video: features of `T` texts and `V` videos.

    Returns:
        `(T, V)`, long.
    """
    phrases, clips = normalize(text.phrases.float(), dim=-1), normalize(video.clips.float(), dim=-1)
    pairs = torch.einsum("tpd,vcd->tvpc", phrases, clips)
    pairs = pairs.masked_fill(~text.phrase_mask[:, None, :, None], -2.0)
    pairs = pairs.masked_fill(~video.clip_mask[None, :, None, :], -2.0)
    return pairs.amax(2).argmax(-1)


def clip_time_spans(
    clip_frame_weights: torch.Tensor,
    frame_mask: torch.Tensor,
    timestamps: torch.Tensor,
    start: float,
    end: float,
    threshold: float = 0.5,
) -> torch.Tensor:
    """
    The time span of each clip of one video: the run of frames around its heaviest one that weigh at least `threshold`
    of it. A frame stands for the time half-way to its neighbours, the outer ones up to `start` and `end` [C].

    Args:
        clip_frame_weights (`(C, F)`): which frames make a clip.
        frame_mask (`(F,)`, bool): which frames are real; they come first.
        timestamps (`(F,)`): seconds of the frames, ascending; padding is ignored.
        start, end: seconds between which the frames were sampled.
        threshold: share of the heaviest frame's weight, in 0..1.

    Returns:
        `(C, 2)` float64, seconds.

    Example:
        Frames at 1, 3 and 5 s of a 6 s video; a clip that weighs them 0.1, 0.5 and 0.4 spans 2 s to 6 s.

        >>> clip_time_spans(torch.tensor([[0.1, 0.5, 0.4]]), torch.ones(3).bool(), torch.tensor([1.0, 3.0, 5.0]), 0, 6)
        tensor([[2., 6.]], dtype=torch.float64)
    """
    count = int(frame_mask.sum())
    times = timestamps[:count].double().cpu()
    edges = torch.cat([times.new_tensor([start]), (times[1:] + times[:-1]) / 2, times.new_tensor([end])])
    spans = []
    for weights in clip_frame_weights[:, :count].detach().float().cpu():
        peak = int(weights.argmax())
        heavy = (weights >= threshold * weights[peak]).tolist()
        first, last = peak, peak
        while first > 0 and heavy[first - 1]:
            first -= 1
        while last < count - 1 and heavy[last + 1]:
            last += 1
        spans.append(torch.stack([edges[first], edges[last + 1]]))
    return torch.stack(spans)
