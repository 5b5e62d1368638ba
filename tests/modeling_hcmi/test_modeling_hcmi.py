import copy

import pytest
import torch
from tiny_hcmi import END_OF_TEXT, SIZE, TEXT_CONFIG, random_texts, random_videos, tiny_model, tiny_tokenizer, unlike
from torch.nn.functional import normalize
from transformers import CLIPImageProcessor
from transformers.utils import ModelOutput

from hcmi.modeling_hcmi import LEVELS, HCMIOutput, HCMITextFeatures, HCMIVideoFeatures, hcmi_objective
from hcmi.modeling_hcmi.objective_hcmi import denoised_positives
from hcmi.processing import HCMIProcessor

WIDTH = 16


def raw_videos(videos: int = 2, frames: int = 5, seed: int = 0) -> torch.Tensor:
    shape = (videos, frames, 3, SIZE, SIZE)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_shapes_of_video_features():
    features = tiny_model().get_video_features(random_videos(3, 6))
    assert isinstance(features, HCMIVideoFeatures)
    shapes = {name: tuple(features[name].shape) for name in features}
    assert shapes == {
        "pooler_output": (3, WIDTH),
        "frames": (3, 6, WIDTH),
        "clips": (3, 2, WIDTH),
        "frame_mask": (3, 6),
        "clip_mask": (3, 2),
        "frame_weights": (3, 6),
        "clip_weights": (3, 2),
        "clip_frame_weights": (3, 2, 6),
        "last_hidden_state": (3, 6, 5, 32),
    }
    assert features.frame_mask.dtype == features.clip_mask.dtype == torch.bool


def test_shapes_of_text_features():
    features = tiny_model().get_text_features(**random_texts((6, 9, 4)))
    assert isinstance(features, HCMITextFeatures)
    shapes = {name: tuple(features[name].shape) for name in features}
    assert shapes == {
        "pooler_output": (3, WIDTH),
        "words": (3, 9, WIDTH),
        "phrases": (3, 3, WIDTH),
        "word_mask": (3, 9),
        "phrase_mask": (3, 3),
        "word_weights": (3, 9),
        "phrase_weights": (3, 3),
        "phrase_word_weights": (3, 3, 9),
        "last_hidden_state": (3, 9, 32),
    }


def test_weights_sum_to_one_over_what_is_real():
    model = tiny_model()
    mask = torch.arange(6) < torch.tensor([[6], [3], [1]])
    video = model.get_video_features(random_videos(3, 6), mask)
    text = model.get_text_features(**random_texts((6, 9, 4)))
    for weights, real in (
        (video.frame_weights, video.frame_mask),
        (video.clip_weights, video.clip_mask),
        (video.clip_frame_weights, video.frame_mask[:, None].expand(-1, 2, -1)),
        (text.word_weights, text.word_mask),
        (text.phrase_weights, text.phrase_mask),
        (text.phrase_word_weights, text.word_mask[:, None].expand(-1, 3, -1)),
    ):
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
        assert not weights[~real].any()
        assert (weights >= 0).all()


def test_words_are_clips_tokens_projected_and_frames_keep_clips_own():
    model, pixels, texts = tiny_model(), random_videos(2, 4), random_texts()
    text = model.get_text_features(**texts)
    tower = model.text_model(**texts)
    torch.testing.assert_close(text.words, model.text_projection(tower.last_hidden_state))
    assert unlike(text.pooler_output, model.text_projection(tower.pooler_output))

    video = model.get_video_features(pixels)
    clip = model.visual_projection(model.vision_model(pixels.flatten(0, 1)).pooler_output).unflatten(0, (2, 4))
    positions = model.video_hierarchy.position_embedding.weight[:4]
    _, contextual, _ = model.video_hierarchy.group_aggregation(clip + positions, torch.ones(2, 4).bool(), 1)
    torch.testing.assert_close(video.frames, clip + contextual)


def test_the_order_of_frames_counts():
    model, pixels = tiny_model(), random_videos(2, 6)
    assert unlike(model.get_video_features(pixels).clips, model.get_video_features(pixels.flip(1)).clips)


@pytest.mark.parametrize("side", ["text", "video"])
def test_a_permuted_batch_gives_permuted_features(side):
    model, order = tiny_model(), torch.tensor([2, 0, 1])
    if side == "text":
        texts = random_texts()
        straight = model.get_text_features(**texts)
        shuffled = model.get_text_features(**{name: tensor[order] for name, tensor in texts.items()})
    else:
        pixels, mask = random_videos(3, 6), torch.arange(6) < torch.tensor([[6], [3], [1]])
        straight = model.get_video_features(pixels, mask)
        shuffled = model.get_video_features(pixels[order], mask[order])
    for name in straight:
        torch.testing.assert_close(straight[name][order], shuffled[name], atol=1e-5, rtol=1e-5)


def test_uint8_frames_are_normalised_inside():
    model, raw = tiny_model(image_mean=[0.3, 0.5, 0.6], image_std=[0.2, 0.3, 0.4]), raw_videos()
    mean, std = torch.tensor([0.3, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.4])
    floats = (raw / 255 - mean[:, None, None]) / std[:, None, None]
    from_raw, from_floats = model.get_video_features(raw), model.get_video_features(floats)
    for name in HCMIVideoFeatures.retrieval_fields:
        torch.testing.assert_close(from_raw[name], from_floats[name], atol=1e-5, rtol=1e-5)


def test_uint8_frames_equal_the_image_processors_own_floats():
    raw = raw_videos()
    settings = {"size": {"shortest_edge": SIZE}, "crop_size": {"height": SIZE, "width": SIZE}}
    processor = CLIPImageProcessor(**settings)
    model = tiny_model(image_mean=list(processor.image_mean), image_std=list(processor.image_std))
    frames = [frame.permute(1, 2, 0).numpy() for frame in raw.flatten(0, 1)]
    floats = processor(frames, return_tensors="pt")["pixel_values"].unflatten(0, raw.shape[:2])
    torch.testing.assert_close(model._normalised(raw.flatten(0, 1)), floats.flatten(0, 1), atol=1e-5, rtol=1e-5)
    from_raw, from_floats = model.get_video_features(raw), model.get_video_features(floats)
    torch.testing.assert_close(from_raw.pooler_output, from_floats.pooler_output, atol=1e-5, rtol=1e-5)


def test_uint8_frames_equal_the_whole_processors_own_floats():
    sizes = {"size": {"shortest_edge": SIZE}, "crop_size": {"height": SIZE, "width": SIZE}}
    processor = HCMIProcessor(CLIPImageProcessor(**sizes), tiny_tokenizer(), frames_per_video=4)
    videos = [raw_videos(1, 6)[0].numpy(), raw_videos(1, 3, seed=1)[0].numpy()]
    raw, floats = (processor(videos=videos, return_tensors="pt", uint8=uint8) for uint8 in (True, False))
    assert raw["pixel_values_videos"].dtype == torch.uint8
    model = tiny_model()
    from_raw, from_floats = (
        model.get_video_features(batch["pixel_values_videos"], batch["video_mask"]) for batch in (raw, floats)
    )
    torch.testing.assert_close(from_raw.pooler_output, from_floats.pooler_output, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(from_raw.clips, from_floats.clips, atol=1e-5, rtol=1e-5)


def test_uint8_frames_follow_the_models_type():
    model = tiny_model().to(torch.bfloat16)
    assert model.get_video_features(raw_videos()).pooler_output.dtype == torch.bfloat16


@pytest.mark.parametrize("end", [END_OF_TEXT, 2])
def test_without_a_mask_a_text_ends_where_clip_pools(end):
    # OpenAI's checkpoints give 2 as the id of the end of text, where it is the highest one of the text.
    model = tiny_model(text_config=TEXT_CONFIG | {"eos_token_id": end})
    texts = random_texts((6, 9, 4))
    alone = model.get_text_features(texts["input_ids"])
    assert torch.equal(alone.word_mask, texts["attention_mask"].bool())
    torch.testing.assert_close(alone.pooler_output, model.get_text_features(**texts).pooler_output)
    # CLIP pads with the end-of-text token itself: the first one ends the text.
    repeated = texts["input_ids"].masked_fill(texts["attention_mask"] == 0, END_OF_TEXT)
    torch.testing.assert_close(model.get_text_features(repeated).pooler_output, alone.pooler_output)


@pytest.mark.parametrize("rows", [[1], [0, 2]])
def test_rows_without_anything_real_are_refused_by_number(rows):
    model, texts = tiny_model(), random_texts()
    mask = torch.ones(3, 5, dtype=torch.bool)
    mask[rows] = False
    with pytest.raises(ValueError, match=rf"video_mask: rows \[{', '.join(map(str, rows))}\] have no real frame"):
        model.get_video_features(random_videos(3, 5), mask)
    texts["attention_mask"][rows] = 0
    with pytest.raises(ValueError, match=rf"attention_mask: rows \[{', '.join(map(str, rows))}\] have no real token"):
        model.get_text_features(**texts)


def test_wrong_shapes_are_refused():
    model, texts = tiny_model(), random_texts()
    with pytest.raises(ValueError, match="videos, frames, channels"):
        model.get_video_features(random_videos(3, 5).flatten(0, 1))
    with pytest.raises(ValueError, match=r"max_frames .*\(12\)"):
        model.get_video_features(random_videos(1, 13))
    with pytest.raises(ValueError, match=r"video_mask has to be of shape \(3, 5\)"):
        model.get_video_features(random_videos(3, 5), torch.ones(3, 4))
    with pytest.raises(ValueError, match="attention_mask has to be of shape"):
        model.get_text_features(texts["input_ids"], texts["attention_mask"][:, :3])


def test_forward_needs_both_sides_and_equally_many_for_the_loss():
    model = tiny_model()
    with pytest.raises(ValueError, match="input_ids and pixel_values_videos"):
        model(**random_texts())
    with pytest.raises(ValueError, match="input_ids and pixel_values_videos"):
        model(pixel_values_videos=random_videos())
    with pytest.raises(ValueError, match="3 texts and 2 videos"):
        model(**random_texts(), pixel_values_videos=random_videos(2), return_loss=True)


@torch.no_grad()
def test_forward_compares_any_number_of_texts_and_videos():
    model, texts, pixels = tiny_model(), random_texts((6, 9, 4)), random_videos(2, 5)
    output = model(**texts, pixel_values_videos=pixels)
    assert isinstance(output, HCMIOutput)
    assert output.loss is None
    assert output.objective is None
    similarity = model.score(model.get_text_features(**texts), model.get_video_features(pixels))
    for level in ("combined", *LEVELS):
        assert output.similarity[level].shape == (3, 2)
        torch.testing.assert_close(output.similarity[level], similarity[level])
    torch.testing.assert_close(output.logits_per_text, similarity.combined * model.logit_scale.exp())
    assert torch.equal(output.logits_per_video, output.logits_per_text.T)
    torch.testing.assert_close(output.text_embeds, normalize(output.text_features.pooler_output, dim=-1))
    torch.testing.assert_close(output.video_embeds, normalize(output.video_features.pooler_output, dim=-1))
    torch.testing.assert_close(output.text_embeds @ output.video_embeds.T, similarity.video_sentence)


@torch.no_grad()
def test_scores_are_weighted_by_the_configuration_and_computed_in_blocks():
    weights = {"frame_word": 0.0, "clip_phrase": 1.0, "video_sentence": 3.0}
    model = tiny_model(inference_weights=weights)
    text, video = model.get_text_features(**random_texts()), model.get_video_features(random_videos(4, 3))
    scores = model.score(text, video)
    torch.testing.assert_close(scores.combined, (scores.clip_phrase + 3 * scores.video_sentence) / 4)
    torch.testing.assert_close(model.score(text, video, max_block_elements=1), scores)
    assert model.score(text, video, levels=["video_sentence"]).frame_word is None
    with pytest.raises(ValueError, match="word_frame"):
        model.score(text, video, levels=["word_frame"])


def test_the_loss_is_the_objective_of_the_features():
    model, texts, pixels, second = tiny_model(), random_texts(), random_videos(seed=1), random_videos(seed=5)
    mask, second_mask = torch.ones(3, 5).bool(), torch.arange(5) < torch.tensor([[5], [2], [4]])
    ids = torch.tensor([1, 2, 1])
    output = model(
        **texts,
        pixel_values_videos=pixels,
        video_mask=mask,
        second_pixel_values_videos=second,
        second_video_mask=second_mask,
        video_ids=ids,
        return_loss=True,
    )
    text, video = model.get_text_features(**texts), model.get_video_features(pixels, mask)
    second_view = model.get_video_features(second, second_mask).pooler_output
    wanted = hcmi_objective(text, video, model.scale(), model.config, second_view, ids)
    torch.testing.assert_close(output.loss, wanted.loss)
    torch.testing.assert_close(output.objective.to_tuple(), wanted.to_tuple())
    mined = denoised_positives(video.pooler_output, second_view) & (ids[:, None] != ids)
    assert output.objective.mined_pairs == mined.sum()

    without = model(**texts, pixel_values_videos=pixels, video_mask=mask, video_ids=ids, return_loss=True)
    assert without.objective.mined_pairs == 0


def test_the_second_view_is_encoded_without_gradient_and_only_when_it_is_needed(monkeypatch):
    model, texts = tiny_model(), random_texts()
    second = random_videos(seed=5).requires_grad_()
    views = {"pixel_values_videos": random_videos(seed=1), "second_pixel_values_videos": second}
    model(**texts, **views, return_loss=True).loss.backward()
    assert second.grad is None

    with_gradient = []
    tower = model.vision_model.forward

    def forward(*args, **kwargs):
        with_gradient.append(torch.is_grad_enabled())
        return tower(*args, **kwargs)

    monkeypatch.setattr(model.vision_model, "forward", forward)
    model(**texts, **views)
    assert with_gradient == [True]
    model.config.label_denoising = False
    model(**texts, **views, return_loss=True)
    assert with_gradient == [True] * 2
    model.config.label_denoising = True
    model(**texts, **views, return_loss=True)
    assert with_gradient == [True] * 3 + [False]


def test_every_parameter_learns():
    model = tiny_model()
    model(**random_texts(), pixel_values_videos=random_videos(3, 9), return_loss=True).loss.backward()
    # Queries of groups beyond those that 9 frames and 9 tokens make have no share; biases of keys shift all logits of a
    # softmax alike.
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        if not name.endswith("k_proj.bias"):
            assert parameter.grad.any(), name


def test_the_logit_scale_is_clamped():
    model = tiny_model(logit_scale_max=20.0)
    with torch.no_grad():
        model.logit_scale.fill_(5.0)
    assert model.scale().item() == 20.0
    with torch.no_grad():
        model.logit_scale.fill_(1.0)
    torch.testing.assert_close(model.scale(), torch.tensor(1.0).exp())


@torch.no_grad()
@pytest.mark.parametrize("method", ["get_video_features", "get_text_features"])
def test_towers_states_on_request_and_tuples(method):
    model = tiny_model(attn_implementation="eager")
    inputs = (random_videos(2, 3),) if method == "get_video_features" else random_texts().values()
    features = getattr(model, method)(*inputs, output_hidden_states=True, output_attentions=True)
    assert len(features.hidden_states) == 3
    assert len(features.attentions) == 2
    as_tuple = getattr(model, method)(*inputs, return_dict=False)
    assert isinstance(as_tuple, tuple)
    assert torch.equal(as_tuple[0], features.pooler_output)


@torch.no_grad()
def test_outputs_become_tuples_all_the_way_down():
    output = tiny_model()(**random_texts(), pixel_values_videos=random_videos(), return_loss=True)

    def check(value):
        assert not isinstance(value, ModelOutput)
        if isinstance(value, tuple):
            for item in value:
                check(item)

    check(output.to_tuple())


def test_models_can_be_copied():
    model = tiny_model()
    pixels = random_videos(1, 3)
    twin = copy.deepcopy(model)
    torch.testing.assert_close(
        twin.get_video_features(pixels).pooler_output, model.get_video_features(pixels).pooler_output
    )
