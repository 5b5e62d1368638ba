import re
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.commands.launch import launch_command_parser
from accelerate.utils import DistributedType
from tiny_hcmi import tiny_model

import hcmi.train

FOLDER = Path(hcmi.train.__file__).parent / "configs" / "accelerate"
TYPES = {"ddp": DistributedType.MULTI_GPU, "fsdp": DistributedType.FSDP, "deepspeed": DistributedType.DEEPSPEED}


def loaded(name) -> ClusterConfig:
    return load_config_from_file(str(FOLDER / f"{name}.yaml"))


def test_the_files_that_there_are():
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(TYPES)


@pytest.mark.parametrize("name", TYPES)
def test_accelerate_reads_it(name):
    config = loaded(name)
    assert isinstance(config, ClusterConfig) and config.distributed_type == TYPES[name]
    assert (config.num_machines, config.num_processes, config.mixed_precision) == (1, 2, "bf16")
    assert bool(config.fsdp_config) == (name == "fsdp") and bool(config.deepspeed_config) == (name == "deepspeed")


@pytest.mark.parametrize(("name", "section"), [("fsdp", "fsdp_config"), ("deepspeed", "deepspeed_config")])
def test_the_launcher_knows_every_field(name, section):
    # The launcher takes whatever stands in a section, and what it does not know has no effect.
    options = {action.dest for action in launch_command_parser()._actions}
    assert set(getattr(loaded(name), section)) <= options


def test_the_layers_to_shard_are_those_of_the_model():
    classes = {type(module).__name__ for module in tiny_model().modules()}
    assert set(loaded("fsdp").fsdp_config["fsdp_transformer_layer_cls_to_wrap"].split(",")) <= classes


@pytest.mark.parametrize("name", TYPES)
def test_each_says_what_was_tried(name):
    comments = (FOLDER / f"{name}.yaml").read_text()
    assert "Tried:" in comments and re.search(r"[Nn]ot tried:|nothing has run", comments)
    assert f"--config_file train/configs/accelerate/{name}.yaml" in comments
