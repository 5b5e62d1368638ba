"""What a run measures of its model: on the validation split after each epoch, on the test split at its end."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from hcmi.modeling_hcmi import HCMIModel
from hcmi.processing import HCMIProcessor

from .arguments import TrainingArguments
from .data.benchmark_info import benchmark_info
from .evaluation import evaluate
from .results import complete_result
from .run_data import RunData


class RunEvaluation:
    """
    Both measures of a run. Every method is called in all processes.

    Args:
        arguments: of the run.
        accelerator: of this process.
        data: of the run.
        processor: of the model.
    """

    def __init__(
        self, arguments: TrainingArguments, accelerator: Accelerator, data: RunData, processor: HCMIProcessor
    ) -> None:
        self.arguments = arguments
        self.accelerator = accelerator
        self.data = data
        self.processor = processor
        self._validation_frames = data.validation_frames(processor)

    def validate(self, model: HCMIModel) -> dict[str, Any] | None:
        """What `evaluation.evaluate` measures on the validation split, if there is one."""
        if self.data.validation is None:
            return None
        options = {"frames_for": self._validation_frames, "show_progress": False}
        return self._evaluate(model, self.data.validation, **options)

    def test(self, folder: Path, num_workers: int, training: Mapping[str, Any]) -> dict[str, Any]:
        """
        The kept model on the test split, once, from the video files.

        Args:
            folder: of the model.
            num_workers: processes that read the videos.
            training: what it took, for the result.

        Returns:
            What `results.complete_result` makes of the measures, with `training` and the number of parameters in it.
        """
        arguments, dataset = self.arguments, self.data.testing
        model = HCMIModel.from_pretrained(folder).to(self.accelerator.device)
        measured = self._evaluate(
            model,
            dataset,
            num_frames=arguments.frames_per_video,
            num_workers=num_workers,
            reader_timeout=arguments.reader_timeout,
        )
        result = complete_result(
            measured,
            model=str(folder),
            info=benchmark_info(dataset),
            seed=arguments.seed,
            device=self.accelerator.device,
            dtype=model.dtype,
        )
        result["training"] = {**training, "parameters": sum(p.numel() for p in model.parameters())}
        return result

    def _evaluate(self, model: HCMIModel, dataset: Any, **options: Any) -> dict[str, Any]:
        batch_size = self.arguments.evaluation_batch_size
        return evaluate(model, self.processor, dataset, batch_size=batch_size, accelerator=self.accelerator, **options)
