"""Initial weights, saving and loading."""

import re
from pathlib import Path
from unittest import mock

import pytest
import torch
from huggingface_hub import HfApi
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_hcmi import (
    TEXT_CONFIG,
    VISION_CONFIG,
    random_texts,
    random_videos,
    tiny_clip,
    tiny_config,
    tiny_model,
    unlike,
)
from transformers import AutoConfig, AutoModel, CLIPConfig, CLIPModel

import hcmi  # noqa: F401  (registers the model with the Auto classes)
from hcmi.modeling_hcmi import HCMIConfig, HCMIModel

NEW = ("video_hierarchy.", "text_hierarchy.")
WIDE = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4, "num_hidden_layers": 2}


def wide_pair(factor: float = 1.0) -> tuple[CLIPModel, HCMIModel]:
    """A fresh CLIP and a fresh HCMI with the same towers, wide enough to measure spreads."""
    text = TEXT_CONFIG | WIDE | {"vocab_size": 300, "initializer_factor": factor}
    vision = VISION_CONFIG | WIDE | {"initializer_factor": factor}
    clip_config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=64, initializer_factor=factor)
    return CLIPModel(clip_config), HCMIModel(HCMIConfig.from_clip_config(clip_config))


@pytest.mark.parametrize("factor", [1.0, 0.5])
@pytest.mark.parametrize("built", ["at once", "on meta"])
def test_fresh_towers_have_clips_own_spread(built, factor):
    torch.manual_seed(0)
    clip, model = wide_pair(factor)
    if built == "on meta":
        # The way of from_pretrained where the checkpoint lacks everything.
        model = HCMIModel.from_pretrained(None, config=model.config, state_dict={})
    own = dict(model.named_parameters())
    for name, wanted in clip.named_parameters():
        got = own[name]
        if wanted.numel() == 1 or wanted.std() == 0:
            assert torch.equal(got, wanted), name
        else:
            # The error of an estimated deviation is about 1 / sqrt(2 n) of it.
            tolerance = 5 / (2 * wanted.numel()) ** 0.5
            assert got.std().item() == pytest.approx(wanted.std().item(), rel=tolerance), name


def test_the_spread_of_the_new_layers():
    torch.manual_seed(0)
    model, factor = HCMIModel(tiny_config(projection_dim=64, aggregation_layers=2, initializer_factor=0.5)), 0.5
    width, depth = 64**-0.5, (2 * 2) ** -0.5
    spreads = {
        r"_aggregation.layers.\d.self_attn.[qkv]_proj.weight": factor * width * depth,
        r"_aggregation.layers.\d.self_attn.out_proj.weight": factor * width,
        r"mlp.fc1.weight": factor * (2 * 64) ** -0.5,
        r"mlp.fc2.weight": factor * width * depth,
        r"group_queries": factor,
        r"_weights.fc[12].weight": factor * width,
        r"hierarchy.position_embedding.weight": factor * 0.02,
    }
    zeros = r"pooling_attn.out_proj.weight|vector_projection.weight|bias"
    for name, parameter in model.named_parameters():
        if not name.startswith(NEW):
            continue
        if re.search(zeros, name):
            assert not parameter.any(), name
        elif "norm" in name:
            assert (parameter == 1).all(), name
        elif parameter.numel() > 500 and (wanted := [s for rule, s in spreads.items() if re.search(rule, name)]):
            assert parameter.std().item() == pytest.approx(wanted[0], rel=5 / (2 * parameter.numel()) ** 0.5), name


@torch.no_grad()
def test_a_fresh_model_is_mean_pooled_at_the_top_unless_a_residual_is_off():
    torch.manual_seed(0)
    model = HCMIModel(tiny_config()).eval()
    pixels, texts = random_videos(), random_texts()
    frames = model.visual_projection(model.vision_model(pixels.flatten(0, 1)).pooler_output).unflatten(0, (3, 5))
    torch.testing.assert_close(model.get_video_features(pixels).pooler_output, frames.mean(1))
    text = model.text_projection(model.text_model(**texts).pooler_output)
    torch.testing.assert_close(model.get_text_features(**texts).pooler_output, text)

    without = HCMIModel(tiny_config(video_residual=False, sentence_residual=False)).eval()
    assert without.get_video_features(pixels).pooler_output.abs().sum() > 0
    assert without.get_text_features(**texts).pooler_output.abs().sum() > 0


def test_groups_differ_from_the_start():
    torch.manual_seed(0)
    model = HCMIModel(tiny_config(num_clips=3)).eval()
    clips = model.get_video_features(random_videos(1, 12)).clip_frame_weights[0]
    assert unlike(clips[0], clips[1])
    assert unlike(clips[1], clips[2])


def test_seeds_decide_the_initial_weights():
    states = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        states.append(HCMIModel(tiny_config()).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert any(not torch.equal(states[0][name], states[2][name]) for name in states[0])


def save_without(model: HCMIModel, folder, dropped: str) -> dict[str, torch.Tensor]:
    model.save_pretrained(folder)
    path = folder / "model.safetensors"
    weights = {name: t for name, t in load_file(path).items() if not re.search(dropped, name)}
    save_file(weights, path, {"format": "pt"})
    return weights


def test_saving_and_loading_changes_nothing(tmp_path):
    model = tiny_model(num_clips=2, loss_weights={"frame_word": 1.0, "clip_phrase": 0.0, "video_sentence": 2.0})
    model.save_pretrained(tmp_path)
    # Beside the code that it needs where this package is not installed.
    assert {path.name for path in tmp_path.iterdir() if path.suffix != ".py"} == {"config.json", "model.safetensors"}
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert set(file.keys()) == set(model.state_dict())
        assert file.metadata() == {"format": "pt"}

    loaded, info = HCMIModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert not loaded.training
    before, after = dict(model.named_parameters()) | dict(model.named_buffers()), loaded.state_dict()
    assert set(after) == set(model.state_dict())
    after |= dict(loaded.named_buffers())
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]), name

    inputs = {**random_texts(), "pixel_values_videos": random_videos()}
    torch.testing.assert_close(loaded(**inputs).logits_per_text, model(**inputs).logits_per_text)


def test_shards_and_types(tmp_path):
    model = tiny_model()
    model.save_pretrained(tmp_path, max_shard_size="100KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    half = HCMIModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    for name, tensor in half.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name].to(torch.bfloat16)), name


def test_push_to_hub_uploads_what_from_pretrained_loads(tmp_path, monkeypatch):
    # The client's two calls are caught: nothing leaves this machine.
    def create_commit(self, repo_id, operations, **kwargs):
        for operation in operations:
            (tmp_path / operation.path_in_repo).write_bytes(Path(operation.path_or_fileobj).read_bytes())

    monkeypatch.setattr(HfApi, "create_repo", lambda self, repo_id, **kwargs: mock.Mock(repo_id=repo_id))
    monkeypatch.setattr(HfApi, "create_commit", create_commit)
    model = tiny_model()
    model.push_to_hub("somebody/hcmi")
    loaded = HCMIModel.from_pretrained(tmp_path)
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def test_the_auto_classes_know_the_model(tmp_path):
    model = tiny_model()
    model.save_pretrained(tmp_path)
    config, loaded = AutoConfig.from_pretrained(tmp_path), AutoModel.from_pretrained(tmp_path)
    assert type(config) is HCMIConfig
    assert type(loaded) is HCMIModel
    assert torch.equal(loaded.logit_scale, model.logit_scale)
    assert type(AutoModel.from_config(config)) is HCMIModel


def test_towers_alone_are_kept_and_the_hierarchy_is_initialised(tmp_path):
    kept = save_without(tiny_model(), tmp_path, "hierarchy")
    with torch.no_grad():
        torch.manual_seed(0)
        loaded, info = HCMIModel.from_pretrained(tmp_path, output_loading_info=True)
    assert {name for name in loaded.state_dict() if name.startswith(NEW)} == set(info["missing_keys"])
    for name, tensor in kept.items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    fresh = HCMIModel(tiny_config())
    for name, parameter in loaded.named_parameters():
        if name.startswith(NEW):
            assert parameter.isfinite().all(), name
            # Zero, one or spread as in a fresh model.
            assert parameter.any() == dict(fresh.named_parameters())[name].any(), name


@pytest.mark.parametrize("dropped", [
    r"video_hierarchy.group_aggregation.layers.0.self_attn.q_proj.weight",
    r"text_hierarchy.vector_aggregation.pooling_attn.(k|v)_proj",
    r"video_hierarchy.(position_embedding|group_weights.fc1)",
    r"text_hierarchy.group_aggregation.group_queries",
    r"vision_model.encoder.layers.1.self_attn.q_proj.weight",
    r"text_model.encoder.layers.0.mlp",
    r"visual_projection",
    r"text_projection|logit_scale",
    r"layer_?norm",
    r"vision_model.embeddings.class_embedding",
])  # fmt: skip
def test_a_missing_weight_is_initialised_and_its_neighbours_are_not_touched(tmp_path, dropped):
    # Neighbours are initialised by the same call, by the module that holds both. No weight is what it would become.
    model = tiny_model()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(2, 3)
    kept = save_without(model, tmp_path, dropped)
    assert len(kept) < len(model.state_dict())
    loaded, info = HCMIModel.from_pretrained(tmp_path, output_loading_info=True)
    own = loaded.state_dict()
    assert set(info["missing_keys"]) == own.keys() - kept.keys()
    for name, tensor in kept.items():
        assert torch.equal(own[name], tensor), name
    for name in info["missing_keys"]:
        assert own[name].isfinite().all(), name
        assert not torch.equal(own[name], model.state_dict()[name]), name


def test_every_tensor_is_initialised_when_built_without_memory():
    config = tiny_config(aggregation_layers=2)
    with torch.device("meta"):
        model = HCMIModel(config)
    model.to_empty(device="cpu")
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.fill_(7) if not tensor.is_floating_point() else tensor.fill_(torch.nan)
    for module in model.modules():
        module._is_hf_initialized = False
    model.init_weights()
    fresh = HCMIModel(config)
    for (name, tensor), (_, wanted) in zip(
        [*model.named_parameters(), *model.named_buffers()],
        [*fresh.named_parameters(), *fresh.named_buffers()],
        strict=True,
    ):
        assert tensor.isfinite().all(), name
        if "image_" in name or "position_ids" in name or name == "logit_scale":
            assert torch.equal(tensor, wanted), name


def test_the_normalisation_comes_from_the_configuration_not_from_the_weights(tmp_path):
    model = tiny_model(image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6])
    model.save_pretrained(tmp_path)
    assert not [name for name in load_file(tmp_path / "model.safetensors") if "image_" in name]
    loaded = HCMIModel.from_pretrained(tmp_path)
    assert loaded.image_mean.tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert loaded.image_std.tolist() == pytest.approx([0.4, 0.5, 0.6])


@pytest.mark.parametrize("load", [HCMIModel.from_pretrained, AutoModel.from_pretrained])
def test_a_checkpoint_without_all_weights_is_refused(tmp_path, load):
    model = tiny_model()
    kept = save_without(model, tmp_path, "text_hierarchy|visual_projection")
    lacking = sorted(set(model.state_dict()) - set(kept))
    told = rf"^{tmp_path} lacks {len(lacking)} weights of HCMIModel \(first: {lacking[0]}\). HCMIModel.from_clip_pretr"
    with pytest.raises(ValueError, match=told):
        load(tmp_path)


def save_bare_hierarchy(folder) -> None:
    tiny_model().save_pretrained(folder)
    (folder / "config.json").unlink()


@pytest.mark.parametrize(
    ("save", "what"),
    [
        (lambda folder: tiny_clip().save_pretrained(folder), "is a model of type 'clip', no HCMI"),
        (lambda folder: tiny_clip().vision_model.save_pretrained(folder), "is a model of type 'clip_vision_model', no"),
        (save_bare_hierarchy, "has no config.json, no HCMI"),
    ],
)
def test_what_is_no_hcmi_is_refused_with_the_way_out(tmp_path, save, what):
    save(tmp_path)
    for load in (HCMIModel.from_pretrained, HCMIConfig.from_pretrained):
        with pytest.raises(ValueError, match=f"{tmp_path} {what}.*from_clip_pretrained, or `hcmi convert`"):
            load(tmp_path)


def test_another_models_weights_are_refused_with_a_configuration_too(tmp_path):
    tiny_clip().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"{tmp_path} lacks .*from_clip_pretrained"):
        HCMIModel.from_pretrained(tmp_path, config=tiny_config())


def test_a_damaged_file_is_refused(tmp_path):
    tiny_model().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes((tmp_path / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(Exception, match=r"(?i)header|incomplete|deserializ"):
        HCMIModel.from_pretrained(tmp_path)


def test_a_size_that_does_not_fit_is_refused(tmp_path):
    tiny_model().save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match="mismatch"):
        HCMIModel.from_pretrained(tmp_path, max_frames=9)
