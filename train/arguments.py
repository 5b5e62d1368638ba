"""What a training run is told: typed fields, a YAML file, and overrides on the command line."""

import argparse
import json
import os
import types
import typing
from collections.abc import Sequence
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

MIXED_PRECISIONS = ("no", "bf16", "fp16")
TRACKERS = ("tensorboard", "none")
FREEZABLE = ("towers", "hierarchy")
FRAME_STORES = ("none", "raw", "jpeg")
CHOICES = ("validation", "last")
EPOCHS_OVER = ("captions", "videos")
UNREADABLE = ("refuse", "skip")


def _option(group: str, text: str, default: Any, *, may_differ: bool = False, choices: Sequence[str] = ()) -> Any:
    metadata = {"group": group, "help": text, "may_differ": may_differ, "choices": choices}
    if isinstance(default, dict | list):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class TrainingArguments:
    """Everything a run depends on; saved beside its results. Field by field in `hcmi train --help`."""

    output: str = _option(
        "run",
        "folder that gets the model, the results, the curves, the log and the checkpoints",
        "runs/hcmi",
        may_differ=True,
    )
    resume: str = _option(
        "run",
        "auto goes on from the newest whole checkpoint in the output folder, or begins where there is none; none "
        "refuses a folder that holds a run; or the folder of one of its checkpoints",
        "auto",
        may_differ=True,
    )
    checkpoint_every: int = _option(
        "run", "steps between two checkpoints within an epoch; 0: only at the end of each", 500, may_differ=True
    )
    keep_checkpoints: int = _option(
        "run", "newest checkpoints that are kept, beside the best model", 2, may_differ=True
    )
    seed: int = _option("run", "of the initial weights, the order of the videos, and the frames and captions drawn", 0)
    tracker: str = _option(
        "run", "where the losses go besides the history file", "tensorboard", may_differ=True, choices=TRACKERS
    )
    processes: int | None = _option(
        "run",
        "training processes that have to take part; default: as many as the launcher starts",
        None,
        may_differ=True,
    )
    push_to_hub: str | None = _option("run", "publish the run under this name, OWNER/NAME", None, may_differ=True)
    private: bool = _option("run", "what is published is seen by its owner only", False, may_differ=True)
    cpu: bool = _option("run", "stay on the CPU even where a GPU is at hand", False, may_differ=True)
    cpu_threads: int | None = _option(
        "run",
        "threads of each process on the CPU; default: the usable cores, shared among the machine's processes",
        None,
        may_differ=True,
    )

    benchmark: str = _option("data", "name of the benchmark", "shape_stories")
    annotations: str | None = _option(
        "data",
        "folder with the benchmark's annotation files, or hf://owner/name for a copy on the Hub; "
        "default: the built-in benchmark's place in the cache",
        None,
        may_differ=True,
    )
    videos: str | None = _option(
        "data", "folder with the video files; default: that of the annotations", None, may_differ=True
    )
    protocol: str | None = _option("data", "of the benchmark, such as 1k-A-9k; default: its first", None)
    allow_missing: bool = _option(
        "data", "go on without missing videos, and with other counts than the protocol's: the result says so", False
    )
    frames_per_video: int = _option("data", "frames that the model sees of a video", 12)
    max_words: int | None = _option(
        "data", "tokens of a text; longer ones are cut. Default: what the model takes", None
    )
    candidate_frames: int = _option(
        "data",
        "draw the frames of training and validation among the middle frames of so many segments of each video; "
        "0 draws among all frames",
        0,
    )
    frame_store: str = _option(
        "data",
        "decode the candidate frames once, before training, and keep them: raw is exact, jpeg smaller; "
        "`hcmi data prepare` does it beforehand",
        "none",
        choices=FRAME_STORES,
    )
    frame_folder: str | None = _option(
        "data",
        "where kept frames are; default: beside the data set's cache, as for `hcmi data prepare`",
        None,
        may_differ=True,
    )
    num_workers: int | None = _option(
        "data",
        "processes that read videos beside each training process; default: none on the CPU; with a GPU, the cores "
        "that are left, up to 16",
        None,
        may_differ=True,
    )
    reader_timeout: float = _option(
        "data", "seconds that such a process may take for one video; 0: any time", 300.0, may_differ=True
    )
    unreadable: str = _option(
        "data", "a video that cannot be read ends the run, or another takes its place", "refuse", choices=UNREADABLE
    )
    max_unreadable: int = _option("data", "with skip: so many videos at the most, more end the run", 10)

    model: str | None = _option("model", "a CLIP or HCMI checkpoint to start from: folder or Hub name", None)
    model_config: str | None = _option("model", "instead: JSON file with an HCMIConfig, trained from scratch", None)
    config_overrides: dict = _option("model", 'fields of HCMIConfig to set, e.g. {"label_denoising": false}', {})
    vocabulary: int = _option("model", "from scratch only: size of the tokenizer trained on the captions", 400)
    lora_rank: int = _option(
        "model", "train low-rank adapters in the towers instead of the towers; 0: none; needs peft", 0
    )
    freeze: list = _option("model", "parts that stay as they are: towers, hierarchy", [], choices=FREEZABLE)

    epochs: int = _option("optimisation", "passes over the training captions, or videos", 5)
    epoch_over: str = _option(
        "optimisation",
        "what an epoch goes through: captions, each with its video, or videos, each with one of its captions at random",
        "captions",
        choices=EPOCHS_OVER,
    )
    batch_size: int = _option("optimisation", "pairs of caption and video a step, over all processes", 128)
    accumulation_steps: int = _option("optimisation", "batches an update, each with its own negatives", 1)
    chunk_size: int = _option(
        "optimisation",
        "pairs that a process encodes at a time, with all of the batch as negatives (gradient caching): large batches "
        "on little memory, for a second encoding; 0: all at once",
        0,
    )
    ema_decay: float = _option(
        "optimisation", "validate and keep an exponential average of the weights with this decay; 0: none", 0.0
    )
    learning_rate: float = _option("optimisation", "highest rate of the new layers, and of adapters", 1e-4)
    tower_learning_rate: float = _option("optimisation", "highest rate of CLIP's towers", 1e-7)
    warmup_share: float = _option("optimisation", "part of all steps in which the rates rise; then a cosine to 0", 0.1)
    weight_decay: float = _option("optimisation", "of all weights but biases and norms", 0.2)
    max_gradient_norm: float = _option("optimisation", "longer gradients are scaled down to this", 1.0)
    denoising_start: float = _option(
        "optimisation",
        "part of all epochs before label denoising begins: video vectors of a model from scratch mean nothing at first",
        0.0,
    )
    mixed_precision: str | None = _option(
        "optimisation",
        "of the encoders; default: what accelerate launch says, else none",
        None,
        choices=MIXED_PRECISIONS,
    )
    gradient_checkpointing: bool = _option(
        "optimisation", "save memory: layers are computed again in the backward", False, may_differ=True
    )

    choose: str = _option(
        "evaluation",
        "the model that is kept: of the epoch that is best on the validation split, whose videos are then never "
        "trained on, or of the last epoch, without validation",
        "validation",
        choices=CHOICES,
    )
    evaluation_batch_size: int = _option("evaluation", "videos, and texts, encoded at once", 64, may_differ=True)

    def __post_init__(self) -> None:
        for entry in fields(self):
            setattr(self, entry.name, _converted(entry.name, entry.type, getattr(self, entry.name)))
            choices = entry.metadata["choices"]
            value = getattr(self, entry.name)
            for item in value if isinstance(value, list) else [value]:
                if choices and item is not None and item not in choices:
                    raise ValueError(f"{entry.name} must be one of {', '.join(choices)}, not {item!r}")
        if self.model_config is not None:
            # So that the saved file means the same one, wherever it lies.
            self.model_config = os.path.abspath(self.model_config)
        for name in ("epochs", "batch_size", "frames_per_video", "evaluation_batch_size", "keep_checkpoints",
                     "accumulation_steps"):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        not_negative = ("learning_rate", "tower_learning_rate", "weight_decay", "checkpoint_every", "reader_timeout")
        for name in (*not_negative, "max_unreadable", "lora_rank", "chunk_size", "num_workers"):
            if not (getattr(self, name) or 0) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.cpu_threads is not None and self.cpu_threads < 1:
            raise ValueError(f"cpu_threads must be at least 1, not {self.cpu_threads}")
        if not self.max_gradient_norm > 0:
            raise ValueError(f"max_gradient_norm must be positive, not {self.max_gradient_norm}")
        if (self.model is None) == (self.model_config is None):
            raise ValueError(
                "give either `model` (a checkpoint) or `model_config` (a JSON file, to train from scratch)"
            )
        if self.candidate_frames and self.candidate_frames < self.frames_per_video:
            raise ValueError(
                f"candidate_frames must be 0 or at least frames_per_video ({self.frames_per_video}), "
                f"not {self.candidate_frames}"
            )
        if self.frame_store != "none" and not self.candidate_frames:
            raise ValueError("frame_store needs candidate_frames, the number of frames to keep of each video")
        if self.frame_folder is not None and self.frame_store == "none":
            raise ValueError("frame_folder needs frame_store, what to keep there: raw or jpeg")
        for name in ("warmup_share", "denoising_start", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in 0..1, not {getattr(self, name)}")

    def settings(self) -> dict[str, Any]:
        """The fields that make a run what it is: a resumed one has to have the same."""
        return {entry.name: getattr(self, entry.name) for entry in fields(self) if not entry.metadata["may_differ"]}

    def save(self, path: Path) -> None:
        """As a YAML file that `--config` takes."""
        path.write_text(yaml.safe_dump(asdict(self), sort_keys=False))


def build_parser(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Adds `--config` and an option for each field, with its group, help and default."""
    parser.add_argument("--config", metavar="YAML", help="file with any of the fields below; the command line wins")
    groups: dict[str, Any] = {}
    for entry in fields(TrainingArguments):
        group = entry.metadata["group"]
        if group not in groups:
            groups[group] = parser.add_argument_group(group)
        default = entry.default if entry.default_factory is MISSING else entry.default_factory()
        groups[group].add_argument(
            f"--{entry.name}",
            default=argparse.SUPPRESS,
            metavar=_metavar(entry.type, entry.metadata["choices"]),
            help=f"{entry.metadata['help']} ({_remarks(entry, default)})".replace("%", "%%"),
        )
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
    from_file: dict[str, Any] = {}
    if namespace.config is not None:
        from_file = _read_yaml(Path(namespace.config))
        unknown = sorted(set(from_file) - known)
        if unknown:
            raise ValueError(
                f"{namespace.config}: unknown fields {', '.join(unknown)}; known are {', '.join(sorted(known))}"
            )
    return TrainingArguments(**{**from_file, **given})


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not a YAML file: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: has to hold `field: value` lines")
    # A path in the file is meant from the file's own folder.
    if isinstance(content.get("model_config"), str) and content["model_config"] != "none":
        content["model_config"] = str(path.parent / content["model_config"])
    # YAML reads a bare `no` as false.
    if content.get("mixed_precision") is False:
        content["mixed_precision"] = "no"
    return content


def _remarks(entry: Field, default: Any) -> str:
    return f"default: {default}" + ("; may differ when a run is resumed" if entry.metadata["may_differ"] else "")


def _metavar(kind: Any, choices: Sequence[str] | None) -> str:
    if choices:
        return "{" + ",".join(choices) + "}"
    kinds = [k for k in typing.get_args(kind) if k is not types.NoneType] or [kind]
    return {int: "N", float: "X", bool: "true|false", dict: "JSON"}.get(kinds[0], "TEXT")


def _converted(name: str, kind: Any, value: Any) -> Any:
    """`value` as `kind`; text (from the command line, or YAML's `1e-4`) is read as what the field holds."""
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
