import pytest
import torch
from training_runs import differing, steps, weights
from transformers import CLIPModel

from hcmi.modeling_hcmi import LEVELS, HCMIModel

HIERARCHY = ("video_hierarchy.", "text_hierarchy.")


def test_training_starts_from_a_trained_model(run, models, tmp_path):
    first = run(tmp_path / "first", epochs=1)
    outcome = run(tmp_path / "second", model=str(first.model), model_config=None, epochs=1)
    assert not differing(models[1][1], weights(first.model))
    assert differing(weights(outcome.model), weights(first.model))


def test_label_denoising_off_takes_one_view(run, batches, tmp_path):
    outcome = run(tmp_path, epochs=1, config_overrides={"label_denoising": False})
    assert not any(second for _, second in batches)
    assert all(record["mined_pairs"] == 0 for record in steps(outcome))
    assert not HCMIModel.from_pretrained(outcome.model).config.label_denoising


@pytest.mark.parametrize(("start", "expected"), [(0.0, [True] * 3), (0.5, [False, False, True])])
def test_label_denoising_begins_when_it_should(run, batches, tmp_path, start, expected):
    outcome = run(tmp_path, epochs=3, batch_size=32, denoising_start=start)
    assert [second for _, second in batches] == expected
    assert [record["mined_pairs"] > 0 for record in steps(outcome)] == expected


def test_parts_that_weigh_nothing_are_left_out(run, tmp_path):
    levels = {"frame_word": 1.0, "clip_phrase": 0.0, "video_sentence": 0.0}
    overrides = {"loss_weights": levels, "inference_weights": levels, "marginal_weight": 0.0}
    outcome = run(tmp_path, epochs=1, config_overrides=overrides)
    assert all(record["loss"] == pytest.approx(record["frame_word"], rel=1e-6) for record in steps(outcome))
    assert all(set(record) == {"step", "loss", "frame_word", "mined_pairs", "learning_rate"}
               for record in steps(outcome))  # fmt: skip
    measured = outcome.result["levels"]
    assert measured["combined"]["text_to_video"] == measured["frame_word"]["text_to_video"]


@pytest.mark.parametrize(("part", "frozen"), [("towers", False), ("hierarchy", True)])
def test_frozen_parts_stay_bit_for_bit(run, models, tmp_path, part, frozen):
    outcome = run(tmp_path, epochs=1, freeze=[part])
    changed = differing(weights(outcome.model), models[0][1])
    assert changed and all(name.startswith(HIERARCHY) != frozen for name in changed)


def test_each_part_has_its_own_rate(run, models, tmp_path):
    outcome = run(tmp_path, epochs=1, tower_learning_rate=0.0)
    changed = differing(weights(outcome.model), models[0][1])
    assert changed and all(name.startswith(HIERARCHY) for name in changed)


def test_bf16_trains_weights_that_stay_float32(run, tmp_path):
    full, half = (run(tmp_path / name, epochs=1, mixed_precision=name) for name in ("no", "bf16"))
    assert steps(half)[0]["loss"] == pytest.approx(steps(full)[0]["loss"], rel=0.05)
    assert steps(half) != steps(full)
    assert {tensor.dtype for tensor in weights(half.model).values()} == {torch.float32}
    assert half.result["dtype"] == "float32"


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable:FutureWarning")
def test_gradient_checkpointing_changes_nothing_but_memory(run, tmp_path):
    plain, spared = (run(tmp_path / str(on), epochs=1, gradient_checkpointing=on) for on in (False, True))
    for expected, record in zip(steps(plain), steps(spared), strict=True):
        assert record == pytest.approx(expected, rel=1e-5)


def test_a_clip_checkpoint_becomes_a_model_of_all_levels(run, models, clip_folder, tmp_path):
    outcome = run(tmp_path, epochs=1, model=str(clip_folder), model_config=None)
    clip = CLIPModel.from_pretrained(clip_folder).state_dict()
    assert all(torch.equal(models[0][1][name], weight) for name, weight in clip.items())
    model = HCMIModel.from_pretrained(outcome.model)
    assert model.config.inference_weights == outcome.result["inference_weights"] == dict.fromkeys(LEVELS, 1.0)
    assert differing(model.state_dict(), models[0][1])
