"""Weights divided among the processes (FSDP): what a model needs before, and how it becomes whole again."""

import copy
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from hcmi.modeling_hcmi import HCMIModel


def make_shardable(model: nn.Module) -> None:
    """
    Gives scalar parameters, which FSDP refuses (CLIP's logit scale), the shape (1,), in place; to be called before the
    optimizer is made. The model computes the same.
    """
    scalars = [(name, parameter) for name, parameter in model.named_parameters() if parameter.dim() == 0]
    for name, parameter in scalars:
        parent, _, attribute = name.rpartition(".")
        vector = nn.Parameter(parameter.detach().reshape(1), requires_grad=parameter.requires_grad)
        setattr(model.get_submodule(parent), attribute, vector)


@torch.no_grad()
def whole(model: HCMIModel) -> HCMIModel:
    """
    An ordinary copy with all weights of a sharded model, to be measured or saved: in every process, which all have to
    call this.

    Args:
        model: of one that FSDP 2 has taken in, without adapters.
    """
    with torch.random.fork_rng(devices=[]):  # the run's random numbers are not this copy's initial weights
        plain = HCMIModel(copy.deepcopy(model.config))
    shapes = {name: tensor.shape for name, tensor in plain.state_dict().items()}
    state = {
        name: (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).reshape(shapes[name])
        for name, tensor in model.state_dict().items()
    }
    plain.load_state_dict(state)
    device: Any = next(iter(state.values())).device
    return plain.to(device).train(model.training)
