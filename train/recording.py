"""What a run tells while it runs: to the progress bar, to the tracker, and to the history file."""

import time
from typing import Any

from tqdm.auto import tqdm

from hcmi.modeling_hcmi import LEVELS, HCMIObjective

from .history import History
from .resuming import Progress
from .tracking import Tracker

PARTS = (*LEVELS, "marginal", "mined_pairs")


class Recorder:
    """
    Means of the objective over some steps; the sums are part of the run's progress.

    Args:
        tracker, history: get the records; in the main process only.
        progress: of the run.
        bar: of the run.
        batch_size: over all processes.
    """

    def __init__(
        self, tracker: Tracker | None, history: History | None, progress: Progress, bar: tqdm, batch_size: int
    ) -> None:
        self.tracker = tracker
        self.history = history
        self.progress = progress
        self.bar = bar
        self.batch_size = batch_size
        self.start_clock()

    def start_clock(self) -> None:
        """The speed is that of the steps from now on."""
        self._since, self._timed = time.perf_counter(), 0

    def add(self, objective: HCMIObjective) -> None:
        """One more step."""
        for part in ("loss", *PARTS):
            if (value := getattr(objective, part)) is not None:
                self.progress.sums[part] = self.progress.sums.get(part, 0.0) + float(value.detach())
        self.progress.count += 1
        self._timed += 1
        self.bar.update()

    def record(self, learning_rate: float, waiting: float) -> None:
        """The means of the steps since the last record, and the share of the time that waited for data."""
        speed = self._timed * self.batch_size / (time.perf_counter() - self._since)
        step, means = self.progress.steps, {part: s / self.progress.count for part, s in self.progress.sums.items()}
        shown = {"loss": f"{means['loss']:.2f}"}
        shown |= {part.replace("_", "-"): f"{means[part]:.2f}" for part in PARTS if part in means}
        self.bar.set_postfix(shown | {"lr": f"{learning_rate:.1e}", "videos/s": f"{speed:.0f}"}, refresh=False)
        others = {"learning_rate": learning_rate, "videos_per_second": speed, "waiting_for_data": waiting}
        if self.tracker is not None:
            self.tracker.log({f"training/{part}": value for part, value in means.items()} | others, step)
        if self.history is not None:
            self.history.add("step", step=step, **means, **others)
        self.progress.sums, self.progress.count = {}, 0
        self.start_clock()

    def waited(self, epoch: int, epochs: int, share: float) -> None:
        """The share of an epoch, counted from 0, in which the run waited for data."""
        if self.history is not None:
            waited = f"{100 * share:.0f} % of the time waiting for data, {100 * (1 - share):.0f} % for the steps"
            tqdm.write(f"epoch {epoch + 1}/{epochs}: {waited}")

    def validated(self, epoch: int, epochs: int, measured: dict[str, Any]) -> dict[str, float]:
        """The validation of an epoch, counted from 0; its R@1 from text to video of each level and of all combined."""
        step = self.progress.steps
        recall = {level: figures["text_to_video"]["R@1"] for level, figures in measured["levels"].items()}
        if self.tracker is not None:
            self.tracker.log({f"validation/recall_at_1/{level}": r for level, r in recall.items()}, step)
        if self.history is not None:
            seconds = measured["seconds"]
            self.history.add("epoch", epoch=epoch + 1, step=step, recall_at_1=recall, seconds=seconds)
            shown = ", ".join(f"{level.replace('_', '-')} {value:.1f}" for level, value in recall.items())
            tqdm.write(f"epoch {epoch + 1}/{epochs}: validation R@1 {shown}")
        return recall
