"""A step of training: encode, contrast with the rows of all processes, backward, and the update of the weights."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from accelerate import Accelerator, DistributedType
from torch import nn
from torch.distributed.tensor import DTensor

from hcmi.modeling_hcmi import HCMIConfig, HCMIModel, HCMIObjective, hcmi_objective

from .gradient_caching import GradientCache
from .negatives import gather, gather_features


class NonFiniteLossError(ValueError):
    """
    The loss, or the norm of its gradient, became NaN or infinite.

    A `ValueError`, as it follows from the settings or the data: the command line tells it in one line.

    Args:
        message: what happened.
        rows: the `video_ids` of the batch, of all processes.
    """

    def __init__(self, message: str, rows: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.rows = tuple(rows)


class PairEncoder(nn.Module):
    """Both sides of a batch through the model. Data parallelism wraps this: the loss needs all processes' rows."""

    def __init__(self, model: HCMIModel):
        super().__init__()
        self.model = model

    def forward(self, batch: dict[str, torch.Tensor]) -> tuple[Any, Any, torch.Tensor | None, torch.Tensor]:
        """
        Features of the texts and the videos, without the towers' hidden states, the second view's video vectors or
        `None`, and the logit scale.
        """
        text = self.model.get_text_features(batch["input_ids"], batch["attention_mask"])
        video = self.model.get_video_features(batch["pixel_values_videos"], batch["video_mask"])
        second = None
        if "second_pixel_values_videos" in batch:
            with torch.no_grad():
                second = self.model.get_video_features(
                    batch["second_pixel_values_videos"], batch["second_video_mask"]
                ).pooler_output
        return text.select(slice(None)), video.select(slice(None)), second, self.model.scale()


class TrainingStep:
    """
    What training does with a batch. An update takes `accumulation_steps` batches, each with its own negatives; its
    gradient is the mean of theirs.

    Args:
        accelerator: prepared the next three; it accumulates nothing by itself.
        encoder: a [`PairEncoder`].
        optimizer, schedule: of the encoder's parameters.
        config: weights, label denoising and margin of the objective.
        chunk_size: pairs that a process encodes at a time, see [`~gradient_caching.GradientCache`]; 0: all of them.
        accumulation_steps: batches an update.
        max_gradient_norm: longer gradients are scaled down to this.

    Raises:
        ValueError: the launcher accumulates gradients too, or DeepSpeed, which runs backward and update by itself, is
            to encode in chunks or to accumulate.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        encoder: nn.Module,
        optimizer: Any,
        schedule: Any,
        config: HCMIConfig,
        *,
        chunk_size: int = 0,
        accumulation_steps: int = 1,
        max_gradient_norm: float = 1.0,
    ) -> None:
        if accelerator.gradient_accumulation_steps != 1:
            raise ValueError(
                f"accelerate is told to accumulate {accelerator.gradient_accumulation_steps} batches; set "
                "accumulation_steps of the training instead"
            )
        if accelerator.distributed_type == DistributedType.DEEPSPEED and (chunk_size or accumulation_steps > 1):
            raise ValueError("chunk_size and accumulation_steps do not work with DeepSpeed; use DDP or FSDP")
        self.accelerator = accelerator
        self.encoder = encoder
        self.optimizer = optimizer
        self.schedule = schedule
        self.config = config
        self.chunk_size = chunk_size
        self.accumulation_steps = accumulation_steps
        self.max_gradient_norm = max_gradient_norm
        self._rows: list[torch.Tensor] = []  # of the batches since the last update

    @property
    def between_updates(self) -> bool:
        """Whether gradients are waiting for further batches; a checkpoint would lose them."""
        return bool(self._rows)

    def __call__(self, batch: dict[str, torch.Tensor], *, last: bool = False) -> HCMIObjective:
        """
        Backward of one batch, and the update if it is the last one for that.

        Args:
            batch: this process's pairs, as [`~data.pairs.PairCollator`] makes them; as many as in any other process.
            last: update whatever the number of batches since the last time, as at the end of an epoch.

        Returns:
            The values over the pairs of all processes, without a graph.

        Raises:
            NonFiniteLossError: in every process; the weights are as before, the gradients since the last update lost.
        """
        self._rows.append(gather(batch["video_ids"]))
        update = last or len(self._rows) == self.accumulation_steps
        if 0 < self.chunk_size < len(batch["video_ids"]):
            cache = GradientCache(self.accelerator, self.encoder, batch, self.chunk_size)
            objective = self._backward(cache.encode())
            cache.backward(synchronize=update)
        else:
            with nullcontext() if update else self.accelerator.no_sync(self.encoder):
                objective = self._backward(self.encoder(batch))
        if update:
            self._update()
        return HCMIObjective(**{part: value.detach() for part, value in objective.items()})

    def _backward(self, encoded: tuple[Any, Any, torch.Tensor | None, torch.Tensor]) -> HCMIObjective:
        text, video, second, scale = encoded
        second = None if second is None else gather(second)
        objective = hcmi_objective(
            gather_features(text), gather_features(video), scale, self.config, second, self._rows[-1]
        )
        # Before the backward, in which DeepSpeed changes the weights.
        self._require_finite(objective.loss, "loss", self._rows[-1:])
        self.accelerator.backward(objective.loss / self.accumulation_steps)
        return objective

    def _update(self) -> None:
        if len(self._rows) < self.accumulation_steps:
            for parameter in self.encoder.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(self.accumulation_steps / len(self._rows))
        norm = self.accelerator.clip_grad_norm_(self.encoder.parameters(), self.max_gradient_norm)
        # A scaler of float16 gradients leaves out such an update by itself and scales less, and so does DeepSpeed.
        if self.accelerator.scaler is None and self.accelerator.distributed_type != DistributedType.DEEPSPEED:
            norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
            self._require_finite(norm, "norm of the gradient", self._rows)
        self.optimizer.step()
        self.schedule.step()
        self._start_over()

    def _start_over(self) -> None:
        self.optimizer.zero_grad()
        self._rows.clear()

    def _require_finite(self, value: torch.Tensor, name: str, batches: list[torch.Tensor]) -> None:
        # All processes know all rows and so compute the same loss, but for the last digits, on which an overflow may
        # hang: where one of them stopped alone, the others would wait for it.
        if gather(torch.isfinite(value.detach()).view(1)).all():
            return
        rows = torch.cat(batches).tolist()
        self._start_over()
        raise NonFiniteLossError(f"the {name} is {value.item()}", rows)
