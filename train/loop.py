"""The training run: epochs over pairs, validation after each, the best model tested once at the end."""

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DataLoaderConfiguration, DistributedDataParallelKwargs
from accelerate.utils import set_seed
from torch import nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import get_cosine_schedule_with_warmup

from hcmi.modeling_hcmi import LEVELS, HCMIModel, HCMIObjective, hcmi_objective

from .arguments import TrainingArguments
from .building import build, parameter_groups
from .checkpoints import save_model
from .cores import usable_cores
from .curves import draw_curves
from .data.benchmark_info import benchmark_info
from .data.benchmarks import load_benchmark
from .data.candidates import DecodedCandidates, PreparedCandidates
from .data.frame_sources import CandidateFrames, FileFrames, FrameSource
from .data.pairs import PairCollator, TrainingPairs
from .data.prepared_frames import frame_folder, prepare_frames
from .evaluation import evaluate
from .history import History
from .negatives import gather, gather_features
from .results import complete_result, save_result

PARTS = (*LEVELS, "marginal", "mined_pairs")
_RECORD_EVERY = 10  # steps


class NonFiniteLossError(ValueError):
    """
    The loss became NaN or infinite; the message names the step and the videos of the batch.

    A `ValueError`, as it follows from the settings or the data: the command line tells it in one line.
    """


@dataclass
class TrainingOutcome:
    """What a run leaves behind."""

    model: Path
    result_file: Path
    curves: Path
    history: Path
    result: dict[str, Any]


class PairEncoder(nn.Module):
    """Both sides of a batch through the model. Data parallelism wraps this: the loss needs all processes' rows."""

    def __init__(self, model: HCMIModel):
        super().__init__()
        self.model = model

    def forward(self, batch: dict[str, torch.Tensor]) -> tuple[Any, Any, torch.Tensor | None, torch.Tensor]:
        """Features of the texts and the videos, the second view's video vectors or `None`, and the logit scale."""
        text = self.model.get_text_features(batch["input_ids"], batch["attention_mask"])
        video = self.model.get_video_features(batch["pixel_values_videos"], batch["video_mask"])
        second = None
        if "second_pixel_values_videos" in batch:
            with torch.no_grad():
                second = self.model.get_video_features(
                    batch["second_pixel_values_videos"], batch["second_video_mask"]
                ).pooler_output
        return text, video, second, self.model.scale()


def train(arguments: TrainingArguments) -> TrainingOutcome | None:
    """
    Runs one training, from data to tested model.

    Interrupted by Ctrl-C it saves the model as it stands to `output/interrupted` and raises `KeyboardInterrupt` on.

    Returns:
        What was left behind; `None` in all processes but the main one.

    Raises:
        ValueError: arguments that do not fit each other or the benchmark.
        VideoReadError: a video cannot be read.
        NonFiniteLossError: the loss is no number any more.
    """
    training = _Training(arguments)
    try:
        training.run_epochs()
    except KeyboardInterrupt:
        training.save_interrupted()
        raise
    return training.test()


class _Training:
    """A run: what it needs, made from its arguments, and where it stands."""

    def __init__(self, arguments: TrainingArguments):
        self.started = time.perf_counter()
        self.arguments = arguments
        self.output = Path(arguments.output)
        self.accelerator = _accelerator(arguments)
        if self.accelerator.device.type == "cpu":
            # Launchers allow a process one thread unless told otherwise.
            local = int(os.environ.get("LOCAL_WORLD_SIZE", self.accelerator.num_processes))
            torch.set_num_threads(arguments.cpu_threads or max(1, usable_cores() // local))
        set_seed(arguments.seed)
        # All splits at once: a missing file is told now and not after hours of training.
        training, self.testing = self._load("train"), self._load("test")
        self.validation = self._load("validation") if arguments.choose == "validation" else None
        rows = _not_validated(training, self.validation)
        self.held_out = len(training) - len(rows)
        captions, self.video_ids = (training.select(rows)[name] for name in ("captions", "video_id"))
        self.model, self.processor = build(arguments, (caption for own in captions for caption in own))

        self.validation_frames = None
        if self.validation is not None:
            self.validation_frames = self._frames(self.validation, range(len(self.validation)))
        self.pairs = TrainingPairs(captions, self._frames(training, rows), arguments.seed, arguments.epoch_over)
        loader = self._loader()
        self.steps = arguments.epochs * len(loader)
        self.steps_done = 0
        optimizer = torch.optim.AdamW(parameter_groups(self.model, arguments), betas=(0.9, 0.98), eps=1e-6, fused=True)
        warmup = round(arguments.warmup_share * self.steps)
        schedule = get_cosine_schedule_with_warmup(optimizer, warmup, self.steps)
        prepared: Any = self.accelerator.prepare(PairEncoder(self.model), optimizer, loader, schedule)
        self.encoder, self.optimizer, self.loader, self.schedule = prepared

        self.best_recall, self.kept_epoch = -1.0, 0
        self.history: History | None = None
        if self.accelerator.is_main_process:
            self.output.mkdir(parents=True, exist_ok=True)
            arguments.save(self.output / "arguments.yaml")
            self.history = History(self.output / "history.jsonl")
        self.accelerator.init_trackers("tensorboard")

    def run_epochs(self) -> None:
        """All epochs; the best model so far on the validation split, or else the last, is in `output/model`."""
        with tqdm(total=self.steps, desc="training", disable=not self.accelerator.is_main_process) as bar:
            for epoch in range(self.arguments.epochs):
                self._epoch(epoch, bar)
                if self.validation is None:
                    self._keep(epoch)
                else:
                    self._validate(epoch)

    def save_interrupted(self) -> None:
        """The model as it stands, to `output/interrupted`."""
        if not self.accelerator.is_main_process:
            return
        # Launchers pass on a Ctrl-C that the terminal has sent to every process already: saving must survive it.
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            save_model(self.model, self.processor, self.output / "interrupted")
        finally:
            signal.signal(signal.SIGINT, handler)
        tqdm.write(f"interrupted at step {self.steps_done}: the model as it stands is in {self.output / 'interrupted'}")

    def test(self) -> TrainingOutcome | None:
        """The best model on the test split, from the video files; writes the result and the curves."""
        self.accelerator.wait_for_everyone()
        trained = time.perf_counter() - self.started
        folder = self.output / "model"
        model = HCMIModel.from_pretrained(folder).to(self.accelerator.device)
        files = {"num_frames": self.arguments.frames_per_video, "num_workers": self.arguments.num_workers}
        measured = self._evaluate(model, self.testing, **files)
        self.accelerator.end_training()
        if self.history is None:
            return None
        result = complete_result(
            measured,
            model=str(folder),
            info=benchmark_info(self.testing),
            seed=self.arguments.seed,
            device=self.accelerator.device,
            dtype=model.dtype,
        )
        result["training"] = {
            "epochs": self.arguments.epochs,
            "videos": len(self.video_ids),
            "pairs": len(self.pairs),
            "held_out": self.held_out,
            **self._choice(),
            "steps": self.steps_done,
            "processes": self.accelerator.num_processes,
            "parameters": sum(p.numel() for p in model.parameters()),
            "seconds": trained,
        }
        curves = self.output / "curves.png"
        title = f"{self.arguments.benchmark}, seed {self.arguments.seed}"
        draw_curves(self.history.of_kind("step"), self.history.of_kind("epoch"), curves, title)
        result_file = save_result(result, self.output / "result.json")
        return TrainingOutcome(folder, result_file, curves, self.history.path, result)

    def _choice(self) -> dict[str, Any]:
        """Which epoch's model was kept, and why."""
        if self.validation is None:
            return {"chosen_epoch": self.kept_epoch, "chosen_by": "fixed beforehand: the last"}
        return {
            "chosen_epoch": self.kept_epoch,
            "chosen_by": "validation text-to-video R@1 of the combined levels",
            "validation_recall_at_1": self.best_recall,
        }

    def _load(self, split: str) -> Any:
        arguments = self.arguments
        with self.accelerator.main_process_first():
            dataset = load_benchmark(
                arguments.benchmark,
                split,
                annotations=arguments.annotations,
                videos=arguments.videos,
                protocol=arguments.protocol,
                allow_missing=arguments.allow_missing,
            )
        self.accelerator.print(benchmark_info(dataset))
        return dataset

    def _frames(self, dataset: Any, rows: Sequence[int]) -> FrameSource:
        """Where the frames of some rows come from: their files, or what is kept of the whole split."""
        arguments = self.arguments
        if not arguments.candidate_frames:
            return FileFrames(self.processor, dataset.select(rows), arguments.frames_per_video)
        candidates: Any
        if arguments.frame_store == "none":
            candidates = DecodedCandidates(self.processor, dataset.select(rows), arguments.candidate_frames)
        else:
            with self.accelerator.main_process_first():
                prepared = prepare_frames(
                    dataset,
                    self.processor,
                    arguments.candidate_frames,
                    Path(arguments.frame_folder) if arguments.frame_folder else frame_folder(dataset),
                    num_workers=usable_cores(),
                    encoding=arguments.frame_store,
                    progress=self.accelerator.is_main_process,
                )
            candidates = PreparedCandidates(prepared.select(rows))
        return CandidateFrames(candidates, arguments.frames_per_video)

    def _loader(self) -> DataLoader:
        if len(self.pairs) < self.arguments.batch_size:
            raise ValueError(
                f"batch_size ({self.arguments.batch_size}) exceeds the number of training pairs ({len(self.pairs)})"
            )
        tokenizer = self.processor.tokenizer
        return DataLoader(
            self.pairs,
            batch_size=self.arguments.batch_size,
            shuffle=True,
            drop_last=True,
            collate_fn=PairCollator(tokenizer, self.arguments.frames_per_video, tokenizer.model_max_length),
            num_workers=self.arguments.num_workers,
        )

    def _epoch(self, epoch: int, bar: tqdm) -> None:
        self.loader.set_epoch(epoch)
        mining = self.model.config.label_denoising and epoch >= self.arguments.denoising_start * self.arguments.epochs
        self.pairs.begin_epoch(epoch, views=2 if mining else 1)
        self.model.train()
        sums: dict[str, float] = {}
        count, since = 0, time.perf_counter()
        for index, batch in enumerate(self.loader, start=1):
            objective = self._step(batch)
            parts = {part: getattr(objective, part) for part in ("loss", *PARTS)}
            values = {part: float(value.detach()) for part, value in parts.items() if value is not None}
            sums = {part: sums.get(part, 0.0) + value for part, value in values.items()}
            count += 1
            if self.steps_done % _RECORD_EVERY == 0 or index == len(self.loader):
                speed = count * self.arguments.batch_size / (time.perf_counter() - since)
                self._record({part: value / count for part, value in sums.items()}, speed, bar)
                sums, count, since = {}, 0, time.perf_counter()
            bar.update()

    def _step(self, batch: dict[str, torch.Tensor]) -> HCMIObjective:
        text, video, second, scale = self.encoder(batch)
        second = None if second is None else gather(second)
        rows = gather(batch["video_ids"])
        objective = hcmi_objective(
            gather_features(text), gather_features(video), scale, self.model.config, second, rows
        )
        self.steps_done += 1
        if not torch.isfinite(objective.loss):
            names = ", ".join(str(self.video_ids[row]) for row in rows.tolist())
            raise NonFiniteLossError(
                f"the loss is {objective.loss.item()} at step {self.steps_done}. Videos of this batch: {names}. "
                "Lower learning_rate, or look at these files."
            )
        self.optimizer.zero_grad()
        self.accelerator.backward(objective.loss)
        self.accelerator.clip_grad_norm_(self.encoder.parameters(), self.arguments.max_gradient_norm)
        self.optimizer.step()
        self.schedule.step()
        return objective

    def _record(self, means: dict[str, float], speed: float, bar: tqdm) -> None:
        rate = max(self.schedule.get_last_lr())
        shown = {"loss": f"{means['loss']:.2f}"}
        shown |= {part.replace("_", "-"): f"{means[part]:.2f}" for part in PARTS if part in means}
        bar.set_postfix(shown | {"lr": f"{rate:.1e}", "videos/s": f"{speed:.0f}"}, refresh=False)
        self.accelerator.log(
            {f"training/{part}": value for part, value in means.items()} | {"learning_rate": rate}, self.steps_done
        )
        if self.history is not None:
            self.history.add("step", step=self.steps_done, **means, learning_rate=rate, videos_per_second=speed)

    def _validate(self, epoch: int) -> None:
        """Measures the model; keeps it if it is the best so far."""
        measured = self._evaluate(self.model, self.validation, frames_for=self.validation_frames, show_progress=False)
        levels = {level: figures["text_to_video"] for level, figures in measured["levels"].items()}
        recall = {level: figures["R@1"] for level, figures in levels.items()}
        self.accelerator.log({f"validation/recall_at_1/{level}": r for level, r in recall.items()}, self.steps_done)
        if self.history is not None:
            seconds = measured["seconds"]
            self.history.add("epoch", epoch=epoch + 1, step=self.steps_done, recall_at_1=recall, seconds=seconds)
            shown = ", ".join(f"{level.replace('_', '-')} {value:.1f}" for level, value in recall.items())
            tqdm.write(f"epoch {epoch + 1}/{self.arguments.epochs}: validation R@1 {shown}")
        if recall["combined"] > self.best_recall:
            self.best_recall = recall["combined"]
            self._keep(epoch)

    def _keep(self, epoch: int) -> None:
        self.kept_epoch = epoch + 1
        if self.accelerator.is_main_process:
            save_model(self.model, self.processor, self.output / "model")

    def _evaluate(self, model: HCMIModel, dataset: Any, **options: Any) -> dict[str, Any]:
        batch_size = self.arguments.evaluation_batch_size
        return evaluate(model, self.processor, dataset, batch_size=batch_size, accelerator=self.accelerator, **options)


def _not_validated(training: Any, validation: Any) -> Sequence[int]:
    """The training rows whose video is not validated on: some lists contain others."""
    held_out = set() if validation is None else set(validation["video_id"])
    return [row for row, video_id in enumerate(training["video_id"]) if video_id not in held_out]


def _accelerator(arguments: TrainingArguments) -> Accelerator:
    return Accelerator(
        cpu=arguments.cpu,
        mixed_precision=arguments.mixed_precision,
        log_with="tensorboard" if arguments.tracker == "tensorboard" else None,
        project_dir=arguments.output,
        dataloader_config=DataLoaderConfiguration(split_batches=True, use_seedable_sampler=True),
        # A level that weighs nothing leaves its token weights without a gradient.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
