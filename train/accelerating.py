"""What a run computes with: Accelerate, as the arguments and the launcher want it."""

import torch
from accelerate import Accelerator, DataLoaderConfiguration, DistributedDataParallelKwargs, DistributedType

from .arguments import TrainingArguments
from .attention import FLASH
from .cores import local_processes, usable_cores
from .launching import require_processes


def make_accelerator(arguments: TrainingArguments) -> Accelerator:
    """
    The accelerator of a run in this process, whose number of threads is set too.

    Raises:
        ValueError: there are fewer processes than were asked for, or something does not work with what the launcher
            wants or on this machine.
    """
    accelerator = Accelerator(
        cpu=arguments.cpu,
        mixed_precision=arguments.mixed_precision,
        # Where this says nothing, what the launcher says counts.
        dynamo_backend="inductor" if arguments.compile else None,
        log_with=None if arguments.tracker == "none" else arguments.tracker,
        project_dir=arguments.output,
        dataloader_config=DataLoaderConfiguration(
            split_batches=True, use_seedable_sampler=True, data_seed=arguments.seed
        ),
        # A level that weighs nothing leaves its token weights without a gradient.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    require_processes(accelerator, arguments.processes)
    refuse_impossible(arguments, accelerator)
    if arguments.compile:
        _require_compiler(accelerator.device)
    if accelerator.device.type == "cpu":
        # Launchers allow a process one thread unless told otherwise.
        local = local_processes(accelerator.num_processes)
        torch.set_num_threads(arguments.cpu_threads or max(1, usable_cores() // local))
    return accelerator


def refuse_impossible(arguments: TrainingArguments, accelerator: Accelerator) -> None:
    """
    Raises:
        ValueError: the arguments ask for what does not work with this accelerator's numbers or divided weights.
    """
    if FLASH in (arguments.attention or "") and accelerator.mixed_precision == "no":
        raise ValueError(f"attention {arguments.attention} needs mixed_precision bf16 or fp16")
    if accelerator.distributed_type == DistributedType.FSDP and (arguments.ema_decay or arguments.lora_rank):
        raise ValueError("ema_decay and lora_rank do not work with FSDP, which divides the weights; use DDP")


def _require_compiler(device: torch.device) -> None:
    """Finds out with next to nothing, instead of in the first step."""
    try:
        torch.compile(torch.neg)(torch.ones(1, device=device))
    except RuntimeError as error:
        raise ValueError(
            f"torch.compile does not work here: {error} Install what it needs, or leave compile off"
        ) from error
