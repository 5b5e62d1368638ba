"""The arguments of a run from the command line and a YAML file."""

import argparse
from collections.abc import Set
from dataclasses import fields
from pathlib import Path
from typing import Any

from .arguments import TrainingArguments
from .options import add_options, read_fields


def build_parser(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Adds `--config` and an option for each field, with its group, help and default."""
    parser.add_argument("--config", metavar="YAML", help="file with any of the fields below; the command line wins")
    add_options(parser, fields(TrainingArguments))
    return parser


def from_namespace(namespace: argparse.Namespace) -> TrainingArguments:
    """
    The arguments of a run: the defaults, over them the file that `--config` names, over it the command line.

    Args:
        namespace: what `build_parser`'s parser made of the command line.

    Raises:
        ValueError: an unknown field in the file, or an impossible value, with the field's name.
    """
    known = {entry.name for entry in fields(TrainingArguments)}
    given = {name: value for name, value in vars(namespace).items() if name in known}
    return TrainingArguments(**{**_from_file(namespace.config, known), **given})


def _from_file(name: str | None, known: Set[str]) -> dict[str, Any]:
    if name is None:
        return {}
    path = Path(name)
    content = read_fields(path, known)
    # A path in the file is meant from the file's own folder.
    if isinstance(content.get("model_config"), str) and content["model_config"] != "none":
        content["model_config"] = str(path.parent / content["model_config"])
    # YAML reads a bare `no` as false.
    if content.get("mixed_precision") is False:
        content["mixed_precision"] = "no"
    return content
