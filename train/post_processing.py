"""Re-scoring of a whole score matrix before it is ranked, one direction at a time: dual softmax and querybank norm.

As in `metrics`, `scores` is a float32 or float64 matrix (T texts, V videos) and higher is better. What is returned has
its shape and type and is meant to be ranked along the direction's gallery, query by query; scores of different queries
do not compare. A temperature multiplies the scores: the defaults are those of cosines.

Both see more than the query and the gallery. Their numbers are no plain retrieval numbers, and stand beside those.

Everything is computed in float64, in blocks: beside the scores only the result is held whole.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from .metrics import checked_scores, row_blocks, summarize_ranks, text_to_video_ranks, video_to_text_ranks

POST_PROCESSING = ("dsl", "qb_norm")
DSL_TEMPERATURE = 100.0
QB_NORM_TEMPERATURE = 20.0

_DSL_NOTE = (
    "every test query is scored in the presence of all others; with several captions a video, these compete with each "
    "other for it, which lowers text to video"
)
_QB_NORM_NOTE = "text to video only: video to text would need a bank of training videos"


def dual_softmax(
    scores: Tensor, direction: Literal["text_to_video", "video_to_text"], temperature: float = DSL_TEMPERATURE
) -> Tensor:
    """Dual softmax (DSL; Cheng et al., arXiv 2109.04290): `S * softmax(temperature * S)`, the softmax over the queries.

    The queries are the texts for text to video, so that each video shares itself out among the texts, and the videos
    for video to text. The product for text to video is none for video to text: in the column of a video, which shares
    one sum, it orders positive scores as they were.

    With several captions a video it is they who share the video out: at the usual temperature of 100 the best of them
    takes nearly all, the others lose their own video to a wrong one, and text to video gets worse than without.

    Returns:
        (T, V): the product, each query's times the positive factor that makes its largest softmax weight 1. It changes
        no ranking, and keeps small weights in range: what is e^-100 or less of the query's largest may become 0.

    Raises:
        ValueError: scores that are infinite, NaN or no float32/float64 matrix, or an unknown direction or temperature.
    """
    scores = _finite(scores)
    _check_temperature(temperature)
    if direction not in ("text_to_video", "video_to_text"):
        raise ValueError(f'direction must be "text_to_video" or "video_to_text", not {direction!r}')
    result = torch.empty_like(scores, memory_format=torch.contiguous_format)
    by_query, result_by_query = (scores, result) if direction == "text_to_video" else (scores.T, result.T)
    log_sum = torch.tensor(-math.inf, dtype=torch.float64, device=scores.device)
    for rows in row_blocks(by_query):
        log_sum = torch.logaddexp(log_sum, _log_sum_exp(by_query[rows], temperature))
    for rows in row_blocks(by_query):
        block = by_query[rows].double()
        log_weights = (temperature * block).sub_(log_sum)
        log_weights -= log_weights.amax(dim=1, keepdim=True)
        result_by_query[rows] = log_weights.exp_().mul_(block).to(scores.dtype)
    return result


def querybank_norm(scores: Tensor, bank_scores: Iterable[Tensor], temperature: float = QB_NORM_TEMPERATURE) -> Tensor:
    """Querybank normalisation by the dynamic inverted softmax (QB-Norm; Bogolin et al., CVPR 2022, arXiv 2112.12777).

    A bank of texts that are no test queries tells which videos are found by everything. A query whose best video is
    also the best of some text of the bank is normalised: `exp(temperature * S) / sum_bank exp(temperature * S_bank)`,
    the sum over the bank for each video. All other queries keep their scores. Of videos that tie for the best, each is.

    It is text to video: for video to text give transposed matrices, with a bank of videos.

    Args:
        scores: (T, V).
        bank_scores: blocks (any number of texts, V) of the bank's scores, such as `[matrix]`; together they are never
            held. A text that is in the bank twice counts twice.
        temperature: the paper's inverse temperature; 20 is its authors' for cosines.

    Returns:
        (T, V): for a normalised query the logarithm of that quotient divided by the temperature,
        `S - log(sum_bank exp(temperature * S_bank)) / temperature`, which ranks the same and cannot overflow.

    Raises:
        ValueError: scores that are infinite, NaN or no float32/float64 matrix, an empty bank, or one of other videos.
    """
    scores = _finite(scores)
    _check_temperature(temperature)
    activated = torch.zeros(scores.shape[1], dtype=torch.bool, device=scores.device)
    log_sum = torch.full(activated.shape, -math.inf, dtype=torch.float64, device=scores.device)
    for part in bank_scores:
        part = _finite(part)
        if part.shape[1] != scores.shape[1]:
            raise ValueError(f"the bank was scored with {part.shape[1]} videos, the queries with {scores.shape[1]}")
        for rows in row_blocks(part):
            block = part[rows].to(scores.device)
            activated |= _best(block).any(dim=0)
            log_sum = torch.logaddexp(log_sum, _log_sum_exp(block, temperature))
    if not activated.any():
        raise ValueError("the bank holds no texts")
    result = torch.empty_like(scores, memory_format=torch.contiguous_format)
    for rows in row_blocks(scores):
        block = scores[rows]
        normalised = (_best(block) & activated).any(dim=1, keepdim=True)
        result[rows] = torch.where(normalised, block - log_sum / temperature, block.double()).to(scores.dtype)
    return result


def check_post_processing(names: Sequence[str]) -> None:
    """Refuses what is no list of `POST_PROCESSING`.

    Raises:
        ValueError: it is not.
    """
    if isinstance(names, str) or set(names) - set(POST_PROCESSING):
        raise ValueError(f"post_processing must be a list of any of {list(POST_PROCESSING)}, not {names!r}")


def post_processed_metrics(
    scores: Tensor,
    video_of_text: Tensor,
    names: Sequence[str],
    bank_scores: Iterable[Tensor] = (),
    **summary_options: Any,
) -> dict[str, dict[str, Any]]:
    """The metrics after each of the post-processings, at its default temperature.

    Args:
        scores, video_of_text: as for `metrics.text_to_video_ranks`.
        names: of `POST_PROCESSING`.
        bank_scores: as for `querybank_norm`.
        summary_options: of `metrics.summarize_ranks`.

    Returns:
        For each name `temperature`, `note` and `metrics.summarize_ranks` of its directions: all three for "dsl", which
        works on the texts x videos matrix before either protocol groups its captions; text to video for "qb_norm".

    Raises:
        ValueError: as `check_post_processing` and the functions named.
    """
    check_post_processing(names)
    measured: dict[str, dict[str, Any]] = {}
    if "dsl" in names:
        measured["dsl"] = {"temperature": DSL_TEMPERATURE, "note": _DSL_NOTE}
        ranks = text_to_video_ranks(dual_softmax(scores, "text_to_video"), video_of_text)
        measured["dsl"]["text_to_video"] = summarize_ranks(ranks, **summary_options)
        processed = dual_softmax(scores, "video_to_text")
        for protocol in ("group", "sentence"):
            ranks = video_to_text_ranks(processed, video_of_text, protocol)
            measured["dsl"][f"video_to_text_{protocol}"] = summarize_ranks(ranks, **summary_options)
        del processed
    if "qb_norm" in names:
        measured["qb_norm"] = {"temperature": QB_NORM_TEMPERATURE, "note": _QB_NORM_NOTE}
        ranks = text_to_video_ranks(querybank_norm(scores, bank_scores), video_of_text)
        measured["qb_norm"]["text_to_video"] = summarize_ranks(ranks, **summary_options)
    return measured


def _log_sum_exp(block: Tensor, temperature: float) -> Tensor:
    """(columns,) float64: `log(sum exp(temperature * block))` over the rows."""
    return (temperature * block.double()).logsumexp(dim=0)


def _best(block: Tensor) -> Tensor:
    """Which of each row's entries are its highest."""
    return block == block.amax(dim=1, keepdim=True)


def _finite(scores: Tensor) -> Tensor:
    scores = checked_scores(scores)
    for rows in row_blocks(scores):
        if scores[rows].isinf().any():
            raise ValueError(f"scores are infinite (first in rows {rows.start}..{rows.stop - 1})")
    return scores


def _check_temperature(temperature: float) -> None:
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be positive and finite, not {temperature}")
