"""The same features however they are computed: attention implementation, checkpointing, precision, compiler, device."""

import pytest
import torch
from tiny_hcmi import random_texts, random_videos, tiny_config, tiny_model
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import is_flash_attn_2_available

from hcmi.modeling_hcmi import HCMIModel, HCMITextFeatures, HCMIVideoFeatures
from hcmi.modeling_hcmi.interaction_hcmi import blockwise_similarity

MASK = torch.arange(6) < torch.tensor([[6], [3], [1]])


def features_of(model: HCMIModel) -> tuple[HCMIVideoFeatures, HCMITextFeatures]:
    dtype, device = model.dtype, model.device
    texts = {name: tensor.to(device) for name, tensor in random_texts().items()}
    videos = random_videos(3, 6).to(device, dtype)
    return model.get_video_features(videos, MASK.to(device)), model.get_text_features(**texts)


MASK_OF = {"frames": "frame_mask", "clips": "clip_mask", "words": "word_mask", "phrases": "phrase_mask"}


def assert_close(first, second, atol: float = 1e-5) -> None:
    """Both sides' features, padding left out."""
    for one, two in zip(first, second, strict=True):
        for name in one.retrieval_fields:
            got, wanted = one[name].cpu().double(), two[name].cpu().double()
            if name in MASK_OF:
                mask = two[MASK_OF[name]].cpu()
                got, wanted = got[mask], wanted[mask]
            torch.testing.assert_close(got, wanted, atol=atol, rtol=atol, msg=name)


@torch.no_grad()
def test_eager_and_sdpa_agree_and_reach_every_part():
    eager, sdpa = tiny_model(attn_implementation="eager"), tiny_model(attn_implementation="sdpa")
    for model, implementation in ((eager, "eager"), (sdpa, "sdpa")):
        for module in model.modules():
            if hasattr(module, "config"):
                assert module.config._attn_implementation == implementation
    assert_close(features_of(eager), features_of(sdpa))
    eager.set_attn_implementation("sdpa")
    assert torch.equal(features_of(eager)[0].frames, features_of(sdpa)[0].frames)


@torch.no_grad()
def test_flash_attention_gets_what_it_understands(monkeypatch):
    """The kernel needs a GPU; here a stand-in checks its inputs and computes the same by the plain formula."""
    seen = []

    def flash(module, query, key, value, attention_mask, scaling=None, dropout=0.0, is_causal=None, **kwargs):
        batch, _, tokens, _ = key.shape
        assert query.shape == key.shape == value.shape
        assert attention_mask is None or attention_mask.shape == (batch, tokens)
        seen.append((type(module).__name__, attention_mask is not None))
        logits = query @ key.transpose(-1, -2) * scaling
        if is_causal:
            logits = logits.masked_fill(torch.ones(tokens, tokens).triu(1).bool(), -1e9)
        if attention_mask is not None:
            logits = logits.masked_fill(~attention_mask.bool()[:, None, None], -1e9)
        return (logits.softmax(-1) @ value).transpose(1, 2), None

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, "flash_attention_2", flash)
    assert HCMIModel._supports_flash_attn
    model = tiny_model()
    for config in (model.config, model.config.text_config, model.config.vision_config):
        config._attn_implementation = "flash_attention_2"
    assert_close(features_of(model), features_of(tiny_model(attn_implementation="eager")))
    # Frames and words have padding; the vision tower has none.
    assert set(seen) == {("CLIPAttention", False), ("CLIPAttention", True), ("HCMIAttention", True)}


@pytest.mark.skipif(
    not (torch.cuda.is_available() and is_flash_attn_2_available()),
    reason="flash attention needs a CUDA device and the flash_attn package",
)
@torch.no_grad()
def test_flash_attention_agrees_with_eager():
    flash, eager = tiny_model(), tiny_model(attn_implementation="eager")
    flash = flash.to("cuda", torch.bfloat16)
    flash.set_attn_implementation("flash_attention_2")
    assert_close(features_of(flash), features_of(eager.to("cuda", torch.bfloat16)), atol=5e-2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@torch.no_grad()
def test_a_gpu_agrees_with_the_cpu():
    assert_close(features_of(tiny_model().to("cuda")), features_of(tiny_model()), atol=1e-4)


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable. is deprecated:FutureWarning")
@pytest.mark.parametrize("use_reentrant", [False, True])
def test_gradient_checkpointing_gives_the_same_gradients(use_reentrant):
    gradients = []
    for checkpointing in (False, True):
        model = tiny_model(aggregation_layers=2).train()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
            layers = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
            assert len(layers) == 2 * 2 + 4 * 2
            assert all(layer.gradient_checkpointing for layer in layers)
        output = model(**random_texts(), pixel_values_videos=random_videos(3, 6), video_mask=MASK, return_loss=True)
        output.loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], msg=name)


def test_everything_with_layers_can_be_checkpointed():
    for name, module in tiny_model().named_modules():
        if name.split(".")[-1].isdigit():
            assert isinstance(module, GradientCheckpointingLayer), name


@torch.no_grad()
@pytest.mark.parametrize(("dtype", "atol"), [(torch.bfloat16, 6e-2), (torch.float16, 1e-2)])
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_half_precision_is_near_float32(dtype, atol, implementation):
    full = tiny_model(attn_implementation=implementation)
    half = tiny_model(attn_implementation=implementation).to(dtype)
    wanted, got = features_of(full), features_of(half)
    for features in got:
        assert features.pooler_output.dtype == dtype
    assert_close(got, wanted, atol=atol)
    scores, exact = half.score(got[1], got[0]), full.score(wanted[1], wanted[0])
    torch.testing.assert_close(scores.to_tuple(), exact.to_tuple(), atol=atol, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_trains(dtype):
    model = tiny_model().to(dtype)
    pixels = random_videos(3, 6).to(dtype)
    output = model(**random_texts(), pixel_values_videos=pixels, video_mask=MASK, return_loss=True)
    assert output.loss.dtype == torch.float32
    output.loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), name


def test_mixed_precision_gives_nearly_the_loss_of_float32():
    model = tiny_model()
    inputs = {**random_texts(), "pixel_values_videos": random_videos(3, 6), "video_mask": MASK, "return_loss": True}
    wanted = model(**inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = model(**inputs)
        features = features_of(model)
    assert mixed.loss.dtype == torch.float32
    torch.testing.assert_close(mixed.loss, wanted.loss, atol=0.1, rtol=0.02)
    # The features are rounded, what is made of them is not.
    scores = blockwise_similarity(features[1], features[0], model.config.inference_weights)
    torch.testing.assert_close(mixed.similarity.to_tuple(), scores.to_tuple())


@torch.no_grad()
@pytest.mark.parametrize("masked", [True, False])
def test_both_feature_methods_compile_without_a_graph_break(masked):
    model, texts, pixels = tiny_model(), random_texts(), random_videos(3, 6)
    video = (pixels, MASK) if masked else (pixels,)
    text = texts.values() if masked else (texts["input_ids"],)
    # The compiler's front end, which decides about graph breaks; code generation would take a minute.
    video_features = torch.compile(model.get_video_features, fullgraph=True, backend="aot_eager")
    text_features = torch.compile(model.get_text_features, fullgraph=True, backend="aot_eager")
    wanted = model.get_video_features(*video), model.get_text_features(*text)
    assert_close((video_features(*video), text_features(*text)), wanted)


@torch.no_grad()
def test_the_model_works_on_the_meta_device():
    config = tiny_config()
    # For sdpa CLIP's text tower looks at the values of the mask, to leave it out where it is all true.
    config._attn_implementation = "eager"
    with torch.device("meta"):
        model = HCMIModel(config)
    assert {tensor.device.type for tensor in (*model.parameters(), *model.buffers())} == {"meta"}
    pixels = torch.empty(2, 5, 3, 16, 16, device="meta", dtype=torch.uint8)
    video = model.get_video_features(pixels, torch.ones(2, 5, device="meta"))
    text = model.get_text_features(torch.ones(4, 7, device="meta", dtype=torch.long))
    assert video.clips.shape == (2, 2, 16)
    assert text.phrases.shape == (4, 2, 16)
    assert model.score(text, video).combined.shape == (4, 2)


@torch.no_grad()
@pytest.mark.parametrize("device_map", ["cpu", "auto", {"": "cpu"}])
def test_device_maps(tmp_path, device_map):
    model = tiny_model()
    model.save_pretrained(tmp_path)
    loaded = HCMIModel.from_pretrained(tmp_path, device_map=device_map)
    assert_close(features_of(loaded), features_of(model), atol=1e-4)


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:The following device_map keys do not match:UserWarning")
def test_parts_can_be_offloaded(tmp_path):
    model = tiny_model()
    model.save_pretrained(tmp_path / "model")
    parts = [name for name, _ in (*model.named_children(), *model.named_parameters(), *model.named_buffers())]
    on_cpu = dict.fromkeys((name for name in parts if "." not in name), "cpu")
    device_map = on_cpu | {"vision_model": "disk", "video_hierarchy": "disk"}
    folders = {"pretrained_model_name_or_path": tmp_path / "model", "offload_folder": tmp_path / "offload"}
    loaded = HCMIModel.from_pretrained(**folders, device_map=device_map)
    assert next(loaded.video_hierarchy.parameters()).device.type == "meta"
    assert_close(features_of(loaded), features_of(model))
