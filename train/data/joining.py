"""Whole batches out of the parts that readers deliver, on the device."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import TypeVar

import torch

Part = TypeVar("Part")
Batch = dict[str, torch.Tensor]


def grouped(parts: Iterable[Part], size: int) -> Iterator[list[Part]]:
    """Lists of so many consecutive parts."""
    iterator = iter(parts)
    while group := list(islice(iterator, size)):
        yield group


def joined(parts: list[Batch], padding: Mapping[str, int], device: torch.device) -> Batch:
    """
    One batch of all rows of some parts.

    Args:
        parts: tensors (b, …) or (b, n, …) under the same names; n may differ from part to part.
        padding: what fills the shorter ones; 0 for names that it lacks.
        device: where the batch is wanted. From pinned memory the copies are only queued.
    """
    if len(parts) == 1:
        return {name: tensor.to(device, non_blocking=True) for name, tensor in parts[0].items()}
    return {name: _stacked([part[name] for part in parts], padding.get(name, 0), device) for name in parts[0]}


def on_device(groups: Iterable[list[Batch]], padding: Mapping[str, int], device: torch.device) -> Iterator[Batch]:
    """
    Each list of parts as one batch on the device.

    On CUDA the copies have a stream of their own: they run beside what the device still has to compute of the step
    before, as far as the host is ahead of it.
    """
    if device.type != "cuda":
        yield from (joined(parts, padding, device) for parts in groups)
        return
    copying = torch.cuda.Stream(device)
    for parts in groups:
        with torch.cuda.stream(copying):
            batch = joined(parts, padding, device)
        computing = torch.cuda.current_stream(device)
        computing.wait_stream(copying)
        for tensor in batch.values():
            # Memory of one stream that another one uses: it must not be given away before that one is done with it.
            tensor.record_stream(computing)
        yield batch
        del batch


def _stacked(tensors: list[torch.Tensor], padding: int, device: torch.device) -> torch.Tensor:
    first = tensors[0]
    # Copied part by part into its place: a concatenation would hold everything twice.
    shape = [sum(map(len, tensors)), *first.shape[1:]]
    if first.ndim > 1:
        shape[1] = max(tensor.shape[1] for tensor in tensors)
    even = all(tensor.shape[1:] == first.shape[1:] for tensor in tensors)
    whole = torch.empty(shape, dtype=first.dtype, device=device)
    if not even:
        whole.fill_(padding)
    row = 0
    for tensor in tensors:
        place = whole[row : row + len(tensor)]
        (place if even else place[:, : tensor.shape[1]]).copy_(tensor, non_blocking=True)
        row += len(tensor)
    return whole
