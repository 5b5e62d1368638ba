"""Points the client of the Hub at a test's own server, with its own cache and token: here, or in a fresh process."""

import json
import os
import subprocess
import sys
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path
from typing import Any

import pytest
import transformers.utils.hub
from hub_state import TOKEN, Hub
from huggingface_hub import constants
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_PLAIN = ("torch", "transformers", "av", "pillow")
"""What the card of a published model asks for."""

_WITHOUT_THE_REST = """
import re, sys

class Elsewhere:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in {modules!r} else self.finder.find_spec(name, path, target)

    def find_distributions(self, context):
        known = re.sub("[-_.]+", "-", context.name or "").lower() not in {distributions!r}
        return self.finder.find_distributions(context) if known and hasattr(self.finder, "find_distributions") else []

sys.meta_path[:] = [Elsewhere(finder) for finder in sys.meta_path]
"""


@cache
def _without_the_rest() -> str:
    """Code that hides whatever an installation of `_PLAIN` would not have brought along."""
    needed: set[str] = set()
    waiting = list(_PLAIN)
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name not in needed:
            needed.add(name)
            with suppress(PackageNotFoundError):
                wanted = map(Requirement, requires(name) or [])
                waiting += [one.name for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    modules = {"hcmi"}  # an editable installation does not tell
    distributions = {"hcmi"}
    for module, owners in packages_distributions().items():
        names = {canonicalize_name(owner) for owner in owners}
        if not names & needed:
            modules.add(module)
            distributions |= names
    return _WITHOUT_THE_REST.format(modules=modules, distributions=distributions)


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
        package: whether the package and all else that is installed can be imported, or torch, transformers, PyAV,
            Pillow and what these need alone.

    Returns:
        What was printed.
    """
    whole = code if package else _without_the_rest() + code
    command = [sys.executable, "-I", "-c", whole, *map(str, words)]
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert TOKEN not in done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])
