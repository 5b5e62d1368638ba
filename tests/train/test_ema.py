import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from tiny_hcmi import tiny_model
from torch import nn

from hcmi.train.ema import ExponentialAverage


def small(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    model[2].weight.requires_grad_(False)
    return model


def step(model, number):
    generator = torch.Generator().manual_seed(number)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator))


def weights(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.999])
def test_the_plain_formula(decay):
    model = small()
    average = ExponentialAverage(model, decay)
    expected = {name: tensor.double() for name, tensor in weights(model).items()}
    for number in range(20):
        step(model, number)
        average.update()
        expected = {name: decay * expected[name] + (1 - decay) * tensor for name, tensor in weights(model).items()}
    with average.applied():
        for name, tensor in weights(model).items():
            torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-5, atol=1e-5)


def test_the_trained_weights_come_back_exactly():
    model = tiny_model()
    average = ExponentialAverage(model, 0.9)
    step(model, 0)
    average.update()
    before = weights(model)
    with average.applied():
        assert not same(weights(model), before)
    assert same(weights(model), before)
    with pytest.raises(RuntimeError, match="disk full"), average.applied():
        raise RuntimeError("disk full")
    assert same(weights(model), before)


def test_only_trainable_weights_are_averaged():
    model = small()
    average = ExponentialAverage(model, 0.5)
    assert average.state_dict()["averages"].keys() == {"0.weight", "0.bias", "1.weight", "1.bias", "2.bias"}
    with torch.no_grad():
        model[2].weight.add_(1)
    frozen = model[2].weight.clone()
    with average.applied():
        assert torch.equal(model[2].weight, frozen)


def test_half_precision_weights_are_averaged_in_float32():
    model = nn.Linear(2, 2).bfloat16()
    nn.init.ones_(model.weight)
    average = ExponentialAverage(model, 0.999)
    nn.init.zeros_(model.weight)
    for _ in range(100):
        average.update()
    with average.applied():
        assert model.weight.dtype == torch.bfloat16
        torch.testing.assert_close(model.weight.float(), torch.full((2, 2), 0.999**100), rtol=1e-2, atol=0)


def test_accelerate_saves_and_resumes_it(tmp_path):
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    accelerator = Accelerator(cpu=True)

    def start(seed):
        model = small(seed)
        average = ExponentialAverage(model, 0.8)
        return model, average

    whole_model, whole = start(0)
    for number in range(4):
        step(whole_model, number)
        whole.update()

    model, average = start(0)
    for number in range(2):
        step(model, number)
        average.update()
    accelerator.register_for_checkpointing(average)
    accelerator.save_state(tmp_path / "state")
    saved = weights(model)
    accelerator._custom_objects.clear()

    model, average = start(1)
    accelerator.register_for_checkpointing(average)
    model.load_state_dict(saved)
    accelerator.load_state(tmp_path / "state")
    for number in (2, 3):
        step(model, number)
        average.update()
    assert same(average.state_dict()["averages"], whole.state_dict()["averages"])
    accelerator._custom_objects.clear()


def test_an_average_of_other_weights_is_refused():
    average = ExponentialAverage(small(), 0.5)
    other = small().requires_grad_(True)
    with pytest.raises(ValueError, match=r"of other weights \(1 differ, first: 2.weight\): resume with the same"):
        average.load_state_dict(ExponentialAverage(other, 0.5).state_dict())


@pytest.mark.parametrize("decay", [0, 1, 1.5, float("nan")])
def test_impossible_decays_are_refused(decay):
    with pytest.raises(ValueError, match="the decay of the average must lie between 0 and 1"):
        ExponentialAverage(small(), decay)
