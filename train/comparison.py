"""Several results of one benchmark side by side: a row a model, their mean and deviation, and the published rows."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import PurePath
from statistics import mean, stdev
from typing import Any

from .metrics import DIRECTIONS
from .published import METRICS, published_results

_SHARED = ("benchmark", "split", "protocol", "protocol_description", "expected", "missing_videos", "complete", "counts")
_REQUIRED = (*_SHARED, "model", "seed", "levels", "post_processing", "recall_curve")
_INTERVAL = "R@1_95"


def identities(results: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """What results must share for their numbers to be comparable, for each by the names that a message calls it.

    Raises:
        ValueError: a result lacks some of it: another version of this package wrote it.
    """
    for name, result in results.items():
        if missing := [key for key in _REQUIRED if key not in result]:
            raise ValueError(f"{name} lacks {', '.join(missing)}: another version of hcmi wrote it; measure it again")
    return {
        name: {
            "benchmark": result["benchmark"],
            "split": result["split"],
            "protocol": result["protocol"],
            "number of videos": result["counts"]["videos"],
            "number of texts": result["counts"]["texts"],
            "post-processing": " ".join(sorted(result["post_processing"])) or "none",
            **{
                f"{setting} of {step}": value
                for step, processed in result["post_processing"].items()
                for setting, value in _settings(processed).items()
                if setting != "note"
            },
        }
        for name, result in results.items()
    }


def refuse_different(identities: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuses to compare what is not of the same kind.

    Args:
        identities: name of each model (or of what is asked for) to what `identities` says of it, or a part of that.

    Raises:
        ValueError: two of them differ; the message says in what.
    """
    known: dict[str, tuple[str, Any]] = {}
    for name, facts in identities.items():
        for fact, value in facts.items():
            first, expected = known.setdefault(fact, (name, value))
            if value != expected:
                raise ValueError(
                    f"these cannot be compared, they differ in the {fact}: {expected} in {first}, {value} in {name}"
                )


def compare(results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The combined levels of several results, ready for JSON.

    Args:
        results: label of each model to its complete result (`results.complete_result`), two at least.

    Returns:
        What they share (`benchmark`, `split`, `protocol`, `counts`, …), the settings of their `post_processing` among
        it; `models` (`label`, `model`, `seed`); `tables`,
        one for each direction and post-processing, with `rows` (a model's R@1, R@5, R@10, MdR, MnR and the 95 %
        interval of R@1), their `mean` and `deviation` (of a sample: n - 1); `recall_curves`; `published`, the rows of
        others on the test split, which were not measured here.

    Raises:
        ValueError: fewer than two results, or results that differ in benchmark, split, protocol, counts or
            post-processing.
    """
    if len(results) < 2:
        raise ValueError(f"a comparison needs at least two results, not {len(results)}")
    refuse_different(identities(results))
    first = next(iter(results.values()))
    tables = []
    for direction in distinct_directions(first):
        tables.append(_table(direction, "none", {label: r["levels"]["combined"] for label, r in results.items()}))
        for name, processed in first["post_processing"].items():
            if direction in processed:
                own = {label: result["post_processing"][name] for label, result in results.items()}
                tables.append(_table(direction, name, own))
    published = published_results(first["benchmark"]) if first["split"] == "test" else []
    return {
        **{key: first[key] for key in _SHARED},
        "post_processing": {name: _settings(processed) for name, processed in first["post_processing"].items()},
        "models": [{"label": label, "model": r["model"], "seed": r["seed"]} for label, r in results.items()],
        "tables": tables,
        "recall_curves": {label: result["recall_curve"] for label, result in results.items()},
        "published": [{**asdict(row), "source": row.source} for row in published],
    }


def distinct_directions(result: Mapping[str, Any]) -> list[str]:
    """The directions with numbers of their own: of one text a video both video-to-text protocols are the same."""
    counts, combined = result["counts"], result["levels"]["combined"]
    one_each = counts["texts"] == counts["videos"] == combined["video_to_text_group"]["queries"]
    return list(DIRECTIONS[:2] if one_each else DIRECTIONS)


def _settings(processed: Mapping[str, Any]) -> dict[str, Any]:
    """What a post-processing says of itself beside its numbers."""
    return {setting: value for setting, value in processed.items() if setting not in DIRECTIONS}


def _table(direction: str, post_processing: str, summaries: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    rows = {label: {key: own[direction][key] for key in (*METRICS, _INTERVAL)} for label, own in summaries.items()}
    values = {metric: [row[metric] for row in rows.values()] for metric in METRICS}
    sample = next(iter(summaries.values()))
    return {
        "direction": direction,
        "post_processing": post_processing,
        "queries": sample[direction]["queries"],
        "gallery": sample[direction]["gallery"],
        "rows": rows,
        "mean": {metric: mean(numbers) for metric, numbers in values.items()},
        "deviation": {metric: stdev(numbers) for metric, numbers in values.items()},
    }


def short_names(paths: Sequence[str]) -> list[str]:
    """What tells the paths apart: each without the folders that all of them begin with and end on."""
    parts = [PurePath(os.path.normpath(path)).parts for path in paths]
    shortest = min(map(len, parts))
    begin = 0
    while begin < shortest and len({own[begin] for own in parts}) == 1:
        begin += 1
    end = 0
    while end < shortest - begin and len({own[-1 - end] for own in parts}) == 1:
        end += 1
    names = ["/".join(own[begin : len(own) - end]) for own in parts]
    return names if all(names) else list(paths)
