"""Going on with an interrupted run: where it stands, whether it is still the same run, and how to start it again."""

import json
import shlex
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import RNG_STATE_NAME, SAFE_WEIGHTS_NAME, broadcast_object_list, set_seed
from safetensors.torch import load_model

from hcmi.modeling_hcmi import HCMIModel
from hcmi.processing import HCMIProcessor

from .arguments import TrainingArguments
from .checkpoints import Checkpoints, damage_of, recover_model
from .cores import local_processes
from .tracking import WANDB_ID

_RUN = "run.json"  # in a checkpoint: what the run is
_RESULTS = ("model", "result.json")
_FILES = (
    "arguments.yaml", "history.jsonl", "checkpoints", "tensorboard", WANDB_ID, "wandb", "curves.png", *_RESULTS
)  # fmt: skip
# Of a model's configuration: where it comes from, not what it is.
_PROVENANCE = ("transformers_version", "_name_or_path", "architectures", "dtype")


@dataclass
class Progress:
    """
    Where a run stands, beside the weights, the optimizer and the random states.

    Attributes:
        epoch: the one in progress, counted from 0.
        batch: batches of this epoch that are done; when all are, its validation is not.
        steps: batches of all epochs that are done.
        sums, count: of the steps since the last record.
        history: bytes of the history file.
        best_recall, kept_epoch: of the model in the output folder; the epoch counted from 1, 0 for none.
        seconds: that the run has taken so far.
        unreadable: videos that could not be read, and why.
    """

    epoch: int = 0
    batch: int = 0
    steps: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    count: int = 0
    history: int = 0
    best_recall: float = -1.0
    kept_epoch: int = 0
    seconds: float = 0.0
    unreadable: dict[str, str] = field(default_factory=dict)

    def state_dict(self) -> dict[str, Any]:
        """All of it, as `load_state_dict` takes it."""
        return asdict(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Stands there."""
        for name, value in state.items():
            setattr(self, name, value)


class Resuming:
    """
    The connection of a run to the checkpoints in its output folder. Every method is called in all processes.

    Args:
        arguments: of the run.
        accelerator: of this process.

    Attributes:
        start: the checkpoint that the run goes on from; `None`: it begins.

    Raises:
        ValueError: `resume` does not fit what the output folder holds, or the settings are not those of its run.
    """

    def __init__(self, arguments: TrainingArguments, accelerator: Accelerator) -> None:
        self.arguments = arguments
        self.accelerator = accelerator
        self.output = Path(arguments.output)
        self.checkpoints = Checkpoints(self.output / "checkpoints", arguments.keep_checkpoints, accelerator)
        # What the launcher says counts where the arguments say nothing.
        self.settings = arguments.settings() | {"mixed_precision": accelerator.mixed_precision}
        self.start: Path | None = decided_by_one(accelerator, self._starting_point)

    def begin(self, model: HCMIModel, processor: HCMIProcessor, progress: Progress, data: str) -> None:
        """
        Sets everything that the accelerator has prepared, and `progress`, to where the run goes on, and makes the
        output folder ready.

        Args:
            model: that is trained, as it is inside what was prepared.
            processor: its.
            progress: of this run; kept in its checkpoints from now on.
            data: a fingerprint of what is trained on.

        Raises:
            ValueError: the data or the model's configuration are not those of the run that is gone on with.
        """
        configuration = json.loads(model.config.to_json_string(use_diff=False))
        for name in _PROVENANCE:
            configuration.pop(name, None)
        self.run = {"settings": self.settings, "data": data, "model": configuration}
        self.model, self.processor, self.progress = model, processor, progress
        self.accelerator.register_for_checkpointing(progress)
        self.accelerator.register_save_state_pre_hook(self._save_model)
        self.accelerator.register_load_state_pre_hook(self._load_model)
        decided_by_one(self.accelerator, self._clear)
        if self.start is None:
            return
        self.accelerator.load_state(str(self.start))
        process = self.accelerator.process_index
        if not (self.start / f"{RNG_STATE_NAME}_{process}.pkl").is_file():
            # A process that was not there before: with random numbers of its own.
            set_seed((self.arguments.seed + progress.steps + process) % 2**32)

    def save(self) -> str | None:
        """Writes a checkpoint; why that was not possible, or `None`."""
        return self.checkpoints.write(self.progress.steps, lambda folder: self.accelerator.save_state(str(folder)))

    @property
    def command(self) -> str:
        """What goes on with this run, in a shell in the same folder."""
        processes = self.accelerator.num_processes
        words = ["hcmi", "train"]
        if processes > 1:
            local = local_processes(processes)
            words = ["torchrun", "--nproc_per_node", str(local), str(Path(__file__).with_name("run.py"))]
            if processes > local:
                words[1:1] = ["--nnodes", str(processes // local)]
        words += ["--config", str(self.output / "arguments.yaml")]
        if self.arguments.mixed_precision != self.accelerator.mixed_precision != "no":
            words += ["--mixed_precision", self.accelerator.mixed_precision]
        return shlex.join(words + (["--resume", "auto"] if self.arguments.resume != "auto" else []))

    def _starting_point(self) -> Path | None:
        arguments = self.arguments
        there = [name for name in _FILES if (self.output / name).exists()]
        if arguments.resume == "none":
            if there:
                raise ValueError(
                    f"the output folder {self.output} holds a run ({', '.join(there)}): go on with it (resume: auto), "
                    "or name another folder"
                )
            return None
        start = self.checkpoints.newest_good() if arguments.resume == "auto" else self._named(Path(arguments.resume))
        if start is not None:
            _require_same(self.output, self.settings, _run_of(start)["settings"], "the settings")
        elif self.checkpoints.all() or any(name in there for name in _RESULTS):
            raise ValueError(
                f"the output folder {self.output} holds a run ({', '.join(there)}) and no whole checkpoint to go on "
                "from: name another folder, or move these away"
            )
        return start

    def _named(self, folder: Path) -> Path:
        if folder.resolve().parent != self.checkpoints.folder.resolve():
            raise ValueError(f"resume: {folder} is no checkpoint of this run; they are in {self.checkpoints.folder}")
        if damage := damage_of(folder):
            raise ValueError(f"resume: the checkpoint {folder} is damaged: {damage}")
        return self.checkpoints.folder / folder.name

    def _clear(self) -> None:
        """Leaves in the output folder what the run goes on from, and nothing else of a run."""
        if self.start is not None:
            run = _run_of(self.start)
            if self.run["data"] != run["data"]:
                raise ValueError(
                    f"the training videos, their order or their captions have changed since the run in {self.output} "
                    "began. Going on would be another run: bring them back, or name another output folder"
                )
            _require_same(self.output, self.run["model"], run["model"], "the fields of the model's configuration")
            self.checkpoints.discard_after(self.start)
            recover_model(self.output / "model")
            return
        for path in (self.output / name for name in _FILES):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def _save_model(self, models: list, weights: list, folder: str) -> None:
        # As `save_model` does it, so that a checkpoint is a model too; and without the names that wrappers add.
        # (Weights shared out to several processes are not in this list: accelerate saves them in its own way.)
        if weights:
            weights[:] = [self.model.state_dict()]
        if self.accelerator.is_main_process:
            self.model.config.save_pretrained(folder)
            self.processor.save_pretrained(folder)
            (Path(folder) / _RUN).write_text(json.dumps(self.run))

    def _load_model(self, models: list, folder: str) -> None:
        if models:
            models.clear()
            load_model(self.model, Path(folder) / SAFE_WEIGHTS_NAME)


def _run_of(checkpoint: Path) -> dict[str, Any]:
    return json.loads((checkpoint / _RUN).read_text())


def _require_same(output: Path, now: Mapping[str, Any], then: Mapping[str, Any], what: str) -> None:
    now = json.loads(json.dumps(now))  # as they were saved
    if changed := [name for name in {**then, **now} if then.get(name) != now.get(name)]:
        shown = ", ".join(f"{name} (was {then.get(name)!r}, is {now.get(name)!r})" for name in changed)
        raise ValueError(
            f"{what} are not those of the run in {output}: {shown}. Going on would be another run: set them back, or "
            "name another output folder"
        )


def decided_by_one(accelerator: Accelerator, decide: Callable[[], Any]) -> Any:
    """What the main process alone finds, in all processes; also its error."""
    found: list[Any] = [None, None]
    if accelerator.is_main_process:
        try:
            found[0] = decide()
        except (ValueError, OSError) as error:
            found[1] = error
    broadcast_object_list(found)
    if found[1] is not None:
        raise found[1]
    return found[0]
