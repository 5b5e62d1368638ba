"""What a training run is told: its fields, with their defaults, limits and help."""

import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from .options import checked, option

MIXED_PRECISIONS = ("no", "bf16", "fp16")
TRACKERS = ("tensorboard", "wandb", "none")
FREEZABLE = ("towers", "hierarchy")
FRAME_STORES = ("none", "raw", "jpeg")
CHOICES = ("validation", "last")
EPOCHS_OVER = ("captions", "videos")
UNREADABLE = ("refuse", "skip")
ATTENTION = ("eager", "sdpa", "flash_attention_2", "flash_attention_3")


@dataclass
class TrainingArguments:
    """Everything a run depends on; saved beside its results. Field by field in `hcmi train --help`."""

    output: str = option(
        "run",
        "folder that gets the model, the results, the curves, the log and the checkpoints",
        "runs/hcmi",
        may_differ=True,
    )
    resume: str = option(
        "run",
        "auto goes on from the newest whole checkpoint in the output folder, or begins where there is none; none "
        "refuses a folder that holds a run; or the folder of one of its checkpoints",
        "auto",
        may_differ=True,
    )
    checkpoint_every: int = option(
        "run",
        "steps between two checkpoints within an epoch; 0: only at the end of each",
        500,
        may_differ=True,
        least=0,
    )
    keep_checkpoints: int = option(
        "run", "newest checkpoints that are kept, beside the best model", 2, may_differ=True, least=1
    )
    seed: int = option("run", "of the initial weights, the order of the videos, and the frames and captions drawn", 0)
    tracker: str = option(
        "run",
        "where losses, rates and validations go besides the history file; wandb is Weights & Biases",
        "tensorboard",
        may_differ=True,
        choices=TRACKERS,
    )
    processes: int | None = option(
        "run",
        "training processes that have to take part; default: as many as the launcher starts",
        None,
        may_differ=True,
        least=1,
    )
    push_to_hub: str | None = option("run", "publish the run under this name, OWNER/NAME", None, may_differ=True)
    private: bool = option("run", "what is published is seen by its owner only", False, may_differ=True)
    cpu: bool = option("run", "stay on the CPU even where a GPU is at hand", False, may_differ=True)
    cpu_threads: int | None = option(
        "run",
        "threads of each process on the CPU; default: the usable cores, shared among the machine's processes",
        None,
        may_differ=True,
        least=1,
    )

    benchmark: str = option("data", "name of the benchmark", "shape_stories")
    annotations: str | None = option(
        "data",
        "folder with the benchmark's annotation files, or hf://owner/name for a copy on the Hub; "
        "default: the built-in benchmark's place in the cache",
        None,
        may_differ=True,
    )
    videos: str | None = option(
        "data", "folder with the video files; default: that of the annotations", None, may_differ=True
    )
    protocol: str | None = option("data", "of the benchmark, such as 1k-A-9k; default: its first", None)
    allow_missing: bool = option(
        "data", "go on without missing videos, and with other counts than the protocol's: the result says so", False
    )
    frames_per_video: int = option("data", "frames that the model sees of a video", 12, least=1)
    max_words: int | None = option("data", "tokens of a text; longer ones are cut. Default: what the model takes", None)
    candidate_frames: int = option(
        "data",
        "draw the frames of training and validation among the middle frames of so many segments of each video; "
        "0 draws among all frames",
        0,
    )
    frame_store: str = option(
        "data",
        "decode the candidate frames once, before training, and keep them: raw is exact, jpeg smaller; "
        "`hcmi data prepare` does it beforehand",
        "none",
        choices=FRAME_STORES,
    )
    frame_folder: str | None = option(
        "data",
        "where kept frames are; default: beside the data set's cache, as for `hcmi data prepare`",
        None,
        may_differ=True,
    )
    num_workers: int | None = option(
        "data",
        "processes that read videos beside each training process; default: none on the CPU; with a GPU, the cores "
        "that are left, up to 16",
        None,
        may_differ=True,
        least=0,
    )
    reader_timeout: float = option(
        "data", "seconds that such a process may take for one video; 0: any time", 300.0, may_differ=True, least=0
    )
    unreadable: str = option(
        "data", "a video that cannot be read ends the run, or another takes its place", "refuse", choices=UNREADABLE
    )
    max_unreadable: int = option("data", "with skip: so many videos at the most, more end the run", 10, least=0)

    model: str | None = option("model", "a CLIP or HCMI checkpoint to start from: folder or Hub name", None)
    model_config: str | None = option("model", "instead: JSON file with an HCMIConfig, trained from scratch", None)
    config_overrides: dict = option("model", 'fields of HCMIConfig to set, e.g. {"label_denoising": false}', {})
    vocabulary: int = option("model", "from scratch only: size of the tokenizer trained on the captions", 400)
    lora_rank: int = option(
        "model", "train low-rank adapters in the towers instead of the towers; 0: none; needs peft", 0, least=0
    )
    freeze: list = option("model", "parts that stay as they are: towers, hierarchy", [], choices=FREEZABLE)

    epochs: int = option("optimisation", "passes over the training captions, or videos", 5, least=1)
    epoch_over: str = option(
        "optimisation",
        "what an epoch goes through: captions, each with its video, or videos, each with one of its captions at random",
        "captions",
        choices=EPOCHS_OVER,
    )
    batch_size: int = option("optimisation", "pairs of caption and video a step, over all processes", 128, least=1)
    accumulation_steps: int = option("optimisation", "batches an update, each with its own negatives", 1, least=1)
    chunk_size: int = option(
        "optimisation",
        "pairs that a process encodes at a time, with all of the batch as negatives (gradient caching): large batches "
        "on little memory, for a second encoding; 0: all at once",
        0,
        least=0,
    )
    ema_decay: float = option(
        "optimisation",
        "validate and keep an exponential average of the weights with this decay; 0: none",
        0.0,
        least=0,
        below=1,
    )
    learning_rate: float = option("optimisation", "highest rate of the new layers, and of adapters", 1e-4, least=0)
    tower_learning_rate: float = option("optimisation", "highest rate of CLIP's towers", 1e-7, least=0)
    warmup_share: float = option(
        "optimisation", "part of all steps in which the rates rise; then a cosine to 0", 0.1, least=0, below=1
    )
    weight_decay: float = option("optimisation", "of all weights but biases and norms", 0.2, least=0)
    max_gradient_norm: float = option("optimisation", "longer gradients are scaled down to this", 1.0)
    denoising_start: float = option(
        "optimisation",
        "part of all epochs before label denoising begins: video vectors of a model from scratch mean nothing at first",
        0.0,
        least=0,
        below=1,
    )
    mixed_precision: str | None = option(
        "optimisation",
        "of the encoders; default: what accelerate launch says, else none",
        None,
        choices=MIXED_PRECISIONS,
    )
    gradient_checkpointing: bool = option(
        "optimisation", "save memory: layers are computed again in the backward", False, may_differ=True
    )
    attention: str | None = option(
        "optimisation",
        "how attention is computed in training; the flash ones need a GPU, a package of their own and mixed precision. "
        "Default: sdpa, PyTorch's own",
        None,
        may_differ=True,
        choices=ATTENTION,
    )
    compile: bool = option(
        "optimisation",
        "torch.compile of the encoders in the training step: the first steps are slow, the others may be faster",
        False,
        may_differ=True,
    )

    choose: str = option(
        "evaluation",
        "the model that is kept: of the epoch that is best on the validation split, whose videos are then never "
        "trained on, or of the last epoch, without validation",
        "validation",
        choices=CHOICES,
    )
    evaluation_batch_size: int = option(
        "evaluation", "videos, and texts, encoded at once", 64, may_differ=True, least=1
    )

    def __post_init__(self) -> None:
        for entry in fields(self):
            setattr(self, entry.name, checked(entry, getattr(self, entry.name)))
        if not self.max_gradient_norm > 0:
            raise ValueError(f"max_gradient_norm must be positive, not {self.max_gradient_norm}")
        if (self.model is None) == (self.model_config is None):
            raise ValueError(
                "give either `model` (a checkpoint) or `model_config` (a JSON file, to train from scratch)"
            )
        if self.model_config is not None:
            # So that the saved file means the same one, wherever it lies.
            self.model_config = os.path.abspath(self.model_config)
        if self.candidate_frames and self.candidate_frames < self.frames_per_video:
            raise ValueError(
                f"candidate_frames must be 0 or at least frames_per_video ({self.frames_per_video}), "
                f"not {self.candidate_frames}"
            )
        if self.frame_store != "none" and not self.candidate_frames:
            raise ValueError("frame_store needs candidate_frames, the number of frames to keep of each video")
        if self.frame_folder is not None and self.frame_store == "none":
            raise ValueError("frame_folder needs frame_store, what to keep there: raw or jpeg")

    def settings(self) -> dict[str, Any]:
        """The fields that make a run what it is: a resumed one has to have the same."""
        return {entry.name: getattr(self, entry.name) for entry in fields(self) if not entry.metadata["may_differ"]}

    def save(self, path: Path) -> None:
        """As a YAML file that `--config` takes."""
        path.write_text(yaml.safe_dump(asdict(self), sort_keys=False))
