"""LoRA (Hu et al., 2021): CLIP's towers stay as they are and get small trainable matrices beside their attention."""

import copy
from itertools import chain
from typing import Any

import torch
from torch import nn

from hcmi.modeling_hcmi import HCMIModel

TARGETS = r"(text_model|vision_model)\..*\.self_attn\.(q_proj|k_proj|v_proj|out_proj)"
"""Full names of the modules that get adapters."""
_ADAPTER = "lora_"
_HIERARCHY = ("video_hierarchy.", "text_hierarchy.")


def is_adapter(name: str) -> bool:
    """Whether a parameter of this name belongs to an adapter."""
    return any(part.startswith(_ADAPTER) for part in name.split("."))


def add_lora(model: HCMIModel, rank: int, alpha: int | None = None) -> HCMIModel:
    """
    Puts adapters on the query, key, value and output projections of both towers, and freezes the rest of the towers.

    The outputs do not change: an adapter starts as zero. The hierarchy is trained or frozen as before. Checkpoints of a
    run with adapters have their names; what is published is `merged(model)`.

    Args:
        model: is changed in place.
        rank: inner width of the adapters.
        alpha: an adapter's output is scaled by `alpha / rank`; default: `2 * rank`.

    Returns:
        The model.

    Raises:
        ValueError: peft is not installed, the rank is below 1, or the model has adapters already.
    """
    if rank < 1:
        raise ValueError(f"the rank of LoRA's adapters must be at least 1, not {rank}")
    if any(map(is_adapter, dict(model.named_parameters()))):
        raise ValueError("the model has adapters already: merge them first")
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ValueError('LoRA needs the package peft: pip install "hcmi[lora]", or pip install peft') from error
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    config = LoraConfig(r=rank, lora_alpha=2 * rank if alpha is None else alpha, target_modules=TARGETS)
    inject_adapter_in_model(config, model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(is_adapter(name) or (name in trained and name.startswith(_HIERARCHY)))
    return model


@torch.no_grad()
def merged(model: HCMIModel) -> HCMIModel:
    """
    The same model without adapters: an ordinary one, to be saved or measured, that needs no peft.

    It shares all weights but the adapted ones with the model, which stays as it is: use it before the next step. A
    model without adapters is returned itself.
    """
    if not any(map(is_adapter, dict(model.named_parameters()))):
        return model
    shared = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
    plain = copy.deepcopy(model, shared)
    del plain.peft_config
    for name, layer in list(plain.named_modules()):
        if not hasattr(layer, "get_delta_weight"):
            continue
        parent, _, attribute = name.rpartition(".")
        setattr(plain.get_submodule(parent), attribute, _merged_linear(layer))
    return plain


def _merged_linear(layer: Any) -> nn.Linear:
    base = layer.get_base_layer()
    (adapter,) = layer.active_adapters
    with torch.device("meta"):
        linear = nn.Linear(base.in_features, base.out_features, bias=base.bias is not None)
    weight = base.weight + layer.get_delta_weight(adapter).to(base.weight.dtype)
    linear.weight = nn.Parameter(weight, requires_grad=False)
    linear.bias = base.bias
    return linear.train(layer.training)
