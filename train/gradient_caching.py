"""Gradient caching (Gao et al., arXiv 2101.06983): a large batch's exact gradients with a few rows' activations."""

from contextlib import nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from hcmi.modeling_hcmi import concatenate_features


class GradientCache:
    """
    A batch that is encoded twice, in chunks. The first time, without a graph, gives the features of all its rows, from
    which the loss sees every negative; the loss's backward ends at them. The second time each chunk has its graph,
    draws the random numbers of the first time, and carries the gradients of its rows on to the parameters.

    Args:
        accelerator, encoder: the prepared `PairEncoder` and what prepared it.
        batch: what the encoder takes, `(B, …)` tensors.
        chunk_size: rows whose activations are held at a time.
    """

    def __init__(self, accelerator: Accelerator, encoder: nn.Module, batch: dict[str, torch.Tensor], chunk_size: int):
        self.accelerator = accelerator
        self.encoder = encoder
        self.batch = batch
        size = len(batch["input_ids"])
        self.chunks = [slice(first, first + chunk_size) for first in range(0, size, chunk_size)]
        self.random_states: list[tuple[torch.Tensor, ...]] = []

    def encode(self) -> tuple[Any, Any, torch.Tensor | None, torch.Tensor]:
        """What the encoder gives for the whole batch; floating-point tensors are leaves for the loss's gradients."""
        encoded = []
        with torch.no_grad(), self.accelerator.no_sync(self.encoder):
            for rows in self.chunks:
                self.random_states.append(_random_state(self.accelerator.device))
                encoded.append(self.encoder({name: tensor[rows] for name, tensor in self.batch.items()}))
        texts, videos, seconds, scales = zip(*encoded, strict=True)
        self.text, self.video, self.scale = concatenate_features(texts), concatenate_features(videos), scales[0]
        for tensor in (*self.text.values(), *self.video.values(), self.scale):
            tensor.requires_grad_(tensor.is_floating_point())
        return self.text, self.video, None if seconds[0] is None else torch.cat(seconds), self.scale

    def backward(self, synchronize: bool) -> None:
        """
        Carries the gradients of the leaves on to the parameters.

        Args:
            synchronize: let the last chunk's backward average over processes what the parameters have gathered.
        """
        first_view = {name: tensor for name, tensor in self.batch.items() if not name.startswith("second_")}
        afterwards = _random_state(self.accelerator.device)
        for rows, state in zip(self.chunks, self.random_states, strict=True):
            last = rows is self.chunks[-1]
            _set_random_state(state, self.accelerator.device)
            with nullcontext() if last and synchronize else self.accelerator.no_sync(self.encoder):
                text, video, _, scale = self.encoder({name: tensor[rows] for name, tensor in first_view.items()})
                # The scale is the same in every chunk. It goes with the last, for whose parameters processes wait.
                pairs = [(scale, self.scale.grad)] if last else []
                for side, cached in ((text, self.text), (video, self.video)):
                    pairs += [(side[name], leaf.grad[rows]) for name, leaf in cached.items() if leaf.grad is not None]
                # What is frozen has no graph this time either.
                pairs = [pair for pair in pairs if pair[0].requires_grad]
                if pairs:
                    tensors, gradients = zip(*pairs, strict=True)
                    torch.autograd.backward(tensors, gradients)
        _set_random_state(afterwards, self.accelerator.device)


def _random_state(device: torch.device) -> tuple[torch.Tensor, ...]:
    """The generators that dropout draws from: the CPU's and that of this process's accelerator."""
    if device.type == "cpu":
        return (torch.get_rng_state(),)
    return torch.get_rng_state(), torch.get_device_module(device).get_rng_state()


def _set_random_state(state: tuple[torch.Tensor, ...], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if device.type != "cpu":
        torch.get_device_module(device).set_rng_state(state[1])
