import json
import math

import pytest
from huggingface_hub.errors import StrictDataclassError
from tiny_hcmi import TEXT_CONFIG, VISION_CONFIG, tiny_config
from transformers import CLIPConfig, CLIPTextConfig, CLIPVisionConfig

from hcmi.modeling_hcmi import LEVELS, HCMIConfig

NAN, INFINITY = math.nan, math.inf
LEVEL_WEIGHTS = dict.fromkeys(LEVELS, 1.0)

IMPOSSIBLE = [
    *((name, value) for value in (0, -1, 1.5, "4") for name in (
        "projection_dim", "max_frames", "frames_per_clip", "num_clips", "words_per_phrase", "num_phrases",
        "aggregation_layers", "aggregation_heads", "aggregation_intermediate_size",
    )),
    ("aggregation_heads", 3),  # does not divide the width of 16
    ("num_clips", 13),  # more than max_frames = 12
    ("num_phrases", 25),  # more than the text tower's 24 positions
    ("aggregation_dropout", 1.0),
    ("aggregation_dropout", -0.1),
    ("aggregation_dropout", NAN),
    ("frame_residual", 1),
    ("video_residual", None),
    ("sentence_residual", "yes"),
    ("frame_word_interaction", "cosine"),
    ("clip_phrase_interaction", ""),
    *((name, value) for name in ("loss_weights", "inference_weights") for value in (
        {},
        {"frame_word": 1.0},
        LEVEL_WEIGHTS | {"sentence": 1.0},
        dict.fromkeys(LEVELS, 0.0),
        LEVEL_WEIGHTS | {"clip_phrase": -1.0},
        LEVEL_WEIGHTS | {"clip_phrase": NAN},
        LEVEL_WEIGHTS | {"clip_phrase": INFINITY},
        [1.0, 1.0, 1.0],
    )),
    ("label_denoising", "on"),
    *((name, value) for value in (-0.1, NAN, INFINITY, "0.2") for name in (
        "marginal_margin", "marginal_weight", "initializer_range", "initializer_factor",
    )),
    ("logit_scale_init_value", NAN),
    ("logit_scale_init_value", INFINITY),
    ("logit_scale_max", 0.0),
    ("logit_scale_max", -1.0),
    ("logit_scale_max", NAN),
    *((name, value) for name in ("image_mean", "image_std") for value in (
        [0.5, 0.5], [0.5] * 4, [], 0.5, [0.5, 0.5, NAN], [0.5, 0.5, INFINITY],
    )),
    ("image_std", [0.5, 0.5, 0.0]),
    ("image_std", [0.5, 0.5, -0.5]),
    ("text_config", 3),
    ("vision_config", "ViT-B/32"),
    ("text_config", CLIPVisionConfig()),
    ("vision_config", CLIPTextConfig()),
]  # fmt: skip


@pytest.mark.parametrize(("field", "value"), IMPOSSIBLE)
def test_impossible_values_are_refused_with_the_fields_name(field, value):
    with pytest.raises(StrictDataclassError, match=field):
        tiny_config(**{field: value})


@pytest.mark.parametrize(("tower", "field", "value"), [
    ("text_config", "num_attention_heads", 5),
    ("vision_config", "num_attention_heads", 5),
])  # fmt: skip
def test_an_impossible_tower_is_refused(tower, field, value):
    defaults = {"text_config": TEXT_CONFIG, "vision_config": VISION_CONFIG}[tower]
    with pytest.raises(StrictDataclassError, match="attention heads"):
        tiny_config(**{tower: defaults | {field: value}})


def test_a_wrong_type_is_refused_at_assignment_too():
    config = tiny_config()
    with pytest.raises(StrictDataclassError, match="projection_dim"):
        config.projection_dim = "wide"


def test_defaults_are_those_of_vit_b_32_and_of_the_method():
    config = HCMIConfig()
    assert isinstance(config.text_config, CLIPTextConfig)
    assert isinstance(config.vision_config, CLIPVisionConfig)
    assert (config.vision_config.patch_size, config.projection_dim) == (32, 512)
    assert (config.aggregation_heads, config.aggregation_intermediate_size) == (8, 2048)
    assert config.loss_weights == config.inference_weights == LEVEL_WEIGHTS
    assert (config.frames_per_clip, config.words_per_phrase) == (4, 4)
    assert config.label_denoising
    assert (config.marginal_margin, config.marginal_weight, config.logit_scale_max) == (0.2, 1.0, 100.0)


def test_two_configurations_do_not_share_their_defaults():
    first, second = HCMIConfig(), HCMIConfig()
    first.loss_weights["frame_word"] = 5.0
    first.image_mean[0] = 0.0
    assert second.loss_weights["frame_word"] == 1.0
    assert second.image_mean[0] != 0.0


def test_fields_survive_saving(tmp_path):
    fields = {
        "projection_dim": 24,
        "max_frames": 9,
        "num_clips": 2,
        "num_phrases": 3,
        "aggregation_layers": 2,
        "aggregation_heads": 3,
        "aggregation_intermediate_size": 40,
        "aggregation_dropout": 0.1,
        "frame_residual": False,
        "video_residual": False,
        "sentence_residual": False,
        "frame_word_interaction": "max_mean",
        "clip_phrase_interaction": "max_mean",
        "loss_weights": {"frame_word": 0.0, "clip_phrase": 2.0, "video_sentence": 1.0},
        "inference_weights": {"frame_word": 1.0, "clip_phrase": 0.0, "video_sentence": 0.5},
        "label_denoising": False,
        "marginal_margin": 0.3,
        "marginal_weight": 0.0,
        "logit_scale_init_value": 1.0,
        "logit_scale_max": 50.0,
        "image_mean": [0.1, 0.2, 0.3],
        "image_std": [0.4, 0.5, 0.6],
    }
    config = tiny_config(**fields)
    config.save_pretrained(tmp_path)
    loaded = HCMIConfig.from_pretrained(tmp_path)
    assert loaded.to_dict() == config.to_dict()
    assert {name: getattr(loaded, name) for name in fields} == fields
    assert loaded.text_config.vocab_size == TEXT_CONFIG["vocab_size"]
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "hcmi"


def test_impossible_values_in_a_file_are_refused(tmp_path):
    tiny_config().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"frames_per_clip": 0}))
    with pytest.raises(StrictDataclassError, match="frames_per_clip"):
        HCMIConfig.from_pretrained(tmp_path)


def test_a_clip_configuration_gives_towers_width_and_scale():
    clip = CLIPConfig(
        text_config=TEXT_CONFIG, vision_config=VISION_CONFIG, projection_dim=24, logit_scale_init_value=1.5,
        initializer_factor=0.5,
    )  # fmt: skip
    config = HCMIConfig.from_clip_config(clip, max_frames=7, video_residual=False)
    assert config.text_config.to_dict() == clip.text_config.to_dict()
    assert config.vision_config.to_dict() == clip.vision_config.to_dict()
    assert (config.projection_dim, config.logit_scale_init_value, config.initializer_factor) == (24, 1.5, 0.5)
    assert (config.max_frames, config.video_residual) == (7, False)
    config.text_config.vocab_size = 5
    assert clip.text_config.vocab_size == TEXT_CONFIG["vocab_size"]
