"""Points the client of the Hub at a test's own server, with its own cache and token: here, or in a fresh process."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import transformers.utils.hub
from hub_state import TOKEN, Hub
from huggingface_hub import constants

# What a plain installation of transformers and torch does not have.
_FOREIGN = [
    "hcmi",
    "datasets",
    "accelerate",
    "evaluate",
    "matplotlib",
    "tensorboard",
    "peft",
    "torchvision",
    "torchcodec",
]

_WITHOUT_THE_PACKAGE = f"""
import sys

class Elsewhere:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in {_FOREIGN!r} else self.finder.find_spec(name, path, target)

    def find_distributions(self, context):
        known = context.name not in {_FOREIGN!r} and hasattr(self.finder, "find_distributions")
        return self.finder.find_distributions(context) if known else []

sys.meta_path[:] = [Elsewhere(finder) for finder in sys.meta_path]
"""


def point_client_at(hub: Hub, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client in this process, which has read its settings long ago, until the test ends."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "ENDPOINT", hub.address)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{hub.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    monkeypatch.setattr(transformers.utils.hub, "_hf_api", None)
    monkeypatch.setenv("HF_TOKEN", TOKEN)


def environment(hub: Hub, home: Path, **more: str) -> dict[str, str]:
    """The variables of a process whose client knows this server alone."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    own = {"HF_ENDPOINT": hub.address, "HF_HOME": str(home), "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}
    return kept | own | {"OMP_NUM_THREADS": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"} | more


def run_fresh(code: str, variables: dict[str, str], folder: Path, *words: object, package: bool = True) -> Any:
    """
    Runs Python code in a process of its own, isolated from this checkout and its environment.

    Args:
        code: prints JSON as its last line.
        variables: of the environment, see `environment`.
        folder: to run in.
        words: become `sys.argv[1:]`.
        package: whether the package and what it needs beyond transformers can be imported.

    Returns:
        What was printed.
    """
    whole = code if package else _WITHOUT_THE_PACKAGE + code
    command = [sys.executable, "-I", "-c", whole, *map(str, words)]
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert TOKEN not in done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])
