import pickle

import pytest
import torch
from random_features import random_text_features, random_video_features
from tiny_hcmi import random_texts, random_videos, tiny_model

from hcmi.modeling_hcmi import LEVELS, concatenate_features
from hcmi.modeling_hcmi.interaction_hcmi import blockwise_similarity

ROWS = [slice(1, 3), slice(None, None, 2), [2, 0], torch.tensor([3, 3, 1]), torch.tensor([True, False, True, False])]


def assert_same(first, second) -> None:
    assert type(first) is type(second)
    assert set(first.keys()) == set(second.keys())
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=0)


@pytest.mark.parametrize("rows", ROWS, ids=str)
@pytest.mark.parametrize("make", [random_text_features, random_video_features])
def test_select_takes_the_same_rows_of_every_field(make, rows):
    features = make([3, 1, 4, 2])
    selected = features.select(rows)
    for name in features.retrieval_fields:
        assert torch.equal(selected[name], features[name][rows])


def test_retrieval_fields_are_all_but_the_towers_own_outputs():
    model = tiny_model()
    wanted = {"output_hidden_states": True, "output_attentions": True}
    model.set_attn_implementation("eager")
    towers = {"last_hidden_state", "hidden_states", "attentions"}
    for features in (
        model.get_video_features(random_videos(), **wanted),
        model.get_text_features(**random_texts(), **wanted),
    ):
        assert set(features.keys()) == {*features.retrieval_fields, *towers}
        for smaller in (features.select([0]), features.to("cpu"), concatenate_features([features])):
            assert set(smaller.keys()) == set(features.retrieval_fields)


@pytest.mark.parametrize("make", [random_text_features, random_video_features])
def test_to_converts_numbers_and_keeps_masks_boolean(make):
    features = make([3, 1])
    half = features.to(torch.bfloat16)
    for name, tensor in half.items():
        assert tensor.dtype == (torch.bool if name.endswith("mask") else torch.bfloat16)
        assert torch.equal(tensor, features[name].to(tensor.dtype))
    assert_same(half.to(torch.float32).to("cpu").to(torch.bfloat16), half)
    elsewhere = features.to("meta", torch.float16).pooler_output
    assert (elsewhere.device.type, elsewhere.dtype) == ("meta", torch.float16)


@pytest.mark.parametrize("make", [random_text_features, random_video_features])
def test_concatenation_of_pieces_is_the_whole(make):
    whole = make([3, 1, 4, 2, 5])
    pieces = [whole.select(slice(0, 2)), whole.select([2]), whole.select(slice(3, 5))]
    assert_same(concatenate_features(pieces), whole)
    assert_same(concatenate_features([whole]), whole)


def test_concatenation_pads_to_the_longest_with_zeros():
    short, long = random_video_features([3, 2], seed=1), random_video_features([6, 1, 5], seed=2)
    joined = concatenate_features([short, long])
    assert joined.frames.shape == (5, 6, 4)
    assert joined.clips.shape == (5, 3, 4)
    assert joined.clip_frame_weights.shape == (5, 3, 6)
    for name, padded in short.retrieval_fields.items():
        inside = (slice(0, 2), *(slice(0, size) for size in short[name].shape[1:]))
        assert torch.equal(joined[name][inside], short[name])
        assert torch.equal(joined[name][2:], long[name])
        assert joined[name].dtype == short[name].dtype
        outside = torch.ones(joined[name][:2].shape, dtype=torch.bool)
        outside[inside] = False
        assert not joined[name][:2][outside].any()
        assert outside.any() == (padded > 0)


def test_scores_of_concatenated_features_are_those_of_the_pieces():
    weights = dict.fromkeys(LEVELS, 1.0)
    texts = [random_text_features([2, 1], seed=1), random_text_features([5], seed=2)]
    videos = [random_video_features([7, 2], seed=3), random_video_features([1, 3], seed=4)]
    whole = blockwise_similarity(concatenate_features(texts), concatenate_features(videos), weights)
    for level in ("combined", *LEVELS):
        rows = [torch.cat([blockwise_similarity(t, v, weights)[level] for v in videos], dim=1) for t in texts]
        torch.testing.assert_close(whole[level], torch.cat(rows))


def test_nothing_cannot_be_concatenated():
    with pytest.raises(ValueError, match="at least one"):
        concatenate_features([])


def test_features_can_be_pickled_and_cross_gradients():
    features = random_video_features([3, 1])
    assert_same(pickle.loads(pickle.dumps(features)), features)
    features.frames.requires_grad_()
    concatenate_features([features.select([1]), features.to(torch.float64).to(torch.float32)]).frames.sum().backward()
    assert features.frames.grad.sum() > 0
