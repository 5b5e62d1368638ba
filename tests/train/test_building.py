import json

import pytest
import torch
from tiny_hcmi import tiny_model
from torch import nn
from transformers import CLIPModel
from transformers.modeling_layers import GradientCheckpointingLayer

from hcmi.modeling_hcmi import LEVELS, HCMIModel
from hcmi.processing import HCMIProcessor
from hcmi.train.building import build, parameter_groups
from hcmi.train.checkpoints import save_model

CAPTIONS = ["a small red ring slides left", "then two blue squares grow"]


@pytest.fixture
def arguments(arguments_for, tmp_path):
    """Fields to arguments; `model` takes the place of the tiny configuration."""

    def make(**fields):
        return arguments_for(tmp_path, **({"model_config": None} if "model" in fields else {}) | fields)

    return make


def test_from_scratch_the_vocabulary_is_the_captions(arguments):
    model, processor = build(arguments(vocabulary=150, frames_per_video=5), CAPTIONS)
    text = model.config.text_config
    tokenizer = processor.tokenizer
    assert text.vocab_size == len(tokenizer) <= 150
    assert (text.bos_token_id, text.eos_token_id) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert text.pad_token_id == tokenizer.pad_token_id
    assert tokenizer.model_max_length == text.max_position_embeddings == 40
    assert tokenizer.unk_token_id not in tokenizer(CAPTIONS[0])["input_ids"]
    assert len(tokenizer("ring")["input_ids"]) == 3
    assert processor.frames_per_video == 5
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_from_scratch_the_frames_have_the_models_size_and_scale(arguments):
    overrides = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.2, 0.2, 0.2]}
    model, processor = build(arguments(config_overrides=overrides), CAPTIONS)
    frames = torch.randint(0, 256, (3, 3, 20, 30), dtype=torch.uint8)
    batch = processor(videos=[frames], num_frames=3, return_tensors="pt")
    raw = processor(videos=[frames], num_frames=3, uint8=True, return_tensors="pt")
    assert batch["pixel_values_videos"].shape == (1, 3, 3, 16, 16)
    expected = (raw["pixel_values_videos"] / 255 - 0.5) / 0.2
    torch.testing.assert_close(batch["pixel_values_videos"], expected, atol=1e-5, rtol=0)
    with torch.no_grad():
        first, second = (model.get_video_features(b["pixel_values_videos"]).pooler_output for b in (batch, raw))
    torch.testing.assert_close(first, second, atol=1e-5, rtol=1e-5)


def test_the_seed_decides_the_initial_weights(arguments):
    def state(seed):
        torch.manual_seed(seed)
        return build(arguments(), CAPTIONS)[0].state_dict()

    first, again, other = state(0), state(0), state(1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["text_projection.weight"], other["text_projection.weight"])


def test_from_clip_the_towers_are_loaded_and_every_level_counts(arguments, clip_folder):
    model, processor = build(arguments(model=str(clip_folder), frames_per_video=6), [])
    clip = CLIPModel.from_pretrained(clip_folder).state_dict()
    state = model.state_dict()
    assert all(torch.equal(state[name], weight) for name, weight in clip.items())
    assert model.config.inference_weights == dict.fromkeys(LEVELS, 1.0)
    assert (model.config.image_mean, model.config.image_std) == ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    assert list(processor.image_processor.image_mean) == [0.1, 0.2, 0.3]
    assert processor.frames_per_video == 6
    assert processor.tokenizer("a ring")["input_ids"][-1] == model.config.text_config.eos_token_id


def test_from_clip_overrides_win(arguments, clip_folder):
    weights = {"frame_word": 2.0, "clip_phrase": 0.0, "video_sentence": 1.0}
    overrides = {"inference_weights": weights, "num_clips": 2, "label_denoising": False}
    model, _ = build(arguments(model=str(clip_folder), config_overrides=overrides), [])
    assert model.config.inference_weights == weights
    assert (model.config.num_clips, model.config.label_denoising) == (2, False)


def test_from_hcmi_everything_is_loaded(arguments, processor, tmp_path):
    save_model(tiny_model(seed=4), processor, tmp_path / "model")
    overrides = {"marginal_weight": 0.5, "inference_weights": dict.fromkeys(LEVELS, 2.0)}
    chosen = arguments(model=str(tmp_path / "model"), config_overrides=overrides, frames_per_video=7)
    model, loaded = build(chosen, [])
    before, after = tiny_model(seed=4).state_dict(), model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert model.config.marginal_weight == 0.5 and model.config.inference_weights["clip_phrase"] == 2.0
    assert (loaded.frames_per_video, processor.frames_per_video) == (7, 4)


SENTENCES_ALONE = {"frame_word": 0.0, "clip_phrase": 0.0, "video_sentence": 1.0}


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({}, dict.fromkeys(LEVELS, 1.0)),
        ({"inference_weights": SENTENCES_ALONE}, SENTENCES_ALONE),
        ({"loss_weights": SENTENCES_ALONE}, SENTENCES_ALONE),
    ],
)
def test_every_level_of_a_saved_conversion_counts_once_it_is_trained(
    arguments, clip_folder, processor, tmp_path, overrides, expected
):
    converted = HCMIModel.from_clip_pretrained(clip_folder)
    assert converted.config.inference_weights == SENTENCES_ALONE
    save_model(converted, processor, tmp_path / "model")
    model, _ = build(arguments(model=str(tmp_path / "model"), config_overrides=overrides), [])
    assert model.config.inference_weights == expected


def test_a_model_in_half_precision_is_trained_in_full(arguments, processor, tmp_path):
    save_model(tiny_model().bfloat16(), processor, tmp_path / "model")
    model, _ = build(arguments(model=str(tmp_path / "model")), [])
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("start", ["scratch", "clip", "hcmi"])
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"label_denoisin": False}, "config_overrides: HCMIConfig has no field label_denoisin"),
        ({"marginal_margin": -1.0}, "marginal_margin"),
        ({"inference_weights": {"frame_word": 1.0}}, "inference_weights"),
        ({"label_denoising": "no"}, "label_denoising"),
    ],
)
def test_impossible_overrides_are_refused_with_the_field(
    arguments, clip_folder, processor, tmp_path, start, overrides, message
):
    save_model(tiny_model(), processor, tmp_path / "model")
    model = {"scratch": {}, "clip": {"model": str(clip_folder)}, "hcmi": {"model": str(tmp_path / "model")}}[start]
    with pytest.raises(ValueError, match=message):
        build(arguments(**model, config_overrides=overrides), CAPTIONS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[1]", "has to hold the fields"),
        ('{"projection": 32}', "HCMIConfig has no field projection"),
        ('{"projection_dim": 0}', "projection_dim"),
    ],
)
def test_an_impossible_configuration_file_is_named(arguments, tmp_path, content, message):
    (tmp_path / "bad.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        build(arguments(model_config=str(tmp_path / "bad.json")), CAPTIONS)


def test_missing_files_and_models_are_named(arguments, tmp_path):
    with pytest.raises(ValueError, match=r"none\.json: cannot be read"):
        build(arguments(model_config=str(tmp_path / "none.json")), CAPTIONS)
    with pytest.raises((ValueError, OSError), match="nowhere"):
        build(arguments(model=str(tmp_path / "nowhere")), [])


def test_more_frames_than_the_model_takes_are_refused(arguments):
    with pytest.raises(ValueError, match="frames_per_video is 9, but the model takes 8"):
        build(arguments(frames_per_video=9, candidate_frames=0, frame_store="none"), CAPTIONS)


@pytest.mark.parametrize("freeze", [[], ["towers"], ["hierarchy"], ["towers", "hierarchy"]])
def test_frozen_parts_want_no_gradient(arguments, freeze):
    model, _ = build(arguments(freeze=freeze), CAPTIONS)
    for name, parameter in model.named_parameters():
        part = "hierarchy" if name.split(".")[0] in ("video_hierarchy", "text_hierarchy") else "towers"
        assert parameter.requires_grad == (part not in freeze), name


def test_two_learning_rates_and_no_decay_for_biases_norms_and_scalars(arguments):
    chosen = arguments(learning_rate=1e-3, tower_learning_rate=1e-5, weight_decay=0.1)
    model, _ = build(chosen, CAPTIONS)
    settings = {}
    for group in parameter_groups(model, chosen):
        for parameter in group["params"]:
            assert parameter not in settings
            settings[parameter] = (group["lr"], group["weight_decay"])
    assert len(settings) == len(list(model.parameters()))
    norms = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.LayerNorm)}
    assert norms
    for name, parameter in model.named_parameters():
        rate = 1e-3 if name.split(".")[0] in ("video_hierarchy", "text_hierarchy") else 1e-5
        bare = name in norms or name.endswith("bias") or name == "logit_scale" or name.endswith("class_embedding")
        assert settings[parameter] == (rate, 0.0 if bare else 0.1), name


def test_frozen_parts_are_in_no_group(arguments):
    chosen = arguments(freeze=["towers"])
    model, _ = build(chosen, CAPTIONS)
    grouped = [parameter for group in parameter_groups(model, chosen) for parameter in group["params"]]
    assert grouped and all(parameter.requires_grad for parameter in grouped)
    nothing = arguments(freeze=["towers", "hierarchy"])
    with pytest.raises(ValueError, match="nothing is left to train: freeze = towers, hierarchy"):
        parameter_groups(build(nothing, CAPTIONS)[0], nothing)


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable:FutureWarning")
def test_gradient_checkpointing_reaches_every_layer(arguments):
    for wanted in (True, False):
        model, _ = build(arguments(gradient_checkpointing=wanted), CAPTIONS)
        layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
        assert len(layers) >= 6 and all(layer.gradient_checkpointing == wanted for layer in layers)


def test_a_saved_configuration_builds_the_same_architecture(arguments, tmp_path):
    model, processor = build(arguments(config_overrides={"num_clips": 2}), CAPTIONS)
    save_model(model, processor, tmp_path / "model")
    again, _ = build(arguments(model_config=str(tmp_path / "model" / "config.json")), CAPTIONS)
    assert json.loads(model.config.to_json_string()) == json.loads(again.config.to_json_string())
    assert isinstance(again, HCMIModel) and HCMIProcessor.from_pretrained(tmp_path / "model").frames_per_video == 4
