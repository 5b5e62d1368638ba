"""Evaluation of a model on one split: the whole text x video score matrix, the metrics of every level, and moments."""

import time
from collections import Counter
from typing import Any

import torch
from torch import Tensor

from hcmi.modeling_hcmi import LEVELS
from hcmi.modeling_hcmi.moments_hcmi import answering_clips, clip_time_spans

from .data.frame_sources import FileFrames
from .encoding import EncodedTexts, EncodedVideos, VideoSource, encode_texts, encode_videos
from .metrics import retrieval_metrics
from .span_metrics import random_spans, span_metrics

RANDOM_SPAN_DRAWS = 20


def evaluate(
    model: Any,
    processor: Any,
    dataset: Any,
    *,
    batch_size: int = 32,
    num_workers: int = 0,
    num_frames: int | None = None,
    max_words: int | None = None,
    frames_for: VideoSource | None = None,
    show_progress: bool = True,
    accelerator: Any = None,
    random_seed: int = 0,
) -> dict[str, Any]:
    """Measures retrieval in both directions, and moments where the data set has events.

    Every video and every distinct caption is encoded once, on the model's device and in its precision, without
    gradient, in evaluation mode. A video's representation depends on its frames alone.

    Args:
        model: an `HCMIModel`, unwrapped (`accelerator.unwrap_model`).
        processor: its `HCMIProcessor`.
        dataset: a `datasets.Dataset`, one row a video, with the columns `video_id`, `captions` and, unless `frames_for`
            is given, `video` and, where the video is a stretch of a file, `start` and `end`; `events` (each with
            `start`, `end` in seconds and `phrases`, the words of every caption that name it) adds moments.
        batch_size: videos, and texts, encoded at once.
        num_workers: processes that decode videos (or run `frames_for`); 0: this one does.
        num_frames: frames a video when files are decoded; default: the processor's.
        max_words: tokens a text, start and end included, beyond which it is cut; default: the most that tokenizer
            and model take.
        frames_for: gives a row's frames instead of the files, for example prepared ones: `VideoSource`.
        show_progress: draw progress bars.
        accelerator: shares the encoding out to its processes. All of them have to call, and all get the whole result.
        random_seed: of the random spans that moments are compared with; nothing else here is random.

    Returns:
        What was measured, ready for JSON: `counts`, `frames`, `tokens`, `levels` (each of the model's and `combined`,
        with `metrics.retrieval_metrics`), `inference_weights`, `post_processing`, `moments`, `seconds`. Shares are
        percentages. `results.complete_result` adds what was evaluated and where.

    Raises:
        VideoReadError: a video cannot be read, with its name: none is ever left out.
        ValueError: no videos, no captions, a repeated `video_id`, scores that are NaN, or options that do not fit.
    """
    if frames_for is not None and num_frames is not None:
        raise ValueError("num_frames says how files are decoded; it has no meaning beside frames_for")
    video_ids, captions = list(dataset["video_id"]), list(dataset["captions"])
    texts = [caption for own in captions for caption in own]
    video_of_text = torch.tensor([video for video, own in enumerate(captions) for _ in own], dtype=torch.long)
    _refuse_unfit(video_ids, texts)
    source = frames_for or FileFrames(processor, dataset, num_frames or processor.frames_per_video)
    text_options = {
        "batch_size": batch_size, "max_words": max_words, "show_progress": show_progress, "accelerator": accelerator
    }  # fmt: skip

    was_training = model.training
    model.eval()
    try:
        started = time.perf_counter()
        videos = encode_videos(
            model,
            source,
            video_ids,
            batch_size=batch_size,
            num_workers=num_workers,
            show_progress=show_progress,
            accelerator=accelerator,
        )
        videos_done = time.perf_counter()
        queries = encode_texts(model, processor.tokenizer, texts, **text_options)
        texts_done = time.perf_counter()
        levels = _measure_levels(model, queries, videos, video_of_text)
        events = list(dataset["events"]) if "events" in dataset.column_names else []
        moments = _measure_moments(model, processor, events, videos, text_options, random_seed) if any(events) else None
    finally:
        model.train(was_training)
    finished = time.perf_counter()

    frame_counts = videos.features.frame_mask.sum(dim=1)
    result: dict[str, Any] = {
        "counts": {
            "videos": len(video_ids),
            "texts": len(texts),
            "distinct_texts": len(queries.features.pooler_output),
        },
        "frames": {
            "per_video": int(frame_counts.max()),
            "videos_with_fewer": int((frame_counts < frame_counts.max()).sum()),
        },
        "tokens": {
            "max_words": queries.max_words,
            "texts_cut": queries.num_cut,
            "share_cut": 100 * queries.num_cut / len(texts),
        },
        "levels": levels,
        "inference_weights": dict(model.config.inference_weights),
        "post_processing": "none",
    }
    if moments is not None:
        result["moments"] = moments
    result["seconds"] = {
        "videos": videos_done - started,
        "texts": texts_done - videos_done,
        "scores": finished - texts_done,
        "total": finished - started,
    }
    return result


def _refuse_unfit(video_ids: list[str], texts: list[str]) -> None:
    if not video_ids or not texts:
        raise ValueError(f"nothing to evaluate: {len(video_ids)} videos, {len(texts)} captions")
    repeated = [video_id for video_id, count in Counter(video_ids).items() if count > 1]
    if repeated:
        raise ValueError(
            f"{len(repeated)} video ids occur more than once (first: {repeated[:10]}): "
            "a gallery holds each video once, with all its captions in one row"
        )


@torch.inference_mode()
def _measure_levels(model: Any, texts: EncodedTexts, videos: EncodedVideos, video_of_text: Tensor) -> dict[str, Any]:
    similarity = model.score(texts.features, videos.features)
    measured = {}
    for level in (*LEVELS, "combined"):
        scores = similarity[level].cpu()[texts.row_of_text]
        try:
            measured[level] = retrieval_metrics(scores, video_of_text)
        except ValueError as error:
            raise ValueError(f"level {level}: {error}") from error
    return measured


@torch.inference_mode()
def _measure_moments(
    model: Any, processor: Any, events: list[list[dict]], videos: EncodedVideos, text_options: dict, random_seed: int
) -> dict[str, Any]:
    """The span of the clip that answers each event's own words on its own video, against the event's true span."""
    video_of_event = torch.tensor([video for video, own in enumerate(events) for _ in own])
    flat = [event for own in events for event in own]
    queries = encode_texts(model, processor.tokenizer, [event["phrases"][0] for event in flat], **text_options)
    predicted = torch.empty(len(flat), 2, dtype=torch.float64)
    for video in video_of_event.unique().tolist():
        rows = video_of_event == video
        own_queries = queries.features.select(queries.row_of_text[rows].to(model.device))
        own_video = videos.features.select(slice(video, video + 1))
        clips = answering_clips(own_queries, own_video)[:, 0].cpu()
        clip_spans = clip_time_spans(
            own_video.clip_frame_weights[0],
            own_video.frame_mask[0],
            videos.timestamps[video],
            *videos.spans[video].tolist(),
        )
        predicted[rows] = clip_spans[clips]

    true = torch.tensor([[event["start"], event["end"]] for event in flat], dtype=torch.float64)
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
