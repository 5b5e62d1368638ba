"""The training run: epochs over pairs, validation after each, the best model tested once at the end."""

import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import DistributedType
from accelerate.utils import set_seed
from tqdm.auto import tqdm

from hcmi.modeling_hcmi import HCMIModel, HCMIObjective

from .accelerating import make_accelerator
from .arguments import TrainingArguments
from .attention import evaluation_attention
from .building import build, build_step
from .choosing import ModelChoice
from .curves import draw_curves
from .data.unreadable import UnreadableVideos
from .ema import ExponentialAverage
from .history import History
from .interruption import Interruption
from .lora import merged
from .publishing import create_repository
from .recording import Recorder
from .results import save_result
from .resuming import Progress, Resuming, decided_by_one
from .run_data import RunData
from .run_evaluation import RunEvaluation
from .sharding import whole
from .step import NonFiniteLossError
from .tracking import Tracker, require_tracker

_RECORD_EVERY = 10  # steps


@dataclass
class TrainingOutcome:
    """What a run leaves behind."""

    model: Path
    result_file: Path
    curves: Path
    history: Path
    result: dict[str, Any]


def train(arguments: TrainingArguments) -> TrainingOutcome | None:
    """
    Runs one training, from data to tested model; or the rest of one, see `resuming`.

    Interrupted by Ctrl-C it ends the step, writes a checkpoint, tells the command that goes on from there, and raises
    `KeyboardInterrupt` on.

    Returns:
        What was left behind; `None` in all processes but the main one.

    Raises:
        ValueError: arguments that do not fit each other, the machine, the benchmark, or the run in the output folder.
        VideoReadError: a video cannot be read.
        ChildProcessError: a process that reads videos died, or took too long for one.
        NonFiniteLossError: the loss is no number any more.
        OSError: the model cannot be written. A checkpoint that cannot be is told, and the training goes on.
    """
    training = _Training(arguments)
    try:
        training.run_epochs()
    except KeyboardInterrupt:
        training.tell_interrupted()
        raise
    return training.test()


class _Training:
    """A run: what it needs, made from its arguments, and where it stands."""

    def __init__(self, arguments: TrainingArguments):
        self.started = time.perf_counter()
        self.arguments = arguments
        self.output = Path(arguments.output)
        require_tracker(arguments.tracker)
        self.accelerator = make_accelerator(arguments)
        if name := arguments.push_to_hub:
            # A name or a token that will not do is told now and not after hours of training.
            decided_by_one(self.accelerator, lambda: create_repository(name, private=arguments.private))
        set_seed(arguments.seed)
        self.resuming = Resuming(arguments, self.accelerator)
        self.data = RunData(arguments, self.accelerator)
        self.model, self.processor = build(arguments, (caption for own in self.data.captions for caption in own))
        self.evaluation = RunEvaluation(arguments, self.accelerator, self.data, self.processor)
        self.unreadable = UnreadableVideos(self.data.video_ids, arguments.unreadable, arguments.max_unreadable)
        self.batches = self.data.training_batches(self.processor, self.unreadable)
        self.steps = arguments.epochs * len(self.batches)
        self.step = build_step(self.model, self.accelerator, arguments, len(self.batches))
        self.average: ExponentialAverage | None = None
        if arguments.ema_decay:
            self.average = ExponentialAverage(self.model, arguments.ema_decay)
            self.accelerator.register_for_checkpointing(self.average)

        self.progress = Progress()
        self.resuming.begin(self.model, self.processor, self.progress, self.data.fingerprint())
        self.unreadable.found.update(self.progress.unreadable)
        self.seconds_before = self.progress.seconds
        self.choice = ModelChoice(self.output / "model", self.processor, self.accelerator, self.progress)
        self.history: History | None = None
        if self.accelerator.is_main_process:
            self.output.mkdir(parents=True, exist_ok=True)
            arguments.save(self.output / "arguments.yaml")
            self.history = History(self.output / "history.jsonl", self.progress.history)
        self.tracker: Tracker | None = None
        decided_by_one(self.accelerator, self._begin_tracking)

    def run_epochs(self) -> None:
        """All epochs; the best model so far on the validation split, or else the last, is in `output/model`."""
        progress, epochs = self.progress, self.arguments.epochs
        if self.resuming.start is not None:
            self.accelerator.print(f"going on from {self.resuming.start}: {progress.steps} of {self.steps} steps")
        self.accelerator.print(f"if this run is interrupted, go on with\n  {self.resuming.command}")
        quiet = not self.accelerator.is_main_process
        with (
            tqdm(total=self.steps, initial=progress.steps, desc="training", disable=quiet) as bar,
            Interruption(self.accelerator) as interruption,
        ):
            self.recorder = Recorder(self.tracker, self.history, progress, bar, self.arguments.batch_size)
            while progress.epoch < epochs:
                if progress.batch < len(self.batches):
                    self._epoch(interruption)
                averaged = nullcontext() if self.average is None else self.average.applied()
                with interruption.at_once(), averaged, evaluation_attention(self.model):
                    model = self._plain_model()
                    self.choice.offer(model, self._validated(model))
                progress.epoch, progress.batch = progress.epoch + 1, 0
            if interruption.requested():
                raise KeyboardInterrupt

    def tell_interrupted(self) -> None:
        """Where the run stands, and how it goes on."""
        checkpoints = self.resuming.checkpoints.all()
        there = f"from {checkpoints[-1]}" if checkpoints else "from the beginning: there is no checkpoint yet"
        if self.accelerator.is_main_process:
            tqdm.write(f"interrupted after step {self.progress.steps}; this goes on {there}\n  {self.resuming.command}")

    def test(self) -> TrainingOutcome | None:
        """The best model on the test split, from the video files; writes the result and the curves."""
        self.accelerator.wait_for_everyone()
        folder = self.output / "model"
        result = self.evaluation.test(folder, self.batches.num_workers, self._summary())
        self.accelerator.end_training()
        if self.history is None:
            return None
        curves, title = self.output / "curves.png", f"{self.arguments.benchmark}, seed {self.arguments.seed}"
        draw_curves(self.history.of_kind("step"), self.history.of_kind("epoch"), curves, title)
        result_file = save_result(result, self.output / "result.json")
        return TrainingOutcome(folder, result_file, curves, self.history.path, result)

    def _begin_tracking(self) -> None:
        if self.arguments.tracker != "none":
            self.tracker = Tracker(self.accelerator, self.arguments, self.progress.steps)

    def _epoch(self, interruption: Interruption) -> None:
        """The epoch's steps that are not done yet, and a checkpoint after the last."""
        progress, every = self.progress, self.arguments.checkpoint_every
        begun = progress.epoch >= self.arguments.denoising_start * self.arguments.epochs
        views = 2 if self.model.config.label_denoising and begun else 1
        self.model.train()
        self.recorder.start_clock()
        with self.batches.epoch(progress.epoch, views, skip=progress.batch) as batches:
            for batch in batches:
                last = progress.batch + 1 == len(self.batches)
                self.recorder.add(self._take(batch, last))
                del batch  # the next one shall not need memory beside it
                if last or progress.steps % _RECORD_EVERY == 0:
                    self.recorder.record(max(self.step.schedule.get_last_lr()), self.batches.clock.share("record"))
                if self.step.between_updates:
                    continue  # a checkpoint would lose the gradients that wait
                interrupted = interruption.requested()
                if interrupted or last or (every and progress.steps % every < self.arguments.accumulation_steps):
                    self._checkpoint()
                if interrupted:
                    raise KeyboardInterrupt
        self.recorder.waited(progress.epoch, self.arguments.epochs, self.batches.clock.share("epoch"))

    def _take(self, batch: dict[str, torch.Tensor], last: bool) -> HCMIObjective:
        """One step."""
        try:
            objective = self.step(batch, last=last)
        except NonFiniteLossError as error:
            names = ", ".join(str(self.data.video_ids[row]) for row in error.rows)
            raise NonFiniteLossError(
                f"{error} at step {self.progress.steps + 1}. Videos of this batch: {names}. Lower learning_rate, or "
                "look at these files.",
                error.rows,
            ) from error
        self.progress.batch, self.progress.steps = self.progress.batch + 1, self.progress.steps + 1
        if self.average is not None and not self.step.between_updates:
            self.average.update()
        return objective

    def _checkpoint(self) -> None:
        """Those of an epoch's end come before its validation: a resumed run validates, and keeps, the same weights."""
        self.unreadable.share(self.accelerator)
        self.progress.seconds, self.progress.unreadable = self._seconds(), dict(self.unreadable.found)
        if self.history is not None:
            self.progress.history = self.history.secure()
        failure = self.resuming.save()
        if failure and self.accelerator.is_main_process:
            tqdm.write(f"the checkpoint after step {self.progress.steps} could not be written: {failure}")
        self.recorder.start_clock()

    def _plain_model(self) -> HCMIModel:
        """The model as it is saved: whole where processes share its weights, adapters folded in."""
        sharded = self.accelerator.distributed_type == DistributedType.FSDP
        return merged(whole(self.model) if sharded else self.model)

    def _validated(self, model: HCMIModel) -> float | None:
        """R@1 of a model on the validation split, if there is one."""
        measured = self.evaluation.validate(model)
        if measured is None:
            return None
        return self.recorder.validated(self.progress.epoch, self.arguments.epochs, measured)["combined"]

    def _summary(self) -> dict[str, Any]:
        """What the training took, for the result."""
        return {
            "epochs": self.arguments.epochs,
            "videos": len(self.data.video_ids),
            "pairs": len(self.batches.pairs),
            "held_out": self.data.held_out,
            **self.choice.summary(),
            "unreadable": self.unreadable.summary(),
            "steps": self.progress.steps,
            "processes": self.accelerator.num_processes,
            "seconds": self._seconds(),
        }

    def _seconds(self) -> float:
        return self.seconds_before + time.perf_counter() - self.started
