"""Which model a run keeps: that of the epoch that is best on the validation split, or that of the last."""

from pathlib import Path
from typing import Any

from accelerate import Accelerator

from hcmi.modeling_hcmi import HCMIModel
from hcmi.processing import HCMIProcessor

from .checkpoints import save_model
from .resuming import Progress


class ModelChoice:
    """
    The best model so far, in a folder.

    Args:
        folder: gets the model.
        processor: is saved beside it.
        accelerator: of this process; all of them offer the same.
        progress: of the run; knows what was kept before.
    """

    def __init__(self, folder: Path, processor: HCMIProcessor, accelerator: Accelerator, progress: Progress) -> None:
        self.folder = folder
        self.processor = processor
        self.accelerator = accelerator
        self.progress = progress

    def offer(self, model: HCMIModel, recall: float | None) -> None:
        """
        The model of the epoch in progress.

        Args:
            model: is kept if it is the best so far; of equal ones the first.
            recall: R@1 on the validation split; `None`: there is none, and the last model is kept.

        Raises:
            OSError: it cannot be written; the one that was kept before is still there.
        """
        if recall is not None and recall <= self.progress.best_recall:
            return
        if self.accelerator.is_main_process:
            save_model(model, self.processor, self.folder)
        self.progress.kept_epoch = self.progress.epoch + 1
        if recall is not None:
            self.progress.best_recall = recall

    def summary(self) -> dict[str, Any]:
        """For the result file: which epoch's model was kept, and why."""
        if self.progress.best_recall < 0:
            return {"chosen_epoch": self.progress.kept_epoch, "chosen_by": "fixed beforehand: the last"}
        return {
            "chosen_epoch": self.progress.kept_epoch,
            "chosen_by": "validation text-to-video R@1 of the combined levels",
            "validation_recall_at_1": self.progress.best_recall,
        }
