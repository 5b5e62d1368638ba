"""HCMI around every kind of dual encoder: until it is trained, it is that encoder with its frames averaged."""

import json

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from tiny_backbones import KINDS, WORDS, save_backbone, tiny_backbone, tiny_backbone_tokenizer
from tiny_hcmi import TEXT_CONFIG, VISION_CONFIG, random_videos, tiny_config, unlike
from torch.nn.functional import normalize
from transformers import (
    AutoTokenizer,
    CLIPConfig,
    CLIPModel,
    Siglip2Config,
    Siglip2Model,
    SiglipTextModel,
    SiglipVisionModel,
    logging,
)

from hcmi.modeling_hcmi import LEVELS, HCMIConfig, HCMIModel
from hcmi.modeling_hcmi.backbones_hcmi import BACKBONES

SENTENCES = [
    "a red ring", "a blue square slides then grows", "ring", "a ring then a square", "blue blue red grows slides a",
    "square then red ring", "then", "a red square",
]  # fmt: skip
PIXELS = random_videos(10, 6)
MASK = torch.arange(6) < torch.tensor([6, 3, 1, 6, 5, 2, 6, 4, 6, 6])[:, None]
SIGLIPS = ("siglip", "siglip 2")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("backbones")
    return {kind: (save_backbone(kind, folder / kind), folder / kind) for kind in KINDS}


def as_its_authors_would(kind: str, folder) -> dict[str, torch.Tensor]:
    """The sentences as the dual encoder itself wants them: SigLIP's without a mask, padded to the full length."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if kind in SIGLIPS:
        return dict(tokenizer(SENTENCES, padding="max_length", max_length=24, return_tensors="pt"))
    return dict(tokenizer(SENTENCES, padding=True, truncation=True, return_tensors="pt"))


def as_ours(kind: str) -> dict[str, torch.Tensor]:
    """The sentences padded to the longest, with a mask."""
    options = {"padding": True, "truncation": True, "max_length": 24, "return_attention_mask": True}
    return dict(tiny_backbone_tokenizer(kind)(SENTENCES, return_tensors="pt", **options))


def fields_of(config: HCMIConfig) -> dict:
    return {name: value for name, value in config.to_dict().items() if name not in ("_name_or_path", "auto_map")}


@torch.no_grad()
def mean_pooled(encoder, texts, pixels, mask) -> torch.Tensor:
    means = [
        encoder.get_image_features(video[real]).pooler_output.mean(0) for video, real in zip(pixels, mask, strict=True)
    ]
    sentences = encoder.get_text_features(**texts).pooler_output
    return normalize(sentences, dim=-1) @ normalize(torch.stack(means), dim=-1).T


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_untrained_it_ranks_exactly_as_the_mean_pooled_encoder(checkpoints, kind):
    encoder, folder = checkpoints[kind]
    wanted = mean_pooled(encoder, as_its_authors_would(kind, folder), PIXELS, MASK)
    assert unlike(wanted, wanted.mean().expand_as(wanted))
    model, texts = HCMIModel.from_clip_pretrained(folder), as_ours(kind)
    scores = model.score(model.get_text_features(**texts), model.get_video_features(PIXELS, MASK))
    torch.testing.assert_close(scores.combined, wanted, atol=1e-5, rtol=0)
    for dim in (0, 1):
        assert torch.equal(scores.combined.argsort(dim), wanted.argsort(dim))


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_its_logits_are_the_encoders_own(checkpoints, kind):
    encoder, folder = checkpoints[kind]
    model = HCMIModel.from_clip_pretrained(folder)
    images = PIXELS[:4, 0]
    wanted = encoder(**as_its_authors_would(kind, folder), pixel_values=images).logits_per_text
    logits = model(**as_ours(kind), pixel_values_videos=images[:, None]).logits_per_text
    torch.testing.assert_close(logits, wanted, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_is_taken_over_and_the_rest_is_the_hierarchy(checkpoints, kind):
    encoder, folder = checkpoints[kind]
    own = HCMIModel.from_clip_pretrained(folder).state_dict()
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(own[name], tensor), name
    new = {name.split(".")[0] for name in own.keys() - encoder.state_dict().keys()}
    assert new == {"video_hierarchy", "text_hierarchy"}


def test_every_weight_of_laions_vit_h_14_has_its_place():
    layer = {"num_attention_heads": 16, "hidden_act": "gelu", "projection_dim": 1024}
    text = layer | {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24}
    vision = layer | {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "patch_size": 14}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=1024)
    with torch.device("meta"):
        encoder, model = CLIPModel(config), HCMIModel(HCMIConfig.from_clip_config(config))
    assert encoder.num_parameters() == 986_109_441  # as published
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    for name, tensor in encoder.state_dict().items():
        assert shapes[name] == tensor.shape, name


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_saving_and_loading_changes_nothing(checkpoints, tmp_path, kind):
    model = HCMIModel.from_clip_pretrained(checkpoints[kind][1])
    model.save_pretrained(tmp_path)
    loaded, info = HCMIModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert fields_of(loaded.config) == fields_of(model.config)
    first, second = (m(**as_ours(kind), pixel_values_videos=PIXELS[:2]).logits_per_text for m in (model, loaded))
    torch.testing.assert_close(first, second)


@torch.no_grad()
@pytest.mark.parametrize("kind", SIGLIPS)
def test_siglips_words_are_its_real_tokens_through_its_own_head(checkpoints, kind):
    encoder, folder = checkpoints[kind]
    model, texts = HCMIModel.from_clip_pretrained(folder), as_ours(kind)
    features = model.get_text_features(**texts)
    full = as_its_authors_would(kind, folder)["input_ids"]
    states = encoder.text_model(full).last_hidden_state
    width = texts["input_ids"].shape[1]
    torch.testing.assert_close(features.words, encoder.text_model.head(states)[:, :width])
    torch.testing.assert_close(features.last_hidden_state, states[:, :width])
    assert torch.equal(features.word_mask, texts["attention_mask"].bool())
    # Neither a width nor a missing mask changes anything: a text ends with the first end of text.
    for alone in (model.get_text_features(full), model.get_text_features(texts["input_ids"])):
        assert torch.equal(alone.word_mask[:, :width], features.word_mask)
        assert not alone.word_mask[:, width:].any()
        torch.testing.assert_close(alone.pooler_output, features.pooler_output)
        torch.testing.assert_close(alone.phrases[:, : features.phrases.shape[1]], features.phrases)


@pytest.mark.parametrize(("kind", "ids"), [("siglip", (1, 1)), ("siglip 2", (0, 1))])
def test_siglips_padding_is_its_tokenizers(checkpoints, kind, ids):
    config = HCMIModel.from_clip_pretrained(checkpoints[kind][1]).config
    assert (config.text_config.pad_token_id, config.text_config.eos_token_id) == ids
    assert (config.backbone, config.text_pooling) == ("siglip", "last_token")
    assert config.image_mean == config.image_std == [0.5, 0.5, 0.5]


def test_siglips_scale_is_not_cut_to_clips_limit(checkpoints):
    _, folder = checkpoints["siglip"]
    model = HCMIModel.from_clip_pretrained(folder)
    assert model.scale().item() == pytest.approx(116.7, abs=0.1)
    assert model.scale().dim() == 0
    limited = HCMIModel.from_clip_pretrained(folder, config_overrides={"logit_scale_max": 50.0})
    assert limited.scale().item() == 50.0


def test_without_a_tokenizer_the_configurations_padding_is_taken_and_told(tmp_path, caplog):
    tiny_backbone("siglip").save_pretrained(tmp_path)
    logging.enable_propagation()
    try:
        config = HCMIModel.from_clip_pretrained(tmp_path).config
    finally:
        logging.disable_propagation()
    assert config.text_config.pad_token_id == 1
    assert f"{tmp_path} has no tokenizer" in caplog.text


def test_around_siglip_everything_learns(checkpoints):
    even = {"inference_weights": dict.fromkeys(LEVELS, 1.0)}
    model = HCMIModel.from_clip_pretrained(checkpoints["siglip"][1], config_overrides=even)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    texts = as_ours("siglip")
    model(**texts, pixel_values_videos=PIXELS[:8], video_mask=MASK[:8], return_loss=True).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_fresh_siglip_towers_have_siglips_own_spread():
    text = TEXT_CONFIG | {"hidden_size": 128, "vocab_size": 300}
    vision = VISION_CONFIG | {"hidden_size": 128}
    config = HCMIConfig(backbone="siglip", text_config=text, vision_config=vision, projection_dim=128)
    torch.manual_seed(0)
    model, own = HCMIModel(config), dict(SiglipTextModel(config.text_config).named_parameters())
    own |= dict(SiglipVisionModel(config.vision_config).named_parameters())
    for tower in (model.text_model, model.vision_model):
        for name, parameter in tower.named_parameters():
            if parameter.numel() > 500:
                assert parameter.std().item() == pytest.approx(own[name].std().item(), rel=0.2), name


def test_the_towers_can_be_had_back(checkpoints, tmp_path):
    encoder, folder = checkpoints["siglip"]
    HCMIModel.from_clip_pretrained(folder).save_pretrained(tmp_path)
    for tower, own in ((SiglipVisionModel, encoder.vision_model), (SiglipTextModel, encoder.text_model)):
        loaded, info = tower.from_pretrained(tmp_path, output_loading_info=True)
        assert not info["missing_keys"]
        for name, tensor in own.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], tensor), name


def test_folders_from_before_there_were_backbones_load_as_clip(tmp_path):
    tiny_config().save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    for name in ("backbone", "text_pooling"):
        del saved[name]
    for side in ("text_config", "vision_config"):
        saved[side].pop("model_type")
    (tmp_path / "config.json").write_text(json.dumps(saved))
    assert fields_of(HCMIConfig.from_pretrained(tmp_path)) == fields_of(tiny_config())


def test_siglip_2_in_its_naflex_variant_is_refused(tmp_path):
    text = {name: value for name, value in TEXT_CONFIG.items() if not name.endswith("token_id")}
    vision = {name: value for name, value in VISION_CONFIG.items() if name != "image_size"} | {"num_patches": 4}
    Siglip2Model(Siglip2Config(text_config=text, vision_config=vision)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=rf"{tmp_path}: .*'siglip2'.* NaFlex .*google/siglip2-base-patch16-224"):
        HCMIModel.from_clip_pretrained(tmp_path)


SIGLIP = {"backbone": "siglip", "projection_dim": 32}


@pytest.mark.parametrize(("field", "fields"), [
    ("backbone", {"backbone": "siglip2"}),
    ("backbone", {"backbone": 3}),
    ("text_config", {"backbone": "siglip", "text_config": tiny_config().text_config}),
    ("vision_config", {"vision_config": {"model_type": "siglip_vision_model"}}),
    ("text_pooling", {"text_pooling": "last_token"}),
    ("text_pooling", SIGLIP | {"text_pooling": "end_of_text"}),
    ("projection_dim", {"backbone": "siglip", "projection_dim": 16}),
    ("projection_dim", SIGLIP | {"text_config": TEXT_CONFIG | {"projection_size": 16}}),
    ("vision_config", SIGLIP | {"vision_config": VISION_CONFIG | {"vision_use_head": False}}),
])  # fmt: skip
def test_impossible_backbones_are_refused_with_the_fields_name(field, fields):
    with pytest.raises(StrictDataclassError, match=f"`{field}`|'{field}'"):
        tiny_config(**fields)


def test_defaults_of_every_backbone_make_a_configuration():
    for backbone in BACKBONES:
        config = HCMIConfig(backbone=backbone, projection_dim=768)
        assert config.text_config.model_type == f"{backbone}_text_model"
        assert config.vision_config.model_type == f"{backbone}_vision_model"
    assert set(" ".join(SENTENCES).split()) <= set(WORDS)
