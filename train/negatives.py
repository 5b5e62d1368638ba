"""The other processes' videos and texts as negatives: gathering with exact gradients."""

from typing import Any

import torch
import torch.distributed as dist
from torch.nn.functional import pad


class _GatherWithGradient(torch.autograd.Function):
    """
    All processes' tensors, one after the other. In the backward every process's gradient flows to the rows it came
    from: each process computes the whole loss, so the sum over processes is `N` times the gradient, which the mean
    that DistributedDataParallel takes over parameters turns into that of one process with the whole batch.
    """

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor) -> torch.Tensor:
        ctx.rows = len(tensor)
        gathered = tensor.new_empty(dist.get_world_size(), *tensor.shape)
        dist.all_gather(list(gathered), tensor.contiguous())
        return gathered.flatten(0, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        # A copy: the engine may hand the same tensor to another node.
        summed = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(summed)
        first = dist.get_rank() * ctx.rows
        return summed[first : first + ctx.rows]


def gather(tensor: torch.Tensor) -> torch.Tensor:
    """
    `(B, …)` on each of `N` processes → `(N·B, …)` on all of them, in the order of their ranks, differentiable.

    All processes pass the same shape and type. With one process the tensor itself.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return tensor
    if tensor.dtype == torch.bool:
        return _GatherWithGradient.apply(tensor.to(torch.uint8)).bool()
    return _GatherWithGradient.apply(tensor)


def gather_features(features: Any) -> Any:
    """
    Video or text features of all processes as one batch, differentiable; padded to the longest row of any process.

    Every process has to hold the same number of rows.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return features
    fields = features.retrieval_fields
    own = [size for name, padded in fields.items() for size in features[name].shape[1 : 1 + padded]]
    # One exchange for all fields: on a GPU each of them waits for everything before.
    longest = torch.tensor(own, device=features.pooler_output.device)
    dist.all_reduce(longest, op=dist.ReduceOp.MAX)
    missing = iter([size - less for size, less in zip(longest.tolist(), own, strict=True)])
    gathered = {}
    for name, padded in fields.items():
        tensor = features[name]
        behind = [(0, next(missing)) for _ in range(padded)]
        widths = [0, 0] * (tensor.dim() - 1 - padded) + [n for pair in reversed(behind) for n in pair]
        gathered[name] = gather(pad(tensor, widths))
    return type(features)(**gathered)
