"""A CLIP checkpoint becomes HCMI: mean-pooled CLIP at the video-sentence level, until it is trained."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_hcmi import (
    END_OF_TEXT,
    TEXT_CONFIG,
    VISION_CONFIG,
    random_texts,
    random_videos,
    tiny_clip,
    tiny_model,
    unlike,
)
from torch.nn.functional import normalize
from transformers import (
    CLIPModel,
    CLIPTextModel,
    CLIPVisionModel,
    XCLIPConfig,
    XCLIPModel,
    logging,
)

from hcmi.modeling_hcmi import LEVELS, HCMIModel

VIDEO_SENTENCE_ALONE = {"frame_word": 0.0, "clip_phrase": 0.0, "video_sentence": 1.0}


@pytest.fixture
def checkpoint(tmp_path):
    """A small random CLIP, saved by transformers itself."""
    tiny_clip().save_pretrained(tmp_path / "clip")
    return tmp_path / "clip"


def change_weights(folder, change) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


@torch.no_grad()
def mean_pooled_clip(clip: CLIPModel, texts: dict, pixels: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Cosines (texts, videos) of CLIP's text features with the mean of its image features over each video's frames."""
    means = []
    for video, real in zip(pixels, mask, strict=True):
        means.append(clip.get_image_features(video[real]).pooler_output.mean(0))
    sentences = clip.get_text_features(**texts).pooler_output
    return normalize(sentences, dim=-1) @ normalize(torch.stack(means), dim=-1).T


TEXTS = random_texts((6, 9, 4, 12, 5, 7, 3, 8))
PIXELS = random_videos(10, 6)
MASK = torch.arange(6) < torch.tensor([6, 3, 1, 6, 5, 2, 6, 4, 6, 6])[:, None]


@torch.no_grad()
def test_untrained_it_ranks_exactly_as_mean_pooled_clip(checkpoint):
    clip, model = CLIPModel.from_pretrained(checkpoint), HCMIModel.from_clip_pretrained(checkpoint)
    wanted = mean_pooled_clip(clip, TEXTS, PIXELS, MASK)
    assert unlike(wanted, wanted.mean().expand_as(wanted))
    scores = model.score(model.get_text_features(**TEXTS), model.get_video_features(PIXELS, MASK))
    torch.testing.assert_close(scores.video_sentence, wanted, atol=1e-5, rtol=0)
    assert torch.equal(scores.combined, scores.video_sentence)
    for dim in (0, 1):
        assert torch.equal(scores.combined.argsort(dim), wanted.argsort(dim))
    output = model(**TEXTS, pixel_values_videos=PIXELS, video_mask=MASK)
    torch.testing.assert_close(output.logits_per_text, wanted * clip.logit_scale.exp(), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_an_image_is_a_video_of_one_frame(checkpoint):
    clip, model = CLIPModel.from_pretrained(checkpoint), HCMIModel.from_clip_pretrained(checkpoint)
    images = PIXELS[:, 0]
    features = model.get_video_features(images[:, None]).pooler_output
    torch.testing.assert_close(features, clip.get_image_features(images).pooler_output, atol=1e-5, rtol=1e-5)


def test_every_weight_of_clip_is_taken_over(checkpoint):
    model = HCMIModel.from_clip_pretrained(checkpoint)
    weights, own = load_file(checkpoint / "model.safetensors"), model.state_dict()
    assert len(weights) > 50
    for name, tensor in weights.items():
        assert torch.equal(own[name], tensor), name
    assert {name.split(".")[0] for name in own.keys() - weights.keys()} == {"video_hierarchy", "text_hierarchy"}
    assert not model.training


def test_the_configuration_is_clips_and_can_be_overridden(checkpoint):
    assert HCMIModel.from_clip_pretrained(checkpoint).config.inference_weights == VIDEO_SENTENCE_ALONE
    even = dict.fromkeys(LEVELS, 1.0)
    overrides = {"max_frames": 5, "inference_weights": even, "num_clips": 2}
    model = HCMIModel.from_clip_pretrained(checkpoint, config_overrides=overrides)
    assert (model.config.max_frames, model.config.num_clips, model.config.inference_weights) == (5, 2, even)
    assert model.get_video_features(PIXELS[:1, :5]).clips.shape[1] == 2
    assert model.config.text_config.eos_token_id == END_OF_TEXT


def test_arguments_of_from_pretrained_are_passed_on(checkpoint, tmp_path):
    model = HCMIModel.from_clip_pretrained(checkpoint, dtype=torch.bfloat16, attn_implementation="eager")
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model.vision_model.config._attn_implementation == model.config._attn_implementation == "eager"
    inside = HCMIModel.from_clip_pretrained(tmp_path, subfolder="clip", device_map="cpu")
    assert torch.equal(inside.visual_projection.weight, tiny_clip().visual_projection.weight)


@torch.no_grad()
def test_a_sharded_checkpoint(checkpoint, tmp_path):
    clip = CLIPModel.from_pretrained(checkpoint)
    clip.save_pretrained(tmp_path / "shards", max_shard_size="100KB")
    assert len(list((tmp_path / "shards").glob("model-*.safetensors"))) > 1
    whole, shards = (HCMIModel.from_clip_pretrained(folder) for folder in (checkpoint, tmp_path / "shards"))
    for features in (lambda m: m.get_video_features(PIXELS, MASK), lambda m: m.get_text_features(**TEXTS)):
        assert torch.equal(features(whole).pooler_output, features(shards).pooler_output)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_half_precision_checkpoint(tmp_path, dtype):
    clip = tiny_clip().to(dtype)
    clip.save_pretrained(tmp_path)
    wanted = mean_pooled_clip(clip.float(), TEXTS, PIXELS, MASK)
    full = HCMIModel.from_clip_pretrained(tmp_path, dtype=torch.float32)
    scores = full.score(full.get_text_features(**TEXTS), full.get_video_features(PIXELS, MASK))
    torch.testing.assert_close(scores.video_sentence, wanted, atol=1e-5, rtol=0)
    half = HCMIModel.from_clip_pretrained(tmp_path)
    assert {p.dtype for p in half.parameters()} == {dtype}
    features = half.get_video_features(PIXELS.to(dtype), MASK)
    scores = half.score(half.get_text_features(**TEXTS), features)
    torch.testing.assert_close(scores.video_sentence, wanted, atol=0.05, rtol=0)


def test_old_checkpoints_with_position_ids(checkpoint):
    def add(weights):
        weights["text_model.embeddings.position_ids"] = torch.arange(24)[None]
        weights["vision_model.embeddings.position_ids"] = torch.arange(5)[None]

    change_weights(checkpoint, add)
    model = HCMIModel.from_clip_pretrained(checkpoint)
    assert torch.equal(model.visual_projection.weight, tiny_clip().visual_projection.weight)


def test_old_checkpoints_that_give_2_as_the_end_of_text(tmp_path):
    # OpenAI's own: the highest id of a text ends it.
    tiny_clip(text_config=TEXT_CONFIG | {"eos_token_id": 2}).save_pretrained(tmp_path)
    clip, model = CLIPModel.from_pretrained(tmp_path), HCMIModel.from_clip_pretrained(tmp_path)
    ids = TEXTS["input_ids"].masked_fill(TEXTS["attention_mask"] == 0, END_OF_TEXT)
    with torch.no_grad():
        wanted = mean_pooled_clip(clip, {"input_ids": ids}, PIXELS, MASK)
        text = model.get_text_features(ids)
        scores = model.score(text, model.get_video_features(PIXELS, MASK))
    torch.testing.assert_close(scores.video_sentence, wanted, atol=1e-5, rtol=0)
    assert torch.equal(text.word_mask, TEXTS["attention_mask"].bool())


def test_the_towers_can_be_had_back(checkpoint, tmp_path):
    HCMIModel.from_clip_pretrained(checkpoint).save_pretrained(tmp_path / "hcmi")
    clip = CLIPModel.from_pretrained(checkpoint)
    for tower, own in ((CLIPVisionModel, clip.vision_model), (CLIPTextModel, clip.text_model)):
        loaded, info = tower.from_pretrained(tmp_path / "hcmi", output_loading_info=True)
        assert not info["missing_keys"]
        for (name, got), (other, wanted) in zip(loaded.state_dict().items(), own.state_dict().items(), strict=True):
            assert name == other
            assert torch.equal(got, wanted), name


def other_model(kind: str):
    text, vision = dict(TEXT_CONFIG), dict(VISION_CONFIG)
    if kind == "xclip":
        vision |= {"mit_hidden_size": 16, "mit_num_attention_heads": 2, "mit_intermediate_size": 16}
        vision |= {"mit_num_hidden_layers": 1, "num_frames": 2}
        return XCLIPModel(XCLIPConfig(text_config=text, vision_config=vision, projection_dim=16))
    return tiny_clip().vision_model if kind == "vision tower" else tiny_clip().text_model


@pytest.mark.parametrize("kind", ["xclip", "vision tower", "text tower"])
def test_other_models_are_refused(tmp_path, kind):
    model = other_model(kind)
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=rf"{tmp_path}: .* clip, .*, not '{model.config.model_type}'"):
        HCMIModel.from_clip_pretrained(tmp_path)


def test_an_hcmi_model_is_sent_to_from_pretrained(tmp_path):
    tiny_model().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=rf"{tmp_path} is an HCMI model already: .*from_pretrained"):
        HCMIModel.from_clip_pretrained(tmp_path)


MISFITS = {
    "missing \\['vision_model.encoder.layers.1": lambda weights: [
        weights.pop(name) for name in list(weights) if name.startswith("vision_model.encoder.layers.1.")
    ],
    "missing \\['logit_scale'\\]": lambda weights: weights.pop("logit_scale"),
    "missing \\['text_projection.weight'\\]": lambda weights: weights.pop("text_projection.weight"),
    "unexpected \\['text_model.encoder.layers.2": lambda weights: weights.update(
        {"text_model.encoder.layers.2.layer_norm1.weight": torch.ones(32)}
    ),
    "another shape \\['visual_projection.weight'\\]": lambda weights: weights.update(
        {"visual_projection.weight": torch.ones(20, 32)}
    ),
    "another shape \\['vision_model.embeddings.position_embedding.weight'\\]": lambda weights: weights.update(
        {"vision_model.embeddings.position_embedding.weight": torch.ones(17, 32)}
    ),
}


@pytest.mark.parametrize("message", MISFITS)
def test_a_checkpoint_that_does_not_fit_is_refused_by_the_weights_names(checkpoint, message):
    change_weights(checkpoint, MISFITS[message])
    verbosity = logging.get_verbosity()
    with pytest.raises(ValueError, match=f"{checkpoint} does not fit.*{message}"):
        HCMIModel.from_clip_pretrained(checkpoint)
    assert logging.get_verbosity() == verbosity


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match=f"{tmp_path}: .*, not None"):
        HCMIModel.from_clip_pretrained(tmp_path)


def test_converting_says_nothing_about_the_new_weights(checkpoint, caplog, capfd):
    logging.enable_propagation()
    try:
        HCMIModel.from_clip_pretrained(checkpoint)
    finally:
        logging.disable_propagation()
    assert "MISSING" not in caplog.text + capfd.readouterr().err
