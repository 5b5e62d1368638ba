"""Evaluation of a model on one split: the whole text x video score matrix, the metrics of every level, and moments."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from hcmi.modeling_hcmi import LEVELS

from .data.frame_sources import FileFrames
from .encoding import EncodedTexts, EncodedVideos, VideoSource, encode_texts, encode_videos
from .metrics import recall_curve, retrieval_metrics, retrieval_ranks, summarize_ranks
from .moments import measure_moments
from .post_processing import check_post_processing, post_processed_metrics

RECALL_CURVE_AT = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100)

# A bank may have ten times the texts of a test: their features and scores are held for so many at once.
_BANK_TEXTS_AT_ONCE = 8192


def evaluate(
    model: Any,
    processor: Any,
    dataset: Any,
    *,
    batch_size: int = 32,
    num_workers: int = 0,
    reader_timeout: float = 300.0,
    num_frames: int | None = None,
    max_words: int | None = None,
    frames_for: VideoSource | None = None,
    show_progress: bool = True,
    accelerator: Any = None,
    post_processing: Sequence[str] = (),
    bank_texts: Sequence[str] | None = None,
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
        reader_timeout: seconds that such a process may take for one video; 0: any time.
        num_frames: frames a video when files are decoded; default: the processor's.
        max_words: tokens a text, start and end included, beyond which it is cut; default: the most that tokenizer
            and model take.
        frames_for: gives a row's frames instead of the files, for example prepared ones: `VideoSource`.
        show_progress: draw progress bars.
        accelerator: shares the encoding out to its processes. All of them have to call, and all get the whole result.
        post_processing: any of "dsl" and "qb_norm" (see `post_processing`) to measure beside the plain scores.
        bank_texts: for "qb_norm": captions of the training split. It is done for text to video alone: for video to text
            its bank would be videos of the training split, which are not encoded here.
        random_seed: of the random spans that moments are compared with; nothing else here is random.

    Returns:
        What was measured, ready for JSON; shares are percentages. `results.complete_result` adds what was evaluated and
        where.

        - `counts`, `frames`, `tokens`, `inference_weights`, `seconds`;
        - `levels`: `metrics.retrieval_metrics` of each of the model's levels and of `combined`, always of plain scores;
        - `recall_curve`: of the combined scores, the numbers `K` and each direction's R@K (video to text by groups);
        - `post_processing`: of the combined scores, `post_processing.post_processed_metrics` and the size of the bank;
        - `moments`, where there are events.

    Raises:
        VideoReadError: a video cannot be read, with its name: none is ever left out.
        ChildProcessError: a process that reads died, or took too long for a video, with its name.
        ValueError: no videos, no captions, a repeated `video_id`, scores that are NaN, or options that do not fit.
    """
    if frames_for is not None and num_frames is not None:
        raise ValueError("num_frames says how files are decoded; it has no meaning beside frames_for")
    video_ids, captions = list(dataset["video_id"]), list(dataset["captions"])
    texts = [caption for own in captions for caption in own]
    video_of_text = torch.tensor([video for video, own in enumerate(captions) for _ in own], dtype=torch.long)
    _refuse_unfit(video_ids, texts)
    _refuse_unfit_post_processing(post_processing, bank_texts)
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
            reader_timeout=reader_timeout,
            files=dataset["video"] if "video" in dataset.column_names else None,
            show_progress=show_progress,
            accelerator=accelerator,
        )
        videos_done = time.perf_counter()
        queries = encode_texts(model, processor.tokenizer, texts, **text_options)
        texts_done = time.perf_counter()
        bank = _bank_scores(model, processor.tokenizer, bank_texts or (), videos, text_options)
        retrieval = _measure_retrieval(model, queries, videos, video_of_text, post_processing, bank)
        events = list(dataset["events"]) if "events" in dataset.column_names else []
        moments = None
        if any(events):
            words = [event["phrases"][0] for own in events for event in own]
            asked = encode_texts(model, processor.tokenizer, words, **text_options)
            moments = measure_moments(asked, videos, events, random_seed)
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
        **retrieval,
        "inference_weights": dict(model.config.inference_weights),
    }
    if bank_texts is not None:
        result["post_processing"]["qb_norm"]["bank_texts"] = len(bank_texts)
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


def _refuse_unfit_post_processing(names: Sequence[str], bank_texts: Sequence[str] | None) -> None:
    check_post_processing(names)
    if "qb_norm" in names and not bank_texts:
        raise ValueError("qb_norm needs bank_texts: captions of the training split")
    if "qb_norm" not in names and bank_texts is not None:
        raise ValueError("bank_texts are for qb_norm, which was not asked for")


@torch.inference_mode()
def _measure_retrieval(
    model: Any,
    texts: EncodedTexts,
    videos: EncodedVideos,
    video_of_text: Tensor,
    post_processing: Sequence[str],
    bank_scores: Iterator[Tensor],
) -> dict[str, Any]:
    similarity = dict(model.score(texts.features, videos.features))
    measured = {}
    for level in LEVELS:
        # Taken out: at the end of its turn a level's matrix is free.
        scores = _row_per_text(similarity.pop(level), texts)
        try:
            measured[level] = retrieval_metrics(scores, video_of_text)
        except ValueError as error:
            raise ValueError(f"level {level}: {error}") from error
    scores = _row_per_text(similarity.pop("combined"), texts)
    ranks = retrieval_ranks(scores, video_of_text)
    measured["combined"] = {direction: summarize_ranks(own) for direction, own in ranks.items()}
    curves = {name: recall_curve(ranks[name], RECALL_CURVE_AT) for name in ("text_to_video", "video_to_text_group")}
    return {
        "levels": measured,
        "recall_curve": {"K": list(RECALL_CURVE_AT), **curves},
        "post_processing": post_processed_metrics(scores, video_of_text, post_processing, bank_scores),
    }


def _bank_scores(
    model: Any, tokenizer: Any, bank_texts: Sequence[str], videos: EncodedVideos, text_options: dict
) -> Iterator[Tensor]:
    """The combined scores of the bank's texts, block by block."""
    for first in range(0, len(bank_texts), _BANK_TEXTS_AT_ONCE):
        block = encode_texts(model, tokenizer, bank_texts[first : first + _BANK_TEXTS_AT_ONCE], **text_options)
        yield _row_per_text(model.score(block.features, videos.features).combined, block)


def _row_per_text(scores: Tensor, texts: EncodedTexts) -> Tensor:
    """The scores of distinct texts, which have an order of their own, as those of all texts, on the CPU."""
    scores = scores.cpu()
    in_order = torch.equal(texts.row_of_text, torch.arange(len(scores)))
    return scores if in_order else scores[texts.row_of_text]
