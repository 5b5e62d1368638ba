"""Which stretch of a video answers a query: from frames' similarities, or clips' frame weights, to seconds."""

import torch
from torch.nn.functional import normalize

from .features_hcmi import HCMITextFeatures, HCMIVideoFeatures


def frame_relevance(text: HCMITextFeatures, video: HCMIVideoFeatures) -> torch.Tensor:
    """
    How much each frame shows what a text says: the cosine of the frame with the sentence vector [C].

    Args:
        text, video: features of `T` texts and `V` videos of `F` frames.

    Returns:
        `(T, V, F)` float32 in -1..1; meaningless on padding.
    """
    sentences, frames = normalize(text.pooler_output.float(), dim=-1), normalize(video.frames.float(), dim=-1)
    return torch.einsum("td,vfd->tvf", sentences, frames)


def relevant_span(
    relevance: torch.Tensor, frame_mask: torch.Tensor, timestamps: torch.Tensor, start: float, end: float
) -> tuple[float, float]:
    """
    The moment of one video that answers a query: the run of frames around the most relevant one that lie above the
    middle between the video's most and least relevant frames [C]. No constant is involved that would depend on the
    scale of a model's similarities.

    Args:
        relevance (`(F,)`): of each frame, as `frame_relevance` gives it.
        frame_mask (`(F,)`, bool): which frames are real; they come first.
        timestamps (`(F,)`): seconds of the frames, ascending; padding is ignored.
        start, end: seconds between which the frames were sampled.

    Returns:
        Start and end in seconds. A frame stands for the time half-way to its neighbours, the outer ones up to `start`
        and `end`.

    Example:
        Frames at 1, 3 and 5 s of a 6 s video with relevance 0.1, 0.5 and 0.4: the middle is 0.3, the moment 2 s to 6 s.

        >>> times = torch.tensor([1.0, 3.0, 5.0])
        >>> relevant_span(torch.tensor([0.1, 0.5, 0.4]), torch.ones(3).bool(), times, 0, 6)
        (2.0, 6.0)
    """
    count = int(frame_mask.sum())
    real = relevance[:count].detach().float().cpu()
    edges = _frame_edges(timestamps[:count], start, end)
    first, last = _run_around_peak(real, float(real.max() + real.min()) / 2)
    return edges[first].item(), edges[last + 1].item()


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
    edges = _frame_edges(timestamps[:count], start, end)
    spans = []
    for weights in clip_frame_weights[:, :count].detach().float().cpu():
        first, last = _run_around_peak(weights, threshold * float(weights.max()))
        spans.append(torch.stack([edges[first], edges[last + 1]]))
    return torch.stack(spans)


def _frame_edges(timestamps: torch.Tensor, start: float, end: float) -> torch.Tensor:
    """`(F + 1,)` float64: where the time that each of `F` frames stands for begins and ends."""
    times = timestamps.double().cpu()
    return torch.cat([times.new_tensor([start]), (times[1:] + times[:-1]) / 2, times.new_tensor([end])])


def _run_around_peak(values: torch.Tensor, least: float) -> tuple[int, int]:
    """First and last index of the values without a gap around the highest that are at least `least`."""
    first = last = int(values.argmax())
    enough = (values >= least).tolist()
    while first > 0 and enough[first - 1]:
        first -= 1
    while last < len(enough) - 1 and enough[last + 1]:
        last += 1
    return first, last
