"""Fields of a dataclass as options: their help and limits, and their values from a file or the command line."""

import argparse
import json
import types
import typing
from collections.abc import Sequence, Set
from dataclasses import MISSING, Field, field
from pathlib import Path
from typing import Any

import yaml


def option(
    group: str,
    text: str,
    default: Any,
    *,
    may_differ: bool = False,
    choices: Sequence[str] = (),
    least: float | None = None,
    below: float | None = None,
) -> Any:
    """
    A field of a dataclass.

    Args:
        group: of the help.
        text: of the help.
        default: its value unless told otherwise; lists and dictionaries are copied.
        may_differ: whether a run may be gone on with by another value.
        choices: what it may be, or, of a list, each of its items.
        least, below: limits of a number, with and without the limit itself.
    """
    metadata = {"group": group, "help": text, "may_differ": may_differ, "choices": choices}
    metadata |= {"least": least, "below": below}
    if isinstance(default, dict | list):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def checked(entry: Field, value: Any) -> Any:
    """
    A value as the field holds it; text (from the command line, or YAML's `1e-4`) is read as that.

    Raises:
        ValueError: it is of another type, none of the choices, or beyond a limit.
    """
    value = _converted(entry.name, entry.type, value)
    if value is None:
        return None
    choices, least, below = (entry.metadata[name] for name in ("choices", "least", "below"))
    for item in value if isinstance(value, list) else [value]:
        if choices and item not in choices:
            raise ValueError(f"{entry.name} must be one of {', '.join(choices)}, not {item!r}")
    if below is not None and not least <= value < below:
        raise ValueError(f"{entry.name} must be at least {least} and less than {below}, not {value}")
    if least is not None and not value >= least:
        raise ValueError(f"{entry.name} must be at least {least}, not {value}")
    return value


def add_options(parser: argparse.ArgumentParser, entries: Sequence[Field]) -> None:
    """
    An option for each field, with its group, help and default; those that are not given leave no trace. A switch alone
    means true.
    """
    groups: dict[str, Any] = {}
    for entry in entries:
        group = entry.metadata["group"]
        if group not in groups:
            groups[group] = parser.add_argument_group(group)
        default = entry.default if entry.default_factory is MISSING else entry.default_factory()
        remark = "; may differ when a run is resumed" if entry.metadata["may_differ"] else ""
        alone: dict[str, Any] = {"nargs": "?", "const": True} if entry.type is bool else {}
        groups[group].add_argument(
            f"--{entry.name}",
            default=argparse.SUPPRESS,
            **alone,
            metavar=_metavar(entry.type, entry.metadata["choices"]),
            help=f"{entry.metadata['help']} (default: {default}{remark})".replace("%", "%%"),
        )


def read_fields(path: Path, known: Set[str]) -> dict[str, Any]:
    """
    The values of fields in a YAML file, as they stand there.

    Raises:
        ValueError: it cannot be read, or holds a field that is not known.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not a YAML file: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: has to hold `field: value` lines")
    if unknown := sorted(set(content) - known):
        raise ValueError(f"{path}: unknown fields {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    return content


def _metavar(kind: Any, choices: Sequence[str]) -> str:
    if choices:
        return "{" + ",".join(choices) + "}"
    kinds = [k for k in typing.get_args(kind) if k is not types.NoneType] or [kind]
    return {int: "N", float: "X", bool: "true|false", dict: "JSON"}.get(kinds[0], "TEXT")


def _converted(name: str, kind: Any, value: Any) -> Any:
    options = typing.get_args(kind) or (kind,)
    if value is None or (value == "none" and types.NoneType in options):
        if types.NoneType not in options:
            raise ValueError(f"{name} needs a value")
        return None
    kind = options[0]
    try:
        if kind is bool and isinstance(value, str):
            return {"true": True, "false": False}[value.lower()]
        if kind is dict and isinstance(value, str):
            value = json.loads(value)
        if kind is list and isinstance(value, str):
            return [part for part in value.split(",") if part]
        if kind in (int, float) and isinstance(value, str):
            return kind(value)
        if kind is float and type(value) is int:
            return float(value)
        if type(value) is not kind:
            raise TypeError
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{name} must be of type {kind.__name__}, got {value!r}") from None
    return value
