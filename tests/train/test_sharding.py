"""Two processes with half of the weights each against one. Each of them is this file, run as a script."""

import os
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import FullyShardedDataParallelPlugin
from accelerate.utils.fsdp_utils import fsdp2_prepare_model
from pairs import half, pair_batch, training_model
from processes import PROCESSES, join, leave, run_two
from tiny_hcmi import random_texts, random_videos
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

import hcmi.train
from hcmi.modeling_hcmi import HCMIModel, hcmi_objective
from hcmi.train.negatives import gather, gather_features
from hcmi.train.sharding import make_shardable, whole
from hcmi.train.step import PairEncoder

STEPS = 3


def trained(encoder, config, batches):
    """Losses and gradient norms of some steps."""
    optimizer = torch.optim.SGD(encoder.parameters(), lr=1e-3)
    found = []
    for batch in batches:
        text, video, second, scale = encoder(batch)
        rows = gather(batch["video_ids"])
        objective = hcmi_objective(gather_features(text), gather_features(video), scale, config, gather(second), rows)
        optimizer.zero_grad()
        objective.loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimizer.step()
        found.append((objective.loss.detach(), norm.full_tensor() if isinstance(norm, DTensor) else norm))
    return torch.tensor(found)


def sharded(encoder):
    """As Accelerate shards with our configuration, which it does on GPUs only."""
    path = Path(hcmi.train.__file__).parent / "configs" / "accelerate" / "fsdp.yaml"
    for name, value in load_config_from_file(str(path)).fsdp_config.items():
        # The launcher hands this one over by another name.
        name = name.upper().replace("TRANSFORMER_LAYER_CLS", "TRANSFORMER_CLS")
        os.environ[name] = str(value)
    accelerator = SimpleNamespace(
        state=SimpleNamespace(fsdp_plugin=FullyShardedDataParallelPlugin()),
        mixed_precision="no",
        is_main_process=dist.get_rank() == 0,
        device=torch.device("cpu"),
        torch_device_mesh=init_device_mesh("cpu", (PROCESSES,), mesh_dim_names=("dp_shard",)),
        parallelism_config=SimpleNamespace(fsdp_dim_names=("dp_shard",)),
    )
    return fsdp2_prepare_model(accelerator, encoder)


def outputs(model):
    with torch.no_grad():
        return model.eval()(pixel_values_videos=random_videos(), **random_texts()).logits_per_text


def work(folder):
    """What one of the processes does; the tests look at what it finds."""
    warnings.simplefilter("ignore", UserWarning)  # of features that are views
    rank = join(folder)
    model = training_model()
    make_shardable(model)
    encoder = sharded(PairEncoder(model))
    found = {"steps": trained(encoder, model.config, [half(pair_batch(seed), rank) for seed in range(STEPS)])}
    layer = model.vision_model.encoder.layers[0].mlp.fc1.weight
    found["shares"] = (tuple(layer.shape), tuple(layer.to_local().shape), type(model.logit_scale).__name__)
    before = torch.random.get_rng_state()
    plain = whole(model)
    found |= {"random": torch.equal(before, torch.random.get_rng_state()), "training": plain.training}
    found |= {"weights": plain.state_dict(), "outputs": outputs(plain)}
    if rank == 0:
        plain.save_pretrained(f"{folder}/model")
    leave(folder, found)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("processes")


@pytest.fixture(scope="module")
def found(folder):
    """What each of the two processes found."""
    return run_two(__file__, folder)


@pytest.fixture(scope="module")
def alone():
    """The whole batches and the whole model in this process."""
    model = training_model()
    steps = trained(PairEncoder(model), model.config, [pair_batch(seed) for seed in range(STEPS)])
    return {"steps": steps, "weights": model.state_dict(), "outputs": outputs(model)}


def test_each_process_has_its_share(found):
    for own in found:
        assert own["shares"] == ((37, 32), own["shares"][1], "DTensor")
    assert sorted(own["shares"][1] for own in found) == [(18, 32), (19, 32)]


def test_losses_and_gradients_are_those_of_one_process(found, alone):
    for own in found:
        torch.testing.assert_close(own["steps"], alone["steps"], rtol=1e-5, atol=1e-6)


def test_the_whole_model_is_that_of_one_process(found, alone):
    for own in found:
        assert own["weights"].keys() == alone["weights"].keys() and own["training"] and own["random"]
        for name, weight in alone["weights"].items():
            torch.testing.assert_close(own["weights"][name], weight, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(own["outputs"], alone["outputs"], rtol=1e-4, atol=1e-5)


def test_what_is_saved_is_an_ordinary_model(found, folder):
    model = HCMIModel.from_pretrained(folder / "model")
    assert model.logit_scale.shape == ()
    torch.testing.assert_close(outputs(model), found[0]["outputs"])


def test_a_shardable_model_computes_the_same():
    model = training_model()
    expected = outputs(model)
    model.logit_scale.requires_grad_(False)
    make_shardable(model)
    assert model.logit_scale.shape == (1,) and not model.logit_scale.requires_grad
    torch.testing.assert_close(outputs(model), expected)


if __name__ == "__main__":
    work(sys.argv[1])
