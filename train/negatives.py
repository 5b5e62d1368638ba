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
        parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, tensor.contiguous())
        ctx.rows = len(tensor)
        return torch.cat(parts)

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
    gathered = {}
    for name, padded in features.retrieval_fields.items():
        tensor = features[name]
        sizes = torch.tensor(tensor.shape[1 : 1 + padded], device=tensor.device)
        if padded:
            dist.all_reduce(sizes, op=dist.ReduceOp.MAX)
        missing = [size - own for size, own in zip(sizes.tolist(), tensor.shape[1:], strict=False)]
        widths = [0, 0] * (tensor.dim() - 1 - padded) + [n for m in reversed(missing) for n in (0, m)]
        gathered[name] = gather(pad(tensor, widths))
    return type(features)(**gathered)
