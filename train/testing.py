"""The test at the end of a run: the kept model on the test split, once."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from hcmi.modeling_hcmi import HCMIModel

from .data.benchmark_info import benchmark_info
from .results import complete_result


def final_result(
    folder: Path,
    dataset: Any,
    measure: Callable[[HCMIModel, Any], dict[str, Any]],
    accelerator: Accelerator,
    seed: int,
    training: Mapping[str, Any],
) -> dict[str, Any]:
    """
    All processes call.

    Args:
        folder: of the model.
        dataset: the test split.
        measure: model and data set to what `evaluation.evaluate` returns.
        accelerator: of this process.
        seed: of the training.
        training: what it took, for the result.

    Returns:
        What `results.complete_result` makes of the measures, with `training` and the number of parameters in it.
    """
    model = HCMIModel.from_pretrained(folder).to(accelerator.device)
    result = complete_result(
        measure(model, dataset),
        model=str(folder),
        info=benchmark_info(dataset),
        seed=seed,
        device=accelerator.device,
        dtype=model.dtype,
    )
    result["training"] = {**training, "parameters": sum(p.numel() for p in model.parameters())}
    return result
