import subprocess
import sys

import pytest
import torch
from tiny_hcmi import random_texts, random_videos, tiny_model, unlike

from hcmi.modeling_hcmi import HCMIModel
from hcmi.train.ema import ExponentialAverage
from hcmi.train.lora import add_lora, is_adapter, merged

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "out_proj")


def logits(model):
    with torch.no_grad():
        return model(pixel_values_videos=random_videos(), **random_texts()).logits_per_text


def loss(model):
    return model(pixel_values_videos=random_videos(), **random_texts(), return_loss=True).loss


def trained(model, steps=3, rate=0.02):
    """Steps on one batch, so that adapters and hierarchy have moved."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(model).backward()
        optimizer.step()
    return model


@pytest.fixture
def adapted():
    pytest.importorskip("peft", reason="peft is not installed")
    return add_lora(tiny_model(), rank=2)


def test_adapters_sit_on_the_towers_attention_and_begin_as_nothing(adapted):
    assert torch.equal(logits(adapted), logits(tiny_model()))
    places = {name.partition(".lora_")[0] for name, _ in adapted.named_parameters() if is_adapter(name)}
    assert places == {
        f"{tower}.encoder.layers.{layer}.self_attn.{projection}"
        for tower in ("text_model", "vision_model")
        for layer in range(2)
        for projection in PROJECTIONS
    }
    shapes = {tuple(p.shape) for name, p in adapted.named_parameters() if is_adapter(name)}
    assert shapes == {(2, 32), (32, 2)}


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable:FutureWarning")
@pytest.mark.parametrize("checkpointing", [False, True])
def test_only_adapters_and_hierarchy_get_gradients(adapted, checkpointing):
    if checkpointing:
        adapted.gradient_checkpointing_enable()
    before = {name: parameter.detach().clone() for name, parameter in adapted.named_parameters()}
    trained(adapted.train())
    moved = {name for name, parameter in adapted.named_parameters() if not torch.equal(parameter, before[name])}
    wanted = {name for name in before if is_adapter(name) or name.startswith(("video_hierarchy.", "text_hierarchy."))}
    assert moved == wanted == {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert all(parameter.grad is None for name, parameter in adapted.named_parameters() if name not in wanted)


def test_a_frozen_hierarchy_stays_frozen():
    pytest.importorskip("peft", reason="peft is not installed")
    model = tiny_model()
    model.video_hierarchy.requires_grad_(False)
    add_lora(model, rank=1)
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert names and not any(name.startswith("video_hierarchy.") for name in names)
    assert any(name.startswith("text_hierarchy.") for name in names)


def test_merged_gives_the_same_outputs_and_leaves_the_model_alone(adapted):
    trained(adapted)
    expected, before = logits(adapted), {name: t.clone() for name, t in adapted.state_dict().items()}
    assert unlike(expected, logits(tiny_model()))
    plain = merged(adapted)
    assert type(plain) is HCMIModel and plain.state_dict().keys() == tiny_model().state_dict().keys()
    torch.testing.assert_close(logits(plain), expected, rtol=1e-5, atol=1e-5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in adapted.state_dict().items())
    assert torch.equal(logits(adapted), expected)
    assert plain.text_projection.weight is adapted.text_projection.weight
    trained(adapted, steps=1)
    assert unlike(logits(adapted), expected)


def test_an_average_is_merged_too(adapted):
    average = ExponentialAverage(adapted, 0.5)
    trained(adapted)
    average.update()
    with average.applied():
        plain, expected = merged(adapted), logits(adapted)
        torch.testing.assert_close(logits(plain), expected, rtol=1e-5, atol=1e-5)
    assert unlike(logits(adapted), expected)


def test_a_merged_model_loads_without_peft(adapted, tmp_path):
    expected = logits(trained(adapted))
    merged(adapted).save_pretrained(tmp_path / "model")
    torch.save(expected, tmp_path / "expected.pt")
    program = (
        "import sys; sys.modules['peft'] = None; sys.path.insert(0, sys.argv[2])\n"
        "import torch; from hcmi.modeling_hcmi import HCMIModel; from tiny_hcmi import random_texts, random_videos\n"
        "model, loading = HCMIModel.from_pretrained(sys.argv[1] + '/model', output_loading_info=True)\n"
        "assert not loading['missing_keys'] and not loading['unexpected_keys'], loading\n"
        "with torch.no_grad():\n"
        "    found = model.eval()(pixel_values_videos=random_videos(), **random_texts()).logits_per_text\n"
        "torch.testing.assert_close(found, torch.load(sys.argv[1] + '/expected.pt'), rtol=1e-5, atol=1e-5)\n"
    )
    support = next(path for path in sys.path if path.endswith("support"))
    subprocess.run([sys.executable, "-c", program, str(tmp_path), support], check=True, timeout=120)


def test_a_model_without_adapters_is_merged_already():
    model = tiny_model()
    assert merged(model) is model


def test_alpha_scales_the_adapters():
    pytest.importorskip("peft", reason="peft is not installed")
    for alpha, scale in ((None, 2.0), (3, 0.75)):
        layer = add_lora(tiny_model(), 4, alpha).text_model.encoder.layers[0].self_attn.q_proj
        assert layer.scaling == {"default": scale}


def test_impossible_adapters_are_refused(adapted):
    with pytest.raises(ValueError, match="the rank of LoRA's adapters must be at least 1, not 0"):
        add_lora(tiny_model(), 0)
    with pytest.raises(ValueError, match="the model has adapters already"):
        add_lora(adapted, 2)


def test_without_peft_the_way_out_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ValueError, match=r'LoRA needs the package peft: pip install "hcmi\[lora\]"'):
        add_lora(tiny_model(), 2)
