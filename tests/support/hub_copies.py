"""Local folders of the shape that data sets have on the Hugging Face Hub."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from datasets import Dataset

Rows = Sequence[Mapping[str, Any]] | Dataset


def write_hub_copy(folder: Path, configurations: Mapping[str, Mapping[str, Rows]]) -> Path:
    """A file for each configuration and split, and the card that lists them.

    Rows make a JSON file with one list, as the copies of the benchmarks have; a `Dataset` makes a parquet file with its
    features.
    """
    folder.mkdir(parents=True, exist_ok=True)
    listed = []
    for configuration, splits in configurations.items():
        files = []
        for split, rows in splits.items():
            name = f"{configuration}_{split}" + (".parquet" if isinstance(rows, Dataset) else ".json")
            if isinstance(rows, Dataset):
                rows.to_parquet(folder / name)
            else:
                (folder / name).write_text(json.dumps(rows), encoding="utf-8")
            files.append({"split": split, "path": name})
        listed.append({"config_name": configuration, "data_files": files})
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': listed})}---\n", encoding="utf-8")
    return folder
