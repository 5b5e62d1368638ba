"""Padding changes nothing: a video, or a text, has the same features alone, padded, and in a batch."""

import math

import pytest
import torch
from tiny_hcmi import END_OF_TEXT, SIZE, random_texts, random_videos, tiny_model

VARIANTS = [
    {},
    {"num_clips": 3, "num_phrases": 4},
    {"frames_per_clip": 1, "words_per_phrase": 5, "aggregation_layers": 2},
    {"frame_word_interaction": "max_mean", "clip_phrase_interaction": "max_mean"},
    {"frame_residual": False, "video_residual": False, "sentence_residual": False},
]
IMPLEMENTATIONS = ["eager", "sdpa"]


def assert_row_is(features, row: int, alone) -> None:
    """Row `row` of a batch's features is `alone`, and what lies beyond it is padding."""
    for name, padded in alone.retrieval_fields.items():
        inside = tuple(slice(0, size) for size in alone[name].shape[1 : 1 + padded])
        torch.testing.assert_close(features[name][row][inside], alone[name][0], atol=1e-5, rtol=1e-5, msg=name)
        if "mask" in name or "weights" in name:
            rest = features[name][row].clone()
            rest[inside] = 0
            # Rows of the assignment of groups that do not exist are not zero, and nobody reads them.
            if "mask" in name or padded == 1:
                assert not rest.any(), name
            else:
                assert not rest[:, inside[-1].stop :].any(), name


def garbage(shape: tuple[int, ...], kind: str) -> torch.Tensor:
    if kind == "zeros":
        return torch.zeros(shape)
    if kind == "nan":
        return torch.full(shape, math.nan)
    return torch.randn(shape, generator=torch.Generator().manual_seed(9)) * 50


@torch.no_grad()
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("fields", VARIANTS, ids=str)
def test_five_frames_alone_padded_to_twelve_and_in_a_batch(fields, implementation):
    model = tiny_model(attn_implementation=implementation, **fields)
    video = random_videos(1, 5)
    alone = model.get_video_features(video)
    masked = model.get_video_features(video, torch.ones(1, 5))
    assert_row_is(masked, 0, alone)
    for kind in ("zeros", "nan", "noise"):
        padded = torch.cat([video, garbage((1, 7, 3, SIZE, SIZE), kind)], dim=1)
        mask = torch.arange(12)[None] < 5
        assert_row_is(model.get_video_features(padded, mask), 0, alone)

        others = random_videos(3, 12, seed=4)
        batch = torch.cat([others[:1], padded, others[1:]])
        mask = torch.arange(12) < torch.tensor([[12], [5], [1], [8]])
        features = model.get_video_features(batch, mask)
        assert_row_is(features, 1, alone)
        assert_row_is(features, 3, model.get_video_features(others[2:, :8]))


@torch.no_grad()
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("fields", VARIANTS, ids=str)
def test_a_text_alone_padded_and_in_a_batch(fields, implementation):
    model = tiny_model(attn_implementation=implementation, **fields)
    texts = random_texts((6, 20, 2, 11))
    ids, mask = texts["input_ids"], texts["attention_mask"]
    alone = model.get_text_features(ids[:1, :6])
    assert_row_is(model.get_text_features(ids[:1, :6], mask[:1, :6]), 0, alone)
    for padding in (0, 55, END_OF_TEXT):
        filled = ids.masked_fill(mask == 0, padding)
        assert_row_is(model.get_text_features(filled[:1, :9], mask[:1, :9]), 0, alone)
        features = model.get_text_features(filled, mask)
        assert_row_is(features, 0, alone)
        assert_row_is(features, 3, model.get_text_features(ids[3:, :11]))


@torch.no_grad()
def test_masks_may_be_of_any_type():
    model, pixels, texts = tiny_model(), random_videos(2, 4), random_texts((3, 5))
    mask = torch.arange(4) < torch.tensor([[4], [2]])
    for dtype in (torch.bool, torch.long, torch.int32, torch.uint8, torch.float32):
        video = model.get_video_features(pixels, mask.to(dtype))
        text = model.get_text_features(texts["input_ids"], texts["attention_mask"].to(dtype))
        for features, wanted in (
            (video, model.get_video_features(pixels, mask)),
            (text, model.get_text_features(**texts)),
        ):
            for name in features.retrieval_fields:
                assert torch.equal(features[name], wanted[name])


@torch.no_grad()
def test_scores_do_not_depend_on_padding():
    model, texts, pixels = tiny_model(), random_texts((6, 9)), random_videos(2, 5)
    scores = model.score(model.get_text_features(**texts), model.get_video_features(pixels))
    wide = random_texts((6, 9), width=9)
    wide = {name: torch.cat([tensor, torch.zeros(2, 7, dtype=torch.long)], dim=1) for name, tensor in wide.items()}
    padded = torch.cat([pixels, garbage((2, 7, 3, SIZE, SIZE), "noise")], dim=1)
    mask = (torch.arange(12) < 5).expand(2, -1)
    again = model.score(model.get_text_features(**wide), model.get_video_features(padded, mask))
    torch.testing.assert_close(again, scores, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_masked_frame_gets_no_gradient(implementation):
    model = tiny_model(attn_implementation=implementation)
    pixels, mask = random_videos(3, 6).requires_grad_(), torch.arange(6) < torch.tensor([[6], [3], [1]])
    features = model.get_video_features(pixels, mask)
    text = model.get_text_features(**random_texts())
    (model.score(text, features).combined.sum() + features.clip_frame_weights.square().sum()).backward()
    assert not pixels.grad[~mask].any()
    assert pixels.grad[mask].flatten(1).any(1).all()


def test_padding_does_not_change_the_gradients_of_the_weights():
    gradients = []
    for frames in (5, 12):
        model = tiny_model()
        pixels, mask = torch.zeros(3, frames, 3, SIZE, SIZE), (torch.arange(frames) < 5).expand(3, -1)
        pixels[:, :5] = random_videos(3, 5)
        model(**random_texts(), pixel_values_videos=pixels, video_mask=mask, return_loss=True).loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], atol=1e-5, rtol=1e-4, msg=name)
