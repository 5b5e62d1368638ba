import os
import subprocess
import sys

import pytest
from accelerators import new_accelerator

from hcmi.train.launching import require_processes

SCRIPT = """
from accelerate import Accelerator
from hcmi.train.launching import require_processes
try:
    require_processes(Accelerator())
    print("goes on")
except ValueError as error:
    print("refused:", error)
"""


@pytest.fixture
def environment(monkeypatch):
    """An environment that no launcher has made: a dict to change."""
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "PMI_SIZE", "ACCELERATE_USE_CPU"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_a_process_alone_goes_on(environment):
    require_processes(new_accelerator())
    require_processes(new_accelerator(), 1)


@pytest.mark.parametrize("found", [{"ACCELERATE_USE_CPU": "False"}, {"MASTER_ADDR": "first-node"}, {"WORLD_SIZE": "1"}])
def test_traces_of_a_single_process_are_no_reason(environment, found):
    for name, value in found.items():
        environment.setenv(name, value)
    require_processes(new_accelerator())


@pytest.mark.parametrize("name", ["WORLD_SIZE", "PMI_SIZE"])
def test_processes_that_do_not_find_each_other_are_refused(environment, name):
    accelerator = new_accelerator()
    environment.setenv(name, "2")
    with pytest.raises(
        ValueError, match=r"2 processes were asked for, but this run has 1.*torchrun --nproc_per_node 2"
    ):
        require_processes(accelerator)


def test_torchrun_below_another_launcher_counts(environment):
    accelerator = new_accelerator()
    environment.setenv("PMI_SIZE", "4")
    environment.setenv("WORLD_SIZE", "1")
    require_processes(accelerator)


def test_what_is_asked_for_in_words_counts(environment):
    with pytest.raises(ValueError, match="3 processes were asked for, but this run has 1"):
        require_processes(new_accelerator(), 3)
    environment.setenv("ACCELERATE_USE_CPU", "True")
    environment.setenv("MASTER_ADDR", "127.0.0.1")
    require_processes(new_accelerator(), 1)


def test_accelerate_launch_that_starts_one_process_is_refused(environment, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    launch = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--cpu", "--num_processes", "2"]
    finished = subprocess.run(
        [*launch, str(script)], env=os.environ | {"HF_HOME": str(tmp_path)}, capture_output=True, text=True, timeout=120
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.startswith("refused: several processes were asked for, but this run has 1")
