"""Traps that public evaluation code falls into, each with a test that fails if this package falls into it too."""

import math

import pytest
import torch
from given_features import WIDTH, WORDS, GivenFeatures, assert_same_metrics, random_problem, run, word_processor
from torch.nn.functional import cosine_similarity, normalize

from hcmi.modeling_hcmi import LEVELS
from hcmi.train.metrics import (
    DIRECTIONS,
    median_rank,
    recall_at,
    retrieval_metrics,
    summarize_ranks,
    text_to_video_ranks,
    video_to_text_ranks,
    wilson_interval,
)
from hcmi.train.post_processing import dual_softmax


@pytest.fixture(scope="module")
def processor():
    return word_processor()


def ranks_of_every_tied_position(scores):
    """A widespread evaluator of N x N scores: every place in the sorted row that holds the right item's score."""
    ordered = scores.sort(dim=1, descending=True).values
    return (ordered == scores.diagonal()[:, None]).nonzero()[:, 1] + 1


# Ties


def test_repeated_sentences_add_no_queries():
    # As in the 1k-A list of MSR-VTT: 4 sentences are repeated and fill 9 of 1,000 rows.
    sentence = torch.arange(1000)
    sentence[[1, 3, 5, 7, 8]] = torch.tensor([0, 2, 4, 6, 6])
    scores = torch.rand(1000, 1000, generator=torch.Generator().manual_seed(0))[sentence]
    assert len(sentence.unique()) == 995
    assert len(ranks_of_every_tied_position(scores.T)) == 1012
    for protocol in ("group", "sentence"):
        ranks = video_to_text_ranks(scores, torch.arange(1000), protocol)
        assert len(ranks) == 1000 and int((ranks.tied > 0).sum()) == 9


def test_a_repeated_sentence_is_neither_right_nor_wrong():
    # Both videos find their sentence, which is the same one: the first place is theirs by half.
    scores = torch.tensor([[0.9, 0.8, 0.1], [0.9, 0.8, 0.1], [0.1, 0.1, 0.7]])
    summary = summarize_ranks(video_to_text_ranks(scores, torch.arange(3), "sentence"))
    bounds = (summary["R@1_pessimistic"], summary["R@1_optimistic"])
    assert (*bounds, summary["R@1"]) == pytest.approx((100 / 3, 100, 100 / 3))
    assert summary["MnR"] == pytest.approx(4 / 3)


def test_a_collapsed_model_is_not_perfect(processor):
    # `(scores > own).sum()`, and a stable sort of N x N scores, find every right item of this one first.
    model = GivenFeatures(processor.tokenizer, dict.fromkeys(WORDS[:9], torch.ones(WIDTH)), torch.ones(9, WIDTH))
    combined = run(model, processor, [[word] for word in WORDS[:9]])["levels"]["combined"]
    for direction in DIRECTIONS:
        assert (combined[direction]["R@1"], combined[direction]["MdR"]) == (0, 5)


# Several captions a video


def test_every_caption_is_a_query_and_every_video_an_item():
    ranks = text_to_video_ranks(torch.tensor([[0.9, 0.8], [0.8, 0.9], [0.1, 0.7]]), torch.tensor([1, 0, 0]))
    assert (len(ranks), ranks.gallery) == (3, 2)


def test_both_video_to_text_protocols_are_there_and_differ():
    scores = torch.rand(2000, 100, generator=torch.Generator().manual_seed(0))
    measured = retrieval_metrics(scores, torch.arange(2000) % 100)
    group, sentence = measured["video_to_text_group"], measured["video_to_text_sentence"]
    assert (group["gallery"], sentence["gallery"]) == (100, 2000)
    assert group["R@1"] == sentence["R@1"]
    assert group["R@10"] > sentence["R@10"] and group["MnR"] < sentence["MnR"]


def test_everything_is_encoded_once(processor):
    model, captions, _ = random_problem(processor, [1, 1, 1])
    repeated = [[*captions[0], captions[1][0].upper()], captions[1], [captions[2][0]] * 2]
    result = run(model, processor, repeated, batch_size=2)
    assert sorted(model.videos_encoded) == [0, 1, 2]
    assert len(model.texts_encoded) == len(set(model.texts_encoded)) == 3
    assert result["counts"] == {"videos": 3, "texts": 5, "distinct_texts": 3}
    # The tokenizer lowers case: that caption belongs to two videos, whose scores for it are one and the same.
    ranked = result["levels"]["combined"]["video_to_text_sentence"]
    assert ranked["queries"] == 3 and ranked["gallery"] == 5


# Median rank


def test_of_an_even_count_it_is_the_mean_of_the_middle_two():
    assert median_rank(torch.tensor([1, 2, 5, 40])) == 3.5


# Post-processing


def test_the_transposed_text_to_video_dsl_is_no_video_to_text_dsl():
    scores = torch.rand(40, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pairing = torch.arange(40)
    plain = video_to_text_ranks(scores, pairing, "group").average
    # The softmax over the texts has one sum for a video: its column keeps its order.
    text_to_video = scores * (100 * scores).softmax(dim=0)
    assert torch.equal(video_to_text_ranks(text_to_video, pairing, "group").average, plain)

    video_to_text = scores * (100 * scores).softmax(dim=1)
    expected = video_to_text_ranks(video_to_text, pairing, "group").average
    found = video_to_text_ranks(dual_softmax(scores, "video_to_text"), pairing, "group").average
    assert torch.equal(found, expected) and not torch.equal(found, plain)


def captioned_videos(captions_per_video, seed=1):
    """Cosines of 100 videos and noisy captions of them, some videos closer to everything than others."""
    generator = torch.Generator().manual_seed(seed)
    videos, hub = torch.randn(100, 32, generator=generator), torch.randn(32, generator=generator)
    texts = videos.repeat_interleave(captions_per_video, 0)
    texts = texts + 2 * torch.randn(texts.shape, generator=generator) + hub / 2
    videos = videos + hub / 2 * torch.rand(100, 1, generator=generator)
    mapping = torch.arange(100).repeat_interleave(captions_per_video)
    return normalize(texts, dim=-1) @ normalize(videos, dim=-1).T, mapping


@pytest.mark.parametrize(("captions_per_video", "helps"), [(1, True), (20, False)])
def test_dsl_helps_one_caption_a_video_and_hurts_several(captions_per_video, helps):
    scores, mapping = captioned_videos(captions_per_video)
    plain = recall_at(text_to_video_ranks(scores, mapping).average, 1)
    processed = recall_at(text_to_video_ranks(dual_softmax(scores, "text_to_video"), mapping).average, 1)
    assert processed > plain + 2 if helps else processed < plain - 2


def test_the_plain_numbers_stay_and_the_temperature_is_told(processor):
    model, captions, _ = random_problem(processor, [4] * 20)
    plain, processed = (run(model, processor, captions, post_processing=names) for names in ((), ("dsl",)))
    assert processed["levels"] == plain["levels"] and plain["post_processing"] == {}
    dsl = processed["post_processing"]["dsl"]
    assert dsl["temperature"] == 100 and "lowers text to video" in dsl["note"]
    assert dsl["video_to_text_group"] != plain["levels"]["combined"]["video_to_text_group"]


# Leaks


def assert_chance_level(summary, queries, gallery):
    for k in (1, 5, 10):
        low, high = wilson_interval(100 * k / gallery, queries)
        assert low - 1 <= summary[f"R@{k}"] <= high + 1
    spread = gallery / math.sqrt(12 * queries)
    assert summary["MnR"] == pytest.approx((gallery + 1) / 2, abs=4 * spread)


@pytest.mark.parametrize("captions_per_video", [1, 3])
def test_random_unrelated_embeddings_give_chance_level(processor, captions_per_video):
    model, captions, _ = random_problem(processor, [captions_per_video] * 100)
    levels = run(model, processor, captions, post_processing=["dsl"])
    for summaries in (*levels["levels"].values(), levels["post_processing"]["dsl"]):
        assert_chance_level(summaries["text_to_video"], 100 * captions_per_video, 100)
        assert_chance_level(summaries["video_to_text_group"], 100, 100)


def test_a_video_that_has_seen_its_own_caption_does_not():
    """The check above finds what it is for: frames that are pooled with the weights of the video's own caption."""
    generator = torch.Generator().manual_seed(0)
    texts = normalize(torch.randn(100, WIDTH, generator=generator), dim=-1)
    frames = normalize(torch.randn(100, 12, WIDTH, generator=generator), dim=-1)
    weights = (10 * torch.einsum("vd,vfd->vf", texts, frames)).softmax(dim=1)
    videos = torch.einsum("vf,vfd->vd", weights, frames)
    leaking = text_to_video_ranks(cosine_similarity(texts[:, None], videos, dim=-1), torch.arange(100))
    assert recall_at(leaking.average, 1) > 20
    with pytest.raises(AssertionError):
        assert_chance_level(summarize_ranks(leaking), 100, 100)


def test_a_permuted_pairing_gives_the_permuted_result(processor):
    model, captions, cosines = random_problem(processor, [1] * 30)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(3)).tolist()
    permuted = run(model, processor, [captions[source] for source in order])["levels"]["combined"]
    assert_same_metrics(permuted, retrieval_metrics(cosines[order], torch.arange(30)))


@pytest.mark.parametrize("captions_per_video", [[1, 0, 2, 5], [1] * 3 + [0] * 4])
def test_more_texts_than_videos_and_fewer(processor, captions_per_video):
    model, captions, cosines = random_problem(processor, captions_per_video)
    levels = run(model, processor, captions)["levels"]
    mapping = torch.arange(len(captions)).repeat_interleave(torch.tensor(captions_per_video))
    for level in (*LEVELS, "combined"):
        assert_same_metrics(levels[level], retrieval_metrics(cosines, mapping))
