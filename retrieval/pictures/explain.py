"""Why a video answers a query: which words found which frames, which phrases which clips, and what each is worth."""

import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import normalize

from hcmi.modeling_hcmi import LEVELS, HCMITextFeatures
from hcmi.modeling_hcmi.interaction_hcmi import blockwise_similarity
from hcmi.modeling_hcmi.moments_hcmi import frame_relevance, relevant_span
from hcmi.retrieval.encoded_videos import EncodedVideos
from hcmi.retrieval.index.queries import encode_text

from .query_words import QueryWord, query_words

if TYPE_CHECKING:
    from hcmi.retrieval.index.search import Hit
    from hcmi.retrieval.index.video_index import VideoIndex


@dataclass(frozen=True)
class Link:
    """
    A phrase and a clip, of which at least one is the other's best.

    Args:
        phrase, clip: their numbers, from 0 on.
        cosine: of the two, -1..1.
        share: what it adds to the clip-phrase similarity.
    """

    phrase: int
    clip: int
    cosine: float
    share: float


@dataclass(frozen=True, eq=False)
class Explanation:
    """
    How one text and one window of a video come to their similarity: `W` words and `P` phrases, `F` frames and `C`
    clips, the real ones alone. Tensors are float64 on the CPU unless said otherwise.

    Args:
        query: the text.
        video: path of the file, or what the video is called.
        words: the text's tokens.
        times: seconds of the frames.
        span: seconds between which the frames were sampled: the window.
        moment: start and end in seconds of the stretch that answers the query.
        score: the combined similarity, as in a search.
        level_scores: the similarity on each level.
        level_weights: what each level weighs in the score.
        cosines (`(W, F)`): of words and frames.
        word_weights (`(W,)`), frame_weights (`(F,)`): their weights in the frame-word similarity; each sums to 1.
        word_frames (`(W,)`, long): the frame that each word found, its best.
        frame_words (`(F,)`, long): the word that each frame found.
        word_shares (`(W,)`): what each word adds to the frame-word similarity; they add up to it. A word counts with
            its own best frame, and with every frame that found it.
        relevance (`(F,)`): cosine of each frame with the sentence, from which the moment is read.
        phrases (`(P, W)`): which words make a phrase; rows sum to 1.
        clips (`(C, F)`): which frames make a clip; rows sum to 1.
        clip_cosines (`(P, C)`): of phrases and clips.
        links: each phrase with its best clip and each clip with its best phrase, every pair once, the highest share
            first; the shares add up to the clip-phrase similarity.
    """

    query: str
    video: str
    words: tuple[QueryWord, ...]
    times: tuple[float, ...]
    span: tuple[float, float]
    moment: tuple[float, float]
    score: float
    level_scores: dict[str, float]
    level_weights: dict[str, float]
    cosines: torch.Tensor
    word_weights: torch.Tensor
    frame_weights: torch.Tensor
    word_frames: torch.Tensor
    frame_words: torch.Tensor
    word_shares: torch.Tensor
    relevance: torch.Tensor
    phrases: torch.Tensor
    clips: torch.Tensor
    clip_cosines: torch.Tensor
    links: tuple[Link, ...]

    @property
    def moment_frames(self) -> list[int]:
        """The frames inside the moment."""
        start, end = self.moment
        # The window's first frame may have begun before the window.
        first = -math.inf if start == self.span[0] else start
        return [frame for frame, time in enumerate(self.times) if first <= time <= end]

    def main_words(self, phrase: int) -> list[int]:
        """The words that weigh at least half as much in a phrase as its heaviest."""
        return _heavy(self.phrases[phrase])

    def main_frames(self, clip: int) -> list[int]:
        """The frames that weigh at least half as much in a clip as its heaviest."""
        return _heavy(self.clips[clip])


def _heavy(weights: torch.Tensor) -> list[int]:
    return (weights >= weights.max() / 2).nonzero().flatten().tolist()


def explain_hit(index: "VideoIndex", hit: "Hit", query: str) -> Explanation:
    """
    Explains why a search has found what it found, from the embeddings that the index keeps.

    Args:
        hit: of `index.search(query)`, or one of its `others`.

    Raises:
        ValueError: an empty query.
        VideoIndexError: the index no longer has that window.
    """
    text = encode_text(index.model, index.processor, query)
    window = index.read(hit.video, [hit.window.number])
    return explain(query, query_words(index.processor, query), text, window, index.level_weights)


def explain_video(index: "VideoIndex", video: str | os.PathLike, query: str) -> Explanation:
    """
    Explains how a text fits a video of the index, whether a search finds it or not: the best of its windows.

    Raises:
        ValueError: an empty query.
        VideoIndexError: the index does not have that video.
    """
    text = encode_text(index.model, index.processor, query)
    windows = index.read(video)
    best = int(blockwise_similarity(text, windows.features, index.level_weights).combined[0].argmax())
    one = slice(best, best + 1)
    window = EncodedVideos(
        windows.names[one], windows.features.select(one), windows.timestamps[one], windows.video_spans[one]
    )
    return explain(query, query_words(index.processor, query), text, window, index.level_weights)


def explain(
    query: str,
    words: list[QueryWord],
    text: HCMITextFeatures,
    video: EncodedVideos,
    level_weights: dict[str, float],
) -> Explanation:
    """
    Explains the similarity of one text and one encoded video, or window of one.

    Args:
        words: the real tokens of the query, as `query_words` gives them.
        text: features of the query alone.
        video: a single one.
        level_weights: `inference_weights` of the model's configuration.

    Raises:
        ValueError: more than one text or video, or other words than the text has.
    """
    if len(text.words) != 1 or len(video) != 1:
        raise ValueError(f"One text and one video are explained at a time, not {len(text.words)} and {len(video)}.")
    real_words, real_frames = text.word_mask[0], video.features.frame_mask[0]
    if len(words) != int(real_words.sum()):
        raise ValueError(f"{len(words)} words are named for a text of {int(real_words.sum())}.")
    real_phrases, real_clips = text.phrase_mask[0], video.features.clip_mask[0]
    span = (video.video_spans[0, 0].item(), video.video_spans[0, 1].item())
    scores = blockwise_similarity(text, video.features, level_weights)
    relevance = frame_relevance(text, video.features)[0, 0]
    word_weights = text.word_weights[0, real_words].double()
    frame_weights = video.features.frame_weights[0, real_frames].double()
    cosines = _cosines(text.words[0, real_words], video.features.frames[0, real_frames])
    shares = _pair_shares(cosines, word_weights, frame_weights)
    clip_cosines = _cosines(text.phrases[0, real_phrases], video.features.clips[0, real_clips])
    clip_shares = _pair_shares(
        clip_cosines,
        text.phrase_weights[0, real_phrases].double(),
        video.features.clip_weights[0, real_clips].double(),
    )
    return Explanation(
        query=query,
        video=video.names[0],
        words=tuple(words),
        times=tuple(video.timestamps[0, real_frames].tolist()),
        span=span,
        moment=relevant_span(relevance, real_frames, video.timestamps[0], *span),
        score=scores.combined.item(),
        level_scores={level: scores[level].item() for level in LEVELS},
        level_weights=dict(level_weights),
        cosines=cosines,
        word_weights=word_weights,
        frame_weights=frame_weights,
        word_frames=cosines.argmax(1),
        frame_words=cosines.argmax(0),
        word_shares=shares.sum(1),
        relevance=relevance[real_frames].double(),
        phrases=text.phrase_word_weights[0, real_phrases][:, real_words].double(),
        clips=video.features.clip_frame_weights[0, real_clips][:, real_frames].double(),
        clip_cosines=clip_cosines,
        links=_links(clip_cosines, clip_shares),
    )


def _cosines(rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    return normalize(rows.double(), dim=-1) @ normalize(columns.double(), dim=-1).T


def _pair_shares(cosines: torch.Tensor, row_weights: torch.Tensor, column_weights: torch.Tensor) -> torch.Tensor:
    """
    What each pair of tokens `(W, F)` adds to their token-wise similarity, whose terms are the best pair of every row
    and of every column.
    """
    shares = torch.zeros_like(cosines)
    every_row, every_column = (torch.arange(count) for count in cosines.shape)
    shares[every_row, cosines.argmax(1)] += row_weights * cosines.amax(1) / 2
    shares[cosines.argmax(0), every_column] += column_weights * cosines.amax(0) / 2
    return shares


def _links(cosines: torch.Tensor, shares: torch.Tensor) -> tuple[Link, ...]:
    phrases, clips = cosines.shape
    pairs = {(phrase, int(cosines[phrase].argmax())) for phrase in range(phrases)}
    pairs |= {(int(cosines[:, clip].argmax()), clip) for clip in range(clips)}
    links = [Link(*pair, cosines[pair].item(), shares[pair].item()) for pair in pairs]
    return tuple(sorted(links, key=lambda link: (-link.share, link.phrase, link.clip)))
