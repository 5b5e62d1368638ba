"""The card of a published model, filled from what its run has left behind, and its results as the Hub reads them."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, ModelCard, ModelCardData, eval_result_entries_to_yaml

from hcmi.modeling_hcmi import LEVELS, HCMIConfig

from .data.benchmark_builder import HUB_PREFIX
from .published import METRICS, RECALLS, published_results

_TEMPLATE = Path(__file__).with_name("model_card.md")
_HUB_DATASETS = {
    "msrvtt": "friedrichor/MSR-VTT",
    "msvd": "friedrichor/MSVD",
    "didemo": "friedrichor/DiDeMo",
    "activitynet": "friedrichor/ActivityNet_Captions",
}
"""Copies on the Hub, by the names of this package. LSMDC and the built-in benchmark have none."""
_TITLES = {
    "text_to_video": "text → video",
    "video_to_text_group": "video → text (group protocol: the best of its texts)",
    "video_to_text_sentence": "video → text (sentence protocol: every text for itself)",
}
_TASKS = {
    "text_to_video": ("text-to-video-retrieval", "Text-to-video retrieval"),
    "video_to_text_group": ("video-to-text-retrieval", "Video-to-text retrieval (group protocol)"),
}
_METRIC_TYPES = {"MdR": "median_rank", "MnR": "mean_rank"} | {recall: f"recall_at_{recall[2:]}" for recall in RECALLS}
_POST_PROCESSING = {"dsl": "DSL", "qb_norm": "QB-Norm"}
_RECIPE = (
    "epochs", "epoch_over", "batch_size", "learning_rate", "tower_learning_rate", "weight_decay", "warmup_share",
    "frames_per_video", "max_words", "freeze", "mixed_precision", "seed",
)  # fmt: skip
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+")


def model_card(
    repo_id: str,
    config: HCMIConfig,
    parameters: int,
    result: Mapping[str, Any] | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> ModelCard:
    """
    The card, with the metadata that the Hub reads at its top.

    Args:
        repo_id: the model's name on the Hub.
        config: of the model.
        parameters: how many it has.
        result: its test, as `results.complete_result` makes it; None: it was not tested.
        arguments: of its training, as `arguments.yaml` has them; None: not known.
    """
    base_model = _base_model(arguments)
    training = (result or {}).get("training") or {}
    eval_results = _eval_results(result, arguments)
    data = ModelCardData(
        base_model=base_model,
        datasets=_datasets(arguments),
        language="en",
        library_name="transformers",
        license="apache-2.0",
        tags=["hcmi", "text-video-retrieval", "video-retrieval", "video-search"],
        model_name=repo_id.split("/")[-1] if eval_results else None,
        eval_results=eval_results,
        co2_eq_emissions=_emissions(training),
    )
    return ModelCard.from_template(
        data,
        template_path=str(_TEMPLATE),
        repo_id=repo_id,
        config=config,
        parameters=parameters,
        result=result,
        arguments=arguments,
        base_model=base_model,
        towers=_towers(config),
        weights={level.replace("_", "-"): config.inference_weights[level] for level in LEVELS},
        start=_start(arguments, base_model),
        recipe={name.replace("_", " "): _shown(arguments[name]) for name in _RECIPE if name in (arguments or {})},
        tables=_tables(result) if result else [],
        published=_published(result),
        duration=_duration(training.get("seconds", 0)),
        emissions=training.get("co2_kg"),
        query="a red ring slides left",
    )


def evaluation_files(result: Mapping[str, Any] | None, arguments: Mapping[str, Any] | None) -> dict[str, str]:
    """
    `.eval_results/*.yaml`: the recalls of the combined levels, for the leaderboards of data sets on the Hub.

    Returns:
        Path in the repository to content. Empty for a benchmark that is not on the Hub, for another split than the
        test, and for a result that is not of the whole benchmark.
    """
    dataset = _dataset(result["benchmark"], arguments) if result else None
    if dataset is None or result["split"] != "test" or not result["complete"]:
        return {}
    notes = f"protocol {result['protocol']}, combined levels, no post-processing, seed {result['seed']}"
    combined = result["levels"]["combined"]
    entries = [
        EvalResultEntry(
            dataset_id=dataset,
            task_id=f"{direction}_{_METRIC_TYPES[recall]}",
            value=round(combined[direction][recall], 2),
            date=result["finished"],
            notes=notes,
        )
        for direction in _TASKS
        for recall in RECALLS
    ]
    content = yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False)
    return {f".eval_results/{result['benchmark']}.yaml": content}


def _eval_results(result: Mapping[str, Any] | None, arguments: Mapping[str, Any] | None) -> list[EvalResult] | None:
    """For the card's `model-index`; none of a result that is not of the whole benchmark."""
    if not result or not result["complete"]:
        return None
    return [
        EvalResult(
            task_type=task,
            task_name=task_name,
            dataset_type=_dataset(result["benchmark"], arguments) or result["benchmark"],
            dataset_name=result["benchmark"],
            dataset_config=result["protocol"],
            dataset_split=result["split"],
            metric_type=_METRIC_TYPES[metric],
            metric_name=metric,
            metric_value=round(result["levels"]["combined"][direction][metric], 2),
        )
        for direction, (task, task_name) in _TASKS.items()
        for metric in METRICS
    ]


def _tables(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A table a direction: every level, and what post-processing makes of the combined scores."""
    tables = []
    for direction, title in _TITLES.items():
        rows = {name.replace("_", "-"): level[direction] for name, level in result["levels"].items()}
        for name, processed in result["post_processing"].items():
            if direction in processed:
                rows[f"combined + {_POST_PROCESSING[name]}"] = processed[direction]
        sample = rows["combined"]
        title = f"{title}, {sample['queries']:,} queries, {sample['gallery']:,} to rank"
        tables.append({"title": title, "rows": rows})
    return tables


def _published(result: Mapping[str, Any] | None) -> dict[str, list[dict[str, Any]]]:
    """Rows by direction."""
    found: dict[str, list[dict[str, Any]]] = {}
    if not result or result["split"] != "test":
        return found
    for row in published_results(result["benchmark"]):
        words = {name: getattr(row, name) for name in ("method", "backbone", "protocol", "post_processing", "source")}
        for title, values in (("text → video", row.text_to_video), ("video → text", row.video_to_text)):
            if values:
                cells = [f"{values[metric]:.1f}" if metric in values else "" for metric in METRICS]
                found.setdefault(title, []).append(words | {"cells": cells})
    return found


def _towers(config: HCMIConfig) -> str:
    text, vision = config.text_config, config.vision_config
    size = f"frames of {vision.image_size} pixels" if hasattr(vision, "image_size") else "frames"
    return (
        f"`{vision.model_type}`, layers {vision.num_hidden_layers}, width {vision.hidden_size}, for {size} in patches "
        f"of {vision.patch_size}; "
        f"`{text.model_type}`, layers {text.num_hidden_layers}, width {text.hidden_size}, for text"
    )


def _base_model(arguments: Mapping[str, Any] | None) -> str | None:
    """The checkpoint that training began with, if it is one of the Hub."""
    name = str((arguments or {}).get("model") or "")
    return name if _HUB_NAME.fullmatch(name) and not os.path.isdir(name) else None


def _start(arguments: Mapping[str, Any] | None, base_model: str | None) -> str:
    if base_model:
        return f"[{base_model}](https://huggingface.co/{base_model})"
    return "random weights" if not (arguments or {}).get("model") else "a checkpoint that is not on the Hub"


def _dataset(benchmark: str, arguments: Mapping[str, Any] | None) -> str | None:
    """The benchmark's data set on the Hub: the copy that the run has read, or a known one."""
    place = str((arguments or {}).get("annotations") or "")
    own = benchmark == (arguments or {}).get("benchmark") and place.startswith(HUB_PREFIX)
    return place.removeprefix(HUB_PREFIX) if own else _HUB_DATASETS.get(benchmark)


def _datasets(arguments: Mapping[str, Any] | None) -> list[str] | None:
    name = _dataset(arguments["benchmark"], arguments) if arguments else None
    return [name] if name else None


def _emissions(training: Mapping[str, Any]) -> dict[str, Any] | None:
    """As the Hub wants them, in grams; only what was measured."""
    kilograms = training.get("co2_kg")
    return None if kilograms is None else {"emissions": 1000 * kilograms, "training_type": "training"}


def _shown(value: Any) -> str:
    if value is None:
        return "default"
    return ", ".join(value) or "nothing" if isinstance(value, list) else str(value)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
