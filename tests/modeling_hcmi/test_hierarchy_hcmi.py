import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_hcmi import random_texts, random_videos, tiny_config, tiny_model, unlike

from hcmi.modeling_hcmi.hierarchy_hcmi import HCMIHierarchy, HCMITokenWeights


def hierarchy(tokens_per_group: int = 4, num_groups: int | None = None, **switches: bool) -> HCMIHierarchy:
    config = tiny_config()
    config._attn_implementation = "eager"
    all_on = dict.fromkeys(("with_positions", "contextual_tokens", "token_residual", "vector_residual"), True)
    torch.manual_seed(0)
    return HCMIHierarchy(
        config, max_tokens=12, tokens_per_group=tokens_per_group, num_groups=num_groups, **all_on | switches
    ).eval()


@settings(max_examples=25)
@given(tokens=st.integers(1, 64), size=st.integers(1, 9))
def test_so_many_tokens_make_so_many_groups(tokens, size):
    module = hierarchy(size)
    groups = module.count_groups(tokens)
    assert (groups - 1) * size < tokens <= groups * size
    assert module.count_groups(torch.tensor([tokens])).tolist() == [groups]


@pytest.mark.parametrize(("tokens", "groups"), [(1, 1), (2, 2), (3, 3), (4, 3), (12, 3)])
def test_a_fixed_number_of_groups_is_never_more_than_the_tokens(tokens, groups):
    module = hierarchy(num_groups=3)
    assert module.count_groups(tokens) == groups
    assert module.count_groups(torch.tensor([tokens])).tolist() == [groups]


@pytest.mark.parametrize(("fields", "clips"), [
    ({}, [3, 2, 1]),
    ({"frames_per_clip": 3}, [4, 2, 1]),
    ({"frames_per_clip": 100}, [1, 1, 1]),
    ({"num_clips": 2}, [2, 2, 1]),
    ({"num_clips": 5}, [5, 5, 1]),
])  # fmt: skip
def test_clips_of_videos_of_12_5_and_1_frames(fields, clips):
    mask = torch.arange(12) < torch.tensor([[12], [5], [1]])
    features = tiny_model(**fields).get_video_features(random_videos(3, 12), mask)
    assert features.clip_mask.sum(1).tolist() == clips
    assert features.clips.shape[1] == max(clips)
    # The real ones come first.
    assert torch.equal(features.clip_mask, features.clip_mask.sort(1, descending=True).values)


@pytest.mark.parametrize(("fields", "phrases"), [
    ({}, [2, 3, 1]),
    ({"words_per_phrase": 2}, [3, 5, 2]),
    ({"num_phrases": 4}, [4, 4, 3]),
])  # fmt: skip
def test_phrases_of_texts_of_6_9_and_3_tokens(fields, phrases):
    features = tiny_model(**fields).get_text_features(**random_texts((6, 9, 3)))
    assert features.phrase_mask.sum(1).tolist() == phrases


@pytest.mark.parametrize("interaction", ["weighted", "max_mean"])
def test_token_weights_sum_to_one_over_real_tokens(interaction):
    torch.manual_seed(0)
    module = HCMITokenWeights(tiny_config(), interaction)
    mask = torch.arange(7) < torch.tensor([[7], [3], [1]])
    weights = module(torch.randn(3, 7, 16) * 5, mask)
    torch.testing.assert_close(weights.sum(1), torch.ones(3))
    assert not weights[~mask].any()
    if interaction == "max_mean":
        torch.testing.assert_close(weights[1, :3], torch.full((3,), 1 / 3))
        assert not list(module.parameters())


def test_weighted_token_weights_are_a_softmax_of_linear_relu_linear():
    torch.manual_seed(0)
    module, tokens = HCMITokenWeights(tiny_config(), "weighted"), torch.randn(2, 5, 16)
    hidden = (tokens @ module.fc1.weight.T + module.fc1.bias).clamp(min=0)
    wanted = (hidden @ module.fc2.weight.T + module.fc2.bias).squeeze(-1).softmax(-1)
    torch.testing.assert_close(module(tokens, torch.ones(2, 5).bool()), wanted)
    # Of the un-normalised tokens: their length counts.
    assert unlike(module(tokens * 3, torch.ones(2, 5).bool()), wanted)


def run(module: HCMIHierarchy):
    generator = torch.Generator().manual_seed(3)
    tokens, pooled = torch.randn(2, 9, 16, generator=generator), torch.randn(2, 16, generator=generator)
    mask = torch.arange(9) < torch.tensor([[9], [5]])
    return tokens, pooled, mask, module(tokens, mask, pooled)


def test_residual_switches():
    tokens, pooled, mask, both = run(hierarchy())
    _, contextual, _ = hierarchy().group_aggregation(
        tokens + hierarchy().position_embedding.weight[:9], mask, num_groups=3
    )
    torch.testing.assert_close(both.tokens, tokens + contextual)

    *_, without = run(hierarchy(token_residual=False))
    torch.testing.assert_close(without.tokens, contextual)

    *_, incoming = run(hierarchy(contextual_tokens=False))
    assert torch.equal(incoming.tokens, tokens)

    *_, alone = run(hierarchy(vector_residual=False))
    torch.testing.assert_close(both.vector, alone.vector + pooled)


def test_without_positions_tokens_have_no_order():
    module = hierarchy(with_positions=False)
    tokens, pooled, mask = torch.randn(1, 6, 16), torch.randn(1, 16), torch.ones(1, 6, dtype=torch.bool)
    order = torch.tensor([4, 2, 0, 5, 1, 3])
    straight, shuffled = module(tokens, mask, pooled), module(tokens[:, order], mask, pooled)
    torch.testing.assert_close(straight.groups, shuffled.groups)
    torch.testing.assert_close(straight.tokens[:, order], shuffled.tokens)

    with_positions = hierarchy()
    with torch.no_grad():
        with_positions.position_embedding.weight.normal_()
    assert unlike(with_positions(tokens, mask, pooled).groups, with_positions(tokens[:, order], mask, pooled).groups)


def test_clips_come_from_frames_and_the_video_from_clips():
    _, pooled, _, levels = run(hierarchy())
    module = hierarchy()
    pooled_clips = module.vector_aggregation(levels.groups, levels.group_mask, 1)[0].squeeze(1)
    torch.testing.assert_close(levels.vector, pooled + module.vector_projection(pooled_clips))
