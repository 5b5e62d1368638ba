"""Accelerators that know nothing of those before them."""

from typing import Any

from accelerate import Accelerator, DataLoaderConfiguration, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState, GradientState


def new_accelerator(cpu: bool = True, **settings: Any) -> Accelerator:
    """With the settings that training has; Accelerate itself keeps those of a process's first accelerator."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    return Accelerator(
        cpu=cpu,
        dataloader_config=DataLoaderConfiguration(split_batches=True),
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
        **settings,
    )
