"""The training run: epochs over pairs, validation after each, the best model tested once at the end."""

import signal
import time
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
from hcmi.processing import HCMIProcessor

from .arguments import TrainingArguments
from .building import build, parameter_groups
from .checkpoints import save_model
from .curves import draw_curves
from .data.benchmarks import BENCHMARKS, load_benchmark
from .data.frame_sources import FileFrames, FrameSource, PreparedFrames
from .data.pairs import PairCollator, TrainingPairs
from .data.prepared_frames import prepare_frames
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
    started = time.perf_counter()
    output = Path(arguments.output)
    accelerator = _accelerator(arguments)
    set_seed(arguments.seed)
    with accelerator.main_process_first():
        training = load_benchmark(arguments.benchmark, "train", arguments.data)
        validation = load_benchmark(arguments.benchmark, "validation", arguments.data)
        testing = load_benchmark(arguments.benchmark, "test", arguments.data)
    captions = training["captions"]
    model, processor = build(arguments, (caption for own in captions for caption in own))
    most_words = min(processor.tokenizer.model_max_length, model.config.text_config.max_position_embeddings)
    max_words = most_words if arguments.max_words is None else arguments.max_words
    if not 3 <= max_words <= most_words:
        raise ValueError(f"max_words must lie in 3..{most_words} for this model, not {max_words}")
    # Saved with the model, as frames_per_video is: whoever loads it cuts texts where the training did.
    processor.tokenizer.model_max_length = max_words
    sources = {}
    for name, dataset in (("train", training), ("validation", validation)):
        with accelerator.main_process_first():
            sources[name] = _frame_source(dataset, processor, arguments)

    pairs = TrainingPairs(captions, sources["train"], arguments.seed)
    if len(pairs) < arguments.batch_size:
        raise ValueError(f"batch_size ({arguments.batch_size}) exceeds the number of training videos ({len(pairs)})")
    loader: Any = DataLoader(
        pairs,
        batch_size=arguments.batch_size,
        shuffle=True,
        drop_last=True,
        collate_fn=PairCollator(processor.tokenizer, arguments.frames_per_video, max_words),
        num_workers=arguments.num_workers,
    )
    optimizer: Any = torch.optim.AdamW(parameter_groups(model, arguments), betas=(0.9, 0.98), eps=1e-6, fused=True)
    steps = arguments.epochs * len(loader)
    schedule: Any = get_cosine_schedule_with_warmup(optimizer, round(arguments.warmup_share * steps), steps)
    encoder, optimizer, loader, schedule = accelerator.prepare(PairEncoder(model), optimizer, loader, schedule)

    history = None
    if accelerator.is_main_process:
        output.mkdir(parents=True, exist_ok=True)
        arguments.save(output / "arguments.yaml")
        history = History(output / "history.jsonl")
    accelerator.init_trackers("tensorboard" if arguments.tracker == "tensorboard" else "none")
    run = _Run(arguments, accelerator, encoder, model, processor, optimizer, schedule, history, output)
    options = {"batch_size": arguments.evaluation_batch_size, "max_words": max_words, "accelerator": accelerator}
    best, best_epoch = -1.0, 0
    try:
        with tqdm(total=steps, desc="training", disable=not accelerator.is_main_process) as bar:
            for epoch in range(arguments.epochs):
                loader.set_epoch(epoch)
                mining = model.config.label_denoising and epoch >= arguments.denoising_start * arguments.epochs
                pairs.begin_epoch(epoch, views=2 if mining else 1)
                run.epoch(loader, training["video_id"], bar)
                measured = evaluate(model, processor, validation, frames_for=sources["validation"], **options)
                recall = {level: _recall(measured, level) for level in (*LEVELS, "combined")}
                accelerator.log({f"validation/recall_at_1/{level}": value for level, value in recall.items()}, run.step)
                if history is not None:
                    history.add(
                        "epoch", epoch=epoch + 1, step=run.step, recall_at_1=recall, seconds=measured["seconds"]
                    )
                    shown = ", ".join(f"{level.replace('_', '-')} {value:.1f}" for level, value in recall.items())
                    tqdm.write(f"epoch {epoch + 1}/{arguments.epochs}: validation R@1 {shown}")
                if recall["combined"] > best:
                    best, best_epoch = recall["combined"], epoch + 1
                    if accelerator.is_main_process:
                        save_model(model, processor, output / "model")
    except KeyboardInterrupt:
        if accelerator.is_main_process:
            # Launchers pass on a Ctrl-C that the terminal has sent to every process already: saving must survive it.
            handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
            try:
                save_model(model, processor, output / "interrupted")
            finally:
                signal.signal(signal.SIGINT, handler)
            tqdm.write(f"interrupted at step {run.step}: the model as it stands is in {output / 'interrupted'}")
        raise

    accelerator.wait_for_everyone()
    trained = time.perf_counter() - started
    best_model = HCMIModel.from_pretrained(output / "model").to(accelerator.device)
    measured = evaluate(
        best_model,
        processor,
        testing,
        num_frames=arguments.frames_per_video,
        num_workers=arguments.num_workers,
        **options,
    )
    accelerator.end_training()
    if history is None:
        return None
    result = complete_result(
        measured,
        model=str(output / "model"),
        benchmark=arguments.benchmark,
        split="test",
        protocol=BENCHMARKS[arguments.benchmark].protocol,
        seed=arguments.seed,
        device=accelerator.device,
        dtype=best_model.dtype,
    )
    result["training"] = {
        "epochs": arguments.epochs,
        "chosen_epoch": best_epoch,
        "chosen_by": "validation text-to-video R@1 of the combined levels",
        "validation_recall_at_1": best,
        "steps": run.step,
        "processes": accelerator.num_processes,
        "parameters": sum(p.numel() for p in best_model.parameters()),
        "seconds": trained,
    }
    result_file = save_result(result, output / "result.json")
    curves = output / "curves.png"
    draw_curves(
        history.of_kind("step"), history.of_kind("epoch"), curves, f"{arguments.benchmark}, seed {arguments.seed}"
    )
    return TrainingOutcome(output / "model", result_file, curves, history.path, result)


@dataclass
class _Run:
    """The state of a run between steps."""

    arguments: TrainingArguments
    accelerator: Accelerator
    encoder: Any
    model: HCMIModel
    processor: HCMIProcessor
    optimizer: Any
    schedule: Any
    history: History | None
    output: Path
    step: int = 0

    def epoch(self, loader: Any, video_ids: Any, bar: tqdm) -> None:
        """All batches of one epoch."""
        self.model.train()
        sums: dict[str, float] = {}
        count, since = 0, time.perf_counter()
        for index, batch in enumerate(loader, start=1):
            objective = self._step(batch, video_ids)
            parts = {part: getattr(objective, part) for part in ("loss", *PARTS)}
            values = {part: float(value.detach()) for part, value in parts.items() if value is not None}
            sums = {part: sums.get(part, 0.0) + value for part, value in values.items()}
            count += 1
            if self.step % _RECORD_EVERY == 0 or index == len(loader):
                rate = max(self.schedule.get_last_lr())
                speed = count * self.arguments.batch_size / (time.perf_counter() - since)
                self._record({part: value / count for part, value in sums.items()}, rate, speed, bar)
                sums, count, since = {}, 0, time.perf_counter()
            bar.update()

    def _step(self, batch: dict[str, torch.Tensor], video_ids: Any) -> HCMIObjective:
        text, video, second, scale = self.encoder(batch)
        second = None if second is None else gather(second)
        rows = gather(batch["video_ids"])
        objective = hcmi_objective(
            gather_features(text), gather_features(video), scale, self.model.config, second, rows
        )
        self.step += 1
        if not torch.isfinite(objective.loss):
            names = ", ".join(str(video_ids[row]) for row in rows.tolist())
            raise NonFiniteLossError(
                f"the loss is {objective.loss.item()} at step {self.step}. Videos of this batch: {names}. "
                "Lower learning_rate, or look at these files."
            )
        self.optimizer.zero_grad()
        self.accelerator.backward(objective.loss)
        self.accelerator.clip_grad_norm_(self.encoder.parameters(), self.arguments.max_gradient_norm)
        self.optimizer.step()
        self.schedule.step()
        return objective

    def _record(self, means: dict[str, float], rate: float, speed: float, bar: tqdm) -> None:
        shown = {"loss": f"{means['loss']:.2f}"}
        shown |= {part.replace("_", "-"): f"{means[part]:.2f}" for part in PARTS if part in means}
        bar.set_postfix(shown | {"lr": f"{rate:.1e}", "videos/s": f"{speed:.0f}"}, refresh=False)
        self.accelerator.log(
            {f"training/{part}": value for part, value in means.items()} | {"learning_rate": rate}, self.step
        )
        if self.history is not None:
            self.history.add("step", step=self.step, **means, learning_rate=rate, videos_per_second=speed)


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


def _frame_source(dataset: Any, processor: HCMIProcessor, arguments: TrainingArguments) -> FrameSource:
    if not arguments.candidate_frames:
        return FileFrames(processor, dataset, arguments.frames_per_video)
    folder = Path(dataset.cache_files[0]["filename"]).parent
    prepared = prepare_frames(dataset, processor, arguments.candidate_frames, folder, max(1, arguments.num_workers))
    return PreparedFrames(prepared, arguments.frames_per_video)


def _recall(measured: dict[str, Any], level: str) -> float:
    return measured["levels"][level]["text_to_video"]["R@1"]
