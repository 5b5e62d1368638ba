"""The videos of a run: which ones it trains on, chooses by and is tested on, and where their frames come from."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from hcmi.processing import HCMIProcessor

from .arguments import TrainingArguments
from .cores import usable_cores
from .data.benchmark_info import benchmark_info
from .data.benchmarks import load_benchmark
from .data.candidates import DecodedCandidates, PreparedCandidates
from .data.frame_sources import CandidateFrames, FileFrames, FrameSource
from .data.loading import TrainingBatches
from .data.pairs import PairCollator, TrainingPairs
from .data.prepared_frames import frame_folder, prepare_frames
from .data.unreadable import UnreadableVideos


class RunData:
    """
    All splits of a run's benchmark. Made at once: a missing file is told before the training, not after hours of it.

    Args:
        arguments: of the run.
        accelerator: of this process; its main process makes what is not there yet.

    Attributes:
        testing, validation: the data sets; no validation where the last epoch is chosen.
        captions, video_ids, files: of each row that is trained on.
        held_out: rows of the training split that are not trained on, as their videos choose the model.

    Raises:
        ValueError: the benchmark is not whole, or has no such split.
    """

    def __init__(self, arguments: TrainingArguments, accelerator: Accelerator) -> None:
        self.arguments = arguments
        self.accelerator = accelerator
        self._training, self.testing = self._load("train"), self._load("test")
        self.validation = self._load("validation") if arguments.choose == "validation" else None
        self._rows = _not_validated(self._training, self.validation)
        self.held_out = len(self._training) - len(self._rows)
        columns = self._training.select(self._rows)
        self.captions, self.video_ids, self.files = (columns[name] for name in ("captions", "video_id", "video"))

    def training_batches(self, processor: HCMIProcessor, unreadable: UnreadableVideos) -> TrainingBatches:
        """The pairs that an epoch goes through, batch by batch; `unreadable` is told of videos that cannot be read."""
        arguments, tokenizer = self.arguments, processor.tokenizer
        frames = self._frames(processor, self._training, self._rows)
        return TrainingBatches(
            self.accelerator,
            TrainingPairs(self.captions, frames, arguments.seed, arguments.epoch_over),
            PairCollator(tokenizer, arguments.frames_per_video, tokenizer.model_max_length),
            unreadable,
            batch_size=arguments.batch_size,
            num_workers=arguments.num_workers,
            timeout=arguments.reader_timeout,
            files=self.files,
        )

    def validation_frames(self, processor: HCMIProcessor) -> FrameSource | None:
        """The frames of the videos that the model is chosen by."""
        if self.validation is None:
            return None
        return self._frames(processor, self.validation, range(len(self.validation)))

    def fingerprint(self) -> str:
        """Differs where other videos or captions are trained on, or in another order."""
        content = json.dumps([list(self.video_ids), list(self.captions)])
        return hashlib.sha256(content.encode()).hexdigest()

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

    def _frames(self, processor: HCMIProcessor, dataset: Any, rows: Sequence[int]) -> FrameSource:
        """Where the frames of some rows come from: their files, or what is kept of the whole split."""
        arguments = self.arguments
        if not arguments.candidate_frames:
            return FileFrames(processor, dataset.select(rows), arguments.frames_per_video)
        candidates: Any
        if arguments.frame_store == "none":
            candidates = DecodedCandidates(processor, dataset.select(rows), arguments.candidate_frames)
        else:
            with self.accelerator.main_process_first():
                prepared = prepare_frames(
                    dataset,
                    processor,
                    arguments.candidate_frames,
                    Path(arguments.frame_folder) if arguments.frame_folder else frame_folder(dataset),
                    num_workers=usable_cores(),
                    encoding=arguments.frame_store,
                    progress=self.accelerator.is_main_process,
                )
            candidates = PreparedCandidates(prepared.select(rows))
        return CandidateFrames(candidates, arguments.frames_per_video)


def _not_validated(training: Any, validation: Any) -> Sequence[int]:
    """The training rows whose video is not validated on: some lists contain others."""
    held_out = set() if validation is None else set(validation["video_id"])
    return [row for row, video_id in enumerate(training["video_id"]) if video_id not in held_out]
