"""Text-video retrieval metrics: pure functions of a score matrix.

`scores` is a torch tensor (T texts, V videos), float32 or float64 (anything that `torch.as_tensor` takes will do);
higher is better; NaN is refused. `video_of_text` is (T,) integers: the column that is right for each text. T and V are
unrelated: a video may have several texts, one, or none (then it only widens the gallery). Ranks start at 1. Shares are
percentages.

Ties: the rank of the right item is its average rank, `1 + #greater + (#equal - 1) / 2`; the optimistic rank puts it
before everything that scores the same, the pessimistic one behind. Every query has exactly one rank: asserted.

R@K is 100 by definition where no more than K items are ranked. It is given all the same: results have the same numbers
whatever the benchmark's size. The geometric mean is that of R@1, R@5 and R@10, as the field reports it.

Everything is counted in blocks of rows, so that beside the matrix only a block of comparisons is held (for the *group*
protocol also one matrix of groups x groups).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

RECALL_AT = (1, 5, 10, 50)
DIRECTIONS = ("text_to_video", "video_to_text_group", "video_to_text_sentence")

_BLOCK_ELEMENTS = 1 << 22
_Z_95 = 1.959963984540054


@dataclass(frozen=True)
class Ranks:
    """Ranks of the right item, one per query.

    Attributes:
        greater: (Q,) int64, how many wrong items score higher.
        tied: (Q,) int64, how many wrong items score the same.
        gallery: how many items were ranked.
    """

    greater: Tensor
    tied: Tensor
    gallery: int

    def __len__(self) -> int:
        return len(self.greater)

    @property
    def average(self) -> Tensor:
        """(Q,) float64."""
        return 1 + self.greater.double() + self.tied.double() / 2

    @property
    def optimistic(self) -> Tensor:
        """(Q,) float64."""
        return 1 + self.greater.double()

    @property
    def pessimistic(self) -> Tensor:
        """(Q,) float64."""
        return 1 + self.greater.double() + self.tied.double()


def text_to_video_ranks(scores: Tensor, video_of_text: Tensor) -> Ranks:
    """Every text is a query; its own video is ranked among all V videos.

    Returns:
        T ranks, in the order of the texts.

    Raises:
        ValueError: scores that are NaN or not a float32/float64 matrix, or a mapping that does not fit them.
    """
    scores, video_of_text = _checked(scores, video_of_text)
    greater, tied = torch.empty_like(video_of_text), torch.empty_like(video_of_text)
    for rows in row_blocks(scores):
        block = scores[rows]
        own = block.gather(1, video_of_text[rows, None])
        greater[rows] = (block > own).sum(dim=1)
        tied[rows] = (block == own).sum(dim=1) - 1
    return _ranks(greater, tied, gallery=scores.shape[1], queries=scores.shape[0])


def video_to_text_ranks(scores: Tensor, video_of_text: Tensor, protocol: Literal["group", "sentence"]) -> Ranks:
    """Every video that has a text is a query; its texts are ranked by one of the two protocols of the literature.

    Their R@1 is the same, their other numbers are not; for one text a video they are one.

    - `"group"`: the texts of one video are one item, whose score is its best text's; the items are ranked.
    - `"sentence"`: all T texts are ranked, and the best rank of any of the video's own texts counts. Own texts never
      compete with each other: two of them with the same best score are one item in a tie.

    Returns:
        One rank per video with a text, in the order of the columns.

    Raises:
        ValueError: as `text_to_video_ranks`, or an unknown protocol.
    """
    scores, video_of_text = _checked(scores, video_of_text)
    queries, group_of_text = video_of_text.unique(return_inverse=True)
    if protocol == "group":
        group_scores = scores.new_full((len(queries), len(queries)), -math.inf)
        for rows in row_blocks(scores):
            block = scores[rows][:, queries]
            group_scores.scatter_reduce_(0, group_of_text[rows, None].expand_as(block), block, "amax")
        return text_to_video_ranks(group_scores.T, torch.arange(len(queries), device=scores.device))
    if protocol != "sentence":
        raise ValueError(f'protocol must be "group" or "sentence", not {protocol!r}')
    own_scores = scores.gather(1, video_of_text[:, None])[:, 0]
    best = scores.new_full((scores.shape[1],), -math.inf).scatter_reduce_(0, video_of_text, own_scores, "amax")
    own_at_best = torch.zeros(scores.shape[1], dtype=torch.long, device=scores.device)
    own_at_best.index_add_(0, video_of_text, (own_scores == best[video_of_text]).long())
    greater = torch.zeros_like(own_at_best)
    equal = torch.zeros_like(own_at_best)
    for rows in row_blocks(scores):
        greater += (scores[rows] > best).sum(dim=0)
        equal += (scores[rows] == best).sum(dim=0)
    return _ranks(greater[queries], (equal - own_at_best)[queries], gallery=scores.shape[0], queries=len(queries))


def recall_at(ranks: Tensor, k: int) -> float:
    """R@k: the share of the (Q,) `ranks` that are at most k, in percent."""
    return 100 * (ranks <= k).double().mean().item()


def median_rank(ranks: Tensor) -> float:
    """MdR; of an even number of ranks the mean of the two in the middle."""
    ordered = ranks.double().sort().values
    middle = len(ordered) // 2
    return ((ordered[middle] + ordered[-1 - middle]) / 2).item()


def mean_rank(ranks: Tensor) -> float:
    """MnR."""
    return ranks.double().mean().item()


def wilson_interval(percent: float, queries: int) -> tuple[float, float]:
    """95 % interval of a share by Wilson's score method (near 50 % of 1,000 queries: +-3.1 points), in percent.

    It takes the queries as independent. Captions of one video are not quite: with several of them it is too narrow.
    """
    share = percent / 100
    scale = 1 + _Z_95**2 / queries
    centre = (share + _Z_95**2 / (2 * queries)) / scale
    half = _Z_95 / scale * math.sqrt(share * (1 - share) / queries + _Z_95**2 / (4 * queries**2))
    return 100 * max(0.0, centre - half), 100 * min(1.0, centre + half)


def summarize_ranks(ranks: Ranks, recall_ks: Sequence[int] = RECALL_AT) -> dict[str, Any]:
    """All numbers of one direction, of the average ranks.

    Returns:
        `queries`, `gallery`, `R@k` for every k and `R@k_95` (its interval [low, high]), `geometric_mean` (of R@1, R@5
        and R@10, whatever k are asked for), `MdR`, `MnR`; and, only when ties make them differ, `R@1_optimistic` and
        `R@1_pessimistic`.
    """
    average = ranks.average
    summary: dict[str, Any] = {"queries": len(ranks), "gallery": ranks.gallery}
    for k, recall in zip(recall_ks, recall_curve(ranks, recall_ks), strict=True):
        summary[f"R@{k}"] = recall
        summary[f"R@{k}_95"] = list(wilson_interval(recall, len(ranks)))
    summary["geometric_mean"] = math.cbrt(math.prod(recall_curve(ranks, (1, 5, 10))))
    summary["MdR"], summary["MnR"] = median_rank(average), mean_rank(average)
    optimistic, pessimistic = recall_at(ranks.optimistic, 1), recall_at(ranks.pessimistic, 1)
    if optimistic != pessimistic:
        summary["R@1_optimistic"], summary["R@1_pessimistic"] = optimistic, pessimistic
    return summary


def recall_curve(ranks: Ranks, ks: Sequence[int]) -> list[float]:
    """R@k of the average ranks for every k, in percent."""
    average = ranks.average
    return [recall_at(average, k) for k in ks]


def retrieval_ranks(scores: Tensor, video_of_text: Tensor) -> dict[str, Ranks]:
    """The ranks of both directions, video to text by both protocols: one entry for each of `DIRECTIONS`.

    Raises:
        ValueError: as `text_to_video_ranks`.
    """
    ranks = (
        text_to_video_ranks(scores, video_of_text),
        video_to_text_ranks(scores, video_of_text, "group"),
        video_to_text_ranks(scores, video_of_text, "sentence"),
    )
    return dict(zip(DIRECTIONS, ranks, strict=True))


def retrieval_metrics(
    scores: Tensor, video_of_text: Tensor, recall_ks: Sequence[int] = RECALL_AT
) -> dict[str, dict[str, Any]]:
    """`summarize_ranks` of each of `retrieval_ranks`.

    Raises:
        ValueError: as `text_to_video_ranks`.
    """
    ranks = retrieval_ranks(scores, video_of_text)
    return {direction: summarize_ranks(own, recall_ks) for direction, own in ranks.items()}


def checked_scores(scores: Tensor) -> Tensor:
    """`scores` as a tensor.

    Raises:
        ValueError: it is no float32 or float64 matrix with at least one text and one video, or it contains NaN.
    """
    scores = torch.as_tensor(scores)
    if scores.ndim != 2 or not scores.numel() or scores.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            "scores must be a float32 or float64 matrix (texts, videos) with at least one of each, "
            f"not {scores.dtype} {tuple(scores.shape)}"
        )
    for rows in row_blocks(scores):
        if scores[rows].isnan().any():
            raise ValueError(f"scores contain NaN (first in rows {rows.start}..{rows.stop - 1}): they rank nothing")
    return scores


def row_blocks(scores: Tensor) -> Iterator[slice]:
    """Slices of consecutive rows that are small enough to work on their copies."""
    rows = max(1, _BLOCK_ELEMENTS // scores.shape[1])
    return (slice(start, min(start + rows, len(scores))) for start in range(0, len(scores), rows))


def _checked(scores: Tensor, video_of_text: Tensor) -> tuple[Tensor, Tensor]:
    scores = checked_scores(scores)
    video_of_text = torch.as_tensor(video_of_text, device=scores.device)
    if video_of_text.shape != scores.shape[:1] or video_of_text.is_floating_point():
        raise ValueError(
            f"video_of_text must hold one integer for each of {len(scores)} texts, "
            f"not {video_of_text.dtype} {tuple(video_of_text.shape)}"
        )
    if video_of_text.min() < 0 or video_of_text.max() >= scores.shape[1]:
        raise ValueError(f"video_of_text must lie in 0..{scores.shape[1] - 1}")
    return scores, video_of_text.long()


def _ranks(greater: Tensor, tied: Tensor, gallery: int, queries: int) -> Ranks:
    assert greater.shape == tied.shape == (queries,), "every query has exactly one rank"
    return Ranks(greater, tied, gallery)
