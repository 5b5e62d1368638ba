"""Whether an index and a model belong together."""

from typing import Any

import torch

_SAMPLES = 16
"""Numbers of each part of a model: towers, projections, hierarchies."""

_TOLERANCE = 0.005
"""Relative: what rounding to bfloat16 may change. Training changes more."""


def fingerprint(model: Any) -> list[float]:
    """Some of a model's weights, by which it is told from others of the same shape, in whatever type it was loaded."""
    samples = []
    for _, part in sorted(model.named_children()):
        parameters = [parameter for _, parameter in sorted(part.named_parameters())]
        for number in range(_SAMPLES if parameters else 0):
            chosen = parameters[number * len(parameters) // _SAMPLES].detach().flatten()
            samples.append(chosen[(2 * number + 1) * len(chosen) // (2 * _SAMPLES)].float().item())
    return samples


def is_same(first: list[float], second: list[float]) -> bool:
    """Whether two fingerprints are of one model."""
    if len(first) != len(second):
        return False
    return torch.allclose(torch.tensor(first), torch.tensor(second), rtol=_TOLERANCE, atol=1e-6)
