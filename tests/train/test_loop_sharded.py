"""A run with its weights divided between two processes (FSDP 2). Each of them is this file, run as a script.

Accelerate divides weights among GPUs alone, so that the processes make it take the CPU for several of them.
"""

import json
import os
import shutil
import sys
import warnings
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from accelerate import state
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.state import AcceleratorState, GradientState, PartialState
from accelerate.utils import DistributedType
from processes import join, run_two
from training_runs import checkpoints, differing, records, steps, weights

import hcmi.train
from hcmi.train import loop
from hcmi.train.arguments import TrainingArguments
from hcmi.train.results import load_result

pytestmark = pytest.mark.usefixtures("no_picture")

CONFIG = Path(hcmi.train.__file__).parent / "configs" / "accelerate" / "fsdp.yaml"


def divide_weights():
    """As `accelerate launch` with our file does it on several GPUs."""
    for name, value in load_config_from_file(str(CONFIG)).fsdp_config.items():
        # The launcher hands this one over by another name.
        os.environ[name.upper().replace("TRANSFORMER_LAYER_CLS", "TRANSFORMER_CLS")] = str(value)
    os.environ["ACCELERATE_USE_FSDP"] = "true"
    real = AcceleratorState.__init__

    def init(self, *args, **options):
        PartialState(cpu=True)
        if not AcceleratorState._shared_state:
            PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
        real(self, *args, **options)

    state.AcceleratorState.__init__ = init


def work(folder):
    """What each process does: the run, and once more what comes after its first checkpoint."""
    warnings.simplefilter("ignore", UserWarning)  # of features that are views
    loop.draw_curves = lambda *_: None
    divide_weights()
    fields = json.loads((folder / "fields.json").read_text())
    for part in ("whole", "again"):
        (folder / part).mkdir(exist_ok=True)
        rank = join(str(folder / part))
        training = loop._Training(TrainingArguments(**fields | {"output": str(folder / part / "run")}))
        weight = training.model.vision_model.encoder.layers[0].mlp.fc1.weight
        found = (training.accelerator.distributed_type, tuple(weight.shape), tuple(weight.to_local().shape))
        training.run_epochs()
        training.test()
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
        if rank == 0 and part == "whole":
            output = shutil.copytree(folder / "whole" / "run", folder / "again" / "run")
            for name in ("checkpoints/step-00000008", "model"):
                shutil.rmtree(output / name)
    torch.save(found, folder / f"{rank}.pt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("processes")


@pytest.fixture(scope="module")
def found(folder, arguments_for):
    """What each process found; what they have left is in the folder."""
    (folder / "fields.json").write_text(json.dumps(asdict(arguments_for(folder, chunk_size=2))))
    return run_two(__file__, folder)


def test_each_process_has_half_of_the_weights(found):
    assert [own[:2] for own in found] == [(DistributedType.FSDP, (48, 32))] * 2
    assert [own[2] for own in found] == [(24, 32)] * 2


def test_in_chunks_it_does_what_one_process_does_without(found, folder, run, tmp_path):
    alone = run(tmp_path)
    output = folder / "whole" / "run"
    for expected, record in zip(steps(alone), records(output / "history.jsonl", "step"), strict=True):
        assert record == pytest.approx(expected, rel=0, abs=1e-5)
    for name, weight in weights(alone.model).items():
        torch.testing.assert_close(weights(output / "model")[name], weight, rtol=1e-4, atol=1e-5)
    assert load_result(output / "result.json")["levels"] == alone.result["levels"]


def test_it_goes_on_from_a_checkpoint_with_the_same_numbers(found, folder):
    outputs = [folder / part / "run" for part in ("whole", "again")]
    whole, again = ([records(output / "history.jsonl", kind) for kind in ("step", "epoch")] for output in outputs)
    assert whole == again and len(whole[0]) == 2
    assert not differing(*(weights(output / "model") for output in outputs))
    assert checkpoints(outputs[0]) == checkpoints(outputs[1]) == ["step-00000004", "step-00000008"]


if __name__ == "__main__":
    work(Path(sys.argv[1]))
