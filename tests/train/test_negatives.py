"""Two processes against one. Each of them is this file, run as a script."""

import sys

import pytest
import torch
import torch.distributed as dist
from pairs import half, pair_batch, training_model
from processes import PROCESSES, join, leave, run_two
from torch.nn.parallel import DistributedDataParallel

from hcmi.modeling_hcmi import LEVELS, hcmi_objective
from hcmi.train.negatives import gather, gather_features
from hcmi.train.step import PairEncoder


def objective_of(encoder, config, batch):
    text, video, second, scale = encoder(batch)
    return hcmi_objective(
        gather_features(text), gather_features(video), scale, config, gather(second), gather(batch["video_ids"])
    )


def work(folder):
    """What one of the processes does; the tests look at what it finds."""
    rank = join(folder)
    model = training_model()
    encoder = DistributedDataParallel(PairEncoder(model), find_unused_parameters=True)
    batch = half(pair_batch(), rank)
    with torch.no_grad():
        text, video, *_ = encoder.module(batch)
    gathered = [{name: side[name] for name in side.retrieval_fields} for side in map(gather_features, (text, video))]
    objective = objective_of(encoder, model.config, batch)
    objective.loss.backward()

    rows = torch.full((2, 1), float(rank + 1), requires_grad=True)
    others = torch.full((2, 1), float(rank + 1), requires_grad=True)
    ((gather(rows) + gather(others)) * torch.arange(1.0, 5.0)[:, None]).sum().backward()
    found = {
        "gathered": gathered,
        "widths": (text.words.shape[1], video.frames.shape[1]),
        "parts": dict(objective),
        "gradients": {name: parameter.grad for name, parameter in model.named_parameters()},
        "values": gather(rows).detach(),
        "row_gradients": (rows.grad, others.grad),
        "flags": gather(torch.tensor([rank == 0, True])),
        "numbers": gather(torch.tensor([rank, 7])),
    }
    leave(folder, found)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each of the two processes found."""
    return run_two(__file__, tmp_path_factory.mktemp("processes"))


@pytest.fixture(scope="module")
def alone():
    """The whole batch in this process: features of both sides, objective, gradients."""
    model = training_model()
    encoder = PairEncoder(model)
    objective = objective_of(encoder, model.config, pair_batch())
    objective.loss.backward()
    with torch.no_grad():
        text, video, *_ = encoder(pair_batch())
    return text, video, objective, {name: parameter.grad for name, parameter in model.named_parameters()}


def test_the_batch_puts_everything_to_the_test(found, alone):
    _, _, objective, gradients = alone
    assert found[0]["widths"] == (6, 3) and found[1]["widths"] == (11, 5)
    assert 0 < objective.mined_pairs < 6 * 6 - 10
    assert all(getattr(objective, part) > 0.01 for part in (*LEVELS, "marginal"))
    moved = [name for name, gradient in gradients.items() if gradient is not None and gradient.abs().max() > 1e-4]
    assert len(moved) > 0.8 * len(gradients)


def test_features_are_those_of_one_process(found, alone):
    masks = {"words": "word_mask", "phrases": "phrase_mask", "frames": "frame_mask", "clips": "clip_mask"}
    masks |= {"clip_frame_weights": "clip_mask", "phrase_word_weights": "phrase_mask"}
    for process in found:
        for side, expected in zip(process["gathered"], alone[:2], strict=True):
            for name in expected.retrieval_fields:
                assert side[name].dtype == expected[name].dtype and side[name].shape == expected[name].shape
                real = expected[masks[name]] if name in masks else slice(None)
                torch.testing.assert_close(side[name][real], expected[name][real], atol=1e-6, rtol=1e-6, msg=name)


def test_the_objective_is_that_of_one_process(found, alone):
    for process in found:
        assert process["parts"].keys() == dict(alone[2]).keys()
        for part, value in process["parts"].items():
            torch.testing.assert_close(value, alone[2][part], atol=1e-6, rtol=1e-6, msg=part)


def test_gradients_are_those_of_one_process(found, alone):
    for process in found:
        for name, expected in alone[3].items():
            gradient = process["gradients"][name]
            if expected is None:
                assert gradient is None or not gradient.any()
            else:
                largest = max(1.0, float(expected.abs().max()))
                torch.testing.assert_close(gradient, expected, atol=1e-6 * largest, rtol=0, msg=name)


def test_rows_come_in_the_order_of_the_processes(found):
    for process in found:
        assert process["values"].flatten().tolist() == [1.0, 1.0, 2.0, 2.0]
        assert process["numbers"].tolist() == [0, 7, 1, 7] and process["numbers"].dtype == torch.long
        assert process["flags"].tolist() == [True, True, False, True] and process["flags"].dtype == torch.bool


def test_gradients_sum_over_the_processes_once_for_every_use(found):
    for rank, process in enumerate(found):
        for gradient in process["row_gradients"]:
            assert gradient.flatten().tolist() == [PROCESSES * (2 * rank + 1), PROCESSES * (2 * rank + 2)]


@pytest.mark.parametrize("initialised", [False, True])
def test_one_process_gathers_nothing(alone, tmp_path, initialised):
    if initialised:
        dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        tensor = torch.ones(2, requires_grad=True)
        assert gather(tensor) is tensor
        assert gather_features(alone[0]) is alone[0]
    finally:
        if initialised:
            dist.destroy_process_group()


if __name__ == "__main__":
    work(sys.argv[1])
