from types import SimpleNamespace

import pytest
from tiny_backbones import KINDS, save_backbone
from tiny_hcmi import random_texts, random_videos, tiny_model
from training_runs import differing, steps, weights

from hcmi.modeling_hcmi import HCMIModel
from hcmi.train.attention import evaluation_attention, set_attention


def implementations(model):
    """Of every part that computes attention."""
    return {module.config._attn_implementation for module in model.modules() if hasattr(module, "config")}


@pytest.mark.parametrize("kind", KINDS)
def test_all_of_a_model_computes_in_the_same_way(tmp_path, kind):
    save_backbone(kind, tmp_path)
    model = HCMIModel.from_clip_pretrained(str(tmp_path))
    for implementation in ("eager", "sdpa"):
        set_attention(model, implementation)
        assert implementations(model) == {implementation}


def test_what_is_not_possible_is_told():
    with pytest.raises(ValueError, match=r"attention flash_attention_2 is not possible here: .*[Ff]lash"):
        set_attention(tiny_model(), "flash_attention_2")


@pytest.mark.parametrize("training", ["eager", "flash_attention_2", "kernels-community/flash-attn2"])
def test_flash_attention_is_for_training_alone(training):
    made, changes = [], ["sdpa", training] if "flash" in training else []
    config = SimpleNamespace(_attn_implementation=training)
    model = SimpleNamespace(config=config, set_attn_implementation=made.append)
    with evaluation_attention(model):
        assert made == changes[:1]
    assert made == changes


def test_a_run_with_either_has_the_same_losses(run, models, tmp_path):
    eager, sdpa = (run(tmp_path / name, epochs=1, attention=name) for name in ("eager", "sdpa"))
    assert [implementations(model) for model, _ in models] == [{"eager"}, {"sdpa"}]
    for expected, record in zip(steps(sdpa), steps(eager), strict=True):
        assert record == pytest.approx(expected, rel=1e-5)


def test_a_run_may_go_on_with_the_other(run, tmp_path):
    first = run(tmp_path, epochs=1, attention="eager")
    before = weights(first.model)
    assert not differing(weights(run(tmp_path, epochs=1, attention="sdpa").model), before)


def test_a_saved_model_does_not_tell(tmp_path):
    model = tiny_model()
    set_attention(model, "eager")
    model.save_pretrained(tmp_path)
    again = HCMIModel.from_pretrained(tmp_path)
    assert implementations(again) == {"sdpa"}
    inputs = random_texts() | {"pixel_values_videos": random_videos()}
    expected, found = (m.eval()(**inputs).logits_per_text for m in (model, again))
    assert found.detach().numpy() == pytest.approx(expected.detach().numpy(), abs=1e-5)


def test_flash_attention_without_16_bit_numbers_is_refused_at_once(run, tmp_path):
    with pytest.raises(ValueError, match="flash_attention_3 needs mixed_precision bf16 or fp16"):
        run(tmp_path / "run", attention="flash_attention_3")
    assert not (tmp_path / "run").exists()
