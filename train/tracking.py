"""Where a run's figures go besides its own files: TensorBoard, Weights & Biases, or nowhere."""

import os
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import is_wandb_available

from .arguments import TrainingArguments

WANDB_ID = "wandb_id.txt"
"""File of the output folder with the id of the run at Weights & Biases."""


def require_tracker(tracker: str) -> None:
    """
    Raises:
        ValueError: its package is not installed.
    """
    if tracker == "wandb" and not is_wandb_available():
        raise ValueError('tracker wandb needs the package wandb: pip install "hcmi[wandb]", or pip install wandb')


class Tracker:
    """
    What a run tells while it runs, through Accelerate. To be made in the main process alone.

    A run that goes on does so in the same TensorBoard files and in the same run at Weights & Biases.

    Args:
        accelerator: made with `log_with`.
        arguments: of the run; its output folder is there.
        steps: that are done. What was told to TensorBoard of later ones is told once more.

    Raises:
        ValueError: Weights & Biases is not logged in to, or does not answer.
    """

    def __init__(self, accelerator: Accelerator, arguments: TrainingArguments, steps: int) -> None:
        self.accelerator = accelerator
        self.by_wandb = arguments.tracker == "wandb"
        if self.by_wandb:
            _begin_wandb(accelerator, arguments)
        else:
            accelerator.init_trackers("tensorboard", init_kwargs={"tensorboard": {"purge_step": steps + 1}})

    def log(self, values: dict[str, float], step: int) -> None:
        """Figures after a step."""
        if self.by_wandb:
            # A step of its own kind would have to grow from call to call: the validation that a resumed run begins with
            # would be dropped.
            self.accelerator.log(values | {"step": step})
        else:
            self.accelerator.log(values, step)


def _begin_wandb(accelerator: Accelerator, arguments: TrainingArguments) -> None:
    import wandb

    output = Path(arguments.output).resolve()
    file = output / WANDB_ID
    if not file.exists():
        file.write_text(uuid.uuid4().hex)
    options = {
        "id": file.read_text(),
        "resume": "allow",
        "name": os.environ.get("WANDB_NAME", output.name),
        "dir": str(output),
        "config": asdict(arguments),
        "allow_val_change": True,
    }
    try:
        accelerator.init_trackers(os.environ.get("WANDB_PROJECT", "hcmi"), init_kwargs={"wandb": options})
    except wandb.Error as error:
        raise ValueError(
            f"Weights & Biases cannot be used: {error} Log in with `wandb login`, set WANDB_MODE=offline to send the "
            "figures later with `wandb sync`, or take another tracker"
        ) from error
    run: Any = accelerator.get_tracker("wandb", unwrap=True)
    run.define_metric("*", step_metric="step")
