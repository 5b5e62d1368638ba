"""Two processes against one. Each of them is this file, run as a script with its rank and a folder."""

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from tiny_hcmi import random_texts, random_videos, tiny_model
from torch.nn.parallel import DistributedDataParallel

from hcmi.modeling_hcmi import LEVELS, hcmi_objective
from hcmi.train.loop import PairEncoder
from hcmi.train.negatives import gather, gather_features

PROCESSES = 2
# The first process's texts are shorter than the second's, and so are its videos.
WORDS = (4, 6, 3, 9, 5, 11)
FRAMES = (3, 2, 3, 5, 1, 4)
VIDEO_IDS = (0, 1, 2, 0, 3, 2)


def whole_batch():
    """6 pairs; videos 0 and 2 occur in both halves."""
    mask = torch.arange(max(FRAMES)) < torch.tensor(FRAMES)[:, None]
    batch = random_texts(WORDS) | {"video_ids": torch.tensor(VIDEO_IDS)}
    for seed, prefix in ((1, ""), (2, "second_")):
        batch[f"{prefix}pixel_values_videos"] = random_videos(len(FRAMES), max(FRAMES), seed)
        batch[f"{prefix}video_mask"] = mask
    return batch


def share(batch, rank):
    """The rows of one process, without padding that none of them needs."""
    rows = slice(rank * 3, rank * 3 + 3)
    own = {name: tensor[rows] for name, tensor in batch.items()}
    for name in own:
        if name in ("input_ids", "attention_mask"):
            own[name] = own[name][:, : max(WORDS[rows])]
        elif name != "video_ids":
            own[name] = own[name][:, : max(FRAMES[rows])]
    return own


def objective_of(encoder, config, batch):
    text, video, second, scale = encoder(batch)
    return hcmi_objective(
        gather_features(text), gather_features(video), scale, config, gather(second), gather(batch["video_ids"])
    )


def training_model():
    return tiny_model(marginal_margin=1.0).train()


def work(rank, folder):
    """What one of the processes does; the tests look at what it writes."""
    # A process that waits for another in vain shall say so.
    meeting = {"init_method": f"file://{folder}/meeting", "timeout": timedelta(seconds=60)}
    dist.init_process_group("gloo", rank=rank, world_size=PROCESSES, **meeting)
    model = training_model()
    encoder = DistributedDataParallel(PairEncoder(model), find_unused_parameters=True)
    batch = share(whole_batch(), rank)
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
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each of the two processes found."""
    folder = tmp_path_factory.mktemp("processes")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, __file__, str(rank), str(folder)],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(PROCESSES)
    ]  # fmt: skip
    try:
        for process in started:
            output, _ = process.communicate(timeout=120)
            assert process.returncode == 0, output
    finally:
        for process in started:
            process.kill()
            process.wait()
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(PROCESSES)]


@pytest.fixture(scope="module")
def alone():
    """The whole batch in this process: features of both sides, objective, gradients."""
    model = training_model()
    encoder = PairEncoder(model)
    objective = objective_of(encoder, model.config, whole_batch())
    objective.loss.backward()
    with torch.no_grad():
        text, video, *_ = encoder(whole_batch())
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
    work(int(sys.argv[1]), Path(sys.argv[2]))
