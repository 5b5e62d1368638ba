"""What a training run has left, without what depends on the machine."""

import json
from pathlib import Path
from typing import Any

import torch

from hcmi.modeling_hcmi import HCMIModel


def records(history: Path, kind: str) -> list[dict[str, Any]]:
    """The records of one kind in a history file."""
    dropped = ("kind", "videos_per_second", "waiting_for_data", "seconds")
    lines = [json.loads(line) for line in history.read_text().splitlines()]
    return [{key: line[key] for key in line if key not in dropped} for line in lines if line["kind"] == kind]


def steps(outcome: Any) -> list[dict[str, Any]]:
    """What a finished run recorded of its steps."""
    return records(outcome.history, "step")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Of a model's folder."""
    return HCMIModel.from_pretrained(folder).state_dict()


def differing(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> set[str]:
    """Names of the weights that are not bit for bit the same."""
    assert first.keys() == second.keys()
    return {name for name in first if not torch.equal(first[name], second[name])}


def checkpoints(output: Path) -> list[str]:
    """Names of what lies among the checkpoints of a run, hidden folders too."""
    return sorted(path.name for path in (output / "checkpoints").iterdir())
