"""An exponential average of the trained weights, which often retrieves better than the weights of the last step."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


class ExponentialAverage:
    """
    `average = decay * average + (1 - decay) * weights` after each step, from the weights at construction on.

    For `accelerator.register_for_checkpointing`. Every process keeps all of it, so that sharded weights (FSDP, ZeRO-3)
    are not for it.

    Args:
        model: its trainable parameters are averaged, in float32; they have to be on their device already.
        decay: between 0 and 1.

    Raises:
        ValueError: the decay is no such number.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"the decay of the average must lie between 0 and 1, not {decay}")
        self.decay = decay
        self._weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self._averages = {name: weight.detach().clone().float() for name, weight in self._weights.items()}

    @torch.no_grad()
    def update(self) -> None:
        """To be called after each step of the optimizer."""
        weights = [weight.float() for weight in self._weights.values()]
        torch._foreach_lerp_(list(self._averages.values()), weights, 1 - self.decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within it the model has the averages; afterwards, and after an error, exactly the trained weights again."""
        trained = {name: weight.detach().clone() for name, weight in self._weights.items()}
        self._put(self._averages)
        try:
            yield
        finally:
            self._put(trained)

    def state_dict(self) -> dict[str, Any]:
        """The averages."""
        return {"averages": self._averages}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """
        Goes on from saved averages, on whatever device they are.

        Raises:
            ValueError: they belong to other parameters.
        """
        averages = state["averages"]
        if different := sorted(averages.keys() ^ self._averages.keys()):
            raise ValueError(
                f"the saved average is of other weights ({len(different)} differ, first: {different[0]}): resume with "
                "the same freeze and LoRA settings"
            )
        for name, average in averages.items():
            self._averages[name].copy_(average)

    @torch.no_grad()
    def _put(self, tensors: dict[str, torch.Tensor]) -> None:
        for name, weight in self._weights.items():
            weight.copy_(tensors[name])
