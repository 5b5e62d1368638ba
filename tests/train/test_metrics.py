import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from new_tensors import NewTensors

from hcmi.train import metrics
from hcmi.train.metrics import (
    DIRECTIONS,
    mean_rank,
    median_rank,
    recall_at,
    recall_curve,
    retrieval_metrics,
    retrieval_ranks,
    summarize_ranks,
    text_to_video_ranks,
    video_to_text_ranks,
    wilson_interval,
)


@st.composite
def problems(draw, levels=4):
    """Scores of few distinct values, so that ties are common, and a mapping in which videos may have no text."""
    texts, videos = draw(st.integers(1, 9)), draw(st.integers(1, 7))
    values = st.integers(0, levels).map(float)
    scores = draw(st.lists(st.lists(values, min_size=videos, max_size=videos), min_size=texts, max_size=texts))
    mapping = draw(st.lists(st.integers(0, videos - 1), min_size=texts, max_size=texts))
    return torch.tensor(scores), torch.tensor(mapping)


def brute_text_to_video(scores, mapping):
    ranks = []
    for row, own in zip(scores.tolist(), mapping.tolist(), strict=True):
        greater, equal = sum(s > row[own] for s in row), sum(s == row[own] for s in row)
        ranks.append(1 + greater + (equal - 1) / 2)
    return ranks


def brute_group(scores, mapping):
    owners = sorted(set(mapping.tolist()))
    ranks = []
    for video in owners:
        best = [max(scores[t, video].item() for t in range(len(mapping)) if mapping[t] == g) for g in owners]
        own = best[owners.index(video)]
        ranks.append(1 + sum(s > own for s in best) + (sum(s == own for s in best) - 1) / 2)
    return ranks


def brute_sentence(scores, mapping):
    ranks = []
    for video in sorted(set(mapping.tolist())):
        column = scores[:, video].tolist()
        own = max(s for s, v in zip(column, mapping.tolist(), strict=True) if v == video)
        others = [s for s, v in zip(column, mapping.tolist(), strict=True) if v != video]
        ranks.append(1 + sum(s > own for s in others) + sum(s == own for s in others) / 2)
    return ranks


def all_ranks(scores, mapping):
    return (
        text_to_video_ranks(scores, mapping),
        video_to_text_ranks(scores, mapping, "group"),
        video_to_text_ranks(scores, mapping, "sentence"),
    )


@given(problems(), st.integers(1, 30))
def test_every_rank_equals_the_brute_force_whatever_the_block(problem, block_elements):
    whole, metrics._BLOCK_ELEMENTS = metrics._BLOCK_ELEMENTS, block_elements
    try:
        ranks = all_ranks(*problem)
    finally:
        metrics._BLOCK_ELEMENTS = whole
    for found, brute in zip(ranks, (brute_text_to_video, brute_group, brute_sentence), strict=True):
        assert found.average.tolist() == brute(*problem)


@given(problems())
def test_bounds_enclose_the_average_rank_at_equal_distance(problem):
    for ranks in all_ranks(*problem):
        assert torch.equal(ranks.optimistic + ranks.pessimistic, 2 * ranks.average)
        assert (ranks.optimistic >= 1).all() and (ranks.pessimistic <= ranks.gallery).all()


@given(problems(), st.randoms(use_true_random=False))
def test_permuting_texts_and_videos_permutes_the_ranks(problem, random):
    scores, mapping = problem
    rows, columns = list(range(len(scores))), list(range(scores.shape[1]))
    random.shuffle(rows)
    random.shuffle(columns)
    new_place = torch.empty(len(columns), dtype=torch.long)
    new_place[columns] = torch.arange(len(columns))
    permuted = scores[rows][:, columns], new_place[mapping[rows]]

    assert torch.equal(text_to_video_ranks(*permuted).average, text_to_video_ranks(scores, mapping).average[rows])
    for protocol in ("group", "sentence"):
        before = dict(zip(mapping.unique().tolist(), video_to_text_ranks(*problem, protocol).average, strict=True))
        after = dict(zip(permuted[1].unique().tolist(), video_to_text_ranks(*permuted, protocol).average, strict=True))
        assert after == {int(new_place[video]): rank for video, rank in before.items()}


@given(problems())
def test_both_video_to_text_protocols_have_the_same_recall_at_1(problem):
    group, sentence = (video_to_text_ranks(*problem, protocol) for protocol in ("group", "sentence"))
    assert torch.equal(group.average == 1, sentence.average == 1)
    assert (group.average <= sentence.average).all()


@given(problems())
def test_one_caption_per_video_makes_the_protocols_the_transposed_text_to_video(problem):
    size = min(problem[0].shape)
    scores, mapping = problem[0][:size, :size], torch.arange(size)
    expected = text_to_video_ranks(scores.T, mapping).average
    for protocol in ("group", "sentence"):
        assert torch.equal(video_to_text_ranks(scores, mapping, protocol).average, expected)


@given(problems())
def test_a_repeated_own_caption_changes_no_video_to_text_rank(problem):
    scores, mapping = problem
    repeated = torch.cat([scores, scores[:1]]), torch.cat([mapping, mapping[:1]])
    for protocol in ("group", "sentence"):
        after, before = video_to_text_ranks(*repeated, protocol), video_to_text_ranks(*problem, protocol)
        query = mapping.unique().tolist().index(int(mapping[0]))
        assert after.average[query] == before.average[query]


def test_equal_captions_of_two_videos_tie_and_count_once():
    # The trap: counting every tied position gives three ranks for two queries.
    scores = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    ranks = video_to_text_ranks(scores, torch.tensor([0, 1]), "sentence")
    assert ranks.average.tolist() == [1.5, 1.5] and len(ranks) == 2
    summary = summarize_ranks(ranks)
    assert summary["R@1"] == 0 and summary["R@1_optimistic"] == 100 and summary["R@1_pessimistic"] == 0


def test_bounds_are_reported_only_where_ties_matter():
    assert "R@1_optimistic" not in summarize_ranks(text_to_video_ranks(torch.eye(3), torch.arange(3)))


def test_constant_scores_give_the_middle_rank():
    ranks = text_to_video_ranks(torch.zeros(4, 9), torch.arange(4))
    assert ranks.average.tolist() == [5.0] * 4


def test_one_video():
    result = retrieval_metrics(torch.tensor([[0.3], [0.1]]), torch.tensor([0, 0]))
    assert tuple(result) == DIRECTIONS
    assert all(numbers["R@1"] == 100 and numbers["MdR"] == 1 for numbers in result.values())
    assert [result[d]["queries"] for d in DIRECTIONS] == [2, 1, 1]
    assert [result[d]["gallery"] for d in DIRECTIONS] == [1, 1, 2]


def test_random_scores_give_chance_level():
    generator = torch.Generator().manual_seed(0)
    result = retrieval_metrics(torch.randn(3000, 100, generator=generator), torch.arange(3000) % 100)
    for k in (1, 5, 10):
        low, high = wilson_interval(k, 3000)
        assert low - 0.5 < result["text_to_video"][f"R@{k}"] < high + 0.5
    assert result["text_to_video"]["MnR"] == pytest.approx(50.5, abs=2)
    assert result["video_to_text_group"]["R@1"] <= 6
    assert result["video_to_text_group"]["MnR"] == pytest.approx(50.5, abs=10)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=12))
def test_rank_statistics_equal_their_definitions(values):
    ranks = torch.tensor(values)
    assert median_rank(ranks) == statistics.median(values)
    assert mean_rank(ranks) == pytest.approx(statistics.fmean(values))
    assert recall_at(ranks, 5) == pytest.approx(100 * sum(v <= 5 for v in values) / len(values))


@given(problems())
def test_the_recall_curve_is_the_recalls_and_never_falls(problem):
    for ranks in all_ranks(*problem):
        curve = recall_curve(ranks, range(1, 13))
        assert curve == [recall_at(ranks.average, k) for k in range(1, 13)] == sorted(curve)
        assert curve[ranks.gallery - 1 :] == [100] * (13 - ranks.gallery)


@pytest.mark.parametrize("recall_ks", [(1, 5, 10, 50), (2,)])
def test_the_geometric_mean_is_that_of_recalls_at_1_5_and_10(recall_ks):
    generator = torch.Generator().manual_seed(0)
    ranks = text_to_video_ranks(torch.randn(60, 30, generator=generator), torch.arange(60) % 30)
    recalls = [recall_at(ranks.average, k) for k in (1, 5, 10)]
    assert summarize_ranks(ranks, recall_ks)["geometric_mean"] == pytest.approx(statistics.geometric_mean(recalls))


def test_the_recalls_of_the_field_and_100_where_the_gallery_is_smaller():
    summary = summarize_ranks(text_to_video_ranks(-torch.eye(9), torch.arange(9)))
    assert [summary[f"R@{k}"] for k in (1, 5, 10, 50)] == [0, 0, 100, 100]


@settings(max_examples=30)
@given(st.integers(1, 2000), st.floats(0, 1))
def test_wilson_interval_solves_its_quadratic(queries, fraction):
    share = round(fraction * queries) / queries
    for bound in wilson_interval(100 * share, queries):
        p = bound / 100
        assert (share - p) ** 2 == pytest.approx(1.959963984540054**2 * p * (1 - p) / queries, abs=1e-9)


def test_wilson_interval_near_half_of_a_thousand_is_three_points():
    low, high = wilson_interval(50, 1000)
    assert (high - low) / 2 == pytest.approx(3.1, abs=0.05)


@given(problems())
def test_all_directions_at_once_are_the_single_ones(problem):
    ranks = retrieval_ranks(*problem)
    assert tuple(ranks) == DIRECTIONS
    for found, single in zip(ranks.values(), all_ranks(*problem), strict=True):
        assert torch.equal(found.average, single.average)
    assert retrieval_metrics(*problem) == {direction: summarize_ranks(own) for direction, own in ranks.items()}


@given(problems())
def test_a_repeated_video_ties_with_the_right_one(problem):
    scores, mapping = problem
    ranks = text_to_video_ranks(torch.cat([scores, scores], dim=1), mapping)
    before = text_to_video_ranks(scores, mapping)
    # Every rival is there twice, and the right video once more.
    assert torch.equal(ranks.greater, 2 * before.greater) and torch.equal(ranks.tied, 2 * before.tied + 1)


def test_nothing_of_the_matrix_s_size_is_built(monkeypatch):
    monkeypatch.setattr(metrics, "_BLOCK_ELEMENTS", 60)
    scores, mapping = torch.rand(300, 12), torch.arange(300) % 12
    with NewTensors() as made:
        retrieval_metrics(scores, mapping)
    assert max(made.sizes) <= 300


def test_numpy_and_float64_are_taken():
    assert text_to_video_ranks(torch.eye(3).double().numpy(), [0, 1, 2]).average.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("scores", "mapping", "message"),
    [
        (torch.tensor([[0.0, math.nan]]), [0], "NaN"),
        (torch.zeros(2, 2, dtype=torch.bfloat16), [0, 1], "float32"),
        (torch.zeros(0, 2), [], "at least one"),
        (torch.zeros(4), [0], "matrix"),
        (torch.zeros(2, 2), [0], "each of 2 texts"),
        (torch.zeros(2, 2), [0.0, 1.0], "one integer"),
        (torch.zeros(2, 2), [0, 2], "0..1"),
        (torch.zeros(2, 2), [-1, 1], "0..1"),
    ],
)
def test_what_cannot_be_ranked_is_refused(scores, mapping, message):
    for ranks in (text_to_video_ranks, lambda s, m: video_to_text_ranks(s, m, "group")):
        with pytest.raises(ValueError, match=message):
            ranks(scores, torch.tensor(mapping))


def test_unknown_protocol_is_refused():
    with pytest.raises(ValueError, match="protocol"):
        video_to_text_ranks(torch.eye(2), torch.arange(2), "word")
