"""How well the moments that a model finds in videos agree with the true spans of their events."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hcmi.modeling_hcmi.moments_hcmi import answering_clips, clip_time_spans, frame_relevance, relevant_span

from .encoding import EncodedTexts, EncodedVideos
from .span_metrics import random_spans, span_metrics

RANDOM_SPAN_DRAWS = 20


@torch.inference_mode()
def measure_moments(
    queries: EncodedTexts, videos: EncodedVideos, events: Sequence[Sequence[Mapping[str, Any]]], random_seed: int = 0
) -> dict[str, Any]:
    """Each event's own words, searched in its own video, against the event's true span.

    Args:
        queries: a text for each event, in the order of videos and events.
        videos: the V videos.
        events: V lists, each event with `start` and `end` in seconds.
        random_seed: of the random spans.

    Returns:
        `query`, `random_spans` (how they were drawn) and, for all events and for those of videos with several, their
        number and `span_metrics` of the moments that the pipeline answers with (`predicted`), of the clip that answers
        the best phrase (`answering_clip`), and of two baselines: `whole_video` and `random_span`.
    """
    video_of_event = torch.tensor([video for video, own in enumerate(events) for _ in own])
    predicted, of_clips = torch.empty(2, len(video_of_event), 2, dtype=torch.float64)
    for video in video_of_event.unique().tolist():
        rows = video_of_event == video
        predicted[rows], of_clips[rows] = _spans(queries, rows, videos, video)

    true = torch.tensor([[event["start"], event["end"]] for own in events for event in own], dtype=torch.float64)
    within = videos.spans[video_of_event]
    several = torch.bincount(video_of_event)[video_of_event] > 1
    groups = {"all": torch.ones_like(several), "videos_with_several_events": several}
    return {
        "query": "the words of the first caption that name the event",
        "random_spans": {"seed": random_seed, "draws": RANDOM_SPAN_DRAWS},
        **{
            name: {
                "events": int(rows.sum()),
                "videos": len(video_of_event[rows].unique()),
                "predicted": span_metrics(predicted[rows], true[rows]),
                "answering_clip": span_metrics(of_clips[rows], true[rows]),
                "whole_video": span_metrics(within[rows], true[rows]),
                "random_span": span_metrics(
                    random_spans(within[rows].repeat(RANDOM_SPAN_DRAWS, 1), random_seed),
                    true[rows].repeat(RANDOM_SPAN_DRAWS, 1),
                ),
            }
            for name, rows in groups.items()
            if rows.any()
        },
    }


def _spans(queries: EncodedTexts, rows: Tensor, videos: EncodedVideos, video: int) -> tuple[Tensor, Tensor]:
    """The moments `(Q, 2)` of some queries in one video: by the frames' relevance, and by the answering clips."""
    features = videos.features.select(slice(video, video + 1))
    own = queries.features.select(queries.row_of_text[rows].to(features.frames.device))
    frame_mask, where = features.frame_mask[0], (videos.timestamps[video], *videos.spans[video].tolist())
    by_relevance = [relevant_span(relevance, frame_mask, *where) for relevance in frame_relevance(own, features)[:, 0]]
    clip_spans = clip_time_spans(features.clip_frame_weights[0], frame_mask, *where)
    by_clip = clip_spans[answering_clips(own, features)[:, 0].cpu()]
    return torch.tensor(by_relevance, dtype=torch.float64), by_clip
