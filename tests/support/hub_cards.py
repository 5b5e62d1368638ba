"""What the Hub says about cards and evaluation results, as far as its rules are documented."""

import re
from collections.abc import Mapping
from typing import Any

import yaml

_LICENSES = {"apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0", "cc-by-nc-4.0", "openrail", "other", "unknown"}
_TASKS = {"feature-extraction", "zero-shot-image-classification", "video-classification", "video-text-to-text"}
_NAME = re.compile(r"[\w.-]+/[\w.-]+|[\w.-]+")


def card_metadata(card: str) -> Any:
    """What the block between the dashes at the top says; None where there is none.

    Raises:
        yaml.YAMLError: it is no YAML.
    """
    block = re.match(r"---\r?\n(.*?)\r?\n---(\r?\n|$)", card, re.DOTALL)
    return yaml.safe_load(block[1]) if block else None


def card_errors(card: str, kind: str) -> tuple[list[str], list[str]]:
    """Errors and warnings for a card of a "model" or "dataset"."""
    try:
        metadata = card_metadata(card)
    except yaml.YAMLError as error:
        return [f"not YAML: {error}"], []
    if metadata is None:
        return [], ["empty or missing yaml metadata in repo card"]
    if not isinstance(metadata, dict):
        return ["the metadata have to be an object"], []
    errors, warnings = [], []
    if not set(_list(metadata.get("license"))) <= _LICENSES:
        errors.append(f'"license" must be one of {sorted(_LICENSES)}')
    for key in ("base_model", "datasets"):
        if not all(isinstance(name, str) and _NAME.fullmatch(name) for name in _list(metadata.get(key))):
            errors.append(f'"{key}" with value {metadata[key]!r} is not valid: use a name on the Hub')
    if not all(isinstance(tag, str) for tag in _list(metadata.get("tags"))):
        errors.append('"tags" must be a list of strings')
    if metadata.get("pipeline_tag") not in {None, *_TASKS}:
        warnings.append(f'The pipeline tag "{metadata["pipeline_tag"]}" is not in the official list')
    if kind == "model" and "model-index" in metadata:
        errors += _index_errors(metadata["model-index"])
    return errors, warnings


def _index_errors(index: Any) -> list[str]:
    try:
        (model,) = index
        places = [
            (result["task"]["type"], result["dataset"]["type"], result["dataset"]["name"])
            for result in model["results"]
        ]
        values = [(metric["type"], metric["value"]) for result in model["results"] for metric in result["metrics"]]
    except (KeyError, TypeError, ValueError) as error:
        return [f'"model-index" is not valid: {error!r}']
    texts = [model["name"], *(text for place in places for text in place), *(kind for kind, _ in values)]
    numbers = all(isinstance(value, (int, float)) for _, value in values)
    return [] if all(isinstance(text, str) and text for text in texts) and numbers else ['"model-index" is not valid']


def evaluation_results(texts: Mapping[str, str]) -> list[dict[str, Any]]:
    """The entries of all `.eval_results/*.yaml`, or what is wrong with a file."""
    found: list[dict[str, Any]] = []
    for path, text in texts.items():
        if path.startswith(".eval_results/") and path.endswith(".yaml"):
            try:
                for entry in yaml.safe_load(text):
                    dataset = entry["dataset"]
                    if not (_NAME.fullmatch(dataset["id"]) and "/" in dataset["id"] and dataset["task_id"]):
                        raise ValueError("a data set on the Hub and a task are needed")
                    found.append({"filename": path, "data": {"value": entry["value"], **entry}})
            except (KeyError, TypeError, ValueError, yaml.YAMLError) as error:
                found.append({"filename": path, "error": repr(error)})
    return found


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]
