"""Training steps on one process and on two. Each of the two is this file, run as a script."""

import sys
from unittest import mock

import pytest
import torch
from accelerate import Accelerator
from accelerators import new_accelerator
from pairs import VIDEO_IDS, half, pair_batch, training_model
from processes import join, leave, run_two

from hcmi.modeling_hcmi import LEVELS, hcmi_objective
from hcmi.train.step import NonFiniteLossError, PairEncoder, TrainingStep

BATCHES = 3
# With two batches an update, the third is an incomplete group, which the end of the epoch closes.
WAYS = {
    "plain": {},
    "chunks": {"chunk_size": 2},
    "accumulated": {"accumulation_steps": 2},
    "both": {"chunk_size": 2, "accumulation_steps": 2},
}
# Whether a pair is mined may hang on the last digits.
KNOWN = {"label_denoising": False}
UNUSED = {"loss_weights": {"frame_word": 1.0, "clip_phrase": 0.0, "video_sentence": 1.0}}


def training_step(accelerator, model, **settings):
    """A step, and a list that gets the gradients of each update as the optimizer meets them."""
    seen = []
    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=0.02)
    optimizer.register_step_pre_hook(
        lambda *_: seen.append({n: None if p.grad is None else p.grad.clone() for n, p in model.named_parameters()})
    )
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    prepared = accelerator.prepare(PairEncoder(model), optimizer, schedule)
    settings = {"max_gradient_norm": torch.inf} | settings
    return TrainingStep(accelerator, *prepared, model.config, **settings), seen


def train(batches, fields=None, precision="no", **settings):
    """Objectives of the steps, gradients of the updates, and the weights at the end."""
    model = training_model(**(fields or {}))
    step, seen = training_step(new_accelerator(mixed_precision=precision), model, **settings)
    objectives = [dict(step(batch, last=n == len(batches))) for n, batch in enumerate(batches, 1)]
    assert not step.between_updates
    return {"objectives": objectives, "gradients": seen, "weights": model.state_dict()}


def poisoned(batch):
    batch["pixel_values_videos"][0, 0, 0, 0, 0] = torch.nan
    return batch


def refused(accelerator, batch, **settings):
    """The error that a step raises, and the names of the weights that it has changed."""
    model = training_model()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    step, _ = training_step(accelerator, model, **settings)
    with pytest.raises(NonFiniteLossError) as refusal:
        step(batch)
    assert not step.between_updates and all(parameter.grad is None for parameter in model.parameters())
    changed = [name for name, weight in model.state_dict().items() if not torch.equal(weight, before[name])]
    return str(refusal.value), refusal.value.rows, changed


def work(folder):
    """What one of the processes does; the tests look at what it finds."""
    rank = join(folder)
    batches = [half(pair_batch(seed), rank) for seed in range(BATCHES)]
    found = {name: train(batches, **settings) for name, settings in WAYS.items()}
    found["unused"] = train(batches, fields=UNUSED, chunk_size=2)
    found["bf16"] = train(batches, fields=KNOWN, precision="bf16", **WAYS["both"])
    batch = half(pair_batch(), rank)
    # One process's videos are enough to stop both, before and after the update.
    if rank == 1:
        poisoned(batch)
    found["refused"] = [refused(new_accelerator(), batch, chunk_size=chunk_size) for chunk_size in (0, 2)]
    leave(folder, found)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What each of the two processes found."""
    return run_two(__file__, tmp_path_factory.mktemp("processes"))


@pytest.fixture(scope="module")
def batches():
    return [pair_batch(seed) for seed in range(BATCHES)]


@pytest.fixture(scope="module")
def alone(batches):
    """One process, for every way."""
    found = {name: train(batches, **settings) for name, settings in WAYS.items()}
    found["unused"] = train(batches, fields=UNUSED)
    found["exact"] = train(batches, fields=KNOWN, **WAYS["both"])
    return found | {"bf16": train(batches, fields=KNOWN, precision="bf16", **WAYS["both"])}


def assert_same(found, expected, tolerance):
    """
    Two trainings: losses to 1e-6; the first update's gradient to so much of its norm, those of the next, of weights
    that differ by their rounding, to 1e-5.
    """
    for own, other in zip(found["objectives"], expected["objectives"], strict=True):
        assert own.keys() == other.keys()
        for part, value in other.items():
            torch.testing.assert_close(own[part], value, atol=1e-6, rtol=1e-6, msg=part)
    for number, (own, other) in enumerate(zip(found["gradients"], expected["gradients"], strict=True)):
        assert all(value is not None or own[name] is None or not own[name].any() for name, value in other.items())
        names = [name for name, value in other.items() if value is not None]
        gradient = torch.cat([other[name].flatten() for name in names])
        error = torch.cat([own[name].flatten() for name in names]) - gradient
        assert error.norm() <= (1e-5 if number else tolerance) * gradient.norm()
    for name, value in expected["weights"].items():
        torch.testing.assert_close(found["weights"][name], value, atol=1e-6, rtol=1e-5, msg=name)


def test_a_step_is_the_gradient_of_the_objective(batches):
    model = training_model()
    objectives = train(batches[:1])
    text, video, second, scale = PairEncoder(model)(batches[0])
    expected = hcmi_objective(text, video, scale, model.config, second, batches[0]["video_ids"])
    expected.loss.backward()
    (found,) = objectives["objectives"]
    assert found.keys() == {"loss", *LEVELS, "marginal", "mined_pairs"}
    assert all(torch.equal(found[part], expected[part].detach()) for part in found)
    assert not any(value.requires_grad for value in found.values())
    for name, parameter in model.named_parameters():
        assert torch.equal(objectives["gradients"][0][name], parameter.grad), name


def test_an_update_takes_the_mean_of_its_batches(batches):
    found = train(batches, accumulation_steps=2)
    singles = [train([batch])["gradients"][0] for batch in batches[:2]]
    assert len(found["gradients"]) == 2
    for name, gradient in found["gradients"][0].items():
        torch.testing.assert_close(gradient, (singles[0][name] + singles[1][name]) / 2, atol=1e-6, rtol=1e-5)
    # The incomplete group: what a single batch gives, here with the weights of the first update.
    model = training_model()
    step, _ = training_step(new_accelerator(), model, accumulation_steps=2)
    for batch in batches[:2]:
        step(batch)
    complete, seen_alone = training_step(new_accelerator(), model)
    complete(batches[2])
    for name, gradient in seen_alone[0].items():
        torch.testing.assert_close(found["gradients"][1][name], gradient, atol=1e-6, rtol=1e-5)


def test_weights_and_rates_move_with_updates_only(batches):
    model = training_model()
    step, seen = training_step(new_accelerator(), model, accumulation_steps=3)
    moves, rates = [], []
    for number in range(4):
        before = model.visual_projection.weight.clone()
        step(batches[number % BATCHES])
        moves.append((not torch.equal(before, model.visual_projection.weight), step.between_updates))
        rates.append(step.schedule.scheduler.last_epoch)
    assert moves == [(False, True), (False, True), (True, False), (False, True)] and len(seen) == 1
    assert rates == [0, 0, 1, 1]


def test_long_gradients_are_scaled_down(batches):
    model = training_model()
    step, seen = training_step(new_accelerator(), model, max_gradient_norm=0.5)
    step(batches[0])
    norm = torch.stack([gradient.norm() for gradient in seen[0].values()]).norm()
    assert norm.item() == pytest.approx(0.5, rel=1e-4)


@pytest.mark.parametrize(("divided", "whole"), [("chunks", "plain"), ("both", "accumulated")])
def test_chunks_change_nothing(alone, divided, whole):
    assert_same(alone[divided], alone[whole], tolerance=1e-5)


@pytest.mark.parametrize("way", WAYS)
def test_two_processes_do_what_one_does(two, alone, way):
    for process in two:
        assert_same(process[way], alone[way], tolerance=1e-6)


def test_two_processes_agree_exactly(two):
    for way in (*WAYS, "unused", "bf16"):
        for name, weight in two[0][way]["weights"].items():
            assert torch.equal(two[1][way]["weights"][name], weight), (way, name)


def test_two_processes_do_not_wait_for_what_has_no_gradient(two, alone):
    assert any(value is None for value in alone["unused"]["gradients"][0].values())
    for process in two:
        assert_same(process["unused"], alone["unused"], tolerance=1e-6)


def losses(training):
    return [objective["loss"].item() for objective in training["objectives"]]


def test_two_processes_in_bf16(two, alone):
    assert losses(alone["bf16"]) == pytest.approx(losses(alone["exact"]), rel=0.02)
    assert losses(alone["bf16"]) != losses(alone["exact"])
    for process in two:
        assert losses(process["bf16"]) == pytest.approx(losses(alone["bf16"]), rel=0.02)


def test_one_process_stops_both(two):
    for process in two:
        assert process["refused"] == [("the loss is nan", VIDEO_IDS, [])] * 2


@pytest.mark.parametrize("settings", [{}, {"chunk_size": 4}, {"accumulation_steps": 2}])
def test_a_loss_that_is_no_number_is_refused(settings):
    assert refused(new_accelerator(), poisoned(pair_batch()), **settings) == ("the loss is nan", VIDEO_IDS, [])


def test_a_gradient_that_is_no_number_is_refused(batches):
    model = training_model()
    before = model.visual_projection.weight.clone()
    step, seen = training_step(new_accelerator(), model, accumulation_steps=2)
    hook = model.logit_scale.register_hook(lambda gradient: gradient * torch.inf)
    step(batches[0])
    with pytest.raises(NonFiniteLossError, match="norm of the gradient is") as refusal:
        step(batches[1])
    assert refusal.value.rows == VIDEO_IDS * 2
    assert torch.equal(model.visual_projection.weight, before) and not seen
    hook.remove()
    # Nothing of it is left for who goes on.
    step(batches[0], last=True)
    expected = train(batches[:1])["gradients"][0]
    for name, gradient in seen[0].items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-6, rtol=1e-5)


def scaled(monkeypatch, model, **settings):
    """A step that scales gradients, as for float16, but in float32."""
    accelerator = new_accelerator()
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    made = training_step(accelerator, model, **settings)
    accelerator.native_amp = True
    monkeypatch.setattr(Accelerator, "mixed_precision", "fp16")
    return made


@pytest.mark.parametrize("settings", [{}, {"chunk_size": 4}, {"chunk_size": 4, "accumulation_steps": 2}])
def test_scaled_gradients_are_unscaled_before_the_update(monkeypatch, batches, settings):
    expected = train(batches, **settings)
    model = training_model()
    step, seen = scaled(monkeypatch, model, **settings)
    objectives = [dict(step(batch, last=n == BATCHES)) for n, batch in enumerate(batches, 1)]
    found = {"objectives": objectives, "gradients": seen, "weights": model.state_dict()}
    assert_same(found, expected, tolerance=1e-6)


def test_a_scaler_leaves_out_an_update_that_overflows(monkeypatch, batches):
    model = training_model()
    step, seen = scaled(monkeypatch, model)
    model.logit_scale.register_hook(lambda gradient: gradient * torch.inf)
    before = model.visual_projection.weight.clone()
    step(batches[0])
    assert not seen and torch.equal(model.visual_projection.weight, before)
    assert step.schedule.scheduler.last_epoch == 0 and step.accelerator.scaler.get_scale() == 512.0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["no", "bf16", "fp16"])
@pytest.mark.parametrize("way", ["chunks", "both"])
def test_chunks_on_a_gpu(batches, precision, way):
    found = []
    for chunk_size in (0, 2):
        model = training_model()
        accelerator = new_accelerator(cpu=False, mixed_precision=precision)
        step, _ = training_step(accelerator, model, **WAYS[way] | {"chunk_size": chunk_size})
        on_gpu = [{name: tensor.to(accelerator.device) for name, tensor in batch.items()} for batch in batches]
        found.append([step(batch, last=n == BATCHES).loss.item() for n, batch in enumerate(on_gpu, 1)])
    assert found[1] == pytest.approx(found[0], rel=1e-4 if precision == "no" else 2e-2)


def test_accumulation_of_the_launcher_is_refused(monkeypatch):
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    with pytest.raises(ValueError, match="accumulate 4 batches; set accumulation_steps"):
        training_step(new_accelerator(), training_model())


@pytest.mark.parametrize("settings", [{"chunk_size": 2}, {"accumulation_steps": 2}])
def test_deepspeed_is_refused_what_it_does_by_itself(settings):
    accelerator = mock.Mock(gradient_accumulation_steps=1, distributed_type="DEEPSPEED")
    with pytest.raises(ValueError, match="do not work with DeepSpeed"):
        TrainingStep(accelerator, None, None, None, None, **settings)


if __name__ == "__main__":
    work(sys.argv[1])
