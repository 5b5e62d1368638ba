import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from random_features import random_text_features, random_video_features
from similarity_loops import cosine

from hcmi.modeling_hcmi.moments_hcmi import (
    answering_clips,
    clip_time_spans,
    frame_relevance,
    relevant_span,
)


@given(
    words=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    frames=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    seed=st.integers(0, 10**6),
)
def test_the_answering_clip_has_the_highest_cosine_with_any_phrase(words, frames, seed):
    text, video = random_text_features(words, seed=seed), random_video_features(frames, seed=seed + 1)
    got = answering_clips(text, video)
    assert got.shape == (len(words), len(frames))
    assert got.dtype == torch.long
    for t in range(len(words)):
        for v in range(len(frames)):
            pairs = {
                (p, c): cosine(text.phrases[t, p].tolist(), video.clips[v, c].tolist())
                for p in range((words[t] + 1) // 2)
                for c in range((frames[v] + 1) // 2)
            }
            best = max(pairs.values())
            clips = {c for (_, c), similarity in pairs.items() if similarity > best - 1e-6}
            assert got[t, v].item() in clips


def test_padding_never_answers():
    # All real pairs are opposite; a padded phrase or clip would match perfectly.
    text, video = random_text_features([2, 4]), random_video_features([2, 4])
    text.phrases[:], video.clips[:] = 1.0, -1.0
    text.phrases[~text.phrase_mask], video.clips[~video.clip_mask] = -1.0, 1.0
    assert answering_clips(text, video)[:, 0].tolist() == [0, 0]


def spans(weights, times, start, end, mask=None, **options):
    weights = torch.tensor(weights)
    mask = torch.ones(weights.shape[1]).bool() if mask is None else torch.tensor(mask)
    return clip_time_spans(weights, mask, torch.tensor(times, dtype=torch.float64), start, end, **options).tolist()


TIMES = [1.0, 3.0, 5.0, 7.0]


@pytest.mark.parametrize(("weights", "span"), [
    ([1.0, 0.0, 0.0, 0.0], [0.0, 2.0]),  # up to the start, and half-way to the next frame
    ([0.0, 1.0, 0.0, 0.0], [2.0, 4.0]),
    ([0.0, 0.0, 0.0, 1.0], [6.0, 9.0]),  # up to the end
    ([0.25, 0.25, 0.25, 0.25], [0.0, 9.0]),  # ties: one run
    ([0.1, 0.4, 0.4, 0.1], [2.0, 6.0]),
    ([0.4, 0.1, 0.1, 0.4], [0.0, 2.0]),  # equally heavy frames apart: the first
    ([0.3, 0.1, 0.35, 0.25], [4.0, 9.0]),  # the light frame ends the run around the heaviest
    ([0.2, 0.4, 0.2, 0.2], [0.0, 9.0]),  # half of the heaviest is enough
    ([0.19, 0.41, 0.2, 0.2], [2.0, 4.0]),
])  # fmt: skip
def test_the_span_is_the_run_around_the_heaviest_frame(weights, span):
    assert spans([weights], TIMES, 0.0, 9.0) == [span]


def test_the_threshold_widens_and_narrows_the_span():
    weights = [[0.1, 0.2, 0.5, 0.2]]
    assert spans(weights, TIMES, 0.0, 9.0, threshold=0.0) == [[0.0, 9.0]]
    assert spans(weights, TIMES, 0.0, 9.0, threshold=0.3) == [[2.0, 9.0]]
    assert spans(weights, TIMES, 0.0, 9.0, threshold=1.0) == [[4.0, 6.0]]


def test_each_clip_has_its_own_span_inside_the_sampled_stretch():
    weights = [[0.7, 0.1, 0.1, 0.1], [0.1, 0.1, 0.1, 0.7]]
    assert spans(weights, [11.0, 13.0, 15.0, 17.0], 10.0, 18.5) == [[10.0, 12.0], [16.0, 18.5]]


def test_padding_is_ignored_whatever_it_holds():
    nan = float("nan")
    weights = [[0.2, 0.3, 0.0, 0.0], [0.3, 0.05, 0.9, 0.9]]
    assert spans(weights, [1.0, 3.0, nan, nan], 0.0, 4.0, [True, True, False, False]) == [[0.0, 4.0], [0.0, 2.0]]


def test_one_frame_stands_for_the_whole_stretch():
    assert spans([[1.0, 0.0]], [2.5, 0.0], 2.0, 3.0, [True, False]) == [[2.0, 3.0]]


def test_half_precision_weights_with_a_gradient_give_exact_seconds():
    weights = torch.tensor([[0.1, 0.5, 0.4]], dtype=torch.bfloat16, requires_grad=True)
    times = torch.tensor([1000.001, 1003.001, 1005.001], dtype=torch.float64)
    got = clip_time_spans(weights, torch.ones(3).bool(), times, 1000.0, 1006.0)
    assert got.dtype == torch.float64
    assert got.tolist() == [[1001.501, 1006.0]]


@given(
    words=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    frames=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    seed=st.integers(0, 10**6),
)
def test_relevance_is_the_cosine_of_sentence_and_frame(words, frames, seed):
    text, video = random_text_features(words, seed=seed), random_video_features(frames, seed=seed + 1)
    got = frame_relevance(text, video)
    assert got.shape == (len(words), len(frames), max(frames))
    for t in range(len(words)):
        for v, real in enumerate(frames):
            for f in range(real):
                expected = cosine(text.pooler_output[t].tolist(), video.frames[v, f].tolist())
                assert got[t, v, f].item() == pytest.approx(expected, abs=1e-5)


def moment(relevance, times, start, end, mask=None):
    mask = [True] * len(relevance) if mask is None else mask
    times = torch.tensor(times, dtype=torch.float64)
    return relevant_span(torch.tensor(relevance), torch.tensor(mask), times, start, end)


@pytest.mark.parametrize(("relevance", "span"), [
    ([0.9, 0.1, 0.2, 0.1], (0.0, 2.0)),  # up to the start, and half-way to the next frame
    ([0.1, 0.8, 0.7, 0.1], (2.0, 6.0)),
    ([0.1, 0.8, 0.3, 0.7], (2.0, 4.0)),  # a frame below the middle ends the run
    ([-0.2, -0.5, -0.3, -0.25], (0.0, 2.0)),  # negative cosines as well
    ([0.25, 0.25, 0.25, 0.25], (0.0, 9.0)),  # equally relevant everywhere: the whole video
    ([0.5, 0.3, 0.2, 0.1], (0.0, 4.0)),  # exactly in the middle belongs to it
])  # fmt: skip
@pytest.mark.parametrize("scale", [1.0, 0.125])
def test_the_moment_is_the_run_above_the_middle_whatever_the_scale(relevance, span, scale):
    assert moment([scale * value for value in relevance], TIMES, 0.0, 9.0) == span


def test_padded_frames_are_no_part_of_a_moment():
    nan = float("nan")
    assert moment([0.1, 0.5, 0.9, -0.9], [1.0, 3.0, nan, nan], 0.0, 4.0, [True, True, False, False]) == (2.0, 4.0)


def test_a_moment_lies_inside_the_sampled_stretch():
    assert moment([0.1, 0.9], [11.0, 13.0], 10.0, 14.5) == (12.0, 14.5)
    assert moment([0.9], [11.0], 10.0, 14.5) == (10.0, 14.5)
