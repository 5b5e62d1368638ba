import math

import pytest
import torch
from random_features import random_text_features, random_video_features
from similarity_loops import cosine

from hcmi.modeling_hcmi import LEVELS
from hcmi.modeling_hcmi.interaction_hcmi import (
    blockwise_similarity,
    combine_levels,
    level_similarity,
)
from hcmi.modeling_hcmi.token_wise_hcmi import token_wise_similarity

EVEN = dict.fromkeys(LEVELS, 1.0)


def assert_table(got: torch.Tensor, wanted: list[list[float]], atol: float = 1e-6) -> None:
    torch.testing.assert_close(got.double(), torch.tensor(wanted, dtype=torch.float64), atol=atol, rtol=0)


@pytest.mark.parametrize("garbage", [0.0, 1e30, -1e30])
def test_what_lies_in_the_padding_does_not_count(garbage):
    text, video = random_text_features([2, 3, 1]), random_video_features([4, 2])
    before = {level: level_similarity(level, text, video) for level in LEVELS}
    for tokens, mask in ((text.words, text.word_mask), (text.phrases, text.phrase_mask)):
        tokens[~mask] = garbage
    for tokens, mask in ((video.frames, video.frame_mask), (video.clips, video.clip_mask)):
        tokens[~mask] = garbage
    for level in LEVELS:
        torch.testing.assert_close(level_similarity(level, text, video), before[level])


def test_no_gradient_reaches_padding():
    text, video = random_text_features([2, 3, 1]), random_video_features([4, 2])
    tokens = [text.words, text.phrases, video.frames, video.clips]
    for tensor in tokens:
        tensor.requires_grad_()
    sum(level_similarity(level, text, video).sum() for level in LEVELS).backward()
    masks = [text.word_mask, text.phrase_mask, video.frame_mask, video.clip_mask]
    for tensor, mask in zip(tokens, masks, strict=True):
        assert not tensor.grad[~mask].any()
        assert tensor.grad[mask].any()


def test_levels_compare_what_they_are_named_after():
    text, video = random_text_features([2, 3, 1]), random_video_features([4, 2])
    assert_table(
        level_similarity("video_sentence", text, video),
        [[cosine(t, v) for v in video.pooler_output.tolist()] for t in text.pooler_output.tolist()],
    )
    assert torch.equal(
        level_similarity("clip_phrase", text, video),
        token_wise_similarity(
            text.phrases, video.clips, text.phrase_mask, video.clip_mask, text.phrase_weights, video.clip_weights
        ),
    )
    assert torch.equal(
        level_similarity("frame_word", text, video),
        token_wise_similarity(
            text.words, video.frames, text.word_mask, video.frame_mask, text.word_weights, video.frame_weights
        ),
    )


@pytest.mark.parametrize("max_block_elements", [1, 30, 100, 400, 2**24])
@pytest.mark.parametrize(("texts", "videos"), [(7, 5), (1, 9), (8, 1), (3, 3)])
def test_blocks_change_nothing(texts, videos, max_block_elements):
    text = random_text_features([1 + i % 4 for i in range(texts)])
    video = random_video_features([6 - i % 5 for i in range(videos)])
    scores = blockwise_similarity(text, video, EVEN, max_block_elements=max_block_elements)
    for level in LEVELS:
        assert scores[level].shape == (texts, videos)
        torch.testing.assert_close(scores[level], level_similarity(level, text, video), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(scores.combined, sum(scores[level] for level in LEVELS) / 3)


def test_no_texts_and_no_videos_give_empty_tables():
    text, video = random_text_features([2, 3]), random_video_features([4])
    nobody = torch.empty(0, dtype=torch.long)
    assert blockwise_similarity(text.select(nobody), video, EVEN).combined.shape == (0, 1)
    assert blockwise_similarity(text, video.select(nobody), EVEN).combined.shape == (2, 0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_features_are_compared_in_float32(dtype):
    text, video = random_text_features([2, 3]).to(dtype), random_video_features([4, 2]).to(dtype)
    scores = blockwise_similarity(text, video, EVEN)
    for level in LEVELS:
        assert scores[level].dtype == torch.float32
        torch.testing.assert_close(
            scores[level], level_similarity(level, text.to(torch.float32), video.to(torch.float32))
        )


def test_automatic_mixed_precision_does_not_round_similarities():
    text, video = random_text_features([2, 3]), random_video_features([4, 2])
    wanted = blockwise_similarity(text, video, EVEN)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = blockwise_similarity(text, video, EVEN)
    for level in ("combined", *LEVELS):
        assert torch.equal(got[level], wanted[level])


def test_levels_can_be_chosen():
    text, video = random_text_features([2, 3]), random_video_features([4, 2])
    scores = blockwise_similarity(text, video, EVEN | {"clip_phrase": 3.0}, levels=["frame_word", "clip_phrase"])
    assert scores.video_sentence is None
    torch.testing.assert_close(scores.combined, scores.frame_word / 4 + scores.clip_phrase * 3 / 4)


@pytest.mark.parametrize("levels", [[], ["word"], ["frame_word", "sentence"]])
def test_unknown_levels_are_refused(levels):
    with pytest.raises(ValueError, match="frame_word"):
        blockwise_similarity(random_text_features([2]), random_video_features([3]), EVEN, levels=levels)


def test_combination_is_the_weighted_mean():
    similarities = {level: torch.tensor([[float(i)]]) for i, level in enumerate(LEVELS)}
    weights = {"frame_word": 1.0, "clip_phrase": 2.0, "video_sentence": 5.0}
    assert combine_levels(similarities, weights).item() == pytest.approx((0 * 1 + 1 * 2 + 2 * 5) / 8)
    similarities["frame_word"] = torch.tensor([[math.nan]])
    assert combine_levels(similarities, weights | {"frame_word": 0.0}).item() == pytest.approx((2 + 10) / 7)
    with pytest.raises(ValueError, match="weight 0"):
        combine_levels({"frame_word": similarities["frame_word"]}, weights | {"frame_word": 0.0})


def test_identical_sides_are_alike_and_opposite_ones_are_not():
    text, video = random_text_features([3]), random_video_features([3])
    for level, sign in ((level, sign) for level in LEVELS for sign in (1, -1)):
        one = torch.ones(1, 3, 4)
        video.frames, video.clips = one[:, :3], one[:, :2]
        text.words, text.phrases = sign * one[:, :3], sign * one[:, :2]
        video.pooler_output, text.pooler_output = one[:, 0], sign * one[:, 0]
        assert level_similarity(level, text, video).item() == pytest.approx(sign, abs=1e-6)
